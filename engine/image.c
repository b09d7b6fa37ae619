#include "image.h"

#include <string.h>
#include <sys/mman.h>

#include "matcher_state.h"
#include "sequencer_state.h"

#define IMAGE_VERSION 2 /* to be raised when bytes change their meaning and no size tells */

/* Of each partition. */
typedef struct image_orders {
    uint64_t last_id;
    uint32_t open;
    uint32_t extras;
    uint32_t replaces_free;
    uint32_t replaces_used;
    int64_t marked;
} image_orders_t;

typedef struct image_head {
    uint64_t accounts_used;
    uint64_t accounts_hash[2];
    uint64_t exposures_used;
    source_t sources[SOURCES_MAX];
    uint32_t assets_used, instruments_used, accounts_ids_used, keys_used, sessions_used;
    uint32_t killed_firms[KILLED_FIRMS_MAX];
    uint32_t killed_all;
    uint32_t lists_used, lists_free, lists_open;
    list_queue_t lists_due;
    disconnects_t disconnects;
    uint32_t timed;
    uint64_t lists_last_id;
    int64_t position;
    uint64_t last_ts;
    uint64_t epoch;
    uint64_t mark_index;
    uint64_t last_tick_ts;
    uint64_t last_hash_ts;
    int64_t last_hash_position;
    int64_t next_report0;
    uint64_t paused;
    image_orders_t orders[PARTITIONS_MAX];
} image_head_t;

/* A field added to one of these is state that an image has to carry: see to it below, then change the size here. */
_Static_assert(sizeof(accounts_t) == 64, "image_head_t carries what stands outside the arena");
_Static_assert(sizeof(registry_t) == 7 * 8 + SOURCES_MAX * 16 + 11 * 4 + KILLED_FIRMS_MAX * 4 + 4, "image_head_t");
_Static_assert(sizeof(exposures_t) == 40, "image_head_t");
_Static_assert(sizeof(lists_t) == 48, "image_head_t");
_Static_assert(sizeof(quotes_t) == 40, "image_head_t");
_Static_assert(sizeof(orders_t) == 120, "image_head_t");
_Static_assert(sizeof(settlement_t) == 32, "image_orders_t");
_Static_assert(offsetof(struct sequencer, log) - offsetof(struct sequencer, position) == 11 * 8, "image_head_t");

static uint64_t stir(uint64_t hash, uint64_t value)
{
    return (uint64_t)(state_hash_mix(hash, value, 0, 1) >> 32);
}

uint64_t image_layout(void)
{
    static const size_t sizes[] = {
        sizeof(image_head_t), sizeof(balance_t),       sizeof(asset_t),          sizeof(instrument_t),   sizeof(account_t),
        sizeof(api_key_t),    sizeof(session_t),       sizeof(fee_rates_t),      sizeof(exposure_t),     sizeof(order_list_t),
        sizeof(quote_record_t), sizeof(order_line_t),  sizeof(order_terms_t),    sizeof(order_link_t),   sizeof(order_replaces_t),
        sizeof(client_entry_t), sizeof(matcher_state_t), sizeof(matcher_session_t), sizeof(matcher_account_t), sizeof(book_t),
        sizeof(order_t),      sizeof(account_link_t),  sizeof(order_rest_t),    sizeof(extra_t),          sizeof(quote_entry_t),  sizeof(tree_leaf_t),
        sizeof(tree_fork_t),  sizeof(level_t),
    };
    uint64_t hash = stir(IMAGE_VERSION, ORDERS_SCHEMA_VERSION);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        hash = stir(hash, sizes[i]);
    return hash;
}

uint64_t image_head_size(void)
{
    return sizeof(image_head_t);
}

/* Anonymous private pages that are given back read as zeros. */
static void clear(void *arena, uint64_t size)
{
    int result = madvise(arena, size, MADV_DONTNEED);
    INVARIANT(result == 0);
}

