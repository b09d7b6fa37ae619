/* Order lists into the state: a list that begins, legs whose time has come, a list that ends (docs/MATCHING.md, section 12). */
#include "sequencer_state.h"

#include <string.h>

static void answer_list(sequencer_t *sequencer, const order_list_t *list, const log_slot_t *slot, int64_t sequence,
                        uint8_t status_type, uint8_t order_status)
{
    list_status_t *report = report0_begin(sequencer, list->session, TEMPLATE_LIST_STATUS, sequence, true);

    report->list_id = list->id;
    report->list_cl_ord_id = list->client_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->instrument_id = list->instrument;
    report->account_id = list->account;
    report->list_type = list->type;
    report->status_type = status_type;
    report->order_status = order_status;
    report->leg_count = list->legs;
    report0_commit(sequencer);
}

/* ---- a list begins ----------------------------------------------------------------------------------------------------------------- */

static order_list_t *open_list(sequencer_t *sequencer, const log_slot_t *slot)
{
    const order_list_request_t *request = (const order_list_request_t *)slot->block;
    order_list_t *list = &sequencer->lists.entries[lists_take(&sequencer->lists)];

    INVARIANT(list->id == slot->aux);
    list->client_id = request->list_cl_ord_id;
    list->session = slot->session;
    list->account = request->account_id;
    list->instrument = (uint16_t)request->instrument_id;
    list->partition = partition_of(sequencer, request->instrument_id);
    list->type = request->list_type;
    list->legs = request->leg_count;
    exposures_obtain(&sequencer->exposures, list->account, list->instrument)->lists++;
    return list;
}

/* A leg that is not the matcher's yet is acknowledged by us. */
static void answer_pending(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const new_order_single_t *order = (const new_order_single_t *)slot->block;
    order_accepted_t *report = report0_begin(sequencer, slot->session, TEMPLATE_ORDER_ACCEPTED, sequence, true);

    report->cl_ord_id = order->cl_ord_id;
    report->order_id = slot->aux;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ingress_time = slot->ingress_ns;
    report->ref_seq_num = slot->seq_num;
    report->price = order->price;
    report->order_qty = order->order_qty;
    report->client_tag = order->client_tag;
    report->instrument_id = order->instrument_id;
    report->account_id = order->account_id;
    report->side = order->side;
    report->ord_type = order->ord_type;
    report->time_in_force = order->time_in_force;
    report->ord_status = ORD_STATUS_PENDING_NEW;
    report->exec_inst = order->exec_inst;
    report0_commit(sequencer);
}

static void keep_pending(order_list_t *list, const new_order_single_t *order, const order_details_t *details)
{
    pending_leg_t *leg = &list->leg[list->pending++];

    leg->order = *order;
    leg->order.max_latency_us = 0; /* it is about the client's way to us */
    leg->first_display = details == NULL ? QTY_NULL : details->initial_display_qty;
}

static order_line_t *open_leg(sequencer_t *sequencer, order_list_t *list, uint32_t leg, const log_slot_t *slot,
                              const order_details_t *details, uint16_t flags)
{
    const new_order_single_t *order = (const new_order_single_t *)slot->block;
    line_entry_t entry = {.order = order,
                          .details = details,
                          .order_id = slot->aux,
                          .session = slot->session,
                          .list = (uint32_t)(list - sequencer->lists.entries) + 1,
                          .flags = flags};

    count_orders(&sequencer->registry.accounts[order->account_id], slot->ts_ns, 1);
    list->order_id[leg] = slot->aux;
    return line_open(sequencer, &entry);
}

static int64_t need_of(const sequencer_t *sequencer, const new_order_single_t *order)
{
    int64_t need = 0;
    bool fits = hold_for_order(&sequencer->registry.instruments[order->instrument_id], order, &need);

    INVARIANT(fits);
    return need;
}

static void apply_leg(sequencer_t *sequencer, order_list_t *list, uint32_t leg, const log_slot_t *slot,
                      const order_details_t *details, int64_t sequence)
{
    const new_order_single_t *order = (const new_order_single_t *)slot->block;

    if (list->type != LIST_TYPE_OCO && leg > 0) {
        (void)open_leg(sequencer, list, leg, slot, details, LINE_PENDING);
        keep_pending(list, order, details);
        answer_pending(sequencer, slot, sequence);
        return;
    }
    list->live++;
    order_line_t *line = open_leg(sequencer, list, leg, slot, details, list->type == LIST_TYPE_OCO ? LINE_OCO : 0);
    if (list->type != LIST_TYPE_OCO)
        line_hold(sequencer, line, need_of(sequencer, order));
}

/* The larger need of a pair's legs is held once for both. */
static void hold_pair(sequencer_t *sequencer, order_list_t *list, const log_slot_t *slots, uint32_t count)
{
    int64_t most = 0;

    for (uint32_t i = 0; i < count; i++) {
        const new_order_single_t *order = (const new_order_single_t *)slots[i].block;
        if (slots[i].template_id != TEMPLATE_NEW_ORDER_SINGLE)
            continue;
        int64_t need = need_of(sequencer, order);
        most = need > most ? need : most;
        list->sell = order->side == SIDE_SELL;
    }
    pair_hold(sequencer, list, most);
}

static const order_details_t *details_before(const log_slot_t *slots, uint32_t at)
{
    bool there = at > 0 && slots[at - 1].template_id == TEMPLATE_ORDER_DETAILS;
    return there ? (const order_details_t *)slots[at - 1].block : NULL;
}

