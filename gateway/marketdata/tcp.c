/* Sockets of the feed: listening, reading, writing, deadlines. What the bytes mean is in soup.c. A connection is a slab entry
 * with a fixed output buffer, filled from its place in the channel's history as fast as its reader takes it: who reads slowly is
 * behind, and holds nothing up. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "feed_internal.h"

#define EPOLL_REPLAY UINT64_MAX
#define EPOLL_SNAPSHOT (UINT64_MAX - 1)
#define EPOLL_REREQUEST (UINT64_MAX - 2)
#define EPOLL_EVENTS 64
#define TIMER_NS (20 * NS_PER_MS)
#define LINGER_NS NS_PER_S
#define ACCEPTS_A_STEP 16
#define BYTES_A_STEP (128u << 10)

bool tcp_allocate(feed_t *feed)
{
    uint32_t count = feed->config.connections_max;
    feed->connections = calloc(count, sizeof(soup_t));
    feed->free_list = calloc(count, sizeof(uint32_t));
    feed->open_list = calloc(count, sizeof(uint32_t));
    feed->buffers = malloc((size_t)count * feed->config.output_size);
    if (feed->connections == NULL || feed->free_list == NULL || feed->open_list == NULL || feed->buffers == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        feed->connections[i].fd = -1;
        feed->connections[i].out = feed->buffers + (size_t)i * feed->config.output_size;
        feed->free_list[count - 1 - i] = i;
    }
    feed->free_count = count;
    return true;
}

void tcp_free(feed_t *feed)
{
    for (uint32_t i = 0; feed->connections != NULL && i < feed->config.connections_max; i++)
        if (feed->connections[i].fd >= 0)
            close(feed->connections[i].fd);
    free(feed->connections);
    free(feed->free_list);
    free(feed->open_list);
    free(feed->buffers);
}

/* ---- listening --------------------------------------------------------------------------------------------------- */

static int listen_on(feed_t *feed, int *listen_fd, int type, uint64_t tag, const char *address, uint16_t port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_storage bound = {0};
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
    socklen_t length = sizeof(bound);
    bool is_four = inet_pton(AF_INET, address, &four.sin_addr) == 1;
    int on = 1;

    if (!is_four && inet_pton(AF_INET6, address, &six.sin6_addr) != 1)
        return -EINVAL;
    int fd = socket(is_four ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (type == SOCK_STREAM)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    const struct sockaddr *any = is_four ? (const struct sockaddr *)&four : (const struct sockaddr *)&six;
    if (bind(fd, any, is_four ? sizeof(four) : sizeof(six)) != 0 || (type == SOCK_STREAM && listen(fd, 256) != 0) ||
        getsockname(fd, (struct sockaddr *)&bound, &length) != 0 || epoll_ctl(feed->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    *listen_fd = fd;
    return ntohs(is_four ? ((struct sockaddr_in *)&bound)->sin_port : ((struct sockaddr_in6 *)&bound)->sin6_port);
}

int feed_listen_replay(feed_t *feed, const char *address, uint16_t port)
{
    return listen_on(feed, &feed->replay_fd, SOCK_STREAM, EPOLL_REPLAY, address, port);
}

int feed_listen_snapshot(feed_t *feed, const char *address, uint16_t port)
{
    return listen_on(feed, &feed->snapshot_fd, SOCK_STREAM, EPOLL_SNAPSHOT, address, port);
}

int feed_listen_rerequest(feed_t *feed, const char *address, uint16_t port)
{
    return listen_on(feed, &feed->rerequest_fd, SOCK_DGRAM, EPOLL_REREQUEST, address, port);
}

/* ---- life of a connection ---------------------------------------------------------------------------------------- */

static void peer_address(int fd, uint8_t address[LIMITER_ADDRESS_SIZE])
{
    struct sockaddr_storage peer = {0};
    socklen_t length = sizeof(peer);
    memset(address, 0, LIMITER_ADDRESS_SIZE);
    if (getpeername(fd, (struct sockaddr *)&peer, &length) != 0)
        return;
    if (peer.ss_family == AF_INET6) {
        memcpy(address, &((struct sockaddr_in6 *)&peer)->sin6_addr, LIMITER_ADDRESS_SIZE);
        return;
    }
    memset(address + 10, 0xff, 2);
    memcpy(address + 12, &((struct sockaddr_in *)&peer)->sin_addr, 4);
}

static void open_connection(feed_t *feed, int fd, bool snapshots)
{
    uint32_t index = feed->free_list[--feed->free_count];
    soup_t *soup = &feed->connections[index];
    uint8_t *out = soup->out;
    int on = 1;
    memset(soup, 0, sizeof(*soup));
    soup->out = out;
    soup->fd = fd;
    soup->state = SOUP_LOGIN;
    soup->snapshots = snapshots;
    /* Never one of the tags: the generation stays below 2^31. */
    soup->id = (feed->generation = (feed->generation + 1) & 0x7fffffffu);
    soup->accepted_ns = soup->received_ns = soup->sent_ns = soup->progress_ns = feed->now_ns;
    peer_address(fd, soup->address);
    /* What the kernel holds for a slow reader is bounded like what we hold. */
    int buffer_size = (int)feed->config.output_size;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_size, sizeof(buffer_size));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)soup->id << 32 | index};
    if (epoll_ctl(feed->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
        soup->fd = -1;
        soup->state = SOUP_FREE;
        feed->free_list[feed->free_count++] = index;
        return;
    }
    feed->open_list[feed->counters.open++] = index;
    feed->counters.accepted++;
}

static void accept_all(feed_t *feed, int listen_fd, bool snapshots)
{
    for (int i = 0; i < ACCEPTS_A_STEP; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (feed->free_count == 0) {
            close(fd);
            feed->counters.refused++;
            continue;
        }
        open_connection(feed, fd, snapshots);
    }
}

/* Close at once. The entry stays in the open list until the end of the step. */
void soup_close(feed_t *feed, soup_t *soup)
{
    if (soup->state == SOUP_FREE)
        return;
    if (soup->snapshot != NULL)
        snapshot_release(feed, soup->snapshot);
    soup->snapshot = NULL;
    close(soup->fd);
    soup->fd = -1;
    soup->state = SOUP_FREE;
    feed->counters.closed++;
}

static void sweep(feed_t *feed)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < feed->counters.open; i++) {
        uint32_t index = feed->open_list[i];
        if (feed->connections[index].state == SOUP_FREE)
            feed->free_list[feed->free_count++] = index;
        else
            feed->open_list[kept++] = index;
    }
    feed->counters.open = kept;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* Take whole packets out of the input. */
