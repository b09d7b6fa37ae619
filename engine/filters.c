#include "filters.h"

#include "invariant.h"

/* In two steps: the product of all three may not even fit in 128 bits. */
bool notional_of(const instrument_t *instrument, int64_t ticks, int64_t lots, int64_t *units)
{
    int128_t face = (int128_t)ticks * lots;
    if (face < 0 || face >= AMOUNT_LIMIT)
        return false;
    int128_t notional = face * instrument->quote_per_tick_lot;
    if (notional >= AMOUNT_LIMIT)
        return false;
    *units = (int64_t)notional;
    return true;
}

verdict_t filter_price(const instrument_t *instrument, int64_t ticks)
{
    if (ticks == PX_NULL || ticks < instrument->min_ticks)
        return refuse_at(REJECT_CODE_INVALID_PRICE, instrument->min_ticks);
    return ticks > instrument->max_ticks ? refuse_at(REJECT_CODE_INVALID_PRICE, instrument->max_ticks) : ADMITTED;
}

verdict_t filter_stop_price(const instrument_t *instrument, int64_t ticks, bool market)
{
    if (ticks == PX_NULL)
        return ADMITTED;
    if (ticks < instrument->min_ticks)
        return refuse_at(REJECT_CODE_INVALID_STOP_PX, instrument->min_ticks);
    if (ticks > instrument->max_ticks)
        return refuse_at(REJECT_CODE_INVALID_STOP_PX, instrument->max_ticks);
    return market && ticks < 0 ? refuse_at(REJECT_CODE_INVALID_STOP_PX, 0) : ADMITTED;
}

verdict_t filter_min_quantity(const instrument_t *instrument, int64_t lots, bool market)
{
    const instrument_filters_t *filters = &instrument->filters;
    int64_t least = market && filters->market_min_lots > 0 ? filters->market_min_lots : instrument->min_lots;

    if (lots <= 0)
        return refuse_at(REJECT_CODE_INVALID_QTY, least);
    return lots < least ? refuse_at(REJECT_CODE_MIN_QTY, least) : ADMITTED;
}

verdict_t filter_quantity(const instrument_t *instrument, int64_t lots, bool market)
{
    const instrument_filters_t *filters = &instrument->filters;
    int64_t most = market && filters->market_max_lots > 0 ? filters->market_max_lots : instrument->max_lots;
    verdict_t verdict = filter_min_quantity(instrument, lots, market);

    if (verdict.rejected)
        return verdict;
    return lots > most ? refuse_at(REJECT_CODE_MAX_QTY, most) : ADMITTED;
}

verdict_t filter_free(const sequencer_t *sequencer, const instrument_t *instrument, int64_t ticks, int64_t lots)
{
    if (LIKELY(ticks != 0))
        return ADMITTED;
    int64_t free = AMOUNT_LIMIT / sequencer->config.orders_per_partition;
    int64_t most = free < instrument->max_lots ? free : instrument->max_lots;
    return lots > most ? refuse_at(REJECT_CODE_MAX_QTY, most) : ADMITTED;
}

int64_t notional_bound(const instrument_t *instrument, bool market)
{
    bool set = instrument->max_notional != 0 &&
               (!market || (instrument->filters.notional_flags & NOTIONAL_FLAGS_MARKET_MAX) != 0);
    return set ? instrument->max_notional : AMOUNT_LIMIT - 1;
}

verdict_t filter_notional(const instrument_t *instrument, int64_t ticks, int64_t lots, bool market)
{
    uint8_t flags = instrument->filters.notional_flags;
    int64_t most = notional_bound(instrument, market);
    int64_t least = market && (flags & NOTIONAL_FLAGS_MARKET_MIN) == 0 ? 0 : instrument->min_notional;
    int64_t notional = 0;

    if (!notional_of(instrument, ticks, lots, &notional) || notional > most)
        return refuse_at(REJECT_CODE_MAX_NOTIONAL, most);
    if (notional < least)
        return refuse_at(REJECT_CODE_MIN_NOTIONAL, least);
    /* What a sell order delivers must be an amount too. */
    if ((int128_t)lots * instrument->base_per_lot >= AMOUNT_LIMIT)
        return refuse_at(REJECT_CODE_MAX_NOTIONAL, most);
    return ADMITTED;
}

verdict_t filter_amount(const instrument_t *instrument, int64_t units)
{
    uint8_t flags = instrument->filters.notional_flags;

    if (units > notional_bound(instrument, true))
        return refuse_at(REJECT_CODE_MAX_NOTIONAL, notional_bound(instrument, true));
    if ((flags & NOTIONAL_FLAGS_MARKET_MIN) != 0 && units < instrument->min_notional)
        return refuse_at(REJECT_CODE_MIN_NOTIONAL, instrument->min_notional);
    return ADMITTED;
}