/* ---- sequencer --------------------------------------------------------------------------------------------------------- */

static void save_registry(image_head_t *head, const registry_t *registry)
{
    memcpy(head->sources, registry->sources, sizeof(head->sources));
    memcpy(head->killed_firms, registry->killed_firms, sizeof(head->killed_firms));
    head->killed_all = registry->killed_all;
    head->assets_used = registry->assets_used;
    head->instruments_used = registry->instruments_used;
    head->accounts_ids_used = registry->accounts_used;
    head->keys_used = registry->keys_used;
    head->sessions_used = registry->sessions_used;
}

static void load_registry(registry_t *registry, const image_head_t *head)
{
    memcpy(registry->sources, head->sources, sizeof(head->sources));
    memcpy(registry->killed_firms, head->killed_firms, sizeof(head->killed_firms));
    registry->killed_all = (uint8_t)head->killed_all;
    registry->assets_used = head->assets_used;
    registry->instruments_used = head->instruments_used;
    registry->accounts_used = head->accounts_ids_used;
    registry->keys_used = head->keys_used;
    registry->sessions_used = head->sessions_used;
}

static void save_orders(image_orders_t *saved, const orders_t *orders, const settlement_t *settlement)
{
    saved->last_id = orders->last_id;
    saved->open = orders->open;
    saved->extras = orders->extras;
    saved->replaces_free = orders->replaces_free;
    saved->replaces_used = orders->replaces_used;
    saved->marked = settlement->marked;
}

static void load_orders(orders_t *orders, settlement_t *settlement, const image_orders_t *saved)
{
    orders->last_id = saved->last_id;
    orders->open = saved->open;
    orders->extras = saved->extras;
    orders->replaces_free = saved->replaces_free;
    orders->replaces_used = saved->replaces_used;
    settlement->marked = saved->marked;
    settlement->applied = saved->marked;
    settlement->noted = saved->marked;
}

bool sequencer_image_save(const sequencer_t *sequencer, void *memory)
{
    image_head_t *head = memory;

    if (sequencer->leading || sequencer->draining)
        return false;
    memset(head, 0, sizeof(*head));
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        if (sequencer->settlements[partition].applied != sequencer->settlements[partition].marked)
            return false;
        save_orders(&head->orders[partition], &sequencer->orders[partition], &sequencer->settlements[partition]);
    }
    save_registry(head, &sequencer->registry);
    head->accounts_used = sequencer->accounts.used;
    head->accounts_hash[0] = (uint64_t)sequencer->accounts.hash;
    head->accounts_hash[1] = (uint64_t)(sequencer->accounts.hash >> 64);
    head->exposures_used = sequencer->exposures.used;
    head->lists_used = sequencer->lists.used;
    head->lists_free = sequencer->lists.free;
    head->lists_open = sequencer->lists.open;
    head->lists_due = sequencer->lists.due;
    head->lists_last_id = sequencer->lists.last_id;
    head->disconnects = sequencer->disconnects;
    head->timed = sequencer->timed;
    head->position = sequencer->position;
    head->last_ts = sequencer->last_ts;
    head->epoch = sequencer->epoch;
    head->mark_index = sequencer->mark_index;
    head->last_tick_ts = sequencer->last_tick_ts;
    head->last_hash_ts = sequencer->last_hash_ts;
    head->last_hash_position = sequencer->last_hash_position;
    head->next_report0 = sequencer->next_report0;
    head->paused = sequencer->paused;
    return true;
}

void *sequencer_image_arena(const sequencer_t *sequencer, uint64_t *size)
{
    *size = sequencer->arena.size;
    return sequencer->arena.base;
}

void sequencer_image_clear(sequencer_t *sequencer)
{
    INVARIANT(sequencer->position == 0);
    clear(sequencer->arena.base, sequencer->arena.size);
}

