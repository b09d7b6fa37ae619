/* What bullring_book.h keeps books in: pools of orders, levels and chunks, the table of order ids, the sorted list of a side's
 * levels. Not for use by itself. */
#ifndef BULLRING_BOOK_STORE_H
#define BULLRING_BOOK_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BULLRING_NONE UINT32_MAX
#define BULLRING_CHUNK_LEVELS 128u
#define BULLRING_CHUNK_MERGE 32u /* a chunk with fewer levels joins its neighbour where both fit */
#define BULLRING_TOUCHED_MAX 2u
#define BULLRING_LARGE_PAGE (2u << 20)
#define BULLRING_INSTRUMENT_MAX (1u << 20)

__extension__ typedef unsigned __int128 bullring_uint128_t;

typedef struct bullring_order {
    uint64_t id;
    int64_t qty;
    uint32_t level;
    uint32_t prev, next; /* queue of the level, in priority order */
    uint32_t spare;
} bullring_order_t;

typedef struct bullring_level {
    int64_t price;
    int64_t qty;
    uint32_t head, tail;
    uint32_t orders;
    uint32_t ladder; /* instrument id * 2 + (1 for sells) */
} bullring_level_t;

/* Sorted by key: the price of bids, its negative of asks, so that the best level is the last. */
typedef struct bullring_chunk {
    uint32_t count;
    uint32_t level[BULLRING_CHUNK_LEVELS];
    int64_t key[BULLRING_CHUNK_LEVELS];
} bullring_chunk_t;

typedef struct bullring_entry {
    int64_t first; /* smallest key of the chunk */
    uint32_t chunk;
} bullring_entry_t;

typedef struct bullring_ladder {
    bullring_entry_t *entries;
    uint32_t count, capacity;
    uint32_t levels;
} bullring_ladder_t;

typedef struct bullring_book {
    bullring_ladder_t side[2]; /* bids, asks */
    uint64_t digest_low, digest_high;
    uint64_t transact_time;    /* of the last message; 0 = there was none */
    uint64_t trade_id;         /* of the last trade, as its price and quantity */
    int64_t last_px, last_qty;
    uint32_t order_count;
    uint8_t status;            /* MARKET_STATE_..., 0 = not heard of */
    bool event_open;           /* more messages of the same event are to come: the book may be crossed */
    uint64_t digests;          /* compared so far */
} bullring_book_t;

typedef struct bullring_touch {
    uint32_t ladder;
    int64_t price;
} bullring_touch_t;

typedef struct bullring_pool {
    void *memory;
    uint32_t capacity, used, free; /* free: first of the freed ones, linked by their own words */
} bullring_pool_t;

/* index = place in the pool + 1, 0 = empty. */
typedef struct bullring_key {
    uint32_t tag, index;
} bullring_key_t;

typedef struct bullring_books {
    bullring_pool_t orders, levels, chunks;
    bullring_key_t *table;
    uint32_t table_log2;
    uint32_t order_count;
    bullring_book_t *books; /* by instrument id */
    uint32_t book_capacity;
    uint32_t touched_count; /* levels that the last message changed */
    bullring_touch_t touched[BULLRING_TOUCHED_MAX];
} bullring_books_t;

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Large memory on large pages, where the system has them to give: a deep book is a memory test. */
static inline void bullring_large_pages(void *memory, size_t size)
{
#ifdef MADV_HUGEPAGE
    uintptr_t first = ((uintptr_t)memory + BULLRING_LARGE_PAGE - 1) & ~(uintptr_t)(BULLRING_LARGE_PAGE - 1);
    uintptr_t end = ((uintptr_t)memory + size) & ~(uintptr_t)(BULLRING_LARGE_PAGE - 1);
    if (end > first)
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)size;
#endif
}

