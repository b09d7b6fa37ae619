/* Rings between processes: throughput of four topologies on one ring, ping-pong through two, and a bare two-cursor ping-pong to
 * hold against it. Stages and waiting are those of the exchange (ring.h, runner.c); only the work is a toy: 64 bytes written
 * by the producer and read by every consumer, which must come to the right sum.
 *
 *   ring_bench TOPOLOGY WAIT MESSAGES [SLOT_COUNT]
 *     TOPOLOGY  1to1 | 1to3 | pipeline | diamond | pingpong | bare
 *     WAIT      spin | yield | park; only park has doorbells: like the reference's YieldingWaitStrategy, yield never sleeps
 *
 * With a core for each process they get one each, in the order of their roles; otherwise the scheduler places them.
 * One JSON object on standard output; exit 0, or 1 if a sum is wrong or a process failed. */
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
#include "ringbuf/doorbells.h"
#include "ringbuf/runner.h"
#include "ringbuf/segment.h"

#define SLOT_COUNT_DEFAULT 16384
#define PAYLOAD_WORDS 8
#define CONSUMERS_MAX 3
#define POLL_LIMIT 256
#define IDLE_TIMEOUT_NS INT64_C(10000000)
#define FOREVER_NS INT64_C(300000000000)
#define DEADLINE_S 120
#define DONE (-100)
#define NS_PER_S INT64_C(1000000000)

typedef struct payload {
    _Alignas(64) uint64_t words[PAYLOAD_WORDS];
} payload_t;

/* Who reads behind whom: bit i of behind[k] = consumer k reads what consumer i is done with; 0 = the producer. */
typedef struct topology {
    const char *name;
    int consumers;
    uint32_t behind[CONSUMERS_MAX];
} topology_t;

static const topology_t TOPOLOGIES[] = {
    {"1to1", 1, {0}},
    {"1to3", 3, {0, 0, 0}},
    {"pipeline", 3, {0, 1u << 0, 1u << 1}},
    {"diamond", 3, {0, 0, 1u << 0 | 1u << 1}},
};

/* Shared by the processes. */
typedef struct results {
    _Alignas(CACHE_LINE) _Atomic int ready;
    _Alignas(CACHE_LINE) _Atomic int64_t began_ns;
    struct {
        _Alignas(CACHE_LINE) uint64_t sum;
        int64_t ended_ns;
        uint64_t sleeps;
    } roles[CONSUMERS_MAX + 1];
} results_t;

typedef struct bench {
    int wait;
    int parties; /* processes that start together */
    int64_t messages;
    uint64_t slot_count;
    results_t *results;
    doorbells_t doorbells;
    int bells[CONSUMERS_MAX + 1];
} bench_t;

static int64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* ---- the toy work ------------------------------------------------------------------------------------------------- */

typedef uint64_t half_t __attribute__((vector_size(32))); /* two stores a payload, as a compiler makes of a struct copy */

static inline void write_payload(payload_t *payload, int64_t sequence)
{
    half_t *halves = (half_t *)payload;
    uint64_t first = (uint64_t)sequence;

    halves[0] = (half_t){0, 1, 2, 3} + first;
    halves[1] = (half_t){4, 5, 6, 7} + first;
}

static inline uint64_t read_payload(const payload_t *payload)
{
    const half_t *halves = (const half_t *)payload;
    half_t sum = halves[0] + halves[1];

    return sum[0] + sum[1] + sum[2] + sum[3];
}

static uint64_t expected_sum(int64_t messages)
{
    uint64_t count = (uint64_t)messages;

    return count * (count - 1) / 2 * PAYLOAD_WORDS + count * (PAYLOAD_WORDS * (PAYLOAD_WORDS - 1) / 2);
}

/* ---- processes ---------------------------------------------------------------------------------------------------- */

static void *shared_memory(uint64_t size)
{
    segment_t segment;

    INVARIANT(segment_map_private(size, &segment) == 0);
    return segment.address;
}

