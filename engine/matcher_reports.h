/* The reports and market events about one order: which field says what. */
#ifndef BULLRING_ENGINE_MATCHER_REPORTS_H
#define BULLRING_ENGINE_MATCHER_REPORTS_H

#include "engine/matcher_state.h"

static inline uint8_t live_status(const order_t *order)
{
    return order->cum > 0 ? ORD_STATUS_PARTIALLY_FILLED : ORD_STATUS_NEW;
}

/* What only the answers to a new order say. */
typedef struct terms {
    uint64_t client_tag;
    uint8_t ord_type;
    uint8_t time_in_force;
} terms_t;

static inline terms_t taker_terms(const taker_t *taker)
{
    return (terms_t){taker->client_tag, taker->ord_type, taker->time_in_force};
}

static inline void report_accepted(matcher_t *matcher, const order_t *order, terms_t terms)
{
    const input_t *input = &matcher->state->input;
    uint64_t exec_id;
    order_accepted_t *block =
        report_numbered(matcher, TEMPLATE_ORDER_ACCEPTED, order->session, order->account, 0, &exec_id);
    block->cl_ord_id = order->cl_ord_id;
    block->order_id = order->id;
    block->exec_id = exec_id;
    block->transact_time = input->ts_ns;
    block->ingress_time = input->ingress_ns;
    block->ref_seq_num = input->seq_num;
    /* A market order's price is the sequencer's protection price, not the client's. */
    block->price = terms.ord_type == ORD_TYPE_MARKET ? PX_OPT_NULL : order->price;
    block->order_qty = order->leaves;
    block->client_tag = terms.client_tag;
    block->instrument_id = order->book + 1u;
    block->account_id = order->account;
    block->side = order_side_code(order);
    block->ord_type = terms.ord_type;
    block->time_in_force = terms.time_in_force;
    block->ord_status = ORD_STATUS_NEW;
}

static inline void report_rejected(matcher_t *matcher, const order_t *order, uint64_t client_tag, uint16_t code, int64_t limit)
{
    const input_t *input = &matcher->state->input;
    uint64_t exec_id;
    order_rejected_t *block = report_numbered(matcher, TEMPLATE_ORDER_REJECTED, order->session, order->account,
                                              REPORT_FLAG_FINAL, &exec_id);
    block->cl_ord_id = order->cl_ord_id;
    block->order_id = order->id;
    block->exec_id = exec_id;
    block->transact_time = input->ts_ns;
    block->ingress_time = input->ingress_ns;
    block->ref_seq_num = input->seq_num;
    block->client_tag = client_tag;
    block->limit = limit;
    block->instrument_id = order->book + 1u;
    block->account_id = order->account;
    block->reject_code = code;
    block->side = order_side_code(order);
}

typedef struct cancellation {
    uint32_t session; /* who is told */
    uint64_t cl_ord_id;
    uint64_t client_tag;
    uint64_t ref_seq_num;
    int64_t quantity;
    uint16_t reason;
    uint8_t status;
} cancellation_t;

static inline void report_canceled(matcher_t *matcher, const order_t *order, const cancellation_t *cancellation)
{
    uint64_t exec_id;
    order_canceled_t *block = report_numbered(matcher, TEMPLATE_ORDER_CANCELED, cancellation->session, order->account,
                                              REPORT_FLAG_FINAL, &exec_id);
    block->cl_ord_id = cancellation->cl_ord_id;
    block->orig_cl_ord_id = order->cl_ord_id;
    block->order_id = order->id;
    block->exec_id = exec_id;
    block->transact_time = matcher->state->input.ts_ns;
    block->ref_seq_num = cancellation->ref_seq_num;
    block->cum_qty = order->cum;
    block->canceled_qty = cancellation->quantity;
    block->client_tag = cancellation->client_tag;
    block->instrument_id = order->book + 1u;
    block->account_id = order->account;
    block->cancel_reason = cancellation->reason;
    block->side = order_side_code(order);
    block->ord_status = cancellation->status;
}

static inline void report_taker_canceled(matcher_t *matcher, const taker_t *taker, int64_t quantity, uint16_t reason,
                                  uint8_t status)
{
    cancellation_t cancellation = {.session = taker->order.session,
                                   .cl_ord_id = taker->order.cl_ord_id,
                                   .client_tag = taker->client_tag,
                                   .ref_seq_num = matcher->state->input.seq_num,
                                   .quantity = quantity,
                                   .reason = reason,
                                   .status = status};
    report_canceled(matcher, &taker->order, &cancellation);
}

static inline void report_prevented(matcher_t *matcher, const order_t *order, uint64_t counter_order_id, int64_t quantity,
                             uint8_t stp_mode, uint8_t liquidity)
{
    const book_t *book = matcher->store.books + order->book;
    uint64_t exec_id;
    order_prevented_t *block =
        report_numbered(matcher, TEMPLATE_ORDER_PREVENTED, order->session, order->account, 0, &exec_id);
    block->cl_ord_id = order->cl_ord_id;
    block->order_id = order->id;
    block->exec_id = exec_id;
    block->prevented_match_id = book->prevented_id;
    block->counter_order_id = counter_order_id;
    block->transact_time = matcher->state->input.ts_ns;
    block->prevented_qty = quantity;
    block->leaves_qty = order->leaves;
    block->cum_qty = order->cum;
    block->instrument_id = order->book + 1u;
    block->account_id = order->account;
    block->side = order_side_code(order);
    block->stp_mode = stp_mode;
    block->ord_status = live_status(order);
    block->liquidity = liquidity;
}

