/* What the journaler says of its disk (cell `storage` of the log ring): free space by steps, a preparation that finds no room, a
 * sync that hangs, several slow ones. The disk's answers and the clock are this program's own, so nothing depends on how fast
 * the machine is: only the waiting for the watching thread takes real time. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "journaler/journal.h"
#include "journaler/journal_internal.h"

#define RING_SLOTS 1024
#define SEGMENT_SIZE (64u << 10)
#define BLOCKS 1000
#define SLOW_NS UINT64_C(250000000)
#define STALLED_NS UINT64_C(1000000000)
#define ALARM_NS UINT64_C(60000000000)
#define WAIT_MS_MAX 60000
#define LOOKS_MAX 150

static char directory[] = "bullring-storage-XXXXXX";

static _Thread_local int is_stage;
static struct {
    _Atomic uint64_t clock_ahead_ns;
    _Atomic uint64_t sync_takes_ns; /* the stage's: by the clock, not really */
    _Atomic int sync_hangs;
    _Atomic int blocks_available;
    _Atomic int prepare_error;
} disk = {.blocks_available = BLOCKS};

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status = (int)syscall(SYS_clock_gettime, clock, now);
    uint64_t ns = (uint64_t)now->tv_nsec + atomic_load(&disk.clock_ahead_ns);
    now->tv_sec += (time_t)(ns / 1000000000);
    now->tv_nsec = (long)(ns % 1000000000);
    return status;
}

int fstatvfs(int fd, struct statvfs *room)
{
    (void)fd;
    memset(room, 0, sizeof *room);
    room->f_bsize = room->f_frsize = 4096;
    room->f_blocks = BLOCKS + 50;
    room->f_bavail = (fsblkcnt_t)atomic_load(&disk.blocks_available);
    room->f_bfree = room->f_bavail + 50; /* kept for root: not free, and not part of the whole */
    return 0;
}

