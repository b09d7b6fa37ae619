/* Determinism: a log replayed into fresh objects gives the state and every byte of every report again.
 *
 *   engine_replay                                  self-test: a random live run, replays of it, faults that must be seen
 *   engine_replay FILE [REPORT_SLOTS [CHUNK]]      a raw file of log slots from Genesis on: one line of JSON */
#include "engine_flow.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define SELF_TEST_COMMANDS 200000
#define STEP_COMMANDS 10000
#define REPLAY_STEP_BUDGET 256

typedef struct summary {
    int64_t position;
    uint64_t sequencer[2];
    uint64_t books[256][2]; /* over all instruments and partitions: an instrument has one */
    uint32_t instruments;
    int64_t partitions;
    tape_t reports[WORLD_PARTITIONS_MAX + 1];
    tape_t market[WORLD_PARTITIONS_MAX + 1];
} summary_t;

static void summarize(const world_t *world, summary_t *summary)
{
    memset(summary, 0, sizeof(*summary));
    summary->position = sequencer_position(world->sequencer);
    summary->partitions = world->partitions;
    summary->instruments = world->config.capacities.instruments_max < 255 ? world->config.capacities.instruments_max : 255;
    sequencer_hash(world->sequencer, summary->sequencer);
    for (uint32_t instrument = 1; instrument <= summary->instruments; instrument++)
        for (int64_t p = 0; p < world->partitions; p++) {
            uint64_t hash[2];
            matcher_hash(world->matchers[p], instrument, hash);
            summary->books[instrument][0] ^= hash[0];
            summary->books[instrument][1] ^= hash[1];
        }
    memcpy(summary->reports, world->report_tapes, sizeof(summary->reports));
    memcpy(summary->market, world->market_tapes, sizeof(summary->market));
}

static const char *tape_difference(const tape_t *left, const tape_t *right, size_t slot_size)
{
    static char text[96];

    for (int64_t i = 0; i < left->slots && i < right->slots && left->bytes != NULL && right->bytes != NULL; i++)
        if (memcmp(left->bytes + (size_t)i * slot_size, right->bytes + (size_t)i * slot_size, slot_size) != 0) {
            snprintf(text, sizeof(text), "slot %" PRId64 " differs", i);
            return text;
        }
    if (left->slots != right->slots) {
        snprintf(text, sizeof(text), "%" PRId64 " slots, %" PRId64 " in the other", left->slots, right->slots);
        return text;
    }
    return left->crc == right->crc ? NULL : "the checksums differ";
}

/* NULL, or what is not the same. */
static const char *difference(const summary_t *left, const summary_t *right)
{
    if (left->position != right->position)
        return "the positions differ";
    for (int64_t p = 0; p <= left->partitions; p++) {
        const char *found = tape_difference(&left->reports[p], &right->reports[p], sizeof(report_slot_t));
        if (found != NULL)
            return found;
        found = tape_difference(&left->market[p], &right->market[p], sizeof(market_slot_t));
        if (found != NULL)
            return found;
    }
    if (memcmp(left->sequencer, right->sequencer, sizeof(left->sequencer)) != 0)
        return "the sequencer hashes differ";
    return memcmp(left->books, right->books, sizeof(left->books)) == 0 ? NULL : "book hashes differ";
}

/* Replay `count` slots into a fresh world. NULL and the summary, or why it could not be. The world stays open. */
static const char *replay(world_t *world, const world_config_t *config, const log_slot_t *slots, int64_t count,
                          int64_t chunk, summary_t *summary)
{
    world_open(world, config);
    int64_t done = world_feed(world, slots, count, chunk);
    if (done < 0) {
        const char *error = sequencer_error(world->sequencer);
        return error != NULL ? error : "a stage failed";
    }
    if (done < count)
        return "the replay stands still: the report rings are too small";
    summarize(world, summary);
    return NULL;
}

/* ---- a log from a file ---------------------------------------------------------------------------------------------------- */

static log_slot_t *read_log(const char *path, int64_t *count)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    tape_t tape = {0};
    log_slot_t slot;
    while (fread(&slot, sizeof(slot), 1, file) == 1)
        tape_add(&tape, &slot, sizeof(slot), true);
    fclose(file);
    *count = tape.slots;
    return (log_slot_t *)tape.bytes;
}

