/* What a matcher does besides orders: mass cancels, kill switches, instruments, fees, sessions, hash marks. */
#include "engine/events.h"
#include "engine/reports.h"

/* ---- mass cancels and kill switches ---------------------------------------------------------------------------------------- */

static void begin_mass(matcher_t *matcher, const mass_cancel_t *mass)
{
    INVARIANT(mass->account_last <= matcher->config.accounts_max);
    matcher->state->work.mass = *mass;
    work_push(matcher, WORK_MASS_CANCEL);
}

void matcher_mass_cancel(matcher_t *matcher, const log_slot_t *slot)
{
    const mass_cancel_request_t *block = (const mass_cancel_request_t *)slot->block;
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    mass_cancel_t mass = {.request = *block,
                          .account = block->account_id,
                          .account_last = block->account_id,
                          .reason = slot->source == 0 ? CANCEL_REASON_CANCEL_ON_DISCONNECT : CANCEL_REASON_MASS_CANCEL,
                          .any_session = block->scope != MASS_CANCEL_SCOPE_SESSION};
    if (block->scope >= MASS_CANCEL_SCOPE_FIRM || block->account_id == 0) {
        mass.account = 0;
        mass.account_last = matcher->config.accounts_max;
        mass.firm = block->scope == MASS_CANCEL_SCOPE_FIRM ? matcher->store.accounts[block->account_id].firm : 0;
    }
    if ((block->mass_flags & MASS_CANCEL_FLAGS_UNLOCK_ENTRY) != 0)
        mass.account = mass.account_last + 1; /* cancels nothing, but is answered as all are */
    begin_mass(matcher, &mass);
}

void matcher_kill_switch(matcher_t *matcher, const log_slot_t *slot)
{
    const kill_switch_t *block = (const kill_switch_t *)slot->block;
    mass_cancel_t mass = {.request = {.cl_ord_id = block->request_id},
                          .account_last = matcher->config.accounts_max,
                          .reason = CANCEL_REASON_KILL_SWITCH,
                          .any_session = true};
    if (block->action != KILL_ACTION_KILL)
        return;
    switch (block->scope) {
    case KILL_SCOPE_ACCOUNT:
        mass.request.scope = MASS_CANCEL_SCOPE_ACCOUNT;
        mass.request.account_id = block->target_id;
        mass.account = block->target_id;
        mass.account_last = block->target_id;
        break;
    case KILL_SCOPE_FIRM:
        mass.request.scope = MASS_CANCEL_SCOPE_FIRM;
        mass.firm = block->target_id;
        break;
    case KILL_SCOPE_INSTRUMENT:
        mass.request.scope = MASS_CANCEL_SCOPE_INSTRUMENT;
        mass.request.instrument_id = block->target_id;
        break;
    default:
        mass.request.scope = MASS_CANCEL_SCOPE_ALL;
        break;
    }
    begin_mass(matcher, &mass);
}

static bool mass_applies(const matcher_t *matcher, const mass_cancel_t *mass, const order_t *order)
{
    const mass_cancel_request_t *request = &mass->request;
    if (!mass->any_session && rest_of(&matcher->store, order)->session != matcher->input.record->session)
        return false;
    if (request->instrument_id != 0 && request->instrument_id != order->book + 1u)
        return false;
    if (request->side != SIDE_OR_BOTH_BOTH && request->side != order_side_code(order))
        return false;
    return request->stp_group_id == 0 || order->stp_key == (request->stp_group_id | STP_GROUP_BIT);
}

static void report_mass_cancel(matcher_t *matcher, const mass_cancel_t *mass)
{
    if (!MATCHER_REPORTS)
        return;
    const log_slot_t *record = matcher->input.record;
    uint64_t exec_id = report_exec_id(matcher);
    void *block =
        report_numbered(matcher, TEMPLATE_MASS_CANCEL_REPORT, record->session, mass->request.account_id, 0);
    REPORT_WRITE(block, mass_cancel_report_t,
                 {.cl_ord_id = mass->request.cl_ord_id,
                  .exec_id = exec_id,
                  .transact_time = record->ts_ns,
                  .ref_seq_num = record->seq_num,
                  .instrument_id = mass->request.instrument_id,
                  .account_id = mass->request.account_id,
                  .total_affected = mass->count,
                  .side = mass->request.side,
                  .scope = mass->request.scope});
}

