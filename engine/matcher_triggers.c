/* Orders outside the levels: stops and take-profits that wait, trailing ones that follow, fired ones that queue; and the dates on
 * which orders expire (docs/MATCHING.md, sections 4 and 8).
 *
 * Waiting orders stand in two trees by stop price. Trailing orders that are active stand, per side, in one list by activation,
 * cut into *runs* of one extreme. An older order has seen all prices a younger one has, so extremes fall (sells) from run to run: a
 * new extreme joins runs at the young end, at constant cost on the average, whatever the distances. A bound on the nearest firing
 * price, exact after each search, keeps searches rare. */
#include "engine/events.h"
#include "engine/reports.h"

/* ---- lists of extras ----------------------------------------------------------------------------------------------------- */

static void list_append(const book_store_t *store, level_t *list, extra_t *extra)
{
    uint32_t index = (uint32_t)(extra - store->extras);
    extra->prev = list->tail;
    extra->next = 0;
    *link_or(&store->extras[list->tail].next, &list->head, list->tail) = index;
    list->tail = index;
}

static void list_remove(const book_store_t *store, level_t *list, const extra_t *extra)
{
    *link_or(&store->extras[extra->prev].next, &list->head, extra->prev) = extra->next;
    *link_or(&store->extras[extra->next].prev, &list->tail, extra->next) = extra->prev;
}

static void tree_append(const book_store_t *store, tree_t *tree, int64_t key, extra_t *extra)
{
    list_append(store, &store->trees.leaves[tree_open(&store->trees, tree, key)].level, extra);
}

static void tree_remove(const book_store_t *store, tree_t *tree, int64_t key, const extra_t *extra)
{
    uint32_t leaf = tree_find(&store->trees, tree, key);
    INVARIANT(leaf != TREE_NONE);
    level_t *level = &store->trees.leaves[leaf].level;
    list_remove(store, level, extra);
    if (level->head == 0)
        tree_close(&store->trees, tree, key);
}

static tree_t *waiting_tree(book_t *book, const extra_t *extra)
{
    return (extra->flags & EXTRA_UP) != 0 ? &book->triggers.up : &book->triggers.down;
}

/* ---- trailing runs --------------------------------------------------------------------------------------------------------- */

static int64_t floor_bps(int64_t price, int64_t bps)
{
    int128_t product = (int128_t)price * bps;
    int128_t quotient = product / BPS;
    return (int64_t)(product % BPS < 0 ? quotient - 1 : quotient);
}

/* The last price at which an order of this extreme and delta fires: sells at or below it, buys at or above it. */
static int64_t fires_at(int side, int64_t extreme, uint16_t delta)
{
    return side != 0 ? floor_bps(extreme, BPS - delta) : -floor_bps(-extreme, BPS + delta);
}

static bool is_beyond(int side, int64_t price, int64_t than)
{
    return side != 0 ? price > than : price < than;
}

/* No order of the side fires before its bound: keep it true for one that may fire at `price`. */
static void bound_include(book_t *book, int side, int64_t price)
{
    if (is_beyond(side, price, book->triggers.trailing_fire[side]))
        book->triggers.trailing_fire[side] = price;
}

static extra_t *run_head(const book_store_t *store, uint32_t leaf)
{
    return store->extras + store->trees.leaves[leaf].level.head;
}

/* The youngest run has the least advanced extreme: TREE_NONE if there is none. */
static uint32_t youngest_run(const book_t *book, int side)
{
    return tree_highest(&book->triggers.runs[side]);
}

static void activate(const book_store_t *store, book_t *book, int side, extra_t *extra, int64_t price)
{
    tree_t *runs = &book->triggers.runs[side];
    uint32_t leaf = youngest_run(book, side);
    extra->flags |= EXTRA_TRAILING;
    extra->activation = ++book->triggers.activations;
    extra->extreme = price;
    extra->delta_min = extra->trailing_delta;
    if (leaf != TREE_NONE && run_head(store, leaf)->extreme == price) {
        extra_t *head = run_head(store, leaf);
        head->delta_min = extra->trailing_delta < head->delta_min ? extra->trailing_delta : head->delta_min;
        list_append(store, &store->trees.leaves[leaf].level, extra);
    } else {
        tree_append(store, runs, (int64_t)extra->activation, extra);
    }
    bound_include(book, side, fires_at(side, price, extra->trailing_delta));
}

