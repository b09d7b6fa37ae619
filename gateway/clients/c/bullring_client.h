/* Order entry for C programs: one header, no library, no thread, no allocation, never blocks after the logon.
 *
 * Needs the wire schema's generated headers (orders.h and wire_common.h) on the include path and Linux or another POSIX system.
 *
 *     bullring_client_t client;
 *     bullring_init(&client, session_id, on_frame, context);
 *     bullring_key_hmac(&client, "KEY-ID", secret);                  or bullring_key_callback() for Ed25519
 *     bullring_connect(&client, "127.0.0.1", 9100);
 *     bullring_log_on(&client, version, keep_alive_ms, timeout_ms);
 *     int64_t number = bullring_send(&client, TEMPLATE_NEW_ORDER_SINGLE, &order, sizeof(order));
 *     for (;;) { bullring_flush(&client); bullring_poll(&client); bullring_keep_alive(&client); }
 *
 * Requests are only put into the output buffer; bullring_flush() sends all of them with one call. bullring_poll() reads what
 * has come and calls `on_frame` for each frame but heartbeats and logon answers. Reports are numbered per partition
 * (flags bits 8..15): `expected[partition]` is the next number; a larger one means a gap to be asked for with
 * bullring_retransmit(). After a lost connection: bullring_resume() binds the session again at whichever address leads now; send
 * again with bullring_resend() what is above `last_incoming`; the exchange drops what it has already taken. */
#ifndef BULLRING_CLIENT_H
#define BULLRING_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bullring_sha256.h"
#include "orders.h"

#define BULLRING_BUFFER_SIZE 65536u
#define BULLRING_SIGNED_FROM 6u
#define BULLRING_PARTITIONS 256

enum bullring_status {
    BULLRING_OK = 0,
    BULLRING_CLOSED = -1,     /* the exchange closed the connection, or it was lost */
    BULLRING_REFUSED = -2,    /* logon rejected: `reject_code`; or terminated: `terminate_code` */
    BULLRING_FULL = -3,       /* output buffer full: flush and poll first */
    BULLRING_TIMEOUT = -4,
    BULLRING_PROTOCOL = -5,   /* the stream is no Bullring stream */
    BULLRING_ADDRESS = -6,
};

enum bullring_state { BULLRING_DISCONNECTED, BULLRING_CONNECTED, BULLRING_NEGOTIATED, BULLRING_ESTABLISHED };

/* A frame from the exchange. `block` is aligned and valid during the call. */
typedef void (*bullring_frame_fn)(void *context, const frame_header_t *header, const void *block);

/* Sign `size` bytes into `signature` (64 bytes, zeroed before). */
typedef void (*bullring_sign_fn)(void *context, const uint8_t *message, size_t size, uint8_t signature[64]);

typedef struct bullring_client {
    int fd;
    uint32_t session_id;
    uint64_t session_ver_id;
    enum bullring_state state;
    uint8_t reject_code, terminate_code;
    uint8_t credential_type;
    char access_key_id[32];
    uint8_t secret[32];
    bullring_sign_fn sign;
    void *sign_context;
    bullring_frame_fn on_frame;
    void *context;
    uint64_t next_seq;      /* number of our next request */
    uint64_t last_incoming; /* last request the exchange has, as of the logon */
    uint64_t last_stamp;
    uint64_t keep_alive_ns;
    uint64_t sent_ns, received_ns;
    uint64_t sending_ns; /* SendingTime of what is in the output */
    uint64_t expected[BULLRING_PARTITIONS];
    uint32_t in_length, out_length;
    _Alignas(8) uint8_t in[BULLRING_BUFFER_SIZE];
    _Alignas(8) uint8_t out[BULLRING_BUFFER_SIZE];
} bullring_client_t;

/* ---- set up ------------------------------------------------------------------------------------------------------ */

static inline uint64_t bullring_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline void bullring_init(bullring_client_t *client, uint32_t session_id, bullring_frame_fn on_frame, void *context)
{
    memset(client, 0, offsetof(bullring_client_t, in));
    client->fd = -1;
    client->session_id = session_id;
    client->on_frame = on_frame;
    client->context = context;
    client->next_seq = 1;
    for (int i = 0; i < BULLRING_PARTITIONS; i++)
        client->expected[i] = 1;
}

