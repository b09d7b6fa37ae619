/* Market states and time: transitions, schedules, volatility halts, expiries (docs/MATCHING.md, sections 4, 13, 14). Time is the
 * log's: everything here happens because of a record. */
#include "engine/events.h"
#include "engine/reports.h"

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
#define SECONDS_PER_DAY 86400
#define INDICATIVE_NS (100 * NS_PER_MS)

/* ---- transitions ------------------------------------------------------------------------------------------------------------ */

enum transition_phase {
    TRANSITION_CHANGE,
    TRANSITION_UNCROSS,
    TRANSITION_AUCTION_OVER, /* market orders that waited for it end */
    TRANSITION_DRAIN,
    TRANSITION_DONE,
};

/* `session` = who asked for it, 0 = nobody. */
static void report_state(matcher_t *matcher, const book_t *book, uint8_t state, uint32_t session, uint64_t request_id)
{
    if (!MATCHER_REPORTS)
        return;
    const log_slot_t *record = matcher->input.record;
    uint64_t exec_id = report_exec_id(matcher);
    void *block = report_unnumbered(matcher, TEMPLATE_INSTRUMENT_STATE_REPORT, session);
    REPORT_WRITE(block, instrument_state_report_t,
                 {.request_id = request_id,
                  .exec_id = exec_id,
                  .transact_time = record->ts_ns,
                  .instrument_id = book_index(matcher, book) + 1,
                  .state = state,
                  .previous = book->state});
}

static void change_state(matcher_t *matcher, book_t *book, uint8_t state, uint32_t session, uint64_t request_id)
{
    report_state(matcher, book, state, session, request_id);
    book->state = state;
    instrument_status_t *event = EVENT_RARE(matcher, book, TEMPLATE_INSTRUMENT_STATUS, instrument_status_t);
    event->instrument_id = book_index(matcher, book) + 1;
    event->status = state;
}

void transition_begin(matcher_t *matcher, book_t *book, uint8_t target, uint64_t request_id)
{
    INVARIANT(target != 0);
    if (target == book->state) {
        report_state(matcher, book, target, matcher->input.record->session, request_id);
        return;
    }
    matcher->state->work.transition = (transition_t){.request_id = request_id,
                                                     .book = book_index(matcher, book),
                                                     .target = target,
                                                     .phase = TRANSITION_CHANGE};
    work_push(matcher, WORK_TRANSITION);
}

/* Market orders that waited for the uncrossing. False = out of budget. */
static bool end_auction_only(matcher_t *matcher, const book_t *book)
{
    const book_store_t *store = &matcher->store;
    while (book->auction_only.head != 0) {
        if (step_is_over(matcher))
            return false;
        matcher_end_order(matcher, store->orders + store->extras[book->auction_only.head].owner,
                          (ending_t){.reason = CANCEL_REASON_AUCTION_END, .status = ORD_STATUS_EXPIRED});
    }
    return true;
}

bool matcher_transition(matcher_t *matcher)
{
    work_t *work = &matcher->state->work;
    transition_t *transition = &work->transition;
    book_t *book = matcher->store.books + transition->book;
    bool opens = transition->target == MARKET_STATE_CONTINUOUS;
    if (step_is_over(matcher))
        return false;
    switch (transition->phase) {
    case TRANSITION_CHANGE:
        change_state(matcher, book, transition->target, matcher->input.record->session, transition->request_id);
        if (transition->target == MARKET_STATE_AUCTION)
            indicative_begin(matcher, book);
        break;
    case TRANSITION_UNCROSS:
        if (opens && book_is_crossed(book))
            uncross_begin(matcher, book);
        break;
    case TRANSITION_AUCTION_OVER:
        if (book->state != MARKET_STATE_AUCTION && !end_auction_only(matcher, book))
            return false;
        break;
    case TRANSITION_DRAIN:
        (void)matcher_begin_drain(matcher, transition->book);
        break;
    default:
        /* The next transition of a tick may be another instrument's. */
        if (matcher->last_event_flags != NULL)
            *matcher->last_event_flags |= EVENT_FLAGS_END_OF_EVENT;
        work_pop(matcher);
        return true;
    }
    transition->phase++;
    return true;
}

/* ---- volatility ---------------------------------------------------------------------------------------------------------------- */

static bool is_watched(const market_clock_t *clock)
{
    return clock->up_bps != 0 || clock->down_bps != 0;
}

static int64_t clamped(int128_t price)
{
    return price > INT64_MAX ? INT64_MAX : price < INT64_MIN ? INT64_MIN : (int64_t)price;
}

