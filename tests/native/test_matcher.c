/* The matcher's rules, one by one: what goes in, what reports and market events come out. book_check after every record. */
#include "matcher_kit.h"

static const order_executed_t *expect_fill(kit_t *kit, uint64_t order, int64_t quantity, int64_t leaves)
{
    const order_executed_t *block = kit_report(kit, TEMPLATE_ORDER_EXECUTED);
    CHECK_EQUAL(block->order_id, order);
    CHECK_EQUAL(block->last_qty, quantity);
    CHECK_EQUAL(block->leaves_qty, leaves);
    return block;
}

static const order_canceled_t *expect_canceled(kit_t *kit, uint64_t order, int64_t quantity, uint16_t reason, uint8_t status)
{
    const order_canceled_t *block = kit_report(kit, TEMPLATE_ORDER_CANCELED);
    CHECK_EQUAL(block->order_id, order);
    CHECK_EQUAL(block->canceled_qty, quantity);
    CHECK_EQUAL(block->cancel_reason, reason);
    CHECK_EQUAL(block->ord_status, status);
    CHECK(kit_report_slot(block)->flags & REPORT_FLAG_FINAL);
    return block;
}

static void a_passive_order_is_accepted_and_shown(void)
{
    kit_t kit = kit_new();

    uint64_t id = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 5, .account = 3, .cl_ord_id = 42});

    const order_accepted_t *accepted = kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    CHECK_EQUAL(accepted->cl_ord_id, 42);
    CHECK_EQUAL(accepted->order_id, id);
    CHECK_EQUAL(accepted->price, 100);
    CHECK_EQUAL(accepted->order_qty, 5);
    CHECK_EQUAL(accepted->account_id, 3);
    CHECK_EQUAL(accepted->client_tag, id + 7000);
    CHECK_EQUAL(accepted->exec_id, (uint64_t)KIT_PARTITION << 56);
    const report_slot_t *slot = kit_report_slot(accepted);
    CHECK_EQUAL(slot->session, 3);
    CHECK_EQUAL(slot->seq_num, 1);
    CHECK_EQUAL(slot->distance, 0);
    CHECK_EQUAL(slot->account_seq, 1);
    CHECK_EQUAL(slot->flags, REPORT_FLAG_LAST_OF_INPUT);
    CHECK_EQUAL(slot->in_seq, 1);
    const order_add_t *add = kit_event(&kit, TEMPLATE_ORDER_ADD);
    CHECK_EQUAL(add->order_id, id);
    CHECK_EQUAL(add->event_flags, EVENT_FLAGS_END_OF_EVENT);
    kit_nothing_more(&kit);
    kit_free(&kit);
}

static void fills_keep_time_priority_at_the_makers_price(void)
{
    kit_t kit = kit_new();
    uint64_t first = kit_sell(&kit, 100, 5, 1);
    uint64_t second = kit_sell(&kit, 100, 5, 2);
    uint64_t worse = kit_sell(&kit, 101, 5, 2);
    kit_skip(&kit);

    uint64_t taker = kit_buy(&kit, 105, 12, 3);

    kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    const order_executed_t *maker_fill = expect_fill(&kit, first, 5, 0);
    CHECK_EQUAL(maker_fill->last_px, 100);
    CHECK_EQUAL(maker_fill->liquidity, LIQUIDITY_MAKER);
    CHECK_EQUAL(maker_fill->ord_status, ORD_STATUS_FILLED);
    CHECK_EQUAL(kit_report_slot(maker_fill)->flags, REPORT_FLAG_MORE | REPORT_FLAG_FINAL);
    CHECK_EQUAL(kit_report_slot(maker_fill)->session, 1);
    const order_executed_t *taker_fill = expect_fill(&kit, taker, 5, 7);
    CHECK_EQUAL(taker_fill->trade_id, maker_fill->trade_id);
    CHECK_EQUAL(kit_report_slot(taker_fill)->flags, 0);
    expect_fill(&kit, second, 5, 0);
    expect_fill(&kit, taker, 5, 2);
    const order_executed_t *last_maker = expect_fill(&kit, worse, 2, 3);
    CHECK_EQUAL(last_maker->last_px, 101);
    CHECK_EQUAL(last_maker->ord_status, ORD_STATUS_PARTIALLY_FILLED);
    const order_executed_t *last = expect_fill(&kit, taker, 2, 0);
    CHECK_EQUAL(last->cum_qty, 12);
    CHECK_EQUAL(kit_report_slot(last)->flags, REPORT_FLAG_FINAL | REPORT_FLAG_LAST_OF_INPUT);
    const order_execute_t *event = kit_event(&kit, TEMPLATE_ORDER_EXECUTE);
    CHECK_EQUAL(event->event_flags, 0);
    CHECK_EQUAL(event->side, SIDE_SELL);
    kit_event(&kit, TEMPLATE_ORDER_EXECUTE);
    event = kit_event(&kit, TEMPLATE_ORDER_EXECUTE);
    CHECK_EQUAL(event->event_flags, EVENT_FLAGS_END_OF_EVENT);
    CHECK_EQUAL(event->trade_id, 3);
    kit_nothing_more(&kit);
    CHECK_EQUAL(kit_front(&kit, SIDE_SELL), worse);
    kit_free(&kit);
}

