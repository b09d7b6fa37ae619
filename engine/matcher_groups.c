/* Linked frames: an order with its details, cancel-replace, OCO pairs, quotes (docs/MATCHING.md, sections 2, 10, 11, 12). */
#include "engine/matcher_orders.h"

#include "engine/events.h"
#include "engine/reports.h"

/* Reports name the frame that caused them. */
static void speak_for(matcher_t *matcher, const log_slot_t *slots, uint32_t index, uint32_t count)
{
    speak_of(matcher, slots + index, matcher->state->position - (count - 1) + index);
}

/* The next order of a group from `*at` on, with its details if they stand before it; NULL if there is none for us. */
static const log_slot_t *next_order(const matcher_t *matcher, const log_slot_t *slots, uint32_t count, uint32_t *at,
                                    const order_details_t **details)
{
    *details = NULL;
    for (; *at < count; ++*at) {
        if (!record_is_ours(matcher, &slots[*at]))
            continue;
        if (slots[*at].template_id == TEMPLATE_NEW_ORDER_SINGLE)
            return &slots[(*at)++];
        if (slots[*at].template_id == TEMPLATE_ORDER_DETAILS)
            *details = (const order_details_t *)slots[*at].block;
    }
    return NULL;
}

/* ---- cover ---------------------------------------------------------------------------------------------------------------- */

int64_t cover_of(const book_t *book, int side, int64_t price, int64_t quantity)
{
    return side != 0 ? quantity * book->base_per_lot : price * quantity * book->quote_per_tick_lot;
}

static int64_t cover_needed(const book_t *book, const new_order_single_t *block)
{
    int side = block->side == SIDE_SELL;
    if ((block->exec_inst & EXEC_INST_QUOTE_AMOUNT) == 0)
        return cover_of(book, side, block->price, block->order_qty);
    if (side == 0)
        return block->order_qty;
    return (int64_t)(block->order_qty / ((int128_t)block->price * book->quote_per_tick_lot)) * book->base_per_lot;
}

/* ---- cancel-replace --------------------------------------------------------------------------------------------------------- */

static void cancel_replace(matcher_t *matcher, const log_slot_t *slots, uint32_t count)
{
    const book_store_t *store = &matcher->store;
    const order_cancel_request_t *cancel = (const order_cancel_request_t *)slots[0].block;
    bool go_on = (cancel->cancel_flags & CANCEL_FLAGS_CONTINUE_ON_FAILURE) != 0;
    bool ours = record_is_ours(matcher, &slots[0]);
    const order_details_t *details;
    uint32_t at = 1;
    int64_t limit = 0;
    const log_slot_t *slot = next_order(matcher, slots, count, &at, &details);
    const order_t *old = ours ? live_order(matcher, cancel->order_id) : NULL;
    int64_t cover = ours ? (int64_t)slots[0].aux : 0;
    const new_order_single_t *block = slot != NULL ? (const new_order_single_t *)slot->block : NULL;
    if (old != NULL && block != NULL && order_side_code(old) == block->side)
        cover += cover_of(book_of(store, old), order_side(old), order_price(old), order_open(store, old));
    int64_t cover_alone = ours ? (int64_t)slots[0].aux : 0;
    speak_for(matcher, slots, 0, count);
    bool canceled = ours && cancel_order(matcher, &slots[0], slot != NULL ? REPORT_FLAG_MORE : 0);
    if (slot == NULL)
        return;
    new_order_t new_order = new_order_of(slot, details);
    const book_t *book = matcher_book(matcher, block->instrument_id);
    speak_for(matcher, slots, at - 1, count);
    matcher->input.book = block->instrument_id - 1;
    uint16_t code = new_order_refused(matcher, &new_order, &limit);
    if (ours && !canceled && !go_on) {
        code = REJECT_CODE_CANCEL_FAILED;
        limit = 0;
    } else if (ours && (canceled ? cover : cover_alone) < cover_needed(book, block)) {
        code = REJECT_CODE_INSUFFICIENT_BALANCE;
        limit = canceled ? cover : cover_alone;
    }
    new_order.accept_flags = ours ? REPORT_FLAG_COVERED : 0;
    if (code != 0)
        new_order_reject(matcher, &new_order, code, limit);
    else
        new_order_enter(matcher, &new_order);
}

