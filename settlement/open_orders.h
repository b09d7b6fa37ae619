/* Orders that are open as of the last record derived, with what is held for each: docs/MONEY.md, section Holds and section Replace,
 * followed from the log's records and the reports. Nothing here is the engine's: agreeing with it is what reconciliation is for. */
#ifndef BULLRING_SETTLEMENT_OPEN_ORDERS_H
#define BULLRING_SETTLEMENT_OPEN_ORDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "rows.h"

#define VERSIONS_MAX 4 /* replaces of one order on their way: docs/PROTOCOL.md, section 9 */
#define UNITS_LIMIT (INT64_C(1) << 62)

/* Terms an order will have if a replace on its way is granted. */
typedef struct order_version {
    int64_t limit;
    int64_t total;
} order_version_t;

typedef struct open_order {
    uint64_t id; /* 0 = unused */
    uint64_t client_id;
    uint64_t created_ns;
    uint64_t updated_ns;
    uint64_t sequence; /* of the last record that changed it */
    uint32_t epoch;    /* likewise */
    int64_t limit;     /* ticks */
    int64_t total;     /* lots, filled included */
    int64_t filled;    /* lots */
    int64_t hold;      /* units of what it pays with */
    int64_t amount;    /* units of the quote asset in all fills */
    int64_t stop_price;
    int64_t display;
    uint32_t account;
    uint32_t instrument;
    uint32_t pays;     /* slot in books_t of the account in the asset it pays with */
    uint32_t gets;
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
    uint8_t dirty;     /* changed since its last row */
    order_version_t versions[VERSIONS_MAX]; /* oldest first */
    char client_text[CLIENT_TEXT_SIZE];
} open_order_t;

typedef struct open_orders {
    open_order_t *pool;
    uint32_t *index; /* open addressing over the pool, place + 1, load at most a half */
    uint32_t *free;  /* unused places of the pool, a stack */
    uint64_t mask;
    uint32_t free_count;
    uint32_t used;     /* places of the pool ever used */
    uint32_t capacity;
    uint32_t count;    /* open now */
} open_orders_t;

void open_orders_free(open_orders_t *orders);

/* A new order with this identity, zero otherwise. NULL when memory is short; the caller has checked that it is not open. */
open_order_t *open_orders_add(open_orders_t *orders, uint8_t partition, uint64_t id);

/* NULL if it is not open. */
open_order_t *open_orders_find(const open_orders_t *orders, uint8_t partition, uint64_t id);

void open_orders_remove(open_orders_t *orders, open_order_t *order);

/* Bring the lines a lookup of this order will touch into the cache. */
void open_orders_prefetch(const open_orders_t *orders, uint8_t partition, uint64_t id);

#endif
