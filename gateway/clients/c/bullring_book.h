/* Order books of market-data channels, by order and by level, for C programs: one header, no library, no thread.
 *
 * Needs the wire schema's generated header (marketdata.h and wire_common.h) on the include path.
 *
 *     bullring_books_t books;
 *     bullring_books_init(&books, 100000);                       room for so many orders; it grows beyond
 *     int status = bullring_books_apply(&books, header, block);  each message of a channel, in the order of its numbers
 *     bullring_level_t best;
 *     if (bullring_best(&books, instrument_id, SIDE_BUY, &best)) ...
 *
 * An order is 32 bytes in an array, linked into its level's queue in priority order; a level is 32 bytes. A table of ids finds
 * the order, a two-step sorted list (chunks of 64 prices) the level; the best level is always at its end. A message that
 * cannot follow from what came before is refused by a negative status and changes nothing: the caller has missed something and
 * starts anew from a snapshot. BookDigest is compared with the sum kept here (see bullring_digest_mix). */
#ifndef BULLRING_BOOK_H
#define BULLRING_BOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "marketdata.h"

#define BULLRING_NONE UINT32_MAX
#define BULLRING_CHUNK_LEVELS 128u
#define BULLRING_CHUNK_MERGE 32u /* a chunk with fewer levels joins its neighbour where both fit */
#define BULLRING_TOUCHED_MAX 2u
#define BULLRING_LARGE_PAGE (2u << 20)
#define BULLRING_INSTRUMENT_MAX (1u << 20)

enum bullring_book_status {
    BULLRING_BOOK_APPLIED = 0,
    BULLRING_BOOK_OTHER = 1,     /* no message of a book: nothing to do */
    BULLRING_BOOK_UNKNOWN = -1,  /* an order that is not in the book */
    BULLRING_BOOK_KNOWN = -2,    /* an added order that is there already */
    BULLRING_BOOK_QUANTITY = -3, /* not positive, or more than the order has */
    BULLRING_BOOK_SIDE = -4,     /* the order is of another side or instrument */
    BULLRING_BOOK_DIGEST = -5,   /* the book is not the exchange's */
    BULLRING_BOOK_BLOCK = -6,    /* the block is shorter than its template's */
    BULLRING_BOOK_MEMORY = -7,
};

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

/* ---- digest ------------------------------------------------------------------------------------------------------ */

/* One order's part of the digest; the digest of a book is the sum of them modulo 2^128 (docs/FEED.md has it in words). */
static inline bullring_uint128_t bullring_digest_mix(uint64_t order_id, int64_t price, int64_t qty, uint8_t side)
{
    bullring_uint128_t first = (bullring_uint128_t)(order_id ^ UINT64_C(0x6a09e667f3bcc908)) *
                               ((uint64_t)price ^ UINT64_C(0xbb67ae8584caa73b));
    uint64_t low = (uint64_t)first, high = (uint64_t)(first >> 64);
    bullring_uint128_t second = (bullring_uint128_t)(low ^ (uint64_t)qty ^ UINT64_C(0x3c6ef372fe94f82b)) *
                                (high ^ side ^ UINT64_C(0xa54ff53a5f1d36f1));
    return second ^ ((bullring_uint128_t)low << 64 | high);
}

static inline void bullring_digest_add(bullring_book_t *book, bullring_uint128_t mix)
{
    bullring_uint128_t sum = ((bullring_uint128_t)book->digest_high << 64 | book->digest_low) + mix;
    book->digest_low = (uint64_t)sum;
    book->digest_high = (uint64_t)(sum >> 64);
}

static inline bullring_uint128_t bullring_order_mix(const bullring_order_t *order, const bullring_level_t *level)
{
    return bullring_digest_mix(order->id, level->price, order->qty, (uint8_t)(SIDE_BUY + level->ladder % 2));
}

/* ---- orders ------------------------------------------------------------------------------------------------------ */

static inline void bullring_touch(bullring_books_t *books, uint32_t ladder, int64_t price)
{
    books->touched[books->touched_count++] = (bullring_touch_t){ladder, price};
}

