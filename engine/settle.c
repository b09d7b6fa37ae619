/* One report of a matcher into balances and order table. Additions to named entries; nothing here compares a balance or can fail
 * (CORE K4): the hold was taken at admission and the matcher never exceeds an order's cover. */
#include "sequencer_state.h"

static order_line_t *line_of(const orders_t *orders, uint64_t order_id)
{
    order_line_t *line = orders_line(orders, order_id);
    INVARIANT(line->id == order_id);
    return line;
}

/* ---- trades ------------------------------------------------------------------------------------------------------------------------ */

/* A fee is what is charged to somebody: what only rounding made of it goes to the account that collects it, the rest to the venue. */
static void charge_fee(accounts_t *accounts, balance_t *charged, const order_executed_t *fill)
{
    INVARIANT(charged->asset == fill->fee_asset_id);
    balance_change(accounts, charged, -fill->fee, 0);
    balance_change(accounts, accounts_obtain(accounts, ACCOUNT_VENUE, fill->fee_asset_id), fill->fee - fill->fee_rounding, 0);
    if (fill->fee_rounding != 0)
        balance_change(accounts, accounts_obtain(accounts, ACCOUNT_DUST, fill->fee_asset_id), fill->fee_rounding, 0);
}

/* The first fill of an order gives it back to the limits of its account. */
static void give_back_rate(account_t *account)
{
    account->rate_count[RATE_ORDERS_10S] -= account->rate_count[RATE_ORDERS_10S] > 0;
    account->rate_count[RATE_ORDERS_DAY] -= account->rate_count[RATE_ORDERS_DAY] > 0;
}

static void settle_execution(sequencer_t *sequencer, orders_t *orders, order_line_t *line, const order_executed_t *fill)
{
    instrument_t *instrument = &sequencer->registry.instruments[line->instrument];
    accounts_t *accounts = &sequencer->accounts;
    bool sell = line_sells(line);
    int64_t base = fill->last_qty * instrument->base_per_lot;
    int64_t quote = fill->last_px * fill->last_qty * instrument->quote_per_tick_lot;
    int64_t cost = sell ? base : quote, bought = line_buys(orders, line);
    int64_t *hold =
        (line->flags & LINE_OCO) != 0 ? &list_of_line(sequencer, orders, line)->hold_units : &line->hold_units;
    balance_t *paid = accounts_find(accounts, line->account, sell ? instrument->base_asset : instrument->quote_asset);
    balance_t *got = accounts_find(accounts, line->account, sell ? instrument->quote_asset : instrument->base_asset);

    INVARIANT(paid != NULL);
    INVARIANT(got != NULL);
    INVARIANT(cost <= *hold);
    if (line->filled_lots == 0 && (line->flags & LINE_QUOTE) == 0)
        give_back_rate(&sequencer->registry.accounts[line->account]);
    line->filled_lots += fill->last_qty;
    *hold -= cost;
    balance_change(accounts, paid, 0, -cost);
    balance_change(accounts, got, sell ? quote : base, 0);
    if (fill->fee != 0)
        charge_fee(accounts, fill->fee_asset_id == got->asset ? got : paid, fill);
    if (fill->liquidity != LIQUIDITY_TRANSFER) {
        instrument->reference_ticks = fill->last_px;
        instrument->traded = 1;
    }
    line_buys_changed(sequencer, orders, line, bought);
    line_trim(sequencer, orders, line);
}

static void settle_prevention(sequencer_t *sequencer, orders_t *orders, order_line_t *line, const order_prevented_t *report)
{
    int64_t bought = line_buys(orders, line);

    if ((line->flags & LINE_AMOUNT) == 0)
        line->total_lots -= report->prevented_qty;
    line_display_changed(sequencer, orders, line);
    line_buys_changed(sequencer, orders, line, bought);
    line_trim(sequencer, orders, line);
}

/* ---- changes ------------------------------------------------------------------------------------------------------------------------- */

/* An answer to the oldest replace in flight, or what a quote left standing. A client id was registered at admission; of the old one
 * and the new one, one goes now. */