static void remainders_of_ioc_market_and_fok_orders_expire(void)
{
    kit_t kit = kit_new();
    kit_sell(&kit, 100, 5, 1);
    kit_skip(&kit);

    uint64_t fok = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 6, .account = 2,
                                                 .time_in_force = TIME_IN_FORCE_FOK});
    kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    expect_canceled(&kit, fok, 6, CANCEL_REASON_FOK_NOT_FILLABLE, ORD_STATUS_EXPIRED);
    kit_nothing_more(&kit);

    uint64_t ioc = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 3, .account = 2,
                                                 .time_in_force = TIME_IN_FORCE_IOC});
    kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    kit_report(&kit, TEMPLATE_ORDER_EXECUTED);
    expect_fill(&kit, ioc, 3, 0);
    kit_skip(&kit);

    /* A market order says GTC and carries its protection price. */
    uint64_t market = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 3, .account = 2,
                                                    .ord_type = ORD_TYPE_MARKET});
    const order_accepted_t *accepted = kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    CHECK(accepted->price == PX_OPT_NULL);
    kit_report(&kit, TEMPLATE_ORDER_EXECUTED);
    expect_fill(&kit, market, 2, 1);
    expect_canceled(&kit, market, 1, CANCEL_REASON_IOC_REMAINDER, ORD_STATUS_EXPIRED);
    kit_skip(&kit);

    uint64_t alone = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 3, .account = 2,
                                                   .ord_type = ORD_TYPE_MARKET});
    kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    expect_canceled(&kit, alone, 3, CANCEL_REASON_NO_LIQUIDITY, ORD_STATUS_EXPIRED);
    kit_nothing_more(&kit);
    kit_free(&kit);
}

static void a_fok_order_fills_completely_across_levels(void)
{
    kit_t kit = kit_new();
    kit_sell(&kit, 100, 5, 1);
    kit_sell(&kit, 103, 5, 1);
    kit_skip(&kit);

    uint64_t fok = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 103, .quantity = 10, .account = 2,
                                                 .time_in_force = TIME_IN_FORCE_FOK});

    kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    kit_report(&kit, TEMPLATE_ORDER_EXECUTED);
    expect_fill(&kit, fok, 5, 5);
    kit_report(&kit, TEMPLATE_ORDER_EXECUTED);
    expect_fill(&kit, fok, 5, 0);
    CHECK_EQUAL(matcher_order_count(kit.matcher, KIT_INSTRUMENT), 0);
    kit_free(&kit);
}

static void fok_counts_own_orders_as_its_prevention_mode_says(void)
{
    static const struct {
        uint8_t mode;
        bool filled;
    } cases[] = {{STP_MODE_NONE, true},          {STP_MODE_CANCEL_TAKER, false}, {STP_MODE_CANCEL_MAKER, false},
                 {STP_MODE_CANCEL_BOTH, false},  {STP_MODE_DECREMENT, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        kit_t kit = kit_new();
        kit_sell(&kit, 100, 5, 1);
        kit_sell(&kit, 100, 5, 2); /* the taker's own */
        kit_sell(&kit, 100, 4, 1);
        kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 10, .account = 2,
                                      .stp_mode = cases[i].mode, .time_in_force = TIME_IN_FORCE_FOK});
        CHECK_EQUAL(matcher_order_count(kit.matcher, KIT_INSTRUMENT), cases[i].filled ? 1 : 3);
        uint64_t before = kit.next_id;
        kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 9, .account = 2,
                                      .stp_mode = cases[i].mode, .time_in_force = TIME_IN_FORCE_FOK});
        if (cases[i].mode == STP_MODE_CANCEL_MAKER) /* 5 + 4 of others: fills, own order canceled on the way */
            CHECK_EQUAL(matcher_order_count(kit.matcher, KIT_INSTRUMENT), 0);
        CHECK_EQUAL(kit.next_id, before + 1);
        kit_free(&kit);
    }
}

/* Found by the oracle, seeds 870056 and 900063: an own order outside the band stood in front of what could trade. */
static void fok_passes_own_orders_outside_the_volatility_band(void)
{
    kit_t kit = kit_new();
    kit_sell(&kit, 100, 1, 1);
    kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 1, .account = 2});
    log_slot_t slot = kit_record(&kit, TEMPLATE_INSTRUMENT_VOLATILITY, 1);
    *(instrument_volatility_t *)slot.block = (instrument_volatility_t){.instrument_id = KIT_INSTRUMENT, .up_bps = 500, .down_bps = 500};
    kit_send(&kit, &slot);
    kit_sell(&kit, 90, 5, 2); /* the taker's own */
    kit_sell(&kit, 100, 5, 1);
    kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 5, .account = 2,
                                  .stp_mode = STP_MODE_CANCEL_MAKER, .time_in_force = TIME_IN_FORCE_FOK});
    CHECK_EQUAL(matcher_order_count(kit.matcher, KIT_INSTRUMENT), 0);
    kit_sell(&kit, 90, 5, 1); /* somebody else's: that trade would halt the market */
    kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 5, .account = 2,
                                  .stp_mode = STP_MODE_CANCEL_MAKER, .time_in_force = TIME_IN_FORCE_FOK});
    CHECK_EQUAL(matcher_order_count(kit.matcher, KIT_INSTRUMENT), 1);
    CHECK_EQUAL(matcher_market_state(kit.matcher, KIT_INSTRUMENT), MARKET_STATE_CONTINUOUS);
    kit_free(&kit);
}

