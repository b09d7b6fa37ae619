/* The resting orders of one matcher: an arena of order nodes, price levels, FIFOs, account lists, state hashes.
 *
 * An order's node is slot (order id mod N) of the arena: no hash table and no free list; the sequencer guarantees that the slot
 * of an id it gives out is free (CORE section 5). The hot node holds what matching reads and writes, 64 bytes; the cold one
 * what only answers and mass cancels need, 16 bytes. Levels come on top: 16 bytes a tick of each window, 44 bytes a far level.
 *
 * One mapping holds all of it and the matcher's other state; nothing in it is a pointer. Zeroed memory is the empty state. */
#ifndef BULLRING_ENGINE_BOOK_H
#define BULLRING_ENGINE_BOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/levels.h"
#include "engine/state_hash.h"
#include "orders.h"

/* Planted faults: tests/native/book_faults.c compiles the engine with them to show that the fuzz test bites. */
#ifdef BOOK_FAULTS
enum book_fault {
    BOOK_FAULT_NONE,
    BOOK_FAULT_LIFO,           /* newest order of a level first */
    BOOK_FAULT_HASH,           /* partial fills do not reach the state hash */
    BOOK_FAULT_STP_GROUP,      /* group 7 taken for account 7 */
    BOOK_FAULT_KEEPS_PRIORITY, /* a larger total keeps its place */
    BOOK_FAULT_FEE_FLOOR,      /* fees round down */
    BOOK_FAULT_FOK_LIMIT,      /* fill or kill counts beyond its limit */
    BOOK_FAULTS_COUNT,
};
extern enum book_fault book_fault;
#define FAULT(name) (book_fault == BOOK_FAULT_##name)
#else
#define FAULT(name) false
#endif

#define BOOK_TIERS 256
#define ORDER_NONE UINT32_MAX

enum order_flag {
    ORDER_SELL = 1u << 0,
    ORDER_STP_GROUP = 1u << 1, /* stp_key is a group, else an account */
    ORDER_POST_ONLY = 1u << 2,
    ORDER_OFF_BOOK = 1u << 3, /* out of its level while its replacement trades as taker */
};
#define ORDER_STP_MODE_SHIFT 4 /* the owner's mode, needed again when a replaced order trades */

typedef struct order {
    uint64_t id; /* 0 = the slot is free */
    int64_t price;
    int64_t leaves;
    int64_t cum;
    uint64_t cl_ord_id;
    uint32_t prev; /* FIFO of the level */
    uint32_t next;
    uint32_t account;
    uint32_t session;
    uint32_t stp_key;
    uint16_t book; /* index of the book: instrument id - 1 */
    uint8_t tier;
    uint8_t flags;
} order_t;

typedef struct order_cold {
    uint64_t client_tag;
    uint32_t account_prev; /* list of the account's orders in this partition, newest first */
    uint32_t account_next;
} order_cold_t;

_Static_assert(sizeof(order_t) == 64, "one cache line");
_Static_assert(sizeof(order_t) + sizeof(order_cold_t) <= 96, "memory per resting order");

typedef struct fee_rate {
    int32_t maker_ppm; /* millionths of the amount received; negative = rebate */
    int32_t taker_ppm;
} fee_rate_t;

typedef struct book {
    levels_t side[2]; /* bids, asks */
    state_hash_t hash;
    uint64_t update_id; /* last one given out, as are the next two */
    uint64_t trade_id;
    uint64_t prevented_id;
    int64_t quote_per_tick_lot;
    int64_t base_per_lot;
    uint32_t base_asset;
    uint32_t quote_asset;
    uint32_t order_count;
    uint8_t state; /* MARKET_STATE_...; 0 = not of this partition */
    uint64_t fees_set[BOOK_TIERS / 64]; /* tiers with a rate of this instrument's own */
    fee_rate_t fees[BOOK_TIERS];
} book_t;

typedef struct account {
    uint64_t sequence; /* last private report's number */
    uint32_t head; /* newest order, valid while open > 0 */
    uint32_t open;
} account_t;

/* Where the parts of the arena are in this process. */
typedef struct book_store {
    level_store_t levels;
    order_t *orders;
    order_cold_t *cold;
    book_t *books;
    account_t *accounts;
    uint32_t order_mask;
    uint32_t orders_max;
    uint32_t books_max;
    uint32_t accounts_max;
    uint32_t live; /* orders in slots: decides whether prefetching pays */
} book_store_t;

/* NULL, or which invariant is broken. For tests and audits; linear in everything. */
const char *book_check(const book_store_t *store);
void book_open(book_store_t *store, book_t *book, const instrument_add_t *terms, uint64_t window_offset);

static inline uint32_t order_index(const book_store_t *store, uint64_t id)
{
    return (uint32_t)id & store->order_mask;
}

