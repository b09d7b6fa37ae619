/* The price levels of one side of one book.
 *
 * Near levels stand in a window of W = 2^window_log2 ticks, indexed by price mod W: the window covers [base, base + W) and slides
 * without moving what stays inside. A three-level bitmap finds the next non-empty tick. All other levels, at any int64 price,
 * stand in a crit-bit tree (depth <= 64 whatever prices clients choose) whose leaves are also linked in price order. Which of
 * the two holds a level is a matter of speed only; a level is never in both.
 *
 * A level is empty exactly when its quantity is 0, so zeroed memory is an empty window. The sum cannot wrap: every resting order
 * is covered by holds, and the supply of an asset is below 2^62 units.
 *
 * Everything here lives in the matcher's arena and holds offsets and indices, never pointers. */
#ifndef BULLRING_ENGINE_LEVELS_H
#define BULLRING_ENGINE_LEVELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "invariant.h"
#include "platform.h"

#define LEVELS_NONE UINT32_MAX
#define LEVELS_WINDOW_LOG2_MIN 6
#define LEVELS_WINDOW_LOG2_MAX 18 /* three words of 64 bits a path */
#define LEVELS_FAR_LEAF 0x80000000u
#define LEVELS_FAR_MAX 0x7fffffffu /* indices below the leaf bit */
#define LEVELS_SLIDE_STEP 8 /* levels moved into and out of the window at most, per step */

typedef struct level {
    uint32_t head; /* oldest order, valid while quantity > 0 */
    uint32_t tail;
    uint64_t quantity;
} level_t;

typedef struct far_level {
    level_t level; /* first: a level pointer is a far level pointer */
    int64_t price;
    uint32_t lower; /* neighbours in price order; `higher` also links the free list */
    uint32_t higher;
} far_level_t;

typedef struct far_fork {
    uint32_t child[2]; /* by the key's bit; leaves carry LEVELS_FAR_LEAF; child[0] also links the free list */
    uint32_t bit;
} far_fork_t;

_Static_assert(sizeof(level_t) == 16, "four levels a cache line");
_Static_assert(offsetof(far_level_t, level) == 0, "see levels_find");

/* One slab of far levels and forks for all books of a matcher. */
typedef struct far_slab {
    uint32_t level_free, level_used; /* free list; never used from level_used on */
    uint32_t fork_free, fork_used;
    uint32_t capacity;
} far_slab_t;

/* Where things are in this process; not state. */
typedef struct level_store {
    uint8_t *arena;
    far_slab_t *slab;
    far_level_t *far;
    far_fork_t *forks;
    uint64_t mask;        /* W - 1 */
    uint64_t bits1_words; /* words of the middle bitmap */
    uint64_t bits0_words;
} level_store_t;

typedef struct levels {
    int64_t best; /* price of the best level while there is any */
    int64_t base;
    int64_t slide_target; /* base wanted, while sliding */
    uint64_t window_offset; /* arena offset of levels, bits0, bits1, bits2 */
    uint32_t near_count;
    uint32_t far_count;
    uint32_t far_root; /* valid while far_count > 0 */
    uint32_t far_lowest;
    uint32_t far_highest;
    uint8_t is_bid;
    uint8_t sliding;
    uint16_t pad;
} levels_t;

typedef struct levels_iterator {
    int64_t near_price;
    uint32_t far_index; /* LEVELS_NONE = exhausted */
    bool near_left;
    int64_t price;  /* current */
    level_t *level; /* current, NULL at the end */
} levels_iterator_t;

void levels_store_open(level_store_t *store, uint8_t *arena, uint32_t window_log2);
/* Bytes of one side's bitmaps and window. */
size_t levels_window_size(const level_store_t *store);
void levels_init(levels_t *side, bool is_bid, uint64_t window_offset);

/* Far structure and rare paths. */
level_t *levels_far_find(const level_store_t *store, const levels_t *side, int64_t price);
level_t *levels_far_open(const level_store_t *store, levels_t *side, int64_t price);
void levels_far_close(const level_store_t *store, levels_t *side, int64_t price);
void levels_rebase_empty(const level_store_t *store, levels_t *side, int64_t price);
/* The best level has just gone: find the next one. */
void levels_next_best(const level_store_t *store, levels_t *side);
/* Decide whether the window should follow the touch; cheap. */
void levels_watch(const level_store_t *store, levels_t *side);
/* Move at most LEVELS_SLIDE_STEP levels out of the window and as many in. */
void levels_slide(const level_store_t *store, levels_t *side);

