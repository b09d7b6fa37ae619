/* The C surface that Python sees. Read by cffi, never by the compiler. "..." = size and offsets are the compiler's. */

/* stage.h */
typedef int64_t (*stage_poll_fn)(void *state, int64_t limit);
typedef struct stage {
    stage_poll_fn poll;
    void *state;
} stage_t;
#define STAGE_IDLE 0
#define STAGE_LAPPED -1
#define STAGE_FAILED -2

/* segment.h */
typedef struct segment {
    void *address;
    uint64_t size;
    int prefault_errno;
    int lock_errno;
} segment_t;
int segment_map(int fd, uint64_t size, bool writable, segment_t *segment);
int segment_map_private(uint64_t size, segment_t *segment);
int segment_unmap(segment_t *segment);

/* doorbell.h */
#define DOORBELLS_MAGIC ...
#define DOORBELLS_LAYOUT_VERSION ...
#define DOORBELLS_MAX ...
#define DOORBELL_NAME_MAX 64
#define DOORBELLS_SIZE ...
#define DOORBELL_FREE ...
#define DOORBELL_TAKEN ...
#define DOORBELL_FUTEX ...
#define DOORBELL_FIFO ...

typedef struct doorbells_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t cell_count;
    uint64_t boot_id[2];
    ...;
} doorbells_header_t;
typedef struct doorbell { ...; } doorbell_t;
typedef struct doorbells { ...; } doorbells_t;

void doorbells_attach(doorbells_t *doorbells, void *memory, int directory);
uint32_t doorbell_arm(doorbell_t *cell);
void doorbell_disarm(doorbell_t *cell);

/* doorbells.h */
#define DOORBELLS_FULL ...
#define DOORBELLS_BUSY ...

typedef struct doorbell_view {
    uint32_t kind;
    uint32_t sleeping;
    uint32_t pid;
    uint32_t generation;
    uint64_t rings;
    uint64_t sleeps;
    char name[64];
} doorbell_view_t;

void doorbells_format(void *memory, const uint64_t *boot_id);
bool doorbells_ready(const doorbells_header_t *header);
int doorbells_take(doorbells_t *doorbells, const char *name, uint32_t kind, uint32_t pid);
void doorbells_release(doorbells_t *doorbells, int index);
void doorbells_view(const doorbells_t *doorbells, int index, doorbell_view_t *view);
void doorbells_close(doorbells_t *doorbells);
doorbell_t *doorbells_cell(doorbells_t *doorbells, int index);
int doorbell_sleep(doorbell_t *cell, uint32_t seen, int64_t timeout_ns);

/* runner.h */
#define RUNNER_STAGES_MAX 16
#define RUNNER_SPIN ...
#define RUNNER_YIELD ...
#define RUNNER_PARK ...
#define RUNNER_TIME ...
#define RUNNER_STOPPED ...
#define RUNNER_SIGNAL ...

typedef struct runner {
    stage_t stages[16];
    int32_t stage_count;
    int32_t wait;
    int32_t in_turn;
    int64_t limit;
    int64_t idle_timeout_ns;
    doorbell_t *doorbell;
    int32_t fifo;
    int32_t socket;
    int32_t failed;
    int64_t work;
    uint64_t rounds;
    uint64_t idle_rounds;
    uint64_t yields;
    uint64_t sleeps;
    ...;
} runner_t;

int runner_sharpen_timers(void);
int64_t runner_run(runner_t *runner, int64_t duration_ns);
void runner_stop(runner_t *runner);

/* ring.h */
#define RING_MAGIC ...
#define RING_LAYOUT_VERSION ...
#define RING_HEADER_SIZE ...
#define RING_CONSUMERS_MAX ...
#define RING_OK ...
#define RING_FULL ...
#define RING_LAPPED ...
#define RING_MODE_PLAIN ...
#define RING_MODE_DURABLE ...
#define RING_MODE_D0 ...
#define RING_STORAGE_OK ...
#define RING_STORAGE_LOW ...
#define RING_STORAGE_CANCEL_ONLY ...
#define RING_STORAGE_HALT ...
#define RING_STORAGE_LEVEL ...
#define RING_STORAGE_SLOW ...

typedef struct ring_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t slot_size;
    uint64_t slot_count;
    uint64_t schema_hash;
    uint64_t boot_id[2];
    int64_t base;
    uint32_t mode;
    char name[32];
    ...;
} ring_header_t;

typedef struct ring {
    ring_header_t *header;
    int64_t claimed;
    doorbells_t *doorbells;
    ...;
} ring_t;

