/* What clients ask for: new orders, cancels, replaces, amends, questions (docs/MATCHING.md, sections 3, 4, 6, 9). */
#include "engine/matcher_orders.h"

#include "engine/events.h"
#include "engine/reports.h"

uint16_t market_refuses(const book_t *book, uint8_t ord_type, bool immediate)
{
    switch (book->state) {
    case MARKET_STATE_CONTINUOUS:
        return 0;
    case MARKET_STATE_CANCEL_ONLY:
        return REJECT_CODE_CANCEL_ONLY;
    case MARKET_STATE_HALTED:
        return REJECT_CODE_MARKET_HALTED;
    case MARKET_STATE_CLOSED:
        return REJECT_CODE_MARKET_CLOSED;
    default: /* collecting */
        if (immediate || (ord_type == ORD_TYPE_MARKET && book->state != MARKET_STATE_AUCTION))
            return REJECT_CODE_AUCTION_ONLY;
        return 0;
    }
}

/* A limit order that trades at once or ends, when its turn comes. */
static bool limit_at_once(uint8_t ord_type, uint8_t time_in_force)
{
    return !is_market_type(ord_type) && (time_in_force == TIME_IN_FORCE_IOC || time_in_force == TIME_IN_FORCE_FOK);
}

/* ---- new orders ---------------------------------------------------------------------------------------------------------- */

new_order_t new_order_of(const log_slot_t *slot, const order_details_t *details)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    bool minimum_in_display = (block->exec_inst & EXEC_INST_DISPLAY_IS_MINIMUM) != 0;
    new_order_t new_order = {.slot = slot, .block = block};
    if (!minimum_in_display && block->display_qty != QTY_OPT_NULL && block->display_qty < block->order_qty)
        new_order.display = block->display_qty;
    if (minimum_in_display)
        new_order.minimum = block->display_qty;
    if (details != NULL && details->min_qty != QTY_OPT_NULL)
        new_order.minimum = details->min_qty;
    if (new_order.display > 0 && details != NULL && details->initial_display_qty != QTY_OPT_NULL)
        new_order.first_display = details->initial_display_qty;
    new_order.by_amount = (block->exec_inst & EXEC_INST_QUOTE_AMOUNT) != 0;
    if (block->time_in_force == TIME_IN_FORCE_FOK)
        new_order.minimum = block->order_qty;
    return new_order;
}

uint16_t new_order_refused(const matcher_t *matcher, const new_order_t *new_order, int64_t *limit)
{
    const new_order_single_t *block = new_order->block;
    const book_t *book = matcher_book(matcher, block->instrument_id);
    int side = block->side == SIDE_SELL;
    bool immediate = limit_at_once(block->ord_type, block->time_in_force) || new_order->minimum > 0 || new_order->by_amount;
    uint16_t code = market_refuses(book, block->ord_type, immediate);
    *limit = 0;
    if (code != 0)
        return code;
    if (is_stop_type(block->ord_type)) {
        extra_t extra = {.stop_price = block->stop_px, .flags = trigger_direction(block->ord_type, side)};
        *limit = book->last_price;
        return trigger_would_fire(book, &extra) ? REJECT_CODE_WOULD_TRIGGER_IMMEDIATELY : 0;
    }
    const levels_t *opposite = &book->side[side ^ 1];
    if ((block->exec_inst & EXEC_INST_POST_ONLY) != 0 && book->state == MARKET_STATE_CONTINUOUS &&
        crosses(opposite, rank_of_price(block->price, side))) {
        *limit = rank_of_price(opposite->best, side ^ 1);
        return REJECT_CODE_WOULD_TAKE_LIQUIDITY;
    }
    return 0;
}

void new_order_reject(matcher_t *matcher, const new_order_t *new_order, uint16_t code, int64_t limit)
{
    order_t order;
    order_rest_t rest;
    order_from_record(&order, new_order->slot, side_of(new_order->block));
    rest_from_record(&rest, new_order->slot);
    report_rejected(matcher, &order, &rest, new_order->slot->seq_num, code, limit);
}

uint32_t trigger_direction(uint8_t ord_type, int side)
{
    bool stop = ord_type == ORD_TYPE_STOP || ord_type == ORD_TYPE_STOP_LIMIT;
    return stop == (side == 0) ? EXTRA_UP : 0;
}