static void post_only_order_that_would_cross_is_rejected(void)
{
    kit_t kit = kit_new();
    kit_sell(&kit, 100, 5, 1);
    kit_skip(&kit);

    uint64_t id = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 5, .account = 2,
                                                .exec_inst = EXEC_INST_POST_ONLY});

    const order_rejected_t *rejected = kit_report(&kit, TEMPLATE_ORDER_REJECTED);
    CHECK_EQUAL(rejected->order_id, id);
    CHECK_EQUAL(rejected->reject_code, REJECT_CODE_WOULD_TAKE_LIQUIDITY);
    CHECK_EQUAL(rejected->limit, 100);
    CHECK_EQUAL(kit_report_slot(rejected)->flags, REPORT_FLAG_FINAL | REPORT_FLAG_LAST_OF_INPUT);
    kit_nothing_more(&kit);
    kit_free(&kit);
}

static void a_cancel_answers_once_and_then_comes_too_late(void)
{
    kit_t kit = kit_new();
    uint64_t id = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 5, .cl_ord_id = 42});
    kit_skip(&kit);

    kit_cancel(&kit, id, 1);
    const order_canceled_t *canceled = expect_canceled(&kit, id, 5, CANCEL_REASON_CLIENT, ORD_STATUS_CANCELED);
    CHECK_EQUAL(canceled->cl_ord_id, id + 5000);
    CHECK_EQUAL(canceled->orig_cl_ord_id, 42);
    CHECK_EQUAL(canceled->ref_seq_num, kit.seq_num);
    kit_event(&kit, TEMPLATE_ORDER_DELETE);

    kit_cancel(&kit, id, 1);
    const cancel_replace_reject_t *reject = kit_report(&kit, TEMPLATE_CANCEL_REPLACE_REJECT);
    CHECK_EQUAL(reject->reject_code, REJECT_CODE_TOO_LATE_TO_CANCEL);
    CHECK_EQUAL(reject->response_to, RESPONSE_TO_CANCEL);

    /* Another id in the same slot is not the order asked for. */
    kit_cancel(&kit, id + 1024, 1);
    kit_report(&kit, TEMPLATE_CANCEL_REPLACE_REJECT);
    kit_nothing_more(&kit);
    kit_free(&kit);
}

static void a_replace_keeps_priority_only_when_it_just_shrinks(void)
{
    kit_t kit = kit_new();
    uint64_t first = kit_buy(&kit, 100, 5, 1);
    uint64_t second = kit_buy(&kit, 100, 5, 1);
    kit_skip(&kit);

    kit_replace(&kit, first, 1, PX_OPT_NULL, 3);
    const order_replaced_t *replaced = kit_report(&kit, TEMPLATE_ORDER_REPLACED);
    CHECK_EQUAL(replaced->priority_retained, 1);
    CHECK_EQUAL(replaced->leaves_qty, 3);
    const order_reduce_t *reduce = kit_event(&kit, TEMPLATE_ORDER_REDUCE);
    CHECK_EQUAL(reduce->new_qty, 3);
    CHECK_EQUAL(kit_front(&kit, SIDE_BUY), first);

    kit_replace(&kit, first, 1, PX_OPT_NULL, 4);
    replaced = kit_report(&kit, TEMPLATE_ORDER_REPLACED);
    CHECK_EQUAL(replaced->priority_retained, 0);
    const order_replace_t *moved = kit_event(&kit, TEMPLATE_ORDER_REPLACE);
    CHECK_EQUAL(moved->new_qty, 4);
    CHECK_EQUAL(kit_front(&kit, SIDE_BUY), second);

    kit_replace(&kit, first, 1, 100, 4);
    const cancel_replace_reject_t *reject = kit_report(&kit, TEMPLATE_CANCEL_REPLACE_REJECT);
    CHECK_EQUAL(reject->reject_code, REJECT_CODE_REPLACE_NO_CHANGE);
    CHECK_EQUAL(reject->response_to, RESPONSE_TO_REPLACE);
    kit_nothing_more(&kit);
    kit_free(&kit);
}

