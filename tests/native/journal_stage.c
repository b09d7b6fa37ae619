/* The journaler's stage on private-memory rings: what lands in the files is the published log, whole groups only, in batches
 * chained to one another, across segments; commit never runs ahead of what the files hold; the archive repeats the reports. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "journaler/crc32c.h"
#include "journaler/journal.h"
#include "journaler/walk.h"

#define RING_SLOTS 4096
#define SEGMENT_SIZE (256u << 10)
#define RECORDS 20000
#define EPOCH_AT 5000

#define PAID_WAITS 10 /* that many given up one after the other would leave out a thousand batches */

/* Longer than any pause this machine may make us take: only the test's own clock gets there. */
#define LAZY_NS UINT64_C(1000000000000)

static char directory[] = "bullring-journal-XXXXXX";

/* The journaler's clock is the system's, and as far ahead of it as the test says. */
static _Atomic uint64_t clock_ahead_ns;
int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status = (int)syscall(SYS_clock_gettime, clock, now);
    uint64_t ahead = atomic_load(&clock_ahead_ns);
    now->tv_sec += (time_t)(ahead / 1000000000);
    return status;
}

/* What is published while the stage (not one of its helpers) sleeps; how often it did, and how long it asked for last. */
static _Thread_local ring_t *company_log;
static _Thread_local int64_t company;
static _Thread_local int sleeps;
static _Thread_local uint64_t slept_ns;
static int64_t publish_some(ring_t *log, int64_t count);
int nanosleep(const struct timespec *wanted, struct timespec *left)
{
    sleeps++;
    slept_ns = (uint64_t)wanted->tv_nsec;
    if (company_log != NULL)
        publish_some(company_log, company);
    return (int)syscall(SYS_nanosleep, wanted, left);
}

static uint64_t random_state = 88172645463325252u;
static uint64_t draw(uint64_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % bound;
}

static ring_t *make_ring(uint64_t slots, uint32_t mode)
{
    size_t size = RING_HEADER_SIZE + slots * 128;
    void *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    ring_t *ring = malloc(sizeof *ring);
    INVARIANT(memory != NULL && ring != NULL);
    memset(memory, 0, size);
    ring_format(memory, 128, slots, 0, mode, 0);
    ring_attach(ring, memory, NULL);
    return ring;
}

static void free_ring(ring_t *ring)
{
    free(ring->header);
    free(ring);
}

static void fill(log_slot_t *slot, int64_t sequence, int more)
{
    memset(slot, 0, sizeof *slot);
    slot->session = (uint32_t)sequence * 7;
    slot->template_id = TEMPLATE_NEW_ORDER_SINGLE;
    slot->flags = more ? SLOT_FLAG_MORE : 0;
    slot->seq_num = (uint64_t)sequence;
    slot->aux = (uint64_t)sequence * LOG_HASH_SEQUENCE;
    if (sequence == EPOCH_AT) {
        uint64_t epoch = 9;
        slot->template_id = TEMPLATE_EPOCH_START;
        memcpy(slot->block, &epoch, sizeof epoch);
    }
}

/* Publish up to `count` records in groups of random length; returns how many. The record of the epoch stands alone. */
static int64_t publish_some(ring_t *log, int64_t count)
{
    int64_t done = 0;
    while (done < count) {
        int64_t group = 1 + (int64_t)draw(GROUP_SLOTS_MAX);
        int64_t at = log->claimed;
        if (at == EPOCH_AT)
            group = 1;
        else if (at < EPOCH_AT && at + group > EPOCH_AT)
            group = EPOCH_AT - at;
        if (ring_claim(log, group) == RING_FULL)
            break;
        for (int64_t i = 0; i < group; i++)
            fill(ring_slot(log, at + i), at + i, i + 1 < group);
        ring_publish(log, at + group);
        done += group;
    }
    return done;
}

static uint8_t *load(const char *name, uint64_t *size)
{
    char path[512];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_RDONLY);
    INVARIANT(fd >= 0 && fstat(fd, &status) == 0);
    uint8_t *data = malloc((size_t)status.st_size + 1);
    INVARIANT(data != NULL && read(fd, data, (size_t)status.st_size) == status.st_size);
    close(fd);
    *size = (uint64_t)status.st_size;
    return data;
}

static int only_segments(const struct dirent *entry)
{
    return strncmp(entry->d_name, "segment-", 8) == 0 && strstr(entry->d_name, ".log") != NULL;
}

