#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "crc32c.h"
#include "journal_internal.h"
#include "walk.h"

_Noreturn void journal_panic(journaler_t *journaler, const char *what, int error)
{
    char text[256];

    atomic_store_explicit(&journaler->log->header->panic, error != 0 ? (uint32_t)error : (uint32_t)EIO,
                          memory_order_release);
    int length = snprintf(text, sizeof text, "journaler: %s failed: errno %d (%s); verify the journal before a restart\n", what,
                          error, strerror(error));
    /* Best effort, both: the disk may be the very one that failed. */
    int fd = openat(journaler->directory_fd, "panic", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)length) < 0 || write(STDERR_FILENO, text, (size_t)length) < 0)
        _exit(JOURNAL_EXIT_PANIC);
    _exit(JOURNAL_EXIT_PANIC);
}

/* ---- the batch --------------------------------------------------------------------------------------------------- */

/* How many slots from position.sequence on make the next batch: whole groups, one epoch, at most `count_max`. */
static int64_t batch_count(const journaler_t *journaler, int64_t count_max)
{
    int64_t first = (int64_t)journaler->position.sequence;
    int64_t whole = 0;

    for (int64_t i = 0; i < count_max; i++) {
        const log_slot_t *slot = ring_slot(journaler->log, first + i);
        if (i > 0 && log_epoch_after(slot, 0) != 0) {
            INVARIANT(whole == i); /* an epoch begins with a record of its own, never inside a group */
            break;
        }
        if ((slot->flags & SLOT_FLAG_MORE) == 0)
            whole = i + 1;
    }
    return whole;
}

/* Point `parts` at the slots in the ring: two pieces where the ring wraps. The gating cursor keeps them from changing. */
static int batch_parts(const journaler_t *journaler, int64_t count, struct iovec *parts)
{
    int64_t first = (int64_t)journaler->position.sequence;
    int64_t head = ring_capacity(journaler->log) - (int64_t)((uint64_t)first & journaler->log->mask);
    int64_t before_wrap = count < head ? count : head;

    parts[0].iov_base = ring_slot(journaler->log, first);
    parts[0].iov_len = (size_t)before_wrap * JOURNAL_SLOT_SIZE;
    if (before_wrap == count)
        return 1;
    parts[1].iov_base = ring_slot(journaler->log, first + before_wrap);
    parts[1].iov_len = (size_t)(count - before_wrap) * JOURNAL_SLOT_SIZE;
    return 2;
}

static void fill_segment_header(journaler_t *journaler)
{
    segment_header_t *header = &journaler->segment_header;
    const journal_position_t *position = &journaler->position;

    memset(header, 0, sizeof *header);
    header->magic = SEGMENT_MAGIC;
    header->format = JOURNAL_FORMAT;
    header->first_seq = position->sequence;
    header->epoch = position->epoch;
    header->batch = position->batch;
    header->log_hash = position->log_hash;
    header->prev_crc = (uint32_t)position->crc;
    header->node = journaler->config.node;
    header->cluster = journaler->config.cluster;
    header->schema_hash = journaler->config.schema_hash;
    header->segment_size = journaler->segment_size;
    header->ts_ns = journal_clock(CLOCK_REALTIME);
    header->crc32c = crc32c(header, sizeof *header, header->prev_crc);
}

static void fill_batch_header(journaler_t *journaler, int64_t count, const struct iovec *parts, int part_count)
{
    batch_header_t *header = &journaler->batch_header;
    const journal_position_t *position = &journaler->position;
    uint64_t sequence = position->sequence;
    uint64_t epoch = log_epoch_after(parts[0].iov_base, position->epoch);
    uint64_t hash = position->log_hash;

    memset(header, 0, sizeof *header);
    header->magic = BATCH_MAGIC;
    header->length = (uint32_t)count * JOURNAL_SLOT_SIZE;
    header->flags = journaler->config.sync ? 0 : BATCH_FLAG_UNSYNCED;
    header->format = JOURNAL_FORMAT;
    header->first_seq = sequence;
    header->count = (uint32_t)count;
    header->prev_crc = (uint32_t)position->crc;
    header->epoch = epoch;
    header->batch = position->batch + 1;
    header->ts_ns = journal_clock(CLOCK_REALTIME);
    for (int i = 0; i < part_count; i++) {
        int64_t slots = (int64_t)(parts[i].iov_len / JOURNAL_SLOT_SIZE);
        hash = journal_log_hash(hash, sequence, epoch, parts[i].iov_base, slots);
        sequence += (uint64_t)slots;
    }
    header->log_hash = hash;
    uint32_t crc = crc32c(header, sizeof *header, header->prev_crc);
    for (int i = 0; i < part_count; i++)
        crc = crc32c(parts[i].iov_base, parts[i].iov_len, crc);
    header->crc32c = crc;
}

