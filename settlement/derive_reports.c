/* Reports of the matchers, in the order in which a mark books them: fills, what is given back, what an order has become.
 *
 * Nothing is held for an order but limit x open quantity, except while replaces of it are on their way, while part of its hold is
 * its predecessor's, and for orders by amount: then only fills take from the hold (docs/LEDGER.md). Whether an order has
 * ended is told by the status in its report. */
#include <string.h>

#include "derive.h"
#include "invariant.h"
#include "orders.h"
#include "platform.h"

/* Where a report came from, for sentences about it. */
typedef struct origin {
    uint8_t partition;
    int64_t report_seq;
} origin_t;

static bool complain(ledger_t *ledger, origin_t from, const char *what, uint64_t order_id)
{
    return ledger_fail(ledger, "report %lld of partition %u: %s (order %llu)", (long long)from.report_seq, from.partition,
                       what, (unsigned long long)order_id);
}

static open_order_t *order_of(ledger_t *ledger, origin_t from, uint64_t order_id, uint32_t account)
{
    open_order_t *order = open_orders_find(&ledger->open, from.partition, order_id);

    if (order == NULL) {
        complain(ledger, from, "the order is not open", order_id);
        return NULL;
    }
    if (order->account != account) {
        complain(ledger, from, "another account than the order's", order_id);
        return NULL;
    }
    return order;
}

static bool ended(uint8_t status)
{
    return status == ORD_STATUS_FILLED || status == ORD_STATUS_CANCELED || status == ORD_STATUS_REJECTED ||
           status == ORD_STATUS_EXPIRED || status == ORD_STATUS_EXPIRED_IN_MATCH;
}

static int64_t *hold_of(ledger_t *ledger, open_order_t *order)
{
    return order->paired ? &order_list_at(&ledger->open, order->list - 1)->hold : &order->hold;
}

static bool open_need(ledger_t *ledger, const open_order_t *order, int64_t *units)
{
    return ledger_worth(&ledger->instruments[order->instrument], order->side, order->limit, order->total - order->filled,
                        units);
}

/* The larger need of those legs of a pair that go on. Between the fill of one and the end of the other it may be more than is held. */
static bool pair_surplus(ledger_t *ledger, const open_order_t *order, int64_t *units)
{
    const order_list_t *list = order_list_at(&ledger->open, order->list - 1);
    int64_t most = 0;

    for (uint8_t i = 0; i < list->legs; i++) {
        const open_order_t *leg = open_orders_find(&ledger->open, list->partition, list->order_id[i]);
        int64_t need = 0;
        if (leg == NULL || !leg->paired || (leg == order && ended(order->status)))
            continue;
        if (!open_need(ledger, leg, &need))
            return false;
        most = need > most ? need : most;
    }
    *units = list->hold > most ? list->hold - most : 0;
    return true;
}

/* What of the hold is no longer needed. False if the hold does not cover what is open. */
static bool surplus_of(ledger_t *ledger, const open_order_t *order, int64_t *units)
{
    int64_t need = 0;

    *units = 0;
    if (order->paired)
        return pair_surplus(ledger, order, units);
    if (!ended(order->status)) {
        if (order->version_count > 0 || order->by_amount || order->covered)
            return true;
        if (!open_need(ledger, order, &need))
            return false;
    }
    *units = order->hold - need;
    return *units >= 0;
}

/* The order has changed; if this was its last report it is gone now. */
static bool conclude(ledger_t *ledger, open_order_t *order, uint64_t event_ns, uint16_t reason)
{
    return ended(order->status) ? ledger_end_order(ledger, order, event_ns, reason) : ledger_changed(ledger, order, event_ns);
}

static bool release(ledger_t *ledger, open_order_t *order, int64_t units, uint64_t event_ns)
{
    posting_t posting = {.code = CODE_RELEASE,
                         .slot = order->pays,
                         .available = units,
                         .held = -units,
                         .instrument = order->instrument,
                         .order_id = order->id,
                         .event_ns = event_ns};

    if (units == 0)
        return true;
    *hold_of(ledger, order) -= units;
    return ledger_post(ledger, &posting);
}