static bool capacities_of(const log_slot_t *slot, sequencer_config_t *capacities)
{
    const genesis_t *genesis = (const genesis_t *)slot->block;

    *capacities = (sequencer_config_t){
        .cluster_id = genesis->cluster_id,
        .hash_seed = genesis->hash_seed,
        .partitions = genesis->partition_count,
        .orders_per_partition = genesis->orders_per_partition,
        .accounts_max = genesis->accounts_max,
        .balances_max = genesis->balances_max,
        .sessions_max = genesis->sessions_max,
        .instruments_max = genesis->instruments_max,
        .keys_max = genesis->keys_max,
        .assets_max = genesis->assets_max,
        .open_orders_per_account_max = genesis->open_orders_per_account_max,
    };
    return slot->template_id == TEMPLATE_GENESIS && genesis->partition_count <= WORLD_PARTITIONS_MAX;
}

static void print_json(const summary_t *summary)
{
    const char *comma = "";

    printf("{\"position\": %" PRId64 ", \"sequencer\": \"%016" PRIx64 "%016" PRIx64 "\", \"books\": {", summary->position,
           summary->sequencer[1], summary->sequencer[0]);
    for (uint32_t instrument = 1; instrument <= summary->instruments; instrument++) {
        const uint64_t *hash = summary->books[instrument];
        if (hash[0] == 0 && hash[1] == 0)
            continue;
        printf("%s\"%" PRIu32 "\": \"%016" PRIx64 "%016" PRIx64 "\"", comma, instrument, hash[1], hash[0]);
        comma = ", ";
    }
    printf("}, \"reports\": [");
    for (int64_t p = 0; p <= summary->partitions; p++)
        printf("%s[%" PRId64 ", %" PRIu32 "]", p == 0 ? "" : ", ", summary->reports[p].slots, summary->reports[p].crc);
    printf("]}\n");
}

static int replay_file(const char *path, uint64_t report_slots, int64_t chunk)
{
    static world_t world;
    static summary_t summary;
    int64_t count = 0;
    log_slot_t *slots = read_log(path, &count);
    world_config_t config = {.step_budget = REPLAY_STEP_BUDGET, .log_slots = 256, .report_slots = report_slots};

    if (slots == NULL || count == 0 || !capacities_of(&slots[0], &config.capacities)) {
        fprintf(stderr, "engine_replay: %s does not begin with a Genesis record of at most %d partitions\n", path,
                WORLD_PARTITIONS_MAX);
        return 2;
    }
    const char *failed = replay(&world, &config, slots, count, chunk, &summary);
    if (failed != NULL)
        fprintf(stderr, "engine_replay: %s\n", failed);
    else
        print_json(&summary);
    world_close(&world);
    free(slots);
    return failed == NULL ? 0 : 1;
}

/* ---- self-test ---------------------------------------------------------------------------------------------------------------- */

static const sequencer_config_t CAPACITIES = {
    .cluster_id = 1,
    .hash_seed = 42,
    .partitions = 3,
    .orders_per_partition = 256,
    .accounts_max = 32,
    .balances_max = 128,
    .sessions_max = 32,
    .instruments_max = 8,
    .keys_max = 32,
    .assets_max = 4,
    .open_orders_per_account_max = 60,
};

static void expect_same(const char *what, const summary_t *live, const log_slot_t *slots, int64_t count,
                        const world_config_t *config, int64_t chunk)
{
    static world_t world;
    static summary_t again;
    const char *found = replay(&world, config, slots, count, chunk, &again);

    if (found == NULL)
        found = difference(live, &again);
    if (found == NULL)
        world_check(&world);
    world_close(&world);
    if (found != NULL) {
        fprintf(stderr, "replay %s: %s\n", what, found);
        exit(1);
    }
}

/* A changed log must not pass for the same: it is refused, an invariant breaks, or a report or a hash tells. In a child, as
 * broken invariants abort. */
