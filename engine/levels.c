/* See levels.h. */
#include "engine/levels.h"

#include <string.h>

#define WORD_BITS 64

static uint64_t padded_words(uint64_t bits)
{
    uint64_t words = (bits + WORD_BITS - 1) / WORD_BITS;
    return (words + 7) / 8 * 8; /* whole cache lines, so that the next window's levels stay aligned */
}

static uint64_t *bits1_of(const levels_t *side)
{
    return levels_bits0(side) + padded_words(side->mask + 1);
}

static uint64_t *bits2_of(const levels_t *side)
{
    return bits1_of(side) + padded_words((side->mask + 1) / WORD_BITS);
}

size_t levels_window_size(uint32_t window_log2)
{
    uint64_t ticks = UINT64_C(1) << window_log2;
    INVARIANT(window_log2 >= LEVELS_WINDOW_LOG2_MIN);
    INVARIANT(window_log2 <= LEVELS_WINDOW_LOG2_MAX);
    return ticks * sizeof(level_t) + (padded_words(ticks) + padded_words(ticks / WORD_BITS) + 8) * sizeof(uint64_t);
}

void levels_init(levels_t *side, uint32_t window_log2, void *window)
{
    INVARIANT(window_log2 >= LEVELS_WINDOW_LOG2_MIN);
    INVARIANT(window_log2 <= LEVELS_WINDOW_LOG2_MAX);
    memset(side, 0, sizeof(*side));
    side->best = RANK_NONE;
    side->mask = (UINT64_C(1) << window_log2) - 1;
    side->window_offset = (int64_t)((uintptr_t)window - (uintptr_t)side);
}

/* ---- bitmap ------------------------------------------------------------------------------------------------------ */

void levels_mark_summary(levels_t *side, uint64_t tick)
{
    bits1_of(side)[tick >> 12] |= UINT64_C(1) << (tick >> 6 & 63);
    *bits2_of(side) |= UINT64_C(1) << (tick >> 12);
}

void levels_unmark_summary(levels_t *side, uint64_t tick)
{
    uint64_t *word = bits1_of(side) + (tick >> 12);
    *word &= ~(UINT64_C(1) << (tick >> 6 & 63));
    if (*word == 0)
        *bits2_of(side) &= ~(UINT64_C(1) << (tick >> 12));
}

/* Smallest set tick >= `tick`, or -1. */
static int64_t bits_up(const levels_t *side, uint64_t tick)
{
    const uint64_t *bits0 = levels_bits0(side);
    const uint64_t *bits1 = bits1_of(side);
    uint64_t word = tick >> 6;
    uint64_t set = bits0[word] & (~UINT64_C(0) << (tick & 63));
    if (set != 0)
        return (int64_t)(word << 6 | (uint64_t)__builtin_ctzll(set));
    uint64_t block = word >> 6;
    set = bits1[block] & ~((UINT64_C(2) << (word & 63)) - 1);
    if (set == 0) {
        set = *bits2_of(side) & ~((UINT64_C(2) << block) - 1);
        if (set == 0)
            return -1;
        block = (uint64_t)__builtin_ctzll(set);
        set = bits1[block];
    }
    word = block << 6 | (uint64_t)__builtin_ctzll(set);
    return (int64_t)(word << 6 | (uint64_t)__builtin_ctzll(bits0[word]));
}

static uint64_t top_bit(uint64_t set)
{
    return 63 - (uint64_t)__builtin_clzll(set);
}

/* Largest set tick <= `tick`, or -1. */
static int64_t bits_down(const levels_t *side, uint64_t tick)
{
    const uint64_t *bits0 = levels_bits0(side);
    const uint64_t *bits1 = bits1_of(side);
    uint64_t word = tick >> 6;
    uint64_t set = bits0[word] & (~UINT64_C(0) >> (63 - (tick & 63)));
    if (set != 0)
        return (int64_t)(word << 6 | top_bit(set));
    uint64_t block = word >> 6;
    set = bits1[block] & ((UINT64_C(1) << (word & 63)) - 1);
    if (set == 0) {
        set = *bits2_of(side) & ((UINT64_C(1) << block) - 1);
        if (set == 0)
            return -1;
        block = top_bit(set);
        set = bits1[block];
    }
    word = block << 6 | top_bit(set);
    return (int64_t)(word << 6 | top_bit(bits0[word]));
}

