#include "sequencer_state.h"

#include <stdlib.h>
#include <string.h>

static const char *capacity_error(const sequencer_config_t *config)
{
    if (config->partitions < 1 || config->partitions >= PARTITIONS_MAX)
        return "partitions: 1 to 63";
    if (config->orders_per_partition < 64 || (config->orders_per_partition & (config->orders_per_partition - 1)) != 0)
        return "orders_per_partition: a power of two, at least 64";
    if (config->orders_per_partition > (1u << 28))
        return "orders_per_partition: at most 2^28";
    if (config->instruments_max < 1 || config->instruments_max > UINT16_MAX)
        return "instruments_max: 1 to 65535";
    if (config->accounts_max < 1 || config->balances_max < 1 || config->sessions_max < 1 || config->keys_max < 1 ||
        config->assets_max < 1 || config->open_orders_per_account_max < 1)
        return "accounts, balances, sessions, keys, assets, open orders: at least 1";
    if (config->balances_max > (1u << 30))
        return "balances_max: at most 2^30";
    if (config->accounts_max > (1u << 30))
        return "accounts_max: at most 2^30";
    return NULL;
}

static void carve(sequencer_t *sequencer)
{
    arena_t *arena = &sequencer->arena;

    accounts_carve(&sequencer->accounts, arena, sequencer->config.balances_max, sequencer->config.assets_max);
    registry_carve(&sequencer->registry, arena, &sequencer->config);
    exposures_carve(&sequencer->exposures, arena, sequencer->config.balances_max);
    lists_carve(&sequencer->lists, arena, capacity_lists(sequencer->config.orders_per_partition),
                sequencer->config.partitions);
    quotes_carve(&sequencer->quotes, arena, capacity_quotes(sequencer->config.orders_per_partition),
                 sequencer->config.partitions);
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++)
        orders_carve(&sequencer->orders[partition], arena, sequencer->config.orders_per_partition);
}

sequencer_t *sequencer_new(const sequencer_config_t *config, const char **error)
{
    *error = capacity_error(config);
    if (*error != NULL)
        return NULL;
    sequencer_t *sequencer = calloc(1, sizeof(*sequencer));
    if (sequencer == NULL) {
        *error = "out of memory";
        return NULL;
    }
    sequencer->config = *config;
    carve(sequencer);
    if (arena_map(&sequencer->arena, sequencer->arena.used) != 0) {
        free(sequencer);
        *error = "the tables do not fit in memory: lower the capacities";
        return NULL;
    }
    carve(sequencer);
    sequencer->accounts.seed = config->hash_seed;
    sequencer->exposures.seed = config->hash_seed;
    sequencer->quotes.seed = config->hash_seed;
    for (uint32_t partition = 1; partition <= config->partitions; partition++) {
        sequencer->orders[partition].seed = config->hash_seed;
        orders_init(&sequencer->orders[partition]);
    }
    return sequencer;
}

void sequencer_free(sequencer_t *sequencer)
{
    if (sequencer == NULL)
        return;
    arena_unmap(&sequencer->arena);
    free(sequencer);
}

void sequencer_attach(sequencer_t *sequencer, ring_t *log, ring_t *reports0, ring_t *replies)
{
    sequencer->log = log;
    sequencer->reports0 = reports0;
    sequencer->replies = replies;
    sequencer->busy_position = sequencer->position;
}

void sequencer_attach_reports(sequencer_t *sequencer, uint8_t partition, ring_t *reports)
{
    INVARIANT(partition >= 1);
    INVARIANT(partition <= sequencer->config.partitions);
    settlement_t *settlement = &sequencer->settlements[partition];
    int64_t due = ring_capacity(reports) / 4;

    settlement->ring = reports;
    settlement->noted = settlement->applied;
    ring_advance(reports, 1, settlement->marked);
    atomic_store_explicit(&reports->header->consumers[1].gating, 1, memory_order_release);
    if (sequencer->marks_due_at == 0 || due < sequencer->marks_due_at)
        sequencer->marks_due_at = due;
}

