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

static bool grow(pool_t *pool, size_t item_size, uint32_t capacity)
{
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
    if (pool->count == pool->capacity && !grow(pool, item_size, pool->capacity == 0 ? FIRST_CAPACITY : pool->capacity * 2))
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

/* ---- as bytes --------------------------------------------------------------------------------------------------------- */

typedef struct pool_head {
    uint32_t used;
    uint32_t count;
    uint32_t free_count;
    uint32_t item_size;
} pool_head_t;

size_t pool_size(const pool_t *pool, size_t item_size)
{
    return sizeof(pool_head_t) + pool->used * item_size + pool->free_count * sizeof(uint32_t) +
           pool->count * sizeof(pool_entry_t);
}

static char *put(char *out, const void *from, size_t size)
{
    if (size > 0)
        memcpy(out, from, size);
    return out + size;
}

char *pool_write(const pool_t *pool, size_t item_size, char *out)
{
    pool_head_t head = {pool->used, pool->count, pool->free_count, (uint32_t)item_size};

    out = put(out, &head, sizeof head);
    out = put(out, pool->items, pool->used * item_size);
    out = put(out, pool->free, pool->free_count * sizeof(uint32_t));
    for (uint64_t at = 0; pool->count > 0 && at <= pool->mask; at++)
        if (pool->index[at].key != 0)
            out = put(out, &pool->index[at], sizeof(pool_entry_t));
    return out;
}

/* Every place is either free or an item's, once. */
static bool fill_index(pool_t *pool, const char *in)
{
    for (uint32_t i = 0; i < pool->free_count; i++)
        if (pool->free[i] >= pool->used)
            return false;
    for (uint32_t i = 0; i < pool->count; i++) {
        pool_entry_t entry;
        memcpy(&entry, in + i * sizeof entry, sizeof entry);
        if (entry.key == 0 || entry.place >= pool->used)
            return false;
        pool_entry_t *at = &pool->index[locate(pool, entry.key)];
        if (at->key != 0)
            return false;
        *at = entry;
    }
    return true;
}

const char *pool_read(pool_t *pool, size_t item_size, const char *in, const char *end)
{
    pool_head_t head;
    uint32_t capacity = FIRST_CAPACITY;

    if ((size_t)(end - in) < sizeof head)
        return NULL;
    memcpy(&head, in, sizeof head);
    if (head.item_size != item_size || head.used > UINT32_MAX / 2 || (uint64_t)head.count + head.free_count != head.used)
        return NULL;
    pool_t counts = {.used = head.used, .count = head.count, .free_count = head.free_count};
    if ((size_t)(end - in) < pool_size(&counts, item_size))
        return NULL;
    while (capacity < head.used)
        capacity *= 2;
    if (head.used > 0 && !grow(pool, item_size, capacity))
        return NULL;
    pool->used = head.used;
    pool->count = head.count;
    pool->free_count = head.free_count;
    in += sizeof head;
    if (head.used > 0) {
        memcpy(pool->items, in, head.used * item_size);
        memcpy(pool->free, in + head.used * item_size, head.free_count * sizeof(uint32_t));
    }
    in += head.used * item_size + head.free_count * sizeof(uint32_t);
    if (!fill_index(pool, in))
        return NULL;
    return in + head.count * sizeof(pool_entry_t);
}
