/* Two-sided quotes: both sides replaced in one input (docs/MATCHING.md, section 11). */
#include "engine/matcher_orders.h"

#include "engine/events.h"
#include "engine/reports.h"

enum quote_phase {
    QUOTE_OLD,       /* old sides are kept or canceled, the answer is written */
    QUOTE_PLACE_BID,
    QUOTE_DRAIN, /* what the bid fired comes first */
    QUOTE_PLACE_ASK,
    QUOTE_DONE,
};

void matcher_quote(matcher_t *matcher, const log_slot_t *slots)
{
    quote_work_t *work = &matcher->state->work.quote;
    memcpy(&work->request, slots[0].block, sizeof(work->request));
    for (int side = 0; side < 2; side++) {
        INVARIANT(slots[1 + side].template_id == TEMPLATE_QUOTE_LEG);
        memcpy(&work->leg[side], slots[1 + side].block, sizeof(work->leg[side]));
        work->order_id[side] = slots[1 + side].aux;
        work->placed[side] = false;
        work->code[side] = REJECT_CODE_NONE;
    }
    INVARIANT(work->leg[0].quote_index < matcher->store.quotes_max);
    work->tier = (uint8_t)(slots[0].flags >> SLOT_TIER_SHIFT);
    work->book = work->request.instrument_id - 1;
    work->phase = QUOTE_OLD;
    matcher->input.book = work->book;
    (void)matcher_book(matcher, work->request.instrument_id);
    work_push(matcher, WORK_QUOTE);
}

static order_t *standing(const matcher_t *matcher, const quote_work_t *work, int side)
{
    return live_order(matcher, matcher->store.quotes[work->leg[0].quote_index].order_id[side]);
}

static bool keeps(const matcher_t *matcher, const quote_work_t *work, int side, const order_t *old)
{
    const quote_leg_t *leg = &work->leg[side];
    return old != NULL && leg->action == QUOTE_ACTION_PLACE && leg->price == order_price(old) &&
           leg->quantity <= order_open(&matcher->store, old);
}

static void cancel_old(matcher_t *matcher, order_t *old)
{
    const order_rest_t *rest = rest_of(&matcher->store, old);
    cancellation_t cancellation = {.session = rest->session,
                                   .flags = REPORT_FLAG_MORE,
                                   .reason = CANCEL_REASON_QUOTE_REPLACED,
                                   .cl_ord_id = old->cl_ord_id,
                                   .client_tag = rest->client_tag,
                                   .quantity = order_open(&matcher->store, old),
                                   .status = ORD_STATUS_CANCELED};
    report_canceled(matcher, old, &cancellation, MAYBE_LAST);
    event_delete(matcher, book_of(&matcher->store, old), old);
    matcher_unseat(matcher, old);
    matcher_free_order(matcher, old);
}

static void keep_old(matcher_t *matcher, const quote_work_t *work, int side, order_t *old)
{
    order_rest_t *rest = rest_of(&matcher->store, old);
    int64_t quantity = work->leg[side].quantity;
    if (quantity == order_open(&matcher->store, old))
        return;
    restatement_t restatement = {.orig_cl_ord_id = old->cl_ord_id,
                                 .leaves = quantity,
                                 .reason = RESTATE_REASON_QUOTE,
                                 .priority_retained = true};
    report_replaced(matcher, old, rest, &restatement, MAYBE_LAST);
    reduce_in_place(matcher, old, quantity);
}

/* Cover, the market's state, and whether a side that may not would trade; both old sides are out of the way. */
static void judge(const matcher_t *matcher, quote_work_t *work, int side, int64_t cover, uint16_t market_code)
{
    const book_t *book = matcher->store.books + work->book;
    const quote_leg_t *leg = &work->leg[side];
    if (cover < cover_of(book, side, leg->price, leg->quantity))
        work->code[side] = REJECT_CODE_INSUFFICIENT_BALANCE;
    else if (market_code != REJECT_CODE_NONE)
        work->code[side] = market_code;
    else if ((leg->quote_flags & QUOTE_FLAGS_POST_ONLY) != 0 &&
             book->state == MARKET_STATE_CONTINUOUS && crosses(&book->side[side ^ 1], rank_of_price(leg->price, side)))
        work->code[side] = REJECT_CODE_WOULD_TAKE_LIQUIDITY;
    work->placed[side] = work->code[side] == REJECT_CODE_NONE;
}

