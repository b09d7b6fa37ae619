/* book_bench STREAM [rounds] [capacity] [chunk]: the matcher against a plain array book, same stream, same rounds. The array runs
 * three times a round: bare, writing events, and writing events and reading the matcher's records.
 * STREAM: a file (book_stream.h), `resting:N` or `sweep:MAKERS:LEVELS`.
 *
 * The matcher gets the operations as log records, `chunk` at a time written into memory before the clock starts, as they lie in the
 * log ring in the live system, with the order ids the sequencer would give out for `capacity` slots (0 = the smallest power of two
 * that holds twice the most orders open at once).
 *
 * Built twice: as it stands, and as book_bench_alone with MATCHER_REPORTS=0, which leaves out the private reports: then it is the
 * book alone, with everything of the engine that the array does not have (any price, side entries, triggers, self-trade checks,
 * account lists, 64-byte market events, digest, invariants). One JSON line; exit code 1 if the sums are wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "book_stream.h"
#include "engine/matcher.h"
#include "engine/matcher_state.h"

#define CHUNK_DEFAULT 1024
#define CLOCK_SAMPLES 1001
#define CHUNK_MAX 4096
#define ROUNDS_DEFAULT 7
#define ROUNDS_MAX 101
#define MARKET_SLOTS ARRAY_EVENT_SLOTS /* as many as the array writes to: the same lines in the cache */
#define MARKET_SLOTS_SWEEP (1u << 15)  /* one operation's events are counted after it, and none may be overwritten */
#define REPORT_SLOTS (1u << 12)
#define ACCOUNTS 64
#define WINDOW_LOG2 18
#define RECORDS_PER_OPERATION_MAX 2
#define SWEEP_MAKERS_MAX (MARKET_SLOTS_SWEEP / 2)

/* What the records need and the stream does not say. */
typedef struct plan {
    uint64_t *order_ids; /* by operation */
    uint32_t *totals;    /* of replaces: quantity wanted plus what was filled before; 0 = a cancel and a new order */
    uint32_t capacity;
} plan_t;

typedef struct bench {
    stream_t stream;
    plan_t plan;
    int64_t chunk;
    uint64_t market_slots;
} bench_t;

/* Of a round of the matcher. */
typedef struct outcome {
    array_sums_t sums;     /* events: of the timed operations */
    uint64_t reports;      /* likewise */
    uint64_t bytes_in_use; /* resident memory of the arena at the end */
} outcome_t;

/* Time of this thread alone: other work on the machine still disturbs its caches, but takes nothing from its account. */
static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof(double), compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* What an interval in which nothing happens takes: half a microsecond, for the clock is a system call. The array's round is one
 * interval, the matcher's one a chunk, so it is taken off there. */
static double clock_cost_ns(void)
{
    static double samples[CLOCK_SAMPLES];
    for (int i = 0; i < CLOCK_SAMPLES; i++) {
        uint64_t began = now_ns();
        samples[i] = (double)(now_ns() - began);
    }
    return median(samples, CLOCK_SAMPLES);
}

/* Touched: the clock does not count page faults. */
static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    INVARIANT(memory != MAP_FAILED);
    (void)madvise(memory, size, MADV_HUGEPAGE);
    memset(memory, 0, size);
    return memory;
}

/* ---- the array ---------------------------------------------------------------------------------------------------------- */

ARRAY_INLINE void array_run(const bench_t *bench, uint64_t from, uint64_t to, array_book_t *book, bool events)
{
    for (uint64_t i = from; i < to; i++) {
        const operation_t *operation = &bench->stream.operations[i];
        switch (operation->op) {
        case OP_NEW:
            array_place(book, operation->id, operation->side, operation->quantity, operation->price, events, NULL, NULL);
            break;
        case OP_IOC:
        case OP_MARKET:
            (void)array_match(book, operation->side, operation->quantity, operation->price, events, NULL, NULL);
            break;
        case OP_CANCEL:
            array_cancel(book, operation->id, events);
            break;
        default:
            array_replace(book, operation->id, operation->quantity, operation->price, events, NULL, NULL);
            break;
        }
    }
}