static int64_t window_end(const levels_t *side)
{
    return (int64_t)((uint64_t)side->base + side->mask); /* last rank inside */
}

static int64_t rank_of_tick(const levels_t *side, int64_t tick)
{
    uint64_t offset = ((uint64_t)tick - (uint64_t)side->base) & side->mask;
    return (int64_t)((uint64_t)side->base + offset);
}

/* Lowest near level at or above `rank`, a rank inside the window. */
static bool near_up(const levels_t *side, int64_t rank, int64_t *found)
{
    int64_t tick = bits_up(side, (uint64_t)rank & side->mask);
    if (tick < 0)
        tick = bits_up(side, 0); /* the window wraps around the array */
    if (tick < 0)
        return false;
    *found = rank_of_tick(side, tick);
    return *found >= rank;
}

static bool near_down(const levels_t *side, int64_t rank, int64_t *found)
{
    int64_t tick = bits_down(side, (uint64_t)rank & side->mask);
    if (tick < 0)
        tick = bits_down(side, side->mask);
    if (tick < 0)
        return false;
    *found = rank_of_tick(side, tick);
    return *found <= rank;
}

static bool near_any(const levels_t *side)
{
    return *bits2_of(side) != 0;
}

/* Base that leaves a quarter of the window ahead of the touch. */
static int64_t wanted_base(const levels_t *side, int64_t rank)
{
    int64_t quarter = (int64_t)((side->mask + 1) / 4);
    int64_t highest = RANK_NONE - 1 - (int64_t)side->mask;
    if (rank < INT64_MIN + quarter)
        return INT64_MIN;
    return rank - quarter < highest ? rank - quarter : highest;
}

/* ---- far levels -------------------------------------------------------------------------------------------------- */

level_t *levels_find_far(const tree_store_t *store, const levels_t *side, int64_t rank)
{
    uint32_t leaf = tree_find(store, &side->far, rank);
    return leaf == TREE_NONE ? NULL : &store->leaves[leaf].level;
}

static level_t *far_level(const tree_store_t *store, levels_t *side, int64_t rank)
{
    return &store->leaves[tree_open(store, &side->far, rank)].level;
}

level_t *levels_open_far(const tree_store_t *store, levels_t *side, int64_t rank)
{
    if (levels_empty(side)) { /* the window is put around the first level */
        side->sliding = 0;
        side->base = wanted_base(side, rank);
        return levels_open(store, side, rank);
    }
    if (rank < side->best) {
        side->best = rank;
        levels_watch(side);
    }
    return far_level(store, side, rank);
}

void levels_close_far(const tree_store_t *store, levels_t *side, int64_t rank)
{
    tree_close(store, &side->far, rank);
}

/* ---- the touch --------------------------------------------------------------------------------------------------- */

void levels_next_best(const tree_store_t *store, levels_t *side)
{
    int64_t best = RANK_NONE;
    if (near_any(side)) {
        bool found = near_up(side, side->base, &best);
        INVARIANT(found);
    }
    if (side->far.count > 0 && store->leaves[side->far.lowest].key < best)
        best = store->leaves[side->far.lowest].key;
    side->best = best;
    if (best == RANK_NONE)
        side->sliding = 0;
    else
        levels_watch(side);
}

void levels_closed_near(const tree_store_t *store, levels_t *side, int64_t rank)
{
    uint64_t tick = (uint64_t)rank & side->mask;
    uint64_t left = levels_bits0(side)[tick >> 6];
    if (left == 0)
        levels_unmark_summary(side, tick);
    if (rank != side->best)
        return;
    uint64_t worse = left >> (tick & 63);
    int64_t next = rank + __builtin_ctzll(worse | UINT64_C(1) << 63);
    /* Mostly the next level is a few ticks away, in the same word. The word may reach around the window's end. */
    if (LIKELY(worse != 0 && side->far.count == 0 && levels_is_near(side, next))) {
        side->best = next;
        levels_watch(side);
    } else {
        levels_next_best(store, side);
    }
}

