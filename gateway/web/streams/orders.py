"""One pair order by order: each change of a resting order, under the matcher's own update ids, and the book before it.

A large book goes out in parts, one a step and as the reader takes them; what changed meanwhile follows in one message,
so that nobody else waits and nothing is missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy

from gateway.marketdata.columns import layout
from gateway.marketdata.feed import SLOT_SIZE
from gateway.web.reference import Instrument
from gateway.web.streams import payloads
from gateway.web.streams.fanout import Audience, Make, Outlet
from gateway.web.streams.live import LiveMarket
from gateway.web.streams.payloads import Change, Resting
from ringbuf.wire import market_messages as market
from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import Side

READ_SLOTS = 4096
WAITING_MAX = 65_536  # slots; a worker that is further behind tells its listeners to begin anew
PART_ORDERS = 1000
_NO_FIELD = "order_id"  # stands in a column that a message does not have; payloads do not look at it
_FIELDS: dict[type[WireMessage], tuple[str, str, str, str]] = {  # side, price, quantity, trade id
    market.OrderAdd: ("side", "price", "qty", _NO_FIELD),
    market.OrderExecute: ("side", "last_px", "last_qty", "trade_id"),
    market.OrderReduce: ("side", _NO_FIELD, "new_qty", _NO_FIELD),
    market.OrderDelete: ("side", _NO_FIELD, _NO_FIELD, _NO_FIELD),
    market.OrderReplace: ("side", "new_price", "new_qty", _NO_FIELD),
}
_LAYOUTS = {message: layout(message) for message in _FIELDS}


def changes(slots: bytes, instrument_id: int) -> list[Change]:
    """Return the changes of a pair's resting orders among slots of a market channel, in order."""
    found: list[tuple[int, Change]] = []
    for message, names in _FIELDS.items():
        rows = numpy.frombuffer(slots, dtype=_LAYOUTS[message])
        at = numpy.flatnonzero((rows["template"] == message.TEMPLATE_ID) & (rows["instrument_id"] == instrument_id))
        if not len(at):
            continue
        own = rows[at]
        columns = [own[name].tolist() for name in ("update_id", "transact_time", "order_id", *names)]
        found += [(place, Change(message, *values)) for place, *values in zip(at.tolist(), *columns, strict=True)]
    return [change for _, change in sorted(found, key=lambda each: each[0])]


@dataclass(frozen=True, slots=True)
class Listener:
    """A subscriber: its way out; the form it wants, which may change; whether it still wants anything."""

    outlet: Outlet
    form: Callable[[], tuple[bool, int]]  # wrapped with the stream's name, unit of times
    wanted: Callable[[], bool]


@dataclass(slots=True)
class _Joining:
    """A subscriber that has not got the whole book yet."""

    listener: Listener
    last_id: int
    parts: deque[Make]