static void count_sync(journaler_t *journaler, uint64_t began_ns, uint64_t now_ns)
{
    uint64_t took_ns = now_ns - began_ns;
    journal_stats_t *stats = &journaler->stats;
    int bucket = 63 - __builtin_clzll(took_ns | 1);

    journaler->sync_ended_ns = now_ns;
    journaler->sync_took_ns = took_ns;
    stats->sync_ns_sum += took_ns;
    stats->sync_ns_max = took_ns > stats->sync_ns_max ? took_ns : stats->sync_ns_max;
    if (UNLIKELY(took_ns >= journaler->config.sync_slow_ns)) {
        stats->syncs_slow++;
        watch_slow_sync(journaler, now_ns, took_ns);
    }
    stats->sync_buckets[bucket < JOURNAL_BUCKETS ? bucket : JOURNAL_BUCKETS - 1]++;
}

static void write_batch(journaler_t *journaler, int64_t count)
{
    struct iovec parts[4];
    journal_position_t *position = &journaler->position;
    int first = journaler->begin_segment ? 0 : 1;
    int slots = batch_parts(journaler, count, parts + 2);
    size_t size = BATCH_HEADER_SIZE + (size_t)count * JOURNAL_SLOT_SIZE;

    if (journaler->begin_segment) {
        fill_segment_header(journaler);
        size += SEGMENT_HEADER_SIZE;
    }
    fill_batch_header(journaler, count, parts + 2, slots);
    parts[0] = (struct iovec){&journaler->segment_header, SEGMENT_HEADER_SIZE};
    parts[1] = (struct iovec){&journaler->batch_header, BATCH_HEADER_SIZE};

    uint64_t began = journal_clock(CLOCK_MONOTONIC);
    atomic_store_explicit(&journaler->sync_began_ns, began, memory_order_relaxed);
    errno = 0;
    ssize_t written = pwritev(journaler->segment_fd, parts + first, 2 - first + slots, (off_t)position->offset);
    if (written != (ssize_t)size)
        journal_panic(journaler, "pwritev of a batch", errno);
    if (journaler->config.sync && fdatasync(journaler->segment_fd) != 0)
        journal_panic(journaler, "fdatasync of a segment", errno);
    atomic_store_explicit(&journaler->sync_began_ns, 0, memory_order_relaxed);
    count_sync(journaler, began, journal_clock(CLOCK_MONOTONIC));

    position->sequence += (uint64_t)count;
    position->epoch = journaler->batch_header.epoch;
    position->batch = journaler->batch_header.batch;
    position->log_hash = journaler->batch_header.log_hash;
    position->crc = journaler->batch_header.crc32c;
    position->offset += size;
    journaler->begin_segment = 0;
    journaler->stats.records += (uint64_t)count;
    journaler->stats.batches++;
    journaler->stats.bytes += size;
    if ((uint64_t)count > journaler->stats.batch_slots_max)
        journaler->stats.batch_slots_max = (uint64_t)count;
}

/* ---- segments ---------------------------------------------------------------------------------------------------- */

static uint64_t segment_room(const journaler_t *journaler)
{
    uint64_t used = journaler->position.offset + (journaler->begin_segment ? SEGMENT_HEADER_SIZE : 0) + BATCH_HEADER_SIZE;
    return used < journaler->segment_size ? (journaler->segment_size - used) / JOURNAL_SLOT_SIZE : 0;
}

/* Begin the segment of the next record. The name is made durable before anything of it is acknowledged; the header goes out
 * with the first batch. Once in hundreds of thousands of records. */
