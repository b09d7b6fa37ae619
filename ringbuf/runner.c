#include "runner.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <time.h>

#include "doorbells.h"
#include "invariant.h"
#include "platform.h"

#define NS_PER_S INT64_C(1000000000)
#define SPINS_BEFORE_YIELD 20                  /* half a microsecond: longer than a message needs to cross cores */
/* park: with more parties than cores, who sleeps at once wakes for a handful of messages; a few yields let a batch gather.
 * Measured with `bullring bench ring --wait park`, 1to3 on 2 cores: 7.9 M/s without, 28 with one, 46 with four. */
#define YIELDS_BEFORE_PARK 4
#define IDLE_NS_BEFORE_SLEEP INT64_C(1000000)  /* yield: a wake-up costs tens of us, so only real pauses sleep */
#define BUSY_ROUNDS_A_CLOCK 16                 /* the clock costs 20 ns, a busy round 100 ns and more */
#define IDLE_ROUNDS_A_CLOCK 64                 /* an idle spin costs 30 ns */
#define FIFO_DRAIN_BYTES 64

/* Back-off of an eager consumer, see back_off(). */
#define EAGER_IDLE_ROUNDS_MAX 32 /* between two batches of a stream; a round trip is longer */
#define EAGER_ENOUGH 16          /* messages beyond the first of their batch: a stream, not question and answer */
#define EAGER_MAX (4 * EAGER_ENOUGH)
#define EAGER_SINGLE_COST 4      /* what a batch of one message takes off */
#define EAGER_RELAXES 96         /* one to three microseconds */

static int64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

int runner_sharpen_timers(void)
{
    return prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL) == 0 ? 0 : -errno;
}

/* Once around. Negative = a stage's status. */
static int64_t poll_stages(runner_t *runner)
{
    int64_t work = 0;

    for (int32_t i = 0; i < runner->stage_count; i++) {
        int64_t done = runner->stages[i].poll(runner->stages[i].state, runner->limit);
        if (UNLIKELY(done < 0)) {
            runner->failed = i;
            runner->work += work;
            return done;
        }
        work += done;
    }
    return work;
}

static void drain(int fifo)
{
    char bytes[FIFO_DRAIN_BYTES];

    while (read(fifo, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes)) {
    }
}

/* Wait for the FIFO or the socket. */
static int sleep_on_descriptors(runner_t *runner, int64_t timeout_ns)
{
    struct pollfd waits[2] = {{.fd = runner->fifo, .events = POLLIN}, {.fd = runner->socket, .events = POLLIN}};
    struct timespec timeout = {.tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S};

    atomic_fetch_add_explicit(&runner->doorbell->sleeps, 1, memory_order_relaxed);
    int result = ppoll(waits, 2, &timeout, NULL) < 0 ? errno : 0;
    if (waits[0].revents != 0)
        drain(runner->fifo);
    return result;
}

/* Arm, look once more, sleep. Returns the work found by the look (negative = a stage's status); *interrupted = by a signal. */
static int64_t look_and_sleep(runner_t *runner, int64_t timeout_ns, bool *interrupted)
{
    uint32_t seen = doorbell_arm(runner->doorbell);
    int64_t work = poll_stages(runner);
    int result = 0;

    if (work == 0 && atomic_load_explicit(&runner->stop, memory_order_acquire) == 0) {
        runner->sleeps++;
        result = runner->fifo >= 0 || runner->socket >= 0 ? sleep_on_descriptors(runner, timeout_ns)
                                                          : doorbell_sleep(runner->doorbell, seen, timeout_ns);
    }
    doorbell_disarm(runner->doorbell);
    *interrupted = result == EINTR;
    return work;
}

typedef struct idleness {
    int64_t rounds;    /* empty ones in a row */
    int64_t since_ns;  /* yield: when the first yield of this pause was */
    int64_t eagerness; /* evidence of a stream that we catch up with again and again */
} idleness_t;

