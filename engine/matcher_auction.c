/* Call auctions: the price at which a crossed book trades most, what is published while it collects, and the uncrossing
 * (docs/MATCHING.md, section 13).
 *
 * Counting bids and asks against one another from the best, order by order, ends with the greatest volume any price can give. Where
 * it ends says the rest: between the last prices counted, b* and a*, every price has that volume, and the surplus follows from the
 * level each side stopped in. */
#include "engine/events.h"
#include "engine/reports.h"

bool book_is_crossed(const book_t *book)
{
    return !levels_empty(&book->side[0]) && crosses(&book->side[1], book->side[0].best);
}

/* ---- counting -------------------------------------------------------------------------------------------------------------- */

enum crossing_phase {
    CROSSING_COUNT,
    CROSSING_BIDS, /* what is left in the level the bids stopped in */
    CROSSING_ASKS,
    CROSSING_DONE,
};

static void look_at(const book_store_t *store, crossing_t *crossing, int side, uint32_t slot)
{
    crossing->slot[side] = slot;
    crossing->left[side] = slot != NOBODY ? order_open(store, store->orders + slot) : 0;
}

static void crossing_begin(const book_store_t *store, const book_t *book, crossing_t *crossing)
{
    *crossing = (crossing_t){.phase = CROSSING_COUNT};
    for (int side = 0; side < 2; side++) {
        levels_begin(&store->trees, &book->side[side], &crossing->at[side]);
        look_at(store, crossing, side, crossing->at[side].level != NULL ? crossing->at[side].level->head : NOBODY);
    }
}

/* The next order of a side: of its level, or of the level behind. */
static void advance(const book_store_t *store, const book_t *book, crossing_t *crossing, int side)
{
    uint32_t slot = store->orders[crossing->slot[side]].next;
    if (slot == NOBODY) {
        levels_next(&store->trees, &book->side[side], &crossing->at[side]);
        slot = crossing->at[side].level != NULL ? crossing->at[side].level->head : NOBODY;
    }
    look_at(store, crossing, side, slot);
}

static bool counts_on(const crossing_t *crossing)
{
    return crossing->slot[0] != NOBODY && crossing->slot[1] != NOBODY && crossing->at[1].rank <= ~crossing->at[0].rank;
}

static void count(const book_store_t *store, const book_t *book, crossing_t *crossing)
{
    int64_t quantity = crossing->left[0] < crossing->left[1] ? crossing->left[0] : crossing->left[1];
    crossing->volume += quantity;
    for (int side = 0; side < 2; side++) {
        crossing->last_price[side] = rank_of_price(crossing->at[side].rank, side);
        crossing->left[side] -= quantity;
    }
    for (int side = 0; side < 2; side++)
        if (crossing->left[side] == 0)
            advance(store, book, crossing, side);
}

/* Sum up what the level holds that the side stopped in. True when that is done. */
static bool sum_up(const book_store_t *store, const book_t *book, crossing_t *crossing, int side)
{
    if (crossing->slot[side] == NOBODY)
        return true;
    int64_t price = rank_of_price(crossing->at[side].rank, side);
    if (crossing->has_next[side] && price != crossing->next_price[side]) {
        crossing->has_after[side] = true;
        crossing->after_price[side] = price;
        return true;
    }
    crossing->has_next[side] = true;
    crossing->next_price[side] = price;
    crossing->next_quantity[side] += crossing->left[side];
    advance(store, book, crossing, side);
    return false;
}

/* False = out of budget. */
static bool crossing_step(matcher_t *matcher, const book_t *book, crossing_t *crossing)
{
    const book_store_t *store = &matcher->store;
    while (crossing->phase != CROSSING_DONE) {
        if (matcher->visits_left == 0)
            return false;
        matcher->visits_left--;
        if (crossing->phase == CROSSING_COUNT && counts_on(crossing))
            count(store, book, crossing);
        else if (crossing->phase == CROSSING_COUNT || sum_up(store, book, crossing, crossing->phase - CROSSING_BIDS))
            crossing->phase++;
    }
    return true;
}