void sequencer_attach_ingress(sequencer_t *sequencer, uint16_t source, ring_t *ingress)
{
    INVARIANT(source >= 1);
    INVARIANT(source < SOURCES_MAX);
    sequencer->ingress[source] = ingress;
    atomic_store_explicit(&ingress->header->consumers[0].gating, 1, memory_order_release);
    if (source + 1u > sequencer->sources_attached)
        sequencer->sources_attached = source + 1u;
}

void sequencer_set_time(sequencer_t *sequencer, uint64_t now_ns)
{
    sequencer->fixed_time = now_ns;
}

/* ---- step 2: settle ------------------------------------------------------------------------------------------------ */

static void note_reports(sequencer_t *sequencer)
{
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        settlement_t *settlement = &sequencer->settlements[partition];
        settlement->noted = ring_published(settlement->ring);
    }
    sequencer->draining = true;
}

int64_t settle_some(sequencer_t *sequencer, uint8_t partition, int64_t bound, int64_t limit)
{
    settlement_t *settlement = &sequencer->settlements[partition];
    int64_t first = settlement->applied;
    int64_t last = bound - first > limit ? first + limit : bound;

    /* The ring waits for our cursor, so slots may be read in place. Two passes: the tables are larger than the caches. */
    for (int64_t sequence = first; sequence < last; sequence++)
        settle_prefetch(sequencer, partition, ring_slot(settlement->ring, sequence));
    for (int64_t sequence = first; sequence < last; sequence++)
        settle_report(sequencer, partition, ring_slot(settlement->ring, sequence));
    settlement->applied = last;
    return last - first;
}

/* Bounded by `limit`; resumes with the same noted bounds. True when everything noted is settled. */
static bool settle_noted(sequencer_t *sequencer, int64_t limit, int64_t *work)
{
    const int64_t chunk = 64;

    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        settlement_t *settlement = &sequencer->settlements[partition];
        while (settlement->applied < settlement->noted) {
            if (*work >= limit)
                return false;
            *work += settle_some(sequencer, (uint8_t)partition, settlement->noted, chunk);
        }
    }
    sequencer->draining = false;
    return true;
}

/* ---- step 4: a turn --------------------------------------------------------------------------------------------------------- */

static void store_cursors(sequencer_t *sequencer)
{
    for (uint32_t source = 0; source < sequencer->sources_attached; source++) {
        ring_t *ring = sequencer->ingress[source];
        if (ring != NULL)
            ring_advance(ring, 0, sequencer->ingress_next[source]);
    }
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++)
        ring_advance(sequencer->settlements[partition].ring, 1, sequencer->settlements[partition].marked);
}

int64_t sequencer_poll(void *state, int64_t limit)
{
    sequencer_t *sequencer = state;
    int64_t work = 0;

    if (!sequencer->leading)
        return sequencer->following ? follow_poll(sequencer, limit) : STAGE_IDLE;
    answers_release(sequencer);
    if (!sequencer->draining) {
        /* Ingress first: an order sent because of a fill is noted only if the fill was already published. */
        intake_note(sequencer);
        note_reports(sequencer);
    }
    if (!settle_noted(sequencer, limit, &work))
        return work;
    if (sequencer->held) {
        answers_release(sequencer);
        return work;
    }
    uint64_t now = log_now(sequencer);
    int64_t before = sequencer->position;
    int64_t taken = intake_take(sequencer, limit, now);
    taken += log_keep_time(sequencer, now);
    if (sequencer->position != before)
        log_publish(sequencer);
    if (taken != 0 || work != 0)
        store_cursors(sequencer);
    answers_release(sequencer);
    return work + taken;
}

/* ---- leading ------------------------------------------------------------------------------------------ */

