"""Public market data as the routes ask for it, from the history store: trades and what follows from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from gateway.web.decimals import to_text
from gateway.web.reads import StoreReads
from gateway.web.reference import Instrument, Reference
from gateway.web.store import StoreReader, Trade

NS_PER_S = 1_000_000_000
INTERVALS_S = {
    "1s": 1, "1m": 60, "3m": 180, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "2h": 7200, "4h": 14400,
    "6h": 21600, "8h": 28800, "12h": 43200, "1d": 86400, "3d": 259200, "1w": 604800,
}  # fmt: skip
INTERVALS = (*INTERVALS_S, "1M")
WEEK_OFFSET_S = 4 * 86400  # the epoch was a Thursday; weeks begin on Monday
DAY_S = 86400
NS_MAX = (1 << 63) - 1
NO_ID = -1
AVERAGE_PLACES, PERCENT_PLACES = 8, 3
ANSWERS_KEPT_S = 1.0  # statistics of many pairs cost; the same answer does for a second


@dataclass(slots=True)
class Depth:
    """(price in ticks, quantity in lots), best first. update_id: what the next depth event goes on from."""

    update_id: int
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


@dataclass(slots=True)
class Bar:
    """Trades of [open_ns, close_ns). Prices in ticks, volume in lots, quote in units of the quote asset."""

    open_ns: int
    close_ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    quote: int = 0
    count: int = 0
    first_id: int = NO_ID
    last_id: int = NO_ID
    taker_volume: int = 0
    taker_quote: int = 0
    last_qty: int = 0
    last_ns: int = 0

    @classmethod
    def empty(cls, open_ns: int, close_ns: int, price: int) -> Bar:
        """Nothing traded: it stands at the price before it."""
        return cls(open_ns, close_ns, price, price, price, price)

    def merge(self, later: Bar) -> None:
        """Add what came behind it; its own bounds stay."""
        if later.count == 0:
            return
        if self.count == 0:
            self.open, self.high, self.low, self.first_id = later.open, later.high, later.low, later.first_id
        self.high, self.low = max(self.high, later.high), min(self.low, later.low)
        self.close, self.last_id, self.last_qty, self.last_ns = (
            later.close, later.last_id, later.last_qty, later.last_ns,
        )  # fmt: skip
        self.volume += later.volume
        self.quote += later.quote
        self.count += later.count
        self.taker_volume += later.taker_volume
        self.taker_quote += later.taker_quote


Statistics = tuple[Bar, int]  # a time as one bar, and the price before it


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


_SUMMED = (
    "qty", "quote", "CASE WHEN buyer_is_maker THEN 0 ELSE qty END", "CASE WHEN buyer_is_maker THEN 0 ELSE quote END",
)  # fmt: skip
_HALF = 32  # each value fits 64 bits, their sum may not: halves are summed
_SUMS = ", ".join(
    f"sum(({each}) >> {_HALF}) AS high{at}, sum(({each}) & {(1 << _HALF) - 1}) AS low{at}"
    for at, each in enumerate(_SUMMED)
)
_HALVES = ", ".join(f"g.high{at}, g.low{at}" for at in range(len(_SUMMED)))


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


def stored_bars(
    store: StoreReader, instrument: int, start_ns: int, end_ns: int, width_ns: int
) -> tuple[list[Bar], int]:
    """Return the store's trades of [start, end) as bars of that width, those without trades left out, and the price
    before them: their own first one where nothing had been traded before."""
    rows = store.rows(
        f"SELECT g.slot, f.price, g.high, g.low, l.price, g.count, g.first, g.last, l.qty, l.ts_ns, {_HALVES} FROM ("
        f"SELECT {_SUMS}, (ts_ns - ?) / ? AS slot, max(price) AS high, min(price) AS low,"
        " count(*) AS count, min(trade_id) AS first, max(trade_id) AS last"
        " FROM trades WHERE instrument = ? AND ts_ns >= ? AND ts_ns < ? GROUP BY slot) AS g"
        " JOIN trades AS f ON f.instrument = ? AND f.trade_id = g.first"
        " JOIN trades AS l ON l.instrument = ? AND l.trade_id = g.last ORDER BY g.slot",
        (start_ns, width_ns, instrument, start_ns, end_ns, instrument, instrument),
    )
    bars = []
    for slot, first, high, low, last, count, first_id, last_id, last_qty, last_ns, *halves in rows:
        volume, quote, taker_volume, taker_quote = (
            (high_half << _HALF) + low_half for high_half, low_half in zip(halves[::2], halves[1::2], strict=True)
        )
        open_ns = start_ns + slot * width_ns
        bars.append(
            Bar(
                open_ns, open_ns + width_ns, first, high, low, last, volume, quote, count, first_id, last_id,
                taker_volume, taker_quote, last_qty, last_ns,
            )
        )  # fmt: skip
    before = store.rows(
        "SELECT price FROM trades WHERE instrument = ? AND ts_ns < ? ORDER BY ts_ns DESC, trade_id DESC LIMIT 1",
        (instrument, start_ns),
    )
    return bars, int(before[0][0]) if before else bars[0].open if bars else 0


def average_text(reference: Reference, instrument: Instrument, bar: Bar) -> str:
    """Return the average price by volume, rounded down."""
    volume = bar.volume * instrument.lot_size  # in 10^qty_exponent of the base asset
    shift = AVERAGE_PLACES + reference.assets[instrument.quote_asset].exponent - instrument.qty_exponent
    scaled = bar.quote * 10**shift if shift >= 0 else bar.quote // 10**-shift
    return to_text(scaled // volume if volume else 0, -AVERAGE_PLACES)


def percent_text(bar: Bar) -> str:
    """Return by how many percent the price has changed."""
    thousandths = (bar.close - bar.open) * 100 * 10**PERCENT_PLACES // bar.open if bar.open else 0
    return to_text(thousandths, -PERCENT_PLACES, PERCENT_PLACES)


class StoreMarketView:
    """From trades of the history store.

    Times are ns, [start, end). Lists are oldest first; without a start they hold the newest `limit`.
    """

    def __init__(self, store: StoreReader) -> None:
        self._store = store

    def trades(self, instrument: Instrument, limit: int, from_id: int | None = None) -> list[Trade]:
        if from_id is not None:
            return self._trades("trade_id >= ?", (instrument.id, from_id), f"trade_id LIMIT {limit:d}")
        return self._trades("1", (instrument.id,), f"trade_id DESC LIMIT {limit:d}")[::-1]

    def _trades(self, where: str, values: tuple[int, ...], order: str) -> list[Trade]:
        query = f"SELECT * FROM trades WHERE instrument = ? AND {where} ORDER BY {order}"
        return [Trade(*row) for row in self._store.rows(query, values)]

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
        rows = self._store.rows(
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
    ) -> list[Bar]:  # fmt: skip
        bounds = self._store.rows("SELECT min(ts_ns), max(ts_ns) FROM trades WHERE instrument = ?", (instrument.id,))[0]
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

    def _filled(self, instrument: Instrument, interval: str, starts: list[int], offset_s: int) -> list[Bar]:
        """Return candles that begin then, without a gap: one without trades stands at the price before it."""
        if not starts:
            return []
        width_ns = INTERVALS_S.get(interval, DAY_S) * NS_PER_S
        end_ns = candle_end(interval, starts[-1], offset_s)
        found, price = stored_bars(self._store, instrument.id, starts[0], end_ns, width_ns)
        candles, index = [], 0
        for start in starts:
            candle = Bar.empty(start, candle_end(interval, start, offset_s), price)
            while index < len(found) and found[index].open_ns < candle.close_ns:
                candle.merge(found[index])
                index += 1
            price = candle.close
            candles.append(candle)
        return candles

    def statistics(self, instrument: Instrument, start_ns: int, end_ns: int) -> Statistics:
        found, before = stored_bars(self._store, instrument.id, start_ns, end_ns, end_ns - start_ns)
        whole = Bar.empty(start_ns, end_ns, before)
        for bar in found:
            whole.merge(bar)
        return whole, before


class DayStatistics:
    """Statistics of the last 24 hours, at most a second old, or those that are being read."""

    def __init__(self, reads: StoreReads) -> None:
        self._reads = reads
        self._made: dict[int, tuple[float, asyncio.Task[dict[int, Statistics]]]] = {}

    async def get(self, instruments: Sequence[Instrument], start_ns: int, end_ns: int) -> list[Statistics]:
        """Return those of some pairs; what has to be read is read at once. Raises ApiError -1008."""
        stale = [instrument for instrument in instruments if not self._fresh(instrument.id)]
        if stale:
            task = asyncio.create_task(self._reads.run(lambda store: self._read(store, stale, start_ns, end_ns)))
            for instrument in stale:
                self._made[instrument.id] = (time.monotonic(), task)
        tasks = [(instrument.id, self._made[instrument.id][1]) for instrument in instruments]
        return [(await asyncio.shield(task))[number] for number, task in tasks]

    def _fresh(self, number: int) -> bool:
        if number not in self._made:
            return False
        since, task = self._made[number]
        if not task.done():
            return True
        failed = task.cancelled() or task.exception() is not None
        return not failed and time.monotonic() - since <= ANSWERS_KEPT_S

    @staticmethod
    def _read(
        store: StoreReader, instruments: Sequence[Instrument], start_ns: int, end_ns: int
    ) -> dict[int, Statistics]:
        market = StoreMarketView(store)
        return {instrument.id: market.statistics(instrument, start_ns, end_ns) for instrument in instruments}
