/* The sequencer's own state, shared by the files that admit, apply, settle and answer. Private to engine/. */
#ifndef BULLRING_ENGINE_SEQUENCER_STATE_H
#define BULLRING_ENGINE_SEQUENCER_STATE_H

#include "accounts.h"
#include "capacity.h"
#include "exposure.h"
#include "invariant.h"
#include "lists.h"
#include "order_table.h"
#include "platform.h"
#include "quotes.h"
#include "registry.h"
#include "ringbuf/include/orders.h"
#include "sequencer.h"

#define QUERY_ROWS_MAX 256 /* replies of one query; the client asks again from the last row */
#define FOLLOW_BATCH 64
#define TICK_BUSY_NS UINT64_C(10000000)
#define TICK_IDLE_NS UINT64_C(1000000000)
#define HASH_MARK_NS UINT64_C(1000000000)
#define NS_PER_SECOND UINT64_C(1000000000)
#define SECONDS_PER_DAY 86400
#define TRAILING_DELTA_MAX 9999 /* basis points */

typedef struct verdict {
    uint16_t code; /* REJECT_CODE_NONE, or why not; session records: their own code enum */
    bool rejected;
    int64_t limit; /* the bound that was passed */
} verdict_t;

/* A report ring as the sequencer drains it. */
typedef struct settlement {
    ring_t *ring;
    int64_t applied; /* next report sequence to settle */
    int64_t marked;  /* bound named by the last SETTLED mark */
    int64_t noted;   /* bound of the step going on */
} settlement_t;

/* Sessions whose client is away and has asked for cancel on disconnect. */
typedef struct disconnects {
    uint32_t waiting;
    uint32_t due;
    uint64_t next_ns; /* no waiting one is due before */
} disconnects_t;

struct sequencer {
    sequencer_config_t config;
    arena_t arena;

    accounts_t accounts;
    registry_t registry;
    exposures_t exposures;
    lists_t lists;
    quotes_t quotes;
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
    uint64_t paused; /* bit p: new orders of partition p are refused, its matcher is away */
    disconnects_t disconnects;
    uint32_t timed; /* dated orders, schedules and volatility bands: ticks come closely while there are any */

    /* Rings: not state. */
    ring_t *log;
    ring_t *reports0;
    ring_t *replies;
    ring_t *ingress[SOURCES_MAX];
    int64_t ingress_next[SOURCES_MAX];
    int64_t ingress_noted[SOURCES_MAX];
    bool overlong[SOURCES_MAX]; /* the frame before was cut off a group that is too long */
    uint32_t sources_attached;
    uint32_t next_source; /* fair rotation */
    int64_t next_report0; /* next report sequence of ring 0; part of the state */

    bool leading;
    bool following; /* the log is another node's; its records come through the ring */
    bool held;      /* a switchover: nothing is written */
    bool draining; /* step 2 is not complete */
    int64_t marks_due_at; /* un-marked reports that force a mark */
    int64_t commit_cached; /* the log's commit when it was last looked at */
    uint32_t due_from;     /* no session below is due to be disconnected */
    int64_t busy_position; /* log position after the last record that is not lazy */
    uint64_t fixed_time;
    const char *error;
    report_slot_t *report0_open; /* between report0_begin() and report0_commit() */
    int64_t counters[SEQUENCER_COUNTERS];
    log_slot_t batch[FOLLOW_BATCH]; /* a follower's copies: the ring's producer does not wait for it */
};

static inline uint8_t partition_of(const sequencer_t *sequencer, uint32_t instrument)
{
    return sequencer->registry.instruments[instrument].partition;
}

static inline bool partition_is_paused(const sequencer_t *sequencer, uint8_t partition)
{
    return (sequencer->paused >> partition & 1) != 0;
}

#define ADMITTED ((verdict_t){.code = REJECT_CODE_NONE})

static inline verdict_t refuse(uint16_t code)
{
    return (verdict_t){.code = code, .rejected = true};
}

static inline verdict_t refuse_at(uint16_t code, int64_t limit)
{
    return (verdict_t){.code = code, .rejected = true, .limit = limit};
}

/* ---- admission.c: new orders. Pure verdicts: they complete the slot (account, order id, protection price, partition, tier) but
 * change no state ------------------------------------------------------------------------------------------------------------- */

/* Who pays for an order that is admitted. */
enum funding {
    FUNDING_OWN,           /* available money, all of it */
    FUNDING_LATER,         /* a leg whose time has not come */
    FUNDING_FIRST_OF_PAIR, /* nothing yet: the second leg's check covers both */
    FUNDING_SECOND_OF_PAIR,
    FUNDING_PREDECESSOR,   /* what the order before it in a cancel-replace leaves, too */
};

