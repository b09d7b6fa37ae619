/* See book.h. */
#include "engine/book.h"

void book_open(const book_store_t *store, book_t *book, int64_t quote_per_tick_lot, int64_t base_per_lot, uint32_t base_asset,
               uint32_t quote_asset, void *windows)
{
    INVARIANT(book->state == 0);
    levels_init(&book->side[0], store->window_log2, windows);
    levels_init(&book->side[1], store->window_log2, (uint8_t *)windows + levels_window_size(store->window_log2));
    book->quote_per_tick_lot = quote_per_tick_lot;
    book->base_per_lot = base_per_lot;
    book->base_asset = base_asset;
    book->quote_asset = quote_asset;
    for (uint64_t side = 0; side < 2; side++)
        book->event_tail[side] = (uint64_t)(book - store->books + 1) | (SIDE_BUY + side) << 32;
    book->band_low = INT64_MIN;
    book->band_high = INT64_MAX;
    book->triggers.trailing_fire[0] = INT64_MAX;
    book->triggers.trailing_fire[1] = INT64_MIN;
    book->state = MARKET_STATE_CONTINUOUS;
}

extra_t *book_take_extra(book_store_t *store, uint32_t slot)
{
    extra_slab_t *slab = store->extra_slab;
    order_t *order = store->orders + slot;
    uint32_t index = slab->free;
    INVARIANT((order->flags & ORDER_EXTRA) == 0);
    if (index != 0) {
        slab->free = store->extras[index].owner;
    } else {
        INVARIANT(slab->used < slab->capacity); /* counted by the sequencer */
        index = ++slab->used;
    }
    order->extra = index;
    order->flags |= ORDER_EXTRA;
    store->extras[index] = (extra_t){.owner = slot, .stop_price = PX_OPT_NULL};
    return store->extras + index;
}

/* ---- check -------------------------------------------------------------------------------------------------------------- */

typedef struct census {
    uint32_t orders; /* in levels */
    uint32_t off_book;
    state_hash_t digest;
} census_t;

static const char *check_resting(const book_store_t *store, const book_t *book, int side, int64_t rank, uint32_t slot)
{
    const order_t *order = store->orders + slot;
    if (order->id == 0)
        return "a free slot stands in a level";
    if (order_slot(store, order->id) != slot)
        return "an order stands in another id's slot";
    if (store->books + order->book != book)
        return "an order stands in another instrument's book";
    if (order->rank != rank || order_side(order) != side)
        return "an order stands in a level not its own";
    if (order->leaves <= 0 || order->cum < 0)
        return "a resting order has no leaves or negative fills";
    if ((order->flags & ORDER_OFF_BOOK) != 0)
        return "an order off the book stands in a level";
    const extra_t *extra = extra_of(store, order);
    if (extra != NULL && (extra->flags & EXTRA_OFF_BOOK) != 0)
        return "a waiting order stands in a level";
    if (extra != NULL && extra->hidden < 0)
        return "hidden quantity below 0";
    return NULL;
}

static const char *check_fifo(const book_store_t *store, const book_t *book, int side, const levels_iterator_t *at,
                              census_t *census)
{
    uint32_t before = NOBODY;
    for (uint32_t slot = at->level->head; slot != NOBODY; slot = store->orders[slot].next) {
        const order_t *order = store->orders + slot;
        if (++census->orders > book->order_count)
            return "more orders in levels than order_count";
        const char *broken = check_resting(store, book, side, at->rank, slot);
        if (broken != NULL)
            return broken;
        if (order->prev != before)
            return "a FIFO is not linked both ways";
        state_hash_add(&census->digest, digest_term(digest_key(order->id, order->rank), order->leaves));
        before = slot;
    }
    return before == at->level->tail ? NULL : "a level's tail is wrong";
}

static const char *check_levels(const book_store_t *store, const book_t *book, census_t *census)
{
    for (int side = 0; side < 2; side++) {
        const char *broken = levels_check(&store->trees, &book->side[side]);
        if (broken != NULL)
            return broken;
        levels_iterator_t at;
        for (levels_begin(&store->trees, &book->side[side], &at); at.level != NULL;
             levels_next(&store->trees, &book->side[side], &at)) {
            broken = check_fifo(store, book, side, &at, census);
            if (broken != NULL)
                return broken;
        }
    }
    if (census->orders != book->order_count)
        return "order_count is wrong";
    if (census->digest.low != book->digest.low || census->digest.high != book->digest.high)
        return "the digest is not the sum over the orders";
    if (book->state == MARKET_STATE_CONTINUOUS && !levels_empty(&book->side[0]) && !levels_empty(&book->side[1]) &&
        rank_of_price(book->side[0].best, 0) >= book->side[1].best)
        return "the book is crossed";
    return NULL;
}

