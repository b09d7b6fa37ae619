/* The C surface Python sees. Kept by hand; cffi compares the structs written in full with the compiler's at import. */

typedef struct sequencer_config {
    uint64_t cluster_id;
    uint64_t hash_seed;
    uint32_t partitions;
    uint32_t orders_per_partition;
    uint32_t accounts_max;
    uint32_t balances_max;
    uint32_t sessions_max;
    uint32_t instruments_max;
    uint32_t keys_max;
    uint32_t assets_max;
    uint32_t open_orders_per_account_max;
} sequencer_config_t;

typedef struct sequencer sequencer_t;
typedef struct matcher matcher_t;
typedef struct log_slot {
    ...;
} log_slot_t;

typedef struct open_order {
    uint64_t order_id;
    uint64_t client_id;
    int64_t limit_ticks;
    int64_t total_lots;
    int64_t filled_lots;
    int64_t hold_units;
    uint32_t instrument;
    uint32_t account;
    uint32_t session;
    uint8_t side;
} open_order_t;

sequencer_t *sequencer_new(const sequencer_config_t *config, const char **error);
void sequencer_free(sequencer_t *sequencer);
void sequencer_attach(sequencer_t *sequencer, ring_t *log, ring_t *reports0, ring_t *replies);
void sequencer_attach_reports(sequencer_t *sequencer, uint8_t partition, ring_t *reports);
void sequencer_attach_ingress(sequencer_t *sequencer, uint16_t source, ring_t *ingress);
int64_t sequencer_feed(sequencer_t *sequencer, const log_slot_t *slots, int64_t first_sequence, int64_t count);
void sequencer_lead(sequencer_t *sequencer, uint64_t epoch, uint32_t node);
void sequencer_resume(sequencer_t *sequencer);
void sequencer_follow(sequencer_t *sequencer);
void sequencer_hold(sequencer_t *sequencer, bool held);
int64_t sequencer_poll(void *sequencer, int64_t limit);
void sequencer_set_time(sequencer_t *sequencer, uint64_t now_ns);
int64_t sequencer_position(const sequencer_t *sequencer);
int64_t sequencer_settled(const sequencer_t *sequencer, uint8_t partition);
uint64_t sequencer_epoch(const sequencer_t *sequencer);
uint64_t sequencer_last_ts(const sequencer_t *sequencer);
void sequencer_hash(const sequencer_t *sequencer, uint64_t *out);
const char *sequencer_error(const sequencer_t *sequencer);
bool sequencer_balance(const sequencer_t *sequencer, uint32_t account, uint32_t asset, int64_t *available, int64_t *held);
uint64_t sequencer_balance_changes(const sequencer_t *sequencer, uint32_t account);
bool sequencer_asset(const sequencer_t *sequencer, uint32_t asset, char *symbol, int *exponent);
bool sequencer_check(const sequencer_t *sequencer);
int64_t sequencer_open_orders(const sequencer_t *sequencer, uint32_t account, open_order_t *out, int64_t max);
int64_t sequencer_counter(const sequencer_t *sequencer, int which);

typedef struct matcher_config {
    uint32_t orders_max;
    uint32_t instruments_max;
    uint32_t accounts_max;
    uint32_t sessions_max;
    uint32_t step_budget;
    uint32_t window_log2;
    uint8_t partition;
} matcher_config_t;

typedef struct matcher_level {
    int64_t price;
    int64_t quantity;
    int64_t orders;
} matcher_level_t;

typedef struct matcher_order {
    uint64_t order_id;
    uint64_t cl_ord_id;
    int64_t price;
    int64_t leaves;
    int64_t hidden;
    int64_t cum;
    uint32_t account;
    uint32_t session;
    uint8_t side;
} matcher_order_t;

matcher_t *matcher_new(const matcher_config_t *config);
void matcher_free(matcher_t *matcher);
void matcher_attach(matcher_t *matcher, ring_t *log, ring_t *reports, ring_t *market);
int64_t matcher_poll(void *matcher, int64_t limit);
int64_t matcher_feed(matcher_t *matcher, const log_slot_t *slots, int64_t first_sequence, int64_t count);
void matcher_quarantine(matcher_t *matcher, const int64_t *sequences, int64_t count);
int64_t matcher_position(const matcher_t *matcher);
void matcher_set_position(matcher_t *matcher, int64_t sequence);
bool matcher_idle(const matcher_t *matcher);
int64_t matcher_settled(const matcher_t *matcher);
void matcher_hash(const matcher_t *matcher, uint32_t instrument, uint64_t *out);
int64_t matcher_levels(const matcher_t *matcher, uint32_t instrument, uint8_t side, matcher_level_t *out, int64_t limit);
int64_t matcher_orders(const matcher_t *matcher, uint32_t instrument, uint8_t side, matcher_order_t *out, int64_t limit);
int64_t matcher_waiting(const matcher_t *matcher, uint32_t instrument, matcher_order_t *out, int64_t limit);
int64_t matcher_order_count(const matcher_t *matcher, uint32_t instrument);
uint8_t matcher_market_state(const matcher_t *matcher, uint32_t instrument);
const char *matcher_check(const matcher_t *matcher);

int64_t composed_run(sequencer_t *sequencer, matcher_t **matchers, int64_t count);
int64_t composed_feed(sequencer_t *sequencer, matcher_t **matchers, int64_t count, const log_slot_t *slots, int64_t first,
                      int64_t slot_count);
int64_t composed_feed_watched(sequencer_t *sequencer, matcher_t **matchers, int64_t count, const log_slot_t *slots, int64_t first,
                              int64_t slot_count, uint32_t account, bool *changed);
void composed_scan_marks(const log_slot_t *slots, int64_t count, int64_t *settled, int64_t partitions);

#define IMAGE_PAGE ...
typedef struct image_run {
    uint64_t offset;
    uint64_t size;
} image_run_t;

uint64_t image_head_size(void);
uint64_t image_layout(void);
bool sequencer_image_save(const sequencer_t *sequencer, void *head);
void *sequencer_image_arena(const sequencer_t *sequencer, uint64_t *size);
void sequencer_image_clear(sequencer_t *sequencer);
void sequencer_image_load(sequencer_t *sequencer, const void *head);
void *matcher_image_arena(const matcher_t *matcher, uint64_t *size);
void matcher_image_clear(matcher_t *matcher);
bool image_next_run(const void *arena, uint64_t size, uint64_t from, uint64_t size_max, image_run_t *run);
int64_t image_hash_outputs(const ring_t *ring, int64_t first, int64_t end, uint64_t *hash);
