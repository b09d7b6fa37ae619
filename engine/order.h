/* An order in a matcher, in four parts: the node that matching reads and writes, one cache line; its links in its account's list,
 * eight of them a line, since orders of one account come from all over the book; the rest, which only answers need; and a side
 * entry for the few orders that are more than a price and a quantity.
 *
 * Node, links and rest stand in slot (order id mod N) + 1 of their arrays: no hash table and no free list, for the sequencer
 * guarantees that the slot of an id it gives out is free (CORE section 5). Slot 0 is nobody's: links end there, and may be written
 * through. */
#ifndef BULLRING_ENGINE_ORDER_H
#define BULLRING_ENGINE_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "invariant.h"
#include "orders.h"

#define NOBODY 0u
#define STP_GROUP_BIT 0x80000000u /* in stp_key: a group's id, else an account's */

enum order_flag {
    ORDER_SELL = 1u << 0,
    ORDER_POST_ONLY = 1u << 1,
    ORDER_EXTRA = 1u << 2,    /* has a side entry */
    ORDER_OFF_BOOK = 1u << 3, /* in no level: waits, is queued, or its replacement trades as taker */
};
#define ORDER_STP_MODE_SHIFT 4 /* the owner's mode, needed again when the order trades as taker */

typedef struct order {
    uint64_t id;    /* 0 = the slot is free */
    int64_t rank;   /* levels.h; of market orders: of the protection price */
    int64_t leaves; /* open and visible: an iceberg's slice */
    int64_t cum;
    uint64_t cl_ord_id;
    uint32_t prev; /* FIFO of the level */
    uint32_t next;
    uint32_t account;
    uint32_t stp_key;
    uint32_t extra; /* side entry, valid with ORDER_EXTRA */
    uint16_t book;  /* index of the book: instrument id - 1 */
    uint8_t tier;
    uint8_t flags;
} order_t;

/* The account's orders in this partition, newest first. */
typedef struct account_link {
    uint32_t prev;
    uint32_t next;
} account_link_t;

typedef struct order_rest {
    uint64_t client_tag;
    uint32_t session;
    uint32_t exec_inst;
    uint8_t ord_type;
    uint8_t time_in_force;
    uint8_t pad[6];
} order_rest_t;

_Static_assert(sizeof(order_t) == 64, "one cache line");
_Static_assert(sizeof(order_t) + sizeof(account_link_t) + sizeof(order_rest_t) <= 96, "memory per resting order");

enum extra_flag {
    EXTRA_UP = 1u << 0,           /* trigger: last price at or above stop_price, else at or below */
    EXTRA_WAITING = 1u << 1,      /* stands in a trigger level */
    EXTRA_TRAILING = 1u << 2,     /* stands in a trailing run */
    EXTRA_QUEUED = 1u << 3,       /* has fired, stands in the trigger queue */
    EXTRA_DATED = 1u << 4,        /* stands in an expiry level */
    EXTRA_AUCTION_ONLY = 1u << 5, /* a market order in an auction, in the book's list of them */
};
#define EXTRA_OFF_BOOK (EXTRA_WAITING | EXTRA_TRAILING | EXTRA_QUEUED) /* at most one of them */

/* One list membership at a time: trigger level, trailing run, trigger queue or auction-only list. */
typedef struct extra {
    uint32_t owner; /* slot of its order; links the free list */
    uint32_t flags;
    int64_t hidden;  /* quantity not shown yet */
    int64_t display; /* slice; 0 = no iceberg */
    int64_t first_display; /* slice to show first, 0 = display */
    int64_t stop_price;    /* PX_OPT_NULL = none */
    uint64_t peer;         /* order id of the other leg of an OCO pair, 0 = none */
    uint64_t activation;   /* trailing: number of its activation; runs are known by their first */
    int64_t extreme;       /* of the first order of a run: the run's */
    uint32_t expire;       /* s since the epoch */
    uint32_t prev;         /* extras, 0 = none */
    uint32_t next;
    uint32_t expire_prev;
    uint32_t expire_next;
    uint16_t trailing_delta; /* basis points, 0 = not trailing */
    uint16_t delta_min;      /* of the first order of a run: at most the smallest of the run */
    uint32_t pad[2];
} extra_t;

_Static_assert(sizeof(extra_t) <= 128, "two cache lines");

static inline int order_side(const order_t *order)
{
    return order->flags & ORDER_SELL;
}

static inline uint8_t order_side_code(const order_t *order)
{
    return (uint8_t)(SIDE_BUY + (order->flags & ORDER_SELL));
}

/* Rank and price are the same but for bids, where one is the other's complement. */
static inline int64_t rank_of_price(int64_t price, int side)
{
    return price ^ ((int64_t)side - 1);
}

static inline int64_t order_price(const order_t *order)
{
    return rank_of_price(order->rank, order_side(order));
}

static inline uint8_t order_stp_mode(const order_t *order)
{
    return order->flags >> ORDER_STP_MODE_SHIFT;
}

#endif
