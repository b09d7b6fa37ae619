#include "open_orders.h"

#include <stdlib.h>
#include <string.h>

#include "invariant.h"
#include "platform.h"

#define FIRST_CAPACITY 4096

static uint64_t key_hash(uint8_t partition, uint64_t id)
{
    /* Ids of a partition grow one by one: the product spreads them, and neighbours stay apart. */
    uint64_t key = (id ^ (uint64_t)partition << 56) * UINT64_C(0x9e3779b97f4a7c15);
    return key ^ key >> 31;
}

static void index_all(open_orders_t *orders, uint32_t *index, uint64_t mask)
{
    for (uint32_t i = 0; i < orders->used; i++) {
        const open_order_t *order = &orders->pool[i];
        if (order->id == 0)
            continue;
        uint64_t at = key_hash(order->partition, order->id) & mask;
        while (index[at] != 0)
            at = (at + 1) & mask;
        index[at] = i + 1;
    }
}

static bool grow(open_orders_t *orders)
{
    uint32_t capacity = orders->capacity == 0 ? FIRST_CAPACITY : orders->capacity * 2;
    uint64_t mask = (uint64_t)capacity * 2 - 1;
    open_order_t *pool = realloc(orders->pool, capacity * sizeof(open_order_t));

    if (pool == NULL)
        return false;
    orders->pool = pool;
    uint32_t *stack = realloc(orders->free, capacity * sizeof(uint32_t));
    if (stack == NULL)
        return false;
    orders->free = stack;
    uint32_t *index = calloc(mask + 1, sizeof(uint32_t));
    if (index == NULL)
        return false;
    index_all(orders, index, mask);
    free(orders->index);
    orders->index = index;
    orders->mask = mask;
    orders->capacity = capacity;
    return true;
}

void open_orders_free(open_orders_t *orders)
{
    free(orders->pool);
    free(orders->index);
    free(orders->free);
    *orders = (open_orders_t){0};
}

open_order_t *open_orders_add(open_orders_t *orders, uint8_t partition, uint64_t id)
{
    if (orders->count == orders->capacity && !grow(orders))
        return NULL;
    uint32_t place = orders->free_count > 0 ? orders->free[--orders->free_count] : orders->used++;
    uint64_t at = key_hash(partition, id) & orders->mask;
    while (orders->index[at] != 0)
        at = (at + 1) & orders->mask;
    orders->index[at] = place + 1;
    orders->count++;
    open_order_t *order = &orders->pool[place];
    *order = (open_order_t){.id = id, .partition = partition};
    return order;
}

/* Where it stands in the index, or an empty place. */
static uint64_t locate(const open_orders_t *orders, uint8_t partition, uint64_t id)
{
    uint64_t at = key_hash(partition, id) & orders->mask;

    for (; orders->index[at] != 0; at = (at + 1) & orders->mask) {
        const open_order_t *order = &orders->pool[orders->index[at] - 1];
        if (order->id == id && order->partition == partition)
            break;
    }
    return at;
}

open_order_t *open_orders_find(const open_orders_t *orders, uint8_t partition, uint64_t id)
{
    if (orders->count == 0 || id == 0)
        return NULL;
    uint32_t place = orders->index[locate(orders, partition, id)];
    return place == 0 ? NULL : &orders->pool[place - 1];
}

void open_orders_remove(open_orders_t *orders, open_order_t *order)
{
    uint64_t hole = locate(orders, order->partition, order->id);

    INVARIANT(orders->index[hole] != 0);
    orders->free[orders->free_count++] = orders->index[hole] - 1;
    /* Whoever was pushed on by the removed one moves back, so that a search may end at the first empty place. */
    for (uint64_t at = (hole + 1) & orders->mask; orders->index[at] != 0; at = (at + 1) & orders->mask) {
        const open_order_t *other = &orders->pool[orders->index[at] - 1];
        uint64_t home = key_hash(other->partition, other->id) & orders->mask;
        if (((at - home) & orders->mask) < ((at - hole) & orders->mask))
            continue;
        orders->index[hole] = orders->index[at];
        hole = at;
    }
    orders->index[hole] = 0;
    orders->count--;
    order->id = 0;
    order->dirty = 0;
}

void open_orders_prefetch(const open_orders_t *orders, uint8_t partition, uint64_t id)
{
    if (orders->capacity != 0)
        PREFETCH(&orders->index[key_hash(partition, id) & orders->mask]);
}
