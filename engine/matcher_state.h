/* Inside of a matcher, shared by engine/matcher*.c only. */
#ifndef BULLRING_ENGINE_MATCHER_STATE_H
#define BULLRING_ENGINE_MATCHER_STATE_H

#include "engine/book.h"
#include "engine/matcher.h"
#include "marketdata.h"

#define MATCHER_STEP_BUDGET 256
#define MATCHER_STEP_OUTPUTS_MAX 8 /* reports between two places where a step can stop, at most */
#define MATCHER_SCAN_BUDGET 4096   /* orders a step visits without writing about them */
#define MATCHER_BATCH 32           /* records copied out of the log ring at a time */
#define FEE_SCALE 1000000          /* rates are millionths */
#define BPS 10000
#define WORK_DEPTH_MAX 6

/* A build without private reports measures the book alone (scripts/bench); the exchange is never built so. */
#ifndef MATCHER_REPORTS
#define MATCHER_REPORTS 1
#endif

typedef struct matcher_session {
    uint64_t sequence;    /* last number given out */
    uint64_t last_report; /* its report sequence + 1; 0 = none */
} matcher_session_t;

/* What reports and events say about the record that caused them. */
typedef struct input {
    const log_slot_t *record;
    uint64_t sequence;
    uint32_t book; /* index of the book it touched last: its windows may want to follow, its trigger queue be worked off */
} input_t;

/* An order on its course through the book. */
typedef struct taker {
    order_t order; /* leaves = all that is open, hidden quantity included */
    order_rest_t rest;
    int64_t amount;  /* quote units left, of a market order by amount */
    int64_t minimum; /* quantity that must be there at once; 0 = any */
    uint16_t accept_flags; /* of its OrderAccepted */
    bool by_amount;
    bool seated;     /* has its slot already, off the book: replaced, triggered, or with a side entry */
    bool shown;      /* stood in the book before: readers know it */
    bool solicited;  /* its ends answer the input's request */
    bool halted;     /* the volatility band stopped it */
} taker_t;

/* Unfinished work, innermost on top of a small stack. Each kind is there at most once. */
enum work_kind {
    WORK_SCAN,        /* count what a taker could trade */
    WORK_COURSE,      /* a taker meets the book */
    WORK_DRAIN,       /* fired orders of a book */
    WORK_MASS_CANCEL,
    WORK_QUOTE,
    WORK_TRANSITION,  /* a market changes its state */
    WORK_UNCROSS,
    WORK_INDICATIVE,
    WORK_TICK,
    WORK_HASH_MARK,
    WORK_KINDS,
};

typedef struct scan {
    levels_iterator_t at;
    int64_t low; /* what is outside would halt the market */
    int64_t high;
    uint32_t slot;
    int64_t quantity;
} scan_t;

/* Orders of one account, of a firm's, or of all, filtered: mass cancels and kill switches. */
typedef struct mass_cancel {
    mass_cancel_request_t request; /* filters, and what the answer repeats */
    uint32_t account; /* whose list is walked, up to the last one */
    uint32_t account_last;
    uint32_t firm; /* 0 = any */
    uint32_t next; /* slot in that list */
    uint32_t count;
    uint16_t reason;
    bool any_session;
    bool started; /* `next` belongs to `account` */
} mass_cancel_t;

typedef struct quote_work {
    quote_t request;
    quote_leg_t leg[2];
    uint64_t order_id[2]; /* given out for this quote */
    uint32_t book;
    uint8_t phase;
    uint8_t tier;
    bool placed[2];
    uint16_t code[2];
} quote_work_t;

typedef struct transition {
    uint64_t request_id;
    uint32_t book;
    uint8_t target;
    uint8_t phase;
} transition_t;

/* What crosses, counted greedily by order from the best: what auction prices are found with. */
typedef struct crossing {
    levels_iterator_t at[2];
    uint32_t slot[2];      /* order counted next, NOBODY at the end of a side */
    int64_t left[2];       /* of it, not counted yet */
    int64_t last_price[2]; /* of the last level of which something was counted */
    int64_t next_price[2]; /* of the level it stopped in, valid with has_next; what is left there: */
    int64_t next_quantity[2];
    int64_t after_price[2]; /* of the level behind that one, valid with has_after */
    int64_t volume;
    uint8_t phase;
    bool has_next[2];
    bool has_after[2];
} crossing_t;