void levels_begin(const level_store_t *store, const levels_t *side, levels_iterator_t *iterator);
void levels_next(const level_store_t *store, const levels_t *side, levels_iterator_t *iterator);
/* NULL, or which invariant is broken. For tests: looks at every tick of the window. */
const char *levels_check(const level_store_t *store, const levels_t *side);

static inline uint32_t levels_count(const levels_t *side)
{
    return side->near_count + side->far_count;
}

static inline level_t *levels_window(const level_store_t *store, const levels_t *side)
{
    return (level_t *)(store->arena + side->window_offset);
}

static inline uint64_t *levels_bits0(const level_store_t *store, const levels_t *side)
{
    return (uint64_t *)(levels_window(store, side) + (store->mask + 1));
}

static inline uint64_t *levels_bits1(const level_store_t *store, const levels_t *side)
{
    return levels_bits0(store, side) + store->bits0_words;
}

static inline uint64_t *levels_bits2(const level_store_t *store, const levels_t *side)
{
    return levels_bits1(store, side) + store->bits1_words;
}

static inline bool levels_is_near(const level_store_t *store, const levels_t *side, int64_t price)
{
    return (uint64_t)price - (uint64_t)side->base <= store->mask;
}

static inline bool levels_better(const levels_t *side, int64_t price, int64_t than)
{
    return side->is_bid ? price > than : price < than;
}

/* The level at a price; NULL or empty if there is none. */
static inline level_t *levels_find(const level_store_t *store, const levels_t *side, int64_t price)
{
    if (LIKELY(levels_is_near(store, side, price)))
        return levels_window(store, side) + ((uint64_t)price & store->mask);
    return levels_far_find(store, side, price);
}

static inline void levels_mark(const level_store_t *store, const levels_t *side, int64_t price)
{
    uint64_t tick = (uint64_t)price & store->mask;
    uint64_t *word = levels_bits0(store, side) + (tick >> 6);
    uint64_t before = *word;
    *word = before | UINT64_C(1) << (tick & 63);
    if (LIKELY(before != 0))
        return;
    levels_bits1(store, side)[tick >> 12] |= UINT64_C(1) << (tick >> 6 & 63);
    *levels_bits2(store, side) |= UINT64_C(1) << (tick >> 12);
}

static inline void levels_unmark(const level_store_t *store, const levels_t *side, int64_t price)
{
    uint64_t tick = (uint64_t)price & store->mask;
    uint64_t *word = levels_bits0(store, side) + (tick >> 6);
    *word &= ~(UINT64_C(1) << (tick & 63));
    if (LIKELY(*word != 0))
        return;
    word = levels_bits1(store, side) + (tick >> 12);
    *word &= ~(UINT64_C(1) << (tick >> 6 & 63));
    if (*word == 0)
        *levels_bits2(store, side) &= ~(UINT64_C(1) << (tick >> 12));
}

/* The level at a price, opened if need be: the caller puts an order into it at once. */
static inline level_t *levels_open(const level_store_t *store, levels_t *side, int64_t price)
{
    level_t *level;
    if (UNLIKELY(levels_count(side) == 0)) {
        levels_rebase_empty(store, side, price);
        side->best = price;
    }
    if (LIKELY(levels_is_near(store, side, price))) {
        level = levels_window(store, side) + ((uint64_t)price & store->mask);
        if (level->quantity != 0)
            return level;
        levels_mark(store, side, price);
        side->near_count++;
    } else {
        level = levels_far_open(store, side, price);
        if (level->quantity != 0)
            return level;
    }
    if (levels_better(side, price, side->best)) {
        side->best = price;
        levels_watch(store, side);
    }
    return level;
}

/* The level at a price has just become empty. */
static inline void levels_close(const level_store_t *store, levels_t *side, int64_t price)
{
    if (LIKELY(levels_is_near(store, side, price))) {
        levels_unmark(store, side, price);
        side->near_count--;
    } else {
        levels_far_close(store, side, price);
    }
    if (price == side->best)
        levels_next_best(store, side);
}

#endif
