/* Trading: fills, fees, self-trade prevention, a taker's course through the book (docs/MATCHING.md, sections 5 to 7). */
#include "engine/events.h"
#include "engine/reports.h"

/* ---- fees ------------------------------------------------------------------------------------------------------------ */

/* Exact floor of received * ppm / 1e6, and what is left of the division, without a 128-bit division: ppm <= 1e6,
 * received < 2^62. */
static int64_t fee_floor(int64_t received, int64_t ppm, int64_t *remainder)
{
    int64_t low = received % FEE_SCALE * ppm;
    *remainder = low % FEE_SCALE;
    return received / FEE_SCALE * ppm + low / FEE_SCALE;
}

static fee_t fee_charged(int64_t received, int64_t ppm, uint32_t asset)
{
    int64_t remainder;
    if (ppm <= 0 || received <= 0)
        return (fee_t){.asset = asset};
    int64_t units = fee_floor(received, ppm, &remainder);
    uint8_t rounding = remainder != 0 && !FAULT(FEE_FLOOR);
    return (fee_t){.units = units + rounding, .asset = asset, .rounding = rounding};
}

/* Each pays in the asset received; a rebate comes out of the taker's fee, in the taker's asset, and never exceeds it. */
static void trade_fees(const book_t *book, const order_t *maker, const order_t *taker, const fill_t *fill, fee_t *maker_fee,
                       fee_t *taker_fee)
{
    int64_t base = fill->quantity * book->base_per_lot;
    /* < 2^62: the sequencer's bound on the maker's notional */
    int64_t quote = fill->price * fill->quantity * book->quote_per_tick_lot;
    bool taker_sells = order_side(taker) != 0;
    int64_t taker_gets = taker_sells ? quote : base;
    uint32_t taker_asset = taker_sells ? book->quote_asset : book->base_asset;
    int32_t maker_ppm = book->fees[maker->tier].maker_ppm;
    *taker_fee = fee_charged(taker_gets, book->fees[taker->tier].taker_ppm, taker_asset);
    if (maker_ppm >= 0) {
        *maker_fee = fee_charged(taker_sells ? base : quote, maker_ppm, taker_sells ? book->base_asset : book->quote_asset);
        return;
    }
    int64_t remainder;
    int64_t rebate = taker_gets > 0 ? fee_floor(taker_gets, -(int64_t)maker_ppm, &remainder) : 0;
    int64_t most = taker_fee->units - taker_fee->rounding;
    *maker_fee = (fee_t){.units = -(rebate < most ? rebate : most), .asset = taker_asset};
}

/* ---- what a resting order loses ---------------------------------------------------------------------------------------- */

typedef struct loss {
    int64_t open; /* what is left of the whole order */
    bool slice;   /* its visible part is used up and there is more */
} loss_t;

/* A resting order loses visible quantity. One that has nothing left is out of its level, but keeps its slot. */
INLINE loss_t take_from(const book_store_t *store, book_t *book, int side, level_t *level, order_t *order, int64_t quantity)
{
    int64_t hidden = UNLIKELY((order->flags & ORDER_EXTRA) != 0) ? store->extras[order->extra].hidden : 0;
    loss_t loss = {.open = order->leaves - quantity + hidden, .slice = false};
    if (quantity < order->leaves) {
        book_reduce(book, order, quantity);
    } else if (UNLIKELY(hidden > 0)) {
        loss.slice = true;
    } else {
        book_detach_from(store, book, side, level, order);
        order->leaves = 0;
    }
    return loss;
}

static void next_slice(matcher_t *matcher, book_t *book, level_t *level, order_t *order)
{
    const book_store_t *store = &matcher->store;
    extra_t *extra = store->extras + order->extra;
    int64_t slice = extra->display > 0 && extra->display < extra->hidden ? extra->display : extra->hidden;
    book_unseen_remove(book, order, extra);
    extra->hidden -= slice;
    book_requeue(store, book, level, order, slice);
    book_unseen_add(book, order, extra);
    event_add(matcher, book, order);
}

