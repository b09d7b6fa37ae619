/* feed_faults [seed [operations]] [STREAM...]: whatever the network and the publisher's deaths do, the C client's books are the
 * matcher's at every digest and at the end.
 *
 * Matcher -> market ring (small, with an archive behind, as the journaler keeps one) -> the feed -> UDP through a bad network of
 * our own -> the client, with re-requests, replay and snapshots over loopback. Everything runs in this thread, in turn. */
#include "matcher_kit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BULLRING_LINES_SILENT_NS UINT64_C(100000000)
#include "gateway/clients/c/bullring_market.h"
#include "gateway/marketdata/feed.h"
#include "scripts/bench/native/market_stream.h"

#define OPERATIONS 120000u
#define OPERATIONS_QUICK 30000u
#define MARKET_SLOTS 16384u
#define MARK_EVERY 200u
#define HELD 16
#define DATAGRAM_MAX 1500
#define DEADLINE_NS UINT64_C(120000000000)
#define KEY_TEXT "0123456789abcdef0123456789abcdef"

/* A line of the bad network: what arrives at `in` leaves to `out`, or does not. Chances in thousandths. */
typedef struct line {
    int in, out;
    struct sockaddr_in to;
    unsigned lose, repeat, delay;
    unsigned burst;   /* chance that a run of packets is lost */
    unsigned losing;  /* packets of it still to be lost */
    bool dead;
    uint32_t held_count;
    uint32_t held_size[HELD];
    uint8_t held[HELD][DATAGRAM_MAX];
    uint64_t lost, repeated, delayed;
} line_t;

typedef struct world {
    uint64_t seed, random;
    market_stream_t stream;
    ring_t market;
    void *market_memory;
    int archive_fd;
    int64_t archived;
    char folder[64];
    feed_t *feed;
    uint16_t replay_port, snapshot_port, rerequest_port;
    line_t line[2];
    bullring_market_t *client;
    uint64_t corrupt_at;       /* the network changes a message once this many packets have passed; 0 = never */
    uint64_t passed;
} world_t;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static bool chance(world_t *world, unsigned thousandths)
{
    return stream_random(&world->random) % 1000 < thousandths;
}

/* ---- network ----------------------------------------------------------------------------------------------------- */

static uint16_t port_of(int fd)
{
    struct sockaddr_in at;
    socklen_t length = sizeof(at);
    CHECK(getsockname(fd, (struct sockaddr *)&at, &length) == 0);
    return ntohs(at.sin_port);
}

static void line_open(line_t *line)
{
    memset(line, 0, sizeof(*line));
    line->in = bullring_udp_open("127.0.0.1", 0, NULL);
    line->out = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    CHECK(line->in >= 0);
    CHECK(line->out >= 0);
}

static void forward(world_t *world, line_t *line, uint8_t *packet, uint32_t size)
{
    if (world->corrupt_at != 0 && ++world->passed >= world->corrupt_at && size > 60 && packet[24] == TEMPLATE_ORDER_ADD) {
        packet[20 + 2 + 8 + 24] ^= 1; /* the lowest bit of a quantity */
        world->corrupt_at = 0;
    }
    (void)!sendto(line->out, packet, size, 0, (const struct sockaddr *)&line->to, sizeof(line->to));
}

static void release_one(world_t *world, line_t *line)
{
    uint32_t which = (uint32_t)(stream_random(&world->random) % line->held_count);
    forward(world, line, line->held[which], line->held_size[which]);
    line->held_count--;
    memcpy(line->held[which], line->held[line->held_count], DATAGRAM_MAX);
    line->held_size[which] = line->held_size[line->held_count];
}

