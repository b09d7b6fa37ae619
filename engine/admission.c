/* Pre-trade checks: a pure function from (state, request) to a verdict. The first failing check names the code. An admitted slot
 * leaves here complete: account, partition, fee tier, order id, and for market orders the protection price (CORE section 4). */
#include "sequencer_state.h"

#include "invariant.h"

static const verdict_t ADMITTED = {.code = REJECT_CODE_NONE, .rejected = false};

static verdict_t refuse(uint16_t code)
{
    return (verdict_t){.code = code, .rejected = true};
}

/* In two steps: the product of all three may not even fit in 128 bits. */
static bool notional_of(const instrument_t *instrument, int64_t ticks, int64_t lots, int64_t *units)
{
    int128_t face = (int128_t)ticks * lots;
    if (face < 0 || face >= AMOUNT_LIMIT)
        return false;
    int128_t notional = face * instrument->quote_per_tick_lot;
    if (notional >= AMOUNT_LIMIT)
        return false;
    *units = (int64_t)notional;
    return true;
}

/* Money an order of these terms may cost, in units of the asset it pays with. False when it does not fit. */
bool hold_for(const instrument_t *instrument, bool sell, int64_t ticks, int64_t lots, int64_t *units)
{
    if (!sell)
        return notional_of(instrument, ticks, lots, units);
    int128_t need = (int128_t)lots * instrument->base_per_lot;
    if (need >= AMOUNT_LIMIT || need < 0)
        return false;
    *units = (int64_t)need;
    return true;
}

/* The account the request acts for: the session's own, or for privileged sessions the one named. 0 = not permitted. */
static uint32_t resolve_account(const sequencer_t *sequencer, const session_t *session, uint32_t named)
{
    if (session->kind == SESSION_KIND_PRIVILEGED)
        return registry_account(&sequencer->registry, named) == NULL ? 0 : named;
    return named == 0 || named == session->account ? session->account : 0;
}

static bool band_bounds(const instrument_t *instrument, int64_t *lowest, int64_t *highest)
{
    int64_t reference = instrument->reference_ticks;

    *lowest = instrument->min_ticks;
    *highest = instrument->max_ticks;
    if (reference == PX_NULL || (instrument->band_up_bps == 0 && instrument->band_down_bps == 0))
        return false;
    int128_t up = (int128_t)reference * (10000 + (int64_t)instrument->band_up_bps) / 10000;
    /* The lower bound rounds up: a price below it is outside. */
    int128_t down = ((int128_t)reference * (10000 - (int64_t)instrument->band_down_bps) + 9999) / 10000;
    if (instrument->band_up_bps != 0 && up < *highest)
        *highest = (int64_t)up;
    if (instrument->band_down_bps != 0 && down > *lowest)
        *lowest = (int64_t)down;
    return true;
}

static verdict_t check_price(const instrument_t *instrument, int64_t ticks)
{
    if (ticks == PX_NULL || ticks < instrument->min_ticks || ticks > instrument->max_ticks)
        return refuse(REJECT_CODE_INVALID_PRICE);
    return ADMITTED;
}

static verdict_t check_quantity(const instrument_t *instrument, int64_t lots)
{
    if (lots <= 0)
        return refuse(REJECT_CODE_INVALID_QTY);
    if (lots < instrument->min_lots)
        return refuse(REJECT_CODE_MIN_QTY);
    if (lots > instrument->max_lots)
        return refuse(REJECT_CODE_MAX_QTY);
    return ADMITTED;
}

/* Money bounds what may rest in a book, except at price 0, where a bid costs nothing: there the quantity itself is capped, so
 * that a level's sum cannot overflow. */
static int64_t free_lots_max(const sequencer_t *sequencer)
{
    return AMOUNT_LIMIT / sequencer->config.orders_per_partition;
}