static int segment_begin(journaler_t *journaler)
{
    char from[JOURNAL_NAME_MAX];
    char to[JOURNAL_NAME_MAX];
    unsigned number;
    int fd = prepare_take(journaler, &number);

    if (fd == SPARE_EMPTY) {
        journaler->stats.segment_waits++;
        return atomic_load_explicit(&journaler->halted, memory_order_acquire) != 0 ? STAGE_FAILED : STAGE_IDLE;
    }
    snprintf(from, sizeof from, SPARE_NAME_FORMAT, number);
    snprintf(to, sizeof to, SEGMENT_NAME_FORMAT, (unsigned long long)journaler->position.sequence);
    if (renameat(journaler->directory_fd, from, journaler->directory_fd, to) != 0)
        journal_panic(journaler, "rename of a prepared segment", errno);
    if (journaler->config.sync && fsync(journaler->directory_fd) != 0)
        journal_panic(journaler, "fsync of the journal directory", errno);
    /* From here on prepare.c may fill that place again: the name is free. */
    atomic_store_explicit(&journaler->spare_fd[number], SPARE_EMPTY, memory_order_release);
    if (journaler->segment_fd >= 0)
        close(journaler->segment_fd);
    journaler->segment_fd = fd;
    journaler->segment_size = journaler->config.segment_size;
    journaler->position.segment_first = journaler->position.sequence;
    journaler->position.offset = 0;
    journaler->begin_segment = 1;
    journaler->stats.segments++;
    return 1;
}

/* ---- the stage --------------------------------------------------------------------------------------------------- */

static void raise_commit(journaler_t *journaler)
{
    /* Acquire: pairs with the replicator's release store after the standby's acknowledgement. */
    int64_t replicated = atomic_load_explicit(&journaler->log->header->replicated, memory_order_acquire);
    int64_t durable = (int64_t)journaler->position.sequence;
    int64_t commit = durable < replicated ? durable : replicated;

    if (commit > journaler->commit) {
        journaler->commit = commit;
        ring_store_commit(journaler->log, commit);
    }
}

/* At once while somebody waits for a record, else lazy_ns after the first one nobody waits for. */
static int batch_due(journaler_t *journaler, int64_t pending)
{
    int64_t wanted = atomic_load_explicit(&journaler->log->header->wanted, memory_order_acquire);

    if (!journaler->config.sync || (int64_t)journaler->position.sequence < wanted ||
        pending >= ring_capacity(journaler->log) / 2 || pending >= (int64_t)journaler->config.batch_slots_max)
        return 1;
    uint64_t now = journal_clock(CLOCK_MONOTONIC);
    if (journaler->lazy_since_ns == 0)
        journaler->lazy_since_ns = now;
    return now - journaler->lazy_since_ns >= journaler->config.lazy_ns;
}

static int64_t log_step(journaler_t *journaler)
{
    journal_position_t *position = &journaler->position;
    int64_t pending = ring_published(journaler->log) - (int64_t)position->sequence;

    raise_commit(journaler);
    if (pending <= 0 || !batch_due(journaler, pending))
        return STAGE_IDLE;
    if (journaler->segment_fd < 0 || segment_room(journaler) < GROUP_SLOTS_MAX) {
        int begun = segment_begin(journaler);
        if (begun <= 0)
            return begun;
    }
    pending = gather(journaler, pending);
    int64_t count_max = (int64_t)segment_room(journaler);
    if (count_max > (int64_t)journaler->config.batch_slots_max)
        count_max = (int64_t)journaler->config.batch_slots_max;
    if (count_max > pending)
        count_max = pending;
    int64_t count = batch_count(journaler, count_max);
    INVARIANT(count > 0); /* pub never ends inside a group, and a group is never longer than GROUP_SLOTS_MAX */

    write_batch(journaler, count);
    journaler->lazy_since_ns = 0;
    if (journaler->config.sync)
        durable_store(journaler);
    ring_advance(journaler->log, JOURNAL_CONSUMER, (int64_t)position->sequence);
    raise_commit(journaler);
    return count;
}

int64_t journaler_poll(void *state, int64_t limit)
{
    journaler_t *journaler = state;
    int64_t done = log_step(journaler);

    (void)limit;
    if (done < 0)
        return done;
    return done + archive_step(journaler, done > 0 ? ARCHIVE_PRESSED : ARCHIVE_GATHERED);
}

int64_t journaler_patience(const journaler_t *journaler)
{
    if (journaler->lazy_since_ns == 0)
        return INT64_MAX;
    uint64_t waited = journal_clock(CLOCK_MONOTONIC) - journaler->lazy_since_ns;
    return waited >= journaler->config.lazy_ns ? 0 : (int64_t)(journaler->config.lazy_ns - waited);
}

