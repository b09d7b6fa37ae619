#include "order_table.h"

#include <string.h>

#include "capacity.h"
#include "invariant.h"
#include "mix.h"
#include "platform.h"

#define WORD_BITS 64

static uint32_t words_of(uint32_t bits)
{
    return (bits + WORD_BITS - 1) / WORD_BITS;
}

void orders_carve(orders_t *orders, arena_t *arena, uint32_t orders_max)
{
    INVARIANT(orders_max >= WORD_BITS);
    INVARIANT((orders_max & (orders_max - 1)) == 0);
    uint32_t level1 = words_of(orders_max);
    uint32_t level2 = words_of(level1);

    orders->mask = orders_max - 1;
    orders->replaces_max = orders_max / 4;
    orders->clients_mask = (uint64_t)orders_max * 4 - 1;
    orders->extras_max = capacity_extras(orders_max);
    orders->lines = arena_take(arena, orders_max, sizeof(order_line_t));
    orders->terms = arena_take(arena, orders_max, sizeof(order_terms_t));
    orders->links = arena_take(arena, orders_max, sizeof(order_link_t));
    orders->used_words[0] = arena_take(arena, level1, sizeof(uint64_t));
    orders->used_words[1] = arena_take(arena, level2, sizeof(uint64_t));
    orders->used_words[2] = arena_take(arena, words_of(level2), sizeof(uint64_t));
    orders->replaces = arena_take(arena, orders->replaces_max, sizeof(order_replaces_t));
    orders->clients = arena_take(arena, orders->clients_mask + 1, sizeof(client_entry_t));
}

/* Bits of words that stand for nothing are set once, so that a full word means "nothing free here". */
static void fill_tail(uint64_t *words, uint32_t bits)
{
    for (uint32_t bit = bits; bit % WORD_BITS != 0; bit++)
        words[bit / WORD_BITS] |= UINT64_C(1) << (bit % WORD_BITS);
}

void orders_init(orders_t *orders)
{
    uint32_t level1 = words_of(orders->mask + 1);

    fill_tail(orders->used_words[1], level1);
    fill_tail(orders->used_words[2], words_of(level1));
    orders->replaces_free = LINE_NONE;
}

/* First free line at or after `from` at one bitmap level, without wrapping; UINT32_MAX if none. */
static uint32_t next_clear(const uint64_t *words, uint32_t word_count, uint32_t from)
{
    uint32_t word = from / WORD_BITS;
    if (word >= word_count)
        return UINT32_MAX;
    uint64_t clear = ~words[word] & (~UINT64_C(0) << (from % WORD_BITS));
    return clear == 0 ? UINT32_MAX : word * WORD_BITS + (uint32_t)__builtin_ctzll(clear);
}

static uint32_t next_free_line(const orders_t *orders, uint32_t from)
{
    uint32_t level1 = words_of(orders->mask + 1);
    uint32_t level2 = words_of(level1);
    uint32_t level3 = words_of(level2);
    uint32_t found = next_clear(orders->used_words[0], level1, from);
    if (found != UINT32_MAX)
        return found;
    uint32_t word = next_clear(orders->used_words[1], level2, from / WORD_BITS + 1);
    if (word == UINT32_MAX) {
        uint32_t above = UINT32_MAX;
        uint32_t start = (from / WORD_BITS + 1) / WORD_BITS + 1;
        /* At most N / 64^3 words: 64 for 16 M orders. */
        for (uint32_t i = start / WORD_BITS; i < level3 && above == UINT32_MAX; i++)
            above = next_clear(orders->used_words[2], level3, i == start / WORD_BITS ? start : i * WORD_BITS);
        if (above == UINT32_MAX)
            return UINT32_MAX;
        word = next_clear(orders->used_words[1], level2, above * WORD_BITS);
    }
    return next_clear(orders->used_words[0], level1, word * WORD_BITS);
}

