/* Order books of market-data channels, by order and by level, for C programs: headers only, no library, no thread.
 *
 * Needs the wire schema's generated header (marketdata.h and wire_common.h) and bullring_book_store.h on the include path.
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
 * starts anew from a snapshot. BookDigest is compared with the sum kept here (see bullring_digest_term). */
#ifndef BULLRING_BOOK_H
#define BULLRING_BOOK_H

#include "bullring_book_store.h"
#include "marketdata.h"

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

/* ---- digest ------------------------------------------------------------------------------------------------------ */

#define BULLRING_DIGEST_ID UINT64_C(0x9e3779b97f4a7c15)
#define BULLRING_DIGEST_RANK UINT64_C(0xd6e8feb86659fd93)
#define BULLRING_DIGEST_OFFSET UINT64_C(0xa0761d6478bd642f)

/* The digest of a book is the sum over its orders of key x (quantity + offset), modulo 2^128 (docs/PROTOCOL.md, section 14). */
static inline uint64_t bullring_digest_key(uint64_t order_id, int64_t price, uint8_t side)
{
    uint64_t rank = side == SIDE_SELL ? (uint64_t)price : ~(uint64_t)price;
    return order_id * BULLRING_DIGEST_ID ^ rank * BULLRING_DIGEST_RANK;
}

static inline bullring_uint128_t bullring_digest_term(uint64_t key, int64_t qty)
{
    return (bullring_uint128_t)key * ((uint64_t)qty + BULLRING_DIGEST_OFFSET);
}

static inline void bullring_digest_add(bullring_book_t *book, bullring_uint128_t term)
{
    bullring_uint128_t sum = ((bullring_uint128_t)book->digest_high << 64 | book->digest_low) + term;
    book->digest_low = (uint64_t)sum;
    book->digest_high = (uint64_t)(sum >> 64);
}

static inline uint64_t bullring_order_key(const bullring_order_t *order, const bullring_level_t *level)
{
    return bullring_digest_key(order->id, level->price, (uint8_t)(SIDE_BUY + level->ladder % 2));
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
    bullring_digest_add(book, bullring_digest_term(bullring_order_key(order, level), order->qty));
    bullring_touch(books, ladder_id, price);
    return BULLRING_BOOK_APPLIED;
}

static inline void bullring_remove(bullring_books_t *books, uint32_t index)
{
    const bullring_order_t *order = bullring_order_at(books, index);
    bullring_level_t *level = bullring_level_at(books, order->level);
    bullring_book_t *book = &books->books[level->ladder / 2];
    bullring_digest_add(book, -bullring_digest_term(bullring_order_key(order, level), order->qty));
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
    /* Linear in the quantity: one product for what is gone. */
    bullring_digest_add(book, -((bullring_uint128_t)bullring_order_key(order, level) * (uint64_t)(order->qty - qty)));
    level->qty -= order->qty - qty;
    order->qty = qty;
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

#define BULLRING_TIMED(type, change) \
    BULLRING_FIELDS(type, change);   \
    (change)->transact_time = message->transact_time

static inline int bullring_change_of(uint16_t template_id, uint16_t block_length, const void *block,
                                     bullring_change_t *change)
{
    switch (template_id) {
    case TEMPLATE_ORDER_ADD: {
        BULLRING_TIMED(order_add_t, change);
        change->price = message->price;
        change->qty = message->qty;
        return BULLRING_BOOK_APPLIED;
    }
    case TEMPLATE_ORDER_EXECUTE: {
        BULLRING_TIMED(order_execute_t, change);
        change->price = message->last_px;
        change->qty = message->last_qty;
        return BULLRING_BOOK_APPLIED;
    }
    case TEMPLATE_ORDER_REDUCE: {
        BULLRING_TIMED(order_reduce_t, change);
        change->qty = message->new_qty;
        return BULLRING_BOOK_APPLIED;
    }
    case TEMPLATE_ORDER_DELETE: {
        BULLRING_TIMED(order_delete_t, change);
        return BULLRING_BOOK_APPLIED;
    }
    case TEMPLATE_ORDER_REPLACE: {
        BULLRING_TIMED(order_replace_t, change);
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

static inline int bullring_note_status(bullring_books_t *books, const instrument_status_t *status)
{
    bullring_book_t *book = bullring_book(books, status->instrument_id);
    if (book == NULL)
        return BULLRING_BOOK_MEMORY;
    book->status = status->status;
    book->transact_time = status->transact_time;
    book->event_open = (status->event_flags & EVENT_FLAGS_END_OF_EVENT) == 0;
    return BULLRING_BOOK_APPLIED;
}

static inline int bullring_compare(bullring_books_t *books, const book_digest_t *digest)
{
    bullring_book_t *book = bullring_book(books, digest->instrument_id);
    if (book == NULL)
        return BULLRING_BOOK_MEMORY;
    book->digests++;
    book->transact_time = digest->transact_time;
    bool equal = book->digest_low == digest->digest_low && book->digest_high == digest->digest_high;
    return equal && book->order_count == digest->order_count ? BULLRING_BOOK_APPLIED : BULLRING_BOOK_DIGEST;
}

/* What concerns a book without naming an order. */
static inline int bullring_apply_other(bullring_books_t *books, uint16_t template_id, uint16_t length, const void *block)
{
    if (template_id == TEMPLATE_INSTRUMENT_STATUS)
        return length < sizeof(instrument_status_t) ? BULLRING_BOOK_BLOCK : bullring_note_status(books, (const instrument_status_t *)block);
    if (template_id == TEMPLATE_BOOK_DIGEST)
        return length < sizeof(book_digest_t) ? BULLRING_BOOK_BLOCK : bullring_compare(books, (const book_digest_t *)block);
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