void levels_want_slide(levels_t *side)
{
    side->slide_target = wanted_base(side, side->best);
    side->sliding = side->slide_target != side->base;
}

static void move_out(const tree_store_t *store, levels_t *side, int64_t rank)
{
    uint64_t tick = (uint64_t)rank & side->mask;
    level_t *level = levels_window(side) + tick;
    uint64_t *word = levels_bits0(side) + (tick >> 6);
    *word &= ~(UINT64_C(1) << (tick & 63));
    if (*word == 0)
        levels_unmark_summary(side, tick);
    *far_level(store, side, rank) = *level;
    *level = (level_t){0, 0};
}

/* The window already covers the rank. */
static void move_in(const tree_store_t *store, levels_t *side, uint32_t leaf)
{
    int64_t rank = store->leaves[leaf].key;
    level_t level = store->leaves[leaf].level;
    uint64_t tick = (uint64_t)rank & side->mask;
    tree_close(store, &side->far, rank);
    levels_window(side)[tick] = level;
    levels_bits0(side)[tick >> 6] |= UINT64_C(1) << (tick & 63);
    levels_mark_summary(side, tick);
}

/* How far the window may go this time: past at most LEVELS_SLIDE_STEP far levels. */
static int64_t slide_limit(const tree_store_t *store, const levels_t *side, bool upwards, uint32_t next)
{
    for (int passed = 0; next != TREE_NONE && passed < LEVELS_SLIDE_STEP; passed++)
        next = upwards ? store->leaves[next].higher : store->leaves[next].lower;
    if (next == TREE_NONE)
        return side->slide_target;
    int64_t rank = store->leaves[next].key;
    if (upwards) {
        int64_t last = (int64_t)((uint64_t)rank - side->mask - 1); /* base that just leaves the level outside */
        return last < side->slide_target ? last : side->slide_target;
    }
    return rank >= side->slide_target ? rank + 1 : side->slide_target;
}

static void slide_up(const tree_store_t *store, levels_t *side)
{
    uint32_t next = tree_at_or_above(store, &side->far, window_end(side));
    int64_t base = slide_limit(store, side, true, next);
    int64_t lowest;
    for (int moved = 0; near_any(side); moved++) {
        bool found = near_up(side, side->base, &lowest);
        INVARIANT(found);
        if (lowest >= base)
            break;
        if (moved == LEVELS_SLIDE_STEP) {
            base = lowest;
            break;
        }
        move_out(store, side, lowest);
    }
    side->base = base;
    /* Levels the window leapt over stay far. */
    while (next != TREE_NONE && store->leaves[next].key <= window_end(side)) {
        uint32_t after = store->leaves[next].higher;
        if (store->leaves[next].key >= base)
            move_in(store, side, next);
        next = after;
    }
}

static void slide_down(const tree_store_t *store, levels_t *side)
{
    uint32_t next = tree_at_or_below(store, &side->far, side->base);
    int64_t base = slide_limit(store, side, false, next);
    int64_t highest;
    for (int moved = 0; near_any(side); moved++) {
        bool found = near_down(side, window_end(side), &highest);
        INVARIANT(found);
        if (highest <= (int64_t)((uint64_t)base + side->mask))
            break;
        if (moved == LEVELS_SLIDE_STEP) {
            base = (int64_t)((uint64_t)highest - side->mask); /* lowest base that still covers it */
            break;
        }
        move_out(store, side, highest);
    }
    side->base = base;
    while (next != TREE_NONE && store->leaves[next].key >= base) {
        uint32_t after = store->leaves[next].lower;
        if (store->leaves[next].key <= window_end(side))
            move_in(store, side, next);
        next = after;
    }
}