/* What has to be seen to after resting orders lost quantity, and before the next one does. */
static void settle_loss(matcher_t *matcher, book_t *book, level_t *level, order_t *order, loss_t loss)
{
    extra_t *extra = extra_of(&matcher->store, order);
    if (UNLIKELY(extra != NULL)) {
        matcher_end_peer(matcher, extra,
                         (ending_t){.reason = CANCEL_REASON_LIST_PEER_EXECUTED, .status = ORD_STATUS_EXPIRED});
        if (loss.slice)
            next_slice(matcher, book, level, order);
    }
    if (loss.open == 0)
        matcher_free_order(matcher, order);
}

static void end_takers_peer(matcher_t *matcher, const taker_t *taker)
{
    if (LIKELY(!taker->seated))
        return;
    extra_t *extra = extra_of(&matcher->store, matcher->store.orders + order_slot(&matcher->store, taker->order.id));
    if (extra != NULL)
        matcher_end_peer(matcher, extra,
                         (ending_t){.reason = CANCEL_REASON_LIST_PEER_EXECUTED, .status = ORD_STATUS_EXPIRED});
}

/* ---- trading --------------------------------------------------------------------------------------------------------- */

/* Lots that what is left of the amount allows at a price. */
RARE static int64_t amount_lots(const taker_t *taker, const book_t *book, int64_t price)
{
    if (price <= 0)
        return 0;
    int128_t unit = (int128_t)price * book->quote_per_tick_lot;
    return unit > taker->amount ? 0 : (int64_t)(taker->amount / unit);
}

/* The taker loses quantity at a price, be it traded, transferred or prevented. */
INLINE void taker_loses(taker_t *taker, const book_t *book, int64_t price, int64_t quantity)
{
    taker->order.leaves -= quantity;
    if (UNLIKELY(taker->by_amount)) {
        taker->amount -= price * quantity * book->quote_per_tick_lot;
        taker->order.leaves = amount_lots(taker, book, price);
    }
}

static void report_trade(matcher_t *matcher, const book_t *book, const order_t *maker, int64_t maker_open,
                         const taker_t *taker, const fill_t *fill)
{
    if (!MATCHER_REPORTS)
        return;
    fee_t maker_fee;
    fee_t taker_fee;
    trade_fees(book, maker, &taker->order, fill, &maker_fee, &taker_fee);
    report_executed(matcher, maker, rest_of(&matcher->store, maker), maker_open, fill, &maker_fee, LIQUIDITY_MAKER,
                    REPORT_FLAG_MORE);
    report_executed(matcher, &taker->order, &taker->rest, taker->order.leaves, fill, &taker_fee, LIQUIDITY_TAKER, 0);
}

/* One trade with the front order of the best level. */
FLAT static void trade(matcher_t *matcher, book_t *book, level_t *level, taker_t *taker)
{
    const book_store_t *store = &matcher->store;
    order_t *maker = store->orders + level->head;
    int maker_side = order_side(&taker->order) ^ 1;
    int64_t quantity = maker->leaves < taker->order.leaves ? maker->leaves : taker->order.leaves;
    fill_t fill = {.trade_id = ++book->trade_id, .price = rank_of_price(maker->rank, maker_side), .quantity = quantity};
    PREFETCH(store->orders + maker->next);
    event_execute(matcher, book, maker, fill.price, quantity, 0);
    taker_loses(taker, book, fill.price, quantity);
    taker->order.cum += quantity;
    maker->cum += quantity;
    loss_t loss = take_from(store, book, maker_side, level, maker, quantity);
    report_trade(matcher, book, maker, loss.open, taker, &fill);
    book->last_price = fill.price;
    book->has_last_price = true;
    if (UNLIKELY((maker->flags & ORDER_EXTRA) != 0 || taker->seated)) {
        /* Peers, the maker's first; then triggers; then the next slice: so in two steps. */
        extra_t *extra = extra_of(store, maker);
        if (extra != NULL)
            matcher_end_peer(matcher, extra,
                             (ending_t){.reason = CANCEL_REASON_LIST_PEER_EXECUTED, .status = ORD_STATUS_EXPIRED});
        end_takers_peer(matcher, taker);
    }
    if (UNLIKELY(book->triggers.count > 0))
        triggers_traded(matcher, book);
    if (UNLIKELY(loss.slice))
        next_slice(matcher, book, level, maker);
    if (loss.open == 0)
        matcher_free_order(matcher, maker);
}