static inline void event_delete(matcher_t *matcher, book_t *book, const order_t *order)
{
    order_delete_t *event = EVENT(matcher, book, TEMPLATE_ORDER_DELETE, order_delete_t);
    event->transact_time = matcher->state->input.ts_ns;
    event->order_id = order->id;
    event->instrument_id = order->book + 1u;
    event->side = order_side_code(order);
}

static inline void event_reduce(matcher_t *matcher, book_t *book, const order_t *order)
{
    order_reduce_t *event = EVENT(matcher, book, TEMPLATE_ORDER_REDUCE, order_reduce_t);
    event->transact_time = matcher->state->input.ts_ns;
    event->order_id = order->id;
    event->new_qty = order->leaves;
    event->instrument_id = order->book + 1u;
    event->side = order_side_code(order);
}

static inline void event_add(matcher_t *matcher, book_t *book, const order_t *order)
{
    order_add_t *event = EVENT(matcher, book, TEMPLATE_ORDER_ADD, order_add_t);
    event->transact_time = matcher->state->input.ts_ns;
    event->order_id = order->id;
    event->price = order->price;
    event->qty = order->leaves;
    event->instrument_id = order->book + 1u;
    event->side = order_side_code(order);
}

static inline void event_replace(matcher_t *matcher, book_t *book, const order_t *order)
{
    order_replace_t *event = EVENT(matcher, book, TEMPLATE_ORDER_REPLACE, order_replace_t);
    event->transact_time = matcher->state->input.ts_ns;
    event->order_id = order->id;
    event->new_price = order->price;
    event->new_qty = order->leaves;
    event->instrument_id = order->book + 1u;
    event->side = order_side_code(order);
}

typedef struct fee {
    int64_t units; /* negative = rebate */
    uint32_t asset;
} fee_t;

typedef struct fill {
    uint64_t trade_id;
    int64_t price;
    int64_t quantity;
} fill_t;

static inline void report_executed(matcher_t *matcher, const order_t *order, const fill_t *fill, const fee_t *fee,
                            uint8_t liquidity, uint16_t flags)
{
    uint64_t exec_id;
    bool done = order->leaves == 0;
    order_executed_t *block =
        report_numbered(matcher, TEMPLATE_ORDER_EXECUTED, order->session, order->account,
                        (uint16_t)(flags | (done ? REPORT_FLAG_FINAL : 0)), &exec_id);
    block->cl_ord_id = order->cl_ord_id;
    block->order_id = order->id;
    block->exec_id = exec_id;
    block->trade_id = fill->trade_id;
    block->transact_time = matcher->state->input.ts_ns;
    block->last_px = fill->price;
    block->last_qty = fill->quantity;
    block->leaves_qty = order->leaves;
    block->cum_qty = order->cum;
    block->fee = fee->units;
    block->instrument_id = order->book + 1u;
    block->account_id = order->account;
    block->fee_asset_id = fee->asset;
    block->side = order_side_code(order);
    block->liquidity = liquidity;
    block->ord_status = done ? ORD_STATUS_FILLED : ORD_STATUS_PARTIALLY_FILLED;
}

static inline void event_execute(matcher_t *matcher, book_t *book, const order_t *maker, const fill_t *fill)
{
    order_execute_t *event = EVENT(matcher, book, TEMPLATE_ORDER_EXECUTE, order_execute_t);
    event->transact_time = matcher->state->input.ts_ns;
    event->order_id = maker->id;
    event->trade_id = fill->trade_id;
    event->last_px = fill->price;
    event->last_qty = fill->quantity;
    event->instrument_id = maker->book + 1u;
    event->side = order_side_code(maker);
}

typedef struct refusal {
    uint64_t cl_ord_id;
    uint64_t orig_cl_ord_id;
    uint64_t order_id;
    int64_t limit;
    uint32_t instrument;
    uint32_t account;
    uint16_t code;
    uint8_t response_to;
    uint8_t status;
} refusal_t;

static inline void report_refused(matcher_t *matcher, const refusal_t *refusal)
{
    const input_t *input = &matcher->state->input;
    uint64_t exec_id;
    cancel_replace_reject_t *block =
        report_numbered(matcher, TEMPLATE_CANCEL_REPLACE_REJECT, input->session, refusal->account, 0, &exec_id);
    block->cl_ord_id = refusal->cl_ord_id;
    block->orig_cl_ord_id = refusal->orig_cl_ord_id;
    block->order_id = refusal->order_id;
    block->exec_id = exec_id;
    block->transact_time = input->ts_ns;
    block->ref_seq_num = input->seq_num;
    block->limit = refusal->limit;
    block->instrument_id = refusal->instrument;
    block->account_id = refusal->account;
    block->reject_code = refusal->code;
    block->response_to = refusal->response_to;
    block->ord_status = refusal->status;
}

static inline void report_replaced(matcher_t *matcher, const order_t *order, uint64_t orig_cl_ord_id, bool priority_retained)
{
    const input_t *input = &matcher->state->input;
    uint64_t exec_id;
    order_replaced_t *block =
        report_numbered(matcher, TEMPLATE_ORDER_REPLACED, input->session, order->account, 0, &exec_id);
    block->cl_ord_id = order->cl_ord_id;
    block->orig_cl_ord_id = orig_cl_ord_id;
    block->order_id = order->id;
    block->exec_id = exec_id;
    block->transact_time = input->ts_ns;
    block->ref_seq_num = input->seq_num;
    block->price = order->price;
    block->order_qty = order->leaves + order->cum;
    block->leaves_qty = order->leaves;
    block->cum_qty = order->cum;
    block->instrument_id = order->book + 1u;
    block->account_id = order->account;
    block->restate_reason = RESTATE_REASON_CLIENT;
    block->side = order_side_code(order);
    block->ord_status = live_status(order);
    block->priority_retained = priority_retained;
}

#endif
