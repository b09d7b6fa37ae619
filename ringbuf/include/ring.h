/* A ring of fixed-size slots in shared memory: one producer, gating consumers, observers.
 *
 * Layout v1. A header of RING_HEADER_SIZE bytes, then slot_count (a power of two) slots of slot_size bytes. Sequence n lives in
 * slot n & (slot_count - 1); a ring index is the sequence number itself and never wraps (CORE K2). All positions are exclusive
 * bounds: `pub` = p means that sequences below p may be read.
 *
 *   line        written by           content
 *   identity    creator              magic, layout, sizes, schema hash, boot id, epoch, base, durability mode
 *   claim       producer             stored before the first overwritten byte (R2); observers detect a lap by it (R5)
 *   pub         producer             store-release after the slots (R1); nothing at or above it exists
 *   commit      journaler            log ring only: sequences below it are durable wherever the mode demands (CORE section 2)
 *   replicated  replicator           log ring only: durable at the standby; INT64_MAX when alone
 *   wanted      sequencer            log ring only: the journaler syncs at once while durable < wanted
 *   waiters     consumers (atomic or) doorbell masks: who may sleep until pub, commit or a gating cursor moves
 *   consumers   each its owner       gating cursors; the producer never overwrites a slot at or above the smallest
 *
 * A handle (ring_t) is private to a process. The same code runs on private memory for replay and tests. */
#ifndef BULLRING_RING_H
#define BULLRING_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "doorbell.h"
#include "invariant.h"
#include "platform.h"

#define RING_MAGIC UINT64_C(0x31474e49524c4c42) /* "BLLRING1" */
#define RING_LAYOUT_VERSION 1
#define RING_HEADER_SIZE 4096
#define RING_CONSUMERS_MAX 8

enum ring_status {
    RING_OK = 0,
    RING_FULL = -1,   /* a gating consumer has not yet passed the slots wanted */
    RING_LAPPED = -2, /* the producer overwrote what was to be read: go to the file */
    RING_EMPTY = -3,
};

enum ring_mode {
    RING_MODE_PLAIN = 0,   /* readers go up to pub */
    RING_MODE_DURABLE = 1, /* readers go up to commit (D1, D2) */
    RING_MODE_D0 = 2,      /* readers go up to pub, the journaler writes behind */
};

typedef struct ring_consumer {
    _Alignas(CACHE_LINE) _Atomic int64_t cursor; /* next sequence this consumer will read */
    _Atomic uint32_t gating;                     /* 1 = the producer waits for this cursor */
    uint32_t pid;
    _Atomic uint64_t heartbeat_ns;
    char name[32];
} ring_consumer_t;

typedef struct ring_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t slot_size;
    uint64_t slot_count;
    uint64_t schema_hash;
    uint64_t boot_id[2];
    _Atomic uint64_t epoch;
    int64_t base; /* first sequence this ring ever held: slots below it were never in this ring */
    uint32_t mode;
    uint32_t ready; /* set last by the creator */
    char name[32];
    _Atomic uint32_t panic; /* log ring: errno of the failed write or sync that stopped the journaler (J8), else 0 */
    _Alignas(CACHE_LINE) _Atomic int64_t claim;
    _Alignas(CACHE_LINE) _Atomic int64_t pub;
    _Alignas(CACHE_LINE) _Atomic int64_t commit;
    _Alignas(CACHE_LINE) _Atomic int64_t replicated;
    _Alignas(CACHE_LINE) _Atomic int64_t wanted;
    _Alignas(CACHE_LINE) _Atomic uint64_t pub_waiters;
    _Atomic uint64_t commit_waiters;
    _Atomic uint64_t cursor_waiters;
    _Alignas(CACHE_LINE) ring_consumer_t consumers[RING_CONSUMERS_MAX];
} ring_header_t;

_Static_assert(offsetof(ring_header_t, claim) == 1 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, pub) == 2 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, commit) == 3 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, replicated) == 4 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, wanted) == 5 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, pub_waiters) == 6 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, consumers) == 7 * CACHE_LINE, "layout v1");
_Static_assert(sizeof(ring_consumer_t) == CACHE_LINE, "layout v1");
_Static_assert(sizeof(ring_header_t) <= RING_HEADER_SIZE, "layout v1");

