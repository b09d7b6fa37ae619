/* What partition 0 answers to a request it refused: on ring 0, with the bound that was passed. */
#include "sequencer_state.h"

#include <string.h>

/* The verdict stands in the record; the bound does not. Judging again, on the same state, finds the same one, on the leader as on
 * every replica. A code the gateway gave, or an older release, is found by nobody and has no bound. */
void refusal_limits(const sequencer_t *sequencer, const log_slot_t *slots, uint32_t count, int64_t limits[GROUP_SLOTS_MAX])
{
    log_slot_t scratch[GROUP_SLOTS_MAX];
    verdict_t verdicts[GROUP_SLOTS_MAX] = {ADMITTED};
    bool due = slots[0].source == 0;

    memcpy(scratch, slots, count * sizeof(log_slot_t));
    for (uint32_t i = 0; i < count; i++)
        scratch[i].flags &= (uint16_t)~SLOT_FLAG_REJECT;
    if (due)
        (void)admit_due(sequencer, &sequencer->lists.entries[sequencer->lists.due.head - 1], slots[0].ts_ns, scratch, verdicts);
    else
        (void)admit_command(sequencer, scratch, count, verdicts);
    for (uint32_t i = 0; i < count; i++) {
        bool same = verdicts[i].rejected && verdicts[i].code == (uint16_t)slots[i].aux;
        limits[i] = same ? verdicts[i].limit : 0;
    }
}

/* A client need not name its own account. */
static uint32_t account_meant(const sequencer_t *sequencer, const log_slot_t *slot, uint32_t named)
{
    return named != 0 ? named : registry_session(&sequencer->registry, slot->session)->account;
}

void answer_order_refused(sequencer_t *sequencer, const log_slot_t *slot, uint64_t order_id, int64_t sequence, int64_t limit)
{
    const new_order_single_t *order = (const new_order_single_t *)slot->block;
    order_rejected_t *report = report0_begin(sequencer, slot->session, TEMPLATE_ORDER_REJECTED, sequence, true);

    report->cl_ord_id = order->cl_ord_id;
    report->order_id = order_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ingress_time = slot->ingress_ns;
    report->ref_seq_num = slot->seq_num;
    report->client_tag = order->client_tag;
    report->limit = limit;
    report->instrument_id = order->instrument_id;
    report->account_id = account_meant(sequencer, slot, order->account_id);
    report->reject_code = (uint16_t)slot->aux;
    report->side = order->side;
    report0_commit(sequencer);
}

/* Cancel, replace and amend requests begin with the same three fields. */
typedef struct change {
    uint64_t cl_ord_id;
    uint64_t orig_cl_ord_id;
    uint64_t order_id;
} change_t;

static void answer_change_refused(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence, int64_t limit)
{
    const order_replace_request_t *replace = (const order_replace_request_t *)slot->block;
    const order_amend_request_t *amend = (const order_amend_request_t *)slot->block;
    const order_cancel_request_t *cancel = (const order_cancel_request_t *)slot->block;
    uint16_t kind = slot->template_id;
    change_t change;
    cancel_replace_reject_t *report =
        report0_begin(sequencer, slot->session, TEMPLATE_CANCEL_REPLACE_REJECT, sequence, true);

    memcpy(&change, slot->block, sizeof(change));
    report->cl_ord_id = change.cl_ord_id;
    report->orig_cl_ord_id = change.orig_cl_ord_id == U64_NULL ? 0 : change.orig_cl_ord_id;
    report->order_id = change.order_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->limit = limit;
    report->instrument_id = kind == TEMPLATE_ORDER_REPLACE_REQUEST ? replace->instrument_id
                            : kind == TEMPLATE_ORDER_AMEND_REQUEST ? amend->instrument_id
                                                                   : cancel->instrument_id;
    report->account_id = account_meant(sequencer, slot,
                                       kind == TEMPLATE_ORDER_REPLACE_REQUEST ? replace->account_id
                                       : kind == TEMPLATE_ORDER_AMEND_REQUEST ? amend->account_id
                                                                              : cancel->account_id);
    report->reject_code = (uint16_t)slot->aux;
    report->response_to = kind == TEMPLATE_ORDER_CANCEL_REQUEST ? RESPONSE_TO_CANCEL : RESPONSE_TO_REPLACE;
    report->ord_status = ORD_STATUS_REJECTED;
    report0_commit(sequencer);
}

