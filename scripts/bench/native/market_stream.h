/* A stream of market-data slots as a matcher makes them, for tests and benches of the feed: random operations, or those of a
 * recorded stream file (OBSTRM01, see book_bench.c), put through the real matcher on private rings.
 *
 *     market_stream_t stream;
 *     market_stream_random(&stream, seed, operations, price range, orders aimed at);   or market_stream_load(&stream, path, operations)
 *     market_stream_start(&stream, instruments, mark_every, &ring);                    events appear in `ring`
 *     while (market_stream_step(&stream)) ...
 *
 * Every `mark_every` operations a hash mark makes the matcher publish BookDigest of all its books. */
#ifndef BULLRING_BENCH_MARKET_STREAM_H
#define BULLRING_BENCH_MARKET_STREAM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/matcher.h"
#include "marketdata.h"
#include "orders.h"
#include "ring.h"

#define STREAM_ACCOUNTS 64u
#define STREAM_REPORT_SLOTS 65536u
#define STREAM_INSTRUMENTS_MAX 64u

enum { STREAM_NEW, STREAM_IOC, STREAM_MARKET, STREAM_CANCEL, STREAM_REPLACE };

typedef struct stream_operation {
    uint8_t op, side;
    uint16_t flags;
    uint32_t quantity, id;
    int32_t price;
} stream_operation_t;

/* What the next operation on an order must know: the matcher's replaces name totals. */
typedef struct stream_order {
    int32_t price;
    uint32_t leaves, filled;
} stream_order_t;

typedef struct market_stream {
    stream_operation_t *operations;
    uint64_t count, ids, at;
    uint32_t instruments, mark_every;
    stream_order_t *orders;
    matcher_t *matcher;
    ring_t *market;
    ring_t reports;
    void *report_memory;
    int64_t seen;
} market_stream_t;

static inline uint64_t stream_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Formats `ring` on memory of its own, which the caller frees. */
static inline void *stream_ring(ring_t *ring, uint32_t slot_size, uint64_t slots, int64_t base)
{
    size_t size = (RING_HEADER_SIZE + slot_size * slots + 4095) / 4096 * 4096;
    void *memory = aligned_alloc(4096, size);
    INVARIANT(memory != NULL);
    memset(memory, 0, size);
    ring_format(memory, slot_size, slots, base, RING_MODE_PLAIN, 0);
    ring_attach(ring, memory, NULL);
    return memory;
}

/* 50 % new, 8 % immediate, 30 % cancels, 12 % replaces, around a price that wanders; cancels of orders that are gone are
 * answered by the matcher with a report and no event. */
static inline void market_stream_random(market_stream_t *stream, uint64_t seed, uint64_t count, int32_t width,
                                        uint32_t resting)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1, next_id = 1;
    int32_t middle = 1000000;
    memset(stream, 0, sizeof(*stream));
    stream->operations = (stream_operation_t *)calloc(count, sizeof(stream_operation_t));
    INVARIANT(stream->operations != NULL);
    for (uint64_t i = 0; i < count; i++) {
        stream_operation_t *operation = &stream->operations[i];
        uint64_t dice = stream_random(&state) % 100;
        middle += (int32_t)(stream_random(&state) % 3) - 1;
        operation->side = (uint8_t)(stream_random(&state) & 1);
        operation->quantity = 1 + (uint32_t)(stream_random(&state) % 100);
        int32_t away = (int32_t)(stream_random(&state) % (uint64_t)width) - width / 16;
        operation->price = operation->side == 0 ? middle - away : middle + away;
        operation->op = dice < 50 ? STREAM_NEW : dice < 56 ? STREAM_IOC : dice < 58 ? STREAM_MARKET : dice < 88 ? STREAM_CANCEL : STREAM_REPLACE;
        uint64_t back = 1 + stream_random(&state) % resting;
        bool old = operation->op >= STREAM_CANCEL && back < next_id;
        if (operation->op >= STREAM_CANCEL && !old)
            operation->op = STREAM_NEW;
        operation->id = (uint32_t)(old ? next_id - back : next_id++);
        if (operation->op == STREAM_MARKET)
            operation->price = operation->side == 0 ? INT32_MAX : 1;
    }
    stream->count = count;
    stream->ids = next_id;
}

