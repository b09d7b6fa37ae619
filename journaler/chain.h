/* The identity of the log at any sequence (CORE section 9): what replication compares between two nodes, whose files frame the
 * same records differently. */
#ifndef BULLRING_JOURNAL_CHAIN_H
#define BULLRING_JOURNAL_CHAIN_H

#include <stdint.h>

#include "ring.h"
#include "walk.h"

typedef struct journal_chain {
    uint64_t sequence; /* of the next record */
    uint64_t epoch;    /* of the record before it */
    uint64_t log_hash; /* over everything below */
} journal_chain_t;

/* Make `chain` end behind `count` slots that follow it. */
void journal_chain_extend(journal_chain_t *chain, const uint8_t *slots, int64_t count);

/* Where the chain stands at `sequence`, which is at or above walk->sequence and at most the end of this segment's batches; walk
 * stands where journal_walk_header() left it. Checks every batch it passes. Returns WALK_ROOM, or why the segment ends before;
 * `chain` is then where. */
uint32_t journal_chain_at(journal_walk_t *walk, const uint8_t *segment, uint64_t size, uint64_t sequence,
                          journal_chain_t *chain);

/* The replicator's copy out of the log ring, committed or not: up to slots_max slots of [sequence, end), whole groups; end is at
 * most pub. Returns the number, or RING_LAPPED. */
int64_t journal_copy(const ring_t *ring, int64_t sequence, int64_t end, uint8_t *out, int64_t slots_max);

/* Observer of a report ring: copies of the slots of one template in [*sequence, end), at most slots_max; *sequence moves to the
 * first slot not looked at. Slots that are no longer there are passed over. Returns how many were copied. */
int64_t journal_select(const ring_t *ring, int64_t *sequence, int64_t end, uint16_t template_id, uint8_t *out,
                       int64_t slots_max);

#endif
