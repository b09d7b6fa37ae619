/* Private reports of a matcher: which field says what. Numbered for their session and account, written once, in place. */
#ifndef BULLRING_ENGINE_REPORTS_H
#define BULLRING_ENGINE_REPORTS_H

#include "engine/events.h"

/* The first 32 bytes are written as four words, in the layout of slots.h; the caller writes the whole block behind. */
INLINE void *report_begin(matcher_t *matcher, uint16_t template_id, uint32_t session, uint32_t account_seq, uint16_t flags,
                          uint32_t seq_num, uint32_t distance, enum last last)
{
    int64_t sequence = ring_claim_one(matcher->reports);
    INVARIANT(sequence >= 0); /* a step starts and goes on only with room */
    report_slot_t *slot = (report_slot_t *)matcher->reports->slots + ((uint64_t)sequence & matcher->reports->mask);
    uint64_t *words = (uint64_t *)(void *)slot;
    words[0] = matcher->report_head | (uint64_t)template_id << 32 | session;
    words[1] = (uint64_t)(flags | (last == IS_LAST ? REPORT_FLAG_LAST_OF_INPUT : 0)) << 32 | account_seq;
    words[2] = (uint64_t)distance << 32 | seq_num;
    words[3] = matcher->input.sequence;
    matcher->outputs_left--;
    if (last == MAYBE_LAST) {
        matcher->last_group = matcher->group_open ? matcher->last_group : sequence;
        matcher->group_open = (flags & REPORT_FLAG_MORE) != 0;
        matcher->last_report = slot;
    }
    return slot->block;
}

/* Bytes of a slot behind its block are zero: the same input gives the same bytes. */
#define REPORT_WRITE(block, type, ...)                                                                     \
    do {                                                                                                   \
        *(type *)(block) = (type)__VA_ARGS__;                                                              \
        if (sizeof(type) < REPORT_BLOCK_MAX)                                                               \
            __builtin_memset((uint8_t *)(block) + sizeof(type), 0, REPORT_BLOCK_MAX - sizeof(type));       \
    } while (0)

INLINE uint64_t report_exec_id(const matcher_t *matcher)
{
    return matcher->exec_high | (uint64_t)matcher->reports->claimed;
}

/* A private report, numbered for its session and its account. */
INLINE void *report_numbered_last(matcher_t *matcher, uint16_t template_id, uint32_t session_id, uint32_t account_id,
                                  uint16_t flags, enum last last)
{
    matcher_session_t *session = matcher->sessions + session_id;
    uint64_t sequence = (uint64_t)matcher->reports->claimed;
    uint64_t distance = session->last_report == 0 ? 0 : sequence + 1 - session->last_report;
    session->last_report = sequence + 1;
    return report_begin(matcher, template_id, session_id, (uint32_t)++matcher->store.accounts[account_id].sequence, flags,
                        (uint32_t)++session->sequence, distance > UINT32_MAX ? UINT32_MAX : (uint32_t)distance, last);
}

INLINE void *report_numbered(matcher_t *matcher, uint16_t template_id, uint32_t session_id, uint32_t account_id,
                             uint16_t flags)
{
    return report_numbered_last(matcher, template_id, session_id, account_id, flags, MAYBE_LAST);
}

static inline void *report_unnumbered(matcher_t *matcher, uint16_t template_id, uint32_t session_id)
{
    return report_begin(matcher, template_id, session_id, 0, 0, 0, 0, MAYBE_LAST);
}

INLINE uint8_t live_status(const order_t *order)
{
    return order->cum > 0 ? ORD_STATUS_PARTIALLY_FILLED : ORD_STATUS_NEW;
}

INLINE bool is_waiting(const book_store_t *store, const order_t *order)
{
    return UNLIKELY((order->flags & ORDER_EXTRA) != 0) && (store->extras[order->extra].flags & EXTRA_OFF_BOOK) != 0;
}

INLINE uint8_t order_status(const book_store_t *store, const order_t *order)
{
    return is_waiting(store, order) ? (uint8_t)ORD_STATUS_UNTRIGGERED : live_status(order);
}

/* Types whose price is the sequencer's protection price, not the client's. */
INLINE bool is_market_type(uint8_t ord_type)
{
    return ord_type == ORD_TYPE_MARKET || ord_type == ORD_TYPE_STOP || ord_type == ORD_TYPE_TAKE_PROFIT;
}

INLINE bool is_stop_type(uint8_t ord_type)
{
    return ord_type >= ORD_TYPE_STOP;
}

