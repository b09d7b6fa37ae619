"""What the SBE market streams say, from the derived channels: prints, best prices, levels. Sockets are in websocket.py.

Whoever hosts it calls `poll()` every millisecond or so, on the thread that polls the feed. Subscribers get frames; all
of them of one stream get the same bytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy

from gateway.marketdata import sbe_streams as sbe
from gateway.marketdata.columns import NO_PRICE, TEMPLATE_AT, flags_at, layout
from gateway.marketdata.feed import DERIVED_BASE, SLOT_SIZE, Feed
from ringbuf.wire import market_messages as market
from ringbuf.wire.base import WireMessage
from ringbuf.wire.market_messages import EventFlags, InstrumentDefinition
from ringbuf.wire.messages import Side, SideOrBoth

DEPTH_EVERY_S = 0.02
SNAPSHOT_EVERY_S = 0.05
SNAPSHOT_LEVELS = 20
BATCH_SLOTS = 4096
BATCHES = 4  # of one partition in a poll: the others and the sockets have their turn

_SYMBOL = re.compile(r"[^a-z0-9]")


_READ: tuple[type[WireMessage], ...] = (market.LevelUpdate, market.Bbo, market.Trade)
_SKIPPED: tuple[type[WireMessage], ...] = (market.InstrumentStatus, market.AuctionIndicative)
_LAYOUTS = {message: layout(message) for message in _READ}
_FLAGS_AT = flags_at(_READ + _SKIPPED)


class Kind(StrEnum):
    """What can be asked of an instrument: `<symbol>@<kind>`."""

    TRADE = "trade"
    BEST = "bestBidAsk"
    SNAPSHOT = "depth20"
    DIFF = "depth"


class StreamNameError(ValueError):
    """Not `<symbol>@<kind>`."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream's parsed name."""

    symbol: str  # lower case, letters and digits only
    kind: Kind

    @classmethod
    def parse(cls, name: str) -> Stream:
        """Raises StreamNameError naming the choices."""
        symbol, _, kind = name.partition("@")
        if not symbol or kind not in set(Kind):
            raise StreamNameError(f"stream {name!r}: must be <symbol>@ and one of {', '.join(Kind)}")
        return cls(_SYMBOL.sub("", symbol.lower()), Kind(kind))

    @property
    def latest_only(self) -> bool:
        """Whether a frame makes all earlier ones worthless."""
        return self.kind in (Kind.BEST, Kind.SNAPSHOT)


class Subscriber(Protocol):
    """Who gets frames."""

    def offer(self, stream: Stream, frame: bytes) -> None:
        """Take a frame. One of a stream that is `latest_only` may be dropped for the next."""

    def fail(self, reason: str) -> None:
        """A stream lost something: it cannot go on."""


@dataclass(slots=True)
class _Instrument:
    number: int
    partition: int
    scale: sbe.Scale
    # Of the diff stream: the last id told, what changed since.
    last_id: int = 0
    changed_id: int = 0
    changed: dict[tuple[int, int], int] = field(default_factory=dict)
    snapshot_id: int | None = None


@dataclass(slots=True)
class _Place:
    """How far a partition's derived channel has been read."""

    next: int = 0
    event_open: bool = False


