/* feed_book [seed [operations]] [STREAM...]: the C client's books, built from the events of the real matcher, are the matcher's.
 *
 * Compared: at every BookDigest the digest (computed by the books themselves), now and then every order in priority order and
 * every level, and the walk over levels against the search. Controls: a lost, a doubled and a changed event must be noticed. */
#include "matcher_kit.h"

#include "gateway/clients/c/bullring_book.h"
#include "scripts/bench/native/market_stream.h"

#define OPERATIONS 300000u
#define OPERATIONS_QUICK 60000u
#define MARK_EVERY 500u
#define COMPARE_EVERY 20000u
#define INSTRUMENTS 3u
#define MARKET_SLOTS 65536u

static void compare_side(const market_stream_t *stream, const bullring_books_t *books, uint32_t instrument, uint8_t side)
{
    int64_t count = matcher_order_count(stream->matcher, instrument), seen = 0;
    matcher_order_t *orders = calloc((size_t)count + 1, sizeof(*orders));
    CHECK(orders != NULL);
    count = matcher_orders(stream->matcher, instrument, side, orders, count);
    bullring_level_walk_t walk = bullring_levels(books, instrument, side);
    for (const bullring_level_t *level; (level = bullring_level_next(books, &walk)) != NULL;) {
        int64_t qty = 0;
        uint32_t in_level = 0;
        CHECK(bullring_level(books, level->ladder, level->price) == level);
        for (uint32_t at = level->head; at != BULLRING_NONE; at = bullring_order_at(books, at)->next, seen++, in_level++) {
            const bullring_order_t *order = bullring_order_at(books, at);
            CHECK(seen < count);
            CHECK_EQUAL(order->id, orders[seen].order_id);
            CHECK_EQUAL(level->price, orders[seen].price);
            CHECK_EQUAL(order->qty, orders[seen].leaves);
            qty += order->qty;
        }
        CHECK_EQUAL(level->qty, qty);
        CHECK_EQUAL(level->orders, in_level);
    }
    CHECK_EQUAL(seen, count);
    free(orders);
}

static void compare(const market_stream_t *stream, const bullring_books_t *books)
{
    for (uint32_t instrument = 1; instrument <= stream->instruments; instrument++) {
        uint64_t hash[2];
        matcher_hash(stream->matcher, instrument, hash);
        if (instrument < books->book_capacity) {
            CHECK(books->books[instrument].digest_low == hash[0]);
            CHECK(books->books[instrument].digest_high == hash[1]);
            CHECK(!books->books[instrument].event_open);
        }
        compare_side(stream, books, instrument, SIDE_BUY);
        compare_side(stream, books, instrument, SIDE_SELL);
    }
}

static int apply(bullring_books_t *books, const market_slot_t *slot)
{
    market_header_t header;
    memcpy(&header, &slot->block_length, sizeof(header));
    return bullring_books_apply(books, &header, slot->block);
}

typedef struct outcome {
    uint64_t events, digests;
} outcome_t;

/* The whole stream through matcher and books; every event must fit. */
static outcome_t follow(market_stream_t *stream, uint32_t instruments)
{
    outcome_t outcome = {0};
    ring_t market;
    bullring_books_t books;
    void *memory = stream_ring(&market, sizeof(market_slot_t), MARKET_SLOTS, 0);
    CHECK(bullring_books_init(&books, 16)); /* small: it has to grow */
    market_stream_start(stream, instruments, MARK_EVERY, &market);
    int64_t next = 0;
    while (market_stream_step(stream)) {
        for (; next < ring_published(&market); next++, outcome.events++) {
            const market_slot_t *slot = (const market_slot_t *)ring_slot(&market, next);
            int status = apply(&books, slot);
            if (status < 0) {
                fprintf(stderr, "operation %llu, event %lld, template %u: status %d\n", (unsigned long long)stream->at,
                        (long long)next, slot->template_id, status);
                exit(1);
            }
        }
        if (stream->at % COMPARE_EVERY == 0)
            compare(stream, &books);
    }
    compare(stream, &books);
    for (uint32_t i = 1; i <= instruments; i++) {
        outcome.digests += books.books[i].digests;
        bullring_book_clear(&books, i);
        CHECK(books.books[i].digest_low == 0);
        CHECK(books.books[i].digest_high == 0);
    }
    CHECK_EQUAL(books.order_count, 0);
    bullring_books_free(&books);
    free(memory);
    return outcome;
}

/* ---- controls: what must be noticed -------------------------------------------------------------------------------- */

enum tamper { LOSE, DOUBLE, CHANGE, TAMPERS };

