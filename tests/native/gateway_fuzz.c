/* Fuzz of the whole order-entry server: clients that log on, send valid, broken and half frames, read slowly or not at all and
 * vanish; behind it an exchange that answers at random and is sometimes asleep. Sockets are real, rings are private memory.
 *
 * Checked: what reaches the ingress ring is what the sequencer may trust, groups are whole; what reaches a client is a stream of
 * valid frames whose live numbers only grow; at the end every connection's place is free again.
 *
 * gateway_fuzz [SEED [TURNS]] */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gateway/binary/framing.h"
#include "gateway/binary/server.h"
#include "report_account.h"
#include "slots.h"

#define TURNS_DEFAULT 60000
#define TURNS_QUICK 10000
#define PROOFS_NS UINT64_C(10000000000)        /* what must be seen is waited for at most so long */
#define BURST 16                               /* requests of the flooder; it may send 8 in 20 ms */
#define BURST_EVERY_NS UINT64_C(4000000)
#define SOURCE 2
#define SESSIONS 6
#define DROP_COPY_SESSION SESSIONS
#define FLOODER_SESSION 2 /* of client 0 alone, who does nothing wrong but too much */
#define FLOODER_KEY "FLOODER" /* never revoked, not an administrator's */
#define ACCOUNT 7
#define RINGS 3
#define CLIENTS 8
#define TERMINATE_CODES 32
#define INGRESS_SLOTS 32
#define REPORT_SLOTS 256

typedef struct client {
    int fd;
    uint8_t received[65536];
    size_t received_length;
    uint32_t session; /* it last asked for */
    bool deaf;        /* does not read for a while */
    uint64_t last[RINGS]; /* newest live number of each partition on this connection */
} client_t;

static struct {
    server_t *server;
    ring_t ingress, log, reports[RINGS], reply;
    client_t clients[CLIENTS];
    uint64_t numbers[SESSIONS + 1][RINGS];
    uint64_t last_report[SESSIONS + 1][RINGS];
    uint64_t account_numbers[RINGS];
    uint64_t in_seq, random, frames_seen, logons, version;
    int64_t cursor;
    uint64_t burst_due_ns;
    uint64_t terminated[TERMINATE_CODES]; /* clients told so, by code */
    bool asleep, announced;
    bool calm; /* nobody is lapped or asleep: a connection may live long */
} fuzz;

static uint64_t random_below(uint64_t bound)
{
    fuzz.random ^= fuzz.random << 13;
    fuzz.random ^= fuzz.random >> 7;
    fuzz.random ^= fuzz.random << 17;
    return fuzz.random % bound;
}

static uint64_t wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- the exchange ------------------------------------------------------------------------------------------------ */

static void make_ring(ring_t *ring, uint64_t slots, bool gated)
{
    void *memory = aligned_alloc(CACHE_LINE, RING_HEADER_SIZE + slots * 128);
    INVARIANT(memory != NULL);
    memset(memory, 0, RING_HEADER_SIZE + slots * 128);
    ring_format(memory, 128, slots, 0, RING_MODE_PLAIN, 0);
    if (gated)
        atomic_store(&((ring_header_t *)memory)->consumers[0].gating, 1);
    ring_attach(ring, memory, NULL);
}

static void put_report(ring_t *ring, uint32_t partition, uint32_t session, uint16_t template_id, bool numbered,
                       const void *block)
{
    int64_t index = ring_claim(ring, 1);
    report_slot_t *slot = ring_slot(ring, index);

    INVARIANT(index >= 0);
    memset(slot, 0, sizeof(*slot));
    slot->session = session;
    slot->template_id = template_id;
    slot->partition = (uint8_t)partition;
    slot->in_seq = fuzz.in_seq;
    if (numbered) {
        uint64_t last = fuzz.last_report[session][partition];
        slot->seq_num = (uint32_t)++fuzz.numbers[session][partition];
        slot->distance = last == 0 ? 0 : (uint32_t)((uint64_t)index + 1 - last);
        fuzz.last_report[session][partition] = (uint64_t)index + 1;
    }
    if (block != NULL)
        memcpy(slot->block, block, orders_block_length(template_id));
    if (template_id == TEMPLATE_SESSION_BOUND && session == DROP_COPY_SESSION)
        slot->flags = REPORT_FLAG_DROP_COPY;
    if (numbered && report_account(slot) == ACCOUNT)
        slot->account_seq = (uint32_t)++fuzz.account_numbers[partition];
    ring_publish(ring, ring->claimed);
}

