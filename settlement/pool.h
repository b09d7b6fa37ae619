/* Things with a number: an array of them, places of removed ones used again, and an index from the number to the place. */
#ifndef BULLRING_SETTLEMENT_POOL_H
#define BULLRING_SETTLEMENT_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform.h"

#define PLACE_NONE UINT32_MAX

typedef struct pool_entry {
    uint64_t key; /* 0 = empty */
    uint32_t place;
} pool_entry_t;

typedef struct pool {
    char *items;
    uint32_t *free; /* places of removed items, a stack */
    pool_entry_t *index; /* open addressing, load at most a half */
    uint64_t mask;
    uint32_t free_count;
    uint32_t used;     /* places ever used */
    uint32_t capacity;
    uint32_t count;    /* items now */
} pool_t;

void pool_free(pool_t *pool);

/* A new item, zero; its key is not 0 and not there yet. PLACE_NONE when memory is short. Moves the items. */
uint32_t pool_add(pool_t *pool, size_t item_size, uint64_t key);

/* PLACE_NONE if it is not there. */
uint32_t pool_find(const pool_t *pool, uint64_t key);

/* Of an item that is there. */
void pool_remove(pool_t *pool, uint64_t key);

/* All of it as bytes, places included: items are told by their places elsewhere. `pool_write` returns the end of what it wrote,
 * pool_size() bytes. `pool_read` fills an empty pool and returns the end of what it read; NULL, and the pool is to be freed, when
 * the bytes are no pool or memory is short. */
size_t pool_size(const pool_t *pool, size_t item_size);
char *pool_write(const pool_t *pool, size_t item_size, char *out);
const char *pool_read(pool_t *pool, size_t item_size, const char *in, const char *end);

static inline uint64_t pool_hash(uint64_t key)
{
    /* Ids grow one by one: the product spreads them. */
    key *= UINT64_C(0x9e3779b97f4a7c15);
    return key ^ key >> 31;
}

/* Bring the line a lookup will touch first into the cache. */
static inline void pool_prefetch(const pool_t *pool, uint64_t key)
{
    if (pool->index != NULL)
        PREFETCH(&pool->index[pool_hash(key) & pool->mask]);
}

#endif
