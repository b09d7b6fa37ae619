/* A stage is a C step function. Which stages share a process, on which core, is configuration (DESIGN section 2). */
#ifndef BULLRING_STAGE_H
#define BULLRING_STAGE_H

#include <stdint.h>

enum stage_status {
    STAGE_IDLE = 0,
    STAGE_LAPPED = -1, /* the stage needs records that have left the ring: its process must feed them from the journal */
    STAGE_FAILED = -2, /* the stage refuses to go on; its own error text says why */
};

/* Do at most about `limit` units of work without waiting; returns how many were done, or a stage_status. */
typedef int64_t (*stage_poll_fn)(void *state, int64_t limit);

typedef struct stage {
    stage_poll_fn poll;
    void *state;
} stage_t;

#endif