static void answer_key(const log_slot_t *slot)
{
    const key_query_t *query = (const key_query_t *)slot->block;
    bool flooder = memcmp(query->access_key_id, FLOODER_KEY, sizeof(FLOODER_KEY)) == 0;
    uint16_t permissions = flooder ? PERMISSIONS_TRADE : (uint16_t)random_below(PERMISSIONS_MASK + 1);
    key_reply_t reply = {.request_id = query->request_id, .account_id = ACCOUNT, .permissions = permissions};
    query_end_t end = {.request_id = query->request_id, .ref_template_id = TEMPLATE_KEY_QUERY};

    if (flooder || random_below(8) != 0)
        put_report(&fuzz.reply, 0, slot->session, TEMPLATE_KEY_REPLY, false, &reply);
    put_report(&fuzz.reply, 0, slot->session, TEMPLATE_QUERY_END, false, &end);
}

static void answer_negotiate(const log_slot_t *slot)
{
    const session_negotiate_t *request = (const session_negotiate_t *)slot->block;
    session_negotiated_t answer = {.session_ver_id = request->session_ver_id,
                                   .request_timestamp = request->timestamp,
                                   .session_id = request->session_id,
                                   .connection_id = request->connection_id,
                                   .code = random_below(8) == 0 ? NEGOTIATE_REJECT_CODE_DUPLICATE_ID
                                                                : NEGOTIATE_REJECT_CODE_NONE};
    INVARIANT(request->session_id > 1 && request->session_id <= SESSIONS);
    put_report(&fuzz.reports[0], 0, request->session_id, TEMPLATE_SESSION_NEGOTIATED, false, &answer);
    if (answer.code != NEGOTIATE_REJECT_CODE_NONE)
        return;
    memset(fuzz.numbers[request->session_id], 0, sizeof(fuzz.numbers[0]));
    memset(fuzz.last_report[request->session_id], 0, sizeof(fuzz.last_report[0]));
}

static void answer_bind(const log_slot_t *slot)
{
    const session_bind_t *request = (const session_bind_t *)slot->block;
    bool accepted = random_below(8) != 0;
    uint32_t first = (uint32_t)random_below(RINGS);

    INVARIANT(request->session_id > 1 && request->session_id <= SESSIONS);
    for (uint32_t i = 0; i < (accepted ? RINGS : 1); i++) {
        uint32_t partition = accepted ? (first + i) % RINGS : 0;
        session_bound_t answer = {.session_ver_id = request->session_ver_id,
                                  .next_seq_no = request->session_id == DROP_COPY_SESSION
                                                     ? fuzz.account_numbers[partition] + 1
                                                     : fuzz.numbers[request->session_id][partition] + 1,
                                  .last_report_seq = fuzz.last_report[request->session_id][partition],
                                  .request_timestamp = request->timestamp,
                                  .session_id = request->session_id,
                                  .connection_id = request->connection_id,
                                  .code = accepted ? ESTABLISH_REJECT_CODE_NONE : ESTABLISH_REJECT_CODE_UNNEGOTIATED,
                                  .partition = (uint8_t)partition};
        put_report(&fuzz.reports[partition], partition, request->session_id, TEMPLATE_SESSION_BOUND, false, &answer);
    }
    fuzz.logons += accepted;
}

static void check_request(const log_slot_t *slot)
{
    enum frame_kind kind = framing_kind(slot->template_id);

    if (slot->template_id == TEMPLATE_SESSION_DOWN && slot->session == 0) {
        INVARIANT(!fuzz.announced); /* the server's first word, and only that */
        fuzz.announced = true;
        return;
    }
    INVARIANT(slot->session > 1 && slot->session <= SESSIONS);
    INVARIANT(slot->session != DROP_COPY_SESSION || slot->seq_num == 0);
    if (slot->template_id == TEMPLATE_SEQUENCE || slot->template_id == TEMPLATE_SESSION_DOWN) {
        INVARIANT(slot->seq_num == 0);
        return;
    }
    if (kind == FRAME_QUERY) {
        INVARIANT(slot->seq_num == 0);
        INVARIANT(orders_validate(slot->template_id, slot->block) == REJECT_CODE_NONE);
        return;
    }
    INVARIANT(slot->seq_num > 0);
    if ((slot->flags & SLOT_FLAG_REJECT) != 0) {
        INVARIANT(slot->aux != REJECT_CODE_NONE);
        INVARIANT(kind == FRAME_REQUEST || kind == FRAME_ADMIN || kind == FRAME_UNKNOWN);
        return;
    }
    INVARIANT(kind == FRAME_REQUEST || kind == FRAME_ADMIN);
    INVARIANT(orders_validate(slot->template_id, slot->block) == REJECT_CODE_NONE);
}