class MarketStreams:
    """All streams of one feed."""

    def __init__(self, feed: Feed, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """The feed keeps books."""
        self._feed = feed
        self._clock_ns = clock_ns
        self._instruments: dict[str, _Instrument] = {}
        self._by_number: dict[int, tuple[str, _Instrument]] = {}
        self._subscribers: dict[Stream, dict[Subscriber, None]] = {}
        self._waiting: set[Stream] = set()  # have subscribers, are not offered yet
        self._wanted = {kind: numpy.zeros(feed.config.instruments_max + 1, dtype=bool) for kind in Kind}
        self._places: dict[int, _Place] = {}
        self._diff_due = self._snapshot_due = 0.0
        self.frames = self.laps = 0

    def define(self, definition: InstrumentDefinition) -> None:
        """Take an instrument, new or changed."""
        name = _SYMBOL.sub("", definition.symbol.lower())
        scale = sbe.Scale(
            name.upper(), definition.tick_size, definition.lot_size, definition.price_exponent, definition.qty_exponent
        )
        known = self._instruments.get(name)
        if known is None:
            known = _Instrument(definition.instrument_id, definition.partition, scale)
            self._instruments[name] = known
            self._by_number[known.number] = (name, known)
        known.scale = scale

    @property
    def waiting(self) -> Set[Stream]:
        """Streams that have subscribers and are not told yet."""
        return self._waiting

    def subscribe(self, subscriber: Subscriber, stream: Stream) -> None:
        """Begin to offer a stream's frames. The symbol may come later."""
        if stream not in self._subscribers:
            self._waiting.add(stream)
        self._subscribers.setdefault(stream, {})[subscriber] = None
        if stream.kind is Kind.SNAPSHOT and stream.symbol in self._instruments:
            self._instruments[stream.symbol].snapshot_id = None

    def unsubscribe(self, subscriber: Subscriber, stream: Stream) -> None:
        """Stop. Nothing happens if it was not subscribed to."""
        those = self._subscribers.get(stream, {})
        those.pop(subscriber, None)
        if those or self._subscribers.pop(stream, None) is None:
            return
        self._waiting.discard(stream)
        if stream.symbol in self._instruments:
            self._wanted[stream.kind][self._instruments[stream.symbol].number] = False

    def poll(self, now: float) -> int:
        """Read what is new and offer frames. Returns how many messages were read."""
        if not self._feed.caught_up:
            return 0
        for stream in [each for each in self._waiting if each.symbol in self._instruments]:
            self._begin(stream, self._instruments[stream.symbol])
        live = {self._instruments[each.symbol].partition for each in self._live()}
        self._places = {partition: place for partition, place in self._places.items() if partition in live}
        read = sum(self._read(partition) for partition in self._places)
        if now >= self._diff_due:
            self._diff_due = now + DEPTH_EVERY_S
            self._tell_diffs()
        if now >= self._snapshot_due:
            self._snapshot_due = now + SNAPSHOT_EVERY_S
            self._tell_snapshots()
        return read

    # --- what is wanted -----------------------------------------------------------------------------------------------

    def _live(self, kind: Kind | None = None) -> list[Stream]:
        known = self._subscribers.keys() - self._waiting
        return [each for each in known if kind is None or each.kind is kind]

    def _begin(self, stream: Stream, instrument: _Instrument) -> None:
        levels = self._feed.levels(instrument.partition, instrument.number, Side.BUY, 0)
        if levels is None:
            return  # in the middle of an event, the first part of which we would not get
        self._waiting.discard(stream)
        self._wanted[stream.kind][instrument.number] = True
        if instrument.partition not in self._places:
            self._places[instrument.partition] = _Place(self._feed.position(DERIVED_BASE + instrument.partition).next)
        if stream.kind is Kind.DIFF:
            instrument.last_id, instrument.changed_id = levels.update_id, 0
            instrument.changed.clear()

    # --- the derived channel ------------------------------------------------------------------------------------------

    def _read(self, partition: int) -> int:
        place, read = self._places[partition], 0
        for _ in range(BATCHES):
            slots = self._feed.derived(partition, place.next, BATCH_SLOTS)
            if not slots:
                position = self._feed.position(DERIVED_BASE + partition)
                if place.next < position.oldest:
                    self._lost(partition, place, position.next)
                break
            count = len(slots) // SLOT_SIZE
            self._take(slots)
            last = slots[-SLOT_SIZE:]
            template = int.from_bytes(last[TEMPLATE_AT : TEMPLATE_AT + 2], "little")
            place.event_open = not last[_FLAGS_AT[template]] & EventFlags.END_OF_EVENT
            place.next += count
            read += count
            if count < BATCH_SLOTS:
                break
        return read

    def _lost(self, partition: int, place: _Place, next_number: int) -> None:
        """We were too slow: a print or a level is gone. Those who cannot do without begin anew."""
        self.laps += 1
        place.next = next_number
        for stream in self._live():
            if self._instruments[stream.symbol].partition == partition and stream.kind in (Kind.TRADE, Kind.DIFF):
                for subscriber in list(self._subscribers[stream]):
                    subscriber.fail(f"{stream.symbol}@{stream.kind} lost messages")

    def _rows(self, slots: bytes, message: type[WireMessage], kind: Kind) -> Any:
        rows = numpy.frombuffer(slots, dtype=_LAYOUTS[message])
        rows = rows[rows["template"] == message.TEMPLATE_ID]
        return rows[self._wanted[kind][rows["instrument_id"]]]

    def _take(self, slots: bytes) -> None:
        self._tell_trades(self._rows(slots, market.Trade, Kind.TRADE))
        self._tell_best(self._rows(slots, market.Bbo, Kind.BEST))
        for row in self._rows(slots, market.LevelUpdate, Kind.DIFF):
            _, instrument = self._by_number[int(row["instrument_id"])]
            if row["update_id"] > instrument.last_id:
                instrument.changed[int(row["side"]), int(row["price"])] = int(row["new_qty"])
                instrument.changed_id = int(row["update_id"])

    def _tell_trades(self, rows: Any) -> None:
        """One frame for all prints of an order: those that follow each other at one time."""
        for number, time_ns, entries in _runs(rows):
            name, instrument = self._by_number[number]
            frame = sbe.trades(instrument.scale, self._now_us(), time_ns // 1000, entries)
            self._offer(Stream(name, Kind.TRADE), frame)

    def _tell_best(self, rows: Any) -> None:
        """Only the newest of each instrument: the older ones are no longer true."""
        for number, row in {int(row["instrument_id"]): row for row in rows}.items():
            name, instrument = self._by_number[number]
            bid = _side(int(row["bid_px"]), int(row["bid_qty"]))
            ask = _side(int(row["ask_px"]), int(row["ask_qty"]))
            frame = sbe.best_bid_ask(instrument.scale, self._now_us(), int(row["update_id"]), bid, ask)
            self._offer(Stream(name, Kind.BEST), frame)

    # --- on time ------------------------------------------------------------------------------------------------------

    def _tell_diffs(self) -> None:
        for stream in self._live(Kind.DIFF):
            instrument = self._instruments[stream.symbol]
            if not instrument.changed or self._places[instrument.partition].event_open:
                continue
            sides: dict[int, list[tuple[int, int]]] = {int(Side.BUY): [], int(Side.SELL): []}
            for (side, price), quantity in sorted(instrument.changed.items()):
                sides[side].append((price, quantity))
            bids, asks = sides[int(Side.BUY)][::-1], sides[int(Side.SELL)]
            first_id, instrument.last_id = instrument.last_id + 1, instrument.changed_id
            instrument.changed.clear()
            # More than a group can count: several frames, of the same ids, that complete each other.
            for at in range(0, max(len(bids), len(asks)), sbe.LEVELS_MAX):
                part = slice(at, at + sbe.LEVELS_MAX)
                frame = sbe.depth_diff(
                    instrument.scale, self._now_us(), first_id, instrument.last_id, bids[part], asks[part]
                )
                self._offer(stream, frame)

    def _tell_snapshots(self) -> None:
        for stream in self._live(Kind.SNAPSHOT):
            instrument = self._instruments[stream.symbol]
            sides = [
                self._feed.levels(instrument.partition, instrument.number, side, SNAPSHOT_LEVELS)
                for side in (Side.BUY, Side.SELL)
            ]
            bids, asks = sides
            if bids is None or asks is None or asks.update_id == instrument.snapshot_id:
                continue
            instrument.snapshot_id = asks.update_id
            frame = sbe.depth_snapshot(instrument.scale, self._now_us(), asks.update_id, bids.levels, asks.levels)
            self._offer(stream, frame)

    def _offer(self, stream: Stream, frame: bytes) -> None:
        self.frames += 1
        for subscriber in list(self._subscribers.get(stream, ())):
            subscriber.offer(stream, frame)

    def _now_us(self) -> int:
        return self._clock_ns() // 1000


def _side(price: int, quantity: int) -> tuple[int, int] | None:
    return None if price == NO_PRICE else (price, quantity)


def _runs(rows: Any) -> Iterator[tuple[int, int, list[tuple[int, int, int, bool]]]]:
    """Yield instrument, time and entries of prints that belong together."""
    key: tuple[int, int] | None = None
    entries: list[tuple[int, int, int, bool]] = []
    for row in rows:
        belongs = int(row["instrument_id"]), int(row["transact_time"])
        if key != belongs:
            if key is not None:
                yield *key, entries
            key, entries = belongs, []
        # Nobody was first in an auction: then the buyer was no maker.
        maker = int(row["aggressor_side"]) == SideOrBoth.SELL
        entries.append((int(row["trade_id"]), int(row["price"]), int(row["qty"]), maker))
    if key is not None:
        yield *key, entries