typedef struct auction_price {
    int64_t price; /* valid with volume > 0 */
    int64_t volume;
    int64_t surplus; /* positive: bids */
} auction_price_t;

typedef struct uncross {
    crossing_t crossing;
    auction_price_t result;
    uint32_t book;
    uint8_t phase;
    bool traded;
} uncross_t;

typedef struct tick_work {
    uint64_t now_ns;
    uint64_t schedule_ns; /* the schedule's entries up to here, and to this entry of that time, are done */
    uint32_t schedule_entry;
    uint32_t book;
    uint8_t phase;
} tick_work_t;

typedef struct work {
    uint32_t depth;
    uint32_t stack[WORK_DEPTH_MAX];
    taker_t taker;
    scan_t scan;
    mass_cancel_t mass;
    quote_work_t quote;
    transition_t transition;
    uncross_t uncross;
    uncross_t indicative;
    tick_work_t tick;
    uint32_t drain_book;
    uint32_t hash_next; /* book index */
    uint64_t mark_index;
} work_t;

/* First thing in the arena. */
typedef struct matcher_state {
    int64_t position;
    int64_t settled;
    uint64_t window_next; /* arena offset of the next unused window */
    uint32_t live;        /* orders in slots */
    uint32_t books_used;  /* highest instrument id seen */
    uint32_t group_count; /* frames of an unfinished group */
    uint32_t pad;
    log_slot_t group[GROUP_SLOTS_MAX];
    work_t work;
    tree_slab_t trees;
    extra_slab_t extras;
    uint64_t fees_set[BOOK_TIERS / 64]; /* tiers with a rate for all instruments */
    fee_rate_t fees[BOOK_TIERS];
} matcher_state_t;

struct matcher {
    book_store_t store;
    matcher_state_t *state;
    input_t input; /* not state: the record a step works on comes from the log, and snapshots lie between records */
    log_slot_t kept; /* the record of an input that is done in more than one step */
    matcher_session_t *sessions;
    ring_t *log;
    ring_t *reports;
    ring_t *market;
    uint64_t exec_high;         /* partition << 56 */
    uint64_t report_head;       /* version and partition where a report slot's first word has them */
    uint32_t outputs_left;      /* of this step */
    uint32_t visits_left;       /* of this step */
    report_slot_t *last_report; /* of this input; it and its group are held back until the next or the end */
    int64_t last_group;         /* sequence of the first report of that group */
    bool group_open;            /* the last report said that more of its group follow */
    uint8_t *last_event_flags;  /* of this input's last market event, likewise held back */
    int64_t last_event;
    int64_t reports_published;
    int64_t market_published;
    matcher_config_t config;
    int64_t quarantined[QUARANTINED_MAX]; /* ascending; from the log, so no state */
    uint32_t quarantined_count;
    uint64_t arena_size;
    uint8_t *arena;
    log_slot_t batch[MATCHER_BATCH];
};

#define INLINE static inline __attribute__((always_inline)) /* a report is a handful of stores: a call would double it */
#define FLAT __attribute__((flatten))                       /* hot paths: everything they call, in line */
#define RARE __attribute__((noinline, cold))

/* From here on reports and events are about this record. */
INLINE void speak_of(matcher_t *matcher, const log_slot_t *slot, int64_t sequence)
{
    INVARIANT(slot->session <= matcher->config.sessions_max);
    matcher->input.record = slot;
    matcher->input.sequence = (uint64_t)sequence;
}

/* ---- matcher.c -------------------------------------------------------------------------------------------------------- */

/* Put work on top; it is done by matcher_work(). */
static inline void work_push(matcher_t *matcher, enum work_kind kind)
{
    work_t *work = &matcher->state->work;
    INVARIANT(work->depth < WORK_DEPTH_MAX);
    work->stack[work->depth++] = kind;
}

