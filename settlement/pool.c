#include "pool.h"

#include <stdlib.h>
#include <string.h>

#include "invariant.h"

#define FIRST_CAPACITY 512

void pool_free(pool_t *pool)
{
    free(pool->items);
    free(pool->free);
    free(pool->index);
    *pool = (pool_t){0};
}

/* Where the key stands, or the empty place where it would. Ends: the load is at most a half, so an empty place exists. */
static uint64_t locate(const pool_t *pool, uint64_t key)
{
    uint64_t at = pool_hash(key) & pool->mask;

    while (pool->index[at].key != 0 && pool->index[at].key != key)
        at = (at + 1) & pool->mask;
    return at;
}

static bool grow(pool_t *pool, size_t item_size)
{
    uint32_t capacity = pool->capacity == 0 ? FIRST_CAPACITY : pool->capacity * 2;
    char *items = realloc(pool->items, capacity * item_size);

    if (items == NULL)
        return false;
    pool->items = items;
    uint32_t *stack = realloc(pool->free, capacity * sizeof(uint32_t));
    if (stack == NULL)
        return false;
    pool->free = stack;
    pool_t indexed = {.mask = (uint64_t)capacity * 2 - 1};
    indexed.index = calloc(indexed.mask + 1, sizeof(pool_entry_t));
    if (indexed.index == NULL)
        return false;
    for (uint64_t at = 0; pool->capacity != 0 && at <= pool->mask; at++)
        if (pool->index[at].key != 0)
            indexed.index[locate(&indexed, pool->index[at].key)] = pool->index[at];
    free(pool->index);
    pool->index = indexed.index;
    pool->mask = indexed.mask;
    pool->capacity = capacity;
    return true;
}

uint32_t pool_add(pool_t *pool, size_t item_size, uint64_t key)
{
    if (pool->count == pool->capacity && !grow(pool, item_size))
        return PLACE_NONE;
    INVARIANT(key != 0);
    uint32_t place = pool->free_count > 0 ? pool->free[--pool->free_count] : pool->used++;
    pool_entry_t *entry = &pool->index[locate(pool, key)];
    INVARIANT(entry->key == 0);
    *entry = (pool_entry_t){key, place};
    pool->count++;
    memset(pool->items + place * item_size, 0, item_size);
    return place;
}

uint32_t pool_find(const pool_t *pool, uint64_t key)
{
    if (pool->count == 0 || key == 0)
        return PLACE_NONE;
    const pool_entry_t *entry = &pool->index[locate(pool, key)];
    return entry->key == 0 ? PLACE_NONE : entry->place;
}

void pool_remove(pool_t *pool, uint64_t key)
{
    uint64_t hole = locate(pool, key);

    INVARIANT(pool->index[hole].key == key);
    pool->free[pool->free_count++] = pool->index[hole].place;
    pool->count--;
    /* Whoever was pushed on by the removed one moves back, so that a search may end at the first empty place. */
    for (uint64_t at = (hole + 1) & pool->mask; pool->index[at].key != 0; at = (at + 1) & pool->mask) {
        uint64_t home = pool_hash(pool->index[at].key) & pool->mask;
        if (((at - home) & pool->mask) < ((at - hole) & pool->mask))
            continue;
        pool->index[hole] = pool->index[at];
        hole = at;
    }
    pool->index[hole].key = 0;
}