static void take(const log_slot_t *slot)
{
    fuzz.in_seq++;
    INVARIANT(slot->source == SOURCE);
    if (slot->template_id == TEMPLATE_KEY_QUERY)
        answer_key(slot);
    else if (slot->template_id == TEMPLATE_SESSION_NEGOTIATE)
        answer_negotiate(slot);
    else if (slot->template_id == TEMPLATE_SESSION_BIND)
        answer_bind(slot);
    else
        check_request(slot);
    if (slot->seq_num != 0 && random_below(2) == 0)
        put_report(&fuzz.reports[1], 1, slot->session, TEMPLATE_ORDER_ACCEPTED, true, NULL);
}

static void exchange_step(void)
{
    int64_t published = ring_published(&fuzz.ingress);

    if (published > fuzz.cursor) { /* a group never ends outside what is published */
        const log_slot_t *last = ring_slot(&fuzz.ingress, published - 1);
        INVARIANT((last->flags & SLOT_FLAG_MORE) == 0);
    }
    for (; fuzz.cursor < published; fuzz.cursor++) {
        log_slot_t slot = *(const log_slot_t *)ring_slot(&fuzz.ingress, fuzz.cursor);
        take(&slot);
        ring_advance(&fuzz.ingress, 0, fuzz.cursor + 1);
    }
}

static void random_reports(void)
{
    static const uint16_t templates[] = {202, 203, 205, 212, 219, 215, 999};
    uint64_t count = !fuzz.calm && random_below(64) == 0 ? random_below(5 * REPORT_SLOTS) : random_below(4);

    fuzz.in_seq++;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t partition = (uint32_t)random_below(RINGS), session = (uint32_t)random_below(SESSIONS) + 1;
        const order_executed_t executed = {.account_id = ACCOUNT + (uint32_t)random_below(2)};
        const admin_ack_t revoked = {.ref_template_id = TEMPLATE_KEY_REVOKE};
        if (random_below(2) == 0)
            put_report(&fuzz.reports[partition], partition, session, TEMPLATE_ORDER_EXECUTED, true, &executed);
        else if (random_below(8) == 0)
            put_report(&fuzz.reports[0], 0, 1, TEMPLATE_ADMIN_ACK, true, &revoked);
        else
            put_report(&fuzz.reports[partition], partition, session, templates[random_below(7)], random_below(4) != 0, NULL);
    }
}

static void check_signatures(void)
{
    server_event_t event;

    while (server_next_event(fuzz.server, &event)) {
        server_answer_t answer = {.connection_id = event.connection_id, .accepted = random_below(8) != 0, .code = 4};
        INVARIANT(event.template_id == TEMPLATE_NEGOTIATE || event.template_id == TEMPLATE_ESTABLISH);
        INVARIANT(event.frame_length == 176);
        INVARIANT(server_answer(fuzz.server, &answer) == 1);
    }
}

/* ---- clients ----------------------------------------------------------------------------------------------------- */

static void client_close(client_t *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
}

static void client_open(client_t *client)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server_port(fuzz.server))};

    int small = 2048; /* so that a deaf client is soon a slow one */

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(client->last, 0, sizeof(client->last));
    client->received_length = 0;
    client->deaf = false;
    client->session = 0;
    client->fd = socket(AF_INET, SOCK_STREAM, 0);
    INVARIANT(client->fd >= 0);
    setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    INVARIANT(connect(client->fd, (struct sockaddr *)&address, sizeof(address)) == 0);
}

static size_t put_frame(uint8_t *target, uint16_t template_id, uint16_t flags, uint64_t seq_num, const void *block)
{
    uint16_t length = orders_block_length(template_id) == 0 ? 16 : orders_block_length(template_id);
    frame_header_t header = {.message_length = FRAME_HEADER_SIZE + length,
                             .encoding_type = SOFH_ENCODING_TYPE,
                             .block_length = length,
                             .template_id = template_id,
                             .schema_id = ORDERS_SCHEMA_ID,
                             .version = ORDERS_SCHEMA_VERSION,
                             .flags = flags,
                             .seq_num = seq_num};
    memcpy(target, &header, sizeof(header));
    memcpy(target + FRAME_HEADER_SIZE, block, length);
    return FRAME_HEADER_SIZE + length;
}

