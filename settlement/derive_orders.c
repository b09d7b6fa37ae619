/* Records of orders: what is held for them from their admission on (docs/LEDGER.md, section Holds). */
#include <string.h>

#include "derive.h"
#include "invariant.h"

/* ---- what an order may cost ------------------------------------------------------------------------------------------- */

bool ledger_worth(const ledger_instrument_t *instrument, uint8_t side, int64_t limit, int64_t lots, int64_t *units)
{
    int128_t need = side == SIDE_SELL ? (int128_t)lots * instrument->base_per_lot : (int128_t)limit * lots;

    /* In two steps, since three 64-bit factors need not fit 128 bits. */
    if (need < 0 || need >= UNITS_LIMIT)
        return false;
    if (side != SIDE_SELL)
        need *= instrument->quote_per_tick_lot;
    if (need >= UNITS_LIMIT)
        return false;
    *units = (int64_t)need;
    return true;
}

bool ledger_need(ledger_t *ledger, const open_order_t *order, int64_t *units)
{
    const ledger_instrument_t *instrument = &ledger->instruments[order->instrument];
    int64_t lots = order->total;

    *units = order->total;
    if (order->by_amount && order->side == SIDE_BUY)
        return true;
    if (order->by_amount) {
        int128_t price = (int128_t)order->limit * instrument->quote_per_tick_lot;
        if (price <= 0)
            return ledger_fail(ledger, "order %llu sells for an amount at no price", (unsigned long long)order->id);
        lots = (int64_t)(order->total / price);
    }
    if (!ledger_worth(instrument, order->side, order->limit, lots, units))
        return ledger_fail(ledger, "the hold of order %llu is no amount below 2^62", (unsigned long long)order->id);
    return true;
}

bool ledger_hold(ledger_t *ledger, open_order_t *order, int64_t units, uint64_t event_ns)
{
    posting_t posting = {.code = CODE_HOLD,
                         .slot = order->pays,
                         .available = -units,
                         .held = units,
                         .instrument = order->instrument,
                         .order_id = order->id,
                         .event_ns = event_ns};

    if (units == 0)
        return true;
    if (order->paired)
        order_list_at(&ledger->open, order->list - 1)->hold += units;
    else
        order->hold += units;
    return ledger_post(ledger, &posting);
}

/* As an entry of its own. */
static bool post_hold(ledger_t *ledger, const log_slot_t *slot, open_order_t *order, int64_t units)
{
    ledger_begin_entry(ledger, (uint64_t)ledger->position, slot->ts_ns);
    return ledger_hold(ledger, order, units, slot->ts_ns) && ledger_end_entry(ledger);
}

/* ---- new orders ------------------------------------------------------------------------------------------------------- */

static bool open_accounts(ledger_t *ledger, open_order_t *order, const ledger_instrument_t *instrument)
{
    uint8_t book = ledger_book_of(ledger, order->account);
    uint32_t base = books_open(&ledger->books, book, order->account, instrument->base_asset);
    uint32_t quote = books_open(&ledger->books, book, order->account, instrument->quote_asset);

    if (base == BOOKS_NONE || quote == BOOKS_NONE)
        return ledger_fail(ledger, "memory is short");
    order->pays = order->side == SIDE_SELL ? base : quote;
    order->gets = order->side == SIDE_SELL ? quote : base;
    return true;
}

static void fill_in(open_order_t *order, const log_slot_t *slot, const new_order_single_t *request)
{
    order->id = slot->aux;
    order->client_id = request->cl_ord_id;
    order->created_ns = slot->ts_ns;
    order->limit = request->price;
    order->total = request->order_qty;
    order->stop_price = request->stop_px;
    order->display = request->display_qty;
    order->account = request->account_id;
    order->instrument = request->instrument_id;
    order->exec_inst = request->exec_inst;
    order->expire_s = request->expire_time;
    order->trailing = request->trailing_delta;
    order->side = request->side;
    order->order_type = request->ord_type;
    order->time_in_force = request->time_in_force;
    order->status = ORD_STATUS_PENDING_NEW;
    order->by_amount = (request->exec_inst & EXEC_INST_QUOTE_AMOUNT) != 0;
    order->tier = (uint8_t)(slot->flags >> SLOT_TIER_SHIFT);
}

