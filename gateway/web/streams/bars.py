"""Candles and rolling statistics: from the store once, then from live trades.

The two join without gap or overlap: live trades are kept while the store is read, and those that it already had are
left out by their ids.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy

from gateway.web.market_view import NO_ID, NS_MAX, NS_PER_S, Bar, candle_end, candle_start, stored_bars
from gateway.web.store import StoreReader
from ringbuf.wire.messages import SideOrBoth

MINUTE_NS = 60 * NS_PER_S
DAY_MINUTES = 1440
_HALF = 32


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
        found, price = stored_bars(store, instrument, start, end, end - start)
        self.candle = Bar.empty(start, end, price)
        for bar in found:
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
        found, self._price = stored_bars(store, instrument, start, NS_MAX, MINUTE_NS)
        self._minutes = deque(found)
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