static void settle_replaced(sequencer_t *sequencer, orders_t *orders, order_line_t *line, const order_replaced_t *report)
{
    int64_t bought = line_buys(orders, line);

    line->total_lots = report->order_qty;
    if (report->restate_reason == RESTATE_REASON_CLIENT) {
        replace_version_t version = orders_pop_replace(orders, line);
        if ((line->flags & LINE_MARKET) == 0)
            line->limit_ticks = report->price;
        if (version.display_lots != QTY_NULL)
            line_terms(orders, line)->display_lots = version.display_lots;
        if (version.client_id != 0) {
            orders_forget_client(orders, line, line->client_id);
            line->client_id = version.client_id;
        }
    }
    line_display_changed(sequencer, orders, line);
    line_buys_changed(sequencer, orders, line, bought);
    line_trim(sequencer, orders, line);
}

static void settle_change_rejected(sequencer_t *sequencer, orders_t *orders, const cancel_replace_reject_t *report)
{
    order_line_t *line = orders_line(orders, report->order_id);

    if (report->response_to != RESPONSE_TO_REPLACE || line->id != report->order_id)
        return;
    int64_t bought = line_buys(orders, line);
    replace_version_t version = orders_pop_replace(orders, line);
    orders_forget_client(orders, line, version.client_id);
    line_buys_changed(sequencer, orders, line, bought);
    line_trim(sequencer, orders, line);
    line_maybe_free(sequencer, orders, line);
}

/* ---- covered orders --------------------------------------------------------------------------------------------------------------------- */

/* The matcher found the order covered: what its predecessor held is available again, and all that it needs is held now. */
static void complete_hold(sequencer_t *sequencer, orders_t *orders, order_line_t *line)
{
    const instrument_t *instrument = &sequencer->registry.instruments[line->instrument];
    int64_t need = 0;

    line->flags &= (uint16_t)~LINE_COVERED;
    bool fits = (line->flags & LINE_AMOUNT) != 0
                    ? hold_for_amount(instrument, line_sells(line), line->limit_ticks, line->total_lots, &need)
                    : hold_for(instrument, line_sells(line), line->limit_ticks, line->total_lots, &need);
    INVARIANT(fits);
    INVARIANT(line->replaces == LINE_NONE || line->hold_units >= need);
    if (need > line->hold_units)
        line_hold(sequencer, line, need - line->hold_units);
    else
        line_trim(sequencer, orders, line);
}

/* What a quote came to: of each order that was on its way, whether it stands. */
static void settle_quote(sequencer_t *sequencer, orders_t *orders, uint8_t partition, const quote_ack_t *report)
{
    quote_record_t *record =
        quotes_find(&sequencer->quotes, report->account_id, report->instrument_id, report->quote_set_id);
    const uint64_t standing[2] = {report->bid_order_id, report->ask_order_id};

    INVARIANT(record != NULL);
    INVARIANT(record->in_flight > 0);
    for (int side = 0; side < 2; side++) {
        uint64_t coming = record->coming[0][side];
        record->standing[side] = standing[side] == ORDER_ID_OPT_NULL ? 0 : standing[side];
        if (coming == 0)
            continue;
        if (coming == standing[side])
            complete_hold(sequencer, orders, line_of(orders, coming));
        else
            line_finish(sequencer, orders, line_of(orders, coming), false, true, &sequencer->lists.settled[partition]);
    }
    record->in_flight--;
    for (uint32_t i = 0; i < record->in_flight; i++)
        for (int side = 0; side < 2; side++)
            record->coming[i][side] = record->coming[i + 1][side];
}

/* ---- reports ---------------------------------------------------------------------------------------------------------------------------- */

/* Order id and account stand at different offsets of the reports that concern an order. 0 = no order. */
static uint64_t order_id_of(const report_slot_t *report)
{
    switch (report->template_id) {
    case TEMPLATE_ORDER_EXECUTED:
        return ((const order_executed_t *)report->block)->order_id;
    case TEMPLATE_ORDER_CANCELED:
        return ((const order_canceled_t *)report->block)->order_id;
    case TEMPLATE_ORDER_REPLACED:
        return ((const order_replaced_t *)report->block)->order_id;
    case TEMPLATE_ORDER_REJECTED:
        return ((const order_rejected_t *)report->block)->order_id;
    case TEMPLATE_ORDER_PREVENTED:
        return ((const order_prevented_t *)report->block)->order_id;
    case TEMPLATE_ORDER_TRIGGERED:
        return ((const order_triggered_t *)report->block)->order_id;
    case TEMPLATE_CANCEL_REPLACE_REJECT:
        return ((const cancel_replace_reject_t *)report->block)->order_id;
    case TEMPLATE_ORDER_ACCEPTED: /* nothing changes, but for an order that was waiting for its predecessor's money */
        return (report->flags & REPORT_FLAG_COVERED) == 0 ? 0 : ((const order_accepted_t *)report->block)->order_id;
    default:
        return 0;
    }
}