/* Trades are inside where price x 10^4 <= reference x (10^4 + up) and >= reference x (10^4 - down). */
void volatility_band(const market_clock_t *clock, int64_t reference, int64_t *low, int64_t *high)
{
    int128_t highest = (int128_t)reference * (BPS + (int64_t)clock->up_bps);
    int128_t lowest = (int128_t)reference * (BPS - (int64_t)clock->down_bps);
    *high = clock->up_bps != 0 ? clamped(highest / BPS - (highest % BPS < 0)) : INT64_MAX;
    *low = clock->down_bps != 0 ? clamped(lowest / BPS + (lowest % BPS > 0)) : INT64_MIN;
}

static void set_band(book_t *book)
{
    const market_clock_t *clock = &book->clock;
    if (is_watched(clock) && !clock->has_reference) { /* the first trade makes one: nothing is inside */
        book->band_low = INT64_MAX;
        book->band_high = INT64_MIN;
        return;
    }
    volatility_band(clock, clock->reference, &book->band_low, &book->band_high);
}

void volatility_set_reference(book_t *book, int64_t price)
{
    book->clock.reference = price;
    book->clock.has_reference = true;
    set_band(book);
}

bool volatility_halts(matcher_t *matcher, book_t *book, int64_t price)
{
    market_clock_t *clock = &book->clock;
    if (!clock->has_reference) {
        volatility_set_reference(book, price);
        return false;
    }
    change_state(matcher, book, MARKET_STATE_HALTED, 0, 0);
    clock->next_change_ns = matcher->input.record->ts_ns + clock->halt_ms * NS_PER_MS;
    return true;
}

void matcher_instrument_volatility(matcher_t *matcher, const log_slot_t *slot)
{
    const instrument_volatility_t *block = (const instrument_volatility_t *)slot->block;
    book_t *book = matcher_book(matcher, block->instrument_id);
    market_clock_t *clock = &book->clock;
    clock->up_bps = block->up_bps;
    clock->down_bps = block->down_bps;
    clock->reference_ms = block->reference_ms;
    clock->halt_ms = block->halt_ms;
    clock->auction_ms = block->auction_ms;
    if (book->has_last_price)
        volatility_set_reference(book, book->last_price);
    set_band(book);
}

void matcher_instrument_schedule(matcher_t *matcher, const log_slot_t *slot)
{
    const instrument_schedule_t *block = (const instrument_schedule_t *)slot->block;
    book_t *book = matcher_book(matcher, block->instrument_id);
    INVARIANT(block->entry < SCHEDULE_ENTRIES);
    book->clock.schedule[block->entry] = (schedule_entry_t){
        .second_of_day = block->second_of_day, .state = block->state, .active = block->active != 0};
}

/* ---- ticks ------------------------------------------------------------------------------------------------------------------------ */

enum tick_phase {
    TICK_SCHEDULE,
    TICK_VOLATILITY,
    TICK_EXPIRE,
    TICK_INDICATIVE,
    TICK_REFERENCE,
    TICK_PHASES,
};

void matcher_tick(matcher_t *matcher, const log_slot_t *slot)
{
    tick_work_t *tick = &matcher->state->work.tick;
    tick->now_ns = slot->ts_ns;
    tick->book = 0;
    tick->phase = TICK_SCHEDULE;
    tick->schedule_ns = 0;
    work_push(matcher, WORK_TICK);
}

/* When the entry was last due, at or before now. */
static uint64_t due_ns(const schedule_entry_t *entry, uint64_t now_ns)
{
    uint64_t now_s = now_ns / NS_PER_S;
    uint64_t due_s = now_s / SECONDS_PER_DAY * SECONDS_PER_DAY + entry->second_of_day;
    if (due_s > now_s && due_s >= SECONDS_PER_DAY)
        due_s -= SECONDS_PER_DAY;
    return due_s * NS_PER_S;
}

/* The next entry due since the tick before that has not been seen to, or NULL. */
static const schedule_entry_t *next_entry(const book_t *book, tick_work_t *tick)
{
    const market_clock_t *clock = &book->clock;
    const schedule_entry_t *found = NULL;
    uint64_t found_ns = 0;
    for (uint32_t i = 0; i < SCHEDULE_ENTRIES; i++) {
        const schedule_entry_t *entry = &clock->schedule[i];
        uint64_t due = due_ns(entry, tick->now_ns);
        bool passed = entry->active && due > clock->last_tick_ns && due <= tick->now_ns;
        bool done = due < tick->schedule_ns || (due == tick->schedule_ns && i <= tick->schedule_entry);
        if (passed && !done && (found == NULL || due < found_ns)) {
            found = entry;
            found_ns = due;
        }
    }
    if (found != NULL) {
        tick->schedule_ns = found_ns;
        tick->schedule_entry = (uint32_t)(found - clock->schedule);
    }
    return found;
}