void sequencer_lead(sequencer_t *sequencer, uint64_t epoch, uint32_t node)
{
    uint64_t now = log_now(sequencer);

    INVARIANT(!sequencer->leading);
    INVARIANT(sequencer->log->claimed == sequencer->position);
    if (sequencer->position == 0)
        log_genesis(sequencer, now);
    log_slot_t *slot = log_open(sequencer, TEMPLATE_EPOCH_START, now);
    ((epoch_start_t *)slot->block)->epoch = epoch;
    ((epoch_start_t *)slot->block)->node_id = node;
    slot->partition = PARTITION_ALL;
    log_seal(sequencer, slot);
    for (uint32_t source = 1; source < sequencer->sources_attached; source++)
        if (sequencer->ingress[source] != NULL)
            log_source_open(sequencer, (uint16_t)source, now);
    atomic_store_explicit(&sequencer->log->header->epoch, epoch, memory_order_relaxed);
    sequencer->following = false;
    sequencer->leading = true;
    log_publish(sequencer);
}

void sequencer_resume(sequencer_t *sequencer)
{
    INVARIANT(!sequencer->leading);
    INVARIANT(sequencer->log->claimed == sequencer->position);
    INVARIANT(sequencer->reports0->claimed == sequencer->next_report0);
    for (uint32_t source = 1; source < sequencer->sources_attached; source++) {
        ring_t *ring = sequencer->ingress[source];
        if (ring == NULL)
            continue;
        /* The log may know more than the cursor, which is stored after it, and the cursor of queries and duplicates that no log
         * knows: slots below either have been dealt with. */
        int64_t logged = sequencer->registry.sources[source].next;
        int64_t stored = ring_cursor(ring, 0);
        sequencer->ingress_next[source] = logged > stored ? logged : stored;
        sequencer->ingress_noted[source] = sequencer->ingress_next[source];
        ring_advance(ring, 0, sequencer->ingress_next[source]);
    }
    sequencer->leading = true;
    answers_release(sequencer);
}

void sequencer_follow(sequencer_t *sequencer)
{
    INVARIANT(!sequencer->leading);
    sequencer->following = true;
}

void sequencer_hold(sequencer_t *sequencer, bool held)
{
    sequencer->held = held;
}

/* ---- introspection --------------------------------------------------------------------------------------------------- */

int64_t sequencer_position(const sequencer_t *sequencer)
{
    return sequencer->position;
}

int64_t sequencer_settled(const sequencer_t *sequencer, uint8_t partition)
{
    return partition == PARTITION_SEQUENCER ? sequencer->next_report0 : sequencer->settlements[partition].marked;
}

uint64_t sequencer_epoch(const sequencer_t *sequencer)
{
    return sequencer->epoch;
}

uint64_t sequencer_last_ts(const sequencer_t *sequencer)
{
    return sequencer->last_ts;
}

const char *sequencer_error(const sequencer_t *sequencer)
{
    return sequencer->error;
}

int64_t sequencer_counter(const sequencer_t *sequencer, int which)
{
    INVARIANT(which >= 0 && which < SEQUENCER_COUNTERS);
    return sequencer->counters[which];
}

uint64_t sequencer_balance_changes(const sequencer_t *sequencer, uint32_t account)
{
    uint64_t changes = 0;

    for (uint32_t asset = 1; asset <= sequencer->registry.assets_used; asset++) {
        const balance_t *balance = accounts_find(&sequencer->accounts, account, asset);
        changes += balance == NULL ? 0 : balance->version;
    }
    return changes;
}

bool sequencer_asset(const sequencer_t *sequencer, uint32_t id, char *symbol, int *exponent)
{
    const asset_t *asset = registry_asset(&sequencer->registry, id);

    if (asset == NULL)
        return false;
    memcpy(symbol, asset->symbol, sizeof(asset->symbol));
    symbol[sizeof(asset->symbol)] = 0;
    *exponent = asset->exponent;
    return true;
}

bool sequencer_balance(const sequencer_t *sequencer, uint32_t account, uint32_t asset, int64_t *available, int64_t *held)
{
    const balance_t *balance = asset == 0 ? NULL : accounts_find(&sequencer->accounts, account, asset);

    *available = balance == NULL ? 0 : balance->available;
    *held = balance == NULL ? 0 : balance->held;
    return balance != NULL;
}