/* Room for whatever the next message may need: afterwards nothing can fail half way. */
static inline bool bullring_books_reserve(bullring_books_t *books)
{
    if (!bullring_pool_ready(&books->orders, sizeof(bullring_order_t)))
        return false;
    return books->order_count < (UINT32_C(1) << books->table_log2) / 2 || bullring_table_grow(books);
}

static inline int bullring_insert(bullring_books_t *books, uint32_t ladder_id, uint64_t id, int64_t price, int64_t qty)
{
    bullring_book_t *book = &books->books[ladder_id / 2];
    if (qty <= 0)
        return BULLRING_BOOK_QUANTITY;
    if (bullring_find(books, id) != BULLRING_NONE)
        return BULLRING_BOOK_KNOWN;
    if (!bullring_books_reserve(books))
        return BULLRING_BOOK_MEMORY;
    uint32_t level_index =
        bullring_level_find(books, &book->side[ladder_id % 2], bullring_key(ladder_id % 2, price));
    if (level_index == BULLRING_NONE && (level_index = bullring_level_open(books, ladder_id, price)) == BULLRING_NONE)
        return BULLRING_BOOK_MEMORY;
    bullring_level_t *level = bullring_level_at(books, level_index);
    uint32_t index = bullring_pool_take(&books->orders, sizeof(bullring_order_t));
    bullring_order_t *order = bullring_order_at(books, index);
    *order = (bullring_order_t){.id = id, .qty = qty, .level = level_index, .prev = level->tail, .next = BULLRING_NONE};
    if (level->tail == BULLRING_NONE)
        level->head = index;
    else
        bullring_order_at(books, level->tail)->next = index;
    level->tail = index;
    level->qty += qty;
    level->orders++;
    bullring_table_put(books->table, books->table_log2, (bullring_key_t){(uint32_t)id, index + 1});
    books->order_count++;
    book->order_count++;
    bullring_digest_add(book, bullring_order_mix(order, level));
    bullring_touch(books, ladder_id, price);
    return BULLRING_BOOK_APPLIED;
}

static inline void bullring_remove(bullring_books_t *books, uint32_t index)
{
    const bullring_order_t *order = bullring_order_at(books, index);
    bullring_level_t *level = bullring_level_at(books, order->level);
    bullring_book_t *book = &books->books[level->ladder / 2];
    bullring_digest_add(book, -bullring_order_mix(order, level));
    if (order->prev == BULLRING_NONE)
        level->head = order->next;
    else
        bullring_order_at(books, order->prev)->next = order->next;
    if (order->next == BULLRING_NONE)
        level->tail = order->prev;
    else
        bullring_order_at(books, order->next)->prev = order->prev;
    level->qty -= order->qty;
    level->orders--;
    books->order_count--;
    book->order_count--;
    bullring_touch(books, level->ladder, level->price);
    bullring_table_drop(books, order->id, index);
    if (level->orders == 0)
        bullring_level_close(books, order->level);
    bullring_pool_give(&books->orders, sizeof(bullring_order_t), index);
}

/* The order keeps its place with `qty`; 0 removes it. */
static inline int bullring_resize(bullring_books_t *books, uint32_t index, int64_t qty)
{
    bullring_order_t *order = bullring_order_at(books, index);
    if (qty < 0 || qty > order->qty)
        return BULLRING_BOOK_QUANTITY;
    if (qty == 0) {
        bullring_remove(books, index);
        return BULLRING_BOOK_APPLIED;
    }
    bullring_level_t *level = bullring_level_at(books, order->level);
    bullring_book_t *book = &books->books[level->ladder / 2];
    bullring_digest_add(book, -bullring_order_mix(order, level));
    level->qty -= order->qty - qty;
    order->qty = qty;
    bullring_digest_add(book, bullring_order_mix(order, level));
    bullring_touch(books, level->ladder, level->price);
    return BULLRING_BOOK_APPLIED;
}

/* The order a message names, if it is there and of the instrument and side that the message says. */
static inline int bullring_named(const bullring_books_t *books, uint64_t id, uint32_t ladder_id, uint32_t *index)
{
    *index = bullring_find(books, id);
    if (*index == BULLRING_NONE)
        return BULLRING_BOOK_UNKNOWN;
    const bullring_order_t *order = bullring_order_at(books, *index);
    return bullring_level_at(books, order->level)->ladder == ladder_id ? BULLRING_BOOK_APPLIED : BULLRING_BOOK_SIDE;
}