static inline bool bullring_pool_grow(bullring_pool_t *pool, size_t size, uint32_t capacity)
{
    void *memory = realloc(pool->memory, size * capacity);
    if (memory == NULL)
        return false;
    bullring_large_pages(memory, size * capacity);
    pool->memory = memory;
    pool->capacity = capacity;
    return true;
}

/* A place in the pool; there is room. The first word of a freed one names the next. */
static inline uint32_t bullring_pool_take(bullring_pool_t *pool, size_t size)
{
    uint32_t index = pool->free;
    if (index == BULLRING_NONE)
        return pool->used++;
    memcpy(&pool->free, (uint8_t *)pool->memory + size * index, sizeof(pool->free));
    return index;
}

static inline void bullring_pool_give(bullring_pool_t *pool, size_t size, uint32_t index)
{
    memcpy((uint8_t *)pool->memory + size * index, &pool->free, sizeof(pool->free));
    pool->free = index;
}

static inline bool bullring_pool_ready(bullring_pool_t *pool, size_t size)
{
    return pool->free != BULLRING_NONE || pool->used < pool->capacity || bullring_pool_grow(pool, size, pool->capacity * 2);
}

static inline bullring_order_t *bullring_order_at(const bullring_books_t *books, uint32_t index)
{
    return (bullring_order_t *)books->orders.memory + index;
}

static inline bullring_level_t *bullring_level_at(const bullring_books_t *books, uint32_t index)
{
    return (bullring_level_t *)books->levels.memory + index;
}

static inline bullring_chunk_t *bullring_chunk_at(const bullring_books_t *books, uint32_t index)
{
    return (bullring_chunk_t *)books->chunks.memory + index;
}

/* ---- id -> order ------------------------------------------------------------------------------------------------- */

/* Eight ids in a row share a cache line of the table; the groups are scattered. */
static inline uint32_t bullring_home(uint32_t tag, uint32_t log2)
{
    return ((tag >> 3) * 0x9e3779b1u) >> (35 - log2) << 3 | (tag & 7);
}

static inline uint32_t bullring_find(const bullring_books_t *books, uint64_t id)
{
    uint32_t mask = (UINT32_C(1) << books->table_log2) - 1, tag = (uint32_t)id;
    uint32_t at = bullring_home(tag, books->table_log2);
    for (; books->table[at].index != 0; at = (at + 1) & mask)
        if (books->table[at].tag == tag && bullring_order_at(books, books->table[at].index - 1)->id == id)
            return books->table[at].index - 1;
    return BULLRING_NONE;
}

static inline void bullring_table_put(bullring_key_t *table, uint32_t log2, bullring_key_t key)
{
    uint32_t mask = (UINT32_C(1) << log2) - 1, at = bullring_home(key.tag, log2);
    while (table[at].index != 0)
        at = (at + 1) & mask;
    table[at] = key;
}

static inline bool bullring_table_grow(bullring_books_t *books)
{
    uint32_t log2 = books->table_log2 + 1;
    bullring_key_t *table = (bullring_key_t *)calloc(UINT32_C(1) << log2, sizeof(*table));
    if (table == NULL)
        return false;
    bullring_large_pages(table, ((size_t)1 << log2) * sizeof(*table));
    for (uint32_t i = 0; i < UINT32_C(1) << books->table_log2; i++)
        if (books->table[i].index != 0)
            bullring_table_put(table, log2, books->table[i]);
    free(books->table);
    books->table = table;
    books->table_log2 = log2;
    return true;
}

/* Take an order's key out; those behind it move up, so that no mark of a removal stays. */
static inline void bullring_table_drop(bullring_books_t *books, uint64_t id, uint32_t index)
{
    bullring_key_t *table = books->table;
    uint32_t mask = (UINT32_C(1) << books->table_log2) - 1;
    uint32_t hole = bullring_home((uint32_t)id, books->table_log2);
    while (table[hole].index != index + 1)
        hole = (hole + 1) & mask;
    for (uint32_t at = (hole + 1) & mask; table[at].index != 0; at = (at + 1) & mask) {
        uint32_t home = bullring_home(table[at].tag, books->table_log2);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table[hole] = table[at];
            hole = at;
        }
    }
    table[hole].index = 0;
}

