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
void server_set_ready(server_t *server, int ready);
void server_set_cancel_only(server_t *server, int on);
int server_next_event(server_t *server, server_event_t *event);
int server_answer(server_t *server, const server_answer_t *answer);
const server_counters_t *server_counters(const server_t *server);

/* marketdata/feed.h */
#define FEED_PARTITIONS_MAX 31
#define FEED_DERIVED_BASE 100
#define FEED_REFERENCE 900
#define FEED_REFERENCE_BLOCK_MAX 120
#define FEED_SNAPSHOTS 8
#define FEED_REFERENCE_SLOTS_MIN 1024
#define FEED_DERIVED_SLOTS_MIN 16384
enum feed_kind { FEED_FULL, FEED_DERIVED, FEED_DEFINITIONS, ... };

typedef struct feed_config {
    const char *archive;
    char generation[8];
    uint8_t key[32];
    uint8_t partitions;
    uint8_t publish;
    uint8_t books;
    uint8_t tokens;
    uint32_t packet_size_max;
    uint32_t pack_delay_us;
    uint32_t heartbeat_ms;
    uint32_t definitions_ms;
    uint32_t orders_expected;
    uint32_t instruments_max;
    uint32_t derived_slots;
    uint32_t reference_slots;
    uint32_t connections_max;
    uint32_t connections_per_user;
    uint32_t output_size;
    uint32_t login_timeout_ms;
    uint32_t silence_timeout_ms;
    uint32_t logins_failed_max;
    uint32_t rerequests_per_s;
    uint32_t snapshot_age_ms;
    uint64_t snapshot_bytes_max;
} feed_config_t;

typedef struct feed_counters {
    uint64_t messages, packets, heartbeats, bytes, send_failures, rounds;
    uint64_t laps;
    uint64_t events, derived, digests;
    uint64_t rerequests, rerequests_refused, rerequests_malformed;
    uint64_t accepted, refused, closed, open;
    uint64_t logins, logins_refused, malformed, silent, stuck, floods;
    uint64_t messages_out, bytes_out;
    uint64_t snapshots, snapshots_made, snapshot_bytes;
} feed_counters_t;

typedef struct feed_position {
    uint64_t next;
    uint64_t oldest;
    uint64_t sent;
} feed_position_t;

typedef struct feed feed_t;

feed_t *feed_new(const feed_config_t *config);
void feed_free(feed_t *feed);
void feed_attach(feed_t *feed, int partition, ring_t *market);
int feed_add_destination(feed_t *feed, int line, int kinds, const char *address, uint16_t port, const char *interface, int ttl);
void feed_start(feed_t *feed);
int feed_listen_replay(feed_t *feed, const char *address, uint16_t port);
int feed_listen_snapshot(feed_t *feed, const char *address, uint16_t port);
int feed_listen_rerequest(feed_t *feed, const char *address, uint16_t port);
void feed_define(feed_t *feed, const void *message, uint32_t size);
void feed_end_session(feed_t *feed, const char *session, uint64_t next);
bool feed_ending(const feed_t *feed);
int64_t feed_poll(void *feed, int64_t limit);
int feed_epoll_fd(const feed_t *feed);
bool feed_hole(const feed_t *feed, int *partition, int64_t *first);
bool feed_caught_up(const feed_t *feed);
bool feed_position(feed_t *feed, int channel, feed_position_t *position);
const char *feed_session(const feed_t *feed, int channel);
int64_t feed_packet(feed_t *feed, int channel, uint64_t number, uint8_t *packet, uint32_t size);
int64_t feed_derived(feed_t *feed, int partition, uint64_t number, uint32_t count, void *slots);
typedef struct feed_level {
    int64_t price, qty;
    uint64_t orders;
} feed_level_t;
int64_t feed_levels(feed_t *feed, int partition, uint32_t instrument, uint8_t side, uint32_t count, feed_level_t *levels,
                    uint64_t *update_id);
bool feed_between_events(feed_t *feed, int partition);
int64_t feed_taken(feed_t *feed, int partition, uint64_t number, uint32_t count, void *slots, uint64_t *next);
typedef struct feed_order {
    uint64_t id;
    int64_t price, qty;
} feed_order_t;
int64_t feed_orders(feed_t *feed, int partition, uint32_t instrument, uint8_t side, uint32_t count, feed_order_t *orders,
                    uint64_t *update_id);
void feed_shutdown(feed_t *feed);
const char *feed_error(const feed_t *feed);
const feed_counters_t *feed_counters(const feed_t *feed);

int32_t fanout_send(const int32_t *sockets, int32_t count, const uint8_t *clear, const void *frame, uint64_t size,
                    int32_t *failed, int64_t *sent);
int64_t fanout_send_one(int32_t socket, const void *frame, uint64_t size);

#define TRADES_FRAME_MAX 512
#define TRADES_HEAD_MAX 256
#define TRADES_PLACES_MAX 18
typedef struct trades_form {
    const char *head;
    uint32_t head_size;
    uint32_t wrapped;
    uint64_t price_times, qty_times;
    uint32_t price_places, qty_places;
    uint64_t unit_ns;
} trades_form_t;
uint64_t trades_frames(const void *slots, uint32_t count, const trades_form_t *form, uint8_t *out);
