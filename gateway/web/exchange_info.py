"""exchangeInfo and myFilters: what the engine enforces, said in the API's filters."""

from __future__ import annotations

from typing import Any

from gateway.web.api import SYMBOL_OPTIONAL, SYMBOL_REQUIRED, SYMBOLS, Call, Endpoint, Kind, Param, Security
from gateway.web.decimals import DECIMALS, to_text
from gateway.web.errors import ApiError, bad_symbol, combination
from gateway.web.order_request import TYPES
from gateway.web.orders import STP_MODES
from gateway.web.reference import Instrument, Reference
from ringbuf.wire import messages as wire

BPS_EXPONENT = -4
NO_BOUND = "1000000"  # of a multiplier whose filter is off upwards
TRAILING_MAX = 9999
ICEBERG_PARTS_MAX = 1_000_000_000
AVG_PRICE_MINUTES = 0  # 0 = the last price
ORDER_TYPES = list(TYPES)


def filters(reference: Reference, instrument: Instrument, open_orders_max: int) -> list[dict[str, Any]]:
    """Return the filters of a pair; PRICE_FILTER is the first, some clients rely on it."""
    limits = instrument.limits
    max_notional = limits.max_notional or (1 << 62) - 1
    rows: list[dict[str, Any]] = [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": instrument.price_text(limits.min_px),
            "maxPrice": instrument.price_text(limits.max_px),
            "tickSize": instrument.price_text(1),
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": instrument.qty_text(limits.min_qty),
            "maxQty": instrument.qty_text(limits.max_qty),
            "stepSize": instrument.qty_text(1),
        },
        {"filterType": "ICEBERG_PARTS", "limit": limits.iceberg_parts_max or ICEBERG_PARTS_MAX},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": instrument.qty_text(limits.market_min_qty or limits.min_qty),
            "maxQty": instrument.qty_text(limits.market_max_qty or limits.max_qty),
            "stepSize": instrument.qty_text(1),
        },
        {
            "filterType": "TRAILING_DELTA",
            "minTrailingAboveDelta": limits.trailing_above_min or 1,
            "maxTrailingAboveDelta": limits.trailing_above_max or TRAILING_MAX,
            "minTrailingBelowDelta": limits.trailing_below_min or 1,
            "maxTrailingBelowDelta": limits.trailing_below_max or TRAILING_MAX,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": _up(limits.band_up_bps),
            "bidMultiplierDown": _down(limits.bid_down_bps),
            "askMultiplierUp": _up(limits.ask_up_bps),
            "askMultiplierDown": _down(limits.band_down_bps),
            "avgPriceMins": AVG_PRICE_MINUTES,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": reference.quote_text(instrument, limits.min_notional),
            "applyMinToMarket": bool(limits.notional_flags & wire.NotionalFlags.MARKET_MIN),
            "maxNotional": reference.quote_text(instrument, max_notional),
            "applyMaxToMarket": bool(limits.notional_flags & wire.NotionalFlags.MARKET_MAX),
            "avgPriceMins": AVG_PRICE_MINUTES,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": limits.open_orders_max or open_orders_max},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": limits.algo_orders_max or open_orders_max},
    ]
    optional = (
        ("MAX_NUM_ICEBERG_ORDERS", "maxNumIcebergOrders", limits.iceberg_orders_max),
        ("MAX_NUM_ORDER_LISTS", "maxNumOrderLists", limits.order_lists_max),
        ("MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends", limits.amends_max),
    )
    rows += [{"filterType": name, field: value} for name, field, value in optional if value]
    if limits.position_max:
        base = reference.assets[instrument.base_asset]
        rows.append({"filterType": "MAX_POSITION", "maxPosition": base.text(limits.position_max)})
    return rows


def _up(bps: int) -> str:
    return to_text(10_000 + bps, BPS_EXPONENT, 4) if bps else NO_BOUND


def _down(bps: int) -> str:
    return to_text(10_000 - bps, BPS_EXPONENT, 4) if bps else "0"


def stp_modes(instrument: Instrument) -> list[str]:
    allowed = instrument.limits.stp_modes
    return [text for mode, text in STP_MODES.items() if not allowed or allowed >> mode & 1]


