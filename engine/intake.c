/* The sequencer takes commands from the ingress rings: which frames belong together, whether they are the ones that come next, what
 * becomes of them in the log (CORE sections 3 and 7). */
#include "sequencer_state.h"

#define INGRESS_AHEAD 8   /* slots looked ahead when warming caches */
#define PUBLISH_GROUPS 16 /* commands between publishes of the log while busy */

static void not_applied(sequencer_t *sequencer, const log_slot_t *slot, const session_t *session)
{
    not_applied_t *reply = reply_begin(sequencer, slot->session, TEMPLATE_NOT_APPLIED);

    reply->from_seq_no = session->last_incoming + 1;
    reply->count = (uint32_t)(slot->seq_num - session->last_incoming - 1);
    sequencer->counters[SEQUENCER_GAPS]++;
}

/* The exactly-once rule (CORE section 7): bound to this source, and exactly the next number. */
static bool admissible(sequencer_t *sequencer, const log_slot_t *slot, uint16_t source)
{
    const session_t *session = registry_session(&sequencer->registry, slot->session);

    if (session == NULL || !session->bound || session->source != source) {
        sequencer->counters[SEQUENCER_NOT_BOUND]++;
        return false;
    }
    if (slot->template_id == TEMPLATE_SEQUENCE)
        return ((const sequence_message_t *)slot->block)->next_seq_no > session->last_incoming + 1;
    if (slot->seq_num <= session->last_incoming) {
        sequencer->counters[SEQUENCER_DUPLICATES]++;
        return false;
    }
    if (slot->seq_num != session->last_incoming + 1) {
        not_applied(sequencer, slot, session);
        return false;
    }
    return true;
}

/* The request as it will stand in the log, stamped. */
static void copy_request(log_slot_t *slot, const log_slot_t *request, uint16_t source, int64_t index, uint64_t ts_ns)
{
    *slot = *request;
    slot->ts_ns = ts_ns;
    slot->source = source;
    slot->src_seq = (uint32_t)index;
    slot->flags &= SLOT_FLAG_MORE | SLOT_FLAG_REJECT;
    slot->partition = PARTITION_SEQUENCER;
}

static void note_verdict(sequencer_t *sequencer, log_slot_t *slot, verdict_t verdict)
{
    sequencer->counters[SEQUENCER_COMMANDS]++;
    if (!verdict.rejected)
        return;
    slot->flags |= SLOT_FLAG_REJECT;
    slot->aux = verdict.code;
    slot->partition = PARTITION_SEQUENCER;
    sequencer->counters[SEQUENCER_REJECTED]++;
}

/* A command of one frame, judged where it stays. `broken`: it was linked with frames it does not fit. */
static void take_frame(sequencer_t *sequencer, const log_slot_t *request, uint16_t source, int64_t index, uint64_t now,
                       bool broken)
{
    bool session_record = is_session_record(request->template_id);
    verdict_t verdict = refuse(REJECT_CODE_INVALID_GROUP);

    if (is_query(request->template_id)) {
        answer_query(sequencer, request);
        return;
    }
    if (session_record ? request->template_id < TEMPLATE_SESSION_NEGOTIATE : !admissible(sequencer, request, source))
        return;
    int64_t sequence = ring_claim(sequencer->log, 1);
    INVARIANT(sequence == sequencer->position);
    log_slot_t *slot = ring_slot(sequencer->log, sequence);
    copy_request(slot, request, source, index, log_stamp(sequencer, now));
    slot->flags &= (uint16_t)~SLOT_FLAG_MORE;
    if (session_record)
        verdict = session_admit(sequencer, slot);
    else if (!broken)
        (void)admit_command(sequencer, slot, 1, &verdict);
    note_verdict(sequencer, slot, verdict);
    log_seal(sequencer, slot);
}

/* Frames of one bound session with the numbers that come next, and nothing that is answered out of the log. */
static bool fits_together(const sequencer_t *sequencer, const ring_t *ring, uint16_t source, int64_t next, uint32_t count)
{
    const log_slot_t *first = ring_slot(ring, next);
    const session_t *session = registry_session(&sequencer->registry, first->session);
    bool fits = session != NULL && session->bound && session->source == source;

    for (uint32_t i = 0; i < count && fits; i++) {
        const log_slot_t *frame = ring_slot(ring, next + i);
        fits = frame->session == first->session && frame->seq_num == session->last_incoming + 1 + i &&
               !is_query(frame->template_id) && !is_session_record(frame->template_id) &&
               !is_control(frame->template_id) && frame->template_id != TEMPLATE_SEQUENCE;
    }
    return fits;
}

