/* Inside of a matcher, shared by engine/matcher*.c only. */
#ifndef BULLRING_ENGINE_MATCHER_STATE_H
#define BULLRING_ENGINE_MATCHER_STATE_H

#include <string.h>

#include "engine/book.h"
#include "engine/matcher.h"
#include "marketdata.h"

#define MATCHER_STEP_BUDGET 256
#define MATCHER_STEP_OUTPUTS_MAX 4 /* reports between two places where a step can stop, at most */
#define MATCHER_SCAN_BUDGET 4096   /* orders or levels a fill-or-kill scan visits in a step */
#define MATCHER_BATCH 32           /* records copied out of the log ring at a time */
#define FEE_SCALE 1000000          /* rates are millionths */

typedef struct session {
    uint64_t sequence;    /* last number given out */
    uint64_t last_report; /* its report sequence + 1; 0 = none */
} session_t;

/* What reports say about the record that caused them. */
typedef struct input {
    uint64_t sequence;
    uint64_t ts_ns;
    uint64_t ingress_ns;
    uint64_t seq_num;
    uint32_t session;
    uint32_t book; /* index of the book it touched last: its windows may want to follow */
} input_t;

typedef struct taker {
    order_t order;
    uint64_t client_tag;
    uint8_t stp_mode;
    uint8_t time_in_force;
    uint8_t ord_type;
    bool was_resting; /* a replaced order that trades: keeps slot and account link */
} taker_t;

enum work_kind {
    WORK_NONE,
    WORK_MATCH,
    WORK_FOK_SCAN,
    WORK_MASS_CANCEL,
    WORK_HASH_MARK,
};

/* The unfinished rest of the current input. */
typedef struct work {
    enum work_kind kind;
    taker_t taker;
    levels_iterator_t scan; /* fill or kill: where the count of the other side stands */
    uint32_t scan_order;
    uint64_t scan_quantity;
    mass_cancel_request_t mass;
    uint32_t mass_next;
    uint32_t mass_count;
    uint32_t hash_next; /* book index */
    uint64_t mark_index;
} work_t;

/* First thing in the arena. */
typedef struct matcher_state {
    int64_t position;
    int64_t settled;
    uint64_t window_next; /* arena offset of the next unused window */
    input_t input;
    work_t work;
    far_slab_t far_slab;
    uint64_t fees_set[BOOK_TIERS / 64]; /* tiers with a rate for all instruments */
    fee_rate_t fees[BOOK_TIERS];
} matcher_state_t;

struct matcher {
    book_store_t store;
    matcher_state_t *state;
    session_t *sessions;
    ring_t *log;
    ring_t *reports;
    ring_t *market;
    uint64_t exec_high;       /* partition << 56 */
    uint64_t report_head;     /* version and partition where a report slot's first word has them */
    uint32_t outputs_left;    /* of this step */
    report_slot_t *last_report; /* of this input; it and its trade are held back until the next or the end */
    int64_t last_group;       /* sequence of the first report of that trade */
    uint8_t *last_event_flags; /* of this input's last market event, likewise held back */
    int64_t last_event;
    int64_t reports_published;
    int64_t market_published;
    matcher_config_t config;
    uint64_t arena_size;
    uint8_t *arena;
    log_slot_t batch[MATCHER_BATCH];
};

/* matcher_orders.c */
void matcher_new_order(matcher_t *matcher, const log_slot_t *slot);
void matcher_cancel(matcher_t *matcher, const log_slot_t *slot);
void matcher_replace(matcher_t *matcher, const log_slot_t *slot);

/* matcher_match.c */
/* Continue; false = budget used up, work is left. */
bool matcher_match(matcher_t *matcher);
bool matcher_fok_scan(matcher_t *matcher);
/* A resting order ends: report, market event, slot freed. */
void matcher_cancel_resting(matcher_t *matcher, uint32_t index, uint16_t reason, uint8_t status, uint64_t ref_seq_num);

/* matcher_control.c */
void matcher_mass_cancel(matcher_t *matcher, const log_slot_t *slot);
void matcher_hash_mark(matcher_t *matcher, const log_slot_t *slot);
bool matcher_mass_cancel_step(matcher_t *matcher);
bool matcher_hash_mark_step(matcher_t *matcher);
void matcher_instrument_add(matcher_t *matcher, const log_slot_t *slot);
void matcher_instrument_state(matcher_t *matcher, const log_slot_t *slot);
void matcher_fee_tier_set(matcher_t *matcher, const log_slot_t *slot);
void matcher_session_bind(matcher_t *matcher, const log_slot_t *slot);
void matcher_session_negotiate(matcher_t *matcher, const log_slot_t *slot);
void matcher_settled_mark(matcher_t *matcher, const log_slot_t *slot);

