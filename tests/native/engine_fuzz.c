/* Random bytes as ingress slots into the composed engine: templates, lengths, enums, sessions and flags of any kind, mixed with
 * well-formed commands so that deep states are reached; stages polled in any order and size. After every world the state is
 * recounted, order table and books are compared, and the log is replayed: state and every report must come out again.
 *
 *   engine_fuzz [SLOTS [SEED]]    random worlds until about SLOTS slots were sent; the seed of a failing world is printed
 *   engine_fuzz @FILE             one world from the bytes of FILE
 * With -DENGINE_FUZZ_LIBFUZZER the entry is libFuzzer's. */
#include "engine_flow.h"

#include <signal.h>
#include <unistd.h>

#define FUZZ_SLOTS 300000
#define WORLD_SLOTS 3000
#define CHECK_EVERY 500

/* Small tables: every capacity is reached. The order tables are too large for the matcher's caches in the last variant, which
 * turns its prefetching on. */
static const world_config_t VARIANTS[] = {
    {.capacities = {.hash_seed = 1, .partitions = 2, .orders_per_partition = 64, .accounts_max = 16, .balances_max = 41,
                    .sessions_max = 20, .instruments_max = 7, .keys_max = 14, .assets_max = 5,
                    .open_orders_per_account_max = 40},
     .step_budget = 8, .window_log2 = 6, .log_slots = 128, .report_slots = 16},
    {.capacities = {.hash_seed = 2, .partitions = 1, .orders_per_partition = 64, .accounts_max = 13, .balances_max = 45,
                    .sessions_max = 16, .instruments_max = 5, .keys_max = 12, .assets_max = 3,
                    .open_orders_per_account_max = 64},
     .step_budget = 8, .window_log2 = 8, .log_slots = 128, .report_slots = 32},
    {.capacities = {.hash_seed = 3, .partitions = 4, .orders_per_partition = 1 << 15, .accounts_max = 40,
                    .balances_max = 200, .sessions_max = 40, .instruments_max = 9, .keys_max = 40, .assets_max = 9,
                    .open_orders_per_account_max = 10000},
     .step_budget = 256, .window_log2 = 10, .log_slots = 1024, .report_slots = 1024},
};

/* ---- where the chance comes from --------------------------------------------------------------------------------------------- */

typedef struct source {
    const uint8_t *data; /* NULL = from the generator */
    size_t left;
    chance_t chance;
    uint64_t budget; /* slots left to send */
} fuzz_source_t;

static bool exhausted(const fuzz_source_t *source)
{
    return source->budget == 0 || (source->data != NULL && source->left == 0);
}

static uint32_t draw(fuzz_source_t *source, uint32_t bound)
{
    uint32_t value = 0;

    if (source->data == NULL)
        return chance_below(&source->chance, bound);
    for (uint32_t reach = 1; reach < bound && reach != 0 && source->left > 0; reach <<= 8) {
        value = value << 8 | *source->data++;
        source->left--;
    }
    return value % bound;
}

static uint64_t draw_word(fuzz_source_t *source)
{
    return (uint64_t)draw(source, 1u << 16) << 48 | (uint64_t)draw(source, 1u << 16) << 32 |
           (uint64_t)draw(source, 1u << 16) << 16 | draw(source, 1u << 16);
}

/* Numbers at which something ends. */
static uint64_t draw_edge(fuzz_source_t *source)
{
    static const uint64_t edges[] = {0, 1, 2, 3, 5, 64, 255, 256, 1000, 5000, 5001, UINT16_MAX, INT32_MAX, UINT64_C(1) << 31,
                                     UINT32_MAX, UINT64_C(1) << 32, UINT64_C(1) << 53, (UINT64_C(1) << 61) - 1,
                                     UINT64_C(1) << 61, (UINT64_C(1) << 62) - 1, UINT64_C(1) << 62, INT64_MAX,
                                     UINT64_C(1) << 63, (UINT64_C(1) << 63) + 1, UINT64_MAX - 1, UINT64_MAX};
    uint32_t kind = draw(source, 4);

    if (kind == 0)
        return draw_word(source);
    if (kind == 1)
        return draw(source, 32);
    return edges[draw(source, sizeof(edges) / sizeof(edges[0]))];
}

/* ---- slots -------------------------------------------------------------------------------------------------------------------- */

/* Any aligned field of the block becomes something else. */
static void spoil_block(fuzz_source_t *source, log_slot_t *slot)
{
    for (uint32_t times = 1 + draw(source, 3); times > 0; times--) {
        uint64_t value = draw_edge(source);
        switch (draw(source, 3)) {
        case 0:
            memcpy(slot->block + 8 * draw(source, LOG_BLOCK_MAX / 8), &value, 8);
            break;
        case 1:
            memcpy(slot->block + 4 * draw(source, LOG_BLOCK_MAX / 4), &value, 4);
            break;
        default:
            slot->block[draw(source, LOG_BLOCK_MAX)] = (uint8_t)value;
            break;
        }
    }
}

