/* A ready market in a C program: the books of one channel, kept right whatever the network does. One header beside
 * bullring_feed.h and bullring_book.h; no thread; never blocks.
 *
 *     bullring_market_t market;
 *     bullring_market_init(&market, 1, 100000, on_event, context);        channel 1, room for 100000 orders
 *     bullring_market_servers(&market, "10.0.0.5", 9200, 9202, 9201, user, password);
 *     bullring_market_line(&market, "239.1.1.1", 9301, NULL);             line A; again for line B; none: TCP alone
 *     for (;;) { bullring_market_poll(&market, now_ns); if (bullring_market_ready(&market)) ... market.books ... }
 *
 *   SNAPSHOT  reads all books of the channel from the snapshot server; packets that come meanwhile are held
 *   REPLAY    reads what came after the snapshot from the replay server, until the packets join on (without a line: for ever)
 *   LIVE      packets; a gap is asked for at the re-request server, and if that does not help: REPLAY
 *
 * A book that does not fit its messages, or not a BookDigest, a number the replay server no longer has, a new session: SNAPSHOT
 * again. `on_event` sees every message behind the snapshot once, in order, after it was applied. */
#ifndef BULLRING_MARKET_H
#define BULLRING_MARKET_H

#include "bullring_book.h"
#include "bullring_feed.h"

#define BULLRING_LINES_MAX 2
#define BULLRING_RECONNECT_NS UINT64_C(200000000)
#ifndef BULLRING_LINES_SILENT_NS
#define BULLRING_LINES_SILENT_NS UINT64_C(3000000000) /* without packet or heartbeat: the lines are dead */
#endif
#define BULLRING_PACKETS_A_POLL 64

enum bullring_market_state { BULLRING_MARKET_SNAPSHOT, BULLRING_MARKET_REPLAY, BULLRING_MARKET_LIVE };

typedef struct bullring_market {
    bullring_feed_t feed;
    bullring_books_t books;
    enum bullring_market_state state;
    unsigned channel;
    int status;                   /* of the last message that did not fit: a bullring_book_status, 0 = none so far */
    char host[64];
    uint16_t replay_port, snapshot_port;
    struct sockaddr_in rerequest;
    int lines[BULLRING_LINES_MAX], line_count, ask_fd;
    bullring_soup_t replay, snapshot;
    bool asked;                   /* the snapshot request is out */
    bool broken;                  /* start anew at the end of this poll */
    uint64_t connect_ns;
    uint64_t heard_ns;            /* when a packet of our session came last, heartbeats included; 0 = never */
    uint64_t base;                /* smallest number a snapshot was taken at */
    uint64_t top;                 /* largest: up to there a message may be in a book already */
    uint64_t *taken;              /* by instrument: number its snapshot was taken at */
    uint32_t taken_capacity;
    bullring_message_fn on_event;
    void *context;
    uint64_t snapshots, replays, rejoined, digests;
} bullring_market_t;

static inline void bullring_market_message(void *context, uint64_t number, const market_header_t *header, const void *block);

/* False = no memory. `on_event` may be NULL. */
static inline bool bullring_market_init(bullring_market_t *market, unsigned channel, uint32_t orders_expected,
                                        bullring_message_fn on_event, void *context)
{
    memset(market, 0, sizeof(*market));
    market->channel = channel;
    market->ask_fd = -1;
    market->on_event = on_event;
    market->context = context;
    if (!bullring_feed_init(&market->feed, channel, 0, bullring_market_message, market) ||
        !bullring_books_init(&market->books, orders_expected))
        return false;
    market->feed.paused = true;
    return true;
}

/* Where the exchange is: numeric IPv4; rerequest_port 0 = none. */
static inline bool bullring_market_servers(bullring_market_t *market, const char *host, uint16_t replay_port,
                                           uint16_t snapshot_port, uint16_t rerequest_port, const char *user,
                                           const char *password)
{
    snprintf(market->host, sizeof(market->host), "%s", host);
    market->replay_port = replay_port;
    market->snapshot_port = snapshot_port;
    market->rerequest = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(rerequest_port)};
    if (rerequest_port != 0)
        market->ask_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return inet_pton(AF_INET, host, &market->rerequest.sin_addr) == 1 && bullring_soup_init(&market->replay, user, password) &&
           bullring_soup_init(&market->snapshot, user, password);
}

/* Receive packets at an address of ours or in a multicast group; 0 or -errno. */
static inline int bullring_market_line(bullring_market_t *market, const char *address, uint16_t port, const char *interface)
{
    int fd = market->line_count < BULLRING_LINES_MAX ? bullring_udp_open(address, port, interface) : -ENOSPC;
    if (fd < 0)
        return fd;
    market->lines[market->line_count++] = fd;
    return 0;
}

static inline void bullring_market_free(bullring_market_t *market)
{
    for (int i = 0; i < market->line_count; i++)
        close(market->lines[i]);
    if (market->ask_fd >= 0)
        close(market->ask_fd);
    bullring_soup_free(&market->replay);
    bullring_soup_free(&market->snapshot);
    bullring_feed_free(&market->feed);
    bullring_books_free(&market->books);
    free(market->taken);
}