/* One process's view of a ring. `claimed` and `gating_cached` are the producer's private copies: they save a shared read. */
typedef struct ring {
    ring_header_t *header;
    uint8_t *slots;
    uint64_t mask;
    uint64_t slot_size;
    int64_t claimed;       /* producer: next sequence to claim */
    int64_t gating_cached; /* producer: smallest gating cursor last seen */
    doorbells_t *doorbells; /* NULL on private memory: nobody sleeps */
} ring_t;

static inline void *ring_slot(const ring_t *ring, int64_t sequence)
{
    return ring->slots + ((uint64_t)sequence & ring->mask) * ring->slot_size;
}

static inline int64_t ring_capacity(const ring_t *ring)
{
    return (int64_t)ring->mask + 1;
}

/* Prepare `memory` (RING_HEADER_SIZE + slot_count * slot_size bytes, zeroed) as an empty ring whose first sequence is `base`. */
static inline void ring_format(void *memory, uint32_t slot_size, uint64_t slot_count, int64_t base, uint32_t mode,
                               uint64_t schema_hash)
{
    ring_header_t *header = (ring_header_t *)memory;

    INVARIANT(slot_count > 0);
    INVARIANT((slot_count & (slot_count - 1)) == 0);
    header->magic = RING_MAGIC;
    header->layout_version = RING_LAYOUT_VERSION;
    header->slot_size = slot_size;
    header->slot_count = slot_count;
    header->schema_hash = schema_hash;
    header->base = base;
    header->mode = mode;
    atomic_store_explicit(&header->claim, base, memory_order_relaxed);
    atomic_store_explicit(&header->commit, base, memory_order_relaxed);
    atomic_store_explicit(&header->replicated, INT64_MAX, memory_order_relaxed);
    atomic_store_explicit(&header->wanted, base, memory_order_relaxed);
    for (int i = 0; i < RING_CONSUMERS_MAX; i++)
        atomic_store_explicit(&header->consumers[i].cursor, base, memory_order_relaxed);
    /* Release: pairs with the acquire of `pub` in ring_published(). */
    atomic_store_explicit(&header->pub, base, memory_order_release);
}

/* Attach a handle to formatted memory. A producer goes on at pub, never at claim (R2). */
static inline void ring_attach(ring_t *ring, void *memory, doorbells_t *doorbells)
{
    ring_header_t *header = (ring_header_t *)memory;

    INVARIANT(header->magic == RING_MAGIC);
    INVARIANT(header->layout_version == RING_LAYOUT_VERSION);
    ring->header = header;
    ring->slots = (uint8_t *)memory + RING_HEADER_SIZE;
    ring->mask = header->slot_count - 1;
    ring->slot_size = header->slot_size;
    ring->claimed = atomic_load_explicit(&header->pub, memory_order_acquire);
    ring->gating_cached = INT64_MIN;
    ring->doorbells = doorbells;
}

/* ---- producer ---------------------------------------------------------------------------------------------------- */

static inline int64_t ring_gating_minimum(const ring_t *ring)
{
    int64_t minimum = INT64_MAX;
    for (int i = 0; i < RING_CONSUMERS_MAX; i++) {
        const ring_consumer_t *consumer = &ring->header->consumers[i];
        if (atomic_load_explicit(&consumer->gating, memory_order_relaxed) == 0)
            continue;
        /* Acquire: the consumer's reads of the slots happened before it moved its cursor. */
        int64_t cursor = atomic_load_explicit(&consumer->cursor, memory_order_acquire);
        minimum = cursor < minimum ? cursor : minimum;
    }
    return minimum;
}

/* Free slots, as far as the caller needs to know: reads shared cursors only if fewer than `wanted` are known to be free. */
static inline int64_t ring_room(ring_t *ring, int64_t wanted)
{
    int64_t room = ring->gating_cached == INT64_MIN ? 0 : ring->gating_cached + ring_capacity(ring) - ring->claimed;
    if (room < wanted) {
        int64_t minimum = ring_gating_minimum(ring);
        /* Nobody gates: the whole ring may be overwritten. */
        ring->gating_cached = minimum == INT64_MAX ? ring->claimed : minimum;
        room = ring->gating_cached + ring_capacity(ring) - ring->claimed;
    }
    return room;
}