/* What the command of an order adds to it, and what orders before it in the same command, not applied yet, take away. */
typedef struct order_context {
    const session_t *session;
    const order_details_t *details;     /* NULL = none */
    uint64_t last_id;                   /* order id given out last by this command; 0 = none */
    uint64_t client_ids[LIST_LEGS_MAX]; /* of this command so far */
    int64_t need;        /* answer, and for the second of a pair the first one's: units of the asset paid */
    int128_t buys;       /* lots, of this command so far */
    int64_t known_hold;  /* predecessor's */
    int64_t extra_cover; /* answer: what is to be held besides it */
    uint32_t known_asset;
    uint32_t orders; /* of this command so far, as are the next three */
    uint32_t algo;
    uint32_t icebergs;
    uint32_t extras;
    uint8_t list_role; /* the role it must have */
    uint8_t funding;   /* FUNDING_... */
    bool due;          /* a leg whose time has come: counted, named and numbered already, as `last_id` */
} order_context_t;

verdict_t admit_order(const sequencer_t *sequencer, log_slot_t *slot, order_context_t *context);
/* What every frame must be: not refused by the gateway, well formed, from a session that may send it. */
verdict_t admit_frame(const log_slot_t *slot, const session_t *session);
/* The account the request acts for: the session's own, or for privileged sessions the one named. 0 = not permitted. */
uint32_t resolve_account(const sequencer_t *sequencer, const session_t *session, uint32_t named);
/* Killed or locked. */
verdict_t admit_entry(const sequencer_t *sequencer, uint32_t account, uint32_t instrument);
/* `more` = counted by this command already. */
verdict_t admit_rate(const account_t *account, enum rate rate, uint64_t ts_ns, uint32_t more);
verdict_t admit_order_rates(const account_t *account, uint64_t ts_ns, uint32_t more);
/* `besides` = lots of the command's orders before it. */
verdict_t admit_position(const sequencer_t *sequencer, uint32_t account, uint32_t instrument, int128_t besides,
                         int64_t more_lots);
verdict_t admit_stp(const sequencer_t *sequencer, uint32_t account, const instrument_t *instrument, uint32_t group,
                    uint8_t mode);
bool client_id_is_open(const sequencer_t *sequencer, uint32_t account, uint32_t instrument, uint64_t client_id);

/* ---- admission_changes.c: requests about orders that exist -------------------------------------------------------------------------- */

verdict_t admit_cancel(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot, bool in_group);
verdict_t admit_replace(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot);
verdict_t admit_amend(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot);
verdict_t admit_status(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot);
verdict_t admit_mass_cancel(const sequencer_t *sequencer, const session_t *session, log_slot_t *slot);
/* The open order a request names, by order id if given, else by client id; NULL = none. */
order_line_t *resolve_order(const sequencer_t *sequencer, uint32_t account, uint32_t instrument, uint64_t order_id,
                            uint64_t client_id);

/* ---- admission_quotes.c -------------------------------------------------------------------------------------------------------------- */

/* A Quote; its sides are written behind it, so `slots` has room for three. Returns how many slots it becomes. */
uint32_t admit_quote(const sequencer_t *sequencer, const session_t *session, log_slot_t *slots, verdict_t *verdict);

/* ---- groups.c: a command of one frame or several --------------------------------------------------------------------------------------- */

/* Verdicts of all frames of a command; completes them. Flag MORE stays only where they are to be linked in the log. Returns how
 * many log slots it becomes: a quote's sides come behind it. */
uint32_t admit_command(const sequencer_t *sequencer, log_slot_t *slots, uint32_t count, verdict_t *verdicts);
/* What comes of the due list `list`: writes the slots and verdicts of its legs, returns their number. */
uint32_t admit_due(const sequencer_t *sequencer, const order_list_t *list, uint64_t ts_ns, log_slot_t *slots,
                   verdict_t *verdicts);

/* ---- lines.c: an order's line, from its admission to its end ----------------------------------------------------------------------------- */

static inline uint32_t paying_asset(const instrument_t *instrument, bool sell)
{
    return sell ? instrument->base_asset : instrument->quote_asset;
}
static inline bool line_sells(const order_line_t *line)
{
    return (line->flags & LINE_SELL) != 0;
}
uint8_t line_ord_type(const orders_t *orders, const order_line_t *line);
/* The list of a leg, NULL if it is none. */
order_list_t *list_of_line(const sequencer_t *sequencer, const orders_t *orders, const order_line_t *line);
/* Units of the asset an order of these terms pays with. False when it does not fit. */
bool hold_for(const instrument_t *instrument, bool sell, int64_t ticks, int64_t lots, int64_t *units);
/* The same of an amount of the quote asset, at the protection price `ticks`. */
bool hold_for_amount(const instrument_t *instrument, bool sell, int64_t ticks, int64_t amount, int64_t *units);
/* Of a request as admitted, whichever it is. */
bool hold_for_order(const instrument_t *instrument, const new_order_single_t *order, int64_t *units);
/* Cover while replaces are in flight (CORE section 4): what must be held on top of the line's hold. PX_NULL, QTY_NULL = stays.
 * False when it does not fit. */
