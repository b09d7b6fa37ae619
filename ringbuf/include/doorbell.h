/* Doorbells: how a producer wakes a process that really sleeps, and pays nothing when nobody does.
 *
 * One mapped segment a node holds DOORBELLS_MAX cells. A process that may sleep owns one cell and registers its index in the
 * waiter masks of the rings it reads. To sleep: store sleeping = 1, fence, look once more for work, then wait. A publisher
 * stores its cursor, fences, and looks at `sleeping` (Dekker: one of the two sees the other). Futex cells are woken by
 * FUTEX_WAKE; a process whose loop waits on sockets names a FIFO in the run directory instead, and gets one byte. */
#ifndef BULLRING_DOORBELL_H
#define BULLRING_DOORBELL_H

#include <stdatomic.h>
#include <stdint.h>

#include "platform.h"

#define DOORBELLS_MAX 64
#define DOORBELL_PATH_MAX 88

enum doorbell_kind { DOORBELL_FREE = 0, DOORBELL_FUTEX = 1, DOORBELL_FIFO = 2 };

typedef struct doorbell {
    _Alignas(CACHE_LINE) _Atomic uint32_t bell; /* futex word: counts rings */
    _Atomic uint32_t sleeping;
    _Atomic uint32_t kind;
    uint32_t pid;
    _Atomic uint64_t rings; /* wake-ups made, for `bullring stat` */
    char path[DOORBELL_PATH_MAX]; /* FIFO kind: absolute path */
} doorbell_t;

_Static_assert(sizeof(doorbell_t) == CACHE_LINE, "layout v1");

typedef struct doorbells {
    doorbell_t *cells; /* DOORBELLS_MAX cells in the mapped segment */
    int fds[DOORBELLS_MAX]; /* this process's writing ends of FIFOs, -1 = not opened yet */
} doorbells_t;

/* Out of line (doorbell_wake.h, included once per extension): the rare path with a syscall. */
void doorbell_wake(doorbells_t *doorbells, int index);

static inline void doorbells_ring(doorbells_t *doorbells, uint64_t mask)
{
    /* Full fence: the cursor stored before must be visible before `sleeping` is read. Pairs with the fence of the sleeper. */
    atomic_thread_fence(memory_order_seq_cst);
    while (mask != 0) {
        int index = __builtin_ctzll(mask);
        mask &= mask - 1;
        if (atomic_load_explicit(&doorbells->cells[index].sleeping, memory_order_relaxed) != 0)
            doorbell_wake(doorbells, index);
    }
}

#endif