/* False = the file is not there or no such stream. */
static inline bool market_stream_load(market_stream_t *stream, const char *path, uint64_t operations_max)
{
    struct {
        char magic[8];
        uint64_t operations, ids;
        uint8_t rest[40];
    } header;
    memset(stream, 0, sizeof(*stream));
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return false;
    bool good = fread(&header, sizeof(header), 1, file) == 1 && memcmp(header.magic, "OBSTRM01", 8) == 0;
    if (good) {
        stream->count = header.operations < operations_max ? header.operations : operations_max;
        stream->ids = header.ids;
        stream->operations = (stream_operation_t *)malloc(stream->count * sizeof(stream_operation_t));
        good = stream->operations != NULL &&
               fread(stream->operations, sizeof(stream_operation_t), stream->count, file) == stream->count;
    }
    fclose(file);
    return good;
}

static inline void stream_feed(market_stream_t *stream, const log_slot_t *slots, int64_t count)
{
    int64_t done = matcher_feed(stream->matcher, slots, matcher_position(stream->matcher), count);
    INVARIANT(done == count);
    INVARIANT(matcher_idle(stream->matcher));
}

/* Events go into `market`, which must hold those of one operation. Instrument ids are 1 to `instruments`. */
static inline void market_stream_start(market_stream_t *stream, uint32_t instruments, uint32_t mark_every, ring_t *market)
{
    uint32_t orders = 1024;
    while (orders < stream->ids)
        orders *= 2;
    matcher_config_t config = {.orders_max = orders, .instruments_max = (uint16_t)instruments,
                               .accounts_max = STREAM_ACCOUNTS, .sessions_max = STREAM_ACCOUNTS, .partition = 1};
    INVARIANT(instruments >= 1 && instruments <= STREAM_INSTRUMENTS_MAX);
    stream->instruments = instruments;
    stream->mark_every = mark_every;
    stream->market = market;
    stream->orders = (stream_order_t *)calloc(stream->ids + 1, sizeof(stream_order_t));
    stream->report_memory = stream_ring(&stream->reports, sizeof(report_slot_t), STREAM_REPORT_SLOTS, 0);
    stream->matcher = matcher_new(&config);
    INVARIANT(stream->orders != NULL && stream->matcher != NULL);
    matcher_attach(stream->matcher, NULL, &stream->reports, market);
    stream->seen = ring_published(market);
    for (uint32_t i = 1; i <= instruments; i++) {
        log_slot_t slot = {.template_id = TEMPLATE_INSTRUMENT_ADD, .partition = PARTITION_ALL, .ts_ns = i};
        *(instrument_add_t *)slot.block =
            (instrument_add_t){.instrument_id = i, .assigned_partition = 1, .quote_per_tick_lot = 1,
                               .base_per_lot = 1000, .base_asset_id = 1, .quote_asset_id = 2};
        stream_feed(stream, &slot, 1);
    }
}

static inline void market_stream_free(market_stream_t *stream)
{
    matcher_free(stream->matcher);
    free(stream->report_memory);
    free(stream->orders);
    free(stream->operations);
}

static inline uint32_t stream_instrument(const market_stream_t *stream, uint32_t id)
{
    return 1 + id % stream->instruments;
}

static inline void stream_new(const market_stream_t *stream, const stream_operation_t *operation, log_slot_t *slot)
{
    bool immediate = operation->op == STREAM_IOC || operation->op == STREAM_MARKET;
    slot->template_id = TEMPLATE_NEW_ORDER_SINGLE;
    slot->aux = operation->id;
    *(new_order_single_t *)slot->block = (new_order_single_t){
        .cl_ord_id = stream->at, .price = operation->price, .order_qty = operation->quantity,
        .display_qty = QTY_OPT_NULL, .stop_px = PX_OPT_NULL, .expire_time = TIME_SEC_OPT_NULL,
        .instrument_id = stream_instrument(stream, operation->id), .account_id = slot->session,
        .side = operation->side == 0 ? SIDE_BUY : SIDE_SELL,
        .ord_type = operation->op == STREAM_MARKET ? ORD_TYPE_MARKET : ORD_TYPE_LIMIT,
        .time_in_force = immediate ? TIME_IN_FORCE_IOC : TIME_IN_FORCE_GTC};
}

