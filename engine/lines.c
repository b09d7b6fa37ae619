/* An order's line, from its admission to its end: counted, named, linked, paid for (CORE section 4). */
#include "filters.h"

#include <string.h>

/* ---- what an order needs ------------------------------------------------------------------------------------------------------ */

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

bool hold_for_amount(const instrument_t *instrument, bool sell, int64_t ticks, int64_t amount, int64_t *units)
{
    *units = amount;
    if (!sell)
        return true;
    int128_t lots = amount / ((int128_t)ticks * instrument->quote_per_tick_lot);
    return hold_for(instrument, true, ticks, (int64_t)lots, units);
}

bool hold_for_order(const instrument_t *instrument, const new_order_single_t *order, int64_t *units)
{
    bool sell = order->side == SIDE_SELL;

    if ((order->exec_inst & EXEC_INST_QUOTE_AMOUNT) != 0)
        return hold_for_amount(instrument, sell, order->price, order->order_qty, units);
    return hold_for(instrument, sell, order->price, order->order_qty, units);
}

bool is_iceberg(const new_order_single_t *order)
{
    return order->display_qty != QTY_NULL && (order->exec_inst & EXEC_INST_DISPLAY_IS_MINIMUM) == 0 &&
           order->display_qty < order->order_qty;
}

/* A side entry at the matcher: what waits, shows slices, expires or has a peer; market orders, as one may rest in an auction. Counted
 * for all orders of lists, though not all need it. */
bool needs_extra(const new_order_single_t *order)
{
    return order->list_role != LIST_ROLE_NONE || order->ord_type != ORD_TYPE_LIMIT || is_iceberg(order) ||
           order->time_in_force == TIME_IN_FORCE_GTD || order->time_in_force == TIME_IN_FORCE_DAY;
}

int64_t available_of(const sequencer_t *sequencer, uint32_t account, uint32_t asset)
{
    const balance_t *balance = accounts_find(&sequencer->accounts, account, asset);
    return balance == NULL ? 0 : balance->available;
}

/* ---- what a line is ----------------------------------------------------------------------------------------------------------------- */

static instrument_t *instrument_of(const sequencer_t *sequencer, const order_line_t *line)
{
    return &sequencer->registry.instruments[line->instrument];
}

uint8_t line_ord_type(const orders_t *orders, const order_line_t *line)
{
    const order_terms_t *terms = orders_terms(orders, line);

    if (terms != NULL)
        return terms->ord_type;
    return (line->flags & LINE_MARKET) != 0 ? ORD_TYPE_MARKET : ORD_TYPE_LIMIT;
}

order_list_t *list_of_line(const sequencer_t *sequencer, const orders_t *orders, const order_line_t *line)
{
    const order_terms_t *terms = orders_terms(orders, line);
    return terms == NULL || terms->list == 0 ? NULL : &sequencer->lists.entries[terms->list - 1];
}

order_terms_t *line_terms(orders_t *orders, order_line_t *line)
{
    order_terms_t *terms = &orders->terms[line->id & orders->mask];

    if ((line->flags & LINE_TERMS) != 0)
        return terms;
    *terms = (order_terms_t){.stop_ticks = PX_NULL, .expire = U32_NULL, .ord_type = line_ord_type(orders, line)};
    line->flags |= LINE_TERMS;
    return terms;
}

/* The largest total of the line and of the versions on their way. */
static int64_t largest_total(const orders_t *orders, const order_line_t *line)
{
    const order_replaces_t *replaces = orders_replaces(orders, line);
    int64_t lots = line->total_lots;

    for (uint32_t i = 0; replaces != NULL && i < replaces->count; i++)
        lots = replaces->versions[i].total_lots > lots ? replaces->versions[i].total_lots : lots;
    return lots;
}

int64_t line_buys_most(const orders_t *orders, const order_line_t *line)
{
    return largest_total(orders, line) - line->filled_lots;
}