static verdict_t check_free(const sequencer_t *sequencer, int64_t ticks, int64_t lots)
{
    return ticks == 0 && lots > free_lots_max(sequencer) ? refuse(REJECT_CODE_MAX_QTY) : ADMITTED;
}

static verdict_t check_notional(const instrument_t *instrument, int64_t ticks, int64_t lots)
{
    int64_t most = instrument->max_notional, notional = 0;

    if (!notional_of(instrument, ticks, lots, &notional) || (most != 0 && notional > most))
        return refuse(REJECT_CODE_MAX_NOTIONAL);
    if (notional < instrument->min_notional)
        return refuse(REJECT_CODE_MIN_NOTIONAL);
    /* What a sell order delivers must be an amount too. */
    if ((int128_t)lots * instrument->base_per_lot >= AMOUNT_LIMIT)
        return refuse(REJECT_CODE_MAX_NOTIONAL);
    return ADMITTED;
}

static verdict_t check_band(const instrument_t *instrument, bool sell, int64_t ticks)
{
    int64_t lowest, highest;

    if (!band_bounds(instrument, &lowest, &highest))
        return ADMITTED;
    if (sell ? ticks < lowest : ticks > highest)
        return refuse(REJECT_CODE_PRICE_BAND);
    return ADMITTED;
}

/* Types and qualifiers the engine takes; what it does not know yet is refused by name, never half done. */
static verdict_t check_shape(const sequencer_t *sequencer, const new_order_single_t *order, uint32_t account_id)
{
    const account_t *account = &sequencer->registry.accounts[account_id];
    const uint32_t known = EXEC_INST_POST_ONLY;

    if (order->ord_type != ORD_TYPE_MARKET && order->ord_type != ORD_TYPE_LIMIT)
        return refuse(REJECT_CODE_INVALID_ORD_TYPE);
    if (order->display_qty != QTY_NULL)
        return refuse(REJECT_CODE_INVALID_DISPLAY_QTY);
    if (order->stop_px != PX_NULL)
        return refuse(REJECT_CODE_INVALID_STOP_PX);
    if (order->trailing_delta != 0)
        return refuse(REJECT_CODE_INVALID_TRAILING_DELTA);
    if (order->list_role != LIST_ROLE_NONE)
        return refuse(REJECT_CODE_INVALID_LIST);
    if (order->expire_time != U32_NULL)
        return refuse(REJECT_CODE_INVALID_EXPIRE);
    if ((order->exec_inst & ~known) != 0)
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    if (order->time_in_force == TIME_IN_FORCE_GTD || order->time_in_force == TIME_IN_FORCE_DAY)
        return refuse(REJECT_CODE_INVALID_TIME_IN_FORCE);
    if (order->stp_group_id != 0 && order->stp_group_id != account->stp_group)
        return refuse(REJECT_CODE_INVALID_STP);
    if (order->ord_type == ORD_TYPE_MARKET && order->price != PX_NULL)
        return refuse(REJECT_CODE_INVALID_PRICE);
    if ((order->exec_inst & EXEC_INST_POST_ONLY) != 0 &&
        (order->ord_type == ORD_TYPE_MARKET || order->time_in_force != TIME_IN_FORCE_GTC))
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    return ADMITTED;
}

/* A market order's worst price: the band's edge, so that its hold covers whatever it trades at. */
static verdict_t protection_price(const instrument_t *instrument, bool sell, int64_t *ticks)
{
    int64_t lowest, highest;

    if (!band_bounds(instrument, &lowest, &highest) || (!sell && instrument->band_up_bps == 0)) {
        if (!sell)
            return refuse(REJECT_CODE_NO_REFERENCE_PRICE);
        lowest = instrument->min_ticks;
    }
    *ticks = sell ? lowest : highest;
    return ADMITTED;
}

