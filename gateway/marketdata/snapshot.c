/* Copies of one instrument's book at one number, ready to be sent: Soup packets in memory, shared by all who ask for the same
 * book within `snapshot_age_ms`. While a book is copied, some thousand orders a step, the books of its partition stand still and
 * catch up afterwards; the packets of the full channel do not wait for books. */
#include <stdlib.h>

#include "feed_internal.h"

#define SNAPSHOT_STEP_ORDERS 2048
#define ORDER_PACKET (SOUP_HEADER_SIZE + MARKET_HEADER_SIZE + sizeof(snapshot_order_t))
#define LEVEL_PACKET (SOUP_HEADER_SIZE + MARKET_HEADER_SIZE + sizeof(level_update_t))
#define SNAPSHOT_OVERHEAD 256 /* SnapshotBegin, InstrumentStatus, BookDigest */

static void put(snapshot_t *snapshot, uint16_t template_id, const void *block, uint16_t block_length)
{
    market_header_t header = {block_length, template_id, MARKETDATA_SCHEMA_ID, MARKETDATA_SCHEMA_VERSION};
    uint8_t *to = snapshot->bytes + snapshot->size;
    snapshot->size += SOUP_HEADER_SIZE + sizeof(header) + block_length;
    INVARIANT(snapshot->size <= snapshot->capacity);
    soup_header(to, 'S', sizeof(header) + block_length);
    memcpy(to + SOUP_HEADER_SIZE, &header, sizeof(header));
    memcpy(to + SOUP_HEADER_SIZE + sizeof(header), block, block_length);
}

feed_books_t *snapshot_books(feed_t *feed, uint32_t instrument)
{
    for (int p = 1; p <= feed->config.partitions; p++) {
        feed_books_t *books = feed->books[p];
        if (books != NULL && instrument < books->books.book_capacity && books->books.books[instrument].transact_time != 0)
            return books;
    }
    return NULL;
}

