/* The sequencer's state recounted from scratch, and hashed whole: for tests, replays and audits, never on the hot path. */
#include "sequencer_state.h"

#include "mix.h"

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
    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        const orders_t *orders = &sequencer->orders[partition];
        uint32_t open = 0;
        for (uint64_t i = 0; i <= orders->mask; i++) {
            const order_line_t *line = &orders->lines[i];
            if (line->id == 0)
                continue;
            open++;
            lines += line->hold_units;
            if (line->hold_units < 0 || line->filled_lots > line->total_lots)
                return false;
            if (line->client_id != 0 &&
                orders_find_client(orders, line->account, line->instrument, line->client_id) != line)
                return false;
        }
        if (open != orders->open)
            return false;
    }
    return held == lines;
}

bool sequencer_check(const sequencer_t *sequencer)
{
    if (!accounts_check(&sequencer->accounts, sequencer->config.assets_max))
        return false;
    for (uint32_t asset = 1; asset <= sequencer->registry.assets_used; asset++)
        if (sequencer->accounts.asset_totals[asset] != sequencer->registry.assets[asset].external_units)
            return false;
    return holds_agree(sequencer);
}

static uint128_t orders_hash(const orders_t *orders)
{
    uint128_t hash = mix128(orders->last_id, orders->open, 0, 0);

    for (uint64_t i = 0; i <= orders->mask; i++) {
        const order_line_t *line = &orders->lines[i];
        if (line->id == 0)
            continue;
        hash += mix128(line->id, (uint64_t)line->limit_ticks, (uint64_t)line->total_lots, (uint64_t)line->filled_lots);
        hash += mix128(line->id, (uint64_t)line->hold_units, line->client_id,
                       (uint64_t)line->account << 32 | line->session);
        hash += mix128(line->id, line->instrument, line->flags, line->replaces == LINE_NONE);
    }
    return hash;
}

static uint128_t registry_hash(const registry_t *registry)
{
    uint128_t hash = mix128(registry->assets_used, registry->instruments_used, registry->accounts_used,
                            (uint64_t)registry->keys_used << 32 | registry->sessions_used);

    for (uint32_t id = 1; id <= registry->instruments_used; id++) {
        const instrument_t *instrument = &registry->instruments[id];
        hash += mix128(id, (uint64_t)instrument->reference_ticks, (uint64_t)instrument->max_ticks,
                       (uint64_t)instrument->open_orders << 8 | instrument->state);
    }
    for (uint32_t id = 1; id <= registry->accounts_used; id++)
        hash += mix128(id, registry->accounts[id].open_orders, registry->accounts[id].open_orders_max,
                       registry->accounts[id].fee_tier);
    for (uint32_t id = 1; id <= registry->sessions_used; id++) {
        const session_t *session = &registry->sessions[id];
        hash += mix128((uint64_t)id << 32 | session->account, session->version, session->last_incoming,
                       session->reports);
        hash += mix128(id, session->last_report, (uint64_t)session->bound << 16 | session->source, session->kind);
    }
    for (uint32_t id = 1; id <= registry->keys_used; id++)
        hash += mix128(id, registry->keys[id].last_timestamp, registry->keys[id].account, registry->keys[id].exists);
    for (uint32_t id = 0; id < SOURCES_MAX; id++)
        hash += mix128(id, (uint64_t)registry->sources[id].next, registry->sources[id].open, 1);
    return hash;
}

void sequencer_hash(const sequencer_t *sequencer, uint64_t out[2])
{
    uint128_t hash = sequencer->accounts.hash + registry_hash(&sequencer->registry);

    for (uint32_t partition = 1; partition <= sequencer->config.partitions; partition++) {
        hash += orders_hash(&sequencer->orders[partition]);
        hash += mix128(partition, (uint64_t)sequencer->settlements[partition].marked, 0, 2);
    }
    hash += mix128((uint64_t)sequencer->position, sequencer->last_ts, sequencer->epoch, sequencer->mark_index);
    hash += mix128((uint64_t)sequencer->next_report0, sequencer->last_tick_ts, sequencer->last_hash_ts,
                   (uint64_t)sequencer->last_hash_position);
    out[0] = (uint64_t)hash;
    out[1] = (uint64_t)(hash >> 64);
}
