/* What the stage and its helper threads share; nobody else includes it. */
#ifndef BULLRING_JOURNAL_INTERNAL_H
#define BULLRING_JOURNAL_INTERNAL_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "format.h"
#include "journal.h"
#include "walk.h"

#define JOURNAL_NAME_MAX 40
#define SPARE_EMPTY (-1)
#define SEGMENT_NAME_FORMAT "segment-%020llu.log"
#define SPARE_NAME_FORMAT "spare-%u.zero"
#define AUDIT_NAME_FORMAT "segment-%020llu.audit"
#define SYNC_SLOW_COUNT_MAX 16
#define HELPERS 4

typedef struct archive {
    ring_t *ring;
    int64_t next;
    uint64_t since_ns; /* when it was seen that a few slots wait, 0 = none do */
    int fd;
    uint8_t *copy; /* of market slots, which may be overwritten meanwhile; NULL = reports */
} archive_t;

/* The last synced position, stage to keeper and auditor. A version around fields that are all atomic: odd while being changed. */
typedef struct position_mailbox {
    _Alignas(CACHE_LINE) _Atomic uint64_t version;
    _Atomic uint64_t field[7];
} position_mailbox_t;

/* Where the auditor is: the chain of the segment it reads, and the hash of all slots up to there. */
typedef struct audit {
    journal_walk_t walk;
    uint64_t segment_first;
    uint64_t segment_size;
    uint32_t before[SHA256_WORDS];
    uint32_t state[SHA256_WORDS];
    int fd;
    uint8_t *buffer; /* one batch */
    uint64_t buffer_size;
} audit_t;

struct journaler {
    /* stage */
    ring_t *log;
    journal_position_t position;
    int64_t commit;
    uint64_t lazy_since_ns;
    uint64_t sync_ended_ns;  /* when the last sync did, and how long it took: what gather.c goes by */
    uint64_t sync_took_ns;
    uint32_t gather_skip;    /* so many batches in a stream do not wait */
    uint32_t gather_backoff; /* and so many did not after the last wait that brought nobody */
    uint64_t segment_size; /* of the current segment: the configured size may have changed since it was made */
    int segment_fd;
    int directory_fd;
    int archive_count;
    int begin_segment; /* the next write starts with the segment's header */
    archive_t archives[JOURNAL_ARCHIVES_MAX];
    journal_stats_t stats;
    journal_config_t config;
    _Alignas(64) segment_header_t segment_header;
    _Alignas(64) batch_header_t batch_header;

    /* stage <-> keeper */
    position_mailbox_t durable;
    _Alignas(CACHE_LINE) _Atomic int spare_fd[JOURNAL_SPARES_MAX]; /* prepare.c fills an empty place, the stage takes */
    _Atomic int stop;
    _Atomic int halted; /* errno of the full disk */
    _Atomic uint64_t sync_began_ns;     /* of the write and sync going on, 0 = none; stage to watch.c, as the next */
    _Atomic uint64_t sync_alarm_end_ns; /* slow syncs were seen: until then the alarm holds */
    _Atomic uint64_t marks;
    _Atomic uint64_t mark_behind_ns_max;
    _Atomic uint64_t prepared;
    _Atomic uint64_t audited;
    _Atomic uint64_t free_permille;
    _Atomic uint64_t looks;

    /* stage again: when the last slow syncs ended */
    uint64_t slow_at_ns[SYNC_SLOW_COUNT_MAX];
    uint64_t slow_count;

    /* helpers, each its own */
    _Alignas(CACHE_LINE) pthread_t helpers[HELPERS];
    int helper_count;
    int mark_fd;
    uint64_t mark_counter;
    uint64_t mark_sequence;
    uint64_t mark_due_since_ns;
    _Alignas(512) mark_slot_t mark;
    audit_t audit;
    char directory[PATH_MAX];
};

/* Never returns: the process ends with exit code 74. Callable from either thread. */
_Noreturn void journal_panic(struct journaler *journaler, const char *what, int error);

/* helpers.c. The last durable position, from the stage; and for helpers: false if it was just being changed. */
void durable_store(struct journaler *journaler);
int durable_load(struct journaler *journaler, journal_position_t *position);
int helpers_start(struct journaler *journaler);
void helpers_stop(struct journaler *journaler);
/* True when the helpers are to end. Sleeps `ns` otherwise. */
int helper_pause(struct journaler *journaler, uint64_t ns);

int keeper_open(struct journaler *journaler);
void keeper_close(struct journaler *journaler);
void *keeper_main(void *journaler);

void *prepare_main(void *journaler);
void prepare_close(struct journaler *journaler);
/* Take a prepared segment: its descriptor, with its spare number in *number; SPARE_EMPTY if there is none. */
int prepare_take(struct journaler *journaler, unsigned *number);
int prepare_count(const struct journaler *journaler);

void *audit_main(void *journaler);
void audit_init(struct journaler *journaler);
void audit_close(struct journaler *journaler);

void *watch_main(void *journaler);
/* One look, at start: nobody must begin on a full disk. */
void watch_step(struct journaler *journaler);
/* From the stage: a write with its sync took so long, and has just ended. */
void watch_slow_sync(struct journaler *journaler, uint64_t now_ns, uint64_t took_ns);

/* Wait for more records than `pending` where it pays; returns how many there are then. */
int64_t gather(struct journaler *journaler, int64_t pending);

enum archive_when {
    ARCHIVE_PRESSED,  /* orders wait for the disk: only rings that fill up */
    ARCHIVE_GATHERED, /* what has gathered, or has waited long enough */
    ARCHIVE_ALL,
};
int64_t archive_step(struct journaler *journaler, enum archive_when when);
void archive_close(struct journaler *journaler);

static inline uint64_t journal_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

#endif
