/* A whole exchange core on private rings, for the native tests that prove things about it: built from capacities, driven live
 * with any interleaving of polls, or fed from a log; every byte it says is drained into tapes and checksums. */
#ifndef BULLRING_TESTS_ENGINE_KIT_H
#define BULLRING_TESTS_ENGINE_KIT_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/composed.h"
#include "marketdata.h"
#include "orders.h"

#define WORLD_PARTITIONS_MAX 4
#define WORLD_SOURCES 3 /* ingress rings 1 (the operator's) and 2 (a gateway's) */
#define WORLD_START_NS UINT64_C(1700000000000000000)
#define SESSION_ADMIN_ID 1

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

/* ---- chance ---------------------------------------------------------------------------------------------------------- */

typedef struct chance {
    uint64_t state;
} chance_t;

static inline uint64_t chance_next(chance_t *chance) /* splitmix64 */
{
    uint64_t z = chance->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline uint32_t chance_below(chance_t *chance, uint32_t bound)
{
    return (uint32_t)(chance_next(chance) >> 33) % bound;
}

static inline bool chance_percent(chance_t *chance, uint32_t percent)
{
    return chance_below(chance, 100) < percent;
}

/* ---- tapes: what came out of a ring, whole or as a checksum ----------------------------------------------------------- */

typedef struct tape {
    uint8_t *bytes; /* NULL = only counted and summed */
    int64_t slots;
    int64_t capacity;
    uint32_t crc; /* CRC-32 as zlib has it */
} tape_t;

static inline uint32_t crc32_add(uint32_t crc, const void *data, size_t size)
{
    static uint32_t table[256];
    const uint8_t *bytes = data;

    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = (value & 1) != 0 ? UINT32_C(0xedb88320) ^ value >> 1 : value >> 1;
            table[i] = value;
        }
    crc = ~crc;
    for (size_t i = 0; i < size; i++)
        crc = table[(crc ^ bytes[i]) & 255] ^ crc >> 8;
    return ~crc;
}

static inline void tape_add(tape_t *tape, const void *slot, size_t size, bool keep)
{
    tape->crc = crc32_add(tape->crc, slot, size);
    if (keep) {
        if (tape->slots == tape->capacity) {
            tape->capacity = tape->capacity == 0 ? 4096 : tape->capacity * 2;
            tape->bytes = realloc(tape->bytes, (size_t)tape->capacity * size);
            CHECK(tape->bytes != NULL);
        }
        memcpy(tape->bytes + (size_t)tape->slots * size, slot, size);
    }
    tape->slots++;
}

/* ---- the world --------------------------------------------------------------------------------------------------------- */

typedef struct world_config {
    sequencer_config_t capacities;
    uint32_t step_budget;
    uint32_t window_log2;
    uint64_t log_slots;
    uint64_t report_slots;
    bool keep_reports;
} world_config_t;

typedef struct world {
    world_config_t config;
    sequencer_t *sequencer;
    matcher_t *matchers[WORLD_PARTITIONS_MAX];
    int64_t partitions;
    ring_t log, reply;
    ring_t ingress[WORLD_SOURCES];
    ring_t reports[WORLD_PARTITIONS_MAX + 1], market[WORLD_PARTITIONS_MAX + 1];
    void *memory[3 + WORLD_SOURCES + 2 * (WORLD_PARTITIONS_MAX + 1)];
    int memories;
    tape_t log_tape;
    tape_t report_tapes[WORLD_PARTITIONS_MAX + 1];
    tape_t market_tapes[WORLD_PARTITIONS_MAX + 1];
    void (*on_report)(void *context, const report_slot_t *slot);
    void *context;
    uint64_t now_ns;
} world_t;

static inline void world_ring(world_t *world, ring_t *ring, uint32_t slot_size, uint64_t slots)
{
    size_t size = RING_HEADER_SIZE + slot_size * slots;
    void *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);

    CHECK(memory != NULL);
    memset(memory, 0, size);
    ring_format(memory, slot_size, slots, 0, RING_MODE_D0, 0);
    ring_attach(ring, memory, NULL);
    world->memory[world->memories++] = memory;
}