uint64_t orders_id_after(const orders_t *orders, uint64_t order_id, uint32_t more)
{
    uint64_t next = order_id + 1;
    uint32_t from = (uint32_t)(next & orders->mask);

    if (orders->open + more > orders->mask)
        return 0;
    if (LIKELY(orders->lines[from].id == 0))
        return next < ORDER_ID_MAX ? next : 0;
    uint32_t line = next_free_line(orders, from);
    if (line == UINT32_MAX)
        line = next_free_line(orders, 0);
    INVARIANT(line != UINT32_MAX);
    next += (line - from) & orders->mask;
    return next < ORDER_ID_MAX ? next : 0;
}

uint64_t orders_next_id(const orders_t *orders)
{
    return orders_id_after(orders, orders->last_id, 0);
}

static void mark_used(orders_t *orders, uint32_t line)
{
    uint32_t index = line;
    for (int level = 0; level < 3; level++) {
        uint64_t *word = &orders->used_words[level][index / WORD_BITS];
        *word |= UINT64_C(1) << (index % WORD_BITS);
        if (*word != ~UINT64_C(0))
            return;
        index /= WORD_BITS;
    }
}

static void mark_free(orders_t *orders, uint32_t line)
{
    uint32_t index = line;
    for (int level = 0; level < 3; level++) {
        uint64_t *word = &orders->used_words[level][index / WORD_BITS];
        bool was_full = *word == ~UINT64_C(0);
        *word &= ~(UINT64_C(1) << (index % WORD_BITS));
        if (!was_full)
            return;
        index /= WORD_BITS;
    }
}

order_line_t *orders_take(orders_t *orders, uint64_t order_id)
{
    order_line_t *line = orders_line(orders, order_id);

    INVARIANT(line->id == 0);
    INVARIANT(order_id > orders->last_id);
    line->id = order_id;
    line->replaces = LINE_NONE;
    orders->last_id = order_id;
    orders->open++;
    mark_used(orders, (uint32_t)(order_id & orders->mask));
    return line;
}

void orders_free(orders_t *orders, order_line_t *line)
{
    INVARIANT(line->id != 0);
    INVARIANT(line->replaces == LINE_NONE);
    INVARIANT(line->hold_units == 0);
    mark_free(orders, (uint32_t)(line->id & orders->mask));
    line->id = 0;
    orders->open--;
}

/* Links hold line index + 1; 0 ends a list, so zeroed memory is an empty list. */
void orders_link(orders_t *orders, const order_line_t *line, uint32_t *head)
{
    uint32_t index = (uint32_t)(line->id & orders->mask) + 1;
    order_link_t *link = &orders->links[index - 1];

    link->next = *head;
    link->prev = 0;
    if (*head != 0)
        orders->links[*head - 1].prev = index;
    *head = index;
}

void orders_unlink(orders_t *orders, const order_line_t *line, uint32_t *head)
{
    uint32_t index = (uint32_t)(line->id & orders->mask) + 1;
    const order_link_t *link = &orders->links[index - 1];

    if (link->prev != 0)
        orders->links[link->prev - 1].next = link->next;
    else {
        INVARIANT(*head == index);
        *head = link->next;
    }
    if (link->next != 0)
        orders->links[link->next - 1].prev = link->prev;
}

uint64_t orders_client_hash(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t client_id)
{
    uint64_t hash = mix64(client_id ^ orders->seed, (uint64_t)account << 32 | instrument);
    return hash == 0 ? 1 : hash;
}

void orders_prefetch_client(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t client_id)
{
    PREFETCH(&orders->clients[orders_client_hash(orders, account, instrument, client_id) & orders->clients_mask]);
}

static bool owns_client_id(const orders_t *orders, const order_line_t *line, uint64_t client_id)
{
    if (line->client_id == client_id)
        return true;
    const order_replaces_t *replaces = orders_replaces(orders, line);
    for (uint32_t i = 0; replaces != NULL && i < replaces->count; i++)
        if (replaces->versions[i].client_id == client_id)
            return true;
    return false;
}

