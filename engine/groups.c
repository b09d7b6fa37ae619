/* A command of one frame or of several that are linked: which frames may be, and what each is told (docs/MATCHING.md, sections 2, 10
 * and 12). */
#include "filters.h"

#include <string.h>

enum group_kind {
    GROUP_MALFORMED,
    GROUP_ORDER,
    GROUP_CANCEL_REPLACE,
    GROUP_LIST,
};

/* An order of a group, with its details if they stand before it. */
typedef struct group_order {
    uint32_t at;
    const log_slot_t *details; /* NULL = none */
} group_order_t;

/* The orders from `first` to the end; 0 if there is anything else. */
static uint32_t parse_orders(const log_slot_t *slots, uint32_t first, uint32_t count, group_order_t orders[LIST_LEGS_MAX])
{
    uint32_t found = 0, at = first;

    while (at < count && found < LIST_LEGS_MAX) {
        bool details = slots[at].template_id == TEMPLATE_ORDER_DETAILS;
        at += details;
        if (at == count || slots[at].template_id != TEMPLATE_NEW_ORDER_SINGLE)
            return 0;
        orders[found++] = (group_order_t){.at = at, .details = details ? &slots[at - 1] : NULL};
        at++;
    }
    return at == count ? found : 0;
}

static enum group_kind parse(const log_slot_t *slots, uint32_t count, group_order_t orders[LIST_LEGS_MAX], uint32_t *found)
{
    uint16_t first = slots[0].template_id;
    bool leader = first == TEMPLATE_ORDER_CANCEL_REQUEST || first == TEMPLATE_ORDER_LIST_REQUEST;

    *found = parse_orders(slots, leader ? 1 : 0, count, orders);
    if (first == TEMPLATE_ORDER_LIST_REQUEST)
        return *found >= 2 ? GROUP_LIST : GROUP_MALFORMED;
    if (*found != 1)
        return GROUP_MALFORMED;
    return leader ? GROUP_CANCEL_REPLACE : GROUP_ORDER;
}

/* ---- orders ------------------------------------------------------------------------------------------------------------------------- */

/* An order of a group. Its details are part of it, and refused as it is. */
static verdict_t admit_group_order(const sequencer_t *sequencer, log_slot_t *slots, const group_order_t *order,
                                   order_context_t *context)
{
    log_slot_t *details = order->details == NULL ? NULL : &slots[order->at - 1];
    verdict_t verdict = ADMITTED;

    context->details = NULL;
    if (details != NULL) {
        verdict = admit_frame(details, context->session);
        context->details = (const order_details_t *)details->block;
    }
    if (!verdict.rejected)
        verdict = admit_order(sequencer, &slots[order->at], context);
    if (details != NULL && !verdict.rejected)
        details->partition = slots[order->at].partition;
    return verdict;
}

/* All that is not refused already. */
static void refuse_others(verdict_t *verdicts, uint32_t count, uint16_t code)
{
    for (uint32_t i = 0; i < count; i++)
        if (!verdicts[i].rejected)
            verdicts[i] = refuse(code);
}

/* ---- cancel-replace ------------------------------------------------------------------------------------------------------------------ */

static bool same_addressee(const sequencer_t *sequencer, const session_t *session, const order_cancel_request_t *cancel,
                           const new_order_single_t *order)
{
    return cancel->instrument_id == order->instrument_id &&
           resolve_account(sequencer, session, cancel->account_id) ==
               resolve_account(sequencer, session, order->account_id);
}

static void admit_cancel_replace(const sequencer_t *sequencer, const session_t *session, log_slot_t *slots, uint32_t count,
                                 const group_order_t *order, verdict_t *verdicts)
{
    const order_cancel_request_t *cancel = (const order_cancel_request_t *)slots[0].block;
    const new_order_single_t *single = (const new_order_single_t *)slots[order->at].block;
    order_context_t context = {.session = session};

    if (!same_addressee(sequencer, session, cancel, single)) {
        refuse_others(verdicts, count, REJECT_CODE_INVALID_GROUP);
        return;
    }
    verdicts[0] = admit_cancel(sequencer, session, &slots[0], true);
    if (verdicts[0].rejected && (cancel->cancel_flags & CANCEL_FLAGS_CONTINUE_ON_FAILURE) == 0) {
        refuse_others(verdicts, count, REJECT_CODE_CANCEL_FAILED);
        return;
    }
    if (!verdicts[0].rejected) {
        const instrument_t *instrument = &sequencer->registry.instruments[cancel->instrument_id];
        const order_line_t *line = orders_line(&sequencer->orders[instrument->partition], cancel->order_id);
        context.funding = FUNDING_PREDECESSOR;
        context.known_hold = line->hold_units;
        context.known_asset = paying_asset(instrument, line_sells(line));
    }
    verdict_t verdict = admit_group_order(sequencer, slots, order, &context);
    for (uint32_t i = 1; i < count; i++)
        verdicts[i] = verdict;
    if (!verdict.rejected && !verdicts[0].rejected)
        slots[0].aux = (uint64_t)context.extra_cover;
}