/* Read the directory back; returns the end of the log, with the position for a restart. */
static uint64_t read_back(journal_position_t *position, int *segments)
{
    struct dirent **names;
    journal_walk_t walk = {0};
    uint8_t out[64 * 128];
    log_slot_t expected;
    int count = scandir(directory, &names, only_segments, alphasort);
    uint64_t seen = 0;

    memset(position, 0, sizeof *position);
    position->segment_first = JOURNAL_NO_SEGMENT;
    for (int i = 0; i < count; i++) {
        uint64_t size;
        uint8_t *data = load(names[i]->d_name, &size);
        INVARIANT(journal_walk_header(&walk, data, size, 0));
        position->segment_first = walk.sequence;
        for (;;) {
            int64_t got = journal_walk(&walk, data, size, UINT64_MAX, out, 64);
            for (int64_t k = 0; k < got; k++, seen++) {
                int more = (((log_slot_t *)(void *)out)[k].flags & SLOT_FLAG_MORE) != 0;
                fill(&expected, (int64_t)seen, more);
                INVARIANT(memcmp(&expected, out + k * 128, 128) == 0);
            }
            if (got > 0)
                INVARIANT((((log_slot_t *)(void *)out)[got - 1].flags & SLOT_FLAG_MORE) == 0);
            if (got == 0 && walk.stop != WALK_ROOM)
                break;
        }
        INVARIANT(walk.stop == WALK_END);
        INVARIANT(journal_first_nonzero(data, size, walk.offset) == size);
        free(data);
        free(names[i]);
    }
    if (count > 0)
        free(names);
    INVARIANT(walk.epoch == (seen > EPOCH_AT ? 9u : 0u));
    position->sequence = walk.sequence;
    position->epoch = walk.epoch;
    position->batch = walk.batch;
    position->log_hash = walk.log_hash;
    position->crc = walk.crc;
    position->offset = walk.offset;
    *segments = count;
    return seen;
}

static journal_config_t make_config(uint32_t sync)
{
    return (journal_config_t){.directory = directory,
                              .segment_size = SEGMENT_SIZE,
                              .lazy_ns = 1000000,
                              .mark_interval_ns = 10000000,
                              .batch_slots_max = 512,
                              .spares = 2,
                              .sync = sync,
                              .sync_slow_count = 3,
                              .sync_slow_ns = UINT64_MAX,
                              .sync_stalled_ns = UINT64_MAX};
}

static void check_mark(uint64_t sequence)
{
    uint64_t size;
    uint8_t *data = load("durable.mark", &size);
    uint64_t best = 0;
    uint64_t counter = 0;
    for (uint64_t offset = 0; offset < size; offset += MARK_SLOT_SIZE) {
        mark_slot_t mark;
        memcpy(&mark, data + offset, sizeof mark);
        uint32_t stored = mark.crc32c;
        mark.crc32c = 0;
        if (mark.magic == MARK_MAGIC && crc32c(&mark, sizeof mark, 0) == stored && mark.counter > counter) {
            counter = mark.counter;
            best = mark.sequence;
        }
    }
    free(data);
    INVARIANT(best == sequence);
}

static void run(uint32_t sync, journal_position_t *position, int64_t records)
{
    ring_t *log = make_ring(RING_SLOTS, sync ? RING_MODE_DURABLE : RING_MODE_D0);
    ring_t *reports = make_ring(256, RING_MODE_PLAIN);
    journal_config_t config = make_config(sync);
    /* The ring goes on where the files end, as a restarted sequencer's does. */
    ring_format(log->header, 128, RING_SLOTS, (int64_t)position->sequence, sync ? RING_MODE_DURABLE : RING_MODE_D0, 0);
    ring_attach(log, log->header, NULL);
    journaler_t *journaler = journaler_new(&config, position, log);
    INVARIANT(journaler != NULL);
    INVARIANT(journaler_add_reports(journaler, 1, reports, 0) == 0);
    INVARIANT(journaler_start(journaler) == 0);

    int64_t begun = log->claimed;
    while (log->claimed < begun + records) {
        publish_some(log, (int64_t)draw(700));
        if (draw(2) != 0)
            atomic_store(&log->header->wanted, log->claimed);
        int64_t done = journaler_poll(journaler, 64);
        INVARIANT(done >= 0);
        journaler_position(journaler, position);
        INVARIANT(ring_commit(log) == (int64_t)position->sequence);
        INVARIANT(ring_commit(log) <= ring_published(log));
        if (ring_claim(reports, 1) != RING_FULL) {
            memset(ring_slot(reports, reports->claimed - 1), (int)(reports->claimed & 255), 128);
            ring_publish(reports, reports->claimed);
        }
    }
    journaler_stop(journaler);
    INVARIANT(ring_commit(log) == ring_published(log));
    check_mark((uint64_t)ring_published(log));
    journal_stats_t stats;
    journaler_stats(journaler, &stats);
    INVARIANT(stats.archived == (uint64_t)reports->claimed);
    uint64_t size;
    uint8_t *archive = load("reports/1", &size);
    INVARIANT(size == (uint64_t)reports->claimed * 128 || position->sequence > RECORDS);
    for (int64_t i = 0; i < reports->claimed; i++)
        INVARIANT(archive[i * 128] == ((i + 1) & 255) && archive[i * 128 + 127] == ((i + 1) & 255));
    free(archive);
    journaler_free(journaler);
    free_ring(log);
    free_ring(reports);
}

