/* The reference of book_bench: a plain array book. Price-time priority in a fixed range of prices, orders by id, a level an array
 * element, a three-level bitmap for the next level; no features, no checks, no hash. With `events` it writes one 64-byte slot an
 * output into a ring-like buffer, which anything that calls itself a feed must. */
#ifndef BULLRING_ARRAY_BOOK_H
#define BULLRING_ARRAY_BOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_TICKS (1u << 21)
#define ARRAY_EVENT_SLOTS (1u << 13)
#define ARRAY_EVENT_WORDS 8
#define ARRAY_NONE (-1)
#define ARRAY_INLINE static inline __attribute__((always_inline))

typedef struct array_order {
    uint32_t next, prev; /* 0 = none: ids start at 1 */
    uint32_t quantity;
    int32_t price;
    uint32_t side;
} array_order_t;

typedef struct array_level {
    uint32_t head, tail;
} array_level_t;

typedef struct array_sums {
    uint64_t fills, quantity, notional, events;
} array_sums_t;

typedef struct array_book {
    array_order_t *orders;
    array_level_t *levels[2];
    uint64_t *bits[2][3];
    int32_t best[2];
    uint64_t *events;
    array_sums_t sums;
} array_book_t;

/* Told of every resting order that is filled; NULL where nobody wants to know, which costs nothing. */
typedef void (*array_filled_fn)(void *context, uint32_t id);

ARRAY_INLINE void array_mark(array_book_t *book, uint32_t side, uint32_t tick)
{
    uint64_t *word = &book->bits[side][0][tick >> 6];
    uint64_t before = *word;
    *word = before | UINT64_C(1) << (tick & 63);
    if (before != 0)
        return;
    book->bits[side][1][tick >> 12] |= UINT64_C(1) << (tick >> 6 & 63);
    book->bits[side][2][tick >> 18] |= UINT64_C(1) << (tick >> 12 & 63);
}

ARRAY_INLINE void array_unmark(array_book_t *book, uint32_t side, uint32_t tick)
{
    uint64_t *word = &book->bits[side][0][tick >> 6];
    if ((*word &= ~(UINT64_C(1) << (tick & 63))) != 0)
        return;
    word = &book->bits[side][1][tick >> 12];
    if ((*word &= ~(UINT64_C(1) << (tick >> 6 & 63))) == 0)
        book->bits[side][2][tick >> 18] &= ~(UINT64_C(1) << (tick >> 12 & 63));
}

/* Down from a word of the middle bitmap, or of the lowest, to the tick. */
ARRAY_INLINE int32_t array_first(const array_book_t *book, uint32_t side, uint32_t word)
{
    return (int32_t)(word << 6 | (uint32_t)__builtin_ctzll(book->bits[side][0][word]));
}

ARRAY_INLINE int32_t array_last(const array_book_t *book, uint32_t side, uint32_t word)
{
    return (int32_t)(word << 6 | (63 - (uint32_t)__builtin_clzll(book->bits[side][0][word])));
}

static __attribute__((noinline)) int32_t array_above(const array_book_t *book, uint32_t side, uint32_t tick)
{
    uint64_t set = book->bits[side][1][tick >> 12] & (~UINT64_C(1) << (tick >> 6 & 63));
    if (set != 0)
        return array_first(book, side, (tick >> 12) << 6 | (uint32_t)__builtin_ctzll(set));
    uint32_t word = tick >> 18;
    set = book->bits[side][2][word] & (~UINT64_C(1) << (tick >> 12 & 63));
    while (set == 0) {
        if (++word == ARRAY_TICKS >> 18)
            return ARRAY_NONE;
        set = book->bits[side][2][word];
    }
    uint32_t block = word << 6 | (uint32_t)__builtin_ctzll(set);
    return array_first(book, side, block << 6 | (uint32_t)__builtin_ctzll(book->bits[side][1][block]));
}

static __attribute__((noinline)) int32_t array_below(const array_book_t *book, uint32_t side, uint32_t tick)
{
    uint64_t set = book->bits[side][1][tick >> 12] & ((UINT64_C(1) << (tick >> 6 & 63)) - 1);
    if (set != 0)
        return array_last(book, side, (tick >> 12) << 6 | (63 - (uint32_t)__builtin_clzll(set)));
    uint32_t word = tick >> 18;
    set = book->bits[side][2][word] & ((UINT64_C(1) << (tick >> 12 & 63)) - 1);
    while (set == 0) {
        if (word-- == 0)
            return ARRAY_NONE;
        set = book->bits[side][2][word];
    }
    uint32_t block = word << 6 | (63 - (uint32_t)__builtin_clzll(set));
    return array_last(book, side, block << 6 | (63 - (uint32_t)__builtin_clzll(book->bits[side][1][block])));
}

/* The best level has gone. */
ARRAY_INLINE int32_t array_next_best(const array_book_t *book, uint32_t side, uint32_t tick)
{
    uint64_t word = book->bits[side][0][tick >> 6];
    uint64_t set = side == 0 ? word & ((UINT64_C(1) << (tick & 63)) - 1) : word & (~UINT64_C(0) << (tick & 63));
    if (set != 0)
        return (int32_t)((tick & ~63u) | (side == 0 ? 63 - (uint32_t)__builtin_clzll(set) : (uint32_t)__builtin_ctzll(set)));
    return side == 0 ? array_below(book, side, tick) : array_above(book, side, tick);
}