/* ---- order lists ------------------------------------------------------------------------------------------------------------------------ */

static const uint8_t LIST_ROLES[][LIST_LEGS_MAX] = {
    [LIST_TYPE_OCO] = {LIST_ROLE_OCO_ABOVE, LIST_ROLE_OCO_BELOW},
    [LIST_TYPE_OTO] = {LIST_ROLE_OTO_WORKING, LIST_ROLE_OTO_PENDING},
    [LIST_TYPE_OTOCO] = {LIST_ROLE_OTOCO_WORKING, LIST_ROLE_OTOCO_PENDING_ABOVE, LIST_ROLE_OTOCO_PENDING_BELOW},
};

static bool takes_profit(const new_order_single_t *order)
{
    return order->ord_type == ORD_TYPE_TAKE_PROFIT || order->ord_type == ORD_TYPE_TAKE_PROFIT_LIMIT ||
           (order->ord_type == ORD_TYPE_LIMIT && (order->exec_inst & EXEC_INST_POST_ONLY) != 0);
}

static bool stops_loss(const new_order_single_t *order)
{
    return order->ord_type == ORD_TYPE_STOP || order->ord_type == ORD_TYPE_STOP_LIMIT;
}

/* Where a leg of a pair acts; PX_NULL = a trailing order that has no price yet. */
static int64_t leg_price(const new_order_single_t *order)
{
    return order->ord_type == ORD_TYPE_LIMIT ? order->price : order->stop_px;
}

/* A sell takes profit above and stops below, a buy the other way round. */
static verdict_t check_pair(const new_order_single_t *above, const new_order_single_t *below)
{
    bool sell = above->side == SIDE_SELL;
    const new_order_single_t *profit = sell ? above : below, *loss = sell ? below : above;
    int64_t high = leg_price(above), low = leg_price(below);

    if (above->side != below->side || above->order_qty != below->order_qty || !takes_profit(profit) || !stops_loss(loss))
        return refuse(REJECT_CODE_INVALID_ORDER_LIST);
    return high != PX_NULL && low != PX_NULL && high <= low ? refuse(REJECT_CODE_LIST_PRICE_RELATION) : ADMITTED;
}

static bool has_minimum(const log_slot_t *details, const new_order_single_t *order)
{
    return (order->exec_inst & EXEC_INST_DISPLAY_IS_MINIMUM) != 0 ||
           (details != NULL && ((const order_details_t *)details->block)->min_qty != QTY_NULL);
}

static verdict_t check_relations(const order_list_request_t *request, const log_slot_t *slots, const group_order_t *orders,
                                 uint32_t found)
{
    const new_order_single_t *leg[LIST_LEGS_MAX] = {NULL};
    bool working = request->list_type != LIST_TYPE_OCO;

    for (uint32_t i = 0; i < found; i++) {
        leg[i] = (const new_order_single_t *)slots[orders[i].at].block;
        if (leg[i]->instrument_id != request->instrument_id || leg[i]->account_id != request->account_id ||
            (leg[i]->exec_inst & EXEC_INST_QUOTE_AMOUNT) != 0 || has_minimum(orders[i].details, leg[i]))
            return refuse(REJECT_CODE_INVALID_ORDER_LIST);
    }
    if (working && (leg[0]->ord_type != ORD_TYPE_LIMIT || leg[0]->time_in_force == TIME_IN_FORCE_IOC ||
                    leg[0]->time_in_force == TIME_IN_FORCE_FOK))
        return refuse(REJECT_CODE_INVALID_ORDER_LIST);
    if (request->list_type == LIST_TYPE_OTO)
        return ADMITTED;
    return check_pair(leg[working], leg[working + 1]);
}