stage_poll_fn journaler_poll_function(void)
{
    return journaler_poll;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static int open_segment(journaler_t *journaler)
{
    char name[JOURNAL_NAME_MAX];
    struct stat status;

    journaler->segment_fd = -1;
    if (journaler->position.segment_first == JOURNAL_NO_SEGMENT)
        return 0;
    snprintf(name, sizeof name, SEGMENT_NAME_FORMAT, (unsigned long long)journaler->position.segment_first);
    journaler->segment_fd = openat(journaler->directory_fd, name, O_WRONLY | O_CLOEXEC);
    if (journaler->segment_fd < 0 || fstat(journaler->segment_fd, &status) != 0)
        return -1;
    journaler->segment_size = (uint64_t)status.st_size;
    journaler->begin_segment = journaler->position.offset == 0;
    /* What recovery read may never have been synced (the crash came first); it is about to be called durable. */
    return fdatasync(journaler->segment_fd) != 0 || fsync(journaler->directory_fd) != 0 ? -1 : 0;
}

journaler_t *journaler_new(const journal_config_t *config, const journal_position_t *position, ring_t *log)
{
    journaler_t *journaler;

    INVARIANT(config->batch_slots_max >= GROUP_SLOTS_MAX && config->spares > 0 && config->spares <= JOURNAL_SPARES_MAX);
    INVARIANT(config->sync_slow_count > 0 && config->sync_slow_count <= SYNC_SLOW_COUNT_MAX);
    INVARIANT(config->segment_size >= SEGMENT_HEADER_SIZE + BATCH_HEADER_SIZE + GROUP_SLOTS_MAX * JOURNAL_SLOT_SIZE);
    if (posix_memalign((void **)&journaler, 4096, sizeof *journaler) != 0)
        return NULL;
    memset(journaler, 0, sizeof *journaler);
    journaler->config = *config;
    snprintf(journaler->directory, sizeof journaler->directory, "%s", config->directory);
    journaler->config.directory = journaler->directory;
    journaler->position = *position;
    journaler->log = log;
    journaler->commit = ring_commit(log);
    journaler->mark_fd = -1;
    journaler->mark_counter = config->mark_counter;
    audit_init(journaler);
    for (int i = 0; i < JOURNAL_SPARES_MAX; i++)
        atomic_init(&journaler->spare_fd[i], SPARE_EMPTY);
    journaler->directory_fd = open(config->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (journaler->directory_fd < 0 || open_segment(journaler) != 0) {
        int error = errno;
        if (journaler->directory_fd >= 0)
            close(journaler->directory_fd);
        if (journaler->segment_fd > 0)
            close(journaler->segment_fd);
        free(journaler);
        errno = error;
        return NULL;
    }
    durable_store(journaler);
    ring_gate(log, JOURNAL_CONSUMER, (int64_t)position->sequence);
    return journaler;
}

int journaler_start(journaler_t *journaler)
{
    return helpers_start(journaler);
}

void journaler_stop(journaler_t *journaler)
{
    /* What is published by now goes out, lazy or not; a producer that goes on does not keep this from ending. */
    int64_t end = ring_published(journaler->log);

    while ((int64_t)journaler->position.sequence < end) {
        journaler->lazy_since_ns = 1;
        int64_t done = log_step(journaler);
        if (done < 0)
            break;
        if (done == 0)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    if (!journaler->config.sync && journaler->segment_fd >= 0) {
        if (fdatasync(journaler->segment_fd) != 0)
            journal_panic(journaler, "fdatasync of a segment", errno);
        durable_store(journaler);
    }
    while (archive_step(journaler, ARCHIVE_ALL) > 0)
        ;
    archive_close(journaler);
    helpers_stop(journaler);
}

void journaler_free(journaler_t *journaler)
{
    if (journaler->segment_fd >= 0)
        close(journaler->segment_fd);
    close(journaler->directory_fd);
    free(journaler);
}

void journaler_position(const journaler_t *journaler, journal_position_t *position)
{
    *position = journaler->position;
}

void journaler_stats(const journaler_t *journaler, journal_stats_t *stats)
{
    *stats = journaler->stats;
    stats->marks = atomic_load_explicit(&journaler->marks, memory_order_relaxed);
    stats->prepared = atomic_load_explicit(&journaler->prepared, memory_order_relaxed);
    stats->halted = (uint64_t)atomic_load_explicit(&journaler->halted, memory_order_relaxed);
    stats->mark_behind_ns_max = atomic_load_explicit(&journaler->mark_behind_ns_max, memory_order_relaxed);
    stats->spares = (uint64_t)prepare_count(journaler);
    stats->audited = atomic_load_explicit(&journaler->audited, memory_order_relaxed);
    stats->free_permille = atomic_load_explicit(&journaler->free_permille, memory_order_relaxed);
    stats->storage = ring_storage(journaler->log);
    stats->looks = atomic_load_explicit(&journaler->looks, memory_order_relaxed);
}