static void line_pump(world_t *world, line_t *line)
{
    uint8_t packet[DATAGRAM_MAX];
    for (ssize_t size; (size = recv(line->in, packet, sizeof(packet), 0)) >= 0;) {
        if (line->losing == 0 && chance(world, line->burst))
            line->losing = 50;
        bool lost = line->losing > 0 || chance(world, line->lose);
        line->losing -= line->losing > 0;
        if (line->dead || lost) {
            line->lost++;
            continue;
        }
        if (chance(world, line->repeat)) {
            line->repeated++;
            forward(world, line, packet, (uint32_t)size);
        }
        if (chance(world, line->delay) && line->held_count < HELD) {
            line->delayed++;
            memcpy(line->held[line->held_count], packet, (size_t)size);
            line->held_size[line->held_count++] = (uint32_t)size;
            continue;
        }
        forward(world, line, packet, (uint32_t)size);
        if (line->held_count > HELD / 2)
            release_one(world, line);
    }
}

static void network(world_t *world)
{
    for (int i = 0; i < 2; i++)
        line_pump(world, &world->line[i]);
}

/* ---- publisher --------------------------------------------------------------------------------------------------- */

static void feed_up(world_t *world)
{
    feed_config_t config = {
        .archive = world->folder, .generation = "TEST1", .partitions = 1, .publish = FEED_FULL, .books = 1,
        .packet_size_max = 1472, .heartbeat_ms = 20, .definitions_ms = 100, .orders_expected = 4096, .instruments_max = 64,
        .derived_slots = FEED_DERIVED_SLOTS_MIN, .reference_slots = FEED_REFERENCE_SLOTS_MIN, .connections_max = 16,
        .connections_per_user = 16, .output_size = 65536, .login_timeout_ms = 5000, .silence_timeout_ms = 15000,
        .logins_failed_max = 5, .rerequests_per_s = 100000, .snapshot_age_ms = 100, .snapshot_bytes_max = 1 << 26};
    memcpy(config.key, KEY_TEXT, sizeof(config.key));
    world->feed = feed_new(&config);
    CHECK(world->feed != NULL);
    feed_attach(world->feed, 1, &world->market);
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(feed_add_destination(world->feed, i, FEED_FULL, "127.0.0.1", port_of(world->line[i].in), NULL, 1), 0);
    int replay = feed_listen_replay(world->feed, "127.0.0.1", world->replay_port);
    int snapshot = feed_listen_snapshot(world->feed, "127.0.0.1", world->snapshot_port);
    int rerequest = feed_listen_rerequest(world->feed, "127.0.0.1", world->rerequest_port);
    CHECK(replay > 0);
    CHECK(snapshot > 0);
    CHECK(rerequest > 0);
    world->replay_port = (uint16_t)replay;
    world->snapshot_port = (uint16_t)snapshot;
    world->rerequest_port = (uint16_t)rerequest;
    feed_start(world->feed);
}

static void feed_down(world_t *world)
{
    feed_free(world->feed);
    world->feed = NULL;
}

/* What the journaler does with the market ring. */
static void archive(world_t *world)
{
    for (int64_t end = ring_published(&world->market); world->archived < end; world->archived++) {
        const void *slot = ring_slot(&world->market, world->archived);
        CHECK_EQUAL(pwrite(world->archive_fd, slot, sizeof(market_slot_t), world->archived * (off_t)sizeof(market_slot_t)),
                    sizeof(market_slot_t));
    }
}

static int64_t feed_turn(world_t *world)
{
    if (world->feed == NULL)
        return 0;
    int64_t done = feed_poll(world->feed, 256);
    if (done < 0) {
        fprintf(stderr, "the feed stopped: %lld %s\n", (long long)done, feed_error(world->feed));
        exit(1);
    }
    return done;
}

/* ---- client ------------------------------------------------------------------------------------------------------ */

static void client_up(world_t *world)
{
    bullring_market_t *client = world->client = calloc(1, sizeof(*client));
    CHECK(client != NULL);
    CHECK(bullring_market_init(client, 1, 64, NULL, NULL));
    CHECK(bullring_market_servers(client, "127.0.0.1", world->replay_port, world->snapshot_port, world->rerequest_port, "ANYONE", "AT ALL"));
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(bullring_market_line(client, "127.0.0.1", 0, NULL), 0);
        world->line[i].to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port_of(client->lines[i])),
                                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    }
}

