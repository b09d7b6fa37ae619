/* Administration of assets and instruments: what may be set, and setting it. */
#include "control.h"

#include <string.h>

/* ---- checks ----------------------------------------------------------------------------------------------------------------------- */

static verdict_t admit_asset(const sequencer_t *sequencer, asset_add_t *request)
{
    const registry_t *registry = &sequencer->registry;
    bool exists = request->asset_id != 0 && registry_asset(registry, request->asset_id) != NULL;

    if (request->symbol[0] == 0)
        return refuse(REJECT_CODE_INVALID_SYMBOL);
    if (request->exponent < -18 || request->exponent > 0)
        return refuse(REJECT_CODE_INVALID_SCALE);
    for (uint32_t id = 1; id <= registry->assets_used; id++)
        if (memcmp(registry->assets[id].symbol, request->symbol, sizeof(request->symbol)) == 0)
            return refuse(REJECT_CODE_ALREADY_EXISTS);
    if (!accounts_has_room(&sequencer->accounts, 2)) /* the venue's own balances */
        return refuse(REJECT_CODE_BALANCE_CAPACITY);
    return choose_id(&request->asset_id, registry->assets_used, registry->assets_max, exists);
}

static verdict_t admit_instrument(const sequencer_t *sequencer, instrument_add_t *request)
{
    const registry_t *registry = &sequencer->registry;
    bool exists = request->instrument_id != 0 && registry_instrument(registry, request->instrument_id) != NULL;

    if (request->symbol[0] == 0)
        return refuse(REJECT_CODE_INVALID_SYMBOL);
    for (uint32_t id = 1; id <= registry->instruments_used; id++)
        if (memcmp(registry->instruments[id].symbol, request->symbol, sizeof(request->symbol)) == 0)
            return refuse(REJECT_CODE_ALREADY_EXISTS);
    if (registry_asset(registry, request->base_asset_id) == NULL ||
        registry_asset(registry, request->quote_asset_id) == NULL || request->base_asset_id == request->quote_asset_id)
        return refuse(REJECT_CODE_UNKNOWN_ASSET);
    if (request->tick_size <= 0 || request->lot_size <= 0 || request->quote_per_tick_lot <= 0 ||
        request->base_per_lot <= 0)
        return refuse(REJECT_CODE_INVALID_SCALE);
    verdict_t verdict =
        choose_id(&request->instrument_id, registry->instruments_used, registry->instruments_max, exists);
    if (verdict.rejected)
        return verdict;
    if (request->assigned_partition == 0)
        request->assigned_partition = (uint8_t)((request->instrument_id - 1) % sequencer->config.partitions + 1);
    return request->assigned_partition > sequencer->config.partitions
               ? refuse_at(REJECT_CODE_OUT_OF_RANGE, sequencer->config.partitions)
               : ADMITTED;
}

