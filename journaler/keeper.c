/* durable.mark, written behind (J5): what tells a damaged end of the journal from a torn one. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "crc32c.h"
#include "journal_internal.h"

static void write_mark(journaler_t *journaler, const journal_position_t *position)
{
    mark_slot_t *mark = &journaler->mark;
    uint64_t counter = ++journaler->mark_counter;

    memset(mark, 0, sizeof *mark);
    mark->magic = MARK_MAGIC;
    mark->format = JOURNAL_FORMAT;
    mark->counter = counter;
    mark->sequence = position->sequence;
    mark->epoch = position->epoch;
    mark->batch = position->batch;
    mark->log_hash = position->log_hash;
    mark->crc = (uint32_t)position->crc;
    mark->node = journaler->config.node;
    mark->cluster = journaler->config.cluster;
    mark->segment_first = position->segment_first;
    mark->offset = position->offset;
    mark->ts_ns = journal_clock(CLOCK_REALTIME);
    mark->crc32c = crc32c(mark, sizeof *mark, 0);
    errno = 0;
    if (pwrite(journaler->mark_fd, mark, sizeof *mark, (off_t)((counter & 1) * MARK_SLOT_SIZE)) != (ssize_t)sizeof *mark)
        journal_panic(journaler, "write of durable.mark", errno);
    if (fdatasync(journaler->mark_fd) != 0)
        journal_panic(journaler, "fdatasync of durable.mark", errno);
    journaler->mark_sequence = position->sequence;
    atomic_fetch_add_explicit(&journaler->marks, 1, memory_order_relaxed);
}

/* Everything synced by now may have waited since the look before this one. */
static void mark_step(journaler_t *journaler, uint64_t looked_before_ns)
{
    journal_position_t position;

    if (!durable_load(journaler, &position) || position.sequence == journaler->mark_sequence)
        return;
    write_mark(journaler, &position);
    uint64_t behind = journal_clock(CLOCK_MONOTONIC) - looked_before_ns;
    if (behind > atomic_load_explicit(&journaler->mark_behind_ns_max, memory_order_relaxed))
        atomic_store_explicit(&journaler->mark_behind_ns_max, behind, memory_order_relaxed);
}

void *keeper_main(void *argument)
{
    journaler_t *journaler = argument;
    uint64_t looked_ns = journal_clock(CLOCK_MONOTONIC);

    while (!helper_pause(journaler, journaler->config.mark_interval_ns / 2)) {
        uint64_t now_ns = journal_clock(CLOCK_MONOTONIC);
        mark_step(journaler, looked_ns);
        looked_ns = now_ns;
    }
    return NULL;
}

int keeper_open(journaler_t *journaler)
{
    journaler->mark_fd = openat(journaler->directory_fd, "durable.mark", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (journaler->mark_fd < 0)
        return -1;
    /* The first mark before the first record: from now on a journal without a mark is a damaged one. */
    write_mark(journaler, &journaler->position);
    return fsync(journaler->directory_fd);
}

void keeper_close(journaler_t *journaler)
{
    if (journaler->mark_fd < 0)
        return;
    mark_step(journaler, journal_clock(CLOCK_MONOTONIC));
    close(journaler->mark_fd);
    journaler->mark_fd = -1;
}
