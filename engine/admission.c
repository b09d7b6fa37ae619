/* Checks of a new order: a pure function from (state, request) to a verdict. The first one that fails names the code, in the order
 * of docs/MATCHING.md, section 17, whose numbers stand at the functions. An admitted slot leaves here complete: account, partition,
 * fee tier, order id, and for market orders the protection price. */
#include "filters.h"

#include <string.h>

/* ---- shared with other requests ------------------------------------------------------------------------------------------ */

verdict_t admit_frame(const log_slot_t *slot, const session_t *session)
{
    if ((slot->flags & SLOT_FLAG_REJECT) != 0)
        return refuse((uint16_t)slot->aux);
    uint16_t code = orders_validate(slot->template_id, slot->block);
    if (code != REJECT_CODE_NONE)
        return refuse(code);
    return session->kind == SESSION_KIND_DROP_COPY ? refuse(REJECT_CODE_PERMISSION_DENIED) : ADMITTED;
}

uint32_t resolve_account(const sequencer_t *sequencer, const session_t *session, uint32_t named)
{
    if (session->kind == SESSION_KIND_PRIVILEGED)
        return registry_account(&sequencer->registry, named) == NULL ? 0 : named;
    return named == 0 || named == session->account ? session->account : 0;
}

static bool firm_is_killed(const registry_t *registry, uint32_t firm)
{
    bool killed = false;

    if (firm == 0)
        return false;
    for (uint32_t i = 0; i < KILLED_FIRMS_MAX; i++)
        killed |= registry->killed_firms[i] == firm;
    return killed;
}

verdict_t admit_entry(const sequencer_t *sequencer, uint32_t account_id, uint32_t instrument_id)
{
    const registry_t *registry = &sequencer->registry;
    const account_t *account = &registry->accounts[account_id];

    if (registry->killed_all || registry->instruments[instrument_id].killed || account->killed ||
        firm_is_killed(registry, account->firm))
        return refuse(REJECT_CODE_KILL_SWITCH);
    return account->locked ? refuse(REJECT_CODE_ACCOUNT_LOCKED) : ADMITTED;
}

static const uint64_t RATE_WINDOW_NS[RATES] = {
    [RATE_ORDERS_10S] = 10 * NS_PER_SECOND,
    [RATE_ORDERS_DAY] = SECONDS_PER_DAY * NS_PER_SECOND,
    [RATE_CANCELS_10S] = 10 * NS_PER_SECOND,
};

verdict_t admit_rate(const account_t *account, enum rate rate, uint64_t ts_ns, uint32_t more)
{
    uint32_t most = account->rate_max[rate];

    if (most == 0)
        return ADMITTED;
    bool current = account->rate_window[rate] == (uint32_t)(ts_ns / RATE_WINDOW_NS[rate]);
    uint64_t count = (uint64_t)(current ? account->rate_count[rate] : 0) + more;
    return count >= most ? refuse_at(REJECT_CODE_RATE_LIMIT, most) : ADMITTED;
}

verdict_t admit_order_rates(const account_t *account, uint64_t ts_ns, uint32_t more)
{
    verdict_t verdict = admit_rate(account, RATE_ORDERS_10S, ts_ns, more);
    return verdict.rejected ? verdict : admit_rate(account, RATE_ORDERS_DAY, ts_ns, more);
}

static void count(account_t *account, enum rate rate, uint64_t ts_ns, uint32_t requests)
{
    uint32_t window = (uint32_t)(ts_ns / RATE_WINDOW_NS[rate]);

    if (account->rate_window[rate] != window) {
        account->rate_window[rate] = window;
        account->rate_count[rate] = 0;
    }
    account->rate_count[rate] += requests;
}

void count_orders(account_t *account, uint64_t ts_ns, uint32_t orders)
{
    count(account, RATE_ORDERS_10S, ts_ns, orders);
    count(account, RATE_ORDERS_DAY, ts_ns, orders);
}

void count_cancel(account_t *account, uint64_t ts_ns)
{
    count(account, RATE_CANCELS_10S, ts_ns, 1);
}

