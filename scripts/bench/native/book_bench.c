/* book_bench STREAM [rounds] [chunk] [report_slots] [accounts]: the real matcher against a plain array book, same stream, same rounds.
 *
 * The stream file (OBSTRM01: 64-byte header, 16-byte records) holds new, IOC, market, cancel and replace operations whose fills,
 * quantity and notional the header states. The matcher gets them as log records, written `chunk` at a time into memory before
 * the clock starts, as they lie in the log ring in the live system. It runs with everything on: 128-byte private reports,
 * 64-byte market events, fees, account lists, session numbers, state hash, checks. The array book does price-time priority in a
 * fixed price range and nothing else: the floor. "array with events" also writes one 64-byte event per output.
 *
 * One JSON line. Both books are wrong unless their fills, quantity and notional agree with the header. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "engine/matcher.h"
#include "marketdata.h"
#include "orders.h"

#define TICKS (1u << 21)
#define CHUNK_DEFAULT 1024
#define ROUNDS_DEFAULT 7
#define ROUNDS_MAX 101
#define MARKET_SLOTS (1u << 16)
#define REPORT_SLOTS (1u << 16)
#define ACCOUNTS 64
#define WINDOW_LOG2 18

enum { OP_NEW, OP_IOC, OP_MARKET, OP_CANCEL, OP_REPLACE };

typedef struct stream_header {
    char magic[8];
    uint64_t operations, ids;
    int64_t price_min, price_max;
    uint64_t fills, quantity, notional;
} stream_header_t;

typedef struct operation {
    uint8_t op, side;
    uint16_t flags;
    uint32_t quantity, id;
    int32_t price;
} operation_t;

typedef struct sums {
    uint64_t fills, quantity, notional, events;
} sums_t;

typedef struct bench {
    const char *name;
    stream_header_t header;
    operation_t *operations;
    uint32_t *totals; /* of replaces: quantity wanted plus what was filled before; 0 = see find_totals */
    int64_t chunk;
    uint64_t report_slots;
    uint32_t accounts;
} bench_t;

/* Time of this thread alone: other work on the machine still disturbs its caches, but takes nothing from its account. */
static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    INVARIANT(memory != MAP_FAILED);
    (void)madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

/* ---- the array book ---------------------------------------------------------------------------------------------------- */

typedef struct array_order {
    uint32_t next, prev, quantity;
    int32_t price;
    uint32_t filled;
    uint32_t side;
} array_order_t;

typedef struct array_level {
    uint32_t head, tail; /* 0 = none: ids start at 1 */
} array_level_t;

typedef struct array_book {
    array_order_t *orders;
    array_level_t *levels[2];
    uint64_t *bits[2][3];
    int32_t best[2];
    market_slot_t *events; /* NULL = none written */
    uint64_t event_count;
    sums_t sums;
} array_book_t;

#define ARRAY_NONE (-1)

static void array_mark(array_book_t *book, int side, int32_t price)
{
    uint32_t tick = (uint32_t)price;
    for (int level = 0; level < 3; level++, tick >>= 6)
        book->bits[side][level][tick >> 6] |= UINT64_C(1) << (tick & 63);
}

static void array_unmark(array_book_t *book, int side, int32_t price)
{
    uint32_t tick = (uint32_t)price;
    for (int level = 0; level < 3; level++, tick >>= 6) {
        uint64_t *word = &book->bits[side][level][tick >> 6];
        *word &= ~(UINT64_C(1) << (tick & 63));
        if (*word != 0)
            return;
    }
}

