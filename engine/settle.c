/* One report of a matcher into balances and order table. Additions to named entries; nothing here compares a balance or can fail
 * (CORE K4): the hold was taken at admission and the matcher never exceeds an order's cover. */
#include "sequencer_state.h"

#include "invariant.h"

static const instrument_t *instrument_of(const sequencer_t *sequencer, const order_line_t *line)
{
    return &sequencer->registry.instruments[line->instrument];
}

static uint32_t hold_asset(const sequencer_t *sequencer, const order_line_t *line)
{
    const instrument_t *instrument = instrument_of(sequencer, line);
    return (line->flags & LINE_SELL) != 0 ? instrument->base_asset : instrument->quote_asset;
}

static void give_back(sequencer_t *sequencer, order_line_t *line, int64_t units)
{
    if (units == 0)
        return;
    balance_t *balance = accounts_find(&sequencer->accounts, line->account, hold_asset(sequencer, line));
    INVARIANT(balance != NULL);
    INVARIANT(units > 0);
    INVARIANT(units <= line->hold_units);
    line->hold_units -= units;
    balance_change(&sequencer->accounts, balance, units, -units);
}

/* With no replace in flight the hold is exactly limit x open; what is above goes back. */
static void trim_hold(sequencer_t *sequencer, order_line_t *line)
{
    int64_t need = 0;

    if (line->replaces != LINE_NONE || (line->flags & LINE_FINAL) != 0)
        return;
    bool fits = hold_for(instrument_of(sequencer, line), (line->flags & LINE_SELL) != 0, line->limit_ticks,
                         line->total_lots - line->filled_lots, &need);
    INVARIANT(fits);
    INVARIANT(need <= line->hold_units);
    give_back(sequencer, line, line->hold_units - need);
}

static void maybe_free(sequencer_t *sequencer, orders_t *orders, order_line_t *line)
{
    if ((line->flags & LINE_FINAL) == 0 || line->replaces != LINE_NONE)
        return;
    registry_t *registry = &sequencer->registry;
    instrument_t *instrument = &registry->instruments[line->instrument];

    orders_forget_client(orders, line, line->client_id);
    orders_unlink(orders, line, registry_order_head(registry, line->account, instrument->partition));
    registry->accounts[line->account].open_orders--;
    instrument->open_orders--;
    orders_free(orders, line);
}

static void finish(sequencer_t *sequencer, orders_t *orders, order_line_t *line)
{
    INVARIANT((line->flags & LINE_FINAL) == 0);
    line->flags |= LINE_FINAL;
    give_back(sequencer, line, line->hold_units);
    maybe_free(sequencer, orders, line);
}

static void settle_execution(sequencer_t *sequencer, order_line_t *line, const order_executed_t *fill)
{
    instrument_t *instrument = &sequencer->registry.instruments[line->instrument];
    accounts_t *accounts = &sequencer->accounts;
    bool sell = (line->flags & LINE_SELL) != 0;
    int64_t base = fill->last_qty * instrument->base_per_lot;
    int64_t quote = fill->last_px * fill->last_qty * instrument->quote_per_tick_lot;
    int64_t cost = sell ? base : quote;
    balance_t *paid = accounts_find(accounts, line->account, sell ? instrument->base_asset : instrument->quote_asset);
    balance_t *got = accounts_find(accounts, line->account, sell ? instrument->quote_asset : instrument->base_asset);

    INVARIANT(paid != NULL);
    INVARIANT(got != NULL);
    INVARIANT(cost <= line->hold_units);
    line->filled_lots += fill->last_qty;
    line->hold_units -= cost;
    balance_change(accounts, paid, 0, -cost);
    balance_change(accounts, got, sell ? quote : base, 0);
    if (fill->fee != 0) {
        balance_t *charged = fill->fee_asset_id == got->asset ? got : paid;
        INVARIANT(charged->asset == fill->fee_asset_id);
        balance_change(accounts, charged, -fill->fee, 0);
        balance_change(accounts, accounts_obtain(accounts, ACCOUNT_VENUE, fill->fee_asset_id), fill->fee, 0);
    }
    instrument->reference_ticks = fill->last_px;
    instrument->traded = 1;
    trim_hold(sequencer, line);
}

/* An answer to the oldest replace in flight. Its client id was registered at admission; one of the two goes now. */
static void settle_replaced(sequencer_t *sequencer, orders_t *orders, order_line_t *line, const order_replaced_t *report)
{
    if (report->restate_reason != RESTATE_REASON_CLIENT)
        return;
    replace_version_t version = orders_pop_replace(orders, line);

    line->limit_ticks = report->price;
    line->total_lots = report->order_qty;
    if (version.client_id != 0) {
        orders_forget_client(orders, line, line->client_id);
        line->client_id = version.client_id;
    }
    trim_hold(sequencer, line);
}

static void settle_change_rejected(sequencer_t *sequencer, orders_t *orders, const cancel_replace_reject_t *report)
{
    order_line_t *line = orders_line(orders, report->order_id);

    if (report->response_to != RESPONSE_TO_REPLACE || line->id != report->order_id)
        return;
    replace_version_t version = orders_pop_replace(orders, line);
    orders_forget_client(orders, line, version.client_id);
    trim_hold(sequencer, line);
    maybe_free(sequencer, orders, line);
}

static order_line_t *line_of(const orders_t *orders, uint64_t order_id)
{
    order_line_t *line = orders_line(orders, order_id);
    INVARIANT(line->id == order_id);
    return line;
}

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
    case TEMPLATE_CANCEL_REPLACE_REJECT:
        return ((const cancel_replace_reject_t *)report->block)->order_id;
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
    }
    if (report->template_id == TEMPLATE_ORDER_EXECUTED) {
        const order_executed_t *fill = (const order_executed_t *)report->block;
        const instrument_t *instrument = &sequencer->registry.instruments[fill->instrument_id];
        accounts_prefetch(&sequencer->accounts, fill->account_id, instrument->base_asset);
        accounts_prefetch(&sequencer->accounts, fill->account_id, instrument->quote_asset);
    }
}

void settle_report(sequencer_t *sequencer, uint8_t partition, const report_slot_t *report)
{
    orders_t *orders = &sequencer->orders[partition];
    uint64_t order_id = order_id_of(report);
    bool final = (report->flags & REPORT_FLAG_FINAL) != 0;

    sequencer->counters[SEQUENCER_REPORTS]++;
    if (report->template_id == TEMPLATE_INSTRUMENT_STATE_REPORT) {
        const instrument_state_report_t *state = (const instrument_state_report_t *)report->block;
        sequencer->registry.instruments[state->instrument_id].state = state->state;
    }
    if (order_id == 0)
        return;
    if (report->template_id == TEMPLATE_CANCEL_REPLACE_REJECT) {
        settle_change_rejected(sequencer, orders, (const cancel_replace_reject_t *)report->block);
        return;
    }
    order_line_t *line = line_of(orders, order_id);
    switch (report->template_id) {
    case TEMPLATE_ORDER_EXECUTED:
        settle_execution(sequencer, line, (const order_executed_t *)report->block);
        break;
    case TEMPLATE_ORDER_REPLACED:
        settle_replaced(sequencer, orders, line, (const order_replaced_t *)report->block);
        break;
    case TEMPLATE_ORDER_PREVENTED:
        line->total_lots -= ((const order_prevented_t *)report->block)->prevented_qty;
        trim_hold(sequencer, line);
        break;
    default:
        break;
    }
    if (final)
        finish(sequencer, orders, line);
}
