/* The sequencer's state recounted from scratch, and hashed whole: for tests, replays and audits, never on the hot path. */
#include "sequencer_state.h"

#include "state_hash.h"

int64_t sequencer_open_orders(const sequencer_t *sequencer, uint32_t account, open_order_t *out, int64_t max)
{
    int64_t count = 0;

    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        const orders_t *orders = &sequencer->orders[partition];
        for (uint64_t i = 0; i <= orders->mask && count < max; i++) {
            const order_line_t *line = &orders->lines[i];
            if (line->id == 0 || (account != 0 && line->account != account))
                continue;
            out[count++] = (open_order_t){
                .order_id = line->id,
                .client_id = line->client_id,
                .limit_ticks = line->limit_ticks,
                .total_lots = line->total_lots,
                .filled_lots = line->filled_lots,
                .hold_units = line->hold_units,
                .instrument = line->instrument,
                .account = line->account,
                .session = line->session,
                .side = (line->flags & LINE_SELL) != 0 ? SIDE_SELL : SIDE_BUY,
            };
        }
    }
    return count;
}

static bool holds_agree(const sequencer_t *sequencer)
{
    const accounts_t *accounts = &sequencer->accounts;
    int128_t held = 0, lines = 0;

    for (uint64_t i = 0; i <= accounts->mask; i++)
        held += accounts->entries[i].held;
    for (uint32_t i = 0; i < sequencer->lists.used; i++)
        lines += sequencer->lists.entries[i].id == 0 ? 0 : sequencer->lists.entries[i].hold_units;
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        const orders_t *orders = &sequencer->orders[partition];
        uint32_t open = 0;
        for (uint64_t i = 0; i <= orders->mask; i++) {
            const order_line_t *line = &orders->lines[i];
            if (line->id == 0)
                continue;
            open++;
            lines += line->hold_units;
            if (line->hold_units < 0 || ((line->flags & LINE_AMOUNT) == 0 && line->filled_lots > line->total_lots))
                return false;
            /* A quote's side of now may share its client id with the one before. */
            const order_line_t *named = orders_find_client(orders, line->account, line->instrument, line->client_id);
            if (line->client_id != 0 && named != line && (named == NULL || (line->flags & LINE_QUOTE) == 0))
                return false;
        }
        if (open != orders->open)
            return false;
    }
    return held == lines;
}

/* What filters count, against the lines. */
static bool exposures_agree(const sequencer_t *sequencer)
{
    int128_t buys = 0, counted = 0;
    uint64_t orders = 0, algo = 0, icebergs = 0, lists = 0;

    for (uint64_t i = 0; i <= sequencer->exposures.mask; i++) {
        const exposure_t *exposure = &sequencer->exposures.entries[i];
        counted += exposure->buy_lots;
        orders += exposure->orders;
        algo += exposure->algo;
        icebergs += exposure->icebergs;
        lists += exposure->lists;
    }
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        const orders_t *table = &sequencer->orders[partition];
        uint32_t extras = 0;
        for (uint64_t i = 0; i <= table->mask; i++) {
            const order_line_t *line = &table->lines[i];
            if (line->id == 0)
                continue;
            extras += (line->flags & LINE_EXTRA) != 0;
            if ((line->flags & LINE_FINAL) != 0)
                continue;
            buys += line_buys(table, line);
            orders--;
            algo -= (line->flags & LINE_ALGO) != 0;
            icebergs -= (line->flags & LINE_ICEBERG) != 0;
        }
        if (extras != table->extras)
            return false;
    }
    return buys == counted && orders == 0 && algo == 0 && icebergs == 0 && lists == sequencer->lists.open;
}

bool sequencer_check(const sequencer_t *sequencer)
{
    if (!accounts_check(&sequencer->accounts, sequencer->registry.assets_used))
        return false;
    for (uint32_t asset = 1; asset <= sequencer->registry.assets_used; asset++)
        if (sequencer->accounts.asset_totals[asset] != sequencer->registry.assets[asset].external_units)
            return false;
    return holds_agree(sequencer) && exposures_agree(sequencer);
}

static uint128_t terms_hash(uint64_t id, const order_terms_t *terms)
{
    const uint64_t *words = (const uint64_t *)(const void *)terms;
    uint128_t hash = 0;

    for (uint64_t i = 0; i + 2 < sizeof(*terms) / sizeof(*words); i += 3)
        hash += state_hash_mix(id ^ i << 56, words[i], words[i + 1], words[i + 2]);
    return hash;
}

_Static_assert(sizeof(order_terms_t) % (3 * sizeof(uint64_t)) == 0, "terms_hash()");

static uint128_t line_hash(const orders_t *orders, const order_line_t *line)
{
    const order_replaces_t *replaces = orders_replaces(orders, line);
    const order_terms_t *terms = orders_terms(orders, line);
    uint128_t hash =
        state_hash_mix(line->id, (uint64_t)line->limit_ticks, (uint64_t)line->total_lots, (uint64_t)line->filled_lots);

    hash += state_hash_mix(line->id, (uint64_t)line->hold_units, line->client_id,
                           (uint64_t)line->account << 32 | line->session);
    hash += state_hash_mix(line->id, line->instrument, line->flags, replaces == NULL ? 0 : replaces->count);
    for (uint32_t i = 0; replaces != NULL && i < replaces->count; i++) {
        const replace_version_t *version = &replaces->versions[i];
        hash += state_hash_mix(line->id + i, (uint64_t)version->limit_ticks, (uint64_t)version->total_lots,
                               version->client_id ^ (uint64_t)version->display_lots);
    }
    return terms == NULL ? hash : hash + terms_hash(line->id, terms);
}

