"""The levels of one pair that changed, told with contiguous update ids; snapshots from the same moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.web.reference import Instrument
from gateway.web.streams import payloads
from gateway.web.streams.fanout import Audience
from gateway.web.streams.live import LiveMarket
from gateway.web.streams.names import Kind
from gateway.web.streams.payloads import Body, Level
from ringbuf.wire.messages import Side

BOOK_LEVELS = 1000  # of a side, in a snapshot
_BUY = int(Side.BUY)


class DepthStream:
    """`take()` what changes, `tell()` when it is time; both while the book is whole."""

    def __init__(self, audience: Audience, live: LiveMarket, instrument: Instrument) -> None:
        """Begins now: what comes from now on is told."""
        self.audience = audience
        self.stream = audience.stream
        self.partition = instrument.partition
        self._live = live
        self._instrument = instrument
        sides = live.sides(instrument, 0)
        assert sides is not None  # the caller has looked
        self.last_id = self._newest_id = sides[0]
        self._changed: dict[tuple[int, int], int] = {}

    def take(self, rows: Any) -> None:
        """Take level updates in order."""
        newest = int(rows["update_id"][-1])
        if newest <= self.last_id:
            return
        self._newest_id = newest
        keys = zip(rows["side"].tolist(), rows["price"].tolist(), strict=True)
        self._changed.update(zip(keys, rows["new_qty"].tolist(), strict=True))

    def tell(self, now_ns: int) -> None:
        """Tell what has changed since the last time."""
        if not self._changed:
            return
        first, self.last_id = self.last_id + 1, self._newest_id
        bids, asks = sorted_sides(self._changed)
        self._changed = {}
        self.audience.tell(self._made(first, bids, asks, now_ns))

    def snapshot(self, now_ns: int) -> Callable[[int], Body]:
        """Return the book as of the last message told."""
        sides = self._live.sides(self._instrument, BOOK_LEVELS)
        assert sides is not None
        _, bids, asks = sides
        instrument, last_id = self._instrument, self.last_id
        return lambda unit: payloads.book_snapshot(instrument, last_id, bids, asks, now_ns, unit)

    def since(self, update_id: int, now_ns: int) -> Callable[[int], Body] | None:
        """Return all that changed between an update id and the last message told; None when it is no longer kept."""
        if update_id > self.last_id:
            return None
        rows = self._live.since(self._instrument, update_id)
        if rows is None:
            return None
        keys = zip(rows["side"].tolist(), rows["price"].tolist(), strict=True)
        changed = dict(zip(keys, rows["new_qty"].tolist(), strict=True))
        return self._made(update_id + 1, *sorted_sides(changed), now_ns)

    def _made(self, first: int, bids: list[Level], asks: list[Level], now_ns: int) -> Callable[[int], Body]:
        instrument, last_id = self._instrument, self.last_id
        if self.stream.kind is Kind.DIFF:
            return lambda unit: payloads.depth_diff(instrument, first, last_id, bids, asks, now_ns, unit)
        top = self._live.sides(instrument, payloads.CHECKSUM_LEVELS)
        assert top is not None
        crc = payloads.checksum(top[1], top[2])

        def make(unit_ns: int) -> Body:
            body = payloads.depth_diff(instrument, first, last_id, bids, asks, now_ns, unit_ns)
            return body | {"e": "bookUpdate", "c": crc}

        return make


def sorted_sides(changed: dict[tuple[int, int], int]) -> tuple[list[Level], list[Level]]:
    """Return bids and asks, best first."""
    bids = sorted(((price, lots) for (side, price), lots in changed.items() if side == _BUY), reverse=True)
    asks = sorted((price, lots) for (side, price), lots in changed.items() if side != _BUY)
    return bids, asks
