/* Two processes that park play ping-pong through two rings and the real runner. A lost wake-up would end only with the sleep's
 * timeout, so one such sleep is the failure looked for. Also the price: publishers make one wake-up a sleep, no more.
 *
 * doorbell_park [ROUND_TRIPS]; exit 0 = no wake-up lost. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"
#include "ringbuf/doorbells.h"
#include "ringbuf/runner.h"
#include "ringbuf/segment.h"

#define TRIPS_DEFAULT 20000
#define TRIPS_QUICK 5000
#define IDLE_TIMEOUT_NS INT64_C(20000000000)
#define DEADLINE_NS INT64_C(120000000000)
#define SLOT_COUNT 16
#define SLOT_SIZE 64
#define DONE (-100)
#define THINK_EVERY 16   /* balls */
#define THINK_NS_STEP 997 /* so that the wake-up meets the other one at every step of falling asleep */

typedef struct player {
    ring_t in;
    ring_t out;
    int64_t next;  /* sequence to read */
    int64_t trips; /* to make */
    bool serves;   /* plays first, so has the last ball too */
} player_t;

/* The one who serves keeps some balls for a while: long enough, whatever the runner does before, for the other to sleep. */
static void think(const player_t *player)
{
    if (player->serves && player->next % THINK_EVERY == 0)
        (void)nanosleep(&(struct timespec){.tv_nsec = player->next % 64 * THINK_NS_STEP + 1}, NULL);
}

/* Answer each ball with the next one. */
static int64_t play(void *state, int64_t limit)
{
    player_t *player = state;
    int64_t end = ring_published(&player->in);

    (void)limit;
    if (player->next == end)
        return 0;
    INVARIANT(*(int64_t *)ring_slot(&player->in, player->next) == player->next);
    player->next++;
    ring_advance(&player->in, 0, player->next);
    if (player->serves && player->next == player->trips)
        return DONE;
    think(player);
    int64_t first = ring_claim(&player->out, 1);
    INVARIANT(first >= 0);
    *(int64_t *)ring_slot(&player->out, first) = first;
    ring_publish(&player->out, first + 1);
    return player->next == player->trips ? DONE : 1;
}

static int64_t run_player(player_t *player, doorbell_t *bell)
{
    runner_t runner = {.stage_count = 1, .wait = RUNNER_PARK, .limit = 1, .idle_timeout_ns = IDLE_TIMEOUT_NS, .doorbell = bell};

    runner.fifo = runner.socket = -1;
    runner.stages[0] = (stage_t){.poll = play, .state = player};
    return runner_run(&runner, DEADLINE_NS);
}

static ring_t make_ring(segment_t *memory, doorbells_t *doorbells, int watcher)
{
    ring_t ring;

    INVARIANT(segment_map_private(RING_HEADER_SIZE + SLOT_COUNT * SLOT_SIZE, memory) == 0);
    ring_format(memory->address, SLOT_SIZE, SLOT_COUNT, 0, RING_MODE_PLAIN, 0);
    ring_attach(&ring, memory->address, doorbells);
    ring_gate(&ring, 0, 0);
    ring_watch(&ring.header->pub_waiters, watcher);
    return ring;
}

int main(int argc, char **argv)
{
    static doorbells_t doorbells;
    const uint64_t boot_id[2] = {0, 0};
    int64_t trips = argc > 1 ? atoll(argv[1]) : getenv("BULLRING_QUICK") != NULL ? TRIPS_QUICK : TRIPS_DEFAULT;
    segment_t memory[3];

    INVARIANT(segment_map_private(DOORBELLS_SIZE, &memory[0]) == 0);
    doorbells_format(memory[0].address, boot_id);
    doorbells_attach(&doorbells, memory[0].address, -1);
    int bells[2] = {doorbells_take(&doorbells, "left", DOORBELL_FUTEX, (uint32_t)getpid()),
                    doorbells_take(&doorbells, "right", DOORBELL_FUTEX, (uint32_t)getpid())};
    ring_t to_right = make_ring(&memory[1], &doorbells, bells[1]);
    ring_t to_left = make_ring(&memory[2], &doorbells, bells[0]);
    player_t left = {.in = to_left, .out = to_right, .trips = trips, .serves = true};
    player_t right = {.in = to_right, .out = to_left, .trips = trips};

    pid_t child = fork();
    INVARIANT(child >= 0);
    if (child == 0)
        _exit(run_player(&right, &doorbells.cells[bells[1]]) == DONE ? 0 : 1);
    INVARIANT(ring_claim(&left.out, 1) == 0);
    *(int64_t *)ring_slot(&left.out, 0) = 0;
    ring_publish(&left.out, 1);
    struct timespec began;
    struct timespec ended;
    (void)clock_gettime(CLOCK_MONOTONIC, &began);
    int64_t status = run_player(&left, &doorbells.cells[bells[0]]);
    (void)clock_gettime(CLOCK_MONOTONIC, &ended);
    int exit_status = 1;
    INVARIANT(waitpid(child, &exit_status, 0) == child);

    uint64_t rings = doorbells.cells[bells[0]].rings + doorbells.cells[bells[1]].rings;
    uint64_t sleeps = doorbells.cells[bells[0]].sleeps + doorbells.cells[bells[1]].sleeps;
    int64_t elapsed_ns = (ended.tv_sec - began.tv_sec) * INT64_C(1000000000) + ended.tv_nsec - began.tv_nsec;
    printf("trips=%lld elapsed_ms=%lld sleeps=%llu wake_ups=%llu\n", (long long)trips, (long long)(elapsed_ns / 1000000),
           (unsigned long long)sleeps, (unsigned long long)rings);
    INVARIANT(status == DONE);
    INVARIANT(exit_status == 0);
    INVARIANT(elapsed_ns < IDLE_TIMEOUT_NS);
    INVARIANT(sleeps > 0);
    INVARIANT(rings <= 2 * (uint64_t)trips);
    return 0;
}