static inline void work_pop(matcher_t *matcher)
{
    INVARIANT(matcher->state->work.depth > 0);
    matcher->state->work.depth--;
}

static inline bool step_is_over(const matcher_t *matcher)
{
    return matcher->outputs_left < MATCHER_STEP_OUTPUTS_MAX || matcher->visits_left == 0;
}

/* ---- matcher_orders.c: what clients ask for ----------------------------------------------------------------------------- */

void matcher_new_order(matcher_t *matcher, const log_slot_t *slot, const order_details_t *details);
void matcher_replace(matcher_t *matcher, const log_slot_t *slot);
void matcher_amend(matcher_t *matcher, const log_slot_t *slot);
void matcher_status(matcher_t *matcher, const log_slot_t *slot);
/* 0, or why an order of that kind is not taken in the market's state. */
uint16_t market_refuses(const book_t *book, uint8_t ord_type, bool immediate);

/* ---- matcher_groups.c: linked frames ------------------------------------------------------------------------------------- */

/* Ends at the record at `position`. */
void matcher_group(matcher_t *matcher, const log_slot_t *slots, uint32_t count);
/* Admitted, and for this partition or all. */
static inline bool record_is_ours(const matcher_t *matcher, const log_slot_t *slot)
{
    return (slot->partition == matcher->config.partition || slot->partition == PARTITION_ALL) &&
           (slot->flags & SLOT_FLAG_REJECT) == 0;
}
/* Money that covers `quantity` at `price` at worst, in units of the asset paid. */
int64_t cover_of(const book_t *book, int side, int64_t price, int64_t quantity);

/* Instead of doing it: all is answered with Quarantined. */
void matcher_refuse_group(matcher_t *matcher, const log_slot_t *slots, uint32_t count);
void matcher_refuse_quote(matcher_t *matcher, const log_slot_t *slots);

/* ---- matcher_match.c: takers --------------------------------------------------------------------------------------------- */

bool matcher_course(matcher_t *matcher); /* steps: false = out of budget, more to do */
bool matcher_scan(matcher_t *matcher);
/* Count for it first: FOK, minimum quantity. */
void matcher_begin_scan(matcher_t *matcher);
/* What is left of a taker stands at the back of its level. */
void matcher_rest(matcher_t *matcher, const taker_t *taker);
/* One trade of two resting orders at an auction's price; the younger counts as taker. */
void matcher_auction_trade(matcher_t *matcher, book_t *book, level_t *const level[2], int64_t price);
/* What the order's owner meets of his own. */
static inline bool same_owner(const order_t *maker, const order_t *taker)
{
    return maker->stp_key == taker->stp_key ||
           (FAULT(STP_GROUP) && ((maker->stp_key ^ taker->stp_key) & ~STP_GROUP_BIT) == 0);
}

/* ---- matcher_ends.c: how orders end --------------------------------------------------------------------------------------- */

typedef struct ending {
    uint16_t reason; /* CANCEL_REASON_... */
    uint8_t status;  /* ORD_STATUS_... */
    uint64_t ref_seq_num;
} ending_t;

/* An order with a slot ends, wherever it stands: report to its own session, market event, peer, slot freed. */
void matcher_end_order(matcher_t *matcher, order_t *order, ending_t ending);
/* The same for its peer, if it is a leg of an OCO pair that has one left. */
void matcher_end_peer(matcher_t *matcher, extra_t *extra, ending_t ending);
/* Out of its level, trigger list or queue. */
void matcher_unseat(matcher_t *matcher, order_t *order);
/* Slot, side entry and lists are given back; the order stands nowhere any more. */
void matcher_free_order(matcher_t *matcher, order_t *order);

/* ---- matcher_triggers.c ---------------------------------------------------------------------------------------------------- */