static void a_replace_that_crosses_trades_and_counts_what_was_filled(void)
{
    kit_t kit = kit_new();
    uint64_t bid = kit_buy(&kit, 100, 10, 1);
    kit_sell(&kit, 100, 4, 2); /* bid: cum 4 */
    uint64_t ask = kit_sell(&kit, 102, 3, 2);
    kit_skip(&kit);

    kit_replace(&kit, bid, 1, 102, 4);
    const cancel_replace_reject_t *reject = kit_report(&kit, TEMPLATE_CANCEL_REPLACE_REJECT);
    CHECK_EQUAL(reject->reject_code, REJECT_CODE_QTY_BELOW_FILLED);
    CHECK_EQUAL(reject->limit, 4);

    kit_replace(&kit, bid, 1, 102, 9);
    const order_replaced_t *replaced = kit_report(&kit, TEMPLATE_ORDER_REPLACED);
    CHECK_EQUAL(replaced->leaves_qty, 5);
    CHECK_EQUAL(replaced->cum_qty, 4);
    expect_fill(&kit, ask, 3, 0);
    const order_executed_t *fill = expect_fill(&kit, bid, 3, 2);
    CHECK_EQUAL(fill->cum_qty, 7);
    CHECK_EQUAL(fill->liquidity, LIQUIDITY_TAKER);
    kit_event(&kit, TEMPLATE_ORDER_EXECUTE);
    const order_replace_t *event = kit_event(&kit, TEMPLATE_ORDER_REPLACE);
    CHECK_EQUAL(event->new_qty, 2);
    CHECK_EQUAL(event->new_price, 102);
    CHECK_EQUAL(event->event_flags, EVENT_FLAGS_END_OF_EVENT);
    kit_nothing_more(&kit);

    /* Filled to the end as taker: leaves the book it was shown in. */
    kit_sell(&kit, 103, 9, 2);
    kit_skip(&kit);
    kit_replace(&kit, bid, 1, 103, PX_OPT_NULL);
    kit_event(&kit, TEMPLATE_ORDER_EXECUTE);
    const order_delete_t *deleted = kit_event(&kit, TEMPLATE_ORDER_DELETE);
    CHECK_EQUAL(deleted->order_id, bid);
    kit_free(&kit);
}

static void a_post_only_replace_that_would_cross_changes_nothing(void)
{
    kit_t kit = kit_new();
    uint64_t bid = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 99, .quantity = 5,
                                                 .exec_inst = EXEC_INST_POST_ONLY});
    kit_sell(&kit, 100, 5, 2);
    kit_skip(&kit);

    kit_replace(&kit, bid, 1, 100, 5);

    const cancel_replace_reject_t *reject = kit_report(&kit, TEMPLATE_CANCEL_REPLACE_REJECT);
    CHECK_EQUAL(reject->reject_code, REJECT_CODE_WOULD_TAKE_LIQUIDITY);
    kit_nothing_more(&kit);
    CHECK_EQUAL(kit_front(&kit, SIDE_BUY), bid);
    kit_free(&kit);
}

static void expect_prevented(kit_t *kit, uint64_t id, int64_t quantity, int64_t leaves)
{
    const order_prevented_t *report = kit_report(kit, TEMPLATE_ORDER_PREVENTED);
    CHECK_EQUAL(report->order_id, id);
    CHECK_EQUAL(report->prevented_qty, quantity);
    CHECK_EQUAL(report->leaves_qty, leaves);
    if (leaves == 0)
        CHECK_EQUAL(report->ord_status, ORD_STATUS_EXPIRED_IN_MATCH);
    CHECK_EQUAL((kit_report_slot(report)->flags & REPORT_FLAG_FINAL) != 0, leaves == 0);
}

static void self_trade_prevention_cancels_whom_the_taker_names(void)
{
    for (uint8_t mode = STP_MODE_CANCEL_TAKER; mode <= STP_MODE_CANCEL_BOTH; mode++) {
        kit_t kit = kit_new();
        uint64_t other = kit_sell(&kit, 100, 2, 1);
        uint64_t own = kit_sell(&kit, 100, 5, 2);
        uint64_t later = kit_sell(&kit, 100, 9, 1);
        kit_skip(&kit);

        uint64_t taker = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 6, .account = 2,
                                                       .stp_mode = mode});

        kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
        expect_fill(&kit, other, 2, 0);
        expect_fill(&kit, taker, 2, 4);
        if (mode != STP_MODE_CANCEL_TAKER)
            expect_prevented(&kit, own, 5, 0);
        if (mode != STP_MODE_CANCEL_MAKER) {
            expect_prevented(&kit, taker, 4, 0);
        } else {
            expect_fill(&kit, later, 4, 5);
            expect_fill(&kit, taker, 4, 0);
        }
        CHECK_EQUAL(kit.report_seen, ring_published(kit.reports));
        kit_free(&kit);
    }
}