/* The order ends, and with it its peer: the walk must not go on from there. */
static void end_in_mass(matcher_t *matcher, mass_cancel_t *mass, order_t *order)
{
    const book_store_t *store = &matcher->store;
    const extra_t *extra = extra_of(store, order);
    bool own_session = rest_of(store, order)->session == matcher->input.record->session;
    const order_t *peer = extra != NULL && extra->peer != 0 ? store->orders + order_slot(store, extra->peer) : NULL;
    if (peer != NULL && peer->id == extra->peer) {
        if (mass->next == slot_of(store, peer))
            mass->next = store->links[mass->next].next;
        mass->count++;
    }
    matcher_end_order(matcher, order,
                      (ending_t){.reason = mass->reason,
                                 .status = ORD_STATUS_CANCELED,
                                 .ref_seq_num = own_session ? matcher->input.record->seq_num : 0});
    /* Every deletion is a whole event: the next one may be of another instrument. */
    if (matcher->last_event_flags != NULL)
        *matcher->last_event_flags |= EVENT_FLAGS_END_OF_EVENT;
    mass->count++;
}

/* Walks lists of accounts; what is passed over costs no output, so visits are bounded as well. */
bool matcher_mass_cancel_step(matcher_t *matcher)
{
    const book_store_t *store = &matcher->store;
    mass_cancel_t *mass = &matcher->state->work.mass;
    while (mass->account <= mass->account_last) {
        if (step_is_over(matcher))
            return false;
        matcher->visits_left--;
        const matcher_account_t *account = store->accounts + mass->account;
        if (!mass->started)
            mass->next = mass->firm == 0 || account->firm == mass->firm ? account->head : NOBODY;
        mass->started = true;
        if (mass->next == NOBODY) {
            mass->account++;
            mass->started = false;
            continue;
        }
        order_t *order = store->orders + mass->next;
        mass->next = store->links[mass->next].next;
        if (mass_applies(matcher, mass, order))
            end_in_mass(matcher, mass, order);
    }
    if (step_is_over(matcher))
        return false;
    report_mass_cancel(matcher, mass);
    work_pop(matcher);
    return true;
}

/* ---- hash marks ------------------------------------------------------------------------------------------------------ */

void matcher_hash_mark(matcher_t *matcher, const log_slot_t *slot)
{
    work_t *work = &matcher->state->work;
    work->hash_next = 0;
    work->mark_index = ((const hash_mark_t *)slot->block)->mark_index;
    work_push(matcher, WORK_HASH_MARK);
}

static void report_book_hash(matcher_t *matcher, book_t *book)
{
    uint64_t now = matcher->input.record->ts_ns;
    uint32_t instrument = book_index(matcher, book) + 1;
    state_hash_t whole = book_hash(book);
    if (MATCHER_REPORTS) {
        uint64_t exec_id = report_exec_id(matcher);
        void *block = report_unnumbered(matcher, TEMPLATE_BOOK_HASH, 0);
        REPORT_WRITE(block, book_hash_t,
                     {.hash_low = whole.low,
                      .hash_high = whole.high,
                      .mark_index = matcher->state->work.mark_index,
                      .exec_id = exec_id,
                      .transact_time = now,
                      .instrument_id = instrument,
                      .order_count = book->order_count});
    }
    book_digest_t *event = EVENT_RARE(matcher, book, TEMPLATE_BOOK_DIGEST, book_digest_t);
    event->digest_low = book->digest.low;
    event->digest_high = book->digest.high;
    event->instrument_id = instrument;
    event->order_count = book->order_count;
    event->event_flags = EVENT_FLAGS_END_OF_EVENT;
}

bool matcher_hash_mark_step(matcher_t *matcher)
{
    work_t *work = &matcher->state->work;
    while (work->hash_next < matcher->state->books_used) {
        if (step_is_over(matcher))
            return false;
        matcher->visits_left--;
        book_t *book = matcher->store.books + work->hash_next++;
        if (book->state != 0)
            report_book_hash(matcher, book);
    }
    work_pop(matcher);
    return true;
}

/* ---- instruments, accounts and fees ------------------------------------------------------------------------------------ */

void matcher_instrument_add(matcher_t *matcher, const log_slot_t *slot)
{
    const instrument_add_t *block = (const instrument_add_t *)slot->block;
    matcher_state_t *state = matcher->state;
    book_store_t *store = &matcher->store;
    if (block->assigned_partition != matcher->config.partition)
        return;
    INVARIANT(block->instrument_id - 1 < store->books_max);
    book_t *book = store->books + (block->instrument_id - 1);
    book_open(store, book, block->quote_per_tick_lot, block->base_per_lot, block->base_asset_id, block->quote_asset_id,
              matcher->arena + state->window_next);
    state->window_next += 2 * levels_window_size(store->window_log2);
    memcpy(book->fees, state->fees, sizeof(book->fees));
    if (block->instrument_id > state->books_used)
        state->books_used = block->instrument_id;
}

