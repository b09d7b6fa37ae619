/* Records that two operators have taken out of the log's effect (R10): the matcher that died on one answers it when it comes by it
 * again, and does nothing of it. Every answer releases what the sequencer has held; nothing in a book changes. Records of the
 * operator and of time have no answer. */
#include "engine/matcher_orders.h"

#include "engine/reports.h"

static void refuse_order(matcher_t *matcher, const log_slot_t *slot, const order_details_t *details)
{
    new_order_t order = new_order_of(slot, details);
    new_order_reject(matcher, &order, REJECT_CODE_QUARANTINED, 0);
}

static void refuse_request(matcher_t *matcher, uint64_t cl_ord_id, uint64_t order_id, uint32_t instrument, uint32_t account,
                           uint8_t response_to)
{
    const order_t *order = live_order(matcher, order_id);
    refusal_t refusal = {.cl_ord_id = cl_ord_id,
                         .orig_cl_ord_id = order != NULL ? order->cl_ord_id : 0,
                         .order_id = order_id,
                         .instrument = instrument,
                         .account = account,
                         .code = REJECT_CODE_QUARANTINED,
                         .response_to = response_to,
                         .status = order != NULL ? order_status(&matcher->store, order) : ORD_STATUS_REJECTED};
    report_refused(matcher, &refusal);
}

static void refuse_one(matcher_t *matcher, const log_slot_t *slot, const order_details_t *details)
{
    const void *block = slot->block;
    const order_cancel_request_t *cancel = block;
    const order_replace_request_t *replace = block;
    const order_amend_request_t *amend = block;
    const mass_cancel_request_t *mass = block;
    const order_status_request_t *status = block;
    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        refuse_order(matcher, slot, details);
        break;
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        refuse_request(matcher, cancel->cl_ord_id, cancel->order_id, cancel->instrument_id, cancel->account_id,
                       RESPONSE_TO_CANCEL);
        break;
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        refuse_request(matcher, replace->cl_ord_id, replace->order_id, replace->instrument_id, replace->account_id,
                       RESPONSE_TO_REPLACE);
        break;
    case TEMPLATE_ORDER_AMEND_REQUEST:
        refuse_request(matcher, amend->cl_ord_id, amend->order_id, amend->instrument_id, amend->account_id,
                       RESPONSE_TO_REPLACE);
        break;
    case TEMPLATE_MASS_CANCEL_REQUEST:
        refuse_request(matcher, mass->cl_ord_id, 0, mass->instrument_id, mass->account_id, RESPONSE_TO_MASS_CANCEL);
        break;
    case TEMPLATE_ORDER_STATUS_REQUEST:
        refuse_request(matcher, 0, status->order_id, status->instrument_id, status->account_id, RESPONSE_TO_CANCEL);
        break;
    default:
        break;
    }
}

void matcher_refuse_group(matcher_t *matcher, const log_slot_t *slots, uint32_t count)
{
    const order_details_t *details = NULL;
    int64_t last = matcher->state->position;
    for (uint32_t i = 0; i < count; i++) {
        const log_slot_t *slot = &slots[i];
        if (!record_is_ours(matcher, slot))
            continue;
        matcher->input.book = 0;
        speak_of(matcher, slot, last - (count - 1) + i);
        if (slot->template_id == TEMPLATE_QUOTE) {
            matcher_refuse_quote(matcher, slots);
            return;
        }
        refuse_one(matcher, slot, details);
        details = slot->template_id == TEMPLATE_ORDER_DETAILS ? (const order_details_t *)slot->block : NULL;
    }
}