static inline bool crosses(const levels_t *opposite, bool sells, int64_t price)
{
    if (levels_count(opposite) == 0)
        return false;
    return sells ? opposite->best >= price : opposite->best <= price;
}

/* The sequencer sends only orders of instruments that this partition has. */
static inline book_t *matcher_book(const matcher_t *matcher, uint32_t instrument)
{
    INVARIANT(instrument - 1 < matcher->store.books_max);
    book_t *book = matcher->store.books + (instrument - 1);
    INVARIANT(book->state != 0);
    return book;
}

static inline uint32_t book_instrument(const matcher_t *matcher, const book_t *book)
{
    return (uint32_t)(book - matcher->store.books) + 1;
}

/* Zero a slot with wide stores: at this size gcc 12 makes memset a `rep stos`, which costs more than the whole report. */
typedef uint64_t wide_t __attribute__((vector_size(32), may_alias));

static inline void slot_clear(void *slot, size_t size)
{
    wide_t *wide = slot;
    for (size_t i = 0; i < size / sizeof(wide_t); i++)
        wide[i] = (wide_t){0, 0, 0, 0};
}

/* ---- output ---------------------------------------------------------------------------------------------------------- */

#define FLAT __attribute__((flatten)) /* hot paths: everything they call from headers and this file, in line */
#define INLINE static inline __attribute__((always_inline)) /* a report is a handful of stores: a call would double it */

/* The first 32 bytes are written as four words, in the layout of slots.h. */
INLINE report_slot_t *report_slot_next(matcher_t *matcher, uint16_t template_id, uint32_t session, uint32_t account_seq,
                                       uint16_t flags, uint32_t seq_num, uint32_t distance)
{
    int64_t sequence = ring_claim(matcher->reports, 1);
    INVARIANT(sequence >= 0); /* a step starts and goes on only with room */
    report_slot_t *slot = (report_slot_t *)ring_slot(matcher->reports, sequence);
    uint64_t *words = (uint64_t *)(void *)slot;
    slot_clear(slot, sizeof(*slot));
    words[0] = matcher->report_head | (uint64_t)template_id << 32 | session;
    words[1] = (uint64_t)flags << 32 | account_seq;
    words[2] = (uint64_t)distance << 32 | seq_num;
    words[3] = matcher->state->input.sequence;
    matcher->outputs_left--;
    matcher->last_group = sequence;
    matcher->last_report = slot;
    return slot;
}

/* A private report, numbered for its session and its account. Returns the block, zeroed. */
INLINE void *report_numbered(matcher_t *matcher, uint16_t template_id, uint32_t session_id, uint32_t account_id,
                             uint16_t flags, uint64_t *exec_id)
{
    session_t *session = matcher->sessions + session_id;
    uint64_t sequence = (uint64_t)matcher->reports->claimed;
    uint64_t distance = session->last_report == 0 ? 0 : sequence + 1 - session->last_report;
    session->last_report = sequence + 1;
    *exec_id = matcher->exec_high | sequence;
    return report_slot_next(matcher, template_id, session_id,
                            (uint32_t)++matcher->store.accounts[account_id].sequence, flags,
                            (uint32_t)++session->sequence, distance > UINT32_MAX ? UINT32_MAX : (uint32_t)distance)
        ->block;
}

INLINE void *report_unnumbered(matcher_t *matcher, uint16_t template_id, uint32_t session_id, uint64_t *exec_id)
{
    *exec_id = matcher->exec_high | (uint64_t)matcher->reports->claimed;
    return report_slot_next(matcher, template_id, session_id, 0, 0, 0, 0)->block;
}

/* The next market event of a book. Returns the block, zeroed. */
INLINE void *event_next(matcher_t *matcher, book_t *book, uint16_t template_id, uint16_t block_length, size_t flags_offset)
{
    int64_t sequence = ring_claim(matcher->market, 1);
    INVARIANT(sequence >= 0); /* nobody gates market data */
    market_slot_t *slot = (market_slot_t *)ring_slot(matcher->market, sequence);
    uint64_t *words = (uint64_t *)(void *)slot;
    slot_clear(slot, sizeof(*slot));
    words[0] = ++book->update_id;
    words[1] = block_length | (uint64_t)template_id << 16 | (uint64_t)MARKETDATA_SCHEMA_ID << 32 |
               (uint64_t)MARKETDATA_SCHEMA_VERSION << 48;
    matcher->last_event = sequence;
    matcher->last_event_flags = slot->block + flags_offset;
    return slot->block;
}

#define EVENT(matcher, book, template_id, type) \
    ((type *)event_next(matcher, book, template_id, sizeof(type), offsetof(type, event_flags)))

#endif