static void test_lazy_records_wait_and_wanted_ones_do_not(journal_position_t *position)
{
    ring_t *log = make_ring(RING_SLOTS, RING_MODE_DURABLE);
    journal_config_t config = make_config(1);
    config.lazy_ns = LAZY_NS;
    ring_format(log->header, 128, RING_SLOTS, (int64_t)position->sequence, RING_MODE_DURABLE, 0);
    ring_attach(log, log->header, NULL);
    journaler_t *journaler = journaler_new(&config, position, log);
    INVARIANT(journaler != NULL && journaler_start(journaler) == 0);
    INVARIANT(journaler_patience(journaler) == INT64_MAX);
    /* Nothing but its laziness must keep a record from being written: there has to be a segment for it. */
    journal_stats_t stats;
    do {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        journaler_stats(journaler, &stats);
    } while (stats.spares < config.spares);

    publish_some(log, 1);
    INVARIANT(journaler_poll(journaler, 64) == 0);
    INVARIANT(journaler_patience(journaler) > 0 && journaler_patience(journaler) <= (int64_t)LAZY_NS);
    atomic_fetch_add(&clock_ahead_ns, LAZY_NS);
    INVARIANT(journaler_patience(journaler) == 0);
    INVARIANT(journaler_poll(journaler, 64) > 0);
    INVARIANT(ring_commit(log) == ring_published(log));

    atomic_store(&log->header->replicated, ring_published(log));
    publish_some(log, 1);
    atomic_store(&log->header->wanted, log->claimed);
    INVARIANT(journaler_poll(journaler, 64) > 0);
    INVARIANT(ring_commit(log) < ring_published(log)); /* durable here, not at the standby */
    atomic_store(&log->header->replicated, ring_published(log));
    journaler_poll(journaler, 64);
    INVARIANT(ring_commit(log) == ring_published(log));
    journaler_stop(journaler);
    journaler_free(journaler);
    free_ring(log);
}

/* Publish something that is wanted and have it written; returns how many records the last batch of it had. */
static int64_t write_wanted(journaler_t *journaler, ring_t *log, int64_t count)
{
    int64_t written = 0;

    publish_some(log, count);
    atomic_store(&log->header->wanted, log->claimed);
    while (ring_commit(log) < ring_published(log)) { /* a segment may have to be prepared */
        int64_t before = ring_commit(log);
        INVARIANT(journaler_poll(journaler, 64) >= 0);
        written = ring_commit(log) - before;
    }
    return written;
}

/* Batches of 20 and more until one has waited (this machine may pause between two polls); returns how many records that one had. */
static int64_t stream_until_a_wait(journaler_t *journaler, ring_t *log)
{
    int64_t written = 0;

    for (int i = 0, before = sleeps; i < 100 && sleeps == before; i++)
        written = write_wanted(journaler, log, 20);
    return written;
}