/* All that the account has, may still buy, and would buy now, of the base asset. */
verdict_t admit_position(const sequencer_t *sequencer, uint32_t account, uint32_t instrument_id, int128_t besides,
                         int64_t more_lots)
{
    const instrument_t *instrument = &sequencer->registry.instruments[instrument_id];
    int64_t most = instrument->filters.position_max;

    if (most == 0)
        return ADMITTED;
    const balance_t *balance = accounts_find(&sequencer->accounts, account, instrument->base_asset);
    const exposure_t exposure = exposures_get(&sequencer->exposures, account, instrument_id);
    int128_t position = balance == NULL ? 0 : (int128_t)balance->available + balance->held;
    position += (exposure.buy_lots + besides + more_lots) * instrument->base_per_lot;
    return position > most ? refuse_at(REJECT_CODE_POSITION_LIMIT, most) : ADMITTED;
}

verdict_t admit_stp(const sequencer_t *sequencer, uint32_t account, const instrument_t *instrument, uint32_t group,
                    uint8_t mode)
{
    uint8_t modes = instrument->filters.stp_modes;

    if (group != 0 && group != sequencer->registry.accounts[account].stp_group)
        return refuse(REJECT_CODE_INVALID_STP);
    return modes != 0 && (modes >> mode & 1) == 0 ? refuse(REJECT_CODE_INVALID_STP) : ADMITTED;
}

bool client_id_is_open(const sequencer_t *sequencer, uint32_t account, uint32_t instrument, uint64_t client_id)
{
    const orders_t *orders = &sequencer->orders[partition_of(sequencer, instrument)];
    const order_line_t *line = client_id == 0 ? NULL : orders_find_client(orders, account, instrument, client_id);
    return line != NULL && (line->flags & LINE_FINAL) == 0;
}

/* ---- an order that is judged ------------------------------------------------------------------------------------------------ */

/* The order is completed on a copy before it is judged: a refused request stays in the log as the client sent it. */
typedef struct candidate {
    const sequencer_t *sequencer;
    const log_slot_t *slot;
    const instrument_t *instrument;
    const order_details_t *details; /* NULL = none */
    new_order_single_t order;
    bool sell;
    bool market;  /* has no limit price of its own */
    bool amount;  /* its quantity is money */
} candidate_t;

static bool may_rest(uint8_t time_in_force)
{
    return time_in_force == TIME_IN_FORCE_GTC || time_in_force == TIME_IN_FORCE_GTD || time_in_force == TIME_IN_FORCE_DAY;
}

static bool display_is_minimum(const new_order_single_t *order)
{
    return (order->exec_inst & EXEC_INST_DISPLAY_IS_MINIMUM) != 0;
}

/* 7 */
static verdict_t check_combination(const candidate_t *candidate)
{
    const new_order_single_t *order = &candidate->order;
    bool gtc_or_ioc = order->time_in_force == TIME_IN_FORCE_GTC || order->time_in_force == TIME_IN_FORCE_IOC;

    if ((order->exec_inst & EXEC_INST_HIDDEN) != 0)
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    if ((order->exec_inst & EXEC_INST_POST_ONLY) != 0 &&
        (order->ord_type != ORD_TYPE_LIMIT || !may_rest(order->time_in_force)))
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    const order_details_t *details = candidate->details;
    bool in_parts = order->display_qty != QTY_NULL || display_is_minimum(order) ||
                    (details != NULL && (details->min_qty != QTY_NULL || details->initial_display_qty != QTY_NULL));
    if (candidate->amount && (order->ord_type != ORD_TYPE_MARKET || !gtc_or_ioc || in_parts))
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    return ADMITTED;
}

/* 8 to 11: what the type requires and forbids. */
static verdict_t check_type(const candidate_t *candidate)
{
    const new_order_single_t *order = &candidate->order;
    bool stop = is_stop_order(order->ord_type);

    if (order->trailing_delta > (stop ? TRAILING_DELTA_MAX : 0))
        return refuse_at(REJECT_CODE_INVALID_TRAILING_DELTA, stop ? TRAILING_DELTA_MAX : 0);
    if (stop ? order->stop_px == PX_NULL && order->trailing_delta == 0 : order->stop_px != PX_NULL)
        return refuse(REJECT_CODE_INVALID_STOP_PX);
    if (candidate->market && order->price != PX_NULL)
        return refuse_at(REJECT_CODE_INVALID_PRICE, candidate->instrument->min_ticks);
    bool immediate = order->time_in_force == TIME_IN_FORCE_IOC || order->time_in_force == TIME_IN_FORCE_FOK;
    bool dated = order->time_in_force == TIME_IN_FORCE_GTD || order->time_in_force == TIME_IN_FORCE_DAY;
    if ((order->ord_type == ORD_TYPE_MARKET && dated) || (stop && candidate->market && immediate))
        return refuse(REJECT_CODE_INVALID_TIME_IN_FORCE);
    return ADMITTED;
}

