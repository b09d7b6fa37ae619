/* New orders and cancels in pieces, for commands that are more than one of them: groups, quotes. Private to engine/matcher*.c. */
#ifndef BULLRING_ENGINE_MATCHER_ORDERS_H
#define BULLRING_ENGINE_MATCHER_ORDERS_H

#include "engine/matcher_state.h"

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

/* The order an id names, or NULL when it has ended in the meantime. */
order_t *live_order(const matcher_t *matcher, uint64_t id);
/* Answered in any case; false = the order was not canceled. */
bool cancel_order(matcher_t *matcher, const log_slot_t *slot, uint16_t report_flags);
/* Less of an order, at its place: hidden quantity goes first. */
void reduce_in_place(matcher_t *matcher, order_t *order, int64_t open);

#endif
