/* Map shared memory so that no page fault, no SIGBUS and, where allowed, no swapping happens later (R8). */
#ifndef BULLRING_RINGBUF_SEGMENT_H
#define BULLRING_RINGBUF_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct segment {
    void *address;
    uint64_t size;
    int prefault_errno; /* 0 = every page is mapped */
    int lock_errno;     /* 0 = locked in memory */
} segment_t;

/* All return 0 or a negative errno. Prefaulting and locking are best effort: their outcome stands in the segment. */
int segment_map(int fd, uint64_t size, bool writable, segment_t *segment);
int segment_map_private(uint64_t size, segment_t *segment);
int segment_unmap(segment_t *segment);

#endif
