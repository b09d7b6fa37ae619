/* The audit chain (J2): SHA-256 over all log slots in order, computed behind from what the files say, and written beside each
 * segment when that is closed. So it also reads every batch back once and checks it.
 *
 * segment-<first sequence, 20 digits>.audit, text, one `name value` a line:
 *   audit 1                    format
 *   origin N                   first record of the chain: 0, unless the journal's beginning and its audit were lost
 *   first N, end N             the segment's records are [first, end)
 *   log_hash HEX               log identity after them
 *   before HEX, after HEX      chaining value of SHA-256 at both ends: 8 words, as FIPS 180-4 prints them
 *   sha256 HEX                 SHA-256 of all slots of [origin, end): what anybody's sha256 of the exported slots gives
 *
 * The values do not depend on batches, segments or nodes: two nodes' chains can be compared at any sequence. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "journal_internal.h"

#define IDLE_NS UINT64_C(20000000)
#define NICE 10
#define TEXT_MAX 768
#define HEX_MAX (2 * SHA256_DIGEST + 1)
#define BLOCKS_PER_SLOT (JOURNAL_SLOT_SIZE / SHA256_BLOCK)

static void put_words(const uint32_t words[SHA256_WORDS], char text[HEX_MAX])
{
    for (int i = 0; i < SHA256_WORDS; i++)
        snprintf(text + 8 * i, 9, "%08x", words[i]);
}

static void put_digest(const audit_t *audit, uint64_t origin, char text[HEX_MAX])
{
    uint8_t digest[SHA256_DIGEST];

    sha256_digest(audit->state, (audit->walk.sequence - origin) * BLOCKS_PER_SLOT, digest);
    for (int i = 0; i < SHA256_DIGEST; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

/* Write the file of the segment that has ended, whole or not at all. */
static void write_file(journaler_t *journaler)
{
    const audit_t *audit = &journaler->audit;
    const uint64_t origin = journaler->config.audit_origin;
    char before[HEX_MAX], after[HEX_MAX], digest[HEX_MAX], text[TEXT_MAX], name[JOURNAL_NAME_MAX], temporary[JOURNAL_NAME_MAX + 4];

    put_words(audit->before, before);
    put_words(audit->state, after);
    put_digest(audit, origin, digest);
    int size = snprintf(text, sizeof text,
                        "audit 1\norigin %llu\nfirst %llu\nend %llu\nlog_hash %016llx\nbefore %s\nafter %s\nsha256 %s\n",
                        (unsigned long long)origin, (unsigned long long)audit->segment_first,
                        (unsigned long long)audit->walk.sequence, (unsigned long long)audit->walk.log_hash, before, after, digest);
    snprintf(name, sizeof name, AUDIT_NAME_FORMAT, (unsigned long long)audit->segment_first);
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    int fd = openat(journaler->directory_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        journal_panic(journaler, "open of an audit file", errno);
    errno = 0;
    ssize_t written = write(fd, text, (size_t)size);
    int error = written == size ? 0 : errno != 0 ? errno : ENOSPC;
    if (error == 0 && fsync(fd) != 0)
        journal_panic(journaler, "fsync of an audit file", errno);
    close(fd);
    if (error == 0 && renameat(journaler->directory_fd, temporary, journaler->directory_fd, name) != 0)
        error = errno;
    if (error == 0)
        return;
    (void)unlinkat(journaler->directory_fd, temporary, 0);
    /* On a full disk it is left out: the next start makes it from the segment. */
    if (error != ENOSPC && error != EDQUOT)
        journal_panic(journaler, "write of an audit file", error);
}

/* Open the segment that begins at `first`; 0 if it is not there yet. */
static int open_segment(journaler_t *journaler, uint64_t first)
{
    char name[JOURNAL_NAME_MAX];
    struct stat status;
    uint8_t header[SEGMENT_HEADER_SIZE];
    audit_t *audit = &journaler->audit;

    snprintf(name, sizeof name, SEGMENT_NAME_FORMAT, (unsigned long long)first);
    int fd = openat(journaler->directory_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, &status) != 0 || pread(fd, header, sizeof header, 0) != (ssize_t)sizeof header)
        journal_panic(journaler, "audit: open of a segment", errno);
    if (!journal_walk_header(&audit->walk, header, sizeof header, audit->segment_first == JOURNAL_NO_SEGMENT))
        journal_panic(journaler, "audit: a segment's header does not continue the chain; reading it back", EIO);
    if (audit->fd >= 0)
        close(audit->fd);
    audit->fd = fd;
    audit->segment_first = first;
    audit->segment_size = (uint64_t)status.st_size;
    memcpy(audit->before, audit->state, sizeof audit->before);
    return 1;
}

