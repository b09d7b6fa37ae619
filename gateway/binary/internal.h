/* What the parts of the order-entry server share; nobody else includes this. */
#ifndef BULLRING_SERVER_INTERNAL_H
#define BULLRING_SERVER_INTERNAL_H

#include <string.h>
#include <sys/socket.h>

#include "framing.h"
#include "report_account.h"
#include "server.h"
#include "slots.h"

#define OUTPUT_RESERVE 64u           /* bytes of the output kept for a last Terminate */
#define OBSERVE_BATCH 64             /* report slots copied at once */
#define EPOLL_EVENTS 64
#define LINGER_NS UINT64_C(1000000000) /* a closing connection gets this long to take its last bytes */
#define TIMER_NS UINT64_C(20000000)    /* how often deadlines are looked at */
#define ADMIN_OWNERS 256

enum connection_state {
    CONNECTION_FREE = 0,
    CONNECTION_OPEN,        /* expects Negotiate or Establish */
    CONNECTION_KEY,         /* its key is being looked up */
    CONNECTION_VERIFY,      /* Python looks at the signature */
    CONNECTION_LOGGED,      /* SessionNegotiate or SessionBind is in the ingress ring */
    CONNECTION_ESTABLISHED,
    CONNECTION_CLOSING,     /* only sends what is left */
    CONNECTION_DOWN,        /* socket closed, waits for ingress room for its SessionDown */
};

/* Where a session's reports of one partition stand: enough to widen numbers and to walk back. */
typedef struct report_chain {
    uint64_t next_seq;
    int64_t last_index; /* ring index of the last numbered report + 1, 0 = none */
} report_chain_t;

/* Of an account with sessions here. */
typedef struct account_bucket {
    uint32_t account;
    uint32_t users; /* connections, 0 = free */
    uint64_t full_ns[2];
} account_bucket_t;

typedef struct connection {
    uint8_t state;
    uint8_t logon_template;
    uint8_t key_found;
    uint8_t key_answered;
    uint8_t down_cause;
    bool bound;       /* SessionBind written: the sequencer must hear of the end */
    bool held;        /* output waits for the EstablishAck that goes in front */
    bool dirty;
    bool paused;      /* not read: the input buffer is full */
    bool write_armed; /* waits for EPOLLOUT */
    bool half_closed; /* our side is shut down */
    bool stalled;
    bool key_to_check; /* it may have been revoked */
    bool drop_copy;    /* reads what its account is told; asks nothing */
    bool flooded;      /* more was refused in this interval than is allowed */
    int fd;
    uint32_t id;
    uint32_t session;
    uint32_t account;
    uint16_t permissions;
    uint64_t session_ver_id;
    uint64_t logon_timestamp;
    uint64_t accepted_ns, received_ns, sent_ns, closing_ns;
    uint64_t keep_alive_ns;
    uint64_t next_in; /* next number of the client, as far as seen here */
    uint64_t bound_mask;
    account_bucket_t *limits; /* NULL = not logged on */
    uint64_t full_ns[2];      /* buckets: requests, cancels */
    uint64_t flood_window_ns; /* start of the interval in which refusals are counted */
    uint64_t unread_until_ns; /* 0 = its socket is read */
    uint32_t flood_refused;   /* in that interval */
    uint32_t flood_intervals; /* in a row, each with a flood */
    uint8_t peer[16];         /* IPv6 address, or IPv4 mapped into it */
    uint32_t in_length;
    uint32_t out_head, out_tail;
    uint32_t hole; /* offset of the EstablishAck while held */
    uint16_t logon_length;
    uint8_t *in;
    uint8_t *out;
    report_chain_t *chains;
    _Alignas(8) uint8_t logon[SERVER_FRAME_MAX];
    key_reply_t key;
} connection_t;

/* One RetransmitRequest: first back along the chain noting positions, then forward sending. */
typedef struct retransmit_job {
    uint32_t connection_id; /* 0 = free */
    uint8_t partition;
    bool silent; /* recovery asked for in Establish: no Retransmission in front */
    bool walked;
    uint32_t count, sent;
    uint64_t from;
    uint64_t request_timestamp;
    uint64_t cursor_seq;
    int64_t cursor;
    int64_t *positions;
} retransmit_job_t;

typedef struct observed {
    ring_t *ring;
    int64_t cursor;
    int archive_fd; /* -1 = not open */
} observed_t;

/* Single producer, single consumer. */
typedef struct event_queue {
    server_event_t *items;
    uint32_t mask;
    _Alignas(CACHE_LINE) _Atomic uint32_t head; /* consumer */
    _Alignas(CACHE_LINE) _Atomic uint32_t tail; /* producer */
} event_queue_t;

typedef struct answer_queue {
    server_answer_t *items;
    uint32_t mask;
    _Alignas(CACHE_LINE) _Atomic uint32_t head;
    _Alignas(CACHE_LINE) _Atomic uint32_t tail;
} answer_queue_t;