bool replace_needs(const sequencer_t *sequencer, const order_line_t *line, int64_t ticks, int64_t lots, int64_t *extra_units)
{
    const instrument_t *instrument = instrument_of(sequencer, line);
    const orders_t *orders = &sequencer->orders[instrument->partition];
    const order_replaces_t *replaces = orders_replaces(orders, line);
    int64_t highest = line->limit_ticks, most = largest_total(orders, line), need;

    *extra_units = 0;
    if ((line->flags & (LINE_OCO | LINE_AMOUNT)) != 0) /* a pair's amend only takes away; an amount never rests */
        return true;
    for (uint32_t i = 0; replaces != NULL && i < replaces->count; i++)
        highest = replaces->versions[i].limit_ticks > highest ? replaces->versions[i].limit_ticks : highest;
    if (ticks != PX_NULL && ticks > highest)
        highest = ticks;
    if (lots != QTY_NULL && lots > most)
        most = lots;
    if (!hold_for(instrument, line_sells(line), highest, most - line->filled_lots, &need))
        return false;
    *extra_units = need > line->hold_units ? need - line->hold_units : 0;
    return true;
}

/* ---- money --------------------------------------------------------------------------------------------------------------------------- */

void move_to_hold(sequencer_t *sequencer, uint32_t account, uint32_t asset, int64_t units)
{
    if (units == 0)
        return;
    balance_t *balance = accounts_find(&sequencer->accounts, account, asset);
    INVARIANT(balance != NULL);
    INVARIANT(balance->available >= units);
    balance_change(&sequencer->accounts, balance, -units, units);
}

void line_hold(sequencer_t *sequencer, order_line_t *line, int64_t units)
{
    line->hold_units += units;
    move_to_hold(sequencer, line->account, paying_asset(instrument_of(sequencer, line), line_sells(line)), units);
}

void line_release(sequencer_t *sequencer, order_line_t *line, int64_t units)
{
    if (units == 0)
        return;
    uint32_t asset = paying_asset(instrument_of(sequencer, line), line_sells(line));
    balance_t *balance = accounts_find(&sequencer->accounts, line->account, asset);
    INVARIANT(balance != NULL);
    INVARIANT(units > 0);
    INVARIANT(units <= line->hold_units);
    line->hold_units -= units;
    balance_change(&sequencer->accounts, balance, units, -units);
}

static int64_t line_need(const sequencer_t *sequencer, const order_line_t *line)
{
    int64_t need = 0;
    bool fits = hold_for(instrument_of(sequencer, line), line_sells(line), line->limit_ticks,
                         line->total_lots - line->filled_lots, &need);
    INVARIANT(fits);
    return need;
}

void line_trim(sequencer_t *sequencer, orders_t *orders, order_line_t *line)
{
    if ((line->flags & (LINE_FINAL | LINE_AMOUNT | LINE_COVERED)) != 0)
        return;
    if ((line->flags & LINE_OCO) != 0) {
        pair_trim(sequencer, list_of_line(sequencer, orders, line));
        return;
    }
    if (line->replaces != LINE_NONE)
        return;
    int64_t need = line_need(sequencer, line);
    INVARIANT(need <= line->hold_units);
    line_release(sequencer, line, line->hold_units - need);
}

static void pair_move(sequencer_t *sequencer, order_list_t *list, int64_t units)
{
    const instrument_t *instrument = &sequencer->registry.instruments[list->instrument];
    balance_t *balance = accounts_find(&sequencer->accounts, list->account, paying_asset(instrument, list->sell));

    INVARIANT(balance != NULL);
    INVARIANT(balance->available >= units);
    INVARIANT(list->hold_units + units >= 0);
    list->hold_units += units;
    balance_change(&sequencer->accounts, balance, -units, units);
}

void pair_hold(sequencer_t *sequencer, order_list_t *list, int64_t units)
{
    pair_move(sequencer, list, units);
}

/* The largest that one of the legs needs: the other ends before the second trade. More is given back; it is less for the moment
 * between a leg's fill and its peer's end. */
