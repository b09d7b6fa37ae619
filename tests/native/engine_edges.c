/* What random runs once broke, as small cases: every one aborted, hung or could not be replayed before it was mended. */
#include "engine_flow.h"

#define OPEN_INSTRUMENT FLOW_INSTRUMENTS /* without limits */
#define FREE_INSTRUMENT 4                /* lowest price 0, no lower band */
#define POOR_ACCOUNT 5                   /* never had quote money */
#define HUGE (INT64_C(1) << 61)

static const world_config_t CONFIG = {
    .capacities = {.hash_seed = 5, .partitions = 2, .orders_per_partition = 64, .accounts_max = 16, .balances_max = 45,
                   .sessions_max = 20, .instruments_max = 8, .keys_max = 16, .assets_max = 5,
                   .open_orders_per_account_max = 40},
    .step_budget = 8, .window_log2 = 6, .log_slots = 128, .report_slots = 64, .keep_reports = true};

static world_t world;
static flow_t flow;

static void begin(void)
{
    world_open(&world, &CONFIG);
    world_lead(&world);
    flow_open(&flow, &world, 1, 1000);
}

/* All is counted again, and the log replays to the same state. */
static void end(void)
{
    static world_t again;
    uint64_t hashes[2][2];

    world_rest(&world);
    world_check(&world);
    world_compare_orders(&world);
    world_open(&again, &CONFIG);
    CHECK(world_feed(&again, (const log_slot_t *)world.log_tape.bytes, world.log_tape.slots, 100) == world.log_tape.slots);
    sequencer_hash(world.sequencer, hashes[0]);
    sequencer_hash(again.sequencer, hashes[1]);
    CHECK(memcmp(hashes[0], hashes[1], sizeof(hashes[0])) == 0);
    world_close(&again);
    world_close(&world);
}

static void send(uint32_t session, uint16_t template_id, const void *block, size_t size)
{
    log_slot_t slot;
    memcpy(flow_slot(&flow, &slot, template_id, session), block, size);
    flow_put(&flow, &slot);
    world_run(&world);
}

static void send_order(uint32_t account, uint8_t side, uint32_t instrument, int64_t price, int64_t quantity)
{
    new_order_single_t block = {.price = price, .order_qty = quantity, .display_qty = QTY_OPT_NULL,
                                .stop_px = PX_OPT_NULL, .expire_time = TIME_SEC_OPT_NULL, .instrument_id = instrument,
                                .side = side, .ord_type = ORD_TYPE_LIMIT, .time_in_force = TIME_IN_FORCE_GTC};
    send(account + 1, TEMPLATE_NEW_ORDER_SINGLE, &block, sizeof(block));
}

/* The newest report of a ring; dies unless it has the template. */
static const void *last_report(int64_t partition, uint16_t template_id)
{
    const tape_t *tape = &world.report_tapes[partition];
    const report_slot_t *slot = (const report_slot_t *)tape->bytes + (tape->slots - 1);

    CHECK(slot->template_id == template_id);
    return slot->block;
}

static uint16_t reject_code(void)
{
    return ((const order_rejected_t *)last_report(0, TEMPLATE_ORDER_REJECTED))->reject_code;
}

static uint16_t admin_code(void)
{
    return ((const admin_ack_t *)last_report(0, TEMPLATE_ADMIN_ACK))->code;
}

/* 2^61 x 2^61 x 64 is 0 in 128 bits. */
static void notional_does_not_wrap(void)
{
    begin();
    send_order(1, SIDE_BUY, OPEN_INSTRUMENT, HUGE, HUGE);
    CHECK(reject_code() == REJECT_CODE_MAX_NOTIONAL);
    send_order(1, SIDE_SELL, OPEN_INSTRUMENT, HUGE, HUGE);
    CHECK(reject_code() == REJECT_CODE_MAX_NOTIONAL);
    end();
}

/* The hold is nothing, so nothing made the entry that the fill wants to pay from. */
static void free_bid_of_the_poor_settles(void)
{
    int64_t available, held;

    begin();
    send_order(POOR_ACCOUNT, SIDE_BUY, FREE_INSTRUMENT, 0, 10);
    send_order(1, SIDE_SELL, FREE_INSTRUMENT, 0, 4);
    CHECK(sequencer_balance(world.sequencer, POOR_ACCOUNT, 1, &available, &held));
    CHECK(available > 1000 && available <= 1004 && held == 0); /* less the fee */
    end();
}

/* Largest ids: loops over them must end. */
static void queries_of_any_id_end(void)
{
    static const uint16_t templates[] = {TEMPLATE_INSTRUMENT_QUERY, TEMPLATE_ASSET_QUERY, TEMPLATE_ACCOUNT_QUERY,
                                         TEMPLATE_SESSION_QUERY};
    begin();
    int64_t replies = ring_published(&world.reply);
    for (size_t i = 0; i < sizeof(templates) / sizeof(templates[0]); i++) {
        account_query_t query = {.account_id = UINT32_MAX};
        log_slot_t slot = {.template_id = templates[i]};
        memcpy(slot.block, &query, sizeof(query));
        CHECK(world_put(&world, 1, &slot));
    }
    balance_query_t query = {.account_id = 1, .asset_id = UINT32_MAX};
    log_slot_t slot = {.template_id = TEMPLATE_BALANCE_QUERY};
    memcpy(slot.block, &query, sizeof(query));
    CHECK(world_put(&world, 1, &slot));
    world_run(&world);
    CHECK(ring_published(&world.reply) == replies + 5); /* a QueryEnd each, no rows */
    end();
}