static inline int order_side(const order_t *order)
{
    return order->flags & ORDER_SELL;
}

static inline uint8_t order_side_code(const order_t *order)
{
    return (uint8_t)(SIDE_BUY + (order->flags & ORDER_SELL));
}

static inline uint128_t order_mix(const order_t *order)
{
    return state_hash_mix(order->id, (uint64_t)order->price, (uint64_t)order->leaves, order_side_code(order));
}

static inline uint32_t level_front(const level_t *level)
{
    return level->head;
}

/* ---- account lists ---------------------------------------------------------------------------------------------------- */

static inline void book_account_link(book_store_t *store, uint32_t index, uint32_t account_id)
{
    account_t *account = store->accounts + account_id;
    order_cold_t *cold = store->cold + index;
    cold->account_prev = ORDER_NONE;
    cold->account_next = account->open > 0 ? account->head : ORDER_NONE;
    if (account->open > 0)
        store->cold[account->head].account_prev = index;
    account->head = index;
    account->open++;
    store->live++;
}

static inline void book_account_unlink(book_store_t *store, uint32_t index, uint32_t account_id)
{
    account_t *account = store->accounts + account_id;
    const order_cold_t *cold = store->cold + index;
    INVARIANT(account->open > 0);
    if (cold->account_prev != ORDER_NONE)
        store->cold[cold->account_prev].account_next = cold->account_next;
    else
        account->head = cold->account_next;
    if (cold->account_next != ORDER_NONE)
        store->cold[cold->account_next].account_prev = cold->account_prev;
    account->open--;
    store->live--;
}

/* ---- levels and FIFOs -------------------------------------------------------------------------------------------------- */

/* The order joins the back of its level. Its price, leaves and flags are set. */
static inline void book_append(const book_store_t *store, book_t *book, uint32_t index)
{
    order_t *order = store->orders + index;
    level_t *level = levels_open(&store->levels, &book->side[order_side(order)], order->price);
    order->next = ORDER_NONE;
    if (level->quantity == 0) {
        order->prev = ORDER_NONE;
        level->head = index;
        level->tail = index;
    } else if (FAULT(LIFO)) {
        order->prev = ORDER_NONE;
        order->next = level->head;
        store->orders[level->head].prev = index;
        level->head = index;
    } else {
        order->prev = level->tail;
        store->orders[level->tail].next = index;
        level->tail = index;
    }
    level->quantity += (uint64_t)order->leaves;
    state_hash_add(&book->hash, order_mix(order));
    book->order_count++;
}

/* The order leaves its level with all its leaves. */
static inline void book_detach_from(const book_store_t *store, book_t *book, level_t *level, uint32_t index)
{
    order_t *order = store->orders + index;
    INVARIANT(level->quantity >= (uint64_t)order->leaves);
    if (order->prev != ORDER_NONE)
        store->orders[order->prev].next = order->next;
    else
        level->head = order->next;
    if (order->next != ORDER_NONE)
        store->orders[order->next].prev = order->prev;
    else
        level->tail = order->prev;
    level->quantity -= (uint64_t)order->leaves;
    state_hash_remove(&book->hash, order_mix(order));
    book->order_count--;
    if (level->quantity == 0)
        levels_close(&store->levels, &book->side[order_side(order)], order->price);
}

static inline void book_detach(const book_store_t *store, book_t *book, uint32_t index)
{
    const order_t *order = store->orders + index;
    level_t *level = levels_find(&store->levels, &book->side[order_side(order)], order->price);
    INVARIANT(level != NULL);
    book_detach_from(store, book, level, index);
}

/* The order keeps its place with less quantity, and not nothing. */
static inline void book_reduce(const book_store_t *store, book_t *book, level_t *level, uint32_t index, int64_t quantity)
{
    order_t *order = store->orders + index;
    INVARIANT(quantity < order->leaves);
    (void)store;
    state_hash_remove(&book->hash, order_mix(order));
    order->leaves -= quantity;
    level->quantity -= (uint64_t)quantity;
    if (FAULT(HASH))
        order->leaves += quantity;
    state_hash_add(&book->hash, order_mix(order));
    if (FAULT(HASH))
        order->leaves -= quantity;
}

/* The slot becomes free. */
static inline void book_release(book_store_t *store, uint32_t index)
{
    order_t *order = store->orders + index;
    book_account_unlink(store, index, order->account);
    order->id = 0;
}

/* The touch moved far: let the windows follow, a bounded bit at a time. Once per input. */
static inline void book_follow(const book_store_t *store, book_t *book)
{
    for (int i = 0; i < 2; i++)
        if (UNLIKELY(book->side[i].sliding))
            levels_slide(&store->levels, &book->side[i]);
}

#endif