/* A consumer faster than its producer pulls the cursor's line away at every message, and the producer, whose stores leave in
 * order, waits for it to come back each time: the stream then runs at the pace of that line (measured: 13 instead of 20 M/s
 * across distant cores, 58 instead of 120 across near ones). So who finds small batches of several messages, with short idle
 * gaps between them, lets a few more gather before the next look. Question and answer (one message a time), a loop that is
 * never idle and a pause in the stream end it at once. Several stages in one loop pass a single message on and on: their work
 * says nothing about a stream (measured: a fused order path answered in 13.7 instead of 10 us). */
static void back_off(const runner_t *runner, idleness_t *idle, int64_t work)
{
    if (runner->stage_count > 1)
        return;
    if (idle->rounds > EAGER_IDLE_ROUNDS_MAX || work > runner->limit / 2)
        idle->eagerness = 0;
    else if (idle->rounds > 0 && idle->eagerness < EAGER_MAX)
        idle->eagerness += work - 1;
    if (idle->eagerness < EAGER_ENOUGH)
        return;
    if (work == 1)
        idle->eagerness -= EAGER_SINGLE_COST;
    for (int i = 0; i < EAGER_RELAXES; i++)
        CPU_RELAX();
}

/* One wait of an idle loop. Returns work done by a last look (negative = a stage's status), 0 = none. */
static int64_t wait_once(runner_t *runner, idleness_t *idle, int64_t deadline_ns, bool *interrupted, bool *look_at_clock)
{
    idle->rounds++;
    runner->idle_rounds++;
    *look_at_clock = true;
    int64_t spins = runner->in_turn != 0 ? 0 : SPINS_BEFORE_YIELD;
    if (runner->wait == RUNNER_SPIN || (runner->wait == RUNNER_YIELD && idle->rounds <= spins)) {
        CPU_RELAX();
        *look_at_clock = idle->rounds % IDLE_ROUNDS_A_CLOCK == 0;
        return 0;
    }
    if (runner->wait == RUNNER_PARK && idle->rounds <= YIELDS_BEFORE_PARK) {
        runner->yields++;
        (void)sched_yield();
        return 0;
    }
    int64_t now = now_ns();
    if (runner->wait == RUNNER_YIELD) {
        idle->since_ns = idle->rounds == spins + 1 ? now : idle->since_ns;
        if (runner->doorbell == NULL || now - idle->since_ns < IDLE_NS_BEFORE_SLEEP) {
            runner->yields++;
            (void)sched_yield();
            return 0;
        }
    }
    int64_t left = deadline_ns - now;
    if (left <= 0)
        return 0;
    return look_and_sleep(runner, left < runner->idle_timeout_ns ? left : runner->idle_timeout_ns, interrupted);
}

int64_t runner_run(runner_t *runner, int64_t duration_ns)
{
    int64_t deadline_ns = now_ns() + duration_ns;
    idleness_t idle = {0};
    bool interrupted = false;

    INVARIANT(runner->wait != RUNNER_PARK || runner->doorbell != NULL);
    runner->work = 0;
    runner->failed = -1;
    for (;;) {
        bool look_at_clock;
        if (atomic_load_explicit(&runner->stop, memory_order_relaxed) != 0)
            return RUNNER_STOPPED;
        int64_t work = poll_stages(runner);
        runner->rounds++;
        if (work == 0)
            work = wait_once(runner, &idle, deadline_ns, &interrupted, &look_at_clock);
        else
            look_at_clock = runner->rounds % BUSY_ROUNDS_A_CLOCK == 0;
        if (UNLIKELY(work < 0))
            return work;
        if (work > 0) {
            back_off(runner, &idle, work);
            idle.rounds = 0;
            if (runner->in_turn != 0) {
                runner->yields++;
                (void)sched_yield();
            }
        }
        runner->work += work;
        if (interrupted)
            return RUNNER_SIGNAL;
        if (look_at_clock && now_ns() >= deadline_ns)
            return RUNNER_TIME;
    }
}

void runner_stop(runner_t *runner)
{
    atomic_store_explicit(&runner->stop, 1, memory_order_seq_cst);
    if (runner->doorbell == NULL)
        return;
    if (runner->fifo >= 0)
        (void)(write(runner->fifo, "", 1) < 0); /* full is readable too */
    else
        doorbell_rouse(runner->doorbell);
}