/* ---- public: life and messages ----------------------------------------------------------------------------------- */

/* Room for `orders_expected` resting orders and what belongs to them; false = no memory. */
static inline bool bullring_books_init(bullring_books_t *books, uint32_t orders_expected)
{
    memset(books, 0, sizeof(*books));
    books->orders.free = books->levels.free = books->chunks.free = BULLRING_NONE;
    if (orders_expected < 64)
        orders_expected = 64;
    books->table_log2 = 7;
    while ((UINT64_C(1) << books->table_log2) < 2 * (uint64_t)orders_expected && books->table_log2 < 31)
        books->table_log2++;
    books->table = (bullring_key_t *)calloc((size_t)1 << books->table_log2, sizeof(*books->table));
    if (books->table != NULL)
        bullring_large_pages(books->table, ((size_t)1 << books->table_log2) * sizeof(*books->table));
    return books->table != NULL && bullring_pool_grow(&books->orders, sizeof(bullring_order_t), orders_expected) &&
           bullring_pool_grow(&books->levels, sizeof(bullring_level_t), orders_expected / 4 + 64) &&
           bullring_pool_grow(&books->chunks, sizeof(bullring_chunk_t), orders_expected / 64 + 16);
}

static inline void bullring_books_free(bullring_books_t *books)
{
    for (uint32_t i = 0; i < books->book_capacity; i++) {
        free(books->books[i].side[0].entries);
        free(books->books[i].side[1].entries);
    }
    free(books->books);
    free(books->table);
    free(books->orders.memory);
    free(books->levels.memory);
    free(books->chunks.memory);
    memset(books, 0, sizeof(*books));
}

/* The book of an instrument, made when first asked for; NULL = no memory, or no such number. */
static inline bullring_book_t *bullring_book(bullring_books_t *books, uint32_t instrument_id)
{
    if (instrument_id >= books->book_capacity) {
        uint32_t capacity = books->book_capacity == 0 ? 64 : books->book_capacity;
        while (capacity <= instrument_id && capacity < BULLRING_INSTRUMENT_MAX)
            capacity *= 2;
        if (capacity <= instrument_id)
            return NULL;
        bullring_book_t *grown = (bullring_book_t *)realloc(books->books, capacity * sizeof(*grown));
        if (grown == NULL)
            return NULL;
        memset(grown + books->book_capacity, 0, (capacity - books->book_capacity) * sizeof(*grown));
        books->books = grown;
        books->book_capacity = capacity;
    }
    return &books->books[instrument_id];
}

/* Take all orders of an instrument out: its book is about to be read from a snapshot. */
static inline void bullring_book_clear(bullring_books_t *books, uint32_t instrument_id)
{
    bullring_book_t *book = bullring_book(books, instrument_id);
    for (uint32_t side = 0; book != NULL && side < 2; side++) {
        while (book->side[side].count > 0) {
            const bullring_chunk_t *last =
                bullring_chunk_at(books, book->side[side].entries[book->side[side].count - 1].chunk);
            books->touched_count = 0;
            bullring_remove(books, bullring_level_at(books, last->level[last->count - 1])->tail);
        }
    }
    books->touched_count = 0;
}

/* The part of a block that says what to do with which order; false = the template is no order's. */
typedef struct bullring_change {
    uint64_t order_id;
    int64_t price, qty;
    uint64_t transact_time; /* 0 = the message says none */
    uint32_t instrument_id;
    uint8_t side, event_flags;
} bullring_change_t;

#define BULLRING_FIELDS(type, change)                                    \
    const type *message = (const type *)block;                           \
    if (block_length < sizeof(type))                                     \
        return BULLRING_BOOK_BLOCK;                                      \
    (change)->order_id = message->order_id;                              \
    (change)->instrument_id = message->instrument_id;                    \
    (change)->side = message->side;                                      \
    (change)->event_flags = message->event_flags

