#include "ring_python.h"

#include <string.h>

#include "ring.h"

int64_t ring_claim_copy(ring_t *ring, const void *slots, int64_t count)
{
    int64_t first = ring_claim(ring, count);

    for (int64_t i = 0; first >= 0 && i < count; i++)
        memcpy(ring_slot(ring, first + i), (const uint8_t *)slots + (uint64_t)i * ring->slot_size, ring->slot_size);
    return first;
}

int64_t ring_publish_copy(ring_t *ring, const void *slots, int64_t count)
{
    int64_t first = ring_claim_copy(ring, slots, count);

    if (first >= 0)
        ring_publish(ring, first + count);
    return first;
}

int64_t ring_claim_cursor(const ring_t *ring)
{
    return atomic_load_explicit(&ring->header->claim, memory_order_relaxed);
}

uint64_t ring_epoch(const ring_t *ring)
{
    return atomic_load_explicit(&ring->header->epoch, memory_order_relaxed);
}

int64_t ring_replicated(const ring_t *ring)
{
    return atomic_load_explicit(&ring->header->replicated, memory_order_relaxed);
}

int64_t ring_wanted(const ring_t *ring)
{
    return atomic_load_explicit(&ring->header->wanted, memory_order_relaxed);
}

void ring_store_replicated(ring_t *ring, int64_t sequence)
{
    /* Release: what the standby acknowledged is known before commit can count it. Pairs with the acquire in raise_commit(). */
    atomic_store_explicit(&ring->header->replicated, sequence, memory_order_release);
    ring_wake(ring, &ring->header->pub_waiters);
}

void ring_begin_committed(ring_t *ring, int64_t sequence)
{
    atomic_store_explicit(&ring->header->commit, sequence, memory_order_relaxed);
    atomic_store_explicit(&ring->header->replicated, sequence, memory_order_relaxed);
}

void ring_store_wanted(ring_t *ring, int64_t sequence)
{
    atomic_store_explicit(&ring->header->wanted, sequence, memory_order_relaxed);
}

uint32_t ring_panic(const ring_t *ring)
{
    return atomic_load_explicit(&ring->header->panic, memory_order_relaxed);
}

uint32_t ring_storage_cell(const ring_t *ring)
{
    return ring_storage(ring);
}

static void copy_name(char *target, size_t size, const char *name)
{
    size_t length = strnlen(name, size - 1);

    memcpy(target, name, length);
    memset(target + length, 0, size - length);
}

void ring_identify(ring_t *ring, const char *name, const uint64_t boot_id[2], uint64_t epoch)
{
    ring_header_t *header = ring->header;

    copy_name(header->name, sizeof(header->name), name);
    header->boot_id[0] = boot_id[0];
    header->boot_id[1] = boot_id[1];
    atomic_store_explicit(&header->epoch, epoch, memory_order_relaxed);
    ring_set_ready(header);
}

void ring_consumer_name(ring_t *ring, int consumer, const char *name, uint32_t pid)
{
    ring_consumer_t *slot = &ring->header->consumers[consumer];

    copy_name(slot->name, sizeof(slot->name), name);
    slot->pid = pid;
}

void ring_consumer_view(const ring_t *ring, int consumer, ring_consumer_view_t *view)
{
    const ring_consumer_t *slot = &ring->header->consumers[consumer];

    view->gating = atomic_load_explicit(&slot->gating, memory_order_acquire);
    view->cursor = atomic_load_explicit(&slot->cursor, memory_order_acquire);
    view->heartbeat_ns = atomic_load_explicit(&slot->heartbeat_ns, memory_order_relaxed);
    view->pid = slot->pid;
    memcpy(view->name, slot->name, sizeof(view->name));
}

static _Atomic uint64_t *waiters(const ring_t *ring, int which)
{
    switch (which) {
    case RING_WATCH_PUB:
        return &ring->header->pub_waiters;
    case RING_WATCH_COMMIT:
        return &ring->header->commit_waiters;
    default:
        INVARIANT(which == RING_WATCH_CURSORS);
        return &ring->header->cursor_waiters;
    }
}

void ring_watch_cell(ring_t *ring, int which, int doorbell)
{
    INVARIANT(doorbell >= 0);
    INVARIANT(doorbell < DOORBELLS_MAX);
    ring_watch(waiters(ring, which), doorbell);
}

void ring_unwatch_cell(ring_t *ring, int which, int doorbell)
{
    INVARIANT(doorbell >= 0);
    INVARIANT(doorbell < DOORBELLS_MAX);
    ring_unwatch(waiters(ring, which), doorbell);
}

uint64_t ring_watchers(const ring_t *ring, int which)
{
    return atomic_load_explicit(waiters(ring, which), memory_order_relaxed);
}