static void answer_mass_cancel_refused(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const mass_cancel_request_t *request = (const mass_cancel_request_t *)slot->block;
    mass_cancel_report_t *report =
        report0_begin(sequencer, slot->session, TEMPLATE_MASS_CANCEL_REPORT, sequence, true);

    report->cl_ord_id = request->cl_ord_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->instrument_id = request->instrument_id;
    report->account_id = account_meant(sequencer, slot, request->account_id);
    report->reject_code = (uint16_t)slot->aux;
    report->side = request->side;
    report->scope = request->scope;
    report0_commit(sequencer);
}

static void answer_list_refused(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const order_list_request_t *request = (const order_list_request_t *)slot->block;
    list_status_t *report = report0_begin(sequencer, slot->session, TEMPLATE_LIST_STATUS, sequence, true);

    report->list_cl_ord_id = request->list_cl_ord_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->instrument_id = request->instrument_id;
    report->account_id = account_meant(sequencer, slot, request->account_id);
    report->list_type = request->list_type;
    report->status_type = LIST_STATUS_TYPE_RESPONSE;
    report->order_status = LIST_ORDER_STATUS_REJECT;
    report->leg_count = request->leg_count;
    report->reject_code = (uint16_t)slot->aux;
    report0_commit(sequencer);
}

static void answer_quote_refused(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const quote_t *quote = (const quote_t *)slot->block;
    quote_ack_t *report = report0_begin(sequencer, slot->session, TEMPLATE_QUOTE_ACK, sequence, true);

    report->quote_id = quote->quote_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->bid_order_id = report->ask_order_id = ORDER_ID_OPT_NULL;
    report->bid_unused_id = report->ask_unused_id = ORDER_ID_OPT_NULL;
    report->instrument_id = quote->instrument_id;
    report->account_id = account_meant(sequencer, slot, quote->account_id);
    report->bid_reject_code = report->ask_reject_code = (uint16_t)slot->aux;
    report->bid_status = report->ask_status = ORD_STATUS_REJECTED;
    report->quote_set_id = quote->quote_set_id;
    report0_commit(sequencer);
}

static void answer_status_refused(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const order_status_request_t *request = (const order_status_request_t *)slot->block;
    order_status_t *report = report0_begin(sequencer, slot->session, TEMPLATE_ORDER_STATUS, sequence, true);

    report->request_id = request->request_id;
    report->cl_ord_id = request->orig_cl_ord_id == U64_NULL ? 0 : request->orig_cl_ord_id;
    report->order_id = request->order_id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->price = PX_NULL;
    report->instrument_id = request->instrument_id;
    report->account_id = account_meant(sequencer, slot, request->account_id);
    report->reject_code = (uint16_t)slot->aux;
    report->side = SIDE_BUY; /* of an order that is not there every field has to say something */
    report->ord_type = ORD_TYPE_LIMIT;
    report->time_in_force = TIME_IN_FORCE_GTC;
    report->ord_status = ORD_STATUS_REJECTED;
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
    /* Every request block but that of details begins with the client's own id. */
    if (orders_block_length(slot->template_id) != 0 && slot->template_id != TEMPLATE_ORDER_DETAILS)
        memcpy(&report->cl_ord_id, slot->block, sizeof(report->cl_ord_id));
    report0_commit(sequencer);
}

void answer_refused(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence, int64_t limit)
{
    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        answer_order_refused(sequencer, slot, U64_NULL, sequence, limit);
        break;
    case TEMPLATE_ORDER_CANCEL_REQUEST:
    case TEMPLATE_ORDER_REPLACE_REQUEST:
    case TEMPLATE_ORDER_AMEND_REQUEST:
        answer_change_refused(sequencer, slot, sequence, limit);
        break;
    case TEMPLATE_MASS_CANCEL_REQUEST:
        answer_mass_cancel_refused(sequencer, slot, sequence);
        break;
    case TEMPLATE_ORDER_LIST_REQUEST:
        answer_list_refused(sequencer, slot, sequence);
        break;
    case TEMPLATE_QUOTE:
        answer_quote_refused(sequencer, slot, sequence);
        break;
    case TEMPLATE_ORDER_STATUS_REQUEST:
        answer_status_refused(sequencer, slot, sequence);
        break;
    default:
        answer_business_reject(sequencer, slot, sequence);
        break;
    }
}