static inline int bullring_change_of(uint16_t template_id, uint16_t block_length, const void *block,
                                     bullring_change_t *change)
{
    switch (template_id) {
    case TEMPLATE_ORDER_ADD: {
        BULLRING_FIELDS(order_add_t, change);
        change->transact_time = message->transact_time;
        change->price = message->price;
        change->qty = message->qty;
        return BULLRING_BOOK_APPLIED;
    }
    case TEMPLATE_ORDER_EXECUTE: {
        BULLRING_FIELDS(order_execute_t, change);
        change->transact_time = message->transact_time;
        change->price = message->last_px;
        change->qty = message->last_qty;
        return BULLRING_BOOK_APPLIED;
    }
    case TEMPLATE_ORDER_REDUCE: {
        BULLRING_FIELDS(order_reduce_t, change);
        change->transact_time = message->transact_time;
        change->qty = message->new_qty;
        return BULLRING_BOOK_APPLIED;
    }
    case TEMPLATE_ORDER_DELETE: {
        BULLRING_FIELDS(order_delete_t, change);
        change->transact_time = message->transact_time;
        return BULLRING_BOOK_APPLIED;
    }
    case TEMPLATE_ORDER_REPLACE: {
        BULLRING_FIELDS(order_replace_t, change);
        change->transact_time = message->transact_time;
        change->price = message->new_price;
        change->qty = message->new_qty;
        return BULLRING_BOOK_APPLIED;
    }
    case TEMPLATE_SNAPSHOT_ORDER: {
        BULLRING_FIELDS(snapshot_order_t, change);
        change->price = message->price;
        change->qty = message->qty;
        return BULLRING_BOOK_APPLIED;
    }
    default:
        return BULLRING_BOOK_OTHER;
    }
}

static inline int bullring_execute(bullring_books_t *books, const bullring_change_t *change, uint32_t index)
{
    int64_t open = bullring_order_at(books, index)->qty;
    if (change->qty <= 0 || change->qty > open)
        return BULLRING_BOOK_QUANTITY;
    return bullring_resize(books, index, open - change->qty);
}

static inline int bullring_replace(bullring_books_t *books, const bullring_change_t *change, uint32_t ladder_id,
                                   uint32_t index)
{
    if (change->qty <= 0)
        return BULLRING_BOOK_QUANTITY;
    bullring_remove(books, index);
    return bullring_insert(books, ladder_id, change->order_id, change->price, change->qty);
}

static inline int bullring_change_apply(bullring_books_t *books, uint16_t template_id, const bullring_change_t *change)
{
    uint32_t ladder_id = change->instrument_id * 2 + (change->side == SIDE_SELL), index;
    if (change->side != SIDE_BUY && change->side != SIDE_SELL)
        return BULLRING_BOOK_SIDE;
    if (template_id == TEMPLATE_ORDER_ADD || template_id == TEMPLATE_SNAPSHOT_ORDER)
        return bullring_insert(books, ladder_id, change->order_id, change->price, change->qty);
    int status = bullring_named(books, change->order_id, ladder_id, &index);
    if (status < 0)
        return status;
    switch (template_id) {
    case TEMPLATE_ORDER_EXECUTE:
        return bullring_execute(books, change, index);
    case TEMPLATE_ORDER_REDUCE:
        return bullring_resize(books, index, change->qty);
    case TEMPLATE_ORDER_DELETE:
        bullring_remove(books, index);
        return BULLRING_BOOK_APPLIED;
    default:
        return bullring_replace(books, change, ladder_id, index);
    }
}

/* What concerns a book without naming an order. */
static inline int bullring_apply_other(bullring_books_t *books, uint16_t template_id, uint16_t block_length,
                                       const void *block)
{
    if (template_id == TEMPLATE_INSTRUMENT_STATUS) {
        const instrument_status_t *status = (const instrument_status_t *)block;
        bullring_book_t *book;
        if (block_length < sizeof(*status) || (book = bullring_book(books, status->instrument_id)) == NULL)
            return block_length < sizeof(*status) ? BULLRING_BOOK_BLOCK : BULLRING_BOOK_MEMORY;
        book->status = status->status;
        book->transact_time = status->transact_time;
        book->event_open = (status->event_flags & EVENT_FLAGS_END_OF_EVENT) == 0;
        return BULLRING_BOOK_APPLIED;
    }
    if (template_id == TEMPLATE_BOOK_DIGEST) {
        const book_digest_t *digest = (const book_digest_t *)block;
        bullring_book_t *book;
        if (block_length < sizeof(*digest) || (book = bullring_book(books, digest->instrument_id)) == NULL)
            return block_length < sizeof(*digest) ? BULLRING_BOOK_BLOCK : BULLRING_BOOK_MEMORY;
        book->digests++;
        book->transact_time = digest->transact_time;
        return book->digest_low == digest->digest_low && book->digest_high == digest->digest_high &&
                       book->order_count == digest->order_count
                   ? BULLRING_BOOK_APPLIED
                   : BULLRING_BOOK_DIGEST;
    }
    return BULLRING_BOOK_OTHER;
}

