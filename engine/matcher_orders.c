/* What clients ask for: new orders, cancels, replaces. */
#include "engine/matcher_reports.h"

/* 0 = trading. Auctions are not built yet, so their states are closed. */
static uint16_t state_reject(const book_t *book)
{
    switch (book->state) {
    case MARKET_STATE_CONTINUOUS:
        return 0;
    case MARKET_STATE_CANCEL_ONLY:
        return REJECT_CODE_CANCEL_ONLY;
    case MARKET_STATE_HALTED:
        return REJECT_CODE_MARKET_HALTED;
    default:
        return REJECT_CODE_MARKET_CLOSED;
    }
}

static void order_from_record(order_t *order, const log_slot_t *slot)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    bool group = block->stp_group_id != 0;
    order->id = slot->aux;
    order->price = block->price;
    order->leaves = block->order_qty;
    order->cum = 0;
    order->cl_ord_id = block->cl_ord_id;
    order->account = block->account_id;
    order->session = slot->session;
    order->stp_key = group ? block->stp_group_id : block->account_id;
    order->book = (uint16_t)(block->instrument_id - 1);
    order->tier = (uint8_t)(slot->flags >> SLOT_TIER_SHIFT);
    order->flags = (uint8_t)((block->side == SIDE_SELL ? ORDER_SELL : 0) | (group ? ORDER_STP_GROUP : 0) |
                             (block->exec_inst & EXEC_INST_POST_ONLY ? ORDER_POST_ONLY : 0) |
                             block->stp_mode << ORDER_STP_MODE_SHIFT);
}

/* The common case, built where it stays: a limit order that meets nobody. */
FLAT static void new_passive(matcher_t *matcher, book_t *book, const log_slot_t *slot, uint32_t index)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    book_store_t *store = &matcher->store;
    order_t *order = store->orders + index;
    order_from_record(order, slot);
    report_accepted(matcher, order, (terms_t){block->client_tag, block->ord_type, block->time_in_force});
    store->cold[index].client_tag = block->client_tag;
    book_account_link(store, index, order->account);
    book_append(store, book, index);
    event_add(matcher, book, order);
}

/* Everything else goes through the taker's course. */
static void new_taker(matcher_t *matcher, const log_slot_t *slot, const levels_t *opposite)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    work_t *work = &matcher->state->work;
    taker_t *taker = &work->taker;
    order_from_record(&taker->order, slot);
    taker->client_tag = block->client_tag;
    taker->stp_mode = block->stp_mode;
    taker->ord_type = block->ord_type;
    taker->time_in_force = block->time_in_force;
    /* A market order never rests, whatever it says. */
    if (block->ord_type == ORD_TYPE_MARKET && block->time_in_force != TIME_IN_FORCE_FOK)
        taker->time_in_force = TIME_IN_FORCE_IOC;
    taker->was_resting = false;
    if (taker->time_in_force == TIME_IN_FORCE_FOK) {
        work->kind = WORK_FOK_SCAN;
        work->scan_quantity = 0;
        levels_begin(&matcher->store.levels, opposite, &work->scan);
        work->scan_order = work->scan.level != NULL ? work->scan.level->head : ORDER_NONE;
        (void)matcher_fok_scan(matcher);
        return;
    }
    report_accepted(matcher, &taker->order, taker_terms(taker));
    (void)matcher_match(matcher);
}

void matcher_new_order(matcher_t *matcher, const log_slot_t *slot)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    book_t *book = matcher_book(matcher, block->instrument_id);
    uint32_t index = order_index(&matcher->store, slot->aux);
    bool sells = block->side == SIDE_SELL;
    const levels_t *opposite = &book->side[!sells];
    INVARIANT(slot->aux != 0);
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    INVARIANT(block->order_qty > 0);
    INVARIANT(block->stp_mode <= STP_MODE_TRANSFER);
    INVARIANT(matcher->store.orders[index].id == 0);
    matcher->state->input.book = block->instrument_id - 1;
    uint16_t code = state_reject(book);
    int64_t limit = 0;
    bool crossing = crosses(opposite, sells, block->price);
    if (code == 0 && crossing && (block->exec_inst & EXEC_INST_POST_ONLY) != 0) {
        code = REJECT_CODE_WOULD_TAKE_LIQUIDITY;
        limit = opposite->best;
    }
    if (UNLIKELY(code != 0)) {
        order_t order;
        order_from_record(&order, slot);
        report_rejected(matcher, &order, block->client_tag, code, limit);
    } else if (!crossing && block->ord_type == ORD_TYPE_LIMIT && block->time_in_force == TIME_IN_FORCE_GTC) {
        new_passive(matcher, book, slot, index);
    } else {
        new_taker(matcher, slot, opposite);
    }
}

/* ---- cancel and replace ---------------------------------------------------------------------------------------------- */

/* The order an id names, or NULL when it has ended in the meantime. */
static order_t *live_order(const matcher_t *matcher, uint64_t id)
{
    order_t *order = matcher->store.orders + order_index(&matcher->store, id);
    return id != 0 && order->id == id ? order : NULL;
}

static uint64_t given_or_zero(uint64_t cl_ord_id)
{
    return cl_ord_id == ORDER_ID_OPT_NULL ? 0 : cl_ord_id;
}

__attribute__((noinline, cold)) static void refuse_cancel(matcher_t *matcher, const order_cancel_request_t *block)
{
    refusal_t refusal = {.cl_ord_id = block->cl_ord_id,
                         .orig_cl_ord_id = given_or_zero(block->orig_cl_ord_id),
                         .order_id = block->order_id,
                         .instrument = block->instrument_id,
                         .account = block->account_id,
                         .code = REJECT_CODE_TOO_LATE_TO_CANCEL,
                         .response_to = RESPONSE_TO_CANCEL,
                         .status = ORD_STATUS_REJECTED};
    report_refused(matcher, &refusal);
}