order_line_t *orders_find_client(const orders_t *orders, uint32_t account, uint32_t instrument, uint64_t client_id)
{
    uint64_t hash = orders_client_hash(orders, account, instrument, client_id);
    order_line_t *newest = NULL;

    for (uint64_t i = hash & orders->clients_mask; orders->clients[i].hash != 0; i = (i + 1) & orders->clients_mask) {
        if (orders->clients[i].hash != hash)
            continue;
        order_line_t *line = orders_line(orders, orders->clients[i].order_id);
        if (line->account == account && line->instrument == instrument && owns_client_id(orders, line, client_id) &&
            (newest == NULL || line->id > newest->id))
            newest = line;
    }
    return newest;
}

void orders_register_client(orders_t *orders, const order_line_t *line, uint64_t client_id)
{
    if (client_id == 0)
        return;
    uint64_t hash = orders_client_hash(orders, line->account, line->instrument, client_id);
    uint64_t i = hash & orders->clients_mask;

    /* Ends: at most one entry an order and one a replace in flight, so the table is less than half full. */
    while (orders->clients[i].hash != 0)
        i = (i + 1) & orders->clients_mask;
    orders->clients[i] = (client_entry_t){.hash = hash, .order_id = line->id};
}

void orders_forget_client(orders_t *orders, const order_line_t *line, uint64_t client_id)
{
    if (client_id == 0)
        return;
    uint64_t mask = orders->clients_mask;
    uint64_t hash = orders_client_hash(orders, line->account, line->instrument, client_id);
    uint64_t hole = hash & mask;

    while (orders->clients[hole].hash != hash || orders->clients[hole].order_id != line->id) {
        INVARIANT(orders->clients[hole].hash != 0);
        hole = (hole + 1) & mask;
    }
    /* Close the gap, so that no tombstones gather: move back every later entry of the run that may stand in the hole. */
    for (uint64_t next = (hole + 1) & mask; orders->clients[next].hash != 0; next = (next + 1) & mask) {
        uint64_t home = orders->clients[next].hash & mask;
        if (((next - home) & mask) >= ((next - hole) & mask)) {
            orders->clients[hole] = orders->clients[next];
            hole = next;
        }
    }
    orders->clients[hole] = (client_entry_t){0, 0};
}

bool orders_can_replace(const orders_t *orders, const order_line_t *line)
{
    const order_replaces_t *replaces = orders_replaces(orders, line);
    if (replaces != NULL)
        return replaces->count < REPLACES_IN_FLIGHT_MAX;
    return orders->replaces_free != LINE_NONE || orders->replaces_used < orders->replaces_max;
}

void orders_push_replace(orders_t *orders, order_line_t *line, const replace_version_t *version)
{
    if (line->replaces == LINE_NONE) {
        uint32_t index = orders->replaces_free;
        if (index != LINE_NONE)
            orders->replaces_free = orders->replaces[index].next_free;
        else
            index = orders->replaces_used++;
        INVARIANT(index < orders->replaces_max);
        orders->replaces[index].count = 0;
        line->replaces = index;
    }
    order_replaces_t *replaces = &orders->replaces[line->replaces];
    INVARIANT(replaces->count < REPLACES_IN_FLIGHT_MAX);
    replaces->versions[replaces->count++] = *version;
}

replace_version_t orders_pop_replace(orders_t *orders, order_line_t *line)
{
    INVARIANT(line->replaces != LINE_NONE);
    order_replaces_t *replaces = &orders->replaces[line->replaces];
    INVARIANT(replaces->count > 0);
    replace_version_t first = replaces->versions[0];

    replaces->count--;
    for (uint32_t i = 0; i < replaces->count; i++) /* mostly none */
        replaces->versions[i] = replaces->versions[i + 1];
    if (replaces->count == 0) {
        replaces->next_free = orders->replaces_free;
        orders->replaces_free = line->replaces;
        line->replaces = LINE_NONE;
    }
    return first;
}