/* Next marked tick at or below (bids) or above (asks) `price`. The top bitmap has 512 bits. */
static int32_t array_next(const array_book_t *book, int side, int32_t price)
{
    uint32_t tick = (uint32_t)price;
    for (int level = 0; level < 3; level++) {
        uint32_t word = tick >> 6;
        uint64_t set = side == 0 ? book->bits[0][level][word] & (~UINT64_C(0) >> (63 - (tick & 63)))
                                 : book->bits[1][level][word] & (~UINT64_C(0) << (tick & 63));
        while (set == 0 && level == 2) {
            if (side == 0 ? word-- == 0 : ++word == TICKS >> 18)
                return ARRAY_NONE;
            set = book->bits[side][2][word];
        }
        if (set != 0) {
            tick = word << 6 | (uint32_t)(side == 0 ? 63 - __builtin_clzll(set) : __builtin_ctzll(set));
            for (; level > 0; level--) {
                set = book->bits[side][level - 1][tick];
                tick = tick << 6 | (uint32_t)(side == 0 ? 63 - __builtin_clzll(set) : __builtin_ctzll(set));
            }
            return (int32_t)tick;
        }
        if (side == 0 ? word == 0 : word + 1 == TICKS >> (6 * (level + 1)))
            return ARRAY_NONE;
        tick = side == 0 ? word - 1 : word + 1;
    }
    return ARRAY_NONE;
}

static void array_event(array_book_t *book, uint16_t template_id, uint32_t id, int32_t price, uint32_t quantity)
{
    if (book->events == NULL)
        return;
    market_slot_t *slot = &book->events[book->event_count & (MARKET_SLOTS - 1)];
    order_add_t *block = (order_add_t *)slot->block;
    memset(slot, 0, sizeof(*slot));
    slot->update_id = ++book->event_count;
    slot->template_id = template_id;
    block->order_id = id;
    block->price = price;
    block->qty = quantity;
}

static void array_unlink(array_book_t *book, uint32_t id)
{
    array_order_t *order = &book->orders[id];
    int side = (int)order->side;
    array_level_t *level = &book->levels[side][order->price];
    if (order->prev != 0)
        book->orders[order->prev].next = order->next;
    else
        level->head = order->next;
    if (order->next != 0)
        book->orders[order->next].prev = order->prev;
    else
        level->tail = order->prev;
    if (level->head != 0)
        return;
    array_unmark(book, side, order->price);
    if (order->price == book->best[side])
        book->best[side] = array_next(book, side, order->price);
}

static void array_append(array_book_t *book, uint32_t id)
{
    array_order_t *order = &book->orders[id];
    int side = (int)order->side;
    array_level_t *level = &book->levels[side][order->price];
    order->next = 0;
    order->prev = level->tail;
    if (level->tail != 0) {
        book->orders[level->tail].next = id;
    } else {
        level->head = id;
        array_mark(book, side, order->price);
        if (book->best[side] == ARRAY_NONE || (side == 0 ? order->price > book->best[0] : order->price < book->best[1]))
            book->best[side] = order->price;
    }
    level->tail = id;
}

static void array_match(array_book_t *book, uint32_t id, uint32_t side, uint32_t quantity, int32_t price, bool rests)
{
    uint32_t filled = rests ? book->orders[id].filled : 0;
    while (quantity > 0) {
        int32_t best = book->best[side ^ 1];
        if (best == ARRAY_NONE || (side == 0 ? best > price : best < price))
            break;
        uint32_t maker_id = book->levels[side ^ 1][best].head;
        array_order_t *maker = &book->orders[maker_id];
        uint32_t traded = maker->quantity < quantity ? maker->quantity : quantity;
        quantity -= traded;
        filled += traded;
        maker->quantity -= traded;
        maker->filled += traded;
        book->sums.fills++;
        book->sums.quantity += traded;
        book->sums.notional += (uint64_t)best * traded;
        array_event(book, TEMPLATE_ORDER_EXECUTE, maker_id, best, traded);
        if (maker->quantity == 0)
            array_unlink(book, maker_id);
    }
    if (!rests)
        return;
    book->orders[id] = (array_order_t){.quantity = quantity, .price = price, .filled = filled, .side = side};
    if (quantity == 0)
        return;
    array_event(book, TEMPLATE_ORDER_ADD, id, price, quantity);
    array_append(book, id);
}