void pair_trim(sequencer_t *sequencer, order_list_t *list)
{
    const orders_t *orders = &sequencer->orders[list->partition];
    int64_t need = 0;

    for (uint32_t i = 0; i < list->legs; i++) {
        const order_line_t *leg = orders_line(orders, list->order_id[i]);
        if (list->order_id[i] == 0 || leg->id != list->order_id[i] || (leg->flags & LINE_OCO) == 0)
            continue;
        int64_t units = line_need(sequencer, leg);
        need = units > need ? units : need;
    }
    if (list->hold_units > need)
        pair_move(sequencer, list, need - list->hold_units);
}

/* ---- a line opens --------------------------------------------------------------------------------------------------------------------------- */

static uint16_t flags_of(const new_order_single_t *order)
{
    uint16_t flags = (uint16_t)(order->time_in_force << LINE_TIF_SHIFT);

    flags |= order->side == SIDE_SELL ? LINE_SELL : 0;
    flags |= is_market_order(order->ord_type) ? LINE_MARKET : 0;
    flags |= (order->exec_inst & EXEC_INST_QUOTE_AMOUNT) != 0 ? LINE_AMOUNT : 0;
    flags |= (order->exec_inst & EXEC_INST_POST_ONLY) != 0 ? LINE_POST_ONLY : 0;
    flags |= is_stop_order(order->ord_type) ? LINE_ALGO : 0;
    flags |= is_iceberg(order) ? LINE_ICEBERG : 0;
    flags |= needs_extra(order) ? LINE_EXTRA : 0;
    return flags;
}

/* More than a price, a quantity and what the flags say. */
static void note_terms(orders_t *orders, order_line_t *line, const line_entry_t *entry)
{
    const new_order_single_t *order = entry->order;
    bool plain = order->ord_type <= ORD_TYPE_LIMIT && order->display_qty == QTY_NULL && order->expire_time == U32_NULL &&
                 entry->details == NULL && entry->list == 0;

    if (plain)
        return;
    order_terms_t *terms = line_terms(orders, line);
    terms->list = entry->list;
    terms->stop_ticks = order->stop_px;
    terms->display_lots = is_iceberg(order) ? order->display_qty : 0;
    terms->expire = order->expire_time;
    terms->trailing_delta = order->trailing_delta;
    terms->ord_type = order->ord_type;
    terms->list_role = order->list_role;
    if (entry->details != NULL)
        memcpy(terms->text, entry->details->client_text, sizeof(terms->text));
}

static bool is_dated(const orders_t *orders, const order_line_t *line)
{
    const order_terms_t *terms = orders_terms(orders, line);
    return terms != NULL && terms->expire != U32_NULL && (line->flags & LINE_PENDING) == 0;
}

order_line_t *line_open(sequencer_t *sequencer, const line_entry_t *entry)
{
    const new_order_single_t *order = entry->order;
    registry_t *registry = &sequencer->registry;
    instrument_t *instrument = &registry->instruments[order->instrument_id];
    orders_t *orders = &sequencer->orders[instrument->partition];
    order_line_t *line = orders_take(orders, entry->order_id);

    line->limit_ticks = order->price;
    line->total_lots = order->order_qty;
    line->filled_lots = 0;
    line->hold_units = 0;
    line->client_id = order->cl_ord_id;
    line->account = order->account_id;
    line->session = entry->session;
    line->instrument = (uint16_t)order->instrument_id;
    line->flags = flags_of(order) | entry->flags;
    note_terms(orders, line, entry);
    orders_link(orders, line, registry_order_head(registry, order->account_id, instrument->partition));
    orders_register_client(orders, line, order->cl_ord_id);
    registry->accounts[order->account_id].open_orders++;
    instrument->open_orders++;
    sequencer->timed += is_dated(orders, line);
    orders->extras += (line->flags & LINE_EXTRA) != 0;
    exposure_t *exposure = exposures_obtain(&sequencer->exposures, order->account_id, order->instrument_id);
    exposure->orders++;
    exposure->algo += (line->flags & LINE_ALGO) != 0;
    exposure->icebergs += (line->flags & LINE_ICEBERG) != 0;
    exposure->buy_lots += line_buys(orders, line);
    /* Both entries, so that settling finds them: a bid at price 0 holds nothing and may come without money. */
    (void)accounts_obtain(&sequencer->accounts, order->account_id, instrument->base_asset);
    (void)accounts_obtain(&sequencer->accounts, order->account_id, instrument->quote_asset);
    return line;
}