static size_t logon_frames(client_t *client, uint32_t session, uint8_t *target)
{
    client->session = session;
    negotiate_t negotiate = {.session_id = session, .session_ver_id = ++fuzz.version, .timestamp = wall_ns()};
    establish_t establish = {.session_id = session,
                             .keep_alive_interval_ms = 1000,
                             .session_ver_id = fuzz.version,
                             .timestamp = wall_ns() + 1,
                             .next_seq_no = 1,
                             .recover_from_seq_no = random_below(3)};
    if (session == FLOODER_SESSION) {
        memcpy(negotiate.access_key_id, FLOODER_KEY, sizeof(FLOODER_KEY));
        memcpy(establish.access_key_id, FLOODER_KEY, sizeof(FLOODER_KEY));
    }
    size_t size = put_frame(target, TEMPLATE_NEGOTIATE, 0, 0, &negotiate);
    return size + put_frame(target + size, TEMPLATE_ESTABLISH, 0, 0, &establish);
}

static size_t request_frame(const client_t *client, uint8_t *target)
{
    static const uint16_t templates[] = {100, 100, 100, 101, 102, 103, 105, 106, 107, 9, 12, 12, 400, 401, 402, 406, 330, 321, 777, 7};
    uint16_t template_id = templates[random_below(random_below(8) == 0 ? 20 : 19)];
    _Alignas(8) uint8_t block[FRAME_LENGTH_MAX] = {0};
    uint16_t flags = random_below(6) == 0 && template_id < 200 && template_id >= 100 ? FRAME_FLAG_MORE : 0;

    if (template_id == TEMPLATE_NEW_ORDER_SINGLE) {
        new_order_single_t order = {.price = 5, .order_qty = 1, .instrument_id = 1, .side = (uint8_t)(1 + random_below(3)),
                                    .ord_type = 2, .time_in_force = 1};
        memcpy(block, &order, sizeof(order));
    } else if (template_id == TEMPLATE_RETRANSMIT_REQUEST) {
        retransmit_request_t request = {.session_id = random_below(8) == 0 ? 2 : client->session,
                                        .count = (uint32_t)random_below(310),
                                        .from_seq_no = random_below(100)};
        memcpy(block, &request, sizeof(request));
        flags = (uint16_t)(random_below(RINGS + 1) << FRAME_FLAG_PARTITION_SHIFT);
    } else if (template_id == TEMPLATE_SEQUENCE) {
        sequence_message_t sequence = {.next_seq_no = random_below(2000)};
        memcpy(block, &sequence, sizeof(sequence));
    }
    bool unnumbered = template_id < 100 || (template_id >= 400 && template_id < 500);
    return put_frame(target, template_id, flags, unnumbered ? 0 : 1 + random_below(2000), block);
}

