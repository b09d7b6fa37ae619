/* A ring of fixed-size slots in shared memory: one producer, gating consumers, observers.
 *
 * Layout v1. A header of RING_HEADER_SIZE bytes, then slot_count (a power of two) slots of slot_size bytes. Sequence n lives in
 * slot n & (slot_count - 1); a ring index is the sequence number itself and never wraps (CORE K2). All positions are exclusive
 * bounds: `pub` = p means that sequences below p may be read.
 *
 *   line        written by           content
 *   identity    creator              magic, layout, sizes, schema hash, boot id, epoch, base, durability mode
 *   claim       producer             stored before the first overwritten byte (R2); observers detect a lap by it (R5); never
 *                                    decreases, may be ahead of what is really claimed (RING_CLAIM_AHEAD)
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

/* What the journaler says of its disk, in the log ring; each level includes what the one before asks for (J9). */
enum ring_storage {
    RING_STORAGE_OK = 0,
    RING_STORAGE_LOW = 1,         /* an operator must make room */
    RING_STORAGE_CANCEL_ONLY = 2, /* gateways take nothing that could rest */
    RING_STORAGE_HALT = 3,        /* the node stops in order; everything acknowledged is durable */
};

#define RING_STORAGE_LEVEL 0xffu
#define RING_STORAGE_SLOW 0x100u /* a sync was, or is, far too slow: hand over to the standby (J8) */

/* The producer stores `claim` once for up to that many slots (a sixteenth of a small ring): an observer that polls does not
 * then pull the line away at every one. The price: an observer counts as lapped that many slots early. Never beyond what
 * gating consumers have freed, so one of those may use ring_read() too and is never lapped. */
#define RING_CLAIM_AHEAD 64
#define RING_CLAIM_AHEAD_SHARE 16

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
    _Atomic uint32_t ready; /* set last by the creator: the identity above is complete */
    char name[32];
    _Atomic uint32_t panic; /* log ring: errno of the failed write or sync that stopped the journaler (J8), else 0 */
    _Atomic uint32_t storage; /* log ring: enum ring_storage, with RING_STORAGE_SLOW or without (J8, J9) */
    _Atomic uint32_t away;    /* report rings: the supervisor says that the producer is dead or stuck, the producer that it is not */
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

_Static_assert(offsetof(ring_header_t, storage) == 108, "layout v1");
_Static_assert(offsetof(ring_header_t, away) == 112, "layout v1");
_Static_assert(offsetof(ring_header_t, claim) == 1 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, pub) == 2 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, commit) == 3 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, replicated) == 4 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, wanted) == 5 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, pub_waiters) == 6 * CACHE_LINE, "layout v1");
_Static_assert(offsetof(ring_header_t, consumers) == 7 * CACHE_LINE, "layout v1");
_Static_assert(sizeof(ring_consumer_t) == CACHE_LINE, "layout v1");
_Static_assert(sizeof(ring_header_t) <= RING_HEADER_SIZE, "layout v1");

/* One process's view of a ring. The producer's private copies save it shared reads and stores. */
typedef struct ring {
    ring_header_t *header;
    uint8_t *slots;
    uint64_t mask;
    uint64_t slot_size;
    int64_t claimed;        /* producer: next sequence to claim */
    int64_t claim_ahead;    /* producer: slots that one store of `claim` runs ahead */
    int64_t claim_stored;   /* producer: what `claim` in the header says, >= claimed */
    int64_t gating_cached;  /* producer: smallest gating cursor last seen; what room is measured by */
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

/* The creator of a shared ring has filled in all of the identity. */
static inline void ring_set_ready(ring_header_t *header)
{
    /* Release: pairs with the acquire in ring_ready(). */
    atomic_store_explicit(&header->ready, 1, memory_order_release);
}

/* Has its creator finished? Look at nothing else of a shared ring before. */
static inline bool ring_ready(const ring_header_t *header)
{
    return atomic_load_explicit(&header->ready, memory_order_acquire) != 0;
}

/* Attach a handle to formatted memory. A producer (holding the ring's lock, R3) goes on at pub, never at claim (R2): what its
 * predecessor claimed is garbage. But `claim` itself stays where that one left it: slots below claim - capacity may have been
 * overwritten by it, and an observer must go on seeing that. */
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
    int64_t share = ring_capacity(ring) / RING_CLAIM_AHEAD_SHARE;
    ring->claim_ahead = share < RING_CLAIM_AHEAD ? share : RING_CLAIM_AHEAD;
    ring->claim_stored = atomic_load_explicit(&header->claim, memory_order_relaxed);
    ring->gating_cached = ring->claimed - ring_capacity(ring); /* no room known: the first claim looks */
    ring->doorbells = doorbells;
}