void levels_slide(const tree_store_t *store, levels_t *side)
{
    if (side->slide_target > side->base)
        slide_up(store, side);
    else
        slide_down(store, side);
    side->sliding = side->base != side->slide_target;
}

/* ---- iteration, best first ------------------------------------------------------------------------------------------ */

static void iterator_pick(const tree_store_t *store, const levels_t *side, levels_iterator_t *iterator)
{
    bool far_left = iterator->far_leaf != TREE_NONE;
    iterator->level = NULL;
    if (iterator->near_left && (!far_left || iterator->near_rank < store->leaves[iterator->far_leaf].key)) {
        iterator->rank = iterator->near_rank;
        iterator->level = levels_window(side) + ((uint64_t)iterator->rank & side->mask);
    } else if (far_left) {
        iterator->rank = store->leaves[iterator->far_leaf].key;
        iterator->level = &store->leaves[iterator->far_leaf].level;
    }
}

void levels_begin(const tree_store_t *store, const levels_t *side, levels_iterator_t *iterator)
{
    iterator->far_leaf = tree_lowest(&side->far);
    iterator->near_rank = 0;
    iterator->near_left = near_any(side) && near_up(side, side->base, &iterator->near_rank);
    iterator_pick(store, side, iterator);
}

void levels_next(const tree_store_t *store, const levels_t *side, levels_iterator_t *iterator)
{
    if (iterator->near_left && iterator->rank == iterator->near_rank)
        iterator->near_left =
            iterator->rank != window_end(side) && near_up(side, iterator->rank + 1, &iterator->near_rank);
    else
        iterator->far_leaf = store->leaves[iterator->far_leaf].higher;
    iterator_pick(store, side, iterator);
}

/* ---- check ---------------------------------------------------------------------------------------------------------- */

static const char *check_window(const levels_t *side, uint32_t *count)
{
    const level_t *window = levels_window(side);
    const uint64_t *bits0 = levels_bits0(side);
    const uint64_t *bits1 = bits1_of(side);
    for (uint64_t tick = 0; tick <= side->mask; tick++) {
        bool set = (bits0[tick >> 6] >> (tick & 63) & 1) != 0;
        if (set != (window[tick].head != 0))
            return "a tick's bit and its level disagree";
        *count += set;
    }
    for (uint64_t word = 0; word <= side->mask >> 6; word++)
        if ((bits1[word >> 6] >> (word & 63) & 1) != (bits0[word] != 0))
            return "middle bitmap is wrong";
    for (uint64_t block = 0; block <= side->mask >> 12; block++)
        if ((*bits2_of(side) >> block & 1) != (bits1[block] != 0))
            return "top bitmap is wrong";
    return NULL;
}

static const char *check_far(const tree_store_t *store, const levels_t *side)
{
    const char *broken = tree_check(store, &side->far);
    if (broken != NULL)
        return broken;
    for (uint32_t leaf = tree_lowest(&side->far); leaf != TREE_NONE; leaf = store->leaves[leaf].higher)
        if (levels_is_near(side, store->leaves[leaf].key))
            return "a far level stands inside the window";
    return NULL;
}

const char *levels_check(const tree_store_t *store, const levels_t *side)
{
    uint32_t levels = 0;
    uint32_t seen = 0;
    const char *broken = check_window(side, &levels);
    if (broken == NULL)
        broken = check_far(store, side);
    if (broken != NULL)
        return broken;
    levels += side->far.count;
    levels_iterator_t iterator;
    int64_t before = RANK_NONE;
    for (levels_begin(store, side, &iterator); iterator.level != NULL; levels_next(store, side, &iterator)) {
        if (seen == 0 && iterator.rank != side->best)
            return "best is wrong";
        if (seen++ > 0 && iterator.rank <= before)
            return "iteration is not in order";
        before = iterator.rank;
    }
    if (levels == 0 && !levels_empty(side))
        return "an empty side has a best level";
    return seen == levels ? NULL : "iteration misses a level";
}