/* ---- self-trade prevention ------------------------------------------------------------------------------------------ */

/* Events of a resting order that lost quantity without a trade; the next slice is announced where it is made. */
static void event_loss(matcher_t *matcher, book_t *book, const order_t *order, loss_t loss)
{
    if (loss.open == 0 || loss.slice)
        event_delete(matcher, book, order);
    else
        event_reduce(matcher, book, order);
}

/* Quantity changes hands inside a group, at the maker's price: two reports like a trade's, but no trade. */
static void transfer(matcher_t *matcher, book_t *book, level_t *level, taker_t *taker)
{
    const book_store_t *store = &matcher->store;
    order_t *maker = store->orders + level->head;
    int maker_side = order_side(maker);
    int64_t quantity = maker->leaves < taker->order.leaves ? maker->leaves : taker->order.leaves;
    fill_t fill = {.price = order_price(maker), .quantity = quantity};
    fee_t maker_fee = {.asset = maker_side != 0 ? book->quote_asset : book->base_asset};
    fee_t taker_fee = {.asset = maker_side != 0 ? book->base_asset : book->quote_asset};
    taker_loses(taker, book, fill.price, quantity);
    taker->order.cum += quantity;
    maker->cum += quantity;
    loss_t loss = take_from(store, book, maker_side, level, maker, quantity);
    report_executed(matcher, maker, rest_of(store, maker), loss.open, &fill, &maker_fee, LIQUIDITY_TRANSFER,
                    REPORT_FLAG_MORE);
    report_executed(matcher, &taker->order, &taker->rest, taker->order.leaves, &fill, &taker_fee, LIQUIDITY_TRANSFER, 0);
    event_loss(matcher, book, maker, loss);
    end_takers_peer(matcher, taker);
    settle_loss(matcher, book, level, maker, loss);
}

/* All that is visible and hidden of a resting order is prevented. */
static loss_t take_all_from(const book_store_t *store, book_t *book, level_t *level, order_t *order)
{
    extra_t *extra = extra_of(store, order);
    if (extra != NULL && extra->hidden > 0) {
        book_unseen_remove(book, order, extra);
        extra->hidden = 0;
        book_unseen_add(book, order, extra);
    }
    return take_from(store, book, order_side(order), level, order, order->leaves);
}

/* Who loses how much under a mode; `visible` of the maker, `open` of the maker in all. */
static void prevented_quantities(uint8_t mode, int64_t visible, int64_t open, int64_t taker_open, int64_t lost[2])
{
    int64_t both = visible < taker_open ? visible : taker_open;
    bool decrement = mode == STP_MODE_DECREMENT || mode == STP_MODE_TRANSFER;
    lost[0] = decrement ? both : mode == STP_MODE_CANCEL_TAKER ? 0 : open;
    lost[1] = decrement ? both : mode == STP_MODE_CANCEL_MAKER ? 0 : taker_open;
}

