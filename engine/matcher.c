/* See matcher.h: construction, the step, what can be asked. */
#include "engine/capacity.h"
#include "engine/matcher_ahead.h"
#include "engine/matcher_plain.h"

#include <stdlib.h>
#include <sys/mman.h>

#define ARENA_ALIGNMENT 4096
#define HUGE_PAGE_SIZE (2u << 20)
#define WINDOW_LOG2_DEFAULT 16
#define ORDERS_MAX (1u << 28)

/* ---- construction ------------------------------------------------------------------------------------------------------ */

static uint64_t arena_part(uint64_t *size, uint64_t count, uint64_t element_size)
{
    uint64_t offset = *size;
    *size = (offset + count * element_size + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    return offset;
}

/* Offsets of the parts; the windows come last, so that few instruments touch little. */
typedef struct arena_layout {
    uint64_t state, sessions, accounts, books, orders, links, rests, extras, quotes, leaves, forks, windows, size;
} arena_layout_t;

/* A leaf an order at a far price, and two a side entry: its trigger and its date. */
static uint32_t leaves_max(const matcher_config_t *config)
{
    return config->orders_max + 2 * capacity_extras(config->orders_max);
}

static arena_layout_t arena_layout(const matcher_config_t *config)
{
    arena_layout_t layout;
    uint64_t size = 0;
    layout.state = arena_part(&size, 1, sizeof(matcher_state_t));
    layout.sessions = arena_part(&size, (uint64_t)config->sessions_max + 1, sizeof(matcher_session_t));
    layout.accounts = arena_part(&size, (uint64_t)config->accounts_max + 1, sizeof(matcher_account_t));
    layout.books = arena_part(&size, config->instruments_max, sizeof(book_t));
    layout.orders = arena_part(&size, (uint64_t)config->orders_max + 1, sizeof(order_t)); /* and nobody */
    layout.links = arena_part(&size, (uint64_t)config->orders_max + 1, sizeof(account_link_t));
    layout.rests = arena_part(&size, (uint64_t)config->orders_max + 1, sizeof(order_rest_t));
    layout.extras = arena_part(&size, (uint64_t)capacity_extras(config->orders_max) + 1, sizeof(extra_t));
    layout.quotes = arena_part(&size, capacity_quotes(config->orders_max), sizeof(quote_entry_t));
    layout.leaves = arena_part(&size, leaves_max(config), sizeof(tree_leaf_t));
    layout.forks = arena_part(&size, leaves_max(config), sizeof(tree_fork_t));
    layout.windows = arena_part(&size, config->instruments_max, 2 * levels_window_size(config->window_log2));
    layout.size = size;
    return layout;
}

static matcher_config_t completed(const matcher_config_t *given)
{
    matcher_config_t config = *given;
    if (config.step_budget == 0)
        config.step_budget = MATCHER_STEP_BUDGET;
    if (config.window_log2 == 0)
        config.window_log2 = WINDOW_LOG2_DEFAULT;
    INVARIANT(config.partition >= 1);
    INVARIANT(config.partition < PARTITION_ALL);
    INVARIANT(config.orders_max > 0);
    INVARIANT((config.orders_max & (config.orders_max - 1)) == 0);
    INVARIANT(config.orders_max <= ORDERS_MAX);
    INVARIANT(config.instruments_max >= 1);
    INVARIANT(config.instruments_max <= UINT16_MAX);
    INVARIANT(config.step_budget >= MATCHER_STEP_OUTPUTS_MAX);
    return config;
}

static void place(matcher_t *matcher, const arena_layout_t *layout)
{
    uint8_t *arena = matcher->arena;
    book_store_t *store = &matcher->store;
    matcher->state = (matcher_state_t *)(arena + layout->state);
    matcher->sessions = (matcher_session_t *)(arena + layout->sessions);
    store->accounts = (matcher_account_t *)(arena + layout->accounts);
    store->books = (book_t *)(arena + layout->books);
    store->orders = (order_t *)(arena + layout->orders);
    store->links = (account_link_t *)(arena + layout->links);
    store->rests = (order_rest_t *)(arena + layout->rests);
    store->extras = (extra_t *)(arena + layout->extras);
    store->quotes = (quote_entry_t *)(arena + layout->quotes);
    store->trees.leaves = (tree_leaf_t *)(arena + layout->leaves);
    store->trees.forks = (tree_fork_t *)(arena + layout->forks);
    store->trees.slab = &matcher->state->trees;
    store->extra_slab = &matcher->state->extras;
    store->live = &matcher->state->live;
    store->order_mask = matcher->config.orders_max - 1;
    store->books_max = matcher->config.instruments_max;
    store->accounts_max = matcher->config.accounts_max;
    store->quotes_max = capacity_quotes(matcher->config.orders_max);
    store->window_log2 = matcher->config.window_log2;
    matcher->exec_high = (uint64_t)matcher->config.partition << 56;
    matcher->report_head = (uint64_t)matcher->config.partition << 56 | (uint64_t)ORDERS_SCHEMA_VERSION << 48;
}

matcher_t *matcher_new(const matcher_config_t *config)
{
    matcher_t *matcher = calloc(1, sizeof(*matcher));
    if (matcher == NULL)
        return NULL;
    matcher->config = completed(config);
    arena_layout_t layout = arena_layout(&matcher->config);
    matcher->arena_size = (layout.size + HUGE_PAGE_SIZE - 1) / HUGE_PAGE_SIZE * HUGE_PAGE_SIZE;
    /* Not reserved: windows and far levels are mostly never touched. */
    matcher->arena = mmap(NULL, matcher->arena_size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (matcher->arena == MAP_FAILED) {
        free(matcher);
        return NULL;
    }
    /* All up to the orders and what belongs to them: a huge page of a window or of far levels would be mostly air. Refusal costs
     * speed only. */
    (void)madvise(matcher->arena, layout.extras, MADV_HUGEPAGE);
    place(matcher, &layout);
    matcher->state->window_next = layout.windows;
    tree_slab_init(&matcher->state->trees, leaves_max(&matcher->config));
    matcher->state->extras.capacity = capacity_extras(matcher->config.orders_max);
    return matcher;
}

void matcher_prefault(matcher_t *matcher)
{
    volatile uint8_t *page = (volatile uint8_t *)matcher->store.orders;
    const volatile uint8_t *end = (const volatile uint8_t *)matcher->store.extras;
    for (; page < end; page += ARENA_ALIGNMENT)
        *page = *page;
}

void matcher_free(matcher_t *matcher)
{
    if (matcher == NULL)
        return;
    munmap(matcher->arena, matcher->arena_size);
    free(matcher);
}

void matcher_attach(matcher_t *matcher, ring_t *log, ring_t *reports, ring_t *market)
{
    INVARIANT(reports != NULL);
    INVARIANT(market != NULL);
    INVARIANT(reports->slot_size == sizeof(report_slot_t));
    INVARIANT(market->slot_size == sizeof(market_slot_t));
    INVARIANT(ring_capacity(reports) >= MATCHER_STEP_OUTPUTS_MAX);
    INVARIANT(log == NULL || log->slot_size == sizeof(log_slot_t));
    matcher->log = log;
    matcher->reports = reports;
    matcher->market = market;
    matcher->reports_published = reports->claimed;
    matcher->market_published = market->claimed;
}

/* ---- the step ---------------------------------------------------------------------------------------------------------- */

/* Reports first, then their market data. An unfinished input keeps its last trade and last event back: their flags may still
 * have to say that they are the last. */
static void publish(matcher_t *matcher)
{
    bool pending = matcher->state->work.depth > 0;
    int64_t reports = pending && matcher->last_report != NULL ? matcher->last_group : matcher->reports->claimed;
    int64_t market = pending && matcher->last_event_flags != NULL ? matcher->last_event : matcher->market->claimed;
    if (reports != matcher->reports_published)
        ring_publish(matcher->reports, reports);
    if (market != matcher->market_published)
        ring_publish(matcher->market, market);
    matcher->reports_published = reports;
    matcher->market_published = market;
}

/* Give the step its budget; false = no room in the report ring for even the smallest. */
static bool start_step(matcher_t *matcher)
{
    int64_t room = ring_room(matcher->reports, matcher->config.step_budget);
    matcher->outputs_left = room < (int64_t)matcher->config.step_budget ? (uint32_t)room : matcher->config.step_budget;
    matcher->visits_left = MATCHER_SCAN_BUDGET;
    return matcher->outputs_left >= MATCHER_STEP_OUTPUTS_MAX;
}

/* Work from the top of the stack, until none is left or the step is over. */
static bool work_off(matcher_t *matcher)
{
    static bool (*const step[WORK_KINDS])(matcher_t *) = {
        [WORK_SCAN] = matcher_scan,
        [WORK_COURSE] = matcher_course,
        [WORK_DRAIN] = matcher_drain,
        [WORK_MASS_CANCEL] = matcher_mass_cancel_step,
        [WORK_QUOTE] = matcher_quote_step,
        [WORK_TRANSITION] = matcher_transition,
        [WORK_UNCROSS] = matcher_uncross,
        [WORK_INDICATIVE] = matcher_indicative,
        [WORK_TICK] = matcher_tick_step,
        [WORK_HASH_MARK] = matcher_hash_mark_step,
    };
    work_t *work = &matcher->state->work;
    while (true) {
        if (work->depth > 0) {
            if (!step[work->stack[work->depth - 1]](matcher))
                return false;
            continue;
        }
        /* What the input fired is part of it. */
        if (!matcher_begin_drain(matcher, matcher->input.book))
            return true;
    }
}

static void take_rare(matcher_t *matcher, const log_slot_t *slot)
{
    switch (slot->template_id) {
    case TEMPLATE_ORDER_AMEND_REQUEST:
        matcher_amend(matcher, slot);
        break;
    case TEMPLATE_ORDER_STATUS_REQUEST:
        matcher_status(matcher, slot);
        break;
    case TEMPLATE_MASS_CANCEL_REQUEST:
        matcher_mass_cancel(matcher, slot);
        break;
    case TEMPLATE_TICK:
        matcher_tick(matcher, slot);
        break;
    case TEMPLATE_HASH_MARK:
        matcher_hash_mark(matcher, slot);
        break;
    case TEMPLATE_SETTLED:
        matcher_settled_mark(matcher, slot);
        break;
    case TEMPLATE_INSTRUMENT_ADD:
        matcher_instrument_add(matcher, slot);
        break;
    case TEMPLATE_INSTRUMENT_LIMITS:
        matcher_instrument_limits(matcher, slot);
        break;
    case TEMPLATE_INSTRUMENT_STATE:
        matcher_instrument_state(matcher, slot);
        break;
    case TEMPLATE_INSTRUMENT_VOLATILITY:
        matcher_instrument_volatility(matcher, slot);
        break;
    case TEMPLATE_INSTRUMENT_SCHEDULE:
        matcher_instrument_schedule(matcher, slot);
        break;
    case TEMPLATE_ACCOUNT_CREATE:
        matcher_account_create(matcher, slot);
        break;
    case TEMPLATE_KILL_SWITCH:
        matcher_kill_switch(matcher, slot);
        break;
    case TEMPLATE_FEE_TIER_SET:
        matcher_fee_tier_set(matcher, slot);
        break;
    case TEMPLATE_SESSION_BIND:
        matcher_session_bind(matcher, slot);
        break;
    case TEMPLATE_SESSION_NEGOTIATE:
        matcher_session_negotiate(matcher, slot);
        break;
    default: /* of no concern to matchers */
        break;
    }
}

/* The general way; it may leave work, and something for the end of the input to say. */
static void take(matcher_t *matcher, const log_slot_t *slot)
{
    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        matcher_new_order(matcher, slot, NULL);
        break;
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        (void)cancel_order(matcher, slot, 0);
        break;
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        matcher_replace(matcher, slot);
        break;
    default:
        take_rare(matcher, slot);
        break;
    }
}

/* A frame of a group is kept until the last one is there. */
RARE static void take_grouped(matcher_t *matcher, const log_slot_t *slot)
{
    matcher_state_t *state = matcher->state;
    INVARIANT(state->group_count < GROUP_SLOTS_MAX);
    state->group[state->group_count++] = *slot;
    if ((slot->flags & SLOT_FLAG_MORE) != 0)
        return;
    uint32_t count = state->group_count;
    state->group_count = 0;
    matcher_group(matcher, state->group, count);
}

/* ---- running ------------------------------------------------------------------------------------------------------------- */

/* The input is done. */
static void finish_input(matcher_t *matcher)
{
    book_follow(&matcher->store, matcher->store.books + matcher->input.book);
    if (matcher->last_report != NULL)
        matcher->last_report->flags |= REPORT_FLAG_LAST_OF_INPUT;
    if (matcher->last_event_flags != NULL)
        *matcher->last_event_flags |= EVENT_FLAGS_END_OF_EVENT;
    matcher->last_report = NULL;
    matcher->last_event_flags = NULL;
    matcher->group_open = false;
}

/* Go on with the unfinished input: one step. False = no room. */
static bool continue_input(matcher_t *matcher)
{
    if (!start_step(matcher))
        return false;
    if (work_off(matcher))
        finish_input(matcher);
    publish(matcher);
    return true;
}

/* Any record, to its end or to the end of the step. */
static void take_any(matcher_t *matcher, const log_slot_t *slot)
{
    matcher_state_t *state = matcher->state;
    if (((slot->flags & SLOT_FLAG_MORE) | state->group_count) != 0) {
        take_grouped(matcher, slot);
    } else if (record_is_ours(matcher, slot)) {
        speak_of(matcher, slot, state->position);
        take(matcher, slot);
    } else {
        state->position++;
        return;
    }
    state->position++;
    if (state->work.depth == 0 || work_off(matcher)) {
        finish_input(matcher);
    } else if (matcher->input.record == slot) {
        matcher->kept = *slot; /* the batch goes before the input is done */
        matcher->input.record = &matcher->kept;
    }
}

/* Alone, ours and admitted: not of a group, of another partition, for all, refused. Compared as one word. */
#define SLOT_ROUTE_OFFSET offsetof(log_slot_t, src_seq)
#define SLOT_ROUTE_MASK (UINT64_C(0xff) << 40 | (uint64_t)(SLOT_FLAG_MORE | SLOT_FLAG_REJECT) << 48)
_Static_assert(offsetof(log_slot_t, partition) == SLOT_ROUTE_OFFSET + 5 && offsetof(log_slot_t, flags) == SLOT_ROUTE_OFFSET + 6,
               "SLOT_ROUTE_MASK");

INLINE uint64_t route_of(const log_slot_t *slot)
{
    uint64_t word;
    memcpy(&word, (const uint8_t *)slot + SLOT_ROUTE_OFFSET, sizeof(word));
    return word & SLOT_ROUTE_MASK;
}

/* Take records as long as they go the plain way, which is to be the case for nearly all. Each makes one report. Returns how many. */
static int64_t take_plain(matcher_t *matcher, batch_t *batch, int64_t from, int64_t most)
{
    const log_slot_t *first = batch->slots + from;
    const log_slot_t *end = first + most;
    const log_slot_t *slot = first;
    const uint64_t route = (uint64_t)matcher->config.partition << 40;
    int64_t sequence = matcher->state->position;
    for (bool done = true; slot < end; slot++, sequence++) {
        if (batch->cold != COLD_NOTHING)
            look_ahead(matcher, batch, slot - batch->slots);
        if (UNLIKELY(route_of(slot) != route))
            break;
        speak_of(matcher, slot, sequence);
        switch (slot->template_id) {
        case TEMPLATE_NEW_ORDER_SINGLE:
            done = plain_new(matcher, slot);
            break;
        case TEMPLATE_ORDER_CANCEL_REQUEST:
            done = plain_cancel(matcher, slot);
            break;
        case TEMPLATE_ORDER_REPLACE_REQUEST:
            done = plain_replace(matcher, slot);
            break;
        default:
            done = false;
            break;
        }
        if (UNLIKELY(!done))
            break;
    }
    return slot - first;
}

/* Take one record at least, and as many as are done at once while there is budget. Returns how many; the last one may have left
 * work. */
static int64_t take_run(matcher_t *matcher, batch_t *batch, int64_t from, int64_t most)
{
    matcher_state_t *state = matcher->state;
    int64_t taken = 0;
    while (taken < most && state->work.depth == 0 && !step_is_over(matcher)) {
        int64_t plain_max = (int64_t)matcher->outputs_left - (MATCHER_STEP_OUTPUTS_MAX - 1);
        if (state->group_count == 0) {
            int64_t plain = take_plain(matcher, batch, from + taken, most - taken < plain_max ? most - taken : plain_max);
            taken += plain;
            state->position += plain;
            if (plain == plain_max || taken == most)
                continue;
        }
        take_any(matcher, batch->slots + from + taken);
        taken++;
    }
    return taken;
}

/* Take records until `count` are taken, `limit` units of work are done, or there is no room. Returns records taken. */
static int64_t run(matcher_t *matcher, const log_slot_t *slots, int64_t count, int64_t limit, int64_t *work_done)
{
    matcher_state_t *state = matcher->state;
    batch_t batch = {.slots = slots, .last = slots + (count > 0 ? count - 1 : 0), .cold = coldness(state->live, count)};
    int64_t taken = 0;
    int64_t done = 0;
    if (batch.cold != COLD_NOTHING)
        begin_looking(matcher, &batch);
    matcher->outputs_left = 0;
    while (done < limit) {
        if (UNLIKELY(state->work.depth > 0)) {
            if (!continue_input(matcher))
                break;
            done++;
            continue;
        }
        if (taken == count)
            break;
        /* One budget may serve many short inputs; what they wrote is published with it. */
        if (UNLIKELY(step_is_over(matcher))) {
            publish(matcher);
            if (!start_step(matcher))
                break;
        }
        int64_t most = count - taken < limit - done ? count - taken : limit - done;
        int64_t some = take_run(matcher, &batch, taken, most);
        taken += some;
        done += some;
    }
    publish(matcher);
    *work_done = done;
    return taken;
}

void matcher_quarantine(matcher_t *matcher, const int64_t *sequences, int64_t count)
{
    INVARIANT(matcher->quarantined_count + count <= QUARANTINED_MAX);
    for (int64_t i = 0; i < count; i++) {
        uint32_t used = matcher->quarantined_count;
        INVARIANT(used == 0 || matcher->quarantined[used - 1] < sequences[i]);
        matcher->quarantined[used] = sequences[i];
        matcher->quarantined_count++;
    }
}

/* The next record at or after `from` that is not to be done; INT64_MAX if there is none. */
static int64_t next_quarantined(const matcher_t *matcher, int64_t from)
{
    for (uint32_t i = 0; i < matcher->quarantined_count; i++)
        if (matcher->quarantined[i] >= from)
            return matcher->quarantined[i];
    return INT64_MAX;
}

/* Whole groups only: a quarantined frame takes the group it belongs to with it. */
static int64_t refuse_quarantined(matcher_t *matcher, const log_slot_t *slots, int64_t count)
{
    matcher_state_t *state = matcher->state;
    uint32_t length = state->group_count;
    for (int64_t i = 0; i < count && length < GROUP_SLOTS_MAX; i++) {
        state->group[length++] = slots[i];
        if ((slots[i].flags & SLOT_FLAG_MORE) != 0)
            continue;
        if (!start_step(matcher))
            break;
        state->group_count = 0;
        state->position += i;
        matcher_refuse_group(matcher, state->group, length);
        state->position++;
        finish_input(matcher);
        publish(matcher);
        return i + 1;
    }
    return 0;
}

/* Recovery only: a matcher that polls has never to do with records that are taken back. */
int64_t matcher_feed(matcher_t *matcher, const log_slot_t *slots, int64_t first_sequence, int64_t count)
{
    int64_t work_done;
    int64_t taken = 0;
    INVARIANT(first_sequence == matcher->state->position || count == 0);
    for (;;) {
        int64_t refused = next_quarantined(matcher, first_sequence + taken);
        int64_t most = refused - first_sequence < count ? refused - first_sequence : count;
        taken += run(matcher, slots + taken, most - taken, INT64_MAX, &work_done);
        if (taken < most || most == count || !matcher_idle(matcher))
            return taken;
        int64_t some = refuse_quarantined(matcher, slots + taken, count - taken);
        if (some == 0)
            return taken;
        taken += some;
    }
}

int64_t matcher_poll(void *state, int64_t limit)
{
    matcher_t *matcher = state;
    int64_t visible = ring_visible(matcher->log);
    int64_t done = 0;
    while (done < limit) {
        int64_t count = visible - matcher->state->position;
        int64_t work_done;
        if (count > limit - done)
            count = limit - done;
        if (count > MATCHER_BATCH)
            count = MATCHER_BATCH;
        if (count > 0 && ring_read(matcher->log, matcher->state->position, count, matcher->batch) != RING_OK)
            return done > 0 ? done : STAGE_LAPPED;
        (void)run(matcher, matcher->batch, count > 0 ? count : 0, limit - done, &work_done);
        if (work_done == 0)
            break;
        done += work_done;
    }
    return done;
}

/* ---- what can be asked ------------------------------------------------------------------------------------------------- */

int64_t matcher_position(const matcher_t *matcher)
{
    return matcher->state->position;
}

void matcher_set_position(matcher_t *matcher, int64_t sequence)
{
    INVARIANT(matcher_idle(matcher));
    matcher->state->position = sequence;
}

bool matcher_idle(const matcher_t *matcher)
{
    return matcher->state->work.depth == 0;
}

int64_t matcher_settled(const matcher_t *matcher)
{
    return matcher->state->settled;
}

static const book_t *known_book(const matcher_t *matcher, uint32_t instrument)
{
    if (instrument - 1 >= matcher->store.books_max || matcher->store.books[instrument - 1].state == 0)
        return NULL;
    return matcher->store.books + (instrument - 1);
}

void matcher_hash(const matcher_t *matcher, uint32_t instrument, uint64_t out[2])
{
    const book_t *book = known_book(matcher, instrument);
    state_hash_t hash = book != NULL ? book_hash(book) : (state_hash_t){0, 0};
    out[0] = hash.low;
    out[1] = hash.high;
}

int64_t matcher_levels(const matcher_t *matcher, uint32_t instrument, uint8_t side, matcher_level_t *out, int64_t limit)
{
    const book_store_t *store = &matcher->store;
    const book_t *book = known_book(matcher, instrument);
    levels_iterator_t at;
    int64_t count = 0;
    if (book == NULL)
        return 0;
    const levels_t *levels = &book->side[side == SIDE_SELL];
    for (levels_begin(&store->trees, levels, &at); at.level != NULL && count < limit;
         levels_next(&store->trees, levels, &at)) {
        matcher_level_t *level = &out[count++];
        *level = (matcher_level_t){.price = rank_of_price(at.rank, side == SIDE_SELL)};
        for (uint32_t slot = at.level->head; slot != NOBODY; slot = store->orders[slot].next) {
            level->quantity += store->orders[slot].leaves;
            level->orders++;
        }
    }
    return count;
}

static matcher_order_t seen_from_outside(const book_store_t *store, const order_t *order)
{
    const order_rest_t *rest = rest_of(store, order);
    return (matcher_order_t){.order_id = order->id,
                             .cl_ord_id = order->cl_ord_id,
                             .price = order_price(order),
                             .leaves = order->leaves,
                             .hidden = order_open(store, order) - order->leaves,
                             .cum = order->cum,
                             .account = order->account,
                             .session = rest->session,
                             .side = order_side_code(order)};
}

int64_t matcher_orders(const matcher_t *matcher, uint32_t instrument, uint8_t side, matcher_order_t *out, int64_t limit)
{
    const book_store_t *store = &matcher->store;
    const book_t *book = known_book(matcher, instrument);
    levels_iterator_t at;
    int64_t count = 0;
    if (book == NULL)
        return 0;
    const levels_t *levels = &book->side[side == SIDE_SELL];
    for (levels_begin(&store->trees, levels, &at); at.level != NULL; levels_next(&store->trees, levels, &at)) {
        for (uint32_t slot = at.level->head; slot != NOBODY; slot = store->orders[slot].next) {
            if (count == limit)
                return count;
            out[count++] = seen_from_outside(store, store->orders + slot);
        }
    }
    return count;
}

int64_t matcher_waiting(const matcher_t *matcher, uint32_t instrument, matcher_order_t *out, int64_t limit)
{
    const book_store_t *store = &matcher->store;
    int64_t count = 0;
    for (uint32_t slot = 1; slot <= store->order_mask + 1 && count < limit; slot++) {
        const order_t *order = store->orders + slot;
        if (order->id != 0 && (order->flags & ORDER_OFF_BOOK) != 0 && order->book + 1u == instrument)
            out[count++] = seen_from_outside(store, order);
    }
    return count;
}

int64_t matcher_order_count(const matcher_t *matcher, uint32_t instrument)
{
    const book_t *book = known_book(matcher, instrument);
    return book != NULL ? book->order_count : 0;
}

uint8_t matcher_market_state(const matcher_t *matcher, uint32_t instrument)
{
    const book_t *book = known_book(matcher, instrument);
    return book != NULL ? book->state : 0;
}

const char *matcher_check(const matcher_t *matcher)
{
    return book_check(&matcher->store);
}