static void array_apply(array_book_t *book, const operation_t *operation)
{
    switch (operation->op) {
    case OP_NEW:
        book->orders[operation->id].filled = 0;
        array_match(book, operation->id, operation->side, operation->quantity, operation->price, true);
        break;
    case OP_IOC:
    case OP_MARKET:
        array_match(book, operation->id, operation->side, operation->quantity, operation->price, false);
        break;
    case OP_CANCEL:
        array_event(book, TEMPLATE_ORDER_DELETE, operation->id, 0, 0);
        array_unlink(book, operation->id);
        break;
    default:
        array_unlink(book, operation->id);
        array_match(book, operation->id, operation->side, operation->quantity, operation->price, true);
        break;
    }
}

static size_t array_size(const bench_t *bench)
{
    return bench->header.ids * sizeof(array_order_t) + 2 * TICKS * sizeof(array_level_t) + 6 * (TICKS / 8) +
           MARKET_SLOTS * sizeof(market_slot_t);
}

static void array_open(array_book_t *book, uint8_t *memory, bool events)
{
    memset(book, 0, sizeof(*book));
    book->events = events ? (market_slot_t *)memory : NULL;
    memory += MARKET_SLOTS * sizeof(market_slot_t);
    for (int side = 0; side < 2; side++) {
        book->best[side] = ARRAY_NONE;
        book->levels[side] = (array_level_t *)memory;
        memory += TICKS * sizeof(array_level_t);
        for (int level = 0; level < 3; level++, memory += TICKS / 8)
            book->bits[side][level] = (uint64_t *)memory;
    }
    book->orders = (array_order_t *)memory;
}

static double array_round(const bench_t *bench, bool events, sums_t *sums)
{
    array_book_t book;
    size_t size = array_size(bench);
    uint8_t *memory = map(size);
    memset(memory, 0, size); /* the clock does not count page faults, here and below */
    array_open(&book, memory, events);
    uint64_t began = now_ns();
    for (uint64_t i = 0; i < bench->header.operations; i++)
        array_apply(&book, &bench->operations[i]);
    uint64_t took = now_ns() - began;
    *sums = book.sums;
    munmap(memory, size);
    return (double)took / (double)bench->header.operations;
}

/* What the records of replaces must say: the matcher's quantities are totals. A replace to less at the same price keeps its
 * priority in the matcher and loses it in the stream: it becomes a cancel and a new order of the same id. */
static void find_totals(bench_t *bench)
{
    array_book_t book;
    size_t size = array_size(bench);
    uint8_t *memory = map(size);
    array_open(&book, memory, false);
    bench->totals = malloc(bench->header.operations * sizeof(uint32_t));
    INVARIANT(bench->totals != NULL);
    for (uint64_t i = 0; i < bench->header.operations; i++) {
        const operation_t *operation = &bench->operations[i];
        bench->totals[i] = operation->quantity;
        if (operation->op == OP_REPLACE) {
            array_order_t *order = &book.orders[operation->id];
            if (operation->price == order->price && operation->quantity <= order->quantity) {
                bench->totals[i] = 0;
                order->filled = 0;
            } else {
                bench->totals[i] += order->filled;
            }
        }
        array_apply(&book, operation);
    }
    munmap(memory, size);
}

/* ---- the matcher ------------------------------------------------------------------------------------------------------- */

static void write_cancel(const operation_t *operation, uint32_t account, uint64_t at, log_slot_t *slot)
{
    order_cancel_request_t *block = (order_cancel_request_t *)slot->block;
    slot->template_id = TEMPLATE_ORDER_CANCEL_REQUEST;
    *block = (order_cancel_request_t){.cl_ord_id = at, .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = operation->id,
                                      .instrument_id = 1, .account_id = account};
}

static void write_replace(const operation_t *operation, uint32_t account, uint64_t at, uint32_t total, log_slot_t *slot)
{
    order_replace_request_t *block = (order_replace_request_t *)slot->block;
    slot->template_id = TEMPLATE_ORDER_REPLACE_REQUEST;
    *block = (order_replace_request_t){.cl_ord_id = at, .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = operation->id,
                                       .price = operation->price, .order_qty = total, .display_qty = QTY_OPT_NULL,
                                       .instrument_id = 1, .account_id = account};
}

