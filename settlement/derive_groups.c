/* Records of order lists and quotes: orders that come together (docs/MATCHING.md, sections 11 and 12).
 *
 * A pair holds once for both legs, as much as the one that needs more. A leg whose time has not come holds nothing. A side of a
 * quote holds what its record says, and all it needs once the answer to the quote says that it stands. */
#include <string.h>

#include "derive.h"
#include "invariant.h"

/* ---- lists ------------------------------------------------------------------------------------------------------------ */

bool ledger_begin_list(ledger_t *ledger, const log_slot_t *slot)
{
    const order_list_request_t *request = (const order_list_request_t *)slot->block;
    const ledger_instrument_t *instrument = ledger_instrument(ledger, request->instrument_id);

    if (instrument == NULL)
        return false;
    if (slot->aux == 0 || pool_find(&ledger->open.lists, slot->aux) != PLACE_NONE)
        return ledger_fail(ledger, "list %llu is there already", (unsigned long long)slot->aux);
    uint32_t place = pool_add(&ledger->open.lists, sizeof(order_list_t), slot->aux);
    if (place == PLACE_NONE)
        return ledger_fail(ledger, "memory is short");
    order_list_t *list = order_list_at(&ledger->open, place);
    *list = (order_list_t){.id = slot->aux,
                           .type = request->list_type,
                           .partition = instrument->partition,
                           .first_pending = request->list_type == LIST_TYPE_OCO ? 2 : 1};
    ledger->group.list = place + 1;
    return true;
}

/* The leg is an order from now on. */
static bool start_leg(ledger_t *ledger, const log_slot_t *slot, open_order_t *order)
{
    const order_list_t *list = order_list_at(&ledger->open, order->list - 1);
    int64_t need = 0;

    order->paired = list->type == LIST_TYPE_OCO || (list->type == LIST_TYPE_OTOCO && order->pending);
    order->pending = false;
    if (!ledger_need(ledger, order, &need))
        return false;
    if (order->paired)
        need = need > list->hold ? need - list->hold : 0;
    ledger_begin_entry(ledger, (uint64_t)ledger->position, slot->ts_ns);
    return ledger_hold(ledger, order, need, slot->ts_ns) && ledger_end_entry(ledger);
}

bool ledger_add_leg(ledger_t *ledger, const log_slot_t *slot, open_order_t *order)
{
    order_list_t *list = order_list_at(&ledger->open, ledger->group.list - 1);

    if (list->legs == LEGS_MAX)
        return ledger_fail(ledger, "list %llu has more than %d legs", (unsigned long long)list->id, LEGS_MAX);
    order->list = ledger->group.list;
    order->pending = list->legs >= list->first_pending;
    list->order_id[list->legs++] = order->id;
    return order->pending || start_leg(ledger, slot, order);
}

static open_order_t *next_pending(ledger_t *ledger, order_list_t *list)
{
    if (list->first_pending >= list->legs)
        return NULL;
    return open_orders_find(&ledger->open, list->partition, list->order_id[list->first_pending++]);
}

/* The pending leg will never be an order. */
static bool end_pending(ledger_t *ledger, open_order_t *order, uint64_t event_ns, uint8_t status, uint16_t reason)
{
    order->status = status;
    return ledger_end_order(ledger, order, event_ns, reason);
}

static bool take_next_due(ledger_t *ledger)
{
    open_orders_t *open = &ledger->open;

    if (open->due_first == 0)
        return ledger_fail(ledger, "legs of a list have become orders though no list waits for that");
    ledger->group.list = open->due_first;
    open->due_first = order_list_at(open, open->due_first - 1)->next;
    if (open->due_first == 0)
        open->due_last = 0;
    return true;
}

bool ledger_take_due(ledger_t *ledger, const log_slot_t *slot, bool first)
{
    const new_order_single_t *request = (const new_order_single_t *)slot->block;
    bool refused = (slot->flags & SLOT_FLAG_REJECT) != 0;

    if (first && !take_next_due(ledger))
        return false;
    if (slot->template_id != TEMPLATE_NEW_ORDER_SINGLE)
        return true;
    order_list_t *list = order_list_at(&ledger->open, ledger->group.list - 1);
    open_order_t *order = next_pending(ledger, list);
    if (order == NULL || order->client_id != request->cl_ord_id || (!refused && order->id != slot->aux))
        return ledger_fail(ledger, "a leg of list %llu has become an order that was none of its pending ones",
                           (unsigned long long)list->id);
    if (refused)
        return end_pending(ledger, order, slot->ts_ns, ORD_STATUS_REJECTED, (uint16_t)slot->aux);
    order->limit = request->price;
    order->expire_s = request->expire_time;
    return ledger_changed(ledger, order, slot->ts_ns) && start_leg(ledger, slot, order);
}