static void parse(feed_t *feed, soup_t *soup)
{
    uint32_t at = 0;
    while (soup->state != SOUP_FREE && soup->state != SOUP_CLOSING && soup->in_length - at >= sizeof(uint16_t)) {
        uint32_t length = get_be16(soup->in + at);
        if (length == 0 || length + 2 > SOUP_INPUT_SIZE) {
            feed->counters.malformed++;
            soup_close(feed, soup);
            return;
        }
        if (soup->in_length - at < length + 2)
            break;
        soup_packet(feed, soup, soup->in[at + 2], soup->in + at + SOUP_HEADER_SIZE, length - 1);
        at += length + 2;
    }
    soup->in_length -= at;
    memmove(soup->in, soup->in + at, soup->in_length);
}

static void read_connection(feed_t *feed, soup_t *soup)
{
    ssize_t got = recv(soup->fd, soup->in + soup->in_length, SOUP_INPUT_SIZE - soup->in_length, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        soup_close(feed, soup);
        return;
    }
    if (got < 0)
        return;
    soup->received_ns = feed->now_ns;
    if (soup->state == SOUP_CLOSING)
        return;
    soup->in_length += (uint32_t)got;
    parse(feed, soup);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void arm(feed_t *feed, soup_t *soup, bool on)
{
    struct epoll_event event = {.events = EPOLLIN | (on ? EPOLLOUT : 0u),
                                .data.u64 = (uint64_t)soup->id << 32 | (uint32_t)(soup - feed->connections)};
    if (soup->write_armed == on)
        return;
    soup->write_armed = on;
    if (epoll_ctl(feed->epoll_fd, EPOLL_CTL_MOD, soup->fd, &event) != 0)
        soup_close(feed, soup);
}

/* Returns how many bytes the socket took; fewer than wanted: it is full, or the connection is gone. */
static size_t send_some(feed_t *feed, soup_t *soup, const uint8_t *bytes, size_t size)
{
    ssize_t sent = send(soup->fd, bytes, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        soup_close(feed, soup);
        return 0;
    }
    if (sent > 0) {
        soup->sent_ns = soup->progress_ns = feed->now_ns;
        feed->counters.bytes_out += (uint64_t)sent;
    }
    if (sent < (ssize_t)size)
        arm(feed, soup, true);
    return sent > 0 ? (size_t)sent : 0;
}

static void flush(feed_t *feed, soup_t *soup)
{
    uint32_t size = soup->out_tail - soup->out_head;
    if (size > 0) {
        soup->out_head += (uint32_t)send_some(feed, soup, soup->out + soup->out_head, size);
        if (soup->out_head < soup->out_tail)
            return;
        soup->out_head = soup->out_tail = 0;
    }
    if (soup->state == SOUP_CLOSING) {
        shutdown(soup->fd, SHUT_WR);
        return;
    }
    if (soup->served && soup->state != SOUP_FREE) {
        const snapshot_t *snapshot = soup->snapshot;
        size = (uint32_t)(snapshot->size - soup->snapshot_offset < feed->config.output_size
                              ? snapshot->size - soup->snapshot_offset
                              : feed->config.output_size);
        soup->snapshot_offset += send_some(feed, soup, snapshot->bytes + soup->snapshot_offset, size);
    }
}

static int64_t write_connection(feed_t *feed, soup_t *soup)
{
    int64_t work = soup->out_head < soup->out_tail ? 1 : soup_fill(feed, soup);
    if (soup->state != SOUP_FREE && (soup->out_head < soup->out_tail || soup->served))
        flush(feed, soup);
    return work;
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

static void deadline(feed_t *feed, soup_t *soup)
{
    uint64_t silence_ns = feed->config.silence_timeout_ms * NS_PER_MS;
    if (soup->state == SOUP_LOGIN && feed->now_ns - soup->accepted_ns > feed->config.login_timeout_ms * NS_PER_MS) {
        feed->counters.silent++;
        soup_close(feed, soup);
    } else if (soup->state == SOUP_CLOSING && feed->now_ns - soup->sent_ns > LINGER_NS) {
        soup_close(feed, soup);
    } else if (feed->now_ns - soup->received_ns > silence_ns) {
        feed->counters.silent++;
        soup_close(feed, soup);
    } else if (soup->write_armed && feed->now_ns - soup->progress_ns > silence_ns) {
        feed->counters.stuck++;
        soup_close(feed, soup);
    }
}

static void events(feed_t *feed)
{
    struct epoll_event ready[EPOLL_EVENTS];
    int count = epoll_wait(feed->epoll_fd, ready, EPOLL_EVENTS, 0);
    for (int i = 0; i < count; i++) {
        uint64_t tag = ready[i].data.u64;
        if (tag == EPOLL_REPLAY || tag == EPOLL_SNAPSHOT) {
            accept_all(feed, tag == EPOLL_REPLAY ? feed->replay_fd : feed->snapshot_fd, tag == EPOLL_SNAPSHOT);
            continue;
        }
        if (tag == EPOLL_REREQUEST) {
            (void)rerequest_poll(feed);
            continue;
        }
        soup_t *soup = &feed->connections[(uint32_t)tag];
        if (soup->state == SOUP_FREE || soup->id != tag >> 32)
            continue;
        if ((ready[i].events & EPOLLOUT) != 0)
            arm(feed, soup, false);
        if ((ready[i].events & ~(uint32_t)EPOLLOUT) != 0 && soup->state != SOUP_FREE)
            read_connection(feed, soup);
    }
}

static void deadlines(feed_t *feed)
{
    if (feed->now_ns - feed->timer_ns < TIMER_NS)
        return;
    feed->timer_ns = feed->now_ns;
    for (uint32_t i = 0; i < feed->counters.open; i++) {
        soup_t *soup = &feed->connections[feed->open_list[i]];
        if (soup->state != SOUP_FREE)
            deadline(feed, soup);
    }
}

/* Each connection in turn, until enough is written: the packets must not wait for the replays of many. */
static int64_t write_connections(feed_t *feed)
{
    uint64_t written = feed->counters.bytes_out;
    uint32_t open = (uint32_t)feed->counters.open, first = feed->turn;
    int64_t work = 0;
    for (uint32_t i = 0; i < open && feed->counters.bytes_out - written < BYTES_A_STEP; i++) {
        soup_t *soup = &feed->connections[feed->open_list[(first + i) % open]];
        if (soup->state != SOUP_FREE && !soup->write_armed)
            work += write_connection(feed, soup);
        feed->turn = (first + i + 1) % open;
    }
    return work;
}

int64_t tcp_poll(feed_t *feed)
{
    events(feed);
    int64_t work = write_connections(feed);
    deadlines(feed);
    sweep(feed);
    return work;
}

void tcp_shutdown(feed_t *feed)
{
    int *listening[] = {&feed->replay_fd, &feed->snapshot_fd, &feed->rerequest_fd};
    for (size_t i = 0; i < sizeof(listening) / sizeof(listening[0]); i++) {
        if (*listening[i] >= 0)
            close(*listening[i]);
        *listening[i] = -1;
    }
    for (uint32_t i = 0; i < feed->counters.open; i++)
        soup_close(feed, &feed->connections[feed->open_list[i]]);
    sweep(feed);
}
