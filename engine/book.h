/* The orders of one matcher and the books they stand in: slots, price levels, FIFOs, account lists, digests.
 *
 * One mapping (the matcher's arena) holds all of it and the matcher's other state; nothing in it is a pointer. What is here keeps
 * structure; who trades with whom is matcher_match.c. */
#ifndef BULLRING_ENGINE_BOOK_H
#define BULLRING_ENGINE_BOOK_H

#include <string.h>

#include "engine/levels.h"
#include "engine/order.h"
#include "engine/state_hash.h"

/* Planted faults: tests/native/book_faults.c compiles the engine with them to show that the fuzz test bites. */
#ifdef BOOK_FAULTS
enum book_fault {
    BOOK_FAULT_NONE,
    BOOK_FAULT_LIFO,           /* newest order of a level first */
    BOOK_FAULT_HASH,           /* partial fills do not reach the digest */
    BOOK_FAULT_STP_GROUP,      /* group 7 taken for account 7 */
    BOOK_FAULT_KEEPS_PRIORITY, /* a larger total keeps its place */
    BOOK_FAULT_FEE_FLOOR,      /* fees round down */
    BOOK_FAULT_FOK_LIMIT,      /* fill or kill counts beyond its limit */
    BOOK_FAULT_SLICE_IN_PLACE, /* a new slice keeps the place of the old one */
    BOOK_FAULT_STOP_EARLY,     /* a stop fires one tick before its price */
    BOOK_FAULT_AUCTION_PRICE,  /* the uncrossing price ignores the surplus */
    BOOK_FAULTS_COUNT,
};
extern enum book_fault book_fault;
#define FAULT(name) (book_fault == BOOK_FAULT_##name)
#else
#define FAULT(name) false
#endif

#define BOOK_TIERS 256
#define SCHEDULE_ENTRIES 8

typedef struct fee_rate {
    int32_t maker_ppm; /* millionths of the amount received; negative = rebate */
    int32_t taker_ppm;
} fee_rate_t;

/* Orders outside the levels: waiting for a trigger, following the market, fired. */
typedef struct triggers {
    tree_t up;    /* by stop price: fire at last price >= key */
    tree_t down;  /* fire at last price <= key */
    tree_t runs[2];           /* trailing orders, buys and sells: runs of one extreme, by activation of their first */
    int64_t trailing_fire[2]; /* no trailing buy fires below, no trailing sell above */
    uint64_t activations;     /* given out */
    level_t queue;            /* fired, first in, first out */
    uint32_t count;           /* orders in all of these */
    bool noting;              /* what the last trade fires is being collected; how far, the next four say */
    uint8_t note_phase;
    uint32_t note_next;       /* extra to look at, 0 = a phase begins */
    uint64_t note_boundary;   /* trailing orders activated later than this one are not fired by this trade */
    int64_t note_fire;        /* trailing_fire of those looked at */
} triggers_t;

/* Timed changes of the market's state. */
typedef struct schedule_entry {
    uint32_t second_of_day;
    uint8_t state;
    uint8_t active;
    uint16_t pad;
} schedule_entry_t;

typedef struct market_clock {
    schedule_entry_t schedule[SCHEDULE_ENTRIES];
    uint64_t last_tick_ns;
    uint64_t next_change_ns; /* of a volatility sequence, 0 = none under way */
    uint64_t indicative_ns;  /* the last indicative price was published then, of this book: */
    uint64_t indicative_digest;
    uint64_t indicative_hidden; /* low halves, as they were then */
    int64_t reference; /* the volatility band's, a price; valid with has_reference */
    uint32_t up_bps, down_bps, reference_ms, halt_ms, auction_ms;
    bool has_reference;
    uint8_t pad[3];
} market_clock_t;

