/* Show the best prices of one pair as they change, for ten seconds.
 *
 *     cc -I gateway/clients/c -I ringbuf/include gateway/clients/c/feed_example.c -o feed_example
 *     ./feed_example HOST REPLAY-PORT SNAPSHOT-PORT USER PASSWORD CHANNEL INSTRUMENT [LINE-A-PORT [LINE-B-PORT]] */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bullring_market.h"

static bullring_market_t market;
static uint32_t instrument;

static void on_event(void *context, uint64_t number, const market_header_t *header, const void *block)
{
    static int64_t bid_px, ask_px;
    bullring_level_t bid = {0}, ask = {0};
    (void)context;
    (void)block;
    if (instrument >= market.books.book_capacity || market.books.books[instrument].event_open)
        return; /* in the middle of an event the book may be crossed */
    (void)bullring_best(&market.books, instrument, SIDE_BUY, &bid);
    (void)bullring_best(&market.books, instrument, SIDE_SELL, &ask);
    if (bid.price == bid_px && ask.price == ask_px)
        return;
    bid_px = bid.price;
    ask_px = ask.price;
    printf("%" PRIu64 " template %u: %" PRId64 " x %" PRId64 " | %" PRId64 " x %" PRId64 "\n", number, header->template_id,
           bid.qty, bid.price, ask.price, ask.qty);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

int main(int count, char **arguments)
{
    if (count < 8) {
        fprintf(stderr, "usage: %s HOST REPLAY-PORT SNAPSHOT-PORT USER PASSWORD CHANNEL INSTRUMENT [PORT-A [PORT-B]]\n", arguments[0]);
        return 64;
    }
    instrument = (uint32_t)atoi(arguments[7]);
    if (!bullring_market_init(&market, (unsigned)atoi(arguments[6]), 100000, on_event, NULL) ||
        !bullring_market_servers(&market, arguments[1], (uint16_t)atoi(arguments[2]), (uint16_t)atoi(arguments[3]), 0,
                                 arguments[4], arguments[5]))
        return 69;
    for (int i = 8; i < count; i++)
        if (bullring_market_line(&market, "127.0.0.1", (uint16_t)atoi(arguments[i]), NULL) != 0)
            return 69;
    for (uint64_t end = now_ns() + UINT64_C(10000000000); now_ns() < end;) {
        struct timespec pause = {.tv_nsec = 200000};
        if (bullring_market_poll(&market, now_ns()) == 0)
            nanosleep(&pause, NULL);
        if (market.snapshot.refused != 0) {
            fprintf(stderr, "refused: %c\n", market.snapshot.refused);
            return 77;
        }
    }
    printf("next number %" PRIu64 ", %" PRIu64 " digests agreed, %s\n", market.feed.next, market.digests,
           bullring_market_ready(&market) ? "ready" : "not ready");
    bullring_market_free(&market);
    return market.status != 0;
}
