/* The journaler: the one gating consumer of the log ring, the one writer of `commit`, and the archive of the report rings.
 *
 * The stage (journaler_poll) does what an acknowledgement waits for: one pwritev and one fdatasync a batch. What none waits for
 * is done by helper threads that share a few atomics with it and no lock:
 *   keeper.c   durable.mark, at most mark_interval behind (J5)
 *   prepare.c  zeroed segments, `spares` ahead (J7)
 *   audit.c    the SHA-256 chain, read back from the files (J2)
 *   watch.c    free space and slow syncs: the cell `storage` of the log ring (J8, J9). Never waits for the disk itself
 *
 * A failed write or sync of any kind: `panic` of the log ring = errno, a file `panic` in the directory, _exit(74); no second
 * try, since the kernel marks pages clean that never reached the disk (J8). Only a full disk while preparing a segment is
 * no such failure: the stage then stops with STAGE_FAILED when it needs that segment, all acknowledged input durable (J9). */
#ifndef BULLRING_JOURNAL_H
#define BULLRING_JOURNAL_H

#include <stdint.h>

#include "ring.h"
#include "sha256.h"
#include "stage.h"

#define JOURNAL_EXIT_PANIC 74
#define JOURNAL_CONSUMER 0 /* index of the journaler among the gating consumers of log and report rings */
#define JOURNAL_SPARES_MAX 8
#define JOURNAL_PARTITIONS_MAX 32
#define JOURNAL_ARCHIVES_MAX (2 * JOURNAL_PARTITIONS_MAX)
#define JOURNAL_NO_SEGMENT UINT64_MAX
#define JOURNAL_BUCKETS 40

typedef struct journaler journaler_t;

typedef struct journal_config {
    const char *directory;
    uint64_t segment_size;
    uint64_t lazy_ns;          /* how long the first lazy record may wait for company */
    uint64_t gather_ns;        /* how long a sync in a stream may wait for more records; 0: not at all */
    uint64_t mark_interval_ns; /* how far durable.mark may stay behind */
    uint32_t batch_slots_max;
    uint32_t spares;           /* segments prepared ahead */
    uint32_t sync;             /* 1 = D1: fdatasync before commit; 0 = D0 */
    uint32_t node;
    uint64_t cluster;
    uint64_t schema_hash;
    uint64_t mark_counter;     /* of the newest valid mark on disk */
    uint64_t space_enough;     /* free bytes from which on the percentages are not looked at; 0: they always are */
    uint32_t space_low;        /* percent of the filesystem free: below it RING_STORAGE_LOW, and so on */
    uint32_t space_cancel_only;
    uint32_t space_halt;
    uint32_t sync_slow_count;  /* so many syncs slower than sync_slow_ns within sync_alarm_ns raise RING_STORAGE_SLOW ... */
    uint64_t sync_slow_ns;
    uint64_t sync_stalled_ns;  /* ... and so does one that takes this long, while it still takes */
    uint64_t sync_alarm_ns;    /* the flag falls when there was no cause for so long */
    uint64_t archive_lag_ns;   /* how long a few slots of an archive may wait for more, unless the ring fills up */
    uint64_t prepare_pause;    /* how many times the time of its own writes prepare.c leaves the disk alone */
    uint64_t audit_first;      /* where the audit chain goes on: the beginning of a segment; JOURNAL_NO_SEGMENT: no audit */
    uint64_t audit_origin;     /* first record of the chain; 0 but for a journal whose beginning and audit are gone */
    uint32_t audit_state[SHA256_WORDS]; /* chaining value there */
} journal_config_t;

/* Where the chain ends: what recovery found, what durable.mark says. */
typedef struct journal_position {
    uint64_t sequence;
    uint64_t epoch;
    uint64_t batch;
    uint64_t log_hash;
    uint64_t crc;
    uint64_t segment_first; /* JOURNAL_NO_SEGMENT: there is none yet */
    uint64_t offset;        /* where the next batch goes; 0 = the segment has no header yet */
} journal_position_t;

typedef struct journal_stats {
    uint64_t records;
    uint64_t batches;
    uint64_t bytes;
    uint64_t segments;      /* begun by this process */
    uint64_t segment_waits; /* polls that found no prepared segment */
    uint64_t market_archived; /* market slots written to their archive */
    uint64_t market_lost;     /* overwritten before they were: to be made again from the log */
    uint64_t batch_slots_max;
    uint64_t gathers;       /* batches that waited for company */
    uint64_t sync_ns_sum;
    uint64_t sync_ns_max;
    uint64_t syncs_slow; /* slower than sync_slow_ns: a failing disk shows itself so (J8) */
    uint64_t archived;   /* report slots written to the archive */
    uint64_t marks;
    uint64_t mark_behind_ns_max; /* longest time a synced batch waited for a mark that covers it */
    uint64_t prepared;   /* segments prepared by this process */
    uint64_t spares;     /* prepared and not yet used */
    uint64_t halted;     /* errno that keeps segments from being prepared, 0 = none */
    uint64_t audited;    /* the audit chain has seen every record below */
    uint64_t free_permille; /* of the filesystem */
    uint64_t storage;    /* as in the log ring */
    uint64_t looks;      /* of watch.c at the disk: it grows while that is alive */
    uint64_t sync_buckets[JOURNAL_BUCKETS]; /* [i]: pwritev + fdatasync took 2^i..2^(i+1) ns */
} journal_stats_t;

/* NULL with errno if the directory, the segment or the memory cannot be had. Makes itself gating consumer of `log`. */
journaler_t *journaler_new(const journal_config_t *config, const journal_position_t *position, ring_t *log);

/* Archive the reports of `ring` from report sequence `start` on; 0 or -1 with errno. Before journaler_start(). */
int journaler_add_reports(journaler_t *journaler, int partition, ring_t *ring, int64_t start);

/* Archive the market data of `ring` likewise; the ring does not wait. */
int journaler_add_market(journaler_t *journaler, int partition, ring_t *ring, int64_t start);

/* The index of the next slot of a ring to be archived. */
int64_t journaler_market_next(const journaler_t *journaler, const ring_t *ring);

/* Start the keeper; 0 or -1 with errno. */
int journaler_start(journaler_t *journaler);

/* stage_poll_fn: at most one batch of the log, then reports. `limit` does not bound it: a sync costs the same for one record
 * and for a full batch. */
int64_t journaler_poll(void *state, int64_t limit);

/* Time until a waiting lazy record must be written, in ns; INT64_MAX if nothing waits. For a loop that sleeps. */
int64_t journaler_patience(const journaler_t *journaler);

/* Write and sync what is published, sync archives, last mark, end of the keeper. Does not move rings backwards. */
void journaler_stop(journaler_t *journaler);
void journaler_free(journaler_t *journaler);

void journaler_position(const journaler_t *journaler, journal_position_t *position);
void journaler_stats(const journaler_t *journaler, journal_stats_t *stats);
stage_poll_fn journaler_poll_function(void);

#endif