/* The taker met an order of its own owner. */
RARE static void prevent_self_trade(matcher_t *matcher, book_t *book, level_t *level, taker_t *taker)
{
    const book_store_t *store = &matcher->store;
    order_t *maker = store->orders + level->head;
    uint8_t mode = order_stp_mode(&taker->order);
    uint64_t maker_id = maker->id;
    int64_t lost[2];
    if (mode == STP_MODE_TRANSFER && order_stp_mode(maker) == STP_MODE_TRANSFER && maker->account != taker->order.account) {
        transfer(matcher, book, level, taker);
        return;
    }
    prevented_quantities(mode, maker->leaves, order_open(store, maker), taker->order.leaves, lost);
    int64_t price = order_price(maker);
    book->prevented_id++;
    loss_t loss = {.open = order_open(store, maker)};
    if (lost[0] > 0) {
        loss = lost[0] == loss.open ? take_all_from(store, book, level, maker)
                                    : take_from(store, book, order_side(maker), level, maker, lost[0]);
        report_prevented(matcher, maker, rest_of(store, maker),
                         &(prevention_t){.counter_order_id = taker->order.id, .quantity = lost[0], .leaves = loss.open,
                                         .stp_mode = mode, .liquidity = LIQUIDITY_MAKER});
        event_loss(matcher, book, maker, loss);
    }
    if (lost[1] > 0) {
        if (lost[1] == taker->order.leaves && (mode == STP_MODE_CANCEL_TAKER || mode == STP_MODE_CANCEL_BOTH))
            taker->order.leaves = 0;
        else
            taker_loses(taker, book, price, lost[1]);
        report_prevented(matcher, &taker->order, &taker->rest,
                         &(prevention_t){.counter_order_id = maker_id, .quantity = lost[1],
                                         .leaves = taker->order.leaves, .stp_mode = mode,
                                         .liquidity = LIQUIDITY_TAKER});
        end_takers_peer(matcher, taker);
    }
    if (lost[0] > 0)
        settle_loss(matcher, book, level, maker, loss);
}

/* ---- the taker's course ---------------------------------------------------------------------------------------------- */

void matcher_rest(matcher_t *matcher, const taker_t *taker)
{
    book_store_t *store = &matcher->store;
    book_t *book = book_of(store, &taker->order);
    uint32_t slot = order_slot(store, taker->order.id);
    order_t *order = store->orders + slot;
    int side = order_side(&taker->order);
    if (!taker->seated) {
        *order = taker->order;
        store->rests[slot] = taker->rest;
        book_account_link(store, order->account, slot);
        book_append(store, book, side, order, slot);
        event_add(matcher, book, order);
        return;
    }
    extra_t *extra = extra_of(store, order);
    int64_t slice = taker->order.leaves;
    if (extra != NULL)
        book_unseen_remove(book, order, extra);
    order->rank = taker->order.rank;
    order->cum = taker->order.cum;
    order->flags &= (uint8_t)~ORDER_OFF_BOOK;
    if (extra != NULL) {
        int64_t first = extra->display > 0 ? extra->first_display : 0; /* it may have been replaced by an ordinary order */
        int64_t wanted = first > 0 ? first : extra->display;
        if (wanted > 0 && wanted < slice)
            slice = wanted;
        extra->first_display = 0;
        extra->hidden = taker->order.leaves - slice;
    }
    order->leaves = slice;
    if (extra != NULL)
        book_unseen_add(book, order, extra);
    book_append(store, book, side, order, slot);
    if (taker->shown)
        event_replace(matcher, book, order);
    else
        event_add(matcher, book, order);
}

static void report_remainder(matcher_t *matcher, const taker_t *taker, bool amount_spent)
{
    bool market = is_market_type(taker->rest.ord_type);
    ending_t ending = {.reason = CANCEL_REASON_IOC_REMAINDER, .status = ORD_STATUS_EXPIRED};
    if (taker->halted)
        ending.reason = CANCEL_REASON_INSTRUMENT_HALT;
    else if (market && taker->order.cum == 0)
        ending.reason = CANCEL_REASON_NO_LIQUIDITY;
    else if (amount_spent)
        ending = (ending_t){.reason = CANCEL_REASON_AMOUNT_SPENT, .status = ORD_STATUS_FILLED};
    cancellation_t cancellation = {.session = taker->rest.session,
                                   .reason = ending.reason,
                                   .cl_ord_id = taker->order.cl_ord_id,
                                   .client_tag = taker->rest.client_tag,
                                   .ref_seq_num = taker->solicited ? matcher->input.record->seq_num : 0,
                                   .quantity = taker->by_amount ? 0 : taker->order.leaves,
                                   .status = ending.status};
    report_canceled(matcher, &taker->order, &cancellation, MAYBE_LAST);
}

