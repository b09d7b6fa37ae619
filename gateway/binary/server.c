#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
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

/* ---- connections ------------------------------------------------------------------------------------------------- */

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
