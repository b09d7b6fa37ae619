/* Market data for C programs: MoldUDP64 arbitration and gaps, and a SoupBinTCP client. One header, no library, no thread.
 *
 * bullring_feed_t puts one channel's messages in order, whichever way they come: packets of lines A and B, answers to
 * re-requests, single messages of a replay. Each number is delivered once, in order, as soon as all before it are there.
 *
 *     bullring_feed_t feed;
 *     bullring_feed_init(&feed, 1, 0, on_message, context);      channel 1, from the first packet on
 *     bullring_feed_packet(&feed, bytes, size, now_ns);          every datagram, of both lines
 *     uint8_t request[BULLRING_MOLD_REQUEST];
 *     if (bullring_feed_request(&feed, now_ns, request)) sendto(re-request server, request)
 *     if (bullring_feed_lost(&feed, now_ns)) ...                 replay from feed.next over TCP, or a new snapshot
 *
 * bullring_market.h does all of that, snapshot and books included. */
#ifndef BULLRING_FEED_CLIENT_H
#define BULLRING_FEED_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "marketdata.h"

#define BULLRING_SESSION 10u
#define BULLRING_MOLD_HEADER 20u
#define BULLRING_MOLD_REQUEST 20u
#define BULLRING_MOLD_END 0xffffu
#define BULLRING_PACKET_MAX 2048u
#define BULLRING_HELD_MAX 1024u      /* packets kept while one before them is missing */
#define BULLRING_BLOCK_MAX 128u
#define BULLRING_PATIENCE_NS UINT64_C(500000)    /* the other line may bring what is missing */
#define BULLRING_RETRY_NS UINT64_C(20000000)
#define BULLRING_ASKED_MAX 10u

/* A message in order. `block` is 8-byte aligned and valid during the call. */
typedef void (*bullring_message_fn)(void *context, uint64_t number, const market_header_t *header, const void *block);

enum bullring_feed_status {
    BULLRING_FEED_OK = 0,
    BULLRING_FEED_FOREIGN = 1,   /* another session: of another channel, or history began anew */
    BULLRING_FEED_MALFORMED = -1,
};

typedef struct bullring_held {
    uint64_t first, end;         /* numbers first to end - 1 */
    uint32_t size;
    uint32_t place;              /* in `bytes` */
} bullring_held_t;

typedef struct bullring_feed {
    char session[BULLRING_SESSION + 1]; /* known from the first packet on; before, only its first five characters */
    uint64_t next;               /* number of the next message; 0 = whatever comes first */
    uint64_t end;                /* one above the largest number heard of */
    bool paused;                 /* hold everything: `next` is not known yet */
    bool ended;                  /* the session is over */
    uint64_t gap_ns, asked_ns;   /* since when `next` is missing, when it was asked for */
    uint32_t asked;              /* in vain */
    bullring_message_fn on_message;
    void *context;
    uint32_t held_count;         /* sorted by first number */
    bullring_held_t held[BULLRING_HELD_MAX];
    uint32_t free_count;
    uint32_t free_place[BULLRING_HELD_MAX];
    uint8_t *bytes;
    uint64_t packets, messages, duplicates, gaps, dropped, requests;
} bullring_feed_t;

static inline uint16_t bullring_get16(const uint8_t *from)
{
    return (uint16_t)(from[0] << 8 | from[1]);
}

static inline uint64_t bullring_get64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof(value));
    return __builtin_bswap64(value);
}

static inline void bullring_put16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static inline void bullring_put64(uint8_t *to, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(to, &value, sizeof(value));
}

/* ---- arbitration ------------------------------------------------------------------------------------------------- */

/* Know nothing any more, of whatever generation it was. */
static inline void bullring_feed_reset(bullring_feed_t *feed, unsigned channel)
{
    snprintf(feed->session, sizeof(feed->session), "BR%03u", channel % 1000u);
    feed->end = 0;
    feed->ended = false;
    feed->gap_ns = feed->asked_ns = 0;
    feed->asked = 0;
    feed->held_count = 0;
    feed->free_count = 0;
    while (feed->free_count < BULLRING_HELD_MAX) {
        feed->free_place[feed->free_count] = feed->free_count;
        feed->free_count++;
    }
}

