"""Candles and rolling statistics: from the store once, then from live trades.

The two join without gap or overlap: live trades are kept while the store is read, and those that it already had are
left out by their ids.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy

from gateway.web.market_view import NS_PER_S, candle_end, candle_start
from gateway.web.store import StoreReader
from ringbuf.wire.messages import SideOrBoth

MINUTE_NS = 60 * NS_PER_S
DAY_MINUTES = 1440
NO_ID = -1
_HALF = 32


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


def bars_of(rows: Any, quote_per_tick_lot: int) -> list[Bar]:
    """Return the trades of one pair, in order, as bars of one second each."""
    if len(rows) == 0:
        return []
    seconds = rows["transact_time"] // NS_PER_S
    cuts = [0, *(numpy.flatnonzero(seconds[1:] != seconds[:-1]) + 1).tolist(), len(rows)]
    return [_bar(rows[first:end], int(seconds[first]), quote_per_tick_lot) for first, end in pairwise(cuts)]


def _bar(rows: Any, second: int, factor: int) -> Bar:
    prices, lots = rows["price"], rows["qty"]
    quotes = prices * lots
    by_taker = rows["aggressor_side"] != SideOrBoth.SELL
    return Bar(
        second * NS_PER_S,
        (second + 1) * NS_PER_S,
        int(prices[0]),
        int(prices.max()),
        int(prices.min()),
        int(prices[-1]),
        volume=_sum(lots),
        quote=_sum(quotes) * factor,
        count=len(rows),
        first_id=int(rows["trade_id"][0]),
        last_id=int(rows["trade_id"][-1]),
        taker_volume=_sum(lots[by_taker]),
        taker_quote=_sum(quotes[by_taker]) * factor,
        last_qty=int(lots[-1]),
        last_ns=int(rows["transact_time"][-1]),
    )


def _sum(values: Any) -> int:
    """Each value fits 64 bits, their sum may not."""
    return (int((values >> _HALF).sum()) << _HALF) + int((values & ((1 << _HALF) - 1)).sum())


def stored_bars(store: StoreReader, instrument: int, start_ns: int, width_ns: int) -> list[Bar]:
    """Return the store's trades since a moment as bars of that width, those without trades left out."""
    rows = store.rows(
        "SELECT g.slot, f.price, g.high, g.low, l.price, g.volume, g.quote, g.count, g.first, g.last,"
        " g.taker_volume, g.taker_quote, l.qty, l.ts_ns FROM ("
        "SELECT (ts_ns - ?) / ? AS slot, max(price) AS high, min(price) AS low, sum(qty) AS volume,"
        " sum(quote) AS quote, count(*) AS count, min(trade_id) AS first, max(trade_id) AS last,"
        " sum(CASE WHEN buyer_is_maker THEN 0 ELSE qty END) AS taker_volume,"
        " sum(CASE WHEN buyer_is_maker THEN 0 ELSE quote END) AS taker_quote"
        " FROM trades WHERE instrument = ? AND ts_ns >= ? GROUP BY slot) AS g"
        " JOIN trades AS f ON f.instrument = ? AND f.trade_id = g.first"
        " JOIN trades AS l ON l.instrument = ? AND l.trade_id = g.last ORDER BY g.slot",
        (start_ns, width_ns, instrument, start_ns, instrument, instrument),
    )
    return [Bar(start_ns + row[0] * width_ns, start_ns + (row[0] + 1) * width_ns, *row[1:]) for row in rows]


def price_before(store: StoreReader, instrument: int, ts_ns: int) -> int | None:
    """Return the price of the last trade before a moment."""
    rows = store.rows(
        "SELECT price FROM trades WHERE instrument = ? AND ts_ns < ? ORDER BY ts_ns DESC, trade_id DESC LIMIT 1",
        (instrument, ts_ns),
    )
    return int(rows[0][0]) if rows else None


class Series:
    """The open candle of one pair and interval."""

    def __init__(self, interval: str, zone_s: int, now_ns: int) -> None:
        self.interval, self.zone_s = interval, zone_s
        start = candle_start(interval, now_ns, zone_s)
        self.candle = Bar.empty(start, candle_end(interval, start, zone_s), 0)
        self.changed = False

    def load(self, store: StoreReader, instrument: int) -> int:
        """Read what has been traded in the open candle; return the last trade's id."""
        start, end = self.candle.open_ns, self.candle.close_ns
        price = price_before(store, instrument, start)
        found = stored_bars(store, instrument, start, end - start)
        if price is None:
            price = found[0].open if found else 0
        self.candle = Bar.empty(start, end, price)
        for bar in found[:1]:
            self.candle.merge(bar)
        self.changed = True
        return self.candle.last_id

    def take(self, bar: Bar) -> list[Bar]:
        """Add a bar of a second; return the candles that this ends."""
        ended = self.until(bar.open_ns)
        self.candle.merge(bar)
        self.changed = True
        return ended

    def until(self, now_ns: int) -> list[Bar]:
        """Return the candles that have ended by a moment; the next one is open then."""
        ended = []
        while now_ns >= self.candle.close_ns:
            ended.append(self.candle)
            start = self.candle.close_ns
            if now_ns - start > DAY_MINUTES * MINUTE_NS:  # nobody waits for thousands of empty candles
                start = candle_start(self.interval, now_ns, self.zone_s)
            self.candle = Bar.empty(start, candle_end(self.interval, start, self.zone_s), ended[-1].close)
        return ended


class Rolling:
    """A day of minutes of one pair. A window begins at a full minute."""

    def __init__(self) -> None:
        self._minutes: deque[Bar] = deque()
        self._price = 0  # before the first of them

    def load(self, store: StoreReader, instrument: int, now_ns: int) -> int:
        """Read the last day; return the last trade's id."""
        start = (now_ns // MINUTE_NS - DAY_MINUTES) * MINUTE_NS
        self._minutes = deque(stored_bars(store, instrument, start, MINUTE_NS))
        price = price_before(store, instrument, start)
        self._price = price if price is not None else self._minutes[0].open if self._minutes else 0
        return self._minutes[-1].last_id if self._minutes else NO_ID

    def take(self, bar: Bar) -> None:
        start = bar.open_ns // MINUTE_NS * MINUTE_NS
        if not self._minutes or self._minutes[-1].open_ns < start:
            self._minutes.append(Bar.empty(start, start + MINUTE_NS, bar.open))
            while self._minutes[0].close_ns <= start - DAY_MINUTES * MINUTE_NS:
                self._price = self._minutes.popleft().close
        self._minutes[-1].merge(bar)

    def window(self, minutes: int, now_ns: int) -> tuple[Bar, int]:
        """Return the last so many minutes as one bar, and the price before them."""
        start = (now_ns // MINUTE_NS - minutes) * MINUTE_NS
        price, chosen = self._price, []
        for bar in reversed(self._minutes):
            if bar.open_ns < start:
                price = bar.close
                break
            chosen.append(bar)
        whole = Bar.empty(start, now_ns, price)
        for bar in reversed(chosen):
            whole.merge(bar)
        return whole, price


def copied(bar: Bar) -> Bar:
    """Return a bar that later trades leave as it is."""
    return replace(bar)
