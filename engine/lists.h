/* Order lists (OCO, OTO, OTOCO): who belongs together, what is held for them, which legs are still to come, and the due-queue of what
 * lists cause (docs/MATCHING.md, section 12; CORE section 4).
 *
 * A list is known here until its last leg has ended. What a leg's end causes is put into the due-queue when the mark that settles it
 * is applied, and taken out when the record that it becomes is applied: a group of new orders, or a ListEnd. Only the leader
 * writes those records, before any command of a client. */
#ifndef BULLRING_ENGINE_LISTS_H
#define BULLRING_ENGINE_LISTS_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "ringbuf/include/orders.h"

#define LIST_LEGS_MAX 3
#define LIST_PENDING_MAX 2

enum list_due {
    LIST_NOTHING,
    LIST_START, /* the pending legs become orders */
    LIST_END,   /* all is over: pending legs end, the list is reported done and forgotten */
};

/* A leg whose time has not come, as it was admitted. */
typedef struct pending_leg {
    new_order_single_t order;
    int64_t first_display; /* QTY_NULL = none */
} pending_leg_t;

typedef struct order_list {
    uint64_t id; /* 0 = free; ids grow and are never used twice */
    uint64_t client_id;
    uint64_t order_id[LIST_LEGS_MAX];
    int64_t hold_units; /* OCO: one for both legs */
    uint32_t session;
    uint32_t account;
    uint32_t next; /* index + 1 in a queue, or of the free list */
    uint16_t instrument;
    uint8_t partition;
    uint8_t type; /* LIST_TYPE_... */
    uint8_t legs;
    uint8_t live;    /* legs that are orders, or will be without anybody's doing */
    uint8_t pending; /* legs to come */
    uint8_t due;     /* LIST_... it waits in a queue for */
    uint8_t refused; /* the matcher took none of it */
    uint8_t sell;    /* side of a pair */
    uint8_t pad[6];
    pending_leg_t leg[LIST_PENDING_MAX];
} order_list_t;

/* Indices + 1, 0 = none. */
typedef struct list_queue {
    uint32_t head;
    uint32_t tail;
} list_queue_t;

typedef struct lists {
    order_list_t *entries;
    uint32_t max;
    uint32_t used; /* entries below were used at least once */
    uint32_t free; /* index + 1 */
    uint32_t open;
    uint64_t last_id;
    list_queue_t due;
    list_queue_t *settled; /* by partition: what the reports since its last mark cause */
} lists_t;

void lists_carve(lists_t *lists, arena_t *arena, uint32_t lists_max, uint32_t partitions);
static inline bool lists_have_room(const lists_t *lists)
{
    return lists->open < lists->max;
}
/* A new list; its id is last_id + 1. */
uint32_t lists_take(lists_t *lists);
void lists_free(lists_t *lists, uint32_t index);
void lists_enqueue(lists_t *lists, list_queue_t *queue, uint32_t index);
/* The first of the due-queue is done with. */
void lists_dequeue(lists_t *lists);
/* A mark was applied: what the partition's reports caused is due. */
void lists_mark(lists_t *lists, uint8_t partition);

#endif
