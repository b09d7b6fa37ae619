/* See levels.h. */
#include "engine/levels.h"

#include <string.h>

#define KEY_SIGN (UINT64_C(1) << 63)

void levels_store_open(level_store_t *store, uint8_t *arena, uint32_t window_log2)
{
    INVARIANT(window_log2 >= LEVELS_WINDOW_LOG2_MIN);
    INVARIANT(window_log2 <= LEVELS_WINDOW_LOG2_MAX);
    uint64_t bits0 = (UINT64_C(1) << window_log2) / 64;
    uint64_t bits1 = (bits0 + 63) / 64;
    store->arena = arena;
    /* Words padded to whole cache lines, so that levels stay aligned. */
    store->mask = (UINT64_C(1) << window_log2) - 1;
    store->bits0_words = (bits0 + 7) / 8 * 8;
    store->bits1_words = (bits1 + 7) / 8 * 8;
}

size_t levels_window_size(const level_store_t *store)
{
    return (8 + store->bits1_words + store->bits0_words) * sizeof(uint64_t) + (store->mask + 1) * sizeof(level_t);
}

void levels_init(levels_t *side, bool is_bid, uint64_t window_offset)
{
    memset(side, 0, sizeof(*side));
    side->window_offset = window_offset;
    side->is_bid = is_bid;
    side->far_lowest = LEVELS_NONE;
    side->far_highest = LEVELS_NONE;
}

/* ---- bitmap ------------------------------------------------------------------------------------------------------ */