INLINE void report_accepted(matcher_t *matcher, const order_t *order, const order_rest_t *rest, int64_t quantity,
                            uint8_t status, uint16_t flags, enum last last)
{
    if (!MATCHER_REPORTS)
        return;
    const log_slot_t *record = matcher->input.record;
    uint64_t exec_id = report_exec_id(matcher);
    void *block = report_numbered_last(matcher, TEMPLATE_ORDER_ACCEPTED, rest->session, order->account, flags, last);
    REPORT_WRITE(block, order_accepted_t,
                 {.cl_ord_id = order->cl_ord_id,
                  .order_id = order->id,
                  .exec_id = exec_id,
                  .transact_time = record->ts_ns,
                  .ingress_time = record->ingress_ns,
                  .ref_seq_num = record->seq_num,
                  .price = is_market_type(rest->ord_type) ? PX_OPT_NULL : order_price(order),
                  .order_qty = quantity,
                  .client_tag = rest->client_tag,
                  .instrument_id = order->book + 1u,
                  .account_id = order->account,
                  .side = order_side_code(order),
                  .ord_type = rest->ord_type,
                  .time_in_force = rest->time_in_force,
                  .ord_status = status,
                  .exec_inst = rest->exec_inst});
}

static inline void report_rejected(matcher_t *matcher, const order_t *order, const order_rest_t *rest, uint64_t ref_seq_num,
                                   uint16_t code, int64_t limit)
{
    if (!MATCHER_REPORTS)
        return;
    const log_slot_t *record = matcher->input.record;
    uint64_t exec_id = report_exec_id(matcher);
    void *block = report_numbered(matcher, TEMPLATE_ORDER_REJECTED, rest->session, order->account, REPORT_FLAG_FINAL);
    REPORT_WRITE(block, order_rejected_t,
                 {.cl_ord_id = order->cl_ord_id,
                  .order_id = order->id,
                  .exec_id = exec_id,
                  .transact_time = record->ts_ns,
                  .ingress_time = record->ingress_ns,
                  .ref_seq_num = ref_seq_num,
                  .client_tag = rest->client_tag,
                  .limit = limit,
                  .instrument_id = order->book + 1u,
                  .account_id = order->account,
                  .reject_code = code,
                  .side = order_side_code(order)});
}

typedef struct cancellation {
    uint32_t session; /* who is told */
    uint16_t flags;   /* of the report, besides FINAL */
    uint16_t reason;
    uint64_t cl_ord_id;
    uint64_t client_tag;
    uint64_t ref_seq_num;
    int64_t quantity;
    uint8_t status;
} cancellation_t;

INLINE void report_canceled(matcher_t *matcher, const order_t *order, const cancellation_t *cancellation, enum last last)
{
    if (!MATCHER_REPORTS)
        return;
    uint64_t exec_id = report_exec_id(matcher);
    void *block = report_numbered_last(matcher, TEMPLATE_ORDER_CANCELED, cancellation->session, order->account,
                                  (uint16_t)(cancellation->flags | REPORT_FLAG_FINAL), last);
    REPORT_WRITE(block, order_canceled_t,
                 {.cl_ord_id = cancellation->cl_ord_id,
                  .orig_cl_ord_id = order->cl_ord_id,
                  .order_id = order->id,
                  .exec_id = exec_id,
                  .transact_time = matcher->input.record->ts_ns,
                  .ref_seq_num = cancellation->ref_seq_num,
                  .cum_qty = order->cum,
                  .canceled_qty = cancellation->quantity,
                  .client_tag = cancellation->client_tag,
                  .instrument_id = order->book + 1u,
                  .account_id = order->account,
                  .cancel_reason = cancellation->reason,
                  .side = order_side_code(order),
                  .ord_status = cancellation->status});
}

typedef struct prevention {
    uint64_t counter_order_id;
    int64_t quantity;
    int64_t leaves; /* of the whole order, afterwards */
    uint8_t stp_mode;
    uint8_t liquidity;
} prevention_t;

static inline void report_prevented(matcher_t *matcher, const order_t *order, const order_rest_t *rest,
                                    const prevention_t *prevention)
{
    if (!MATCHER_REPORTS)
        return;
    const book_t *book = book_of(&matcher->store, order);
    uint64_t exec_id = report_exec_id(matcher);
    bool ended = prevention->leaves == 0;
    void *block = report_numbered(matcher, TEMPLATE_ORDER_PREVENTED, rest->session, order->account,
                                  ended ? REPORT_FLAG_FINAL : 0);
    REPORT_WRITE(block, order_prevented_t,
                 {.cl_ord_id = order->cl_ord_id,
                  .order_id = order->id,
                  .exec_id = exec_id,
                  .prevented_match_id = book->prevented_id,
                  .counter_order_id = prevention->counter_order_id,
                  .transact_time = matcher->input.record->ts_ns,
                  .prevented_qty = prevention->quantity,
                  .leaves_qty = prevention->leaves,
                  .cum_qty = order->cum,
                  .instrument_id = order->book + 1u,
                  .account_id = order->account,
                  .side = order_side_code(order),
                  .stp_mode = prevention->stp_mode,
                  .ord_status = ended ? ORD_STATUS_EXPIRED_IN_MATCH : live_status(order),
                  .liquidity = prevention->liquidity});
}