ARRAY_INLINE void array_event(array_book_t *book, bool events, uint64_t kind, uint32_t id, int32_t price, uint32_t quantity)
{
    if (!events)
        return;
    uint64_t *words = &book->events[(book->sums.events++ & (ARRAY_EVENT_SLOTS - 1)) * ARRAY_EVENT_WORDS];
    words[0] = book->sums.events;
    words[1] = kind;
    words[2] = 0;
    words[3] = id;
    words[4] = (uint64_t)price;
    words[5] = quantity;
    words[6] = 0;
    words[7] = 0;
}

ARRAY_INLINE void array_unlink(array_book_t *book, uint32_t side, array_order_t *order)
{
    array_level_t *level = &book->levels[side][order->price];
    if (order->prev != 0)
        book->orders[order->prev].next = order->next;
    else
        level->head = order->next;
    if (order->next != 0)
        book->orders[order->next].prev = order->prev;
    else
        level->tail = order->prev;
    if (level->head != 0)
        return;
    array_unmark(book, side, (uint32_t)order->price);
    if (order->price == book->best[side])
        book->best[side] = array_next_best(book, side, (uint32_t)order->price);
}

ARRAY_INLINE void array_append(array_book_t *book, uint32_t side, uint32_t id, array_order_t *order)
{
    array_level_t *level = &book->levels[side][order->price];
    order->next = 0;
    order->prev = level->tail;
    if (level->tail != 0) {
        book->orders[level->tail].next = id;
    } else {
        level->head = id;
        array_mark(book, side, (uint32_t)order->price);
        if (book->best[side] == ARRAY_NONE || (side == 0 ? order->price > book->best[0] : order->price < book->best[1]))
            book->best[side] = order->price;
    }
    level->tail = id;
}

/* Trade up to the limit; returns what is left. */
ARRAY_INLINE uint32_t array_match(array_book_t *book, uint32_t side, uint32_t quantity, int32_t price, bool events,
                                  array_filled_fn filled, void *context)
{
    uint32_t other = side ^ 1;
    while (quantity > 0) {
        int32_t best = book->best[other];
        if (best == ARRAY_NONE || (side == 0 ? best > price : best < price))
            break;
        uint32_t maker_id = book->levels[other][best].head;
        array_order_t *maker = &book->orders[maker_id];
        uint32_t traded = maker->quantity < quantity ? maker->quantity : quantity;
        quantity -= traded;
        maker->quantity -= traded;
        book->sums.fills++;
        book->sums.quantity += traded;
        book->sums.notional += (uint64_t)best * traded;
        array_event(book, events, 'E', maker_id, best, traded);
        if (maker->quantity == 0) {
            array_unlink(book, other, maker);
            if (filled != NULL)
                filled(context, maker_id);
        }
    }
    return quantity;
}

/* New or replaced: trade, then rest with what is left. */
ARRAY_INLINE void array_place(array_book_t *book, uint32_t id, uint32_t side, uint32_t quantity, int32_t price, bool events,
                              array_filled_fn filled, void *context)
{
    quantity = array_match(book, side, quantity, price, events, filled, context);
    array_order_t *order = &book->orders[id];
    order->quantity = quantity;
    if (quantity == 0)
        return;
    order->price = price;
    order->side = side;
    array_event(book, events, 'A', id, price, quantity);
    array_append(book, side, id, order);
}

ARRAY_INLINE void array_cancel(array_book_t *book, uint32_t id, bool events)
{
    array_order_t *order = &book->orders[id];
    array_event(book, events, 'D', id, 0, 0);
    array_unlink(book, order->side, order);
}

ARRAY_INLINE void array_replace(array_book_t *book, uint32_t id, uint32_t quantity, int32_t price, bool events,
                                array_filled_fn filled, void *context)
{
    array_order_t *order = &book->orders[id];
    uint32_t side = order->side;
    array_unlink(book, side, order);
    array_place(book, id, side, quantity, price, events, filled, context);
}

static inline size_t array_size(uint64_t ids)
{
    return ARRAY_EVENT_SLOTS * ARRAY_EVENT_WORDS * sizeof(uint64_t) + 2 * ARRAY_TICKS * sizeof(array_level_t) +
           6 * (ARRAY_TICKS / 8) + ids * sizeof(array_order_t);
}

/* `memory`: array_size() zeroed bytes. */
static inline void array_open(array_book_t *book, uint8_t *memory)
{
    *book = (array_book_t){.events = (uint64_t *)(void *)memory, .best = {ARRAY_NONE, ARRAY_NONE}};
    memory += ARRAY_EVENT_SLOTS * ARRAY_EVENT_WORDS * sizeof(uint64_t);
    for (int side = 0; side < 2; side++) {
        book->levels[side] = (array_level_t *)(void *)memory;
        memory += ARRAY_TICKS * sizeof(array_level_t);
        for (int level = 0; level < 3; level++, memory += ARRAY_TICKS / 8)
            book->bits[side][level] = (uint64_t *)(void *)memory;
    }
    book->orders = (array_order_t *)(void *)memory;
}

#endif