/* A taker that has its slot, and nothing more to do in the market. */
static void leave(matcher_t *matcher, book_t *book, const taker_t *taker)
{
    order_t *order = matcher->store.orders + order_slot(&matcher->store, taker->order.id);
    extra_t *extra = extra_of(&matcher->store, order);
    if (taker->shown)
        event_delete(matcher, book, order);
    if (extra != NULL)
        matcher_end_peer(matcher, extra,
                         (ending_t){.reason = CANCEL_REASON_LIST_CANCELED, .status = ORD_STATUS_CANCELED});
    matcher_free_order(matcher, order);
}

static void finish_course(matcher_t *matcher, book_t *book, taker_t *taker, bool amount_spent)
{
    bool immediate = taker->rest.time_in_force == TIME_IN_FORCE_IOC || taker->rest.time_in_force == TIME_IN_FORCE_FOK;
    if (taker->order.leaves > 0 && !immediate) {
        matcher_rest(matcher, taker);
        return;
    }
    if (taker->order.leaves > 0 || amount_spent)
        report_remainder(matcher, taker, amount_spent);
    if (taker->seated)
        leave(matcher, book, taker);
}

/* Ordinary orders that a taker with nothing special about it meets, front to back and level by level. What the general loop of
 * matcher_course() does a trade at a time, with the questions asked once and the sums kept in registers; it stops, between two
 * trades, before the first order, price or end of a step that has more to it, and the general loop takes that one. Same reports,
 * events and state, to the bit. */
typedef struct sweep {
    int64_t price;
    int64_t leaves; /* of the taker */
    uint128_t gone; /* out of the digest */
    uint32_t filled;
} sweep_t;

/* The order at the front of a level is used up. The level is told at the end of the sweep through it. */
INLINE void sweep_fill(book_store_t *store, order_t *maker, uint32_t slot, int64_t rank, sweep_t *sweep)
{
    sweep->gone += digest_term(digest_key(maker->id, rank), maker->leaves);
    sweep->filled++;
    maker->leaves = 0;
    maker->prev = NOBODY;
    maker->id = 0;
    book_account_unlink(store, maker->account, slot);
}

/* Through one near level; false = stopped before its end. */
INLINE bool sweep_level(matcher_t *matcher, book_t *book, level_t *level, taker_t *taker, sweep_t *sweep)
{
    book_store_t *store = &matcher->store;
    const bool prevents = order_stp_mode(&taker->order) != STP_MODE_NONE;
    const int64_t rank = ~rank_of_price(sweep->price, order_side(&taker->order));
    uint32_t slot = level->head;
    while (slot != NOBODY && sweep->leaves > 0) {
        order_t *maker = store->orders + slot;
        int64_t open = maker->leaves;
        uint32_t next = maker->next;
        int64_t quantity = open < sweep->leaves ? open : sweep->leaves;
        PREFETCH(store->orders + next);
        if (UNLIKELY((maker->flags & ORDER_EXTRA) != 0 || (prevents && same_owner(maker, &taker->order)) ||
                     step_is_over(matcher)))
            break;
        fill_t fill = {.trade_id = ++book->trade_id, .price = sweep->price, .quantity = quantity};
        event_execute(matcher, book, maker, fill.price, quantity, 0);
        sweep->leaves -= quantity;
        taker->order.leaves = sweep->leaves;
        taker->order.cum += quantity;
        maker->cum += quantity;
        report_trade(matcher, book, maker, open - quantity, taker, &fill);
        if (quantity < open) {
            book_reduce(book, maker, quantity);
            break;
        }
        sweep_fill(store, maker, slot, rank, sweep);
        slot = next;
    }
    level->head = slot;
    if (slot == NOBODY)
        level->tail = NOBODY;
    else
        store->orders[slot].prev = NOBODY;
    return slot == NOBODY;
}