void sequencer_image_load(sequencer_t *sequencer, const void *memory)
{
    const image_head_t *head = memory;

    INVARIANT(sequencer->log == NULL);
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++)
        load_orders(&sequencer->orders[partition], &sequencer->settlements[partition], &head->orders[partition]);
    load_registry(&sequencer->registry, head);
    sequencer->accounts.used = head->accounts_used;
    sequencer->accounts.hash = (uint128_t)head->accounts_hash[1] << 64 | head->accounts_hash[0];
    sequencer->exposures.used = head->exposures_used;
    sequencer->lists.used = head->lists_used;
    sequencer->lists.free = head->lists_free;
    sequencer->lists.open = head->lists_open;
    sequencer->lists.due = head->lists_due;
    sequencer->lists.last_id = head->lists_last_id;
    sequencer->disconnects = head->disconnects;
    sequencer->timed = head->timed;
    sequencer->position = head->position;
    sequencer->last_ts = head->last_ts;
    sequencer->epoch = head->epoch;
    sequencer->mark_index = head->mark_index;
    sequencer->last_tick_ts = head->last_tick_ts;
    sequencer->last_hash_ts = head->last_hash_ts;
    sequencer->last_hash_position = head->last_hash_position;
    sequencer->next_report0 = head->next_report0;
    sequencer->paused = head->paused;
}

/* ---- matcher --------------------------------------------------------------------------------------------------------------- */

void *matcher_image_arena(const matcher_t *matcher, uint64_t *size)
{
    *size = matcher->arena_size;
    return matcher->arena;
}

void matcher_image_clear(matcher_t *matcher)
{
    INVARIANT(matcher->state->position == 0);
    clear(matcher->arena, matcher->arena_size);
}

/* ---- runs -------------------------------------------------------------------------------------------------------------------- */

static bool page_is_zero(const uint8_t *page)
{
    const uint64_t *words = (const uint64_t *)(const void *)page;
    uint64_t any = 0;

    for (uint32_t i = 0; i < IMAGE_PAGE / sizeof(*words) && any == 0; i += 8)
        any = words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] | words[i + 5] | words[i + 6] | words[i + 7];
    return any == 0;
}

bool image_next_run(const void *arena, uint64_t size, uint64_t from, uint64_t size_max, image_run_t *run)
{
    const uint8_t *base = arena;
    uint64_t offset = from;
    uint64_t end;

    INVARIANT(from % IMAGE_PAGE == 0);
    while (offset + IMAGE_PAGE <= size && page_is_zero(base + offset))
        offset += IMAGE_PAGE;
    if (offset >= size)
        return false;
    /* The last page may be a part of one. */
    end = offset + IMAGE_PAGE;
    while (end < size && end - offset < size_max && (end + IMAGE_PAGE > size || !page_is_zero(base + end)))
        end += IMAGE_PAGE;
    *run = (image_run_t){.offset = offset, .size = (end < size ? end : size) - offset};
    return true;
}

/* ---- outputs ------------------------------------------------------------------------------------------------------------------ */

static uint128_t slot_term(const uint64_t *words, uint64_t count, uint64_t sequence)
{
    uint128_t term = 0;

    for (uint64_t i = 0; i < count; i += 4)
        term += state_hash_mix(words[i] ^ sequence * DIGEST_ID_FACTOR, words[i + 1] + i, words[i + 2], words[i + 3]);
    return term;
}

int64_t image_hash_outputs(const ring_t *ring, int64_t first, int64_t end, uint64_t *hash)
{
    uint128_t sum = (uint128_t)hash[1] << 64 | hash[0];
    int64_t sequence = first;

    INVARIANT(ring->slot_size % 32 == 0);
    for (; sequence < end; sequence++)
        sum += slot_term(ring_slot(ring, sequence), ring->slot_size / sizeof(uint64_t), (uint64_t)sequence);
    if (first < end && !ring_still_there(ring, first))
        return 0;
    hash[0] = (uint64_t)sum;
    hash[1] = (uint64_t)(sum >> 64);
    return end - first;
}
