/* The journaler's second thread: zeroed segments two ahead (J7) and durable.mark (J5), both off the acknowledgement path. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "journal_internal.h"

#define KEEPER_CHUNK (1u << 20)
#define RETRY_NS UINT64_C(200000000)

void keeper_store_durable(journaler_t *journaler)
{
    position_mailbox_t *mailbox = &journaler->durable;
    const journal_position_t *position = &journaler->position;
    const uint64_t values[7] = {position->sequence, position->epoch,         position->batch, position->log_hash,
                                position->crc,      position->segment_first, position->offset};
    uint64_t version = atomic_load_explicit(&mailbox->version, memory_order_relaxed);

    atomic_store_explicit(&mailbox->version, version + 1, memory_order_relaxed);
    /* Release on each field: the odd version is seen no later than any of them. Pairs with the acquires in load_durable(). */
    for (int i = 0; i < 7; i++)
        atomic_store_explicit(&mailbox->field[i], values[i], memory_order_release);
    atomic_store_explicit(&mailbox->version, version + 2, memory_order_release);
}

/* False if the stage was just changing it: the next round will do. */
static int load_durable(journaler_t *journaler, journal_position_t *position)
{
    position_mailbox_t *mailbox = &journaler->durable;
    uint64_t value[7];
    uint64_t version = atomic_load_explicit(&mailbox->version, memory_order_acquire);

    for (int i = 0; i < 7; i++)
        value[i] = atomic_load_explicit(&mailbox->field[i], memory_order_acquire);
    if ((version & 1) != 0 || atomic_load_explicit(&mailbox->version, memory_order_relaxed) != version)
        return 0;
    *position = (journal_position_t){value[0], value[1], value[2], value[3], value[4], value[5], value[6]};
    return 1;
}

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

static void mark_step(journaler_t *journaler)
{
    journal_position_t position;

    if (load_durable(journaler, &position) && position.sequence != journaler->mark_sequence)
        write_mark(journaler, &position);
}

/* ---- segments ---------------------------------------------------------------------------------------------------- */

static int disk_full(int error)
{
    return error == ENOSPC || error == EDQUOT;
}

/* Mode D0 syncs nothing, so written zeros would save nothing: the space is only reserved. Returns as zero_fill(). */
static int reserve(journaler_t *journaler, int fd)
{
    int error = posix_fallocate(fd, 0, (off_t)journaler->config.segment_size);
    if (error != 0 && !disk_full(error))
        journal_panic(journaler, "reserving a segment", error);
    return error;
}

/* Write zeros over the whole file, chunk by chunk, each synced: a big flush would stand before the stage's small ones.
 * Returns 0, an errno of a full disk, or -1 if told to stop. */
static int zero_fill(journaler_t *journaler, int fd, const uint8_t *zero)
{
    for (uint64_t offset = 0; offset < journaler->config.segment_size; offset += KEEPER_CHUNK) {
        uint64_t left = journaler->config.segment_size - offset;
        size_t size = left < KEEPER_CHUNK ? (size_t)left : KEEPER_CHUNK;
        errno = 0;
        ssize_t written = pwrite(fd, zero, size, (off_t)offset);
        if (written != (ssize_t)size) {
            int error = written >= 0 ? ENOSPC : errno;
            if (!disk_full(error))
                journal_panic(journaler, "zero-filling a segment", error);
            return error;
        }
        if (fdatasync(fd) != 0) {
            if (!disk_full(errno))
                journal_panic(journaler, "fdatasync of a segment being prepared", errno);
            return errno;
        }
        mark_step(journaler);
        if (atomic_load_explicit(&journaler->stop, memory_order_acquire))
            return -1;
    }
    return 0;
}