FLAT void matcher_cancel(matcher_t *matcher, const log_slot_t *slot)
{
    const order_cancel_request_t *block = (const order_cancel_request_t *)slot->block;
    book_store_t *store = &matcher->store;
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    order_t *order = live_order(matcher, block->order_id);
    if (UNLIKELY(order == NULL)) {
        refuse_cancel(matcher, block);
        return;
    }
    uint32_t index = order_index(store, order->id);
    book_t *book = store->books + order->book;
    matcher->state->input.book = order->book;
    cancellation_t cancellation = {.session = slot->session,
                                   .cl_ord_id = block->cl_ord_id,
                                   .client_tag = block->client_tag,
                                   .ref_seq_num = slot->seq_num,
                                   .quantity = order->leaves,
                                   .reason = CANCEL_REASON_CLIENT,
                                   .status = ORD_STATUS_CANCELED};
    report_canceled(matcher, order, &cancellation);
    event_delete(matcher, book, order);
    book_detach(store, book, index);
    book_release(store, index);
}

/* Why a replace is refused; 0 = it is not. */
static uint16_t replace_reject(const book_t *book, const order_t *order, int64_t price, int64_t total, int64_t *limit)
{
    uint16_t code = state_reject(book);
    if (code != 0)
        return code;
    if (total <= order->cum) {
        *limit = order->cum;
        return REJECT_CODE_QTY_BELOW_FILLED;
    }
    if (price == order->price && total == order->leaves + order->cum)
        return REJECT_CODE_REPLACE_NO_CHANGE;
    const levels_t *opposite = &book->side[order_side(order) ^ 1];
    if ((order->flags & ORDER_POST_ONLY) != 0 && crosses(opposite, order_side(order) != 0, price)) {
        *limit = opposite->best;
        return REJECT_CODE_WOULD_TAKE_LIQUIDITY;
    }
    return 0;
}

/* A replaced order that crosses is a taker under the same id; its node waits, off the book. */
__attribute__((noinline)) static void replace_taking(matcher_t *matcher, uint32_t index)
{
    const book_store_t *store = &matcher->store;
    order_t *order = store->orders + index;
    taker_t *taker = &matcher->state->work.taker;
    taker->order = *order;
    order->flags |= ORDER_OFF_BOOK;
    taker->client_tag = store->cold[index].client_tag;
    taker->stp_mode = order->flags >> ORDER_STP_MODE_SHIFT;
    taker->ord_type = ORD_TYPE_LIMIT;
    taker->time_in_force = TIME_IN_FORCE_GTC;
    taker->was_resting = true;
    (void)matcher_match(matcher);
}

/* Out of its level, to the back of the new one; where it crosses, as a taker under the same id. */
FLAT static void replace_moved(matcher_t *matcher, book_t *book, uint32_t index, int64_t price, int64_t total, uint64_t orig)
{
    const book_store_t *store = &matcher->store;
    order_t *order = store->orders + index;
    book_detach(store, book, index);
    order->price = price;
    order->leaves = total - order->cum;
    report_replaced(matcher, order, orig, false);
    if (LIKELY(!crosses(&book->side[order_side(order) ^ 1], order_side(order) != 0, price))) {
        book_append(store, book, index);
        event_replace(matcher, book, order);
        return;
    }
    replace_taking(matcher, index);
}

__attribute__((noinline, cold)) static void refuse_replace(matcher_t *matcher, const order_replace_request_t *block,
                                                           const order_t *order, uint16_t code, int64_t limit)
{
    refusal_t refusal = {.cl_ord_id = block->cl_ord_id,
                         .orig_cl_ord_id = order != NULL ? order->cl_ord_id : given_or_zero(block->orig_cl_ord_id),
                         .order_id = block->order_id,
                         .limit = limit,
                         .instrument = block->instrument_id,
                         .account = block->account_id,
                         .code = code,
                         .response_to = RESPONSE_TO_REPLACE,
                         .status = order != NULL ? live_status(order) : ORD_STATUS_REJECTED};
    report_refused(matcher, &refusal);
}

void matcher_replace(matcher_t *matcher, const log_slot_t *slot)
{
    const order_replace_request_t *block = (const order_replace_request_t *)slot->block;
    const book_store_t *store = &matcher->store;
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    order_t *order = live_order(matcher, block->order_id);
    if (UNLIKELY(order == NULL)) {
        refuse_replace(matcher, block, NULL, REJECT_CODE_TOO_LATE_TO_CANCEL, 0);
        return;
    }
    book_t *book = store->books + order->book;
    uint32_t index = order_index(store, order->id);
    matcher->state->input.book = order->book;
    int64_t old_total = order->leaves + order->cum;
    int64_t price = block->price == PX_OPT_NULL ? order->price : block->price;
    int64_t total = block->order_qty == QTY_OPT_NULL ? old_total : block->order_qty;
    int64_t limit = 0;
    uint16_t code = replace_reject(book, order, price, total, &limit);
    if (UNLIKELY(code != 0)) {
        refuse_replace(matcher, block, order, code, limit);
        return;
    }
    uint64_t orig = order->cl_ord_id;
    if (block->cl_ord_id != 0)
        order->cl_ord_id = block->cl_ord_id;
    if (price == order->price && (total < old_total || FAULT(KEEPS_PRIORITY))) {
        level_t *level = levels_find(&store->levels, &book->side[order_side(order)], price);
        book_reduce(store, book, level, index, old_total - total);
        report_replaced(matcher, order, orig, true);
        event_reduce(matcher, book, order);
        return;
    }
    replace_moved(matcher, book, index, price, total, orig);
}