/* The order takes its slot before its course: it is more than a price and a quantity. */
static extra_t *seat(matcher_t *matcher, const new_order_t *new_order, taker_t *taker)
{
    book_store_t *store = &matcher->store;
    const new_order_single_t *block = new_order->block;
    uint32_t slot = order_slot(store, taker->order.id);
    order_t *order = store->orders + slot;
    INVARIANT(order->id == 0);
    *order = taker->order;
    order->flags |= ORDER_OFF_BOOK;
    store->rests[slot] = taker->rest;
    book_account_link(store, order->account, slot);
    extra_t *extra = book_take_extra(store, slot);
    extra->display = new_order->display;
    extra->first_display = new_order->first_display;
    extra->stop_price = block->stop_px;
    extra->trailing_delta = block->trailing_delta;
    extra->peer = new_order->peer;
    if (is_stop_type(block->ord_type))
        extra->flags |= trigger_direction(block->ord_type, order_side(order));
    if (block->expire_time != U32_NULL)
        expiry_set(matcher, book_of(store, order), extra, block->expire_time);
    taker->order = *order;
    taker->seated = true;
    return extra;
}

static void join_auction_list(const matcher_t *matcher, book_t *book, extra_t *extra)
{
    const book_store_t *store = &matcher->store;
    uint32_t index = (uint32_t)(extra - store->extras);
    level_t *list = &book->auction_only;
    extra->flags |= EXTRA_AUCTION_ONLY;
    extra->prev = list->tail;
    extra->next = 0;
    *link_or(&store->extras[list->tail].next, &list->head, list->tail) = index;
    list->tail = index;
}

/* While the market collects, orders rest without a look at the other side. */
static void enter_collecting(matcher_t *matcher, book_t *book, taker_t *taker, extra_t *extra)
{
    report_accepted(matcher, &taker->order, &taker->rest, taker->order.leaves, ORD_STATUS_NEW, taker->accept_flags, MAYBE_LAST);
    if (taker->rest.ord_type == ORD_TYPE_MARKET)
        join_auction_list(matcher, book, extra);
    if (extra != NULL)
        book_unseen_add(book, matcher->store.orders + extra->owner, extra);
    matcher_rest(matcher, taker);
}

void new_order_enter(matcher_t *matcher, const new_order_t *new_order)
{
    const new_order_single_t *block = new_order->block;
    book_t *book = matcher_book(matcher, block->instrument_id);
    taker_t *taker = &matcher->state->work.taker;
    bool collecting = book->state == MARKET_STATE_PRE_OPEN || book->state == MARKET_STATE_AUCTION;
    bool waits = is_stop_type(block->ord_type);
    extra_t *extra = NULL;
    *taker = (taker_t){.by_amount = new_order->by_amount,
                       .minimum = new_order->minimum,
                       .accept_flags = new_order->accept_flags,
                       .solicited = true};
    order_from_record(&taker->order, new_order->slot, side_of(block));
    rest_from_record(&taker->rest, new_order->slot);
    if (waits || new_order->display > 0 || new_order->peer != 0 || block->expire_time != U32_NULL ||
        (collecting && block->ord_type == ORD_TYPE_MARKET))
        extra = seat(matcher, new_order, taker);
    if (waits) {
        order_t *order = matcher->store.orders + extra->owner;
        report_accepted(matcher, order, &taker->rest, order->leaves, ORD_STATUS_UNTRIGGERED, taker->accept_flags, MAYBE_LAST);
        trigger_wait(matcher, order, extra);
        book_unseen_add(book, order, extra);
        return;
    }
    if (collecting) {
        enter_collecting(matcher, book, taker, extra);
        return;
    }
    if (extra != NULL)
        book_unseen_add(book, matcher->store.orders + extra->owner, extra);
    if (taker->minimum > 0) {
        matcher_begin_scan(matcher);
        return;
    }
    report_accepted(matcher, &taker->order, &taker->rest, taker->order.leaves, ORD_STATUS_NEW, taker->accept_flags, MAYBE_LAST);
    if (taker->by_amount) {
        taker->amount = taker->order.leaves;
        taker->order.leaves = 1; /* lots as soon as there is a price */
    }
    /* Who will not trade has no course: so the legs of a pair, one of which is such an order, can enter one after the other. */
    if ((block->exec_inst & EXEC_INST_POST_ONLY) != 0)
        matcher_rest(matcher, taker);
    else
        work_push(matcher, WORK_COURSE);
}

