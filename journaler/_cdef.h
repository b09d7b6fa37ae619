/* The C surface that Python sees. Read by cffi, never by the compiler. */

/* ring.h, stage.h: opaque here */
typedef struct ring ring_t;
typedef int64_t (*stage_poll_fn)(void *state, int64_t limit);

/* crc32c.h */
uint32_t crc32c(const void *data, size_t size, uint32_t seed);
uint32_t crc32c_software(const void *data, size_t size, uint32_t seed);

/* sha256.h */
void sha256_blocks(uint32_t *state, const void *data, size_t block_count);
void sha256_blocks_software(uint32_t *state, const void *data, size_t block_count);
void sha256_digest(const uint32_t *state, uint64_t block_count, uint8_t *digest);

/* walk.h */
#define WALK_ROOM ...
#define WALK_END ...
#define WALK_MAGIC ...
#define WALK_SHAPE ...
#define WALK_CHAIN ...
#define WALK_CRC ...
#define WALK_HASH ...
#define WALK_GROUP ...

typedef struct journal_walk {
    uint64_t sequence;
    uint64_t epoch;
    uint64_t batch;
    uint64_t log_hash;
    uint32_t crc;
    uint32_t stop;
    uint64_t offset;
    uint64_t want;
    uint64_t held;
    uint64_t held_first;
    uint64_t ts_ns;
} journal_walk_t;

typedef struct journal_ring_view {
    int64_t base;
    int64_t claim;
    int64_t published;
    int64_t commit;
    int64_t visible;
    int64_t cursor;
    int64_t capacity;
    uint32_t gating;
    uint32_t panic;
    uint32_t mode;
} journal_ring_view_t;

int journal_walk_header(journal_walk_t *walk, const uint8_t *segment, uint64_t size, int adopt);
int64_t journal_walk(journal_walk_t *walk, const uint8_t *segment, uint64_t size, uint64_t limit, uint8_t *out,
                     int64_t out_slots);
uint64_t journal_scan(const uint8_t *segment, uint64_t size, uint64_t from, uint64_t batch_min);
uint64_t journal_first_nonzero(const uint8_t *segment, uint64_t size, uint64_t from);
int64_t journal_follow(const ring_t *ring, int64_t sequence, uint8_t *out, int64_t slots_max);
uint64_t journal_log_hash(uint64_t hash, uint64_t sequence, uint64_t epoch, const uint8_t *slots, int64_t count);
void journal_view_ring(const ring_t *ring, journal_ring_view_t *view);

/* chain.h */
typedef struct journal_chain {
    uint64_t sequence;
    uint64_t epoch;
    uint64_t log_hash;
} journal_chain_t;

void journal_chain_extend(journal_chain_t *chain, const uint8_t *slots, int64_t count);
uint32_t journal_chain_at(journal_walk_t *walk, const uint8_t *segment, uint64_t size, uint64_t sequence,
                          journal_chain_t *chain);
int64_t journal_copy(const ring_t *ring, int64_t sequence, int64_t end, uint8_t *out, int64_t slots_max);
int64_t journal_select(const ring_t *ring, int64_t *sequence, int64_t end, uint16_t template_id, uint8_t *out,
                       int64_t slots_max);

/* journal.h */
#define JOURNAL_BUCKETS ...

typedef struct journaler journaler_t;

typedef struct journal_config {
    const char *directory;
    uint64_t segment_size;
    uint64_t lazy_ns;
    uint64_t gather_ns;
    uint64_t mark_interval_ns;
    uint32_t batch_slots_max;
    uint32_t spares;
    uint32_t sync;
    uint32_t node;
    uint64_t cluster;
    uint64_t schema_hash;
    uint64_t mark_counter;
    uint64_t space_enough;
    uint32_t space_low;
    uint32_t space_cancel_only;
    uint32_t space_halt;
    uint32_t sync_slow_count;
    uint64_t sync_slow_ns;
    uint64_t sync_stalled_ns;
    uint64_t sync_alarm_ns;
    uint64_t archive_lag_ns;
    uint64_t prepare_pause;
    uint64_t audit_first;
    uint64_t audit_origin;
    uint32_t audit_state[8];
} journal_config_t;

typedef struct journal_position {
    uint64_t sequence;
    uint64_t epoch;
    uint64_t batch;
    uint64_t log_hash;
    uint64_t crc;
    uint64_t segment_first;
    uint64_t offset;
} journal_position_t;

typedef struct journal_stats {
    uint64_t records;
    uint64_t batches;
    uint64_t bytes;
    uint64_t segments;
    uint64_t segment_waits;
    uint64_t market_archived;
    uint64_t market_lost;
    uint64_t batch_slots_max;
    uint64_t gathers;
    uint64_t sync_ns_sum;
    uint64_t sync_ns_max;
    uint64_t syncs_slow;
    uint64_t archived;
    uint64_t marks;
    uint64_t mark_behind_ns_max;
    uint64_t prepared;
    uint64_t spares;
    uint64_t halted;
    uint64_t audited;
    uint64_t free_permille;
    uint64_t storage;
    uint64_t looks;
    uint64_t sync_buckets[...];
} journal_stats_t;

journaler_t *journaler_new(const journal_config_t *config, const journal_position_t *position, ring_t *log);
int journaler_add_reports(journaler_t *journaler, int partition, ring_t *ring, int64_t start);
int journaler_add_market(journaler_t *journaler, int partition, ring_t *ring, int64_t start);
int64_t journaler_market_next(const journaler_t *journaler, const ring_t *ring);
int journaler_start(journaler_t *journaler);
int64_t journaler_poll(void *state, int64_t limit);
int64_t journaler_patience(const journaler_t *journaler);
void journaler_stop(journaler_t *journaler);
void journaler_free(journaler_t *journaler);
void journaler_position(const journaler_t *journaler, journal_position_t *position);
void journaler_stats(const journaler_t *journaler, journal_stats_t *stats);
stage_poll_fn journaler_poll_function(void);
