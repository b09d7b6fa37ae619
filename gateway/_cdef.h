/* The C surface of gateway._gateway; structs in full, so that cffi compares them with the compiler's at import. */
typedef ... ring_t; /* ringbuf's; its handles are cast, so that this module does not follow every change there */

#define SERVER_PARTITIONS_MAX 64
#define SERVER_FRAME_MAX 256
#define SERVER_ADMIN_SESSION 1

typedef struct server_config {
    uint16_t source;
    uint8_t admin;
    uint8_t report_rings;
    uint32_t connections_max;
    uint32_t sessions_max;
    uint32_t input_size;
    uint32_t output_size;
    uint32_t keep_alive_min_ms;
    uint32_t keep_alive_max_ms;
    uint32_t logon_deadline_ms;
    uint32_t timestamp_window_ms;
    uint32_t throttle_count;
    uint32_t account_throttle_count;
    uint32_t throttle_interval_ms;
    uint32_t busy_poll_us;
    uint32_t open_orders_max;
    uint32_t retransmit_max;
    uint32_t retransmit_jobs;
    const char *archive;
} server_config_t;

typedef struct server_counters {
    uint64_t accepted, refused, closed;
    uint64_t frames_in, frames_out;
    uint64_t bytes_in, bytes_out;
    uint64_t requests, queries;
    uint64_t rejected;
    uint64_t malformed, logons, logons_refused;
    uint64_t floods, keys_revoked;
    uint64_t slow_consumers, keep_alive_lapsed, superseded, logon_timeouts;
    uint64_t retransmissions, retransmit_rejects;
    uint64_t laps;
    uint64_t ingress_full;
    uint64_t reads, writes;
    uint64_t open;
} server_counters_t;

typedef struct server_event {
    uint32_t connection_id;
    uint16_t template_id;
    uint8_t key_found;
    uint8_t credential_type;
    uint16_t permissions;
    uint16_t frame_length;
    uint32_t account_id;
    uint64_t last_timestamp;
    uint8_t access_key_id[32];
    uint8_t material[32];
    uint8_t peer[16];
    uint8_t frame[256];
} server_event_t;

typedef struct server_answer {
    uint32_t connection_id;
    uint8_t accepted;
    uint8_t code;
    uint16_t spare;
} server_answer_t;

typedef struct server server_t;

server_t *server_new(const server_config_t *config);
void server_free(server_t *server);
void server_attach(server_t *server, ring_t *ingress, ring_t *log, ring_t **reports, ring_t *reply);
int server_listen_tcp(server_t *server, const char *address, uint16_t port);
int server_listen_unix(server_t *server, const char *path);
int server_port(const server_t *server);
int64_t server_poll(void *server, int64_t limit);
int server_epoll_fd(const server_t *server);
void server_shutdown(server_t *server);
int server_next_event(server_t *server, server_event_t *event);
int server_answer(server_t *server, const server_answer_t *answer);
const server_counters_t *server_counters(const server_t *server);