/* Are the books what the exchange had not long ago, and nothing known to be missing? */
static inline bool bullring_market_ready(const bullring_market_t *market)
{
    return market->state != BULLRING_MARKET_SNAPSHOT && market->feed.next > market->top && market->feed.gap_ns == 0;
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* Is this message of a full channel in its book already, by the snapshot? */
static inline bool bullring_market_taken(const bullring_market_t *market, uint64_t number, const market_header_t *header,
                                         const void *block)
{
    bullring_change_t change = {0};
    if (bullring_change_of(header->template_id, header->block_length, block, &change) != BULLRING_BOOK_APPLIED) {
        if (header->template_id == TEMPLATE_INSTRUMENT_STATUS)
            change.instrument_id = ((const instrument_status_t *)block)->instrument_id;
        else if (header->template_id == TEMPLATE_BOOK_DIGEST)
            change.instrument_id = ((const book_digest_t *)block)->instrument_id;
    }
    return change.instrument_id < market->taken_capacity && number <= market->taken[change.instrument_id];
}

static inline void bullring_market_message(void *context, uint64_t number, const market_header_t *header, const void *block)
{
    bullring_market_t *market = (bullring_market_t *)context;
    if (market->broken || (number <= market->top && bullring_market_taken(market, number, header, block)))
        return;
    int status = bullring_books_apply(&market->books, header, block);
    if (status < 0) {
        market->status = status;
        market->broken = true;
        return;
    }
    market->digests += header->template_id == TEMPLATE_BOOK_DIGEST;
    if (market->on_event != NULL)
        market->on_event(market->context, number, header, block);
}

static inline void bullring_market_replayed(void *context, uint64_t number, const uint8_t *message, uint32_t size)
{
    bullring_market_t *market = (bullring_market_t *)context;
    bullring_feed_message(&market->feed, number, message, size, market->replay.received_ns);
}

/* ---- snapshot ---------------------------------------------------------------------------------------------------- */

static inline bool bullring_market_note(bullring_market_t *market, uint32_t instrument_id, uint64_t number)
{
    if (instrument_id >= BULLRING_INSTRUMENT_MAX)
        return false;
    if (instrument_id >= market->taken_capacity) {
        uint32_t capacity = instrument_id + 64;
        uint64_t *grown = (uint64_t *)realloc(market->taken, capacity * sizeof(*grown));
        if (grown == NULL)
            return false;
        memset(grown + market->taken_capacity, 0, (capacity - market->taken_capacity) * sizeof(*grown));
        market->taken = grown;
        market->taken_capacity = capacity;
    }
    market->taken[instrument_id] = number;
    market->base = number < market->base ? number : market->base;
    market->top = number > market->top ? number : market->top;
    return true;
}

static inline void bullring_market_snapshot_message(void *context, uint64_t number, const uint8_t *message, uint32_t size)
{
    bullring_market_t *market = (bullring_market_t *)context;
    uint8_t block[BULLRING_BLOCK_MAX] __attribute__((aligned(8))) = {0};
    market_header_t header;
    (void)number;
    if (size < sizeof(header) || market->broken)
        return;
    memcpy(&header, message, sizeof(header));
    size -= (uint32_t)sizeof(header);
    memcpy(block, message + sizeof(header), size < sizeof(block) ? size : sizeof(block));
    if (header.template_id == TEMPLATE_SNAPSHOT_BEGIN) {
        const snapshot_begin_t *begin = (const snapshot_begin_t *)(const void *)block;
        market->broken |= !bullring_market_note(market, begin->instrument_id, begin->last_seq_num);
    } else if (header.template_id == TEMPLATE_SNAPSHOT_END) {
        if (((const snapshot_end_t *)(const void *)block)->instruments_remaining == 0) {
            bullring_soup_close(&market->snapshot);
            market->state = BULLRING_MARKET_REPLAY;
            market->snapshots++;
            market->connect_ns = 0;
            bullring_feed_resume(&market->feed, market->base + 1, market->snapshot.received_ns);
        }
    } else {
        int status = bullring_books_apply(&market->books, &header, block);
        market->status = status < 0 ? status : market->status;
        market->broken |= status < 0;
    }
}

/* Forget everything and read a snapshot. */
static inline void bullring_market_restart(bullring_market_t *market)
{
    for (uint32_t i = 0; i < market->books.book_capacity; i++)
        bullring_book_clear(&market->books, i);
    if (market->taken != NULL)
        memset(market->taken, 0, market->taken_capacity * sizeof(*market->taken));
    bullring_soup_close(&market->replay);
    bullring_soup_close(&market->snapshot);
    market->state = BULLRING_MARKET_SNAPSHOT;
    market->base = UINT64_MAX;
    market->top = 0;
    market->asked = false;
    market->broken = false;
    market->feed.paused = true;
    bullring_feed_reset(&market->feed, market->channel);
}

static inline void bullring_market_read_snapshot(bullring_market_t *market, uint64_t now_ns)
{
    struct {
        market_header_t header;
        snapshot_request_t request;
    } ask = {{sizeof(snapshot_request_t), TEMPLATE_SNAPSHOT_REQUEST, MARKETDATA_SCHEMA_ID, MARKETDATA_SCHEMA_VERSION},
             {.book_type = BOOK_TYPE_BY_ORDER, .partition = (uint8_t)market->channel}};
    if (market->snapshot.state == BULLRING_SOUP_CLOSED) {
        if (now_ns < market->connect_ns || market->snapshot.refused == 'A')
            return; /* asking again would not help: `snapshot.refused` says why nothing comes */
        bullring_market_restart(market);
        market->connect_ns = now_ns + BULLRING_RECONNECT_NS;
        (void)bullring_soup_connect(&market->snapshot, market->host, market->snapshot_port, "", 1, now_ns);
        return;
    }
    if (market->snapshot.state == BULLRING_SOUP_OPEN && !market->asked) {
        market->asked = true;
        (void)bullring_soup_send(&market->snapshot, 'U', &ask, sizeof(ask), now_ns);
    }
    (void)bullring_soup_poll(&market->snapshot, now_ns, bullring_market_snapshot_message, market);
}

/* Do the lines live? Their heartbeats come every second. */
static inline bool bullring_market_hears(const bullring_market_t *market, uint64_t now_ns)
{
    return market->heard_ns != 0 && now_ns - market->heard_ns < BULLRING_LINES_SILENT_NS;
}

/* ---- replay ------------------------------------------------------------------------------------------------------ */

static inline void bullring_market_read_replay(bullring_market_t *market, uint64_t now_ns)
{
    if (market->replay.state == BULLRING_SOUP_CLOSED) {
        if (market->replay.refused == 'S') { /* older than what is kept, or history began anew */
            market->replay.refused = 0;
            market->broken = true;
            return;
        }
        if (now_ns < market->connect_ns)
            return;
        market->connect_ns = now_ns + BULLRING_RECONNECT_NS;
        market->replays++;
        (void)bullring_soup_connect(&market->replay, market->host, market->replay_port, market->feed.session,
                                    market->feed.next, now_ns);
        return;
    }
    (void)bullring_soup_poll(&market->replay, now_ns, bullring_market_replayed, market);
    if (bullring_market_hears(market, now_ns) && market->feed.next >= market->feed.end) {
        bullring_soup_close(&market->replay);
        market->state = BULLRING_MARKET_LIVE;
        market->rejoined++;
    }
}

/* ---- packets ----------------------------------------------------------------------------------------------------- */

static inline int64_t bullring_market_read(bullring_market_t *market, int fd, uint64_t now_ns)
{
    uint8_t packet[65536];
    for (int64_t count = 0; count < BULLRING_PACKETS_A_POLL; count++) {
        ssize_t size = recv(fd, packet, sizeof(packet), 0);
        if (size < 0)
            return count;
        int status = bullring_feed_packet(&market->feed, packet, (uint32_t)size, now_ns);
        if (status == BULLRING_FEED_OK && fd != market->ask_fd)
            market->heard_ns = now_ns;
        /* The same channel of another generation: history began anew. */
        if (status == BULLRING_FEED_FOREIGN && size >= (ssize_t)BULLRING_MOLD_HEADER && memcmp(packet, market->feed.session, 5) == 0 &&
            bullring_get16(packet + 18) != BULLRING_MOLD_END)
            market->broken = true;
    }
    return BULLRING_PACKETS_A_POLL;
}

static inline void bullring_market_ask(bullring_market_t *market, uint64_t now_ns)
{
    uint8_t request[BULLRING_MOLD_REQUEST];
    if (market->ask_fd >= 0 && bullring_feed_request(&market->feed, now_ns, request))
        (void)!sendto(market->ask_fd, request, sizeof(request), MSG_NOSIGNAL, (const struct sockaddr *)&market->rerequest,
                      sizeof(market->rerequest));
    bool hopeless = market->ask_fd < 0 && market->feed.gap_ns != 0 && now_ns - market->feed.gap_ns > BULLRING_PATIENCE_NS;
    if (hopeless || !bullring_market_hears(market, now_ns) || bullring_feed_lost(&market->feed, now_ns)) {
        market->state = BULLRING_MARKET_REPLAY;
        market->feed.asked = 0;
    }
}

/* Do what can be done without waiting; returns packets read. Call it again and again. */
static inline int64_t bullring_market_poll(bullring_market_t *market, uint64_t now_ns)
{
    int64_t packets = 0;
    for (int i = 0; i < market->line_count; i++)
        packets += bullring_market_read(market, market->lines[i], now_ns);
    if (market->ask_fd >= 0)
        packets += bullring_market_read(market, market->ask_fd, now_ns);
    if (market->broken)
        bullring_market_restart(market);
    if (market->state == BULLRING_MARKET_SNAPSHOT)
        bullring_market_read_snapshot(market, now_ns);
    else if (market->state == BULLRING_MARKET_REPLAY)
        bullring_market_read_replay(market, now_ns);
    else
        bullring_market_ask(market, now_ns);
    return packets;
}

#endif