/* Smallest set tick >= `tick`, or -1. */
static int64_t bits_up(const level_store_t *store, const levels_t *side, uint64_t tick)
{
    const uint64_t *bits0 = levels_bits0(store, side);
    const uint64_t *bits1 = levels_bits1(store, side);
    uint64_t word = tick >> 6;
    uint64_t set = bits0[word] & (~UINT64_C(0) << (tick & 63));
    if (set != 0)
        return (int64_t)(word << 6 | (uint64_t)__builtin_ctzll(set));
    uint64_t block = word >> 6;
    set = bits1[block] & ~((UINT64_C(2) << (word & 63)) - 1);
    if (set == 0) {
        set = *levels_bits2(store, side) & ~((UINT64_C(2) << block) - 1);
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
static int64_t bits_down(const level_store_t *store, const levels_t *side, uint64_t tick)
{
    const uint64_t *bits0 = levels_bits0(store, side);
    const uint64_t *bits1 = levels_bits1(store, side);
    uint64_t word = tick >> 6;
    uint64_t set = bits0[word] & (~UINT64_C(0) >> (63 - (tick & 63)));
    if (set != 0)
        return (int64_t)(word << 6 | top_bit(set));
    uint64_t block = word >> 6;
    set = bits1[block] & ((UINT64_C(1) << (word & 63)) - 1);
    if (set == 0) {
        set = *levels_bits2(store, side) & ((UINT64_C(1) << block) - 1);
        if (set == 0)
            return -1;
        block = top_bit(set);
        set = bits1[block];
    }
    word = block << 6 | top_bit(set);
    return (int64_t)(word << 6 | top_bit(bits0[word]));
}

static int64_t window_end(const level_store_t *store, const levels_t *side)
{
    return (int64_t)((uint64_t)side->base + store->mask); /* last price inside */
}

static int64_t tick_price(const level_store_t *store, const levels_t *side, int64_t tick)
{
    uint64_t offset = ((uint64_t)tick - (uint64_t)side->base) & store->mask;
    return (int64_t)((uint64_t)side->base + offset);
}

/* Lowest near level at or above `price`, a price inside the window. */
static bool near_up(const level_store_t *store, const levels_t *side, int64_t price, int64_t *found)
{
    int64_t tick = bits_up(store, side, (uint64_t)price & store->mask);
    if (tick < 0)
        tick = bits_up(store, side, 0); /* the window wraps around the array */
    if (tick < 0)
        return false;
    *found = tick_price(store, side, tick);
    return *found >= price;
}

static bool near_down(const level_store_t *store, const levels_t *side, int64_t price, int64_t *found)
{
    int64_t tick = bits_down(store, side, (uint64_t)price & store->mask);
    if (tick < 0)
        tick = bits_down(store, side, store->mask);
    if (tick < 0)
        return false;
    *found = tick_price(store, side, tick);
    return *found <= price;
}

/* Best near level not better than `price`. */
static bool near_from(const level_store_t *store, const levels_t *side, int64_t price, int64_t *found)
{
    return side->is_bid ? near_down(store, side, price, found) : near_up(store, side, price, found);
}

static int64_t near_edge(const level_store_t *store, const levels_t *side)
{
    return side->is_bid ? window_end(store, side) : side->base;
}

/* ---- far levels: crit-bit tree plus list ---------------------------------------------------------------------------- */

static uint64_t far_key(int64_t price)
{
    return (uint64_t)price ^ KEY_SIGN;
}

static uint32_t far_best(const levels_t *side)
{
    return side->is_bid ? side->far_highest : side->far_lowest;
}

/* The leaf that shares the longest prefix along the tree's forks. */
static uint32_t far_descend(const level_store_t *store, const levels_t *side, uint64_t key)
{
    uint32_t node = side->far_root;
    while ((node & LEVELS_FAR_LEAF) == 0) /* at most 64 forks */
        node = store->forks[node].child[key >> store->forks[node].bit & 1];
    return node & ~LEVELS_FAR_LEAF;
}

level_t *levels_far_find(const level_store_t *store, const levels_t *side, int64_t price)
{
    if (side->far_count == 0)
        return NULL;
    far_level_t *leaf = store->far + far_descend(store, side, far_key(price));
    return leaf->price == price ? &leaf->level : NULL;
}

static uint32_t slab_take_level(const level_store_t *store)
{
    far_slab_t *slab = store->slab;
    uint32_t index = slab->level_free;
    if (index != LEVELS_NONE) {
        slab->level_free = store->far[index].higher;
        return index;
    }
    INVARIANT(slab->level_used < slab->capacity); /* as many as there can be orders */
    return slab->level_used++;
}

static uint32_t slab_take_fork(const level_store_t *store)
{
    far_slab_t *slab = store->slab;
    uint32_t index = slab->fork_free;
    if (index != LEVELS_NONE) {
        slab->fork_free = store->forks[index].child[0];
        return index;
    }
    INVARIANT(slab->fork_used < slab->capacity);
    return slab->fork_used++;
}

static uint32_t far_extreme(const level_store_t *store, uint32_t node, int direction)
{
    while ((node & LEVELS_FAR_LEAF) == 0)
        node = store->forks[node].child[direction];
    return node & ~LEVELS_FAR_LEAF;
}

static void far_link(const level_store_t *store, levels_t *side, uint32_t index, uint32_t lower, uint32_t higher)
{
    store->far[index].lower = lower;
    store->far[index].higher = higher;
    if (lower != LEVELS_NONE)
        store->far[lower].higher = index;
    else
        side->far_lowest = index;
    if (higher != LEVELS_NONE)
        store->far[higher].lower = index;
    else
        side->far_highest = index;
}

static level_t *far_insert(const level_store_t *store, levels_t *side, int64_t price)
{
    uint32_t index = slab_take_level(store);
    far_level_t *leaf = store->far + index;
    memset(leaf, 0, sizeof(*leaf));
    leaf->price = price;
    if (side->far_count++ == 0) {
        side->far_root = index | LEVELS_FAR_LEAF;
        far_link(store, side, index, LEVELS_NONE, LEVELS_NONE);
        return &leaf->level;
    }
    uint64_t key = far_key(price);
    uint32_t bit = (uint32_t)top_bit(key ^ far_key(store->far[far_descend(store, side, key)].price));
    uint32_t *link = &side->far_root;
    while ((*link & LEVELS_FAR_LEAF) == 0 && store->forks[*link].bit > bit)
        link = &store->forks[*link].child[key >> store->forks[*link].bit & 1];
    uint32_t fork = slab_take_fork(store);
    uint32_t above = key >> bit & 1;
    uint32_t sibling = *link;
    store->forks[fork] = (far_fork_t){.bit = bit};
    store->forks[fork].child[above] = index | LEVELS_FAR_LEAF;
    store->forks[fork].child[above ^ 1] = sibling;
    *link = fork;
    if (above) {
        uint32_t lower = far_extreme(store, sibling, 1);
        far_link(store, side, index, lower, store->far[lower].higher);
    } else {
        uint32_t higher = far_extreme(store, sibling, 0);
        far_link(store, side, index, store->far[higher].lower, higher);
    }
    return &leaf->level;
}

level_t *levels_far_open(const level_store_t *store, levels_t *side, int64_t price)
{
    level_t *level = levels_far_find(store, side, price);
    return level != NULL ? level : far_insert(store, side, price);
}

void levels_far_close(const level_store_t *store, levels_t *side, int64_t price)
{
    uint64_t key = far_key(price);
    uint32_t *link = &side->far_root;
    uint32_t *parent_link = NULL;
    while ((*link & LEVELS_FAR_LEAF) == 0) {
        parent_link = link;
        link = &store->forks[*link].child[key >> store->forks[*link].bit & 1];
    }
    uint32_t index = *link & ~LEVELS_FAR_LEAF;
    far_level_t *leaf = store->far + index;
    INVARIANT(side->far_count > 0);
    INVARIANT(leaf->price == price);
    if (parent_link != NULL) {
        uint32_t fork = *parent_link;
        *parent_link = store->forks[fork].child[link == &store->forks[fork].child[0] ? 1 : 0];
        store->forks[fork].child[0] = store->slab->fork_free;
        store->slab->fork_free = fork;
    }
    if (leaf->lower != LEVELS_NONE)
        store->far[leaf->lower].higher = leaf->higher;
    else
        side->far_lowest = leaf->higher;
    if (leaf->higher != LEVELS_NONE)
        store->far[leaf->higher].lower = leaf->lower;
    else
        side->far_highest = leaf->lower;
    side->far_count--;
    leaf->higher = store->slab->level_free;
    store->slab->level_free = index;
}

/* ---- the touch -------------------------------------------------------------------------------------------------- */

void levels_next_best(const level_store_t *store, levels_t *side)
{
    if (levels_count(side) == 0) {
        side->sliding = 0;
        return;
    }
    int64_t best = 0;
    bool found = false;
    if (side->near_count > 0) {
        int64_t start = levels_is_near(store, side, side->best) ? side->best : near_edge(store, side);
        found = near_from(store, side, start, &best);
        INVARIANT(found);
    }
    if (UNLIKELY(side->far_count > 0)) {
        int64_t far = store->far[far_best(side)].price;
        if (!found || levels_better(side, far, best))
            best = far;
    }
    side->best = best;
    levels_watch(store, side);
}

/* Base that puts `price`, a touch, where most of the window lies behind it: a quarter stays free for the market to move into. */
static int64_t wanted_base(const level_store_t *store, const levels_t *side, int64_t price)
{
    uint64_t quarter = (store->mask + 1) / 4;
    uint64_t below = side->is_bid ? 3 * quarter : quarter; /* ticks of the window below the touch */
    int64_t highest = INT64_MAX - (int64_t)store->mask;
    if (price < INT64_MIN + (int64_t)below)
        return INT64_MIN;
    int64_t base = price - (int64_t)below;
    return base < highest ? base : highest;
}

void levels_rebase_empty(const level_store_t *store, levels_t *side, int64_t price)
{
    INVARIANT(side->near_count == 0);
    INVARIANT(side->far_count == 0);
    side->sliding = 0;
    side->base = wanted_base(store, side, price);
}

void levels_watch(const level_store_t *store, levels_t *side)
{
    uint64_t eighth = (store->mask + 1) / 8;
    /* Ticks of the window behind the touch; wraps to huge when the touch is outside. */
    uint64_t behind = side->is_bid ? (uint64_t)side->best - (uint64_t)side->base
                                   : (uint64_t)window_end(store, side) - (uint64_t)side->best;
    if (LIKELY(behind - 4 * eighth < 3 * eighth))
        return;
    side->slide_target = wanted_base(store, side, side->best);
    side->sliding = side->slide_target != side->base;
}

static void move_out(const level_store_t *store, levels_t *side, int64_t price)
{
    level_t *level = levels_window(store, side) + ((uint64_t)price & store->mask);
    levels_unmark(store, side, price);
    side->near_count--;
    *far_insert(store, side, price) = *level;
    memset(level, 0, sizeof(*level));
}

/* The window already covers the price. */
static void move_in(const level_store_t *store, levels_t *side, uint32_t index)
{
    int64_t price = store->far[index].price;
    level_t level = store->far[index].level;
    levels_far_close(store, side, price);
    levels_window(store, side)[(uint64_t)price & store->mask] = level;
    levels_mark(store, side, price);
    side->near_count++;
}

/* First far level beyond the window in the direction it slides to: one descent. */
static uint32_t far_beyond(const level_store_t *store, const levels_t *side, bool upwards)
{
    if (side->far_count == 0)
        return LEVELS_NONE;
    int64_t edge = upwards ? window_end(store, side) : side->base;
    if (edge == (upwards ? INT64_MAX : INT64_MIN))
        return LEVELS_NONE;
    uint64_t key = far_key(edge);
    uint32_t near_leaf = far_descend(store, side, key);
    uint32_t bit = (uint32_t)top_bit(key ^ far_key(store->far[near_leaf].price)); /* edge itself is never far */
    uint32_t node = side->far_root;
    while ((node & LEVELS_FAR_LEAF) == 0 && store->forks[node].bit > bit)
        node = store->forks[node].child[key >> store->forks[node].bit & 1];
    /* All leaves below `node` are on one side of the edge: above it where the edge's bit is 0. */
    bool above = (key >> bit & 1) == 0;
    if (upwards)
        return above ? far_extreme(store, node, 0) : store->far[far_extreme(store, node, 1)].higher;
    return above ? store->far[far_extreme(store, node, 0)].lower : far_extreme(store, node, 1);
}

/* How far the window may go this time: past at most LEVELS_SLIDE_STEP far levels. */
static int64_t slide_limit(const level_store_t *store, const levels_t *side, bool upwards, uint32_t next)
{
    for (int passed = 0; next != LEVELS_NONE && passed < LEVELS_SLIDE_STEP; passed++)
        next = upwards ? store->far[next].higher : store->far[next].lower;
    if (next == LEVELS_NONE)
        return side->slide_target;
    int64_t price = store->far[next].price;
    if (upwards) {
        int64_t last = (int64_t)((uint64_t)price - store->mask - 1); /* base that just leaves the level outside */
        return last < side->slide_target ? last : side->slide_target;
    }
    return price >= side->slide_target ? price + 1 : side->slide_target;
}

static void slide_up(const level_store_t *store, levels_t *side)
{
    uint32_t next = far_beyond(store, side, true);
    int64_t base = slide_limit(store, side, true, next);
    int64_t lowest;
    for (int moved = 0; side->near_count > 0; moved++) {
        bool found = near_up(store, side, side->base, &lowest);
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
    while (next != LEVELS_NONE && store->far[next].price <= window_end(store, side)) {
        uint32_t after = store->far[next].higher;
        if (store->far[next].price >= base)
            move_in(store, side, next);
        next = after;
    }
}

static void slide_down(const level_store_t *store, levels_t *side)
{
    uint32_t next = far_beyond(store, side, false);
    int64_t base = slide_limit(store, side, false, next);
    int64_t highest;
    for (int moved = 0; side->near_count > 0; moved++) {
        bool found = near_down(store, side, window_end(store, side), &highest);
        INVARIANT(found);
        if (highest <= (int64_t)((uint64_t)base + store->mask))
            break;
        if (moved == LEVELS_SLIDE_STEP) {
            base = (int64_t)((uint64_t)highest - store->mask); /* lowest base that still covers it */
            break;
        }
        move_out(store, side, highest);
    }
    side->base = base;
    while (next != LEVELS_NONE && store->far[next].price >= base) {
        uint32_t after = store->far[next].lower;
        if (store->far[next].price <= window_end(store, side))
            move_in(store, side, next);
        next = after;
    }
}

void levels_slide(const level_store_t *store, levels_t *side)
{
    if (side->slide_target > side->base)
        slide_up(store, side);
    else
        slide_down(store, side);
    side->sliding = side->base != side->slide_target;
}

/* ---- iteration, best first ------------------------------------------------------------------------------------------ */

static void iterator_pick(const level_store_t *store, const levels_t *side, levels_iterator_t *iterator)
{
    bool far_left = iterator->far_index != LEVELS_NONE;
    iterator->level = NULL;
    if (iterator->near_left &&
        (!far_left || levels_better(side, iterator->near_price, store->far[iterator->far_index].price))) {
        iterator->price = iterator->near_price;
        iterator->level = levels_window(store, side) + ((uint64_t)iterator->price & store->mask);
    } else if (far_left) {
        iterator->price = store->far[iterator->far_index].price;
        iterator->level = &store->far[iterator->far_index].level;
    }
}

void levels_begin(const level_store_t *store, const levels_t *side, levels_iterator_t *iterator)
{
    iterator->far_index = side->far_count > 0 ? far_best(side) : LEVELS_NONE;
    iterator->near_price = 0;
    iterator->near_left = side->near_count > 0 && near_from(store, side, near_edge(store, side), &iterator->near_price);
    iterator_pick(store, side, iterator);
}

void levels_next(const level_store_t *store, const levels_t *side, levels_iterator_t *iterator)
{
    if (iterator->near_left && iterator->price == iterator->near_price) {
        int64_t last = side->is_bid ? side->base : window_end(store, side);
        iterator->near_left = iterator->price != last && near_from(store, side, iterator->price + (side->is_bid ? -1 : 1),
                                                                   &iterator->near_price);
    } else {
        const far_level_t *far = store->far + iterator->far_index;
        iterator->far_index = side->is_bid ? far->lower : far->higher;
    }
    iterator_pick(store, side, iterator);
}

/* ---- check ---------------------------------------------------------------------------------------------------------- */

static const char *check_window(const level_store_t *store, const levels_t *side)
{
    const level_t *window = levels_window(store, side);
    const uint64_t *bits0 = levels_bits0(store, side);
    const uint64_t *bits1 = levels_bits1(store, side);
    uint32_t count = 0;
    for (uint64_t tick = 0; tick <= store->mask; tick++) {
        bool set = (bits0[tick >> 6] >> (tick & 63) & 1) != 0;
        if (set != (window[tick].quantity != 0))
            return "a tick's bit and its level disagree";
        count += set;
    }
    if (count != side->near_count)
        return "near_count is wrong";
    for (uint64_t word = 0; word <= store->mask >> 6; word++)
        if ((bits1[word >> 6] >> (word & 63) & 1) != (bits0[word] != 0))
            return "middle bitmap is wrong";
    for (uint64_t block = 0; block <= store->mask >> 12; block++)
        if ((*levels_bits2(store, side) >> block & 1) != (bits1[block] != 0))
            return "top bitmap is wrong";
    return NULL;
}

static const char *check_far(const level_store_t *store, const levels_t *side)
{
    uint32_t count = 0;
    uint32_t before = LEVELS_NONE;
    for (uint32_t index = side->far_lowest; index != LEVELS_NONE; index = store->far[index].higher) {
        const far_level_t *far = store->far + index;
        if (++count > side->far_count)
            return "far list is longer than far_count";
        if (far->lower != before)
            return "far list is not linked both ways";
        if (before != LEVELS_NONE && store->far[before].price >= far->price)
            return "far list is not sorted";
        if (levels_is_near(store, side, far->price))
            return "a far level stands inside the window";
        if (levels_far_find(store, side, far->price) != &far->level)
            return "a far level is not found by its price";
        if (far->level.quantity == 0)
            return "a far level is empty";
        before = index;
    }
    if (count != side->far_count)
        return "far_count is wrong";
    return before == side->far_highest ? NULL : "far_highest is wrong";
}

const char *levels_check(const level_store_t *store, const levels_t *side)
{
    const char *broken = check_window(store, side);
    if (broken == NULL)
        broken = check_far(store, side);
    if (broken != NULL || levels_count(side) == 0)
        return broken;
    levels_iterator_t iterator;
    uint32_t count = 1;
    levels_begin(store, side, &iterator);
    if (iterator.level == NULL || iterator.price != side->best)
        return "best is wrong";
    for (int64_t before = iterator.price;; before = iterator.price, count++) {
        levels_next(store, side, &iterator);
        if (iterator.level == NULL)
            break;
        if (!levels_better(side, before, iterator.price))
            return "iteration is not in order";
    }
    return count == levels_count(side) ? NULL : "iteration misses a level";
}