/* 12 */
static verdict_t check_expiry(const candidate_t *candidate)
{
    const new_order_single_t *order = &candidate->order;
    uint64_t stamp = candidate->slot->ts_ns;
    bool given = order->expire_time != U32_NULL;
    bool valid = order->time_in_force == TIME_IN_FORCE_GTD ? given && order->expire_time * NS_PER_SECOND > stamp : !given;

    return valid ? ADMITTED : refuse_at(REJECT_CODE_INVALID_EXPIRE, (int64_t)(stamp / NS_PER_SECOND));
}

/* 13 */
static verdict_t check_minimum(const candidate_t *candidate)
{
    const new_order_single_t *order = &candidate->order;
    bool in_details = candidate->details != NULL && candidate->details->min_qty != QTY_NULL;
    bool in_display = display_is_minimum(order);

    if (!in_details && !in_display)
        return ADMITTED;
    int64_t minimum = in_display ? order->display_qty : candidate->details->min_qty;
    bool type = (order->ord_type == ORD_TYPE_LIMIT && (order->exec_inst & EXEC_INST_POST_ONLY) == 0) ||
                (order->ord_type == ORD_TYPE_MARKET && !candidate->amount);
    if ((in_details && in_display) || minimum <= 0 || minimum > order->order_qty || !type ||
        order->time_in_force == TIME_IN_FORCE_FOK)
        return refuse_at(REJECT_CODE_INVALID_MIN_QTY, order->order_qty);
    return ADMITTED;
}

/* 14 */
static verdict_t check_iceberg(const candidate_t *candidate)
{
    const new_order_single_t *order = &candidate->order;
    bool given = order->display_qty != QTY_NULL && !display_is_minimum(order);
    int64_t first = candidate->details == NULL ? QTY_NULL : candidate->details->initial_display_qty;
    bool first_fits = first == QTY_NULL || (given && first > 0 && first <= order->order_qty);

    if (given && (order->display_qty <= 0 || order->display_qty > order->order_qty || candidate->market ||
                  !may_rest(order->time_in_force)))
        return refuse_at(REJECT_CODE_INVALID_DISPLAY_QTY, order->order_qty);
    if (given && order->display_qty < candidate->instrument->min_lots && order->display_qty != order->order_qty)
        return refuse_at(REJECT_CODE_INVALID_DISPLAY_QTY, candidate->instrument->min_lots);
    return first_fits ? ADMITTED : refuse_at(REJECT_CODE_INVALID_DISPLAY_QTY, order->order_qty);
}

/* 7 to 15: whether the order makes sense at all. */
static verdict_t check_shape(const candidate_t *candidate)
{
    const new_order_single_t *order = &candidate->order;
    verdict_t verdict;

    if ((verdict = check_combination(candidate)).rejected)
        return verdict;
    if ((verdict = check_type(candidate)).rejected)
        return verdict;
    if ((verdict = check_expiry(candidate)).rejected)
        return verdict;
    if ((verdict = check_minimum(candidate)).rejected)
        return verdict;
    if ((verdict = check_iceberg(candidate)).rejected)
        return verdict;
    return admit_stp(candidate->sequencer, order->account_id, candidate->instrument, order->stp_group_id, order->stp_mode);
}

/* 19 */
static verdict_t check_quantity(const candidate_t *candidate)
{
    const new_order_single_t *order = &candidate->order;
    verdict_t verdict;

    if (candidate->amount && order->order_qty > 0)
        return order->order_qty < AMOUNT_LIMIT ? ADMITTED : refuse_at(REJECT_CODE_MAX_QTY, AMOUNT_LIMIT - 1);
    if (!candidate->market &&
        (verdict = filter_free(candidate->sequencer, candidate->instrument, order->price, order->order_qty)).rejected)
        return verdict;
    return filter_quantity(candidate->instrument, order->order_qty, order->ord_type == ORD_TYPE_MARKET);
}