/* A limit or market order of a continuous market with nothing else to it. */
static bool takes_plainly(const book_t *book, const new_order_single_t *block)
{
    const uint32_t more = EXEC_INST_POST_ONLY | EXEC_INST_QUOTE_AMOUNT | EXEC_INST_DISPLAY_IS_MINIMUM;
    return book->state == MARKET_STATE_CONTINUOUS && !is_stop_type(block->ord_type) && (block->exec_inst & more) == 0 &&
           block->display_qty == QTY_OPT_NULL && block->expire_time == U32_NULL && block->time_in_force != TIME_IN_FORCE_FOK;
}

/* What new_order_enter() would make of it, without its questions. */
static void take_plainly(matcher_t *matcher, const log_slot_t *slot)
{
    taker_t *taker = &matcher->state->work.taker;
    order_from_record(&taker->order, slot, side_of((const new_order_single_t *)slot->block));
    rest_from_record(&taker->rest, slot);
    taker->order.prev = NOBODY;
    taker->order.next = NOBODY;
    taker->amount = 0;
    taker->minimum = 0;
    taker->accept_flags = 0;
    taker->by_amount = false;
    taker->seated = false;
    taker->shown = false;
    taker->solicited = true;
    taker->halted = false;
    report_accepted(matcher, &taker->order, &taker->rest, taker->order.leaves, ORD_STATUS_NEW, 0, MAYBE_LAST);
    work_push(matcher, WORK_COURSE);
}

void matcher_new_order(matcher_t *matcher, const log_slot_t *slot, const order_details_t *details)
{
    const new_order_single_t *block = (const new_order_single_t *)slot->block;
    int64_t limit;
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    INVARIANT(block->order_qty > 0);
    INVARIANT(block->stp_mode <= STP_MODE_TRANSFER);
    INVARIANT(matcher->store.orders[order_slot(&matcher->store, slot->aux)].id == 0);
    matcher->input.book = block->instrument_id - 1;
    if (details == NULL && takes_plainly(matcher_book(matcher, block->instrument_id), block)) {
        take_plainly(matcher, slot);
        return;
    }
    new_order_t new_order = new_order_of(slot, details);
    uint16_t code = new_order_refused(matcher, &new_order, &limit);
    if (code != 0)
        new_order_reject(matcher, &new_order, code, limit);
    else
        new_order_enter(matcher, &new_order);
}

/* ---- cancel ---------------------------------------------------------------------------------------------------------------- */

order_t *live_order(const matcher_t *matcher, uint64_t id)
{
    order_t *order = matcher->store.orders + order_slot(&matcher->store, id);
    return id != 0 && order->id == id ? order : NULL;
}

static uint64_t given_or_zero(uint64_t cl_ord_id)
{
    return cl_ord_id == ORDER_ID_OPT_NULL ? 0 : cl_ord_id;
}

RARE static void refuse_cancel(matcher_t *matcher, const order_cancel_request_t *block, const order_t *order, uint16_t code)
{
    refusal_t refusal = {.cl_ord_id = block->cl_ord_id,
                         .orig_cl_ord_id = order != NULL ? order->cl_ord_id : given_or_zero(block->orig_cl_ord_id),
                         .order_id = block->order_id,
                         .instrument = block->instrument_id,
                         .account = block->account_id,
                         .code = code,
                         .response_to = RESPONSE_TO_CANCEL,
                         .status = order != NULL ? order_status(&matcher->store, order) : ORD_STATUS_REJECTED};
    report_refused(matcher, &refusal);
}

/* An order that has more to it, or a request that has. */
RARE static bool cancel_special(matcher_t *matcher, const log_slot_t *slot, order_t *order, uint16_t flags)
{
    const order_cancel_request_t *block = (const order_cancel_request_t *)slot->block;
    extra_t *extra = extra_of(&matcher->store, order);
    bool filled = order->cum > 0;
    if (((block->cancel_flags & CANCEL_FLAGS_ONLY_NEW) != 0 && filled) ||
        ((block->cancel_flags & CANCEL_FLAGS_ONLY_PARTIALLY_FILLED) != 0 && !filled)) {
        refuse_cancel(matcher, block, order, REJECT_CODE_CANCEL_RESTRICTED);
        return false;
    }
    report_cancel(matcher, slot, order, flags, MAYBE_LAST);
    if ((order->flags & ORDER_OFF_BOOK) == 0)
        event_delete(matcher, book_of(&matcher->store, order), order);
    matcher_unseat(matcher, order);
    if (extra != NULL)
        matcher_end_peer(matcher, extra,
                         (ending_t){.reason = CANCEL_REASON_LIST_CANCELED, .status = ORD_STATUS_CANCELED});
    matcher_free_order(matcher, order);
    return true;
}

