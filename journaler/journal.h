/* The journaler: the one gating consumer of the log ring, the one writer of `commit`, and the archive of the report rings.
 *
 * Two threads. The stage (journaler_poll) does what an acknowledgement waits for: one pwritev and one fdatasync a batch. The
 * keeper does what none waits for: preparing zeroed segments, and durable.mark. They share a few atomics and no lock.
 *
 * A failed write or sync of any kind: `panic` of the log ring = errno, a file `panic` in the directory, _exit(74); no second
 * try, since the kernel marks pages clean that never reached the disk (J8). Only a full disk while preparing a segment is
 * no such failure: the stage then stops with STAGE_FAILED when it needs that segment, all acknowledged input durable (J9). */
#ifndef BULLRING_JOURNAL_H
#define BULLRING_JOURNAL_H

#include <stdint.h>

#include "ring.h"
#include "stage.h"

#define JOURNAL_EXIT_PANIC 74
#define JOURNAL_CONSUMER 0 /* index of the journaler among the gating consumers of log and report rings */
#define JOURNAL_SPARES_MAX 8
#define JOURNAL_PARTITIONS_MAX 32
#define JOURNAL_NO_SEGMENT UINT64_MAX
#define JOURNAL_BUCKETS 40

typedef struct journaler journaler_t;

typedef struct journal_config {
    const char *directory;
    uint64_t segment_size;
    uint64_t lazy_ns;          /* how long the first lazy record may wait for company */
    uint64_t mark_interval_ns; /* how far durable.mark may stay behind */
    uint32_t batch_slots_max;
    uint32_t spares;           /* segments prepared ahead */
    uint32_t sync;             /* 1 = D1: fdatasync before commit; 0 = D0 */
    uint32_t node;
    uint64_t cluster;
    uint64_t schema_hash;
    uint64_t mark_counter;     /* of the newest valid mark on disk */
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
    uint64_t batch_slots_max;
    uint64_t sync_ns_sum;
    uint64_t sync_ns_max;
    uint64_t syncs_slow; /* above 250 ms: a failing disk shows itself so (J8) */
    uint64_t archived;   /* report slots written to the archive */
    uint64_t marks;
    uint64_t prepared;
    uint64_t halted;     /* errno that keeps the keeper from preparing segments, 0 = none */
    uint64_t sync_buckets[JOURNAL_BUCKETS]; /* [i]: pwritev + fdatasync took 2^i..2^(i+1) ns */
} journal_stats_t;

/* NULL with errno if the directory, the segment or the memory cannot be had. Makes itself gating consumer of `log`. */
journaler_t *journaler_new(const journal_config_t *config, const journal_position_t *position, ring_t *log);

/* Archive the reports of `ring` from report sequence `start` on; 0 or -1 with errno. Before journaler_start(). */
int journaler_add_reports(journaler_t *journaler, int partition, ring_t *ring, int64_t start);

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