/* 16 to 20: each number by itself. */
static verdict_t check_numbers(const candidate_t *candidate)
{
    const new_order_single_t *order = &candidate->order;
    verdict_t verdict;

    if (!candidate->market && (verdict = filter_price(candidate->instrument, order->price)).rejected)
        return verdict;
    if ((verdict = filter_stop_price(candidate->instrument, order->stop_px, candidate->market)).rejected)
        return verdict;
    if ((verdict = filter_trailing(candidate->instrument, order->ord_type, candidate->sell, order->trailing_delta)).rejected)
        return verdict;
    if ((verdict = check_quantity(candidate)).rejected)
        return verdict;
    return is_iceberg(order) ? filter_parts(candidate->instrument, order->order_qty, order->display_qty) : ADMITTED;
}

/* 21: market orders get the price they may reach. */
static verdict_t protect(candidate_t *candidate)
{
    const instrument_t *instrument = candidate->instrument;
    new_order_single_t *order = &candidate->order;
    bool stop = is_stop_order(order->ord_type);
    int64_t base = stop ? stop_base(instrument, candidate->sell, order->stop_px, order->trailing_delta)
                        : instrument->reference_ticks;
    uint32_t band = candidate->sell ? instrument->band_down_bps : instrument->band_up_bps;

    if (!candidate->market)
        return ADMITTED;
    if (base == PX_NULL && (stop || candidate->amount))
        return refuse(REJECT_CODE_NO_REFERENCE_PRICE);
    if (!protection_price(instrument, candidate->sell, base, &order->price))
        return refuse(REJECT_CODE_NO_REFERENCE_PRICE);
    if (candidate->amount && (band == 0 || order->price <= 0))
        return refuse(REJECT_CODE_NO_REFERENCE_PRICE);
    return ADMITTED;
}

/* 22 and 23: the whole of it. */
static verdict_t check_whole(const candidate_t *candidate)
{
    const instrument_t *instrument = candidate->instrument;
    const new_order_single_t *order = &candidate->order;
    verdict_t verdict;
    int64_t units;

    if (candidate->amount) {
        if ((verdict = filter_amount(instrument, order->order_qty)).rejected)
            return verdict;
        return hold_for_order(instrument, order, &units) ? ADMITTED : refuse_at(REJECT_CODE_MAX_NOTIONAL, notional_bound(instrument, true));
    }
    if ((verdict = filter_notional(instrument, order->price, order->order_qty, candidate->market)).rejected ||
        candidate->market)
        return verdict;
    int64_t around = is_stop_order(order->ord_type)
                         ? stop_base(instrument, candidate->sell, order->stop_px, order->trailing_delta)
                         : instrument->reference_ticks;
    return filter_band(instrument, candidate->sell, order->price, around);
}

static verdict_t check_cap(uint32_t count, uint32_t more, uint32_t cap, uint16_t code)
{
    return cap != 0 && (uint64_t)count + more >= cap ? refuse_at(code, cap) : ADMITTED;
}

/* 24 */
static verdict_t check_counts(const candidate_t *candidate, const order_context_t *context)
{
    const new_order_single_t *order = &candidate->order;
    const instrument_filters_t *filters = &candidate->instrument->filters;
    const account_t *account = &candidate->sequencer->registry.accounts[order->account_id];
    verdict_t verdict;

    if ((uint64_t)account->open_orders + context->orders >= account->open_orders_max)
        return refuse_at(REJECT_CODE_OPEN_ORDER_LIMIT, account->open_orders_max);
    const exposure_t exposure = exposures_get(&candidate->sequencer->exposures, order->account_id, order->instrument_id);
    if ((verdict = check_cap(exposure.orders, context->orders, filters->open_orders_max, REJECT_CODE_OPEN_ORDER_LIMIT))
            .rejected)
        return verdict;
    if (is_stop_order(order->ord_type) &&
        (verdict = check_cap(exposure.algo, context->algo, filters->algo_orders_max, REJECT_CODE_ALGO_ORDER_LIMIT)).rejected)
        return verdict;
    if (is_iceberg(order))
        return check_cap(exposure.icebergs, context->icebergs, filters->iceberg_orders_max,
                         REJECT_CODE_ICEBERG_ORDER_LIMIT);
    return ADMITTED;
}

/* 26 */
static verdict_t check_position(const candidate_t *candidate, const order_context_t *context)
{
    const instrument_t *instrument = candidate->instrument;
    const new_order_single_t *order = &candidate->order;
    int64_t lots = order->order_qty;

    if (candidate->sell)
        return ADMITTED;
    if (candidate->amount)
        lots = (int64_t)(order->order_qty / ((int128_t)instrument->reference_ticks * instrument->quote_per_tick_lot));
    return admit_position(candidate->sequencer, order->account_id, order->instrument_id,
                          context->due ? -(int128_t)lots : context->buys, lots);
}