typedef struct book {
    levels_t side[2]; /* bids, asks */
    state_hash_t digest;  /* visible orders */
    state_hash_t hidden;  /* hidden quantities */
    state_hash_t terms;   /* what else side entries say: where, and with how much, orders wait, their slices, peers, dates */
    uint64_t update_id; /* last one given out, as are the next two */
    uint64_t trade_id;
    uint64_t prevented_id;
    int64_t last_price; /* valid with has_last_price */
    int64_t band_low; /* the volatility band: a trade outside halts the market; all prices where there is none */
    int64_t band_high;
    int64_t quote_per_tick_lot;
    int64_t base_per_lot;
    uint32_t base_asset;
    uint32_t quote_asset;
    uint32_t order_count; /* in levels */
    uint8_t state;        /* MARKET_STATE_...; 0 = not of this partition */
    bool has_last_price;
    bool has_reference_price;
    uint8_t pad;
    int64_t reference_price; /* InstrumentLimits.referencePx */
    uint64_t event_tail[2];  /* instrument and side, where the last word of an event has them */
    level_t auction_only;    /* extras of market orders in the auction */
    triggers_t triggers;
    tree_t expiries;
    market_clock_t clock;
    uint64_t fees_set[BOOK_TIERS / 64]; /* tiers with a rate of this instrument's own */
    fee_rate_t fees[BOOK_TIERS];
} book_t;

typedef struct matcher_account {
    uint64_t sequence; /* last private report's number */
    uint32_t head;     /* slot of the newest order, NOBODY if there is none */
    uint32_t firm;
} matcher_account_t;

typedef struct extra_slab {
    uint32_t free; /* first of the free list, 0 = none */
    uint32_t used; /* extras below were used at least once */
    uint32_t capacity;
    uint32_t pad;
} extra_slab_t;

/* The two ids of a quote as they stand; liveness is the orders' own. */
typedef struct quote_entry {
    uint64_t order_id[2];
} quote_entry_t;

/* Where the parts of the arena are in this process. */
typedef struct book_store {
    tree_store_t trees;
    order_t *orders;
    account_link_t *links; /* of account lists */
    order_rest_t *rests;
    extra_t *extras;
    book_t *books;
    matcher_account_t *accounts;
    quote_entry_t *quotes;
    extra_slab_t *extra_slab;
    uint32_t *live; /* orders in slots: decides whether prefetching pays */
    uint32_t order_mask;
    uint32_t books_max;
    uint32_t accounts_max;
    uint32_t quotes_max;
    uint32_t window_log2;
} book_store_t;

/* NULL, or which invariant is broken. For tests and audits; linear in everything. */
const char *book_check(const book_store_t *store);
/* The book of an instrument begins: windows at `windows`, two times levels_window_size() bytes. */
void book_open(const book_store_t *store, book_t *book, int64_t quote_per_tick_lot, int64_t base_per_lot, uint32_t base_asset,
               uint32_t quote_asset, void *windows);
/* A side entry for the order; the sequencer has seen to the room. */
extra_t *book_take_extra(book_store_t *store, uint32_t slot);

static inline uint32_t order_slot(const book_store_t *store, uint64_t id)
{
    return ((uint32_t)id & store->order_mask) + 1;
}

static inline uint32_t slot_of(const book_store_t *store, const order_t *order)
{
    return (uint32_t)(order - store->orders);
}

static inline order_rest_t *rest_of(const book_store_t *store, const order_t *order)
{
    return store->rests + (order - store->orders);
}

static inline book_t *book_of(const book_store_t *store, const order_t *order)
{
    return store->books + order->book;
}

/* The side entry, or NULL. */
static inline extra_t *extra_of(const book_store_t *store, const order_t *order)
{
    return (order->flags & ORDER_EXTRA) != 0 ? store->extras + order->extra : NULL;
}

/* What is open in all, hidden quantity included. */
static inline int64_t order_open(const book_store_t *store, const order_t *order)
{
    return LIKELY((order->flags & ORDER_EXTRA) == 0) ? order->leaves : order->leaves + store->extras[order->extra].hidden;
}

/* What no digest shows of an order with a side entry, in two terms: its hidden quantity, and what else decides its future. Taken out
 * of the book's hashes before anything of it changes, and put back after it. */
static inline uint128_t hidden_term(const order_t *order, const extra_t *extra)
{
    return extra->hidden == 0 ? 0 : state_hash_mix(order->id, (uint64_t)extra->hidden, 0, 0);
}