void settle_prefetch(const sequencer_t *sequencer, uint8_t partition, const report_slot_t *report)
{
    uint64_t order_id = order_id_of(report);
    if (order_id == 0)
        return;
    const orders_t *orders = &sequencer->orders[partition];
    PREFETCH(orders_line(orders, order_id));
    if (report->template_id == TEMPLATE_ORDER_REPLACED) {
        const order_replaced_t *replaced = (const order_replaced_t *)report->block;
        orders_prefetch_client(orders, replaced->account_id, replaced->instrument_id, replaced->orig_cl_ord_id);
    } else if (report->template_id == TEMPLATE_ORDER_CANCELED) {
        const order_canceled_t *canceled = (const order_canceled_t *)report->block;
        orders_prefetch_client(orders, canceled->account_id, canceled->instrument_id, canceled->orig_cl_ord_id);
        exposures_prefetch(&sequencer->exposures, canceled->account_id, canceled->instrument_id);
    }
    if (report->template_id == TEMPLATE_ORDER_EXECUTED) {
        const order_executed_t *fill = (const order_executed_t *)report->block;
        const instrument_t *instrument = &sequencer->registry.instruments[fill->instrument_id];
        accounts_prefetch(&sequencer->accounts, fill->account_id, instrument->base_asset);
        accounts_prefetch(&sequencer->accounts, fill->account_id, instrument->quote_asset);
        exposures_prefetch(&sequencer->exposures, fill->account_id, fill->instrument_id);
    }
}

static void settle_order(sequencer_t *sequencer, orders_t *orders, order_line_t *line, const report_slot_t *report)
{
    switch (report->template_id) {
    case TEMPLATE_ORDER_ACCEPTED:
        complete_hold(sequencer, orders, line);
        break;
    case TEMPLATE_ORDER_EXECUTED:
        settle_execution(sequencer, orders, line, (const order_executed_t *)report->block);
        break;
    case TEMPLATE_ORDER_REPLACED:
        settle_replaced(sequencer, orders, line, (const order_replaced_t *)report->block);
        break;
    case TEMPLATE_ORDER_PREVENTED:
        settle_prevention(sequencer, orders, line, (const order_prevented_t *)report->block);
        break;
    case TEMPLATE_ORDER_TRIGGERED:
        line_terms(orders, line)->triggered = 1;
        break;
    default:
        break;
    }
}

void settle_report(sequencer_t *sequencer, uint8_t partition, const report_slot_t *report)
{
    orders_t *orders = &sequencer->orders[partition];
    uint64_t order_id = order_id_of(report);

    sequencer->counters[SEQUENCER_REPORTS]++;
    if (report->template_id == TEMPLATE_INSTRUMENT_STATE_REPORT) {
        const instrument_state_report_t *state = (const instrument_state_report_t *)report->block;
        sequencer->registry.instruments[state->instrument_id].state = state->state;
    } else if (report->template_id == TEMPLATE_QUOTE_ACK)
        settle_quote(sequencer, orders, partition, (const quote_ack_t *)report->block);
    if (order_id == 0)
        return;
    if (report->template_id == TEMPLATE_CANCEL_REPLACE_REJECT) {
        settle_change_rejected(sequencer, orders, (const cancel_replace_reject_t *)report->block);
        return;
    }
    order_line_t *line = line_of(orders, order_id);
    settle_order(sequencer, orders, line, report);
    if ((report->flags & REPORT_FLAG_FINAL) != 0)
        line_finish(sequencer, orders, line, report->template_id == TEMPLATE_ORDER_EXECUTED,
                    report->template_id == TEMPLATE_ORDER_REJECTED, &sequencer->lists.settled[partition]);
}