static double array_round(const bench_t *bench, bool events, array_sums_t *sums)
{
    array_book_t book;
    size_t size = array_size(bench->stream.header.ids);
    uint8_t *memory = map(size);
    array_open(&book, memory);
    uint64_t from = bench->stream.timed_from;
    uint64_t to = bench->stream.header.operations;
    array_run(bench, 0, from, &book, false);
    uint64_t began = now_ns();
    if (events)
        array_run(bench, from, to, &book, true);
    else
        array_run(bench, from, to, &book, false);
    uint64_t took = now_ns() - began;
    *sums = book.sums;
    munmap(memory, size);
    return (double)took / (double)(to - from);
}

/* ---- the plan: what the sequencer would have said ------------------------------------------------------------------------ */

typedef struct planner {
    array_book_t book;
    uint64_t *order_id; /* by stream id */
    uint32_t *total;    /* of the order under its present id */
    uint8_t *used;      /* by slot */
    uint64_t next_id;
    uint32_t mask;
    uint32_t open, open_max;
} planner_t;

static void ended(void *context, uint32_t id)
{
    planner_t *planner = context;
    planner->used[planner->order_id[id] & planner->mask] = 0;
    planner->open--;
}

static void new_id(planner_t *planner, uint32_t id)
{
    while (planner->used[planner->next_id & planner->mask])
        planner->next_id++;
    planner->order_id[id] = planner->next_id++;
}

static void placed(planner_t *planner, uint32_t id)
{
    if (planner->book.orders[id].quantity == 0)
        return;
    planner->used[planner->order_id[id] & planner->mask] = 1;
    if (++planner->open > planner->open_max)
        planner->open_max = planner->open;
}

/* A replace to less at the same price keeps its priority in the matcher and loses it in the stream: then it is a cancel and a
 * new order in the same slot. */
static void plan_replace(planner_t *planner, const operation_t *operation, uint32_t *total)
{
    array_order_t *order = &planner->book.orders[operation->id];
    bool split = operation->price == order->price && operation->quantity <= order->quantity;
    uint32_t filled = planner->total[operation->id] - order->quantity;
    *total = split ? 0 : operation->quantity + filled;
    ended(planner, operation->id);
    planner->total[operation->id] = split ? operation->quantity : *total;
    array_replace(&planner->book, operation->id, operation->quantity, operation->price, false, ended, planner);
    placed(planner, operation->id);
}

static void plan_operation(planner_t *planner, const operation_t *operation, uint32_t *total)
{
    switch (operation->op) {
    case OP_NEW:
        new_id(planner, operation->id);
        planner->total[operation->id] = operation->quantity;
        array_place(&planner->book, operation->id, operation->side, operation->quantity, operation->price, false, ended,
                    planner);
        placed(planner, operation->id);
        break;
    case OP_IOC:
    case OP_MARKET:
        new_id(planner, operation->id);
        (void)array_match(&planner->book, operation->side, operation->quantity, operation->price, false, ended, planner);
        break;
    case OP_CANCEL:
        array_cancel(&planner->book, operation->id, false);
        ended(planner, operation->id);
        break;
    default:
        plan_replace(planner, operation, total);
        break;
    }
}

/* Returns the most orders open at once. */
static uint32_t make_plan(bench_t *bench, uint32_t capacity)
{
    planner_t planner = {.mask = capacity - 1, .next_id = 1};
    size_t size = array_size(bench->stream.header.ids);
    uint8_t *memory = map(size);
    array_open(&planner.book, memory);
    planner.order_id = calloc(bench->stream.header.ids, sizeof(uint64_t));
    planner.total = calloc(bench->stream.header.ids, sizeof(uint32_t));
    planner.used = calloc(capacity, 1);
    INVARIANT(planner.order_id != NULL && planner.total != NULL && planner.used != NULL);
    bench->plan.capacity = capacity;
    for (uint64_t i = 0; i < bench->stream.header.operations; i++) {
        plan_operation(&planner, &bench->stream.operations[i], &bench->plan.totals[i]);
        bench->plan.order_ids[i] = planner.order_id[bench->stream.operations[i].id];
        INVARIANT(planner.open < capacity);
    }
    munmap(memory, size);
    free(planner.order_id);
    free(planner.total);
    free(planner.used);
    return planner.open_max;
}

/* ---- records -------------------------------------------------------------------------------------------------------------- */

