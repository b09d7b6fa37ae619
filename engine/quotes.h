/* Quotes as the sequencer knows them: which orders stand for (account, instrument, set) now, and which are on their way
 * (docs/MATCHING.md, section 11). */
#ifndef BULLRING_ENGINE_QUOTES_H
#define BULLRING_ENGINE_QUOTES_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"

#define QUOTES_IN_FLIGHT_MAX 4

typedef struct quote_record {
    uint32_t account;
    uint32_t instrument; /* 0 = empty entry */
    uint32_t index;      /* of the quote at its matcher */
    uint8_t set;
    uint8_t in_flight;
    uint16_t pad;
    uint64_t standing[2]; /* order ids after the last answer, 0 = none */
    uint64_t coming[QUOTES_IN_FLIGHT_MAX][2]; /* of the quotes in flight, 0 = the side is pulled; oldest first */
} quote_record_t;

typedef struct quotes {
    quote_record_t *entries; /* open addressing, load at most 0.5 */
    uint64_t mask;
    uint32_t *used; /* by partition */
    uint32_t used_max; /* per partition */
    uint64_t seed;
} quotes_t;

void quotes_carve(quotes_t *quotes, arena_t *arena, uint32_t quotes_max, uint32_t partitions);
/* NULL if the account never quoted that set. */
quote_record_t *quotes_find(const quotes_t *quotes, uint32_t account, uint32_t instrument, uint8_t set);
quote_record_t *quotes_obtain(quotes_t *quotes, uint8_t partition, uint32_t account, uint32_t instrument, uint8_t set);

#endif