/* The order, with its side entry filled in, begins to wait; true if its condition already holds. */
bool trigger_would_fire(const book_t *book, const extra_t *extra);
void trigger_wait(matcher_t *matcher, order_t *order, extra_t *extra);
void trigger_leave(matcher_t *matcher, const order_t *order, extra_t *extra);
/* A trade at the book's last price has happened. */
void triggers_traded(matcher_t *matcher, book_t *book);
/* Collect what it fired; false = out of budget. */
bool triggers_note(matcher_t *matcher, book_t *book);
bool matcher_drain(matcher_t *matcher);
/* Work off the trigger queue of a book; false = there is nothing to do. */
static inline bool matcher_begin_drain(matcher_t *matcher, uint32_t index)
{
    const book_t *book = matcher->store.books + index;
    if (LIKELY(book->triggers.queue.head == 0) || book->state != MARKET_STATE_CONTINUOUS)
        return false;
    matcher->state->work.drain_book = index;
    work_push(matcher, WORK_DRAIN);
    return true;
}
void expiry_set(matcher_t *matcher, book_t *book, extra_t *extra, uint32_t expire);
void expiry_clear(matcher_t *matcher, book_t *book, extra_t *extra);

/* ---- matcher_quotes.c ------------------------------------------------------------------------------------------------------- */

void matcher_quote(matcher_t *matcher, const log_slot_t *slots);
bool matcher_quote_step(matcher_t *matcher);

/* ---- matcher_auction.c -------------------------------------------------------------------------------------------------------- */

bool matcher_uncross(matcher_t *matcher);
bool matcher_indicative(matcher_t *matcher);
void uncross_begin(matcher_t *matcher, const book_t *book);
void indicative_begin(matcher_t *matcher, const book_t *book);
bool book_is_crossed(const book_t *book);

/* ---- matcher_clock.c: states and time ----------------------------------------------------------------------------------------- */

void transition_begin(matcher_t *matcher, book_t *book, uint8_t target, uint64_t request_id);
bool matcher_transition(matcher_t *matcher);
void matcher_tick(matcher_t *matcher, const log_slot_t *slot);
bool matcher_tick_step(matcher_t *matcher);
/* A trade at `price` would leave the volatility band: the market halts. True if so. */
bool volatility_halts(matcher_t *matcher, book_t *book, int64_t price);
void volatility_set_reference(book_t *book, int64_t price);
/* Lowest and highest price of a trade around a reference. */
void volatility_band(const market_clock_t *clock, int64_t reference, int64_t *low, int64_t *high);

/* ---- matcher_control.c -------------------------------------------------------------------------------------------------------- */

void matcher_mass_cancel(matcher_t *matcher, const log_slot_t *slot);
void matcher_hash_mark(matcher_t *matcher, const log_slot_t *slot);
void matcher_kill_switch(matcher_t *matcher, const log_slot_t *slot);
bool matcher_mass_cancel_step(matcher_t *matcher);
bool matcher_hash_mark_step(matcher_t *matcher);
void matcher_instrument_add(matcher_t *matcher, const log_slot_t *slot);
void matcher_instrument_limits(matcher_t *matcher, const log_slot_t *slot);
void matcher_instrument_state(matcher_t *matcher, const log_slot_t *slot);
void matcher_instrument_volatility(matcher_t *matcher, const log_slot_t *slot);
void matcher_instrument_schedule(matcher_t *matcher, const log_slot_t *slot);
void matcher_account_create(matcher_t *matcher, const log_slot_t *slot);
void matcher_fee_tier_set(matcher_t *matcher, const log_slot_t *slot);
void matcher_session_bind(matcher_t *matcher, const log_slot_t *slot);
void matcher_session_negotiate(matcher_t *matcher, const log_slot_t *slot);
void matcher_settled_mark(matcher_t *matcher, const log_slot_t *slot);

/* The sequencer sends only orders of instruments that this partition has. */
static inline book_t *matcher_book(const matcher_t *matcher, uint32_t instrument)
{
    INVARIANT(instrument - 1 < matcher->store.books_max);
    book_t *book = matcher->store.books + (instrument - 1);
    INVARIANT(book->state != 0);
    return book;
}

static inline uint32_t book_index(const matcher_t *matcher, const book_t *book)
{
    return (uint32_t)(book - matcher->store.books);
}

/* Would an order of this rank trade with the best level of the other side? `opposite` is that side. */
static inline bool crosses(const levels_t *opposite, int64_t own_rank)
{
    return opposite->best <= ~own_rank; /* the limit, as a rank of the other side */
}

#endif