static void prepare(journaler_t *journaler, unsigned number, const uint8_t *zero)
{
    char name[JOURNAL_NAME_MAX];
    char temporary[JOURNAL_NAME_MAX];
    struct stat status;

    snprintf(name, sizeof name, SPARE_NAME_FORMAT, number);
    snprintf(temporary, sizeof temporary, SPARE_NAME_FORMAT ".tmp", number);
    /* A spare left by an earlier run is whole: it got its name only when it was. */
    int fd = openat(journaler->directory_fd, name, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &status) == 0 && (uint64_t)status.st_size == journaler->config.segment_size) {
        atomic_store_explicit(&journaler->spare_fd[number], fd, memory_order_release);
        return;
    }
    if (fd >= 0)
        close(fd);
    fd = openat(journaler->directory_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int error = fd < 0 ? errno : journaler->config.sync ? zero_fill(journaler, fd, zero) : reserve(journaler, fd);
    if (error == 0 && renameat(journaler->directory_fd, temporary, journaler->directory_fd, name) != 0)
        error = errno;
    if (error == 0 && fsync(journaler->directory_fd) != 0)
        journal_panic(journaler, "fsync of the journal directory", errno);
    if (error == 0) {
        atomic_store_explicit(&journaler->halted, 0, memory_order_release);
        atomic_fetch_add_explicit(&journaler->prepared, 1, memory_order_relaxed);
        /* Release: the file is whole before the stage can take it. */
        atomic_store_explicit(&journaler->spare_fd[number], fd, memory_order_release);
        return;
    }
    if (fd >= 0)
        close(fd);
    (void)unlinkat(journaler->directory_fd, temporary, 0);
    if (error < 0)
        return;
    if (!disk_full(error))
        journal_panic(journaler, "preparing a segment", error);
    atomic_store_explicit(&journaler->halted, error, memory_order_release);
}

int keeper_take(journaler_t *journaler, unsigned *number)
{
    for (unsigned i = 0; i < journaler->config.spares; i++) {
        int fd = atomic_load_explicit(&journaler->spare_fd[i], memory_order_acquire);
        if (fd != SPARE_EMPTY) {
            *number = i;
            return fd;
        }
    }
    return SPARE_EMPTY;
}

static void *keeper_main(void *argument)
{
    journaler_t *journaler = argument;
    uint8_t *zero = calloc(1, KEEPER_CHUNK);
    uint64_t retry_ns = 0;

    if (zero == NULL)
        journal_panic(journaler, "memory for zeroes", ENOMEM);
    while (!atomic_load_explicit(&journaler->stop, memory_order_acquire)) {
        mark_step(journaler);
        for (unsigned i = 0; i < journaler->config.spares; i++) {
            if (atomic_load_explicit(&journaler->spare_fd[i], memory_order_acquire) != SPARE_EMPTY)
                continue;
            if (journal_clock(CLOCK_MONOTONIC) < retry_ns)
                break;
            prepare(journaler, i, zero);
            if (atomic_load_explicit(&journaler->halted, memory_order_relaxed) != 0)
                retry_ns = journal_clock(CLOCK_MONOTONIC) + RETRY_NS;
        }
        nanosleep(&(struct timespec){.tv_nsec = (long)(journaler->config.mark_interval_ns / 2)}, NULL);
    }
    free(zero);
    return NULL;
}

int keeper_start(journaler_t *journaler)
{
    journaler->mark_fd = openat(journaler->directory_fd, "durable.mark", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (journaler->mark_fd < 0)
        return -1;
    /* The first mark before the first record: from now on a journal without a mark is a damaged one. */
    write_mark(journaler, &journaler->position);
    if (fsync(journaler->directory_fd) != 0)
        return -1;
    int error = pthread_create(&journaler->keeper, NULL, keeper_main, journaler);
    if (error != 0) {
        errno = error;
        return -1;
    }
    journaler->keeper_started = 1;
    return 0;
}

void keeper_stop(journaler_t *journaler)
{
    if (!journaler->keeper_started)
        return;
    atomic_store_explicit(&journaler->stop, 1, memory_order_release);
    pthread_join(journaler->keeper, NULL);
    journaler->keeper_started = 0;
    mark_step(journaler);
    close(journaler->mark_fd);
    for (unsigned i = 0; i < journaler->config.spares; i++) {
        int fd = atomic_load_explicit(&journaler->spare_fd[i], memory_order_relaxed);
        if (fd != SPARE_EMPTY)
            close(fd);
    }
}
