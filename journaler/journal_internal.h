/* What journal.c, keeper.c and archive.c share; nobody else includes it. */
#ifndef BULLRING_JOURNAL_INTERNAL_H
#define BULLRING_JOURNAL_INTERNAL_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "format.h"
#include "journal.h"

#define JOURNAL_NAME_MAX 40
#define SPARE_EMPTY (-1)
#define SEGMENT_NAME_FORMAT "segment-%020llu.log"
#define SPARE_NAME_FORMAT "spare-%u.zero"
#define SYNC_SLOW_NS UINT64_C(250000000)

typedef struct report_archive {
    ring_t *ring;
    int64_t next;
    int fd;
    int partition;
} report_archive_t;

/* The last synced position, stage to keeper. A version around fields that are all atomic: odd while being changed. */
typedef struct position_mailbox {
    _Alignas(CACHE_LINE) _Atomic uint64_t version;
    _Atomic uint64_t field[7];
} position_mailbox_t;

struct journaler {
    /* stage */
    ring_t *log;
    journal_position_t position;
    int64_t commit;
    uint64_t lazy_since_ns;
    uint64_t segment_size; /* of the current segment: the configured size may have changed since it was made */
    int segment_fd;
    int directory_fd;
    int archive_count;
    int begin_segment; /* the next write starts with the segment's header */
    report_archive_t archives[JOURNAL_PARTITIONS_MAX];
    journal_stats_t stats;
    journal_config_t config;
    _Alignas(64) segment_header_t segment_header;
    _Alignas(64) batch_header_t batch_header;

    /* stage <-> keeper */
    position_mailbox_t durable;
    _Alignas(CACHE_LINE) _Atomic int spare_fd[JOURNAL_SPARES_MAX]; /* keeper fills an empty place, the stage takes */
    _Atomic int stop;
    _Atomic int halted; /* errno of the full disk */
    _Atomic uint64_t marks;
    _Atomic uint64_t prepared;

    /* keeper */
    _Alignas(CACHE_LINE) pthread_t keeper;
    int keeper_started;
    int mark_fd;
    uint64_t mark_counter;
    uint64_t mark_sequence;
    _Alignas(512) mark_slot_t mark;
    char directory[PATH_MAX];
};

/* Never returns: the process ends with exit code 74. Callable from either thread. */
_Noreturn void journal_panic(struct journaler *journaler, const char *what, int error);

void keeper_store_durable(struct journaler *journaler);
int keeper_start(struct journaler *journaler);
void keeper_stop(struct journaler *journaler);
/* Take a prepared segment: its descriptor, with its spare number in *number; SPARE_EMPTY if there is none. */
int keeper_take(struct journaler *journaler, unsigned *number);

int64_t archive_step(struct journaler *journaler, int log_busy);
void archive_close(struct journaler *journaler);

static inline uint64_t journal_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

#endif
