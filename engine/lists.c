#include "lists.h"

#include "invariant.h"

void lists_carve(lists_t *lists, arena_t *arena, uint32_t lists_max, uint32_t partitions)
{
    lists->max = lists_max;
    lists->entries = arena_take(arena, lists_max, sizeof(order_list_t));
    lists->settled = arena_take(arena, (size_t)partitions + 1, sizeof(list_queue_t));
}

uint32_t lists_take(lists_t *lists)
{
    uint32_t index = lists->free != 0 ? lists->free - 1 : lists->used;

    INVARIANT(index < lists->max);
    if (lists->free != 0)
        lists->free = lists->entries[index].next;
    else
        lists->used++;
    lists->entries[index] = (order_list_t){.id = ++lists->last_id};
    lists->open++;
    return index;
}

void lists_free(lists_t *lists, uint32_t index)
{
    order_list_t *list = &lists->entries[index];

    INVARIANT(list->id != 0);
    INVARIANT(list->hold_units == 0);
    INVARIANT(list->due == LIST_NOTHING);
    list->id = 0;
    list->next = lists->free;
    lists->free = index + 1;
    lists->open--;
}

void lists_enqueue(lists_t *lists, list_queue_t *queue, uint32_t index)
{
    lists->entries[index].next = 0;
    if (queue->tail != 0)
        lists->entries[queue->tail - 1].next = index + 1;
    else
        queue->head = index + 1;
    queue->tail = index + 1;
}

void lists_dequeue(lists_t *lists)
{
    list_queue_t *due = &lists->due;
    order_list_t *list = &lists->entries[due->head - 1];

    INVARIANT(due->head != 0);
    INVARIANT(list->due != LIST_NOTHING);
    list->due = LIST_NOTHING;
    due->head = list->next;
    if (due->head == 0)
        due->tail = 0;
}

void lists_mark(lists_t *lists, uint8_t partition)
{
    list_queue_t *settled = &lists->settled[partition];

    if (settled->head == 0)
        return;
    if (lists->due.tail != 0)
        lists->entries[lists->due.tail - 1].next = settled->head;
    else
        lists->due.head = settled->head;
    lists->due.tail = settled->tail;
    *settled = (list_queue_t){0, 0};
}