static void write_cancel(uint64_t order_id, uint32_t account, uint64_t at, log_slot_t *slot)
{
    order_cancel_request_t *block = (order_cancel_request_t *)slot->block;
    slot->template_id = TEMPLATE_ORDER_CANCEL_REQUEST;
    *block = (order_cancel_request_t){.cl_ord_id = at, .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = order_id,
                                      .instrument_id = 1, .account_id = account};
}

static void write_replace(const operation_t *operation, uint64_t order_id, uint32_t account, uint64_t at, uint32_t total,
                          log_slot_t *slot)
{
    order_replace_request_t *block = (order_replace_request_t *)slot->block;
    slot->template_id = TEMPLATE_ORDER_REPLACE_REQUEST;
    *block = (order_replace_request_t){.cl_ord_id = at, .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = order_id,
                                       .price = operation->price, .order_qty = total, .display_qty = QTY_OPT_NULL,
                                       .client_tag = operation->quantity, .instrument_id = 1, .account_id = account};
}

static void write_new(const operation_t *operation, uint64_t order_id, uint32_t account, uint64_t at, log_slot_t *slot)
{
    new_order_single_t *block = (new_order_single_t *)slot->block;
    bool immediate = operation->op == OP_IOC || operation->op == OP_MARKET;
    slot->template_id = TEMPLATE_NEW_ORDER_SINGLE;
    slot->aux = order_id;
    *block = (new_order_single_t){.cl_ord_id = at, .price = operation->price, .order_qty = operation->quantity,
                                  .display_qty = QTY_OPT_NULL, .stop_px = PX_OPT_NULL, .expire_time = U32_NULL,
                                  .instrument_id = 1, .account_id = account,
                                  .side = operation->side == 0 ? SIDE_BUY : SIDE_SELL,
                                  .ord_type = operation->op == OP_MARKET ? ORD_TYPE_MARKET : ORD_TYPE_LIMIT,
                                  .time_in_force = immediate ? TIME_IN_FORCE_IOC : TIME_IN_FORCE_GTC};
}

/* One operation as one record, or two; returns how many. */
static int64_t write_records(const bench_t *bench, uint64_t at, log_slot_t *slots)
{
    const operation_t *operation = &bench->stream.operations[at];
    uint64_t order_id = bench->plan.order_ids[at];
    uint32_t account = 1 + operation->id % ACCOUNTS;
    bool split = operation->op == OP_REPLACE && bench->plan.totals[at] == 0;
    int64_t count = split ? 2 : 1;
    memset(slots, 0, (size_t)count * sizeof(log_slot_t));
    for (int64_t i = 0; i < count; i++) {
        slots[i].session = account;
        slots[i].partition = 1;
        slots[i].seq_num = at;
        slots[i].ingress_ns = at * 100;
        slots[i].ts_ns = at * 100 + 50;
    }
    if (operation->op == OP_CANCEL || split)
        write_cancel(order_id, account, at, &slots[0]);
    if (operation->op == OP_REPLACE && !split)
        write_replace(operation, order_id, account, at, bench->plan.totals[at], &slots[0]);
    else if (operation->op != OP_CANCEL)
        write_new(operation, order_id, account, at, &slots[count - 1]);
    return count;
}

/* Operations of the chunk that begins at `at`: none holds operations from before the clock starts and from after. */
static int64_t chunk_length(const bench_t *bench, uint64_t at)
{
    uint64_t end = at < bench->stream.timed_from ? bench->stream.timed_from : bench->stream.header.operations;
    return end - at < (uint64_t)bench->chunk ? (int64_t)(end - at) : bench->chunk;
}

static int64_t write_chunk(const bench_t *bench, uint64_t at, int64_t count, log_slot_t *slots)
{
    int64_t records = 0;
    for (int64_t i = 0; i < count; i++)
        records += write_records(bench, at + (uint64_t)i, &slots[records]);
    return records;
}

/* ---- the array, from records ------------------------------------------------------------------------------------------------ */

/* The array fed as the matcher is: the same records, chunk by chunk, ids made slots by the same mask, an event an output. What it
 * costs more than the array above is transport, not matching. Quantities to be open after a replace stand in clientTag, for it
 * keeps no count of what was filled. */
