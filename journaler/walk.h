/* Reading a segment: checks every batch and copies its slots, whole linked groups at a time. Shared by recovery, readers and
 * tools. Never writes, never calls the system. */
#ifndef BULLRING_JOURNAL_WALK_H
#define BULLRING_JOURNAL_WALK_H

#include <stdint.h>

#include "format.h"
#include "ring.h"

enum walk_stop {
    WALK_ROOM = 0,  /* `out` is full, or a caller's bound was reached: call again */
    WALK_END = 1,   /* zeros, or the segment's last bytes, follow the last batch */
    WALK_MAGIC = 2, /* neither a batch nor zeros */
    WALK_SHAPE = 3, /* sizes or format of the header make no sense */
    WALK_CHAIN = 4, /* sequence, number, epoch or checksum before it are not those of the next batch */
    WALK_CRC = 5,   /* checksum */
    WALK_HASH = 6,  /* valid checksum, but the log hash is not that of the records */
    WALK_GROUP = 7, /* valid checksum, but ends inside a linked group */
};

/* The chain after the last checked batch, then where that batch lies. A caller sets the first part (from the segment's
 * header), offset = SEGMENT_HEADER_SIZE, want = the first sequence it wishes to see, and zero in the rest. */
typedef struct journal_walk {
    uint64_t sequence; /* next to come */
    uint64_t epoch;
    uint64_t batch;
    uint64_t log_hash;
    uint32_t crc;
    uint32_t stop;     /* walk_stop of the last call */
    uint64_t offset;   /* next batch */
    uint64_t want;     /* next sequence to hand out */
    uint64_t held;     /* offset of a checked batch not wholly handed out, 0 = none */
    uint64_t held_first;
    uint64_t ts_ns;    /* of the last checked batch */
} journal_walk_t;

/* Check the header of a segment against the chain; true if it continues it. With `adopt` take the chain from it instead. */
int journal_walk_header(journal_walk_t *walk, const uint8_t *segment, uint64_t size, int adopt);

/* Check the batch that lies at `data` (walk->offset of its segment) and make the chain end with it: WALK_ROOM. Any other answer
 * leaves the chain as it was. `size`: of what is there from `data` on. */
uint32_t journal_walk_batch(journal_walk_t *walk, const uint8_t *data, uint64_t size);

/* Hand out slots of [want, limit) into `out`, at most `out_slots` (>= GROUP_SLOTS_MAX); returns how many. Never ends inside a
 * group, as long as `limit` does not. Returns 0 only with a reason in walk->stop; WALK_ROOM then means: all below limit done.
 * With out = NULL only checks, up to the end of the batch that reaches `limit`, and returns the records checked. */
int64_t journal_walk(journal_walk_t *walk, const uint8_t *segment, uint64_t size, uint64_t limit, uint8_t *out,
                     int64_t out_slots);

/* First offset >= from of a batch that validates by itself (seeded with its own prev_crc), has a number >= batch_min and was
 * written synced; 0 if there is none (J4). */
uint64_t journal_scan(const uint8_t *segment, uint64_t size, uint64_t from, uint64_t batch_min);

/* First offset >= from that is not zero; `size` if all are. */
uint64_t journal_first_nonzero(const uint8_t *segment, uint64_t size, uint64_t from);

/* Length of the longest prefix of `count` slots that does not end inside a group. */
int64_t journal_whole_groups(const uint8_t *slots, int64_t count);

/* Observer's copy out of the log ring: up to slots_max slots of [sequence, ring_visible), whole groups. Returns the number,
 * or RING_LAPPED if they are no longer there (CORE K1). */
int64_t journal_follow(const ring_t *ring, int64_t sequence, uint8_t *out, int64_t slots_max);

/* What Python asks of a ring before attaching to it: plain numbers, one look. */
typedef struct journal_ring_view {
    int64_t base;
    int64_t claim;
    int64_t published;
    int64_t commit;
    int64_t visible;
    int64_t cursor; /* of the journaler */
    int64_t capacity;
    uint32_t gating; /* 1 = the producer waits for that cursor */
    uint32_t panic;
    uint32_t mode;
} journal_ring_view_t;

void journal_view_ring(const ring_t *ring, journal_ring_view_t *view);

uint64_t journal_log_hash(uint64_t hash, uint64_t sequence, uint64_t epoch, const uint8_t *slots, int64_t count);

#endif