bool cancel_order(matcher_t *matcher, const log_slot_t *slot, uint16_t report_flags)
{
    const order_cancel_request_t *block = (const order_cancel_request_t *)slot->block;
    order_t *order = live_order(matcher, block->order_id);
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    if (UNLIKELY(order == NULL)) {
        refuse_cancel(matcher, block, NULL, REJECT_CODE_TOO_LATE_TO_CANCEL);
        return false;
    }
    matcher->input.book = order->book;
    return cancel_special(matcher, slot, order, report_flags);
}

/* ---- replace and amend ------------------------------------------------------------------------------------------------------- */

/* The terms an order is to have. */
typedef struct terms {
    int64_t price;
    int64_t total;
    int64_t display; /* 0 = ordinary */
} terms_t;

/* Why a replace is refused; 0 = it is not. */
static uint16_t replace_refused(const matcher_t *matcher, const order_t *order, const terms_t *old, const terms_t *new,
                                int64_t *limit)
{
    const book_t *book = book_of(&matcher->store, order);
    int side = order_side(order);
    const levels_t *opposite = &book->side[side ^ 1];
    const order_rest_t *rest = rest_of(&matcher->store, order);
    uint16_t code = market_refuses(book, rest->ord_type, limit_at_once(rest->ord_type, rest->time_in_force));
    if (code != 0)
        return code;
    if (new->total <= order->cum) {
        *limit = order->cum;
        return REJECT_CODE_QTY_BELOW_FILLED;
    }
    if (new->price == old->price && new->total == old->total && new->display == old->display)
        return REJECT_CODE_REPLACE_NO_CHANGE;
    if ((order->flags & ORDER_POST_ONLY) != 0 && book->state == MARKET_STATE_CONTINUOUS &&
        crosses(opposite, rank_of_price(new->price, side))) {
        *limit = rank_of_price(opposite->best, side ^ 1);
        return REJECT_CODE_WOULD_TAKE_LIQUIDITY;
    }
    return 0;
}

RARE static void refuse_change(matcher_t *matcher, const refusal_t *refusal, const order_t *order)
{
    refusal_t complete = *refusal;
    complete.status = order != NULL ? order_status(&matcher->store, order) : ORD_STATUS_REJECTED;
    if (order != NULL)
        complete.orig_cl_ord_id = order->cl_ord_id;
    report_refused(matcher, &complete);
}

/* Less of an order, at its place: hidden quantity goes first. */
void reduce_in_place(matcher_t *matcher, order_t *order, int64_t open)
{
    book_store_t *store = &matcher->store;
    book_t *book = book_of(store, order);
    extra_t *extra = extra_of(store, order);
    if (extra != NULL) {
        book_unseen_remove(book, order, extra);
        extra->hidden = open > order->leaves ? open - order->leaves : 0;
        if ((order->flags & ORDER_OFF_BOOK) != 0 && open < order->leaves)
            order->leaves = open;
        book_unseen_add(book, order, extra);
    }
    if (open < order->leaves) {
        book_reduce(book, order, order->leaves - open);
        event_reduce(matcher, book, order);
    }
}

/* A replaced order that is not where it was becomes a taker under the same id; its node waits, off the book. */
static void replace_taking(matcher_t *matcher, order_t *order, int64_t open)
{
    const book_store_t *store = &matcher->store;
    book_t *book = book_of(store, order);
    taker_t *taker = &matcher->state->work.taker;
    extra_t *extra = extra_of(store, order);
    order->flags |= ORDER_OFF_BOOK;
    order->leaves = open;
    if (extra != NULL) {
        extra->hidden = 0;
        book_unseen_add(book, order, extra);
    }
    *taker = (taker_t){.order = *order, .rest = *rest_of(store, order), .seated = true, .shown = true, .solicited = true};
    if (book->state == MARKET_STATE_CONTINUOUS)
        work_push(matcher, WORK_COURSE);
    else
        matcher_rest(matcher, taker);
}