void line_buys_changed(sequencer_t *sequencer, const orders_t *orders, const order_line_t *line, int64_t before)
{
    int64_t now = line_buys(orders, line);

    if (now != before)
        exposures_obtain(&sequencer->exposures, line->account, line->instrument)->buy_lots += now - before;
}

void line_display_changed(sequencer_t *sequencer, const orders_t *orders, order_line_t *line)
{
    const order_terms_t *terms = orders_terms(orders, line);
    bool was = (line->flags & LINE_ICEBERG) != 0;
    bool is = terms != NULL && terms->display_lots > 0 && terms->display_lots < line->total_lots;

    if (is == was || (line->flags & LINE_FINAL) != 0)
        return;
    line->flags ^= LINE_ICEBERG;
    exposures_obtain(&sequencer->exposures, line->account, line->instrument)->icebergs += is ? 1u : UINT32_MAX;
}

/* ---- a line ends ------------------------------------------------------------------------------------------------------------------------------ */

void line_maybe_free(sequencer_t *sequencer, orders_t *orders, order_line_t *line)
{
    if ((line->flags & LINE_FINAL) == 0 || line->replaces != LINE_NONE)
        return;
    orders_forget_client(orders, line, line->client_id);
    orders_unlink(orders, line, registry_order_head(&sequencer->registry, line->account, instrument_of(sequencer, line)->partition));
    orders->extras -= (line->flags & LINE_EXTRA) != 0;
    orders_free(orders, line);
}

/* A leg of `list` has ended: is there something to do? */
static void leg_ended(sequencer_t *sequencer, order_list_t *list, uint64_t order_id, bool filled, list_queue_t *due)
{
    for (uint32_t i = 0; i < list->legs; i++)
        if (list->order_id[i] == order_id)
            list->order_id[i] = 0;
    INVARIANT(list->live > 0);
    if (--list->live > 0)
        return;
    INVARIANT(list->due == LIST_NOTHING);
    list->due = list->pending > 0 && filled ? LIST_START : LIST_END;
    lists_enqueue(&sequencer->lists, due, (uint32_t)(list - sequencer->lists.entries));
}

void line_finish(sequencer_t *sequencer, orders_t *orders, order_line_t *line, bool filled, bool refused, list_queue_t *due)
{
    registry_t *registry = &sequencer->registry;
    order_list_t *list = list_of_line(sequencer, orders, line);
    exposure_t *exposure = exposures_obtain(&sequencer->exposures, line->account, line->instrument);

    INVARIANT((line->flags & LINE_FINAL) == 0);
    exposure->orders--;
    exposure->algo -= (line->flags & LINE_ALGO) != 0;
    exposure->icebergs -= (line->flags & LINE_ICEBERG) != 0;
    exposure->buy_lots -= line_buys(orders, line);
    registry->accounts[line->account].open_orders--;
    instrument_of(sequencer, line)->open_orders--;
    sequencer->timed -= is_dated(orders, line);
    line_release(sequencer, line, line->hold_units);
    line->flags |= LINE_FINAL;
    if (list != NULL && (line->flags & LINE_PENDING) == 0) {
        list->refused = refused && (list->type == LIST_TYPE_OCO || list->pending > 0);
        leg_ended(sequencer, list, line->id, filled, due);
        if ((line->flags & LINE_OCO) != 0)
            pair_trim(sequencer, list);
    }
    line_maybe_free(sequencer, orders, line);
}
