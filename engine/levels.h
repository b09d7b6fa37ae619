/* The price levels of one side of one book.
 *
 * Levels are known by their *rank*: the price of an ask, the one's complement of the price of a bid. So both sides are one: the
 * best level is the lowest rank, worse ones lie above, and no code below asks which side it works for. Rank INT64_MAX is no level.
 *
 * Near levels stand in a window of W = 2^window_log2 ticks, indexed by rank mod W: the window covers [base, base + W) and slides
 * without moving what stays inside. A three-level bitmap finds the next non-empty tick. All other levels, at any int64 price,
 * stand in a tree (tree.h). Which of the two holds a level is a matter of speed only; a level is never in both.
 *
 * A level is a FIFO of orders and no more: sums of quantities are asked for too rarely to pay for keeping them.
 *
 * Everything here lives in the matcher's arena and holds offsets and indices, never pointers. */
#ifndef BULLRING_ENGINE_LEVELS_H
#define BULLRING_ENGINE_LEVELS_H

#include "engine/tree.h"

#define LEVELS_WINDOW_LOG2_MIN 6
#define LEVELS_WINDOW_LOG2_MAX 18 /* three words of 64 bits a path */
#define LEVELS_SLIDE_STEP 8       /* levels moved into and out of the window at most, per step */
#define RANK_NONE INT64_MAX       /* the best rank of an empty side: no limit reaches it */

typedef struct levels {
    int64_t best; /* rank of the best level, RANK_NONE if there is none */
    int64_t base;
    uint64_t mask;         /* W - 1 */
    int64_t window_offset; /* bytes from this struct to the window: levels, then bits0, bits1, bits2 */
    tree_t far;
    int64_t slide_target; /* base wanted, while sliding */
    uint32_t sliding;
    uint32_t pad;
} levels_t;

_Static_assert(sizeof(levels_t) == 64, "one cache line");

typedef struct levels_iterator {
    int64_t near_rank;
    uint32_t far_leaf; /* TREE_NONE = exhausted */
    bool near_left;
    int64_t rank;   /* current */
    level_t *level; /* current, NULL at the end */
} levels_iterator_t;

/* Bytes of one side's window and bitmaps. */
size_t levels_window_size(uint32_t window_log2);
/* `window`: zeroed, cache-line aligned, in the same mapping as `side`. */
void levels_init(levels_t *side, uint32_t window_log2, void *window);

/* Rare paths. */
void levels_mark_summary(levels_t *side, uint64_t tick);
void levels_unmark_summary(levels_t *side, uint64_t tick);
level_t *levels_find_far(const tree_store_t *store, const levels_t *side, int64_t rank);
level_t *levels_open_far(const tree_store_t *store, levels_t *side, int64_t rank);
void levels_close_far(const tree_store_t *store, levels_t *side, int64_t rank);
/* The best level has just gone: find the next one. */
void levels_next_best(const tree_store_t *store, levels_t *side);
/* A level of the window has just gone, and its bit with it: see to its summary, and to the best level if it was that. */
void levels_closed_near(const tree_store_t *store, levels_t *side, int64_t rank);
/* The touch left the comfortable part of the window: slide until it is back. */
void levels_want_slide(levels_t *side);
/* Move at most LEVELS_SLIDE_STEP levels out of the window and as many in. */
void levels_slide(const tree_store_t *store, levels_t *side);

/* Best first. No level may come or go meanwhile. */
void levels_begin(const tree_store_t *store, const levels_t *side, levels_iterator_t *iterator);
void levels_next(const tree_store_t *store, const levels_t *side, levels_iterator_t *iterator);
/* NULL, or which invariant is broken. For tests: looks at every tick of the window. */
const char *levels_check(const tree_store_t *store, const levels_t *side);

static inline level_t *levels_window(const levels_t *side)
{
    return (level_t *)((uintptr_t)side + (uintptr_t)side->window_offset);
}

static inline uint64_t *levels_bits0(const levels_t *side)
{
    return (uint64_t *)(levels_window(side) + (side->mask + 1));
}

static inline bool levels_is_near(const levels_t *side, int64_t rank)
{
    return (uint64_t)rank - (uint64_t)side->base <= side->mask;
}

static inline bool levels_empty(const levels_t *side)
{
    return side->best == RANK_NONE;
}

/* The level of a rank in the window. */
static inline level_t *levels_near(const levels_t *side, int64_t rank)
{
    return levels_window(side) + ((uint64_t)rank & side->mask);
}

/* The level of a rank; NULL or empty if there is none. */
static inline level_t *levels_find(const tree_store_t *store, const levels_t *side, int64_t rank)
{
    if (LIKELY(levels_is_near(side, rank)))
        return levels_near(side, rank);
    return levels_find_far(store, side, rank);
}

/* The touch has moved. It is comfortable between an eighth and half of the window: most of it lies behind the touch, and an
 * eighth is left for better prices. */
static inline void levels_watch(levels_t *side)
{
    uint64_t eighth = (side->mask + 1) / 8;
    uint64_t ahead = (uint64_t)side->best - (uint64_t)side->base; /* wraps to huge when the touch is outside */
    if (UNLIKELY(ahead - eighth > 3 * eighth))
        levels_want_slide(side);
}

/* A place in the window: its level, and where its bit is. */
typedef struct place {
    level_t *level;
    uint64_t *word;
    uint64_t number;
} place_t;

static inline place_t levels_place(const levels_t *side, int64_t rank)
{
    level_t *window = levels_window(side);
    uint64_t number = (uint64_t)rank & side->mask;
    return (place_t){window + number, (uint64_t *)(window + (side->mask + 1)) + (number >> 6), number};
}

/* An order is about to join the level of a place, which is that of `rank`. */
static inline void levels_open_near(levels_t *side, place_t place, int64_t rank)
{
    uint64_t before = *place.word;
    *place.word = before | UINT64_C(1) << (place.number & 63);
    if (UNLIKELY(before == 0))
        levels_mark_summary(side, place.number);
    if (UNLIKELY(rank < side->best)) {
        side->best = rank;
        levels_watch(side);
    }
}

/* The level of a rank, opened if need be: the caller puts an order into it at once. */
static inline level_t *levels_open(const tree_store_t *store, levels_t *side, int64_t rank)
{
    if (UNLIKELY(!levels_is_near(side, rank)))
        return levels_open_far(store, side, rank);
    place_t place = levels_place(side, rank);
    levels_open_near(side, place, rank);
    return place.level;
}

/* An order has left a level of the window. Nobody can guess whether it was the last one, so there is no branch on that alone: the
 * rest is only to be done for the best level, and for the last one of its word. */
static inline void levels_left_near(const tree_store_t *store, levels_t *side, place_t place, int64_t rank)
{
    uint64_t emptied = place.level->head == 0;
    uint64_t left = *place.word & ~(emptied << (place.number & 63));
    *place.word = left;
    if (UNLIKELY(emptied & ((left == 0) | (rank == side->best))))
        levels_closed_near(store, side, rank);
}

/* The level of a rank has just become empty. */
static inline void levels_close(const tree_store_t *store, levels_t *side, int64_t rank)
{
    if (LIKELY(levels_is_near(side, rank))) {
        place_t place = levels_place(side, rank);
        *place.word &= ~(UINT64_C(1) << (place.number & 63));
        levels_closed_near(store, side, rank);
        return;
    }
    levels_close_far(store, side, rank);
    if (rank == side->best)
        levels_next_best(store, side);
}

#endif
