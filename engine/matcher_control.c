/* What a matcher does besides orders: mass cancels, instruments, fees, sessions, hash marks. */
#include "engine/matcher_state.h"

/* ---- mass cancel ------------------------------------------------------------------------------------------------------ */

void matcher_mass_cancel(matcher_t *matcher, const log_slot_t *slot)
{
    work_t *work = &matcher->state->work;
    memcpy(&work->mass, slot->block, sizeof(work->mass));
    INVARIANT(work->mass.account_id <= matcher->config.accounts_max);
    const account_t *account = matcher->store.accounts + work->mass.account_id;
    work->kind = WORK_MASS_CANCEL;
    work->mass_next = account->open > 0 ? account->head : ORDER_NONE;
    work->mass_count = 0;
    (void)matcher_mass_cancel_step(matcher);
}

static bool mass_cancel_applies(const matcher_t *matcher, const mass_cancel_request_t *mass, const order_t *order)
{
    if (mass->scope == MASS_CANCEL_SCOPE_SESSION && order->session != matcher->state->input.session)
        return false;
    if (mass->instrument_id != 0 && mass->instrument_id != order->book + 1u)
        return false;
    if (mass->side != SIDE_OR_BOTH_BOTH && mass->side != order_side_code(order))
        return false;
    return mass->stp_group_id == 0 || ((order->flags & ORDER_STP_GROUP) != 0 && order->stp_key == mass->stp_group_id);
}

static void report_mass_cancel(matcher_t *matcher, const work_t *work)
{
    const input_t *input = &matcher->state->input;
    uint64_t exec_id;
    mass_cancel_report_t *block = report_numbered(matcher, TEMPLATE_MASS_CANCEL_REPORT, input->session,
                                                  work->mass.account_id, 0, &exec_id);
    block->cl_ord_id = work->mass.cl_ord_id;
    block->exec_id = exec_id;
    block->transact_time = input->ts_ns;
    block->ref_seq_num = input->seq_num;
    block->instrument_id = work->mass.instrument_id;
    block->account_id = work->mass.account_id;
    block->total_affected = work->mass_count;
    block->side = work->mass.side;
    block->scope = work->mass.scope;
}

/* Walks the account's list; an order passed over costs no output, so visits are bounded as well. */
bool matcher_mass_cancel_step(matcher_t *matcher)
{
    work_t *work = &matcher->state->work;
    const book_store_t *store = &matcher->store;
    for (int visited = 0; work->mass_next != ORDER_NONE; visited++) {
        if (matcher->outputs_left < MATCHER_STEP_OUTPUTS_MAX || visited == MATCHER_SCAN_BUDGET)
            return false;
        uint32_t index = work->mass_next;
        const order_t *order = store->orders + index;
        work->mass_next = store->cold[index].account_next;
        if (!mass_cancel_applies(matcher, &work->mass, order))
            continue;
        bool own_session = order->session == matcher->state->input.session;
        matcher_cancel_resting(matcher, index, CANCEL_REASON_MASS_CANCEL, ORD_STATUS_CANCELED,
                               own_session ? matcher->state->input.seq_num : 0);
        /* Every deletion is a whole event: the next one may be of another instrument. */
        *matcher->last_event_flags |= EVENT_FLAGS_END_OF_EVENT;
        work->mass_count++;
    }
    report_mass_cancel(matcher, work);
    work->kind = WORK_NONE;
    return true;
}

/* ---- hash marks ------------------------------------------------------------------------------------------------------ */

void matcher_hash_mark(matcher_t *matcher, const log_slot_t *slot)
{
    work_t *work = &matcher->state->work;
    work->kind = WORK_HASH_MARK;
    work->hash_next = 0;
    work->mark_index = ((const hash_mark_t *)slot->block)->mark_index;
    (void)matcher_hash_mark_step(matcher);
}

