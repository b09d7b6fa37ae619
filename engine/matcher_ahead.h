/* Looking ahead in a batch: what the records to come will touch is fetched from memory while those before them are done. Only
 * matcher.c includes this.
 *
 * In three steps, since each needs what the one before has brought: the order a record names; its neighbours, the level it stands in
 * and the one it will join; the order there that it will stand behind. Blocks of records take the steps one block apart. No step
 * knows what the records in between will change: a stale guess fetches the wrong line and does no harm. And no step branches on the
 * kind of a record, which nobody could predict: a kind that has no such thing fetches some line or other. */
#ifndef BULLRING_ENGINE_MATCHER_AHEAD_H
#define BULLRING_ENGINE_MATCHER_AHEAD_H

#include "engine/matcher_state.h"

#define AHEAD_BLOCK 4
#define AHEAD_SIZE (4 * AHEAD_BLOCK)

/* What is worth fetching ahead: it costs more than it saves as long as the second cache holds it anyway. */
enum coldness {
    COLD_NOTHING,
    COLD_ORDERS, /* orders and their neighbours; levels are few */
    COLD_ALL,
};
/* With private reports the matcher shares that cache with the whole order path, whose rings alone outgrow it. */
#define COLD_ORDERS_LIVE (MATCHER_REPORTS ? 256 : 4096)
#define COLD_ALL_LIVE 32768

/* Records that are taken one after the other. */
typedef struct batch {
    const log_slot_t *slots;
    int64_t count;
    int64_t looked; /* records before this one have taken the last step; the next blocks the ones before */
    enum coldness cold;
    uint32_t node[AHEAD_SIZE];         /* by record, modulo: slot of the order it names or makes */
    const level_t *place[AHEAD_SIZE]; /* where it will stand */
} batch_t;

_Static_assert(offsetof(order_cancel_request_t, order_id) == offsetof(order_replace_request_t, order_id), "named_order()");

INLINE enum coldness coldness(uint32_t live)
{
    return live < COLD_ORDERS_LIVE ? COLD_NOTHING : live < COLD_ALL_LIVE ? COLD_ORDERS : COLD_ALL;
}

/* `yes` if `which`, else `no`, without a branch. */
INLINE uint64_t choose(bool which, uint64_t yes, uint64_t no)
{
    uint64_t mask = (uint64_t)0 - which;
    return (yes & mask) | (no & ~mask);
}

INLINE uint64_t named_order(const log_slot_t *slot)
{
    const order_cancel_request_t *block = (const order_cancel_request_t *)slot->block;
    return choose(slot->template_id == TEMPLATE_NEW_ORDER_SINGLE, slot->aux, block->order_id);
}

INLINE void ahead_orders(const matcher_t *matcher, batch_t *batch, int64_t from)
{
    const book_store_t *store = &matcher->store;
    for (int64_t at = from; at < from + AHEAD_BLOCK && at < batch->count; at++) {
        uint32_t node = order_slot(store, named_order(batch->slots + at));
        batch->node[(uint64_t)at % AHEAD_SIZE] = node;
        PREFETCH(store->orders + node);
        PREFETCH(store->links + node);
        if (MATCHER_REPORTS)
            PREFETCH(store->rests + node);
    }
}

/* Neighbours in the FIFO of its level and in its account's list: they are linked past an order that leaves. */
INLINE void ahead_neighbours(const matcher_t *matcher, batch_t *batch, int64_t from)
{
    const book_store_t *store = &matcher->store;
    for (int64_t at = from; at < from + AHEAD_BLOCK && at < batch->count; at++) {
        uint32_t node = batch->node[(uint64_t)at % AHEAD_SIZE];
        const order_t *order = store->orders + node;
        account_link_t link = store->links[node];
        uint32_t stands = 0u - (order->id != 0);
        PREFETCH(store->orders + (order->prev & stands));
        PREFETCH(store->orders + (order->next & stands));
        PREFETCH(store->links + (link.prev & stands));
        PREFETCH(store->links + (link.next & stands));
    }
}

/* The level an order stands in, and the one it will stand in. */
INLINE void ahead_levels(const matcher_t *matcher, batch_t *batch, int64_t from)
{
    const book_store_t *store = &matcher->store;
    for (int64_t at = from; at < from + AHEAD_BLOCK && at < batch->count; at++) {
        const log_slot_t *slot = batch->slots + at;
        const new_order_single_t *new_order = (const new_order_single_t *)slot->block;
        const order_replace_request_t *replace = (const order_replace_request_t *)slot->block;
        const order_t *order = store->orders + batch->node[(uint64_t)at % AHEAD_SIZE];
        bool is_new = slot->template_id == TEMPLATE_NEW_ORDER_SINGLE;
        uint32_t book = (uint32_t)choose(is_new, new_order->instrument_id - 1, order->book);
        int side = (int)choose(is_new, new_order->side == SIDE_SELL, (uint64_t)order_side(order));
        int64_t price = (int64_t)choose(is_new, (uint64_t)new_order->price, (uint64_t)replace->price);
        const levels_t *levels = &store->books[book < store->books_max ? book : 0].side[side];
        batch->place[(uint64_t)at % AHEAD_SIZE] = levels_near(levels, rank_of_price(price, side));
        PREFETCH(batch->place[(uint64_t)at % AHEAD_SIZE]);
        PREFETCH(levels_near(levels, order->rank));
    }
}

/* The order it will stand behind. */
INLINE void ahead_tails(const matcher_t *matcher, batch_t *batch, int64_t from)
{
    for (int64_t at = from; at < from + AHEAD_BLOCK && at < batch->count; at++)
        PREFETCH(matcher->store.orders + batch->place[(uint64_t)at % AHEAD_SIZE]->tail);
}

/* Before the record at `at` is done: one more block takes each step, the first blocks all at once. */
INLINE void look_ahead(const matcher_t *matcher, batch_t *batch, int64_t at)
{
    if (LIKELY(at < batch->looked))
        return;
    int64_t from = batch->looked;
    batch->looked += AHEAD_BLOCK;
    if (from == 0) {
        for (int64_t first = 0; first < 3 * AHEAD_BLOCK; first += AHEAD_BLOCK)
            ahead_orders(matcher, batch, first);
        for (int64_t first = 0; first < 2 * AHEAD_BLOCK; first += AHEAD_BLOCK)
            ahead_neighbours(matcher, batch, first);
    }
    ahead_orders(matcher, batch, from + 3 * AHEAD_BLOCK);
    ahead_neighbours(matcher, batch, from + 2 * AHEAD_BLOCK);
    if (batch->cold != COLD_ALL)
        return;
    if (from == 0) {
        ahead_levels(matcher, batch, 0);
        ahead_levels(matcher, batch, AHEAD_BLOCK);
        ahead_tails(matcher, batch, 0);
    }
    ahead_levels(matcher, batch, from + 2 * AHEAD_BLOCK);
    ahead_tails(matcher, batch, from + AHEAD_BLOCK);
}

#endif