static void leave_run(const book_store_t *store, book_t *book, int side, const extra_t *extra)
{
    tree_t *runs = &book->triggers.runs[side];
    uint32_t leaf = tree_at_or_below(&store->trees, runs, (int64_t)extra->activation);
    INVARIANT(leaf != TREE_NONE);
    level_t level = store->trees.leaves[leaf].level;
    if (level.head != (uint32_t)(extra - store->extras)) {
        list_remove(store, &store->trees.leaves[leaf].level, extra);
        return;
    }
    /* The run is known by its first: it gets another name. */
    list_remove(store, &level, extra);
    tree_close(&store->trees, runs, (int64_t)extra->activation);
    if (level.head == 0)
        return;
    extra_t *head = store->extras + level.head;
    head->extreme = extra->extreme;
    head->delta_min = extra->delta_min;
    store->trees.leaves[tree_open(&store->trees, runs, (int64_t)head->activation)].level = level;
}

/* The youngest run and the one before it have become one. */
static void join_runs(const book_store_t *store, book_t *book, int side, uint32_t older, uint32_t younger)
{
    level_t *to = &store->trees.leaves[older].level;
    level_t from = store->trees.leaves[younger].level;
    extra_t *head = store->extras + to->head;
    const extra_t *joining = store->extras + from.head;
    head->extreme = joining->extreme;
    head->delta_min = joining->delta_min < head->delta_min ? joining->delta_min : head->delta_min;
    store->extras[to->tail].next = from.head;
    store->extras[from.head].prev = to->tail;
    to->tail = from.tail;
    tree_close(&store->trees, &book->triggers.runs[side], (int64_t)joining->activation);
}

/* New extremes at the last price; false = out of budget. */
static bool follow(matcher_t *matcher, book_t *book, int side)
{
    const book_store_t *store = &matcher->store;
    for (uint32_t leaf = youngest_run(book, side); leaf != TREE_NONE; leaf = youngest_run(book, side)) {
        extra_t *head = run_head(store, leaf);
        uint32_t older = store->trees.leaves[leaf].lower;
        if (matcher->visits_left == 0)
            return false;
        matcher->visits_left--;
        if (is_beyond(side, book->last_price, head->extreme)) {
            head->extreme = book->last_price;
            bound_include(book, side, fires_at(side, head->extreme, head->delta_min));
        } else if (older != TREE_NONE && !is_beyond(side, run_head(store, older)->extreme, head->extreme)) {
            join_runs(store, book, side, older, leaf);
            head = run_head(store, older);
            bound_include(book, side, fires_at(side, head->extreme, head->delta_min));
        } else {
            break;
        }
    }
    return true;
}

/* ---- beginning and ending to wait ------------------------------------------------------------------------------------------- */

bool trigger_would_fire(const book_t *book, const extra_t *extra)
{
    if (!book->has_last_price || extra->stop_price == PX_OPT_NULL)
        return false;
    int64_t stop = extra->stop_price - (FAULT(STOP_EARLY) && (extra->flags & EXTRA_UP) != 0);
    return (extra->flags & EXTRA_UP) != 0 ? book->last_price >= stop : book->last_price <= stop;
}

void trigger_wait(matcher_t *matcher, order_t *order, extra_t *extra)
{
    const book_store_t *store = &matcher->store;
    book_t *book = book_of(store, order);
    order->flags |= ORDER_OFF_BOOK;
    book->triggers.count++;
    if (extra->stop_price == PX_OPT_NULL && book->has_last_price) {
        activate(store, book, order_side(order), extra, book->last_price);
        return;
    }
    /* Without a stop price any first trade does: the null is the lowest price there is. */
    if (extra->stop_price == PX_OPT_NULL)
        extra->flags |= EXTRA_UP;
    extra->flags |= EXTRA_WAITING;
    tree_append(store, waiting_tree(book, extra), extra->stop_price, extra);
}

