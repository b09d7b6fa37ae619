/* One loop over any set of stages: which ones share a process is configuration, how it waits when all are idle too.
 *
 *   spin    the core is ours: never give it up
 *   yield   the core is shared and latency wanted: a short spin, then sched_yield; asleep after about 1 ms idle, if there is
 *           something to sleep on
 *   park    asleep as soon as one more look finds nothing: an idle stage costs no processor time */
#ifndef BULLRING_RINGBUF_RUNNER_H
#define BULLRING_RINGBUF_RUNNER_H

#include <stdatomic.h>
#include <stdint.h>

#include "doorbell.h"
#include "stage.h"

#define RUNNER_STAGES_MAX 16

enum runner_wait { RUNNER_SPIN = 0, RUNNER_YIELD = 1, RUNNER_PARK = 2 };

/* Why runner_run() came back; negative = the status of a stage, whose index is in `failed`. */
enum runner_status { RUNNER_TIME = 0, RUNNER_STOPPED = 1, RUNNER_SIGNAL = 2 };

typedef struct runner {
    stage_t stages[RUNNER_STAGES_MAX];
    int32_t stage_count;
    int32_t wait;
    int32_t in_turn;         /* not 0: those we wait for share our core, so after each look it is the next one's turn */
    int64_t limit;           /* units of work a poll */
    int64_t idle_timeout_ns; /* longest sleep: what a lost wake-up may cost */
    doorbell_t *doorbell;    /* NULL = cannot sleep */
    int32_t fifo;            /* FIFO doorbell: its reading end, else -1 */
    int32_t socket;          /* what else ends a sleep, e.g. an epoll descriptor, else -1 */
    _Atomic uint32_t stop;
    int32_t failed;
    int64_t work;            /* units done in the last run */
    uint64_t rounds;
    uint64_t idle_rounds;
    uint64_t yields;
    uint64_t sleeps;
} runner_t;

/* Let timers of this thread end when they should, not up to 50 us later. Returns 0 or a negative errno. */
int runner_sharpen_timers(void);

/* Poll the stages in turn until `duration_ns` has passed, a stage returns a negative status, runner_stop() or a signal. */
int64_t runner_run(runner_t *runner, int64_t duration_ns);

/* From another thread. Stays set: the next run returns at once. */
void runner_stop(runner_t *runner);

#endif