static uint128_t orders_hash(const orders_t *orders)
{
    uint128_t hash = state_hash_mix(orders->last_id, orders->open, orders->extras, 0);

    for (uint64_t i = 0; i <= orders->mask; i++)
        if (orders->lines[i].id != 0)
            hash += line_hash(orders, &orders->lines[i]);
    return hash;
}

static uint128_t exposures_hash(const exposures_t *exposures)
{
    uint128_t hash = 0;

    for (uint64_t i = 0; i <= exposures->mask; i++) {
        const exposure_t *exposure = &exposures->entries[i];
        if (exposure->instrument != 0)
            hash += state_hash_mix((uint64_t)exposure->account << 32 | exposure->instrument, (uint64_t)exposure->buy_lots,
                                   (uint64_t)exposure->orders << 32 | exposure->algo,
                                   (uint64_t)exposure->icebergs << 32 | exposure->lists);
    }
    return hash;
}

static uint128_t quotes_hash(const quotes_t *quotes)
{
    uint128_t hash = 0;

    for (uint64_t i = 0; i <= quotes->mask; i++) {
        const quote_record_t *record = &quotes->entries[i];
        uint64_t key = (uint64_t)record->account << 32 | record->instrument;
        if (record->instrument == 0)
            continue;
        hash += state_hash_mix(key, record->standing[0], record->standing[1], (uint64_t)record->set << 32 | record->index);
        for (uint32_t flight = 0; flight < record->in_flight; flight++)
            hash += state_hash_mix(key + flight, record->coming[flight][0], record->coming[flight][1], record->set);
    }
    return hash;
}

/* Pending legs are in the lines; what is due is a matter of order too. */
static uint128_t lists_hash(const lists_t *lists)
{
    uint128_t hash = state_hash_mix(lists->last_id, lists->open, lists->due.head, lists->due.tail);

    for (uint32_t i = 0; i < lists->used; i++) {
        const order_list_t *list = &lists->entries[i];
        if (list->id == 0)
            continue;
        hash += state_hash_mix(list->id, list->order_id[0], list->order_id[1], list->order_id[2]);
        hash += state_hash_mix(list->id, (uint64_t)list->hold_units, (uint64_t)list->account << 32 | list->session,
                               (uint64_t)list->type << 24 | (uint64_t)list->live << 16 | (uint64_t)list->pending << 8 |
                                   list->due);
    }
    return hash;
}

static uint128_t account_hash(uint32_t id, const account_t *account)
{
    uint128_t hash = state_hash_mix(id, (uint64_t)account->open_orders << 32 | account->open_orders_max, account->firm,
                                    account->reports << 32 | (uint64_t)account->fee_tier << 16 | (uint64_t)account->killed << 8 | account->locked);

    for (uint64_t rate = 0; rate < RATES; rate++)
        hash += state_hash_mix(id | rate << 32, account->rate_max[rate], account->rate_count[rate],
                               account->rate_window[rate]);
    return hash;
}

static uint128_t registry_hash(const registry_t *registry)
{
    uint128_t hash = state_hash_mix(registry->assets_used, registry->instruments_used, registry->accounts_used,
                            (uint64_t)registry->keys_used << 32 | registry->sessions_used);

    for (uint32_t id = 1; id <= registry->instruments_used; id++) {
        const instrument_t *instrument = &registry->instruments[id];
        hash += state_hash_mix(id, (uint64_t)instrument->reference_ticks, (uint64_t)instrument->max_ticks,
                       (uint64_t)instrument->open_orders << 8 | instrument->state);
        hash += state_hash_mix(id, instrument->killed, instrument->clocks, (uint64_t)instrument->filters.position_max);
    }
    for (uint32_t id = 1; id <= registry->accounts_used; id++)
        hash += account_hash(id, &registry->accounts[id]);
    for (uint32_t id = 1; id <= registry->sessions_used; id++) {
        const session_t *session = &registry->sessions[id];
        hash += state_hash_mix((uint64_t)id << 32 | session->account, session->version, session->last_incoming,
                       session->reports);
        hash += state_hash_mix(id, session->last_report, (uint64_t)session->bound << 16 | session->source, session->kind);
        if (session->disconnect_state != 0)
            hash += state_hash_mix(id, session->disconnect_ns, session->disconnect_state, 3);
    }
    for (uint32_t id = 1; id <= registry->keys_used; id++)
        hash += state_hash_mix(id, registry->keys[id].last_timestamp, registry->keys[id].account, registry->keys[id].exists);
    for (uint32_t id = 0; id < SOURCES_MAX; id++)
        hash += state_hash_mix(id, (uint64_t)registry->sources[id].next, registry->sources[id].open, 1);
    return hash;
}

void sequencer_hash(const sequencer_t *sequencer, uint64_t out[2])
{
    uint128_t hash = sequencer->accounts.hash + registry_hash(&sequencer->registry) +
                     exposures_hash(&sequencer->exposures) + quotes_hash(&sequencer->quotes) + lists_hash(&sequencer->lists);

    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        hash += orders_hash(&sequencer->orders[partition]);
        hash += state_hash_mix(partition, (uint64_t)sequencer->settlements[partition].marked, 0, 2);
    }
    hash += state_hash_mix((uint64_t)sequencer->position, sequencer->last_ts, sequencer->epoch,
                           sequencer->mark_index << 32 | sequencer->timed);
    hash += sequencer->paused == 0 ? 0 : state_hash_mix(sequencer->paused, 0, 0, 3);
    hash += state_hash_mix((uint64_t)sequencer->next_report0, sequencer->last_tick_ts, sequencer->last_hash_ts,
                   (uint64_t)sequencer->last_hash_position);
    out[0] = (uint64_t)hash;
    out[1] = (uint64_t)(hash >> 64);
}
