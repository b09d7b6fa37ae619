/* Processes on rings killed with SIGKILL at any instruction, thousands of times: nothing torn, lost or duplicated.
 *
 *   producer -> ring `input` -> relay -> ring `output` -> checker (gating) and observer (never gates)
 *
 * Producer, relay and checker are killed in turn and forked again; the observer lives. The rules under test: R1, R2 (re-attach
 * at pub), R3 in so far as a successor starts after its predecessor is gone, R5 (lap by claim), R6 (the relay resumes its input
 * behind the last record it published, never at its cursor). The content of a record is a function of its sequence, sealed by
 * a checksum; the checker keeps its position in memory of its own as a journaler does in its file.
 *
 * ring_kill [KILLS]; exit 0 = all good. With one of these macros the program carries a planted fault and must exit 1:
 *   RING_KILL_FAULT=1  publish before write (R1)
 *   RING_KILL_FAULT=2  re-attach at claim instead of pub (R2)
 *   RING_KILL_FAULT=3  observer without the look at claim (R5)
 *   RING_KILL_FAULT=4  a successor sets claim back to pub, hiding what its predecessor overwrote (R2, R5)
 *   RING_KILL_FAULT=5  the relay resumes at its cursor (R6) */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"
#include "ringbuf/segment.h"

#ifndef RING_KILL_FAULT
#define RING_KILL_FAULT 0
#endif
enum fault { PUBLISH_BEFORE_WRITE = 1, ATTACH_AT_CLAIM = 2, NO_CLAIM_CHECK = 3, CLAIM_SET_BACK = 4, RESUME_AT_CURSOR = 5 };

#define SLOT_COUNT 1024
#define BODY_WORDS 13
#define BATCH_MAX 16
#define KILLS_DEFAULT 3000
#define KILLS_QUICK 1000
#define LINGER_EVERY 4
#define LIFE_NS_MIN 50000
#define LIFE_NS_SPREAD 400000
#define DEADLINE_S 120

typedef struct record {
    uint64_t sequence; /* in its own ring */
    uint64_t source;   /* sequence in the ring it was made from */
    uint64_t body[BODY_WORDS];
    uint64_t checksum;
} record_t;
_Static_assert(sizeof(record_t) == 128, "a slot");

typedef struct results {
    _Atomic int stop;
    _Atomic int64_t checked; /* the checker's "file": the next sequence it has not yet dealt with */
    _Atomic int64_t bad;     /* records torn, out of order, lost or duplicated */
    _Atomic int64_t observed;
    _Atomic int64_t lapped;
    _Atomic int64_t observed_bad;
} results_t;

typedef struct world {
    ring_header_t *input;
    ring_header_t *output;
    results_t *results;
} world_t;

static uint64_t checksum(const record_t *record)
{
    uint64_t sum = 1;

    for (size_t i = 0; i < sizeof(record_t) / 8 - 1; i++)
        sum = (sum ^ ((const uint64_t *)record)[i]) * UINT64_C(0x100000001b3) + (sum >> 29);
    return sum;
}

static void fill(record_t *record, int64_t sequence, int64_t source)
{
    record->sequence = (uint64_t)sequence;
    record->source = (uint64_t)source;
    for (int i = 0; i < BODY_WORDS; i++)
        record->body[i] = ((uint64_t)sequence + 1) * UINT64_C(0x9e3779b97f4a7c15) + (uint64_t)i;
    record->checksum = checksum(record);
}

static bool good(const record_t *record, int64_t sequence)
{
    return record->sequence == (uint64_t)sequence && record->checksum == checksum(record);
}

/* As a starting producer: its predecessor is gone. */
static ring_t attach_producer(ring_header_t *header)
{
    ring_t ring;

    ring_attach(&ring, header, NULL);
    if (RING_KILL_FAULT == ATTACH_AT_CLAIM)
        ring.claimed = ring.claim_stored;
    if (RING_KILL_FAULT == CLAIM_SET_BACK) {
        ring.claim_stored = ring.claimed;
        atomic_store(&header->claim, ring.claimed);
    }
    return ring;
}