/* One FIFO of extras with the given flag; counts its members. */
static const char *check_extras(const book_store_t *store, const book_t *book, const level_t *level, uint32_t flag,
                                uint32_t *count)
{
    uint32_t before = 0;
    for (uint32_t index = level->head; index != 0; index = store->extras[index].next) {
        const extra_t *extra = store->extras + index;
        const order_t *order = store->orders + extra->owner;
        if (++*count > store->extra_slab->used)
            return "a list of waiting orders has no end";
        if (order->id == 0 || (order->flags & ORDER_EXTRA) == 0 || order->extra != index)
            return "a side entry and its order do not name each other";
        if (store->books + order->book != book)
            return "a waiting order stands in another instrument's list";
        if ((extra->flags & flag) == 0)
            return "a waiting order stands in a list of another kind";
        if (extra->prev != before)
            return "a list of waiting orders is not linked both ways";
        before = index;
    }
    return before == level->tail ? NULL : "the tail of a list of waiting orders is wrong";
}

static const char *check_tree(const book_store_t *store, const book_t *book, const tree_t *tree, uint32_t flag, uint32_t *count)
{
    const char *broken = tree_check(&store->trees, tree);
    for (uint32_t leaf = tree_lowest(tree); broken == NULL && leaf != TREE_NONE; leaf = store->trees.leaves[leaf].higher)
        broken = check_extras(store, book, &store->trees.leaves[leaf].level, flag, count);
    return broken;
}

static const char *check_triggers(const book_store_t *store, const book_t *book, census_t *census)
{
    const triggers_t *triggers = &book->triggers;
    uint32_t count = 0;
    uint32_t auction_only = 0;
    const char *broken = check_tree(store, book, &triggers->up, EXTRA_WAITING, &count);
    if (broken == NULL)
        broken = check_tree(store, book, &triggers->down, EXTRA_WAITING, &count);
    for (int side = 0; broken == NULL && side < 2; side++)
        broken = check_tree(store, book, &triggers->runs[side], EXTRA_TRAILING, &count);
    if (broken == NULL)
        broken = check_extras(store, book, &triggers->queue, EXTRA_QUEUED, &count);
    if (broken == NULL)
        broken = check_extras(store, book, &book->auction_only, EXTRA_AUCTION_ONLY, &auction_only);
    if (broken != NULL)
        return broken;
    census->off_book += count;
    return count == triggers->count ? NULL : "the count of waiting orders is wrong";
}

static const char *check_accounts(const book_store_t *store, uint32_t live)
{
    uint32_t listed = 0;
    for (uint32_t id = 0; id <= store->accounts_max; id++) {
        uint32_t before = NOBODY;
        for (uint32_t slot = store->accounts[id].head; slot != NOBODY; slot = store->links[slot].next) {
            if (++listed > live)
                return "an account's list has no end";
            if (store->orders[slot].id == 0 || store->orders[slot].account != id)
                return "an account's list holds what is not its own";
            if (store->links[slot].prev != before)
                return "an account's list is not linked both ways";
            before = slot;
        }
    }
    return listed == live ? NULL : "a live order is in no account's list";
}

static const char *check_unseen(const book_store_t *store, uint32_t index)
{
    const book_t *book = store->books + index;
    state_hash_t hidden = {0, 0};
    state_hash_t terms = {0, 0};
    for (uint32_t slot = 1; slot <= store->order_mask + 1; slot++) {
        const order_t *order = store->orders + slot;
        const extra_t *extra = extra_of(store, order);
        if (order->id == 0 || order->book != index || extra == NULL)
            continue;
        state_hash_add(&hidden, hidden_term(order, extra));
        state_hash_add(&terms, terms_term(order, extra));
    }
    bool agree = hidden.low == book->hidden.low && hidden.high == book->hidden.high && terms.low == book->terms.low &&
                 terms.high == book->terms.high;
    return agree ? NULL : "what is unseen is not the sum over the orders";
}

const char *book_check(const book_store_t *store)
{
    uint32_t live = 0;
    uint32_t taking = 0; /* off the book in no list: a replaced order while it trades */
    uint32_t listed = 0;
    for (uint32_t slot = 1; slot <= store->order_mask + 1; slot++) {
        const order_t *order = store->orders + slot;
        const extra_t *extra = extra_of(store, order);
        live += order->id != 0;
        taking += order->id != 0 && (order->flags & ORDER_OFF_BOOK) != 0 &&
                  (extra == NULL || (extra->flags & EXTRA_OFF_BOOK) == 0);
    }
    for (uint32_t i = 0; i < store->books_max; i++) {
        if (store->books[i].state == 0)
            continue;
        census_t census = {0, 0, {0, 0}};
        const char *broken = check_levels(store, store->books + i, &census);
        if (broken == NULL)
            broken = check_triggers(store, store->books + i, &census);
        if (broken == NULL)
            broken = tree_check(&store->trees, &store->books[i].expiries);
        if (broken == NULL)
            broken = check_unseen(store, i);
        if (broken != NULL)
            return broken;
        listed += census.orders + census.off_book;
    }
    if (live != *store->live)
        return "the count of live orders is wrong";
    if (live != listed + taking)
        return "a live order is in no book";
    return check_accounts(store, live);
}