ARRAY_INLINE void array_take(array_book_t *book, const log_slot_t *slot, uint32_t mask)
{
    const new_order_single_t *new_order = (const new_order_single_t *)slot->block;
    const order_cancel_request_t *cancel = (const order_cancel_request_t *)slot->block;
    const order_replace_request_t *replace = (const order_replace_request_t *)slot->block;
    uint32_t side = (uint32_t)new_order->side - SIDE_BUY;
    switch (slot->template_id) {
    case TEMPLATE_NEW_ORDER_SINGLE:
        if (new_order->time_in_force == TIME_IN_FORCE_IOC)
            (void)array_match(book, side, (uint32_t)new_order->order_qty, (int32_t)new_order->price, true, NULL, NULL);
        else
            array_place(book, ((uint32_t)slot->aux & mask) + 1, side, (uint32_t)new_order->order_qty, (int32_t)new_order->price,
                        true, NULL, NULL);
        break;
    case TEMPLATE_ORDER_CANCEL_REQUEST:
        array_cancel(book, ((uint32_t)cancel->order_id & mask) + 1, true);
        break;
    default:
        array_replace(book, ((uint32_t)replace->order_id & mask) + 1, (uint32_t)replace->client_tag, (int32_t)replace->price,
                      true, NULL, NULL);
        break;
    }
}

static double array_records_round(const bench_t *bench, array_sums_t *sums)
{
    array_book_t book;
    size_t size = array_size((uint64_t)bench->plan.capacity + 1);
    size_t slots_size = (size_t)bench->chunk * RECORDS_PER_OPERATION_MAX * sizeof(log_slot_t);
    uint8_t *memory = map(size);
    log_slot_t *slots = map(slots_size);
    const double clock_cost = clock_cost_ns();
    double took = 0;
    array_open(&book, memory);
    for (uint64_t at = 0; at < bench->stream.header.operations;) {
        int64_t count = chunk_length(bench, at);
        int64_t records = write_chunk(bench, at, count, slots);
        uint64_t began = now_ns();
        for (int64_t i = 0; i < records; i++)
            array_take(&book, &slots[i], bench->plan.capacity - 1);
        if (at >= bench->stream.timed_from)
            took += (double)(now_ns() - began) - clock_cost;
        at += (uint64_t)count;
    }
    *sums = book.sums;
    munmap(memory, size);
    munmap(slots, slots_size);
    return took / (double)(bench->stream.header.operations - bench->stream.timed_from);
}

/* ---- the matcher's rounds ---------------------------------------------------------------------------------------------------- */

static matcher_t *open_matcher(const bench_t *bench, ring_t *reports, ring_t *market)
{
    matcher_config_t config = {.orders_max = bench->plan.capacity, .instruments_max = 1, .accounts_max = ACCOUNTS,
                               .sessions_max = ACCOUNTS, .window_log2 = WINDOW_LOG2, .partition = 1};
    matcher_t *matcher = matcher_new(&config);
    INVARIANT(matcher != NULL);
    matcher_attach(matcher, NULL, reports, market);
    log_slot_t slots[2];
    memset(slots, 0, sizeof(slots));
    slots[0].template_id = TEMPLATE_INSTRUMENT_ADD;
    slots[1].template_id = TEMPLATE_FEE_TIER_SET;
    slots[0].partition = slots[1].partition = PARTITION_ALL;
    *(instrument_add_t *)slots[0].block = (instrument_add_t){.instrument_id = 1, .assigned_partition = 1,
                                                             .quote_per_tick_lot = 1, .base_per_lot = 1000,
                                                             .base_asset_id = 1, .quote_asset_id = 2};
    *(fee_tier_set_t *)slots[1].block = (fee_tier_set_t){.maker_rate = 100, .taker_rate = 200};
    INVARIANT(matcher_feed(matcher, slots, 0, 2) == 2);
    matcher_prefault(matcher);
    return matcher;
}

