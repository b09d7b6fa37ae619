/* One command of the log, of one record or several, into the state: the only place, with settle.c, that changes it. The verdicts are
 * taken from the records. */
#include "sequencer_state.h"

#include <string.h>

static orders_t *orders_of(sequencer_t *sequencer, uint32_t instrument)
{
    return &sequencer->orders[partition_of(sequencer, instrument)];
}

/* ---- orders -------------------------------------------------------------------------------------------------------------------------- */

static void apply_order(sequencer_t *sequencer, const log_slot_t *slot, const order_details_t *details,
                        const log_slot_t *predecessor)
{
    const new_order_single_t *order = (const new_order_single_t *)slot->block;
    line_entry_t entry = {.order = order, .details = details, .order_id = slot->aux, .session = slot->session};
    int64_t hold = 0;

    bool fits = hold_for_order(&sequencer->registry.instruments[order->instrument_id], order, &hold);
    INVARIANT(fits);
    if (predecessor != NULL) {
        /* Held is what its predecessor does not leave to it; when both are settled, all that it needs. */
        entry.flags = LINE_COVERED;
        hold = (int64_t)predecessor->aux;
    }
    order_line_t *line = line_open(sequencer, &entry);
    line_hold(sequencer, line, hold);
    count_orders(&sequencer->registry.accounts[order->account_id], slot->ts_ns, 1);
}

static void apply_version(sequencer_t *sequencer, orders_t *orders, order_line_t *line, const replace_version_t *version)
{
    int64_t before = line_buys(orders, line);

    orders_push_replace(orders, line, version);
    orders_register_client(orders, line, version->client_id);
    line_buys_changed(sequencer, orders, line, before);
}

static replace_version_t newest_version(const orders_t *orders, const order_line_t *line)
{
    const order_replaces_t *replaces = orders_replaces(orders, line);

    if (replaces != NULL)
        return replaces->versions[replaces->count - 1];
    return (replace_version_t){.limit_ticks = line->limit_ticks, .total_lots = line->total_lots};
}

static void apply_replace(sequencer_t *sequencer, const log_slot_t *slot)
{
    const order_replace_request_t *request = (const order_replace_request_t *)slot->block;
    orders_t *orders = orders_of(sequencer, request->instrument_id);
    order_line_t *line = orders_line(orders, request->order_id);
    replace_version_t version = newest_version(orders, line);
    int64_t extra = 0;

    INVARIANT(line->id == request->order_id);
    bool fits = replace_needs(sequencer, line, request->price, request->order_qty, &extra);
    INVARIANT(fits);
    version.limit_ticks = request->price != PX_NULL ? request->price : version.limit_ticks;
    version.total_lots = request->order_qty != QTY_NULL ? request->order_qty : version.total_lots;
    version.display_lots = request->display_qty;
    if (version.display_lots != QTY_NULL && version.display_lots >= version.total_lots)
        version.display_lots = 0; /* it hides nothing */
    version.client_id = request->cl_ord_id;
    apply_version(sequencer, orders, line, &version);
    line_hold(sequencer, line, extra);
    if (version.display_lots != QTY_NULL && version.display_lots > 0 && (line->flags & LINE_EXTRA) == 0) {
        line->flags |= LINE_EXTRA;
        orders->extras++;
    }
    count_orders(&sequencer->registry.accounts[line->account], slot->ts_ns, 1);
}

/* A replace of the quantity alone, which never grows: the matcher refuses what would. */
static void apply_amend(sequencer_t *sequencer, const log_slot_t *slot)
{
    const order_amend_request_t *request = (const order_amend_request_t *)slot->block;
    orders_t *orders = orders_of(sequencer, request->instrument_id);
    order_line_t *line = orders_line(orders, request->order_id);
    replace_version_t version = newest_version(orders, line);

    INVARIANT(line->id == request->order_id);
    version.total_lots = request->new_qty < version.total_lots ? request->new_qty : version.total_lots;
    version.display_lots = QTY_NULL;
    version.client_id = request->cl_ord_id;
    apply_version(sequencer, orders, line, &version);
    line_terms(orders, line)->amends++;
    count_orders(&sequencer->registry.accounts[line->account], slot->ts_ns, 1);
}

static void apply_cancel(sequencer_t *sequencer, const log_slot_t *slot)
{
    const order_cancel_request_t *request = (const order_cancel_request_t *)slot->block;
    count_cancel(&sequencer->registry.accounts[request->account_id], slot->ts_ns);
}