static void spoil_header(fuzz_source_t *source, log_slot_t *slot)
{
    switch (draw(source, 6)) {
    case 0:
        slot->template_id = (uint16_t)(draw(source, 2) == 0 ? draw(source, 1u << 16) : 290 + draw(source, 130));
        break;
    case 1:
        slot->seq_num = draw_edge(source);
        break;
    case 2:
        slot->flags = (uint16_t)draw(source, 1u << 16);
        slot->aux = draw_edge(source);
        break;
    case 3:
        slot->session = (uint32_t)draw_edge(source);
        break;
    case 4:
        slot->partition = (uint8_t)draw(source, 256);
        slot->ingress_ns = draw_edge(source);
        slot->version = (uint8_t)draw(source, 256);
        slot->source = (uint16_t)draw(source, 1u << 16);
        break;
    default:
        slot->aux = draw_edge(source);
        break;
    }
}

static int64_t small_or_edge(fuzz_source_t *source, uint32_t bound)
{
    return draw(source, 3) == 0 ? (int64_t)draw_edge(source) : (int64_t)draw(source, bound);
}

/* Administration with the right padding and odd values: the operator errs too. */
static void odd_administration(fuzz_source_t *source, uint16_t template_id, void *block)
{
    uint32_t id = (uint32_t)small_or_edge(source, 8), other = (uint32_t)small_or_edge(source, 20);
    int64_t amount = small_or_edge(source, 1000), more = small_or_edge(source, 5000);

    switch (template_id) {
    case TEMPLATE_ASSET_ADD:
        *(asset_add_t *)block = (asset_add_t){.asset_id = draw(source, 2) == 0 ? 0 : id, .exponent = -2};
        ((asset_add_t *)block)->symbol[0] = (char)draw(source, 256);
        break;
    case TEMPLATE_INSTRUMENT_ADD:
        *(instrument_add_t *)block = (instrument_add_t){
            .tick_size = 1, .lot_size = 1, .quote_per_tick_lot = amount, .base_per_lot = more,
            .instrument_id = draw(source, 2) == 0 ? 0 : id, .base_asset_id = 1 + draw(source, 4), .quote_asset_id = 3,
            .assigned_partition = (uint8_t)draw(source, 8)};
        ((instrument_add_t *)block)->symbol[0] = (char)draw(source, 256);
        break;
    case TEMPLATE_INSTRUMENT_LIMITS:
        *(instrument_limits_t *)block = (instrument_limits_t){
            .min_qty = draw(source, 3), .max_qty = amount, .min_notional = draw(source, 2) == 0 ? 0 : small_or_edge(source, 50),
            .max_notional = draw(source, 2) == 0 ? 0 : small_or_edge(source, 50), .min_px = draw(source, 3), .max_px = more,
            .reference_px = draw(source, 2) == 0 ? PX_OPT_NULL : small_or_edge(source, 2000), .instrument_id = id,
            .band_up_bps = (uint32_t)small_or_edge(source, 3000), .band_down_bps = (uint32_t)small_or_edge(source, 3000)};
        break;
    case TEMPLATE_INSTRUMENT_STATE:
        *(instrument_state_t *)block = (instrument_state_t){.instrument_id = id, .state = (uint8_t)other};
        break;
    case TEMPLATE_ACCOUNT_CREATE:
        *(account_create_t *)block = (account_create_t){.account_id = draw(source, 2) == 0 ? 0 : other,
                                                        .stp_group_id = id, .fee_tier = (uint8_t)draw(source, 17)};
        break;
    case TEMPLATE_BALANCE_ADJUST:
        *(balance_adjust_t *)block = (balance_adjust_t){.amount = draw(source, 2) == 0 ? amount : ~amount, .account_id = other,
                                                        .asset_id = id, .kind = (uint8_t)(1 + draw(source, 3))};
        break;
    case TEMPLATE_KEY_CREATE:
        *(key_create_t *)block = (key_create_t){.account_id = other, .permissions = 1, .credential_type = 1};
        ((key_create_t *)block)->access_key_id[0] = (char)draw(source, 256);
        break;
    case TEMPLATE_SESSION_CREATE:
        *(session_create_t *)block = (session_create_t){.session_id = draw(source, 2) == 0 ? 0 : other, .account_id = id,
                                                        .kind = (uint8_t)draw(source, 3)};
        break;
    case TEMPLATE_FEE_TIER_SET:
        *(fee_tier_set_t *)block = (fee_tier_set_t){.maker_rate = (int32_t)amount, .taker_rate = (int32_t)more,
                                                    .instrument_id = draw(source, 2) == 0 ? 0 : id,
                                                    .tier = (uint8_t)draw(source, 17)};
        break;
    case TEMPLATE_ACCOUNT_LIMITS:
        *(account_limits_t *)block = (account_limits_t){.account_id = other, .open_orders_max = (uint32_t)more,
                                                        .fee_tier = (uint8_t)draw(source, 17)};
        break;
    default:
        break;
    }
}

