/* Orders that are open as of the last record derived, with what is held for each, and the lists and quotes they belong to:
 * docs/LEDGER.md, section Holds, followed from the log's records and the reports. Nothing here is the engine's: agreeing with it
 * is what reconciliation is for. */
#ifndef BULLRING_SETTLEMENT_OPEN_ORDERS_H
#define BULLRING_SETTLEMENT_OPEN_ORDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "pool.h"
#include "rows.h"

#define VERSIONS_MAX 4 /* replaces of one order on their way: docs/PROTOCOL.md, section 9 */
#define QUOTES_ON_THEIR_WAY_MAX 4 /* of one set: docs/MATCHING.md, section 11 */
#define LEGS_MAX 3
#define UNITS_LIMIT (INT64_C(1) << 62)

/* Terms an order will have if a replace on its way is granted. */
typedef struct order_version {
    int64_t limit;
    int64_t total;
    int64_t display; /* QTY_OPT_NULL = as it was */
} order_version_t;

typedef struct open_order {
    uint64_t id;
    uint64_t client_id;
    uint64_t created_ns;
    uint64_t updated_ns;
    uint64_t sequence; /* of the last record that changed it */
    uint32_t epoch;    /* likewise */
    int64_t limit;     /* ticks */
    int64_t total;     /* lots, filled included; by amount: units of the quote asset */
    int64_t filled;    /* lots */
    int64_t hold;      /* units of what it pays with */
    int64_t amount;    /* units of the quote asset in all fills */
    int64_t stop_price;
    int64_t display;
    uint32_t account;
    uint32_t instrument;
    uint32_t pays;     /* slot in books_t of the account in the asset it pays with */
    uint32_t gets;
    uint32_t list;     /* place + 1 of its list, 0 = none */
    uint32_t exec_inst;
    uint32_t expire_s;
    uint16_t trailing;
    uint8_t partition;
    uint8_t side;
    uint8_t order_type;
    uint8_t time_in_force;
    uint8_t status;
    uint8_t tier;
    uint8_t version_count;
    bool dirty;     /* changed since its last row */
    bool covered;   /* part of its hold is still its predecessor's */
    bool by_amount; /* it trades for an amount; nothing comes back before its end */
    bool paired;    /* its hold is its list's */
    bool pending;   /* leg whose time has not come: nothing is held */
    bool unseen;    /* side of a quote that may never stand: no row of it yet */
    order_version_t versions[VERSIONS_MAX]; /* oldest first */
    char client_text[CLIENT_TEXT_SIZE];
} open_order_t;

/* An order list, until its ListEnd. */
typedef struct order_list {
    uint64_t id;
    uint64_t order_id[LEGS_MAX]; /* 0 = ended */
    int64_t hold;                /* of a pair: one for both legs */
    uint32_t next;               /* place + 1 of the next list whose pending legs are due */
    uint8_t type;                /* LIST_TYPE_... */
    uint8_t partition;
    uint8_t legs;
    uint8_t first_pending; /* legs before it are orders */
} order_list_t;

/* What of (account, instrument, quote set) is on its way to its matcher. */
typedef struct open_quote {
    uint64_t coming[QUOTES_ON_THEIR_WAY_MAX][2]; /* order ids, bid and ask, 0 = nothing is placed; oldest first */
    uint8_t count;
} open_quote_t;

typedef struct open_orders {
    pool_t orders; /* of open_order_t */
    pool_t lists;  /* of order_list_t */
    pool_t quotes; /* of open_quote_t */
    uint32_t due_first; /* lists whose working leg is filled, in the order in which it was booked; place + 1 */
    uint32_t due_last;
} open_orders_t;

static inline uint64_t open_order_key(uint8_t partition, uint64_t id)
{
    return (uint64_t)partition << 56 | id;
}

/* Instruments have 16 bits. */
static inline uint64_t open_quote_key(uint32_t account, uint32_t instrument, uint8_t set)
{
    return (uint64_t)account << 32 | (uint64_t)instrument << 8 | set;
}

static inline open_order_t *open_order_at(const open_orders_t *open, uint32_t place)
{
    return (open_order_t *)(void *)open->orders.items + place;
}

static inline order_list_t *order_list_at(const open_orders_t *open, uint32_t place)
{
    return (order_list_t *)(void *)open->lists.items + place;
}

static inline open_quote_t *open_quote_at(const open_orders_t *open, uint32_t place)
{
    return (open_quote_t *)(void *)open->quotes.items + place;
}

/* NULL if it is not open. */
static inline open_order_t *open_orders_find(const open_orders_t *open, uint8_t partition, uint64_t id)
{
    uint32_t place = pool_find(&open->orders, open_order_key(partition, id));
    return place == PLACE_NONE ? NULL : open_order_at(open, place);
}

static inline void open_orders_free(open_orders_t *open)
{
    pool_free(&open->orders);
    pool_free(&open->lists);
    pool_free(&open->quotes);
}

#endif