static verdict_t admit_limits(const registry_t *registry, const instrument_limits_t *request)
{
    if (registry_instrument(registry, request->instrument_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    if (request->min_qty < 1 || request->max_qty < request->min_qty || request->min_notional < 0 ||
        request->max_notional < 0 || (request->max_notional != 0 && request->max_notional < request->min_notional) ||
        request->min_px < 0 || request->max_px < request->min_px || request->band_down_bps > 10000)
        return refuse(REJECT_CODE_OUT_OF_RANGE);
    if (request->reference_px != PX_NULL && request->reference_px < 0)
        return refuse(REJECT_CODE_OUT_OF_RANGE);
    return ADMITTED;
}

static verdict_t admit_rules(const registry_t *registry, const instrument_rules_t *request)
{
    if (registry_instrument(registry, request->instrument_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    if (request->market_min_qty < 0 || request->market_max_qty < 0 ||
        (request->market_max_qty != 0 && request->market_max_qty < request->market_min_qty) || request->position_max < 0)
        return refuse(REJECT_CODE_OUT_OF_RANGE);
    bool above = request->trailing_above_max == 0 || request->trailing_above_max >= request->trailing_above_min;
    bool below = request->trailing_below_max == 0 || request->trailing_below_max >= request->trailing_below_min;
    if (!above || !below || request->trailing_above_max > TRAILING_DELTA_MAX || request->trailing_below_max > TRAILING_DELTA_MAX)
        return refuse_at(REJECT_CODE_OUT_OF_RANGE, TRAILING_DELTA_MAX);
    if (request->bid_down_bps > BPS_WHOLE)
        return refuse_at(REJECT_CODE_OUT_OF_RANGE, BPS_WHOLE);
    if (request->day_end_second >= SECONDS_PER_DAY)
        return refuse_at(REJECT_CODE_OUT_OF_RANGE, SECONDS_PER_DAY - 1);
    return ADMITTED;
}

static verdict_t admit_volatility(const registry_t *registry, const instrument_volatility_t *request)
{
    if (registry_instrument(registry, request->instrument_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    return request->down_bps > BPS_WHOLE ? refuse_at(REJECT_CODE_OUT_OF_RANGE, BPS_WHOLE) : ADMITTED;
}

static verdict_t admit_schedule(const registry_t *registry, const instrument_schedule_t *request)
{
    if (registry_instrument(registry, request->instrument_id) == NULL)
        return refuse(REJECT_CODE_UNKNOWN_INSTRUMENT);
    if (request->entry >= SCHEDULE_ENTRIES)
        return refuse_at(REJECT_CODE_OUT_OF_RANGE, SCHEDULE_ENTRIES - 1);
    return request->second_of_day >= SECONDS_PER_DAY ? refuse_at(REJECT_CODE_OUT_OF_RANGE, SECONDS_PER_DAY - 1) : ADMITTED;
}

bool instrument_admit(const sequencer_t *sequencer, log_slot_t *slot, verdict_t *verdict)
{
    const registry_t *registry = &sequencer->registry;
    void *block = slot->block;

    switch (slot->template_id) {
    case TEMPLATE_ASSET_ADD:
        *verdict = admit_asset(sequencer, block);
        return true;
    case TEMPLATE_INSTRUMENT_ADD:
        *verdict = admit_instrument(sequencer, block);
        return true;
    case TEMPLATE_INSTRUMENT_LIMITS:
        *verdict = admit_limits(registry, block);
        return true;
    case TEMPLATE_INSTRUMENT_STATE:
        *verdict = registry_instrument(registry, ((instrument_state_t *)block)->instrument_id) == NULL
                       ? refuse(REJECT_CODE_UNKNOWN_INSTRUMENT)
                       : ADMITTED;
        return true;
    case TEMPLATE_INSTRUMENT_RULES:
        *verdict = admit_rules(registry, block);
        return true;
    case TEMPLATE_INSTRUMENT_VOLATILITY:
        *verdict = admit_volatility(registry, block);
        return true;
    case TEMPLATE_INSTRUMENT_SCHEDULE:
        *verdict = admit_schedule(registry, block);
        return true;
    default:
        return false;
    }
}

/* ---- effects ---------------------------------------------------------------------------------------------------------------------- */

static void apply_asset(sequencer_t *sequencer, const asset_add_t *request)
{
    registry_t *registry = &sequencer->registry;
    asset_t *asset = &registry->assets[request->asset_id];

    memcpy(asset->symbol, request->symbol, sizeof(asset->symbol));
    asset->exponent = request->exponent;
    asset->exists = 1;
    if (request->asset_id > registry->assets_used)
        registry->assets_used = request->asset_id;
    /* The venue's entries exist from the start, so that booking a fee never needs room. */
    (void)accounts_obtain(&sequencer->accounts, ACCOUNT_VENUE, request->asset_id);
    (void)accounts_obtain(&sequencer->accounts, ACCOUNT_DUST, request->asset_id);
}

static void apply_instrument(registry_t *registry, const instrument_add_t *request)
{
    instrument_t *instrument = &registry->instruments[request->instrument_id];

    *instrument = (instrument_t){
        .tick_size = request->tick_size,
        .lot_size = request->lot_size,
        .quote_per_tick_lot = request->quote_per_tick_lot,
        .base_per_lot = request->base_per_lot,
        .min_lots = 1,
        .max_lots = AMOUNT_LIMIT - 1,
        .min_ticks = 1,
        .max_ticks = AMOUNT_LIMIT - 1,
        .reference_ticks = PX_NULL,
        .base_asset = request->base_asset_id,
        .quote_asset = request->quote_asset_id,
        .partition = request->assigned_partition,
        .exists = 1,
        .type = request->instrument_type,
        .state = MARKET_STATE_CONTINUOUS,
        .filters = {.notional_flags = NOTIONAL_FLAGS_MASK},
        .price_exponent = request->price_exponent,
        .quantity_exponent = request->qty_exponent,
    };
    memcpy(instrument->symbol, request->symbol, sizeof(instrument->symbol));
    if (request->instrument_id > registry->instruments_used)
        registry->instruments_used = request->instrument_id;
}

static void apply_limits(registry_t *registry, const instrument_limits_t *request)
{
    instrument_t *instrument = &registry->instruments[request->instrument_id];

    instrument->min_lots = request->min_qty;
    instrument->max_lots = request->max_qty;
    instrument->min_notional = request->min_notional;
    instrument->max_notional = request->max_notional;
    instrument->min_ticks = request->min_px;
    instrument->max_ticks = request->max_px;
    instrument->band_up_bps = request->band_up_bps;
    instrument->band_down_bps = request->band_down_bps;
    if (!instrument->traded)
        instrument->reference_ticks = request->reference_px;
}

static void apply_rules(registry_t *registry, const instrument_rules_t *request)
{
    registry->instruments[request->instrument_id].filters = (instrument_filters_t){
        .market_min_lots = request->market_min_qty,
        .market_max_lots = request->market_max_qty,
        .position_max = request->position_max,
        .open_orders_max = request->open_orders_max,
        .algo_orders_max = request->algo_orders_max,
        .iceberg_orders_max = request->iceberg_orders_max,
        .order_lists_max = request->order_lists_max,
        .bid_down_bps = request->bid_down_bps,
        .ask_up_bps = request->ask_up_bps,
        .day_end_second = request->day_end_second,
        .amends_max = request->amends_max,
        .iceberg_parts_max = request->iceberg_parts_max,
        .trailing_above_min = request->trailing_above_min,
        .trailing_above_max = request->trailing_above_max,
        .trailing_below_min = request->trailing_below_min,
        .trailing_below_max = request->trailing_below_max,
        .stp_modes = request->stp_modes,
        .notional_flags = request->notional_flags,
    };
}

/* The matcher's business; but ticks have to come closely while there is a clock to be watched. */
static void apply_clock(sequencer_t *sequencer, instrument_t *instrument, uint16_t clock, bool on)
{
    sequencer->timed -= (instrument->clocks & clock) != 0;
    instrument->clocks = (uint16_t)((instrument->clocks & ~clock) | (on ? clock : 0));
    sequencer->timed += on;
}

uint32_t instrument_apply(sequencer_t *sequencer, uint16_t template_id, const void *block)
{
    registry_t *registry = &sequencer->registry;
    const instrument_volatility_t *volatility = block;
    const instrument_schedule_t *schedule = block;

    switch (template_id) {
    case TEMPLATE_ASSET_ADD:
        apply_asset(sequencer, block);
        return ((const asset_add_t *)block)->asset_id;
    case TEMPLATE_INSTRUMENT_ADD:
        apply_instrument(registry, block);
        return ((const instrument_add_t *)block)->instrument_id;
    case TEMPLATE_INSTRUMENT_LIMITS:
        apply_limits(registry, block);
        return ((const instrument_limits_t *)block)->instrument_id;
    case TEMPLATE_INSTRUMENT_RULES:
        apply_rules(registry, block);
        return ((const instrument_rules_t *)block)->instrument_id;
    case TEMPLATE_INSTRUMENT_VOLATILITY:
        apply_clock(sequencer, &registry->instruments[volatility->instrument_id], CLOCK_VOLATILITY,
                    volatility->up_bps != 0 || volatility->down_bps != 0);
        return volatility->instrument_id;
    case TEMPLATE_INSTRUMENT_SCHEDULE:
        apply_clock(sequencer, &registry->instruments[schedule->instrument_id], (uint16_t)(1u << schedule->entry),
                    schedule->active != 0);
        return schedule->instrument_id;
    default:
        INVARIANT(template_id == TEMPLATE_INSTRUMENT_STATE);
        return ((const instrument_state_t *)block)->instrument_id; /* the matcher's; settled when it reports */
    }
}