/* Give back what is no longer held for, end the order if it has ended. */
static bool follow_up(ledger_t *ledger, origin_t from, open_order_t *order, uint64_t event_ns, uint16_t reason)
{
    int64_t surplus;

    if (!surplus_of(ledger, order, &surplus))
        return complain(ledger, from, "more is open than was held for", order->id);
    return release(ledger, order, surplus, event_ns) && conclude(ledger, order, event_ns, reason);
}

/* ---- trades ----------------------------------------------------------------------------------------------------------- */

static void put_side(trade_t *trade, const open_order_t *order, const order_executed_t *fill)
{
    if (order->side == SIDE_BUY) {
        trade->buyer = order->account;
        trade->buyer_order = order->id;
        trade->buyer_fee = fill->fee;
        trade->buyer_fee_asset = fill->fee_asset_id;
        trade->buyer_tier = order->tier;
        trade->buyer_rounding = fill->fee_rounding;
    } else {
        trade->seller = order->account;
        trade->seller_order = order->id;
        trade->seller_fee = fill->fee;
        trade->seller_fee_asset = fill->fee_asset_id;
        trade->seller_tier = order->tier;
        trade->seller_rounding = fill->fee_rounding;
    }
    if (fill->liquidity == LIQUIDITY_MAKER)
        trade->maker_side = order->side;
}

/* Both sides of a trade stand next to one another; the second one completes it. */
static bool pair(ledger_t *ledger, origin_t from, const open_order_t *order, const order_executed_t *fill, int64_t amount)
{
    half_trade_t *half = &ledger->half;

    if (!half->open) {
        *half = (half_trade_t){.open = 1, .side = order->side, .liquidity = fill->liquidity};
        half->trade = (trade_t){
            .sequence = ledger->entry.sequence,
            .event_ns = fill->transact_time,
            .trade_id = fill->trade_id,
            .price = fill->last_px,
            .quantity = fill->last_qty,
            .amount = amount,
            .epoch = (uint32_t)ledger->epoch,
            .instrument = fill->instrument_id,
        };
        put_side(&half->trade, order, fill);
        return true;
    }
    half->open = 0;
    if (half->side == order->side || half->trade.instrument != fill->instrument_id || half->trade.trade_id != fill->trade_id ||
        half->trade.price != fill->last_px || half->trade.quantity != fill->last_qty)
        return complain(ledger, from, "it is not the other side of the trade before it", order->id);
    put_side(&half->trade, order, fill);
    if (fill->liquidity == LIQUIDITY_TRANSFER)
        return true; /* quantity changed hands within a group: no trade (docs/MATCHING.md, section 7) */
    trade_t *row = row_list_push(&ledger->trades, sizeof(trade_t));
    if (row == NULL)
        return ledger_fail(ledger, "memory is short");
    *row = half->trade;
    return true;
}

typedef struct fill_amounts {
    int64_t base;
    int64_t quote;
} fill_amounts_t;

static bool amounts_of(const ledger_instrument_t *instrument, const order_executed_t *fill, fill_amounts_t *out)
{
    return fill->last_qty > 0 && ledger_worth(instrument, SIDE_SELL, fill->last_px, fill->last_qty, &out->base) &&
           ledger_worth(instrument, SIDE_BUY, fill->last_px, fill->last_qty, &out->quote);
}

static uint8_t code_of(const order_executed_t *fill)
{
    switch (fill->liquidity) {
    case LIQUIDITY_MAKER:
        return CODE_FILL_MAKER;
    case LIQUIDITY_AUCTION:
        return CODE_FILL_AUCTION;
    case LIQUIDITY_TRANSFER:
        return CODE_TRANSFER;
    default:
        return CODE_FILL_TAKER;
    }
}

