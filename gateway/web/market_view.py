"""Public market data as the routes ask for it, from the history store: trades and what follows from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Protocol

from gateway.web.reference import Instrument
from gateway.web.store import StoreReader, Trade

NS_PER_S = 1_000_000_000
INTERVALS_S = {
    "1s": 1, "1m": 60, "3m": 180, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "2h": 7200, "4h": 14400,
    "6h": 21600, "8h": 28800, "12h": 43200, "1d": 86400, "3d": 259200, "1w": 604800,
}  # fmt: skip
INTERVALS = (*INTERVALS_S, "1M")
WEEK_OFFSET_S = 4 * 86400  # the epoch was a Thursday; weeks begin on Monday
TRADES_SCANNED_MAX = 2_000_000
ANSWERS_KEPT_S = 1.0  # statistics of many pairs cost; the same answer does for a second


@dataclass(slots=True)
class Depth:
    """(price in ticks, quantity in lots), best first. update_id: what the next depth event goes on from."""

    update_id: int
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


@dataclass(slots=True)
class Candle:
    """Prices in ticks, volume in lots, quote in units. [open_ns, close_ns)."""

    open_ns: int
    close_ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote: int
    count: int
    taker_volume: int  # bought by takers
    taker_quote: int


@dataclass(slots=True)
class Statistics:
    """Over the trades of [open_ns, close_ns). first_id -1: there was none."""

    open_ns: int
    close_ns: int
    open: int = 0
    high: int = 0
    low: int = 0
    last: int = 0
    last_qty: int = 0
    previous_close: int = 0
    volume: int = 0
    quote: int = 0
    first_id: int = -1
    last_id: int = -1
    count: int = 0


@dataclass(slots=True)
class AggregateTrade:
    """All trades of one taker order at one price, without another between."""

    id: int
    price: int
    qty: int
    first_id: int
    last_id: int
    ts_ns: int
    buyer_is_maker: bool


class StoreSource(Protocol):
    def __call__(self) -> StoreReader: ...


def candle_start(interval: str, ts_ns: int, offset_s: int = 0) -> int:
    """Return when the candle of a moment begins, in ns. `offset_s`: of the time zone days and weeks begin in."""
    seconds = ts_ns // NS_PER_S + offset_s
    if interval == "1M":
        moment = datetime.fromtimestamp(seconds, UTC)
        start = int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp())
    else:
        length = INTERVALS_S[interval]
        shift = WEEK_OFFSET_S if interval == "1w" else 0
        start = (seconds - shift) // length * length + shift
    return (start - offset_s) * NS_PER_S


def candle_end(interval: str, start_ns: int, offset_s: int = 0) -> int:
    """Return when a candle that begins then ends, in ns."""
    if interval != "1M":
        return start_ns + INTERVALS_S[interval] * NS_PER_S
    local = datetime.fromtimestamp(start_ns // NS_PER_S + offset_s, timezone(timedelta(0)))
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return (int(datetime(year, month, 1, tzinfo=UTC).timestamp()) - offset_s) * NS_PER_S


class StoreMarketView:
    """From trades of the history store; `store` is asked for each time: it may be opened anew.

    Times are ns, [start, end). Lists are oldest first; without a start they hold the newest `limit`.
    """

    def __init__(self, store: StoreSource) -> None:
        self._source = store

    def trades(self, instrument: Instrument, limit: int, from_id: int | None = None) -> list[Trade]:
        if from_id is not None:
            return self._trades("trade_id >= ?", (instrument.id, from_id), f"trade_id LIMIT {limit:d}")
        return self._trades("1", (instrument.id,), f"trade_id DESC LIMIT {limit:d}")[::-1]

    def _trades(self, where: str, values: tuple[int, ...], order: str) -> list[Trade]:
        query = f"SELECT * FROM trades WHERE instrument = ? AND {where} ORDER BY {order}"
        return [Trade(*row) for row in self._source().rows(query, values)]

    def aggregate_trades(
        self, instrument: Instrument, limit: int, from_id: int | None, start_ns: int | None, end_ns: int | None
    ) -> list[AggregateTrade]:
        conditions, values = ["instrument = ?"], [instrument.id]
        bounds = (("agg_id >= ?", from_id), ("ts_ns >= ?", start_ns), ("ts_ns < ?", end_ns))
        for condition, value in bounds:
            if value is not None:
                conditions.append(condition)
                values.append(value)
        newest = from_id is None and start_ns is None
        rows = self._source().rows(
            "SELECT agg_id, price, sum(qty), min(trade_id), max(trade_id), min(ts_ns), buyer_is_maker FROM trades"
            f" WHERE {' AND '.join(conditions)} GROUP BY agg_id ORDER BY agg_id {'DESC' if newest else 'ASC'}"
            f" LIMIT {limit:d}",
            values,
        )
        found = [AggregateTrade(*[*row[:6], bool(row[6])]) for row in rows]
        return found[::-1] if newest else found

    def candles(
        self, instrument: Instrument, interval: str, limit: int, start_ns: int | None, end_ns: int | None,
        offset_s: int = 0,
    ) -> list[Candle]:  # fmt: skip
        bounds = self._source().rows(
            "SELECT min(ts_ns), max(ts_ns) FROM trades WHERE instrument = ?", (instrument.id,)
        )[0]
        if bounds[0] is None:
            return []
        first = candle_start(interval, bounds[0], offset_s)
        last = candle_start(interval, bounds[1], offset_s)
        if start_ns is not None:
            at = max(first, candle_start(interval, start_ns, offset_s))
            at = at if at >= start_ns else candle_end(interval, at, offset_s)
        else:
            newest = last if end_ns is None else min(last, candle_start(interval, end_ns - 1, offset_s))
            at = max(first, newest - (limit - 1) * INTERVALS_S.get(interval, 31 * 86400) * NS_PER_S)
            at = candle_start(interval, at, offset_s)
        starts = []
        while at <= last and (end_ns is None or at < end_ns):
            starts.append(at)
            if start_ns is not None and len(starts) == limit:
                break
            at = candle_end(interval, at, offset_s)
        return self._filled(instrument, interval, starts[-limit:], offset_s)

    def _filled(self, instrument: Instrument, interval: str, starts: list[int], offset_s: int) -> list[Candle]:
        """Return candles that begin then, without a gap: one without trades stands at the price before it."""
        if not starts:
            return []
        before = self._last_before(instrument, starts[0])
        end_ns = candle_end(interval, starts[-1], offset_s)
        trades = self._trades(
            "ts_ns >= ? AND ts_ns < ?", (instrument.id, starts[0], end_ns), f"trade_id LIMIT {TRADES_SCANNED_MAX}"
        )
        price = before.price if before is not None else (trades[0].price if trades else 0)
        candles, index = [], 0
        for start in starts:
            candle = Candle(start, candle_end(interval, start, offset_s), price, price, price, price, 0, 0, 0, 0, 0)
            while index < len(trades) and trades[index].ts_ns < candle.close_ns:
                _add(candle, trades[index])
                index += 1
            price = candle.close
            candles.append(candle)
        return candles

    def _last_before(self, instrument: Instrument, ts_ns: int) -> Trade | None:
        found = self._trades("ts_ns < ?", (instrument.id, ts_ns), "ts_ns DESC, trade_id DESC LIMIT 1")
        return found[0] if found else None

    def statistics(self, instrument: Instrument, start_ns: int, end_ns: int) -> Statistics:
        made = Statistics(start_ns, end_ns)
        before = self._last_before(instrument, start_ns)
        made.previous_close = made.last = 0 if before is None else before.price
        row = self._source().rows(
            "SELECT count(*), min(trade_id), max(trade_id), max(price), min(price), sum(qty), sum(quote) FROM trades"
            " WHERE instrument = ? AND ts_ns >= ? AND ts_ns < ?",
            (instrument.id, start_ns, end_ns),
        )[0]
        if row[0] == 0:
            made.open = made.high = made.low = made.last
            return made
        made.count, made.first_id, made.last_id, made.high, made.low, made.volume, made.quote = row
        first = self._trades("trade_id = ?", (instrument.id, made.first_id), "trade_id")[0]
        last = self._trades("trade_id = ?", (instrument.id, made.last_id), "trade_id")[0]
        made.open, made.last, made.last_qty = first.price, last.price, last.qty
        made.previous_close = made.previous_close or first.price
        return made


class DayStatistics:
    """Statistics of the last 24 hours, at most a second old."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[float, Statistics]] = {}

    def get(self, instrument: Instrument, make: Callable[[], Statistics]) -> Statistics:
        now = time.monotonic()
        known = self._made.get(instrument.id)
        if known is None or now - known[0] > ANSWERS_KEPT_S:
            known = self._made[instrument.id] = (now, make())
        return known[1]


def _add(candle: Candle, trade: Trade) -> None:
    if candle.count == 0:
        candle.open = candle.high = candle.low = trade.price
    candle.high, candle.low = max(candle.high, trade.price), min(candle.low, trade.price)
    candle.close = trade.price
    candle.volume += trade.qty
    candle.quote += trade.quote
    candle.count += 1
    if not trade.buyer_is_maker:
        candle.taker_volume += trade.qty
        candle.taker_quote += trade.quote