class OrderStream:
    """One pair. Everything is called at moments when the book is whole and all changes up to it have been told."""

    def __init__(self, audience: Audience, live: LiveMarket, instrument: Instrument) -> None:
        """Begins now: what comes from now on is told."""
        self.audience = audience
        self.partition = instrument.partition
        self._live = live
        self._instrument = instrument
        sides = live.sides(instrument, 0)
        assert sides is not None  # the caller has looked
        self.last_id = sides[0]
        self._joining: list[_Joining] = []

    @property
    def joining(self) -> bool:
        """Whether somebody is not among the audience yet and wants to be."""
        return any(each.listener.wanted() for each in self._joining)

    def restart(self) -> None:
        """Changes were lost: what comes from now on is told."""
        self.audience.fail("order events were lost; connect again")
        sides = self._live.sides(self._instrument, 0)
        assert sides is not None
        self.last_id = sides[0]

    def take(self, slots: bytes, now_ns: int) -> None:
        """Tell what changed."""
        found = changes(slots, self._instrument.id)
        if found:
            first, self.last_id = self.last_id + 1, found[-1].update_id
            self.audience.tell(self._update(first, found, now_ns))

    def begin(self, listener: Listener, after: int | None, now_ns: int) -> None:
        """Give a subscriber what it missed after an update id, or the book; then it is one of the audience."""
        if after is None or not self._catch_up(listener, after, now_ns):
            self._joining.append(_Joining(listener, self.last_id, self._snapshot(now_ns)))
            self.step(now_ns)

    def step(self, now_ns: int) -> None:
        """Give those who are joining one part more, if they have taken the part before."""
        waiting, self._joining = self._joining, []
        for each in waiting:
            if not each.listener.wanted():
                continue
            if each.listener.outlet.takes_more:
                if each.parts:
                    self._send(each.listener, each.parts.popleft())
                if not each.parts and self._catch_up(each.listener, each.last_id, now_ns):
                    continue
                if not each.parts:  # it took so long that the changes are no longer kept
                    each.last_id, each.parts = self.last_id, self._snapshot(now_ns)
            self._joining.append(each)

    def _catch_up(self, listener: Listener, after: int, now_ns: int) -> bool:
        """Send what changed after an update id, and let the subscriber in; False when it is not all kept any more."""
        if after != self.last_id:
            found = self._since(after)
            if not found:
                return False
            self._send(listener, self._update(after + 1, found, now_ns))
        combined, unit_ns = listener.form()
        self.audience.add(listener.outlet, combined=combined, unit_ns=unit_ns)
        return True

    def _send(self, listener: Listener, make: Make) -> None:
        combined, unit_ns = listener.form()
        listener.outlet.send(self.audience.frame(make, combined=combined, unit_ns=unit_ns))

    def _since(self, update_id: int) -> list[Change]:
        """Return all changes after an update id, [] when they are not known."""
        feed, partition = self._live.feed, self.partition
        kept = feed.config.derived_slots
        last = feed.taken(partition, 1, 0).next
        at = first = max(feed.position(partition).oldest, last - kept)
        parts: list[bytes] = []
        while at < last:
            slots = feed.taken(partition, at, READ_SLOTS).slots
            if not slots:
                return []
            parts.append(slots)
            at += len(slots) // SLOT_SIZE
        found = changes(b"".join(parts), self._instrument.id)
        whole = first <= 1 or (found and found[0].update_id <= update_id + 1)
        return [change for change in found if change.update_id > update_id] if whole else []

    def _update(self, first: int, found: list[Change], now_ns: int) -> Make:
        top = self._live.sides(self._instrument, payloads.CHECKSUM_LEVELS)
        assert top is not None
        instrument, last_id, crc = self._instrument, self.last_id, payloads.checksum(top[1], top[2])
        return lambda unit: payloads.order_update(instrument, first, last_id, found, crc, now_ns, unit)

    def _snapshot(self, now_ns: int) -> deque[Make]:
        sides = []
        for side in (Side.BUY, Side.SELL):
            book = self._live.feed.orders(self.partition, self._instrument.id, side)
            assert book is not None
            sides.append(book.orders)
        bids, asks = sides
        top = self._live.sides(self._instrument, payloads.CHECKSUM_LEVELS)
        assert top is not None
        instrument, last_id, crc = self._instrument, self.last_id, payloads.checksum(top[1], top[2])
        rows: list[tuple[bool, Resting]] = [*((True, each) for each in bids), *((False, each) for each in asks)]
        pieces = [rows[at : at + PART_ORDERS] for at in range(0, len(rows), PART_ORDERS)] or [[]]

        def part(index: int) -> Make:
            left = len(pieces) - 1 - index
            return lambda unit: payloads.order_snapshot(instrument, last_id, pieces[index], left, crc, now_ns, unit)

        return deque(part(index) for index in range(len(pieces)))


class OrderStreams:
    """All order-by-order streams of a worker."""

    def __init__(self, live: LiveMarket) -> None:
        self._live = live
        self._streams: dict[int, dict[int, OrderStream]] = {}  # by partition and instrument
        self._next: dict[int, int] = {}  # by partition: the number of the next slot to be told

    def add(self, audience: Audience, instrument: Instrument) -> OrderStream:
        """Begin to tell of a pair, now."""
        made = OrderStream(audience, self._live, instrument)
        self._next.setdefault(instrument.partition, self._live.feed.taken(instrument.partition, 1, 0).next)
        self._streams.setdefault(instrument.partition, {})[instrument.id] = made
        return made

    def get(self, instrument: Instrument) -> OrderStream | None:
        return self._streams.get(instrument.partition, {}).get(instrument.id)

    def remove(self, instrument: Instrument) -> None:
        """Nobody listens any more."""
        streams = self._streams.get(instrument.partition, {})
        streams.pop(instrument.id, None)
        if not streams:
            self._streams.pop(instrument.partition, None)
            self._next.pop(instrument.partition, None)

    def tell(self, now_ns: int) -> None:
        """Tell what the books have taken since the last time, where they are whole."""
        for partition, streams in list(self._streams.items()):
            if not self._live.between_events(partition):
                continue
            slots = self._read(partition)
            for stream in list(streams.values()):
                if slots is None:
                    stream.restart()
                elif slots:
                    stream.take(slots, now_ns)
                stream.step(now_ns)

    def _read(self, partition: int) -> bytes | None:
        """Return the slots since the last time; None when they are gone or too many."""
        parts: list[bytes] = []
        last = self._live.feed.taken(partition, 1, 0).next
        while self._next[partition] < last:
            first = self._next[partition]
            slots = None if last - first > WAITING_MAX else self._live.feed.taken(partition, first, READ_SLOTS).slots
            if not slots:
                self._next[partition] = last
                return None
            parts.append(slots)
            self._next[partition] += len(slots) // SLOT_SIZE
        return b"".join(parts)
