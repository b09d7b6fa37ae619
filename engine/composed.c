#include "composed.h"

#include "ringbuf/include/orders.h"

#define POLL_LIMIT 1024

int64_t composed_run(sequencer_t *sequencer, matcher_t **matchers, int64_t count)
{
    int64_t total = 0;

    /* Ends: every unit of work consumes a command, a report or a record, and idle stages make none. */
    for (;;) {
        int64_t work = sequencer_poll(sequencer, POLL_LIMIT);
        if (work < 0)
            return work;
        for (int64_t i = 0; i < count; i++) {
            int64_t done = matcher_poll(matchers[i], POLL_LIMIT);
            if (done < 0)
                return done;
            work += done;
        }
        if (work == 0)
            return total;
        total += work;
    }
}

static int64_t feed_matchers(matcher_t **matchers, int64_t count, const log_slot_t *slots, int64_t first, int64_t end,
                             int64_t *slowest)
{
    int64_t work = 0;

    for (int64_t i = 0; i < count; i++) {
        int64_t position = matcher_position(matchers[i]);
        if (position < end || !matcher_idle(matchers[i])) {
            int64_t done = matcher_feed(matchers[i], slots + (position - first), position, end - position);
            if (done < 0)
                return done;
            work += done;
            position = matcher_position(matchers[i]);
        }
        *slowest = position < *slowest ? position : *slowest;
    }
    return work;
}

int64_t composed_feed(sequencer_t *sequencer, matcher_t **matchers, int64_t count, const log_slot_t *slots, int64_t first,
                      int64_t slot_count)
{
    int64_t end = first + slot_count;

    for (;;) {
        int64_t slowest = end;
        int64_t work = feed_matchers(matchers, count, slots, first, end, &slowest);
        if (work < 0)
            return work;
        int64_t position = sequencer_position(sequencer);
        if (position < end) {
            int64_t done = sequencer_feed(sequencer, slots + (position - first), position, end - position);
            if (done < 0)
                return done;
            work += done;
            position += done;
        }
        slowest = position < slowest ? position : slowest;
        if (work == 0)
            return slowest - first;
    }
}

int64_t composed_feed_watched(sequencer_t *sequencer, matcher_t **matchers, int64_t count, const log_slot_t *slots, int64_t first,
                              int64_t slot_count, uint32_t account, bool *changed)
{
    uint64_t before = sequencer_balance_changes(sequencer, account);
    int64_t done = 0;

    *changed = false;
    while (done < slot_count && !*changed) {
        int64_t group = slots_linked(slots + done, slot_count - done);
        if (group == 0) /* its rest comes with the next slots */
            break;
        int64_t step = composed_feed(sequencer, matchers, count, slots + done, first + done, group);
        if (step < 0)
            return step;
        done += step;
        *changed = sequencer_balance_changes(sequencer, account) != before;
        if (step < group)
            break;
    }
    return done;
}

void composed_scan_marks(const log_slot_t *slots, int64_t count, int64_t *settled, int64_t partitions)
{
    for (int64_t i = 0; i < count; i++) {
        if (slots[i].template_id != TEMPLATE_SETTLED || slots[i].session != 0)
            continue;
        const settled_t *mark = (const settled_t *)slots[i].block;
        if (mark->settled_partition <= partitions)
            settled[mark->settled_partition] = (int64_t)mark->report_seq;
    }
}