def symbol_info(call: Call, instrument: Instrument) -> dict[str, Any]:
    gateway = call.gateway
    reference = gateway.reference
    base, quote = reference.assets[instrument.base_asset], reference.assets[instrument.quote_asset]
    base_places, quote_places = max(DECIMALS, -base.exponent), max(DECIMALS, -quote.exponent)
    modes = stp_modes(instrument)
    return {
        "symbol": instrument.symbol,
        "status": instrument.status,
        "baseAsset": base.symbol,
        "baseAssetPrecision": base_places,
        "quoteAsset": quote.symbol,
        "quotePrecision": quote_places,
        "quoteAssetPrecision": quote_places,
        "baseCommissionPrecision": base_places,
        "quoteCommissionPrecision": quote_places,
        "orderTypes": ORDER_TYPES,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters(reference, instrument, gateway.config.open_orders_max),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE" if "NONE" in modes else modes[0],
        "allowedSelfTradePreventionModes": modes,
    }


def rate_limits(call: Call) -> list[dict[str, Any]]:
    limits = call.gateway.config.limits
    rows = (
        ("REQUEST_WEIGHT", "MINUTE", 1, limits.weight_per_minute),
        ("ORDERS", "SECOND", 10, limits.orders_per_10_seconds),
        ("ORDERS", "DAY", 1, limits.orders_per_day),
        ("RAW_REQUESTS", "MINUTE", 5, limits.requests_per_5_minutes),
    )
    return [
        {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}
        for kind, interval, number, limit in rows
        if limit
    ]


async def exchange_info(call: Call) -> dict[str, Any]:
    named = [name for name in ("symbol", "symbols", "permissions") if name in call.values]
    if len(named) > 1 or ("symbolStatus" in call.values and {"symbol", "symbols"} & set(named)):
        raise combination()
    reference = call.gateway.reference
    if "symbol" in call.values:
        chosen = [call.instrument()]
    elif "symbols" in call.values:
        chosen = [found for name in call.get("symbols") if (found := reference.by_symbol.get(name)) is not None]
        if len(chosen) != len(call.get("symbols")):
            raise bad_symbol()
    else:
        chosen = sorted(reference.by_symbol.values(), key=lambda instrument: instrument.id)
        if (permissions := call.get("permissions")) is not None and "SPOT" not in str(permissions):
            chosen = []
    if (status := call.get("symbolStatus")) is not None:
        if status not in ("TRADING", "HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY"):
            raise ApiError(-1122, "Invalid symbolStatus.")
        chosen = [instrument for instrument in chosen if instrument.status == status]
    return {
        "timezone": "UTC",
        "serverTime": call.time(call.gateway.now_us() * 1000),
        "rateLimits": rate_limits(call),
        "exchangeFilters": [],
        "symbols": [symbol_info(call, instrument) for instrument in chosen],
    }


async def my_filters(call: Call) -> dict[str, Any]:
    instrument = call.instrument()
    rows = filters(call.gateway.reference, instrument, call.gateway.config.open_orders_max)
    return {"exchangeFilters": [], "symbolFilters": rows, "assetFilters": []}


async def empty_exchange_info(call: Call) -> dict[str, Any]:
    """There are no futures here; clients that load all markets get an empty list."""
    return {
        "timezone": "UTC",
        "serverTime": call.time(call.gateway.now_us() * 1000),
        "futuresType": "U_MARGINED",
        "rateLimits": rate_limits(call),
        "exchangeFilters": [],
        "assets": [],
        "symbols": [],
    }


ENDPOINTS = (
    Endpoint(
        "GET", "/api/v3/exchangeInfo", "Pairs, filters and limits", exchange_info,
        (
            SYMBOL_OPTIONAL, SYMBOLS, Param("permissions"), Param("showPermissionSets", Kind.BOOLEAN),
            Param("symbolStatus"),
        ),
        socket="exchangeInfo", weight=20,
    ),
    Endpoint(
        "GET", "/api/v3/myFilters", "Filters of a pair for this account", my_filters, (SYMBOL_REQUIRED,),
        socket="myFilters", security=Security.USER_DATA, weight=40,
    ),
    Endpoint("GET", "/fapi/v1/exchangeInfo", "No linear futures", empty_exchange_info),
    Endpoint("GET", "/dapi/v1/exchangeInfo", "No inverse futures", empty_exchange_info),
)  # fmt: skip
