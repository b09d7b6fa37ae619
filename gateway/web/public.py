"""Public market data: depth, trades, candles, prices, statistics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.web.api import (
    END_TIME,
    FROM_ID,
    LIMIT_1000,
    START_TIME,
    SYMBOL_OPTIONAL,
    SYMBOL_REQUIRED,
    SYMBOLS,
    Call,
    Endpoint,
    Kind,
    Param,
)
from gateway.web.decimals import whole
from gateway.web.errors import ApiError, bad_symbol, combination
from gateway.web.market_view import (
    INTERVALS,
    NS_PER_S,
    AggregateTrade,
    Bar,
    average_text,
    candle_end,
    candle_start,
    percent_text,
)
from gateway.web.reference import Instrument, Reference
from gateway.web.store import Trade

DEPTH_WEIGHTS = ((100, 5), (500, 25), (1000, 50), (5000, 250))
DEPTH_MAX = 5000
DAY_NS = 86_400 * NS_PER_S
WINDOW = r"^([1-9]|[1-5][0-9])m$|^([1-9]|1[0-9]|2[0-3])h$|^[1-7]d$"
WINDOW_UNITS_S = {"m": 60, "h": 3600, "d": 86400}
ZONE = r"^([+-]?)([0-9]{1,2})(?::([0-9]{2}))?$"
ZONE_EAST_S, ZONE_WEST_S = 14 * 3600, -12 * 3600
AVG_PRICE_MINUTES = 5
INTERVAL = Param("interval", required=True, choices=INTERVALS, bad_code=(-1120, "Invalid interval."))
TYPE = Param("type", choices=("FULL", "MINI"), bad_code=(-1139, "Invalid ticker type."))
TIME_ZONE = Param("timeZone", doc="hours from UTC, as 5 or -3:30")


async def depth(call: Call) -> dict[str, Any]:
    instrument = call.instrument()
    await call.gateway.caught_up()
    found = call.gateway.live.depth(instrument, call.get("limit", 100))
    price, qty = instrument.price_text, instrument.qty_text
    return {
        "lastUpdateId": found.update_id,
        "bids": [[price(ticks), qty(lots)] for ticks, lots in found.bids],
        "asks": [[price(ticks), qty(lots)] for ticks, lots in found.asks],
    }


def trade_body(call: Call, instrument: Instrument, trade: Trade) -> dict[str, Any]:
    return {
        "id": trade.trade_id,
        "price": instrument.price_text(trade.price),
        "qty": instrument.qty_text(trade.qty),
        "quoteQty": call.gateway.reference.quote_text(instrument, trade.quote),
        "time": call.time(trade.ts_ns),
        "isBuyerMaker": bool(trade.buyer_is_maker),
        "isBestMatch": True,
    }


async def trades(call: Call) -> list[dict[str, Any]]:
    instrument = call.instrument()
    await call.gateway.caught_up()
    limit, from_id = call.get("limit", 500), call.get("fromId")
    return await call.gateway.read_market(
        lambda market: [trade_body(call, instrument, trade) for trade in market.trades(instrument, limit, from_id)]
    )


async def aggregate_trades(call: Call) -> list[dict[str, Any]]:
    instrument = call.instrument()
    start_ns, end_ns = call.time_range()
    limit, from_id = call.get("limit", 500), call.get("fromId")
    if from_id is not None and (start_ns is not None or end_ns is not None):
        raise combination()
    await call.gateway.caught_up()
    return await call.gateway.read_market(
        lambda market: [
            _aggregate(call, instrument, entry)
            for entry in market.aggregate_trades(instrument, limit, from_id, start_ns, end_ns)
        ]
    )


def _aggregate(call: Call, instrument: Instrument, entry: AggregateTrade) -> dict[str, Any]:
    return {
        "a": entry.id,
        "p": instrument.price_text(entry.price),
        "q": instrument.qty_text(entry.qty),
        "f": entry.first_id,
        "l": entry.last_id,
        "T": call.time(entry.ts_ns),
        "m": entry.buyer_is_maker,
        "M": True,
    }


def zone_offset_s(text: str) -> int:
    """Return the seconds east of UTC. Raises ApiError -1130."""
    match = re.match(ZONE, text)
    offset = 0
    if match is not None:
        offset = int(match.group(2)) * 3600 + int(match.group(3) or 0) * 60
        offset = -offset if match.group(1) == "-" else offset
    if match is None or not ZONE_WEST_S <= offset <= ZONE_EAST_S:
        raise ApiError(-1130, "Data sent for parameter 'timeZone' is not valid. It must be -12:00 to +14:00.")
    return offset


async def klines(call: Call) -> list[list[Any]]:
    instrument = call.instrument()
    start_ns, end_ns = call.time_range()
    offset_s = zone_offset_s(call.get("timeZone", "0"))
    interval = call.need("interval")
    await call.gateway.caught_up()
    limit, reference = call.get("limit", 500), call.gateway.reference
    return await call.gateway.read_market(
        lambda market: [
            _candle(call, instrument, reference, candle)
            for candle in market.candles(instrument, interval, limit, start_ns, end_ns, offset_s)
        ]
    )


def _candle(call: Call, instrument: Instrument, reference: Reference, candle: Bar) -> list[Any]:
    return [
        call.time(candle.open_ns),
        instrument.price_text(candle.open),
        instrument.price_text(candle.high),
        instrument.price_text(candle.low),
        instrument.price_text(candle.close),
        instrument.qty_text(candle.volume),
        call.time(candle.close_ns) - 1,
        reference.quote_text(instrument, candle.quote),
        candle.count,
        instrument.qty_text(candle.taker_volume),
        reference.quote_text(instrument, candle.taker_quote),
        "0",
    ]


async def average_price(call: Call) -> dict[str, Any]:
    instrument = call.instrument()
    now_ns = call.gateway.now_us() * 1000
    await call.gateway.caught_up()
    since_ns = now_ns - AVG_PRICE_MINUTES * 60 * NS_PER_S
    (bar, _), last = await call.gateway.read_market(
        lambda market: (market.statistics(instrument, since_ns, now_ns + 1), market.trades(instrument, 1))
    )
    average = average_text(call.gateway.reference, instrument, bar)
    return {
        "mins": AVG_PRICE_MINUTES,
        "price": average if bar.volume else instrument.price_text(bar.close),
        "closeTime": call.time(last[0].ts_ns) if last else 0,
    }


# --- one pair, some, or all -------------------------------------------------------------------------------------


def chosen(call: Call, *, required: bool = False) -> tuple[list[Instrument], bool]:
    """Return the pairs asked for, and whether the answer is one object. Raises ApiError."""
    if "symbol" in call.values and "symbols" in call.values:
        raise combination()
    by_symbol = call.gateway.reference.by_symbol
    if "symbol" in call.values:
        return [call.instrument()], True
    if "symbols" in call.values:
        found = [by_symbol[name] for name in call.get("symbols") if name in by_symbol]
        if len(found) != len(call.get("symbols")):
            raise bad_symbol()
        return found, False
    if required:
        raise ApiError(-1128, "Either 'symbol' or 'symbols' must be provided, but not both.")
    return sorted(by_symbol.values(), key=lambda instrument: instrument.id), False


def _one_or_all(rows: list[dict[str, Any]], one: bool) -> Any:
    return rows[0] if one else rows


def _count_of(params: Mapping[str, Any]) -> int:
    """How many pairs `symbols` asks for; 0 when it is not there or cannot be read."""
    text = params.get("symbols")
    if not text:
        return 0
    return len(text) if isinstance(text, list) else str(text).count(",") + 1


def _weight(one: int, every: int) -> Any:
    return lambda params: one if params.get("symbol") else every


def _weight_24hr(params: Mapping[str, Any]) -> int:
    if params.get("symbol"):
        return 2
    count = _count_of(params)
    return 80 if count == 0 or count > 100 else 2 if count <= 20 else 40


def _weight_window(params: Mapping[str, Any]) -> int:
    return min(200, 4 * max(1, _count_of(params)))


def _weight_depth(params: Mapping[str, Any]) -> int:
    text = str(params.get("limit", "100"))
    limit = whole(text)
    return next((weight for most, weight in DEPTH_WEIGHTS if limit is not None and limit <= most), DEPTH_WEIGHTS[-1][1])


async def price(call: Call) -> Any:
    found, one = chosen(call)
    await call.gateway.caught_up()
    newest = await call.gateway.read_market(lambda market: [market.trades(instrument, 1) for instrument in found])
    rows = []
    for instrument, last in zip(found, newest, strict=True):
        ticks = last[0].price if last else instrument.limits.reference_px or 0
        rows.append({"symbol": instrument.symbol, "price": instrument.price_text(ticks)})
    return _one_or_all(rows, one)


def book_fields(call: Call, instrument: Instrument) -> dict[str, Any]:
    found = call.gateway.live.depth(instrument, 1)
    bid, ask = (found.bids or [(0, 0)])[0], (found.asks or [(0, 0)])[0]
    return {
        "bidPrice": instrument.price_text(bid[0]),
        "bidQty": instrument.qty_text(bid[1]),
        "askPrice": instrument.price_text(ask[0]),
        "askQty": instrument.qty_text(ask[1]),
    }


async def book_ticker(call: Call) -> Any:
    found, one = chosen(call)
    await call.gateway.caught_up()
    return _one_or_all([{"symbol": each.symbol, **book_fields(call, each)} for each in found], one)


def mini(call: Call, instrument: Instrument, bar: Bar) -> dict[str, Any]:
    return {
        "symbol": instrument.symbol,
        "openPrice": instrument.price_text(bar.open),
        "highPrice": instrument.price_text(bar.high),
        "lowPrice": instrument.price_text(bar.low),
        "lastPrice": instrument.price_text(bar.close),
        "volume": instrument.qty_text(bar.volume),
        "quoteVolume": call.gateway.reference.quote_text(instrument, bar.quote),
        "openTime": call.time(bar.open_ns),
        "closeTime": call.time(bar.close_ns),
        "firstId": bar.first_id,
        "lastId": bar.last_id,
        "count": bar.count,
    }


def full(call: Call, instrument: Instrument, bar: Bar) -> dict[str, Any]:
    return {
        "symbol": instrument.symbol,
        "priceChange": instrument.price_text(bar.close - bar.open),
        "priceChangePercent": percent_text(bar),
        "weightedAvgPrice": average_text(call.gateway.reference, instrument, bar),
        **{name: value for name, value in mini(call, instrument, bar).items() if name != "symbol"},
    }


async def ticker_24hr(call: Call) -> Any:
    found, one = chosen(call)
    await call.gateway.caught_up()
    now_ns = call.gateway.now_us() * 1000
    days = await call.gateway.day_statistics.get(found, now_ns - DAY_NS, now_ns)
    return _one_or_all([_of_day(call, each, *day) for each, day in zip(found, days, strict=True)], one)


def _of_day(call: Call, instrument: Instrument, bar: Bar, before: int) -> dict[str, Any]:
    if call.get("type") == "MINI":
        return mini(call, instrument, bar)
    return full(call, instrument, bar) | {
        "prevClosePrice": instrument.price_text(before),
        "lastQty": instrument.qty_text(bar.last_qty),
        **book_fields(call, instrument),
    }


async def ticker_trading_day(call: Call) -> Any:
    found, one = chosen(call, required=True)
    offset_s = zone_offset_s(call.get("timeZone", "0"))
    await call.gateway.caught_up()
    start_ns = candle_start("1d", call.gateway.now_us() * 1000, offset_s)
    end_ns = candle_end("1d", start_ns, offset_s)
    return _one_or_all(await _of_window(call, found, start_ns, end_ns), one)


async def ticker_window(call: Call) -> Any:
    found, one = chosen(call, required=True)
    text = call.get("windowSize", "1d")
    await call.gateway.caught_up()
    end_ns = call.gateway.now_us() * 1000
    start_ns = end_ns - int(text[:-1]) * WINDOW_UNITS_S[text[-1]] * NS_PER_S
    start_ns -= start_ns % (60 * NS_PER_S)
    return _one_or_all(await _of_window(call, found, start_ns, end_ns), one)


async def _of_window(call: Call, found: list[Instrument], start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    body = mini if call.get("type") == "MINI" else full
    return await call.gateway.read_market(
        lambda market: [body(call, each, market.statistics(each, start_ns, end_ns)[0]) for each in found]
    )


_PAIRS = (SYMBOL_OPTIONAL, SYMBOLS)
ENDPOINTS = (
    Endpoint(
        "GET", "/api/v3/depth", "Order book", depth,
        (SYMBOL_REQUIRED, Param("limit", Kind.INTEGER, low=1, high=DEPTH_MAX, clamp=True), Param("symbolStatus")),
        socket="depth", weight=_weight_depth,
    ),
    Endpoint(
        "GET", "/api/v3/trades", "Newest trades", trades, (SYMBOL_REQUIRED, LIMIT_1000), socket="trades.recent",
        weight=25, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/historicalTrades", "Trades from an id on", trades, (SYMBOL_REQUIRED, LIMIT_1000, FROM_ID),
        socket="trades.historical", weight=25, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/aggTrades", "Trades, one per taker order and price", aggregate_trades,
        (SYMBOL_REQUIRED, FROM_ID, START_TIME, END_TIME, LIMIT_1000), socket="trades.aggregate", weight=4,
        answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/klines", "Candles", klines,
        (SYMBOL_REQUIRED, INTERVAL, START_TIME, END_TIME, TIME_ZONE, LIMIT_1000),
        socket="klines", weight=2, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/uiKlines", "Candles for display", klines,
        (SYMBOL_REQUIRED, INTERVAL, START_TIME, END_TIME, TIME_ZONE, LIMIT_1000), socket="uiKlines", weight=2,
        answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/avgPrice", "Average price of the last minutes", average_price, (SYMBOL_REQUIRED,),
        socket="avgPrice", weight=2,
    ),
    Endpoint(
        "GET", "/api/v3/ticker/24hr", "Statistics of 24 hours", ticker_24hr, (*_PAIRS, TYPE), socket="ticker.24hr",
        weight=_weight_24hr, answer="either",
    ),
    Endpoint(
        "GET", "/api/v3/ticker/tradingDay", "Statistics of the day", ticker_trading_day, (*_PAIRS, TYPE, TIME_ZONE),
        socket="ticker.tradingDay", weight=_weight_window, answer="either",
    ),
    Endpoint(
        "GET", "/api/v3/ticker", "Statistics of a window", ticker_window,
        (*_PAIRS, TYPE, Param("windowSize", pattern=WINDOW, doc="1m..59m, 1h..23h, 1d..7d")), socket="ticker",
        weight=_weight_window, answer="either",
    ),
    Endpoint(
        "GET", "/api/v3/ticker/price", "Last prices", price, _PAIRS, socket="ticker.price", weight=_weight(2, 4),
        answer="either",
    ),
    Endpoint(
        "GET", "/api/v3/ticker/bookTicker", "Best bid and ask", book_ticker, _PAIRS, socket="ticker.book",
        weight=_weight(2, 4), answer="either",
    ),
)  # fmt: skip