FLAT static void sweep_plain(matcher_t *matcher, book_t *book, levels_t *opposite, taker_t *taker)
{
    const int64_t limit = ~taker->order.rank;
    const int maker_side = order_side(&taker->order) ^ 1;
    const uint64_t trades = book->trade_id;
    sweep_t sweep = {.leaves = taker->order.leaves};
    if (UNLIKELY(taker->by_amount || (taker->order.flags & ORDER_EXTRA) != 0 || book->triggers.count > 0))
        return;
    while (sweep.leaves > 0 && opposite->best <= limit) {
        int64_t rank = opposite->best;
        sweep.price = rank_of_price(rank, maker_side);
        if (UNLIKELY(!levels_is_near(opposite, rank) || sweep.price < book->band_low || sweep.price > book->band_high))
            break;
        uint64_t before = book->trade_id;
        bool emptied = sweep_level(matcher, book, levels_near(opposite, rank), taker, &sweep);
        if (book->trade_id != before)
            book->last_price = sweep.price;
        if (!emptied)
            break;
        levels_close(&matcher->store.trees, opposite, rank);
    }
    if (book->trade_id == trades)
        return;
    book->has_last_price = true;
    book->order_count -= sweep.filled;
    state_hash_remove(&book->digest, sweep.gone);
}

bool matcher_course(matcher_t *matcher)
{
    taker_t *taker = &matcher->state->work.taker;
    book_t *book = book_of(&matcher->store, &taker->order);
    levels_t *opposite = &book->side[order_side(&taker->order) ^ 1];
    int64_t rank = taker->order.rank;
    bool amount_spent = false;
    while (true) {
        if (LIKELY(!book->triggers.noting))
            sweep_plain(matcher, book, opposite, taker);
        if (taker->order.leaves == 0 || !crosses(opposite, rank))
            break;
        if (step_is_over(matcher))
            return false;
        if (UNLIKELY(book->triggers.noting) && !triggers_note(matcher, book))
            return false;
        int64_t price = rank_of_price(opposite->best, order_side(&taker->order) ^ 1);
        level_t *level = levels_find(&matcher->store.trees, opposite, opposite->best);
        if (UNLIKELY(taker->by_amount)) {
            taker->order.leaves = amount_lots(taker, book, price);
            amount_spent = taker->order.leaves == 0;
            if (amount_spent)
                break;
        }
        if (UNLIKELY(same_owner(matcher->store.orders + level->head, &taker->order)) &&
            order_stp_mode(&taker->order) != STP_MODE_NONE) {
            prevent_self_trade(matcher, book, level, taker);
            continue;
        }
        if (UNLIKELY(price < book->band_low || price > book->band_high) && volatility_halts(matcher, book, price)) {
            taker->halted = true;
            break;
        }
        trade(matcher, book, level, taker);
    }
    if (UNLIKELY(book->triggers.noting) && !triggers_note(matcher, book))
        return false;
    finish_course(matcher, book, taker, amount_spent);
    work_pop(matcher);
    return true;
}

/* ---- how much there is -------------------------------------------------------------------------------------------------- */

/* The scan is over. What could not be traded ends without having traded. */
static void finish_scan(matcher_t *matcher, taker_t *taker, bool enough)
{
    work_pop(matcher);
    if (taker->solicited) /* a fired order was accepted long ago */
        report_accepted(matcher, &taker->order, &taker->rest, taker->order.leaves, ORD_STATUS_NEW, taker->accept_flags,
                        MAYBE_LAST);
    if (enough) {
        work_push(matcher, WORK_COURSE);
        return;
    }
    bool fok = taker->rest.time_in_force == TIME_IN_FORCE_FOK;
    cancellation_t cancellation = {.session = taker->rest.session,
                                   .reason = fok ? CANCEL_REASON_FOK_NOT_FILLABLE : CANCEL_REASON_MIN_QTY_NOT_FILLABLE,
                                   .cl_ord_id = taker->order.cl_ord_id,
                                   .client_tag = taker->rest.client_tag,
                                   .ref_seq_num = taker->solicited ? matcher->input.record->seq_num : 0,
                                   .quantity = taker->order.leaves,
                                   .status = ORD_STATUS_EXPIRED};
    report_canceled(matcher, &taker->order, &cancellation, MAYBE_LAST);
    if (taker->seated)
        leave(matcher, book_of(&matcher->store, &taker->order), taker);
}