static inline uint128_t terms_term(const order_t *order, const extra_t *extra)
{
    uint64_t waiting = (order->flags & ORDER_OFF_BOOK) != 0 ? (uint64_t)order->leaves : 0;
    uint64_t flags = (uint64_t)(extra->flags & (EXTRA_OFF_BOOK | EXTRA_UP | EXTRA_AUCTION_ONLY)) << 56;
    return state_hash_mix(order->id, (uint64_t)extra->stop_price, (uint64_t)extra->display, waiting ^ flags) +
           state_hash_mix(order->id, (uint64_t)extra->first_display, extra->peer,
                          (uint64_t)extra->trailing_delta << 32 | extra->expire);
}

static inline void book_unseen_remove(book_t *book, const order_t *order, const extra_t *extra)
{
    state_hash_remove(&book->hidden, hidden_term(order, extra));
    state_hash_remove(&book->terms, terms_term(order, extra));
}

static inline void book_unseen_add(book_t *book, const order_t *order, const extra_t *extra)
{
    state_hash_add(&book->hidden, hidden_term(order, extra));
    state_hash_add(&book->terms, terms_term(order, extra));
}

/* All that decides the book's future. */
static inline state_hash_t book_hash(const book_t *book)
{
    state_hash_t hash = book->digest;
    state_hash_add(&hash, (uint128_t)book->hidden.high << 64 | book->hidden.low);
    state_hash_add(&hash, (uint128_t)book->terms.high << 64 | book->terms.low);
    return hash;
}

/* `yes` if `index` is not 0, else `no`, without a branch: which of them it is cannot be predicted. */
static inline uint32_t *link_or(uint32_t *yes, uint32_t *no, uint32_t index)
{
#if defined(__x86_64__)
    __asm__("test %2, %2\n\tcmovz %1, %0" : "+r"(yes) : "r"(no), "r"(index) : "cc");
    return yes;
#else
    return index != 0 ? yes : no;
#endif
}

/* ---- account lists ---------------------------------------------------------------------------------------------------- */

static inline void book_account_link(book_store_t *store, uint32_t account_id, uint32_t slot)
{
    matcher_account_t *account = store->accounts + account_id;
    uint32_t head = account->head;
    store->links[slot] = (account_link_t){.prev = NOBODY, .next = head};
    store->links[head].prev = slot;
    account->head = slot;
    ++*store->live;
}

static inline void book_account_unlink(book_store_t *store, uint32_t account_id, uint32_t slot)
{
    matcher_account_t *account = store->accounts + account_id;
    account_link_t link = store->links[slot];
    *link_or(&store->links[link.prev].next, &account->head, link.prev) = link.next;
    store->links[link.next].prev = link.prev;
    --*store->live;
}

/* ---- levels and FIFOs -------------------------------------------------------------------------------------------------- */

/* At the back of a FIFO. */
static inline void level_append(const book_store_t *store, level_t *level, order_t *order, uint32_t slot)
{
    uint32_t tail = level->tail;
    if (FAULT(LIFO)) {
        order->prev = NOBODY;
        order->next = level->head;
        *link_or(&store->orders[level->head].prev, &level->tail, level->head) = slot;
        level->head = slot;
    } else {
        order->prev = tail;
        order->next = NOBODY;
        *link_or(&store->orders[tail].next, &level->head, tail) = slot;
        level->tail = slot;
    }
}

static inline void level_remove(const book_store_t *store, level_t *level, const order_t *order)
{
    uint32_t prev = order->prev;
    uint32_t next = order->next;
    *link_or(&store->orders[prev].next, &level->head, prev) = next;
    *link_or(&store->orders[next].prev, &level->tail, next) = prev;
}

static inline uint128_t visible_term(const order_t *order)
{
    return digest_term(digest_key(order->id, order->rank), order->leaves);
}

/* The order joins the back of its level. Its rank, leaves and flags are set. */
static inline void book_append(const book_store_t *store, book_t *book, int side, order_t *order, uint32_t slot)
{
    level_append(store, levels_open(&store->trees, &book->side[side], order->rank), order, slot);
    state_hash_add(&book->digest, visible_term(order));
    book->order_count++;
}