static void add_events(const ring_t *market, int64_t from, int64_t to, array_sums_t *sums)
{
    INVARIANT(to - from <= ring_capacity(market)); /* none of the chunk's events overwritten: a smaller chunk helps */
    sums->events += (uint64_t)(to - from);
    for (int64_t i = from; i < to; i++) {
        const market_slot_t *slot = (const market_slot_t *)ring_slot(market, i);
        if (slot->template_id != TEMPLATE_ORDER_EXECUTE)
            continue;
        const order_execute_t *event = (const order_execute_t *)slot->block;
        sums->fills++;
        sums->quantity += (uint64_t)event->last_qty;
        sums->notional += (uint64_t)event->last_px * (uint64_t)event->last_qty;
    }
}

static void *new_ring(ring_t *ring, uint32_t slot_size, uint64_t slots)
{
    void *memory = map(RING_HEADER_SIZE + slot_size * slots);
    ring_format(memory, slot_size, slots, 0, RING_MODE_PLAIN, 0);
    ring_attach(ring, memory, NULL);
    return memory;
}

static uint64_t resident_bytes(const matcher_t *matcher)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t pages = matcher->arena_size / page;
    uint64_t resident = 0;
    unsigned char *in_core = stream_memory(pages, 1);
    INVARIANT(mincore(matcher->arena, matcher->arena_size, in_core) == 0);
    for (uint64_t i = 0; i < pages; i++)
        resident += in_core[i] & 1;
    free(in_core);
    return resident * page;
}