/* In place: everything in it points at its rings. Rings of reports have the drain as consumer 0, as a journaler would be. */
static inline void world_open(world_t *world, const world_config_t *config)
{
    const sequencer_config_t *capacities = &config->capacities;
    const char *error;

    memset(world, 0, sizeof(*world));
    world->config = *config;
    world->partitions = capacities->partitions;
    world->now_ns = WORLD_START_NS;
    CHECK(world->partitions <= WORLD_PARTITIONS_MAX);
    world->sequencer = sequencer_new(capacities, &error);
    CHECK(world->sequencer != NULL);
    world_ring(world, &world->log, sizeof(log_slot_t), config->log_slots);
    world_ring(world, &world->reply, sizeof(report_slot_t), 2048);
    ring_gate(&world->log, 0, 0);
    for (int64_t p = 0; p <= world->partitions; p++) {
        world_ring(world, &world->reports[p], sizeof(report_slot_t), config->report_slots);
        /* Nobody gates market data; no report has more than two events, so this is never lapped between drains. */
        world_ring(world, &world->market[p], sizeof(market_slot_t), config->report_slots * 4);
        ring_gate(&world->reports[p], 0, 0);
    }
    sequencer_attach(world->sequencer, &world->log, &world->reports[0], &world->reply);
    for (int64_t p = 1; p <= world->partitions; p++) {
        matcher_config_t matcher = {.orders_max = capacities->orders_per_partition,
                                    .instruments_max = capacities->instruments_max,
                                    .accounts_max = capacities->accounts_max,
                                    .sessions_max = capacities->sessions_max,
                                    .step_budget = config->step_budget,
                                    .window_log2 = config->window_log2,
                                    .partition = (uint8_t)p};
        world->matchers[p - 1] = matcher_new(&matcher);
        CHECK(world->matchers[p - 1] != NULL);
        matcher_attach(world->matchers[p - 1], &world->log, &world->reports[p], &world->market[p]);
        sequencer_attach_reports(world->sequencer, (uint8_t)p, &world->reports[p]);
    }
}

/* Lead a fresh log. */
static inline void world_lead(world_t *world)
{
    for (uint16_t source = 1; source < WORLD_SOURCES; source++) {
        world_ring(world, &world->ingress[source], sizeof(log_slot_t), 256);
        sequencer_attach_ingress(world->sequencer, source, &world->ingress[source]);
    }
    sequencer_set_time(world->sequencer, world->now_ns);
    sequencer_lead(world->sequencer, 1, 1);
}

static inline void world_close(world_t *world)
{
    sequencer_free(world->sequencer);
    free(world->log_tape.bytes);
    for (int64_t p = 0; p <= world->partitions; p++) {
        free(world->report_tapes[p].bytes);
        free(world->market_tapes[p].bytes);
        if (p > 0)
            matcher_free(world->matchers[p - 1]);
    }
    for (int i = 0; i < world->memories; i++)
        free(world->memory[i]);
}

static inline void world_later(world_t *world, uint64_t ns)
{
    world->now_ns += ns;
    sequencer_set_time(world->sequencer, world->now_ns);
}

/* The slot is copied: what a gateway writes. False when the ring is full. */
static inline bool world_put(world_t *world, uint16_t source, const log_slot_t *slot)
{
    ring_t *ring = &world->ingress[source];
    int64_t sequence = ring_claim(ring, 1);

    if (sequence < 0)
        return false;
    memcpy(ring_slot(ring, sequence), slot, sizeof(*slot));
    ring_publish(ring, sequence + 1);
    return true;
}

/* ---- draining ---------------------------------------------------------------------------------------------------------- */