static void write_batch(ring_t *ring, int64_t first, int64_t count, int64_t source)
{
    if (RING_KILL_FAULT == PUBLISH_BEFORE_WRITE)
        ring_publish(ring, first + count);
    for (int64_t i = 0; i < count; i++)
        fill(ring_slot(ring, first + i), first + i, source + i);
    if (RING_KILL_FAULT != PUBLISH_BEFORE_WRITE)
        ring_publish(ring, first + count);
}

static void produce(world_t *world)
{
    ring_t ring = attach_producer(world->input);
    uint32_t random = (uint32_t)getpid();

    while (atomic_load_explicit(&world->results->stop, memory_order_relaxed) == 0) {
        random = random * 1103515245u + 12345u;
        int64_t count = 1 + (random >> 16) % BATCH_MAX;
        int64_t first = ring_claim(&ring, count);
        if (first < 0)
            (void)sched_yield();
        else
            write_batch(&ring, first, count, first);
    }
}

/* Where the relay goes on: behind the source of the last record it published. */
static int64_t resume_relay(const ring_t *output, const ring_t *input)
{
    if (RING_KILL_FAULT == RESUME_AT_CURSOR)
        return atomic_load(&input->header->consumers[0].cursor);
    int64_t published = ring_published(output);
    return published == 0 ? 0 : (int64_t)((const record_t *)ring_slot(output, published - 1))->source + 1;
}

static void relay(world_t *world)
{
    ring_t output = attach_producer(world->output);
    ring_t input;

    ring_attach(&input, world->input, NULL);
    int64_t next = resume_relay(&output, &input);
    ring_advance(&input, 0, next);
    for (;;) {
        int64_t count = ring_published(&input) - next;
        count = count < BATCH_MAX ? count : BATCH_MAX;
        int64_t first = count == 0 ? RING_FULL : ring_claim(&output, count);
        if (first < 0) {
            (void)sched_yield();
            continue;
        }
        for (int64_t i = 0; i < count; i++) {
            if (!good(ring_slot(&input, next + i), next + i))
                atomic_fetch_add(&world->results->bad, 1);
        }
        write_batch(&output, first, count, next);
        next += count;
        if (next % LINGER_EVERY == 0)
            (void)sched_yield(); /* so that some deaths fall between the two cursors */
        /* After the output is published (CORE section 2): a death in between repeats nothing, see resume_relay(). */
        ring_advance(&input, 0, next);
    }
}

static void check(world_t *world)
{
    results_t *results = world->results;
    ring_t ring;

    ring_attach(&ring, world->output, NULL);
    int64_t next = atomic_load(&results->checked);
    for (;;) {
        int64_t end = ring_published(&ring);
        if (next == end)
            (void)sched_yield();
        for (; next < end; next++) {
            const record_t *record = ring_slot(&ring, next);
            /* The relay passes on one for one: any loss or duplicate shifts source against sequence. */
            if (!good(record, next) || record->source != (uint64_t)next)
                atomic_fetch_add(&results->bad, 1);
        }
        atomic_store(&results->checked, next);
        ring_advance(&ring, 0, next);
    }
}

/* Follows closely, or reads the oldest that can still be there: where the overwriting happens. */
static int64_t observe_at(const ring_t *ring, int64_t observed)
{
    int64_t published = ring_published(ring);
    int64_t oldest = published - ring_capacity(ring) + observed % (3 * BATCH_MAX);

    if (observed % 2 == 0 && published > 0)
        return published - 1;
    return oldest < 0 ? 0 : oldest;
}

