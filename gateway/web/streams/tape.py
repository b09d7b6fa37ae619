"""Candles and a day's statistics of one pair: read from the store once, then kept from live trades."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from gateway.web.market_view import Bar
from gateway.web.reference import Instrument
from gateway.web.store import StoreReader
from gateway.web.streams.bars import Rolling, Series, bars_of

Key = tuple[str, int]  # interval, seconds east of UTC


class Tape:
    """Give it every trade from the moment it is made. Each part is silent until it has read the store."""

    def __init__(self, instrument: Instrument, store_path: Path) -> None:
        self._instrument = instrument
        self._store_path = store_path
        self._rolling = Rolling()
        self._series: dict[Key, Series] = {}
        self._kept: dict[Key | None, list[Any]] = {None: []}  # trades for the parts that read the store; None: the day
        self._ended: dict[Key, list[Bar]] = {}
        self._statistics_changed = False

    def add_series(self, key: Key) -> bool:
        """Keep candles of an interval as well; True: it is new, and `load()` must be called."""
        if key in self._series:
            return False
        self._series[key] = Series(*key, time.time_ns())
        self._kept[key] = []
        return True

    async def load(self, key: Key | None = None) -> None:
        """Read the store, which has everything from before the part was made. None: the day."""
        last_id = await asyncio.to_thread(self._read, key)
        for rows in self._kept.pop(key):
            later = rows[rows["trade_id"] > last_id]
            self._take(key, bars_of(later, self._instrument.quote_per_tick_lot))
        if key is None:
            self._statistics_changed = True

    def _read(self, key: Key | None) -> int:
        store = StoreReader(self._store_path)
        try:
            if key is None:
                return self._rolling.load(store, self._instrument.id, time.time_ns())
            return self._series[key].load(store, self._instrument.id)
        finally:
            store.close()

    def take(self, rows: Any, bars: list[Bar]) -> None:
        """Take trades, and the same as bars of a second."""
        for kept in self._kept.values():
            kept.append(rows.copy())
        for key in (None, *self._series):
            if key not in self._kept:
                self._take(key, bars)

    def _take(self, key: Key | None, bars: list[Bar]) -> None:
        for bar in bars:
            if key is None:
                self._rolling.take(bar)
                self._statistics_changed = True
            elif ended := self._series[key].take(bar):
                self._ended.setdefault(key, []).extend(ended)

    def until(self, now_ns: int) -> None:
        """End the candles that are over."""
        for key, series in self._series.items():
            if key not in self._kept and (ended := series.until(now_ns)):
                self._ended.setdefault(key, []).extend(ended)

    def ended(self) -> dict[Key, list[Bar]]:
        """Return, once, the candles that have ended. Before its first trade a pair has no price, and no candles."""
        ended, self._ended = self._ended, {}
        return {key: priced for key, bars in ended.items() if (priced := [bar for bar in bars if bar.close])}

    def changed(self) -> dict[Key, Bar]:
        """Return, once, the open candles in which something has changed."""
        found = {key: series.candle for key, series in self._series.items() if series.changed and key not in self._kept}
        for key in found:
            self._series[key].changed = False
        return {key: bar for key, bar in found.items() if bar.close}

    def statistics_changed(self) -> bool:
        """Whether there is something new for those who want statistics."""
        changed, self._statistics_changed = self._statistics_changed and None not in self._kept, False
        return changed

    def window(self, minutes: int, now_ns: int) -> tuple[Bar, int]:
        """Return the last so many minutes as one bar, and the price before them."""
        return self._rolling.window(minutes, now_ns)
