/* Books of one partition, and the channel derived from them: prints as they happen; at the end of each event the levels that
 * changed, with what is there now, and the best prices if they changed. A pure function of the market ring from its first slot
 * on, so every process that computes it numbers its messages alike. */
#include <stdlib.h>

#include "feed_internal.h"

static void *derived_next(feed_books_t *books, uint64_t update_id, uint16_t template_id, uint16_t block_length,
                          size_t flags_offset)
{
    ring_t *ring = books->derived->ring;
    int64_t index = ring_claim(ring, 1);
    INVARIANT(index >= 0); /* nobody gates it */
    uint8_t *slot = ring_slot(ring, index);
    market_header_t header = {block_length, template_id, MARKETDATA_SCHEMA_ID, MARKETDATA_SCHEMA_VERSION};
    memset(slot, 0, books->derived->slot_size);
    memcpy(slot, &update_id, sizeof(update_id));
    memcpy(slot + 8, &header, sizeof(header));
    books->last_flags = slot + FEED_SLOT_HEADER + flags_offset;
    /* An event of any length leaves its first part visible before the ring comes round to it. */
    if (index + 1 - ring_published(ring) >= ring_capacity(ring) / 4)
        ring_publish(ring, index);
    return slot + FEED_SLOT_HEADER;
}

#define DERIVED(books, update_id, template_id, type) \
    ((type *)derived_next(books, update_id, template_id, sizeof(type), offsetof(type, event_flags)))

/* An auction's print is two executions of one trade id, the first of them flagged: nobody was the aggressor. */
static void tell_trade(feed_books_t *books, const order_execute_t *execute)
{
    if ((execute->event_flags & EVENT_FLAGS_IMPLIED) != 0) {
        books->implied_trade = execute->trade_id;
        books->implied_instrument = execute->instrument_id;
        return;
    }
    bool auction = books->implied_trade == execute->trade_id && books->implied_instrument == execute->instrument_id;
    trade_t *trade = DERIVED(books, books->update_id, TEMPLATE_TRADE, trade_t);
    trade->transact_time = execute->transact_time;
    trade->trade_id = execute->trade_id;
    trade->price = execute->last_px;
    trade->qty = execute->last_qty;
    trade->instrument_id = execute->instrument_id;
    trade->aggressor_side = auction ? SIDE_OR_BOTH_BOTH : execute->side == SIDE_BUY ? SIDE_OR_BOTH_SELL : SIDE_OR_BOTH_BUY;
}

static void tell_level(feed_books_t *books, bullring_touch_t touch)
{
    const bullring_level_t *level = bullring_level(&books->books, touch.ladder, touch.price);
    uint64_t update_id = books->update_ids[touch.ladder / 2];
    level_update_t *update = DERIVED(books, update_id, TEMPLATE_LEVEL_UPDATE, level_update_t);
    update->transact_time = books->transact_time;
    update->price = touch.price;
    update->new_qty = level != NULL ? level->qty : 0;
    update->num_orders = level != NULL ? level->orders : 0;
    update->instrument_id = touch.ladder / 2;
    update->side = (uint8_t)(SIDE_BUY + touch.ladder % 2);
}

static void tell_best(feed_books_t *books, uint32_t instrument)
{
    bullring_level_t bid, ask;
    best_t best = {PX_OPT_NULL, 0, PX_OPT_NULL, 0};
    if (bullring_best(&books->books, instrument, SIDE_BUY, &bid)) {
        best.bid_px = bid.price;
        best.bid_qty = bid.qty;
    }
    if (bullring_best(&books->books, instrument, SIDE_SELL, &ask)) {
        best.ask_px = ask.price;
        best.ask_qty = ask.qty;
    }
    if (memcmp(&best, &books->best[instrument], sizeof(best)) == 0)
        return;
    books->best[instrument] = best;
    bbo_t *told = DERIVED(books, books->update_ids[instrument], TEMPLATE_BBO, bbo_t);
    told->transact_time = books->transact_time;
    told->bid_px = best.bid_px;
    told->bid_qty = best.bid_qty;
    told->ask_px = best.ask_px;
    told->ask_qty = best.ask_qty;
    told->instrument_id = instrument;
}