/* Templates of the operator, of sessions and of queries. */
static void odd_record(fuzz_source_t *source, flow_t *flow, log_slot_t *slot)
{
    uint32_t kind = draw(source, 4);
    uint16_t template_id = (uint16_t)(TEMPLATE_ASSET_ADD + draw(source, TEMPLATE_ACCOUNT_LIMITS - TEMPLATE_ASSET_ADD + 1));

    if (kind < 2) {
        odd_administration(source, template_id, flow_slot(flow, slot, template_id, SESSION_ADMIN_ID));
        if (draw(source, 4) == 0)
            spoil_block(source, slot);
        return;
    }
    memset(slot, 0, sizeof(*slot));
    slot->session = draw(source, 4) == 0 ? (uint32_t)draw_edge(source) : draw(source, FLOW_SESSIONS + 1);
    slot->template_id = (uint16_t)(kind == 2 ? TEMPLATE_BALANCE_QUERY + draw(source, 8)
                                             : TEMPLATE_SESSION_NEGOTIATE + draw(source, 3));
    for (size_t at = 0; at < LOG_BLOCK_MAX; at += 4) {
        uint32_t value = draw(source, 4) == 0 ? (uint32_t)draw_edge(source) : draw(source, 2) == 0 ? 0 : draw(source, 16);
        memcpy(slot->block + at, &value, sizeof(value));
    }
    if (kind == 3 && draw(source, 2) == 0) /* a logon that could be good, under any session's name */
        *(session_negotiate_t *)slot->block = (session_negotiate_t){
            .session_ver_id = 1 + draw(source, 1000), .session_id = 1 + draw(source, FLOW_SESSIONS), .connection_id = 1};
}

/* Prices and quantities at the ends of their ranges. */
static void edge_order(fuzz_source_t *source, flow_t *flow, log_slot_t *slot)
{
    new_order_single_t *order = (new_order_single_t *)slot->block;

    flow_new_order(flow, slot, 2 + draw(source, FLOW_SESSIONS - 1));
    order->ord_type = ORD_TYPE_LIMIT;
    order->instrument_id = FLOW_INSTRUMENTS - draw(source, 2);
    if (draw(source, 2) == 0) {
        order->price = draw(source, 2);
        order->order_qty = 1 + draw(source, 500);
        return;
    }
    order->price = (int64_t)draw_edge(source);
    order->order_qty = (int64_t)draw_edge(source);
}

/* A well-formed command. The flow's own chance decides on it, seeded from the bytes. */
static void good_command(fuzz_source_t *source, flow_t *flow, log_slot_t *slot)
{
    uint32_t kind = draw(source, 16);
    uint32_t session = 2 + draw(source, FLOW_SESSIONS - 1);

    if (source->data != NULL)
        flow->chance.state ^= (uint64_t)draw(source, 256) << 56;
    if (kind < 8)
        flow_new_order(flow, slot, session);
    else if (kind < 10)
        flow_cancel(flow, slot, session);
    else if (kind < 14)
        flow_replace(flow, slot, session);
    else if (kind < 15)
        flow_mass_cancel(flow, slot, session);
    else
        flow_administer(flow, slot);
}

static void send(fuzz_source_t *source, flow_t *flow)
{
    log_slot_t slot;
    uint32_t kind = draw(source, 32);

    if (kind == 0) {
        for (size_t at = 0; at < sizeof(slot); at++)
            ((uint8_t *)&slot)[at] = (uint8_t)draw(source, 256);
    } else if (kind == 1) {
        odd_record(source, flow, &slot);
    } else if (kind == 2) {
        edge_order(source, flow, &slot);
    } else if (kind == 3) {
        flow_bind(flow, 2 + draw(source, FLOW_SESSIONS - 1), 1 + draw(source, 1000));
        return;
    } else {
        good_command(source, flow, &slot);
        if (kind < 8)
            spoil_block(source, &slot);
        if (kind == 8 || kind == 9)
            spoil_header(source, &slot);
    }
    uint16_t ring = slot.session == 0 || slot.session > FLOW_SESSIONS ? 2 : flow_source(slot.session);
    if (draw(source, 8) == 0)
        ring = (uint16_t)(1 + draw(source, 2));
    while (!world_put(flow->world, ring, &slot))
        world_stir(flow->world, &flow->chance);
    flow->commands++;
}

