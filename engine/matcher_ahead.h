/* Looking ahead in a batch: what the records to come will touch is fetched from memory while those before them are done. Only
 * matcher.c includes this.
 *
 * In three steps, since each needs what the one before has brought: the order a record names; its neighbours, the level it stands in
 * and the one it will join; the order there that it will stand behind. Before each record is done, one record further on takes each
 * step, a few records apart. No step knows what the records in between will change: a stale guess fetches the wrong line and does no
 * harm. And no step branches on the kind of a record, which nobody could predict: a kind that has no such thing fetches some line or
 * other. Behind the last record, the last one is looked at again. */
#ifndef BULLRING_ENGINE_MATCHER_AHEAD_H
#define BULLRING_ENGINE_MATCHER_AHEAD_H

#include "engine/matcher_state.h"

#define AHEAD_ORDERS 12    /* records ahead of the one done next */
#define AHEAD_NEIGHBOURS 8 /* and the levels */
#define AHEAD_TAILS 4
#define AHEAD_SIZE 16 /* records remembered */
_Static_assert(AHEAD_SIZE > AHEAD_ORDERS && (AHEAD_SIZE & (AHEAD_SIZE - 1)) == 0, "a place for each step's record");

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
    const log_slot_t *last;
    enum coldness cold;
    uint32_t node[AHEAD_SIZE];         /* by record, modulo: slot of the order it names or makes */
    const level_t *place[AHEAD_SIZE]; /* where it will stand */
} batch_t;

_Static_assert(offsetof(order_cancel_request_t, order_id) == offsetof(order_replace_request_t, order_id), "named_order()");

/* An order alone has nothing behind it to look at. */
INLINE enum coldness coldness(uint32_t live, int64_t count)
{
    if (count < 2)
        return COLD_NOTHING;
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

/* The record at `at`, or the last one. */
INLINE const log_slot_t *ahead_record(const batch_t *batch, int64_t at)
{
    const log_slot_t *slot = batch->slots + at;
    return slot < batch->last ? slot : batch->last;
}

INLINE void ahead_order(const matcher_t *matcher, batch_t *batch, int64_t at)
{
    const book_store_t *store = &matcher->store;
    uint32_t node = order_slot(store, named_order(ahead_record(batch, at)));
    batch->node[(uint64_t)at % AHEAD_SIZE] = node;
    PREFETCH(store->orders + node);
    PREFETCH(store->links + node);
    if (MATCHER_REPORTS)
        PREFETCH(store->rests + node);
}

/* Neighbours in the FIFO of its level and in its account's list: they are linked past an order that leaves. A free slot still names
 * those of its last order; to ask whether it is free costs more than to fetch them. */
INLINE void ahead_neighbours(const matcher_t *matcher, const batch_t *batch, int64_t at)
{
    const book_store_t *store = &matcher->store;
    uint32_t node = batch->node[(uint64_t)at % AHEAD_SIZE];
    const order_t *order = store->orders + node;
    account_link_t link = store->links[node];
    PREFETCH(store->orders + order->prev);
    PREFETCH(store->orders + order->next);
    PREFETCH(store->links + link.prev);
    PREFETCH(store->links + link.next);
}

/* The level an order stands in, and the one it will stand in. */
INLINE void ahead_levels(const matcher_t *matcher, batch_t *batch, int64_t at)
{
    const book_store_t *store = &matcher->store;
    const log_slot_t *slot = ahead_record(batch, at);
    const new_order_single_t *new_order = (const new_order_single_t *)slot->block;
    const order_replace_request_t *replace = (const order_replace_request_t *)slot->block;
    const order_t *order = store->orders + batch->node[(uint64_t)at % AHEAD_SIZE];
    bool is_new = slot->template_id == TEMPLATE_NEW_ORDER_SINGLE;
    uint32_t book = (uint32_t)choose(is_new, new_order->instrument_id - 1, order->book);
    int side = (int)choose(is_new, new_order->side == SIDE_SELL, (uint64_t)order_side(order));
    int64_t price = (int64_t)choose(is_new, (uint64_t)new_order->price, (uint64_t)replace->price);
    const levels_t *levels = &store->books[book < store->books_max ? book : 0].side[side];
    const level_t *place = levels_near(levels, rank_of_price(price, side));
    batch->place[(uint64_t)at % AHEAD_SIZE] = place;
    PREFETCH(place);
    PREFETCH(levels_near(levels, order->rank));
}

/* The order it will stand behind. */
INLINE void ahead_tails(const matcher_t *matcher, const batch_t *batch, int64_t at)
{
    PREFETCH(matcher->store.orders + batch->place[(uint64_t)at % AHEAD_SIZE]->tail);
}

INLINE int64_t at_most(int64_t count, int64_t most)
{
    return count < most ? count : most;
}

/* Before the first record. Every place is filled, for the frames of a group are taken without a look ahead. */
static inline void begin_looking(const matcher_t *matcher, batch_t *batch)
{
    const int64_t count = at_most(batch->last - batch->slots + 1, AHEAD_SIZE);
    for (int64_t at = 0; at < count; at++)
        ahead_order(matcher, batch, at);
    for (int64_t at = count; at < AHEAD_SIZE; at++)
        batch->node[at] = batch->node[count - 1];
    for (int64_t at = 0; at < at_most(count, AHEAD_NEIGHBOURS); at++)
        ahead_neighbours(matcher, batch, at);
    if (batch->cold != COLD_ALL)
        return;
    for (int64_t at = 0; at < at_most(count, AHEAD_NEIGHBOURS); at++)
        ahead_levels(matcher, batch, at);
    for (int64_t at = at_most(count, AHEAD_NEIGHBOURS); at < AHEAD_SIZE; at++)
        batch->place[at] = batch->place[0];
    for (int64_t at = 0; at < at_most(count, AHEAD_TAILS); at++)
        ahead_tails(matcher, batch, at);
}

/* Before the record at `at` is done. */
INLINE void look_ahead(const matcher_t *matcher, batch_t *batch, int64_t at)
{
    ahead_order(matcher, batch, at + AHEAD_ORDERS);
    ahead_neighbours(matcher, batch, at + AHEAD_NEIGHBOURS);
    if (batch->cold != COLD_ALL)
        return;
    ahead_levels(matcher, batch, at + AHEAD_NEIGHBOURS);
    ahead_tails(matcher, batch, at + AHEAD_TAILS);
}

#endif