static void tell_touched(feed_books_t *books)
{
    for (uint32_t i = 0; i < books->touched_count; i++)
        tell_level(books, books->touched[i]);
    for (uint32_t i = 0; i < books->touched_count; i++)
        tell_best(books, books->touched[i].ladder / 2);
    books->touched_count = 0;
}

/* Remember which levels an event changed. Fills of one level come in a row; the rest is short. */
static void note_touched(feed_books_t *books)
{
    for (uint32_t i = 0; i < books->books.touched_count; i++) {
        bullring_touch_t touch = books->books.touched[i];
        books->update_ids[touch.ladder / 2] = books->update_id;
        uint32_t back = books->touched_count < 4 ? books->touched_count : 4;
        bool known = false;
        for (uint32_t j = 1; j <= back; j++) {
            const bullring_touch_t *other = &books->touched[books->touched_count - j];
            known |= other->ladder == touch.ladder && other->price == touch.price;
        }
        if (known)
            continue;
        if (books->touched_count == FEED_EVENT_LEVELS_MAX)
            tell_touched(books);
        books->touched[books->touched_count++] = touch;
    }
}

static void finish_event(feed_books_t *books)
{
    tell_touched(books);
    if (books->last_flags != NULL) {
        *books->last_flags |= EVENT_FLAGS_END_OF_EVENT;
        books->last_flags = NULL;
        ring_publish(books->derived->ring, books->derived->ring->claimed);
    }
}

/* Messages that say the same on both channels. */
static void forward(feed_books_t *books, uint16_t template_id, uint16_t block_length, const void *block, size_t flags_offset)
{
    uint8_t *copy = derived_next(books, books->update_id, template_id, block_length, flags_offset);
    memcpy(copy, block, block_length);
    copy[flags_offset] &= (uint8_t)~EVENT_FLAGS_END_OF_EVENT;
}

/* Returns the flags of the message: is the event at its end? */
static uint8_t derive(feed_books_t *books, const market_header_t *header, const uint8_t *block)
{
    uint64_t transact_time;
    memcpy(&transact_time, block, sizeof(transact_time));
    books->transact_time = transact_time;
    switch (header->template_id) {
    case TEMPLATE_ORDER_ADD:
        return block[offsetof(order_add_t, event_flags)];
    case TEMPLATE_ORDER_EXECUTE:
        tell_trade(books, (const order_execute_t *)block);
        return block[offsetof(order_execute_t, event_flags)];
    case TEMPLATE_ORDER_REDUCE:
        return block[offsetof(order_reduce_t, event_flags)];
    case TEMPLATE_ORDER_DELETE:
        return block[offsetof(order_delete_t, event_flags)];
    case TEMPLATE_ORDER_REPLACE:
        return block[offsetof(order_replace_t, event_flags)];
    case TEMPLATE_INSTRUMENT_STATUS:
        forward(books, header->template_id, sizeof(instrument_status_t), block, offsetof(instrument_status_t, event_flags));
        return block[offsetof(instrument_status_t, event_flags)];
    case TEMPLATE_AUCTION_INDICATIVE:
        forward(books, header->template_id, sizeof(auction_indicative_t), block, offsetof(auction_indicative_t, event_flags));
        return block[offsetof(auction_indicative_t, event_flags)];
    case TEMPLATE_TRADE:
        forward(books, header->template_id, sizeof(trade_t), block, offsetof(trade_t, event_flags));
        return block[offsetof(trade_t, event_flags)];
    case TEMPLATE_BOOK_DIGEST:
        return block[offsetof(book_digest_t, event_flags)];
    default:
        return 0;
    }
}

