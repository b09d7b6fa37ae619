/* Token buckets per source address: a fixed table, the oldest entry of four places gives way. */
#ifndef BULLRING_LIMITER_H
#define BULLRING_LIMITER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LIMITER_PLACES 1024
#define LIMITER_WAYS 4
#define LIMITER_ADDRESS_SIZE 16

typedef struct limiter_entry {
    uint8_t address[LIMITER_ADDRESS_SIZE];
    uint64_t full_ns; /* when the bucket will be full again: each unit taken moves it by `unit_ns` */
} limiter_entry_t;

typedef struct limiter {
    uint64_t unit_ns;  /* time after which one unit comes back */
    uint64_t burst_ns; /* units the bucket holds, in time */
    limiter_entry_t entries[LIMITER_PLACES];
} limiter_t;

static inline void limiter_init(limiter_t *limiter, uint64_t unit_ns, uint64_t burst)
{
    memset(limiter, 0, sizeof(*limiter));
    limiter->unit_ns = unit_ns;
    limiter->burst_ns = unit_ns * burst;
}

static inline limiter_entry_t *limiter_entry(limiter_t *limiter, const uint8_t address[LIMITER_ADDRESS_SIZE])
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < LIMITER_ADDRESS_SIZE; i++)
        hash = (hash ^ address[i]) * UINT64_C(0x100000001b3);
    limiter_entry_t *places = &limiter->entries[(hash >> 32) % (LIMITER_PLACES / LIMITER_WAYS) * LIMITER_WAYS];
    limiter_entry_t *oldest = places;
    for (int i = 0; i < LIMITER_WAYS; i++) {
        if (memcmp(places[i].address, address, LIMITER_ADDRESS_SIZE) == 0)
            return &places[i];
        if (places[i].full_ns < oldest->full_ns)
            oldest = &places[i];
    }
    memcpy(oldest->address, address, LIMITER_ADDRESS_SIZE);
    oldest->full_ns = 0;
    return oldest;
}

/* Is a unit left for the address? */
static inline bool limiter_has(limiter_t *limiter, const uint8_t address[LIMITER_ADDRESS_SIZE], uint64_t now_ns)
{
    const limiter_entry_t *entry = limiter_entry(limiter, address);
    uint64_t base = entry->full_ns > now_ns ? entry->full_ns : now_ns;
    return base + limiter->unit_ns <= now_ns + limiter->burst_ns;
}

/* Take one unit, whether there is one or not up to one bucket of debt. */
static inline void limiter_take(limiter_t *limiter, const uint8_t address[LIMITER_ADDRESS_SIZE], uint64_t now_ns)
{
    limiter_entry_t *entry = limiter_entry(limiter, address);
    uint64_t base = entry->full_ns > now_ns ? entry->full_ns : now_ns;
    if (base < now_ns + limiter->burst_ns)
        entry->full_ns = base + limiter->unit_ns;
}

#endif