/* A command that becomes several records. */
static void take_group(sequencer_t *sequencer, const ring_t *ring, uint16_t source, int64_t next, uint32_t count,
                       uint64_t now)
{
    log_slot_t slots[GROUP_SLOTS_MAX];
    verdict_t verdicts[GROUP_SLOTS_MAX];
    uint64_t ts_ns = log_stamp(sequencer, now);

    for (uint32_t i = 0; i < count; i++)
        copy_request(&slots[i], ring_slot(ring, next + i), source, next + i, ts_ns + i);
    uint32_t written = admit_command(sequencer, slots, count, verdicts);
    for (uint32_t i = 0; i < written; i++)
        note_verdict(sequencer, &slots[i], verdicts[i]);
    log_append(sequencer, slots, written);
}

/* Frames of the next command; 0 = its last one is not there yet. */
static uint32_t next_command(const ring_t *ring, int64_t next, int64_t bound)
{
    for (uint32_t count = 0; next + count < bound;) {
        const log_slot_t *frame = ring_slot(ring, next + count);
        count++;
        if ((frame->flags & SLOT_FLAG_MORE) == 0 || count == GROUP_SLOTS_MAX)
            return count;
    }
    return 0;
}

static void take_command(sequencer_t *sequencer, uint16_t source, int64_t next, uint32_t count, uint64_t now)
{
    const ring_t *ring = sequencer->ingress[source];
    const log_slot_t *first = ring_slot(ring, next);
    const log_slot_t *last = ring_slot(ring, next + count - 1);
    bool rest_of_overlong = sequencer->overlong[source];
    bool overlong = (last->flags & SLOT_FLAG_MORE) != 0;

    sequencer->overlong[source] = overlong;
    if (count == 1 && !rest_of_overlong && first->template_id != TEMPLATE_QUOTE) {
        take_frame(sequencer, first, source, next, now, false);
        return;
    }
    if (!rest_of_overlong && !overlong && fits_together(sequencer, ring, source, next, count)) {
        take_group(sequencer, ring, source, next, count, now);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        take_frame(sequencer, ring_slot(ring, next + i), source, next + i, now, count > 1 || rest_of_overlong);
}

/* ---- what order lists cause ---------------------------------------------------------------------------------------------- */

static void write_list_end(sequencer_t *sequencer, uint32_t index, uint64_t now)
{
    log_slot_t *slot = log_open(sequencer, TEMPLATE_LIST_END, now);
    list_end_t *end = (list_end_t *)slot->block;

    end->list_id = sequencer->lists.entries[index].id;
    end->list_index = index;
    log_seal(sequencer, slot);
}

static void write_list_start(sequencer_t *sequencer, uint32_t index, uint64_t now)
{
    log_slot_t slots[GROUP_SLOTS_MAX];
    verdict_t verdicts[GROUP_SLOTS_MAX];
    uint32_t count = admit_due(sequencer, &sequencer->lists.entries[index], log_stamp(sequencer, now), slots, verdicts);

    for (uint32_t i = 0; i < count; i++)
        note_verdict(sequencer, &slots[i], verdicts[i]);
    log_append(sequencer, slots, count);
}

static bool lists_were_settled(const sequencer_t *sequencer)
{
    bool any = false;

    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++)
        any |= sequencer->lists.settled[partition].head != 0;
    return any;
}

/* Before any command of a client: legs whose time has come, lists that have ended, sessions whose client stayed away. */
static int64_t write_due(sequencer_t *sequencer, uint64_t now, bool *marked)
{
    const lists_t *lists = &sequencer->lists;
    int64_t done = 0;

    if (lists_were_settled(sequencer) && log_has_room(sequencer)) {
        log_marks(sequencer, now);
        *marked = true;
    }
    while (lists->due.head != 0 && log_has_room(sequencer)) {
        uint32_t index = lists->due.head - 1;
        if (lists->entries[index].due == LIST_END)
            write_list_end(sequencer, index, now);
        else
            write_list_start(sequencer, index, now);
        done++;
    }
    for (; sequencer->disconnects.due > 0 && log_has_room(sequencer); done++) {
        if (!*marked)
            log_marks(sequencer, now);
        *marked = true;
        disconnect_write(sequencer, now);
    }
    return done;
}

/* ---- looking ahead --------------------------------------------------------------------------------------------------------- */