static double matcher_round(const bench_t *bench, outcome_t *outcome)
{
    static ring_t reports, market;
    void *report_memory = new_ring(&reports, sizeof(report_slot_t), REPORT_SLOTS);
    void *market_memory = new_ring(&market, sizeof(market_slot_t), bench->market_slots);
    log_slot_t *slots = map((size_t)bench->chunk * RECORDS_PER_OPERATION_MAX * sizeof(log_slot_t));
    matcher_t *matcher = open_matcher(bench, &reports, &market);
    const double clock_cost = clock_cost_ns();
    double took = 0;
    int64_t reports_before = 0;
    *outcome = (outcome_t){.reports = 0};
    for (uint64_t at = 0; at < bench->stream.header.operations;) {
        int64_t count = chunk_length(bench, at);
        if (at == bench->stream.timed_from) {
            outcome->sums.events = 0;
            reports_before = ring_published(&reports);
        }
        int64_t records = write_chunk(bench, at, count, slots);
        int64_t events_before = ring_published(&market);
        uint64_t began = now_ns();
        int64_t consumed = matcher_feed(matcher, slots, matcher_position(matcher), records);
        if (at >= bench->stream.timed_from)
            took += (double)(now_ns() - began) - clock_cost;
        INVARIANT(consumed == records);
        add_events(&market, events_before, ring_published(&market), &outcome->sums);
        at += (uint64_t)count;
    }
    outcome->reports = (uint64_t)(ring_published(&reports) - reports_before);
    outcome->bytes_in_use = resident_bytes(matcher);
    matcher_free(matcher);
    munmap(slots, (size_t)bench->chunk * RECORDS_PER_OPERATION_MAX * sizeof(log_slot_t));
    munmap(report_memory, RING_HEADER_SIZE + sizeof(report_slot_t) * REPORT_SLOTS);
    munmap(market_memory, RING_HEADER_SIZE + sizeof(market_slot_t) * bench->market_slots);
    return took / (double)(bench->stream.header.operations - bench->stream.timed_from);
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------ */

static bool agrees(const stream_header_t *header, const array_sums_t *sums)
{
    return sums->fills == header->fills && sums->quantity == header->quantity && sums->notional == header->notional;
}

static void open_stream(bench_t *bench, const char *what)
{
    unsigned long long resting;
    unsigned long long makers;
    unsigned long long levels;
    stream_t *stream = &bench->stream;
    bench->market_slots = strncmp(what, "sweep:", 6) == 0 ? MARKET_SLOTS_SWEEP : MARKET_SLOTS;
    if (sscanf(what, "resting:%llu", &resting) == 1 && resting >= 1 && resting <= STREAM_ORDERS_MAX)
        stream_generate(stream, resting);
    else if (sscanf(what, "sweep:%llu:%llu", &makers, &levels) == 2 && makers >= levels && levels >= 1 &&
             makers <= SWEEP_MAKERS_MAX)
        stream_sweep(stream, makers, levels);
    else
        stream_load(stream, what);
    bench->plan.order_ids = stream_memory(stream->header.operations, sizeof(uint64_t));
    bench->plan.totals = stream_memory(stream->header.operations, sizeof(uint32_t));
}

static uint32_t power_of_two(uint64_t at_least)
{
    uint32_t capacity = 64;
    while (capacity < at_least)
        capacity *= 2;
    return capacity;
}

typedef struct series {
    double engine[ROUNDS_MAX], array[ROUNDS_MAX], array_events[ROUNDS_MAX], array_records[ROUNDS_MAX];
    outcome_t outcome; /* of the last round */
    bool good;
} series_t;

static void run_rounds(const bench_t *bench, int rounds, series_t *series)
{
    const stream_header_t *header = &bench->stream.header;
    array_sums_t sums;
    series->good = true;
    for (int i = 0; i < rounds; i++) {
        series->array[i] = array_round(bench, false, &sums);
        series->good = series->good && agrees(header, &sums);
        series->array_events[i] = array_round(bench, true, &sums);
        series->good = series->good && agrees(header, &sums);
        series->array_records[i] = array_records_round(bench, &sums);
        series->good = series->good && agrees(header, &sums);
        series->engine[i] = matcher_round(bench, &series->outcome);
        series->good = series->good && agrees(header, &series->outcome.sums);
    }
}

static void print_line(const bench_t *bench, int rounds, uint32_t open_max, series_t *series)
{
    double engine = median(series->engine, rounds);
    double array = median(series->array, rounds);
    double array_events = median(series->array_events, rounds);
    double array_records = median(series->array_records, rounds);
    double operations = (double)(bench->stream.header.operations - bench->stream.timed_from);
    double events = (double)series->outcome.sums.events;
    printf("{\"stream\": \"%s\", \"ns_per_op_median\": %.1f, \"ns_per_op_min\": %.1f, \"ns_per_op_max\": %.1f, "
           "\"rounds\": %d, \"operations\": %.0f, \"events_per_s\": %.0f, \"events_per_op\": %.2f, "
           "\"reports_per_op\": %.2f, \"private_reports\": %s, \"sums_ok\": %s, ",
           bench->stream.name, engine, series->engine[0], series->engine[rounds - 1], rounds, operations,
           events / operations / engine * 1e9, events / operations, (double)series->outcome.reports / operations,
           MATCHER_REPORTS ? "true" : "false", series->good ? "true" : "false");
    printf("\"array_ns_per_op_median\": %.1f, \"ratio\": %.2f, \"array_with_events_ns_per_op_median\": %.1f, "
           "\"ratio_to_array_with_events\": %.2f, \"array_with_records_ns_per_op_median\": %.1f, "
           "\"ratio_to_array_with_records\": %.2f, \"open_orders_max\": %u, \"capacity\": %u, \"chunk\": %lld, "
           "\"order_bytes\": %zu, \"arena_bytes_in_use\": %llu}\n",
           array, engine / array, array_events, engine / array_events, array_records, engine / array_records, open_max,
           bench->plan.capacity, (long long)bench->chunk, sizeof(order_t) + sizeof(account_link_t) + sizeof(order_rest_t),
           (unsigned long long)series->outcome.bytes_in_use);
}

int main(int argc, char **argv)
{
    static series_t series;
    bench_t bench = {.chunk = CHUNK_DEFAULT};
    int rounds = argc > 2 ? atoi(argv[2]) : ROUNDS_DEFAULT;
    uint64_t capacity = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    if (argc > 4)
        bench.chunk = atol(argv[4]);
    if (argc < 2 || rounds < 1 || rounds > ROUNDS_MAX || bench.chunk < 1 || bench.chunk > CHUNK_MAX) {
        fprintf(stderr, "usage: book_bench STREAM [rounds 1..%d] [capacity] [chunk 1..%d]\n", ROUNDS_MAX, CHUNK_MAX);
        return 2;
    }
    open_stream(&bench, argv[1]);
    uint32_t open_max = make_plan(&bench, power_of_two(capacity == 0 ? bench.stream.header.ids + 1 : capacity));
    if (capacity == 0)
        (void)make_plan(&bench, power_of_two(2 * (uint64_t)open_max));
    run_rounds(&bench, rounds, &series);
    print_line(&bench, rounds, open_max, &series);
    return series.good ? 0 : 1;
}