/* Apply one message of an order-by-order channel, or SnapshotOrder. Returns a bullring_book_status. `touched` then names the
 * levels that changed. */
static inline int bullring_books_apply(bullring_books_t *books, const market_header_t *header, const void *block)
{
    bullring_change_t change = {0};
    bullring_book_t *book;
    books->touched_count = 0;
    int status = bullring_change_of(header->template_id, header->block_length, block, &change);
    if (status == BULLRING_BOOK_OTHER)
        return bullring_apply_other(books, header->template_id, header->block_length, block);
    if (status < 0)
        return status;
    book = bullring_book(books, change.instrument_id);
    if (book == NULL)
        return BULLRING_BOOK_MEMORY;
    status = bullring_change_apply(books, header->template_id, &change);
    if (status < 0)
        return status;
    book = &books->books[change.instrument_id];
    book->event_open = (change.event_flags & EVENT_FLAGS_END_OF_EVENT) == 0;
    if (change.transact_time != 0)
        book->transact_time = change.transact_time;
    if (header->template_id == TEMPLATE_ORDER_EXECUTE) {
        book->trade_id = ((const order_execute_t *)block)->trade_id;
        book->last_px = change.price;
        book->last_qty = change.qty;
    }
    return status;
}

/* ---- public: looking --------------------------------------------------------------------------------------------- */

/* Walks the levels of a side, best first; stop when bullring_level_next() returns NULL. The book must not change meanwhile. */
typedef struct bullring_level_walk {
    const bullring_ladder_t *ladder;
    uint32_t entry, place; /* both counted from the best, next to be given */
} bullring_level_walk_t;

static inline bullring_level_walk_t bullring_levels(const bullring_books_t *books, uint32_t instrument_id, uint8_t side)
{
    bullring_level_walk_t walk = {NULL, 0, 0};
    if (instrument_id < books->book_capacity)
        walk.ladder = &books->books[instrument_id].side[side == SIDE_SELL];
    return walk;
}

static inline const bullring_level_t *bullring_level_next(const bullring_books_t *books, bullring_level_walk_t *walk)
{
    if (walk->ladder == NULL || walk->entry >= walk->ladder->count)
        return NULL;
    const bullring_chunk_t *chunk =
        bullring_chunk_at(books, walk->ladder->entries[walk->ladder->count - 1 - walk->entry].chunk);
    const bullring_level_t *level = bullring_level_at(books, chunk->level[chunk->count - 1 - walk->place]);
    if (++walk->place == chunk->count) {
        walk->place = 0;
        walk->entry++;
    }
    return level;
}

/* The best level; false = that side is empty. */
static inline bool bullring_best(const bullring_books_t *books, uint32_t instrument_id, uint8_t side, bullring_level_t *best)
{
    bullring_level_walk_t walk = bullring_levels(books, instrument_id, side);
    const bullring_level_t *level = bullring_level_next(books, &walk);
    if (level == NULL)
        return false;
    *best = *level;
    return true;
}

/* The level of a price; NULL = nothing rests there. */
static inline const bullring_level_t *bullring_level(const bullring_books_t *books, uint32_t ladder_id, int64_t price)
{
    if (ladder_id / 2 >= books->book_capacity)
        return NULL;
    uint32_t index = bullring_level_find(books, &books->books[ladder_id / 2].side[ladder_id % 2],
                                         bullring_key(ladder_id % 2, price));
    return index == BULLRING_NONE ? NULL : bullring_level_at(books, index);
}

#endif
