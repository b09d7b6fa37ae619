/* Trading: fills, fees, self-trade prevention, a taker's course through the book. */
#include "engine/matcher_reports.h"

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
