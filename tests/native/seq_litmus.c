/* Litmus test of the doorbell's Dekker pair: a publisher stores its cursor and then looks whether somebody sleeps, a sleeper
 * says that it sleeps and then looks at the cursor. Never may both miss the other: that sleep would last to its timeout.
 *
 * Run twice: with the real doorbell.h and ring.h, where the bad outcome must not occur once; then with the two fences taken
 * out, where it must occur, or this machine or test cannot show it (said, and not counted as a proof, e.g. on one core).
 *
 * seq_litmus [ROUNDS]; exit 0 = no lost wake-up with the fences. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ring.h"
#include "ringbuf/doorbells.h"
#include "ringbuf/segment.h"

#define ROUNDS_DEFAULT 400000
#define ROUNDS_QUICK 30000
#define SPINS_BEFORE_YIELD 2000

typedef struct litmus {
    ring_t ring;
    doorbells_t doorbells;
    int cell;
    int fenced;
    int64_t rounds;
    _Alignas(CACHE_LINE) _Atomic int64_t sleeper_at; /* round each thread has come to */
    _Alignas(CACHE_LINE) _Atomic int64_t publisher_at;
    _Alignas(CACHE_LINE) int64_t saw_nothing; /* last round in which the sleeper saw no news */
    int64_t lost;
} litmus_t;

static void meet(_Atomic int64_t *mine, _Atomic int64_t *theirs, int64_t point)
{
    atomic_store(mine, point);
    for (int spins = 0; atomic_load(theirs) < point; spins++) {
        if (spins < SPINS_BEFORE_YIELD)
            CPU_RELAX();
        else
            (void)sched_yield();
    }
}

/* The same two steps with nothing between them but the compiler's order. */
static void arm_unfenced(doorbell_t *cell)
{
    atomic_store_explicit(&cell->sleeping, 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}

static void publish_unfenced(litmus_t *litmus, int64_t sequence)
{
    doorbell_t *cell = &litmus->doorbells.cells[litmus->cell];

    atomic_store_explicit(&litmus->ring.header->pub, sequence, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&cell->sleeping, memory_order_relaxed) != 0)
        doorbell_wake(&litmus->doorbells, litmus->cell);
}

static void *sleep_side(void *argument)
{
    litmus_t *litmus = argument;
    doorbell_t *cell = &litmus->doorbells.cells[litmus->cell];

    for (int64_t round = 1; round <= litmus->rounds; round++) {
        meet(&litmus->sleeper_at, &litmus->publisher_at, 2 * round);
        if (litmus->fenced)
            (void)doorbell_arm(cell);
        else
            arm_unfenced(cell);
        /* Relaxed: the fence alone must do it. */
        if (atomic_load_explicit(&litmus->ring.header->pub, memory_order_relaxed) < round)
            litmus->saw_nothing = round;
        meet(&litmus->sleeper_at, &litmus->publisher_at, 2 * round + 1);
        /* Still "sleeping" = the publisher did not ring. */
        if (litmus->saw_nothing == round && atomic_load(&cell->sleeping) != 0)
            litmus->lost++;
        doorbell_disarm(cell);
    }
    return NULL;
}

static void *publish_side(void *argument)
{
    litmus_t *litmus = argument;

    for (int64_t round = 1; round <= litmus->rounds; round++) {
        meet(&litmus->publisher_at, &litmus->sleeper_at, 2 * round);
        if (litmus->fenced)
            ring_publish(&litmus->ring, round);
        else
            publish_unfenced(litmus, round);
        meet(&litmus->publisher_at, &litmus->sleeper_at, 2 * round + 1);
    }
    return NULL;
}

static int64_t run(int fenced, int64_t rounds)
{
    static litmus_t litmus;
    const uint64_t boot_id[2] = {0, 0};
    segment_t ring_memory;
    segment_t bell_memory;
    pthread_t threads[2];

    litmus = (litmus_t){.fenced = fenced, .rounds = rounds};
    INVARIANT(segment_map_private(RING_HEADER_SIZE + 64 * 16, &ring_memory) == 0);
    INVARIANT(segment_map_private(DOORBELLS_SIZE, &bell_memory) == 0);
    doorbells_format(bell_memory.address, boot_id);
    doorbells_attach(&litmus.doorbells, bell_memory.address, -1);
    litmus.cell = doorbells_take(&litmus.doorbells, "sleeper", DOORBELL_FUTEX, (uint32_t)getpid());
    INVARIANT(litmus.cell >= 0);
    ring_format(ring_memory.address, 64, 16, 0, RING_MODE_PLAIN, 0);
    ring_attach(&litmus.ring, ring_memory.address, &litmus.doorbells);
    ring_watch(&litmus.ring.header->pub_waiters, litmus.cell);
    INVARIANT(pthread_create(&threads[0], NULL, sleep_side, &litmus) == 0);
    INVARIANT(pthread_create(&threads[1], NULL, publish_side, &litmus) == 0);
    INVARIANT(pthread_join(threads[0], NULL) == 0);
    INVARIANT(pthread_join(threads[1], NULL) == 0);
    INVARIANT(segment_unmap(&ring_memory) == 0);
    INVARIANT(segment_unmap(&bell_memory) == 0);
    return litmus.lost;
}

int main(int argc, char **argv)
{
    int64_t rounds = argc > 1 ? atoll(argv[1]) : getenv("BULLRING_QUICK") != NULL ? ROUNDS_QUICK : ROUNDS_DEFAULT;
    int64_t lost_fenced = run(1, rounds);
    int64_t lost_unfenced = run(0, rounds);

    printf("rounds=%lld lost=%lld lost_without_fences=%lld%s\n", (long long)rounds, (long long)lost_fenced,
           (long long)lost_unfenced, lost_unfenced == 0 ? " (the fault was not provoked here: no proof)" : "");
    INVARIANT(lost_fenced == 0);
    return 0;
}