/* ---- producer ---------------------------------------------------------------------------------------------------- */

static inline int64_t ring_gating_minimum(const ring_t *ring)
{
    int64_t minimum = INT64_MAX;
    for (int i = 0; i < RING_CONSUMERS_MAX; i++) {
        const ring_consumer_t *consumer = &ring->header->consumers[i];
        /* Acquire: with ring_gate(), a gating consumer's first cursor is seen with its flag. */
        if (atomic_load_explicit(&consumer->gating, memory_order_acquire) == 0)
            continue;
        /* Acquire: the consumer's reads of the slots happened before it moved its cursor. */
        int64_t cursor = atomic_load_explicit(&consumer->cursor, memory_order_acquire);
        minimum = cursor < minimum ? cursor : minimum;
    }
    return minimum;
}

/* Free slots, as far as the caller needs to know: reads shared cursors only if fewer than `wanted` are known to be free. With
 * no gating consumer there is always room for the whole ring. */
static inline int64_t ring_room(ring_t *ring, int64_t wanted)
{
    int64_t room = ring->gating_cached + ring_capacity(ring) - ring->claimed;
    if (room < wanted) {
        int64_t minimum = ring_gating_minimum(ring);
        ring->gating_cached = minimum < ring->claimed ? minimum : ring->claimed;
        room = ring->gating_cached + ring_capacity(ring) - ring->claimed;
    }
    return room;
}

/* Out of the way of ring_claim(): one store for many slots. */
static inline void ring_store_claim(ring_t *ring)
{
    int64_t ahead = ring->claimed + ring->claim_ahead;
    int64_t free_end = ring->gating_cached + ring_capacity(ring);

    ring->claim_stored = ahead < free_end ? ahead : free_end;
    atomic_store_explicit(&ring->header->claim, ring->claim_stored, memory_order_relaxed);
    /* Release fence: the claim must be seen before any byte it allows to overwrite. Pairs with the acquire fences of
     * ring_read() and ring_still_there(). */
    MEMORY_FENCE(memory_order_release);
}

/* Claim `count` slots, at most the capacity; returns the first sequence, or RING_FULL. Nothing is visible until
 * ring_publish(). */
static inline int64_t ring_claim(ring_t *ring, int64_t count)
{
    int64_t first = ring->claimed;
    if (UNLIKELY(ring_room(ring, count) < count))
        return RING_FULL;
    ring->claimed = first + count;
    if (UNLIKELY(ring->claimed > ring->claim_stored))
        ring_store_claim(ring);
    return first;
}