typedef struct fee {
    int64_t units; /* negative = rebate */
    uint32_t asset;
    uint8_t rounding; /* units that only rounding made */
} fee_t;

typedef struct fill {
    uint64_t trade_id;
    int64_t price;
    int64_t quantity;
} fill_t;

/* `leaves` = what is open of the whole order after the fill; 0 ends it. */
INLINE void report_executed(matcher_t *matcher, const order_t *order, const order_rest_t *rest, int64_t leaves,
                            const fill_t *fill, const fee_t *fee, uint8_t liquidity, uint16_t flags)
{
    if (!MATCHER_REPORTS)
        return;
    uint64_t exec_id = report_exec_id(matcher);
    bool done = leaves == 0;
    void *block = report_numbered(matcher, TEMPLATE_ORDER_EXECUTED, rest->session, order->account,
                                  (uint16_t)(flags | (done ? REPORT_FLAG_FINAL : 0)));
    REPORT_WRITE(block, order_executed_t,
                 {.cl_ord_id = order->cl_ord_id,
                  .order_id = order->id,
                  .exec_id = exec_id,
                  .trade_id = fill->trade_id,
                  .transact_time = matcher->input.record->ts_ns,
                  .last_px = fill->price,
                  .last_qty = fill->quantity,
                  .leaves_qty = leaves,
                  .cum_qty = order->cum,
                  .fee = fee->units,
                  .instrument_id = order->book + 1u,
                  .account_id = order->account,
                  .fee_asset_id = fee->asset,
                  .side = order_side_code(order),
                  .liquidity = liquidity,
                  .ord_status = done ? ORD_STATUS_FILLED : ORD_STATUS_PARTIALLY_FILLED,
                  .fee_rounding = fee->rounding});
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
    if (!MATCHER_REPORTS)
        return;
    const log_slot_t *record = matcher->input.record;
    uint64_t exec_id = report_exec_id(matcher);
    void *block = report_numbered(matcher, TEMPLATE_CANCEL_REPLACE_REJECT, record->session, refusal->account, 0);
    REPORT_WRITE(block, cancel_replace_reject_t,
                 {.cl_ord_id = refusal->cl_ord_id,
                  .orig_cl_ord_id = refusal->orig_cl_ord_id,
                  .order_id = refusal->order_id,
                  .exec_id = exec_id,
                  .transact_time = record->ts_ns,
                  .ref_seq_num = record->seq_num,
                  .limit = refusal->limit,
                  .instrument_id = refusal->instrument,
                  .account_id = refusal->account,
                  .reject_code = refusal->code,
                  .response_to = refusal->response_to,
                  .ord_status = refusal->status});
}

typedef struct restatement {
    uint64_t orig_cl_ord_id;
    int64_t leaves; /* of the whole order */
    uint8_t reason;
    bool priority_retained;
} restatement_t;

INLINE void report_replaced(matcher_t *matcher, const order_t *order, const order_rest_t *rest,
                            const restatement_t *restatement, enum last last)
{
    if (!MATCHER_REPORTS)
        return;
    const log_slot_t *record = matcher->input.record;
    bool quote = restatement->reason == RESTATE_REASON_QUOTE;
    uint64_t exec_id = report_exec_id(matcher);
    /* A quote's reports are settled together. */
    void *block = report_numbered_last(matcher, TEMPLATE_ORDER_REPLACED, quote ? rest->session : record->session,
                                       order->account, quote ? REPORT_FLAG_MORE : 0, last);
    REPORT_WRITE(block, order_replaced_t,
                 {.cl_ord_id = order->cl_ord_id,
                  .orig_cl_ord_id = restatement->orig_cl_ord_id,
                  .order_id = order->id,
                  .exec_id = exec_id,
                  .transact_time = record->ts_ns,
                  .ref_seq_num = quote ? 0 : record->seq_num,
                  .price = is_market_type(rest->ord_type) ? PX_OPT_NULL : order_price(order),
                  .order_qty = restatement->leaves + order->cum,
                  .leaves_qty = restatement->leaves,
                  .cum_qty = order->cum,
                  .instrument_id = order->book + 1u,
                  .account_id = order->account,
                  .restate_reason = restatement->reason,
                  .side = order_side_code(order),
                  .ord_status = order_status(&matcher->store, order),
                  .priority_retained = restatement->priority_retained});
}

static inline void report_triggered(matcher_t *matcher, const order_t *order, const order_rest_t *rest)
{
    if (!MATCHER_REPORTS)
        return;
    uint64_t exec_id = report_exec_id(matcher);
    void *block = report_numbered(matcher, TEMPLATE_ORDER_TRIGGERED, rest->session, order->account, 0);
    REPORT_WRITE(block, order_triggered_t,
                 {.cl_ord_id = order->cl_ord_id,
                  .order_id = order->id,
                  .exec_id = exec_id,
                  .transact_time = matcher->input.record->ts_ns,
                  .instrument_id = order->book + 1u,
                  .account_id = order->account});
}

#endif
