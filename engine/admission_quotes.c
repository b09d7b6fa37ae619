/* Checks of a quote, and the two legs it is written to the log with (docs/MATCHING.md, sections 11 and 17). */
#include "filters.h"

typedef struct side {
    int64_t price;
    int64_t lots; /* 0 = pulled */
    uint64_t client_id;
    uint64_t order_id; /* to be given to it */
    int64_t extra_cover;
    bool sell;
} side_t;

typedef struct candidate {
    const sequencer_t *sequencer;
    const instrument_t *instrument;
    const quote_t *quote;
    const quote_record_t *record; /* NULL = the account's first of that set */
    side_t side[2];               /* bid, ask */
    uint32_t placed;
} candidate_t;

static candidate_t candidate_of(const sequencer_t *sequencer, const quote_t *quote)
{
    return (candidate_t){
        .sequencer = sequencer,
        .instrument = &sequencer->registry.instruments[quote->instrument_id],
        .quote = quote,
        .record = quotes_find(&sequencer->quotes, quote->account_id, quote->instrument_id, quote->quote_set_id),
        .side = {{.price = quote->bid_px, .lots = quote->bid_qty, .client_id = quote->bid_cl_ord_id},
                 {.price = quote->ask_px, .lots = quote->ask_qty, .client_id = quote->ask_cl_ord_id, .sell = true}},
        .placed = (quote->bid_qty > 0) + (quote->ask_qty > 0)};
}

static bool shape_is_valid(const quote_t *quote)
{
    bool bid = quote->bid_qty > 0, ask = quote->ask_qty > 0;

    if (quote->bid_qty < 0 || quote->ask_qty < 0 || (bid && quote->bid_px == PX_NULL) || (ask && quote->ask_px == PX_NULL))
        return false;
    return !bid || !ask || quote->bid_px < quote->ask_px;
}

static verdict_t check_side(const candidate_t *candidate, const side_t *side)
{
    const instrument_t *instrument = candidate->instrument;
    verdict_t verdict;

    if ((verdict = filter_price(instrument, side->price)).rejected)
        return verdict;
    if ((verdict = filter_free(candidate->sequencer, instrument, side->price, side->lots)).rejected)
        return verdict;
    if ((verdict = filter_quantity(instrument, side->lots, false)).rejected)
        return verdict;
    if ((verdict = filter_notional(instrument, side->price, side->lots, false)).rejected)
        return verdict;
    return filter_band(instrument, side->sell, side->price, instrument->reference_ticks);
}

static verdict_t check_counts(const candidate_t *candidate, uint64_t ts_ns)
{
    const quote_t *quote = candidate->quote;
    const account_t *account = &candidate->sequencer->registry.accounts[quote->account_id];
    const exposure_t exposure = exposures_get(&candidate->sequencer->exposures, quote->account_id, quote->instrument_id);
    uint32_t cap = candidate->instrument->filters.open_orders_max;

    if ((uint64_t)account->open_orders + candidate->placed > account->open_orders_max)
        return refuse_at(REJECT_CODE_OPEN_ORDER_LIMIT, account->open_orders_max);
    if (cap != 0 && (uint64_t)exposure.orders + candidate->placed > cap)
        return refuse_at(REJECT_CODE_OPEN_ORDER_LIMIT, cap);
    verdict_t verdict = admit_order_rates(account, ts_ns, 0);
    if (verdict.rejected || quote->bid_qty == 0)
        return verdict;
    return admit_position(candidate->sequencer, quote->account_id, quote->instrument_id, 0, quote->bid_qty);
}

/* The set's own orders of a side, standing or on their way: `client_id` may be theirs, and what they hold may be used again. */
static bool is_own(const candidate_t *candidate, const order_line_t *line)
{
    const quote_record_t *record = candidate->record;
    bool own = false;

    for (int side = 0; record != NULL && side < 2; side++) {
        own |= record->standing[side] == line->id;
        for (uint32_t i = 0; i < record->in_flight; i++)
            own |= record->coming[i][side] == line->id;
    }
    return own;
}

static verdict_t check_client_ids(const candidate_t *candidate)
{
    const quote_t *quote = candidate->quote;
    const orders_t *orders = &candidate->sequencer->orders[candidate->instrument->partition];
    bool same = quote->bid_cl_ord_id != 0 && quote->bid_cl_ord_id == quote->ask_cl_ord_id && candidate->placed == 2;

    for (int i = 0; i < 2; i++) {
        const side_t *side = &candidate->side[i];
        if (side->lots == 0 || side->client_id == 0)
            continue;
        const order_line_t *line = orders_find_client(orders, quote->account_id, quote->instrument_id, side->client_id);
        same |= line != NULL && !is_own(candidate, line);
    }
    return same ? refuse(REJECT_CODE_DUPLICATE_CL_ORD_ID) : ADMITTED;
}

static verdict_t check_room(candidate_t *candidate)
{
    const sequencer_t *sequencer = candidate->sequencer;
    const orders_t *orders = &sequencer->orders[candidate->instrument->partition];
    uint64_t last = orders->last_id;
    uint32_t given = 0;

    for (int i = 0; i < 2; i++) {
        if (candidate->side[i].lots == 0)
            continue;
        last = orders_id_after(orders, last, given++);
        if (last == 0)
            return refuse(REJECT_CODE_ORDER_CAPACITY);
        candidate->side[i].order_id = last;
    }
    if (candidate->record == NULL && sequencer->quotes.used[candidate->instrument->partition] >= sequencer->quotes.used_max)
        return refuse(REJECT_CODE_QUOTE_CAPACITY);
    if (!accounts_has_room(&sequencer->accounts, 2) || !exposures_have_room(&sequencer->exposures))
        return refuse(REJECT_CODE_BALANCE_CAPACITY);
    return ADMITTED;
}

