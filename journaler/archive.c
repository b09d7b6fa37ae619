/* The report archive: one flat file a partition, a report's place is its sequence. Not synced: a report can always be made again
 * from the log, so a tail lost with the power is regenerated, never missed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "journal_internal.h"

#define ARCHIVE_SLOTS_MAX 8192

int journaler_add_reports(journaler_t *journaler, int partition, ring_t *ring, int64_t start)
{
    char name[JOURNAL_NAME_MAX];
    report_archive_t *archive = &journaler->archives[journaler->archive_count];

    INVARIANT(journaler->archive_count < JOURNAL_PARTITIONS_MAX && ring->slot_size == JOURNAL_SLOT_SIZE);
    snprintf(name, sizeof name, "reports/%d", partition);
    if (mkdirat(journaler->directory_fd, "reports", 0700) != 0 && errno != EEXIST)
        return -1;
    archive->fd = openat(journaler->directory_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (archive->fd < 0)
        return -1;
    archive->ring = ring;
    archive->next = start;
    archive->partition = partition;
    journaler->archive_count++;
    ring_gate(ring, JOURNAL_CONSUMER, start);
    return 0;
}

static int64_t archive_one(journaler_t *journaler, report_archive_t *archive, int log_busy)
{
    struct iovec parts[2];
    ring_t *ring = archive->ring;
    int64_t count = ring_published(ring) - archive->next;

    /* While orders wait for the disk reports may wait too, as long as their producer has room. */
    if (count <= 0 || (log_busy && count < ring_capacity(ring) / 4))
        return 0;
    if (count > ARCHIVE_SLOTS_MAX)
        count = ARCHIVE_SLOTS_MAX;
    int64_t head = ring_capacity(ring) - (int64_t)((uint64_t)archive->next & ring->mask);
    int64_t before_wrap = count < head ? count : head;
    parts[0].iov_base = ring_slot(ring, archive->next);
    parts[0].iov_len = (size_t)before_wrap * JOURNAL_SLOT_SIZE;
    parts[1].iov_base = ring_slot(ring, archive->next + before_wrap);
    parts[1].iov_len = (size_t)(count - before_wrap) * JOURNAL_SLOT_SIZE;
    errno = 0;
    ssize_t written = pwritev(archive->fd, parts, before_wrap < count ? 2 : 1, (off_t)archive->next * JOURNAL_SLOT_SIZE);
    if (written != (ssize_t)(count * JOURNAL_SLOT_SIZE))
        journal_panic(journaler, "pwritev of the report archive", errno);
    archive->next += count;
    journaler->stats.archived += (uint64_t)count;
    ring_advance(ring, JOURNAL_CONSUMER, archive->next);
    return count;
}

int64_t archive_step(journaler_t *journaler, int log_busy)
{
    int64_t done = 0;

    for (int i = 0; i < journaler->archive_count; i++)
        done += archive_one(journaler, &journaler->archives[i], log_busy);
    return done;
}

void archive_close(journaler_t *journaler)
{
    for (int i = 0; i < journaler->archive_count; i++) {
        if (fdatasync(journaler->archives[i].fd) != 0)
            journal_panic(journaler, "fdatasync of the report archive", errno);
        close(journaler->archives[i].fd);
    }
    journaler->archive_count = 0;
}
