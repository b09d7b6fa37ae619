/* The archives of what matchers write: one flat file a partition for reports and one for market data, a slot's place is its ring
 * index. Not synced: everything in them can be made again from the log, so a tail lost with the power is regenerated, never missed.
 *
 * The report rings wait for their archive. The market rings wait for nobody (CORE K1): their slots are copied out, looked at once
 * more, and only then written; what was overwritten before is skipped and stays a hole of zeros, unless an earlier run of the
 * same history has written it: a recovery makes the same slots again. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "journal_internal.h"

#define ARCHIVE_SLOTS_MAX 8192
#define MARKET_SLOTS_MAX 2048
#define MARKET_BATCHES_A_STEP 8
#define GATHERED_SLOTS 1024 /* so many are worth a write of their own */

static archive_t *archive_add(journaler_t *journaler, const char *folder, int partition, ring_t *ring, int64_t start)
{
    char name[JOURNAL_NAME_MAX];
    archive_t *archive = &journaler->archives[journaler->archive_count];

    INVARIANT(journaler->archive_count < JOURNAL_ARCHIVES_MAX);
    snprintf(name, sizeof name, "%s/%d", folder, partition);
    if (mkdirat(journaler->directory_fd, folder, 0700) != 0 && errno != EEXIST)
        return NULL;
    archive->fd = openat(journaler->directory_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (archive->fd < 0)
        return NULL;
    archive->ring = ring;
    archive->next = start;
    archive->since_ns = 0;
    archive->copy = NULL;
    journaler->archive_count++;
    return archive;
}

int journaler_add_reports(journaler_t *journaler, int partition, ring_t *ring, int64_t start)
{
    INVARIANT(ring->slot_size == JOURNAL_SLOT_SIZE);
    if (archive_add(journaler, "reports", partition, ring, start) == NULL)
        return -1;
    ring_gate(ring, JOURNAL_CONSUMER, start);
    return 0;
}

int journaler_add_market(journaler_t *journaler, int partition, ring_t *ring, int64_t start)
{
    archive_t *archive = archive_add(journaler, "market", partition, ring, start);
    if (archive == NULL)
        return -1;
    archive->copy = malloc(MARKET_SLOTS_MAX * ring->slot_size);
    return archive->copy != NULL ? 0 : -1;
}

/* Up to a quarter of the ring archives may wait: while orders wait for the disk, and a moment for company, since a write of one slot
 * takes as long as one of many, and the next order would have to wait for it. Returns slots to be written now. */
static int64_t archive_due(const journaler_t *journaler, archive_t *archive, enum archive_when when, int64_t limit)
{
    int64_t count = ring_published(archive->ring) - archive->next;

    if (count <= 0)
        return 0;
    if (when != ARCHIVE_ALL && count < ring_capacity(archive->ring) / 4) {
        if (when == ARCHIVE_PRESSED)
            return 0;
        if (journaler->config.archive_lag_ns != 0 && count < GATHERED_SLOTS) {
            uint64_t now = journal_clock(CLOCK_MONOTONIC);
            if (archive->since_ns == 0)
                archive->since_ns = now;
            if (now - archive->since_ns < journaler->config.archive_lag_ns)
                return 0;
        }
    }
    archive->since_ns = 0;
    return count < limit ? count : limit;
}

static int64_t archive_reports(journaler_t *journaler, archive_t *archive, enum archive_when when)
{
    struct iovec parts[2];
    ring_t *ring = archive->ring;
    int64_t count = archive_due(journaler, archive, when, ARCHIVE_SLOTS_MAX);

    if (count == 0)
        return 0;
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

/* Go on where the ring still has slots. What an earlier run has written is not lost. */
static void market_skip(journaler_t *journaler, archive_t *archive)
{
    const ring_header_t *header = archive->ring->header;
    int64_t oldest = atomic_load_explicit(&header->claim, memory_order_relaxed) - ring_capacity(archive->ring);
    int64_t end = (int64_t)(lseek(archive->fd, 0, SEEK_END) / (off_t)archive->ring->slot_size);
    int64_t first_missing = end > archive->next ? end : archive->next;
    /* Some further on, so that the next copy is not overtaken again at once. */
    oldest += ring_capacity(archive->ring) / 8;
    if (oldest > ring_published(archive->ring))
        oldest = ring_published(archive->ring);
    if (oldest > first_missing)
        journaler->stats.market_lost += (uint64_t)(oldest - first_missing);
    archive->next = oldest > archive->next ? oldest : archive->next;
}

static int64_t archive_market(journaler_t *journaler, archive_t *archive, enum archive_when when)
{
    size_t slot_size = archive->ring->slot_size;
    int64_t limit = ring_capacity(archive->ring) < MARKET_SLOTS_MAX ? ring_capacity(archive->ring) : MARKET_SLOTS_MAX;
    int64_t done = 0;

    for (int i = 0; i < MARKET_BATCHES_A_STEP; i++) {
        int64_t count = archive_due(journaler, archive, when, limit);
        if (count == 0)
            break;
        if (ring_read(archive->ring, archive->next, count, archive->copy) != RING_OK) {
            market_skip(journaler, archive);
            continue;
        }
        errno = 0;
        ssize_t written = pwrite(archive->fd, archive->copy, (size_t)count * slot_size, (off_t)archive->next * (off_t)slot_size);
        if (written != (ssize_t)((size_t)count * slot_size))
            journal_panic(journaler, "pwrite of the market archive", errno);
        archive->next += count;
        journaler->stats.market_archived += (uint64_t)count;
        done += count;
    }
    return done;
}

int64_t archive_step(journaler_t *journaler, enum archive_when when)
{
    int64_t done = 0;

    for (int i = 0; i < journaler->archive_count; i++) {
        archive_t *archive = &journaler->archives[i];
        done += archive->copy == NULL ? archive_reports(journaler, archive, when) : archive_market(journaler, archive, when);
    }
    return done;
}

int64_t journaler_market_next(const journaler_t *journaler, const ring_t *ring)
{
    for (int i = 0; i < journaler->archive_count; i++)
        if (journaler->archives[i].ring == ring)
            return journaler->archives[i].next;
    return 0;
}

void archive_close(journaler_t *journaler)
{
    for (int i = 0; i < journaler->archive_count; i++) {
        if (fdatasync(journaler->archives[i].fd) != 0)
            journal_panic(journaler, "fdatasync of an archive", errno);
        close(journaler->archives[i].fd);
        free(journaler->archives[i].copy);
    }
    journaler->archive_count = 0;
}