static verdict_t check_list_request(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot, uint32_t legs)
{
    order_list_request_t *request = (order_list_request_t *)slot->block;
    verdict_t verdict = admit_frame(slot, session);

    if (verdict.rejected)
        return verdict;
    uint32_t account = resolve_account(sequencer, session, request->account_id);
    if (account == 0)
        return refuse(REJECT_CODE_INVALID_ACCOUNT);
    request->account_id = account;
    if (registry_instrument(&sequencer->registry, request->instrument_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    uint32_t wanted = request->list_type == LIST_TYPE_OTOCO ? 3 : 2;
    return legs != wanted || request->leg_count != wanted ? refuse(REJECT_CODE_INVALID_ORDER_LIST) : ADMITTED;
}

static verdict_t check_list_counts(const sequencer_t *sequencer, const order_list_request_t *request)
{
    const instrument_t *instrument = &sequencer->registry.instruments[request->instrument_id];
    const exposure_t exposure = exposures_get(&sequencer->exposures, request->account_id, request->instrument_id);
    uint32_t cap = instrument->filters.order_lists_max;

    if (cap != 0 && exposure.lists >= cap)
        return refuse_at(REJECT_CODE_ORDER_LIST_LIMIT, cap);
    return lists_have_room(&sequencer->lists) ? ADMITTED : refuse(REJECT_CODE_LIST_CAPACITY);
}

static uint8_t funding_of(uint8_t list_type, uint32_t leg)
{
    if (list_type != LIST_TYPE_OCO)
        return leg == 0 ? FUNDING_OWN : FUNDING_LATER;
    return leg == 0 ? FUNDING_FIRST_OF_PAIR : FUNDING_SECOND_OF_PAIR;
}

static void admit_list(const sequencer_t *sequencer, const session_t *session, log_slot_t *slots, uint32_t count,
                       const group_order_t *orders, uint32_t found, verdict_t *verdicts)
{
    const order_list_request_t *request = (const order_list_request_t *)slots[0].block;
    order_context_t context = {.session = session};

    verdicts[0] = check_list_request(sequencer, session, &slots[0], found);
    for (uint32_t i = 0; i < found && !verdicts[0].rejected; i++) {
        context.list_role = LIST_ROLES[request->list_type][i];
        context.funding = funding_of(request->list_type, i);
        verdict_t *verdict = &verdicts[orders[i].at];
        *verdict = admit_group_order(sequencer, slots, &orders[i], &context);
        if (verdict->rejected) {
            refuse_others(verdicts, count, REJECT_CODE_INVALID_GROUP);
            return;
        }
    }
    if (!verdicts[0].rejected)
        verdicts[0] = check_relations(request, slots, orders, found);
    if (!verdicts[0].rejected)
        verdicts[0] = check_list_counts(sequencer, request);
    if (verdicts[0].rejected) {
        refuse_others(verdicts, count, REJECT_CODE_INVALID_GROUP);
        return;
    }
    slots[0].partition = sequencer->registry.instruments[request->instrument_id].partition;
    slots[0].aux = sequencer->lists.last_id + 1;
}

/* ---- dispatch -------------------------------------------------------------------------------------------------------------------------------- */

static verdict_t admit_single(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot)
{
    verdict_t verdict;

    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        return admit_order(sequencer, slot, &(order_context_t){.session = session});
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        return admit_cancel(sequencer, session, slot, false);
    default:
        break;
    }
    if ((slot->flags & SLOT_FLAG_REJECT) != 0)
        return refuse((uint16_t)slot->aux);
    if (is_control(slot->template_id))
        return control_admit(sequencer, slot);
    if (slot->template_id == TEMPLATE_SEQUENCE)
        return ADMITTED; /* the client skips numbers; a session message, so the requests' shape checks do not know it */
    if ((verdict = admit_frame(slot, session)).rejected)
        return verdict;
    switch (slot->template_id) {
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        return admit_replace(sequencer, session, slot);
    case TEMPLATE_ORDER_AMEND_REQUEST:
        return admit_amend(sequencer, session, slot);
    case TEMPLATE_MASS_CANCEL_REQUEST:
        return admit_mass_cancel(sequencer, session, slot);
    case TEMPLATE_ORDER_STATUS_REQUEST:
        return admit_status(sequencer, session, slot);
    case TEMPLATE_ORDER_DETAILS:
    case TEMPLATE_ORDER_LIST_REQUEST:
        return refuse(REJECT_CODE_INVALID_GROUP);
    default:
        return refuse(REJECT_CODE_UNKNOWN_TEMPLATE);
    }
}

static uint32_t admit_one(const sequencer_t *sequencer, const session_t *session, log_slot_t *slots, verdict_t *verdicts)
{
    if (slots[0].template_id != TEMPLATE_QUOTE) {
        verdicts[0] = admit_single(sequencer, session, &slots[0]);
        return 1;
    }
    verdicts[1] = verdicts[2] = ADMITTED;
    verdicts[0] = admit_frame(&slots[0], session);
    return verdicts[0].rejected ? 1 : admit_quote(sequencer, session, slots, &verdicts[0]);
}

static void admit_several(const sequencer_t *sequencer, const session_t *session, log_slot_t *slots, uint32_t count,
                          verdict_t *verdicts)
{
    group_order_t orders[LIST_LEGS_MAX];
    uint32_t found;

    switch (parse(slots, count, orders, &found)) {
    case GROUP_ORDER: {
        verdict_t verdict = admit_group_order(sequencer, slots, &orders[0], &(order_context_t){.session = session});
        verdicts[0] = verdicts[1] = verdict;
        break;
    }
    case GROUP_CANCEL_REPLACE:
        admit_cancel_replace(sequencer, session, slots, count, &orders[0], verdicts);
        break;
    case GROUP_LIST:
        admit_list(sequencer, session, slots, count, orders, found, verdicts);
        break;
    default:
        for (uint32_t i = 0; i < count; i++)
            slots[i].flags &= (uint16_t)~SLOT_FLAG_MORE;
        refuse_others(verdicts, count, REJECT_CODE_INVALID_GROUP);
        break;
    }
}

/* A refused frame stays in the log as the client sent it, though it was admitted before a later one of its group failed. */
static void restore_refused(log_slot_t *slots, const log_slot_t *originals, uint32_t count, const verdict_t *verdicts)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!verdicts[i].rejected)
            continue;
        uint16_t more = slots[i].flags & SLOT_FLAG_MORE;
        slots[i] = originals[i];
        slots[i].flags = (uint16_t)((slots[i].flags & ~SLOT_FLAG_MORE) | more);
    }
}