static void observe(world_t *world)
{
    results_t *results = world->results;
    record_t record;
    ring_t ring;

    ring_attach(&ring, world->output, NULL);
    for (int64_t observed = 0; atomic_load_explicit(&results->stop, memory_order_relaxed) == 0; observed++) {
        int64_t sequence = observe_at(&ring, observed);
        if (sequence >= ring_published(&ring))
            continue;
        int status = ring_read(&ring, sequence, 1, &record);
        if (status == RING_LAPPED && RING_KILL_FAULT != NO_CLAIM_CHECK) {
            atomic_fetch_add(&results->lapped, 1);
            continue;
        }
        atomic_fetch_add(&results->observed, 1);
        if (!good(&record, sequence))
            atomic_fetch_add(&results->observed_bad, 1);
        if (observed % 64 == 0)
            (void)sched_yield();
    }
}

static pid_t start(void (*body)(world_t *), world_t *world)
{
    pid_t parent = getpid();
    pid_t child = fork();

    INVARIANT(child >= 0);
    if (child > 0)
        return child;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    body(world);
    _exit(0);
}

static void end(pid_t child)
{
    INVARIANT(kill(child, SIGKILL) == 0);
    INVARIANT(waitpid(child, NULL, 0) == child);
}

static ring_header_t *make_ring(void)
{
    segment_t memory;
    ring_t ring;

    INVARIANT(segment_map_private(RING_HEADER_SIZE + SLOT_COUNT * sizeof(record_t), &memory) == 0);
    ring_format(memory.address, sizeof(record_t), SLOT_COUNT, 0, RING_MODE_PLAIN, 0);
    ring_attach(&ring, memory.address, NULL);
    ring_gate(&ring, 0, 0);
    return memory.address;
}

static void kill_again_and_again(world_t *world, int kills)
{
    void (*const bodies[])(world_t *) = {produce, relay, check};
    pid_t children[3];
    uint32_t random = 1;

    for (int i = 0; i < 3; i++)
        children[i] = start(bodies[i], world);
    for (int i = 0; i < kills; i++) {
        random = random * 1103515245u + 12345u;
        struct timespec life = {.tv_nsec = LIFE_NS_MIN + (random >> 8) % LIFE_NS_SPREAD};
        (void)nanosleep(&life, NULL);
        int victim = (int)((random >> 16) % 3);
        end(children[victim]);
        children[victim] = start(bodies[victim], world);
    }
    atomic_store(&world->results->stop, 1);
    INVARIANT(waitpid(children[0], NULL, 0) == children[0]);
    time_t deadline = time(NULL) + DEADLINE_S;
    while (atomic_load(&world->results->checked) != atomic_load(&world->input->pub) && time(NULL) < deadline &&
           atomic_load(&world->results->bad) == 0)
        (void)sched_yield();
    end(children[1]);
    end(children[2]);
}

int main(int argc, char **argv)
{
    int kills = argc > 1 ? atoi(argv[1]) : getenv("BULLRING_QUICK") != NULL ? KILLS_QUICK : KILLS_DEFAULT;
    segment_t memory;
    world_t world = {.input = make_ring(), .output = make_ring()};

    INVARIANT(segment_map_private(sizeof(results_t), &memory) == 0);
    world.results = memory.address;
    const results_t *results = world.results;
    pid_t observer = start(observe, &world);
    kill_again_and_again(&world, kills);
    INVARIANT(waitpid(observer, NULL, 0) == observer);

    int64_t produced = atomic_load(&world.input->pub);
    printf("{\"kills\": %d, \"records\": %lld, \"checked\": %lld, \"bad\": %lld, \"observed\": %lld, \"lapped\": %lld, "
           "\"observed_bad\": %lld}\n",
           kills, (long long)produced, (long long)results->checked, (long long)results->bad, (long long)results->observed,
           (long long)results->lapped, (long long)results->observed_bad);
    bool whole = results->checked == produced && atomic_load(&world.output->pub) == produced;
    bool seen = produced > SLOT_COUNT && results->observed > 0;
    return whole && seen && results->bad == 0 && results->observed_bad == 0 ? 0 : 1;
}