open_order_t *ledger_open_order(ledger_t *ledger, const log_slot_t *slot, const new_order_single_t *request)
{
    const ledger_instrument_t *instrument = ledger_instrument(ledger, request->instrument_id);

    if (instrument == NULL)
        return NULL;
    if (request->side != SIDE_BUY && request->side != SIDE_SELL) {
        ledger_fail(ledger, "an admitted order with side %u", request->side);
        return NULL;
    }
    if (slot->aux == 0 || open_orders_find(&ledger->open, instrument->partition, slot->aux) != NULL) {
        ledger_fail(ledger, "order %llu is open already", (unsigned long long)slot->aux);
        return NULL;
    }
    uint32_t place =
        pool_add(&ledger->open.orders, sizeof(open_order_t), open_order_key(instrument->partition, slot->aux));
    if (place == PLACE_NONE) {
        ledger_fail(ledger, "memory is short");
        return NULL;
    }
    open_order_t *order = open_order_at(&ledger->open, place);
    order->partition = instrument->partition;
    fill_in(order, slot, request);
    return open_accounts(ledger, order, instrument) ? order : NULL;
}

bool ledger_new_order(ledger_t *ledger, const log_slot_t *slot)
{
    open_order_t *order = ledger_open_order(ledger, slot, (const new_order_single_t *)slot->block);
    int64_t hold = ledger->group.extra;

    if (order == NULL)
        return false;
    memcpy(order->client_text, ledger->group.client_text, sizeof order->client_text);
    memset(ledger->group.client_text, 0, sizeof ledger->group.client_text);
    if (!ledger_changed(ledger, order, slot->ts_ns))
        return false;
    if (ledger->group.list != 0)
        return ledger_add_leg(ledger, slot, order);
    order->covered = ledger->group.covered;
    if (!order->covered && !ledger_need(ledger, order, &hold))
        return false;
    return post_hold(ledger, slot, order, hold);
}

bool ledger_order_details(ledger_t *ledger, const log_slot_t *slot)
{
    const order_details_t *details = (const order_details_t *)slot->block;

    memcpy(ledger->group.client_text, details->client_text, sizeof ledger->group.client_text);
    return true;
}

/* Alone it changes nothing: the report of the end does. Before a new order it lends that one what it holds. */
bool ledger_cancel_order(ledger_t *ledger, const log_slot_t *slot)
{
    ledger->group.covered = ledger->group.linked;
    ledger->group.extra = (int64_t)slot->aux;
    return true;
}

/* ---- changes ---------------------------------------------------------------------------------------------------------- */

static open_order_t *order_to_change(ledger_t *ledger, uint32_t instrument_id, uint64_t order_id)
{
    const ledger_instrument_t *instrument = ledger_instrument(ledger, instrument_id);

    if (instrument == NULL)
        return NULL;
    open_order_t *order = open_orders_find(&ledger->open, instrument->partition, order_id);
    if (order == NULL)
        ledger_fail(ledger, "a change of order %llu, which is not open", (unsigned long long)order_id);
    else if (order->version_count == VERSIONS_MAX) {
        ledger_fail(ledger, "order %llu has more than %d changes on their way", (unsigned long long)order_id, VERSIONS_MAX);
        return NULL;
    }
    return order;
}

static order_version_t newest_version(const open_order_t *order)
{
    order_version_t version = {.limit = order->limit, .total = order->total};

    if (order->version_count > 0)
        version = order->versions[order->version_count - 1];
    version.display = QTY_OPT_NULL;
    return version;
}