/* Out of its level, to the back of the new one, or into the market. */
static void replace_moved(matcher_t *matcher, order_t *order, const terms_t *new, const restatement_t *restatement)
{
    const book_store_t *store = &matcher->store;
    int side = order_side(order);
    book_detach(store, book_of(store, order), side, order);
    order->rank = rank_of_price(new->price, side);
    report_replaced(matcher, order, rest_of(store, order), restatement, MAYBE_LAST);
    replace_taking(matcher, order, restatement->leaves);
}

/* An order that waits has no place to lose. */
static void replace_waiting(matcher_t *matcher, order_t *order, const terms_t *new, const restatement_t *restatement)
{
    const book_store_t *store = &matcher->store;
    book_t *book = book_of(store, order);
    extra_t *extra = extra_of(store, order);
    book_unseen_remove(book, order, extra);
    order->rank = rank_of_price(new->price, order_side(order));
    order->leaves = new->total - order->cum;
    extra->display = new->display;
    book_unseen_add(book, order, extra);
    report_replaced(matcher, order, rest_of(store, order), restatement, MAYBE_LAST);
}

static void set_display(matcher_t *matcher, order_t *order, int64_t display)
{
    book_store_t *store = &matcher->store;
    extra_t *extra = extra_of(store, order);
    if (extra == NULL && display == 0)
        return;
    if (extra == NULL) {
        extra = book_take_extra(store, slot_of(store, order));
        book_unseen_add(book_of(store, order), order, extra);
    }
    book_unseen_remove(book_of(store, order), order, extra);
    extra->display = display;
    extra->first_display = 0;
    book_unseen_add(book_of(store, order), order, extra);
}

static void replace_order(matcher_t *matcher, order_t *order, const terms_t *old, const terms_t *new, uint64_t cl_ord_id)
{
    book_store_t *store = &matcher->store;
    order_rest_t *rest = rest_of(store, order);
    bool waiting = is_waiting(store, order);
    bool in_place = waiting || (new->price == old->price && new->total <= old->total);
    restatement_t restatement = {.orig_cl_ord_id = order->cl_ord_id,
                                 .leaves = new->total - order->cum,
                                 .reason = RESTATE_REASON_CLIENT,
                                 .priority_retained = in_place};
    if (cl_ord_id != 0)
        order->cl_ord_id = cl_ord_id;
    if (waiting) {
        replace_waiting(matcher, order, new, &restatement);
        return;
    }
    if (UNLIKELY(new->display != old->display))
        set_display(matcher, order, new->display);
    if (in_place || (FAULT(KEEPS_PRIORITY) && new->price == old->price && (order->flags & ORDER_EXTRA) == 0)) {
        report_replaced(matcher, order, rest, &restatement, MAYBE_LAST);
        reduce_in_place(matcher, order, restatement.leaves);
        return;
    }
    extra_t *extra = extra_of(store, order);
    if (extra != NULL)
        book_unseen_remove(book_of(store, order), order, extra);
    replace_moved(matcher, order, new, &restatement);
}

void matcher_replace(matcher_t *matcher, const log_slot_t *slot)
{
    const order_replace_request_t *block = (const order_replace_request_t *)slot->block;
    const book_store_t *store = &matcher->store;
    order_t *order = live_order(matcher, block->order_id);
    int64_t limit = 0;
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    refusal_t refusal = {.cl_ord_id = block->cl_ord_id,
                         .orig_cl_ord_id = given_or_zero(block->orig_cl_ord_id),
                         .order_id = block->order_id,
                         .instrument = block->instrument_id,
                         .account = block->account_id,
                         .code = REJECT_CODE_TOO_LATE_TO_CANCEL,
                         .response_to = RESPONSE_TO_REPLACE};
    if (order == NULL) {
        refuse_change(matcher, &refusal, NULL);
        return;
    }
    matcher->input.book = order->book;
    const extra_t *extra = extra_of(store, order);
    terms_t old = {.price = order_price(order),
                   .total = order_open(store, order) + order->cum,
                   .display = extra != NULL ? extra->display : 0};
    terms_t new = {.price = block->price == PX_OPT_NULL ? old.price : block->price,
                   .total = block->order_qty == QTY_OPT_NULL ? old.total : block->order_qty,
                   .display = block->display_qty == QTY_OPT_NULL ? old.display : block->display_qty};
    if (block->display_qty != QTY_OPT_NULL && new.display >= new.total - order->cum)
        new.display = 0; /* it hides nothing */
    refusal.code = replace_refused(matcher, order, &old, &new, &limit);
    if (refusal.code != 0) {
        refusal.limit = limit;
        refuse_change(matcher, &refusal, order);
        return;
    }
    replace_order(matcher, order, &old, &new, block->cl_ord_id);
}

