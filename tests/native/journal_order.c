/* The order of system calls and cursors, and what happens when one fails. This program's own pwritev, fdatasync, fsync and
 * renameat stand before those of the system: they look at `commit` at the very moment, and fail when told to. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "journaler/journal.h"
#include "journaler/journal_internal.h"

#define RING_SLOTS 1024
#define SEGMENT_SIZE (64u << 10)

static char directory[] = "bullring-order-XXXXXX";

/* What the hooks know: about the stage's thread only, the keeper's calls pass through. */
static _Thread_local int is_stage;
static struct {
    ring_t *log;
    int64_t synced;       /* end of the batches that are synced, name and all */
    int64_t written;      /* end of the batches that are written */
    int name_unsynced;    /* a segment was renamed, the directory not synced yet */
    int fail_sync_at;     /* the k-th sync of a batch fails; 0 = none */
    int syncs;
    int failed;
    int calls_after_failure;
    _Atomic int disk_full; /* the keeper's writes find no space */
} seen;

static int by_stage(void)
{
    return is_stage;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (by_stage()) {
        INVARIANT(ring_commit(seen.log) <= seen.synced);
        INVARIANT(seen.written == seen.synced); /* one batch un-synced at a time (J3) */
        int slots = 0; /* what follows the batch header */
        for (int i = 0; i < count; i++) {
            if (slots)
                seen.written += (int64_t)(parts[i].iov_len / JOURNAL_SLOT_SIZE);
            slots |= parts[i].iov_len == BATCH_HEADER_SIZE;
        }
    }
    return syscall(SYS_pwritev, fd, parts, (unsigned long)count, (unsigned long)offset, 0ul);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (atomic_load(&seen.disk_full) && size > MARK_SLOT_SIZE) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, data, size, (unsigned long)offset);
}