/* One slot of the market ring. */
static int apply(feed_t *feed, feed_books_t *books, const uint8_t *slot)
{
    _Alignas(8) uint8_t block[MARKET_BLOCK_MAX];
    market_header_t header;
    memcpy(&books->update_id, slot, sizeof(books->update_id));
    memcpy(&header, slot + 8, sizeof(header));
    memcpy(block, slot + FEED_SLOT_HEADER, sizeof(block));
    if (header.schema_id != MARKETDATA_SCHEMA_ID || header.block_length > sizeof(block))
        return fail(feed, "message %lld of partition %u: schema %u, block of %u bytes", (long long)books->position + 1,
                    books->channel->partition, header.schema_id, header.block_length);
    int status = bullring_books_apply(&books->books, &header, block);
    if (status < 0)
        return fail(feed, "message %lld of partition %u, template %u: does not fit the book (%d)",
                    (long long)books->position + 1, books->channel->partition, header.template_id, status);
    if (books->books.touched_count > 0 && books->books.touched[0].ladder / 2 > feed->config.instruments_max)
        return fail(feed, "instrument %u is above instruments_max = %u", books->books.touched[0].ladder / 2,
                    feed->config.instruments_max);
    feed->counters.events++;
    feed->counters.digests += header.template_id == TEMPLATE_BOOK_DIGEST;
    note_touched(books);
    books->event_open = (derive(books, &header, block) & EVENT_FLAGS_END_OF_EVENT) == 0;
    if (!books->event_open)
        finish_event(books);
    books->position++;
    return 0;
}

int64_t books_poll(feed_t *feed, feed_books_t *books, int64_t limit)
{
    int64_t published = channel_published(books->channel), done = 0;
    int64_t made = books->derived->ring->claimed;

    while (books->position < published && done < limit && books->held == 0) {
        int64_t count = published - books->position < FEED_BATCH ? published - books->position : FEED_BATCH;
        count = count < limit - done ? count : limit - done;
        int64_t got = channel_read(feed, books->channel, books->position, count, feed->batch);
        if (got == CHANNEL_HOLE) {
            feed->hole_partition = books->channel->partition;
            feed->hole_first = books->position;
            return STAGE_LAPPED;
        }
        if (got == CHANNEL_LATER)
            break;
        for (int64_t i = 0; i < got; i++)
            if (apply(feed, books, feed->batch + i * (int64_t)sizeof(market_slot_t)) < 0)
                return STAGE_FAILED;
        done += got;
    }
    feed->counters.derived += (uint64_t)(books->derived->ring->claimed - made);
    return done;
}

bool books_caught_up(const feed_books_t *books)
{
    return books->position >= books->live_from;
}

feed_books_t *books_new(feed_t *feed, int partition)
{
    feed_books_t *books = calloc(1, sizeof(*books));
    if (books == NULL)
        return NULL;
    books->best = calloc((size_t)feed->config.instruments_max + 1, sizeof(best_t));
    books->update_ids = calloc((size_t)feed->config.instruments_max + 1, sizeof(uint64_t));
    for (uint32_t i = 0; books->best != NULL && i <= feed->config.instruments_max; i++)
        books->best[i] = (best_t){PX_OPT_NULL, 0, PX_OPT_NULL, 0};
    books->channel = &feed->channels[PLACE_FULL + partition - 1];
    books->derived = &feed->channels[PLACE_DERIVED + partition - 1];
    if (books->best == NULL || books->update_ids == NULL || !bullring_books_init(&books->books, feed->config.orders_expected) ||
        !channel_make_ring(books->derived, sizeof(market_slot_t), feed->config.derived_slots)) {
        books_free(books);
        return NULL;
    }
    return books;
}

void books_free(feed_books_t *books)
{
    if (books == NULL)
        return;
    bullring_books_free(&books->books);
    free(books->best);
    free(books->update_ids);
    free(books);
}
