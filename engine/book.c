/* See book.h. */
#include "engine/book.h"

void book_open(book_store_t *store, book_t *book, const instrument_add_t *terms, uint64_t window_offset)
{
    INVARIANT(book->state == 0);
    levels_init(&book->side[0], true, window_offset);
    levels_init(&book->side[1], false, window_offset + levels_window_size(&store->levels));
    book->quote_per_tick_lot = terms->quote_per_tick_lot;
    book->base_per_lot = terms->base_per_lot;
    book->base_asset = terms->base_asset_id;
    book->quote_asset = terms->quote_asset_id;
    book->state = MARKET_STATE_CONTINUOUS;
}

/* One level's FIFO: links, terms, sum. Adds what it sees to count and hash. */
static const char *check_fifo(const book_store_t *store, const book_t *book, int side, const levels_iterator_t *at,
                              uint32_t *count, state_hash_t *hash)
{
    uint64_t quantity = 0;
    uint32_t before = ORDER_NONE;
    for (uint32_t index = at->level->head; index != ORDER_NONE; index = store->orders[index].next) {
        const order_t *order = store->orders + index;
        if (++*count > book->order_count)
            return "more orders in levels than order_count";
        if (order->id == 0)
            return "a free slot stands in a level";
        if (order_index(store, order->id) != index)
            return "an order stands in another id's slot";
        if (store->books + order->book != book)
            return "an order stands in another instrument's book";
        if (order->price != at->price || order_side(order) != side)
            return "an order stands in a level not its own";
        if (order->leaves <= 0 || order->cum < 0)
            return "a resting order has no leaves or negative fills";
        if (order->prev != before)
            return "a FIFO is not linked both ways";
        if (order->flags & ORDER_OFF_BOOK)
            return "an order off the book stands in a level";
        quantity += (uint64_t)order->leaves;
        state_hash_add(hash, order_mix(order));
        before = index;
    }
    if (before != at->level->tail)
        return "a level's tail is wrong";
    return quantity == at->level->quantity ? NULL : "a level's quantity is not the sum of its orders";
}

static const char *check_book(const book_store_t *store, const book_t *book)
{
    state_hash_t hash = {0, 0};
    uint32_t count = 0;
    for (int side = 0; side < 2; side++) {
        const char *broken = levels_check(&store->levels, &book->side[side]);
        if (broken != NULL)
            return broken;
        levels_iterator_t at;
        for (levels_begin(&store->levels, &book->side[side], &at); at.level != NULL;
             levels_next(&store->levels, &book->side[side], &at)) {
            broken = check_fifo(store, book, side, &at, &count, &hash);
            if (broken != NULL)
                return broken;
        }
    }
    if (count != book->order_count)
        return "order_count is wrong";
    if (hash.low != book->hash.low || hash.high != book->hash.high)
        return "the state hash is not the sum over the orders";
    if (levels_count(&book->side[0]) > 0 && levels_count(&book->side[1]) > 0 &&
        book->side[0].best >= book->side[1].best)
        return "the book is crossed";
    return NULL;
}

static const char *check_accounts(const book_store_t *store, uint32_t live)
{
    uint32_t listed = 0;
    for (uint32_t id = 0; id <= store->accounts_max; id++) {
        const account_t *account = store->accounts + id;
        uint32_t before = ORDER_NONE;
        uint32_t count = 0;
        for (uint32_t index = account->open > 0 ? account->head : ORDER_NONE; index != ORDER_NONE;
             index = store->cold[index].account_next) {
            if (++count > account->open)
                return "an account's list is longer than its count";
            if (store->orders[index].id == 0 || store->orders[index].account != id)
                return "an account's list holds what is not its own";
            if (store->cold[index].account_prev != before)
                return "an account's list is not linked both ways";
            before = index;
        }
        if (count != account->open)
            return "an account's count is wrong";
        listed += count;
    }
    return listed == live ? NULL : "a live order is in no account's list";
}

const char *book_check(const book_store_t *store)
{
    uint32_t live = 0;
    uint32_t off_book = 0;
    uint32_t in_books = 0;
    for (uint32_t index = 0; index < store->orders_max; index++) {
        live += store->orders[index].id != 0;
        off_book += store->orders[index].id != 0 && (store->orders[index].flags & ORDER_OFF_BOOK) != 0;
    }
    for (uint32_t i = 0; i < store->books_max; i++) {
        if (store->books[i].state == 0)
            continue;
        const char *broken = check_book(store, store->books + i);
        if (broken != NULL)
            return broken;
        in_books += store->books[i].order_count;
    }
    if (live != store->live)
        return "the count of live orders is wrong";
    if (live != in_books + off_book)
        return "a live order is in no book";
    return check_accounts(store, live);
}
