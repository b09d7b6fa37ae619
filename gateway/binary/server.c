#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* epoll user data: index of the connection in the low half, its id in the high half, or this. */
#define EPOLL_LISTEN UINT64_MAX

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Wall clock of this turn, read when first needed. */
uint64_t server_wall(server_t *server)
{
    if (server->wall_ns == 0) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        server->wall_ns = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    }
    return server->wall_ns;
}

/* ---- life of the server ------------------------------------------------------------------------------------------ */

/* A request takes at least a nanosecond of the interval. */
static bool throttle_valid(uint32_t count, uint32_t interval_ms)
{
    return count == 0 || (interval_ms > 0 && interval_ms <= 3600000 && 2 * (uint64_t)count <= interval_ms * UINT64_C(1000000));
}

static bool config_valid(const server_config_t *config)
{
    return config->connections_max > 0 && config->connections_max <= 65536 && config->sessions_max > 0 &&
           config->report_rings > 0 && config->report_rings <= SERVER_PARTITIONS_MAX &&
           config->input_size >= 2 * GROUP_SLOTS_MAX * SERVER_FRAME_MAX && config->output_size >= 4096 &&
           config->input_size % 64 == 0 && config->output_size % 64 == 0 && config->retransmit_max > 0 &&
           config->retransmit_jobs > 0 && config->keep_alive_min_ms <= config->keep_alive_max_ms &&
           throttle_valid(config->throttle_count, config->throttle_interval_ms) &&
           throttle_valid(config->account_throttle_count, config->throttle_interval_ms) &&
           (config->archive == NULL || strlen(config->archive) < sizeof(((server_t *)0)->archive));
}

static uint32_t power_of_two(uint32_t at_least)
{
    uint32_t size = 1;
    while (size < at_least)
        size *= 2;
    return size;
}

static bool server_allocate(server_t *server)
{
    const server_config_t *config = &server->config;
    size_t count = config->connections_max;
    size_t stride = (size_t)config->input_size + config->output_size;
    uint32_t queue = power_of_two(2 * config->connections_max);

    server->connections = calloc(count, sizeof(connection_t));
    server->account_buckets = calloc(count, sizeof(account_bucket_t));
    server->free_list = calloc(count, sizeof(uint32_t));
    server->drop_copies = calloc(count, sizeof(uint32_t));
    server->dirty = calloc(2 * count, sizeof(uint32_t));
    server->stalled = calloc(2 * count, sizeof(uint32_t));
    server->by_session = calloc((size_t)config->sessions_max + 1, sizeof(uint32_t));
    server->binding = calloc((size_t)config->sessions_max + 1, sizeof(uint32_t));
    server->bind_seq = calloc((size_t)config->sessions_max + 1, sizeof(uint64_t));
    server->buffers = aligned_alloc(64, count * stride);
    server->chains = calloc(count * config->report_rings, sizeof(report_chain_t));
    server->jobs = calloc(config->retransmit_jobs, sizeof(retransmit_job_t));
    server->positions = calloc((size_t)config->retransmit_jobs * config->retransmit_max, sizeof(int64_t));
    server->events.items = calloc(queue, sizeof(server_event_t));
    server->answers.items = calloc(queue, sizeof(server_answer_t));
    server->events.mask = server->answers.mask = queue - 1;
    if (!server->connections || !server->account_buckets || !server->free_list || !server->dirty || !server->stalled ||
        !server->by_session || !server->binding || !server->bind_seq || !server->buffers || !server->chains ||
        !server->jobs || !server->positions || !server->drop_copies || !server->events.items || !server->answers.items)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        connection_t *connection = &server->connections[i];
        connection->fd = -1;
        connection->in = server->buffers + i * stride;
        connection->out = connection->in + config->input_size;
        connection->chains = server->chains + (size_t)i * config->report_rings;
        server->free_list[count - 1 - i] = i;
    }
    server->free_count = (uint32_t)count;
    for (uint32_t i = 0; i < config->retransmit_jobs; i++)
        server->jobs[i].positions = server->positions + (size_t)i * config->retransmit_max;
    return true;
}