/* `next` = number of the first message wanted, 0 = from the first packet on; false = no memory. */
static inline bool bullring_feed_init(bullring_feed_t *feed, unsigned channel, uint64_t next, bullring_message_fn on_message,
                                      void *context)
{
    memset(feed, 0, sizeof(*feed));
    bullring_feed_reset(feed, channel);
    feed->next = next;
    feed->on_message = on_message;
    feed->context = context;
    feed->bytes = (uint8_t *)malloc((size_t)BULLRING_HELD_MAX * BULLRING_PACKET_MAX);
    return feed->bytes != NULL;
}

static inline void bullring_feed_free(bullring_feed_t *feed)
{
    free(feed->bytes);
    feed->bytes = NULL;
}

/* One message: SBE header and block, copied to where its fields are aligned. */
static inline void bullring_deliver(bullring_feed_t *feed, const uint8_t *message, uint32_t size)
{
    uint8_t block[BULLRING_BLOCK_MAX] __attribute__((aligned(8)));
    market_header_t header;
    uint64_t number = feed->next++;
    if (size < sizeof(header))
        return;
    memcpy(&header, message, sizeof(header));
    uint32_t length = size - (uint32_t)sizeof(header);
    if (header.schema_id != MARKETDATA_SCHEMA_ID || header.block_length > length)
        return; /* nothing this version knows */
    length = length < sizeof(block) ? length : (uint32_t)sizeof(block);
    memcpy(block, message + sizeof(header), length);
    header.block_length = (uint16_t)(header.block_length < length ? header.block_length : length);
    feed->messages++;
    feed->on_message(feed->context, number, &header, block);
}

/* Are all `count` messages whole? */
static inline bool bullring_packet_whole(const uint8_t *packet, uint32_t size, uint32_t count)
{
    uint32_t at = BULLRING_MOLD_HEADER;
    for (uint32_t i = 0; i < count; i++) {
        if (size - at < 2)
            return false;
        uint32_t length = bullring_get16(packet + at);
        if (size - at - 2 < length)
            return false;
        at += 2 + length;
    }
    return true;
}

/* Messages of a packet from `next` on; its first number is not above that. */
static inline void bullring_unpack(bullring_feed_t *feed, const uint8_t *packet, uint64_t first, uint32_t count)
{
    uint32_t at = BULLRING_MOLD_HEADER;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = bullring_get16(packet + at);
        if (first + i == feed->next)
            bullring_deliver(feed, packet + at + 2, length);
        at += 2 + length;
    }
}

static inline void bullring_hold(bullring_feed_t *feed, const uint8_t *packet, uint32_t size, uint64_t first, uint64_t end)
{
    uint32_t place = feed->held_count;
    while (place > 0 && feed->held[place - 1].first > first)
        place--;
    if (place > 0 && feed->held[place - 1].first == first && feed->held[place - 1].end >= end) {
        feed->duplicates++;
        return;
    }
    if (feed->free_count == 0 || size > BULLRING_PACKET_MAX) {
        feed->dropped++; /* it will be asked for */
        return;
    }
    memmove(feed->held + place + 1, feed->held + place, (feed->held_count - place) * sizeof(feed->held[0]));
    bullring_held_t *held = &feed->held[place];
    *held = (bullring_held_t){first, end, size, feed->free_place[--feed->free_count]};
    memcpy(feed->bytes + (size_t)held->place * BULLRING_PACKET_MAX, packet, size);
    feed->held_count++;
}

/* Deliver what is held and has become due. */
static inline void bullring_release(bullring_feed_t *feed)
{
    uint32_t done = 0;
    for (; done < feed->held_count && feed->held[done].first <= feed->next && !feed->paused; done++) {
        const bullring_held_t held = feed->held[done];
        const uint8_t *packet = feed->bytes + (size_t)held.place * BULLRING_PACKET_MAX;
        if (held.end > feed->next)
            bullring_unpack(feed, packet, held.first, (uint32_t)(held.end - held.first));
        feed->free_place[feed->free_count++] = held.place;
    }
    feed->held_count -= done;
    memmove(feed->held, feed->held + done, feed->held_count * sizeof(feed->held[0]));
}

