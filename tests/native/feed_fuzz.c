/* feed_fuzz [seed [turns]]: random and half-right bytes into every door of the feed and of its client. Nothing may break, and a
 * client that behaves gets all messages all the time. Of use above all under the sanitizers. */
#include "matcher_kit.h"

#include <time.h>

#include "gateway/clients/c/bullring_market.h"
#include "gateway/marketdata/feed.h"
#include "scripts/bench/native/market_stream.h"

#define TURNS 6000
#define TURNS_QUICK 1500
#define PESTS 24
#define MARKET_SLOTS 65536u
#define PACKET_MAX 1500

typedef struct pest {
    int fd;
    bool snapshots;
} pest_t;

static uint64_t random_state;

static uint64_t dice(uint64_t sides)
{
    return stream_random(&random_state) % sides;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void fill(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)dice(256);
}

/* ---- the server -------------------------------------------------------------------------------------------------- */

static int connect_to(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0);
    (void)!connect(fd, (struct sockaddr *)&to, sizeof(to));
    return fd;
}

static size_t soup(uint8_t *to, char type, const void *payload, size_t size)
{
    bullring_put16(to, (uint16_t)(size + 1));
    to[2] = (uint8_t)type;
    memcpy(to + 3, payload, size);
    return size + 3;
}

/* A login that may be good, with some of it changed now and then. */
static size_t make_login(uint8_t *to)
{
    static const char *const sessions[] = {"BR001TEST1", "BR101     ", "BR900     ", "          ", "BR777     ", "SNAPSHOT  "};
    char text[64];
    size_t size = (size_t)snprintf(text, sizeof(text), "%-6s%-10s%s%20llu", "ANYONE", "ANYTHING", sessions[dice(6)],
                                   (unsigned long long)dice(3000));
    if (dice(8) == 0)
        text[dice(size)] = (char)dice(256);
    return soup(to, 'L', text, dice(20) == 0 ? dice(size) : size);
}

static size_t make_request(uint8_t *to)
{
    struct {
        market_header_t header;
        snapshot_request_t request;
    } ask = {{sizeof(snapshot_request_t), TEMPLATE_SNAPSHOT_REQUEST, MARKETDATA_SCHEMA_ID, 0},
             {.instrument_id = (uint32_t)dice(6), .book_type = (uint8_t)dice(3), .partition = (uint8_t)dice(3)}};
    if (dice(8) == 0)
        ((uint8_t *)&ask)[dice(sizeof(ask))] = (uint8_t)dice(256);
    return soup(to, 'U', &ask, dice(20) == 0 ? dice(sizeof(ask)) : sizeof(ask));
}