/* Claim `count` slots; returns the first sequence, or RING_FULL. Nothing is visible until ring_publish(). */
static inline int64_t ring_claim(ring_t *ring, int64_t count)
{
    int64_t first = ring->claimed;
    if (UNLIKELY(ring_room(ring, count) < count))
        return RING_FULL;
    ring->claimed = first + count;
    atomic_store_explicit(&ring->header->claim, ring->claimed, memory_order_relaxed);
    /* The claim must be seen before any overwritten byte. Pairs with the acquire fence in ring_read(). */
    atomic_thread_fence(memory_order_release);
    return first;
}

static inline void ring_wake(ring_t *ring, _Atomic uint64_t *waiters)
{
    if (ring->doorbells == NULL)
        return;
    uint64_t mask = atomic_load_explicit(waiters, memory_order_relaxed);
    if (mask != 0)
        doorbells_ring(ring->doorbells, mask);
}

/* Make everything below `sequence` visible. Must be the end of a message or linked group. */
static inline void ring_publish(ring_t *ring, int64_t sequence)
{
    /* Release: the slots' bytes before the cursor that names them. Pairs with the acquire in ring_published(). */
    atomic_store_explicit(&ring->header->pub, sequence, memory_order_release);
    ring_wake(ring, &ring->header->pub_waiters);
}

/* ---- consumers --------------------------------------------------------------------------------------------------- */

static inline int64_t ring_published(const ring_t *ring)
{
    return atomic_load_explicit(&ring->header->pub, memory_order_acquire);
}

static inline int64_t ring_commit(const ring_t *ring)
{
    return atomic_load_explicit(&ring->header->commit, memory_order_acquire);
}

/* Where a reader other than journaler and replicator must stop. */
static inline int64_t ring_visible(const ring_t *ring)
{
    return ring->header->mode == RING_MODE_DURABLE ? ring_commit(ring) : ring_published(ring);
}

/* The journaler's store of `commit`; wakes who sleeps on it. */
static inline void ring_store_commit(ring_t *ring, int64_t sequence)
{
    INVARIANT(sequence >= atomic_load_explicit(&ring->header->commit, memory_order_relaxed));
    atomic_store_explicit(&ring->header->commit, sequence, memory_order_release);
    ring_wake(ring, &ring->header->commit_waiters);
}

/* A gating consumer is done with everything below `sequence`. Release: its reads happened before. */
static inline void ring_advance(ring_t *ring, int consumer, int64_t sequence)
{
    atomic_store_explicit(&ring->header->consumers[consumer].cursor, sequence, memory_order_release);
    ring_wake(ring, &ring->header->cursor_waiters);
}

/* Observer: copy `count` slots from `sequence` on, all below the caller's bound. RING_LAPPED if any may have been overwritten
 * before or while it was copied (R5); the copy is then worthless. */
static inline int ring_read(const ring_t *ring, int64_t sequence, int64_t count, void *destination)
{
    uint64_t start = (uint64_t)sequence & ring->mask;
    uint64_t head = (uint64_t)ring_capacity(ring) - start;
    uint64_t first = (uint64_t)count < head ? (uint64_t)count : head;

    if (sequence < ring->header->base)
        return RING_LAPPED;
    memcpy(destination, ring->slots + start * ring->slot_size, first * ring->slot_size);
    if ((uint64_t)count > first)
        memcpy((uint8_t *)destination + first * ring->slot_size, ring->slots, ((uint64_t)count - first) * ring->slot_size);
    atomic_thread_fence(memory_order_acquire);
    int64_t claim = atomic_load_explicit(&ring->header->claim, memory_order_relaxed);
    return claim > sequence + ring_capacity(ring) ? RING_LAPPED : RING_OK;
}

/* Observer without a copy: look at slots in place, then ask whether they were still there. */
static inline bool ring_still_there(const ring_t *ring, int64_t sequence)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&ring->header->claim, memory_order_relaxed) <= sequence + ring_capacity(ring) &&
           sequence >= ring->header->base;
}

#endif