static void decrement_takes_the_smaller_quantity_from_both(void)
{
    kit_t kit = kit_new();
    uint64_t own = kit_sell(&kit, 100, 5, 2);
    kit_skip(&kit);

    uint64_t taker = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 8, .account = 2,
                                                   .stp_mode = STP_MODE_DECREMENT});
    kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    expect_prevented(&kit, own, 5, 0);
    const order_prevented_t *prevented = kit_report(&kit, TEMPLATE_ORDER_PREVENTED);
    CHECK_EQUAL(prevented->order_id, taker);
    CHECK_EQUAL(prevented->counter_order_id, own);
    CHECK_EQUAL(prevented->prevented_qty, 5);
    CHECK_EQUAL(prevented->leaves_qty, 3);
    kit_skip(&kit); /* the remainder rests at 100 */

    uint64_t small = kit_order(&kit, (kit_order_t){.side = SIDE_SELL, .price = 100, .quantity = 1, .account = 2,
                                                   .stp_mode = STP_MODE_DECREMENT});
    kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    prevented = kit_report(&kit, TEMPLATE_ORDER_PREVENTED);
    CHECK_EQUAL(prevented->order_id, taker);
    CHECK_EQUAL(prevented->leaves_qty, 2);
    expect_prevented(&kit, small, 1, 0);
    const order_reduce_t *reduce = kit_event(&kit, TEMPLATE_ORDER_REDUCE);
    CHECK_EQUAL(reduce->new_qty, 2);
    kit_nothing_more(&kit);
    kit_free(&kit);
}

static void groups_and_accounts_are_different_owners(void)
{
    kit_t kit = kit_new();
    kit_order(&kit, (kit_order_t){.side = SIDE_SELL, .price = 100, .quantity = 1, .account = 2, .stp_group = 7});
    kit_order(&kit, (kit_order_t){.side = SIDE_SELL, .price = 100, .quantity = 1, .account = 7});
    kit_skip(&kit);

    /* Group 7 is not account 7: cancels only the grouped one. */
    uint64_t taker = kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 2, .account = 3,
                                                   .stp_group = 7, .stp_mode = STP_MODE_CANCEL_MAKER});

    kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    kit_report(&kit, TEMPLATE_ORDER_PREVENTED);
    kit_report(&kit, TEMPLATE_ORDER_EXECUTED);
    expect_fill(&kit, taker, 1, 1);
    kit_free(&kit);
}

static void set_fees(kit_t *kit, uint8_t tier, uint32_t instrument, int32_t maker, int32_t taker)
{
    log_slot_t slot = kit_record(kit, TEMPLATE_FEE_TIER_SET, 1);
    fee_tier_set_t *block = (fee_tier_set_t *)slot.block;
    slot.partition = PARTITION_ALL;
    block->tier = tier;
    block->instrument_id = instrument;
    block->maker_rate = maker;
    block->taker_rate = taker;
    kit_send(kit, &slot);
}

static void fees_round_up_in_the_asset_received(void)
{
    kit_t kit = kit_new();
    set_fees(&kit, 1, 0, 100, 250);
    set_fees(&kit, 1, KIT_INSTRUMENT, 100, 333); /* wins over all instruments */
    set_fees(&kit, 1, 0, 100, 250);
    kit_order(&kit, (kit_order_t){.side = SIDE_SELL, .price = 101, .quantity = 7, .account = 1, .tier = 1});
    kit_skip(&kit);

    kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 101, .quantity = 7, .account = 2, .tier = 1});

    kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
    const order_executed_t *maker = kit_report(&kit, TEMPLATE_ORDER_EXECUTED);
    CHECK_EQUAL(maker->fee, 1); /* 101 * 7 * 10 = 7070 quote units * 100 ppm = 0.707 */
    CHECK_EQUAL(maker->fee_asset_id, KIT_QUOTE_ASSET);
    const order_executed_t *taker = kit_report(&kit, TEMPLATE_ORDER_EXECUTED);
    CHECK_EQUAL(taker->fee, 3); /* 7000 base units * 333 ppm = 2.331 */
    CHECK_EQUAL(taker->fee_asset_id, KIT_BASE_ASSET);
    kit_free(&kit);
}

static void a_rebate_comes_out_of_the_takers_fee(void)
{
    kit_t kit = kit_new();
    set_fees(&kit, 1, 0, -100, 500);
    set_fees(&kit, 2, 0, -900, 500);
    for (uint8_t tier = 1; tier <= 2; tier++) {
        kit_order(&kit, (kit_order_t){.side = SIDE_SELL, .price = 100, .quantity = 19, .account = 1, .tier = tier});
        kit_skip(&kit);
        kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 19, .account = 2, .tier = tier});
        kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
        const order_executed_t *maker = kit_report(&kit, TEMPLATE_ORDER_EXECUTED);
        const order_executed_t *taker = kit_report(&kit, TEMPLATE_ORDER_EXECUTED);
        CHECK_EQUAL(taker->fee, 10);                     /* 19000 * 500 ppm = 9.5 */
        CHECK_EQUAL(taker->fee_rounding, 1);
        CHECK_EQUAL(maker->fee, tier == 1 ? -1 : -9);    /* 1.9 down; 17.1 capped by the fee without its rounding */
        CHECK_EQUAL(maker->fee_rounding, 0);
        CHECK_EQUAL(maker->fee_asset_id, KIT_BASE_ASSET); /* what the taker receives */
    }
    kit_free(&kit);
}

