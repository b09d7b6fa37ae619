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
    LINE_FINAL = 1u << 0, /* the final report is settled; only unanswered replaces keep the line */
    LINE_SELL = 1u << 1,
    LINE_MARKET = 1u << 2,
};
#define LINE_TIF_SHIFT 8

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

typedef struct replace_version {
    int64_t limit_ticks;
    int64_t total_lots;
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
    order_link_t *links;
    uint64_t *used_words[3]; /* bitmap levels: bit set = all below used */
    order_replaces_t *replaces;
    client_entry_t *clients;
    uint64_t clients_mask;
    uint64_t seed;
    uint64_t last_id;
    uint32_t mask; /* N - 1 */
    uint32_t open;
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

/* The id the next accepted order gets; 0 when the table is full or ids have run out. Changes nothing. */
uint64_t orders_next_id(const orders_t *orders);

/* Take the line of `order_id`; the caller fills it in, links it and registers the client id. */
order_line_t *orders_take(orders_t *orders, uint64_t order_id);
void orders_free(orders_t *orders, order_line_t *line);

/* Doubly linked list of an account's open orders of this partition; `head` lives in the account. */
void orders_link(orders_t *orders, const order_line_t *line, uint32_t *head);
void orders_unlink(orders_t *orders, const order_line_t *line, uint32_t *head);

uint64_t orders_client_hash(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t client_id);
void orders_prefetch_client(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t client_id);
/* The open order of that client id (its own or one of a replace in flight), or NULL. */
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