/* ---- price -> level ---------------------------------------------------------------------------------------------- */

static inline int64_t bullring_key(uint32_t side, int64_t price)
{
    return side == 0 ? price : -price;
}

/* The chunk that has the key or would get it: the last one that begins at or below it, else the first. */
static inline uint32_t bullring_entry_of(const bullring_ladder_t *ladder, int64_t key)
{
    uint32_t low = 0, high = ladder->count;
    if (high > 0 && ladder->entries[high - 1].first <= key)
        return high - 1; /* near the touch, where most happens */
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (ladder->entries[middle].first <= key)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? low - 1 : 0;
}

/* Place of the first key of the chunk that is not below `key`. */
static inline uint32_t bullring_place_of(const bullring_chunk_t *chunk, int64_t key)
{
    uint32_t low = 0, high = chunk->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (chunk->key[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static inline uint32_t bullring_level_find(const bullring_books_t *books, const bullring_ladder_t *ladder, int64_t key)
{
    if (ladder->count == 0)
        return BULLRING_NONE;
    const bullring_chunk_t *chunk = bullring_chunk_at(books, ladder->entries[bullring_entry_of(ladder, key)].chunk);
    uint32_t place = bullring_place_of(chunk, key);
    return place < chunk->count && chunk->key[place] == key ? chunk->level[place] : BULLRING_NONE;
}

/* A new, empty chunk before entry `at`. */
static inline bullring_chunk_t *bullring_entry_insert(bullring_books_t *books, bullring_ladder_t *ladder, uint32_t at)
{
    if (!bullring_pool_ready(&books->chunks, sizeof(bullring_chunk_t)))
        return NULL;
    if (ladder->count == ladder->capacity) {
        uint32_t capacity = ladder->capacity == 0 ? 8 : ladder->capacity * 2;
        bullring_entry_t *entries = (bullring_entry_t *)realloc(ladder->entries, capacity * sizeof(*entries));
        if (entries == NULL)
            return NULL;
        ladder->entries = entries;
        ladder->capacity = capacity;
    }
    memmove(ladder->entries + at + 1, ladder->entries + at, (ladder->count - at) * sizeof(*ladder->entries));
    ladder->entries[at].chunk = bullring_pool_take(&books->chunks, sizeof(bullring_chunk_t));
    ladder->count++;
    bullring_chunk_t *chunk = bullring_chunk_at(books, ladder->entries[at].chunk);
    chunk->count = 0;
    return chunk;
}

static inline void bullring_chunk_move(bullring_chunk_t *to, uint32_t at, const bullring_chunk_t *from, uint32_t first)
{
    uint32_t count = from->count - first;
    memcpy(to->key + at, from->key + first, count * sizeof(to->key[0]));
    memcpy(to->level + at, from->level + first, count * sizeof(to->level[0]));
    to->count = at + count;
}

/* The upper half of a full chunk goes into a new one behind it. */
static inline bool bullring_chunk_split(bullring_books_t *books, bullring_ladder_t *ladder, uint32_t at)
{
    bullring_chunk_t *upper = bullring_entry_insert(books, ladder, at + 1);
    if (upper == NULL)
        return false;
    bullring_chunk_t *lower = bullring_chunk_at(books, ladder->entries[at].chunk);
    bullring_chunk_move(upper, 0, lower, BULLRING_CHUNK_LEVELS / 2);
    lower->count = BULLRING_CHUNK_LEVELS / 2;
    ladder->entries[at + 1].first = upper->key[0];
    return true;
}

static inline uint32_t bullring_level_open(bullring_books_t *books, uint32_t ladder_id, int64_t price)
{
    bullring_ladder_t *ladder = &books->books[ladder_id / 2].side[ladder_id % 2];
    int64_t key = bullring_key(ladder_id % 2, price);
    if (!bullring_pool_ready(&books->levels, sizeof(bullring_level_t)) ||
        (ladder->count == 0 && bullring_entry_insert(books, ladder, 0) == NULL))
        return BULLRING_NONE;
    uint32_t at = bullring_entry_of(ladder, key);
    if (bullring_chunk_at(books, ladder->entries[at].chunk)->count == BULLRING_CHUNK_LEVELS) {
        if (!bullring_chunk_split(books, ladder, at))
            return BULLRING_NONE;
        at += ladder->entries[at + 1].first <= key;
    }
    bullring_chunk_t *chunk = bullring_chunk_at(books, ladder->entries[at].chunk);
    uint32_t place = bullring_place_of(chunk, key), behind = chunk->count - place;
    memmove(chunk->key + place + 1, chunk->key + place, behind * sizeof(chunk->key[0]));
    memmove(chunk->level + place + 1, chunk->level + place, behind * sizeof(chunk->level[0]));
    uint32_t index = bullring_pool_take(&books->levels, sizeof(bullring_level_t));
    chunk->key[place] = key;
    chunk->level[place] = index;
    chunk->count++;
    ladder->entries[at].first = chunk->key[0];
    ladder->levels++;
    *bullring_level_at(books, index) =
        (bullring_level_t){.price = price, .head = BULLRING_NONE, .tail = BULLRING_NONE, .ladder = ladder_id};
    return index;
}

static inline void bullring_entry_remove(bullring_books_t *books, bullring_ladder_t *ladder, uint32_t at)
{
    bullring_pool_give(&books->chunks, sizeof(bullring_chunk_t), ladder->entries[at].chunk);
    ladder->count--;
    memmove(ladder->entries + at, ladder->entries + at + 1, (ladder->count - at) * sizeof(*ladder->entries));
}

/* A chunk with few levels joins the one before or behind it if both fit into one with room to spare. */
static inline void bullring_chunk_merge(bullring_books_t *books, bullring_ladder_t *ladder, uint32_t at)
{
    bullring_chunk_t *chunk = bullring_chunk_at(books, ladder->entries[at].chunk);
    if (chunk->count == 0) {
        bullring_entry_remove(books, ladder, at);
        return;
    }
    ladder->entries[at].first = chunk->key[0];
    if (chunk->count >= BULLRING_CHUNK_MERGE || ladder->count == 1)
        return;
    uint32_t lower = at > 0 ? at - 1 : at;
    bullring_chunk_t *to = bullring_chunk_at(books, ladder->entries[lower].chunk);
    const bullring_chunk_t *from = bullring_chunk_at(books, ladder->entries[lower + 1].chunk);
    if (to->count + from->count > BULLRING_CHUNK_LEVELS * 3 / 4)
        return;
    bullring_chunk_move(to, to->count, from, 0);
    bullring_entry_remove(books, ladder, lower + 1);
}

static inline void bullring_level_close(bullring_books_t *books, uint32_t index)
{
    const bullring_level_t *level = bullring_level_at(books, index);
    bullring_ladder_t *ladder = &books->books[level->ladder / 2].side[level->ladder % 2];
    int64_t key = bullring_key(level->ladder % 2, level->price);
    uint32_t at = bullring_entry_of(ladder, key);
    bullring_chunk_t *chunk = bullring_chunk_at(books, ladder->entries[at].chunk);
    uint32_t place = bullring_place_of(chunk, key), behind = chunk->count - place - 1;
    memmove(chunk->key + place, chunk->key + place + 1, behind * sizeof(chunk->key[0]));
    memmove(chunk->level + place, chunk->level + place + 1, behind * sizeof(chunk->level[0]));
    chunk->count--;
    ladder->levels--;
    bullring_pool_give(&books->levels, sizeof(bullring_level_t), index);
    bullring_chunk_merge(books, ladder, at);
}

#endif