void matcher_begin_scan(matcher_t *matcher)
{
    const book_store_t *store = &matcher->store;
    work_t *work = &matcher->state->work;
    const order_t *order = &work->taker.order;
    const book_t *book = book_of(store, order);
    work->scan.quantity = 0;
    work->scan.low = book->clock.has_reference ? book->band_low : INT64_MIN;
    work->scan.high = book->clock.has_reference ? book->band_high : INT64_MAX;
    levels_begin(&store->trees, &book->side[order_side(order) ^ 1], &work->scan.at);
    work->scan.slot = work->scan.at.level != NULL ? work->scan.at.level->head : NOBODY;
    work_push(matcher, WORK_SCAN);
}

/* Fill or kill, minimum quantity: count what the taker could trade, in priority order up to its limit. */
bool matcher_scan(matcher_t *matcher)
{
    const book_store_t *store = &matcher->store;
    taker_t *taker = &matcher->state->work.taker;
    scan_t *scan = &matcher->state->work.scan;
    const book_t *book = book_of(store, &taker->order);
    const levels_t *opposite = &book->side[order_side(&taker->order) ^ 1];
    uint8_t mode = order_stp_mode(&taker->order);
    while (scan->at.level != NULL && scan->quantity < taker->minimum) {
        int64_t price = rank_of_price(scan->at.rank, order_side(&taker->order) ^ 1);
        if (scan->at.rank > ~taker->order.rank && !FAULT(FOK_LIMIT))
            break;
        if (matcher->visits_left == 0)
            return false;
        matcher->visits_left--;
        const order_t *order = store->orders + scan->slot;
        bool own = mode != STP_MODE_NONE && same_owner(order, &taker->order);
        if (own && mode != STP_MODE_CANCEL_MAKER)
            break;
        /* No trade with an own order, so none that would leave the band. */
        if (!own && (price < scan->low || price > scan->high))
            break;
        /* The market has no reference yet: the first trade will make one. */
        if (!own && scan->quantity == 0 && !book->clock.has_reference)
            volatility_band(&book->clock, price, &scan->low, &scan->high);
        scan->quantity += own ? 0 : order_open(store, order);
        scan->slot = order->next;
        if (scan->slot == NOBODY) {
            levels_next(&store->trees, opposite, &scan->at);
            scan->slot = scan->at.level != NULL ? scan->at.level->head : NOBODY;
        }
    }
    if (step_is_over(matcher))
        return false;
    finish_scan(matcher, taker, scan->quantity >= taker->minimum);
    return true;
}

/* ---- auctions ------------------------------------------------------------------------------------------------------------ */

static void report_auction_fill(matcher_t *matcher, const book_t *book, const order_t *order, int64_t open,
                                const fill_t *fill, uint16_t flags)
{
    bool sells = order_side(order) != 0;
    int64_t base = fill->quantity * book->base_per_lot;
    int64_t quote = fill->price * fill->quantity * book->quote_per_tick_lot;
    fee_t fee = fee_charged(sells ? quote : base, book->fees[order->tier].taker_ppm,
                            sells ? book->quote_asset : book->base_asset);
    report_executed(matcher, order, rest_of(&matcher->store, order), open, fill, &fee, LIQUIDITY_AUCTION, flags);
}