static inline void bullring_sign_hmac(void *context, const uint8_t *message, size_t size, uint8_t signature[64])
{
    bullring_hmac_sha256(((bullring_client_t *)context)->secret, message, size, signature);
}

/* The same kind of id for any credential type: at most 32 bytes. */
static inline void bullring_key_callback(bullring_client_t *client, const char *access_key_id, uint8_t credential_type,
                                         bullring_sign_fn sign, void *context)
{
    size_t length = strnlen(access_key_id, sizeof(client->access_key_id));

    memset(client->access_key_id, 0, sizeof(client->access_key_id));
    memcpy(client->access_key_id, access_key_id, length);
    client->credential_type = credential_type;
    client->sign = sign;
    client->sign_context = context;
}

static inline void bullring_key_hmac(bullring_client_t *client, const char *access_key_id, const uint8_t secret[32])
{
    memcpy(client->secret, secret, sizeof(client->secret));
    bullring_key_callback(client, access_key_id, CREDENTIAL_TYPE_HMAC_SHA256, bullring_sign_hmac, client);
}

static inline void bullring_disconnect(bullring_client_t *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client->state = BULLRING_DISCONNECTED;
}

/* Whether a connect that was begun has come through within the time; a dead host never answers. */
static inline bool bullring_connected(int fd, int timeout_ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof(error);

    return poll(&wait, 1, timeout_ms) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

/* Connect to a numeric IPv4 address; waits, at most `timeout_ms` (-1: as long as the system does). */
static inline int bullring_connect_within(bullring_client_t *client, const char *address, uint16_t port, int timeout_ms)
{
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;

    if (inet_pton(AF_INET, address, &target.sin_addr) != 1)
        return BULLRING_ADDRESS;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (client->fd < 0)
        return BULLRING_CLOSED;
    if (connect(client->fd, (struct sockaddr *)&target, sizeof(target)) != 0 &&
        (errno != EINPROGRESS || !bullring_connected(client->fd, timeout_ms))) {
        bullring_disconnect(client);
        return BULLRING_CLOSED;
    }
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    client->in_length = client->out_length = 0;
    client->state = BULLRING_CONNECTED;
    client->sent_ns = client->received_ns = bullring_clock(CLOCK_MONOTONIC);
    return BULLRING_OK;
}

static inline int bullring_connect(bullring_client_t *client, const char *address, uint16_t port)
{
    return bullring_connect_within(client, address, port, -1);
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static inline uint8_t *bullring_frame(bullring_client_t *client, uint16_t template_id, uint16_t flags, uint64_t seq_num,
                                      const void *block, uint16_t size)
{
    uint32_t length = FRAME_HEADER_SIZE + size;

    if (client->out_length + length > BULLRING_BUFFER_SIZE)
        return NULL;
    if (client->out_length == 0) /* what leaves together has one time: the clock costs as much as the rest of this */
        client->sending_ns = bullring_clock(CLOCK_REALTIME);
    uint8_t *frame = client->out + client->out_length;
    frame_header_write(frame, template_id, size, flags, seq_num, client->sending_ns);
    memcpy(frame + FRAME_HEADER_SIZE, block, size);
    client->out_length += length;
    return frame;
}

/* Put a numbered request into the output. Returns its number or BULLRING_FULL. */
static inline int64_t bullring_send(bullring_client_t *client, uint16_t template_id, const void *block, uint16_t size)
{
    if (bullring_frame(client, template_id, 0, client->next_seq, block, size) == NULL)
        return BULLRING_FULL;
    return (int64_t)client->next_seq++;
}

/* One request of several that are one command: an order behind its details, a cancel-replace, an order list. */
typedef struct bullring_request {
    uint16_t template_id;
    uint16_t size;
    const void *block;
} bullring_request_t;

/* Put 1 to 8 linked requests into the output, all or none. Returns the number of the first or BULLRING_FULL. */
static inline int64_t bullring_send_linked(bullring_client_t *client, const bullring_request_t *requests, int count)
{
    int64_t first = (int64_t)client->next_seq;
    size_t size = 0;

    for (int i = 0; i < count; i++)
        size += FRAME_HEADER_SIZE + requests[i].size;
    if (client->out_length + size > BULLRING_BUFFER_SIZE)
        return BULLRING_FULL;
    for (int i = 0; i < count; i++)
        bullring_frame(client, requests[i].template_id, i + 1 < count ? FRAME_FLAG_MORE : 0, client->next_seq++,
                       requests[i].block, requests[i].size);
    return first;
}

/* The same request again, after a reconnect: its old number, its old block. `more` as it was: linked with the next one. */
static inline int bullring_resend(bullring_client_t *client, uint16_t template_id, uint64_t seq_num, const void *block,
                                  uint16_t size, bool more)
{
    uint16_t flags = (uint16_t)(FRAME_FLAG_POSS_RESEND | (more ? FRAME_FLAG_MORE : 0));
    return bullring_frame(client, template_id, flags, seq_num, block, size) == NULL ? BULLRING_FULL : BULLRING_OK;
}

static inline int64_t bullring_send_new(bullring_client_t *client, const new_order_single_t *order)
{
    return bullring_send(client, TEMPLATE_NEW_ORDER_SINGLE, order, sizeof(*order));
}

static inline int64_t bullring_send_cancel(bullring_client_t *client, const order_cancel_request_t *request)
{
    return bullring_send(client, TEMPLATE_ORDER_CANCEL_REQUEST, request, sizeof(*request));
}

static inline int64_t bullring_send_replace(bullring_client_t *client, const order_replace_request_t *request)
{
    return bullring_send(client, TEMPLATE_ORDER_REPLACE_REQUEST, request, sizeof(*request));
}

static inline int64_t bullring_send_amend(bullring_client_t *client, const order_amend_request_t *request)
{
    return bullring_send(client, TEMPLATE_ORDER_AMEND_REQUEST, request, sizeof(*request));
}

static inline int64_t bullring_send_mass_cancel(bullring_client_t *client, const mass_cancel_request_t *request)
{
    return bullring_send(client, TEMPLATE_MASS_CANCEL_REQUEST, request, sizeof(*request));
}

static inline int64_t bullring_send_quote(bullring_client_t *client, const quote_t *quote)
{
    return bullring_send(client, TEMPLATE_QUOTE, quote, sizeof(*quote));
}

static inline int64_t bullring_send_status(bullring_client_t *client, const order_status_request_t *request)
{
    return bullring_send(client, TEMPLATE_ORDER_STATUS_REQUEST, request, sizeof(*request));
}

/* Cancel one order and place another as one command. Returns the number of the cancel; the order's is the next. */
static inline int64_t bullring_send_cancel_replace(bullring_client_t *client, const order_cancel_request_t *cancel,
                                                   const new_order_single_t *order)
{
    const bullring_request_t requests[] = {{TEMPLATE_ORDER_CANCEL_REQUEST, sizeof(*cancel), cancel},
                                           {TEMPLATE_NEW_ORDER_SINGLE, sizeof(*order), order}};
    return bullring_send_linked(client, requests, 2);
}

/* An order list of 2 (OCO: above, below; OTO: working, pending) or 3 legs (OTOCO: working, pending above, pending below). Sets the
 * legs' roles. Returns the number of the list's own frame; the legs' are the next ones. */
static inline int64_t bullring_send_list(bullring_client_t *client, uint8_t list_type, uint64_t list_cl_ord_id,
                                         new_order_single_t *legs, int count)
{
    static const uint8_t roles[][3] = {
        [LIST_TYPE_OCO] = {LIST_ROLE_OCO_ABOVE, LIST_ROLE_OCO_BELOW},
        [LIST_TYPE_OTO] = {LIST_ROLE_OTO_WORKING, LIST_ROLE_OTO_PENDING},
        [LIST_TYPE_OTOCO] = {LIST_ROLE_OTOCO_WORKING, LIST_ROLE_OTOCO_PENDING_ABOVE, LIST_ROLE_OTOCO_PENDING_BELOW}};
    order_list_request_t list = {.list_cl_ord_id = list_cl_ord_id,
                                 .instrument_id = legs[0].instrument_id,
                                 .account_id = legs[0].account_id,
                                 .list_type = list_type,
                                 .leg_count = (uint8_t)count};
    bullring_request_t requests[4] = {{TEMPLATE_ORDER_LIST_REQUEST, sizeof(list), &list}};

    for (int i = 0; i < count && i < 3; i++) {
        legs[i].list_role = roles[list_type][i];
        requests[i + 1] = (bullring_request_t){TEMPLATE_NEW_ORDER_SINGLE, sizeof(legs[i]), &legs[i]};
    }
    return bullring_send_linked(client, requests, count + 1);
}

/* A limit order that rests, all optional fields empty. */
static inline new_order_single_t bullring_limit_order(uint32_t instrument_id, uint8_t side, int64_t price_ticks,
                                                      int64_t quantity_lots)
{
    return (new_order_single_t){
        .price = price_ticks,
        .order_qty = quantity_lots,
        .display_qty = QTY_OPT_NULL,
        .stop_px = PX_OPT_NULL,
        .expire_time = TIME_SEC_OPT_NULL,
        .instrument_id = instrument_id,
        .side = side,
        .ord_type = ORD_TYPE_LIMIT,
        .time_in_force = TIME_IN_FORCE_GTC,
    };
}

static inline int bullring_retransmit(bullring_client_t *client, uint8_t partition, uint64_t from, uint32_t count)
{
    retransmit_request_t block = {.session_id = client->session_id,
                                  .count = count,
                                  .timestamp = bullring_clock(CLOCK_REALTIME),
                                  .from_seq_no = from};
    uint16_t flags = (uint16_t)(partition << FRAME_FLAG_PARTITION_SHIFT);
    return bullring_frame(client, TEMPLATE_RETRANSMIT_REQUEST, flags, 0, &block, sizeof(block)) == NULL ? BULLRING_FULL
                                                                                                       : BULLRING_OK;
}

/* Send what is in the output, as far as the socket takes it. */
static inline int bullring_flush(bullring_client_t *client)
{
    if (client->out_length == 0)
        return BULLRING_OK;
    ssize_t sent = send(client->fd, client->out, client->out_length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR ? BULLRING_OK : BULLRING_CLOSED;
    client->sent_ns = bullring_clock(CLOCK_MONOTONIC);
    client->out_length -= (uint32_t)sent;
    if (client->out_length > 0)
        memmove(client->out, client->out + sent, client->out_length);
    return BULLRING_OK;
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static inline int bullring_session_frame(bullring_client_t *client, const frame_header_t *header, const void *block)
{
    switch (header->template_id) {
    case TEMPLATE_NEGOTIATE_RESPONSE:
        client->state = BULLRING_NEGOTIATED;
        return 1;
    case TEMPLATE_ESTABLISH_ACK:
        client->state = BULLRING_ESTABLISHED;
        client->last_incoming = ((const establish_ack_t *)block)->last_incoming_seq_no;
        return 1;
    case TEMPLATE_NEGOTIATE_REJECT:
        client->reject_code = ((const negotiate_reject_t *)block)->code;
        return BULLRING_REFUSED;
    case TEMPLATE_ESTABLISH_REJECT:
        client->reject_code = ((const establish_reject_t *)block)->code;
        return BULLRING_REFUSED;
    case TEMPLATE_TERMINATE:
        client->terminate_code = ((const terminate_t *)block)->code;
        return BULLRING_REFUSED;
    case TEMPLATE_SEQUENCE:
        return 1;
    default:
        return 0;
    }
}

static inline int bullring_take(bullring_client_t *client, const frame_header_t *header, const void *block)
{
    uint8_t partition = (uint8_t)(header->flags >> FRAME_FLAG_PARTITION_SHIFT);
    int status = header->seq_num == 0 ? bullring_session_frame(client, header, block) : 0;

    if (status != 0)
        return status < 0 ? status : BULLRING_OK;
    if (header->seq_num >= client->expected[partition] && (header->flags & FRAME_FLAG_POSS_RETRANS) == 0) {
        client->on_frame(client->context, header, block); /* sees `expected` as it was: the gap, if there is one */
        client->expected[partition] = header->seq_num + 1;
        return BULLRING_OK;
    }
    client->on_frame(client->context, header, block);
    return BULLRING_OK;
}

/* Read once and hand over whole frames. Returns how many, or a bullring_status. */
static inline int bullring_poll(bullring_client_t *client)
{
    ssize_t got = recv(client->fd, client->in + client->in_length, BULLRING_BUFFER_SIZE - client->in_length, MSG_DONTWAIT);
    uint32_t at = 0;
    int frames = 0;

    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : BULLRING_CLOSED;
    if (got == 0)
        return BULLRING_CLOSED;
    client->in_length += (uint32_t)got;
    client->received_ns = bullring_clock(CLOCK_MONOTONIC);
    while (client->in_length - at >= FRAME_HEADER_SIZE) {
        frame_header_t header;
        memcpy(&header, client->in + at, sizeof(header));
        if (header.encoding_type != SOFH_ENCODING_TYPE || header.message_length > 256 || header.message_length % 8 != 0 ||
            header.message_length != FRAME_HEADER_SIZE + (uint32_t)header.block_length)
            return BULLRING_PROTOCOL;
        if (client->in_length - at < header.message_length)
            break;
        int status = bullring_take(client, &header, client->in + at + FRAME_HEADER_SIZE);
        if (status < 0)
            return status;
        at += header.message_length;
        frames++;
    }
    client->in_length -= at;
    memmove(client->in, client->in + at, client->in_length);
    return frames;
}

/* Send a heartbeat if one is due, see whether the exchange is still there. Call it now and then. */
static inline int bullring_keep_alive(bullring_client_t *client)
{
    uint64_t now = bullring_clock(CLOCK_MONOTONIC);

    if (client->state != BULLRING_ESTABLISHED)
        return BULLRING_OK;
    if (now - client->received_ns > 3 * client->keep_alive_ns)
        return BULLRING_TIMEOUT;
    if (now - client->sent_ns >= client->keep_alive_ns / 2) {
        sequence_message_t block = {.next_seq_no = client->next_seq};
        bullring_frame(client, TEMPLATE_SEQUENCE, 0, 0, &block, sizeof(block));
        return bullring_flush(client);
    }
    return BULLRING_OK;
}

/* ---- logon ------------------------------------------------------------------------------------------------------- */

static inline uint64_t bullring_stamp(bullring_client_t *client)
{
    uint64_t now = bullring_clock(CLOCK_REALTIME);

    client->last_stamp = now > client->last_stamp ? now : client->last_stamp + 1;
    return client->last_stamp;
}

static inline void bullring_sign(bullring_client_t *client, uint8_t *frame, size_t signature_offset)
{
    uint8_t *signature = frame + FRAME_HEADER_SIZE + signature_offset;

    memset(signature, 0, 64);
    client->sign(client->sign_context, frame + BULLRING_SIGNED_FROM,
                 FRAME_HEADER_SIZE + signature_offset - BULLRING_SIGNED_FROM, signature);
}

static inline int bullring_wait_for(bullring_client_t *client, enum bullring_state state, int timeout_ms)
{
    uint64_t deadline = bullring_clock(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000;

    while (client->state != state) {
        struct pollfd wait = {.fd = client->fd, .events = POLLIN};
        int status = bullring_flush(client);
        if (status == BULLRING_OK)
            status = bullring_poll(client);
        if (status < 0)
            return status;
        if (bullring_clock(CLOCK_MONOTONIC) > deadline)
            return BULLRING_TIMEOUT;
        if (status == 0)
            poll(&wait, 1, 10);
    }
    return BULLRING_OK;
}

/* Open a new version of the session: both flows begin at 1. Waits. */
static inline int bullring_negotiate(bullring_client_t *client, uint64_t session_ver_id, int timeout_ms)
{
    negotiate_t block = {.session_id = client->session_id,
                         .credential_type = client->credential_type,
                         .session_ver_id = session_ver_id,
                         .timestamp = bullring_stamp(client)};
    memcpy(block.access_key_id, client->access_key_id, sizeof(block.access_key_id));
    uint8_t *frame = bullring_frame(client, TEMPLATE_NEGOTIATE, 0, 0, &block, sizeof(block));
    if (frame == NULL)
        return BULLRING_FULL;
    bullring_sign(client, frame, offsetof(negotiate_t, signature));
    int status = bullring_wait_for(client, BULLRING_NEGOTIATED, timeout_ms);
    if (status != BULLRING_OK)
        return status;
    client->session_ver_id = session_ver_id;
    client->next_seq = 1;
    for (int i = 0; i < BULLRING_PARTITIONS; i++)
        client->expected[i] = 1;
    return BULLRING_OK;
}

/* Bind the session to this connection; then `last_incoming` says what to send again. Waits. */
static inline int bullring_establish(bullring_client_t *client, uint32_t keep_alive_ms, int timeout_ms)
{
    establish_t block = {.session_id = client->session_id,
                         .keep_alive_interval_ms = keep_alive_ms,
                         .session_ver_id = client->session_ver_id,
                         .timestamp = bullring_stamp(client),
                         .next_seq_no = client->next_seq,
                         .credential_type = client->credential_type};
    memcpy(block.access_key_id, client->access_key_id, sizeof(block.access_key_id));
    uint8_t *frame = bullring_frame(client, TEMPLATE_ESTABLISH, 0, 0, &block, sizeof(block));
    if (frame == NULL)
        return BULLRING_FULL;
    bullring_sign(client, frame, offsetof(establish_t, signature));
    client->keep_alive_ns = (uint64_t)keep_alive_ms * 1000000;
    return bullring_wait_for(client, BULLRING_ESTABLISHED, timeout_ms);
}

typedef struct bullring_address {
    const char *host; /* numeric */
    uint16_t port;
} bullring_address_t;

#define BULLRING_ATTEMPT_MS 250 /* one address: a host that has died or been stopped does not answer */
#define BULLRING_PAUSE_MS 50

/* After a lost connection: bind the session again, at whichever address leads now; try one after the other until the time is
 * over. Gives up at once when refused for good: BULLRING_REFUSED. Waits. */
static inline int bullring_resume(bullring_client_t *client, const bullring_address_t *addresses, int count,
                                  uint32_t keep_alive_ms, int timeout_ms)
{
    uint64_t deadline = bullring_clock(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000;

    for (int i = 0; bullring_clock(CLOCK_MONOTONIC) < deadline; i = (i + 1) % count) {
        bullring_disconnect(client);
        client->reject_code = 0;
        int status = bullring_connect_within(client, addresses[i].host, addresses[i].port, BULLRING_ATTEMPT_MS);
        if (status == BULLRING_OK)
            status = bullring_establish(client, keep_alive_ms, BULLRING_ATTEMPT_MS);
        if (status == BULLRING_OK || status == BULLRING_ADDRESS)
            return status;
        if (status == BULLRING_REFUSED && client->reject_code != ESTABLISH_REJECT_CODE_NOT_READY &&
            client->reject_code != ESTABLISH_REJECT_CODE_INVALID_TIMESTAMP)
            return status;
        if (i + 1 == count)
            poll(NULL, 0, BULLRING_PAUSE_MS);
    }
    return BULLRING_TIMEOUT;
}

static inline int bullring_log_on(bullring_client_t *client, uint64_t session_ver_id, uint32_t keep_alive_ms, int timeout_ms)
{
    int status = bullring_negotiate(client, session_ver_id, timeout_ms);
    return status == BULLRING_OK ? bullring_establish(client, keep_alive_ms, timeout_ms) : status;
}

#endif
