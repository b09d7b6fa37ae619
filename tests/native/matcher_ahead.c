/* How many records a matcher gets at a time changes nothing: one by one, where nothing is looked ahead at, and in batches, where
 * orders, levels and neighbours of records to come are, from a book that is small enough to look at nothing up to one that looks
 * at everything. Records of no meaning stand between, and linked frames, which nobody looks ahead from. */
#include "engine/matcher_ahead.h"
#include "matcher_kit.h"

#define ORDERS_MAX (1u << 16)
#define RECORDS 120000
#define BATCH_MAX 300
#define MIDDLE 1000000
#define SPREAD 3000 /* beyond the window: far levels, too */

static log_slot_t records[RECORDS];
static uint64_t seed = 7;
static bool linked; /* the last record is the first frame of a cancel-replace */

static uint64_t random_below(uint64_t below)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (seed * UINT64_C(2685821657736338717) >> 33) % below;
}

/* Mostly passive, so that the book grows; some cross. */
static int64_t random_price(bool sells)
{
    int64_t away = (int64_t)random_below(SPREAD) - (random_below(20) == 0 ? 40 : 0);
    return sells ? MIDDLE + away : MIDDLE - 1 - away;
}

static void write_record(kit_t *kit, log_slot_t *slot)
{
    uint64_t kind = linked ? 0 : random_below(100);
    uint32_t account = 1 + (uint32_t)random_below(8);
    uint64_t any_order = 1 + random_below(kit->next_id + 1);
    *slot = kit_record(kit, TEMPLATE_ORDER_CANCEL_REQUEST, account);
    if (kind < 70 && kit->next_id < ORDERS_MAX - 1) {
        bool sells = random_below(2) == 1;
        linked = false;
        slot->template_id = TEMPLATE_NEW_ORDER_SINGLE;
        slot->aux = ++kit->next_id;
        *(new_order_single_t *)slot->block = (new_order_single_t){
            .cl_ord_id = kit->seq_num, .price = random_price(sells), .order_qty = 1 + (int64_t)random_below(50),
            .display_qty = QTY_OPT_NULL, .stop_px = PX_OPT_NULL, .expire_time = U32_NULL, .instrument_id = KIT_INSTRUMENT,
            .account_id = account, .side = sells ? SIDE_SELL : SIDE_BUY, .ord_type = ORD_TYPE_LIMIT,
            .time_in_force = random_below(10) == 0 ? TIME_IN_FORCE_IOC : TIME_IN_FORCE_GTC};
    } else if (kind < 80) {
        *(order_cancel_request_t *)slot->block = (order_cancel_request_t){
            .cl_ord_id = kit->seq_num, .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = any_order,
            .instrument_id = KIT_INSTRUMENT, .account_id = account};
        linked = kit->next_id < ORDERS_MAX - 1 && random_below(3) == 0;
        slot->flags |= linked ? SLOT_FLAG_MORE : 0;
    } else if (kind < 97) {
        slot->template_id = TEMPLATE_ORDER_REPLACE_REQUEST;
        *(order_replace_request_t *)slot->block = (order_replace_request_t){
            .cl_ord_id = kit->seq_num, .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = any_order,
            .price = random_price(random_below(2) == 1), .order_qty = 1 + (int64_t)random_below(50),
            .display_qty = QTY_OPT_NULL, .instrument_id = KIT_INSTRUMENT, .account_id = account};
    } else {
        slot->partition = KIT_PARTITION + 1; /* not ours, and its block is anything */
        for (uint32_t i = 0; i < sizeof(slot->block); i++)
            slot->block[i] = (uint8_t)random_below(256);
        slot->template_id = random_below(2) == 0 ? TEMPLATE_NEW_ORDER_SINGLE : TEMPLATE_ORDER_REPLACE_REQUEST;
    }
}

typedef struct outcome {
    uint64_t hash[2];
    uint64_t reports; /* all of them, folded */
    uint64_t events;
    int64_t live_max;
} outcome_t;

static void fold(uint64_t *sum, const ring_t *ring, int64_t *seen)
{
    for (; *seen < ring_published(ring); ++*seen) {
        const uint64_t *words = ring_slot(ring, *seen);
        for (uint64_t i = 0; i < ring->slot_size / sizeof(*words); i++)
            *sum = (*sum ^ words[i]) * DIGEST_ID_FACTOR;
    }
}

static outcome_t run(bool batches)
{
    outcome_t outcome = {.live_max = 0};
    kit_t kit;
    kit_open(&kit,
             (matcher_config_t){.orders_max = ORDERS_MAX, .instruments_max = 2, .accounts_max = 16, .sessions_max = 16,
                                .window_log2 = 11},
             1u << 16);
    kit.check_each = false;
    for (int64_t fed = 0; fed < RECORDS;) {
        int64_t count = batches ? 1 + (int64_t)random_below(BATCH_MAX) : 1;
        count = count < RECORDS - fed ? count : RECORDS - fed;
        CHECK_EQUAL(matcher_feed(kit.matcher, records + fed, matcher_position(kit.matcher), count), count);
        fed += count;
        fold(&outcome.reports, kit.reports, &kit.report_seen);
        fold(&outcome.events, kit.market, &kit.market_seen);
        int64_t live = matcher_order_count(kit.matcher, KIT_INSTRUMENT);
        outcome.live_max = live > outcome.live_max ? live : outcome.live_max;
    }
    kit_check(&kit);
    matcher_hash(kit.matcher, KIT_INSTRUMENT, outcome.hash);
    kit_free(&kit);
    return outcome;
}

int main(void)
{
    kit_t writer = {.next_id = 0};
    for (int64_t i = 0; i < RECORDS; i++)
        write_record(&writer, &records[i]);
    outcome_t alone = run(false);
    outcome_t together = run(true);
    CHECK(alone.live_max > COLD_ALL_LIVE); /* else nothing is proved */
    CHECK_EQUAL(together.hash[0], alone.hash[0]);
    CHECK_EQUAL(together.hash[1], alone.hash[1]);
    CHECK_EQUAL(together.reports, alone.reports);
    CHECK_EQUAL(together.events, alone.events);
    printf("matcher_ahead: %d records, %lld open at most, the same state in batches of any size\n", RECORDS,
           (long long)alone.live_max);
    return 0;
}