/* What a fill moves: out of the hold, what of the hold goes back because the price was better, and what is received. */
typedef struct fill_moves {
    int64_t paid;
    int64_t given_back;
    int64_t got;
} fill_moves_t;

/* The two postings of a fill, one an asset. A fee stands with the asset it is paid in. */
static bool post_fill(ledger_t *ledger, const open_order_t *order, const order_executed_t *fill, const fill_moves_t *moves)
{
    bool fee_from_got = fill->fee_asset_id == books_entry(&ledger->books, order->gets)->asset;
    posting_t out = {
        .code = code_of(fill),
        .slot = order->pays,
        .available = moves->given_back,
        .held = -moves->paid - moves->given_back,
        .instrument = order->instrument,
        .order_id = order->id,
        .event_ns = fill->transact_time,
        .reference = fill->trade_id,
        .price = fill->last_px,
        .quantity = fill->last_qty,
    };
    posting_t in = out;

    in.slot = order->gets;
    in.held = 0;
    in.available = moves->got;
    posting_t *charged = fee_from_got ? &in : &out;
    charged->fee = fill->fee;
    charged->available -= fill->fee;
    return ledger_post(ledger, &out) && ledger_post(ledger, &in);
}

/* The report fits the order and is an amount of money. */
static bool check_fill(ledger_t *ledger, origin_t from, const open_order_t *order, const order_executed_t *fill,
                       fill_amounts_t *amounts)
{
    const ledger_instrument_t *instrument = &ledger->instruments[order->instrument];

    if (fill->instrument_id != order->instrument || fill->side != order->side)
        return complain(ledger, from, "another instrument or side than the order's", order->id);
    if (!amounts_of(instrument, fill, amounts))
        return complain(ledger, from, "a fill that is no amount of money", order->id);
    if (fill->fee != 0 && fill->fee_asset_id != instrument->base_asset && fill->fee_asset_id != instrument->quote_asset)
        return complain(ledger, from, "a fee in an asset that is not the pair's", order->id);
    if (fill->fee_rounding > 1)
        return complain(ledger, from, "a fee that is rounded by more than a unit", order->id);
    if (order->filled + fill->last_qty != fill->cum_qty)
        return complain(ledger, from, "the filled quantity is not what its fills add up to", order->id);
    return true;
}

static bool executed(ledger_t *ledger, origin_t from, const order_executed_t *fill)
{
    open_order_t *order = order_of(ledger, from, fill->order_id, fill->account_id);
    fill_amounts_t amounts;

    if (order == NULL || !check_fill(ledger, from, order, fill, &amounts))
        return false;
    bool sell = order->side == SIDE_SELL;
    fill_moves_t moves = {.paid = sell ? amounts.base : amounts.quote, .got = sell ? amounts.quote : amounts.base};
    int64_t *hold = hold_of(ledger, order);
    if (moves.paid > *hold)
        return complain(ledger, from, "it costs more than is held for the order", order->id);
    *hold -= moves.paid;
    order->filled += fill->last_qty;
    order->amount += amounts.quote;
    order->status = fill->ord_status;
    if (!surplus_of(ledger, order, &moves.given_back))
        return complain(ledger, from, "more is open than was held for", order->id);
    *hold -= moves.given_back;
    if (!post_fill(ledger, order, fill, &moves))
        return false;
    if (fill->fee != 0 && !ledger_charge(ledger, fill->fee_asset_id, fill->fee, fill->fee_rounding))
        return false;
    return pair(ledger, from, order, fill, amounts.quote) && conclude(ledger, order, fill->transact_time, 0);
}

/* ---- everything else about orders ------------------------------------------------------------------------------------- */

/* The oldest change on its way; the zero version if there is none. */
static order_version_t pop_version(open_order_t *order)
{
    order_version_t oldest = {.display = QTY_OPT_NULL};

    if (order->version_count == 0)
        return oldest;
    oldest = order->versions[0];
    order->version_count--;
    memmove(&order->versions[0], &order->versions[1], order->version_count * sizeof(order_version_t));
    return oldest;
}