static void set_state(kit_t *kit, uint8_t state)
{
    log_slot_t slot = kit_record(kit, TEMPLATE_INSTRUMENT_STATE, 1);
    instrument_state_t *block = (instrument_state_t *)slot.block;
    block->instrument_id = KIT_INSTRUMENT;
    block->state = state;
    kit_send(kit, &slot);
}

static void only_cancels_work_outside_continuous_trading(void)
{
    static const struct {
        uint8_t state;
        uint16_t code;
    } cases[] = {{MARKET_STATE_HALTED, REJECT_CODE_MARKET_HALTED},
                 {MARKET_STATE_CANCEL_ONLY, REJECT_CODE_CANCEL_ONLY},
                 {MARKET_STATE_CLOSED, REJECT_CODE_MARKET_CLOSED}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        kit_t kit = kit_new();
        uint64_t bid = kit_buy(&kit, 100, 5, 1);
        kit_skip(&kit);

        set_state(&kit, cases[i].state);
        const instrument_state_report_t *report = kit_report(&kit, TEMPLATE_INSTRUMENT_STATE_REPORT);
        CHECK_EQUAL(report->previous, MARKET_STATE_CONTINUOUS);
        CHECK_EQUAL(kit_report_slot(report)->seq_num, 0);
        kit_event(&kit, TEMPLATE_INSTRUMENT_STATUS);
        kit_buy(&kit, 100, 5, 1);
        const order_rejected_t *rejected = kit_report(&kit, TEMPLATE_ORDER_REJECTED);
        CHECK_EQUAL(rejected->reject_code, cases[i].code);
        kit_replace(&kit, bid, 1, 100, 4);
        const cancel_replace_reject_t *reject = kit_report(&kit, TEMPLATE_CANCEL_REPLACE_REJECT);
        CHECK_EQUAL(reject->reject_code, cases[i].code);
        kit_cancel(&kit, bid, 1);
        kit_report(&kit, TEMPLATE_ORDER_CANCELED);
        kit_event(&kit, TEMPLATE_ORDER_DELETE);
        kit_nothing_more(&kit);
        set_state(&kit, MARKET_STATE_CONTINUOUS);
        kit_buy(&kit, 100, 5, 1);
        kit_report(&kit, TEMPLATE_INSTRUMENT_STATE_REPORT);
        kit_report(&kit, TEMPLATE_ORDER_ACCEPTED);
        kit_free(&kit);
    }
}

static void mass_cancel(kit_t *kit, uint32_t account, uint32_t instrument, uint8_t side, uint8_t scope)
{
    log_slot_t slot = kit_record(kit, TEMPLATE_MASS_CANCEL_REQUEST, account);
    mass_cancel_request_t *block = (mass_cancel_request_t *)slot.block;
    slot.partition = PARTITION_ALL;
    block->account_id = account;
    block->instrument_id = instrument;
    block->side = side;
    block->scope = scope;
    kit_send(kit, &slot);
}

static void mass_cancel_takes_what_its_filters_name(void)
{
    kit_t kit = kit_new();
    kit_add_instrument(&kit, 2);
    kit_buy(&kit, 100, 1, 1);
    kit_sell(&kit, 110, 1, 1);
    kit_buy(&kit, 100, 1, 2);
    kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 50, .quantity = 1, .account = 1, .instrument = 2});
    kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 50, .quantity = 1, .account = 1, .session = 9});
    kit_skip(&kit);

    mass_cancel(&kit, 1, KIT_INSTRUMENT, SIDE_OR_BOTH_BUY, MASS_CANCEL_SCOPE_SESSION);
    expect_canceled(&kit, 1, 1, CANCEL_REASON_MASS_CANCEL, ORD_STATUS_CANCELED);
    const mass_cancel_report_t *report = kit_report(&kit, TEMPLATE_MASS_CANCEL_REPORT);
    CHECK_EQUAL(report->total_affected, 1);
    kit_skip(&kit);

    mass_cancel(&kit, 1, 0, SIDE_OR_BOTH_BOTH, MASS_CANCEL_SCOPE_ACCOUNT);
    expect_canceled(&kit, 5, 1, CANCEL_REASON_MASS_CANCEL, ORD_STATUS_CANCELED);
    expect_canceled(&kit, 4, 1, CANCEL_REASON_MASS_CANCEL, ORD_STATUS_CANCELED);
    expect_canceled(&kit, 2, 1, CANCEL_REASON_MASS_CANCEL, ORD_STATUS_CANCELED);
    report = kit_report(&kit, TEMPLATE_MASS_CANCEL_REPORT);
    CHECK_EQUAL(report->total_affected, 3);
    for (int i = 0; i < 3; i++) {
        const order_delete_t *event = kit_event(&kit, TEMPLATE_ORDER_DELETE);
        CHECK_EQUAL(event->event_flags, EVENT_FLAGS_END_OF_EVENT);
    }
    kit_nothing_more(&kit);
    CHECK_EQUAL(matcher_order_count(kit.matcher, KIT_INSTRUMENT), 1);
    kit_free(&kit);
}