uint32_t admit_command(const sequencer_t *sequencer, log_slot_t *slots, uint32_t count, verdict_t *verdicts)
{
    const session_t *session = registry_session(&sequencer->registry, slots[0].session);
    log_slot_t originals[GROUP_SLOTS_MAX];

    INVARIANT(session != NULL);
    if (count == 1)
        return admit_one(sequencer, session, slots, verdicts);
    memcpy(originals, slots, count * sizeof(log_slot_t));
    for (uint32_t i = 0; i < count; i++)
        verdicts[i] = ADMITTED;
    admit_several(sequencer, session, slots, count, verdicts);
    restore_refused(slots, originals, count, verdicts);
    return count;
}

/* ---- lists that are due ------------------------------------------------------------------------------------------------------------------------ */

static log_slot_t slot_of_list(const order_list_t *list, uint16_t template_id, uint64_t ts_ns)
{
    return (log_slot_t){
        .session = list->session, .template_id = template_id, .flags = SLOT_FLAG_MORE, .ingress_ns = ts_ns, .ts_ns = ts_ns};
}

static uint32_t write_legs(const order_list_t *list, log_slot_t *slots, uint64_t ts_ns, group_order_t orders[LIST_LEGS_MAX])
{
    uint32_t count = 0;

    if (list->pending > 1) {
        slots[count] = slot_of_list(list, TEMPLATE_ORDER_LIST_REQUEST, ts_ns);
        *(order_list_request_t *)slots[count++].block =
            (order_list_request_t){.list_cl_ord_id = list->client_id, .instrument_id = list->instrument,
                                   .account_id = list->account, .list_type = LIST_TYPE_OCO, .leg_count = list->pending};
    }
    for (uint32_t i = 0; i < list->pending; i++) {
        const pending_leg_t *leg = &list->leg[i];
        const log_slot_t *details = NULL;
        if (leg->first_display != QTY_NULL) {
            slots[count] = slot_of_list(list, TEMPLATE_ORDER_DETAILS, ts_ns + count);
            *(order_details_t *)slots[count].block =
                (order_details_t){.initial_display_qty = leg->first_display, .min_qty = QTY_NULL};
            details = &slots[count++];
        }
        orders[i] = (group_order_t){.at = count, .details = details};
        slots[count] = slot_of_list(list, TEMPLATE_NEW_ORDER_SINGLE, ts_ns + count);
        memcpy(slots[count++].block, &leg->order, sizeof(leg->order));
    }
    slots[count - 1].flags = 0;
    return count;
}

uint32_t admit_due(const sequencer_t *sequencer, const order_list_t *list, uint64_t ts_ns, log_slot_t *slots,
                   verdict_t *verdicts)
{
    /* The account was checked when the list came; a client's session may act for it only. */
    const session_t session = {.account = list->account, .kind = SESSION_KIND_ORDER_ENTRY};
    order_context_t context = {.session = &session, .due = true};
    group_order_t orders[LIST_LEGS_MAX];
    uint32_t count = write_legs(list, slots, ts_ns, orders);

    for (uint32_t i = 0; i < count; i++)
        verdicts[i] = ADMITTED;
    for (uint32_t i = 0; i < list->pending; i++) {
        uint32_t at = orders[i].at;
        context.list_role = list->leg[i].order.list_role;
        context.last_id = list->order_id[list->legs - list->pending + i];
        if (list->pending > 1)
            context.funding = i == 0 ? FUNDING_FIRST_OF_PAIR : FUNDING_SECOND_OF_PAIR;
        verdicts[at] = admit_group_order(sequencer, slots, &orders[i], &context);
        if (verdicts[at].rejected) {
            refuse_others(verdicts, count, REJECT_CODE_INVALID_GROUP);
            break;
        }
    }
    if (list->pending > 1 && !verdicts[0].rejected)
        slots[0].partition = list->partition;
    return count;
}
