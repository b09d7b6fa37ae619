#include "exposure.h"

#include "invariant.h"
#include "mix.h"
#include "platform.h"

void exposures_carve(exposures_t *exposures, arena_t *arena, uint32_t entries_max)
{
    uint64_t capacity = 1;

    while (capacity < (uint64_t)entries_max * 2)
        capacity *= 2;
    exposures->entries = arena_take(arena, capacity, sizeof(exposure_t));
    exposures->mask = capacity - 1;
    exposures->used_max = entries_max;
}

/* The entry, or the empty one where it would stand. */
static exposure_t *place_of(const exposures_t *exposures, uint32_t account, uint32_t instrument)
{
    uint64_t position = mix64((uint64_t)account << 32 | instrument, exposures->seed) & exposures->mask;

    /* Ends: the load is at most a half, so an empty entry exists. */
    for (;;) {
        exposure_t *entry = &exposures->entries[position];
        if (entry->instrument == 0 || (entry->instrument == instrument && entry->account == account))
            return entry;
        position = (position + 1) & exposures->mask;
    }
}

exposure_t exposures_get(const exposures_t *exposures, uint32_t account, uint32_t instrument)
{
    return *place_of(exposures, account, instrument);
}

exposure_t *exposures_obtain(exposures_t *exposures, uint32_t account, uint32_t instrument)
{
    exposure_t *entry = place_of(exposures, account, instrument);

    if (entry->instrument == 0) {
        INVARIANT(exposures->used < exposures->used_max);
        exposures->used++;
        entry->account = account;
        entry->instrument = instrument;
    }
    return entry;
}

bool exposures_have_room(const exposures_t *exposures)
{
    return exposures->used < exposures->used_max;
}

void exposures_prefetch(const exposures_t *exposures, uint32_t account, uint32_t instrument)
{
    PREFETCH(&exposures->entries[mix64((uint64_t)account << 32 | instrument, exposures->seed) & exposures->mask]);
}