bool replace_needs(const sequencer_t *sequencer, const order_line_t *line, int64_t ticks, int64_t lots, int64_t *extra_units);
/* What a buy order may still buy, the largest version on its way counted; 0 of others. */
int64_t line_buys_most(const orders_t *orders, const order_line_t *line);
static inline int64_t line_buys(const orders_t *orders, const order_line_t *line)
{
    return (line->flags & (LINE_SELL | LINE_AMOUNT | LINE_FINAL)) != 0 ? 0 : line_buys_most(orders, line);
}
int64_t available_of(const sequencer_t *sequencer, uint32_t account, uint32_t asset);
bool needs_extra(const new_order_single_t *order);
bool is_iceberg(const new_order_single_t *order);

typedef struct line_entry {
    const new_order_single_t *order;
    const order_details_t *details; /* NULL = none */
    uint64_t order_id;
    uint32_t session;
    uint32_t list; /* index + 1, 0 = none */
    uint16_t flags;
} line_entry_t;
/* Counts it, names it, links it; holds nothing. */
order_line_t *line_open(sequencer_t *sequencer, const line_entry_t *entry);
/* Terms that few orders have; made if needed. */
order_terms_t *line_terms(orders_t *orders, order_line_t *line);
void line_hold(sequencer_t *sequencer, order_line_t *line, int64_t units);
void line_release(sequencer_t *sequencer, order_line_t *line, int64_t units);
/* With no replace in flight the hold is exactly what is open; what is above goes back. */
void line_trim(sequencer_t *sequencer, orders_t *orders, order_line_t *line);
/* Everything open was cancelled, filled or refused; the line stays while replaces of it are unanswered. What its list has to do then
 * goes to the end of `due`. */
void line_finish(sequencer_t *sequencer, orders_t *orders, order_line_t *line, bool filled, bool refused, list_queue_t *due);
/* The last replace of a finished line was answered. */
void line_maybe_free(sequencer_t *sequencer, orders_t *orders, order_line_t *line);
/* line_buys() was `before`. */
void line_buys_changed(sequencer_t *sequencer, const orders_t *orders, const order_line_t *line, int64_t before);
/* Its total or its display quantity did: it may be an iceberg now, or no longer. */
void line_display_changed(sequencer_t *sequencer, const orders_t *orders, order_line_t *line);
/* One hold for both legs of a pair. */
void pair_hold(sequencer_t *sequencer, order_list_t *list, int64_t units);
void pair_trim(sequencer_t *sequencer, order_list_t *list);
void move_to_hold(sequencer_t *sequencer, uint32_t account, uint32_t asset, int64_t units);
void count_orders(account_t *account, uint64_t ts_ns, uint32_t orders);
void count_cancel(account_t *account, uint64_t ts_ns);

/* ---- control.c: administration ------------------------------------------------------------------------------------------------------ */

verdict_t control_admit(const sequencer_t *sequencer, log_slot_t *slot);
void control_apply(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence, int64_t limit);
static inline bool is_control(uint16_t template_id)
{
    return (template_id >= TEMPLATE_ASSET_ADD && template_id <= TEMPLATE_INSTRUMENT_SCHEDULE) ||
           template_id == TEMPLATE_QUARANTINE;
}

/* ---- session_log.c: sessions and sources -------------------------------------------------------------------------------------------- */

verdict_t session_admit(const sequencer_t *sequencer, log_slot_t *slot);
void session_apply(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence);
void session_start_epoch(sequencer_t *sequencer, uint64_t ts_ns);
static inline bool is_session_record(uint16_t template_id)
{
    return template_id == TEMPLATE_SESSION_NEGOTIATE || template_id == TEMPLATE_SESSION_BIND ||
           template_id == TEMPLATE_SESSION_DOWN || template_id == TEMPLATE_SOURCE_OPEN ||
           template_id == TEMPLATE_EPOCH_START || template_id == TEMPLATE_GENESIS;
}

/* ---- disconnect.c ----------------------------------------------------------------------------------------------------------- */

