/* Orders: new, cancel, replace; trading, self-trade prevention, fees. The rules are in docs and in the tests. */
#include "engine/matcher_state.h"

/* ---- reports and events about one order ----------------------------------------------------------------------------- */

static uint8_t live_status(const order_t *order)
{
    return order->cum > 0 ? ORD_STATUS_PARTIALLY_FILLED : ORD_STATUS_NEW;
}

/* What only the answers to a new order say. */
typedef struct terms {
    uint64_t client_tag;
    uint8_t ord_type;
    uint8_t time_in_force;
} terms_t;

static terms_t taker_terms(const taker_t *taker)
{
    return (terms_t){taker->client_tag, taker->ord_type, taker->time_in_force};
}

static void report_accepted(matcher_t *matcher, const order_t *order, terms_t terms)
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

static void report_rejected(matcher_t *matcher, const order_t *order, uint64_t client_tag, uint16_t code, int64_t limit)
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

static void report_canceled(matcher_t *matcher, const order_t *order, const cancellation_t *cancellation)
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

static void report_taker_canceled(matcher_t *matcher, const taker_t *taker, int64_t quantity, uint16_t reason,
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

static void report_prevented(matcher_t *matcher, const order_t *order, uint64_t counter_order_id, int64_t quantity,
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

static void event_delete(matcher_t *matcher, book_t *book, const order_t *order)
{
    order_delete_t *event = EVENT(matcher, book, TEMPLATE_ORDER_DELETE, order_delete_t);
    event->transact_time = matcher->state->input.ts_ns;
    event->order_id = order->id;
    event->instrument_id = order->book + 1u;
    event->side = order_side_code(order);
}

static void event_reduce(matcher_t *matcher, book_t *book, const order_t *order)
{
    order_reduce_t *event = EVENT(matcher, book, TEMPLATE_ORDER_REDUCE, order_reduce_t);
    event->transact_time = matcher->state->input.ts_ns;
    event->order_id = order->id;
    event->new_qty = order->leaves;
    event->instrument_id = order->book + 1u;
    event->side = order_side_code(order);
}

static void event_add(matcher_t *matcher, book_t *book, const order_t *order)
{
    order_add_t *event = EVENT(matcher, book, TEMPLATE_ORDER_ADD, order_add_t);
    event->transact_time = matcher->state->input.ts_ns;
    event->order_id = order->id;
    event->price = order->price;
    event->qty = order->leaves;
    event->instrument_id = order->book + 1u;
    event->side = order_side_code(order);
}

static void event_replace(matcher_t *matcher, book_t *book, const order_t *order)
{
    order_replace_t *event = EVENT(matcher, book, TEMPLATE_ORDER_REPLACE, order_replace_t);
    event->transact_time = matcher->state->input.ts_ns;
    event->order_id = order->id;
    event->new_price = order->price;
    event->new_qty = order->leaves;
    event->instrument_id = order->book + 1u;
    event->side = order_side_code(order);
}

void matcher_cancel_resting(matcher_t *matcher, uint32_t index, uint16_t reason, uint8_t status, uint64_t ref_seq_num)
{
    book_store_t *store = &matcher->store;
    order_t *order = store->orders + index;
    book_t *book = store->books + order->book;
    cancellation_t cancellation = {.session = order->session,
                                   .cl_ord_id = order->cl_ord_id,
                                   .client_tag = store->cold[index].client_tag,
                                   .ref_seq_num = ref_seq_num,
                                   .quantity = order->leaves,
                                   .reason = reason,
                                   .status = status};
    report_canceled(matcher, order, &cancellation);
    event_delete(matcher, book, order);
    book_detach(store, book, index);
    book_release(store, index);
}

/* ---- fees ------------------------------------------------------------------------------------------------------------ */

typedef struct fee {
    int64_t units; /* negative = rebate */
    uint32_t asset;
} fee_t;

/* Exact floor and ceiling of received * ppm / 1e6 without a 128-bit division: ppm <= 1e6, received < 2^62. */
static int64_t fee_floor(int64_t received, int64_t ppm)
{
    return received / FEE_SCALE * ppm + received % FEE_SCALE * ppm / FEE_SCALE;
}

static int64_t fee_ceiling(int64_t received, int64_t ppm)
{
    return received / FEE_SCALE * ppm + (received % FEE_SCALE * ppm + (FAULT(FEE_FLOOR) ? 0 : FEE_SCALE - 1)) / FEE_SCALE;
}

/* Each pays in the asset received; a rebate comes out of the taker's fee, in the taker's asset, and never exceeds it. */
static void trade_fees(const book_t *book, const order_t *maker, const order_t *taker, int64_t price, int64_t quantity,
                       fee_t *maker_fee, fee_t *taker_fee)
{
    int64_t base = quantity * book->base_per_lot;
    int64_t quote = price * quantity * book->quote_per_tick_lot; /* < 2^62: the sequencer's bound on the maker's notional */
    bool taker_sells = order_side(taker) != 0;
    int64_t taker_gets = taker_sells ? quote : base;
    int64_t maker_gets = taker_sells ? base : quote;
    int32_t taker_ppm = book->fees[taker->tier].taker_ppm;
    int32_t maker_ppm = book->fees[maker->tier].maker_ppm;
    taker_fee->asset = taker_sells ? book->quote_asset : book->base_asset;
    maker_fee->asset = taker_sells ? book->base_asset : book->quote_asset;
    taker_fee->units = 0;
    maker_fee->units = 0;
    if (taker_ppm > 0 && taker_gets > 0)
        taker_fee->units = fee_ceiling(taker_gets, taker_ppm);
    if (maker_ppm > 0 && maker_gets > 0) {
        maker_fee->units = fee_ceiling(maker_gets, maker_ppm);
    } else if (maker_ppm < 0) {
        int64_t rebate = taker_gets > 0 ? fee_floor(taker_gets, -(int64_t)maker_ppm) : 0;
        maker_fee->units = -(rebate < taker_fee->units ? rebate : taker_fee->units);
        maker_fee->asset = taker_fee->asset;
    }
}

/* ---- trading --------------------------------------------------------------------------------------------------------- */

typedef struct fill {
    uint64_t trade_id;
    int64_t price;
    int64_t quantity;
} fill_t;

static void report_executed(matcher_t *matcher, const order_t *order, const fill_t *fill, const fee_t *fee,
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

static void event_execute(matcher_t *matcher, book_t *book, const order_t *maker, const fill_t *fill)
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

/* One trade with the front order of the best level. */
FLAT static void trade(matcher_t *matcher, book_t *book, level_t *level, taker_t *taker)
{
    book_store_t *store = &matcher->store;
    uint32_t index = level->head;
    order_t *maker = store->orders + index;
    int64_t quantity = maker->leaves < taker->order.leaves ? maker->leaves : taker->order.leaves;
    fill_t fill = {.trade_id = ++book->trade_id, .price = maker->price, .quantity = quantity};
    fee_t maker_fee;
    fee_t taker_fee;
    if (maker->next != ORDER_NONE)
        PREFETCH(store->orders + maker->next);
    trade_fees(book, maker, &taker->order, fill.price, quantity, &maker_fee, &taker_fee);
    event_execute(matcher, book, maker, &fill);
    taker->order.leaves -= quantity;
    taker->order.cum += quantity;
    bool maker_done = quantity == maker->leaves;
    if (maker_done) {
        book_detach_from(store, book, level, index);
        maker->leaves = 0;
    } else {
        book_reduce(store, book, level, index, quantity);
    }
    maker->cum += quantity;
    report_executed(matcher, maker, &fill, &maker_fee, LIQUIDITY_MAKER, REPORT_FLAG_MORE);
    int64_t group = matcher->last_group;
    report_executed(matcher, &taker->order, &fill, &taker_fee, LIQUIDITY_TAKER, 0);
    matcher->last_group = group;
    if (maker_done)
        book_release(store, index);
}

/* ---- self-trade prevention ------------------------------------------------------------------------------------------ */

static bool same_owner(const order_t *maker, const order_t *taker)
{
    return maker->stp_key == taker->stp_key &&
           (((maker->flags ^ taker->flags) & ORDER_STP_GROUP) == 0 || FAULT(STP_GROUP));
}

/* Both lose the smaller quantity; who has nothing left is canceled, the other told. */
static void prevent_decrement(matcher_t *matcher, book_t *book, level_t *level, taker_t *taker)
{
    const book_store_t *store = &matcher->store;
    uint32_t index = level->head;
    order_t *maker = store->orders + index;
    uint64_t maker_id = maker->id;
    int64_t quantity = maker->leaves < taker->order.leaves ? maker->leaves : taker->order.leaves;
    book->prevented_id++;
    taker->order.leaves -= quantity;
    if (quantity == maker->leaves) {
        matcher_cancel_resting(matcher, index, CANCEL_REASON_SELF_TRADE, ORD_STATUS_EXPIRED_IN_MATCH, 0);
    } else {
        book_reduce(store, book, level, index, quantity);
        report_prevented(matcher, maker, taker->order.id, quantity, taker->stp_mode, LIQUIDITY_MAKER);
        event_reduce(matcher, book, maker);
    }
    if (taker->order.leaves == 0)
        report_taker_canceled(matcher, taker, quantity, CANCEL_REASON_SELF_TRADE, ORD_STATUS_EXPIRED_IN_MATCH);
    else
        report_prevented(matcher, &taker->order, maker_id, quantity, taker->stp_mode, LIQUIDITY_TAKER);
}

/* The taker met an order of its own owner. */
static void prevent_self_trade(matcher_t *matcher, book_t *book, level_t *level, taker_t *taker)
{
    uint8_t mode = taker->stp_mode;
    if (mode == STP_MODE_DECREMENT || mode == STP_MODE_TRANSFER) {
        prevent_decrement(matcher, book, level, taker);
        return;
    }
    if (mode == STP_MODE_CANCEL_MAKER || mode == STP_MODE_CANCEL_BOTH)
        matcher_cancel_resting(matcher, level->head, CANCEL_REASON_SELF_TRADE, ORD_STATUS_EXPIRED_IN_MATCH, 0);
    if (mode == STP_MODE_CANCEL_TAKER || mode == STP_MODE_CANCEL_BOTH) {
        report_taker_canceled(matcher, taker, taker->order.leaves, CANCEL_REASON_SELF_TRADE, ORD_STATUS_EXPIRED_IN_MATCH);
        taker->order.leaves = 0;
    }
}

/* ---- the taker's course ---------------------------------------------------------------------------------------------- */

static bool crosses(const levels_t *opposite, bool sells, int64_t price)
{
    if (levels_count(opposite) == 0)
        return false;
    return sells ? opposite->best >= price : opposite->best <= price;
}

static void rest(matcher_t *matcher, book_t *book, const taker_t *taker)
{
    book_store_t *store = &matcher->store;
    uint32_t index = order_index(store, taker->order.id);
    order_t *order = store->orders + index;
    *order = taker->order;
    if (!taker->was_resting) {
        store->cold[index].client_tag = taker->client_tag;
        book_account_link(store, index, order->account);
    }
    book_append(store, book, index);
    if (taker->was_resting)
        event_replace(matcher, book, order);
    else
        event_add(matcher, book, order);
}

static void finish_taker(matcher_t *matcher, book_t *book, taker_t *taker)
{
    if (taker->order.leaves > 0 && taker->time_in_force != TIME_IN_FORCE_IOC && taker->time_in_force != TIME_IN_FORCE_FOK) {
        rest(matcher, book, taker);
        return;
    }
    if (taker->order.leaves > 0) {
        bool nothing = taker->ord_type == ORD_TYPE_MARKET && taker->order.cum == 0;
        report_taker_canceled(matcher, taker, taker->order.leaves,
                              nothing ? CANCEL_REASON_NO_LIQUIDITY : CANCEL_REASON_IOC_REMAINDER, ORD_STATUS_EXPIRED);
    }
    if (taker->was_resting) {
        event_delete(matcher, book, &taker->order);
        book_release(&matcher->store, order_index(&matcher->store, taker->order.id));
    }
}

bool matcher_match(matcher_t *matcher)
{
    work_t *work = &matcher->state->work;
    taker_t *taker = &work->taker;
    book_t *book = matcher->store.books + taker->order.book;
    bool sells = order_side(&taker->order) != 0;
    levels_t *opposite = &book->side[!sells];
    while (taker->order.leaves > 0 && crosses(opposite, sells, taker->order.price)) {
        if (matcher->outputs_left < MATCHER_STEP_OUTPUTS_MAX) {
            work->kind = WORK_MATCH;
            return false;
        }
        level_t *level = levels_find(&matcher->store.levels, opposite, opposite->best);
        const order_t *maker = matcher->store.orders + level->head;
        if (UNLIKELY(taker->stp_mode != STP_MODE_NONE && same_owner(maker, &taker->order)))
            prevent_self_trade(matcher, book, level, taker);
        else
            trade(matcher, book, level, taker);
    }
    finish_taker(matcher, book, taker);
    work->kind = WORK_NONE;
    return true;
}

/* Fill or kill: count what the taker could trade with, in priority order up to its limit. */
bool matcher_fok_scan(matcher_t *matcher)
{
    const book_store_t *store = &matcher->store;
    work_t *work = &matcher->state->work;
    const taker_t *taker = &work->taker;
    const levels_t *opposite = &store->books[taker->order.book].side[order_side(&taker->order) ^ 1];
    uint64_t wanted = (uint64_t)taker->order.leaves;
    bool sells = order_side(&taker->order) != 0;
    for (int visited = 0; work->scan.level != NULL && work->scan_quantity < wanted; visited++) {
        bool beyond = sells ? work->scan.price < taker->order.price : work->scan.price > taker->order.price;
        if (beyond && !FAULT(FOK_LIMIT))
            break;
        if (visited == MATCHER_SCAN_BUDGET)
            return false;
        if (taker->stp_mode == STP_MODE_NONE) {
            work->scan_quantity += work->scan.level->quantity;
            work->scan_order = ORDER_NONE;
        } else {
            const order_t *order = store->orders + work->scan_order;
            bool own = same_owner(order, &taker->order);
            if (own && taker->stp_mode != STP_MODE_CANCEL_MAKER)
                break;
            work->scan_quantity += own ? 0 : (uint64_t)order->leaves;
            work->scan_order = order->next;
        }
        if (work->scan_order == ORDER_NONE) {
            levels_next(&store->levels, opposite, &work->scan);
            work->scan_order = work->scan.level != NULL ? work->scan.level->head : ORDER_NONE;
        }
    }
    report_accepted(matcher, &taker->order, taker_terms(taker));
    if (work->scan_quantity < wanted) {
        report_taker_canceled(matcher, taker, taker->order.leaves, CANCEL_REASON_FOK_NOT_FILLABLE, ORD_STATUS_EXPIRED);
        work->kind = WORK_NONE;
        return true;
    }
    return matcher_match(matcher);
}

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

static void report_refused(matcher_t *matcher, const refusal_t *refusal)
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

static void report_replaced(matcher_t *matcher, const order_t *order, uint64_t orig_cl_ord_id, bool priority_retained)
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