/* ring_claim() of one slot. What `claim` already covers is free, so mostly one comparison does. */
static inline int64_t ring_claim_one(ring_t *ring)
{
    int64_t first = ring->claimed;
    if (UNLIKELY(first >= ring->claim_stored))
        return ring_claim(ring, 1);
    ring->claimed = first + 1;
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

/* For a consumer that found nothing new at `sequence`: have the slot's line here already, so that after the producer's write it
 * comes over together with the cursor and not after it. Measured: round trip through two rings 760 -> 650 ns across distant
 * cores. Of use to who polls; costs the producer nothing that the polled cursor does not. */
static inline void ring_prefetch(const ring_t *ring, int64_t sequence)
{
    PREFETCH(ring_slot(ring, sequence));
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

/* The journaler's word on its disk: a level, perhaps with RING_STORAGE_SLOW. Relaxed: nothing else is read by it. */
static inline uint32_t ring_storage(const ring_t *ring)
{
    return atomic_load_explicit(&ring->header->storage, memory_order_relaxed);
}

static inline bool ring_storage_at_least(const ring_t *ring, uint32_t level)
{
    return (ring_storage(ring) & RING_STORAGE_LEVEL) >= level;
}

/* Is the producer away? Relaxed: nothing else is read by it. */
static inline bool ring_away(const ring_t *ring)
{
    return atomic_load_explicit(&ring->header->away, memory_order_relaxed) != 0;
}

static inline void ring_set_away(ring_t *ring, bool away)
{
    atomic_store_explicit(&ring->header->away, away, memory_order_relaxed);
}

/* The journaler's store of `commit`; wakes who sleeps on it. */
static inline void ring_store_commit(ring_t *ring, int64_t sequence)
{
    INVARIANT(sequence >= atomic_load_explicit(&ring->header->commit, memory_order_relaxed));
    atomic_store_explicit(&ring->header->commit, sequence, memory_order_release);
    ring_wake(ring, &ring->header->commit_waiters);
}

/* How far a consumer has come: what a stage behind it in the same ring may read. Acquire: what it wrote elsewhere before. */
static inline int64_t ring_cursor(const ring_t *ring, int consumer)
{
    return atomic_load_explicit(&ring->header->consumers[consumer].cursor, memory_order_acquire);
}

/* A gating consumer is done with everything below `sequence`. Release: its reads happened before. Where it stood there already
 * nobody is woken: a stage may say so after every turn. Relaxed: the cursor is our own. */
static inline void ring_advance(ring_t *ring, int consumer, int64_t sequence)
{
    if (atomic_load_explicit(&ring->header->consumers[consumer].cursor, memory_order_relaxed) == sequence)
        return;
    atomic_store_explicit(&ring->header->consumers[consumer].cursor, sequence, memory_order_release);
    ring_wake(ring, &ring->header->cursor_waiters);
}

/* Copy slots that the producer may be overwriting meanwhile: a race by design, found out by the look at `claim` afterwards.
 * ThreadSanitizer would report it: its builds copy by volatile words in a function it does not watch (and does not intercept,
 * as it does memcpy). Our stress test proves the copies by their content instead. */
#if defined(__SANITIZE_THREAD__)
__attribute__((noinline, unused, no_sanitize("thread"))) static void ring_copy(void *destination, const void *source,
                                                                                uint64_t size)
{
    volatile uint8_t *to = (volatile uint8_t *)destination;
    const volatile uint8_t *from = (const volatile uint8_t *)source;
    for (uint64_t i = 0; i < size; i++)
        to[i] = from[i];
}
#else
static inline void ring_copy(void *destination, const void *source, uint64_t size)
{
    memcpy(destination, source, size);
}
#endif

/* Observer without a copy: look at slots from `sequence` on in place, then ask whether the first, so all, were still there. */
static inline bool ring_still_there(const ring_t *ring, int64_t sequence)
{
    /* Acquire fence: the reads of the slots before this look at `claim`. Pairs with the release fence of ring_store_claim():
     * who read a byte of a later lap sees the claim of that lap. */
    MEMORY_FENCE(memory_order_acquire);
    int64_t claim = atomic_load_explicit(&ring->header->claim, memory_order_relaxed);
    return claim <= sequence + ring_capacity(ring) && sequence >= ring->header->base;
}

/* Observer: copy `count` slots from `sequence` on, all below the caller's bound, at most the capacity. RING_LAPPED if any may
 * have been overwritten before or while it was copied (R5), or was never in this ring (below base); the copy is then
 * worthless. */
static inline int ring_read(const ring_t *ring, int64_t sequence, int64_t count, void *destination)
{
    uint64_t start = (uint64_t)sequence & ring->mask;
    uint64_t head = (uint64_t)ring_capacity(ring) - start;
    uint64_t first = (uint64_t)count < head ? (uint64_t)count : head;

    ring_copy(destination, ring->slots + start * ring->slot_size, first * ring->slot_size);
    if (UNLIKELY((uint64_t)count > first))
        ring_copy((uint8_t *)destination + first * ring->slot_size, ring->slots, ((uint64_t)count - first) * ring->slot_size);
    return LIKELY(ring_still_there(ring, sequence)) ? RING_OK : RING_LAPPED;
}

/* Become a gating consumer: the producer waits for `sequence` and what follows. For a ring at rest, or one created with this
 * consumer gating: a producer already running has counted on room it saw before, so it may overwrite up to a whole ring
 * before it notices a new one (CORE K1 therefore fixes who gates when the ring is made). */
static inline void ring_gate(ring_t *ring, int consumer, int64_t sequence)
{
    ring_consumer_t *slot = &ring->header->consumers[consumer];

    atomic_store_explicit(&slot->cursor, sequence, memory_order_relaxed);
    /* Release: pairs with the acquire of `gating` in ring_gating_minimum(). */
    atomic_store_explicit(&slot->gating, 1, memory_order_release);
}

static inline void ring_ungate(ring_t *ring, int consumer)
{
    atomic_store_explicit(&ring->header->consumers[consumer].gating, 0, memory_order_release);
}

/* Ask publishers to ring doorbell `index`; `waiters` is one of the header's three masks. */
static inline void ring_watch(_Atomic uint64_t *waiters, int index)
{
    atomic_fetch_or_explicit(waiters, UINT64_C(1) << index, memory_order_seq_cst);
}

static inline void ring_unwatch(_Atomic uint64_t *waiters, int index)
{
    atomic_fetch_and_explicit(waiters, ~(UINT64_C(1) << index), memory_order_seq_cst);
}

#endif