static void test_a_stream_waits_for_company_and_a_lone_order_does_not(journal_position_t *position)
{
    ring_t *log = make_ring(RING_SLOTS, RING_MODE_DURABLE);
    journal_config_t config = make_config(1);
    journal_stats_t stats;
    config.batch_slots_max = RING_SLOTS;
    config.gather_ns = 300000;
    config.segment_size = 4u << 20;
    ring_format(log->header, 128, RING_SLOTS, (int64_t)position->sequence, RING_MODE_DURABLE, 0);
    ring_attach(log, log->header, NULL);
    journaler_t *journaler = journaler_new(&config, position, log);
    INVARIANT(journaler != NULL && journaler_start(journaler) == 0);
    write_wanted(journaler, log, SEGMENT_SIZE / 128); /* into a segment that has room for all of the rest */
    atomic_fetch_add(&clock_ahead_ns, UINT64_C(1000000000));

    journaler_stats(journaler, &stats);
    const uint64_t begun = stats.gathers;
    sleeps = 0;
    for (int i = 0; i < 20; i++)
        write_wanted(journaler, log, 1);
    INVARIANT(sleeps == 0); /* each alone, and a whole group is no stream either */
    write_wanted(journaler, log, 20);
    INVARIANT(sleeps == 0); /* the first batch of a stream */

    company_log = log;
    company = 200;
    for (int waits = 1; waits <= PAID_WAITS; waits++) {
        INVARIANT(stream_until_a_wait(journaler, log) >= 20 + 2 * 200); /* in one batch */
        INVARIANT(sleeps == 2 * waits && slept_ns <= config.gather_ns);
    }
    company_log = NULL;
    stream_until_a_wait(journaler, log); /* nobody came: the next batch does not wait */
    INVARIANT(sleeps == 2 * PAID_WAITS + 2);
    write_wanted(journaler, log, 20);
    INVARIANT(sleeps == 2 * PAID_WAITS + 2);
    stream_until_a_wait(journaler, log);
    INVARIANT(sleeps == 2 * PAID_WAITS + 4);

    write_wanted(journaler, log, RING_SLOTS / 4);
    INVARIANT(sleeps == 2 * PAID_WAITS + 4); /* company enough */
    atomic_fetch_add(&clock_ahead_ns, UINT64_C(1000000000));
    for (int i = 0; i < 5; i++) {
        write_wanted(journaler, log, 20);
        atomic_fetch_add(&clock_ahead_ns, UINT64_C(1000000000));
    }
    INVARIANT(sleeps == 2 * PAID_WAITS + 4); /* no stream: a second between two */
    journaler_stats(journaler, &stats);
    INVARIANT(stats.gathers == begun + PAID_WAITS + 2);
    journaler_stop(journaler);
    journaler_free(journaler);
    free_ring(log);
}

static void test_failed_write_panics(const journal_position_t *position)
{
    ring_t *log = make_ring(RING_SLOTS, RING_MODE_DURABLE);
    pid_t child = fork();
    if (child == 0) {
        journal_config_t config = make_config(1);
        ring_format(log->header, 128, RING_SLOTS, (int64_t)position->sequence, RING_MODE_DURABLE, 0);
        ring_attach(log, log->header, NULL);
        journaler_t *journaler = journaler_new(&config, position, log);
        INVARIANT(journaler != NULL && journaler_start(journaler) == 0);
        /* Every write to a file fails from here on with EFBIG; the keeper has nothing to write. */
        const struct rlimit none = {0, 0};
        signal(SIGXFSZ, SIG_IGN);
        INVARIANT(freopen("/dev/null", "w", stderr) != NULL && setrlimit(RLIMIT_FSIZE, &none) == 0);
        publish_some(log, 1);
        atomic_store(&log->header->wanted, log->claimed);
        journaler_poll(journaler, 64);
        _exit(0);
    }
    int status = 0;
    INVARIANT(waitpid(child, &status, 0) == child);
    INVARIANT(WIFEXITED(status) && WEXITSTATUS(status) == JOURNAL_EXIT_PANIC);
    free_ring(log);
}

static void test_crc(void)
{
    static uint8_t data[40000];
    INVARIANT(crc32c("123456789", 9, 0) == 0xE3069283u);
    INVARIANT(crc32c_software("123456789", 9, 0) == 0xE3069283u);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)draw(256);
    for (int i = 0; i < 2000; i++) {
        size_t offset = draw(64);
        size_t size = i < 1000 ? (size_t)i : draw(sizeof data - 64);
        size_t cut = draw(size + 1);
        uint32_t seed = (uint32_t)draw(1ull << 32);
        uint32_t whole = crc32c_software(data + offset, size, seed);
        INVARIANT(crc32c(data + offset, size, seed) == whole);
        INVARIANT(crc32c(data + offset + cut, size - cut, crc32c(data + offset, cut, seed)) == whole);
    }
}

static void remove_all(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    INVARIANT(system(command) == 0);
}

int main(void)
{
    journal_position_t position = {.segment_first = JOURNAL_NO_SEGMENT};
    int segments = 0;

    test_crc();
    INVARIANT(mkdtemp(directory) != NULL);
    run(1, &position, RECORDS);
    INVARIANT(read_back(&position, &segments) >= RECORDS && segments > 5);
    uint64_t after_first = position.sequence;
    run(1, &position, 3000);
    INVARIANT(read_back(&position, &segments) >= after_first + 3000);
    run(0, &position, 3000);
    INVARIANT(read_back(&position, &segments) >= after_first + 6000);
    test_a_stream_waits_for_company_and_a_lone_order_does_not(&position);
    INVARIANT(read_back(&position, &segments) >= after_first + 7000);
    test_lazy_records_wait_and_wanted_ones_do_not(&position);
    read_back(&position, &segments);
    test_failed_write_panics(&position);
    remove_all();
    printf("journal: %llu records in %d segments read back\n", (unsigned long long)position.sequence, segments);
    return 0;
}
