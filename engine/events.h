/* Market events: 64-byte slots of the market ring, written as eight words in the layout of marketdata.h. */
#ifndef BULLRING_ENGINE_EVENTS_H
#define BULLRING_ENGINE_EVENTS_H

#include "engine/matcher_state.h"

#define EVENT_SLOT_WORDS 8
#define EVENT_HEADER(template_id, type)                                                                             \
    (sizeof(type) | (uint64_t)(template_id) << 16 | (uint64_t)MARKETDATA_SCHEMA_ID << 32 |                           \
     (uint64_t)MARKETDATA_SCHEMA_VERSION << 48)
#define EVENT_ORDER_ADD EVENT_HEADER(TEMPLATE_ORDER_ADD, order_add_t)
#define EVENT_ORDER_REPLACE EVENT_HEADER(TEMPLATE_ORDER_REPLACE, order_replace_t)
/* The last word of an event's block: instrument, side, flags. */
#define EVENT_TAIL_FLAGS_BYTE 5

_Static_assert(sizeof(market_slot_t) == EVENT_SLOT_WORDS * sizeof(uint64_t), "CORE section 8");
_Static_assert(offsetof(order_add_t, order_id) == 8 && offsetof(order_add_t, price) == 16 &&
                   offsetof(order_add_t, qty) == 24 && offsetof(order_add_t, instrument_id) == 32 &&
                   offsetof(order_add_t, side) == 36 && offsetof(order_add_t, event_flags) == 37,
               "words 3 to 6");
_Static_assert(offsetof(order_replace_t, order_id) == 8 && offsetof(order_replace_t, new_price) == 16 &&
                   offsetof(order_replace_t, new_qty) == 24 && offsetof(order_replace_t, instrument_id) == 32 &&
                   offsetof(order_replace_t, side) == 36 && offsetof(order_replace_t, event_flags) == 37,
               "words 3 to 6");
_Static_assert(offsetof(order_delete_t, order_id) == 8 && offsetof(order_delete_t, instrument_id) == 16 &&
                   offsetof(order_delete_t, side) == 20 && offsetof(order_delete_t, event_flags) == 21,
               "words 3 and 4");
_Static_assert(offsetof(order_reduce_t, order_id) == 8 && offsetof(order_reduce_t, new_qty) == 16 &&
                   offsetof(order_reduce_t, instrument_id) == 24 && offsetof(order_reduce_t, side) == 28 &&
                   offsetof(order_reduce_t, event_flags) == 29,
               "words 3 to 5");
_Static_assert(offsetof(order_execute_t, order_id) == 8 && offsetof(order_execute_t, trade_id) == 16 &&
                   offsetof(order_execute_t, last_px) == 24 && offsetof(order_execute_t, last_qty) == 32 &&
                   offsetof(order_execute_t, instrument_id) == 40 && offsetof(order_execute_t, side) == 44 &&
                   offsetof(order_execute_t, event_flags) == 45,
               "words 3 to 7");

/* Is it known here that this is the last event, or report, of its input? Else the end of the input will say so: then the last
 * one's flags are remembered. */
enum last {
    MAYBE_LAST,
    IS_LAST,
};

/* The next event's slot, with its first three words written. `tail` is the word that holds the flags. */
INLINE uint64_t *event_begin(matcher_t *matcher, book_t *book, uint64_t header, int tail, enum last last)
{
    ring_t *market = matcher->market;
    int64_t sequence = ring_claim_one(market);
    INVARIANT(sequence >= 0); /* nobody gates market data */
    uint64_t *words = (uint64_t *)(void *)market->slots + ((uint64_t)sequence & market->mask) * EVENT_SLOT_WORDS;
    words[0] = ++book->update_id;
    words[1] = header;
    words[2] = matcher->input.record->ts_ns;
    if (last == MAYBE_LAST) {
        matcher->last_event = sequence;
        matcher->last_event_flags = (uint8_t *)&words[tail] + EVENT_TAIL_FLAGS_BYTE;
    }
    return words;
}