void ledger_leave_list(ledger_t *ledger, const open_order_t *order)
{
    open_orders_t *open = &ledger->open;
    order_list_t *list = order_list_at(open, order->list - 1);

    for (uint8_t i = 0; i < list->legs; i++)
        if (list->order_id[i] == order->id)
            list->order_id[i] = 0;
    if (order->pending || order->paired || order->status != ORD_STATUS_FILLED || list->type == LIST_TYPE_OCO)
        return;
    if (list->first_pending >= list->legs)
        return; /* a leg that was pending itself is filled */
    if (open->due_last == 0)
        open->due_first = order->list;
    else
        order_list_at(open, open->due_last - 1)->next = order->list;
    open->due_last = order->list;
}

bool ledger_end_list(ledger_t *ledger, const log_slot_t *slot)
{
    const list_end_t *end = (const list_end_t *)slot->block;
    uint32_t place = pool_find(&ledger->open.lists, end->list_id);

    if (place == PLACE_NONE)
        return ledger_fail(ledger, "the end of list %llu, which is not there", (unsigned long long)end->list_id);
    order_list_t *list = order_list_at(&ledger->open, place);
    while (list->first_pending < list->legs) {
        open_order_t *order = next_pending(ledger, list);
        if (order == NULL)
            return ledger_fail(ledger, "a pending leg of list %llu is not there", (unsigned long long)list->id);
        if (!end_pending(ledger, order, slot->ts_ns, ORD_STATUS_CANCELED, CANCEL_REASON_LIST_CANCELED))
            return false;
    }
    for (uint8_t i = 0; i < list->legs; i++)
        if (list->order_id[i] != 0)
            return ledger_fail(ledger, "list %llu has ended before its order %llu", (unsigned long long)list->id,
                               (unsigned long long)list->order_id[i]);
    if (list->hold != 0)
        return ledger_fail(ledger, "list %llu has ended with %lld units held", (unsigned long long)list->id,
                           (long long)list->hold);
    pool_remove(&ledger->open.lists, end->list_id);
    return true;
}

/* ---- quotes ----------------------------------------------------------------------------------------------------------- */

bool ledger_begin_quote(ledger_t *ledger, const log_slot_t *slot)
{
    const quote_t *quote = (const quote_t *)slot->block;

    if (ledger_instrument(ledger, quote->instrument_id) == NULL)
        return false;
    uint64_t key = open_quote_key(quote->account_id, quote->instrument_id, quote->quote_set_id);
    uint32_t place = pool_find(&ledger->open.quotes, key);
    if (place == PLACE_NONE)
        place = pool_add(&ledger->open.quotes, sizeof(open_quote_t), key);
    if (place == PLACE_NONE)
        return ledger_fail(ledger, "memory is short");
    open_quote_t *open = open_quote_at(&ledger->open, place);
    if (open->count == QUOTES_ON_THEIR_WAY_MAX)
        return ledger_fail(ledger, "account %u has more than %d quotes of a set on their way", quote->account_id,
                           QUOTES_ON_THEIR_WAY_MAX);
    memset(open->coming[open->count++], 0, sizeof open->coming[0]);
    ledger->group.quote = place + 1;
    ledger->group.quote_flags = quote->quote_flags;
    return true;
}

bool ledger_quote_side(ledger_t *ledger, const log_slot_t *slot)
{
    const quote_leg_t *leg = (const quote_leg_t *)slot->block;
    const new_order_single_t request = {
        .cl_ord_id = leg->cl_ord_id,
        .price = leg->price,
        .order_qty = leg->quantity,
        .display_qty = QTY_OPT_NULL,
        .stop_px = PX_OPT_NULL,
        .expire_time = TIME_SEC_OPT_NULL,
        .instrument_id = leg->instrument_id,
        .account_id = leg->account_id,
        .exec_inst = (ledger->group.quote_flags & QUOTE_FLAGS_POST_ONLY) != 0 ? EXEC_INST_POST_ONLY : 0,
        .side = leg->side,
        .ord_type = ORD_TYPE_LIMIT,
        .time_in_force = TIME_IN_FORCE_GTC,
    };

    if (ledger->group.quote == 0)
        return ledger_fail(ledger, "a side of a quote without its quote");
    if (leg->action != QUOTE_ACTION_PLACE)
        return true;
    open_order_t *order = ledger_open_order(ledger, slot, &request);
    if (order == NULL)
        return false;
    order->covered = true;
    order->unseen = true;
    open_quote_t *open = open_quote_at(&ledger->open, ledger->group.quote - 1);
    open->coming[open->count - 1][leg->side == SIDE_SELL] = order->id;
    ledger_begin_entry(ledger, (uint64_t)ledger->position, slot->ts_ns);
    return ledger_hold(ledger, order, leg->extra_cover, slot->ts_ns) && ledger_end_entry(ledger);
}
