/* What `bullring bench journal` runs: the journaler's stage on a private ring, without Python on the way.
 *
 *   journal_bench closed DIR MIB SLOTS COMMITS   one batch of SLOTS records after the other, each waited for; in turns of TURN
 *                                            with plain pwrite + fdatasync of as many bytes in a written file beside it
 *   journal_bench load DIR MIB RATE MILLISECONDS a second thread publishes RATE records a second in groups of 1 to 4; latency from
 *                                            publication to commit, and how many records a batch got
 *
 * Prints one line of JSON. DIR must be empty; segments, and that file, of MIB MiB each are prepared before the clock starts. */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "journaler/journal.h"
#include "orders.h"
#include "slots.h"

#define RING_SLOTS 65536
#define SPARES 4
#define TURN 8
#define PREPARE_PAUSE 4 /* as in bullring.toml: under load segments are prepared while the clock runs */
#define GROUP_MAX 4
#define BATCH_BUCKETS 17
#define LOAD_LATENCIES_MAX (1u << 24)

typedef struct times {
    uint64_t *ns;
    uint64_t count;
    uint64_t sum;
} times_t;

static uint64_t segment_size;

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static times_t times_new(uint64_t room)
{
    times_t times = {.ns = malloc(room * sizeof(uint64_t))};
    INVARIANT(times.ns != NULL);
    return times;
}