static void warm_order(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t order_id,
                       uint64_t orig_client_id, uint64_t client_id)
{
    if (order_id != U64_NULL)
        PREFETCH(orders_line(orders, order_id));
    else
        orders_prefetch_client(orders, account, instrument, orig_client_id);
    if (client_id != 0)
        orders_prefetch_client(orders, account, instrument, client_id);
}

/* Touch what a request further down the ring will need: the tables are larger than the caches. Only hints: nothing is judged. */
static void warm(const sequencer_t *sequencer, const log_slot_t *request)
{
    const session_t *session = registry_session(&sequencer->registry, request->session);
    const void *block = request->block;

    if (session == NULL)
        return;
    if (request->template_id == TEMPLATE_NEW_ORDER_SINGLE) {
        const new_order_single_t *order = block;
        const instrument_t *instrument = registry_instrument(&sequencer->registry, order->instrument_id);
        if (instrument == NULL)
            return;
        uint32_t account = order->account_id != 0 ? order->account_id : session->account;
        accounts_prefetch(&sequencer->accounts, account,
                          order->side == SIDE_SELL ? instrument->base_asset : instrument->quote_asset);
        orders_prefetch_client(&sequencer->orders[instrument->partition], account, order->instrument_id,
                               order->cl_ord_id);
    } else if (request->template_id == TEMPLATE_ORDER_CANCEL_REQUEST) {
        const order_cancel_request_t *cancel = block;
        const instrument_t *instrument = registry_instrument(&sequencer->registry, cancel->instrument_id);
        if (instrument != NULL)
            warm_order(&sequencer->orders[instrument->partition], session->account, cancel->instrument_id,
                       cancel->order_id, cancel->orig_cl_ord_id, 0);
    } else if (request->template_id == TEMPLATE_ORDER_REPLACE_REQUEST) {
        const order_replace_request_t *replace = block;
        const instrument_t *instrument = registry_instrument(&sequencer->registry, replace->instrument_id);
        if (instrument != NULL)
            warm_order(&sequencer->orders[instrument->partition], session->account, replace->instrument_id,
                       replace->order_id, replace->orig_cl_ord_id, replace->cl_ord_id);
    }
}

/* ---- sources ---------------------------------------------------------------------------------------------------------------- */

void intake_note(sequencer_t *sequencer)
{
    for (uint32_t source = 0; source < sequencer->sources_attached; source++)
        if (sequencer->ingress[source] != NULL)
            sequencer->ingress_noted[source] = ring_published(sequencer->ingress[source]);
}

/* Commands of one source up to the noted bound. */
static int64_t take_source(sequencer_t *sequencer, uint16_t source, int64_t limit, uint64_t now, bool *marked)
{
    ring_t *ring = sequencer->ingress[source];
    int64_t next = sequencer->ingress_next[source];
    int64_t bound = sequencer->ingress_noted[source];
    int64_t done = 0, groups = 0;

    for (int64_t i = next; i < bound && i < next + INGRESS_AHEAD; i++)
        warm(sequencer, ring_slot(ring, i));
    while (done < limit && log_has_room(sequencer)) {
        uint32_t frames = next_command(ring, next, bound);
        if (frames == 0)
            break;
        if (!*marked) {
            log_marks(sequencer, now);
            *marked = true;
        }
        if (next + INGRESS_AHEAD < bound)
            warm(sequencer, ring_slot(ring, next + INGRESS_AHEAD));
        take_command(sequencer, source, next, frames, now);
        next += frames;
        done += frames;
        if (++groups == PUBLISH_GROUPS) {
            log_publish(sequencer);
            groups = 0;
        }
    }
    sequencer->ingress_next[source] = next;
    return done;
}

int64_t intake_take(sequencer_t *sequencer, int64_t limit, uint64_t now)
{
    bool marked = false;
    int64_t work = write_due(sequencer, now, &marked);

    if (sequencer->lists.due.head != 0 || sequencer->disconnects.due > 0) /* no room */
        return work;
    for (uint32_t i = 0; i < sequencer->sources_attached && work < limit; i++) {
        uint32_t source = (sequencer->next_source + i) % sequencer->sources_attached;
        if (sequencer->ingress[source] != NULL && sequencer->ingress_next[source] < sequencer->ingress_noted[source])
            work += take_source(sequencer, (uint16_t)source, limit - work, now, &marked);
    }
    sequencer->next_source = sequencer->sources_attached == 0 ? 0 : (sequencer->next_source + 1) % sequencer->sources_attached;
    return work;
}
