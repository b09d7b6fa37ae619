/* The sequencer follows the log that somebody else wrote: replicas, recovery, replay, audit. */
#include "sequencer_state.h"

static const char *genesis_mismatch(const sequencer_t *sequencer, const genesis_t *genesis)
{
    const sequencer_config_t *config = &sequencer->config;

    if (genesis->hash_seed != config->hash_seed)
        return "Genesis has another hash_seed than the configuration";
    if (genesis->partition_count != config->partitions)
        return "Genesis has another partition count than the configuration";
    if (genesis->orders_per_partition != config->orders_per_partition)
        return "Genesis has other orders_per_partition than the configuration";
    if (genesis->accounts_max != config->accounts_max || genesis->balances_max != config->balances_max ||
        genesis->sessions_max != config->sessions_max || genesis->instruments_max != config->instruments_max ||
        genesis->keys_max != config->keys_max || genesis->assets_max != config->assets_max ||
        genesis->open_orders_per_account_max != config->open_orders_per_account_max)
        return "Genesis has other capacities than the configuration";
    return NULL;
}

/* A mark in the log: settle up to it, if the reports are there already. */
static bool follow_mark(sequencer_t *sequencer, const settled_t *mark)
{
    settlement_t *settlement = &sequencer->settlements[mark->settled_partition];
    int64_t bound = (int64_t)mark->report_seq;

    if (ring_published(settlement->ring) < bound)
        return false;
    while (settlement->applied < bound)
        (void)settle_some(sequencer, mark->settled_partition, bound, bound - settlement->applied);
    settlement->marked = bound;
    settlement->noted = bound;
    ring_advance(settlement->ring, 1, bound);
    return true;
}

enum follow {
    FOLLOW_GOES,
    FOLLOW_WAITS,
    FOLLOW_FAILS,
};

/* What the log says before a record is applied: reports it waits for, capacities and hashes it must agree with. */
static enum follow follow_record(sequencer_t *sequencer, const log_slot_t *slot)
{
    if (slot->template_id == TEMPLATE_GENESIS) {
        sequencer->error = genesis_mismatch(sequencer, (const genesis_t *)slot->block);
        return sequencer->error != NULL ? FOLLOW_FAILS : FOLLOW_GOES;
    }
    if (slot->session != 0) /* a client's: a refused record may carry any template */
        return FOLLOW_GOES;
    if (slot->template_id == TEMPLATE_SETTLED)
        return follow_mark(sequencer, (const settled_t *)slot->block) ? FOLLOW_GOES : FOLLOW_WAITS;
    if (slot->template_id == TEMPLATE_HASH_MARK) {
        const hash_mark_t *mark = (const hash_mark_t *)slot->block;
        if (mark->accounts_hash_low == (uint64_t)sequencer->accounts.hash &&
            mark->accounts_hash_high == (uint64_t)(sequencer->accounts.hash >> 64))
            return FOLLOW_GOES;
        sequencer->error = "state hash differs from the HASHMARK in the log";
        return FOLLOW_FAILS;
    }
    return FOLLOW_GOES;
}

int64_t sequencer_feed(sequencer_t *sequencer, const log_slot_t *slots, int64_t first_sequence, int64_t count)
{
    int64_t done = 0;
    enum follow follow = FOLLOW_GOES;

    INVARIANT(!sequencer->leading);
    if (first_sequence != sequencer->position) {
        sequencer->error = "records fed out of order";
        return STAGE_FAILED;
    }
    while (done < count && ring_room(sequencer->reports0, GROUP_SLOTS_MAX) >= GROUP_SLOTS_MAX) {
        const log_slot_t *slot = &slots[done];
        uint32_t linked = slots_linked(slot, count - done);
        if (linked == 0 || (follow = follow_record(sequencer, slot)) != FOLLOW_GOES)
            break;
        apply_records(sequencer, slot, linked, first_sequence + done);
        if ((slot->flags & SLOT_FLAG_LAZY) == 0)
            sequencer->busy_position = sequencer->position;
        done += linked;
    }
    if (follow == FOLLOW_FAILS)
        return STAGE_FAILED;
    /* What is fed is committed: its answers may be seen at once. */
    if (ring_published(sequencer->reports0) != sequencer->reports0->claimed)
        ring_publish(sequencer->reports0, sequencer->reports0->claimed);
    return done;
}

/* What is committed, from the ring; STAGE_LAPPED if it is no longer there: then sequencer_feed() from the files. */
static int64_t follow_log(sequencer_t *sequencer, int64_t limit)
{
    int64_t done = 0;

    while (done < limit) {
        int64_t count = ring_visible(sequencer->log) - sequencer->position;
        if (count <= 0)
            break;
        if (count > FOLLOW_BATCH)
            count = FOLLOW_BATCH;
        if (ring_read(sequencer->log, sequencer->position, count, sequencer->batch) != RING_OK)
            return done > 0 ? done : STAGE_LAPPED;
        int64_t fed = sequencer_feed(sequencer, sequencer->batch, sequencer->position, count);
        if (fed < 0)
            return fed;
        if (fed == 0)
            break;
        done += fed;
    }
    return done;
}

/* A follower's tables may be read, too. Whatever else a gateway writes before this node leads is not for it. */
static int64_t follow_queries(sequencer_t *sequencer)
{
    int64_t answered = 0;

    for (uint32_t source = 0; source < sequencer->sources_attached; source++) {
        ring_t *ring = sequencer->ingress[source];
        int64_t next = ring == NULL ? 0 : ring_cursor(ring, 0);
        int64_t end = ring == NULL ? 0 : ring_published(ring);
        for (; next < end && answers_have_room(sequencer); next++, answered++) {
            if (is_query(((const log_slot_t *)ring_slot(ring, next))->template_id))
                answer_query(sequencer, ring_slot(ring, next));
        }
        if (ring != NULL && next != ring_cursor(ring, 0))
            ring_advance(ring, 0, next);
    }
    if (answered != 0)
        answers_release(sequencer);
    return answered;
}

int64_t follow_poll(sequencer_t *sequencer, int64_t limit)
{
    int64_t done = follow_log(sequencer, limit);
    return done < 0 ? done : done + follow_queries(sequencer);
}