/* Note progress, and whether something is missing now. */
static inline void bullring_settle(bullring_feed_t *feed, uint64_t before, uint64_t now_ns)
{
    bool gap = feed->next != 0 && feed->next < feed->end && !feed->paused;
    if (feed->next != before)
        feed->asked = 0;
    if (!gap)
        feed->gap_ns = 0;
    else if (feed->gap_ns == 0 || feed->next != before) {
        feed->gaps += feed->gap_ns == 0;
        feed->gap_ns = now_ns;
        feed->asked_ns = 0;
    }
}

static inline bool bullring_own_session(bullring_feed_t *feed, const uint8_t *session)
{
    size_t known = strlen(feed->session);
    if (memcmp(feed->session, session, known) != 0)
        return false;
    memcpy(feed->session, session, BULLRING_SESSION);
    return true;
}

/* One datagram of any line, or an answer to a re-request. Returns a bullring_feed_status. */
static inline int bullring_feed_packet(bullring_feed_t *feed, const uint8_t *packet, uint32_t size, uint64_t now_ns)
{
    if (size < BULLRING_MOLD_HEADER)
        return BULLRING_FEED_MALFORMED;
    uint64_t first = bullring_get64(packet + 10), before = feed->next;
    uint32_t count = bullring_get16(packet + 18);
    if (!bullring_own_session(feed, packet))
        return BULLRING_FEED_FOREIGN;
    feed->ended |= count == BULLRING_MOLD_END;
    count = count == BULLRING_MOLD_END ? 0 : count;
    if (!bullring_packet_whole(packet, size, count))
        return BULLRING_FEED_MALFORMED;
    feed->packets++;
    feed->end = first + count > feed->end ? first + count : feed->end;
    if (feed->next == 0 && !feed->paused)
        feed->next = before = first;
    if (feed->paused || first > feed->next) {
        if (count > 0)
            bullring_hold(feed, packet, size, first, first + count);
    } else if (first + count > feed->next) {
        bullring_unpack(feed, packet, first, count);
        bullring_release(feed);
    } else {
        feed->duplicates += count > 0;
    }
    bullring_settle(feed, before, now_ns);
    return BULLRING_FEED_OK;
}

/* One message of a replay, with its number. */
static inline void bullring_feed_message(bullring_feed_t *feed, uint64_t number, const uint8_t *message, uint32_t size,
                                         uint64_t now_ns)
{
    uint64_t before = feed->next;
    feed->end = number + 1 > feed->end ? number + 1 : feed->end;
    if (feed->next == 0)
        feed->next = before = number;
    if (number == feed->next && !feed->paused) {
        bullring_deliver(feed, message, size);
        bullring_release(feed);
    }
    bullring_settle(feed, before, now_ns);
}

/* Go on from `next`: a snapshot has been read, or nothing before is wanted. */
static inline void bullring_feed_resume(bullring_feed_t *feed, uint64_t next, uint64_t now_ns)
{
    feed->next = next;
    feed->paused = false;
    bullring_release(feed);
    bullring_settle(feed, 0, now_ns);
}

/* Is it time to ask for what is missing? Then `request` is what to send. */
static inline bool bullring_feed_request(bullring_feed_t *feed, uint64_t now_ns, uint8_t request[BULLRING_MOLD_REQUEST])
{
    if (feed->gap_ns == 0 || now_ns - feed->gap_ns < BULLRING_PATIENCE_NS || feed->asked >= BULLRING_ASKED_MAX ||
        (feed->asked_ns != 0 && now_ns - feed->asked_ns < BULLRING_RETRY_NS))
        return false;
    uint64_t end = feed->held_count > 0 ? feed->held[0].first : feed->end;
    uint64_t count = end - feed->next < 0xfffe ? end - feed->next : 0xfffe;
    memcpy(request, feed->session, BULLRING_SESSION);
    bullring_put64(request + 10, feed->next);
    bullring_put16(request + 18, (uint16_t)count);
    feed->asked_ns = now_ns;
    feed->asked++;
    feed->requests++;
    return true;
}

