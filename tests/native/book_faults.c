/* Every planted fault must be found: an engine compiled with BOOK_FAULTS, wrong in one rule at a time (scripts/build/CMakeLists.txt).
 * The fuzz test finds faults of plain orders; one scenario each, those of the rules its model does not have. */
#include "book_fuzz.h"
#include "engine/book.h"

#define COMMANDS 20000

enum book_fault book_fault = BOOK_FAULT_NONE;
static fuzz_t fuzz;

static uint64_t iceberg(kit_t *kit, uint8_t side, int64_t price, int64_t quantity, int64_t display)
{
    uint64_t id = ++kit->next_id;
    log_slot_t slot =
        kit_new_order_record(kit, id, (kit_order_t){.side = side, .price = price, .quantity = quantity});
    ((new_order_single_t *)slot.block)->display_qty = display;
    kit_send(kit, &slot);
    return id;
}

static uint64_t stop(kit_t *kit, uint8_t side, int64_t stop_price, int64_t protection)
{
    uint64_t id = ++kit->next_id;
    log_slot_t slot = kit_new_order_record(
        kit, id, (kit_order_t){.side = side, .price = protection, .quantity = 1, .account = 3, .ord_type = ORD_TYPE_STOP});
    ((new_order_single_t *)slot.block)->stop_px = stop_price;
    kit_send(kit, &slot);
    return id;
}

static void set_state(kit_t *kit, uint8_t state)
{
    log_slot_t slot = kit_record(kit, TEMPLATE_INSTRUMENT_STATE, 1);
    *(instrument_state_t *)slot.block = (instrument_state_t){.instrument_id = KIT_INSTRUMENT, .state = state};
    kit_send(kit, &slot);
}

/* The next slice of an iceberg stands behind who came before it was shown. */
static bool slices_queue_again(void)
{
    kit_t kit = kit_new();
    (void)iceberg(&kit, SIDE_SELL, 100, 5, 2);
    uint64_t later = kit_sell(&kit, 100, 3, 2);
    kit_buy(&kit, 100, 2, 3);
    bool right = kit_front(&kit, SIDE_SELL) == (int64_t)later;
    kit_free(&kit);
    return right;
}

static bool stops_fire_at_their_price(void)
{
    kit_t kit = kit_new();
    kit_sell(&kit, 104, 1, 1);
    (void)stop(&kit, SIDE_BUY, 105, 200);
    kit_skip(&kit);
    kit_buy(&kit, 104, 1, 2);
    bool right = true;
    for (; kit.report_seen < ring_published(kit.reports); kit.report_seen++) {
        const report_slot_t *slot = (const report_slot_t *)ring_slot(kit.reports, kit.report_seen);
        right &= slot->template_id != TEMPLATE_ORDER_TRIGGERED;
    }
    kit_free(&kit);
    return right;
}

/* Anything from 100 to 105 trades as much, with bids left over: the highest it is. */
static bool auctions_look_at_the_surplus(void)
{
    kit_t kit = kit_new();
    set_state(&kit, MARKET_STATE_AUCTION);
    kit_buy(&kit, 105, 5, 1);
    kit_sell(&kit, 100, 3, 2);
    kit_skip(&kit);
    set_state(&kit, MARKET_STATE_CONTINUOUS);
    int64_t price = 0;
    for (; kit.report_seen < ring_published(kit.reports); kit.report_seen++) {
        const report_slot_t *slot = (const report_slot_t *)ring_slot(kit.reports, kit.report_seen);
        if (slot->template_id == TEMPLATE_ORDER_EXECUTED)
            price = ((const order_executed_t *)slot->block)->last_px;
    }
    kit_free(&kit);
    return price == 105;
}

static const char *what_is_wrong(void)
{
    fuzz_run(&fuzz, 7, COMMANDS);
    if (fuzz.difference[0] != 0)
        return fuzz.difference;
    if (!slices_queue_again())
        return "a slice keeps its place";
    if (!stops_fire_at_their_price())
        return "a stop fires too early";
    return auctions_look_at_the_surplus() ? NULL : "the auction's price is another";
}

int main(void)
{
    for (int fault = BOOK_FAULT_NONE; fault < BOOK_FAULTS_COUNT; fault++) {
        book_fault = (enum book_fault)fault;
        const char *wrong = what_is_wrong();
        if ((wrong == NULL) != (fault == BOOK_FAULT_NONE)) {
            fprintf(stderr, "fault %d: %s\n", fault, wrong == NULL ? "not found" : wrong);
            return 1;
        }
        printf("fault %d: %s\n", fault, wrong == NULL ? "nothing found" : wrong);
    }
    return 0;
}