static int64_t clamped(int128_t ticks)
{
    return ticks > INT64_MAX ? INT64_MAX : ticks < INT64_MIN + 1 ? INT64_MIN + 1 : (int64_t)ticks;
}

/* price x bps / 10^4, rounded down or up. All but absurd prices fit in 64 bits, where the division is a multiplication. */
static int64_t scaled_down(int64_t price, int64_t bps)
{
    int64_t small;
    if (LIKELY(!__builtin_mul_overflow(price, bps, &small)))
        return small / BPS_WHOLE - (small % BPS_WHOLE < 0);
    int128_t product = (int128_t)price * bps;
    return clamped(product / BPS_WHOLE - (product % BPS_WHOLE < 0));
}

static int64_t scaled_up(int64_t price, int64_t bps)
{
    int64_t small;
    if (LIKELY(!__builtin_mul_overflow(price, bps, &small)))
        return small / BPS_WHOLE + (small % BPS_WHOLE > 0);
    int128_t product = (int128_t)price * bps;
    return clamped(product / BPS_WHOLE + (product % BPS_WHOLE > 0));
}

verdict_t filter_band(const instrument_t *instrument, bool sell, int64_t ticks, int64_t reference)
{
    uint32_t up = sell ? instrument->filters.ask_up_bps : instrument->band_up_bps;
    uint32_t down = sell ? instrument->band_down_bps : instrument->filters.bid_down_bps;

    if (reference == PX_NULL)
        return ADMITTED;
    int64_t highest = up == 0 ? INT64_MAX : scaled_down(reference, BPS_WHOLE + (int64_t)up);
    if (ticks > highest)
        return refuse_at(REJECT_CODE_PRICE_BAND, highest < instrument->max_ticks ? highest : instrument->max_ticks);
    int64_t lowest = down == 0 ? INT64_MIN : scaled_up(reference, BPS_WHOLE - (int64_t)down);
    if (ticks < lowest)
        return refuse_at(REJECT_CODE_PRICE_BAND, lowest > instrument->min_ticks ? lowest : instrument->min_ticks);
    return ADMITTED;
}

verdict_t filter_parts(const instrument_t *instrument, int64_t lots, int64_t display_lots)
{
    uint16_t set = instrument->filters.iceberg_parts_max;
    int64_t most = set != 0 && set < ICEBERG_PARTS_LIMIT ? set : ICEBERG_PARTS_LIMIT;

    return (lots - 1) / display_lots + 1 > most ? refuse_at(REJECT_CODE_ICEBERG_PARTS, most) : ADMITTED;
}

verdict_t filter_trailing(const instrument_t *instrument, uint8_t ord_type, bool sell, uint16_t delta)
{
    const instrument_filters_t *filters = &instrument->filters;
    bool stop = ord_type == ORD_TYPE_STOP || ord_type == ORD_TYPE_STOP_LIMIT;
    bool above = stop != sell;
    uint16_t least = above ? filters->trailing_above_min : filters->trailing_below_min;
    uint16_t most = above ? filters->trailing_above_max : filters->trailing_below_max;

    if (delta == 0)
        return ADMITTED;
    if (delta < least)
        return refuse_at(REJECT_CODE_INVALID_TRAILING_DELTA, least);
    return most != 0 && delta > most ? refuse_at(REJECT_CODE_INVALID_TRAILING_DELTA, most) : ADMITTED;
}

bool protection_price(const instrument_t *instrument, bool sell, int64_t reference, int64_t *ticks)
{
    if (!sell) {
        if (reference == PX_NULL || instrument->band_up_bps == 0)
            return false;
        int64_t highest = scaled_down(reference, BPS_WHOLE + (int64_t)instrument->band_up_bps);
        *ticks = highest < instrument->max_ticks ? highest : instrument->max_ticks;
        return true;
    }
    *ticks = instrument->min_ticks;
    if (reference == PX_NULL || instrument->band_down_bps == 0)
        return true;
    int64_t lowest = scaled_up(reference, BPS_WHOLE - (int64_t)instrument->band_down_bps);
    *ticks = lowest > instrument->min_ticks ? lowest : instrument->min_ticks;
    return true;
}

int64_t stop_base(const instrument_t *instrument, bool sell, int64_t stop_ticks, uint16_t trailing_delta)
{
    int64_t base = stop_ticks != PX_NULL ? stop_ticks : instrument->reference_ticks;

    if (base == PX_NULL || trailing_delta == 0)
        return base;
    return sell ? scaled_down(base, BPS_WHOLE - (int64_t)trailing_delta)
                : scaled_up(base, BPS_WHOLE + (int64_t)trailing_delta);
}