/* ---- order lists --------------------------------------------------------------------------------------------------------------- */

/* A limit leg must stand on its own side of the market; what stops must do, they are asked themselves. */
static bool on_its_side(const book_t *book, const new_order_single_t *block)
{
    if (!book->has_last_price || block->ord_type != ORD_TYPE_LIMIT)
        return true;
    return block->side == SIDE_SELL ? block->price > book->last_price : block->price < book->last_price;
}

static void oco(matcher_t *matcher, const log_slot_t *slots, uint32_t count)
{
    new_order_t leg[2];
    uint32_t index[2];
    uint16_t code[2];
    int64_t limit[2];
    uint32_t at = 1;
    for (int i = 0; i < 2; i++) {
        const order_details_t *details;
        const log_slot_t *slot = next_order(matcher, slots, count, &at, &details);
        INVARIANT(slot != NULL); /* admitted whole */
        index[i] = at - 1;
        leg[i] = new_order_of(slot, details);
        code[i] = new_order_refused(matcher, &leg[i], &limit[i]);
        if (code[i] == 0 && !on_its_side(matcher_book(matcher, leg[i].block->instrument_id), leg[i].block))
            code[i] = REJECT_CODE_LIST_PRICE_RELATION;
    }
    leg[0].peer = leg[1].slot->aux;
    leg[1].peer = leg[0].slot->aux;
    matcher->input.book = leg[0].block->instrument_id - 1;
    int failed = code[0] != 0 ? 0 : code[1] != 0 ? 1 : -1;
    for (int i = 0; i < 2; i++) {
        speak_for(matcher, slots, index[i], count);
        if (failed == i)
            new_order_reject(matcher, &leg[i], code[i], limit[i]);
        else if (failed >= 0)
            new_order_reject(matcher, &leg[i], REJECT_CODE_INVALID_GROUP, 0);
        else
            new_order_enter(matcher, &leg[i]);
    }
}

/* ---- dispatch -------------------------------------------------------------------------------------------------------------------- */

static bool any_is_ours(const matcher_t *matcher, const log_slot_t *slots, uint32_t count)
{
    bool ours = false;
    for (uint32_t i = 0; i < count; i++)
        ours |= record_is_ours(matcher, &slots[i]);
    return ours;
}

/* One order with details: alone, or the working leg of a list whose pending legs the sequencer keeps. */
static void single_order(matcher_t *matcher, const log_slot_t *slots, uint32_t count)
{
    const order_details_t *details;
    uint32_t at = 0;
    const log_slot_t *slot = next_order(matcher, slots, count, &at, &details);
    if (slot == NULL)
        return;
    speak_for(matcher, slots, at - 1, count);
    matcher_new_order(matcher, slot, details);
}

void matcher_group(matcher_t *matcher, const log_slot_t *slots, uint32_t count)
{
    if (!any_is_ours(matcher, slots, count))
        return;
    INVARIANT(slots[0].session <= matcher->config.sessions_max);
    speak_for(matcher, slots, 0, count);
    const order_list_request_t *list = (const order_list_request_t *)slots[0].block;
    bool pair = false;
    switch (slots[0].template_id) {
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        cancel_replace(matcher, slots, count);
        break;
    case TEMPLATE_QUOTE:
        matcher_quote(matcher, slots);
        break;
    case TEMPLATE_ORDER_LIST_REQUEST:
        pair = list->list_type == LIST_TYPE_OCO;
        if (pair)
            oco(matcher, slots, count);
        else
            single_order(matcher, slots, count);
        break;
    default:
        single_order(matcher, slots, count);
        break;
    }
}