server_t *server_new(const server_config_t *config)
{
    if (!config_valid(config))
        return NULL;
    server_t *server = aligned_alloc(CACHE_LINE, (sizeof(server_t) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    if (server == NULL)
        return NULL;
    memset(server, 0, sizeof(*server));
    server->config = *config;
    server->config.archive = NULL;
    if (config->archive != NULL)
        strcpy(server->archive, config->archive);
    server->listen_fd = -1;
    for (int i = 0; i < SERVER_PARTITIONS_MAX; i++)
        server->reports[i].archive_fd = -1;
    server->reply.archive_fd = -1;
    for (uint32_t i = 0; i < sizeof(server->block_lengths); i++)
        server->block_lengths[i] = (uint8_t)orders_block_length((uint16_t)i);
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (server->epoll_fd < 0 || !server_allocate(server)) {
        server_free(server);
        return NULL;
    }
    return server;
}

void server_free(server_t *server)
{
    if (server == NULL)
        return;
    for (uint32_t i = 0; server->connections != NULL && i < server->config.connections_max; i++)
        if (server->connections[i].fd >= 0)
            close(server->connections[i].fd);
    for (int i = 0; i < SERVER_PARTITIONS_MAX; i++)
        if (server->reports[i].archive_fd >= 0)
            close(server->reports[i].archive_fd);
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    if (server->epoll_fd >= 0)
        close(server->epoll_fd);
    free(server->connections);
    free(server->account_buckets);
    free(server->free_list);
    free(server->drop_copies);
    free(server->dirty);
    free(server->stalled);
    free(server->by_session);
    free(server->binding);
    free(server->bind_seq);
    free(server->buffers);
    free(server->chains);
    free(server->jobs);
    free(server->positions);
    free(server->events.items);
    free(server->answers.items);
    free(server);
}

void server_attach(server_t *server, ring_t *ingress, ring_t *log, ring_t **reports, ring_t *reply)
{
    INVARIANT(ingress->slot_size == sizeof(log_slot_t));
    INVARIANT(reply->slot_size == sizeof(report_slot_t));
    server->ingress = ingress;
    server->ingress_published = ingress->claimed;
    server->log = log;
    for (uint32_t i = 0; i < server->config.report_rings; i++) {
        INVARIANT(reports[i]->slot_size == sizeof(report_slot_t));
        server->reports[i].ring = reports[i];
        server->reports[i].cursor = ring_published(reports[i]);
    }
    server->reply.ring = reply;
    server->reply.cursor = ring_published(reply);
}

/* ---- listening --------------------------------------------------------------------------------------------------- */

static int listen_on(server_t *server, int fd, const struct sockaddr *address, socklen_t length)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = EPOLL_LISTEN};

    if (bind(fd, address, length) != 0 || listen(fd, 1024) != 0 ||
        epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    server->listen_fd = fd;
    return 0;
}

int server_listen_tcp(server_t *server, const char *address, uint16_t port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    bool is_four = inet_pton(AF_INET, address, &four.sin_addr) == 1;
    int on = 1;

    if (!is_four && inet_pton(AF_INET6, address, &six.sin6_addr) != 1)
        return -EINVAL;
    int fd = socket(is_four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    const struct sockaddr *any = is_four ? (const struct sockaddr *)&four : (const struct sockaddr *)&six;
    int status = listen_on(server, fd, any, is_four ? sizeof(four) : sizeof(six));
    if (status != 0)
        return status;
    struct sockaddr_storage bound = {0};
    socklen_t length = sizeof(bound);
    getsockname(fd, (struct sockaddr *)&bound, &length);
    server->port = ntohs(is_four ? ((struct sockaddr_in *)&bound)->sin_port : ((struct sockaddr_in6 *)&bound)->sin6_port);
    server->listen_tcp = true;
    return 0;
}

int server_listen_unix(server_t *server, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* Before bind, so that the file never exists with another mode. */
    if (fchmod(fd, S_IRUSR | S_IWUSR) != 0 || (unlink(path) != 0 && errno != ENOENT)) {
        int error = errno;
        close(fd);
        return -error;
    }
    return listen_on(server, fd, (const struct sockaddr *)&address, sizeof(address));
}

int server_port(const server_t *server)
{
    return server->port;
}

int server_epoll_fd(const server_t *server)
{
    return server->epoll_fd;
}

const server_counters_t *server_counters(const server_t *server)
{
    return &server->counters;
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

void frame_write(const server_t *server, uint8_t *target, uint16_t template_id, uint16_t flags, uint64_t seq_num,
                 uint64_t sending_ns, const void *block)
{
    uint16_t length = server->block_lengths[template_id];
    frame_header_t header = {
        .message_length = FRAME_HEADER_SIZE + length,
        .encoding_type = SOFH_ENCODING_TYPE,
        .block_length = length,
        .template_id = template_id,
        .schema_id = ORDERS_SCHEMA_ID,
        .version = ORDERS_SCHEMA_VERSION,
        .flags = flags,
        .seq_num = seq_num,
        .sending_time = sending_ns,
    };
    memcpy(target, &header, sizeof(header));
    memcpy(target + FRAME_HEADER_SIZE, block, length);
}

/* It has output: flush it this turn. */
void connection_mark_dirty(server_t *server, connection_t *connection)
{
    if (connection->dirty)
        return;
    connection->dirty = true;
    server->dirty[server->dirty_count++] = connection_index(server, connection);
}

static void output_compact(connection_t *connection)
{
    if (connection->out_head == 0)
        return;
    memmove(connection->out, connection->out + connection->out_head, connection->out_tail - connection->out_head);
    connection->hole -= connection->out_head;
    connection->out_tail -= connection->out_head;
    connection->out_head = 0;
}

/* Room for one frame. NULL: the client reads too slowly and has just been disconnected. */
uint8_t *connection_reserve(server_t *server, connection_t *connection, uint32_t size)
{
    if (UNLIKELY(connection->out_tail + size > server->config.output_size - OUTPUT_RESERVE))
        output_compact(connection);
    if (UNLIKELY(connection->out_tail + size > server->config.output_size - OUTPUT_RESERVE)) {
        server->counters.slow_consumers++;
        connection_terminate(server, connection, TERMINATE_CODE_SLOW_CONSUMER, DOWN_CAUSE_SERVER_TERMINATE);
        return NULL;
    }
    uint8_t *target = connection->out + connection->out_tail;
    connection->out_tail += size;
    server->counters.frames_out++;
    connection_mark_dirty(server, connection);
    return target;
}

bool connection_send(server_t *server, connection_t *connection, uint16_t template_id, uint16_t flags, uint64_t seq_num,
                     const void *block)
{
    uint8_t *target = connection_reserve(server, connection, FRAME_HEADER_SIZE + server->block_lengths[template_id]);
    if (target == NULL)
        return false;
    frame_write(server, target, template_id, flags, seq_num, server_wall(server), block);
    return true;
}

static void connection_interest(server_t *server, connection_t *connection)
{
    struct epoll_event event = {
        .events = (connection->paused ? 0u : EPOLLIN) | (connection->write_armed ? EPOLLOUT : 0u),
        .data.u64 = connection->id,
    };
    int status = epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
    INVARIANT(status == 0);
}

/* The entry is free once the socket is closed and the sequencer knows of the end. */
static void connection_release(server_t *server, connection_t *connection)
{
    if (connection->fd >= 0) {
        close(connection->fd);
        connection->fd = -1;
        server->counters.closed++;
        server->counters.open--;
    }
    limits_leave(connection);
    if (connection->bound) {
        connection->state = CONNECTION_DOWN;
        connection_stall(server, connection);
        return;
    }
    connection->state = CONNECTION_FREE;
    server->free_list[server->free_count++] = connection_index(server, connection);
}

/* From now on the connection only sends what it holds. */
void connection_finish(server_t *server, connection_t *connection, uint8_t down_cause)
{
    if (!connection_alive(connection))
        return;
    if (connection->held) { /* what waits behind an EstablishAck that will not come */
        connection->held = false;
        connection->out_head = connection->out_tail = 0;
    }
    retransmit_forget(server, connection);
    drop_copy_remove(server, connection);
    if (connection->session != 0 && server->by_session[connection->session] == connection_index(server, connection) + 1)
        server->by_session[connection->session] = 0;
    connection->state = CONNECTION_CLOSING;
    connection->closing_ns = server->now_ns;
    connection->down_cause = down_cause;
    if (down_cause == DOWN_CAUSE_SUPERSEDED) /* the session is bound to somebody else: it is not down */
        connection->bound = false;
    if (connection->bound && !session_down_write(server, connection))
        connection_stall(server, connection);
    connection_mark_dirty(server, connection);
}

void connection_terminate(server_t *server, connection_t *connection, uint8_t code, uint8_t down_cause)
{
    terminate_t block = {.session_id = connection->session, .code = code, .session_ver_id = connection->session_ver_id};

    if (!connection_alive(connection))
        return;
    if (connection->held)
        connection->out_head = connection->out_tail = 0;
    connection->held = false;
    output_compact(connection);
    INVARIANT(connection->out_tail + FRAME_HEADER_SIZE + sizeof(block) <= server->config.output_size);
    frame_write(server, connection->out + connection->out_tail, TEMPLATE_TERMINATE, 0, 0, server_wall(server), &block);
    connection->out_tail += FRAME_HEADER_SIZE + sizeof(block);
    server->counters.frames_out++;
    connection_finish(server, connection, down_cause);
}

static void connection_lost(server_t *server, connection_t *connection)
{
    connection_finish(server, connection, DOWN_CAUSE_CLIENT_DISCONNECT);
    connection_release(server, connection);
}

static void connection_flush(server_t *server, connection_t *connection)
{
    if (connection->fd < 0 || connection->held)
        return;
    uint32_t waiting = connection->out_tail - connection->out_head;
    if (waiting > 0) {
        ssize_t sent = send(connection->fd, connection->out + connection->out_head, waiting, MSG_NOSIGNAL | MSG_DONTWAIT);
        server->counters.writes++;
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            connection_lost(server, connection);
            return;
        }
        if (sent > 0) {
            server->counters.bytes_out += (uint64_t)sent;
            connection->sent_ns = server->now_ns;
            connection->out_head += (uint32_t)sent;
            waiting -= (uint32_t)sent;
        }
    }
    if (waiting == 0)
        connection->out_head = connection->out_tail = 0;
    if ((waiting > 0) != connection->write_armed) {
        connection->write_armed = waiting > 0;
        connection_interest(server, connection);
    }
    /* Half closed, not closed: with unread input a close would send RST and could take our last frames with it. */
    if (waiting == 0 && connection->state == CONNECTION_CLOSING && !connection->half_closed) {
        connection->half_closed = true;
        shutdown(connection->fd, SHUT_WR);
    }
}

static void flush_dirty(server_t *server)
{
    uint32_t count = server->dirty_count;

    for (uint32_t i = 0; i < count; i++) {
        connection_t *connection = &server->connections[server->dirty[i]];
        connection->dirty = false;
        if (connection->state != CONNECTION_FREE)
            connection_flush(server, connection);
    }
    server->dirty_count -= count;
    memmove(server->dirty, server->dirty + count, server->dirty_count * sizeof(uint32_t));
}

/* ---- input ------------------------------------------------------------------------------------------------------- */

static void note_peer(connection_t *connection, const struct sockaddr_storage *peer)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    if (peer->ss_family == AF_INET6)
        memcpy(connection->peer, &((const struct sockaddr_in6 *)peer)->sin6_addr, sizeof(connection->peer));
    else if (peer->ss_family == AF_INET) {
        memcpy(connection->peer, mapped, sizeof(mapped));
        memcpy(connection->peer + sizeof(mapped), &((const struct sockaddr_in *)peer)->sin_addr, 4);
    }
}

static void connection_open(server_t *server, int fd, const struct sockaddr_storage *peer)
{
    connection_t *connection = &server->connections[server->free_list[--server->free_count]];
    uint32_t index = connection_index(server, connection);
    connection_t fresh = {.fd = fd, .in = connection->in, .out = connection->out, .chains = connection->chains};
    int on = 1;

    /* Its place in these lists outlives the previous owner of the entry. */
    fresh.dirty = connection->dirty;
    fresh.stalled = connection->stalled;
    if (++server->generation > UINT32_MAX / server->config.connections_max - 1)
        server->generation = 1;
    fresh.id = server->generation * server->config.connections_max + index;
    fresh.state = server->config.admin ? CONNECTION_ESTABLISHED : CONNECTION_OPEN;
    fresh.accepted_ns = fresh.received_ns = fresh.sent_ns = server->now_ns;
    if (server->config.admin) {
        fresh.session = SERVER_ADMIN_SESSION;
        fresh.permissions = PERMISSIONS_MASK;
        fresh.bound_mask = UINT64_MAX;
    }
    note_peer(&fresh, peer);
    *connection = fresh;
    memset(connection->chains, 0, server->config.report_rings * sizeof(report_chain_t));
    if (server->listen_tcp)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    int busy_poll_us = (int)server->config.busy_poll_us;
    if (busy_poll_us > 0) /* a wish: the kernel refuses it without the right, and then sleeps as ever */
        (void)setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL, &busy_poll_us, sizeof(busy_poll_us));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = fresh.id};
    int status = epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    INVARIANT(status == 0);
    server->counters.accepted++;
    server->counters.open++;
}