static verdict_t check_terms(const sequencer_t *sequencer, const instrument_t *instrument, new_order_single_t *order)
{
    bool sell = order->side == SIDE_SELL;
    verdict_t verdict;

    if (order->ord_type == ORD_TYPE_LIMIT) {
        if ((verdict = check_price(instrument, order->price)).rejected)
            return verdict;
        if ((verdict = check_quantity(instrument, order->order_qty)).rejected)
            return verdict;
        if ((verdict = check_free(sequencer, order->price, order->order_qty)).rejected)
            return verdict;
        if ((verdict = check_notional(instrument, order->price, order->order_qty)).rejected)
            return verdict;
        return check_band(instrument, sell, order->price);
    }
    if ((verdict = check_quantity(instrument, order->order_qty)).rejected)
        return verdict;
    int64_t protection = 0;
    if ((verdict = protection_price(instrument, sell, &protection)).rejected)
        return verdict;
    if ((verdict = check_notional(instrument, protection, order->order_qty)).rejected)
        return verdict;
    order->price = protection;
    return ADMITTED;
}

static int64_t available_of(const sequencer_t *sequencer, uint32_t account, uint32_t asset)
{
    const balance_t *balance = accounts_find(&sequencer->accounts, account, asset);
    return balance == NULL ? 0 : balance->available;
}

static uint32_t paying_asset(const instrument_t *instrument, bool sell)
{
    return sell ? instrument->base_asset : instrument->quote_asset;
}

static verdict_t check_capacity_and_money(const sequencer_t *sequencer, const instrument_t *instrument,
                                          const new_order_single_t *order, uint64_t *order_id)
{
    const account_t *account = &sequencer->registry.accounts[order->account_id];
    const orders_t *orders = &sequencer->orders[instrument->partition];
    bool sell = order->side == SIDE_SELL;
    int64_t need;

    if (account->open_orders >= account->open_orders_max)
        return refuse(REJECT_CODE_OPEN_ORDER_LIMIT);
    if (order->cl_ord_id != 0 &&
        orders_find_client(orders, order->account_id, order->instrument_id, order->cl_ord_id) != NULL)
        return refuse(REJECT_CODE_DUPLICATE_CL_ORD_ID);
    *order_id = orders_next_id(orders);
    if (*order_id == 0)
        return refuse(REJECT_CODE_ORDER_CAPACITY);
    /* The entry of what will be received is made at admission, so that settling cannot fail. */
    if (!accounts_has_room(&sequencer->accounts, 2))
        return refuse(REJECT_CODE_BALANCE_CAPACITY);
    bool fits = hold_for(instrument, sell, order->price, order->order_qty, &need);
    INVARIANT(fits);
    if (available_of(sequencer, order->account_id, paying_asset(instrument, sell)) < need)
        return refuse(REJECT_CODE_INSUFFICIENT_BALANCE);
    return ADMITTED;
}