/* Asking has not helped: replay over TCP. */
static inline bool bullring_feed_lost(const bullring_feed_t *feed, uint64_t now_ns)
{
    return feed->gap_ns != 0 && feed->asked >= BULLRING_ASKED_MAX && now_ns - feed->asked_ns >= BULLRING_RETRY_NS;
}

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

/* A non-blocking UDP socket on a numeric IPv4 address: ours, or a multicast group to join on `interface` (NULL = any). */
static inline int bullring_udp_open(const char *address, uint16_t port, const char *interface)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, size = 8 << 20;
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1)
        return -EINVAL;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    bool group = IN_MULTICAST(ntohl(at.sin_addr.s_addr));
    int status = group ? setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) : 0;
    status = status != 0 ? status : bind(fd, (const struct sockaddr *)&at, sizeof(at));
    if (status == 0 && group) {
        struct ip_mreq join = {.imr_multiaddr = at.sin_addr};
        if (interface != NULL && inet_pton(AF_INET, interface, &join.imr_interface) != 1)
            errno = EINVAL, status = -1;
        else
            status = setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof(join));
    }
    if (status != 0) {
        status = -errno;
        close(fd);
        return status;
    }
    return fd;
}

/* ---- SoupBinTCP -------------------------------------------------------------------------------------------------- */

#define BULLRING_SOUP_INPUT (1u << 18)
#define BULLRING_SOUP_HEARTBEAT_NS UINT64_C(1000000000)
#define BULLRING_SOUP_SILENCE_NS UINT64_C(15000000000)

enum bullring_soup_state { BULLRING_SOUP_CLOSED, BULLRING_SOUP_CONNECTING, BULLRING_SOUP_LOGIN, BULLRING_SOUP_OPEN };

typedef struct bullring_soup {
    int fd;
    enum bullring_soup_state state;
    char refused;                /* 'A' not entitled, 'S' no such session or number, 0 = not refused */
    bool ended;                  /* the server said that the session is over */
    char session[BULLRING_SESSION + 1];
    uint64_t next;               /* number of the next sequenced message */
    char user[7], password[11];
    uint64_t sent_ns, received_ns;
    uint32_t in_length;
    uint8_t *in;
} bullring_soup_t;

/* A sequenced message; `number` counts as the login was answered. */
typedef void (*bullring_data_fn)(void *context, uint64_t number, const uint8_t *message, uint32_t size);

static inline bool bullring_soup_init(bullring_soup_t *soup, const char *user, const char *password)
{
    memset(soup, 0, sizeof(*soup));
    soup->fd = -1;
    snprintf(soup->user, sizeof(soup->user), "%-6.6s", user);
    snprintf(soup->password, sizeof(soup->password), "%-10.10s", password);
    soup->in = (uint8_t *)malloc(BULLRING_SOUP_INPUT);
    return soup->in != NULL;
}

static inline void bullring_soup_close(bullring_soup_t *soup)
{
    if (soup->fd >= 0)
        close(soup->fd);
    soup->fd = -1;
    soup->state = BULLRING_SOUP_CLOSED;
}

static inline void bullring_soup_free(bullring_soup_t *soup)
{
    bullring_soup_close(soup);
    free(soup->in);
    soup->in = NULL;
}

/* Start connecting; the login goes out as soon as the connection stands. `session` may be "", or five characters. False = no
 * such address. */