/* ---- the price --------------------------------------------------------------------------------------------------------------- */

static int64_t midpoint(int64_t low, int64_t high)
{
    return (int64_t)(((int128_t)low + high) >> 1); /* rounded down, also below 0 */
}

/* Of the prices low to high: the one nearest to the reference, without one the middle. */
static int64_t nearest(const book_t *book, int64_t low, int64_t high)
{
    if (!book->has_last_price && !book->has_reference_price)
        return midpoint(low, high);
    int64_t reference = book->has_last_price ? book->last_price : book->reference_price;
    return reference < low ? low : reference > high ? high : reference;
}

/* Both sides stopped in levels one tick apart: no price is without surplus. */
static auction_price_t price_between(const book_t *book, const crossing_t *crossing)
{
    auction_price_t result = {.volume = crossing->volume};
    int64_t bids = crossing->next_quantity[0];
    int64_t asks = crossing->next_quantity[1];
    if (bids < asks) {
        result.price = crossing->next_price[0];
        result.surplus = bids;
    } else if (asks < bids) {
        result.price = crossing->next_price[1];
        result.surplus = -asks;
    } else {
        int64_t low = crossing->last_price[1];
        int64_t high = crossing->last_price[0];
        if (crossing->has_after[0] && crossing->after_price[0] + 1 > low)
            low = crossing->after_price[0] + 1;
        if (crossing->has_after[1] && crossing->after_price[1] - 1 < high)
            high = crossing->after_price[1] - 1;
        result.price = nearest(book, low, high);
        result.surplus = result.price <= crossing->next_price[0] ? bids : -asks;
    }
    return result;
}

static auction_price_t auction_price(const book_t *book, const crossing_t *crossing)
{
    auction_price_t result = {.volume = crossing->volume};
    int64_t low = crossing->last_price[1];
    int64_t high = crossing->last_price[0];
    if (crossing->volume == 0)
        return result;
    if (crossing->has_next[0] && crossing->next_price[0] == high) { /* bids are left: the highest price */
        result.price = high;
        result.surplus = crossing->next_quantity[0];
    } else if (crossing->has_next[1] && crossing->next_price[1] == low) {
        result.price = low;
        result.surplus = -crossing->next_quantity[1];
    } else {
        if (crossing->has_next[0] && crossing->next_price[0] >= low)
            low = crossing->next_price[0] + 1;
        if (crossing->has_next[1] && crossing->next_price[1] <= high)
            high = crossing->next_price[1] - 1;
        if (low > high)
            return price_between(book, crossing);
        result.price = nearest(book, low, high);
    }
    if (FAULT(AUCTION_PRICE))
        result.price = midpoint(crossing->last_price[1], crossing->last_price[0]);
    return result;
}

/* ---- uncrossing ---------------------------------------------------------------------------------------------------------------- */

enum uncross_phase {
    UNCROSS_COUNT,
    UNCROSS_TRADE,
    UNCROSS_NOTE,
};

void uncross_begin(matcher_t *matcher, const book_t *book)
{
    uncross_t *uncross = &matcher->state->work.uncross;
    uncross->book = book_index(matcher, book);
    uncross->phase = UNCROSS_COUNT;
    uncross->traded = false;
    crossing_begin(&matcher->store, book, &uncross->crossing);
    work_push(matcher, WORK_UNCROSS);
}

static bool trades_at(const book_t *book, int64_t price)
{
    return book->side[0].best <= rank_of_price(price, 0) && book->side[1].best <= price;
}

static bool uncross_trade(matcher_t *matcher, book_t *book, int64_t price)
{
    while (trades_at(book, price)) {
        level_t *level[2];
        if (step_is_over(matcher))
            return false;
        for (int side = 0; side < 2; side++)
            level[side] = levels_find(&matcher->store.trees, &book->side[side], book->side[side].best);
        matcher_auction_trade(matcher, book, level, price);
    }
    return true;
}

