/* New orders and cancels in pieces, for commands that are more than one of them: groups, quotes. Private to engine/matcher*.c. */
#ifndef BULLRING_ENGINE_MATCHER_ORDERS_H
#define BULLRING_ENGINE_MATCHER_ORDERS_H

#include "engine/events.h"
#include "engine/reports.h"

/* ---- from records ------------------------------------------------------------------------------------------------------------ */

/* side, ordType, timeInForce and stpMode stand side by side: what a new order mostly is, is one comparison. */
_Static_assert(offsetof(new_order_single_t, ord_type) == offsetof(new_order_single_t, side) + 1 &&
                   offsetof(new_order_single_t, time_in_force) == offsetof(new_order_single_t, side) + 2 &&
                   offsetof(new_order_single_t, stp_mode) == offsetof(new_order_single_t, side) + 3,
               "one word");
#define PLAIN_TYPE_AND_TIF (ORD_TYPE_LIMIT << 8 | TIME_IN_FORCE_GTC << 16)
#define TYPE_AND_TIF_MASK 0xffff00u

INLINE uint32_t qualifiers_of(const new_order_single_t *block)
{
    uint32_t word;
    memcpy(&word, &block->side, sizeof(word));
    return word;
}

INLINE int side_of(const new_order_single_t *block)
{
    return (int)block->side - SIDE_BUY;
}

INLINE void order_from_record(order_t *order, const log_slot_t *slot, int side)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    uint32_t post_only = (block->exec_inst & EXEC_INST_POST_ONLY) << 1; /* bit 0 becomes ORDER_POST_ONLY */
    order->id = slot->aux;
    order->rank = rank_of_price(block->price, side);
    order->leaves = block->order_qty;
    order->cum = 0;
    order->cl_ord_id = block->cl_ord_id;
    order->account = block->account_id;
    order->stp_key = block->stp_group_id != 0 ? block->stp_group_id | STP_GROUP_BIT : block->account_id;
    order->extra = 0;
    order->book = (uint16_t)(block->instrument_id - 1);
    order->tier = (uint8_t)(slot->flags >> SLOT_TIER_SHIFT);
    order->flags = (uint8_t)((uint32_t)side | post_only | (uint32_t)block->stp_mode << ORDER_STP_MODE_SHIFT);
}

_Static_assert(EXEC_INST_POST_ONLY << 1 == ORDER_POST_ONLY, "order_from_record()");

INLINE void rest_from_record(order_rest_t *rest, const log_slot_t *slot)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    rest->client_tag = block->client_tag;
    rest->session = slot->session;
    rest->exec_inst = block->exec_inst;
    rest->ord_type = block->ord_type;
    rest->time_in_force = block->time_in_force;
}

/* ---- in pieces --------------------------------------------------------------------------------------------------------------- */

/* A NewOrderSingle with what its details and its group add. */
typedef struct new_order {
    const log_slot_t *slot;
    const new_order_single_t *block;
    int64_t display;       /* 0 = no iceberg */
    int64_t first_display; /* 0 = display */
    int64_t minimum;       /* quantity that must trade at once, 0 = any; FOK: all */
    uint64_t peer;         /* order id of the other leg of its OCO pair, 0 = none */
    uint16_t accept_flags; /* of its OrderAccepted */
    bool by_amount;
} new_order_t;

new_order_t new_order_of(const log_slot_t *slot, const order_details_t *details);
/* Why the market refuses it, 0 if it does not; `limit` for the report. Changes nothing. */
uint16_t new_order_refused(const matcher_t *matcher, const new_order_t *new_order, int64_t *limit);
void new_order_reject(matcher_t *matcher, const new_order_t *new_order, uint16_t code, int64_t limit);
/* Take it; may leave work. */
void new_order_enter(matcher_t *matcher, const new_order_t *new_order);
/* EXTRA_UP or 0. */
uint32_t trigger_direction(uint8_t ord_type, int side);

INLINE void report_cancel(matcher_t *matcher, const log_slot_t *slot, const order_t *order, uint16_t flags, enum last last)
{
    const order_cancel_request_t *block = (const order_cancel_request_t *)slot->block;
    cancellation_t cancellation = {.session = slot->session,
                                   .flags = flags,
                                   .reason = CANCEL_REASON_CLIENT,
                                   .cl_ord_id = block->cl_ord_id,
                                   .client_tag = block->client_tag,
                                   .ref_seq_num = slot->seq_num,
                                   .quantity = order_open(&matcher->store, order),
                                   .status = ORD_STATUS_CANCELED};
    report_canceled(matcher, order, &cancellation, last);
}

/* The order an id names, or NULL when it has ended in the meantime. */
order_t *live_order(const matcher_t *matcher, uint64_t id);
/* Answered in any case; false = the order was not canceled. */
bool cancel_order(matcher_t *matcher, const log_slot_t *slot, uint16_t report_flags);
/* Less of an order, at its place: hidden quantity goes first. */
void reduce_in_place(matcher_t *matcher, order_t *order, int64_t open);

#endif
