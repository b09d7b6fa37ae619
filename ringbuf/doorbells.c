#include "doorbells.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#include "invariant.h"

#define NS_PER_S INT64_C(1000000000)

void doorbells_format(void *memory, const uint64_t boot_id[2])
{
    doorbells_header_t *header = (doorbells_header_t *)memory;

    header->magic = DOORBELLS_MAGIC;
    header->layout_version = DOORBELLS_LAYOUT_VERSION;
    header->cell_count = DOORBELLS_MAX;
    header->boot_id[0] = boot_id[0];
    header->boot_id[1] = boot_id[1];
    /* Release: pairs with the acquire in doorbells_ready(). */
    atomic_store_explicit(&header->ready, 1, memory_order_release);
}

bool doorbells_ready(const doorbells_header_t *header)
{
    return atomic_load_explicit(&header->ready, memory_order_acquire) != 0;
}

doorbell_t *doorbells_cell(doorbells_t *doorbells, int index)
{
    INVARIANT(index >= 0);
    INVARIANT(index < DOORBELLS_MAX);
    return &doorbells->cells[index];
}

static bool alive(const doorbell_t *cell)
{
    uint32_t pid = atomic_load_explicit(&cell->pid, memory_order_relaxed);
    return pid != 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

static bool seize(doorbell_t *cell, uint32_t kind)
{
    return atomic_compare_exchange_strong_explicit(&cell->kind, &kind, DOORBELL_TAKEN, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static void settle(doorbell_t *cell, const char *name, uint32_t kind, uint32_t pid)
{
    size_t length = strnlen(name, DOORBELL_NAME_MAX - 1);

    memset(cell->name, 0, DOORBELL_NAME_MAX);
    memcpy(cell->name, name, length);
    atomic_store_explicit(&cell->pid, pid, memory_order_relaxed);
    atomic_store_explicit(&cell->sleeping, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&cell->generation, 1, memory_order_relaxed);
    /* Release: pairs with the acquire of `kind` in doorbell_wake(): name and generation before the kind that uses them. */
    atomic_store_explicit(&cell->kind, kind, memory_order_release);
}

int doorbells_take(doorbells_t *doorbells, const char *name, uint32_t kind, uint32_t pid)
{
    doorbell_t *cells = doorbells->cells;

    for (int i = 0; i < DOORBELLS_MAX; i++) {
        uint32_t held = atomic_load_explicit(&cells[i].kind, memory_order_acquire);
        if (held <= DOORBELL_TAKEN || strncmp(cells[i].name, name, DOORBELL_NAME_MAX - 1) != 0)
            continue;
        if (alive(&cells[i]) && atomic_load_explicit(&cells[i].pid, memory_order_relaxed) != pid)
            return DOORBELLS_BUSY;
        if (seize(&cells[i], held)) {
            settle(&cells[i], name, kind, pid);
            return i;
        }
    }
    for (int i = 0; i < DOORBELLS_MAX; i++) {
        if (seize(&cells[i], DOORBELL_FREE)) {
            settle(&cells[i], name, kind, pid);
            return i;
        }
    }
    for (int i = 0; i < DOORBELLS_MAX; i++) {
        uint32_t held = atomic_load_explicit(&cells[i].kind, memory_order_acquire);
        if (held > DOORBELL_TAKEN && !alive(&cells[i]) && seize(&cells[i], held)) {
            settle(&cells[i], name, kind, pid);
            return i;
        }
    }
    return DOORBELLS_FULL;
}

void doorbells_release(doorbells_t *doorbells, int index)
{
    doorbell_t *cell = doorbells_cell(doorbells, index);

    atomic_store_explicit(&cell->sleeping, 0, memory_order_relaxed);
    atomic_store_explicit(&cell->pid, 0, memory_order_relaxed);
    atomic_store_explicit(&cell->kind, DOORBELL_FREE, memory_order_release);
}

void doorbells_view(const doorbells_t *doorbells, int index, doorbell_view_t *view)
{
    const doorbell_t *cell = doorbells_cell((doorbells_t *)(uintptr_t)doorbells, index);

    view->kind = atomic_load_explicit(&cell->kind, memory_order_acquire);
    view->sleeping = atomic_load_explicit(&cell->sleeping, memory_order_relaxed);
    view->pid = atomic_load_explicit(&cell->pid, memory_order_relaxed);
    view->generation = atomic_load_explicit(&cell->generation, memory_order_relaxed);
    view->rings = atomic_load_explicit(&cell->rings, memory_order_relaxed);
    view->sleeps = atomic_load_explicit(&cell->sleeps, memory_order_relaxed);
    memcpy(view->name, cell->name, sizeof(view->name));
}

void doorbells_close(doorbells_t *doorbells)
{
    for (int i = 0; i < DOORBELLS_MAX; i++) {
        if (doorbells->fds[i] >= 0)
            (void)close(doorbells->fds[i]);
        doorbells->fds[i] = -1;
    }
}

int doorbell_sleep(doorbell_t *cell, uint32_t seen, int64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S};

    atomic_fetch_add_explicit(&cell->sleeps, 1, memory_order_relaxed);
    long result = syscall(SYS_futex, &cell->bell, FUTEX_WAIT, seen, &timeout, NULL, 0);
    return result == 0 ? 0 : errno;
}

void doorbell_rouse(doorbell_t *cell)
{
    atomic_fetch_add_explicit(&cell->bell, 1, memory_order_release);
    (void)syscall(SYS_futex, &cell->bell, FUTEX_WAKE, 1, NULL, NULL, 0);
}