/* The next batch into the buffer; its size, or 0 where the segment ends. */
static uint64_t read_batch(journaler_t *journaler)
{
    audit_t *audit = &journaler->audit;
    batch_header_t header;
    uint64_t offset = audit->walk.offset;

    if (offset + sizeof header > audit->segment_size)
        return 0;
    if (pread(audit->fd, &header, sizeof header, (off_t)offset) != (ssize_t)sizeof header)
        journal_panic(journaler, "audit: reading back a batch", errno);
    if (header.magic != BATCH_MAGIC)
        return 0;
    uint64_t size = sizeof header + (uint64_t)header.length;
    if (size > audit->segment_size - offset)
        journal_panic(journaler, "audit: a batch does not fit its segment; reading it back", EIO);
    if (size > audit->buffer_size) {
        uint8_t *larger = realloc(audit->buffer, size);
        if (larger == NULL)
            journal_panic(journaler, "audit: memory for a batch", ENOMEM);
        audit->buffer = larger;
        audit->buffer_size = size;
    }
    if (pread(audit->fd, audit->buffer, size, (off_t)offset) != (ssize_t)size)
        journal_panic(journaler, "audit: reading back a batch", errno);
    return size;
}

/* One batch, or the end of a segment; 0 if there is nothing to do for now. */
static int audit_step(journaler_t *journaler, const journal_position_t *durable)
{
    audit_t *audit = &journaler->audit;

    if (audit->segment_first == JOURNAL_NO_SEGMENT) {
        if (durable->segment_first == JOURNAL_NO_SEGMENT || !open_segment(journaler, journaler->config.audit_first))
            return 0;
        INVARIANT(audit->walk.sequence == journaler->config.audit_first);
    }
    if (audit->walk.sequence >= durable->sequence)
        return 0;
    uint64_t size = read_batch(journaler);
    if (size == 0) {
        /* More records are durable and not here: the segment is closed, and a next one there. */
        write_file(journaler);
        if (!open_segment(journaler, audit->walk.sequence))
            journal_panic(journaler, "audit: a segment is missing; opening it", ENOENT);
        return 1;
    }
    if (journal_walk_batch(&audit->walk, audit->buffer, size) != WALK_ROOM)
        journal_panic(journaler, "audit: a batch read back is not the one written; the check of it", EIO);
    sha256_blocks(audit->state, audit->buffer + BATCH_HEADER_SIZE, (size - BATCH_HEADER_SIZE) / SHA256_BLOCK);
    atomic_store_explicit(&journaler->audited, audit->walk.sequence, memory_order_relaxed);
    return 1;
}

void *audit_main(void *argument)
{
    journaler_t *journaler = argument;
    journal_position_t durable;

    if (journaler->config.audit_first == JOURNAL_NO_SEGMENT)
        return NULL;
    /* Of this thread alone. Nobody waits for it; where it is not allowed the thread only is less modest. */
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
    while (!helper_pause(journaler, IDLE_NS)) {
        if (!durable_load(journaler, &durable))
            continue;
        while (audit_step(journaler, &durable) && !atomic_load_explicit(&journaler->stop, memory_order_acquire))
            ;
    }
    return NULL;
}

void audit_init(journaler_t *journaler)
{
    audit_t *audit = &journaler->audit;

    audit->segment_first = JOURNAL_NO_SEGMENT;
    audit->fd = -1;
    memcpy(audit->state, journaler->config.audit_state, sizeof audit->state);
    atomic_store_explicit(&journaler->audited, journaler->config.audit_first, memory_order_relaxed);
}

void audit_close(journaler_t *journaler)
{
    if (journaler->audit.fd >= 0)
        close(journaler->audit.fd);
    free(journaler->audit.buffer);
    journaler->audit.buffer = NULL;
}