typedef struct server {
    server_config_t config;
    char archive[256];
    int epoll_fd, listen_fd;
    int port;
    bool listen_tcp, stopping;
    bool announced; /* that connections of an earlier process are gone */
    bool keys_changed;
    bool idle;        /* the node does not lead */
    bool cancel_only;
    bool log_looked_at, log_busy; /* of this turn */
    ring_t *ingress, *log;
    int64_t ingress_published;
    observed_t reports[SERVER_PARTITIONS_MAX];
    observed_t reply;
    connection_t *connections;
    account_bucket_t *account_buckets;
    uint32_t *free_list, free_count;
    uint32_t *drop_copies, drop_copy_count; /* connection indices of those established */
    uint32_t *by_session; /* connection index + 1, 0 = none here */
    uint32_t *binding;    /* by session: connection whose SessionBind is under way, 0 = none; others' frames wait for its end */
    uint64_t *bind_seq;   /* by session: log sequence of the newest accepted bind or negotiate seen */
    uint32_t *dirty, dirty_count;
    uint32_t *stalled, stalled_count;
    uint8_t *buffers;
    report_chain_t *chains;
    retransmit_job_t *jobs;
    int64_t *positions;
    uint32_t jobs_running;
    uint32_t generation;
    uint64_t now_ns;       /* monotonic, of this turn */
    uint64_t wall_ns;      /* of this turn, 0 = not asked yet */
    uint64_t timer_ns;
    uint64_t admin_next;   /* next number of session 1; 0 = not known */
    uint64_t admin_asked_ns;
    uint32_t admin_owner[ADMIN_OWNERS];
    event_queue_t events;
    answer_queue_t answers;
    server_counters_t counters;
    uint8_t block_lengths[1024]; /* by template */
    _Alignas(CACHE_LINE) uint8_t batch[OBSERVE_BATCH * sizeof(report_slot_t)];
} server_t;

uint64_t server_wall(server_t *server);

/* Copy a block, whose size is a multiple of 8. memcpy() of a size not known would be `rep movs`, which takes longer to begin than this
 * does as a whole. */
static inline void block_copy(uint8_t *target, const uint8_t *block, size_t size)
{
    size_t at = 0;

    for (; at + 32 <= size; at += 32)
        memcpy(target + at, block + at, 32);
    if ((size & 16) != 0) {
        memcpy(target + at, block + at, 16);
        at += 16;
    }
    if ((size & 8) != 0)
        memcpy(target + at, block + at, 8);
}

static inline connection_t *server_connection(server_t *server, uint32_t connection_id)
{
    connection_t *connection = &server->connections[connection_id % server->config.connections_max];
    return connection->state != CONNECTION_FREE && connection->id == connection_id ? connection : NULL;
}

static inline uint32_t connection_index(const server_t *server, const connection_t *connection)
{
    return (uint32_t)(connection - server->connections);
}

static inline bool connection_alive(const connection_t *connection)
{
    return connection->state != CONNECTION_FREE && connection->state < CONNECTION_CLOSING;
}

/* connection.c: a socket and its buffers */
void connection_open(server_t *server, int fd, const struct sockaddr_storage *peer);
void connection_read(server_t *server, connection_t *connection);
void connection_pause(server_t *server, connection_t *connection);
uint8_t *connection_reserve(server_t *server, connection_t *connection, uint32_t size);
void connection_mark_dirty(server_t *server, connection_t *connection);
void connection_stall(server_t *server, connection_t *connection);
bool connection_send(server_t *server, connection_t *connection, uint16_t template_id, uint16_t flags, uint64_t seq_num,
                     const void *block);
void connection_flush(server_t *server, connection_t *connection);
void connection_terminate(server_t *server, connection_t *connection, uint8_t code, uint8_t down_cause);
void connection_finish(server_t *server, connection_t *connection, uint8_t down_cause);
void connection_lost(server_t *server, connection_t *connection);
void connection_release(server_t *server, connection_t *connection);
void frame_write(const server_t *server, uint8_t *target, uint16_t template_id, uint16_t flags, uint64_t seq_num,
                 uint64_t sending_ns, const void *block);

/* requests.c: frames to ingress slots */
void connection_parse(server_t *server, connection_t *connection);
log_slot_t *ingress_slot(server_t *server, uint32_t session, uint16_t template_id, uint64_t seq_num);
void ingress_publish(server_t *server);
bool session_down_write(server_t *server, connection_t *connection);
void admin_ask_number(server_t *server);

/* limits.c */
void limits_join(server_t *server, connection_t *connection);
void limits_leave(connection_t *connection);
uint16_t limits_take(server_t *server, connection_t *connection, bool cancel);
bool limits_flooded(const connection_t *connection);
/* True once, when a connection that was not read for too many requests may be read again. */
bool limits_read_again(server_t *server, connection_t *connection);

/* logon.c */
enum parse_verdict { PARSE_DONE, PARSE_WAIT, PARSE_DEAD };
enum parse_verdict logon_frame(server_t *server, connection_t *connection, const frame_t *frame);
void logon_key_reply(server_t *server, const report_slot_t *slot);
void logon_answers(server_t *server);
void logon_check_keys(server_t *server);
void logon_negotiated(server_t *server, const report_slot_t *slot);
void logon_bound(server_t *server, uint32_t partition, int64_t index, const report_slot_t *slot);

/* reports.c: report slots to frames */
void drop_copy_add(server_t *server, connection_t *connection);
void drop_copy_remove(server_t *server, connection_t *connection);
int64_t reports_poll(server_t *server, int64_t limit);
int report_read(server_t *server, observed_t *source, uint32_t partition, int64_t index, int64_t count, void *target);
bool report_send(server_t *server, connection_t *connection, uint32_t partition, uint16_t flags, uint64_t seq_num,
                 const report_slot_t *slot);

/* retransmit.c */
void retransmit_request(server_t *server, connection_t *connection, const frame_t *frame);
void retransmit_recover(server_t *server, connection_t *connection, uint64_t from);
int64_t retransmit_poll(server_t *server);
void retransmit_forget(server_t *server, connection_t *connection);

#endif