/* Apply one event wrongly from `from` on, the first of a suitable kind, and say what came of it until the next digest. */
static int tampered(enum tamper tamper)
{
    market_stream_t stream;
    ring_t market;
    bullring_books_t books;
    void *memory = stream_ring(&market, sizeof(market_slot_t), MARKET_SLOTS, 0);
    int worst = BULLRING_BOOK_APPLIED;
    bool done = false;
    market_stream_random(&stream, 7, 2000, 200, 300);
    CHECK(bullring_books_init(&books, 1000));
    market_stream_start(&stream, 1, 100, &market);
    for (int64_t next = 0; market_stream_step(&stream) && worst >= 0;) {
        for (; next < ring_published(&market) && worst >= 0; next++) {
            market_slot_t slot = *(const market_slot_t *)ring_slot(&market, next);
            bool suitable = !done && next > 500 && slot.template_id == TEMPLATE_ORDER_ADD;
            done |= suitable;
            if (suitable && tamper == LOSE)
                continue;
            if (suitable && tamper == CHANGE)
                ((order_add_t *)slot.block)->qty += 1;
            worst = apply(&books, &slot);
            if (suitable && tamper == DOUBLE)
                worst = apply(&books, &slot);
        }
    }
    CHECK(done);
    bullring_books_free(&books);
    market_stream_free(&stream);
    free(memory);
    return worst;
}

static void refusals_change_nothing(void)
{
    bullring_books_t books;
    CHECK(bullring_books_init(&books, 8));
    market_header_t add = {sizeof(order_add_t), TEMPLATE_ORDER_ADD, MARKETDATA_SCHEMA_ID, 0};
    market_header_t execute = {sizeof(order_execute_t), TEMPLATE_ORDER_EXECUTE, MARKETDATA_SCHEMA_ID, 0};
    market_header_t reduce = {sizeof(order_reduce_t), TEMPLATE_ORDER_REDUCE, MARKETDATA_SCHEMA_ID, 0};
    order_add_t order = {.order_id = 5, .price = -3, .qty = 4, .instrument_id = 2, .side = SIDE_SELL};
    order_execute_t fill = {.order_id = 5, .last_px = -3, .last_qty = 5, .instrument_id = 2, .side = SIDE_SELL};
    order_reduce_t more = {.order_id = 5, .new_qty = 5, .instrument_id = 2, .side = SIDE_SELL};
    CHECK_EQUAL(bullring_books_apply(&books, &add, &order), BULLRING_BOOK_APPLIED);
    uint64_t digest = books.books[2].digest_low;
    CHECK_EQUAL(bullring_books_apply(&books, &add, &order), BULLRING_BOOK_KNOWN);
    CHECK_EQUAL(bullring_books_apply(&books, &execute, &fill), BULLRING_BOOK_QUANTITY);
    CHECK_EQUAL(bullring_books_apply(&books, &reduce, &more), BULLRING_BOOK_QUANTITY);
    fill.last_qty = 1;
    fill.side = SIDE_BUY;
    CHECK_EQUAL(bullring_books_apply(&books, &execute, &fill), BULLRING_BOOK_SIDE);
    fill.order_id = 6;
    CHECK_EQUAL(bullring_books_apply(&books, &execute, &fill), BULLRING_BOOK_UNKNOWN);
    order.order_id = 6;
    order.qty = 0;
    CHECK_EQUAL(bullring_books_apply(&books, &add, &order), BULLRING_BOOK_QUANTITY);
    order.qty = 1;
    order.instrument_id = BULLRING_INSTRUMENT_MAX;
    CHECK_EQUAL(bullring_books_apply(&books, &add, &order), BULLRING_BOOK_MEMORY);
    add.block_length = 8;
    CHECK_EQUAL(bullring_books_apply(&books, &add, &order), BULLRING_BOOK_BLOCK);
    CHECK(books.books[2].digest_low == digest);
    CHECK_EQUAL(books.order_count, 1);
    bullring_books_free(&books);
}

static void report(const char *what, outcome_t outcome)
{
    CHECK(outcome.digests > 100);
    printf("feed_book: %s: %llu events, %llu digests agree\n", what, (unsigned long long)outcome.events,
           (unsigned long long)outcome.digests);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    bool quick = getenv("BULLRING_QUICK") != NULL;
    uint64_t operations = argc > 2 ? strtoull(argv[2], NULL, 10) : quick ? OPERATIONS_QUICK : OPERATIONS;
    const struct {
        int32_t width;
        uint32_t resting;
    } shapes[] = {{40, 2000}, {3000, 30000}};
    market_stream_t stream;
    refusals_change_nothing();
    CHECK_EQUAL(tampered(CHANGE), BULLRING_BOOK_DIGEST);
    CHECK(tampered(LOSE) < 0);
    CHECK_EQUAL(tampered(DOUBLE), BULLRING_BOOK_KNOWN);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        market_stream_random(&stream, seed + i, operations, shapes[i].width, shapes[i].resting);
        report("random", follow(&stream, INSTRUMENTS));
        market_stream_free(&stream);
    }
    for (int i = 3; i < argc; i++) {
        CHECK(market_stream_load(&stream, argv[i], operations));
        report(argv[i], follow(&stream, 1));
        market_stream_free(&stream);
    }
    return 0;
}