void matcher_instrument_limits(matcher_t *matcher, const log_slot_t *slot)
{
    const instrument_limits_t *block = (const instrument_limits_t *)slot->block;
    book_t *book = matcher_book(matcher, block->instrument_id);
    book->has_reference_price = block->reference_px != PX_OPT_NULL;
    book->reference_price = block->reference_px;
}

void matcher_instrument_state(matcher_t *matcher, const log_slot_t *slot)
{
    const instrument_state_t *block = (const instrument_state_t *)slot->block;
    book_t *book = matcher_book(matcher, block->instrument_id);
    matcher->input.book = block->instrument_id - 1;
    book->clock.next_change_ns = 0; /* the operator's word ends a volatility sequence */
    transition_begin(matcher, book, block->state, block->request_id);
}

void matcher_account_create(matcher_t *matcher, const log_slot_t *slot)
{
    const account_create_t *block = (const account_create_t *)slot->block;
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    matcher->store.accounts[block->account_id].firm = block->firm_id;
}

static void tier_mark(uint64_t *set, uint8_t tier)
{
    set[tier / 64] |= UINT64_C(1) << (tier % 64);
}

static bool tier_marked(const uint64_t *set, uint8_t tier)
{
    return (set[tier / 64] >> (tier % 64) & 1) != 0;
}

/* An instrument's own rate wins over the one for all, whichever came last. */
void matcher_fee_tier_set(matcher_t *matcher, const log_slot_t *slot)
{
    const fee_tier_set_t *block = (const fee_tier_set_t *)slot->block;
    matcher_state_t *state = matcher->state;
    fee_rate_t rate = {block->maker_rate, block->taker_rate};
    INVARIANT(block->maker_rate >= -FEE_SCALE && block->maker_rate <= FEE_SCALE);
    INVARIANT(block->taker_rate >= -FEE_SCALE && block->taker_rate <= FEE_SCALE);
    INVARIANT(block->instrument_id <= matcher->store.books_max);
    if (block->instrument_id != 0) {
        book_t *book = matcher->store.books + (block->instrument_id - 1);
        if (book->state == 0)
            return; /* another partition's */
        book->fees[block->tier] = rate;
        tier_mark(book->fees_set, block->tier);
        return;
    }
    state->fees[block->tier] = rate;
    for (uint32_t i = 0; i < matcher->store.books_max; i++) {
        book_t *book = matcher->store.books + i;
        if (book->state != 0 && !tier_marked(book->fees_set, block->tier))
            book->fees[block->tier] = rate;
    }
}

/* ---- sessions ---------------------------------------------------------------------------------------------------------- */

void matcher_session_bind(matcher_t *matcher, const log_slot_t *slot)
{
    const session_bind_t *block = (const session_bind_t *)slot->block;
    INVARIANT(block->session_id <= matcher->config.sessions_max);
    const matcher_session_t *session = matcher->sessions + block->session_id;
    bool drop_copy = slot->aux != 0;
    INVARIANT(slot->aux <= matcher->config.accounts_max);
    uint64_t last = drop_copy ? matcher->store.accounts[slot->aux].sequence : session->sequence;
    void *bound = report_begin(matcher, TEMPLATE_SESSION_BOUND, block->session_id, 0,
                               drop_copy ? REPORT_FLAG_DROP_COPY : 0, 0, 0, MAYBE_LAST);
    REPORT_WRITE(bound, session_bound_t,
                 {.session_ver_id = block->session_ver_id,
                  .next_seq_no = last + 1,
                  .last_report_seq = session->last_report,
                  .transact_time = matcher->input.record->ts_ns,
                  .request_timestamp = block->timestamp,
                  .session_id = block->session_id,
                  .connection_id = block->connection_id,
                  .code = ESTABLISH_REJECT_CODE_NONE,
                  .partition = matcher->config.partition});
}

/* A new version of the session starts both flows at 1. */
void matcher_session_negotiate(matcher_t *matcher, const log_slot_t *slot)
{
    const session_negotiate_t *block = (const session_negotiate_t *)slot->block;
    INVARIANT(block->session_id <= matcher->config.sessions_max);
    matcher->sessions[block->session_id] = (matcher_session_t){0, 0};
}

void matcher_settled_mark(matcher_t *matcher, const log_slot_t *slot)
{
    const settled_t *block = (const settled_t *)slot->block;
    if (block->settled_partition == matcher->config.partition && (int64_t)block->report_seq > matcher->state->settled)
        matcher->state->settled = (int64_t)block->report_seq;
}
