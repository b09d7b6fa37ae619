/* The hot path makes no system call and no allocation. A child builds the engine, runs a while, enters seccomp, where any system
 * call but read, write and exit kills it, and runs on through sequencer_poll() and matcher_poll(); malloc and its kin are ours
 * and count. Two faulty children, one with a getpid(), one with a malloc() in the loop, show that the harness bites.
 * Strict seccomp also takes the time stamp counter away, so time comes from the test there; a filter of the same strictness,
 * with the engine's own clock, is the second way. */
#include "engine_flow.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WARM_COMMANDS 20000
#define HOT_COMMANDS 200000
#define BATCH 32
#define EXIT_ALLOCATED 3
#define EXIT_IDLE 4    /* it did less than it should have: nothing proved */
#define EXIT_REFUSED 5 /* the kernel has no such seccomp */

enum fault { FAULT_NONE, FAULT_SYSCALL, FAULT_ALLOCATION };
enum guard { GUARD_STRICT, GUARD_FILTER };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTING 0
#else
#define COUNTING 1
static volatile uint64_t allocations;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void __libc_free(void *memory);

/* The build hides symbols by default; these must be seen by libc's own callers too. */
#define VISIBLE __attribute__((visibility("default")))
VISIBLE void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}
VISIBLE void *calloc(size_t count, size_t size)
{
    allocations++;
    return __libc_calloc(count, size);
}
VISIBLE void *realloc(void *memory, size_t size)
{
    allocations++;
    return __libc_realloc(memory, size);
}
VISIBLE void free(void *memory)
{
    allocations++;
    __libc_free(memory);
}
#endif

#if COUNTING
static const world_config_t CONFIG = {
    .capacities = {.hash_seed = 7, .partitions = 2, .orders_per_partition = 4096, .accounts_max = 32, .balances_max = 128,
                   .sessions_max = 32, .instruments_max = 8, .keys_max = 32, .assets_max = 4,
                   .open_orders_per_account_max = 300},
    .window_log2 = 10, .log_slots = 4096, .report_slots = 4096};

/* exit(), not exit_group(): the only one that strict seccomp lets pass. */
static void leave(int code)
{
    syscall(SYS_exit, code);
}

static bool forbid_system_calls(enum guard guard)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};

    if (guard == GUARD_STRICT)
        return prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Consumers keep up without looking, so that nothing but the engine runs. */
static void pass(world_t *world)
{
    int64_t behind = ring_published(&world->log);

    for (int64_t p = 0; p < world->partitions; p++)
        if (matcher_position(world->matchers[p]) < behind)
            behind = matcher_position(world->matchers[p]);
    ring_advance(&world->log, 0, behind);
    for (int64_t p = 0; p <= world->partitions; p++)
        ring_advance(&world->reports[p], 0, ring_published(&world->reports[p]));
}

static void plant(enum fault fault)
{
    if (fault == FAULT_SYSCALL)
        (void)syscall(SYS_getpid);
    if (fault == FAULT_ALLOCATION) {
        void *volatile memory = malloc(32);
        free(memory);
    }
}

static void run_hot(world_t *world, const log_slot_t *slots, uint64_t count, enum fault fault)
{
    for (uint64_t i = 0; i < count;) {
        for (int batch = 0; batch < BATCH && i < count; batch++, i++)
            CHECK(world_put(world, flow_source(slots[i].session), &slots[i]));
        int64_t work;
        do {
            work = sequencer_poll(world->sequencer, 64);
            for (int64_t p = 0; p < world->partitions; p++)
                work += matcher_poll(world->matchers[p], 64);
            pass(world);
        } while (work != 0);
        if (i == count / 2)
            plant(fault);
    }
}

/* Orders, cancels and replaces; sessions and prices as in any flow. Order ids are guessed: about one change in two finds one. */
static log_slot_t *prepare(flow_t *flow, uint64_t count)
{
    log_slot_t *slots = malloc(count * sizeof(log_slot_t));

    CHECK(slots != NULL);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t kind = chance_below(&flow->chance, 10), session = 2 + chance_below(&flow->chance, FLOW_ACCOUNTS);
        if (kind < 6)
            flow_new_order(flow, &slots[i], session);
        else if (kind < 8)
            flow_cancel(flow, &slots[i], session);
        else
            flow_replace(flow, &slots[i], session);
    }
    return slots;
}

static void child(enum fault fault, enum guard guard)
{
    static world_t world;
    static flow_t flow;

    world_open(&world, &CONFIG);
    world_lead(&world);
    flow_open(&flow, &world, 11, 100000);
    log_slot_t *slots = prepare(&flow, WARM_COMMANDS + HOT_COMMANDS);
    if (guard == GUARD_FILTER)
        sequencer_set_time(world.sequencer, 0); /* the clock again */
    run_hot(&world, slots, WARM_COMMANDS, FAULT_NONE);
    int64_t records = sequencer_position(world.sequencer);
    int64_t reports = ring_published(&world.reports[1]) + ring_published(&world.reports[2]);
    uint64_t before = allocations;
    if (!forbid_system_calls(guard))
        _exit(EXIT_REFUSED);
    run_hot(&world, slots + WARM_COMMANDS, HOT_COMMANDS, fault);
    uint64_t made = allocations - before;
    if (made != 0)
        leave(EXIT_ALLOCATED);
    records = sequencer_position(world.sequencer) - records;
    reports = ring_published(&world.reports[1]) + ring_published(&world.reports[2]) - reports;
    leave(records < HOT_COMMANDS || reports < HOT_COMMANDS / 4 ? EXIT_IDLE : 0);
}

static int run_child(enum fault fault, enum guard guard)
{
    int status;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        child(fault, guard);
        _exit(1);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

/* Where the kernel's clock source has no vDSO, reading the time is itself a system call, and no fault of the engine. */
static bool clock_is_quiet(void)
{
    int status;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        if (!forbid_system_calls(GUARD_FILTER))
            _exit(EXIT_REFUSED);
        clock_gettime(CLOCK_REALTIME, &now);
        leave(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void expect(const char *what, bool as_expected, int status)
{
    printf("%s: wait status %#x\n", what, (unsigned)status);
    fflush(stdout);
    CHECK(as_expected);
}

static void prove(enum guard guard, const char *name)
{
    int clean = run_child(FAULT_NONE, guard);
    if (WIFEXITED(clean) && WEXITSTATUS(clean) == EXIT_REFUSED) {
        printf("%s: skipped, the kernel refuses it\n", name);
        return;
    }
    expect(name, WIFEXITED(clean) && WEXITSTATUS(clean) == 0, clean);
    int called = run_child(FAULT_SYSCALL, guard);
    int signal_number = guard == GUARD_STRICT ? SIGKILL : SIGSYS;
    expect("  with one getpid()", WIFSIGNALED(called) && WTERMSIG(called) == signal_number, called);
    int allocated = run_child(FAULT_ALLOCATION, guard);
    expect("  with one malloc()", WIFEXITED(allocated) && WEXITSTATUS(allocated) == EXIT_ALLOCATED, allocated);
}

int main(void)
{
    prove(GUARD_STRICT, "strict seccomp, time set by the test");
    if (clock_is_quiet())
        prove(GUARD_FILTER, "seccomp filter, the engine's own clock");
    else
        printf("seccomp filter: skipped, this machine's clock needs a system call\n");
    return 0;
}
#else
int main(void)
{
    printf("skipped: sanitizers allocate and call the system themselves; the plain build runs this\n");
    return 0;
}
#endif