static void expect_other(const char *what, const summary_t *live, const log_slot_t *slots, int64_t count,
                         const world_config_t *config)
{
    int status;

    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        static world_t world;
        static summary_t again;
        const char *found = replay(&world, config, slots, count, count, &again);
        if (found == NULL)
            found = difference(live, &again);
        printf("planted: %s: %s\n", what, found == NULL ? "not seen" : found);
        fflush(stdout);
        _exit(found == NULL ? 1 : 0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    if (aborted)
        printf("planted: %s: an invariant broke\n", what);
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        exit(1);
}

/* The record of a limit order to sell that its matcher took: what such an order holds does not hang on its price. */
static int64_t find_order(const summary_t *live)
{
    const report_slot_t *reports = (const report_slot_t *)live->reports[1].bytes;

    for (int64_t i = live->reports[1].slots / 2; i < live->reports[1].slots; i++) {
        const order_accepted_t *accepted = (const order_accepted_t *)reports[i].block;
        if (reports[i].template_id == TEMPLATE_ORDER_ACCEPTED && accepted->ord_type == ORD_TYPE_LIMIT &&
            accepted->side == SIDE_SELL)
            return (int64_t)reports[i].in_seq;
    }
    CHECK(false);
    return 0;
}

static void planted_faults(summary_t *live, log_slot_t *slots, int64_t count, const world_config_t *config)
{
    int64_t index = find_order(live);
    new_order_single_t *order = (new_order_single_t *)slots[index].block;

    order->client_tag ^= 1;
    expect_other("one bit of an order's client tag", live, slots, count, config);
    order->client_tag ^= 1;
    order->price ^= 1;
    expect_other("one bit of an order's price", live, slots, count, config);
    order->price ^= 1;
    slots[index].ts_ns ^= 1;
    expect_other("one bit of a time stamp", live, slots, count, config);
    slots[index].ts_ns ^= 1;
    expect_other("the last record missing", live, slots, count - 1, config);
    uint8_t *byte = &live->reports[1].bytes[(live->reports[1].slots / 2) * (int64_t)sizeof(report_slot_t) + 100];
    *byte ^= 0x10;
    expect_other("one bit of one report", live, slots, count, config);
    *byte ^= 0x10;
}

static int self_test(uint64_t commands, uint64_t seed)
{
    static world_t world;
    static flow_t flow;
    static summary_t live;
    world_config_t small = {.capacities = CAPACITIES, .step_budget = 8, .window_log2 = 6, .log_slots = 512,
                            .report_slots = 64, .keep_reports = true};

    world_open(&world, &small);
    world_lead(&world);
    flow_open(&flow, &world, seed, 2000);
    for (uint64_t done = 0; done < commands; done += STEP_COMMANDS) {
        flow_drive(&flow, STEP_COMMANDS);
        world_check(&world);
        world_rest(&world);
        world_check(&world);
        world_compare_orders(&world);
    }
    summarize(&world, &live);
    log_slot_t *slots = (log_slot_t *)world.log_tape.bytes;
    int64_t count = world.log_tape.slots;
    CHECK(count == live.position);
    printf("live: %" PRIu64 " commands, %" PRId64 " records, %" PRId64 " rejected, reports", flow.commands, count,
           sequencer_counter(world.sequencer, SEQUENCER_REJECTED));
    for (int64_t p = 0; p <= world.partitions; p++)
        printf(" %" PRId64, live.reports[p].slots);
    printf("\n");

    world_config_t large = small;
    large.step_budget = 256;
    large.report_slots = 4096;
    large.window_log2 = 12;
    expect_same("in one piece", &live, slots, count, &large, count);
    expect_same("record by record", &live, slots, count, &large, 1);
    expect_same("7 at a time, small rings and steps", &live, slots, count, &small, 7);
    large.step_budget = 8;
    expect_same("1000 at a time, smallest steps", &live, slots, count, &large, 1000);
    planted_faults(&live, slots, count, &large);
    world_close(&world);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--self-test") == 0)
        return self_test(strtoull(argv[2], NULL, 10), argc > 3 ? strtoull(argv[3], NULL, 10) : 1);
    if (argc > 1)
        return replay_file(argv[1], argc > 2 ? strtoull(argv[2], NULL, 10) : 1 << 14,
                           argc > 3 ? strtoll(argv[3], NULL, 10) : 4096);
    return self_test(SELF_TEST_COMMANDS, 1);
}