bool matcher_uncross(matcher_t *matcher)
{
    uncross_t *uncross = &matcher->state->work.uncross;
    book_t *book = matcher->store.books + uncross->book;
    if (uncross->phase == UNCROSS_COUNT) {
        if (!crossing_step(matcher, book, &uncross->crossing))
            return false;
        uncross->result = auction_price(book, &uncross->crossing);
        uncross->phase = UNCROSS_TRADE;
    }
    if (uncross->phase == UNCROSS_TRADE) {
        uint64_t trades = book->trade_id;
        bool done = uncross_trade(matcher, book, uncross->result.price);
        uncross->traded |= book->trade_id != trades;
        if (!done)
            return false;
        if (uncross->traded) {
            volatility_set_reference(book, uncross->result.price);
            if (book->triggers.count > 0)
                triggers_traded(matcher, book);
        }
        uncross->phase = UNCROSS_NOTE;
    }
    if (book->triggers.noting && !triggers_note(matcher, book))
        return false;
    work_pop(matcher);
    if (book_is_crossed(book)) /* self-trade prevention took away more than was traded */
        uncross_begin(matcher, book);
    return true;
}

/* ---- indicative price ------------------------------------------------------------------------------------------------------------- */

void indicative_begin(matcher_t *matcher, const book_t *book)
{
    uncross_t *indicative = &matcher->state->work.indicative;
    indicative->book = book_index(matcher, book);
    crossing_begin(&matcher->store, book, &indicative->crossing);
    work_push(matcher, WORK_INDICATIVE);
}

static void publish_indicative(matcher_t *matcher, book_t *book, const auction_price_t *result)
{
    uint64_t now = matcher->input.record->ts_ns;
    int64_t price = result->volume > 0 ? result->price : PX_OPT_NULL;
    int64_t surplus = result->surplus < 0 ? -result->surplus : result->surplus;
    uint8_t side = result->surplus > 0 ? SIDE_OR_BOTH_BUY : result->surplus < 0 ? SIDE_OR_BOTH_SELL : SIDE_OR_BOTH_BOTH;
    if (MATCHER_REPORTS) {
        uint64_t exec_id = report_exec_id(matcher);
        void *block = report_unnumbered(matcher, TEMPLATE_AUCTION_INFO, 0);
        REPORT_WRITE(block, auction_info_t,
                     {.indicative_px = price,
                      .indicative_qty = result->volume,
                      .surplus_qty = surplus,
                      .exec_id = exec_id,
                      .transact_time = now,
                      .instrument_id = book_index(matcher, book) + 1,
                      .surplus_side = side,
                      .state = book->state});
    }
    auction_indicative_t *event = EVENT_RARE(matcher, book, TEMPLATE_AUCTION_INDICATIVE, auction_indicative_t);
    event->indicative_px = price;
    event->indicative_qty = result->volume;
    event->surplus_qty = surplus;
    event->instrument_id = book_index(matcher, book) + 1;
    event->surplus_side = side;
    /* A tick may go on with other instruments: each event is whole. */
    event->event_flags = EVENT_FLAGS_END_OF_EVENT;
    book->clock.indicative_ns = now;
    book->clock.indicative_digest = book->digest.low;
    book->clock.indicative_hidden = book->hidden.low;
}

bool matcher_indicative(matcher_t *matcher)
{
    uncross_t *indicative = &matcher->state->work.indicative;
    book_t *book = matcher->store.books + indicative->book;
    if (!crossing_step(matcher, book, &indicative->crossing) || step_is_over(matcher))
        return false;
    auction_price_t result = auction_price(book, &indicative->crossing);
    publish_indicative(matcher, book, &result);
    work_pop(matcher);
    return true;
}
