/* A matcher: one partition's books, fed by log records, writing reports and market data.
 *
 * State is a function of the records alone. matcher_poll() takes committed records from the live log ring, matcher_feed() the
 * same from memory (journal, tests); both run the same step. Long inputs are resumable: at most step_budget reports a step,
 * stopping between fills; the next record is taken when the input is finished. The report ring is waited for, the market ring
 * never. One publish covers whole inputs or ends at a trade boundary; reports are published before their market data. */
#ifndef BULLRING_ENGINE_MATCHER_H
#define BULLRING_ENGINE_MATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "ring.h"
#include "slots.h"
#include "stage.h"

typedef struct matcher matcher_t;

typedef struct matcher_config {
    uint32_t orders_max;      /* N, a power of two: order id mod N is the order's slot */
    uint32_t instruments_max; /* largest instrument id, <= 65535 */
    uint32_t accounts_max;    /* largest account id */
    uint32_t sessions_max;    /* largest session id */
    uint32_t step_budget;     /* reports a step; 0 = 256 */
    uint32_t window_log2;     /* ticks of a side's dense window, 6..18; 0 = 16 */
    uint8_t partition;        /* 1..254 */
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
    int64_t leaves; /* visible */
    int64_t hidden;
    int64_t cum;
    uint32_t account;
    uint32_t session;
    uint8_t side; /* SIDE_... */
} matcher_order_t;

/* NULL if the memory cannot be had. Wrong configuration is a broken invariant. */
matcher_t *matcher_new(const matcher_config_t *config);
void matcher_free(matcher_t *matcher);
/* Touch the pages of all orders, so that no record pays for a page fault. The rest is touched as it is used. */
void matcher_prefault(matcher_t *matcher);
/* The handles stay the caller's and must outlive the matcher; log may be NULL if matcher_poll() is not used. */
void matcher_attach(matcher_t *matcher, ring_t *log, ring_t *reports, ring_t *market);

/* stage_poll_fn. Units of work: records taken plus steps of a continued input; STAGE_LAPPED when the log has moved past. */
int64_t matcher_poll(void *matcher, int64_t limit);
/* Take records from memory; first_sequence must be matcher_position(). Returns how many were consumed: fewer than count when the
 * report ring has no room. A consumed record may still be unfinished (see matcher_idle); count 0 only continues it. */
int64_t matcher_feed(matcher_t *matcher, const log_slot_t *slots, int64_t first_sequence, int64_t count);

/* Records that two operators have taken out of the log's effect, ascending, for matcher_feed(): each is answered with
 * Quarantined instead of being done (R10). At most QUARANTINED_MAX; later calls add. */
#define QUARANTINED_MAX 64
void matcher_quarantine(matcher_t *matcher, const int64_t *sequences, int64_t count);

/* Next log sequence to take. */
int64_t matcher_position(const matcher_t *matcher);
/* Before the first record of a replay that does not start at 0. */
void matcher_set_position(matcher_t *matcher, int64_t sequence);
/* No continuation pending. */
bool matcher_idle(const matcher_t *matcher);
/* Reports of this partition below the returned sequence are in the balances (last SETTLED mark seen). */
int64_t matcher_settled(const matcher_t *matcher);

/* State hash of one book, waiting orders and hidden quantity included: low, high. 0, 0 for an empty or unknown one. */
void matcher_hash(const matcher_t *matcher, uint32_t instrument, uint64_t out[2]);
/* Levels best first, orders in priority order; side is SIDE_BUY or SIDE_SELL. Return how many were written. */
int64_t matcher_levels(const matcher_t *matcher, uint32_t instrument, uint8_t side, matcher_level_t *out, int64_t limit);
int64_t matcher_orders(const matcher_t *matcher, uint32_t instrument, uint8_t side, matcher_order_t *out, int64_t limit);
/* Orders outside the levels: stops that wait or queue. In the order of their slots. */
int64_t matcher_waiting(const matcher_t *matcher, uint32_t instrument, matcher_order_t *out, int64_t limit);
int64_t matcher_order_count(const matcher_t *matcher, uint32_t instrument);
/* MARKET_STATE_..., 0 = not an instrument of this partition. */
uint8_t matcher_market_state(const matcher_t *matcher, uint32_t instrument);
/* NULL, or which invariant is broken. */
const char *matcher_check(const matcher_t *matcher);

#endif