static void server_accept(server_t *server)
{
    for (int i = 0; i < EPOLL_EVENTS; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t size = sizeof(peer);
        int fd = accept4(server->listen_fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (server->free_count == 0 || server->stopping) {
            close(fd);
            server->counters.refused++;
            continue;
        }
        connection_open(server, fd, &peer);
    }
}

static void connection_read(server_t *server, connection_t *connection)
{
    bool discard = connection->state == CONNECTION_CLOSING;
    uint8_t *target = discard ? server->batch : connection->in + connection->in_length;
    size_t room = discard ? sizeof(server->batch) : server->config.input_size - connection->in_length;

    if (room == 0)
        return;
    ssize_t got = recv(connection->fd, target, room, MSG_DONTWAIT);
    server->counters.reads++;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        connection_lost(server, connection);
        return;
    }
    server->counters.bytes_in += (uint64_t)got;
    if (discard)
        return;
    connection->in_length += (uint32_t)got;
    connection_parse(server, connection);
}

/* Nothing more can be taken: without this a level-triggered epoll would report the socket in every turn. */
static void connection_pause(server_t *server, connection_t *connection)
{
    bool full = connection->state != CONNECTION_CLOSING &&
                (connection->in_length == server->config.input_size || connection->unread_until_ns != 0);
    if (connection->fd < 0 || full == connection->paused)
        return;
    connection->paused = full;
    connection_interest(server, connection);
}