static void client_down(world_t *world)
{
    bullring_market_free(world->client);
    free(world->client);
    world->client = NULL;
}

static void compare_side(const world_t *world, uint32_t instrument, uint8_t side)
{
    const bullring_books_t *books = &world->client->books;
    int64_t count = matcher_order_count(world->stream.matcher, instrument), seen = 0;
    matcher_order_t *orders = calloc((size_t)count + 1, sizeof(*orders));
    CHECK(orders != NULL);
    count = matcher_orders(world->stream.matcher, instrument, side, orders, count);
    bullring_level_walk_t walk = bullring_levels(books, instrument, side);
    for (const bullring_level_t *level; (level = bullring_level_next(books, &walk)) != NULL;) {
        for (uint32_t at = level->head; at != BULLRING_NONE; at = bullring_order_at(books, at)->next, seen++) {
            CHECK(seen < count);
            CHECK_EQUAL(bullring_order_at(books, at)->id, orders[seen].order_id);
            CHECK_EQUAL(bullring_order_at(books, at)->qty, orders[seen].leaves);
            CHECK_EQUAL(level->price, orders[seen].price);
        }
    }
    CHECK_EQUAL(seen, count);
    free(orders);
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static void turn(world_t *world)
{
    feed_turn(world);
    network(world);
    if (world->client != NULL) {
        bullring_market_poll(world->client, now_ns());
        if (world->client->status != 0 && world->corrupt_at == 0 && world->passed == 0) {
            fprintf(stderr, "seed %llu: message before %llu does not fit the client's book: %d\n",
                    (unsigned long long)world->seed, (unsigned long long)world->client->feed.next, world->client->status);
            exit(1);
        }
    }
}

static void trade(world_t *world, uint64_t operations)
{
    for (uint64_t i = 0; i < operations && market_stream_step(&world->stream); i++) {
        archive(world);
        if (i % 16 == 0)
            turn(world);
    }
}

/* Nothing new any more: everything must arrive in the end. */
static void settle(world_t *world)
{
    uint64_t end = now_ns() + DEADLINE_NS;
    market_stream_mark(&world->stream);
    archive(world);
    for (;;) {
        turn(world);
        if (bullring_market_ready(world->client) && world->client->feed.next == (uint64_t)ring_published(&world->market) + 1)
            return;
        if (now_ns() > end) {
            fprintf(stderr, "seed %llu: the client stays at %llu of %lld, state %d\n", (unsigned long long)world->seed,
                    (unsigned long long)world->client->feed.next, (long long)ring_published(&world->market), world->client->state);
            exit(1);
        }
    }
}

static void check(world_t *world)
{
    settle(world);
    for (uint32_t i = 1; i <= world->stream.instruments; i++) {
        compare_side(world, i, SIDE_BUY);
        compare_side(world, i, SIDE_SELL);
    }
}

static void world_open(world_t *world, uint64_t seed)
{
    char path[80];
    memset(world, 0, sizeof(*world));
    world->seed = world->random = seed * 0x9e3779b97f4a7c15u + 7;
    snprintf(world->folder, sizeof(world->folder), "feed-faults-XXXXXX");
    CHECK(mkdtemp(world->folder) != NULL);
    snprintf(path, sizeof(path), "%s/1", world->folder);
    world->archive_fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(world->archive_fd >= 0);
    world->market_memory = stream_ring(&world->market, sizeof(market_slot_t), MARKET_SLOTS, 0);
    line_open(&world->line[0]);
    line_open(&world->line[1]);
}

static void world_close(world_t *world)
{
    char path[80];
    if (world->client != NULL)
        client_down(world);
    if (world->feed != NULL)
        feed_down(world);
    for (int i = 0; i < 2; i++) {
        close(world->line[i].in);
        close(world->line[i].out);
    }
    market_stream_free(&world->stream);
    free(world->market_memory);
    close(world->archive_fd);
    snprintf(path, sizeof(path), "%s/1", world->folder);
    unlink(path);
    rmdir(world->folder);
}

static void set_faults(world_t *world, unsigned lose, unsigned repeat, unsigned delay, unsigned burst)
{
    for (int i = 0; i < 2; i++) {
        world->line[i].lose = lose;
        world->line[i].repeat = repeat;
        world->line[i].delay = delay;
        world->line[i].burst = burst;
    }
}

/* Loss, duplication, reordering, bursts; then each of the calamities; compared after each. */
static void play(world_t *world, const char *what)
{
    uint64_t part = world->stream.count / 10;
    feed_up(world);
    client_up(world);
    trade(world, part); /* a quiet network */
    check(world);
    uint64_t quiet_requests = world->client->feed.requests;
    set_faults(world, 100, 100, 100, 2);
    trade(world, 3 * part);
    check(world);
    CHECK(world->line[0].lost > 0 && world->line[0].repeated > 0 && world->line[1].delayed > 0);
    CHECK(world->client->feed.duplicates > 0 && world->client->feed.requests > quiet_requests);
    world->line[0].dead = true; /* A is dead, B is bad */
    trade(world, part);
    check(world);
    world->line[1].dead = true; /* both are: TCP alone */
    trade(world, part);
    check(world);
    CHECK_EQUAL(world->client->state, BULLRING_MARKET_REPLAY);
    world->line[0].dead = world->line[1].dead = false;
    trade(world, part / 2);
    check(world);
    feed_down(world); /* the publisher is killed and comes back later; its successor begins where the ring stands */
    trade(world, part);
    feed_up(world);
    trade(world, part);
    check(world);
    uint64_t digests = world->client->digests;
    CHECK(digests > world->stream.count / MARK_EVERY / 3);
    client_down(world); /* a late joiner */
    client_up(world);
    trade(world, part);
    check(world);
    CHECK(world->client->snapshots >= 1);
    trade(world, UINT64_MAX);
    check(world);
    printf("feed_faults: %s: %lld events, %llu digests agree, %llu gaps, %llu requests, %llu replays\n", what,
           (long long)ring_published(&world->market), (unsigned long long)(digests + world->client->digests),
           (unsigned long long)world->client->feed.gaps, (unsigned long long)world->client->feed.requests,
           (unsigned long long)world->client->replays);
}

/* Control: a message changed on its way must be noticed by the next digest at the latest, and cured by a snapshot. */
static void corruption_is_noticed(void)
{
    static world_t world;
    world_open(&world, 3);
    market_stream_random(&world.stream, 3, 8000, 200, 500);
    market_stream_start(&world.stream, 1, 50, &world.market);
    feed_up(&world);
    client_up(&world);
    trade(&world, 1000);
    check(&world);
    world.line[1].dead = true;
    world.corrupt_at = 20;
    trade(&world, UINT64_MAX);
    check(&world);
    CHECK_EQUAL(world.corrupt_at, 0);
    CHECK(world.client->status < 0);
    CHECK(world.client->snapshots >= 2);
    world_close(&world);
}

int main(int argc, char **argv)
{
    static world_t world;
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    bool quick = getenv("BULLRING_QUICK") != NULL;
    uint64_t operations = argc > 2 ? strtoull(argv[2], NULL, 10) : quick ? OPERATIONS_QUICK : OPERATIONS;
    corruption_is_noticed();
    world_open(&world, seed);
    market_stream_random(&world.stream, seed, operations, 300, 3000);
    market_stream_start(&world.stream, 3, MARK_EVERY, &world.market);
    play(&world, "random");
    world_close(&world);
    for (int i = 3; i < argc; i++) {
        world_open(&world, seed);
        CHECK(market_stream_load(&world.stream, argv[i], operations));
        market_stream_start(&world.stream, 1, MARK_EVERY, &world.market);
        play(&world, argv[i]);
        world_close(&world);
    }
    return 0;
}