void apply_list(sequencer_t *sequencer, const log_slot_t *slots, uint32_t count, int64_t sequence)
{
    order_list_t *list = open_list(sequencer, &slots[0]);
    uint32_t leg = 0;

    answer_list(sequencer, list, &slots[0], sequence, LIST_STATUS_TYPE_EXEC_STARTED, LIST_ORDER_STATUS_EXECUTING);
    for (uint32_t i = 1; i < count; i++)
        if (slots[i].template_id == TEMPLATE_NEW_ORDER_SINGLE)
            apply_leg(sequencer, list, leg++, &slots[i], details_before(slots, i), sequence + i);
    if (list->type == LIST_TYPE_OCO)
        hold_pair(sequencer, list, slots, count);
}

/* ---- legs whose time has come -------------------------------------------------------------------------------------------------------------- */

static void start_leg(sequencer_t *sequencer, order_list_t *list, const log_slot_t *slot, bool pair)
{
    const new_order_single_t *order = (const new_order_single_t *)slot->block;
    orders_t *orders = &sequencer->orders[list->partition];
    order_line_t *line = orders_line(orders, slot->aux);

    INVARIANT(line->id == slot->aux);
    INVARIANT((line->flags & LINE_PENDING) != 0);
    line->flags &= (uint16_t)~LINE_PENDING;
    line->flags |= pair ? LINE_OCO : 0;
    line->limit_ticks = order->price;
    order_terms_t *terms = line_terms(orders, line);
    terms->expire = order->expire_time;
    sequencer->timed += terms->expire != U32_NULL;
    list->live++;
    if (!pair)
        line_hold(sequencer, line, need_of(sequencer, order));
}

static void refuse_leg(sequencer_t *sequencer, order_list_t *list, const log_slot_t *slot, uint64_t order_id, int64_t sequence,
                       int64_t limit)
{
    orders_t *orders = &sequencer->orders[list->partition];

    answer_order_refused(sequencer, slot, order_id, sequence, limit);
    line_finish(sequencer, orders, orders_line(orders, order_id), false, true, NULL);
}

void apply_due(sequencer_t *sequencer, const log_slot_t *slots, uint32_t count, int64_t sequence)
{
    lists_t *lists = &sequencer->lists;
    uint32_t index = lists->due.head - 1;
    order_list_t *list = &lists->entries[index];
    uint32_t leg = list->legs - list->pending;
    bool pair = list->pending > 1, refused = (slots[0].flags & SLOT_FLAG_REJECT) != 0;
    int64_t limits[GROUP_SLOTS_MAX] = {0};

    INVARIANT(list->due == LIST_START);
    if (refused)
        refusal_limits(sequencer, slots, count, limits);
    lists_dequeue(lists);
    for (uint32_t i = 0; i < count; i++) {
        if (slots[i].template_id != TEMPLATE_NEW_ORDER_SINGLE)
            continue;
        uint64_t order_id = list->order_id[leg];
        if (refused) {
            refuse_leg(sequencer, list, &slots[i], order_id, sequence + i, limits[i]);
            list->order_id[leg] = 0;
        } else
            start_leg(sequencer, list, &slots[i], pair);
        leg++;
    }
    list->pending = 0;
    if (refused) {
        list->due = LIST_END;
        lists_enqueue(lists, &lists->due, index);
    } else if (pair)
        hold_pair(sequencer, list, slots, count);
}

/* ---- a list ends ------------------------------------------------------------------------------------------------------------------------------ */

/* Its working leg is gone, and nothing will come of it any more. */
static void cancel_pending(sequencer_t *sequencer, order_list_t *list, const pending_leg_t *leg, uint64_t order_id,
                           const log_slot_t *slot, int64_t sequence)
{
    orders_t *orders = &sequencer->orders[list->partition];
    order_line_t *line = orders_line(orders, order_id);
    order_canceled_t *report = report0_begin(sequencer, list->session, TEMPLATE_ORDER_CANCELED, sequence, true);

    report->cl_ord_id = line->client_id;
    report->orig_cl_ord_id = line->client_id;
    report->order_id = order_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->canceled_qty = line->total_lots;
    report->client_tag = leg->order.client_tag;
    report->instrument_id = line->instrument;
    report->account_id = line->account;
    report->cancel_reason = CANCEL_REASON_LIST_CANCELED;
    report->side = leg->order.side;
    report->ord_status = ORD_STATUS_CANCELED;
    report0_commit(sequencer);
    line_finish(sequencer, orders, line, false, false, NULL);
}

void apply_list_end(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    lists_t *lists = &sequencer->lists;
    uint32_t index = lists->due.head - 1;
    order_list_t *list = &lists->entries[index];

    INVARIANT(list->due == LIST_END);
    INVARIANT(list->id == ((const list_end_t *)slot->block)->list_id);
    for (uint32_t i = 0; i < list->pending; i++)
        cancel_pending(sequencer, list, &list->leg[i], list->order_id[list->legs - list->pending + i], slot, sequence);
    answer_list(sequencer, list, slot, sequence, LIST_STATUS_TYPE_ALL_DONE,
                list->refused ? LIST_ORDER_STATUS_REJECT : LIST_ORDER_STATUS_ALL_DONE);
    exposures_obtain(&sequencer->exposures, list->account, list->instrument)->lists--;
    lists_dequeue(lists);
    lists_free(lists, index);
}
