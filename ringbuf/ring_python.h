/* What ring.py calls and ring.h has no single function for: Python cannot read _Atomic fields. */
#ifndef BULLRING_RINGBUF_RING_PYTHON_H
#define BULLRING_RINGBUF_RING_PYTHON_H

#include <stdint.h>

#include "ring.h"

enum ring_watchable { RING_WATCH_PUB = 0, RING_WATCH_COMMIT = 1, RING_WATCH_CURSORS = 2 };

typedef struct ring_consumer_view {
    int64_t cursor;
    uint64_t heartbeat_ns;
    uint32_t gating;
    uint32_t pid;
    char name[32];
} ring_consumer_view_t;

/* Publish `count` whole slots at once: a linked group stays together. Returns the first sequence or RING_FULL. */
int64_t ring_publish_copy(ring_t *ring, const void *slots, int64_t count);
/* The same without publishing. */
int64_t ring_claim_copy(ring_t *ring, const void *slots, int64_t count);
int64_t ring_claim_cursor(const ring_t *ring);
uint64_t ring_epoch(const ring_t *ring);
int64_t ring_replicated(const ring_t *ring);
int64_t ring_wanted(const ring_t *ring);
/* The replicator's: the standby has everything below; INT64_MAX: wait for nobody. Wakes the journaler, whose commit it bounds. */
void ring_store_replicated(ring_t *ring, int64_t sequence);
/* The producer's, before it publishes: somebody waits for everything below. */
void ring_store_wanted(ring_t *ring, int64_t sequence);
uint32_t ring_panic(const ring_t *ring);
uint32_t ring_storage_cell(const ring_t *ring);
/* The creator's: only what is below `sequence` is known to be committed. */
void ring_begin_committed(ring_t *ring, int64_t sequence);
/* The creator's last word: attaching is possible from here on. */
void ring_identify(ring_t *ring, const char *name, const uint64_t boot_id[2], uint64_t epoch);
void ring_consumer_name(ring_t *ring, int consumer, const char *name, uint32_t pid);
void ring_consumer_view(const ring_t *ring, int consumer, ring_consumer_view_t *view);
void ring_watch_cell(ring_t *ring, int which, int doorbell);
void ring_unwatch_cell(ring_t *ring, int which, int doorbell);
uint64_t ring_watchers(const ring_t *ring, int which);

#endif
