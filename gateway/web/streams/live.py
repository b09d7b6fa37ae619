"""Live market data of a worker: books of its own, made from the market rings, and what is derived from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from gateway.marketdata.columns import flags_at, layout
from gateway.marketdata.feed import DERIVED_BASE, SLOT_SIZE, Feed, Levels
from gateway.web.errors import unavailable
from gateway.web.market_view import Depth
from gateway.web.reference import Instrument
from ringbuf.wire import market_messages as market
from ringbuf.wire.base import WireMessage
from ringbuf.wire.market_messages import EventFlags
from ringbuf.wire.messages import Side

POLL_LIMIT = 4096
BATCH_SLOTS = 4096
BATCHES = 16  # of one partition at a time: the sockets have their turn
FINISH_POLLS_MAX = 1024  # single steps to the end of an event that a poll has stopped in
POLLS_MAX = 256


TRADES: type[WireMessage] = market.Trade
LEVELS: type[WireMessage] = market.LevelUpdate
BESTS: type[WireMessage] = market.Bbo
_LAYOUTS = {message: layout(message) for message in (TRADES, LEVELS, BESTS)}
_DERIVED: tuple[type[WireMessage], ...] = (
    TRADES, LEVELS, BESTS, market.InstrumentStatus, market.AuctionIndicative,
)  # fmt: skip
_FLAGS_AT = flags_at(_DERIVED)


Sides = tuple[int, list[tuple[int, int]], list[tuple[int, int]]]  # update id, bids, asks


class Batch:
    """Slots of one partition's derived channel, in order. `events[i]`: which event slot i belongs to."""

    def __init__(self, slots: bytes, first_event: int) -> None:
        self.slots = slots
        self._templates = numpy.frombuffer(slots, dtype=_LAYOUTS[TRADES])["template"]
        flags = numpy.frombuffer(slots, dtype=numpy.uint8).reshape(-1, SLOT_SIZE)
        ends = numpy.zeros(len(self._templates), dtype=numpy.int64)
        for template, at in _FLAGS_AT.items():
            mask = self._templates == template
            ends[mask] = (flags[mask, at] & EventFlags.END_OF_EVENT) != 0
        done = numpy.cumsum(ends)
        self.events = first_event + done - ends
        self.next_event = first_event + int(done[-1])
        self.open = not ends[-1]

    def rows(self, message: type[WireMessage]) -> tuple[Any, Any]:
        """Return the messages of one kind and the events they belong to."""
        mask = self._templates == message.TEMPLATE_ID
        return numpy.frombuffer(self.slots, dtype=_LAYOUTS[message])[mask], self.events[mask]


class _Place:
    def __init__(self, position: int) -> None:
        self.next = position
        self.event = 0
        self.open = False


class LiveMarket:
    """Poll it. Everything is as of the last poll: books and batches agree."""

    def __init__(self, feed: Feed, stalled: Callable[[int], None]) -> None:
        """The feed is started and keeps books. `stalled` takes the status of one that cannot go on."""
        self.feed = feed
        self._stalled = stalled
        self._places: dict[int, _Place] = {}
        self.laps = 0

    @property
    def ready(self) -> bool:
        """Whether the books are those of now."""
        return self.feed.caught_up

    def poll(self) -> tuple[int, list[tuple[int, Batch]], set[int]]:
        """Return how much was done, what came by partition, and partitions of which something was lost."""
        work = self.feed.poll(POLL_LIMIT)
        if work < 0:
            self._stalled(work)
            work = 0
        work += self._finish()
        if not self.feed.caught_up:
            return work, [], set()
        batches: list[tuple[int, Batch]] = []
        lost: set[int] = set()
        for partition in range(1, self.feed.config.partitions + 1):
            place = self._places.get(partition)
            if place is None:
                place = self._places[partition] = _Place(self.feed.position(DERIVED_BASE + partition).next)
            self._read(partition, place, batches, lost)
        return work, batches, lost

    def _finish(self) -> int:
        """Go on to a moment at which all books are whole, if what is left of their events is there."""
        partitions, work = range(1, self.feed.config.partitions + 1), 0
        for _ in range(FINISH_POLLS_MAX):
            if all(map(self.feed.between_events, partitions)):
                break
            done = self.feed.poll(1)
            if done <= 0:
                break
            work += done
        return work

    def _read(self, partition: int, place: _Place, batches: list[tuple[int, Batch]], lost: set[int]) -> None:
        for _ in range(BATCHES):
            slots = self.feed.derived(partition, place.next, BATCH_SLOTS)
            if not slots:
                position = self.feed.position(DERIVED_BASE + partition)
                if place.next < position.oldest:
                    self.laps += 1
                    place.next = position.next
                    lost.add(partition)
                return
            batch = Batch(slots, place.event)
            place.event, place.open = batch.next_event, batch.open
            place.next += len(slots) // SLOT_SIZE
            batches.append((partition, batch))
            if len(slots) < BATCH_SLOTS * SLOT_SIZE:
                return

    def between_events(self, partition: int) -> bool:
        """Whether books and what has been read end with the same whole event."""
        place = self._places.get(partition)
        if place is None or place.open or not self.feed.between_events(partition):
            return False
        return place.next == self.feed.position(DERIVED_BASE + partition).next

    def since(self, instrument: Instrument, update_id: int) -> Any | None:
        """Return the level changes of a pair after an update id; None when they are no longer all kept."""
        position = self.feed.position(DERIVED_BASE + instrument.partition)
        parts, at = [], position.oldest
        while at < position.next:
            slots = self.feed.derived(instrument.partition, at, BATCH_SLOTS)
            if not slots:
                return None
            at += len(slots) // SLOT_SIZE
            rows = numpy.frombuffer(slots, dtype=_LAYOUTS[LEVELS])
            parts.append(rows[(rows["template"] == LEVELS.TEMPLATE_ID) & (rows["instrument_id"] == instrument.id)])
        rows = numpy.concatenate(parts) if parts else numpy.empty(0, dtype=_LAYOUTS[LEVELS])
        whole = position.oldest <= 1 or (len(rows) > 0 and int(rows["update_id"][0]) <= update_id)
        return rows[rows["update_id"] > update_id] if whole else None

    def sides(self, instrument: Instrument, count: int) -> Sides | None:
        """Return update id, bids and asks, best first; None in the middle of an event."""
        found: list[Levels] = []
        for side in (Side.BUY, Side.SELL):
            levels = self.feed.levels(instrument.partition, instrument.id, side, count)
            if levels is None:
                return None
            found.append(levels)
        bids, asks = found
        return asks.update_id, list(bids.levels), list(asks.levels)

    def depth(self, instrument: Instrument, limit: int) -> Depth:
        """Return the book as of now. Raises ApiError -1008 while the books are being made."""
        for _ in range(POLLS_MAX):
            work = self.feed.poll(POLL_LIMIT)
            found = self.sides(instrument, limit) if work <= 0 and self.ready else None
            if found is not None:
                return Depth(*found)
        raise unavailable()
