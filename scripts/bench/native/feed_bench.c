/* feed_bench MODE ...: the market feed and its C client beside bare references. One JSON object.
 *
 *   latency EVENTS           real matcher on one core, feed on the other: matcher takes a record -> packet handed to the kernel
 *   references EVENTS        the bare parts: a slot through a ring between the same cores, one send() of the same packet
 *   publish STREAM OPS       recorded events of one channel, published as fast as possible to lines A and B, with books and
 *                            derived channel, and without
 *   paced STREAM OPS RATE    the same at a fixed rate from the other core: does the feed keep up, how far does it fall behind
 *   client STREAM OPS        packets of a recording -> arbitration -> books by order with digest; and decoding alone
 *   replay STREAM OPS        history from the archive over SoupBinTCP; a bare file-to-socket copy of the same bytes
 *
 * STREAM is an OBSTRM01 file or "random". send() is ours here: it notes when it was called and when the kernel came back. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "gateway/clients/c/bullring_market.h"
#include "gateway/marketdata/feed.h"
#include "market_stream.h"

#define LATENCY_GAP_NS 20000u
#define WARM_UP 2000
#define RING_SLOTS (1u << 16)
#define PACED_SLOTS (1u << 20)
#define COPY_CHUNK (256u << 10)
#define DIGEST_EVERY 1000u

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Time of this thread alone, system calls included: what others do on the machine takes nothing from its account. */
static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    (void)sched_setaffinity(0, sizeof(set), &set); /* best effort: a smaller machine runs both on one */
}

static _Atomic bool thread_runs;