/* Held for the set's orders of one side, standing and on their way. */
static int64_t known_hold(const candidate_t *candidate, int side)
{
    const orders_t *orders = &candidate->sequencer->orders[candidate->instrument->partition];
    const quote_record_t *record = candidate->record;
    int64_t units = 0;

    for (uint32_t i = 0; record != NULL && i <= record->in_flight; i++) {
        uint64_t id = i == 0 ? record->standing[side] : record->coming[i - 1][side];
        const order_line_t *line = orders_line(orders, id);
        units += id != 0 && line->id == id ? line->hold_units : 0;
    }
    return units;
}

static verdict_t check_funds(candidate_t *candidate)
{
    for (int i = 0; i < 2; i++) {
        side_t *side = &candidate->side[i];
        int64_t need = 0;
        if (side->lots == 0)
            continue;
        bool fits = hold_for(candidate->instrument, side->sell, side->price, side->lots, &need);
        INVARIANT(fits);
        int64_t available = available_of(candidate->sequencer, candidate->quote->account_id,
                                         paying_asset(candidate->instrument, side->sell));
        if (available < need - known_hold(candidate, i))
            return refuse_at(REJECT_CODE_INSUFFICIENT_BALANCE, available);
        side->extra_cover = available < need ? available : need;
    }
    return ADMITTED;
}

static verdict_t check_quote(candidate_t *candidate, uint64_t ts_ns)
{
    const quote_t *quote = candidate->quote;
    verdict_t verdict;

    if (!shape_is_valid(quote))
        return refuse(REJECT_CODE_INVALID_QUOTE);
    if ((verdict = admit_stp(candidate->sequencer, quote->account_id, candidate->instrument, quote->stp_group_id,
                             quote->stp_mode))
            .rejected)
        return verdict;
    for (int i = 0; i < 2; i++)
        if (candidate->side[i].lots != 0 && (verdict = check_side(candidate, &candidate->side[i])).rejected)
            return verdict;
    if ((verdict = check_counts(candidate, ts_ns)).rejected)
        return verdict;
    if (candidate->record != NULL && candidate->record->in_flight == QUOTES_IN_FLIGHT_MAX)
        return refuse_at(REJECT_CODE_PENDING_REQUEST, QUOTES_IN_FLIGHT_MAX);
    if ((verdict = check_client_ids(candidate)).rejected)
        return verdict;
    if ((verdict = check_room(candidate)).rejected)
        return verdict;
    return check_funds(candidate);
}

static void write_leg(const candidate_t *candidate, const log_slot_t *quote_slot, int index, log_slot_t *slot)
{
    const side_t *side = &candidate->side[index];
    const quote_t *quote = candidate->quote;

    *slot = (log_slot_t){.session = quote_slot->session,
                         .template_id = TEMPLATE_QUOTE_LEG,
                         .version = quote_slot->version,
                         .partition = candidate->instrument->partition,
                         .flags = index == 0 ? SLOT_FLAG_MORE : 0,
                         .ingress_ns = quote_slot->ingress_ns,
                         .ts_ns = quote_slot->ts_ns + 1 + (uint64_t)index,
                         .aux = side->order_id};
    *(quote_leg_t *)slot->block = (quote_leg_t){
        .price = side->lots == 0 ? PX_NULL : side->price,
        .quantity = side->lots,
        .extra_cover = side->extra_cover,
        .cl_ord_id = side->client_id,
        .instrument_id = quote->instrument_id,
        .account_id = quote->account_id,
        .stp_group_id = candidate->sequencer->registry.accounts[quote->account_id].stp_group,
        .quote_index = candidate->record == NULL ? candidate->sequencer->quotes.used[candidate->instrument->partition]
                                                 : candidate->record->index,
        .side = side->sell ? SIDE_SELL : SIDE_BUY,
        .action = side->lots == 0 ? QUOTE_ACTION_PULL : QUOTE_ACTION_PLACE,
        .stp_mode = quote->stp_mode,
        .quote_flags = quote->quote_flags,
        .client_tag = quote->client_tag,
    };
}

uint32_t admit_quote(const sequencer_t *sequencer, const session_t *session, log_slot_t *slots, verdict_t *verdict)
{
    quote_t *quote = (quote_t *)slots[0].block;
    uint32_t account = resolve_account(sequencer, session, quote->account_id);

    if (account == 0) {
        *verdict = refuse(REJECT_CODE_INVALID_ACCOUNT);
        return 1;
    }
    quote->account_id = account;
    if (registry_instrument(&sequencer->registry, quote->instrument_id) == NULL) {
        *verdict = refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
        return 1;
    }
    candidate_t candidate = candidate_of(sequencer, quote);
    *verdict = admit_entry(sequencer, account, quote->instrument_id);
    if (!verdict->rejected && partition_is_paused(sequencer, candidate.instrument->partition))
        *verdict = refuse(REJECT_CODE_PAIR_PAUSED);
    if (!verdict->rejected)
        *verdict = check_quote(&candidate, slots[0].ts_ns);
    if (verdict->rejected)
        return 1;
    slots[0].partition = candidate.instrument->partition;
    slots[0].flags |= (uint16_t)(SLOT_FLAG_MORE | sequencer->registry.accounts[account].fee_tier << SLOT_TIER_SHIFT);
    for (int i = 0; i < 2; i++)
        write_leg(&candidate, &slots[0], i, &slots[1 + i]);
    return 3;
}