static void write_new(const operation_t *operation, uint32_t account, uint64_t at, log_slot_t *slot)
{
    new_order_single_t *block = (new_order_single_t *)slot->block;
    bool immediate = operation->op == OP_IOC || operation->op == OP_MARKET;
    slot->template_id = TEMPLATE_NEW_ORDER_SINGLE;
    slot->aux = operation->id;
    *block = (new_order_single_t){.cl_ord_id = at, .price = operation->price, .order_qty = operation->quantity,
                                  .display_qty = QTY_OPT_NULL, .stop_px = PX_OPT_NULL, .instrument_id = 1,
                                  .account_id = account, .side = operation->side == 0 ? SIDE_BUY : SIDE_SELL,
                                  .ord_type = operation->op == OP_MARKET ? ORD_TYPE_MARKET : ORD_TYPE_LIMIT,
                                  .time_in_force = immediate ? TIME_IN_FORCE_IOC : TIME_IN_FORCE_GTC};
}

/* One operation as one record, or two; returns how many. */
static int64_t write_records(const bench_t *bench, uint64_t at, log_slot_t *slots)
{
    const operation_t *operation = &bench->operations[at];
    uint32_t account = 1 + operation->id % bench->accounts;
    bool split = operation->op == OP_REPLACE && bench->totals[at] == 0;
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
        write_cancel(operation, account, at, &slots[0]);
    if (operation->op == OP_REPLACE && !split)
        write_replace(operation, account, at, bench->totals[at], &slots[0]);
    else if (operation->op != OP_CANCEL)
        write_new(operation, account, at, &slots[count - 1]);
    return count;
}

static matcher_t *open_matcher(const bench_t *bench, ring_t *reports, ring_t *market)
{
    uint32_t orders = 1;
    while (orders < bench->header.ids)
        orders *= 2;
    matcher_config_t config = {.orders_max = orders, .instruments_max = 1, .accounts_max = bench->accounts,
                               .sessions_max = bench->accounts, .window_log2 = WINDOW_LOG2, .partition = 1};
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

static void add_events(const ring_t *market, int64_t from, int64_t to, sums_t *sums)
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
    size_t size = RING_HEADER_SIZE + slot_size * slots;
    void *memory = map(size);
    memset(memory, 0, size);
    ring_format(memory, slot_size, slots, 0, RING_MODE_PLAIN, 0);
    ring_attach(ring, memory, NULL);
    return memory;
}

static double matcher_round(const bench_t *bench, sums_t *sums, uint64_t *reports_count)
{
    static ring_t reports, market;
    void *report_memory = new_ring(&reports, sizeof(report_slot_t), bench->report_slots);
    void *market_memory = new_ring(&market, sizeof(market_slot_t), MARKET_SLOTS);
    log_slot_t *slots = map((size_t)bench->chunk * 2 * sizeof(log_slot_t));
    matcher_t *matcher = open_matcher(bench, &reports, &market);
    uint64_t took = 0;
    memset(sums, 0, sizeof(*sums));
    for (uint64_t at = 0; at < bench->header.operations;) {
        int64_t count = bench->chunk;
        if ((uint64_t)count > bench->header.operations - at)
            count = (int64_t)(bench->header.operations - at);
        int64_t records = 0;
        for (int64_t i = 0; i < count; i++)
            records += write_records(bench, at + (uint64_t)i, &slots[records]);
        int64_t events_before = ring_published(&market);
        uint64_t began = now_ns();
        int64_t consumed = matcher_feed(matcher, slots, matcher_position(matcher), records);
        took += now_ns() - began;
        INVARIANT(consumed == records);
        add_events(&market, events_before, ring_published(&market), sums);
        at += (uint64_t)count;
    }
    *reports_count = (uint64_t)ring_published(&reports);
    matcher_free(matcher);
    munmap(slots, (size_t)bench->chunk * 2 * sizeof(log_slot_t));
    munmap(report_memory, RING_HEADER_SIZE + sizeof(report_slot_t) * bench->report_slots);
    munmap(market_memory, RING_HEADER_SIZE + sizeof(market_slot_t) * MARKET_SLOTS);
    return (double)took / (double)bench->header.operations;
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------ */

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

static bool agrees(const stream_header_t *header, const sums_t *sums)
{
    return sums->fills == header->fills && sums->quantity == header->quantity && sums->notional == header->notional;
}

static void load(bench_t *bench, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fread(&bench->header, sizeof(bench->header), 1, file) != 1 ||
        memcmp(bench->header.magic, "OBSTRM01", 8) != 0 || bench->header.price_min < 1 ||
        bench->header.price_max >= (int64_t)TICKS) {
        fprintf(stderr, "book_bench: %s is no stream this bench can read\n", path);
        exit(2);
    }
    bench->operations = malloc(bench->header.operations * sizeof(operation_t));
    INVARIANT(bench->operations != NULL);
    if (fread(bench->operations, sizeof(operation_t), bench->header.operations, file) != bench->header.operations) {
        fprintf(stderr, "book_bench: %s is truncated\n", path);
        exit(2);
    }
    fclose(file);
    const char *slash = strrchr(path, '/');
    bench->name = slash != NULL ? slash + 1 : path;
}