static ring_t make_ring(bench_t *bench)
{
    ring_t ring;
    void *memory = shared_memory(RING_HEADER_SIZE + bench->slot_count * sizeof(payload_t));

    ring_format(memory, sizeof(payload_t), bench->slot_count, 0, RING_MODE_PLAIN, 0);
    ring_attach(&ring, memory, &bench->doorbells);
    return ring;
}

/* A child's page tables are empty: fill them before the clock runs. */
static void touch(const ring_t *ring)
{
    volatile const uint8_t *bytes = ring->slots;

    for (uint64_t offset = 0; offset < (ring->mask + 1) * ring->slot_size; offset += 4096)
        (void)bytes[offset];
}

static void meet(bench_t *bench)
{
    atomic_fetch_add(&bench->results->ready, 1);
    while (atomic_load(&bench->results->ready) < bench->parties)
        (void)sched_yield();
}

static int64_t run_stage(bench_t *bench, int role, stage_poll_fn poll, void *state)
{
    runner_t runner = {
        .stage_count = 1,
        .wait = bench->wait,
        .limit = POLL_LIMIT,
        .idle_timeout_ns = IDLE_TIMEOUT_NS,
        .doorbell = bench->wait == RUNNER_PARK ? &bench->doorbells.cells[bench->bells[role]] : NULL,
        .fifo = -1,
        .socket = -1,
    };

    runner.stages[0] = (stage_t){.poll = poll, .state = state};
    int64_t status = runner_run(&runner, FOREVER_NS);
    bench->results->roles[role].ended_ns = now_ns();
    bench->results->roles[role].sleeps = runner.sleeps;
    return status;
}

/* The scheduler may start two spinning processes on one core and need milliseconds to see it. */
static void take_core(const bench_t *bench, int role)
{
    cpu_set_t allowed;
    cpu_set_t mine;
    int seen = 0;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 || CPU_COUNT(&allowed) < bench->parties)
        return;
    CPU_ZERO(&mine);
    for (int core = 0; core < CPU_SETSIZE; core++) {
        if (CPU_ISSET(core, &allowed) && seen++ == role)
            CPU_SET(core, &mine);
    }
    (void)sched_setaffinity(0, sizeof(mine), &mine);
}

typedef int (*role_fn)(bench_t *bench, int role, void *argument);

static pid_t start(bench_t *bench, int role, role_fn body, void *argument)
{
    pid_t parent = getpid();
    pid_t child = fork();

    INVARIANT(child >= 0);
    if (child > 0)
        return child;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    (void)alarm(DEADLINE_S);
    take_core(bench, role);
    _exit(body(bench, role, argument));
}

static bool all_succeeded(const pid_t *children, int count)
{
    bool good = true;

    for (int i = 0; i < count; i++) {
        int status = 1;
        INVARIANT(waitpid(children[i], &status, 0) == children[i]);
        good = good && status == 0;
    }
    return good;
}

/* ---- throughput ---------------------------------------------------------------------------------------------------- */

typedef struct producer {
    ring_t ring;
    int64_t messages;
} producer_t;

typedef struct consumer {
    ring_t ring;
    int index;
    uint32_t behind;
    int64_t messages;
    int64_t next;
    uint64_t sum;
} consumer_t;

/* Claims, writes and publishes one message at a time, as a gateway does. */
static int64_t produce(void *state, int64_t limit)
{
    producer_t *producer = state;
    ring_t *ring = &producer->ring;

    for (int64_t done = 0; done < limit; done++) {
        if (ring->claimed == producer->messages)
            return DONE;
        int64_t sequence = ring_claim(ring, 1);
        if (sequence < 0)
            return done;
        write_payload(ring_slot(ring, sequence), sequence);
        ring_publish(ring, sequence + 1);
    }
    return limit;
}

static int64_t readable_end(const consumer_t *consumer)
{
    int64_t end = consumer->messages;

    if (consumer->behind == 0)
        return ring_published(&consumer->ring);
    for (uint32_t mask = consumer->behind; mask != 0; mask &= mask - 1) {
        int64_t cursor = ring_cursor(&consumer->ring, __builtin_ctz(mask));
        end = cursor < end ? cursor : end;
    }
    return end;
}