static inline int64_t drain_log(world_t *world)
{
    int64_t published = ring_published(&world->log), first = world->log_tape.slots;
    int64_t behind = published;

    for (int64_t i = first; i < published; i++)
        tape_add(&world->log_tape, ring_slot(&world->log, i), sizeof(log_slot_t), true);
    for (int64_t p = 0; p < world->partitions; p++)
        if (matcher_position(world->matchers[p]) < behind)
            behind = matcher_position(world->matchers[p]);
    ring_advance(&world->log, 0, behind); /* a matcher that is lapped is another test's matter */
    return published - first;
}

static inline int64_t drain_reports(world_t *world, int64_t partition)
{
    ring_t *ring = &world->reports[partition];
    tape_t *tape = &world->report_tapes[partition];
    int64_t published = ring_published(ring), first = tape->slots;

    for (int64_t i = first; i < published; i++) {
        tape_add(tape, ring_slot(ring, i), sizeof(report_slot_t), world->config.keep_reports);
        if (world->on_report != NULL)
            world->on_report(world->context, ring_slot(ring, i));
    }
    ring_advance(ring, 0, published);
    return published - first;
}

static inline int64_t drain_market(world_t *world, int64_t partition)
{
    ring_t *ring = &world->market[partition];
    tape_t *tape = &world->market_tapes[partition];
    int64_t published = ring_published(ring), first = tape->slots;

    CHECK(published - first <= ring_capacity(ring));
    for (int64_t i = first; i < published; i++)
        tape_add(tape, ring_slot(ring, i), sizeof(market_slot_t), world->config.keep_reports);
    return published - first;
}

static inline int64_t world_drain(world_t *world)
{
    int64_t work = world->ingress[1].header == NULL ? 0 : drain_log(world);

    for (int64_t p = 0; p <= world->partitions; p++)
        work += drain_market(world, p) + drain_reports(world, p);
    return work;
}

/* ---- live ---------------------------------------------------------------------------------------------------------------- */

/* Some polls of any stage, in any order and size. */
static inline void world_stir(world_t *world, chance_t *chance)
{
    static const int64_t limits[] = {1, 1, 2, 3, 7, 64, 1024};
    int64_t limit = limits[chance_below(chance, 7)];
    uint32_t who = chance_below(chance, 8);

    if (who < 3)
        CHECK(sequencer_poll(world->sequencer, limit) >= 0);
    else if (who < 7)
        CHECK(matcher_poll(world->matchers[chance_below(chance, (uint32_t)world->partitions)], limit) >= 0);
    else
        (void)world_drain(world);
}

static inline void world_run(world_t *world)
{
    int64_t work;

    do {
        work = sequencer_poll(world->sequencer, 1024);
        CHECK(work >= 0);
        for (int64_t p = 0; p < world->partitions; p++) {
            int64_t done = matcher_poll(world->matchers[p], 1024);
            CHECK(done >= 0);
            work += done;
        }
        work += world_drain(world);
    } while (work != 0);
}

/* Run until idle and until the marks say so: only then is the state a function of the log alone. */
static inline void world_rest(world_t *world)
{
    bool marked;

    world_run(world);
    do {
        world_later(world, 11000000);
        world_run(world);
        marked = true;
        for (int64_t p = 1; p <= world->partitions; p++)
            marked = marked && sequencer_settled(world->sequencer, (uint8_t)p) == ring_published(&world->reports[p]);
    } while (!marked);
}

/* Feed `count` log slots, the window growing by `chunk` until they are taken. Returns how many were; fewer = it stands still. */
static inline int64_t world_feed(world_t *world, const log_slot_t *slots, int64_t count, int64_t chunk)
{
    int64_t first = 0, end = 0;

    for (;;) {
        end = end + chunk < count ? end + chunk : count;
        int64_t done = composed_feed(world->sequencer, world->matchers, world->partitions, slots + first, first, end - first);
        if (done < 0)
            return done;
        int64_t drained = world_drain(world);
        first += done;
        if (first == count && drained == 0)
            return first;
        if (done == 0 && drained == 0 && end == count)
            return first;
    }
}

/* ---- what must hold ------------------------------------------------------------------------------------------------------ */