int fdatasync(int fd)
{
    if (is_stage) {
        atomic_fetch_add(&disk.clock_ahead_ns, atomic_load(&disk.sync_takes_ns));
        while (atomic_load(&disk.sync_hangs))
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    int error = atomic_load(&disk.prepare_error);
    if (error != 0 && size > MARK_SLOT_SIZE) {
        errno = error;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, data, size, (unsigned long)offset);
}

static ring_t *make_ring(void)
{
    static ring_t handle;
    size_t size = RING_HEADER_SIZE + (size_t)RING_SLOTS * JOURNAL_SLOT_SIZE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    INVARIANT(memory != MAP_FAILED);
    ring_format(memory, JOURNAL_SLOT_SIZE, RING_SLOTS, 0, RING_MODE_DURABLE, 0);
    ring_attach(&handle, memory, NULL);
    return &handle;
}

static journaler_t *start(ring_t *log, uint64_t space_enough)
{
    journal_config_t config = {.directory = directory,
                               .segment_size = SEGMENT_SIZE,
                               .mark_interval_ns = 4000000,
                               .batch_slots_max = 256,
                               .spares = 2,
                               .sync = 1,
                               .space_enough = space_enough,
                               .space_low = 20,
                               .space_cancel_only = 10,
                               .space_halt = 5,
                               .sync_slow_count = 3,
                               .sync_slow_ns = SLOW_NS,
                               .sync_stalled_ns = STALLED_NS,
                               .sync_alarm_ns = ALARM_NS};
    journal_position_t position = {.segment_first = JOURNAL_NO_SEGMENT};
    memcpy(config.audit_state, sha256_initial, sizeof config.audit_state);
    journaler_t *journaler = journaler_new(&config, &position, log);
    INVARIANT(journaler != NULL && journaler_start(journaler) == 0);
    return journaler;
}

static void end(journaler_t *journaler)
{
    char command[128];
    journaler_stop(journaler);
    journaler_free(journaler);
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir '%s'", directory, directory);
    INVARIANT(system(command) == 0);
}

/* Counted in looks of the watching thread, not in time: as many as it needs on a machine however slow. */
static void wait_for(const journaler_t *journaler, uint32_t storage)
{
    uint64_t looks_max = atomic_load(&journaler->looks) + LOOKS_MAX;
    while (ring_storage(journaler->log) != storage) {
        INVARIANT(atomic_load(&journaler->looks) < looks_max);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void wait_for_spares(journaler_t *journaler)
{
    for (int i = 0; prepare_count(journaler) < 2; i++) {
        INVARIANT(i < WAIT_MS_MAX);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void commit_one(journaler_t *journaler, ring_t *log)
{
    int64_t first = ring_claim(log, 1);
    INVARIANT(first >= 0);
    log_slot_t *slot = ring_slot(log, first);
    memset(slot, 0, sizeof *slot);
    slot->template_id = TEMPLATE_TICK;
    ring_publish(log, first + 1);
    atomic_store(&log->header->wanted, first + 1);
    for (int i = 0; ring_commit(log) <= first; i++) {
        INVARIANT(i < WAIT_MS_MAX);
        if (journaler_poll(journaler, 1) == 0)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void test_free_space_sets_the_level_to_the_percent(void)
{
    static const struct {
        int blocks;
        uint32_t level;
    } steps[] = {{200, RING_STORAGE_OK},   {199, RING_STORAGE_LOW},  {100, RING_STORAGE_LOW}, {99, RING_STORAGE_CANCEL_ONLY},
                 {50, RING_STORAGE_CANCEL_ONLY}, {49, RING_STORAGE_HALT}, {0, RING_STORAGE_HALT},  {1000, RING_STORAGE_OK}};
    ring_t *log = make_ring();
    journaler_t *journaler = start(log, 0);

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        atomic_store(&disk.blocks_available, steps[i].blocks);
        wait_for(journaler, steps[i].level);
    }
    end(journaler);
}

static void test_first_look_is_before_anything_is_written(void)
{
    ring_t *log = make_ring();
    atomic_store(&disk.blocks_available, 49);
    journaler_t *journaler = start(log, 0);
    INVARIANT(ring_storage(log) == RING_STORAGE_HALT);
    atomic_store(&disk.blocks_available, BLOCKS);
    end(journaler);
}

static void test_percentages_do_not_count_while_there_is_enough(void)
{
    ring_t *log = make_ring();
    atomic_store(&disk.blocks_available, 30);
    journaler_t *journaler = start(log, UINT64_C(30) * 4096);
    INVARIANT(ring_storage(log) == RING_STORAGE_OK);
    atomic_store(&disk.blocks_available, 29);
    wait_for(journaler, RING_STORAGE_HALT);
    atomic_store(&disk.blocks_available, BLOCKS);
    end(journaler);
}

/* A quota: statvfs sees room where there is none. */
static void test_preparation_without_room_is_told_of(void)
{
    ring_t *log = make_ring();
    journaler_t *journaler = start(log, 0);
    wait_for_spares(journaler);
    atomic_store(&disk.prepare_error, EDQUOT);
    commit_one(journaler, log); /* takes one of the two */
    wait_for(journaler, RING_STORAGE_CANCEL_ONLY);
    while (prepare_count(journaler) > 0)
        commit_one(journaler, log);
    wait_for(journaler, RING_STORAGE_HALT);
    atomic_store(&disk.prepare_error, 0);
    wait_for(journaler, RING_STORAGE_OK);
    end(journaler);
}

static void test_several_slow_syncs_in_a_while_raise_the_alarm(void)
{
    ring_t *log = make_ring();
    journaler_t *journaler = start(log, 0);
    wait_for_spares(journaler);
    atomic_store(&disk.sync_takes_ns, SLOW_NS);

    commit_one(journaler, log);
    commit_one(journaler, log);
    atomic_fetch_add(&disk.clock_ahead_ns, ALARM_NS); /* those two are forgotten */
    commit_one(journaler, log);
    commit_one(journaler, log);
    INVARIANT(atomic_load(&journaler->sync_alarm_end_ns) == 0);
    commit_one(journaler, log);
    INVARIANT(atomic_load(&journaler->sync_alarm_end_ns) != 0);
    wait_for(journaler, RING_STORAGE_SLOW);
    atomic_store(&disk.sync_takes_ns, 0);
    commit_one(journaler, log);
    atomic_fetch_add(&disk.clock_ahead_ns, ALARM_NS);
    wait_for(journaler, RING_STORAGE_OK);
    end(journaler);
}

static void *run_stage(void *argument)
{
    journaler_t *journaler = argument;
    is_stage = 1;
    commit_one(journaler, journaler->log);
    return NULL;
}

static void test_hanging_sync_is_told_of_while_it_hangs(void)
{
    pthread_t thread;
    ring_t *log = make_ring();
    journaler_t *journaler = start(log, 0);
    wait_for_spares(journaler);
    is_stage = 0;
    atomic_store(&disk.sync_hangs, 1);
    INVARIANT(pthread_create(&thread, NULL, run_stage, journaler) == 0);
    for (int i = 0; atomic_load(&journaler->sync_began_ns) == 0; i++) {
        INVARIANT(i < WAIT_MS_MAX);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    atomic_fetch_add(&disk.clock_ahead_ns, STALLED_NS);
    wait_for(journaler, RING_STORAGE_SLOW);
    INVARIANT(ring_commit(log) == 0);

    atomic_store(&disk.sync_hangs, 0);
    pthread_join(thread, NULL);
    INVARIANT(atomic_load(&journaler->sync_alarm_end_ns) != 0);
    atomic_fetch_add(&disk.clock_ahead_ns, ALARM_NS);
    wait_for(journaler, RING_STORAGE_OK);
    is_stage = 1;
    end(journaler);
}

int main(void)
{
    INVARIANT(mkdtemp(directory) != NULL);
    is_stage = 1;
    test_free_space_sets_the_level_to_the_percent();
    test_first_look_is_before_anything_is_written();
    test_percentages_do_not_count_while_there_is_enough();
    test_preparation_without_room_is_told_of();
    test_several_slow_syncs_in_a_while_raise_the_alarm();
    test_hanging_sync_is_told_of_while_it_hangs();
    INVARIANT(rmdir(directory) == 0);
    printf("journal: free space, lack of room and slow syncs are told of\n");
    return 0;
}