void trigger_leave(matcher_t *matcher, const order_t *order, extra_t *extra)
{
    const book_store_t *store = &matcher->store;
    book_t *book = book_of(store, order);
    book_unseen_remove(book, order, extra);
    if ((extra->flags & EXTRA_WAITING) != 0)
        tree_remove(store, waiting_tree(book, extra), extra->stop_price, extra);
    else if ((extra->flags & EXTRA_TRAILING) != 0)
        leave_run(store, book, order_side(order), extra);
    else
        list_remove(store, &book->triggers.queue, extra);
    extra->flags &= ~(uint32_t)EXTRA_OFF_BOOK;
    book->triggers.count--;
    book_unseen_add(book, order, extra);
}

/* ---- a trade ------------------------------------------------------------------------------------------------------------------ */

static bool needs_following(const book_store_t *store, const book_t *book, int side)
{
    uint32_t leaf = youngest_run(book, side);
    return leaf != TREE_NONE && is_beyond(side, book->last_price, run_head(store, leaf)->extreme);
}

void triggers_traded(matcher_t *matcher, book_t *book)
{
    const book_store_t *store = &matcher->store;
    triggers_t *triggers = &book->triggers;
    int64_t price = book->last_price;
    uint32_t up = tree_lowest(&triggers->up);
    uint32_t down = tree_highest(&triggers->down);
    bool fires = (up != TREE_NONE && store->trees.leaves[up].key - FAULT(STOP_EARLY) <= price) ||
                 (down != TREE_NONE && store->trees.leaves[down].key >= price) ||
                 price <= triggers->trailing_fire[1] || price >= triggers->trailing_fire[0] ||
                 needs_following(store, book, 0) || needs_following(store, book, 1);
    if (!fires)
        return;
    triggers->noting = true;
    triggers->note_phase = 0;
    triggers->note_next = 0;
    triggers->note_boundary = triggers->activations;
}

/* The order has fired, or its activation price is reached. */
static void fire(const book_store_t *store, book_t *book, extra_t *extra)
{
    const order_t *order = store->orders + extra->owner;
    book_unseen_remove(book, order, extra);
    bool activates = (extra->flags & EXTRA_WAITING) != 0 && extra->trailing_delta > 0;
    if ((extra->flags & EXTRA_WAITING) != 0)
        tree_remove(store, waiting_tree(book, extra), extra->stop_price, extra);
    else
        leave_run(store, book, order_side(order), extra);
    extra->flags &= ~(uint32_t)EXTRA_OFF_BOOK;
    if (activates) {
        activate(store, book, order_side(order), extra, book->last_price);
    } else {
        extra->flags |= EXTRA_QUEUED;
        list_append(store, &book->triggers.queue, extra);
    }
    book_unseen_add(book, order, extra);
}

static bool note_waiting(matcher_t *matcher, book_t *book, bool up)
{
    const book_store_t *store = &matcher->store;
    const tree_t *tree = up ? &book->triggers.up : &book->triggers.down;
    while (true) {
        uint32_t leaf = up ? tree_lowest(tree) : tree_highest(tree);
        if (leaf == TREE_NONE)
            return true;
        int64_t key = store->trees.leaves[leaf].key;
        if (up ? key - FAULT(STOP_EARLY) > book->last_price : key < book->last_price)
            return true;
        if (matcher->visits_left == 0)
            return false;
        matcher->visits_left--;
        fire(store, book, run_head(store, leaf));
    }
}

/* Look through the side's trailing orders, oldest first, if one may fire; finds the exact bound for next time. */
static bool note_trailing(matcher_t *matcher, book_t *book, int side)
{
    const book_store_t *store = &matcher->store;
    triggers_t *triggers = &book->triggers;
    int64_t price = book->last_price;
    if (triggers->note_next == 0) {
        if (is_beyond(side, price, triggers->trailing_fire[side]))
            return true;
        triggers->note_fire = side != 0 ? INT64_MIN : INT64_MAX;
        uint32_t first = tree_lowest(&triggers->runs[side]);
        triggers->note_next = first == TREE_NONE ? 0 : store->trees.leaves[first].level.head;
    }
    while (triggers->note_next != 0) {
        extra_t *extra = store->extras + triggers->note_next;
        uint32_t leaf = tree_at_or_below(&store->trees, &triggers->runs[side], (int64_t)extra->activation);
        int64_t at = fires_at(side, run_head(store, leaf)->extreme, extra->trailing_delta);
        uint32_t later = extra->next;
        if (matcher->visits_left == 0)
            return false;
        matcher->visits_left--;
        if (later == 0) {
            uint32_t run = store->trees.leaves[leaf].higher;
            later = run == TREE_NONE ? 0 : store->trees.leaves[run].level.head;
        }
        if (!is_beyond(side, price, at) && extra->activation <= triggers->note_boundary)
            fire(store, book, extra);
        else if (is_beyond(side, at, triggers->note_fire))
            triggers->note_fire = at;
        triggers->note_next = later;
    }
    triggers->trailing_fire[side] = triggers->note_fire;
    return true;
}