static inline void world_check(const world_t *world)
{
    CHECK(sequencer_check(world->sequencer));
    for (int64_t p = 0; p < world->partitions; p++) {
        const char *broken = matcher_check(world->matchers[p]);
        if (broken != NULL)
            fprintf(stderr, "matcher %" PRId64 ": %s\n", p + 1, broken);
        CHECK(broken == NULL);
    }
}

static inline int by_order_id(const void *left, const void *right)
{
    const matcher_order_t *a = left, *b = right;
    return a->order_id < b->order_id ? -1 : a->order_id > b->order_id;
}

/* The instrument's terms as the log has them; NULL if it was never added. */
static inline const instrument_add_t *world_instrument(const world_t *world, uint32_t instrument)
{
    const log_slot_t *slots = (const log_slot_t *)world->log_tape.bytes;

    for (int64_t i = 0; i < world->log_tape.slots; i++)
        if (slots[i].template_id == TEMPLATE_INSTRUMENT_ADD && (slots[i].flags & SLOT_FLAG_REJECT) == 0 &&
            ((const instrument_add_t *)slots[i].block)->instrument_id == instrument)
            return (const instrument_add_t *)slots[i].block;
    return NULL;
}

/* At rest the hold is exactly what the rest of the order may cost. */
static inline void compare_order(const instrument_add_t *terms, const open_order_t *line, const matcher_order_t *order)
{
    int64_t open = line->total_lots - line->filled_lots;

    CHECK(terms != NULL);
    CHECK(order != NULL);
    CHECK(order->price == line->limit_ticks);
    CHECK(order->leaves + order->hidden == open);
    CHECK(order->cum == line->filled_lots);
    CHECK(order->cl_ord_id == line->client_id);
    CHECK(order->account == line->account);
    CHECK(order->session == line->session);
    CHECK(line->hold_units == (line->side == SIDE_SELL ? open * terms->base_per_lot
                                                       : open * line->limit_ticks * terms->quote_per_tick_lot));
}

/* Those that stand in the book, and those of that side that wait for a trigger. */
static inline int64_t world_orders(const world_t *world, int64_t p, uint32_t instrument, uint8_t side, matcher_order_t *out,
                                   int64_t limit)
{
    static matcher_order_t waiting[1 << 14];
    int64_t count = matcher_orders(world->matchers[p], instrument, side, out, limit);
    int64_t waits = matcher_waiting(world->matchers[p], instrument, waiting, 1 << 14);

    for (int64_t i = 0; i < waits; i++)
        if (waiting[i].side == side && count < limit)
            out[count++] = waiting[i];
    return count;
}

/* At rest the order table and the books hold the same orders on the same terms. */
static inline void world_compare_orders(const world_t *world)
{
    static open_order_t lines[1 << 14];
    static matcher_order_t orders[1 << 14];
    int64_t line_count = sequencer_open_orders(world->sequencer, 0, lines, 1 << 14);
    int64_t compared = 0;

    CHECK(line_count < 1 << 14);
    for (uint32_t instrument = 1; instrument <= world->config.capacities.instruments_max; instrument++) {
        const instrument_add_t *terms = world_instrument(world, instrument);
        for (int side = SIDE_BUY; side <= SIDE_SELL; side++) {
            int64_t count = 0, matched = 0;
            for (int64_t p = 0; p < world->partitions; p++)
                count += world_orders(world, p, instrument, (uint8_t)side, orders + count, (1 << 14) - count);
            qsort(orders, (size_t)count, sizeof(orders[0]), by_order_id);
            for (int64_t i = 0; i < line_count; i++) {
                matcher_order_t wanted = {.order_id = lines[i].order_id};
                if (lines[i].instrument != instrument || lines[i].side != side)
                    continue;
                compare_order(terms, &lines[i], bsearch(&wanted, orders, (size_t)count, sizeof(orders[0]), by_order_id));
                compared++;
                matched++;
            }
            CHECK(matched == count);
        }
    }
    CHECK(compared == line_count);
}

#endif
