/* Static filters of an instrument, and the arithmetic of prices they share: pure functions of the registry. Private to engine/. */
#ifndef BULLRING_ENGINE_FILTERS_H
#define BULLRING_ENGINE_FILTERS_H

#include "engine/sequencer_state.h"

#define BPS_WHOLE 10000
#define ICEBERG_PARTS_LIMIT 1000 /* where nothing less is set: a taker's course through one order has to end */

static inline bool is_market_order(uint8_t ord_type)
{
    return ord_type == ORD_TYPE_MARKET || ord_type == ORD_TYPE_STOP || ord_type == ORD_TYPE_TAKE_PROFIT;
}

static inline bool is_stop_order(uint8_t ord_type)
{
    return ord_type >= ORD_TYPE_STOP;
}

/* Money of a trade. False when it does not fit below 2^62. */
bool notional_of(const instrument_t *instrument, int64_t ticks, int64_t lots, int64_t *units);

verdict_t filter_price(const instrument_t *instrument, int64_t ticks);
verdict_t filter_stop_price(const instrument_t *instrument, int64_t ticks, bool market);
/* Above 0 and not below the minimum; plain market orders may have one of their own. */
verdict_t filter_min_quantity(const instrument_t *instrument, int64_t lots, bool market);
verdict_t filter_quantity(const instrument_t *instrument, int64_t lots, bool market);
/* At price 0 a bid costs nothing: the quantity itself is capped, so that no sum can overflow. */
verdict_t filter_free(const sequencer_t *sequencer, const instrument_t *instrument, int64_t ticks, int64_t lots);
/* What MaxNotional names: the maximum, where it holds, or the end of all amounts. */
int64_t notional_bound(const instrument_t *instrument, bool market);
verdict_t filter_notional(const instrument_t *instrument, int64_t ticks, int64_t lots, bool market);
verdict_t filter_amount(const instrument_t *instrument, int64_t units);
/* Against the band around `reference` (PX_NULL = none). */
verdict_t filter_band(const instrument_t *instrument, bool sell, int64_t ticks, int64_t reference);
verdict_t filter_parts(const instrument_t *instrument, int64_t lots, int64_t display_lots);
verdict_t filter_trailing(const instrument_t *instrument, uint8_t ord_type, bool sell, uint16_t delta);

/* The farthest price an order may reach in its own direction: what its hold is computed with. False without a reference, or without a
 * band where one is needed. */
bool protection_price(const instrument_t *instrument, bool sell, int64_t reference, int64_t *ticks);
/* The price around which a stop order's band lies: its stop price or the reference, moved by the trailing delta. PX_NULL = none. */
int64_t stop_base(const instrument_t *instrument, bool sell, int64_t stop_ticks, uint16_t trailing_delta);

#endif
