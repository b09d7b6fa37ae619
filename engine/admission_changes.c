/* Checks of requests about orders that exist: cancel, replace, amend, status, mass cancel (docs/MATCHING.md, sections 9, 15, 17). */
#include "filters.h"

/* A line that only waits for the answer to a late replace is no order any more: its client has the final report. */
order_line_t *resolve_order(const sequencer_t *sequencer, uint32_t account, uint32_t instrument, uint64_t order_id,
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

/* Account and instrument of a request; completes the account. */
static verdict_t check_addressee(const sequencer_t *sequencer, const session_t *session, uint32_t *account,
                                 uint32_t instrument)
{
    uint32_t resolved = resolve_account(sequencer, session, *account);

    if (resolved == 0)
        return refuse(REJECT_CODE_INVALID_ACCOUNT);
    *account = resolved;
    return registry_instrument(&sequencer->registry, instrument) == NULL ? refuse(REJECT_CODE_UNKNOWN_INSTRUMENT) : ADMITTED;
}

/* ---- cancel and status ---------------------------------------------------------------------------------------------------------- */

static verdict_t check_cancel_flags(uint8_t flags, bool in_group)
{
    const uint8_t both = CANCEL_FLAGS_ONLY_NEW | CANCEL_FLAGS_ONLY_PARTIALLY_FILLED;
    bool valid = (flags & both) != both && (in_group || (flags & CANCEL_FLAGS_CONTINUE_ON_FAILURE) == 0);

    return valid ? ADMITTED : refuse(REJECT_CODE_INVALID_COMBINATION);
}

verdict_t admit_cancel(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot, bool in_group)
{
    order_cancel_request_t *request = (order_cancel_request_t *)slot->block;
    verdict_t verdict;

    if ((verdict = admit_frame(slot, session)).rejected)
        return verdict;
    if ((verdict = check_cancel_flags(request->cancel_flags, in_group)).rejected)
        return verdict;
    if ((verdict = check_addressee(sequencer, session, &request->account_id, request->instrument_id)).rejected)
        return verdict;
    const orders_t *orders = &sequencer->orders[partition_of(sequencer, request->instrument_id)];
    const order_line_t *line = resolve_order(sequencer, request->account_id, request->instrument_id, request->order_id,
                                             request->orig_cl_ord_id);
    if (line == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ORDER);
    const order_list_t *list = list_of_line(sequencer, orders, line);
    if (in_group && list != NULL)
        return refuse(REJECT_CODE_INVALID_LIST);
    if (in_group && (line->flags & LINE_QUOTE) != 0)
        return refuse(REJECT_CODE_INVALID_QUOTE);
    const account_t *account = &sequencer->registry.accounts[request->account_id];
    if ((verdict = admit_rate(account, RATE_CANCELS_10S, slot->ts_ns, 0)).rejected)
        return verdict;
    /* A leg whose time has not come is known to nobody but us: its list ends with its working leg, the first one. */
    request->order_id = (line->flags & LINE_PENDING) != 0 ? list->order_id[0] : line->id;
    slot->partition = partition_of(sequencer, request->instrument_id);
    return ADMITTED;
}

verdict_t admit_status(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot)
{
    order_status_request_t *request = (order_status_request_t *)slot->block;
    verdict_t verdict;

    if ((verdict = check_addressee(sequencer, session, &request->account_id, request->instrument_id)).rejected)
        return verdict;
    const order_line_t *line = resolve_order(sequencer, request->account_id, request->instrument_id, request->order_id,
                                             request->orig_cl_ord_id);
    if (line == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ORDER);
    request->order_id = line->id;
    if ((line->flags & LINE_PENDING) == 0)
        slot->partition = partition_of(sequencer, request->instrument_id);
    return ADMITTED;
}

/* ---- replace and amend ---------------------------------------------------------------------------------------------------------------- */

/* The terms an order would have, if all that is on its way is taken. */
typedef struct prospect {
    const sequencer_t *sequencer;
    const orders_t *orders;
    const instrument_t *instrument;
    const order_line_t *line;
    int64_t ticks;
    int64_t lots;
    int64_t display_lots; /* 0 = no iceberg */
    uint8_t ord_type;
} prospect_t;

static prospect_t prospect_of(const sequencer_t *sequencer, const order_line_t *line)
{
    const instrument_t *instrument = &sequencer->registry.instruments[line->instrument];
    const orders_t *orders = &sequencer->orders[instrument->partition];
    const order_replaces_t *replaces = orders_replaces(orders, line);
    const replace_version_t *newest = replaces == NULL ? NULL : &replaces->versions[replaces->count - 1];
    const order_terms_t *terms = orders_terms(orders, line);
    int64_t display = terms == NULL ? 0 : terms->display_lots;

    for (uint32_t i = 0; replaces != NULL && i < replaces->count; i++)
        display = replaces->versions[i].display_lots != QTY_NULL ? replaces->versions[i].display_lots : display;
    return (prospect_t){.sequencer = sequencer,
                        .orders = orders,
                        .instrument = instrument,
                        .line = line,
                        .ticks = newest == NULL ? line->limit_ticks : newest->limit_ticks,
                        .lots = newest == NULL ? line->total_lots : newest->total_lots,
                        .display_lots = display,
                        .ord_type = line_ord_type(orders, line)};
}

/* Which orders cannot be replaced, or only in part. */
static verdict_t check_replaceable(const prospect_t *prospect, const order_replace_request_t *request)
{
    const order_line_t *line = prospect->line;

    if ((line->flags & (LINE_OCO | LINE_PENDING)) != 0)
        return refuse(REJECT_CODE_INVALID_LIST);
    if ((line->flags & LINE_QUOTE) != 0)
        return refuse(REJECT_CODE_INVALID_QUOTE);
    if (request->replace_flags != 0 || (line->flags & LINE_AMOUNT) != 0) /* an amount is no quantity */
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    if (request->price != PX_NULL && (line->flags & LINE_MARKET) != 0)
        return refuse_at(REJECT_CODE_INVALID_PRICE, prospect->instrument->min_ticks);
    return ADMITTED;
}

static verdict_t check_new_display(const prospect_t *prospect, int64_t display_lots)
{
    uint8_t tif = (prospect->line->flags >> LINE_TIF_SHIFT) & LINE_TIF_MASK;
    bool may_rest = tif == TIME_IN_FORCE_GTC || tif == TIME_IN_FORCE_GTD || tif == TIME_IN_FORCE_DAY;

    if (display_lots == QTY_NULL)
        return ADMITTED;
    if (display_lots <= 0 || !may_rest || (prospect->line->flags & LINE_MARKET) != 0)
        return refuse(REJECT_CODE_INVALID_DISPLAY_QTY);
    return display_lots < prospect->instrument->min_lots
               ? refuse_at(REJECT_CODE_INVALID_DISPLAY_QTY, prospect->instrument->min_lots)
               : ADMITTED;
}

static verdict_t check_new_band(const prospect_t *prospect)
{
    const order_terms_t *terms = orders_terms(prospect->orders, prospect->line);
    bool sell = line_sells(prospect->line);
    int64_t around = prospect->instrument->reference_ticks;

    if (is_stop_order(prospect->ord_type))
        around = stop_base(prospect->instrument, sell, terms->stop_ticks, terms->trailing_delta);
    return filter_band(prospect->instrument, sell, prospect->ticks, around);
}

static verdict_t check_new_parts(const prospect_t *prospect)
{
    bool iceberg = prospect->display_lots > 0 && prospect->display_lots < prospect->lots;

    return iceberg ? filter_parts(prospect->instrument, prospect->lots, prospect->display_lots) : ADMITTED;
}

/* Price, quantity and display, each where it is new; then the whole. Takes them into the prospect. */
static verdict_t check_new_terms(prospect_t *prospect, const order_replace_request_t *request)
{
    const instrument_t *instrument = prospect->instrument;
    bool market = (prospect->line->flags & LINE_MARKET) != 0;
    verdict_t verdict;

    if (request->price != PX_NULL) {
        prospect->ticks = request->price;
        if ((verdict = filter_price(instrument, request->price)).rejected)
            return verdict;
    }
    if (request->order_qty != QTY_NULL) {
        prospect->lots = request->order_qty;
        if ((verdict = filter_quantity(instrument, request->order_qty, prospect->ord_type == ORD_TYPE_MARKET)).rejected)
            return verdict;
    }
    if ((verdict = check_new_display(prospect, request->display_qty)).rejected)
        return verdict;
    if (request->display_qty != QTY_NULL) /* what hides nothing makes an ordinary order of it */
        prospect->display_lots = request->display_qty < prospect->lots ? request->display_qty : 0;
    if (!market && (verdict = filter_free(prospect->sequencer, instrument, prospect->ticks, prospect->lots)).rejected)
        return verdict;
    if ((verdict = filter_notional(instrument, prospect->ticks, prospect->lots, market)).rejected)
        return verdict;
    if (request->price != PX_NULL && (verdict = check_new_band(prospect)).rejected)
        return verdict;
    return check_new_parts(prospect);
}

/* What both kinds of change end with: rate, at most so many on their way, a client id of their own. */
static verdict_t check_change(const prospect_t *prospect, uint64_t ts_ns, uint64_t client_id)
{
    const order_line_t *line = prospect->line;
    const account_t *account = &prospect->sequencer->registry.accounts[line->account];
    bool buys = !line_sells(line) && (line->flags & LINE_AMOUNT) == 0 && prospect->instrument->filters.position_max != 0;
    verdict_t verdict;

    if ((verdict = admit_order_rates(account, ts_ns, 0)).rejected)
        return verdict;
    int64_t more = buys ? prospect->lots - line->filled_lots - line_buys(prospect->orders, line) : 0;
    if (more > 0 && (verdict = admit_position(prospect->sequencer, line->account, line->instrument, 0, more)).rejected)
        return verdict;
    if (!orders_can_replace(prospect->orders, line))
        return refuse_at(REJECT_CODE_PENDING_REQUEST, REPLACES_IN_FLIGHT_MAX);
    if (client_id_is_open(prospect->sequencer, line->account, line->instrument, client_id))
        return refuse(REJECT_CODE_DUPLICATE_CL_ORD_ID);
    return ADMITTED;
}

static verdict_t check_new_cover(const prospect_t *prospect, const order_replace_request_t *request)
{
    const order_line_t *line = prospect->line;
    const instrument_t *instrument = prospect->instrument;
    int64_t extra;

    if (prospect->display_lots > 0 && (line->flags & LINE_EXTRA) == 0 &&
        prospect->orders->extras >= prospect->orders->extras_max)
        return refuse(REJECT_CODE_ALGO_CAPACITY);
    if (!replace_needs(prospect->sequencer, line, request->price, request->order_qty, &extra))
        return refuse_at(REJECT_CODE_MAX_NOTIONAL, notional_bound(instrument, (line->flags & LINE_MARKET) != 0));
    if (extra == 0) /* and nobody who places orders has less than nothing */
        return ADMITTED;
    int64_t available = available_of(prospect->sequencer, line->account, paying_asset(instrument, line_sells(line)));
    return available < extra ? refuse_at(REJECT_CODE_INSUFFICIENT_BALANCE, available) : ADMITTED;
}

verdict_t admit_replace(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot)
{
    order_replace_request_t *request = (order_replace_request_t *)slot->block;
    verdict_t verdict;

    if ((verdict = check_addressee(sequencer, session, &request->account_id, request->instrument_id)).rejected)
        return verdict;
    if ((verdict = admit_entry(sequencer, request->account_id, request->instrument_id)).rejected)
        return verdict;
    const order_line_t *line = resolve_order(sequencer, request->account_id, request->instrument_id, request->order_id,
                                             request->orig_cl_ord_id);
    if (line == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ORDER);
    prospect_t prospect = prospect_of(sequencer, line);
    if ((verdict = check_replaceable(&prospect, request)).rejected)
        return verdict;
    if ((verdict = check_new_terms(&prospect, request)).rejected)
        return verdict;
    if ((verdict = check_change(&prospect, slot->ts_ns, request->cl_ord_id)).rejected)
        return verdict;
    if ((verdict = check_new_cover(&prospect, request)).rejected)
        return verdict;
    request->order_id = line->id;
    slot->partition = prospect.instrument->partition;
    return ADMITTED;
}

static verdict_t check_new_total(prospect_t *prospect, const order_amend_request_t *request)
{
    const instrument_t *instrument = prospect->instrument;
    const order_terms_t *terms = orders_terms(prospect->orders, prospect->line);
    uint16_t amends_max = instrument->filters.amends_max;

    verdict_t verdict = filter_min_quantity(instrument, request->new_qty, prospect->ord_type == ORD_TYPE_MARKET);
    if (verdict.rejected)
        return verdict;
    prospect->lots = request->new_qty;
    verdict = filter_notional(instrument, prospect->ticks, prospect->lots, (prospect->line->flags & LINE_MARKET) != 0);
    if (verdict.rejected && verdict.code == REJECT_CODE_MIN_NOTIONAL)
        return verdict;
    if (amends_max != 0 && terms != NULL && terms->amends >= amends_max)
        return refuse_at(REJECT_CODE_AMEND_LIMIT, amends_max);
    return ADMITTED;
}

verdict_t admit_amend(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot)
{
    order_amend_request_t *request = (order_amend_request_t *)slot->block;
    verdict_t verdict;

    if ((verdict = check_addressee(sequencer, session, &request->account_id, request->instrument_id)).rejected)
        return verdict;
    const order_line_t *line = resolve_order(sequencer, request->account_id, request->instrument_id, request->order_id,
                                             request->orig_cl_ord_id);
    if (line == NULL)
        return refuse(REJECT_CODE_UNKNOWN_ORDER);
    if ((line->flags & LINE_PENDING) != 0)
        return refuse(REJECT_CODE_INVALID_LIST);
    if ((line->flags & LINE_QUOTE) != 0)
        return refuse(REJECT_CODE_INVALID_QUOTE);
    if ((line->flags & LINE_AMOUNT) != 0)
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    prospect_t prospect = prospect_of(sequencer, line);
    if ((verdict = check_new_total(&prospect, request)).rejected)
        return verdict;
    prospect.lots = 0; /* never buys more */
    if ((verdict = check_change(&prospect, slot->ts_ns, request->cl_ord_id)).rejected)
        return verdict;
    request->order_id = line->id;
    slot->partition = prospect.instrument->partition;
    return ADMITTED;
}

/* ---- mass cancel --------------------------------------------------------------------------------------------------------------------- */

static verdict_t check_scope(const sequencer_t *sequencer, const session_t *session, const mass_cancel_request_t *request)
{
    const uint8_t locks = MASS_CANCEL_FLAGS_LOCK_ENTRY | MASS_CANCEL_FLAGS_UNLOCK_ENTRY;
    uint8_t lock = request->mass_flags & locks;

    if (request->scope >= MASS_CANCEL_SCOPE_FIRM && session->kind != SESSION_KIND_PRIVILEGED)
        return refuse(REJECT_CODE_PERMISSION_DENIED);
    if (lock == locks || (lock != 0 && request->scope != MASS_CANCEL_SCOPE_ACCOUNT))
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    bool any_instrument = request->instrument_id == 0 && request->scope != MASS_CANCEL_SCOPE_INSTRUMENT;
    if (!any_instrument && registry_instrument(&sequencer->registry, request->instrument_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    return ADMITTED;
}

verdict_t admit_mass_cancel(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot)
{
    mass_cancel_request_t *request = (mass_cancel_request_t *)slot->block;
    uint32_t account = resolve_account(sequencer, session, request->account_id);
    bool everybody = request->scope == MASS_CANCEL_SCOPE_INSTRUMENT || request->scope == MASS_CANCEL_SCOPE_ALL;
    verdict_t verdict = check_scope(sequencer, session, request);

    if (everybody && session->kind == SESSION_KIND_PRIVILEGED)
        account = 0; /* of no account's in particular */
    else if (account == 0)
        return refuse(REJECT_CODE_INVALID_ACCOUNT);
    if (verdict.rejected)
        return verdict;
    const account_t *owner = &sequencer->registry.accounts[account];
    if (request->scope == MASS_CANCEL_SCOPE_FIRM && owner->firm == 0)
        return refuse(REJECT_CODE_INVALID_COMBINATION);
    /* An operator's word counts for nobody. */
    if (request->scope <= MASS_CANCEL_SCOPE_ACCOUNT && (verdict = admit_rate(owner, RATE_CANCELS_10S, slot->ts_ns, 0)).rejected)
        return verdict;
    request->account_id = account;
    slot->partition = PARTITION_ALL;
    return ADMITTED;
}
