/* Builders for the matcher's native tests: a matcher on private rings, records, and what came out. */
#ifndef BULLRING_TESTS_MATCHER_KIT_H
#define BULLRING_TESTS_MATCHER_KIT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/matcher.h"
#include "marketdata.h"
#include "orders.h"

#define KIT_INSTRUMENT 1
#define KIT_PARTITION 1
#define KIT_BASE_ASSET 1
#define KIT_QUOTE_ASSET 2

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

#define CHECK_EQUAL(found, expected)                                                                              \
    do {                                                                                                          \
        long long found_ = (long long)(found), expected_ = (long long)(expected);                                 \
        if (found_ != expected_) {                                                                                \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #found, found_, expected_);      \
            exit(1);                                                                                              \
        }                                                                                                         \
    } while (0)

typedef struct kit {
    matcher_t *matcher;
    ring_t *reports;
    ring_t *market;
    void *report_memory;
    void *market_memory;
    int64_t report_seen; /* next to look at */
    int64_t market_seen;
    uint64_t next_id;
    uint64_t seq_num;
    bool check_each; /* book_check after every record */
} kit_t;

static inline void *kit_ring(ring_t *ring, uint32_t slot_size, uint64_t slots)
{
    size_t size = RING_HEADER_SIZE + slot_size * slots;
    void *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    CHECK(memory != NULL);
    memset(memory, 0, size);
    ring_format(memory, slot_size, slots, 0, RING_MODE_PLAIN, 0);
    ring_attach(ring, memory, NULL);
    return memory;
}

static inline void kit_check(const kit_t *kit)
{
    const char *broken = matcher_check(kit->matcher);
    if (broken != NULL) {
        fprintf(stderr, "book_check: %s\n", broken);
        exit(1);
    }
}

static inline log_slot_t kit_record(kit_t *kit, uint16_t template_id, uint32_t session)
{
    log_slot_t slot;
    memset(&slot, 0, sizeof(slot));
    slot.session = session;
    slot.source = 1; /* of a gateway; 0 = the sequencer's own */
    slot.template_id = template_id;
    slot.partition = KIT_PARTITION;
    slot.seq_num = ++kit->seq_num;
    slot.ts_ns = 1000 + kit->seq_num;
    return slot;
}

/* Feed one record to its end. */
static inline void kit_send(kit_t *kit, const log_slot_t *slot)
{
    CHECK_EQUAL(matcher_feed(kit->matcher, slot, matcher_position(kit->matcher), 1), 1);
    CHECK(matcher_idle(kit->matcher));
    if (kit->check_each)
        kit_check(kit);
}

static inline void kit_add_instrument(kit_t *kit, uint32_t instrument)
{
    log_slot_t slot = kit_record(kit, TEMPLATE_INSTRUMENT_ADD, 1);
    instrument_add_t *block = (instrument_add_t *)slot.block;
    slot.partition = PARTITION_ALL;
    block->instrument_id = instrument;
    block->assigned_partition = KIT_PARTITION;
    block->base_asset_id = KIT_BASE_ASSET;
    block->quote_asset_id = KIT_QUOTE_ASSET;
    block->quote_per_tick_lot = 10;
    block->base_per_lot = 1000;
    kit_send(kit, &slot);
}

static inline void kit_open(kit_t *kit, matcher_config_t config, uint64_t report_slots)
{
    memset(kit, 0, sizeof(*kit));
    kit->check_each = true;
    config.partition = KIT_PARTITION;
    kit->matcher = matcher_new(&config);
    CHECK(kit->matcher != NULL);
    /* The matcher keeps their addresses, and kits are returned by value. */
    kit->reports = calloc(1, sizeof(ring_t));
    kit->market = calloc(1, sizeof(ring_t));
    CHECK(kit->reports != NULL && kit->market != NULL);
    kit->report_memory = kit_ring(kit->reports, sizeof(report_slot_t), report_slots);
    kit->market_memory = kit_ring(kit->market, sizeof(market_slot_t), 4096);
    matcher_attach(kit->matcher, NULL, kit->reports, kit->market);
    kit_add_instrument(kit, KIT_INSTRUMENT);
}

static inline kit_t kit_new(void)
{
    kit_t kit;
    kit_open(&kit,
             (matcher_config_t){.orders_max = 1024, .instruments_max = 4, .accounts_max = 16, .sessions_max = 16,
                                .window_log2 = 8},
             4096);
    return kit;
}

static inline void kit_free(kit_t *kit)
{
    matcher_free(kit->matcher);
    free(kit->reports);
    free(kit->market);
    free(kit->report_memory);
    free(kit->market_memory);
}

/* ---- records ---- */

typedef struct kit_order {
    uint8_t side;
    int64_t price;
    int64_t quantity;
    uint32_t account; /* 0 = 1; the session is the same number */
    uint8_t ord_type; /* 0 = limit */
    uint8_t time_in_force; /* 0 = GTC */
    uint8_t stp_mode;
    uint32_t stp_group;
    uint32_t exec_inst;
    uint64_t cl_ord_id;
    uint32_t instrument; /* 0 = the first */
    uint8_t tier;
    uint32_t session; /* 0 = as account */
} kit_order_t;

