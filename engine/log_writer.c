/* The sequencer writes the log: records of its own and commands, each applied as it is written, published a few at a time. */
#include "sequencer_state.h"

#include <time.h>

#define MARK_SLOTS PARTITIONS_MAX /* worst case of marks before a command */

uint64_t log_now(const sequencer_t *sequencer)
{
    struct timespec now;

    if (sequencer->fixed_time != 0)
        return sequencer->fixed_time;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

uint64_t log_stamp(const sequencer_t *sequencer, uint64_t now)
{
    return now > sequencer->last_ts ? now : sequencer->last_ts + 1;
}

/* A standby that lags holds commit back: no more than the ring takes is ever written ahead of it (Z4). Commit is the journaler's
 * cache line: it is read only when what was seen of it last does not do. */
static bool far_ahead(sequencer_t *sequencer, int64_t worst)
{
    const int64_t bound = sequencer->position + worst - ring_capacity(sequencer->log);

    if (sequencer->log->header->mode != RING_MODE_DURABLE || sequencer->commit_cached >= bound)
        return false;
    sequencer->commit_cached = ring_commit(sequencer->log);
    return sequencer->commit_cached < bound;
}

bool log_has_room(sequencer_t *sequencer)
{
    const int64_t worst = MARK_SLOTS + GROUP_SLOTS_MAX + 2;

    if (far_ahead(sequencer, worst) || ring_room(sequencer->log, worst) < worst) {
        sequencer->counters[SEQUENCER_LOG_FULL]++;
        return false;
    }
    return answers_have_room(sequencer);
}

/* The next log slot, zeroed and stamped; the caller fills in the rest and calls log_seal(). Room was checked. */
log_slot_t *log_open(sequencer_t *sequencer, uint16_t template_id, uint64_t now)
{
    int64_t sequence = ring_claim(sequencer->log, 1);
    INVARIANT(sequence == sequencer->position);
    log_slot_t *slot = ring_slot(sequencer->log, sequence);

    *slot = (log_slot_t){.template_id = template_id, .ts_ns = log_stamp(sequencer, now)};
    return slot;
}

void log_seal(sequencer_t *sequencer, const log_slot_t *slot)
{
    apply_records(sequencer, slot, 1, sequencer->position);
    if ((slot->flags & SLOT_FLAG_LAZY) == 0)
        sequencer->busy_position = sequencer->position;
}

/* Several records, linked or not, whose verdicts stand in them. */
void log_append(sequencer_t *sequencer, const log_slot_t *slots, uint32_t count)
{
    uint32_t first = 0;

    for (uint32_t i = 0; i < count; i++) {
        int64_t sequence = ring_claim(sequencer->log, 1);
        INVARIANT(sequence == sequencer->position + i);
        *(log_slot_t *)ring_slot(sequencer->log, sequence) = slots[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        if ((slots[i].flags & SLOT_FLAG_MORE) != 0)
            continue;
        apply_records(sequencer, &slots[first], i + 1 - first, sequencer->position);
        first = i + 1;
    }
    INVARIANT(first == count);
    sequencer->busy_position = sequencer->position;
}

void log_publish(sequencer_t *sequencer)
{
    ring_t *log = sequencer->log;

    /* Before pub: the journaler that sees the records must see that they are wanted. */
    atomic_store_explicit(&log->header->wanted, sequencer->busy_position, memory_order_relaxed);
    ring_publish(log, sequencer->position);
}

void log_marks(sequencer_t *sequencer, uint64_t now)
{
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        settlement_t *settlement = &sequencer->settlements[partition];
        if (settlement->applied == settlement->marked)
            continue;
        log_slot_t *slot = log_open(sequencer, TEMPLATE_SETTLED, now);
        settled_t *mark = (settled_t *)slot->block;
        mark->report_seq = (uint64_t)settlement->applied;
        mark->settled_partition = (uint8_t)partition;
        slot->partition = PARTITION_ALL;
        slot->flags = SLOT_FLAG_LAZY;
        settlement->marked = settlement->applied;
        sequencer->counters[SEQUENCER_MARKS]++;
        log_seal(sequencer, slot);
    }
}

void log_genesis(sequencer_t *sequencer, uint64_t now)
{
    log_slot_t *slot = log_open(sequencer, TEMPLATE_GENESIS, now);
    const sequencer_config_t *config = &sequencer->config;

    *(genesis_t *)slot->block = (genesis_t){
        .cluster_id = config->cluster_id,
        .hash_seed = config->hash_seed,
        .partition_count = config->partitions,
        .orders_per_partition = config->orders_per_partition,
        .accounts_max = config->accounts_max,
        .balances_max = config->balances_max,
        .sessions_max = config->sessions_max,
        .instruments_max = config->instruments_max,
        .keys_max = config->keys_max,
        .assets_max = config->assets_max,
        .open_orders_per_account_max = config->open_orders_per_account_max,
    };
    log_seal(sequencer, slot);
}

void log_source_open(sequencer_t *sequencer, uint16_t source, uint64_t now)
{
    log_slot_t *slot = log_open(sequencer, TEMPLATE_SOURCE_OPEN, now);
    int64_t base = atomic_load_explicit(&sequencer->ingress[source]->header->consumers[0].cursor, memory_order_acquire);

    ((source_open_t *)slot->block)->base = (uint64_t)base;
    ((source_open_t *)slot->block)->source = source;
    sequencer->ingress_next[source] = base;
    sequencer->ingress_noted[source] = base;
    log_seal(sequencer, slot);
}

/* ---- what is due without a command ------------------------------------------------------------------------------------- */

static bool marks_overdue(const sequencer_t *sequencer)
{
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        const settlement_t *settlement = &sequencer->settlements[partition];
        if (settlement->applied - settlement->marked > sequencer->marks_due_at)
            return true;
    }
    return false;
}

