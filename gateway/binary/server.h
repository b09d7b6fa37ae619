/* Order-entry server: one stage that accepts connections, turns frames into ingress slots and report slots into frames.
 *
 * Threads: everything runs on the thread that polls the stage, except server_next_event() and server_answer(), which belong to
 * one other thread (Python: it looks at signatures). Between the two stand single-producer queues.
 *
 * Memory: all of it is taken in server_new(); a connection is a slab entry, never an allocation. Who reads too slowly for
 * `output_size` bytes is disconnected; when the ingress ring is full, sockets are not read.
 *
 * Logon: Negotiate/Establish -> KeyQuery (unlogged ingress slot) -> KeyReply/QueryEnd on the reply ring -> event to Python
 * -> answer -> SessionNegotiate/SessionBind ingress slot -> SessionNegotiated/SessionBound on the report rings -> response.
 * The admin server (config.admin) has no logon: who may open its Unix socket is session 1. It numbers the commands itself. */
#ifndef BULLRING_SERVER_H
#define BULLRING_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "ring.h"
#include "stage.h"

#define SERVER_PARTITIONS_MAX 64 /* report rings, the sequencer's included */
#define SERVER_FRAME_MAX 256
#define SERVER_ADMIN_SESSION 1

typedef struct server_config {
    uint16_t source;             /* number of the ingress ring; part of the request ids of key queries */
    uint8_t admin;               /* 1 = admin gateway */
    uint8_t report_rings;        /* partitions including 0 */
    uint32_t connections_max;
    uint32_t sessions_max;       /* largest session id */
    uint32_t input_size;         /* bytes a connection may have unread, and of one read */
    uint32_t output_size;        /* bytes a connection may have unsent */
    uint32_t keep_alive_min_ms;
    uint32_t keep_alive_max_ms;
    uint32_t logon_deadline_ms;
    uint32_t timestamp_window_ms; /* a logon's timestamp may be this far from our clock */
    uint32_t throttle_count;      /* requests a session may send in an interval, twice as many cancels; 0 = no limit */
    uint32_t account_throttle_count; /* likewise of all sessions of an account together */
    uint32_t throttle_interval_ms;
    uint32_t busy_poll_us;        /* SO_BUSY_POLL of accepted sockets, 0 = not set */
    uint32_t open_orders_max;     /* only told to clients */
    uint32_t retransmit_max;      /* reports of one RetransmitRequest */
    uint32_t retransmit_jobs;     /* at the same time, all connections together */
    const char *archive;          /* directory with a flat file of report slots per partition; NULL = ring memory only */
} server_config_t;

typedef struct server_counters {
    uint64_t accepted, refused, closed;           /* connections; refused = no slab entry free */
    uint64_t frames_in, frames_out;
    uint64_t bytes_in, bytes_out;
    uint64_t requests, queries;                   /* forwarded to ingress */
    uint64_t rejected;                            /* of the requests: flagged here */
    uint64_t malformed, logons, logons_refused;
    uint64_t floods, keys_revoked;
    uint64_t slow_consumers, keep_alive_lapsed, superseded, logon_timeouts;
    uint64_t retransmissions, retransmit_rejects;
    uint64_t laps;                                /* report or reply slots gone before they were read here */
    uint64_t ingress_full;                        /* turns in which a connection had to wait for room */
    uint64_t reads, writes;                       /* recv and send calls */
    uint64_t open;                                /* connections now */
} server_counters_t;

/* A logon whose key has been looked up: the signature is to be checked. */
typedef struct server_event {
    uint32_t connection_id;
    uint16_t template_id;
    uint8_t key_found;
    uint8_t credential_type; /* of the key */
    uint16_t permissions;
    uint16_t frame_length;
    uint32_t account_id;
    uint64_t last_timestamp;
    uint8_t access_key_id[32];
    uint8_t material[32];
    uint8_t peer[16]; /* IPv6 address, or IPv4 mapped into it */
    uint8_t frame[SERVER_FRAME_MAX];
} server_event_t;

typedef struct server_answer {
    uint32_t connection_id;
    uint8_t accepted;
    uint8_t code; /* NegotiateRejectCode or EstablishRejectCode, by the event's template */
    uint16_t spare;
} server_answer_t;

typedef struct server server_t;

/* NULL if memory is short or the configuration is out of range. */
server_t *server_new(const server_config_t *config);
void server_free(server_t *server);

/* `reports` has config.report_rings handles. Reading starts at what is published now. */
void server_attach(server_t *server, ring_t *ingress, ring_t *log, ring_t **reports, ring_t *reply);

/* Both return 0 or -errno; the TCP one takes a numeric address, port 0 chooses. server_port() tells. */
int server_listen_tcp(server_t *server, const char *address, uint16_t port);
int server_listen_unix(server_t *server, const char *path);
int server_port(const server_t *server);

int64_t server_poll(void *server, int64_t limit);

/* For processes that sleep: readable while a socket has something for server_poll(). */
int server_epoll_fd(const server_t *server);

/* End every connection with Terminate(ServerShutdown) and stop listening; a few polls later all is sent. */
void server_shutdown(server_t *server);

/* A server whose node does not lead (ready = 0): logons are refused as NotReady, requests end their connection, queries of the
 * admin server are answered. A new server is ready. */
void server_set_ready(server_t *server, int ready);

/* Refuse what could rest, as with a full log: the venue takes cancels only. */
void server_set_cancel_only(server_t *server, int on);

/* 1 = an event was copied, 0 = none. */
int server_next_event(server_t *server, server_event_t *event);
/* 1 = taken, 0 = the queue is full: poll, then again. */
int server_answer(server_t *server, const server_answer_t *answer);

const server_counters_t *server_counters(const server_t *server);

#endif