static verdict_t admit_new_order(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot)
{
    new_order_single_t *order = (new_order_single_t *)slot->block;
    uint32_t account = resolve_account(sequencer, session, order->account_id);
    verdict_t verdict;

    if (account == 0)
        return refuse(REJECT_CODE_INVALID_ACCOUNT);
    order->account_id = account;
    if (order->max_latency_us != 0 && slot->ts_ns > slot->ingress_ns &&
        slot->ts_ns - slot->ingress_ns > (uint64_t)order->max_latency_us * 1000)
        return refuse(REJECT_CODE_STALE_REQUEST);
    const instrument_t *instrument = registry_instrument(&sequencer->registry, order->instrument_id);
    if (instrument == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    if ((verdict = check_shape(sequencer, order, account)).rejected)
        return verdict;
    /* Completed before it is judged, on a copy: a refused request stays in the log as the client sent it. */
    new_order_single_t complete = *order;
    if ((verdict = check_terms(sequencer, instrument, &complete)).rejected)
        return verdict;
    uint64_t order_id = 0;
    if ((verdict = check_capacity_and_money(sequencer, instrument, &complete, &order_id)).rejected)
        return verdict;
    complete.stp_group_id = sequencer->registry.accounts[account].stp_group;
    if (complete.ord_type == ORD_TYPE_MARKET && complete.time_in_force == TIME_IN_FORCE_GTC)
        complete.time_in_force = TIME_IN_FORCE_IOC;
    *order = complete;
    slot->partition = instrument->partition;
    slot->flags |= (uint16_t)(sequencer->registry.accounts[account].fee_tier << SLOT_TIER_SHIFT);
    slot->aux = order_id;
    return ADMITTED;
}

/* The open order a cancel or replace means: by order id if given, else by client id. A line that only waits for the answer to a
 * late replace is no order any more: its client has the final report. */
static order_line_t *resolve_order(const sequencer_t *sequencer, uint32_t account, uint32_t instrument, uint64_t order_id,
                                   uint64_t client_id)
{
    const orders_t *orders = &sequencer->orders[partition_of(sequencer, instrument)];

    if (order_id != U64_NULL) {
        order_line_t *line = orders_line(orders, order_id);
        bool same = line->id == order_id && order_id != 0 && line->account == account &&
                    line->instrument == instrument && (line->flags & LINE_FINAL) == 0;
        return same ? line : NULL;
    }
    if (client_id == U64_NULL || client_id == 0)
        return NULL;
    order_line_t *line = orders_find_client(orders, account, instrument, client_id);
    return line == NULL || (line->flags & LINE_FINAL) != 0 ? NULL : line;
}

static verdict_t admit_cancel(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot)
{
    order_cancel_request_t *request = (order_cancel_request_t *)slot->block;
    uint32_t account = resolve_account(sequencer, session, request->account_id);

    if (account == 0)
        return refuse(REJECT_CODE_INVALID_ACCOUNT);
    request->account_id = account;
    const instrument_t *instrument = registry_instrument(&sequencer->registry, request->instrument_id);
    if (instrument == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    if (request->cancel_flags != 0)
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    const order_line_t *line =
        resolve_order(sequencer, account, request->instrument_id, request->order_id, request->orig_cl_ord_id);
    if (line == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ORDER);
    request->order_id = line->id;
    slot->partition = instrument->partition;
    return ADMITTED;
}

/* Cover while replaces are in flight: highest price of all versions x (highest total - filled), CORE section 4. `extra` is what
 * must be held on top of the line's hold. False when the product does not fit. */
bool replace_needs(const sequencer_t *sequencer, const order_line_t *line, const order_replace_request_t *request,
                   int64_t *extra_units)
{
    const instrument_t *instrument = &sequencer->registry.instruments[line->instrument];
    const order_replaces_t *replaces = orders_replaces(&sequencer->orders[instrument->partition], line);
    int64_t ticks = line->limit_ticks, lots = line->total_lots, need;

    for (uint32_t i = 0; replaces != NULL && i < replaces->count; i++) {
        ticks = replaces->versions[i].limit_ticks > ticks ? replaces->versions[i].limit_ticks : ticks;
        lots = replaces->versions[i].total_lots > lots ? replaces->versions[i].total_lots : lots;
    }
    if (request->price != PX_NULL && request->price > ticks)
        ticks = request->price;
    if (request->order_qty != QTY_NULL && request->order_qty > lots)
        lots = request->order_qty;
    int64_t open = lots - line->filled_lots;
    if (!hold_for(instrument, (line->flags & LINE_SELL) != 0, ticks, open, &need))
        return false;
    *extra_units = need > line->hold_units ? need - line->hold_units : 0;
    return true;
}

static verdict_t check_replace_terms(const sequencer_t *sequencer, const order_line_t *line,
                                     const order_replace_request_t *request)
{
    const instrument_t *instrument = &sequencer->registry.instruments[line->instrument];
    const order_replaces_t *replaces = orders_replaces(&sequencer->orders[instrument->partition], line);
    const replace_version_t *newest = replaces == NULL ? NULL : &replaces->versions[replaces->count - 1];
    int64_t ticks = newest == NULL ? line->limit_ticks : newest->limit_ticks;
    int64_t lots = newest == NULL ? line->total_lots : newest->total_lots;
    verdict_t verdict;

    if (request->price != PX_NULL) {
        ticks = request->price;
        if ((verdict = check_price(instrument, ticks)).rejected)
            return verdict;
    }
    if (request->order_qty != QTY_NULL) {
        lots = request->order_qty;
        if ((verdict = check_quantity(instrument, lots)).rejected)
            return verdict;
    }
    if ((verdict = check_free(sequencer, ticks, lots)).rejected)
        return verdict;
    if ((verdict = check_notional(instrument, ticks, lots)).rejected)
        return verdict;
    return request->price == PX_NULL ? ADMITTED : check_band(instrument, (line->flags & LINE_SELL) != 0, ticks);
}

static verdict_t admit_replace(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot)
{
    order_replace_request_t *request = (order_replace_request_t *)slot->block;
    uint32_t account = resolve_account(sequencer, session, request->account_id);
    verdict_t verdict;

    if (account == 0)
        return refuse(REJECT_CODE_INVALID_ACCOUNT);
    request->account_id = account;
    const instrument_t *instrument = registry_instrument(&sequencer->registry, request->instrument_id);
    if (instrument == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    if (request->display_qty != QTY_NULL)
        return refuse(REJECT_CODE_INVALID_DISPLAY_QTY);
    if (request->replace_flags != 0)
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    const orders_t *orders = &sequencer->orders[instrument->partition];
    const order_line_t *line =
        resolve_order(sequencer, account, request->instrument_id, request->order_id, request->orig_cl_ord_id);
    if (line == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ORDER);
    if ((verdict = check_replace_terms(sequencer, line, request)).rejected)
        return verdict;
    if (!orders_can_replace(orders, line))
        return refuse(REJECT_CODE_PENDING_REQUEST);
    if (request->cl_ord_id != 0 &&
        orders_find_client(orders, account, request->instrument_id, request->cl_ord_id) != NULL)
        return refuse(REJECT_CODE_DUPLICATE_CL_ORD_ID);
    int64_t extra;
    if (!replace_needs(sequencer, line, request, &extra))
        return refuse(REJECT_CODE_MAX_NOTIONAL);
    uint32_t asset = paying_asset(instrument, (line->flags & LINE_SELL) != 0);
    if (available_of(sequencer, account, asset) < extra)
        return refuse(REJECT_CODE_INSUFFICIENT_BALANCE);
    request->order_id = line->id;
    slot->partition = instrument->partition;
    return ADMITTED;
}

static verdict_t admit_mass_cancel(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot)
{
    mass_cancel_request_t *request = (mass_cancel_request_t *)slot->block;
    uint32_t account = resolve_account(sequencer, session, request->account_id);

    if (account == 0)
        return refuse(REJECT_CODE_INVALID_ACCOUNT);
    if (request->scope == MASS_CANCEL_SCOPE_FIRM)
        return refuse(REJECT_CODE_PERMISSION_DENIED);
    if (request->mass_flags != 0 || request->stp_group_id != 0)
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    if (request->instrument_id != 0 && registry_instrument(&sequencer->registry, request->instrument_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    request->account_id = account;
    slot->partition = PARTITION_ALL;
    return ADMITTED;
}

verdict_t admit(const sequencer_t *sequencer, log_slot_t *slot)
{
    const session_t *session = registry_session(&sequencer->registry, slot->session);

    INVARIANT(session != NULL);
    if ((slot->flags & SLOT_FLAG_REJECT) != 0)
        return refuse((uint16_t)slot->aux);
    if ((slot->flags & SLOT_FLAG_MORE) != 0)
        return refuse(REJECT_CODE_INVALID_GROUP);
    if (is_control(slot->template_id))
        return control_admit(sequencer, slot);
    if (slot->template_id == TEMPLATE_SEQUENCE)
        return ADMITTED; /* the client skips numbers; a session message, so the requests' shape checks do not know it */
    uint16_t code = orders_validate(slot->template_id, slot->block);
    if (code != REJECT_CODE_NONE)
        return refuse(code);
    if (session->kind == SESSION_KIND_DROP_COPY)
        return refuse(REJECT_CODE_PERMISSION_DENIED);
    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        return admit_new_order(sequencer, session, slot);
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        return admit_cancel(sequencer, session, slot);
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        return admit_replace(sequencer, session, slot);
    case TEMPLATE_MASS_CANCEL_REQUEST:
        return admit_mass_cancel(sequencer, session, slot);
    default:
        return refuse(REJECT_CODE_UNKNOWN_TEMPLATE);
    }
}

static int64_t limit_of_terms(const sequencer_t *sequencer, const instrument_t *instrument, uint32_t account, bool sell,
                              int64_t ticks, uint16_t code)
{
    int64_t lowest, highest;

    switch (code) {
    case REJECT_CODE_INVALID_PRICE:
        return ticks != PX_NULL && ticks > instrument->max_ticks ? instrument->max_ticks : instrument->min_ticks;
    case REJECT_CODE_INVALID_QTY:
    case REJECT_CODE_MIN_QTY:
        return instrument->min_lots;
    case REJECT_CODE_MAX_QTY:
        return ticks == 0 && free_lots_max(sequencer) < instrument->max_lots ? free_lots_max(sequencer)
                                                                              : instrument->max_lots;
    case REJECT_CODE_MIN_NOTIONAL:
        return instrument->min_notional;
    case REJECT_CODE_MAX_NOTIONAL:
        return instrument->max_notional != 0 ? instrument->max_notional : AMOUNT_LIMIT - 1;
    case REJECT_CODE_PRICE_BAND:
        band_bounds(instrument, &lowest, &highest);
        return sell ? lowest : highest;
    case REJECT_CODE_INSUFFICIENT_BALANCE:
        return available_of(sequencer, account, paying_asset(instrument, sell));
    default:
        return 0;
    }
}

int64_t admission_limit(const sequencer_t *sequencer, const log_slot_t *slot, uint16_t code)
{
    const registry_t *registry = &sequencer->registry;

    if (slot->template_id == TEMPLATE_NEW_ORDER_SINGLE) {
        const new_order_single_t *order = (const new_order_single_t *)slot->block;
        const instrument_t *instrument = registry_instrument(registry, order->instrument_id);
        const account_t *account = registry_account(registry, order->account_id);
        if (code == REJECT_CODE_OPEN_ORDER_LIMIT && account != NULL)
            return account->open_orders_max;
        if (code == REJECT_CODE_STALE_REQUEST)
            return order->max_latency_us;
        if (instrument == NULL)
            return 0;
        return limit_of_terms(sequencer, instrument, order->account_id, order->side == SIDE_SELL, order->price, code);
    }
    if (slot->template_id == TEMPLATE_ORDER_REPLACE_REQUEST) {
        const order_replace_request_t *request = (const order_replace_request_t *)slot->block;
        const instrument_t *instrument = registry_instrument(registry, request->instrument_id);
        if (code == REJECT_CODE_PENDING_REQUEST)
            return REPLACES_IN_FLIGHT_MAX;
        if (instrument == NULL)
            return 0;
        const order_line_t *line = resolve_order(sequencer, request->account_id, request->instrument_id,
                                                 request->order_id, request->orig_cl_ord_id);
        bool sell = line != NULL && (line->flags & LINE_SELL) != 0;
        return limit_of_terms(sequencer, instrument, request->account_id, sell, request->price, code);
    }
    return 0;
}
