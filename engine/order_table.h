/* The sequencer's order table of one partition: who owns an order and what it may cost (CORE K3, section 5).
 *
 * One 64-byte line an open order; id mod N is the line and also the matcher's slot, so an id needs no hash. Ids grow; the next id
 * is the next number whose line is free. A line is freed when the order's final report is settled and no replace of it is
 * unanswered: freed earlier, a late answer would hit the line's next owner. Beside the lines: a free bitmap of three levels, links
 * of each account's open orders, replaces in flight, and the map (account, instrument, clOrdId) -> order id. */
#ifndef BULLRING_ENGINE_ORDERS_H
#define BULLRING_ENGINE_ORDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"

#define ORDER_ID_MAX (UINT64_C(1) << 53)
#define REPLACES_IN_FLIGHT_MAX 4
#define LINE_NONE UINT32_MAX

enum line_flag {
    LINE_FINAL = 1u << 0,   /* the final report is settled; only unanswered replaces keep the line */
    LINE_SELL = 1u << 1,
    LINE_MARKET = 1u << 2,  /* the limit is a protection price */
    LINE_TERMS = 1u << 3,   /* its order_terms are valid: it is more than a price and a quantity */
    LINE_AMOUNT = 1u << 4,  /* total is an amount of the quote asset; the hold only shrinks by fills */
    LINE_COVERED = 1u << 5, /* held is what the predecessor's cover leaves to hold; the first report completes it */
    LINE_PENDING = 1u << 6, /* leg of a list whose time has not come: known to nobody but us, holds nothing */
    LINE_POST_ONLY = 1u << 7,
    LINE_ALGO = 1u << 11,   /* waits for a trigger, or did */
    LINE_ICEBERG = 1u << 12,
    LINE_EXTRA = 1u << 13,  /* has a side entry at its matcher */
    LINE_QUOTE = 1u << 14,  /* a side of a quote */
    LINE_OCO = 1u << 15,    /* its hold is its list's */
};
#define LINE_TIF_SHIFT 8
#define LINE_TIF_MASK 7u

typedef struct order_line {
    uint64_t id; /* 0 = free */
    int64_t limit_ticks; /* market orders: the protection price */
    int64_t total_lots;  /* including filled */
    int64_t filled_lots; /* as of the settled reports */
    int64_t hold_units;
    uint64_t client_id;
    uint32_t account;
    uint32_t session;
    uint16_t instrument;
    uint16_t flags;
    uint32_t replaces; /* index of the replaces in flight, LINE_NONE = none */
} order_line_t;

_Static_assert(sizeof(order_line_t) == 64, "one cache line an order");

#define CLIENT_TEXT_SIZE 36

/* What few orders have, in the line's own place of a second array; valid with LINE_TERMS. */
typedef struct order_terms {
    char text[CLIENT_TEXT_SIZE]; /* the client's own id, zero-filled */
    uint32_t list;  /* index of its list + 1, 0 = none */
    int64_t stop_ticks; /* PX_NULL = none */
    int64_t display_lots; /* 0 = no iceberg */
    uint32_t expire; /* s, U32_NULL = none */
    uint16_t trailing_delta;
    uint16_t amends;
    uint8_t ord_type;
    uint8_t list_role;
    uint8_t triggered;
    uint8_t pad[5];
} order_terms_t;

_Static_assert(sizeof(order_terms_t) == 72, "no padding: hashed and stored as it is");

typedef struct replace_version {
    int64_t limit_ticks;
    int64_t total_lots;
    int64_t display_lots; /* QTY_NULL = stays, 0 = no iceberg */
    uint64_t client_id;
} replace_version_t;

typedef struct order_replaces {
    uint32_t count;
    uint32_t next_free;
    replace_version_t versions[REPLACES_IN_FLIGHT_MAX]; /* in log order; answered from the front */
} order_replaces_t;

typedef struct order_link {
    uint32_t next;
    uint32_t prev;
} order_link_t;

typedef struct client_entry {
    uint64_t hash; /* 0 = empty */
    uint64_t order_id;
} client_entry_t;

typedef struct orders {
    order_line_t *lines;
    order_terms_t *terms;
    order_link_t *links;
    uint64_t *used_words[3]; /* bitmap levels: bit set = all below used */
    order_replaces_t *replaces;
    client_entry_t *clients;
    uint64_t clients_mask;
    uint64_t seed;
    uint64_t last_id;
    uint32_t mask; /* N - 1 */
    uint32_t open;
    uint32_t extras; /* lines with LINE_EXTRA */
    uint32_t extras_max;
    uint32_t replaces_max;
    uint32_t replaces_free; /* head of the free list, LINE_NONE = none */
    uint32_t replaces_used;
} orders_t;

void orders_carve(orders_t *orders, arena_t *arena, uint32_t orders_max);
void orders_init(orders_t *orders);

static inline order_line_t *orders_line(const orders_t *orders, uint64_t order_id)
{
    return &orders->lines[order_id & orders->mask];
}

/* The terms of a line, NULL if it has none. */
static inline order_terms_t *orders_terms(const orders_t *orders, const order_line_t *line)
{
    return (line->flags & LINE_TERMS) == 0 ? (order_terms_t *)0 : &orders->terms[line->id & orders->mask];
}

/* The id the next accepted order gets; 0 when the table is full or ids have run out. Changes nothing. */
uint64_t orders_next_id(const orders_t *orders);
/* The id after that one, for the next order of the same command; `more` ids are given out already. */
uint64_t orders_id_after(const orders_t *orders, uint64_t order_id, uint32_t more);

/* Take the line of `order_id`; the caller fills it in, links it and registers the client id. */
order_line_t *orders_take(orders_t *orders, uint64_t order_id);
void orders_free(orders_t *orders, order_line_t *line);

/* Doubly linked list of an account's open orders of this partition; `head` lives in the account. */
void orders_link(orders_t *orders, const order_line_t *line, uint32_t *head);
void orders_unlink(orders_t *orders, const order_line_t *line, uint32_t *head);

uint64_t orders_client_hash(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t client_id);
void orders_prefetch_client(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t client_id);
/* The order of that client id (its own or one of a replace in flight), or NULL. The newest, if a quote's sides of now and before
 * share it. */
order_line_t *orders_find_client(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t client_id);
void orders_register_client(orders_t *orders, const order_line_t *line, uint64_t client_id);
void orders_forget_client(orders_t *orders, const order_line_t *line, uint64_t client_id);

/* Replaces in flight of a line. */
bool orders_can_replace(const orders_t *orders, const order_line_t *line);
void orders_push_replace(orders_t *orders, order_line_t *line, const replace_version_t *version);
replace_version_t orders_pop_replace(orders_t *orders, order_line_t *line);
static inline const order_replaces_t *orders_replaces(const orders_t *orders, const order_line_t *line)
{
    return line->replaces == LINE_NONE ? (const order_replaces_t *)0 : &orders->replaces[line->replaces];
}

#endif