/* Empty, or of the characters allowed; zeros behind it. */
static bool text_is_valid(const char text[CLIENT_TEXT_SIZE])
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/-";
    size_t length = strnlen(text, CLIENT_TEXT_SIZE);
    bool valid = true;

    for (size_t i = 0; i < CLIENT_TEXT_SIZE; i++)
        valid &= i < length ? strchr(allowed, text[i]) != NULL : text[i] == 0;
    return valid;
}

/* 27 */
static verdict_t check_client_id(const candidate_t *candidate, const order_context_t *context)
{
    const new_order_single_t *order = &candidate->order;
    const order_details_t *details = candidate->details;

    if (details != NULL && (!text_is_valid(details->client_text) ||
                            (order->cl_ord_id == 0 && details->client_text[0] != 0)))
        return refuse(REJECT_CODE_INVALID_CL_ORD_ID);
    if (order->cl_ord_id == 0)
        return ADMITTED;
    bool taken = client_id_is_open(candidate->sequencer, order->account_id, order->instrument_id, order->cl_ord_id);
    for (uint32_t i = 0; i < LIST_LEGS_MAX; i++)
        taken |= context->client_ids[i] == order->cl_ord_id;
    return taken ? refuse(REJECT_CODE_DUPLICATE_CL_ORD_ID) : ADMITTED;
}