static void a_bound_session_learns_where_its_history_ends(void)
{
    kit_t kit = kit_new();
    kit_buy(&kit, 100, 1, 1);
    kit_buy(&kit, 100, 1, 2);
    kit_buy(&kit, 100, 1, 1);
    const report_slot_t *third = kit_report_slot((kit_report(&kit, TEMPLATE_ORDER_ACCEPTED),
                                                  kit_report(&kit, TEMPLATE_ORDER_ACCEPTED),
                                                  kit_report(&kit, TEMPLATE_ORDER_ACCEPTED)));
    CHECK_EQUAL(third->seq_num, 2);
    CHECK_EQUAL(third->distance, 2);

    log_slot_t slot = kit_record(&kit, TEMPLATE_SESSION_BIND, 0);
    session_bind_t *bind = (session_bind_t *)slot.block;
    bind->session_id = 1;
    bind->connection_id = 77;
    kit_send(&kit, &slot);
    const session_bound_t *bound = kit_report(&kit, TEMPLATE_SESSION_BOUND);
    CHECK_EQUAL(bound->next_seq_no, 3);
    CHECK_EQUAL(bound->last_report_seq, 3);
    CHECK_EQUAL(bound->connection_id, 77);
    CHECK_EQUAL(bound->code, ESTABLISH_REJECT_CODE_NONE);
    CHECK_EQUAL(kit_report_slot(bound)->seq_num, 0);

    slot = kit_record(&kit, TEMPLATE_SESSION_NEGOTIATE, 0);
    ((session_negotiate_t *)slot.block)->session_id = 1;
    kit_send(&kit, &slot);
    kit_buy(&kit, 100, 1, 1);
    const report_slot_t *first = kit_report_slot(kit_report(&kit, TEMPLATE_ORDER_ACCEPTED));
    CHECK_EQUAL(first->seq_num, 1);
    CHECK_EQUAL(first->distance, 0);
    CHECK_EQUAL(first->account_seq, 3);
    kit_free(&kit);
}

static void a_hash_mark_reports_every_book(void)
{
    kit_t kit = kit_new();
    kit_add_instrument(&kit, 3);
    kit_buy(&kit, 100, 1, 1);
    kit_skip(&kit);
    log_slot_t slot = kit_record(&kit, TEMPLATE_HASH_MARK, 0);
    ((hash_mark_t *)slot.block)->mark_index = 5;

    kit_send(&kit, &slot);

    uint64_t hash[2];
    matcher_hash(kit.matcher, KIT_INSTRUMENT, hash);
    const book_hash_t *first = kit_report(&kit, TEMPLATE_BOOK_HASH);
    CHECK(hash[0] != 0);
    CHECK(first->hash_low == hash[0] && first->hash_high == hash[1]);
    CHECK_EQUAL(first->order_count, 1);
    CHECK_EQUAL(first->mark_index, 5);
    const book_hash_t *second = kit_report(&kit, TEMPLATE_BOOK_HASH);
    CHECK_EQUAL(second->instrument_id, 3);
    CHECK(second->hash_low == 0 && second->hash_high == 0);
    kit_event(&kit, TEMPLATE_BOOK_DIGEST);
    kit_event(&kit, TEMPLATE_BOOK_DIGEST);
    kit_nothing_more(&kit);
    kit_free(&kit);
}

static void rejected_and_foreign_records_are_passed_over(void)
{
    kit_t kit = kit_new();
    kit_skip(&kit);
    log_slot_t slot = kit_new_order_record(&kit, 1, (kit_order_t){.side = SIDE_BUY, .price = 1, .quantity = 1});
    slot.flags |= SLOT_FLAG_REJECT;
    kit_send(&kit, &slot);
    slot.flags = 0;
    slot.partition = KIT_PARTITION + 1;
    kit_send(&kit, &slot);
    kit_nothing_more(&kit);
    CHECK_EQUAL(matcher_position(kit.matcher), 3);
    kit_free(&kit);
}

static void a_full_report_ring_stops_an_input_between_fills(void)
{
    kit_t kit;
    kit_open(&kit,
             (matcher_config_t){.orders_max = 64, .instruments_max = 1, .accounts_max = 4, .sessions_max = 4,
                                .window_log2 = 8},
             16);
    for (int i = 0; i < 10; i++)
        kit_sell(&kit, 100, 1, 1);
    kit_skip(&kit);
    ring_advance(kit.reports, 0, kit.report_seen);
    atomic_store(&kit.reports->header->consumers[0].gating, 1);
    log_slot_t slots[2] = {kit_new_order_record(&kit, 11, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 10,
                                                                        .account = 2}),
                           kit_cancel_record(&kit, 11, 2)};

    /* 1 + 2 * 10 reports do not fit into 16 slots; the second record must wait. */
    CHECK_EQUAL(matcher_feed(kit.matcher, slots, matcher_position(kit.matcher), 2), 1);
    CHECK(!matcher_idle(kit.matcher));
    int64_t published = ring_published(kit.reports);
    CHECK(published > kit.report_seen && published <= kit.report_seen + 16);
    CHECK_EQUAL(matcher_feed(kit.matcher, slots + 1, matcher_position(kit.matcher), 1), 0);

    /* A step starts with room for what it can write, so it may need to be called more than once. */
    ring_advance(kit.reports, 0, published);
    int64_t fed = matcher_feed(kit.matcher, slots + 1, matcher_position(kit.matcher), 1);
    ring_advance(kit.reports, 0, ring_published(kit.reports));
    fed += matcher_feed(kit.matcher, slots + 1, matcher_position(kit.matcher), 1 - fed);
    CHECK_EQUAL(fed, 1);
    CHECK(matcher_idle(kit.matcher));
    CHECK_EQUAL(ring_published(kit.reports), kit.report_seen + 1 + 20 + 1);
    const report_slot_t *last = (const report_slot_t *)ring_slot(kit.reports, ring_published(kit.reports) - 1);
    CHECK_EQUAL(last->template_id, TEMPLATE_CANCEL_REPLACE_REJECT); /* the order filled first */
    kit_check(&kit);
    kit_free(&kit);
}