uint64_t snapshot_number(const feed_books_t *books, uint8_t book_type)
{
    return (uint64_t)(book_type == BOOK_TYPE_BY_LEVEL ? books->derived->ring->claimed : books->position);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void begin(feed_t *feed, snapshot_t *snapshot)
{
    feed_books_t *books = snapshot->books;
    const bullring_book_t *book = &books->books.books[snapshot->instrument];
    bool by_level = snapshot->book_type == BOOK_TYPE_BY_LEVEL;
    snapshot->last_number = snapshot_number(books, snapshot->book_type);
    snapshot_begin_t head = {
        .transact_time = book->transact_time,
        .last_seq_num = snapshot->last_number,
        .instrument_id = snapshot->instrument,
        .order_count = by_level ? book->side[0].levels + book->side[1].levels : book->order_count,
        .partition = books->channel->partition,
        .book_type = snapshot->book_type,
    };
    instrument_status_t status = {.transact_time = book->transact_time, .instrument_id = snapshot->instrument,
                                  .status = book->status, .event_flags = EVENT_FLAGS_RECOVERY};
    put(snapshot, TEMPLATE_SNAPSHOT_BEGIN, &head, sizeof(head));
    if (book->status != 0)
        put(snapshot, TEMPLATE_INSTRUMENT_STATUS, &status, sizeof(status));
    snapshot->side = SIDE_BUY;
    snapshot->walk = bullring_levels(&books->books, snapshot->instrument, SIDE_BUY);
    snapshot->level = NULL;
    snapshot->order = BULLRING_NONE;
    snapshot->made_ns = feed->now_ns;
    snapshot->state = SNAPSHOT_COPYING;
    books->held++;
}

static void put_level(snapshot_t *snapshot)
{
    level_update_t update = {
        .transact_time = snapshot->books->books.books[snapshot->instrument].transact_time,
        .price = snapshot->level->price,
        .new_qty = snapshot->level->qty,
        .num_orders = snapshot->level->orders,
        .instrument_id = snapshot->instrument,
        .side = snapshot->side,
        .event_flags = EVENT_FLAGS_RECOVERY,
    };
    put(snapshot, TEMPLATE_LEVEL_UPDATE, &update, sizeof(update));
}

static void put_order(snapshot_t *snapshot)
{
    const bullring_order_t *order = bullring_order_at(&snapshot->books->books, snapshot->order);
    snapshot_order_t message = {
        .order_id = order->id,
        .price = snapshot->level->price,
        .qty = order->qty,
        .instrument_id = snapshot->instrument,
        .side = snapshot->side,
        .event_flags = EVENT_FLAGS_RECOVERY,
    };
    put(snapshot, TEMPLATE_SNAPSHOT_ORDER, &message, sizeof(message));
    snapshot->order = order->next;
}

/* The next level of the walk, of the other side after the first; false = that was all. */
static bool next_level(snapshot_t *snapshot)
{
    const bullring_books_t *books = &snapshot->books->books;
    snapshot->level = bullring_level_next(books, &snapshot->walk);
    if (snapshot->level == NULL && snapshot->side == SIDE_BUY) {
        snapshot->side = SIDE_SELL;
        snapshot->walk = bullring_levels(books, snapshot->instrument, SIDE_SELL);
        snapshot->level = bullring_level_next(books, &snapshot->walk);
    }
    if (snapshot->level == NULL)
        return false;
    snapshot->order = snapshot->level->head;
    return true;
}

static void finish(feed_t *feed, snapshot_t *snapshot)
{
    const bullring_book_t *book = &snapshot->books->books.books[snapshot->instrument];
    book_digest_t digest = {
        .transact_time = book->transact_time,
        .digest_low = book->digest_low,
        .digest_high = book->digest_high,
        .instrument_id = snapshot->instrument,
        .order_count = book->order_count,
        .event_flags = EVENT_FLAGS_RECOVERY | EVENT_FLAGS_END_OF_EVENT,
    };
    if (snapshot->book_type == BOOK_TYPE_BY_ORDER)
        put(snapshot, TEMPLATE_BOOK_DIGEST, &digest, sizeof(digest));
    snapshot->state = SNAPSHOT_READY;
    snapshot->books->held--;
    feed->counters.snapshots_made++;
}

/* One step of copying. */
static int64_t copy(feed_t *feed, snapshot_t *snapshot)
{
    bool by_level = snapshot->book_type == BOOK_TYPE_BY_LEVEL;
    for (int64_t done = 0; done < SNAPSHOT_STEP_ORDERS; done++) {
        if ((snapshot->level == NULL || by_level || snapshot->order == BULLRING_NONE) && !next_level(snapshot)) {
            finish(feed, snapshot);
            return done + 1;
        }
        if (by_level)
            put_level(snapshot);
        else
            put_order(snapshot);
    }
    return SNAPSHOT_STEP_ORDERS;
}

int64_t snapshot_poll(feed_t *feed)
{
    int64_t work = 0;
    for (int i = 0; i < FEED_SNAPSHOTS_MAX; i++)
        if (feed->snapshots[i].state == SNAPSHOT_COPYING)
            work += copy(feed, &feed->snapshots[i]);
    return work;
}

/* ---- keeping ----------------------------------------------------------------------------------------------------- */

static void drop(feed_t *feed, snapshot_t *snapshot)
{
    feed->snapshot_bytes -= snapshot->capacity;
    feed->counters.snapshot_bytes = feed->snapshot_bytes;
    free(snapshot->bytes);
    memset(snapshot, 0, sizeof(*snapshot));
}

/* A free place with memory for `capacity` bytes; the oldest that nobody reads give way. NULL = all are being read. */
static snapshot_t *place(feed_t *feed, size_t capacity)
{
    for (;;) {
        snapshot_t *found = NULL, *oldest = NULL;
        for (int i = 0; i < FEED_SNAPSHOTS_MAX; i++) {
            snapshot_t *snapshot = &feed->snapshots[i];
            if (snapshot->state == SNAPSHOT_FREE)
                found = snapshot;
            else if (snapshot->state == SNAPSHOT_READY && snapshot->references == 0 &&
                     (oldest == NULL || snapshot->made_ns < oldest->made_ns))
                oldest = snapshot;
        }
        /* One book larger than the bound may still be had, alone. */
        bool fits = feed->snapshot_bytes + capacity <= feed->config.snapshot_bytes_max || feed->snapshot_bytes == 0;
        if (found != NULL && fits)
            return (found->bytes = malloc(capacity)) != NULL ? found : NULL;
        if (oldest == NULL)
            return NULL;
        drop(feed, oldest);
    }
}

static snapshot_t *known(feed_t *feed, uint32_t instrument, uint8_t book_type)
{
    for (int i = 0; i < FEED_SNAPSHOTS_MAX; i++) {
        snapshot_t *snapshot = &feed->snapshots[i];
        if (snapshot->state == SNAPSHOT_FREE || snapshot->instrument != instrument || snapshot->book_type != book_type)
            continue;
        if (snapshot->state == SNAPSHOT_COPYING || feed->now_ns - snapshot->made_ns < feed->config.snapshot_age_ms * NS_PER_MS)
            return snapshot;
    }
    return NULL;
}

snapshot_t *snapshot_want(feed_t *feed, uint32_t instrument, uint8_t book_type)
{
    feed_books_t *books = snapshot_books(feed, instrument);
    snapshot_t *snapshot = known(feed, instrument, book_type);
    if (snapshot == NULL) {
        /* Only between events is the book one that the exchange had. */
        if (books == NULL || !books_caught_up(books) || books->event_open)
            return NULL;
        const bullring_book_t *book = &books->books.books[instrument];
        size_t capacity = SNAPSHOT_OVERHEAD + (book_type == BOOK_TYPE_BY_LEVEL
                                                   ? (book->side[0].levels + book->side[1].levels) * LEVEL_PACKET
                                                   : book->order_count * ORDER_PACKET);
        snapshot = place(feed, capacity);
        if (snapshot == NULL)
            return NULL;
        snapshot->capacity = capacity;
        feed->snapshot_bytes += capacity;
        feed->counters.snapshot_bytes = feed->snapshot_bytes;
        snapshot->instrument = instrument;
        snapshot->book_type = book_type;
        snapshot->books = books;
        begin(feed, snapshot);
    }
    snapshot->references++;
    return snapshot;
}

void snapshot_release(feed_t *feed, snapshot_t *snapshot)
{
    (void)feed;
    INVARIANT(snapshot->references > 0);
    snapshot->references--;
}

void snapshots_free(feed_t *feed)
{
    for (int i = 0; i < FEED_SNAPSHOTS_MAX; i++)
        free(feed->snapshots[i].bytes);
}