void ring_format(void *memory, uint32_t slot_size, uint64_t slot_count, int64_t base, uint32_t mode, uint64_t schema_hash);
bool ring_ready(const ring_header_t *header);
void ring_attach(ring_t *ring, void *memory, doorbells_t *doorbells);
int64_t ring_capacity(const ring_t *ring);
int64_t ring_room(ring_t *ring, int64_t wanted);
int64_t ring_claim(ring_t *ring, int64_t count);
void ring_publish(ring_t *ring, int64_t sequence);
int64_t ring_published(const ring_t *ring);
int64_t ring_commit(const ring_t *ring);
int64_t ring_visible(const ring_t *ring);
bool ring_away(const ring_t *ring);
void ring_set_away(ring_t *ring, bool away);
void ring_store_commit(ring_t *ring, int64_t sequence);
void ring_advance(ring_t *ring, int consumer, int64_t sequence);
int64_t ring_gating_minimum(const ring_t *ring);
int ring_read(const ring_t *ring, int64_t sequence, int64_t count, void *destination);
void ring_gate(ring_t *ring, int consumer, int64_t sequence);
void ring_ungate(ring_t *ring, int consumer);

/* ring_python.h */
#define RING_WATCH_PUB ...
#define RING_WATCH_COMMIT ...
#define RING_WATCH_CURSORS ...

typedef struct ring_consumer_view {
    int64_t cursor;
    uint64_t heartbeat_ns;
    uint32_t gating;
    uint32_t pid;
    char name[32];
} ring_consumer_view_t;

int64_t ring_publish_copy(ring_t *ring, const void *slots, int64_t count);
int64_t ring_claim_copy(ring_t *ring, const void *slots, int64_t count);
int64_t ring_claim_cursor(const ring_t *ring);
uint64_t ring_epoch(const ring_t *ring);
int64_t ring_replicated(const ring_t *ring);
int64_t ring_wanted(const ring_t *ring);
void ring_store_replicated(ring_t *ring, int64_t sequence);
void ring_begin_committed(ring_t *ring, int64_t sequence);
void ring_store_wanted(ring_t *ring, int64_t sequence);
uint32_t ring_panic(const ring_t *ring);
uint32_t ring_storage_cell(const ring_t *ring);
void ring_identify(ring_t *ring, const char *name, const uint64_t *boot_id, uint64_t epoch);
void ring_consumer_name(ring_t *ring, int consumer, const char *name, uint32_t pid);
void ring_consumer_view(const ring_t *ring, int consumer, ring_consumer_view_t *view);
void ring_watch_cell(ring_t *ring, int which, int doorbell);
void ring_unwatch_cell(ring_t *ring, int which, int doorbell);
uint64_t ring_watchers(const ring_t *ring, int which);

/* counters.h */
#define COUNTERS_MAGIC ...
#define COUNTERS_LAYOUT_VERSION ...
#define COUNTERS_HEADER_SIZE ...
#define COUNTERS_NAME_MAX 96
#define HISTOGRAM_BUCKETS ...
#define COUNTERS_COUNTER ...
#define COUNTERS_GAUGE ...
#define COUNTERS_HISTOGRAM ...

typedef struct counter { ...; } counter_t;
typedef struct histogram { ...; } histogram_t;
typedef struct counters_entry {
    uint64_t offset;
    uint32_t kind;
    char name[96];
    ...;
} counters_entry_t;
typedef struct counters_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t entry_max;
    uint64_t size;
    uint64_t started_ns;
    uint64_t pid;
    char process[64];
    ...;
} counters_header_t;

void counter_set(counter_t *counter, int64_t value);
int64_t counter_get(const counter_t *counter);
void counter_add(counter_t *counter, int64_t delta);
uint32_t histogram_bucket(uint64_t value);
uint64_t histogram_bucket_low(uint32_t bucket);
void histogram_record(histogram_t *histogram, uint64_t value);

/* counters_file.h */
#define COUNTERS_FULL ...
#define COUNTERS_OTHER_KIND ...
#define COUNTERS_CORRUPT ...

uint64_t counters_size(uint32_t counters_max, uint32_t histograms_max);
void counters_format(void *memory, uint64_t size, uint32_t entry_max, const char *process, uint64_t pid,
                     uint64_t started_ns);
int64_t counters_register(void *memory, const char *name, uint32_t kind);
int64_t counters_check(const void *memory, uint64_t size);
const counters_entry_t *counters_entry(const void *memory, uint32_t index);
void counters_copy_histogram(const histogram_t *histogram, uint64_t *words);