static inline void stream_cancel(const market_stream_t *stream, const stream_operation_t *operation, log_slot_t *slot)
{
    slot->template_id = TEMPLATE_ORDER_CANCEL_REQUEST;
    *(order_cancel_request_t *)slot->block = (order_cancel_request_t){
        .cl_ord_id = stream->at, .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = operation->id,
        .instrument_id = stream_instrument(stream, operation->id), .account_id = slot->session};
}

static inline void stream_replace(const market_stream_t *stream, const stream_operation_t *operation, log_slot_t *slot)
{
    slot->template_id = TEMPLATE_ORDER_REPLACE_REQUEST;
    *(order_replace_request_t *)slot->block = (order_replace_request_t){
        .cl_ord_id = stream->at, .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = operation->id,
        .price = operation->price, .order_qty = operation->quantity + stream->orders[operation->id].filled,
        .display_qty = QTY_OPT_NULL, .instrument_id = stream_instrument(stream, operation->id),
        .account_id = slot->session};
}

/* Note what the operation did to orders that later operations name. */
static inline void stream_follow(market_stream_t *stream, const stream_operation_t *operation)
{
    stream_order_t *own = &stream->orders[operation->id];
    int64_t end = ring_published(stream->market);
    if (operation->op == STREAM_NEW || (operation->op == STREAM_REPLACE && own->leaves > 0)) {
        own->price = operation->price;
        own->leaves = operation->quantity;
    } else if (operation->op == STREAM_CANCEL) {
        own->leaves = 0;
    }
    INVARIANT(end - stream->seen <= ring_capacity(stream->market) / 2);
    for (; stream->seen < end; stream->seen++) {
        const market_slot_t *slot = (const market_slot_t *)ring_slot(stream->market, stream->seen);
        if (slot->template_id != TEMPLATE_ORDER_EXECUTE)
            continue;
        const order_execute_t *event = (const order_execute_t *)slot->block;
        stream->orders[event->order_id].leaves -= (uint32_t)event->last_qty;
        stream->orders[event->order_id].filled += (uint32_t)event->last_qty;
        own->leaves -= own->leaves > 0 ? (uint32_t)event->last_qty : 0;
        own->filled += (uint32_t)event->last_qty;
    }
}

static inline void market_stream_mark(market_stream_t *stream)
{
    log_slot_t slot = {.template_id = TEMPLATE_HASH_MARK, .partition = PARTITION_ALL, .ts_ns = stream->at * 100 + 60};
    stream_feed(stream, &slot, 1);
}

/* One operation; false = that was the last. A replace to less at the same price would keep its place in the matcher: it becomes a
 * cancel and a new order of the same id, as the streams mean it. */
static inline bool market_stream_step(market_stream_t *stream)
{
    log_slot_t slots[2] = {0};
    if (stream->at == stream->count)
        return false;
    const stream_operation_t *operation = &stream->operations[stream->at];
    const stream_order_t *order = &stream->orders[operation->id];
    bool split = operation->op == STREAM_REPLACE && operation->price == order->price && operation->quantity <= order->leaves;
    for (int i = 0; i < 2; i++) {
        slots[i].session = 1 + operation->id % STREAM_ACCOUNTS;
        slots[i].partition = 1;
        slots[i].ts_ns = stream->at * 100 + 50;
    }
    if (operation->op == STREAM_CANCEL || split)
        stream_cancel(stream, operation, &slots[0]);
    if (operation->op == STREAM_REPLACE && !split)
        stream_replace(stream, operation, &slots[0]);
    else if (operation->op != STREAM_CANCEL)
        stream_new(stream, operation, &slots[split]);
    stream_feed(stream, slots, split ? 2 : 1);
    if (split)
        stream->orders[operation->id].filled = 0;
    stream_follow(stream, operation);
    stream->at++;
    if (stream->mark_every > 0 && stream->at % stream->mark_every == 0)
        market_stream_mark(stream);
    return true;
}

#endif