INLINE uint64_t event_flags(enum last last)
{
    return last == IS_LAST ? (uint64_t)EVENT_FLAGS_END_OF_EVENT << 40 : 0;
}

/* OrderAdd and OrderReplace have the same layout. */
INLINE void event_stands(matcher_t *matcher, book_t *book, uint64_t header, int side, stand_t is, enum last last)
{
    uint64_t *words = event_begin(matcher, book, header, 6, last);
    words[3] = is.id;
    words[4] = (uint64_t)rank_of_price(is.rank, side);
    words[5] = (uint64_t)is.leaves;
    words[6] = book->event_tail[side] | event_flags(last);
    words[7] = 0;
}

INLINE stand_t stand_of(const order_t *order)
{
    return (stand_t){order->id, order->rank, order->leaves};
}

INLINE void event_add(matcher_t *matcher, book_t *book, const order_t *order)
{
    event_stands(matcher, book, EVENT_ORDER_ADD, order_side(order), stand_of(order), MAYBE_LAST);
}

INLINE void event_replace(matcher_t *matcher, book_t *book, const order_t *order)
{
    event_stands(matcher, book, EVENT_ORDER_REPLACE, order_side(order), stand_of(order), MAYBE_LAST);
}

INLINE void event_gone(matcher_t *matcher, book_t *book, uint64_t id, int side, enum last last)
{
    uint64_t *words = event_begin(matcher, book, EVENT_HEADER(TEMPLATE_ORDER_DELETE, order_delete_t), 4, last);
    words[3] = id;
    words[4] = book->event_tail[side] | event_flags(last);
    words[5] = 0;
    words[6] = 0;
    words[7] = 0;
}

INLINE void event_delete(matcher_t *matcher, book_t *book, const order_t *order)
{
    event_gone(matcher, book, order->id, order_side(order), MAYBE_LAST);
}

INLINE void event_reduce(matcher_t *matcher, book_t *book, const order_t *order)
{
    uint64_t *words = event_begin(matcher, book, EVENT_HEADER(TEMPLATE_ORDER_REDUCE, order_reduce_t), 5, MAYBE_LAST);
    words[3] = order->id;
    words[4] = (uint64_t)order->leaves;
    words[5] = book->event_tail[order_side(order)];
    words[6] = 0;
    words[7] = 0;
}

/* A resting order trades. */
INLINE void event_execute(matcher_t *matcher, book_t *book, const order_t *maker, int64_t price, int64_t quantity,
                          uint64_t flags)
{
    uint64_t *words = event_begin(matcher, book, EVENT_HEADER(TEMPLATE_ORDER_EXECUTE, order_execute_t), 7, MAYBE_LAST);
    words[3] = maker->id;
    words[4] = book->trade_id;
    words[5] = (uint64_t)price;
    words[6] = (uint64_t)quantity;
    words[7] = book->event_tail[order_side(maker)] | flags << 40;
}

/* A rare event: its block, zeroed but for the time. `flags_offset` is that of eventFlags in the block. */
static inline void *event_rare(matcher_t *matcher, book_t *book, uint16_t template_id, uint16_t block_length,
                               size_t flags_offset)
{
    uint64_t header = block_length | (uint64_t)template_id << 16 | (uint64_t)MARKETDATA_SCHEMA_ID << 32 |
                      (uint64_t)MARKETDATA_SCHEMA_VERSION << 48;
    uint64_t *words = event_begin(matcher, book, header, 2, MAYBE_LAST);
    memset(&words[3], 0, (EVENT_SLOT_WORDS - 3) * sizeof(uint64_t));
    matcher->last_event_flags = (uint8_t *)&words[2] + flags_offset;
    return &words[2];
}

#define EVENT_RARE(matcher, book, template_id, type) \
    ((type *)event_rare(matcher, book, template_id, sizeof(type), offsetof(type, event_flags)))

#endif