static inline log_slot_t kit_new_order_record(kit_t *kit, uint64_t id, kit_order_t terms)
{
    uint32_t account = terms.account != 0 ? terms.account : 1;
    log_slot_t slot = kit_record(kit, TEMPLATE_NEW_ORDER_SINGLE, terms.session != 0 ? terms.session : account);
    new_order_single_t *block = (new_order_single_t *)slot.block;
    slot.aux = id;
    slot.flags = (uint16_t)(terms.tier << SLOT_TIER_SHIFT);
    block->cl_ord_id = terms.cl_ord_id;
    block->price = terms.price;
    block->order_qty = terms.quantity;
    block->display_qty = QTY_OPT_NULL;
    block->stop_px = PX_OPT_NULL;
    block->client_tag = id + 7000;
    block->instrument_id = terms.instrument != 0 ? terms.instrument : KIT_INSTRUMENT;
    block->account_id = account;
    block->exec_inst = terms.exec_inst;
    block->stp_group_id = terms.stp_group;
    block->side = terms.side;
    block->ord_type = terms.ord_type != 0 ? terms.ord_type : ORD_TYPE_LIMIT;
    /* As the sequencer has it: a market order never rests. */
    uint8_t usual = terms.ord_type == ORD_TYPE_MARKET ? TIME_IN_FORCE_IOC : TIME_IN_FORCE_GTC;
    block->time_in_force = terms.time_in_force != 0 ? terms.time_in_force : usual;
    block->stp_mode = terms.stp_mode;
    return slot;
}

static inline uint64_t kit_order(kit_t *kit, kit_order_t terms)
{
    uint64_t id = ++kit->next_id;
    log_slot_t slot = kit_new_order_record(kit, id, terms);
    kit_send(kit, &slot);
    return id;
}

static inline uint64_t kit_buy(kit_t *kit, int64_t price, int64_t quantity, uint32_t account)
{
    return kit_order(kit, (kit_order_t){.side = SIDE_BUY, .price = price, .quantity = quantity, .account = account});
}

static inline uint64_t kit_sell(kit_t *kit, int64_t price, int64_t quantity, uint32_t account)
{
    return kit_order(kit, (kit_order_t){.side = SIDE_SELL, .price = price, .quantity = quantity, .account = account});
}

static inline log_slot_t kit_cancel_record(kit_t *kit, uint64_t id, uint32_t account)
{
    log_slot_t slot = kit_record(kit, TEMPLATE_ORDER_CANCEL_REQUEST, account);
    order_cancel_request_t *block = (order_cancel_request_t *)slot.block;
    block->cl_ord_id = id + 5000;
    block->orig_cl_ord_id = ORDER_ID_OPT_NULL;
    block->order_id = id;
    block->client_tag = 99;
    block->instrument_id = KIT_INSTRUMENT;
    block->account_id = account;
    return slot;
}

static inline void kit_cancel(kit_t *kit, uint64_t id, uint32_t account)
{
    log_slot_t slot = kit_cancel_record(kit, id, account);
    kit_send(kit, &slot);
}

static inline log_slot_t kit_replace_record(kit_t *kit, uint64_t id, uint32_t account, int64_t price, int64_t total)
{
    log_slot_t slot = kit_record(kit, TEMPLATE_ORDER_REPLACE_REQUEST, account);
    order_replace_request_t *block = (order_replace_request_t *)slot.block;
    block->orig_cl_ord_id = ORDER_ID_OPT_NULL;
    block->order_id = id;
    block->price = price;
    block->order_qty = total;
    block->display_qty = QTY_OPT_NULL;
    block->instrument_id = KIT_INSTRUMENT;
    block->account_id = account;
    return slot;
}

static inline void kit_replace(kit_t *kit, uint64_t id, uint32_t account, int64_t price, int64_t total)
{
    log_slot_t slot = kit_replace_record(kit, id, account, price, total);
    kit_send(kit, &slot);
}

/* ---- what came out ---- */

/* The next report; dies unless it has the template. */
static inline const void *kit_report(kit_t *kit, uint16_t template_id)
{
    CHECK(kit->report_seen < ring_published(kit->reports));
    const report_slot_t *slot = (const report_slot_t *)ring_slot(kit->reports, kit->report_seen++);
    CHECK_EQUAL(slot->template_id, template_id);
    return slot->block;
}

static inline const report_slot_t *kit_report_slot(const void *block)
{
    return (const report_slot_t *)((const uint8_t *)block - offsetof(report_slot_t, block));
}

static inline const void *kit_event(kit_t *kit, uint16_t template_id)
{
    CHECK(kit->market_seen < ring_published(kit->market));
    const market_slot_t *slot = (const market_slot_t *)ring_slot(kit->market, kit->market_seen++);
    CHECK_EQUAL(slot->template_id, template_id);
    return slot->block;
}

/* Forget what came out so far. */
static inline void kit_skip(kit_t *kit)
{
    kit->report_seen = ring_published(kit->reports);
    kit->market_seen = ring_published(kit->market);
}

static inline void kit_nothing_more(kit_t *kit)
{
    CHECK_EQUAL(kit->report_seen, ring_published(kit->reports));
    CHECK_EQUAL(kit->market_seen, ring_published(kit->market));
}

static inline int64_t kit_front(const kit_t *kit, uint8_t side)
{
    matcher_order_t order;
    return matcher_orders(kit->matcher, KIT_INSTRUMENT, side, &order, 1) == 1 ? (int64_t)order.order_id : 0;
}

#endif