static void pest_turn(pest_t *pest, const uint16_t ports[3])
{
    uint8_t bytes[512], garbage[64];
    size_t size = 0;
    fill(garbage, sizeof(garbage));
    if (pest->fd < 0) {
        pest->snapshots = dice(2) == 0;
        pest->fd = connect_to(ports[pest->snapshots ? 1 : 0]);
        size = make_login(bytes);
    } else if (dice(3) == 0) {
        size = make_request(bytes);
    } else if (dice(4) == 0) {
        size = soup(bytes, "RO+LZSU?"[dice(8)], garbage, dice(sizeof(garbage)));
    } else if (dice(6) == 0) {
        size = dice(sizeof(bytes));
        fill(bytes, size);
    }
    if (size > 0)
        (void)!send(pest->fd, bytes, dice(10) == 0 ? dice(size + 1) : size, MSG_NOSIGNAL);
    if (dice(2) == 0 && recv(pest->fd, bytes, sizeof(bytes), 0) == 0) {
        close(pest->fd);
        pest->fd = -1;
    } else if (dice(40) == 0) {
        struct linger reset = {1, 0};
        setsockopt(pest->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(pest->fd);
        pest->fd = -1;
    }
}

static void datagram(int fd, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint8_t bytes[128];
    size_t size = dice(4) == 0 ? dice(sizeof(bytes)) : BULLRING_MOLD_REQUEST;
    fill(bytes, sizeof(bytes));
    if (dice(4) != 0) {
        memcpy(bytes, dice(2) ? "BR001TEST1" : "BR101TEST1", BULLRING_SESSION);
        bullring_put64(bytes + 10, dice(3) == 0 ? stream_random(&random_state) : dice(4000));
    }
    (void)!sendto(fd, bytes, size, 0, (struct sockaddr *)&to, sizeof(to));
}

static feed_t *open_feed(ring_t *market, uint16_t ports[3])
{
    feed_config_t config = {
        .generation = "TEST1", .partitions = 1, .books = 1, .packet_size_max = 1472, .heartbeat_ms = 10, .definitions_ms = 10,
        .orders_expected = 256, .instruments_max = 4, .derived_slots = FEED_DERIVED_SLOTS_MIN,
        .reference_slots = FEED_REFERENCE_SLOTS_MIN, .connections_max = 16, .connections_per_user = 16, .output_size = 4096,
        .login_timeout_ms = 50, .silence_timeout_ms = 300, .logins_failed_max = 5, .rerequests_per_s = 10000,
        .snapshot_age_ms = 5, .snapshot_bytes_max = 1 << 16};
    feed_t *feed = feed_new(&config);
    CHECK(feed != NULL);
    feed_attach(feed, 1, market);
    ports[0] = (uint16_t)feed_listen_replay(feed, "127.0.0.1", 0);
    ports[1] = (uint16_t)feed_listen_snapshot(feed, "127.0.0.1", 0);
    ports[2] = (uint16_t)feed_listen_rerequest(feed, "127.0.0.1", 0);
    feed_start(feed);
    return feed;
}

/* A good client must always have its place: the pests are fewer than there is room for. */
static void fuzz_server(int turns)
{
    static bullring_market_t client;
    static pest_t pests[PESTS / 2];
    market_stream_t stream;
    ring_t market;
    uint16_t ports[3];
    void *memory = stream_ring(&market, sizeof(market_slot_t), MARKET_SLOTS, 0);
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    market_stream_random(&stream, random_state, (uint64_t)turns * 4, 200, 500);
    market_stream_start(&stream, 3, 50, &market);
    feed_t *feed = open_feed(&market, ports);
    CHECK(bullring_market_init(&client, 1, 100, NULL, NULL));
    CHECK(bullring_market_servers(&client, "127.0.0.1", ports[0], ports[1], 0, "GOOD", "CLIENT"));
    for (size_t i = 0; i < PESTS / 2; i++)
        pests[i].fd = -1;
    uint64_t deadline = now_ns() + UINT64_C(120000000000);
    for (int turn = 0; turn < turns || client.feed.next <= (uint64_t)ring_published(&market); turn++) {
        for (int i = 0; i < 4 && turn < turns; i++)
            (void)market_stream_step(&stream);
        pest_turn(&pests[dice(PESTS / 2)], ports);
        datagram(udp, ports[2]);
        CHECK(feed_poll(feed, 64) >= 0);
        bullring_market_poll(&client, now_ns());
        CHECK_EQUAL(client.status, 0);
        CHECK(now_ns() < deadline);
    }
    const feed_counters_t *counters = feed_counters(feed);
    CHECK(counters->malformed > 0 && counters->logins_refused > 0 && counters->logins > 10);
    CHECK(counters->snapshots > 1 && counters->rerequests > 10 && counters->rerequests_malformed > 10);
    printf("feed_fuzz: %llu logins, %llu malformed, %llu snapshots, %llu re-requests; the good client has %llu messages\n",
           (unsigned long long)counters->logins, (unsigned long long)counters->malformed,
           (unsigned long long)counters->snapshots, (unsigned long long)counters->rerequests,
           (unsigned long long)client.feed.messages);
    bullring_market_free(&client);
    feed_shutdown(feed);
    feed_free(feed);
    market_stream_free(&stream);
    for (size_t i = 0; i < PESTS / 2; i++)
        if (pests[i].fd >= 0)
            close(pests[i].fd);
    close(udp);
    free(memory);
}

/* ---- the client -------------------------------------------------------------------------------------------------- */

/* A packet of messages that may or may not be right. */
static uint32_t make_packet(uint8_t *packet, uint64_t first)
{
    uint32_t count = (uint32_t)dice(6), size = BULLRING_MOLD_HEADER;
    memcpy(packet, "BR001TEST1", BULLRING_SESSION);
    bullring_put64(packet + 10, first);
    bullring_put16(packet + 18, (uint16_t)(dice(20) == 0 ? dice(65536) : count));
    for (uint32_t i = 0; i < count; i++) {
        static const uint16_t templates[] = {TEMPLATE_ORDER_ADD, TEMPLATE_ORDER_EXECUTE, TEMPLATE_ORDER_REDUCE, TEMPLATE_ORDER_DELETE,
                                             TEMPLATE_ORDER_REPLACE, TEMPLATE_BOOK_DIGEST, TEMPLATE_INSTRUMENT_STATUS, 999};
        uint8_t message[8 + 48];
        market_header_t header = {48, templates[dice(8)], MARKETDATA_SCHEMA_ID, 0};
        order_add_t order = {.order_id = dice(200), .price = (int64_t)dice(50), .qty = (int64_t)dice(20) - 1,
                             .instrument_id = (uint32_t)dice(3), .side = (uint8_t)(1 + dice(2)), .event_flags = 128};
        fill(message, sizeof(message));
        memcpy(message, &header, sizeof(header));
        if (dice(3) != 0)
            memcpy(message + 8, &order, sizeof(order));
        bullring_put16(packet + size, sizeof(message));
        memcpy(packet + size + 2, message, sizeof(message));
        size += 2 + (uint32_t)sizeof(message);
    }
    for (uint64_t i = dice(8) == 0 ? dice(4) : 0; i > 0; i--)
        packet[dice(size)] ^= (uint8_t)(1 << dice(8));
    return dice(10) == 0 ? (uint32_t)dice(size + 1) : size;
}

typedef struct sink {
    bullring_books_t books;
    uint64_t applied, refused, next;
} sink_t;

static void on_message(void *context, uint64_t number, const market_header_t *header, const void *block)
{
    sink_t *sink = context;
    CHECK(number >= sink->next); /* what this version does not know is passed over */
    sink->next = number + 1;
    if (bullring_books_apply(&sink->books, header, block) < 0)
        sink->refused++;
    else
        sink->applied++;
}

/* Sums of the books must stay right whatever is refused. */
static void check_books(const bullring_books_t *books)
{
    uint32_t orders = 0;
    for (uint32_t instrument = 0; instrument < books->book_capacity; instrument++) {
        for (uint8_t side = SIDE_BUY; side <= SIDE_SELL; side++) {
            bullring_level_walk_t walk = bullring_levels(books, instrument, side);
            int64_t last = 0;
            bool first = true;
            for (const bullring_level_t *level; (level = bullring_level_next(books, &walk)) != NULL; first = false) {
                CHECK(first || (side == SIDE_BUY ? level->price < last : level->price > last));
                last = level->price;
                CHECK(level->orders > 0);
                orders += level->orders;
            }
        }
    }
    CHECK_EQUAL(orders, books->order_count);
}

static void fuzz_client(int turns)
{
    static bullring_feed_t feed;
    static sink_t sink;
    uint8_t packet[PACKET_MAX], request[BULLRING_MOLD_REQUEST];
    CHECK(bullring_books_init(&sink.books, 8));
    CHECK(bullring_feed_init(&feed, 1, 1, on_message, &sink));
    for (int turn = 0; turn < turns * 20; turn++) {
        uint64_t first = feed.next + dice(8) - (feed.next > 4 ? dice(4) : 0);
        uint32_t size = make_packet(packet, first);
        (void)bullring_feed_packet(&feed, packet, size, (uint64_t)turn * 1000000);
        (void)bullring_feed_request(&feed, (uint64_t)turn * 1000000, request);
        if (turn % 1000 == 0)
            check_books(&sink.books);
    }
    check_books(&sink.books);
    CHECK(sink.applied > 1000 && sink.refused > 1000);
    bullring_feed_free(&feed);
    bullring_books_free(&sink.books);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    int turns = argc > 2 ? atoi(argv[2]) : getenv("BULLRING_QUICK") != NULL ? TURNS_QUICK : TURNS;
    random_state = seed * 0x9e3779b97f4a7c15u + 99;
    fuzz_client(turns);
    fuzz_server(turns);
    return 0;
}
