/* See matcher.h: construction, the step, what can be asked. */
#include "engine/matcher_state.h"

#include <stdlib.h>
#include <sys/mman.h>

#define ARENA_ALIGNMENT 4096
#define HUGE_PAGE_SIZE (2u << 20)
#define L2_SIZE (1u << 20) /* live orders beyond half of it: a batch's next ones are prefetched, below that costs more than it saves */
#define WINDOW_LOG2_DEFAULT 16

/* ---- construction ------------------------------------------------------------------------------------------------------ */

static uint64_t arena_take(uint64_t *size, uint64_t count, uint64_t element_size)
{
    uint64_t offset = *size;
    *size = (offset + count * element_size + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    return offset;
}

/* Offsets of the parts; the windows come last, so that few instruments touch little. */
typedef struct arena_layout {
    uint64_t state, sessions, accounts, books, orders, cold, far, forks, windows, size;
} arena_layout_t;

static arena_layout_t arena_layout(const matcher_config_t *config, const level_store_t *levels)
{
    arena_layout_t layout;
    uint64_t size = 0;
    layout.state = arena_take(&size, 1, sizeof(matcher_state_t));
    layout.sessions = arena_take(&size, (uint64_t)config->sessions_max + 1, sizeof(session_t));
    layout.accounts = arena_take(&size, (uint64_t)config->accounts_max + 1, sizeof(account_t));
    layout.books = arena_take(&size, config->instruments_max, sizeof(book_t));
    layout.orders = arena_take(&size, config->orders_max, sizeof(order_t));
    layout.cold = arena_take(&size, config->orders_max, sizeof(order_cold_t));
    layout.far = arena_take(&size, config->orders_max, sizeof(far_level_t));
    layout.forks = arena_take(&size, config->orders_max, sizeof(far_fork_t));
    layout.windows = arena_take(&size, config->instruments_max, 2 * levels_window_size(levels));
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
    INVARIANT(config.orders_max <= LEVELS_FAR_MAX);
    INVARIANT(config.instruments_max > 0);
    INVARIANT(config.instruments_max <= UINT16_MAX);
    INVARIANT(config.accounts_max < UINT32_MAX);
    INVARIANT(config.sessions_max < UINT32_MAX);
    INVARIANT(config.step_budget >= MATCHER_STEP_OUTPUTS_MAX);
    return config;
}

static void place(matcher_t *matcher, const arena_layout_t *layout)
{
    uint8_t *arena = matcher->arena;
    book_store_t *store = &matcher->store;
    matcher->state = (matcher_state_t *)(arena + layout->state);
    matcher->sessions = (session_t *)(arena + layout->sessions);
    store->accounts = (account_t *)(arena + layout->accounts);
    store->books = (book_t *)(arena + layout->books);
    store->orders = (order_t *)(arena + layout->orders);
    store->cold = (order_cold_t *)(arena + layout->cold);
    store->levels.arena = arena;
    store->levels.far = (far_level_t *)(arena + layout->far);
    store->levels.forks = (far_fork_t *)(arena + layout->forks);
    store->levels.slab = &matcher->state->far_slab;
    store->orders_max = matcher->config.orders_max;
    store->order_mask = matcher->config.orders_max - 1;
    store->books_max = matcher->config.instruments_max;
    store->accounts_max = matcher->config.accounts_max;
    matcher->exec_high = (uint64_t)matcher->config.partition << 56;
    matcher->report_head = (uint64_t)matcher->config.partition << 56 | (uint64_t)ORDERS_SCHEMA_VERSION << 48;
}

matcher_t *matcher_new(const matcher_config_t *config)
{
    matcher_t *matcher = calloc(1, sizeof(*matcher));
    if (matcher == NULL)
        return NULL;
    matcher->config = completed(config);
    levels_store_open(&matcher->store.levels, NULL, matcher->config.window_log2);
    arena_layout_t layout = arena_layout(&matcher->config, &matcher->store.levels);
    matcher->arena_size = (layout.size + HUGE_PAGE_SIZE - 1) / HUGE_PAGE_SIZE * HUGE_PAGE_SIZE;
    /* Not reserved: windows and far levels are mostly never touched. */
    matcher->arena = mmap(NULL, matcher->arena_size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (matcher->arena == MAP_FAILED) {
        free(matcher);
        return NULL;
    }
    /* Only the orders: a huge page of a window or of far levels would be mostly air. Refusal costs speed only. */
    (void)madvise(matcher->arena + layout.orders, layout.far - layout.orders, MADV_HUGEPAGE);
    place(matcher, &layout);
    matcher->state->window_next = layout.windows;
    matcher->state->far_slab =
        (far_slab_t){.level_free = LEVELS_NONE, .fork_free = LEVELS_NONE, .capacity = matcher->config.orders_max};
    return matcher;
}

void matcher_prefault(matcher_t *matcher)
{
    volatile uint8_t *page = (volatile uint8_t *)matcher->store.orders;
    const volatile uint8_t *end = (const volatile uint8_t *)(matcher->store.cold + matcher->config.orders_max);
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
    bool pending = matcher->state->work.kind != WORK_NONE;
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
    return matcher->outputs_left >= MATCHER_STEP_OUTPUTS_MAX;
}

static bool resume(matcher_t *matcher)
{
    switch (matcher->state->work.kind) {
    case WORK_NONE:
        return true;
    case WORK_MATCH:
        return matcher_match(matcher);
    case WORK_FOK_SCAN:
        return matcher_fok_scan(matcher);
    case WORK_MASS_CANCEL:
        return matcher_mass_cancel_step(matcher);
    case WORK_HASH_MARK:
        return matcher_hash_mark_step(matcher);
    }
    INVARIANT(false);
    return false;
}

static void take_rare(matcher_t *matcher, const log_slot_t *slot)
{
    switch (slot->template_id) {
    case TEMPLATE_MASS_CANCEL_REQUEST:
        matcher_mass_cancel(matcher, slot);
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
    case TEMPLATE_INSTRUMENT_STATE:
        matcher_instrument_state(matcher, slot);
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

/* One record of ours. May leave work. */
static void take(matcher_t *matcher, const log_slot_t *slot, int64_t sequence)
{
    input_t *input = &matcher->state->input;
    INVARIANT(slot->session <= matcher->config.sessions_max);
    input->sequence = (uint64_t)sequence;
    input->ts_ns = slot->ts_ns;
    input->ingress_ns = slot->ingress_ns;
    input->seq_num = slot->seq_num;
    input->session = slot->session;
    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        matcher_new_order(matcher, slot);
        break;
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        matcher_cancel(matcher, slot);
        break;
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        matcher_replace(matcher, slot);
        break;
    default:
        take_rare(matcher, slot);
        break;
    }
}

static bool is_ours(const matcher_t *matcher, const log_slot_t *slot)
{
    return (slot->partition == matcher->config.partition || slot->partition == PARTITION_ALL) &&
           (slot->flags & SLOT_FLAG_REJECT) == 0;
}

/* The order a record will touch, if it names one. */
static uint64_t touched_order(const log_slot_t *slot)
{
    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        return slot->aux;
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        return ((const order_cancel_request_t *)slot->block)->order_id;
    case TEMPLATE_ORDER_REPLACE_REQUEST:
        return ((const order_replace_request_t *)slot->block)->order_id;
    default:
        return 0;
    }
}

#define PREFETCH_NODE_AHEAD 8
#define PREFETCH_NEIGHBOURS_AHEAD 4

static void prefetch_node(const matcher_t *matcher, const log_slot_t *slot)
{
    const book_store_t *store = &matcher->store;
    uint32_t index = order_index(store, touched_order(slot));
    PREFETCH(store->orders + index);
    PREFETCH(store->cold + index);
}

/* What follows from a node that should have arrived: FIFO and account neighbours, and the level. Stale values are harmless. */
static void prefetch_neighbours(const matcher_t *matcher, const log_slot_t *slot)
{
    const book_store_t *store = &matcher->store;
    uint64_t id = touched_order(slot);
    const order_t *order = store->orders + order_index(store, id);
    const order_cold_t *cold = store->cold + order_index(store, id);
    int64_t price = order->price;
    const levels_t *side;
    if (slot->template_id == TEMPLATE_NEW_ORDER_SINGLE) {
        const new_order_single_t *block = (const new_order_single_t *)slot->block;
        if (block->instrument_id - 1 >= store->books_max)
            return;
        side = &store->books[block->instrument_id - 1].side[block->side == SIDE_SELL];
        price = block->price;
    } else {
        if (order->id != id)
            return;
        side = &store->books[order->book].side[order_side(order)];
        if (order->prev != ORDER_NONE)
            PREFETCH(store->orders + order->prev);
        if (order->next != ORDER_NONE)
            PREFETCH(store->orders + order->next);
        if (cold->account_prev != ORDER_NONE)
            PREFETCH(store->cold + cold->account_prev);
        if (cold->account_next != ORDER_NONE)
            PREFETCH(store->cold + cold->account_next);
    }
    PREFETCH(levels_window(&store->levels, side) + ((uint64_t)price & store->levels.mask));
}

static void prefetch(const matcher_t *matcher, const log_slot_t *slots, int64_t at, int64_t count)
{
    if (at + PREFETCH_NODE_AHEAD < count && touched_order(slots + at + PREFETCH_NODE_AHEAD) != 0)
        prefetch_node(matcher, slots + at + PREFETCH_NODE_AHEAD);
    if (at + PREFETCH_NEIGHBOURS_AHEAD < count && touched_order(slots + at + PREFETCH_NEIGHBOURS_AHEAD) != 0)
        prefetch_neighbours(matcher, slots + at + PREFETCH_NEIGHBOURS_AHEAD);
}

/* Few live orders, but ids walk through all slots, and output streams through the cache: only the nodes themselves. */
static void prefetch_nodes(const matcher_t *matcher, const log_slot_t *slots, int64_t at, int64_t count)
{
    if (at + PREFETCH_NEIGHBOURS_AHEAD < count && touched_order(slots + at + PREFETCH_NEIGHBOURS_AHEAD) != 0)
        prefetch_node(matcher, slots + at + PREFETCH_NEIGHBOURS_AHEAD);
}

/* The input is done. */
static void finish_input(matcher_t *matcher)
{
    book_follow(&matcher->store, matcher->store.books + matcher->state->input.book);
    if (matcher->last_report != NULL)
        matcher->last_report->flags |= REPORT_FLAG_LAST_OF_INPUT;
    if (matcher->last_event_flags != NULL)
        *matcher->last_event_flags |= EVENT_FLAGS_END_OF_EVENT;
    matcher->last_report = NULL;
    matcher->last_event_flags = NULL;
}

/* Go on with the unfinished input: one step. False = no room. */
static bool continue_input(matcher_t *matcher)
{
    if (!start_step(matcher))
        return false;
    if (resume(matcher))
        finish_input(matcher);
    publish(matcher);
    return true;
}

/* Take records until `count` are taken, `limit` units of work are done, or there is no room. Returns records taken. */
static int64_t run(matcher_t *matcher, const log_slot_t *slots, int64_t count, int64_t limit, int64_t *work_done)
{
    matcher_state_t *state = matcher->state;
    bool cold = (uint64_t)matcher->store.live * sizeof(order_t) > L2_SIZE / 2;
    bool cold_slots = (uint64_t)matcher->config.orders_max * sizeof(order_t) > L2_SIZE;
    int64_t taken = 0;
    int64_t done = 0;
    matcher->outputs_left = 0;
    for (; done < limit; done++) {
        if (UNLIKELY(state->work.kind != WORK_NONE)) {
            if (!continue_input(matcher))
                break;
            continue;
        }
        if (taken == count)
            break;
        if (cold)
            prefetch(matcher, slots, taken, count);
        else if (cold_slots)
            prefetch_nodes(matcher, slots, taken, count);
        const log_slot_t *slot = slots + taken;
        if (LIKELY(is_ours(matcher, slot))) {
            /* One budget may serve many short inputs; what they wrote is published with it. */
            if (UNLIKELY(matcher->outputs_left < MATCHER_STEP_OUTPUTS_MAX)) {
                publish(matcher);
                if (!start_step(matcher))
                    break;
            }
            take(matcher, slot, state->position);
            if (LIKELY(state->work.kind == WORK_NONE))
                finish_input(matcher);
        }
        taken++;
        state->position++;
    }
    publish(matcher);
    *work_done = done;
    return taken;
}

int64_t matcher_feed(matcher_t *matcher, const log_slot_t *slots, int64_t first_sequence, int64_t count)
{
    int64_t work_done;
    INVARIANT(first_sequence == matcher->state->position || count == 0);
    return run(matcher, slots, count, INT64_MAX, &work_done);
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
    return matcher->state->work.kind == WORK_NONE;
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
    out[0] = book != NULL ? book->hash.low : 0;
    out[1] = book != NULL ? book->hash.high : 0;
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
    for (levels_begin(&store->levels, levels, &at); at.level != NULL && count < limit;
         levels_next(&store->levels, levels, &at)) {
        matcher_level_t *level = &out[count++];
        *level = (matcher_level_t){.price = at.price, .quantity = (int64_t)at.level->quantity};
        for (uint32_t index = at.level->head; index != ORDER_NONE; index = store->orders[index].next)
            level->orders++;
    }
    return count;
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
    for (levels_begin(&store->levels, levels, &at); at.level != NULL; levels_next(&store->levels, levels, &at)) {
        for (uint32_t index = at.level->head; index != ORDER_NONE; index = store->orders[index].next) {
            const order_t *order = store->orders + index;
            if (count == limit)
                return count;
            out[count++] = (matcher_order_t){.order_id = order->id,
                                             .cl_ord_id = order->cl_ord_id,
                                             .price = order->price,
                                             .leaves = order->leaves,
                                             .cum = order->cum,
                                             .account = order->account,
                                             .session = order->session};
        }
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