void connection_stall(server_t *server, connection_t *connection)
{
    if (connection->stalled)
        return;
    connection->stalled = true;
    server->stalled[server->stalled_count++] = connection_index(server, connection);
}

/* Connections that waited for room in the ingress ring, or for the end of a step of their logon. */
static void retry_stalled(server_t *server)
{
    uint32_t count = server->stalled_count;

    for (uint32_t i = 0; i < count; i++) {
        connection_t *connection = &server->connections[server->stalled[i]];
        connection->stalled = false;
        if (connection->state == CONNECTION_FREE)
            continue;
        if (connection_alive(connection)) {
            connection_parse(server, connection);
            connection_pause(server, connection);
        } else if (connection->bound && !session_down_write(server, connection)) {
            connection_stall(server, connection);
        } else if (connection->state == CONNECTION_DOWN) {
            connection_release(server, connection);
        }
    }
    server->stalled_count -= count;
    memmove(server->stalled, server->stalled + count, server->stalled_count * sizeof(uint32_t));
}

static void socket_event(server_t *server, const struct epoll_event *event)
{
    connection_t *connection = server_connection(server, (uint32_t)event->data.u64);

    if (connection == NULL || connection->fd < 0)
        return;
    if (event->events & EPOLLOUT)
        connection_flush(server, connection);
    if (connection->fd >= 0 && (event->events & EPOLLIN))
        connection_read(server, connection);
    else if (connection->fd >= 0 && (event->events & (EPOLLHUP | EPOLLERR)))
        connection_lost(server, connection);
    connection_pause(server, connection);
}