void disconnect_begin(sequencer_t *sequencer, session_t *session, uint8_t cause, uint64_t ts_ns);
void disconnect_end(sequencer_t *sequencer, session_t *session);
void disconnect_extend(session_t *session, uint64_t ts_ns);
void disconnect_tick(sequencer_t *sequencer, uint64_t ts_ns);
void disconnect_write(sequencer_t *sequencer, uint64_t now);
void disconnect_apply(sequencer_t *sequencer, const log_slot_t *slot);

/* ---- apply.c, apply_lists.c, refusals.c: one log record, or one whole group, into the state ---------------------------------------------- */

void apply_records(sequencer_t *sequencer, const log_slot_t *slots, uint32_t count, int64_t sequence);
/* An admitted OrderListRequest with its legs. */
void apply_list(sequencer_t *sequencer, const log_slot_t *slots, uint32_t count, int64_t sequence);
/* The legs of the list that is due, admitted or refused. */
void apply_due(sequencer_t *sequencer, const log_slot_t *slots, uint32_t count, int64_t sequence);
void apply_list_end(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence);
/* Bounds that the refusals of a command name: found by judging it again, on the state it was refused on. */
void refusal_limits(const sequencer_t *sequencer, const log_slot_t *slots, uint32_t count, int64_t limits[GROUP_SLOTS_MAX]);
void answer_refused(sequencer_t *sequencer, const log_slot_t *slot, int64_t sequence, int64_t limit);
void answer_order_refused(sequencer_t *sequencer, const log_slot_t *slot, uint64_t order_id, int64_t sequence, int64_t limit);

/* ---- log_writer.c: what the leader writes ---------------------------------------------------------------------------------------------- */

uint64_t log_now(const sequencer_t *sequencer);
uint64_t log_stamp(const sequencer_t *sequencer, uint64_t now);
/* In the log and on the answers' rings, for the worst command there is. */
bool log_has_room(sequencer_t *sequencer);
/* The next log slot, zeroed and stamped; the caller fills in the rest and calls log_seal(). Room was checked. */
log_slot_t *log_open(sequencer_t *sequencer, uint16_t template_id, uint64_t now);
void log_seal(sequencer_t *sequencer, const log_slot_t *slot);
/* Several records, linked or not, whose verdicts stand in them. */
void log_append(sequencer_t *sequencer, const log_slot_t *slots, uint32_t count);
void log_publish(sequencer_t *sequencer);
void log_marks(sequencer_t *sequencer, uint64_t now);
void log_genesis(sequencer_t *sequencer, uint64_t now);
void log_source_open(sequencer_t *sequencer, uint16_t source, uint64_t now);
/* Marks, ticks and hash marks that are due without a command; returns how many records. */
int64_t log_keep_time(sequencer_t *sequencer, uint64_t now);

/* ---- intake.c: commands ------------------------------------------------------------------------------------------------------------------ */

/* Bounds of this turn. */
void intake_note(sequencer_t *sequencer);
/* Take up to about `limit` frames; returns how many. */
int64_t intake_take(sequencer_t *sequencer, int64_t limit, uint64_t now);

/* ---- sequencer.c ---------------------------------------------------------------------------------------------------------------------------- */

/* At most `limit` reports below `bound`; returns how many. */
int64_t settle_some(sequencer_t *sequencer, uint8_t partition, int64_t bound, int64_t limit);

/* ---- settle.c: one report into the balances and the order table ------------------------------------------------------------------------ */

void settle_prefetch(const sequencer_t *sequencer, uint8_t partition, const report_slot_t *report);
void settle_report(sequencer_t *sequencer, uint8_t partition, const report_slot_t *report);

/* ---- follow.c: one bounded step of a sequencer whose log another node writes ------------------------------------------------- */

int64_t follow_poll(sequencer_t *sequencer, int64_t limit);

/* ---- queries.c --------------------------------------------------------------------------------------------------------------------- */

void answer_query(sequencer_t *sequencer, const log_slot_t *slot);
static inline bool is_query(uint16_t template_id)
{
    return template_id >= TEMPLATE_BALANCE_QUERY && template_id <= TEMPLATE_SESSION_QUERY;
}

/* ---- answers.c: ring 0 and the reply ring. `number` = false for reports outside the session's numbered flow ---------------------------- */

void *report0_begin(sequencer_t *sequencer, uint32_t session, uint16_t template_id, int64_t in_seq, bool number);
void report0_commit(sequencer_t *sequencer);
uint64_t report0_exec_id(const sequencer_t *sequencer);
void *reply_begin(sequencer_t *sequencer, uint32_t session, uint16_t template_id);
bool answers_have_room(sequencer_t *sequencer);
void answers_release(sequencer_t *sequencer);

#endif