static void times_add(times_t *times, uint64_t ns)
{
    times->ns[times->count++] = ns;
    times->sum += ns;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_us(const times_t *times, double share)
{
    uint64_t rank = (uint64_t)((double)times->count * share);
    return times->count == 0 ? 0 : (double)times->ns[rank < times->count ? rank : times->count - 1] / 1e3;
}

static void print_times(const char *name, times_t *times)
{
    qsort(times->ns, times->count, sizeof times->ns[0], ascending);
    printf("\"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f, \"per_s\": %.0f}", name,
           percentile_us(times, 0.5), percentile_us(times, 0.99), percentile_us(times, 0.999), percentile_us(times, 1.0),
           times->sum == 0 ? 0 : (double)times->count * 1e9 / (double)times->sum);
}

static ring_t *make_ring(void)
{
    static ring_t handle;
    size_t size = RING_HEADER_SIZE + (size_t)RING_SLOTS * 128;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    INVARIANT(memory != MAP_FAILED);
    ring_format(memory, 128, RING_SLOTS, 0, RING_MODE_DURABLE, 0);
    ring_attach(&handle, memory, NULL);
    return &handle;
}

static journaler_t *start(const char *directory, ring_t *log, uint64_t prepare_pause)
{
    journal_config_t config = {.directory = directory,
                               .segment_size = segment_size,
                               .lazy_ns = 1000000,
                               .mark_interval_ns = 10000000,
                               .batch_slots_max = 8192,
                               .spares = SPARES,
                               .sync = 1,
                               .sync_slow_count = 3,
                               .sync_slow_ns = 250000000,
                               .sync_stalled_ns = 1000000000,
                               .sync_alarm_ns = 60000000000,
                               .prepare_pause = prepare_pause};
    journal_position_t position = {.segment_first = JOURNAL_NO_SEGMENT};
    journal_stats_t stats;

    memcpy(config.audit_state, sha256_initial, sizeof config.audit_state);
    journaler_t *journaler = journaler_new(&config, &position, log);
    INVARIANT(journaler != NULL && journaler_start(journaler) == 0);
    do {
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        journaler_stats(journaler, &stats);
    } while (stats.spares < SPARES);
    return journaler;
}

static void fill(log_slot_t *slot, int64_t sequence, int more)
{
    memset(slot, (int)(sequence * 31) & 0xff, sizeof *slot);
    slot->template_id = TEMPLATE_NEW_ORDER_SINGLE;
    slot->flags = more ? SLOT_FLAG_MORE : 0;
    slot->ingress_ns = clock_ns();
}

/* ---- closed loop -------------------------------------------------------------------------------------------------- */

static uint64_t commit_one(journaler_t *journaler, ring_t *log, int64_t slots)
{
    int64_t first = ring_claim(log, slots);
    INVARIANT(first >= 0);
    for (int64_t i = 0; i < slots; i++)
        fill(ring_slot(log, first + i), first + i, 0);
    uint64_t began = clock_ns();
    atomic_store(&log->header->wanted, first + slots);
    ring_publish(log, first + slots);
    while (ring_commit(log) < first + slots)
        INVARIANT(journaler_poll(journaler, 1) >= 0);
    return clock_ns() - began;
}

static int written_file(const char *directory)
{
    static uint8_t zero[1 << 20];
    char path[4096];

    snprintf(path, sizeof path, "%s/raw", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    INVARIANT(fd >= 0);
    for (uint64_t offset = 0; offset < segment_size; offset += sizeof zero)
        INVARIANT(pwrite(fd, zero, sizeof zero, (off_t)offset) == (ssize_t)sizeof zero);
    INVARIANT(fsync(fd) == 0 && unlink(path) == 0);
    return fd;
}

static uint64_t raw_one(int fd, const uint8_t *block, size_t size, uint64_t *offset)
{
    if (*offset + size > segment_size)
        *offset = 0;
    uint64_t began = clock_ns();
    INVARIANT(pwrite(fd, block, size, (off_t)*offset) == (ssize_t)size && fdatasync(fd) == 0);
    *offset += size;
    return clock_ns() - began;
}

static int closed(const char *directory, int64_t slots, uint64_t commits)
{
    ring_t *log = make_ring();
    journaler_t *journaler = start(directory, log, 0);
    size_t size = 64 + (size_t)slots * 128;
    uint8_t *block = malloc(size);
    times_t ours = times_new(commits + TURN);
    times_t raw = times_new(commits + TURN);
    uint64_t offset = 0;
    int fd = written_file(directory);

    INVARIANT(block != NULL);
    memset(block, 0xa5, size);
    while (ours.count < commits) {
        for (int i = 0; i < TURN; i++)
            times_add(&ours, commit_one(journaler, log, slots));
        for (int i = 0; i < TURN; i++)
            times_add(&raw, raw_one(fd, block, size, &offset));
    }
    journal_stats_t stats;
    journaler_stats(journaler, &stats);
    printf("{\"slots\": %" PRId64 ", \"bytes\": %zu, \"commits\": %" PRIu64 ", ", slots, size, ours.count);
    print_times("commit_us", &ours);
    printf(", ");
    print_times("raw_us", &raw);
    printf(", \"marks\": %" PRIu64 ", \"mark_behind_ms_max\": %.1f, \"segment_waits\": %" PRIu64 "}\n", stats.marks,
           (double)stats.mark_behind_ns_max / 1e6, stats.segment_waits);
    close(fd);
    journaler_stop(journaler);
    journaler_free(journaler);
    return 0;
}

/* ---- load --------------------------------------------------------------------------------------------------------- */

typedef struct producer {
    ring_t *log;
    double rate;
    uint64_t end_ns;
    uint64_t waits; /* turns without room: the disk was behind */
    _Atomic int done;
} producer_t;

static void *produce(void *argument)
{
    producer_t *producer = argument;
    ring_t *log = producer->log;
    uint64_t began = clock_ns();
    uint64_t seed = 88172645463325252u;

    for (uint64_t now; (now = clock_ns()) < producer->end_ns;) {
        int64_t due = (int64_t)((double)(now - began) * producer->rate / 1e9);
        while (log->claimed < due) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            int64_t group = 1 + (int64_t)(seed % GROUP_MAX);
            int64_t first = ring_claim(log, group);
            if (first == RING_FULL) {
                producer->waits++;
                break;
            }
            for (int64_t i = 0; i < group; i++)
                fill(ring_slot(log, first + i), first + i, i + 1 < group);
            atomic_store_explicit(&log->header->wanted, first + group, memory_order_release);
            ring_publish(log, first + group);
        }
        sched_yield();
    }
    atomic_store(&producer->done, 1);
    return NULL;
}

static int load(const char *directory, double rate, uint64_t milliseconds)
{
    ring_t *log = make_ring();
    ring_t reader = *log; /* the stage's own handle */
    journaler_t *journaler = start(directory, &reader, PREPARE_PAUSE);
    producer_t producer = {.log = log, .rate = rate, .end_ns = clock_ns() + milliseconds * 1000000};
    times_t latency = times_new(LOAD_LATENCIES_MAX);
    uint64_t batches[BATCH_BUCKETS] = {0};
    pthread_t thread;
    int64_t seen = 0;
    uint64_t began = clock_ns();

    INVARIANT(pthread_create(&thread, NULL, produce, &producer) == 0);
    while (!atomic_load(&producer.done) || seen < ring_published(&reader)) {
        int64_t done = journaler_poll(journaler, 1);
        INVARIANT(done >= 0);
        if (done == 0) {
            sched_yield();
            continue;
        }
        uint64_t now = clock_ns();
        int64_t commit = ring_commit(&reader);
        /* Only what the producer cannot be overwriting already; the others are as many as these. */
        for (int64_t at = seen; at < commit && latency.count < LOAD_LATENCIES_MAX; at++) {
            log_slot_t slot;
            if (ring_read(&reader, at, 1, &slot) == RING_OK)
                times_add(&latency, now - slot.ingress_ns);
        }
        batches[63 - __builtin_clzll((uint64_t)(commit - seen) | 1)]++;
        seen = commit;
    }
    double seconds = (double)(clock_ns() - began) / 1e9;
    pthread_join(thread, NULL);
    printf("{\"rate\": %.0f, \"records_per_s\": %.0f, \"producer_waits\": %" PRIu64 ", ", rate, (double)seen / seconds,
           producer.waits);
    latency.sum = (uint64_t)(seconds * 1e9);
    print_times("latency_us", &latency);
    printf(", \"batch_slots\": {");
    for (int i = 0, first = 1; i < BATCH_BUCKETS; i++)
        if (batches[i] != 0)
            printf("%s\"%d\": %" PRIu64, first ? "" : ", ", 1 << i, batches[i]), first = 0;
    printf("}}\n");
    journaler_stop(journaler);
    journaler_free(journaler);
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 6)
        segment_size = strtoull(arguments[3], NULL, 10) << 20;
    if (count == 6 && segment_size > 0 && strcmp(arguments[1], "closed") == 0)
        return closed(arguments[2], strtoll(arguments[4], NULL, 10), strtoull(arguments[5], NULL, 10));
    if (count == 6 && segment_size > 0 && strcmp(arguments[1], "load") == 0)
        return load(arguments[2], strtod(arguments[4], NULL), strtoull(arguments[5], NULL, 10));
    fprintf(stderr, "usage: journal_bench closed DIR MIB SLOTS COMMITS | load DIR MIB RATE MILLISECONDS\n");
    return 2;
}
