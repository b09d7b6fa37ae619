/* What an account has open on an instrument: counts and quantities that filters cap (docs/MATCHING.md, section 16).
 *
 * One open-addressed table of (account, instrument), load at most 0.5, never deleted from, like the balances. */
#ifndef BULLRING_ENGINE_EXPOSURE_H
#define BULLRING_ENGINE_EXPOSURE_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"

typedef struct exposure {
    uint32_t account;
    uint32_t instrument; /* 0 = empty entry */
    uint32_t orders;
    uint32_t algo;
    uint32_t icebergs;
    uint32_t lists;
    int64_t buy_lots; /* open quantity of buy orders */
} exposure_t;

typedef struct exposures {
    exposure_t *entries;
    uint64_t mask;
    uint64_t used;
    uint64_t used_max;
    uint64_t seed;
} exposures_t;

void exposures_carve(exposures_t *exposures, arena_t *arena, uint32_t entries_max);
/* All zero if the account never had anything on the instrument. */
exposure_t exposures_get(const exposures_t *exposures, uint32_t account, uint32_t instrument);
/* The entry, made if needed. The caller has checked exposures_have_room(). */
exposure_t *exposures_obtain(exposures_t *exposures, uint32_t account, uint32_t instrument);
bool exposures_have_room(const exposures_t *exposures);
void exposures_prefetch(const exposures_t *exposures, uint32_t account, uint32_t instrument);

#endif