static int64_t sockets_poll(server_t *server)
{
    struct epoll_event events[EPOLL_EVENTS];
    int count = epoll_wait(server->epoll_fd, events, EPOLL_EVENTS, 0);

    for (int i = 0; i < count; i++) {
        if (events[i].data.u64 == EPOLL_LISTEN)
            server_accept(server);
        else
            socket_event(server, &events[i]);
    }
    return count > 0 ? count : 0;
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

static void keep_alive(server_t *server, connection_t *connection)
{
    if (server->config.admin)
        return;
    if (connection->unread_until_ns != 0) { /* whom we do not read cannot be silent */
        connection->received_ns = server->now_ns;
        if (limits_read_again(server, connection))
            connection_stall(server, connection); /* parse what waits, then read on */
    }
    if (server->now_ns - connection->received_ns > 3 * connection->keep_alive_ns) {
        server->counters.keep_alive_lapsed++;
        connection_terminate(server, connection, TERMINATE_CODE_KEEP_ALIVE_LAPSED, DOWN_CAUSE_KEEP_ALIVE_LAPSED);
    } else if (server->now_ns - connection->sent_ns >= connection->keep_alive_ns) {
        sequence_message_t block = {.next_seq_no = connection->chains[0].next_seq};
        connection_send(server, connection, TEMPLATE_SEQUENCE, 0, 0, &block);
    }
}

static void timers(server_t *server)
{
    uint64_t deadline_ns = (uint64_t)server->config.logon_deadline_ms * 1000000;

    if (server->now_ns - server->timer_ns < TIMER_NS)
        return;
    server->timer_ns = server->now_ns;
    for (uint32_t i = 0; i < server->config.connections_max; i++) {
        connection_t *connection = &server->connections[i];
        if (connection->state == CONNECTION_FREE || connection->state == CONNECTION_DOWN)
            continue;
        if (connection->state == CONNECTION_ESTABLISHED) {
            keep_alive(server, connection);
        } else if (connection->state == CONNECTION_CLOSING) {
            if (server->now_ns - connection->closing_ns > LINGER_NS)
                connection_release(server, connection);
        } else if (server->now_ns - connection->accepted_ns > deadline_ns) {
            server->counters.logon_timeouts++;
            connection_terminate(server, connection, TERMINATE_CODE_LOGON_TIMEOUT, DOWN_CAUSE_SERVER_TERMINATE);
        }
    }
    if (server->config.admin && server->admin_next == 0 && server->counters.open > 0)
        admin_ask_number(server);
    if (server->keys_changed)
        logon_check_keys(server);
}

void server_shutdown(server_t *server)
{
    server->stopping = true;
    if (server->listen_fd >= 0) {
        close(server->listen_fd);
        server->listen_fd = -1;
    }
    for (uint32_t i = 0; i < server->config.connections_max; i++)
        if (connection_alive(&server->connections[i]))
            connection_terminate(server, &server->connections[i], TERMINATE_CODE_SERVER_SHUTDOWN, DOWN_CAUSE_SHUTDOWN);
}

/* Tell the log that the connections of an earlier process on this ring are gone. */
static void announce(server_t *server)
{
    session_down_t block = {.cause = DOWN_CAUSE_GATEWAY_DEAD};
    log_slot_t *slot = server->config.admin ? NULL : ingress_slot(server, 0, TEMPLATE_SESSION_DOWN, 0);

    server->announced = server->config.admin || slot != NULL;
    if (slot == NULL)
        return;
    memcpy(slot->block, &block, sizeof(block));
    ingress_publish(server);
}

void server_set_ready(server_t *server, int ready)
{
    server->idle = ready == 0;
    server->admin_next = 0; /* where session 1 stands may have changed while another node led */
}

void server_set_cancel_only(server_t *server, int on)
{
    server->cancel_only = on != 0;
}

int64_t server_poll(void *state, int64_t limit)
{
    server_t *server = state;
    int64_t work = 0;

    server->now_ns = monotonic_ns();
    server->wall_ns = 0;
    server->log_looked_at = false;
    if (!server->announced)
        announce(server);
    work += reports_poll(server, limit);
    if (server->jobs_running > 0)
        work += retransmit_poll(server);
    if (server->dirty_count > 0) /* answers leave before new input is taken */
        flush_dirty(server);
    logon_answers(server);
    if (server->stalled_count > 0)
        retry_stalled(server);
    work += sockets_poll(server);
    timers(server);
    if (server->dirty_count > 0)
        flush_dirty(server);
    /* Half done work is work: the loop around must not go to sleep over it. */
    return work + (server->stalled_count > 0) + (server->jobs_running > 0);
}