static int64_t consume(void *state, int64_t limit)
{
    consumer_t *consumer = state;
    int64_t end = readable_end(consumer);
    int64_t begin = consumer->next;

    if (end == begin) {
        ring_prefetch(&consumer->ring, begin);
        return 0;
    }
    end = end < begin + limit ? end : begin + limit;
    for (int64_t sequence = begin; sequence < end; sequence++)
        consumer->sum += read_payload(ring_slot(&consumer->ring, sequence));
    consumer->next = end;
    ring_advance(&consumer->ring, consumer->index, end);
    return end == consumer->messages ? DONE : end - begin;
}

static int producer_role(bench_t *bench, int role, void *argument)
{
    producer_t *producer = argument;

    touch(&producer->ring);
    meet(bench);
    atomic_store(&bench->results->began_ns, now_ns());
    return run_stage(bench, role, produce, producer) == DONE ? 0 : 1;
}

static int consumer_role(bench_t *bench, int role, void *argument)
{
    consumer_t *consumer = argument;

    touch(&consumer->ring);
    meet(bench);
    int64_t status = run_stage(bench, role, consume, consumer);
    bench->results->roles[role].sum = consumer->sum;
    return status == DONE ? 0 : 1;
}

/* Who sleeps until what: the producer until a last consumer moves, others until whom they are behind moves. */
static void watch_throughput(bench_t *bench, ring_t *ring, const topology_t *topology)
{
    if (bench->wait != RUNNER_PARK)
        return;
    ring_watch(&ring->header->cursor_waiters, bench->bells[0]);
    for (int i = 0; i < topology->consumers; i++) {
        bool first = topology->behind[i] == 0;
        ring_watch(first ? &ring->header->pub_waiters : &ring->header->cursor_waiters, bench->bells[i + 1]);
    }
}

static int run_throughput(bench_t *bench, const topology_t *topology)
{
    ring_t ring = make_ring(bench);
    producer_t producer = {.ring = ring, .messages = bench->messages};
    consumer_t consumers[CONSUMERS_MAX];
    pid_t children[CONSUMERS_MAX + 1];
    uint32_t followed = 0;
    int count = topology->consumers;

    bench->parties = count + 1;
    for (int i = 0; i < count; i++)
        followed |= topology->behind[i];
    for (int i = 0; i < count; i++) {
        consumers[i] = (consumer_t){.ring = ring, .index = i, .behind = topology->behind[i], .messages = bench->messages};
        if ((followed & 1u << i) == 0)
            ring_gate(&ring, i, 0);
    }
    watch_throughput(bench, &ring, topology);
    for (int i = 0; i < count; i++)
        children[i + 1] = start(bench, i + 1, consumer_role, &consumers[i]);
    children[0] = start(bench, 0, producer_role, &producer);
    if (!all_succeeded(children, count + 1))
        return 1;

    int64_t ended_ns = 0;
    uint64_t sleeps = bench->results->roles[0].sleeps;
    for (int i = 1; i <= count; i++) {
        if (bench->results->roles[i].sum != expected_sum(bench->messages))
            return 1;
        ended_ns = bench->results->roles[i].ended_ns > ended_ns ? bench->results->roles[i].ended_ns : ended_ns;
        sleeps += bench->results->roles[i].sleeps;
    }
    double seconds = (double)(ended_ns - bench->results->began_ns) / (double)NS_PER_S;
    printf("{\"topology\": \"%s\", \"messages\": %lld, \"seconds\": %.6f, \"messages_per_s\": %.0f, \"sleeps\": %llu}\n",
           topology->name, (long long)bench->messages, seconds, (double)bench->messages / seconds, (unsigned long long)sleeps);
    return 0;
}

/* ---- ping-pong ----------------------------------------------------------------------------------------------------- */

