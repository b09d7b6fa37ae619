/* Doorbells: how a publisher wakes a process that really sleeps, and pays nothing when nobody does.
 *
 * One shared segment a node: a header of one line, then DOORBELLS_MAX cells. A process that may sleep owns one cell and sets
 * its bit in the waiter masks of the rings it reads (ring_watch()). To sleep it reads `bell`, stores sleeping = 1, fences, looks
 * once more for work, then waits. A publisher stores its cursor, fences, and looks at `sleeping`: by the two fences at least
 * one of them sees the other (Dekker). The publisher who turns `sleeping` from 1 to 0 makes the one syscall of that sleep.
 *
 * A futex cell is woken by FUTEX_WAKE on `bell`. A process whose loop waits on sockets owns a FIFO in the run directory
 * instead, named like its cell, and gets one byte.
 *
 * Every sleep has a timeout: a publisher killed between its cursor and the wake, or one that read a waiter mask just before
 * the bit was set, delays the sleeper by that timeout at most. */
#ifndef BULLRING_DOORBELL_H
#define BULLRING_DOORBELL_H

#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform.h"

#define DOORBELLS_MAGIC UINT64_C(0x314c4c4542524c42) /* "BLRBELL1" */
#define DOORBELLS_LAYOUT_VERSION 1
#define DOORBELLS_MAX 64
#define DOORBELL_NAME_MAX 64
#define DOORBELLS_SIZE ((DOORBELLS_MAX + 1) * sizeof(doorbell_t))

enum doorbell_kind {
    DOORBELL_FREE = 0,
    DOORBELL_TAKEN = 1, /* being filled in: not yet to be rung */
    DOORBELL_FUTEX = 2,
    DOORBELL_FIFO = 3,
};

typedef struct doorbell {
    _Alignas(CACHE_LINE) _Atomic uint32_t bell; /* futex word: counts rings */
    _Atomic uint32_t sleeping;
    _Atomic uint32_t kind;
    _Atomic uint32_t generation; /* times this cell was taken: a writer reopens the FIFO of another generation */
    _Atomic uint64_t rings;      /* wake-ups made: syscalls of publishers */
    _Atomic uint64_t sleeps;     /* times the owner really waited */
    _Atomic uint32_t pid;
    uint32_t spare[3];
    char name[DOORBELL_NAME_MAX]; /* the owner's; FIFO kind: also the file's name in the run directory */
    uint8_t unused[CACHE_LINE - 48 - DOORBELL_NAME_MAX];
} doorbell_t;

typedef struct doorbells_header {
    _Alignas(CACHE_LINE) uint64_t magic;
    uint32_t layout_version;
    uint32_t cell_count;
    uint64_t boot_id[2];
    _Atomic uint32_t ready; /* set last by the creator */
} doorbells_header_t;

_Static_assert(sizeof(doorbell_t) == CACHE_LINE, "layout v1");
_Static_assert(offsetof(doorbell_t, name) == 48, "layout v1");
_Static_assert(sizeof(doorbells_header_t) == sizeof(doorbell_t), "layout v1");

/* One process's view. Belongs to one thread: `fds` is filled on first use, unlocked. */
typedef struct doorbells {
    doorbell_t *cells; /* DOORBELLS_MAX of them in the mapped segment */
    int directory;     /* run directory, where the FIFOs are; -1 = futex cells only */
    int fds[DOORBELLS_MAX]; /* our writing ends of FIFOs, -1 = not opened yet */
    uint32_t generations[DOORBELLS_MAX];
} doorbells_t;

static inline void doorbells_attach(doorbells_t *doorbells, void *memory, int directory)
{
    doorbells->cells = (doorbell_t *)memory + 1;
    doorbells->directory = directory;
    for (int i = 0; i < DOORBELLS_MAX; i++) {
        doorbells->fds[i] = -1;
        doorbells->generations[i] = 0;
    }
}

/* Open for reading too: the writer is then never without a reader, so it meets neither ENXIO nor SIGPIPE when the owner is
 * dead; the owner's successor finds at worst a pipe full of stale bytes. */
static inline int doorbell_fifo_fd(doorbells_t *doorbells, int index, const doorbell_t *cell)
{
    uint32_t generation = atomic_load_explicit(&cell->generation, memory_order_acquire);

    if (doorbells->fds[index] >= 0 && doorbells->generations[index] == generation)
        return doorbells->fds[index];
    if (doorbells->fds[index] >= 0)
        (void)close(doorbells->fds[index]);
    doorbells->fds[index] = openat(doorbells->directory, cell->name, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    doorbells->generations[index] = generation;
    return doorbells->fds[index];
}

/* The rare path with a syscall: cold and out of line, yet with nothing to link between extensions. */
__attribute__((cold, noinline, unused)) static void doorbell_wake(doorbells_t *doorbells, int index)
{
    doorbell_t *cell = &doorbells->cells[index];

    /* Of several publishers one wakes. Acquire-release: the sleeper's next sleep is another one. */
    if (atomic_exchange_explicit(&cell->sleeping, 0, memory_order_acq_rel) == 0)
        return;
    uint32_t kind = atomic_load_explicit(&cell->kind, memory_order_acquire);
    if (kind == DOORBELL_FUTEX) {
        /* Release: pairs with the kernel's look at the word in FUTEX_WAIT; a sleeper not yet asleep then stays awake. */
        atomic_fetch_add_explicit(&cell->bell, 1, memory_order_release);
        (void)syscall(SYS_futex, &cell->bell, FUTEX_WAKE, 1, NULL, NULL, 0);
    } else if (kind == DOORBELL_FIFO && doorbells->directory >= 0) {
        int fd = doorbell_fifo_fd(doorbells, index, cell);
        /* A full pipe is readable already, a missing one has no reader: both need nothing. */
        if (fd >= 0 && write(fd, "", 1) < 0)
            return;
    } else {
        return;
    }
    atomic_fetch_add_explicit(&cell->rings, 1, memory_order_relaxed);
}

static inline void doorbells_ring(doorbells_t *doorbells, uint64_t mask)
{
    /* Full fence: the cursor stored before must be visible before `sleeping` is read. Pairs with doorbell_arm(). */
    MEMORY_FENCE(memory_order_seq_cst);
    while (mask != 0) {
        int index = __builtin_ctzll(mask);
        mask &= mask - 1;
        if (UNLIKELY(atomic_load_explicit(&doorbells->cells[index].sleeping, memory_order_relaxed) != 0))
            doorbell_wake(doorbells, index);
    }
}

/* ---- the owner ----------------------------------------------------------------------------------------------------- */

/* "I am about to sleep": look for work once more after this, then wait. Returns the word to give to FUTEX_WAIT. */
static inline uint32_t doorbell_arm(doorbell_t *cell)
{
    uint32_t seen = atomic_load_explicit(&cell->bell, memory_order_acquire);

    atomic_store_explicit(&cell->sleeping, 1, memory_order_relaxed);
    /* Full fence: `sleeping` must be visible before the last look at the cursors. Pairs with doorbells_ring(). */
    MEMORY_FENCE(memory_order_seq_cst);
    return seen;
}

static inline void doorbell_disarm(doorbell_t *cell)
{
    atomic_store_explicit(&cell->sleeping, 0, memory_order_relaxed);
}

#endif