/* What a spoiled number cost: the sequencer's own word on every session's next one, as a client gets it when it logs on. */
static void relearn(flow_t *flow)
{
    const report_slot_t *reply;

    world_run(flow->world);
    for (uint32_t session = 1; session <= FLOW_SESSIONS; session++) {
        log_slot_t slot = {.template_id = TEMPLATE_SESSION_QUERY};
        ((session_query_t *)slot.block)->session_id = session;
        CHECK(world_put(flow->world, 1, &slot));
        int64_t first = ring_published(&flow->world->reply);
        world_run(flow->world);
        reply = ring_slot(&flow->world->reply, first);
        CHECK(ring_published(&flow->world->reply) > first);
        if (reply->template_id == TEMPLATE_SESSION_REPLY)
            flow->seq_nums[session] = ((const session_reply_t *)reply->block)->last_incoming_seq_no;
    }
}

/* ---- worlds ---------------------------------------------------------------------------------------------------------------------- */

/* The log must say all: fed into fresh objects it gives the same reports and the same state. */
static void replay_again(const world_t *live)
{
    static world_t again;
    uint64_t hashes[2][2];

    world_open(&again, &live->config);
    int64_t done = world_feed(&again, (const log_slot_t *)live->log_tape.bytes, live->log_tape.slots, 500);
    if (done < 0)
        fprintf(stderr, "replay: %s\n", sequencer_error(again.sequencer));
    CHECK(done == live->log_tape.slots);
    for (int64_t p = 0; p <= live->partitions; p++) {
        CHECK(again.report_tapes[p].slots == live->report_tapes[p].slots);
        CHECK(again.report_tapes[p].crc == live->report_tapes[p].crc);
    }
    sequencer_hash(live->sequencer, hashes[0]);
    sequencer_hash(again.sequencer, hashes[1]);
    CHECK(memcmp(hashes[0], hashes[1], sizeof(hashes[0])) == 0);
    for (uint32_t instrument = 1; instrument <= live->config.capacities.instruments_max; instrument++)
        for (int64_t p = 0; p < live->partitions; p++) {
            matcher_hash(live->matchers[p], instrument, hashes[0]);
            matcher_hash(again.matchers[p], instrument, hashes[1]);
            CHECK(memcmp(hashes[0], hashes[1], sizeof(hashes[0])) == 0);
        }
    world_close(&again);
}

static uint64_t one_world(fuzz_source_t *source)
{
    static world_t world;
    static flow_t flow;
    const world_config_t *config = &VARIANTS[draw(source, sizeof(VARIANTS) / sizeof(VARIANTS[0]))];

    world_open(&world, config);
    world_lead(&world);
    flow_open(&flow, &world, draw_word(source), 100 << draw(source, 8));
    uint64_t setup = flow.commands;
    for (uint64_t sent = 1; !exhausted(source); sent++, source->budget--) {
        send(source, &flow);
        for (uint32_t polls = draw(source, 6); polls > 1; polls--)
            world_stir(&world, &flow.chance);
        if (draw(source, 64) == 0)
            world_later(&world, draw(source, 16) == 0 ? 1100000000 : 12000000);
        if (sent % 50 == 0)
            relearn(&flow);
        if (sent % CHECK_EVERY == 0) {
            world_check(&world);
            world_run(&world);
            world_compare_orders(&world);
        }
    }
    world_rest(&world);
    world_check(&world);
    world_compare_orders(&world);
    replay_again(&world);
    world_close(&world);
    return flow.commands - setup;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_source_t source = {.data = data, .left = size, .budget = WORLD_SLOTS};
    if (size > 0)
        (void)one_world(&source);
    return 0;
}

#ifndef ENGINE_FUZZ_LIBFUZZER
static volatile uint64_t current_seed;

static void name_the_seed(int signal_number)
{
    char text[64];
    int length = snprintf(text, sizeof(text), "engine_fuzz 1 %llu fails\n", (unsigned long long)current_seed);

    (void)!write(STDERR_FILENO, text, (size_t)length);
    signal(signal_number, SIG_DFL);
}

static int from_file(const char *path)
{
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(path, "rb");

    if (file == NULL) {
        fprintf(stderr, "engine_fuzz: %s cannot be read\n", path);
        return 2;
    }
    size_t size = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    return LLVMFuzzerTestOneInput(bytes, size);
}

int main(int argc, char **argv)
{
    if (argc > 1 && argv[1][0] == '@')
        return from_file(argv[1] + 1);
    uint64_t wanted = argc > 1 ? strtoull(argv[1], NULL, 10) : FUZZ_SLOTS, sent = 0;
    current_seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    signal(SIGABRT, name_the_seed);
    for (; sent < wanted; current_seed++) {
        fuzz_source_t source = {.chance = {current_seed}, .budget = WORLD_SLOTS};
        sent += one_world(&source);
    }
    printf("%" PRIu64 " slots, last seed %" PRIu64 "\n", sent, current_seed - 1);
    return 0;
}
#endif
