/* The sequencer: accounts, pre-trade risk and sessions; assigns the global sequence and the time stamp; sole writer of the log.
 *
 *   ingress rings ─► admission (a pure verdict) ─► log slot ─► apply (the only thing that changes state)
 *   report rings ──► settle (pure additions)    ─► SETTLED mark in the log, before the next command
 *
 * The leader decides and applies; a follower, a recovery or a replay applies what the log says. State is a function of the log:
 * nothing but apply and settle writes it. One turn is CORE section 3. */
#ifndef BULLRING_ENGINE_SEQUENCER_H
#define BULLRING_ENGINE_SEQUENCER_H

#include <stdbool.h>
#include <stdint.h>

#include "ring.h"
#include "slots.h"
#include "stage.h"

/* Capacities: powers of two where said; every one is a clean reject when reached. They stand in the Genesis record. */
typedef struct sequencer_config {
    uint64_t cluster_id;
    uint64_t hash_seed;
    uint32_t partitions;            /* matchers, 1..63 */
    uint32_t orders_per_partition;  /* power of two, >= 64 */
    uint32_t accounts_max;
    uint32_t balances_max;
    uint32_t sessions_max;
    uint32_t instruments_max;       /* <= 65535 */
    uint32_t keys_max;
    uint32_t assets_max;
    uint32_t open_orders_per_account_max;
} sequencer_config_t;

typedef struct sequencer sequencer_t;

/* NULL with a reason in `error` (a static text) if a capacity is out of range or memory is not to be had. */
sequencer_t *sequencer_new(const sequencer_config_t *config, const char **error);
void sequencer_free(sequencer_t *sequencer);

void sequencer_attach(sequencer_t *sequencer, ring_t *log, ring_t *reports0, ring_t *replies);
void sequencer_attach_reports(sequencer_t *sequencer, uint8_t partition, ring_t *reports);
void sequencer_attach_ingress(sequencer_t *sequencer, uint16_t source, ring_t *ingress);

/* Follow: apply `count` slots of the log from `first_sequence` on. Stops early, returning the number applied, when a SETTLED mark
 * names reports that are not in the report ring yet or ring 0 has no room. A negative result is STAGE_FAILED. */
int64_t sequencer_feed(sequencer_t *sequencer, const log_slot_t *slots, int64_t first_sequence, int64_t count);

/* Become the leader: writes Genesis if the log is empty, EPOCH_START, and SOURCE_OPEN for every ingress ring attached. */
void sequencer_lead(sequencer_t *sequencer, uint64_t epoch, uint32_t node);

/* Take over from a leader that died, in the same epoch and on the same rings, to which this sequencer has been attached having
 * applied all that is published in the log; its own answers above those that ring 0 shows are claimed there, not published. */
void sequencer_resume(sequencer_t *sequencer);

/* Follow the log of another node: sequencer_poll() applies what is committed in the ring, whose producer is somebody else. Ends
 * with sequencer_lead(), once this process is the producer and everything is applied. */
void sequencer_follow(sequencer_t *sequencer);

/* Write no record at all, not even of time, until told otherwise: a planned switchover. */
void sequencer_hold(sequencer_t *sequencer, bool held);

/* One bounded part of a turn; a stage_poll_fn. */
int64_t sequencer_poll(void *sequencer, int64_t limit);

/* Take time from the caller instead of the clock (tests, replay); 0 = the clock again. */
void sequencer_set_time(sequencer_t *sequencer, uint64_t now_ns);

int64_t sequencer_position(const sequencer_t *sequencer);                        /* next log sequence */
int64_t sequencer_settled(const sequencer_t *sequencer, uint8_t partition);      /* report sequence of the last mark */
uint64_t sequencer_epoch(const sequencer_t *sequencer);
uint64_t sequencer_last_ts(const sequencer_t *sequencer);                        /* of the newest record */
void sequencer_hash(const sequencer_t *sequencer, uint64_t out[2]);
const char *sequencer_error(const sequencer_t *sequencer);

/* Introspection for tests, audits and tools; reads only. */
bool sequencer_balance(const sequencer_t *sequencer, uint32_t account, uint32_t asset, int64_t *available, int64_t *held);
/* Grows whenever a balance of the account changes. */
uint64_t sequencer_balance_changes(const sequencer_t *sequencer, uint32_t account);
/* Symbol (zero-terminated, 13 bytes) and exponent of an asset; false: there is none of that id. */
bool sequencer_asset(const sequencer_t *sequencer, uint32_t asset, char *symbol, int *exponent);
bool sequencer_check(const sequencer_t *sequencer); /* recount of everything: sums, hash, holds, conservation */

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
int64_t sequencer_open_orders(const sequencer_t *sequencer, uint32_t account, open_order_t *out, int64_t max);

enum sequencer_counter {
    SEQUENCER_COMMANDS,      /* records of clients written to the log */
    SEQUENCER_REJECTED,      /* of these refused by the sequencer */
    SEQUENCER_DUPLICATES,    /* dropped: already applied */
    SEQUENCER_GAPS,          /* answered NotApplied */
    SEQUENCER_NOT_BOUND,     /* dropped: session not bound to that source */
    SEQUENCER_QUERIES,
    SEQUENCER_REPORTS,       /* settled */
    SEQUENCER_MARKS,
    SEQUENCER_LOG_FULL,      /* turns that waited for room in the log */
    SEQUENCER_COUNTERS
};
int64_t sequencer_counter(const sequencer_t *sequencer, int which);

#endif