int main(int argc, char **argv)
{
    static double engine[ROUNDS_MAX], array[ROUNDS_MAX], array_events[ROUNDS_MAX];
    bench_t bench = {.chunk = CHUNK_DEFAULT, .report_slots = REPORT_SLOTS, .accounts = ACCOUNTS};
    int rounds = argc > 2 ? atoi(argv[2]) : ROUNDS_DEFAULT;
    if (argc < 2 || rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: book_bench STREAM [rounds 1..%d] [chunk] [report_slots] [accounts]\n", ROUNDS_MAX);
        return 2;
    }
    if (argc > 3)
        bench.chunk = atol(argv[3]);
    if (argc > 4)
        bench.report_slots = strtoull(argv[4], NULL, 10);
    if (argc > 5)
        bench.accounts = (uint32_t)atol(argv[5]);
    load(&bench, argv[1]);
    find_totals(&bench);
    bool good = true;
    sums_t sums = {0};
    uint64_t reports = 0;
    for (int i = 0; i < rounds; i++) {
        sums_t array_sums;
        array[i] = array_round(&bench, false, &array_sums);
        good = good && agrees(&bench.header, &array_sums);
        array_events[i] = array_round(&bench, true, &array_sums);
        good = good && agrees(&bench.header, &array_sums);
        engine[i] = matcher_round(&bench, &sums, &reports);
        good = good && agrees(&bench.header, &sums);
    }
    double engine_median = median(engine, rounds);
    double array_median = median(array, rounds);
    double array_events_median = median(array_events, rounds);
    double per_op = (double)bench.header.operations;
    printf("{\"stream\": \"%s\", \"ns_per_op_median\": %.1f, \"ns_per_op_min\": %.1f, \"rounds\": %d, "
           "\"events_per_s\": %.0f, \"events_per_op\": %.2f, \"reports_per_op\": %.2f, \"sums_ok\": %s, "
           "\"array_ns_per_op_median\": %.1f, \"ratio\": %.2f, "
           "\"array_with_events_ns_per_op_median\": %.1f, \"ratio_to_array_with_events\": %.2f, "
           "\"report_slots\": %llu, \"chunk\": %lld, \"accounts\": %u}\n",
           bench.name, engine_median, engine[0], rounds, (double)sums.events / per_op / engine_median * 1e9,
           (double)sums.events / per_op, (double)reports / per_op, good ? "true" : "false", array_median,
           engine_median / array_median, array_events_median, engine_median / array_events_median,
           (unsigned long long)bench.report_slots, (long long)bench.chunk, bench.accounts);
    return good ? 0 : 1;
}