/* The order leaves its level with all its visible quantity. */
static inline void book_detach_from(const book_store_t *store, book_t *book, int side, level_t *level, order_t *order)
{
    level_remove(store, level, order);
    state_hash_remove(&book->digest, visible_term(order));
    book->order_count--;
    if (level->head == NOBODY)
        levels_close(&store->trees, &book->side[side], order->rank);
}

static inline void book_detach(const book_store_t *store, book_t *book, int side, order_t *order)
{
    level_t *level = levels_find(&store->trees, &book->side[side], order->rank);
    INVARIANT(level != NULL);
    book_detach_from(store, book, side, level, order);
}

/* The same where it is known that the levels stand in the window. What the order says of itself comes in `is`: values, since the
 * compiler must expect every store to change it. */
typedef struct stand {
    uint64_t id;
    int64_t rank;
    int64_t leaves;
} stand_t;

static inline uint128_t stand_term(stand_t is)
{
    return digest_term(digest_key(is.id, is.rank), is.leaves);
}

static inline void book_append_near(const book_store_t *store, book_t *book, levels_t *levels, order_t *order, uint32_t slot,
                                    stand_t is)
{
    place_t place = levels_place(levels, is.rank);
    level_append(store, place.level, order, slot);
    levels_open_near(levels, place, is.rank);
    state_hash_add(&book->digest, stand_term(is));
    book->order_count++;
}

static inline void book_detach_near(const book_store_t *store, book_t *book, levels_t *levels, const order_t *order, stand_t is)
{
    place_t place = levels_place(levels, is.rank);
    level_remove(store, place.level, order);
    levels_left_near(&store->trees, levels, place, is.rank);
    state_hash_remove(&book->digest, stand_term(is));
    book->order_count--;
}

/* To the back of another level, or of its own, with another visible quantity. */
static inline void book_move_near(const book_store_t *store, book_t *book, levels_t *levels, order_t *order, uint32_t slot,
                                  stand_t was, stand_t is)
{
    place_t from = levels_place(levels, was.rank);
    place_t to = levels_place(levels, is.rank);
    uint128_t change = stand_term(is) - stand_term(was);
    level_remove(store, from.level, order);
    level_append(store, to.level, order, slot);
    levels_open_near(levels, to, is.rank);
    levels_left_near(&store->trees, levels, from, was.rank);
    order->rank = is.rank;
    order->leaves = is.leaves;
    state_hash_add(&book->digest, change);
}

/* The order keeps its place with less visible quantity, and not nothing. */
static inline void book_reduce(book_t *book, order_t *order, int64_t quantity)
{
    INVARIANT(quantity < order->leaves);
    if (!FAULT(HASH))
        state_hash_remove(&book->digest, digest_reduction(digest_key(order->id, order->rank), quantity));
    order->leaves -= quantity;
}

/* A slice is used up and the order has more: the next one stands at the back of the same level. */
static inline void book_requeue(const book_store_t *store, book_t *book, level_t *level, order_t *order, int64_t slice)
{
    uint64_t key = digest_key(order->id, order->rank);
    uint32_t slot = slot_of(store, order);
    state_hash_remove(&book->digest, digest_term(key, order->leaves));
    state_hash_add(&book->digest, digest_term(key, slice));
    order->leaves = slice;
    if (level->tail == slot || FAULT(SLICE_IN_PLACE))
        return;
    *link_or(&store->orders[order->prev].next, &level->head, order->prev) = order->next;
    store->orders[order->next].prev = order->prev;
    store->orders[level->tail].next = slot;
    order->prev = level->tail;
    order->next = NOBODY;
    level->tail = slot;
}

/* The touch moved far: let the windows follow, a bounded bit at a time. Once per input. */
static inline void book_follow(const book_store_t *store, book_t *book)
{
    if (LIKELY((book->side[0].sliding | book->side[1].sliding) == 0))
        return;
    for (int side = 0; side < 2; side++)
        if (book->side[side].sliding != 0)
            levels_slide(&store->trees, &book->side[side]);
}

#endif