static void apply_mass_cancel(sequencer_t *sequencer, const log_slot_t *slot)
{
    const mass_cancel_request_t *request = (const mass_cancel_request_t *)slot->block;
    account_t *account = &sequencer->registry.accounts[request->account_id];

    if (request->scope <= MASS_CANCEL_SCOPE_ACCOUNT)
        count_cancel(account, slot->ts_ns);
    if ((request->mass_flags & MASS_CANCEL_FLAGS_LOCK_ENTRY) != 0)
        account->locked = 1;
    if ((request->mass_flags & MASS_CANCEL_FLAGS_UNLOCK_ENTRY) != 0)
        account->locked = 0;
}

/* ---- quotes ---------------------------------------------------------------------------------------------------------------------------- */

static uint64_t apply_quote_leg(sequencer_t *sequencer, const log_slot_t *slot, const quote_t *quote)
{
    const quote_leg_t *leg = (const quote_leg_t *)slot->block;

    if (leg->action != QUOTE_ACTION_PLACE)
        return 0;
    const new_order_single_t order = {
        .cl_ord_id = leg->cl_ord_id,
        .price = leg->price,
        .order_qty = leg->quantity,
        .display_qty = QTY_NULL,
        .stop_px = PX_NULL,
        .expire_time = U32_NULL,
        .instrument_id = leg->instrument_id,
        .account_id = leg->account_id,
        .exec_inst = (quote->quote_flags & QUOTE_FLAGS_POST_ONLY) != 0 ? EXEC_INST_POST_ONLY : 0,
        .side = leg->side,
        .ord_type = ORD_TYPE_LIMIT,
        .time_in_force = TIME_IN_FORCE_GTC,
        .stp_mode = leg->stp_mode,
    };
    line_entry_t entry = {.order = &order, .order_id = slot->aux, .session = slot->session,
                          .flags = LINE_QUOTE | LINE_COVERED};
    line_hold(sequencer, line_open(sequencer, &entry), leg->extra_cover);
    return slot->aux;
}

static void apply_quote(sequencer_t *sequencer, const log_slot_t *slots)
{
    const quote_t *quote = (const quote_t *)slots[0].block;
    quote_record_t *record = quotes_obtain(&sequencer->quotes, partition_of(sequencer, quote->instrument_id),
                                           quote->account_id, quote->instrument_id, quote->quote_set_id);

    INVARIANT(record->in_flight < QUOTES_IN_FLIGHT_MAX);
    for (int side = 0; side < 2; side++)
        record->coming[record->in_flight][side] = apply_quote_leg(sequencer, &slots[1 + side], quote);
    record->in_flight++;
    count_orders(&sequencer->registry.accounts[quote->account_id], slots[0].ts_ns, 1);
}

/* ---- what clients ask of partition 0 alone ------------------------------------------------------------------------------------------------ */

/* Of a leg whose time has not come; of all others the matcher tells. */
static void apply_status(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    const order_status_request_t *request = (const order_status_request_t *)slot->block;
    const orders_t *orders = orders_of(sequencer, request->instrument_id);
    const order_line_t *line = orders_line(orders, request->order_id);

    if (slot->partition != PARTITION_SEQUENCER)
        return;
    order_status_t *report = report0_begin(sequencer, slot->session, TEMPLATE_ORDER_STATUS, sequence, true);
    report->request_id = request->request_id;
    report->cl_ord_id = line->client_id;
    report->order_id = line->id;
    report->exec_id = report0_exec_id(sequencer);
    report->transact_time = slot->ts_ns;
    report->ref_seq_num = slot->seq_num;
    report->price = line->limit_ticks;
    report->order_qty = line->total_lots;
    report->leaves_qty = line->total_lots;
    report->instrument_id = line->instrument;
    report->account_id = line->account;
    report->side = line_sells(line) ? SIDE_SELL : SIDE_BUY;
    report->ord_type = line_ord_type(orders, line);
    report->time_in_force = (line->flags >> LINE_TIF_SHIFT) & LINE_TIF_MASK;
    report->ord_status = ORD_STATUS_PENDING_NEW;
    report0_commit(sequencer);
}

/* ---- commands -------------------------------------------------------------------------------------------------------------------------- */

static void apply_admitted(sequencer_t *sequencer, const log_slot_t *slots, uint32_t at, int64_t sequence)
{
    const log_slot_t *slot = &slots[at];
    bool has_details = at > 0 && slots[at - 1].template_id == TEMPLATE_ORDER_DETAILS;
    bool replaces = at > 0 && slots[0].template_id == TEMPLATE_ORDER_CANCEL_REQUEST &&
                    (slots[0].flags & SLOT_FLAG_REJECT) == 0;

    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        apply_order(sequencer, slot, has_details ? (const order_details_t *)slots[at - 1].block : NULL,
                    replaces ? &slots[0] : NULL);
        break;
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        apply_cancel(sequencer, slot);
        break;
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        apply_replace(sequencer, slot);
        break;
    case TEMPLATE_ORDER_AMEND_REQUEST:
        apply_amend(sequencer, slot);
        break;
    case TEMPLATE_MASS_CANCEL_REQUEST:
        apply_mass_cancel(sequencer, slot);
        break;
    case TEMPLATE_QUOTE:
        apply_quote(sequencer, slots);
        break;
    case TEMPLATE_ORDER_STATUS_REQUEST:
        apply_status(sequencer, slot, sequence + at);
        break;
    default: /* details and a quote's sides belong to another slot; Sequence has said all it had to say */
        break;
    }
}

