/* One record of the log into the state: the only place, with settle.c, that changes it. The verdict is taken from the record. */
#include "sequencer_state.h"

#include <string.h>

#include "invariant.h"

static void move_to_hold(sequencer_t *sequencer, uint32_t account, uint32_t asset, int64_t units)
{
    if (units == 0)
        return;
    balance_t *balance = accounts_find(&sequencer->accounts, account, asset);
    INVARIANT(balance != NULL);
    INVARIANT(balance->available >= units);
    balance_change(&sequencer->accounts, balance, -units, units);
}

static void apply_new_order(sequencer_t *sequencer, const log_slot_t *slot)
{
    const new_order_single_t *order = (const new_order_single_t *)slot->block;
    registry_t *registry = &sequencer->registry;
    instrument_t *instrument = &registry->instruments[order->instrument_id];
    account_t *account = &registry->accounts[order->account_id];
    orders_t *orders = &sequencer->orders[instrument->partition];
    bool sell = order->side == SIDE_SELL;
    int64_t hold = 0;

    bool fits = hold_for(instrument, sell, order->price, order->order_qty, &hold);
    INVARIANT(fits);
    order_line_t *line = orders_take(orders, slot->aux);
    line->limit_ticks = order->price;
    line->total_lots = order->order_qty;
    line->filled_lots = 0;
    line->hold_units = hold;
    line->client_id = order->cl_ord_id;
    line->account = order->account_id;
    line->session = slot->session;
    line->instrument = (uint16_t)order->instrument_id;
    line->flags = (uint16_t)((sell ? LINE_SELL : 0) | (order->ord_type == ORD_TYPE_MARKET ? LINE_MARKET : 0) |
                             order->time_in_force << LINE_TIF_SHIFT);
    orders_link(orders, line, registry_order_head(registry, order->account_id, instrument->partition));
    orders_register_client(orders, line, order->cl_ord_id);
    account->open_orders++;
    instrument->open_orders++;
    move_to_hold(sequencer, order->account_id, sell ? instrument->base_asset : instrument->quote_asset, hold);
    /* Both entries, so that settling finds them: a bid at price 0 holds nothing and may come without money. */
    (void)accounts_obtain(&sequencer->accounts, order->account_id, instrument->base_asset);
    (void)accounts_obtain(&sequencer->accounts, order->account_id, instrument->quote_asset);
}

static void apply_replace(sequencer_t *sequencer, const log_slot_t *slot)
{
    const order_replace_request_t *request = (const order_replace_request_t *)slot->block;
    const instrument_t *instrument = &sequencer->registry.instruments[request->instrument_id];
    orders_t *orders = &sequencer->orders[instrument->partition];
    order_line_t *line = orders_line(orders, request->order_id);
    const order_replaces_t *replaces = orders_replaces(orders, line);
    const replace_version_t *newest = replaces == NULL ? NULL : &replaces->versions[replaces->count - 1];
    int64_t extra = 0;

    INVARIANT(line->id == request->order_id);
    bool fits = replace_needs(sequencer, line, request, &extra);
    INVARIANT(fits);
    int64_t ticks = newest == NULL ? line->limit_ticks : newest->limit_ticks;
    int64_t lots = newest == NULL ? line->total_lots : newest->total_lots;
    replace_version_t version = {
        .limit_ticks = request->price != PX_NULL ? request->price : ticks,
        .total_lots = request->order_qty != QTY_NULL ? request->order_qty : lots,
        .client_id = request->cl_ord_id,
    };
    orders_push_replace(orders, line, &version);
    orders_register_client(orders, line, request->cl_ord_id);
    line->hold_units += extra;
    bool sell = (line->flags & LINE_SELL) != 0;
    move_to_hold(sequencer, line->account, sell ? instrument->base_asset : instrument->quote_asset, extra);
}

static void answer_rejected_order(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const new_order_single_t *order = (const new_order_single_t *)slot->block;
    int64_t limit = admission_limit(sequencer, slot, (uint16_t)slot->aux);
    order_rejected_t *report = report0_begin(sequencer, slot->session, TEMPLATE_ORDER_REJECTED, sequence, true);

    report->cl_ord_id = order->cl_ord_id;
    report->order_id = U64_NULL;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ingress_time = slot->ingress_ns;
    report->ref_seq_num = slot->seq_num;
    report->client_tag = order->client_tag;
    report->limit = limit;
    report->instrument_id = order->instrument_id;
    report->account_id = order->account_id;
    report->reject_code = (uint16_t)slot->aux;
    report->side = order->side;
    report0_commit(sequencer);
}