/* Both orders rest: the younger stands for the taker. */
static void prevent_in_auction(matcher_t *matcher, book_t *book, level_t *const level[2], int younger, int64_t price)
{
    const book_store_t *store = &matcher->store;
    order_t *order[2] = {store->orders + level[younger ^ 1]->head, store->orders + level[younger]->head};
    level_t *place[2] = {level[younger ^ 1], level[younger]};
    uint64_t id[2] = {order[0]->id, order[1]->id};
    uint8_t mode = order_stp_mode(order[1]);
    loss_t loss[2];
    int64_t lost[2];
    bool moves = mode == STP_MODE_TRANSFER && order_stp_mode(order[0]) == STP_MODE_TRANSFER &&
                 order[0]->account != order[1]->account;
    int64_t open[2] = {order_open(store, order[0]), order_open(store, order[1])};
    prevented_quantities(mode, order[0]->leaves, open[0], order[1]->leaves, lost);
    if (mode == STP_MODE_CANCEL_TAKER || mode == STP_MODE_CANCEL_BOTH)
        lost[1] = open[1];
    if (!moves)
        book->prevented_id++;
    for (int i = 0; i < 2; i++) {
        loss[i] = (loss_t){.open = open[i]};
        if (lost[i] == 0)
            continue;
        fill_t fill = {.price = price, .quantity = lost[i]};
        fee_t fee = {.asset = order_side(order[i]) != 0 ? book->quote_asset : book->base_asset};
        if (moves)
            order[i]->cum += lost[i];
        loss[i] = lost[i] == open[i] ? take_all_from(store, book, place[i], order[i])
                                     : take_from(store, book, order_side(order[i]), place[i], order[i], lost[i]);
        if (moves)
            report_executed(matcher, order[i], rest_of(store, order[i]), loss[i].open, &fill, &fee, LIQUIDITY_TRANSFER,
                            i == 0 ? REPORT_FLAG_MORE : 0);
        else
            report_prevented(matcher, order[i], rest_of(store, order[i]),
                             &(prevention_t){.counter_order_id = id[i ^ 1], .quantity = lost[i], .leaves = loss[i].open,
                                             .stp_mode = mode,
                                             .liquidity = i == 0 ? LIQUIDITY_MAKER : LIQUIDITY_TAKER});
        event_loss(matcher, book, order[i], loss[i]);
    }
    for (int i = 0; i < 2; i++)
        if (lost[i] > 0)
            settle_loss(matcher, book, place[i], order[i], loss[i]);
}

void matcher_auction_trade(matcher_t *matcher, book_t *book, level_t *const level[2], int64_t price)
{
    const book_store_t *store = &matcher->store;
    order_t *order[2] = {store->orders + level[0]->head, store->orders + level[1]->head};
    int younger = order[1]->id > order[0]->id;
    if (same_owner(order[0], order[1]) && order_stp_mode(order[younger]) != STP_MODE_NONE) {
        prevent_in_auction(matcher, book, level, younger, price);
        return;
    }
    int64_t quantity = order[0]->leaves < order[1]->leaves ? order[0]->leaves : order[1]->leaves;
    fill_t fill = {.trade_id = ++book->trade_id, .price = price, .quantity = quantity};
    loss_t loss[2];
    for (int side = 0; side < 2; side++)
        event_execute(matcher, book, order[side], price, quantity, side == 0 ? EVENT_FLAGS_IMPLIED : 0);
    for (int side = 0; side < 2; side++) {
        order[side]->cum += quantity;
        loss[side] = take_from(store, book, side, level[side], order[side], quantity);
    }
    report_auction_fill(matcher, book, order[0], loss[0].open, &fill, REPORT_FLAG_MORE);
    report_auction_fill(matcher, book, order[1], loss[1].open, &fill, 0);
    book->last_price = price;
    book->has_last_price = true;
    /* The older one is the maker: its peer ends first. */
    for (int i = 0; i < 2; i++) {
        int side = i == 0 ? younger ^ 1 : younger;
        settle_loss(matcher, book, level[side], order[side], loss[side]);
    }
}