/* True when the phase has no more to do. */
static bool tick_schedule(matcher_t *matcher, book_t *book, tick_work_t *tick)
{
    if (book->clock.last_tick_ns == 0)
        return true; /* the first tick of its life: nothing has passed */
    const schedule_entry_t *entry = next_entry(book, tick);
    if (entry == NULL)
        return true;
    book->clock.next_change_ns = 0;
    transition_begin(matcher, book, entry->state, 0);
    return false;
}

static void tick_volatility(matcher_t *matcher, book_t *book, uint64_t now_ns)
{
    market_clock_t *clock = &book->clock;
    if (clock->next_change_ns == 0 || now_ns < clock->next_change_ns)
        return;
    bool halted = book->state == MARKET_STATE_HALTED;
    clock->next_change_ns = halted ? now_ns + clock->auction_ms * NS_PER_MS : 0;
    transition_begin(matcher, book, halted ? MARKET_STATE_AUCTION : MARKET_STATE_CONTINUOUS, 0);
}

/* False = out of budget. */
static bool tick_expire(matcher_t *matcher, const book_t *book, uint64_t now_ns)
{
    const book_store_t *store = &matcher->store;
    while (true) {
        uint32_t leaf = tree_lowest(&book->expiries);
        if (leaf == TREE_NONE || (uint64_t)store->trees.leaves[leaf].key * NS_PER_S > now_ns)
            return true;
        if (step_is_over(matcher))
            return false;
        const extra_t *extra = store->extras + store->trees.leaves[leaf].level.head;
        matcher_end_order(matcher, store->orders + extra->owner,
                          (ending_t){.reason = CANCEL_REASON_EXPIRED, .status = ORD_STATUS_EXPIRED});
        if (matcher->last_event_flags != NULL)
            *matcher->last_event_flags |= EVENT_FLAGS_END_OF_EVENT;
    }
}

static void tick_indicative(matcher_t *matcher, const book_t *book, uint64_t now_ns)
{
    const market_clock_t *clock = &book->clock;
    bool changed = clock->indicative_digest != book->digest.low || clock->indicative_hidden != book->hidden.low;
    if (book->state == MARKET_STATE_AUCTION && changed && now_ns >= clock->indicative_ns + INDICATIVE_NS)
        indicative_begin(matcher, book);
}

static void tick_reference(book_t *book, uint64_t now_ns)
{
    market_clock_t *clock = &book->clock;
    uint64_t interval = clock->reference_ms * NS_PER_MS;
    if (!is_watched(clock) || interval == 0 || now_ns / interval == clock->last_tick_ns / interval)
        return;
    if (book->has_last_price)
        volatility_set_reference(book, book->last_price);
}

/* One phase for one book; true when the tick goes on to the next phase. */
static bool tick_phase_step(matcher_t *matcher, book_t *book, tick_work_t *tick)
{
    switch (tick->phase) {
    case TICK_SCHEDULE:
        return tick_schedule(matcher, book, tick);
    case TICK_VOLATILITY:
        tick_volatility(matcher, book, tick->now_ns);
        return true;
    case TICK_EXPIRE:
        return tick_expire(matcher, book, tick->now_ns);
    case TICK_INDICATIVE:
        tick_indicative(matcher, book, tick->now_ns);
        return true;
    default:
        tick_reference(book, tick->now_ns);
        book->clock.last_tick_ns = tick->now_ns;
        return true;
    }
}

bool matcher_tick_step(matcher_t *matcher)
{
    tick_work_t *tick = &matcher->state->work.tick;
    uint32_t depth = matcher->state->work.depth;
    while (tick->book < matcher->state->books_used) {
        book_t *book = matcher->store.books + tick->book;
        if (step_is_over(matcher))
            return false;
        matcher->visits_left--;
        if (book->state == 0 || tick->phase == TICK_PHASES) {
            tick->book++;
            tick->phase = TICK_SCHEDULE;
            tick->schedule_ns = 0;
            continue;
        }
        if (tick_phase_step(matcher, book, tick))
            tick->phase++;
        if (matcher->state->work.depth != depth)
            return true; /* what it began comes first */
    }
    work_pop(matcher);
    return true;
}