void matcher_amend(matcher_t *matcher, const log_slot_t *slot)
{
    const order_amend_request_t *block = (const order_amend_request_t *)slot->block;
    const book_store_t *store = &matcher->store;
    order_t *order = live_order(matcher, block->order_id);
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    refusal_t refusal = {.cl_ord_id = block->cl_ord_id,
                         .orig_cl_ord_id = given_or_zero(block->orig_cl_ord_id),
                         .order_id = block->order_id,
                         .instrument = block->instrument_id,
                         .account = block->account_id,
                         .code = REJECT_CODE_TOO_LATE_TO_CANCEL,
                         .response_to = RESPONSE_TO_REPLACE};
    if (order == NULL) {
        refuse_change(matcher, &refusal, NULL);
        return;
    }
    int64_t total = order_open(store, order) + order->cum;
    matcher->input.book = order->book;
    if (block->new_qty >= total || block->new_qty <= order->cum) {
        refusal.code = block->new_qty >= total ? REJECT_CODE_QTY_NOT_REDUCED : REJECT_CODE_QTY_BELOW_FILLED;
        refusal.limit = block->new_qty >= total ? total : order->cum;
        refuse_change(matcher, &refusal, order);
        return;
    }
    order_rest_t *rest = rest_of(store, order);
    restatement_t restatement = {.orig_cl_ord_id = order->cl_ord_id,
                                 .leaves = block->new_qty - order->cum,
                                 .reason = RESTATE_REASON_CLIENT,
                                 .priority_retained = true};
    if (block->cl_ord_id != 0)
        order->cl_ord_id = block->cl_ord_id;
    report_replaced(matcher, order, rest, &restatement, MAYBE_LAST);
    reduce_in_place(matcher, order, restatement.leaves);
}

/* ---- status ------------------------------------------------------------------------------------------------------------------ */

void matcher_status(matcher_t *matcher, const log_slot_t *slot)
{
    const order_status_request_t *block = (const order_status_request_t *)slot->block;
    const book_store_t *store = &matcher->store;
    const order_t *order = live_order(matcher, block->order_id);
    INVARIANT(block->account_id <= matcher->config.accounts_max);
    uint64_t exec_id = report_exec_id(matcher);
    void *report = report_numbered(matcher, TEMPLATE_ORDER_STATUS, slot->session, block->account_id, 0);
    order_status_t status = {.request_id = block->request_id,
                             .order_id = block->order_id,
                             .exec_id = exec_id,
                             .transact_time = slot->ts_ns,
                             .ref_seq_num = slot->seq_num,
                             .price = PX_OPT_NULL,
                             .instrument_id = block->instrument_id,
                             .account_id = block->account_id,
                             .reject_code = REJECT_CODE_UNKNOWN_ORDER,
                             .side = SIDE_BUY,
                             .ord_type = ORD_TYPE_LIMIT,
                             .time_in_force = TIME_IN_FORCE_GTC,
                             .ord_status = ORD_STATUS_REJECTED};
    if (order != NULL) {
        const order_rest_t *rest = rest_of(store, order);
        status.cl_ord_id = order->cl_ord_id;
        status.price = is_market_type(rest->ord_type) ? PX_OPT_NULL : order_price(order);
        status.leaves_qty = order_open(store, order);
        status.cum_qty = order->cum;
        status.order_qty = status.leaves_qty + order->cum;
        status.reject_code = REJECT_CODE_NONE;
        status.side = order_side_code(order);
        status.ord_type = rest->ord_type;
        status.time_in_force = rest->time_in_force;
        status.ord_status = order_status(store, order);
    }
    REPORT_WRITE(report, order_status_t, status);
}