static void client_write(client_t *client)
{
    uint8_t stream[4096];
    uint32_t session = FLOODER_SESSION + 1 + (uint32_t)random_below(SESSIONS - FLOODER_SESSION);
    size_t size = random_below(client->session == 0 ? 2 : 60) == 0 ? logon_frames(client, session, stream) : 0;

    if (size == 0 && client->session == 0 && random_below(8) != 0)
        return;

    for (uint64_t n = random_below(8); n > 0; n--)
        size += request_frame(client, stream + size);
    if (size == 0)
        return;
    if (random_below(48) == 0)
        stream[random_below(size)] ^= (uint8_t)(1u << random_below(8));
    if (random_below(48) == 0)
        size = 1 + random_below(size); /* the rest never comes, or the next frame stands in its place */
    (void)!send(client->fd, stream, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void check_frame(client_t *client, const frame_header_t *header, const uint8_t *block)
{
    uint32_t partition = header->flags >> FRAME_FLAG_PARTITION_SHIFT;

    fuzz.frames_seen++;
    INVARIANT(header->encoding_type == SOFH_ENCODING_TYPE);
    INVARIANT(header->schema_id == ORDERS_SCHEMA_ID);
    INVARIANT(header->block_length == orders_block_length(header->template_id));
    INVARIANT(header->message_length == FRAME_HEADER_SIZE + (uint32_t)header->block_length);
    INVARIANT(partition < RINGS || header->template_id == TEMPLATE_RETRANSMIT_REJECT); /* which repeats what was asked */
    if (header->template_id == TEMPLATE_ESTABLISH_ACK)
        memset(client->last, 0, sizeof(client->last));
    if (header->template_id == TEMPLATE_TERMINATE) {
        uint8_t code = block[offsetof(terminate_t, code)];
        INVARIANT(code < TERMINATE_CODES);
        fuzz.terminated[code]++;
    }
    if (header->seq_num == 0 || (header->flags & FRAME_FLAG_POSS_RETRANS) != 0)
        return;
    INVARIANT(partition < RINGS);
    INVARIANT(header->seq_num > client->last[partition]);
    client->last[partition] = header->seq_num;
}

static void client_read(client_t *client)
{
    ssize_t got = recv(client->fd, client->received + client->received_length,
                       sizeof(client->received) - client->received_length, MSG_DONTWAIT);
    size_t at = 0;

    if (got == 0) {
        INVARIANT(client->received_length == 0); /* the server ends between two frames */
        client_close(client);
        return;
    }
    if (got < 0)
        return;
    client->received_length += (size_t)got;
    while (client->received_length - at >= FRAME_HEADER_SIZE) {
        frame_header_t header;
        memcpy(&header, client->received + at, sizeof(header));
        if (client->received_length - at < header.message_length)
            break;
        check_frame(client, &header, client->received + at + FRAME_HEADER_SIZE);
        at += header.message_length;
    }
    client->received_length -= at;
    memmove(client->received, client->received + at, client->received_length);
}

/* Whole and valid requests, far more than it may: refused, then not read, in the end cut off. */
static void flooder_step(client_t *client)
{
    uint8_t stream[4096];
    size_t size = 0;

    if (client->fd < 0) {
        client_open(client);
        return;
    }
    client_read(client);
    if (client->fd < 0 || wall_ns() < fuzz.burst_due_ns)
        return;
    if (client->session == 0)
        size = logon_frames(client, FLOODER_SESSION, stream);
    const new_order_single_t order = {.price = 5, .order_qty = 1, .instrument_id = 1, .side = SIDE_BUY, .ord_type = 2,
                                      .time_in_force = 1};
    for (int i = 0; i < BURST; i++)
        size += put_frame(stream + size, TEMPLATE_NEW_ORDER_SINGLE, 0, 1 + random_below(2000), &order);
    if (send(client->fd, stream, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
        client_close(client); /* half a frame: the next one would not be whole */
    fuzz.burst_due_ns = wall_ns() + BURST_EVERY_NS;
}

static void client_step(client_t *client)
{
    if (client->fd < 0) {
        if (random_below(4) == 0)
            client_open(client);
        return;
    }
    switch (random_below(8)) {
    case 0:
    case 1:
    case 2:
        client_write(client);
        break;
    case 3:
        if (random_below(100) == 0)
            client_close(client);
        break;
    default:
        if (random_below(1000) == 0)
            client->deaf = !client->deaf;
        if (!client->deaf)
            client_read(client);
        break;
    }
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static void start(void)
{
    ring_t *reports[RINGS];
    server_config_t config = {.source = SOURCE,
                              .report_rings = RINGS,
                              .connections_max = CLIENTS,
                              .sessions_max = SESSIONS,
                              .input_size = 4096,
                              .output_size = 8192,
                              .keep_alive_min_ms = 250,
                              .keep_alive_max_ms = 60000,
                              .logon_deadline_ms = 500,
                              .timestamp_window_ms = 5000,
                              .throttle_count = 8,
                              .account_throttle_count = 12,
                              .throttle_interval_ms = 20,
                              .retransmit_max = 300,
                              .retransmit_jobs = 2};
    make_ring(&fuzz.ingress, INGRESS_SLOTS, true);
    make_ring(&fuzz.log, 64, true);
    make_ring(&fuzz.reply, 1024, false);
    for (int i = 0; i < RINGS; i++) {
        make_ring(&fuzz.reports[i], REPORT_SLOTS, false);
        reports[i] = &fuzz.reports[i];
    }
    fuzz.server = server_new(&config);
    INVARIANT(fuzz.server != NULL);
    server_attach(fuzz.server, &fuzz.ingress, &fuzz.log, reports, &fuzz.reply);
    INVARIANT(server_listen_tcp(fuzz.server, "127.0.0.1", 0) == 0);
    for (int i = 0; i < CLIENTS; i++)
        fuzz.clients[i].fd = -1;
}

static void turn(void)
{
    client_t *client = &fuzz.clients[random_below(CLIENTS)];

    if (client == &fuzz.clients[0])
        flooder_step(client);
    else
        client_step(client);
    INVARIANT(server_poll(fuzz.server, 64) >= 0);
    if (random_below(500) == 0)
        fuzz.asleep = !fuzz.asleep && !fuzz.calm;
    if (!fuzz.asleep && random_below(4) != 0)
        exchange_step();
    if (random_below(8) == 0)
        random_reports();
    if (random_below(2) == 0)
        check_signatures();
}

/* That a flood and a revoked key have ended connections whose clients were told why. */
static bool proven(void)
{
    const server_counters_t *counters = server_counters(fuzz.server);

    return counters->floods > 0 && counters->keys_revoked > 0 && fuzz.terminated[TERMINATE_CODE_FLOOD] > 0 &&
           fuzz.terminated[TERMINATE_CODE_CREDENTIALS_REVOKED] > 0;
}

/* Everybody leaves; then as many as there is room for must be able to come again. */
static void check_places_are_free(void)
{
    const server_counters_t *counters = server_counters(fuzz.server);

    for (int i = 0; i < CLIENTS; i++)
        client_close(&fuzz.clients[i]);
    /* A place whose logon hangs is freed by its deadline, so this takes real time. */
    for (uint64_t end = wall_ns() + UINT64_C(10000000000); counters->open > 0 && wall_ns() < end;) {
        server_poll(fuzz.server, 64);
        exchange_step();
        check_signatures();
    }
    INVARIANT(counters->open == 0);
    uint64_t accepted = counters->accepted, refused = counters->refused;
    for (int i = 0; i < CLIENTS; i++) {
        client_open(&fuzz.clients[i]);
        server_poll(fuzz.server, 64);
        exchange_step();
    }
    for (int i = 0; i < 1000 && counters->accepted < accepted + CLIENTS; i++)
        server_poll(fuzz.server, 64);
    INVARIANT(counters->accepted == accepted + CLIENTS);
    INVARIANT(counters->refused == refused);
}

static void stop(void)
{
    for (int i = 0; i < CLIENTS; i++)
        client_close(&fuzz.clients[i]);
    server_free(fuzz.server);
    free(fuzz.ingress.header);
    free(fuzz.log.header);
    free(fuzz.reply.header);
    for (int i = 0; i < RINGS; i++)
        free(fuzz.reports[i].header);
}

int main(int count, char **arguments)
{
    uint64_t seed = count > 1 ? strtoull(arguments[1], NULL, 0) : UINT64_C(20261123);
    long turns = count > 2 ? atol(arguments[2]) : getenv("BULLRING_QUICK") != NULL ? TURNS_QUICK : TURNS_DEFAULT;

    printf("seed %llu, %ld turns\n", (unsigned long long)seed, turns);
    fuzz.random = seed == 0 ? 1 : seed;
    start();
    for (long i = 0; i < turns; i++)
        turn();
    const server_counters_t *counters = server_counters(fuzz.server);
    /* A flood takes real time, and a connection that lives that long. */
    fuzz.calm = true;
    for (uint64_t end = wall_ns() + PROOFS_NS; !proven() && wall_ns() < end;)
        turn();
    printf("%llu revoked, %llu floods, %llu connections, %llu logons, %llu requests, %llu rejected, %llu malformed, %llu frames out, %llu slow, %llu full, "
           "%llu superseded, %llu retransmissions, %llu refused, %llu laps\n",
           (unsigned long long)counters->keys_revoked, (unsigned long long)counters->floods,
           (unsigned long long)counters->accepted, (unsigned long long)counters->logons,
           (unsigned long long)counters->requests, (unsigned long long)counters->rejected,
           (unsigned long long)counters->malformed, (unsigned long long)counters->frames_out,
           (unsigned long long)counters->slow_consumers, (unsigned long long)counters->ingress_full,
           (unsigned long long)counters->superseded, (unsigned long long)counters->retransmissions,
           (unsigned long long)counters->retransmit_rejects, (unsigned long long)counters->laps);
    INVARIANT(counters->logons > 0);
    INVARIANT(counters->requests > 0);
    INVARIANT(counters->malformed > 0);
    INVARIANT(fuzz.frames_seen > 0);
    INVARIANT(fuzz.announced);
    INVARIANT(proven());
    INVARIANT(fuzz.terminated[TERMINATE_CODE_FLOOD] <= counters->floods);
    INVARIANT(fuzz.terminated[TERMINATE_CODE_CREDENTIALS_REVOKED] <= counters->keys_revoked);
    check_places_are_free();
    stop();
    return 0;
}
