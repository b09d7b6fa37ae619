/* One producer, two gating consumers and an observer as threads, for ThreadSanitizer and for the plain machine.
 *
 * TSan checks what the cursors must order: the producer's plain stores into slots against the plain loads of the gating
 * consumers, over many wraps. The observer's copies race by design and are not watched (ring.h, ring_copy()); their content is
 * checked here word by word against the sequence instead. It is made to be lapped again and again.
 *
 * ring_stress [RECORDS]; exit 0 = every record seen by every gating consumer in order and whole, no bad copy accepted, and
 * the observer both read and was lapped. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "ring.h"
#include "ringbuf/segment.h"

#define SLOT_COUNT 256
#define SLOT_WORDS 16
#define CONSUMERS 2
#define BATCH_MAX 8
#define BASE 1000003 /* not at a slot 0: the wrap is not where the count wraps */
#define RECORDS_DEFAULT 2000000
#define RECORDS_QUICK 300000
#define PAUSE_EVERY 500

typedef struct shared {
    ring_t ring; /* the producer's handle; others copy it */
    int64_t end;
    _Atomic int done;
    int64_t observed;
    int64_t lapped;
} shared_t;

typedef struct consumer {
    shared_t *shared;
    int index;
    int64_t seen;
} consumer_t;

static uint64_t word(int64_t sequence, int index)
{
    return ((uint64_t)sequence + 1) * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)index * UINT64_C(0xbf58476d1ce4e5b9);
}

static void check(const uint64_t *slot, int64_t sequence)
{
    for (int i = 0; i < SLOT_WORDS; i++)
        INVARIANT(slot[i] == word(sequence, i));
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1103515245u + 12345u;
    return *state >> 16;
}

static void *produce(void *argument)
{
    shared_t *shared = argument;
    ring_t *ring = &shared->ring;
    uint32_t random = 1;

    for (int64_t next = BASE; next < shared->end;) {
        int64_t count = 1 + next_random(&random) % BATCH_MAX;
        count = count < shared->end - next ? count : shared->end - next;
        int64_t first = ring_claim(ring, count);
        if (first == RING_FULL) {
            (void)sched_yield();
            continue;
        }
        INVARIANT(first == next);
        for (int64_t i = 0; i < count; i++) {
            uint64_t *slot = ring_slot(ring, first + i);
            for (int k = 0; k < SLOT_WORDS; k++)
                slot[k] = word(first + i, k);
        }
        next = first + count;
        ring_publish(ring, next);
    }
    atomic_store(&shared->done, 1);
    return NULL;
}

static void *consume(void *argument)
{
    consumer_t *self = argument;
    ring_t ring;

    ring_attach(&ring, self->shared->ring.header, NULL);
    for (int64_t next = BASE; next < self->shared->end;) {
        int64_t end = ring_published(&ring);
        if (next == end)
            (void)sched_yield();
        for (; next < end; next++, self->seen++)
            check(ring_slot(&ring, next), next);
        ring_advance(&ring, self->index, next);
    }
    return NULL;
}

/* Let the producer overwrite what we are about to read. */
static void fall_behind(const ring_t *ring, shared_t *shared, int64_t next)
{
    while (ring_published(ring) <= next + ring_capacity(ring) && atomic_load(&shared->done) == 0)
        (void)sched_yield();
}

static void *observe(void *argument)
{
    shared_t *shared = argument;
    uint64_t copy[BATCH_MAX * SLOT_WORDS];
    uint32_t random = 2;
    int64_t next = BASE;
    ring_t ring;

    ring_attach(&ring, shared->ring.header, NULL);
    while (next < shared->end) {
        int64_t count = 1 + next_random(&random) % BATCH_MAX;
        int64_t end = ring_published(&ring);
        count = count < end - next ? count : end - next;
        if (count == 0) {
            (void)sched_yield();
            continue;
        }
        if (shared->observed % PAUSE_EVERY == PAUSE_EVERY - 1)
            fall_behind(&ring, shared, next);
        if (ring_read(&ring, next, count, copy) == RING_LAPPED) {
            shared->lapped++;
            shared->observed++; /* so that one pause is one lap */
            next = ring_published(&ring) - ring_capacity(&ring) / 2;
            next = next < BASE ? BASE : next;
            continue;
        }
        for (int64_t i = 0; i < count; i++)
            check(copy + i * SLOT_WORDS, next + i);
        next += count;
        shared->observed += count;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static shared_t shared;
    segment_t memory;
    consumer_t consumers[CONSUMERS];
    pthread_t threads[CONSUMERS + 2];
    int64_t records = argc > 1 ? atoll(argv[1]) : getenv("BULLRING_QUICK") != NULL ? RECORDS_QUICK : RECORDS_DEFAULT;

    INVARIANT(segment_map_private(RING_HEADER_SIZE + SLOT_COUNT * SLOT_WORDS * sizeof(uint64_t), &memory) == 0);
    ring_format(memory.address, SLOT_WORDS * sizeof(uint64_t), SLOT_COUNT, BASE, RING_MODE_PLAIN, 0);
    ring_attach(&shared.ring, memory.address, NULL);
    shared.end = BASE + records;
    for (int i = 0; i < CONSUMERS; i++) {
        ring_gate(&shared.ring, i, BASE);
        consumers[i] = (consumer_t){.shared = &shared, .index = i};
        INVARIANT(pthread_create(&threads[i], NULL, consume, &consumers[i]) == 0);
    }
    INVARIANT(pthread_create(&threads[CONSUMERS], NULL, observe, &shared) == 0);
    INVARIANT(pthread_create(&threads[CONSUMERS + 1], NULL, produce, &shared) == 0);
    for (int i = 0; i < CONSUMERS + 2; i++)
        INVARIANT(pthread_join(threads[i], NULL) == 0);

    printf("records=%lld observed=%lld lapped=%lld\n", (long long)records, (long long)shared.observed, (long long)shared.lapped);
    for (int i = 0; i < CONSUMERS; i++)
        INVARIANT(consumers[i].seen == records);
    INVARIANT(shared.observed > 0);
    INVARIANT(shared.lapped > 0);
    return segment_unmap(&memory) == 0 ? 0 : 1;
}
