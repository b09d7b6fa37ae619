/* The sequencer's own state, shared by the files that admit, apply, settle and answer. Private to engine/. */
#ifndef BULLRING_ENGINE_SEQUENCER_STATE_H
#define BULLRING_ENGINE_SEQUENCER_STATE_H

#include "accounts.h"
#include "order_table.h"
#include "registry.h"
#include "ringbuf/include/orders.h"
#include "sequencer.h"

#define QUERY_ROWS_MAX 256 /* replies of one query; the client asks again from the last row */
#define TICK_BUSY_NS UINT64_C(10000000)
#define TICK_IDLE_NS UINT64_C(1000000000)
#define HASH_MARK_NS UINT64_C(1000000000)

typedef struct verdict {
    uint16_t code; /* REJECT_CODE_NONE, or why not; session records: their own code enum */
    bool rejected;
} verdict_t;

/* A report ring as the sequencer drains it. */
typedef struct settlement {
    ring_t *ring;
    int64_t applied; /* next report sequence to settle */
    int64_t marked;  /* bound named by the last SETTLED mark */
    int64_t noted;   /* bound of the step going on */
} settlement_t;

struct sequencer {
    sequencer_config_t config;
    arena_t arena;

    accounts_t accounts;
    registry_t registry;
    orders_t orders[PARTITIONS_MAX]; /* by partition; 0 unused */
    settlement_t settlements[PARTITIONS_MAX];

    /* Position in the log and time: part of the state. */
    int64_t position; /* next log sequence */
    uint64_t last_ts;
    uint64_t epoch;
    uint64_t mark_index;
    uint64_t last_tick_ts;
    uint64_t last_hash_ts;
    int64_t last_hash_position;

    /* Rings: not state. */
    ring_t *log;
    ring_t *reports0;
    ring_t *replies;
    ring_t *ingress[SOURCES_MAX];
    int64_t ingress_next[SOURCES_MAX];
    int64_t ingress_noted[SOURCES_MAX];
    bool ingress_linked[SOURCES_MAX]; /* the last slot taken said that the next one belongs to it */
    uint32_t sources_attached;
    uint32_t next_source; /* fair rotation */
    int64_t next_report0; /* next report sequence of ring 0; part of the state */

    bool leading;
    bool draining; /* step 2 is not complete */
    int64_t marks_due_at; /* un-marked reports that force a mark */
    int64_t busy_position; /* log position after the last record that is not lazy */
    uint64_t fixed_time;
    const char *error;
    int64_t counters[SEQUENCER_COUNTERS];
};

static inline uint8_t partition_of(const sequencer_t *sequencer, uint32_t instrument)
{
    return sequencer->registry.instruments[instrument].partition;
}

/* admission.c: pure verdicts. They complete the slot (account, order id, protection price, partition, tier) but change no state. */
verdict_t admit(const sequencer_t *sequencer, log_slot_t *slot);
/* The bound that a rejected request passed, for the reports; a function of the state before the record is applied. */
int64_t admission_limit(const sequencer_t *sequencer, const log_slot_t *slot, uint16_t code);
bool hold_for(const instrument_t *instrument, bool sell, int64_t ticks, int64_t lots, int64_t *units);
bool replace_needs(const sequencer_t *sequencer, const order_line_t *line, const order_replace_request_t *request,
                   int64_t *extra_units);

/* control.c: administration. */
verdict_t control_admit(const sequencer_t *sequencer, log_slot_t *slot);
void control_apply(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence);
int64_t control_limit(const sequencer_t *sequencer, const log_slot_t *slot, uint16_t code);
bool is_control(uint16_t template_id);

/* session_log.c: sessions and sources. */
verdict_t session_admit(const sequencer_t *sequencer, log_slot_t *slot);
void session_apply(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence);
void session_start_epoch(sequencer_t *sequencer);
bool is_session_record(uint16_t template_id);

/* apply.c: one log record into the state. */
void apply_record(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence);

/* settle.c: one report into the balances and the order table. */
void settle_prefetch(const sequencer_t *sequencer, uint8_t partition, const report_slot_t *report);
void settle_report(sequencer_t *sequencer, uint8_t partition, const report_slot_t *report);

/* queries.c */
void answer_query(sequencer_t *sequencer, const log_slot_t *slot);
bool is_query(uint16_t template_id);

/* answers.c: ring 0 and the reply ring. `number` = false for reports outside the session's numbered flow. */
void *report0_begin(sequencer_t *sequencer, uint32_t session, uint16_t template_id, int64_t in_seq, bool number);
void report0_commit(sequencer_t *sequencer);
uint64_t report0_exec_id(const sequencer_t *sequencer);
void *reply_begin(sequencer_t *sequencer, uint32_t session, uint16_t template_id);
bool answers_have_room(sequencer_t *sequencer);
void answers_release(sequencer_t *sequencer);

#endif