static void report_book_hash(matcher_t *matcher, book_t *book)
{
    uint64_t now = matcher->state->input.ts_ns;
    uint64_t exec_id;
    book_hash_t *block = report_unnumbered(matcher, TEMPLATE_BOOK_HASH, 0, &exec_id);
    block->hash_low = book->hash.low;
    block->hash_high = book->hash.high;
    block->mark_index = matcher->state->work.mark_index;
    block->exec_id = exec_id;
    block->transact_time = now;
    block->instrument_id = book_instrument(matcher, book);
    block->order_count = book->order_count;
    book_digest_t *event = EVENT(matcher, book, TEMPLATE_BOOK_DIGEST, book_digest_t);
    event->transact_time = now;
    event->digest_low = book->hash.low;
    event->digest_high = book->hash.high;
    event->instrument_id = book_instrument(matcher, book);
    event->order_count = book->order_count;
    event->event_flags = EVENT_FLAGS_END_OF_EVENT;
}

bool matcher_hash_mark_step(matcher_t *matcher)
{
    work_t *work = &matcher->state->work;
    for (int visited = 0; work->hash_next < matcher->store.books_max; visited++) {
        if (matcher->outputs_left < MATCHER_STEP_OUTPUTS_MAX || visited == MATCHER_SCAN_BUDGET)
            return false;
        book_t *book = matcher->store.books + work->hash_next++;
        if (book->state != 0)
            report_book_hash(matcher, book);
    }
    work->kind = WORK_NONE;
    return true;
}

/* ---- instruments and fees ---------------------------------------------------------------------------------------------- */

void matcher_instrument_add(matcher_t *matcher, const log_slot_t *slot)
{
    const instrument_add_t *block = (const instrument_add_t *)slot->block;
    matcher_state_t *state = matcher->state;
    book_store_t *store = &matcher->store;
    if (block->assigned_partition != matcher->config.partition)
        return;
    INVARIANT(block->instrument_id - 1 < store->books_max);
    book_t *book = store->books + (block->instrument_id - 1);
    book_open(store, book, block, state->window_next);
    state->window_next += 2 * levels_window_size(&store->levels);
    memcpy(book->fees, state->fees, sizeof(book->fees));
}

void matcher_instrument_state(matcher_t *matcher, const log_slot_t *slot)
{
    const instrument_state_t *block = (const instrument_state_t *)slot->block;
    INVARIANT(block->instrument_id - 1 < matcher->store.books_max);
    book_t *book = matcher->store.books + (block->instrument_id - 1);
    if (book->state == 0)
        return; /* another partition's */
    uint64_t now = matcher->state->input.ts_ns;
    uint64_t exec_id;
    instrument_state_report_t *report =
        report_unnumbered(matcher, TEMPLATE_INSTRUMENT_STATE_REPORT, matcher->state->input.session, &exec_id);
    report->request_id = block->request_id;
    report->exec_id = exec_id;
    report->transact_time = now;
    report->instrument_id = block->instrument_id;
    report->state = block->state;
    report->previous = book->state;
    if (block->state == book->state)
        return;
    INVARIANT(block->state != 0);
    book->state = block->state;
    instrument_status_t *event = EVENT(matcher, book, TEMPLATE_INSTRUMENT_STATUS, instrument_status_t);
    event->transact_time = now;
    event->instrument_id = block->instrument_id;
    event->status = block->state;
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
    const session_t *session = matcher->sessions + block->session_id;
    uint64_t exec_id;
    session_bound_t *bound = report_unnumbered(matcher, TEMPLATE_SESSION_BOUND, block->session_id, &exec_id);
    bound->session_ver_id = block->session_ver_id;
    bound->next_seq_no = session->sequence + 1;
    bound->last_report_seq = session->last_report;
    bound->transact_time = matcher->state->input.ts_ns;
    bound->request_timestamp = block->timestamp;
    bound->session_id = block->session_id;
    bound->connection_id = block->connection_id;
    bound->code = ESTABLISH_REJECT_CODE_NONE;
    bound->partition = matcher->config.partition;
}

/* A new version of the session starts both flows at 1. */
void matcher_session_negotiate(matcher_t *matcher, const log_slot_t *slot)
{
    const session_negotiate_t *block = (const session_negotiate_t *)slot->block;
    INVARIANT(block->session_id <= matcher->config.sessions_max);
    matcher->sessions[block->session_id] = (session_t){0, 0};
}

void matcher_settled_mark(matcher_t *matcher, const log_slot_t *slot)
{
    const settled_t *block = (const settled_t *)slot->block;
    if (block->settled_partition == matcher->config.partition && (int64_t)block->report_seq > matcher->state->settled)
        matcher->state->settled = (int64_t)block->report_seq;
}