/* Refused, logged as it came, and no mark to those who replay. */
static void forged_marks_are_no_marks(void)
{
    settled_t mark = {.report_seq = 1000000, .settled_partition = 200};
    hash_mark_t hash = {.accounts_hash_low = 1, .mark_index = 9};

    begin();
    send(2, TEMPLATE_SETTLED, &mark, sizeof(mark));
    (void)last_report(0, TEMPLATE_BUSINESS_REJECT);
    mark.settled_partition = 1;
    send(2, TEMPLATE_SETTLED, &mark, sizeof(mark));
    send(2, TEMPLATE_HASH_MARK, &hash, sizeof(hash));
    (void)last_report(0, TEMPLATE_BUSINESS_REJECT);
    end();
}

/* Matchers index by the slot's session. */
static void logon_counts_for_its_own_session(void)
{
    session_negotiate_t negotiate = {.session_ver_id = 5, .session_id = 3, .connection_id = 3};
    log_slot_t slot = {.template_id = TEMPLATE_SESSION_NEGOTIATE, .session = UINT32_MAX};

    begin();
    memcpy(slot.block, &negotiate, sizeof(negotiate));
    CHECK(world_put(&world, 1, &slot));
    world_run(&world);
    const session_negotiated_t *report = last_report(0, TEMPLATE_SESSION_NEGOTIATED);
    CHECK(report->code == NEGOTIATE_REJECT_CODE_NONE && report->session_id == 3);
    end();
}

static void operator_errs(void)
{
    fee_tier_set_t fees = {.maker_rate = INT32_MIN, .taker_rate = 5};
    instrument_limits_t limits = {.min_qty = 1, .max_qty = 100, .min_px = 1, .max_px = 5000, .reference_px = FLOW_MIDDLE,
                                  .instrument_id = 1, .band_up_bps = UINT32_MAX, .band_down_bps = 10000};
    account_create_t account = {.firm_id = 1};
    asset_add_t asset = {.exponent = -8, .symbol = "DELTA"};

    begin();
    flow_admin(&flow, TEMPLATE_FEE_TIER_SET, &fees, sizeof(fees));
    CHECK(admin_code() == REJECT_CODE_OUT_OF_RANGE);
    flow_admin(&flow, TEMPLATE_INSTRUMENT_LIMITS, &limits, sizeof(limits));
    CHECK(admin_code() == REJECT_CODE_NONE);
    send_order(1, SIDE_BUY, 1, FLOW_MIDDLE * 2, 1); /* so wide a band refuses no price */
    (void)last_report(1, TEMPLATE_ORDER_ACCEPTED);
    flow_admin(&flow, TEMPLATE_ACCOUNT_CREATE, &account, sizeof(account));
    uint32_t made = FLOW_ACCOUNTS + 1;
    for (uint32_t id = 1; id <= 3; id++) /* 42 balances are there, 45 fit */
        flow_deposit(&flow, made, id, 1);
    CHECK(admin_code() == REJECT_CODE_NONE);
    flow_admin(&flow, TEMPLATE_ASSET_ADD, &asset, sizeof(asset));
    CHECK(admin_code() == REJECT_CODE_BALANCE_CAPACITY);
    end();
}

/* The matcher ends an order, its answer to a replace in flight still to come: no further replace may hold money for it. */
static void finished_order_takes_no_replace(void)
{
    order_cancel_request_t cancel = {.orig_cl_ord_id = ORDER_ID_OPT_NULL, .instrument_id = 1};
    order_replace_request_t replace = {.orig_cl_ord_id = ORDER_ID_OPT_NULL, .price = FLOW_MIDDLE, .order_qty = 20,
                                       .display_qty = QTY_OPT_NULL, .instrument_id = 1};
    log_slot_t slot;

    begin();
    send_order(1, SIDE_BUY, 1, FLOW_MIDDLE - 5, 10);
    cancel.order_id = replace.order_id = ((const order_accepted_t *)last_report(1, TEMPLATE_ORDER_ACCEPTED))->order_id;
    memcpy(flow_slot(&flow, &slot, TEMPLATE_ORDER_CANCEL_REQUEST, 2), &cancel, sizeof(cancel));
    flow_put(&flow, &slot);
    memcpy(flow_slot(&flow, &slot, TEMPLATE_ORDER_REPLACE_REQUEST, 2), &replace, sizeof(replace));
    flow_put(&flow, &slot);
    CHECK(sequencer_poll(world.sequencer, 10) > 0);
    int64_t reports = ring_published(&world.reports[1]);
    while (ring_published(&world.reports[1]) == reports) /* the cancel, not yet the replace */
        CHECK(matcher_poll(world.matchers[0], 1) > 0);
    memcpy(flow_slot(&flow, &slot, TEMPLATE_ORDER_REPLACE_REQUEST, 2), &replace, sizeof(replace));
    flow_put(&flow, &slot);
    CHECK(sequencer_poll(world.sequencer, 10) > 0);
    end();
}

int main(void)
{
    notional_does_not_wrap();
    free_bid_of_the_poor_settles();
    queries_of_any_id_end();
    forged_marks_are_no_marks();
    logon_counts_for_its_own_session();
    operator_errs();
    finished_order_takes_no_replace();
    return 0;
}