/* 28 */
static verdict_t check_room(const candidate_t *candidate, const order_context_t *context, uint64_t *order_id)
{
    const sequencer_t *sequencer = candidate->sequencer;
    const orders_t *orders = &sequencer->orders[candidate->instrument->partition];

    *order_id = orders_id_after(orders, context->last_id != 0 ? context->last_id : orders->last_id, context->orders);
    if (*order_id == 0)
        return refuse(REJECT_CODE_ORDER_CAPACITY);
    if (needs_extra(&candidate->order) && orders->extras + context->extras >= orders->extras_max)
        return refuse(REJECT_CODE_ALGO_CAPACITY);
    /* The entries of what will be received are made at admission, so that settling cannot fail. */
    if (!accounts_has_room(&sequencer->accounts, 2) || !exposures_have_room(&sequencer->exposures))
        return refuse(REJECT_CODE_BALANCE_CAPACITY);
    return ADMITTED;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* 29 */
static verdict_t check_funds(const candidate_t *candidate, order_context_t *context)
{
    const new_order_single_t *order = &candidate->order;
    uint32_t asset = paying_asset(candidate->instrument, candidate->sell);
    int64_t available = available_of(candidate->sequencer, order->account_id, asset);
    int64_t need = 0;
    bool fits = hold_for_order(candidate->instrument, order, &need);

    INVARIANT(fits);
    if (context->funding == FUNDING_SECOND_OF_PAIR)
        need = larger(need, context->need);
    context->need = need;
    if (context->funding == FUNDING_LATER || context->funding == FUNDING_FIRST_OF_PAIR)
        return ADMITTED;
    int64_t known = context->funding == FUNDING_PREDECESSOR && context->known_asset == asset ? context->known_hold : 0;
    context->extra_cover = smaller(available, need);
    return available < need - known ? refuse_at(REJECT_CODE_INSUFFICIENT_BALANCE, available) : ADMITTED;
}

/* 24 to 29: what the account may and can. */
static verdict_t check_account(const candidate_t *candidate, order_context_t *context, uint64_t *order_id)
{
    const account_t *account = &candidate->sequencer->registry.accounts[candidate->order.account_id];
    verdict_t verdict;

    *order_id = context->last_id;
    if (!context->due) {
        if ((verdict = check_counts(candidate, context)).rejected)
            return verdict;
        if ((verdict = admit_order_rates(account, candidate->slot->ts_ns, context->orders)).rejected)
            return verdict;
    }
    if ((verdict = check_position(candidate, context)).rejected)
        return verdict;
    if (!context->due) {
        if ((verdict = check_client_id(candidate, context)).rejected)
            return verdict;
        if ((verdict = check_room(candidate, context, order_id)).rejected)
            return verdict;
    }
    return check_funds(candidate, context);
}

/* 2 to 6 */
static verdict_t check_request(const sequencer_t *sequencer, const log_slot_t *slot, new_order_single_t *order,
                               const order_context_t *context)
{
    uint32_t account = resolve_account(sequencer, context->session, order->account_id);

    if (account == 0)
        return refuse(REJECT_CODE_INVALID_ACCOUNT);
    order->account_id = account;
    if (order->max_latency_us != 0 && slot->ts_ns > slot->ingress_ns &&
        slot->ts_ns - slot->ingress_ns > (uint64_t)order->max_latency_us * 1000)
        return refuse_at(REJECT_CODE_STALE_REQUEST, order->max_latency_us);
    if (registry_instrument(&sequencer->registry, order->instrument_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    verdict_t verdict = admit_entry(sequencer, account, order->instrument_id);
    if (verdict.rejected)
        return verdict;
    /* A leg whose time has come waits for its matcher, as cancels do. */
    if (!context->due && partition_is_paused(sequencer, partition_of(sequencer, order->instrument_id)))
        return refuse(REJECT_CODE_PAIR_PAUSED);
    bool other_list = context->details != NULL && context->details->list_id != 0;
    return order->list_role != context->list_role || other_list ? refuse(REJECT_CODE_INVALID_LIST) : ADMITTED;
}

/* Of the UTC day that ends next after the stamp. */
static uint32_t day_end(const instrument_t *instrument, uint64_t stamp_ns)
{
    uint64_t second = stamp_ns / NS_PER_SECOND;
    uint64_t end = second - second % SECONDS_PER_DAY + instrument->filters.day_end_second;

    return (uint32_t)(end > second ? end : end + SECONDS_PER_DAY);
}

/* What the command's next order will find. */
static void note_admitted(order_context_t *context, const new_order_single_t *order, uint64_t order_id)
{
    if (context->orders < LIST_LEGS_MAX)
        context->client_ids[context->orders] = order->cl_ord_id;
    context->orders++;
    context->algo += is_stop_order(order->ord_type);
    context->buys += order->side == SIDE_BUY && (order->exec_inst & EXEC_INST_QUOTE_AMOUNT) == 0 ? order->order_qty : 0;
    context->icebergs += is_iceberg(order);
    context->extras += needs_extra(order);
    context->last_id = order_id;
}

verdict_t admit_order(const sequencer_t *sequencer, log_slot_t *slot, order_context_t *context)
{
    new_order_single_t *order = (new_order_single_t *)slot->block;
    verdict_t verdict;
    uint64_t order_id;

    if ((verdict = admit_frame(slot, context->session)).rejected)
        return verdict;
    if ((verdict = check_request(sequencer, slot, order, context)).rejected)
        return verdict;
    const instrument_t *instrument = &sequencer->registry.instruments[order->instrument_id];
    const account_t *account = &sequencer->registry.accounts[order->account_id];
    candidate_t candidate = {.sequencer = sequencer,
                             .slot = slot,
                             .instrument = instrument,
                             .details = context->details,
                             .order = *order,
                             .sell = order->side == SIDE_SELL,
                             .market = is_market_order(order->ord_type),
                             .amount = (order->exec_inst & EXEC_INST_QUOTE_AMOUNT) != 0};
    if ((verdict = check_shape(&candidate)).rejected)
        return verdict;
    if ((verdict = check_numbers(&candidate)).rejected)
        return verdict;
    if ((verdict = protect(&candidate)).rejected)
        return verdict;
    if ((verdict = check_whole(&candidate)).rejected)
        return verdict;
    if ((verdict = check_account(&candidate, context, &order_id)).rejected)
        return verdict;
    note_admitted(context, order, order_id);
    slot->aux = order_id;
    if (order->ord_type == ORD_TYPE_MARKET && order->time_in_force == TIME_IN_FORCE_GTC)
        candidate.order.time_in_force = order->time_in_force = TIME_IN_FORCE_IOC;
    if (context->funding == FUNDING_LATER) /* it is completed when its time comes */
        return ADMITTED;
    *order = candidate.order;
    order->stp_group_id = account->stp_group;
    if (order->time_in_force == TIME_IN_FORCE_DAY)
        order->expire_time = day_end(instrument, slot->ts_ns);
    slot->partition = instrument->partition;
    slot->flags |= (uint16_t)(account->fee_tier << SLOT_TIER_SHIFT);
    return ADMITTED;
}