static bool marks_pending(const sequencer_t *sequencer)
{
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++)
        if (sequencer->settlements[partition].applied != sequencer->settlements[partition].marked)
            return true;
    return false;
}

static void write_tick(sequencer_t *sequencer, uint64_t now)
{
    log_slot_t *slot = log_open(sequencer, TEMPLATE_TICK, now);

    ((tick_t *)slot->block)->now = now;
    slot->partition = PARTITION_ALL;
    slot->flags = SLOT_FLAG_LAZY;
    log_seal(sequencer, slot);
}

static void write_hash_mark(sequencer_t *sequencer, uint64_t now)
{
    log_slot_t *slot = log_open(sequencer, TEMPLATE_HASH_MARK, now);
    hash_mark_t *mark = (hash_mark_t *)slot->block;
    bool conserved = true;

    for (uint32_t asset = 1; asset <= sequencer->registry.assets_used; asset++)
        conserved &= sequencer->accounts.asset_totals[asset] == sequencer->registry.assets[asset].external_units;
    INVARIANT(conserved);
    mark->accounts_hash_low = (uint64_t)sequencer->accounts.hash;
    mark->accounts_hash_high = (uint64_t)(sequencer->accounts.hash >> 64);
    mark->mark_index = sequencer->mark_index + 1;
    mark->conservation_ok = conserved;
    slot->partition = PARTITION_ALL;
    slot->flags = SLOT_FLAG_LAZY;
    log_seal(sequencer, slot);
}

/* A matcher is away, or back: its pairs are paused, or taken again. */
static void write_pause(sequencer_t *sequencer, uint8_t partition, bool paused, uint64_t now)
{
    log_slot_t *slot = log_open(sequencer, paused ? TEMPLATE_PAIRS_PAUSED : TEMPLATE_PAIRS_RESUMED, now);

    slot->block[0] = partition;
    slot->partition = PARTITION_ALL;
    log_seal(sequencer, slot);
}

_Static_assert(offsetof(pairs_paused_t, paused_partition) == 0 && offsetof(pairs_resumed_t, resumed_partition) == 0,
               "write_pause()");

/* Partitions whose report ring says otherwise than the log. */
static uint64_t pauses_due(const sequencer_t *sequencer)
{
    uint64_t away = 0;

    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++)
        away |= (uint64_t)ring_away(sequencer->settlements[partition].ring) << partition;
    return away ^ sequencer->paused;
}

/* Marks, ticks, hash marks and pauses that are due without a command. */
int64_t log_keep_time(sequencer_t *sequencer, uint64_t now)
{
    bool busy = sequencer->busy_position > sequencer->last_hash_position || marks_pending(sequencer);
    uint64_t tick_every = busy || sequencer->timed > 0 || sequencer->disconnects.waiting > 0 ? TICK_BUSY_NS : TICK_IDLE_NS;
    int64_t before = sequencer->position;

    if (!log_has_room(sequencer))
        return 0;
    uint64_t pauses = pauses_due(sequencer);
    if (marks_overdue(sequencer) || pauses != 0)
        log_marks(sequencer, now);
    if (pauses != 0) {
        uint8_t partition = (uint8_t)__builtin_ctzll(pauses);
        write_pause(sequencer, partition, !partition_is_paused(sequencer, partition), now);
    }
    if (now >= sequencer->last_tick_ts + tick_every) {
        log_marks(sequencer, now);
        write_tick(sequencer, now);
        if (busy && now >= sequencer->last_hash_ts + HASH_MARK_NS)
            write_hash_mark(sequencer, now);
    }
    return sequencer->position - before;
}
