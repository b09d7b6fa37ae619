#include "chain.h"

void journal_chain_extend(journal_chain_t *chain, const uint8_t *slots, int64_t count)
{
    chain->log_hash = journal_log_hash(chain->log_hash, chain->sequence, chain->epoch, slots, count);
    for (int64_t i = 0; i < count; i++)
        chain->epoch = log_epoch_after((const log_slot_t *)(const void *)(slots + (uint64_t)i * JOURNAL_SLOT_SIZE), chain->epoch);
    chain->sequence += (uint64_t)count;
}

uint32_t journal_chain_at(journal_walk_t *walk, const uint8_t *segment, uint64_t size, uint64_t sequence,
                          journal_chain_t *chain)
{
    for (;;) {
        *chain = (journal_chain_t){walk->sequence, walk->epoch, walk->log_hash};
        if (walk->sequence >= sequence)
            return WALK_ROOM;
        uint64_t batch = walk->offset;
        walk->want = walk->sequence;
        (void)journal_walk(walk, segment, size, walk->sequence + 1, NULL, 0);
        if (walk->stop != WALK_ROOM)
            return walk->stop;
        if (walk->sequence > sequence) {
            journal_chain_extend(chain, segment + batch + BATCH_HEADER_SIZE, (int64_t)(sequence - chain->sequence));
            return WALK_ROOM;
        }
        walk->held = 0;
    }
}

int64_t journal_copy(const ring_t *ring, int64_t sequence, int64_t end, uint8_t *out, int64_t slots_max)
{
    int64_t count = end - sequence;

    INVARIANT(end <= ring_published(ring));
    if (count <= 0)
        return 0;
    if (count > ring_capacity(ring))
        return RING_LAPPED;
    if (count > slots_max)
        count = slots_max;
    if (ring_read(ring, sequence, count, out) != RING_OK)
        return RING_LAPPED;
    return journal_whole_groups(out, count);
}

int64_t journal_select(const ring_t *ring, int64_t *sequence, int64_t end, uint16_t template_id, uint8_t *out,
                       int64_t slots_max)
{
    int64_t found = 0;

    while (*sequence < end && found < slots_max) {
        report_slot_t slot;
        /* Only the template is looked at in place; what it says counts only if the slot was still there. */
        const report_slot_t *place = ring_slot(ring, *sequence);
        uint16_t seen = place->template_id;
        if (seen == template_id && ring_read(ring, *sequence, 1, &slot) == RING_OK && slot.template_id == template_id)
            memcpy(out + (uint64_t)found++ * JOURNAL_SLOT_SIZE, &slot, sizeof slot);
        ++*sequence;
    }
    return found;
}