int fdatasync(int fd)
{
    if (by_stage()) {
        seen.calls_after_failure += seen.failed;
        INVARIANT(ring_commit(seen.log) <= seen.synced);
        INVARIANT(!seen.name_unsynced);
        if (++seen.syncs == seen.fail_sync_at) {
            seen.failed = 1;
            errno = EIO;
            return -1;
        }
        seen.synced = seen.written;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    if (by_stage())
        seen.name_unsynced = 0;
    return (int)syscall(SYS_fsync, fd);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    if (by_stage())
        seen.name_unsynced = 1;
    return (int)syscall(SYS_renameat, from_fd, from, to_fd, to);
}

/* In memory that a child and its parent share: what the child's cursors were when it died can be read. */
static ring_t *make_ring(void)
{
    static ring_t handle;
    size_t size = RING_HEADER_SIZE + (size_t)RING_SLOTS * JOURNAL_SLOT_SIZE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ring_t *ring = &handle;
    INVARIANT(memory != MAP_FAILED);
    ring_format(memory, JOURNAL_SLOT_SIZE, RING_SLOTS, 0, RING_MODE_DURABLE, 0);
    ring_attach(ring, memory, NULL);
    return ring;
}

static void publish(ring_t *log, int64_t count)
{
    int64_t first = ring_claim(log, count);
    INVARIANT(first >= 0);
    for (int64_t i = 0; i < count; i++) {
        log_slot_t *slot = ring_slot(log, first + i);
        memset(slot, 0, sizeof *slot);
        slot->template_id = TEMPLATE_TICK;
        slot->aux = (uint64_t)(first + i) + 1;
    }
    ring_publish(log, first + count);
}

static journaler_t *start(ring_t *log)
{
    journal_config_t config = {.directory = directory,
                               .segment_size = SEGMENT_SIZE,
                               .mark_interval_ns = 4000000,
                               .batch_slots_max = 256,
                               .spares = 2,
                               .sync = 1,
                               .sync_slow_count = 3,
                               .sync_slow_ns = UINT64_MAX,
                               .sync_stalled_ns = UINT64_MAX};
    journal_position_t position = {.segment_first = JOURNAL_NO_SEGMENT};
    journaler_t *journaler = journaler_new(&config, &position, log);
    INVARIANT(journaler != NULL);
    memset(&seen, 0, sizeof seen);
    seen.log = log;
    INVARIANT(journaler_start(journaler) == 0);
    is_stage = 1;
    return journaler;
}

static void run(journaler_t *journaler, ring_t *log, int64_t records)
{
    while (ring_commit(log) < records) {
        if (ring_published(log) - ring_commit(log) < 300)
            publish(log, 1 + (ring_published(log) * 7) % 100);
        INVARIANT(journaler_poll(journaler, 1) >= 0);
        INVARIANT(ring_commit(log) <= seen.synced);
    }
}

static void empty_directory(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir '%s'", directory, directory);
    INVARIANT(system(command) == 0);
}

static void test_commit_follows_the_sync(void)
{
    ring_t *log = make_ring();
    journaler_t *journaler = start(log);
    run(journaler, log, 3000);
    INVARIANT(seen.syncs > 20);
    journal_stats_t stats;
    journaler_stats(journaler, &stats);
    INVARIANT(stats.segments > 5);
    is_stage = 0;
    journaler_stop(journaler);
    journaler_free(journaler);
    empty_directory();
}

/* J9: with no space for the next segment the stage stops, all it acknowledged durable, and goes on when there is space. */
static void test_full_disk_halts_and_recovers(void)
{
    ring_t *log = make_ring();
    journaler_t *journaler = start(log);
    run(journaler, log, 100);
    atomic_store(&seen.disk_full, 1);
    int64_t done;
    do {
        if (ring_published(log) - ring_commit(log) < 300)
            publish(log, 50);
        done = journaler_poll(journaler, 1);
    } while (done >= 0);
    INVARIANT(done == STAGE_FAILED);
    INVARIANT(ring_commit(log) == seen.synced && ring_commit(log) < ring_published(log));
    INVARIANT(ring_commit(log) > 500); /* the segments prepared before were used up first */
    journal_stats_t stats;
    journaler_stats(journaler, &stats);
    INVARIANT(stats.halted == ENOSPC && atomic_load(&log->header->panic) == 0);

    atomic_store(&seen.disk_full, 0);
    int64_t halted_at = ring_commit(log);
    for (int i = 0; i < 3000 && ring_commit(log) == halted_at; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        journaler_poll(journaler, 1);
    }
    INVARIANT(ring_commit(log) > halted_at);
    is_stage = 0;
    journaler_stop(journaler);
    journaler_free(journaler);
    empty_directory();
}

static void test_failed_sync_ends_the_process_with_nothing_acknowledged(int fail_at)
{
    ring_t *log = make_ring();
    int64_t *synced = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    INVARIANT(synced != MAP_FAILED);
    pid_t child = fork();
    if (child == 0) {
        INVARIANT(freopen("/dev/null", "w", stderr) != NULL);
        journaler_t *journaler = start(log);
        seen.fail_sync_at = fail_at;
        for (;;) {
            publish(log, 50);
            *synced = seen.synced;
            while (ring_commit(log) < ring_published(log)) {
                journaler_poll(journaler, 1);
                *synced = seen.synced;
                if (seen.failed)
                    _exit(3); /* it went on after a failed sync */
            }
        }
    }
    int status = 0;
    INVARIANT(waitpid(child, &status, 0) == child);
    INVARIANT(WIFEXITED(status) && WEXITSTATUS(status) == JOURNAL_EXIT_PANIC);
    INVARIANT(ring_commit(log) <= *synced);
    INVARIANT(ring_commit(log) < ring_published(log));
    INVARIANT(atomic_load(&log->header->panic) == EIO);
    char path[64];
    snprintf(path, sizeof path, "%s/panic", directory);
    INVARIANT(access(path, F_OK) == 0);
    empty_directory();
}

int main(void)
{
    INVARIANT(mkdtemp(directory) != NULL);
    test_commit_follows_the_sync();
    test_full_disk_halts_and_recovers();
    test_failed_sync_ends_the_process_with_nothing_acknowledged(1);
    test_failed_sync_ends_the_process_with_nothing_acknowledged(2);
    test_failed_sync_ends_the_process_with_nothing_acknowledged(17);
    INVARIANT(rmdir(directory) == 0);
    printf("journal: commit follows every sync; a failed sync acknowledges nothing\n");
    return 0;
}
