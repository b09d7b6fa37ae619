"""Trades of one taker order at one price, numbered as the store numbers them."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.web.store import StoreReader

KEPT_MAX = 100_000  # trades that wait for the store's numbers
Row = tuple[int, int, int, int, bool]  # trade id, ticks, lots, ns, whether the buyer rested


class Aggregates:
    """Those of one pair. Nothing is told before `load()`, and nothing that was half over then."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._kept: list[tuple[Row, int]] = []
        self._last: tuple[int, int, int] = (0, 0, -1)  # trade id, ticks, event
        self._skipping = True

    def load(self, store: StoreReader, instrument: int) -> None:
        """Go on from the newest trade that the store has."""
        rows = store.rows(
            "SELECT trade_id, price, agg_id FROM trades WHERE instrument = ? ORDER BY trade_id DESC LIMIT 1",
            (instrument,),
        )
        last_id, price, self._number = rows[0] if rows else (0, 0, 0)
        kept, self._kept = self._kept, []
        self._last = (last_id, price, next((event for row, event in kept if row[0] == last_id), -1))
        self._skipping = self._last[2] >= 0

    def take(self, rows: Sequence[Row], events: Sequence[int]) -> list[tuple[int, int, int, int, int, int, bool]]:
        """Return what is complete: (number, ticks, lots, first id, last id, ns, whether the buyer rested)."""
        if self._number is None:
            self._kept = [*self._kept, *zip(rows, events, strict=True)][-KEPT_MAX:]
            return []
        made: list[list[int]] = []
        for (trade_id, price, lots, time_ns, rested), event in zip(rows, events, strict=True):
            if trade_id <= self._last[0]:
                continue
            same = (price, event) == self._last[1:]
            self._last = (trade_id, price, event)
            if same and self._skipping:
                continue
            self._skipping = False
            if same and made:
                made[-1][2] += lots
                made[-1][4] = trade_id
                continue
            self._number += 1
            made.append([self._number, price, lots, trade_id, trade_id, time_ns, int(rested)])
        return [(*row[:6], bool(row[6])) for row in made]  # type: ignore[misc]
