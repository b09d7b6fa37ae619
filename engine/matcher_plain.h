/* The plain way of an order. Most records are limit orders, good till canceled, that meet nobody, and cancels and replaces of such
 * orders, near the touch of a continuous market. They are done here in one go, without a look at anything such an order does not
 * have.
 *
 * Each function below first asks whether there is more to the record than that. If so it returns false with nothing
 * changed, and the general way of matcher_orders.c does what is to be done; both ways give the same reports, events and state. Only
 * matcher.c includes this: its loop and these functions become one. */
#ifndef BULLRING_ENGINE_MATCHER_PLAIN_H
#define BULLRING_ENGINE_MATCHER_PLAIN_H

#include "engine/matcher_orders.h"

/* A limit order, good till canceled, with nothing else to it. */
INLINE bool is_plain(const new_order_single_t *block)
{
    return (qualifiers_of(block) & TYPE_AND_TIF_MASK) == PLAIN_TYPE_AND_TIF && block->display_qty == QTY_OPT_NULL;
}

/* Whether an order of this rank may join a near level of a continuous market, and trades with nobody there. */
INLINE bool rests_near(const book_t *book, int side, int64_t rank)
{
    return book->state == MARKET_STATE_CONTINUOUS && !crosses(&book->side[side ^ 1], rank) &&
           levels_is_near(&book->side[side], rank);
}

INLINE bool plain_new(matcher_t *matcher, const log_slot_t *slot)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    book_store_t *store = &matcher->store;
    book_t *book = matcher_book(matcher, block->instrument_id);
    int side = side_of(block);
    stand_t is = {slot->aux, rank_of_price(block->price, side), block->order_qty};
    if (UNLIKELY(!is_plain(block) || !rests_near(book, side, is.rank)))
        return false;
    uint32_t index = order_slot(store, is.id);
    order_t *order = store->orders + index;
    order_rest_t *rest = store->rests + index;
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    INVARIANT(order->id == 0);
    order_from_record(order, slot, side);
    rest_from_record(rest, slot);
    report_accepted(matcher, order, rest, is.leaves, ORD_STATUS_NEW, 0, IS_LAST);
    book_account_link(store, block->account_id, index);
    book_append_near(store, book, &book->side[side], order, index, is);
    event_stands(matcher, book, EVENT_ORDER_ADD, side, is, IS_LAST);
    book_follow(store, book);
    return true;
}

/* The slot of an order that a request names; the order may have ended, or may be more than plain. */
INLINE bool is_plain_order(const order_t *order, uint64_t id)
{
    return order->id == id && id != 0 && (order->flags & ORDER_EXTRA) == 0;
}

INLINE bool plain_cancel(matcher_t *matcher, const log_slot_t *slot)
{
    const order_cancel_request_t *block = (const order_cancel_request_t *)slot->block;
    book_store_t *store = &matcher->store;
    uint32_t index = order_slot(store, block->order_id);
    order_t *order = store->orders + index;
    book_t *book = book_of(store, order);
    int side = order_side(order);
    stand_t was = {block->order_id, order->rank, order->leaves};
    if (UNLIKELY(!is_plain_order(order, was.id) || block->cancel_flags != 0 || !levels_is_near(&book->side[side], was.rank)))
        return false;
    report_cancel(matcher, slot, order, 0, IS_LAST);
    order->id = 0;
    book_account_unlink(store, order->account, index);
    book_detach_near(store, book, &book->side[side], order, was);
    event_gone(matcher, book, was.id, side, IS_LAST);
    book_follow(store, book);
    return true;
}

/* An ordinary order goes to the back of another level, or of its own. */
INLINE bool plain_replace(matcher_t *matcher, const log_slot_t *slot)
{
    const order_replace_request_t *block = (const order_replace_request_t *)slot->block;
    const book_store_t *store = &matcher->store;
    uint32_t index = order_slot(store, block->order_id);
    order_t *order = store->orders + index;
    book_t *book = book_of(store, order);
    int side = order_side(order);
    stand_t was = {block->order_id, order->rank, order->leaves};
    stand_t is = {was.id, block->price == PX_OPT_NULL ? was.rank : rank_of_price(block->price, side),
                  block->order_qty == QTY_OPT_NULL ? was.leaves : block->order_qty - order->cum};
    bool moves = is.rank != was.rank || (is.leaves > was.leaves && !FAULT(KEEPS_PRIORITY));
    if (UNLIKELY(!is_plain_order(order, was.id) || block->display_qty != QTY_OPT_NULL || !moves || is.leaves <= 0 ||
                 !levels_is_near(&book->side[side], was.rank) || !rests_near(book, side, is.rank)))
        return false;
    restatement_t restatement = {.orig_cl_ord_id = order->cl_ord_id, .leaves = is.leaves, .reason = RESTATE_REASON_CLIENT};
    if (block->cl_ord_id != 0)
        order->cl_ord_id = block->cl_ord_id;
    book_move_near(store, book, &book->side[side], order, index, was, is);
    report_replaced(matcher, order, rest_of(store, order), &restatement, IS_LAST);
    event_stands(matcher, book, EVENT_ORDER_REPLACE, side, is, IS_LAST);
    book_follow(store, book);
    return true;
}

#endif
