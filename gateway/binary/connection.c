/* One connection of the order-entry server: its socket, what it has sent and not yet been read, what it is to be sent. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

static void connection_interest(server_t *server, connection_t *connection)
{
    struct epoll_event event = {
        .events = (connection->paused ? 0u : EPOLLIN) | (connection->write_armed ? EPOLLOUT : 0u),
        .data.u64 = connection->id,
    };
    int status = epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
    INVARIANT(status == 0);
}

/* ---- output ---------------------------------------------------------------------------------------------------------- */

void frame_write(const server_t *server, uint8_t *target, uint16_t template_id, uint16_t flags, uint64_t seq_num,
                 uint64_t sending_ns, const void *block)
{
    uint16_t length = server->block_lengths[template_id];

    frame_header_write(target, template_id, length, flags, seq_num, sending_ns);
    block_copy(target + FRAME_HEADER_SIZE, block, length);
}

/* It has output: flush it this turn. */
void connection_mark_dirty(server_t *server, connection_t *connection)
{
    if (connection->dirty)
        return;
    connection->dirty = true;
    server->dirty[server->dirty_count++] = connection_index(server, connection);
}

/* It waits for something: parse what it has in the next turn. */
void connection_stall(server_t *server, connection_t *connection)
{
    if (connection->stalled)
        return;
    connection->stalled = true;
    server->stalled[server->stalled_count++] = connection_index(server, connection);
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

void connection_flush(server_t *server, connection_t *connection)
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

/* ---- input ----------------------------------------------------------------------------------------------------------- */

void connection_read(server_t *server, connection_t *connection)
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
void connection_pause(server_t *server, connection_t *connection)
{
    bool full = connection->state != CONNECTION_CLOSING &&
                (connection->in_length == server->config.input_size || connection->unread_until_ns != 0);
    if (connection->fd < 0 || full == connection->paused)
        return;
    connection->paused = full;
    connection_interest(server, connection);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

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

void connection_open(server_t *server, int fd, const struct sockaddr_storage *peer)
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

/* The entry is free once the socket is closed and the sequencer knows of the end. */
void connection_release(server_t *server, connection_t *connection)
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

void connection_lost(server_t *server, connection_t *connection)
{
    connection_finish(server, connection, DOWN_CAUSE_CLIENT_DISCONNECT);
    connection_release(server, connection);
}