bool triggers_note(matcher_t *matcher, book_t *book)
{
    triggers_t *triggers = &book->triggers;
    bool done = true;
    while (done && triggers->note_phase < 6) {
        switch (triggers->note_phase) {
        case 0:
        case 1:
            done = follow(matcher, book, triggers->note_phase);
            break;
        case 2:
        case 3:
            done = note_waiting(matcher, book, triggers->note_phase == 2);
            break;
        default: /* sells first */
            done = note_trailing(matcher, book, triggers->note_phase == 4);
            break;
        }
        triggers->note_phase += done;
    }
    triggers->noting = !done;
    return done;
}

/* ---- the queue ------------------------------------------------------------------------------------------------------------------ */

/* From here on it is an order like any other: a taker that has its slot. */
static void release(matcher_t *matcher, order_t *order, extra_t *extra)
{
    const book_store_t *store = &matcher->store;
    taker_t *taker = &matcher->state->work.taker;
    matcher_end_peer(matcher, extra,
                     (ending_t){.reason = CANCEL_REASON_LIST_PEER_EXECUTED, .status = ORD_STATUS_EXPIRED});
    report_triggered(matcher, order, rest_of(store, order));
    trigger_leave(matcher, order, extra);
    *taker = (taker_t){.order = *order, .rest = *rest_of(store, order), .seated = true};
    taker->order.leaves = order_open(store, order);
    if (is_market_type(taker->rest.ord_type))
        taker->rest.time_in_force = TIME_IN_FORCE_IOC;
    if (taker->rest.time_in_force != TIME_IN_FORCE_FOK) {
        work_push(matcher, WORK_COURSE);
        return;
    }
    taker->minimum = taker->order.leaves;
    matcher_begin_scan(matcher);
}

bool matcher_drain(matcher_t *matcher)
{
    const book_store_t *store = &matcher->store;
    book_t *book = store->books + matcher->state->work.drain_book;
    if (book->triggers.noting && !triggers_note(matcher, book))
        return false;
    if (book->triggers.queue.head == 0 || book->state != MARKET_STATE_CONTINUOUS) {
        work_pop(matcher);
        return true;
    }
    if (step_is_over(matcher))
        return false;
    extra_t *extra = store->extras + book->triggers.queue.head;
    release(matcher, store->orders + extra->owner, extra);
    return true;
}

/* ---- expiry ----------------------------------------------------------------------------------------------------------------------- */

void expiry_set(matcher_t *matcher, book_t *book, extra_t *extra, uint32_t expire)
{
    const book_store_t *store = &matcher->store;
    level_t *list = &store->trees.leaves[tree_open(&store->trees, &book->expiries, expire)].level;
    uint32_t index = (uint32_t)(extra - store->extras);
    extra->expire = expire;
    extra->flags |= EXTRA_DATED;
    extra->expire_prev = list->tail;
    extra->expire_next = 0;
    *link_or(&store->extras[list->tail].expire_next, &list->head, list->tail) = index;
    list->tail = index;
}

void expiry_clear(matcher_t *matcher, book_t *book, extra_t *extra)
{
    const book_store_t *store = &matcher->store;
    uint32_t leaf = tree_find(&store->trees, &book->expiries, extra->expire);
    INVARIANT(leaf != TREE_NONE);
    level_t *list = &store->trees.leaves[leaf].level;
    *link_or(&store->extras[extra->expire_prev].expire_next, &list->head, extra->expire_prev) = extra->expire_next;
    *link_or(&store->extras[extra->expire_next].expire_prev, &list->tail, extra->expire_next) = extra->expire_prev;
    if (list->head == 0)
        tree_close(&store->trees, &book->expiries, extra->expire);
    extra->flags &= ~(uint32_t)EXTRA_DATED;
}