static inline bool bullring_soup_connect(bullring_soup_t *soup, const char *address, uint16_t port, const char *session,
                                         uint64_t number, uint64_t now_ns)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;
    bullring_soup_close(soup);
    soup->refused = 0;
    soup->ended = false;
    soup->in_length = 0;
    soup->next = number;
    snprintf(soup->session, sizeof(soup->session), "%-10.10s", session);
    soup->sent_ns = soup->received_ns = now_ns;
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
        return false;
    soup->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (soup->fd < 0)
        return false;
    setsockopt(soup->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(soup->fd, (const struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) {
        bullring_soup_close(soup);
        return false;
    }
    soup->state = BULLRING_SOUP_CONNECTING;
    return true;
}

/* Small packets of a client always fit the socket; if not, the connection is as good as gone. */
static inline bool bullring_soup_send(bullring_soup_t *soup, char type, const void *payload, uint32_t size, uint64_t now_ns)
{
    uint8_t packet[256];
    if (size > sizeof(packet) - 3)
        return false;
    bullring_put16(packet, (uint16_t)(size + 1));
    packet[2] = (uint8_t)type;
    if (size > 0)
        memcpy(packet + 3, payload, size);
    if (send(soup->fd, packet, size + 3, MSG_NOSIGNAL) != (ssize_t)size + 3) {
        bullring_soup_close(soup);
        return false;
    }
    soup->sent_ns = now_ns;
    return true;
}

static inline void bullring_soup_log_in(bullring_soup_t *soup, uint64_t now_ns)
{
    char login[64];
    struct pollfd ready = {.fd = soup->fd, .events = POLLOUT};
    int error = 0;
    socklen_t length = sizeof(error);
    if (poll(&ready, 1, 0) <= 0)
        return;
    if (getsockopt(soup->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) {
        bullring_soup_close(soup);
        return;
    }
    int size = snprintf(login, sizeof(login), "%-6.6s%-10.10s%-10.10s%20llu", soup->user, soup->password, soup->session,
                        (unsigned long long)soup->next);
    if (bullring_soup_send(soup, 'L', login, (uint32_t)size, now_ns))
        soup->state = BULLRING_SOUP_LOGIN;
}

static inline void bullring_soup_accepted(bullring_soup_t *soup, const uint8_t *payload, uint32_t size)
{
    uint64_t number = 0;
    if (size < 30 || soup->state != BULLRING_SOUP_LOGIN) {
        bullring_soup_close(soup);
        return;
    }
    memcpy(soup->session, payload, BULLRING_SESSION);
    for (uint32_t i = BULLRING_SESSION; i < 30; i++)
        if (payload[i] >= '0' && payload[i] <= '9')
            number = number * 10 + (uint64_t)(payload[i] - '0');
    soup->next = number;
    soup->state = BULLRING_SOUP_OPEN;
}

static inline void bullring_soup_take(bullring_soup_t *soup, const uint8_t *packet, uint32_t size, bullring_data_fn on_data,
                                      void *context)
{
    switch (packet[2]) {
    case 'S':
        on_data(context, soup->next++, packet + 3, size - 3);
        break;
    case 'A':
        bullring_soup_accepted(soup, packet + 3, size - 3);
        break;
    case 'J':
        soup->refused = size > 3 ? (char)packet[3] : 'A';
        bullring_soup_close(soup);
        break;
    case 'Z':
        soup->ended = true;
        break;
    default: /* heartbeats, debug */
        break;
    }
}

/* Read what has come, keep the connection alive. Returns bytes read, -1 once it is closed. `on_data` may close it. */
static inline int64_t bullring_soup_poll(bullring_soup_t *soup, uint64_t now_ns, bullring_data_fn on_data, void *context)
{
    if (soup->state == BULLRING_SOUP_CLOSED)
        return -1;
    if (soup->state == BULLRING_SOUP_CONNECTING) {
        bullring_soup_log_in(soup, now_ns);
        return 0;
    }
    if (now_ns - soup->sent_ns >= BULLRING_SOUP_HEARTBEAT_NS && !bullring_soup_send(soup, 'R', NULL, 0, now_ns))
        return -1;
    ssize_t got = recv(soup->fd, soup->in + soup->in_length, BULLRING_SOUP_INPUT - soup->in_length, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR) ||
        (got < 0 && now_ns - soup->received_ns > BULLRING_SOUP_SILENCE_NS)) {
        bullring_soup_close(soup);
        return -1;
    }
    if (got < 0)
        return 0;
    soup->received_ns = now_ns;
    soup->in_length += (uint32_t)got;
    uint32_t at = 0;
    while (soup->state != BULLRING_SOUP_CLOSED && soup->in_length - at >= 3) {
        uint32_t size = bullring_get16(soup->in + at) + 2u;
        if (size < 3) {
            bullring_soup_close(soup);
            return -1;
        }
        if (soup->in_length - at < size)
            break;
        bullring_soup_take(soup, soup->in + at, size, on_data, context);
        at += size;
    }
    soup->in_length -= at;
    memmove(soup->in, soup->in + at, soup->in_length);
    return got;
}

#endif