/* What its versions on their way could need at most, above what is held already, is held too. */
bool ledger_replace_order(ledger_t *ledger, const log_slot_t *slot)
{
    const order_replace_request_t *request = (const order_replace_request_t *)slot->block;
    open_order_t *order = order_to_change(ledger, request->instrument_id, request->order_id);
    int64_t need = 0;

    if (order == NULL)
        return false;
    order_version_t newest = newest_version(order);
    if (request->price != PX_OPT_NULL)
        newest.limit = request->price;
    if (request->order_qty != QTY_OPT_NULL)
        newest.total = request->order_qty;
    newest.display = request->display_qty;
    order->versions[order->version_count++] = newest;
    if (order->paired || order->by_amount)
        return true; /* of these nothing can grow */
    order_version_t most = {.limit = order->limit, .total = order->total};
    for (uint8_t i = 0; i < order->version_count; i++) {
        most.limit = order->versions[i].limit > most.limit ? order->versions[i].limit : most.limit;
        most.total = order->versions[i].total > most.total ? order->versions[i].total : most.total;
    }
    if (!ledger_worth(&ledger->instruments[order->instrument], order->side, most.limit, most.total - order->filled, &need))
        return ledger_fail(ledger, "the hold of order %llu is no amount below 2^62", (unsigned long long)order->id);
    return post_hold(ledger, slot, order, need > order->hold ? need - order->hold : 0);
}

/* Only ever less: nothing more is held, and nothing given back before the answer. */
bool ledger_amend_order(ledger_t *ledger, const log_slot_t *slot)
{
    const order_amend_request_t *request = (const order_amend_request_t *)slot->block;
    open_order_t *order = order_to_change(ledger, request->instrument_id, request->order_id);

    if (order == NULL)
        return false;
    order_version_t newest = newest_version(order);
    newest.total = request->new_qty < newest.total ? request->new_qty : newest.total;
    order->versions[order->version_count++] = newest;
    return true;
}

/* ---- rows of orders --------------------------------------------------------------------------------------------------- */

bool ledger_changed(ledger_t *ledger, open_order_t *order, uint64_t event_ns)
{
    order->updated_ns = event_ns;
    order->sequence = (uint64_t)ledger->position;
    order->epoch = (uint32_t)ledger->epoch;
    if (order->dirty)
        return true;
    order->dirty = true;
    uint32_t *place = row_list_push(&ledger->dirty, sizeof(uint32_t));
    if (place == NULL)
        return ledger_fail(ledger, "memory is short");
    *place = (uint32_t)(order - open_order_at(&ledger->open, 0));
    return true;
}

bool ledger_put_order_row(ledger_t *ledger, const open_order_t *order, uint16_t reason)
{
    order_row_t *row = row_list_push(&ledger->order_rows, sizeof(order_row_t));

    if (row == NULL)
        return ledger_fail(ledger, "memory is short");
    *row = (order_row_t){
        .sequence = order->sequence,
        .order_id = order->id,
        .client_id = order->client_id,
        .list_id = order->list == 0 ? 0 : order_list_at(&ledger->open, order->list - 1)->id,
        .created_ns = order->created_ns,
        .updated_ns = order->updated_ns,
        .price = order->limit,
        .stop_price = order->stop_price,
        .quantity = order->total,
        .display = order->display,
        .filled = order->filled,
        .amount = order->amount,
        .epoch = order->epoch,
        .account = order->account,
        .instrument = order->instrument,
        .exec_inst = order->exec_inst,
        .expire_s = order->expire_s,
        .reason = reason,
        .trailing = order->trailing,
        .side = order->side,
        .order_type = order->order_type,
        .time_in_force = order->time_in_force,
        .status = order->status,
        .tier = order->tier,
    };
    memcpy(row->client_text, order->client_text, sizeof row->client_text);
    return true;
}

bool ledger_end_order(ledger_t *ledger, open_order_t *order, uint64_t event_ns, uint16_t reason)
{
    if (!ledger_changed(ledger, order, event_ns) || !ledger_put_order_row(ledger, order, reason))
        return false;
    ledger_forget_order(ledger, order);
    return true;
}

void ledger_forget_order(ledger_t *ledger, open_order_t *order)
{
    if (order->list != 0)
        ledger_leave_list(ledger, order);
    order->dirty = false;
    pool_remove(&ledger->open.orders, open_order_key(order->partition, order->id));
}
