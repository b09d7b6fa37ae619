/* Zeroed segments, some ahead (J7): temporary name, zeros written and synced, final name, directory synced. Written zeros, not
 * reserved space: a sync of a batch then changes no metadata, and can never find the disk full. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal_internal.h"

#define CHUNK (1u << 20)
#define IDLE_NS UINT64_C(10000000)
#define RETRY_NS UINT64_C(200000000)
#define PAUSE_NS_MAX UINT64_C(20000000)
#define STOPPED (-1)

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

static int write_chunk(journaler_t *journaler, int fd, const uint8_t *zero, size_t size, uint64_t offset)
{
    errno = 0;
    ssize_t written = pwrite(fd, zero, size, (off_t)offset);
    if (written != (ssize_t)size) {
        int error = written >= 0 ? ENOSPC : errno;
        if (!disk_full(error))
            journal_panic(journaler, "zero-filling a segment", error);
        return error;
    }
    if (fdatasync(fd) == 0)
        return 0;
    if (!disk_full(errno))
        journal_panic(journaler, "fdatasync of a segment being prepared", errno);
    return errno;
}

/* Leave the disk to the stage for a while; not when the stage has nothing left to go on with. */
static int leave_alone(journaler_t *journaler, uint64_t ns)
{
    while (ns > 0 && prepare_count(journaler) > 0) {
        uint64_t slice = ns < PAUSE_NS_MAX ? ns : PAUSE_NS_MAX;
        if (helper_pause(journaler, slice))
            return STOPPED;
        ns -= slice;
    }
    return atomic_load_explicit(&journaler->stop, memory_order_acquire) ? STOPPED : 0;
}

/* Write zeros over the whole file, chunk by chunk, each synced: a big flush would stand before the stage's small ones.
 * Returns 0, an errno of a full disk, or STOPPED. */
static int zero_fill(journaler_t *journaler, int fd, const uint8_t *zero)
{
    const uint64_t size = journaler->config.segment_size;

    for (uint64_t offset = 0; offset < size; offset += CHUNK) {
        uint64_t began = journal_clock(CLOCK_MONOTONIC);
        int error = write_chunk(journaler, fd, zero, size - offset < CHUNK ? (size_t)(size - offset) : CHUNK, offset);
        if (error == 0)
            error = leave_alone(journaler, (journal_clock(CLOCK_MONOTONIC) - began) * journaler->config.prepare_pause);
        if (error != 0)
            return error;
    }
    return 0;
}

/* A spare of an earlier run got its name only when it was whole. Reading it through makes sure that it is all zero, and brings
 * it into memory: the first write to a page that is not there would wait for the disk. */
static int usable(journaler_t *journaler, int fd, const uint8_t *zero, uint8_t *buffer)
{
    struct stat status;

    if (fstat(fd, &status) != 0 || (uint64_t)status.st_size != journaler->config.segment_size)
        return 0;
    for (uint64_t offset = 0; offset < journaler->config.segment_size;) {
        ssize_t got = pread(fd, buffer, CHUNK, (off_t)offset);
        if (got <= 0 || memcmp(buffer, zero, (size_t)got) != 0)
            return 0;
        offset += (uint64_t)got;
    }
    return 1;
}

static int make(journaler_t *journaler, unsigned number, const uint8_t *zero, int *fd)
{
    char name[JOURNAL_NAME_MAX];
    char temporary[JOURNAL_NAME_MAX];

    snprintf(name, sizeof name, SPARE_NAME_FORMAT, number);
    snprintf(temporary, sizeof temporary, SPARE_NAME_FORMAT ".tmp", number);
    *fd = openat(journaler->directory_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int error = *fd < 0 ? errno : journaler->config.sync ? zero_fill(journaler, *fd, zero) : reserve(journaler, *fd);
    /* The file's size and extents are metadata: only fsync promises them. */
    if (error == 0 && journaler->config.sync && fsync(*fd) != 0)
        journal_panic(journaler, "fsync of a segment being prepared", errno);
    if (error == 0 && renameat(journaler->directory_fd, temporary, journaler->directory_fd, name) != 0)
        error = errno;
    if (error == 0) {
        if (fsync(journaler->directory_fd) != 0)
            journal_panic(journaler, "fsync of the journal directory", errno);
        return 0;
    }
    if (*fd >= 0)
        close(*fd);
    (void)unlinkat(journaler->directory_fd, temporary, 0);
    return error;
}

static void prepare(journaler_t *journaler, unsigned number, const uint8_t *zero, uint8_t *buffer)
{
    char name[JOURNAL_NAME_MAX];

    snprintf(name, sizeof name, SPARE_NAME_FORMAT, number);
    int fd = openat(journaler->directory_fd, name, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && !usable(journaler, fd, zero, buffer)) {
        close(fd);
        fd = -1;
    }
    if (fd < 0) {
        int error = make(journaler, number, zero, &fd);
        if (error == STOPPED)
            return;
        if (error != 0 && !disk_full(error))
            journal_panic(journaler, "preparing a segment", error);
        if (error != 0) {
            atomic_store_explicit(&journaler->halted, error, memory_order_release);
            return;
        }
        atomic_fetch_add_explicit(&journaler->prepared, 1, memory_order_relaxed);
    }
    /* Release: the file is whole before the stage can take it. */
    atomic_store_explicit(&journaler->spare_fd[number], fd, memory_order_release);
    atomic_store_explicit(&journaler->halted, 0, memory_order_release);
}

int prepare_take(journaler_t *journaler, unsigned *number)
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

int prepare_count(const journaler_t *journaler)
{
    int count = 0;

    for (unsigned i = 0; i < journaler->config.spares; i++)
        count += atomic_load_explicit(&journaler->spare_fd[i], memory_order_relaxed) != SPARE_EMPTY;
    return count;
}

void *prepare_main(void *argument)
{
    journaler_t *journaler = argument;
    uint8_t *memory = calloc(2, CHUNK);
    uint64_t retry_ns = 0;

    if (memory == NULL)
        journal_panic(journaler, "memory for zeroes", ENOMEM);
    do {
        for (unsigned i = 0; i < journaler->config.spares; i++) {
            if (atomic_load_explicit(&journaler->spare_fd[i], memory_order_acquire) != SPARE_EMPTY)
                continue;
            if (journal_clock(CLOCK_MONOTONIC) < retry_ns)
                break;
            prepare(journaler, i, memory, memory + CHUNK);
            if (atomic_load_explicit(&journaler->halted, memory_order_relaxed) != 0)
                retry_ns = journal_clock(CLOCK_MONOTONIC) + RETRY_NS;
        }
    } while (!helper_pause(journaler, IDLE_NS));
    free(memory);
    return NULL;
}

void prepare_close(journaler_t *journaler)
{
    for (unsigned i = 0; i < journaler->config.spares; i++) {
        int fd = atomic_exchange_explicit(&journaler->spare_fd[i], SPARE_EMPTY, memory_order_relaxed);
        if (fd != SPARE_EMPTY)
            close(fd);
    }
}