/* A thread on a core of its own, which has had its first turn there (and says so) when this returns. */
static pthread_t start_on(int core, void *(*work)(void *), void *argument)
{
    pthread_t thread;
    pthread_attr_t attributes;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    INVARIANT(pthread_attr_init(&attributes) == 0);
    (void)pthread_attr_setaffinity_np(&attributes, sizeof(set), &set);
    if (pthread_create(&thread, &attributes, work, argument) != 0)
        INVARIANT(pthread_create(&thread, NULL, work, argument) == 0); /* there is no such core */
    pthread_attr_destroy(&attributes);
    while (!atomic_load(&thread_runs))
        usleep(100);
    return thread;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_percentiles(const char *name, uint64_t *values, size_t count)
{
    qsort(values, count, sizeof(*values), compare);
    printf("\"%s_p50_ns\": %llu, \"%s_p99_ns\": %llu, \"%s_p999_ns\": %llu", name, (unsigned long long)values[count / 2], name,
           (unsigned long long)values[count * 99 / 100], name, (unsigned long long)values[count * 999 / 1000]);
}

/* ---- send() ------------------------------------------------------------------------------------------------------ */

static struct {
    bool on;
    int line_a;               /* the descriptor of line A, the first that sends */
    size_t count, capacity;
    uint64_t *number, *called, *returned;
} sends;

static ssize_t bare_send(int fd, const void *bytes, size_t size, int flags)
{
    return (ssize_t)syscall(SYS_sendto, fd, bytes, size, flags, NULL, 0);
}

ssize_t send(int fd, const void *bytes, size_t size, int flags)
{
    if (!sends.on || size <= BULLRING_MOLD_HEADER || sends.count == sends.capacity)
        return bare_send(fd, bytes, size, flags);
    if (sends.line_a < 0)
        sends.line_a = fd;
    uint64_t called = now_ns();
    ssize_t sent = bare_send(fd, bytes, size, flags);
    if (fd == sends.line_a) {
        sends.number[sends.count] = bullring_get64((const uint8_t *)bytes + 10);
        sends.called[sends.count] = called;
        sends.returned[sends.count++] = now_ns();
    }
    return sent;
}

static void note_sends(size_t capacity)
{
    sends.line_a = -1;
    sends.capacity = capacity;
    sends.number = calloc(capacity, sizeof(uint64_t));
    sends.called = calloc(capacity, sizeof(uint64_t));
    sends.returned = calloc(capacity, sizeof(uint64_t));
    INVARIANT(sends.number != NULL && sends.called != NULL && sends.returned != NULL);
    sends.on = true;
}

/* ---- a feed ------------------------------------------------------------------------------------------------------ */

static feed_t *open_feed(ring_t *market, const char *archive, bool books, int lines)
{
    feed_config_t config = {
        .archive = archive, .generation = "BENCH", .partitions = 1, .publish = FEED_FULL | FEED_DERIVED, .books = books,
        .packet_size_max = 1472, .heartbeat_ms = 1000, .definitions_ms = 1000, .orders_expected = 1u << 20,
        .instruments_max = 64, .derived_slots = 1u << 18, .reference_slots = FEED_REFERENCE_SLOTS_MIN, .connections_max = 16,
        .connections_per_user = 16, .output_size = 262144, .login_timeout_ms = 5000, .silence_timeout_ms = 60000,
        .logins_failed_max = 5, .rerequests_per_s = 1000, .snapshot_age_ms = 1000, .snapshot_bytes_max = 1 << 28};
    feed_t *feed = feed_new(&config);
    INVARIANT(feed != NULL);
    feed_attach(feed, 1, market);
    for (int line = 0; line < lines; line++) {
        /* A receiver that never reads: what it costs to hand packets to the kernel, not what others do with them. */
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof(at);
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        INVARIANT(bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 && getsockname(fd, (struct sockaddr *)&at, &length) == 0);
        INVARIANT(feed_add_destination(feed, line, FEED_FULL | FEED_DERIVED, "127.0.0.1", ntohs(at.sin_port), NULL, 1) == 0);
    }
    return feed;
}

static void must_poll(feed_t *feed)
{
    if (feed_poll(feed, 256) < 0) {
        fprintf(stderr, "feed_bench: %s\n", feed_error(feed));
        exit(1);
    }
}

/* ---- latency ----------------------------------------------------------------------------------------------------- */

typedef struct latency {
    feed_t *feed;
    _Atomic int stop;
} latency_t;

static void *poll_feed(void *argument)
{
    latency_t *latency = argument;
    atomic_store(&thread_runs, true);
    while (atomic_load_explicit(&latency->stop, memory_order_relaxed) == 0)
        must_poll(latency->feed);
    return NULL;
}

static int bench_latency(uint64_t events)
{
    static market_stream_t stream;
    static latency_t latency;
    ring_t market;
    pthread_t thread;
    void *memory = stream_ring(&market, sizeof(market_slot_t), RING_SLOTS, 0);
    uint64_t operations = events * 2 + WARM_UP * 2, measured = 0;
    uint64_t *began = calloc(operations * 4, sizeof(uint64_t)), *kernel, *handed, *sendto_, warm = 0;
    market_stream_random(&stream, 1, operations, 200, 1000);
    market_stream_start(&stream, 1, 0, &market);
    note_sends(operations * 4);
    latency.feed = open_feed(&market, NULL, true, 2);
    feed_start(latency.feed);
    pin(0);
    thread = start_on(1, poll_feed, &latency);
    for (uint64_t next = now_ns(); stream.at < operations;) {
        while (now_ns() < next)
            CPU_RELAX();
        uint64_t before = (uint64_t)ring_published(&market), at = now_ns();
        (void)market_stream_step(&stream);
        warm = stream.at == WARM_UP ? (uint64_t)ring_published(&market) : warm;
        for (uint64_t i = before; i < (uint64_t)ring_published(&market); i++)
            began[i] = i == before ? at : 0; /* only the first event of an input: it waits for nothing */
        next += LATENCY_GAP_NS;
    }
    while (sends.count > 0 && sends.number[sends.count - 1] < (uint64_t)ring_published(&market) && now_ns() % 1000000 != 0)
        CPU_RELAX();
    atomic_store(&latency.stop, 1);
    pthread_join(thread, NULL);
    kernel = calloc(sends.count, sizeof(uint64_t));
    handed = calloc(sends.count, sizeof(uint64_t));
    sendto_ = calloc(sends.count, sizeof(uint64_t));
    for (size_t i = 0; i < sends.count; i++) {
        uint64_t at = began[sends.number[i] - 1];
        if (at == 0 || sends.called[i] < at || sends.number[i] <= warm)
            continue;
        kernel[measured] = sends.called[i] - at;
        handed[measured] = sends.returned[i] - at;
        sendto_[measured++] = sends.returned[i] - sends.called[i];
    }
    printf("{\"events\": %llu, ", (unsigned long long)measured);
    print_percentiles("match_to_send", kernel, measured);
    printf(", ");
    print_percentiles("match_to_kernel", handed, measured);
    printf(", ");
    print_percentiles("send", sendto_, measured);
    printf("}\n");
    free(memory);
    return 0;
}

typedef struct hop {
    ring_t *ring;
    uint64_t count;
    uint64_t *seen;
} hop_t;

static void *watch_ring(void *argument)
{
    hop_t *hop = argument;
    atomic_store(&thread_runs, true);
    for (uint64_t next = 0; next < hop->count;) {
        while (ring_published(hop->ring) <= (int64_t)next)
            CPU_RELAX();
        hop->seen[next++] = now_ns();
    }
    return NULL;
}

static int bench_references(uint64_t events)
{
    ring_t ring;
    pthread_t thread;
    void *memory = stream_ring(&ring, sizeof(market_slot_t), RING_SLOTS, 0);
    uint64_t *began = calloc(events, sizeof(uint64_t)), *took = calloc(events, sizeof(uint64_t));
    hop_t hop = {&ring, events, calloc(events, sizeof(uint64_t))};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(at);
    uint8_t packet[BULLRING_MOLD_HEADER + 50] = {0};
    int in = socket(AF_INET, SOCK_DGRAM, 0), out = socket(AF_INET, SOCK_DGRAM, 0);
    pin(0);
    thread = start_on(1, watch_ring, &hop);
    uint64_t next = now_ns();
    for (uint64_t i = 0; i < events; i++) {
        while (now_ns() < next)
            CPU_RELAX();
        int64_t slot = ring_claim(&ring, 1);
        memset(ring_slot(&ring, slot), 1, sizeof(market_slot_t));
        began[i] = now_ns();
        ring_publish(&ring, slot + 1);
        next += LATENCY_GAP_NS;
    }
    pthread_join(thread, NULL);
    for (uint64_t i = 0; i < events; i++)
        took[i] = hop.seen[i] - began[i];
    printf("{\"events\": %llu, ", (unsigned long long)events);
    print_percentiles("ring_hop", took, events);
    INVARIANT(bind(in, (struct sockaddr *)&at, sizeof(at)) == 0 && getsockname(in, (struct sockaddr *)&at, &length) == 0);
    INVARIANT(connect(out, (struct sockaddr *)&at, sizeof(at)) == 0);
    next = now_ns();
    for (uint64_t i = 0; i < events; i++) {
        while (now_ns() < next)
            CPU_RELAX();
        uint64_t called = now_ns();
        (void)!bare_send(out, packet, sizeof(packet), MSG_NOSIGNAL);
        took[i] = now_ns() - called;
        next += LATENCY_GAP_NS;
    }
    printf(", ");
    print_percentiles("bare_send", took, events);
    printf("}\n");
    free(memory);
    return 0;
}

/* ---- recordings -------------------------------------------------------------------------------------------------- */

typedef struct recording {
    market_slot_t *slots;
    uint64_t count;
} recording_t;

static recording_t record(const char *name, uint64_t operations)
{
    static market_stream_t stream;
    ring_t market;
    recording_t recording = {0};
    void *memory = stream_ring(&market, sizeof(market_slot_t), RING_SLOTS, 0);
    uint64_t capacity = operations * 3 + 1000;
    recording.slots = mmap(NULL, capacity * sizeof(market_slot_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    INVARIANT(recording.slots != MAP_FAILED);
    if (strcmp(name, "random") == 0) {
        market_stream_random(&stream, 1, operations, 300, 20000);
    } else if (!market_stream_load(&stream, name, operations)) {
        fprintf(stderr, "feed_bench: %s is no stream\n", name);
        exit(2);
    }
    market_stream_start(&stream, 1, DIGEST_EVERY, &market);
    while (market_stream_step(&stream)) {
        INVARIANT((uint64_t)ring_published(&market) <= capacity);
        for (; recording.count < (uint64_t)ring_published(&market); recording.count++)
            recording.slots[recording.count] = *(market_slot_t *)ring_slot(&market, (int64_t)recording.count);
    }
    market_stream_free(&stream);
    free(memory);
    return recording;
}

static void append(ring_t *ring, const market_slot_t *slot)
{
    int64_t index = ring_claim(ring, 1);
    *(market_slot_t *)ring_slot(ring, index) = *slot;
}

/* ---- publishing -------------------------------------------------------------------------------------------------- */

/* Everything lies in the ring; how long until it is with the kernel, in seconds? */
static double publish_all(const recording_t *recording, bool books)
{
    ring_t market;
    feed_position_t position = {0};
    uint64_t slots = 1;
    while (slots < recording->count)
        slots *= 2;
    void *memory = stream_ring(&market, sizeof(market_slot_t), slots, 0);
    feed_t *feed = open_feed(&market, NULL, books, 2);
    feed_start(feed);
    for (uint64_t i = 0; i < recording->count; i++)
        append(&market, &recording->slots[i]);
    uint64_t began = cpu_ns();
    ring_publish(&market, (int64_t)recording->count);
    while (position.sent <= recording->count || feed_counters(feed)->events < (books ? recording->count : 0)) {
        must_poll(feed);
        INVARIANT(feed_position(feed, 1, &position));
    }
    double took = (double)(cpu_ns() - began) / 1e9;
    INVARIANT(feed_counters(feed)->laps == 0);
    feed_free(feed);
    free(memory);
    return took;
}

static int bench_publish(const recording_t *recording)
{
    pin(1);
    double with = publish_all(recording, true), without = publish_all(recording, false);
    printf("{\"events\": %llu, \"events_per_s\": %.0f, \"events_per_s_packets_alone\": %.0f}\n",
           (unsigned long long)recording->count, (double)recording->count / with, (double)recording->count / without);
    return 0;
}

typedef struct paced {
    const recording_t *recording;
    ring_t *market;
    uint64_t per_s;
    _Atomic int done;
} paced_t;

static void *produce(void *argument)
{
    paced_t *paced = argument;
    atomic_store(&thread_runs, true);
    uint64_t began = now_ns();
    for (uint64_t i = 0; i < paced->recording->count;) {
        uint64_t due = (now_ns() - began) * paced->per_s / 1000000000u;
        due = due < paced->recording->count ? due : paced->recording->count;
        for (; i < due; i++)
            append(paced->market, &paced->recording->slots[i]);
        ring_publish(paced->market, (int64_t)i);
    }
    atomic_store(&paced->done, 1);
    return NULL;
}

static int bench_paced(const recording_t *recording, uint64_t per_s)
{
    ring_t market;
    pthread_t thread;
    feed_position_t position = {0};
    int64_t behind_max = 0;
    void *memory = stream_ring(&market, sizeof(market_slot_t), PACED_SLOTS, 0);
    feed_t *feed = open_feed(&market, NULL, true, 2);
    paced_t paced = {recording, &market, per_s, 0};
    feed_start(feed);
    pin(1);
    uint64_t began = now_ns();
    thread = start_on(0, produce, &paced);
    while (position.sent <= recording->count || feed_counters(feed)->events < recording->count) {
        must_poll(feed); /* a feed that was overrun has no archive here and stops: that fails the bench */
        INVARIANT(feed_position(feed, 1, &position));
        int64_t behind = ring_published(&market) - (int64_t)position.sent + 1;
        behind_max = behind > behind_max ? behind : behind_max;
    }
    double took = (double)(now_ns() - began) / 1e9;
    pthread_join(thread, NULL);
    const feed_counters_t *counters = feed_counters(feed);
    /* All messages were sent, or the loop would still run: lost are the packets that the kernel did not take. */
    printf("{\"events\": %llu, \"asked_per_s\": %llu, \"events_per_s\": %.0f, \"lost\": %llu, \"laps\": %llu, "
           "\"behind_max\": %lld, \"events_per_packet\": %.2f, \"digests\": %llu}\n",
           (unsigned long long)recording->count, (unsigned long long)per_s, (double)recording->count / took,
           (unsigned long long)counters->send_failures, (unsigned long long)counters->laps,
           (long long)behind_max, (double)counters->messages * 2 / (double)counters->packets,
           (unsigned long long)counters->digests);
    feed_free(feed);
    free(memory);
    return 0;
}

/* ---- client ------------------------------------------------------------------------------------------------------ */

/* The recording as packets, one behind the other, each with its size in front. */
static uint8_t *make_packets(const recording_t *recording, size_t *size)
{
    uint8_t *packets = malloc(recording->count * 64 + 4096), *at = packets;
    INVARIANT(packets != NULL);
    for (uint64_t i = 0; i < recording->count;) {
        uint8_t *packet = at + sizeof(uint32_t);
        uint32_t used = BULLRING_MOLD_HEADER, count = 0;
        for (; i + count < recording->count; count++) {
            const market_slot_t *slot = &recording->slots[i + count];
            uint32_t length = MARKET_HEADER_SIZE + slot->block_length;
            if (used + 2 + length > 1472)
                break;
            bullring_put16(packet + used, (uint16_t)length);
            memcpy(packet + used + 2, &slot->block_length, length);
            used += 2 + length;
        }
        memcpy(packet, "BR001BENCH", BULLRING_SESSION);
        bullring_put64(packet + 10, i + 1);
        bullring_put16(packet + 18, (uint16_t)count);
        memcpy(at, &used, sizeof(used));
        at = packet + used;
        i += count;
    }
    *size = (size_t)(at - packets);
    return packets;
}

typedef struct client {
    bullring_books_t books;
    uint64_t sum, digests;
    bool build;
} client_t;

static void on_message(void *context, uint64_t number, const market_header_t *header, const void *block)
{
    client_t *client = context;
    if (!client->build) {
        client->sum += ((const order_add_t *)block)->order_id + number;
        return;
    }
    if (bullring_books_apply(&client->books, header, block) < 0) {
        fprintf(stderr, "feed_bench: message %llu does not fit\n", (unsigned long long)number);
        exit(1);
    }
    client->digests += header->template_id == TEMPLATE_BOOK_DIGEST;
}

static double decode(const uint8_t *packets, size_t size, client_t *client)
{
    static bullring_feed_t feed;
    INVARIANT(bullring_feed_init(&feed, 1, 1, on_message, client));
    uint64_t began = cpu_ns();
    for (const uint8_t *at = packets; at < packets + size;) {
        uint32_t length;
        memcpy(&length, at, sizeof(length));
        (void)bullring_feed_packet(&feed, at + sizeof(length), length, 0);
        at += sizeof(length) + length;
    }
    double took = (double)(cpu_ns() - began) / 1e9;
    bullring_feed_free(&feed);
    return took;
}

static int bench_client(const recording_t *recording)
{
    static client_t client;
    size_t size;
    uint8_t *packets = make_packets(recording, &size);
    pin(1);
    INVARIANT(bullring_books_init(&client.books, 1u << 20));
    double alone = decode(packets, size, &client);
    client.build = true;
    double books = decode(packets, size, &client);
    printf("{\"events\": %llu, \"events_per_s\": %.0f, \"decode_alone_per_s\": %.0f, \"digests\": %llu, \"orders_at_end\": %u}\n",
           (unsigned long long)recording->count, (double)recording->count / books, (double)recording->count / alone,
           (unsigned long long)client.digests, client.books.order_count);
    return 0;
}

/* ---- replay ------------------------------------------------------------------------------------------------------ */

typedef struct reader {
    uint16_t port;
    bool soup;
    uint64_t bytes_wanted, bytes, messages;
    _Atomic int done;
} reader_t;

/* Count what arrives, without looking at it: the same work for both. */
static void *read_all(void *argument)
{
    reader_t *reader = argument;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(reader->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint8_t *buffer = malloc(COPY_CHUNK);
    char login[64];
    pin(0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    INVARIANT(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    if (reader->soup) {
        login[0] = 0, login[1] = 47, login[2] = 'L';
        (void)snprintf(login + 3, sizeof(login) - 3, "%-6s%-10s%-10s%20d", "BENCH", "", "BR001", 1);
        INVARIANT(bare_send(fd, login, 49, 0) == 49);
    }
    while (reader->bytes < reader->bytes_wanted) {
        ssize_t got = recv(fd, buffer, COPY_CHUNK, 0);
        INVARIANT(got > 0);
        reader->bytes += (uint64_t)got;
    }
    close(fd);
    free(buffer);
    atomic_store(&reader->done, 1);
    return NULL;
}

/* The same bytes from a file to a socket. 0 = read() and send(), 1 = sendfile(). Seconds. */
static double copy_file(const char *path, bool by_sendfile)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(at);
    struct stat status;
    pthread_t thread;
    uint8_t *buffer = malloc(COPY_CHUNK);
    int size = (int)COPY_CHUNK, file = open(path, O_RDONLY), listener = socket(AF_INET, SOCK_STREAM, 0);
    INVARIANT(file >= 0 && fstat(file, &status) == 0);
    INVARIANT(bind(listener, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(listener, 1) == 0);
    INVARIANT(getsockname(listener, (struct sockaddr *)&at, &length) == 0);
    reader_t reader = {.port = ntohs(at.sin_port), .bytes_wanted = (uint64_t)status.st_size};
    INVARIANT(pthread_create(&thread, NULL, read_all, &reader) == 0);
    int fd = accept(listener, NULL, NULL);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* as the feed's connections have it */
    uint64_t began = now_ns();
    off_t done = 0;
    while (done < status.st_size) {
        if (by_sendfile) {
            INVARIANT(sendfile(fd, file, &done, COPY_CHUNK) > 0);
            continue;
        }
        ssize_t got = read(file, buffer, COPY_CHUNK);
        for (ssize_t sent = 0; sent < got;) {
            ssize_t more = bare_send(fd, buffer + sent, (size_t)(got - sent), MSG_NOSIGNAL);
            INVARIANT(more > 0);
            sent += more;
        }
        done += got;
    }
    pthread_join(thread, NULL);
    double took = (double)(now_ns() - began) / 1e9;
    close(fd);
    close(listener);
    close(file);
    free(buffer);
    return took;
}

static double replay(const char *folder, const recording_t *recording, uint64_t bytes)
{
    ring_t market;
    pthread_t thread;
    void *memory = stream_ring(&market, sizeof(market_slot_t), 1024, 0);
    for (uint64_t i = 0; i < recording->count; i++)
        append(&market, &recording->slots[i]);
    ring_publish(&market, (int64_t)recording->count);
    feed_t *feed = open_feed(&market, folder, false, 0);
    reader_t reader = {.port = (uint16_t)feed_listen_replay(feed, "127.0.0.1", 0), .soup = true, .bytes_wanted = bytes};
    feed_start(feed);
    INVARIANT(pthread_create(&thread, NULL, read_all, &reader) == 0);
    while (feed_counters(feed)->logins == 0)
        must_poll(feed);
    uint64_t began = now_ns();
    while (atomic_load_explicit(&reader.done, memory_order_relaxed) == 0)
        must_poll(feed);
    double took = (double)(now_ns() - began) / 1e9;
    pthread_join(thread, NULL);
    INVARIANT(feed_counters(feed)->messages_out == recording->count);
    feed_free(feed);
    free(memory);
    return took;
}

static int bench_replay(const recording_t *recording)
{
    char folder[] = "/tmp/feed-bench-XXXXXX", archive[64], framed[64];
    uint64_t bytes = 2 + 1 + 30;
    INVARIANT(mkdtemp(folder) != NULL);
    (void)snprintf(archive, sizeof(archive), "%s/1", folder);
    (void)snprintf(framed, sizeof(framed), "%s/framed", folder);
    FILE *slots = fopen(archive, "wb"), *frames = fopen(framed, "wb");
    INVARIANT(slots != NULL && frames != NULL);
    INVARIANT(fwrite(recording->slots, sizeof(market_slot_t), recording->count, slots) == recording->count);
    (void)fwrite("\0\37A", 1, 3, frames);
    (void)fwrite("BR001BENCH                   1", 1, 30, frames);
    for (uint64_t i = 0; i < recording->count; i++) {
        uint32_t length = MARKET_HEADER_SIZE + recording->slots[i].block_length;
        uint8_t head[3];
        bullring_put16(head, (uint16_t)(length + 1));
        head[2] = 'S';
        (void)fwrite(head, 1, sizeof(head), frames);
        (void)fwrite(&recording->slots[i].block_length, 1, length, frames);
        bytes += 3 + length;
    }
    fclose(slots);
    fclose(frames);
    pin(1);
    double served = replay(folder, recording, bytes), copied = copy_file(framed, false), sent = copy_file(framed, true);
    printf("{\"messages\": %llu, \"bytes\": %llu, \"replay_MB_per_s\": %.0f, \"copy_MB_per_s\": %.0f, \"sendfile_MB_per_s\": %.0f, "
           "\"messages_per_s\": %.0f}\n",
           (unsigned long long)recording->count, (unsigned long long)bytes, (double)bytes / served / 1e6,
           (double)bytes / copied / 1e6, (double)bytes / sent / 1e6, (double)recording->count / served);
    unlink(archive);
    unlink(framed);
    rmdir(folder);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "latency") == 0)
        return bench_latency(strtoull(argv[2], NULL, 10));
    if (argc == 3 && strcmp(argv[1], "references") == 0)
        return bench_references(strtoull(argv[2], NULL, 10));
    if (argc < 4) {
        fprintf(stderr, "usage: feed_bench latency|references EVENTS, publish|client|replay STREAM OPS, paced STREAM OPS RATE\n");
        return 2;
    }
    recording_t recording = record(argv[2], strtoull(argv[3], NULL, 10));
    if (strcmp(argv[1], "publish") == 0)
        return bench_publish(&recording);
    if (strcmp(argv[1], "paced") == 0 && argc == 5)
        return bench_paced(&recording, strtoull(argv[4], NULL, 10));
    if (strcmp(argv[1], "client") == 0)
        return bench_client(&recording);
    if (strcmp(argv[1], "replay") == 0)
        return bench_replay(&recording);
    fprintf(stderr, "feed_bench: no mode %s\n", argv[1]);
    return 2;
}
