/* Looking ahead in a batch: what the records to come will touch is fetched from memory while those before them are done. Only
 * matcher.c includes this.
 *
 * In three steps, since each needs what the one before has brought: the order a record names; the level it stands in or will stand
 * in, and its neighbours; the last order of the level it joins. Blocks of records take the steps one block apart. No step knows what
 * the records in between will change: a stale guess fetches the wrong line and does no harm. And no step branches on the kind of a
 * record, which nobody could predict: what a kind does not have is slot 0, nobody's. */
#ifndef BULLRING_ENGINE_MATCHER_AHEAD_H
#define BULLRING_ENGINE_MATCHER_AHEAD_H

#include "engine/matcher_state.h"

#define AHEAD_BLOCK 4
#define AHEAD_SIZE (4 * AHEAD_BLOCK)

/* With more live orders than that the nodes outgrow the second cache, and a batch's next ones are fetched ahead; below it that costs
 * more than it saves. */
#define COLD_SIZE (1u << 18)

/* Records that are taken one after the other. */
typedef struct batch {
    const log_slot_t *slots;
    int64_t count;
    int64_t looked; /* records before this one have taken the last step; the next blocks the ones before */
    bool cold;
    uint32_t node[AHEAD_SIZE];         /* by record, modulo: slot of the order it names or makes */
    const level_t *place[AHEAD_SIZE]; /* where it will stand */
} batch_t;

_Static_assert(offsetof(order_cancel_request_t, order_id) == offsetof(order_replace_request_t, order_id), "named_order()");

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
    }
}

/* The side of the book a record is about, and the rank that an order has there, or will have. */
INLINE const levels_t *ahead_side(const book_store_t *store, const log_slot_t *slot, const order_t *order, int64_t *rank)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    bool is_new = slot->template_id == TEMPLATE_NEW_ORDER_SINGLE;
    uint32_t book = (uint32_t)choose(is_new, block->instrument_id - 1, order->book);
    int side = (int)choose(is_new, block->side == SIDE_SELL, (uint64_t)order_side(order));
    *rank = (int64_t)choose(is_new, (uint64_t)rank_of_price(block->price, side), (uint64_t)order->rank);
    return &store->books[book < store->books_max ? book : 0].side[side];
}

INLINE void ahead_places(const matcher_t *matcher, batch_t *batch, int64_t from)
{
    const book_store_t *store = &matcher->store;
    for (int64_t at = from; at < from + AHEAD_BLOCK && at < batch->count; at++) {
        const log_slot_t *slot = batch->slots + at;
        const order_replace_request_t *replace = (const order_replace_request_t *)slot->block;
        uint32_t node = batch->node[(uint64_t)at % AHEAD_SIZE];
        const order_t *order = store->orders + node;
        account_link_t link = store->links[node];
        uint32_t known = 0u - (order->id == replace->order_id);
        int64_t rank;
        const levels_t *side = ahead_side(store, slot, order, &rank);
        PREFETCH(levels_near(side, rank));
        PREFETCH(store->orders + (order->prev & known));
        PREFETCH(store->orders + (order->next & known));
        PREFETCH(store->links + (link.prev & known));
        PREFETCH(store->links + (link.next & known));
        rank = (int64_t)choose(slot->template_id == TEMPLATE_ORDER_REPLACE_REQUEST,
                               (uint64_t)rank_of_price(replace->price, order_side(order)), (uint64_t)rank);
        batch->place[(uint64_t)at % AHEAD_SIZE] = levels_near(side, rank);
        PREFETCH(batch->place[(uint64_t)at % AHEAD_SIZE]);
    }
}

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
    if (batch->looked == 0) {
        for (int64_t from = 0; from < 3 * AHEAD_BLOCK; from += AHEAD_BLOCK)
            ahead_orders(matcher, batch, from);
        ahead_places(matcher, batch, 0);
        ahead_places(matcher, batch, AHEAD_BLOCK);
        ahead_tails(matcher, batch, 0);
    }
    ahead_orders(matcher, batch, batch->looked + 3 * AHEAD_BLOCK);
    ahead_places(matcher, batch, batch->looked + 2 * AHEAD_BLOCK);
    ahead_tails(matcher, batch, batch->looked + AHEAD_BLOCK);
    batch->looked += AHEAD_BLOCK;
}

#endif