static void answer(matcher_t *matcher, const quote_work_t *work, order_t *const kept[2])
{
    uint64_t now_id[2];
    uint64_t unused[2];
    uint8_t status[2];
    for (int side = 0; side < 2; side++) {
        now_id[side] = work->placed[side] ? work->order_id[side] : kept[side] != NULL ? kept[side]->id : ORDER_ID_OPT_NULL;
        unused[side] = work->placed[side] || work->leg[side].action == QUOTE_ACTION_PULL ? ORDER_ID_OPT_NULL
                                                                                          : work->order_id[side];
        status[side] = work->placed[side]                          ? ORD_STATUS_NEW
                       : kept[side] != NULL                        ? live_status(kept[side])
                       : work->code[side] != REJECT_CODE_NONE      ? ORD_STATUS_REJECTED
                                                                   : ORD_STATUS_CANCELED;
    }
    if (!MATCHER_REPORTS)
        return;
    const log_slot_t *record = matcher->input.record;
    uint64_t exec_id = report_exec_id(matcher);
    void *block = report_numbered(matcher, TEMPLATE_QUOTE_ACK, record->session, work->request.account_id, 0);
    REPORT_WRITE(block, quote_ack_t,
                 {.quote_id = work->request.quote_id,
                  .exec_id = exec_id,
                  .transact_time = record->ts_ns,
                  .ref_seq_num = record->seq_num,
                  .bid_order_id = now_id[0],
                  .ask_order_id = now_id[1],
                  .instrument_id = work->request.instrument_id,
                  .account_id = work->request.account_id,
                  .bid_reject_code = work->code[0],
                  .ask_reject_code = work->code[1],
                  .bid_status = status[0],
                  .ask_status = status[1],
                  .quote_set_id = work->request.quote_set_id,
                  .bid_unused_id = unused[0],
                  .ask_unused_id = unused[1]});
}

/* Four reports at most, written in one step: the sequencer settles them together. */
static void replace_old(matcher_t *matcher, quote_work_t *work)
{
    const book_store_t *store = &matcher->store;
    const book_t *book = store->books + work->book;
    uint16_t refused = market_refuses(book, ORD_TYPE_LIMIT, false);
    quote_entry_t *entry = &store->quotes[work->leg[0].quote_index];
    order_t *kept[2] = {NULL, NULL};
    int64_t cover[2] = {work->leg[0].extra_cover, work->leg[1].extra_cover};
    for (int side = 0; side < 2; side++) {
        order_t *old = standing(matcher, work, side);
        if (keeps(matcher, work, side, old)) {
            kept[side] = old;
            keep_old(matcher, work, side, old);
        } else if (old != NULL) {
            cover[side] += cover_of(book, side, order_price(old), order_open(store, old));
            cancel_old(matcher, old);
        }
    }
    for (int side = 0; side < 2; side++) {
        if (kept[side] == NULL && work->leg[side].action == QUOTE_ACTION_PLACE)
            judge(matcher, work, side, cover[side], refused);
        entry->order_id[side] = work->placed[side] ? work->order_id[side] : kept[side] != NULL ? kept[side]->id : 0;
    }
    answer(matcher, work, kept);
}

void matcher_refuse_quote(matcher_t *matcher, const log_slot_t *slots)
{
    quote_work_t *work = &matcher->state->work.quote;
    order_t *kept[2];
    matcher_quote(matcher, slots);
    work_pop(matcher);
    for (int side = 0; side < 2; side++) {
        kept[side] = standing(matcher, work, side);
        work->code[side] = REJECT_CODE_QUARANTINED;
    }
    answer(matcher, work, kept);
}

/* The side goes in like a limit order, good till canceled. */
static void place(matcher_t *matcher, const quote_work_t *work, int side)
{
    const quote_leg_t *leg = &work->leg[side];
    taker_t *taker = &matcher->state->work.taker;
    const book_t *book = matcher->store.books + work->book;
    bool post_only = (leg->quote_flags & QUOTE_FLAGS_POST_ONLY) != 0;
    *taker = (taker_t){
        .order = {.id = work->order_id[side],
                  .rank = rank_of_price(leg->price, side),
                  .leaves = leg->quantity,
                  .cl_ord_id = leg->cl_ord_id,
                  .account = leg->account_id,
                  .stp_key = leg->stp_group_id != 0 ? leg->stp_group_id | STP_GROUP_BIT : leg->account_id,
                  .book = (uint16_t)work->book,
                  .tier = work->tier,
                  .flags = (uint8_t)((unsigned)side | (post_only ? ORDER_POST_ONLY : 0u) |
                                     (unsigned)leg->stp_mode << ORDER_STP_MODE_SHIFT)},
        .rest = {.client_tag = leg->client_tag,
                 .session = matcher->input.record->session,
                 .exec_inst = post_only ? EXEC_INST_POST_ONLY : 0,
                 .ord_type = ORD_TYPE_LIMIT,
                 .time_in_force = TIME_IN_FORCE_GTC},
        .solicited = true};
    if (book->state == MARKET_STATE_CONTINUOUS)
        work_push(matcher, WORK_COURSE);
    else
        matcher_rest(matcher, taker);
}

bool matcher_quote_step(matcher_t *matcher)
{
    quote_work_t *work = &matcher->state->work.quote;
    if (step_is_over(matcher))
        return false;
    switch (work->phase++) {
    case QUOTE_OLD:
        replace_old(matcher, work);
        break;
    case QUOTE_PLACE_BID:
        if (work->placed[0])
            place(matcher, work, 0);
        break;
    case QUOTE_DRAIN:
        matcher_begin_drain(matcher, work->book);
        break;
    case QUOTE_PLACE_ASK:
        if (work->placed[1])
            place(matcher, work, 1);
        break;
    default:
        work_pop(matcher);
        break;
    }
    return true;
}
