/* The owner's side of doorbell.h: cells are taken at start, waited on, shown. What a publisher does is in doorbell.h. */
#ifndef BULLRING_RINGBUF_DOORBELLS_H
#define BULLRING_RINGBUF_DOORBELLS_H

#include <stdbool.h>
#include <stdint.h>

#include "doorbell.h"

enum doorbells_status { DOORBELLS_FULL = -1, DOORBELLS_BUSY = -2 };

typedef struct doorbell_view {
    uint32_t kind;
    uint32_t sleeping;
    uint32_t pid;
    uint32_t generation;
    uint64_t rings;
    uint64_t sleeps;
    char name[DOORBELL_NAME_MAX];
} doorbell_view_t;

void doorbells_format(void *memory, const uint64_t boot_id[2]);
bool doorbells_ready(const doorbells_header_t *header);

/* Take the cell of that name (a restarted owner gets its own again), else a free one, else one whose owner is dead. Returns
 * its index, DOORBELLS_FULL, or DOORBELLS_BUSY: another live process has that name. */
int doorbells_take(doorbells_t *doorbells, const char *name, uint32_t kind, uint32_t pid);
void doorbells_release(doorbells_t *doorbells, int index);
void doorbells_view(const doorbells_t *doorbells, int index, doorbell_view_t *view);
void doorbells_close(doorbells_t *doorbells);
doorbell_t *doorbells_cell(doorbells_t *doorbells, int index);

/* Sleep on a futex cell armed before, at most `timeout_ns`. Returns 0, or the errno of the wait (ETIMEDOUT, EINTR, EAGAIN). */
int doorbell_sleep(doorbell_t *cell, uint32_t seen, int64_t timeout_ns);

/* End the owner's sleep from another thread of its process. */
void doorbell_rouse(doorbell_t *cell);

#endif