static void a_long_fill_or_kill_count_is_resumed(void)
{
    enum { ORDERS = 10000 };
    kit_t kit;
    kit_open(&kit,
             (matcher_config_t){.orders_max = 16384, .instruments_max = 1, .accounts_max = 4, .sessions_max = 4}, 65536);
    kit.check_each = false;
    for (int i = 0; i < ORDERS; i++)
        kit_sell(&kit, 100 + i % 7, 1, 1);
    for (int short_by = 1; short_by >= 0; short_by--) {
        kit_order(&kit, (kit_order_t){.side = SIDE_BUY, .price = 106, .quantity = ORDERS + short_by, .account = 2,
                                      .stp_mode = STP_MODE_CANCEL_TAKER, .time_in_force = TIME_IN_FORCE_FOK});
        CHECK_EQUAL(matcher_order_count(kit.matcher, KIT_INSTRUMENT), short_by ? ORDERS : 0);
    }
    kit_check(&kit);
    kit_free(&kit);
}

static void polling_takes_committed_records_and_says_when_lapped(void)
{
    enum { LOG_SLOTS = 64 };
    kit_t kit = kit_new();
    ring_t log;
    void *memory = kit_ring(&log, sizeof(log_slot_t), LOG_SLOTS);
    matcher_attach(kit.matcher, &log, kit.reports, kit.market);
    matcher_set_position(kit.matcher, 0);
    kit_skip(&kit);
    for (int i = 0; i < 50; i++) {
        log_slot_t slot = kit_new_order_record(&kit, ++kit.next_id, (kit_order_t){.side = SIDE_BUY, .price = 100, .quantity = 1});
        memcpy(ring_slot(&log, ring_claim(&log, 1)), &slot, sizeof(slot));
    }
    CHECK_EQUAL(matcher_poll(kit.matcher, 100), 0); /* claimed is not published */
    ring_publish(&log, 45);

    CHECK_EQUAL(matcher_poll(kit.matcher, 40), 40);
    CHECK_EQUAL(matcher_poll(kit.matcher, 40), 5);
    CHECK_EQUAL(matcher_poll(kit.matcher, 40), STAGE_IDLE);
    CHECK_EQUAL(matcher_position(kit.matcher), 45);
    CHECK_EQUAL(matcher_order_count(kit.matcher, KIT_INSTRUMENT), 45);

    ring_publish(&log, 50);
    for (int i = 0; i < LOG_SLOTS; i++)
        ring_claim(&log, 1);
    CHECK_EQUAL(matcher_poll(kit.matcher, 40), STAGE_LAPPED);
    CHECK_EQUAL(matcher_position(kit.matcher), 45);
    kit_free(&kit);
    free(memory);
}

int main(void)
{
    a_full_report_ring_stops_an_input_between_fills();
    a_long_fill_or_kill_count_is_resumed();
    polling_takes_committed_records_and_says_when_lapped();
    a_passive_order_is_accepted_and_shown();
    fills_keep_time_priority_at_the_makers_price();
    remainders_of_ioc_market_and_fok_orders_expire();
    a_fok_order_fills_completely_across_levels();
    fok_counts_own_orders_as_its_prevention_mode_says();
    fok_passes_own_orders_outside_the_volatility_band();
    post_only_order_that_would_cross_is_rejected();
    a_cancel_answers_once_and_then_comes_too_late();
    a_replace_keeps_priority_only_when_it_just_shrinks();
    a_replace_that_crosses_trades_and_counts_what_was_filled();
    a_post_only_replace_that_would_cross_changes_nothing();
    self_trade_prevention_cancels_whom_the_taker_names();
    decrement_takes_the_smaller_quantity_from_both();
    groups_and_accounts_are_different_owners();
    fees_round_up_in_the_asset_received();
    a_rebate_comes_out_of_the_takers_fee();
    only_cancels_work_outside_continuous_trading();
    mass_cancel_takes_what_its_filters_name();
    a_bound_session_learns_where_its_history_ends();
    a_hash_mark_reports_every_book();
    rejected_and_foreign_records_are_passed_over();
    puts("matcher: all rules hold");
    return 0;
}