/* An order that follows another one is a whole order now: what that one held has come back, all that this one needs is held. */
static bool complete_hold(ledger_t *ledger, origin_t from, open_order_t *order, uint64_t event_ns)
{
    int64_t need = 0;

    if (!ledger_need(ledger, order, &need))
        return false;
    order->covered = false;
    if (need > order->hold)
        return ledger_hold(ledger, order, need - order->hold, event_ns);
    if (!surplus_of(ledger, order, &need))
        return complain(ledger, from, "more is open than was held for", order->id);
    return release(ledger, order, need, event_ns);
}

static bool accepted(ledger_t *ledger, origin_t from, const order_accepted_t *report)
{
    open_order_t *order = order_of(ledger, from, report->order_id, report->account_id);

    if (order == NULL)
        return false;
    order->status = report->ord_status;
    order->time_in_force = report->time_in_force; /* a market order with GTC is IOC */
    if (order->covered && !complete_hold(ledger, from, order, report->transact_time))
        return false;
    return ledger_changed(ledger, order, report->transact_time);
}

/* The answer to a quote: which of its sides stand. */
static bool quoted(ledger_t *ledger, origin_t from, const quote_ack_t *report)
{
    uint64_t key = open_quote_key(report->account_id, report->instrument_id, report->quote_set_id);
    uint32_t place = pool_find(&ledger->open.quotes, key);
    open_quote_t *quote = place == PLACE_NONE ? NULL : open_quote_at(&ledger->open, place);
    const uint64_t standing[2] = {report->bid_order_id, report->ask_order_id};

    if (quote == NULL || quote->count == 0)
        return complain(ledger, from, "an answer to no quote", 0);
    for (int side = 0; side < 2; side++) {
        uint64_t id = quote->coming[0][side];
        open_order_t *order = id == 0 ? NULL : order_of(ledger, from, id, report->account_id);
        if (id == 0)
            continue;
        if (order == NULL)
            return false;
        if (id == standing[side]) {
            order->status = ORD_STATUS_NEW;
            order->unseen = false;
            if (!complete_hold(ledger, from, order, report->transact_time) ||
                !ledger_changed(ledger, order, report->transact_time))
                return false;
            continue;
        }
        if (!release(ledger, order, order->hold, report->transact_time))
            return false;
        ledger_forget_order(ledger, order);
    }
    quote->count--;
    memmove(quote->coming[0], quote->coming[1], quote->count * sizeof quote->coming[0]);
    return true;
}

static bool rejected(ledger_t *ledger, origin_t from, const order_rejected_t *report)
{
    open_order_t *order = order_of(ledger, from, report->order_id, report->account_id);

    if (order == NULL)
        return false;
    order->status = ORD_STATUS_REJECTED;
    return follow_up(ledger, from, order, report->transact_time, report->reject_code);
}

static bool canceled(ledger_t *ledger, origin_t from, const order_canceled_t *report)
{
    open_order_t *order = order_of(ledger, from, report->order_id, report->account_id);

    if (order == NULL)
        return false;
    if (!ended(report->ord_status))
        return complain(ledger, from, "a cancellation that does not end the order", order->id);
    if (report->cum_qty != order->filled)
        return complain(ledger, from, "the filled quantity is not what its fills add up to", order->id);
    order->status = report->ord_status;
    return follow_up(ledger, from, order, report->transact_time, report->cancel_reason);
}

/* Its limit is not the client's, and in no report. */
static bool has_protection_price(const open_order_t *order)
{
    return order->order_type == ORD_TYPE_MARKET || order->order_type == ORD_TYPE_STOP ||
           order->order_type == ORD_TYPE_TAKE_PROFIT;
}