typedef struct player {
    ring_t in;
    ring_t out;
    int64_t messages;
    int64_t next;
    uint64_t sum;
    int64_t sent_ns;
    int64_t *round_trips; /* the server's; NULL = the other side */
} player_t;

static void send_ball(player_t *player)
{
    int64_t sequence = ring_claim(&player->out, 1);

    INVARIANT(sequence >= 0);
    write_payload(ring_slot(&player->out, sequence), sequence);
    ring_publish(&player->out, sequence + 1);
}

static int64_t play(void *state, int64_t limit)
{
    player_t *player = state;

    (void)limit;
    if (ring_published(&player->in) == player->next) {
        ring_prefetch(&player->in, player->next);
        return 0;
    }
    player->sum += read_payload(ring_slot(&player->in, player->next));
    player->next++;
    bool last = player->next == player->messages;
    if (player->round_trips != NULL) {
        int64_t now = now_ns();
        player->round_trips[player->next - 1] = now - player->sent_ns;
        player->sent_ns = now;
        if (!last)
            send_ball(player);
    } else {
        send_ball(player);
    }
    ring_advance(&player->in, 0, player->next); /* behind the answer: nobody waits for the room yet */
    return last ? DONE : 1;
}

static int player_role(bench_t *bench, int role, void *argument)
{
    player_t *player = argument;

    touch(&player->in);
    touch(&player->out);
    meet(bench);
    if (player->round_trips != NULL) {
        player->sent_ns = now_ns();
        send_ball(player);
    }
    int64_t status = run_stage(bench, role, play, player);
    bench->results->roles[role].sum = player->sum;
    return status == DONE ? 0 : 1;
}

static int by_size(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left;
    int64_t b = *(const int64_t *)right;

    return a < b ? -1 : a > b;
}

static void print_round_trips(const char *name, int64_t *round_trips, int64_t count, uint64_t sleeps)
{
    qsort(round_trips, (size_t)count, sizeof(*round_trips), by_size);
    printf("{\"topology\": \"%s\", \"messages\": %lld, \"rtt_ns_min\": %lld, \"rtt_ns_p50\": %lld, \"rtt_ns_p90\": %lld, "
           "\"rtt_ns_p99\": %lld, \"rtt_ns_p999\": %lld, \"sleeps\": %llu}\n",
           name, (long long)count, (long long)round_trips[0], (long long)round_trips[count / 2],
           (long long)round_trips[count * 9 / 10], (long long)round_trips[count * 99 / 100],
           (long long)round_trips[count * 999 / 1000], (unsigned long long)sleeps);
}

static int run_pingpong(bench_t *bench)
{
    ring_t there = make_ring(bench);
    ring_t back = make_ring(bench);
    int64_t *round_trips = shared_memory((uint64_t)bench->messages * sizeof(int64_t));
    player_t server = {.in = back, .out = there, .messages = bench->messages, .round_trips = round_trips};
    player_t other = {.in = there, .out = back, .messages = bench->messages};
    pid_t children[2];

    bench->parties = 2;
    ring_gate(&there, 0, 0);
    ring_gate(&back, 0, 0);
    if (bench->wait == RUNNER_PARK) {
        ring_watch(&there.header->pub_waiters, bench->bells[1]);
        ring_watch(&back.header->pub_waiters, bench->bells[0]);
    }
    children[1] = start(bench, 1, player_role, &other);
    children[0] = start(bench, 0, player_role, &server);
    if (!all_succeeded(children, 2))
        return 1;
    for (int i = 0; i < 2; i++) {
        if (bench->results->roles[i].sum != expected_sum(bench->messages))
            return 1;
    }
    print_round_trips("pingpong", round_trips, bench->messages, bench->results->roles[0].sleeps + bench->results->roles[1].sleeps);
    return 0;
}

/* ---- bare: two cursors on lines of their own and nothing else, the floor of this machine ----------------------------- */