/* Details of an order are answered with it; alone they are a frame like any other. */
static bool is_answered(const log_slot_t *slots, uint32_t at)
{
    return slots[at].template_id != TEMPLATE_ORDER_DETAILS || (slots[at].flags & SLOT_FLAG_MORE) == 0;
}

static void apply_command(sequencer_t *sequencer, const log_slot_t *slots, uint32_t count, int64_t sequence)
{
    session_t *session = registry_session(&sequencer->registry, slots[0].session);
    int64_t limits[GROUP_SLOTS_MAX] = {0};
    uint16_t refused = 0;

    INVARIANT(session != NULL);
    for (uint32_t i = 0; i < count; i++) {
        const sequence_message_t *skip = (const sequence_message_t *)slots[i].block;
        if (slots[i].source != 0)
            session->last_incoming = slots[i].template_id == TEMPLATE_SEQUENCE ? skip->next_seq_no - 1 : slots[i].seq_num;
        refused |= slots[i].flags & SLOT_FLAG_REJECT;
    }
    if (refused != 0)
        refusal_limits(sequencer, slots, count, limits);
    if (refused == 0 && slots[0].template_id == TEMPLATE_ORDER_LIST_REQUEST) {
        apply_list(sequencer, slots, count, sequence);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (is_control(slots[i].template_id))
            control_apply(sequencer, &slots[i], sequence + i, limits[i]);
        else if ((slots[i].flags & SLOT_FLAG_REJECT) == 0)
            apply_admitted(sequencer, slots, i, sequence);
        else if (is_answered(slots, i))
            answer_refused(sequencer, &slots[i], sequence + i, limits[i]);
    }
}

/* Records the sequencer writes of itself. */
static void apply_own(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    switch (slot->template_id) {
    case TEMPLATE_SETTLED:
        lists_mark(&sequencer->lists, ((const settled_t *)slot->block)->settled_partition);
        break;
    case TEMPLATE_TICK:
        sequencer->last_tick_ts = slot->ts_ns;
        disconnect_tick(sequencer, slot->ts_ns);
        break;
    case TEMPLATE_HASH_MARK:
        sequencer->mark_index++;
        sequencer->last_hash_ts = slot->ts_ns;
        sequencer->last_hash_position = sequence + 1;
        break;
    case TEMPLATE_PAIRS_PAUSED:
        sequencer->paused |= UINT64_C(1) << ((const pairs_paused_t *)slot->block)->paused_partition;
        break;
    case TEMPLATE_PAIRS_RESUMED:
        sequencer->paused &= ~(UINT64_C(1) << ((const pairs_resumed_t *)slot->block)->resumed_partition);
        break;
    case TEMPLATE_LIST_END:
        apply_list_end(sequencer, slot, sequence);
        break;
    default: /* of no concern to the sequencer's state */
        break;
    }
}

/* Order in time, and which ingress slots the log has seen. */
static void note_record(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence)
{
    INVARIANT(sequence == sequencer->position);
    INVARIANT(slot->ts_ns > sequencer->last_ts || sequence == 0);
    if (slot->source != 0 && slot->source < SOURCES_MAX) {
        source_t *source = &sequencer->registry.sources[slot->source];
        /* The slot keeps 32 bits of the ring index; indexes only grow, so the distance widens them. */
        source->next += (int64_t)(uint32_t)(slot->src_seq - (uint32_t)source->next) + 1;
    }
    sequencer->last_ts = slot->ts_ns;
    sequencer->position = sequence + 1;
}

void apply_records(sequencer_t *sequencer, const log_slot_t *slots, uint32_t count, int64_t sequence)
{
    for (uint32_t i = 0; i < count; i++)
        note_record(sequencer, &slots[i], sequence + i);
    if (is_session_record(slots[0].template_id))
        session_apply(sequencer, &slots[0], sequence);
    else if (slots[0].session == 0)
        apply_own(sequencer, &slots[0], sequence);
    else if (slots[0].source == 0 && slots[0].template_id == TEMPLATE_MASS_CANCEL_REQUEST)
        disconnect_apply(sequencer, &slots[0]);
    else if (slots[0].source == 0)
        apply_due(sequencer, slots, count, sequence);
    else
        apply_command(sequencer, slots, count, sequence);
}