/* The oldest change on its way is answered: these are the terms now. Or of a quote that stays, less of it is left. */
static bool replaced(ledger_t *ledger, origin_t from, const order_replaced_t *report)
{
    open_order_t *order = order_of(ledger, from, report->order_id, report->account_id);

    if (order == NULL)
        return false;
    if (report->cum_qty != order->filled)
        return complain(ledger, from, "the filled quantity is not what its fills add up to", order->id);
    order->total = report->order_qty;
    order->client_id = report->cl_ord_id;
    order->status = report->ord_status;
    if (report->restate_reason == RESTATE_REASON_CLIENT) {
        order_version_t granted = pop_version(order);
        order->display = granted.display == QTY_OPT_NULL ? order->display : granted.display;
        if (!has_protection_price(order))
            order->limit = report->price;
    }
    return follow_up(ledger, from, order, report->transact_time, 0);
}

static bool change_refused(ledger_t *ledger, origin_t from, const cancel_replace_reject_t *report)
{
    open_order_t *order = open_orders_find(&ledger->open, from.partition, report->order_id);

    /* The order may have ended before the answer: its hold went back then. */
    if (order == NULL || report->response_to != RESPONSE_TO_REPLACE)
        return true;
    (void)pop_version(order);
    return follow_up(ledger, from, order, report->transact_time, 0);
}

static bool prevented(ledger_t *ledger, origin_t from, const order_prevented_t *report)
{
    open_order_t *order = order_of(ledger, from, report->order_id, report->account_id);

    if (order == NULL)
        return false;
    if (!order->by_amount) { /* of an amount it takes nothing away that was held for */
        if (report->prevented_qty < 0 || report->prevented_qty > order->total - order->filled)
            return complain(ledger, from, "more is prevented than is open", order->id);
        order->total -= report->prevented_qty;
    }
    order->status = report->ord_status;
    return follow_up(ledger, from, order, report->transact_time, 0);
}

static bool triggered(ledger_t *ledger, origin_t from, const order_triggered_t *report)
{
    open_order_t *order = order_of(ledger, from, report->order_id, report->account_id);

    if (order == NULL)
        return false;
    order->status = ORD_STATUS_NEW;
    return ledger_changed(ledger, order, report->transact_time);
}

bool ledger_settle_report(ledger_t *ledger, uint8_t partition, int64_t report_seq, const report_slot_t *report)
{
    const origin_t from = {partition, report_seq};
    const void *block = report->block;

    if (ledger->half.open && report->template_id != TEMPLATE_ORDER_EXECUTED)
        return complain(ledger, from, "between the two sides of a trade", 0);
    switch (report->template_id) {
    case TEMPLATE_ORDER_ACCEPTED:
        return accepted(ledger, from, block);
    case TEMPLATE_ORDER_REJECTED:
        return rejected(ledger, from, block);
    case TEMPLATE_ORDER_EXECUTED:
        return executed(ledger, from, block);
    case TEMPLATE_ORDER_CANCELED:
        return canceled(ledger, from, block);
    case TEMPLATE_ORDER_REPLACED:
        return replaced(ledger, from, block);
    case TEMPLATE_CANCEL_REPLACE_REJECT:
        return change_refused(ledger, from, block);
    case TEMPLATE_ORDER_PREVENTED:
        return prevented(ledger, from, block);
    case TEMPLATE_ORDER_TRIGGERED:
        return triggered(ledger, from, block);
    case TEMPLATE_QUOTE_ACK:
        return quoted(ledger, from, block);
    case TEMPLATE_MASS_CANCEL_REPORT:
    case TEMPLATE_BUSINESS_REJECT:
    case TEMPLATE_SESSION_BOUND:
    case TEMPLATE_LIST_STATUS:
    case TEMPLATE_ORDER_STATUS:
    case TEMPLATE_AUCTION_INFO:
    case TEMPLATE_BOOK_HASH:
    case TEMPLATE_INSTRUMENT_STATE_REPORT:
        return true;
    case 0:
        return complain(ledger, from, "it is missing in the archive", 0);
    default:
        return ledger_fail(ledger, "report %lld of partition %u: template %u is not understood by this version of the ledger",
                           (long long)report_seq, partition, report->template_id);
    }
}