static void answer_rejected_change(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    /* Cancel and replace requests share their first three fields; instrument and account stand elsewhere. */
    bool replace = slot->template_id == TEMPLATE_ORDER_REPLACE_REQUEST;
    const order_replace_request_t *change = (const order_replace_request_t *)slot->block;
    const order_cancel_request_t *cancel = (const order_cancel_request_t *)slot->block;
    int64_t limit = admission_limit(sequencer, slot, (uint16_t)slot->aux);
    cancel_replace_reject_t *report =
        report0_begin(sequencer, slot->session, TEMPLATE_CANCEL_REPLACE_REJECT, sequence, true);

    report->cl_ord_id = cancel->cl_ord_id;
    report->orig_cl_ord_id = cancel->orig_cl_ord_id == U64_NULL ? 0 : cancel->orig_cl_ord_id;
    report->order_id = cancel->order_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->limit = limit;
    report->instrument_id = replace ? change->instrument_id : cancel->instrument_id;
    report->account_id = replace ? change->account_id : cancel->account_id;
    report->reject_code = (uint16_t)slot->aux;
    report->response_to = replace ? RESPONSE_TO_REPLACE : RESPONSE_TO_CANCEL;
    report->ord_status = ORD_STATUS_REJECTED;
    report0_commit(sequencer);
}

static void answer_rejected_mass_cancel(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const mass_cancel_request_t *request = (const mass_cancel_request_t *)slot->block;
    mass_cancel_report_t *report =
        report0_begin(sequencer, slot->session, TEMPLATE_MASS_CANCEL_REPORT, sequence, true);

    report->cl_ord_id = request->cl_ord_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->instrument_id = request->instrument_id;
    report->account_id = request->account_id;
    report->reject_code = (uint16_t)slot->aux;
    report->side = request->side;
    report->scope = request->scope;
    report0_commit(sequencer);
}

static void answer_business_reject(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    business_reject_t *report = report0_begin(sequencer, slot->session, TEMPLATE_BUSINESS_REJECT, sequence, true);

    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->ref_template_id = slot->template_id;
    report->reject_code = (uint16_t)slot->aux;
    /* Every request block begins with the client's own id. */
    if (orders_block_length(slot->template_id) != 0)
        memcpy(&report->cl_ord_id, slot->block, sizeof(report->cl_ord_id));
    report0_commit(sequencer);
}

static void apply_rejected(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        answer_rejected_order(sequencer, slot, sequence);
        break;
    case TEMPLATE_ORDER_CANCEL_REQUEST:
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        answer_rejected_change(sequencer, slot, sequence);
        break;
    case TEMPLATE_MASS_CANCEL_REQUEST:
        answer_rejected_mass_cancel(sequencer, slot, sequence);
        break;
    default:
        answer_business_reject(sequencer, slot, sequence);
        break;
    }
}

static void apply_request(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    session_t *session = registry_session(&sequencer->registry, slot->session);
    INVARIANT(session != NULL);

    if (slot->template_id == TEMPLATE_SEQUENCE)
        session->last_incoming = ((const sequence_message_t *)slot->block)->next_seq_no - 1;
    else
        session->last_incoming = slot->seq_num;
    if (is_control(slot->template_id))
        control_apply(sequencer, slot, sequence);
    else if ((slot->flags & SLOT_FLAG_REJECT) != 0)
        apply_rejected(sequencer, slot, sequence);
    else if (slot->template_id == TEMPLATE_NEW_ORDER_SINGLE)
        apply_new_order(sequencer, slot);
    else if (slot->template_id == TEMPLATE_ORDER_REPLACE_REQUEST)
        apply_replace(sequencer, slot);
}

void apply_record(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    INVARIANT(sequence == sequencer->position);
    INVARIANT(slot->ts_ns > sequencer->last_ts || sequence == 0);
    if (slot->source != 0 && slot->source < SOURCES_MAX) {
        source_t *source = &sequencer->registry.sources[slot->source];
        /* The slot keeps 32 bits of the ring index; indexes only grow, so the distance widens them. */
        source->next += (int64_t)(uint32_t)(slot->src_seq - (uint32_t)source->next) + 1;
    }
    if (is_session_record(slot->template_id))
        session_apply(sequencer, slot, sequence);
    else if (slot->session != 0)
        apply_request(sequencer, slot, sequence);
    else if (slot->template_id == TEMPLATE_TICK)
        sequencer->last_tick_ts = slot->ts_ns;
    else if (slot->template_id == TEMPLATE_HASH_MARK) {
        sequencer->mark_index++;
        sequencer->last_hash_ts = slot->ts_ns;
        sequencer->last_hash_position = sequence + 1;
    }
    sequencer->last_ts = slot->ts_ns;
    sequencer->position = sequence + 1;
}