typedef struct cursors {
    _Alignas(CACHE_LINE) _Atomic int64_t there;
    _Alignas(CACHE_LINE) _Atomic int64_t back;
    int64_t *round_trips;
} cursors_t;

static void await(_Atomic int64_t *cursor, int64_t value, int wait)
{
    while (atomic_load_explicit(cursor, memory_order_acquire) != value) {
        if (wait == RUNNER_YIELD)
            (void)sched_yield();
        else
            CPU_RELAX();
    }
}

static int bare_role(bench_t *bench, int role, void *argument)
{
    cursors_t *cursors = argument;

    meet(bench);
    int64_t sent_ns = now_ns();
    for (int64_t i = 1; i <= bench->messages; i++) {
        if (role == 0) {
            atomic_store_explicit(&cursors->there, i, memory_order_release);
            await(&cursors->back, i, bench->wait);
            int64_t now = now_ns();
            cursors->round_trips[i - 1] = now - sent_ns;
            sent_ns = now;
        } else {
            await(&cursors->there, i, bench->wait);
            atomic_store_explicit(&cursors->back, i, memory_order_release);
        }
    }
    return 0;
}

static int run_bare(bench_t *bench)
{
    cursors_t *cursors = shared_memory(sizeof(cursors_t));
    pid_t children[2];

    if (bench->wait == RUNNER_PARK) {
        fprintf(stderr, "ring_bench: bare knows spin and yield only\n");
        return 2;
    }
    cursors->round_trips = shared_memory((uint64_t)bench->messages * sizeof(int64_t));
    bench->parties = 2;
    children[1] = start(bench, 1, bare_role, cursors);
    children[0] = start(bench, 0, bare_role, cursors);
    if (!all_succeeded(children, 2))
        return 1;
    print_round_trips("bare", cursors->round_trips, bench->messages, 0);
    return 0;
}

/* ---- */

static void prepare(bench_t *bench)
{
    static const char *const names[CONSUMERS_MAX + 1] = {"role.0", "role.1", "role.2", "role.3"};
    const uint64_t boot_id[2] = {0, 0};
    void *memory = shared_memory(DOORBELLS_SIZE);

    bench->results = shared_memory(sizeof(results_t));
    doorbells_format(memory, boot_id);
    doorbells_attach(&bench->doorbells, memory, -1);
    for (int i = 0; i <= CONSUMERS_MAX; i++) {
        bench->bells[i] = doorbells_take(&bench->doorbells, names[i], DOORBELL_FUTEX, (uint32_t)getpid());
        INVARIANT(bench->bells[i] >= 0);
    }
}

static int wait_by_name(const char *name)
{
    static const char *const names[] = {[RUNNER_SPIN] = "spin", [RUNNER_YIELD] = "yield", [RUNNER_PARK] = "park"};

    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], name) == 0)
            return i;
    }
    return -1;
}

static int usage(void)
{
    fprintf(stderr, "usage: ring_bench 1to1|1to3|pipeline|diamond|pingpong|bare spin|yield|park MESSAGES [SLOT_COUNT]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static bench_t bench;

    if (argc < 4 || argc > 5)
        return usage();
    bench.wait = wait_by_name(argv[2]);
    bench.messages = atoll(argv[3]);
    bench.slot_count = argc > 4 ? strtoull(argv[4], NULL, 10) : SLOT_COUNT_DEFAULT;
    if (bench.wait < 0 || bench.messages < 1 || bench.slot_count < 1 || (bench.slot_count & (bench.slot_count - 1)) != 0)
        return usage();
    prepare(&bench);
    if (strcmp(argv[1], "pingpong") == 0)
        return run_pingpong(&bench);
    if (strcmp(argv[1], "bare") == 0)
        return run_bare(&bench);
    for (size_t i = 0; i < sizeof(TOPOLOGIES) / sizeof(TOPOLOGIES[0]); i++) {
        if (strcmp(argv[1], TOPOLOGIES[i].name) == 0)
            return run_throughput(&bench, &TOPOLOGIES[i]);
    }
    return usage();
}
