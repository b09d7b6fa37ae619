"""Order books of a market-data channel, by order and by level, kept by its messages and compared with its digests.

Prices are ticks, quantities lots. A book that refuses a message has missed something: read a snapshot and start anew.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

from ringbuf.wire import market_messages as market
from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import MarketState, Side

MASK64 = (1 << 64) - 1
MASK128 = (1 << 128) - 1
_ID_FACTOR, _RANK_FACTOR, _OFFSET = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F


class BookMismatch(Exception):
    """A message cannot follow from what came before, or the exchange's digest differs from ours."""


def digest_term(order_id: int, price: int, quantity: int, side: int) -> int:
    """Return one order's part of the digest; a book's is the sum modulo 2^128 (docs/PROTOCOL.md, section 14)."""
    rank = price if side == Side.SELL else ~price
    key = (order_id * _ID_FACTOR & MASK64) ^ (rank * _RANK_FACTOR & MASK64)
    return key * (quantity + _OFFSET & MASK64)


@dataclass(slots=True)
class BookOrder:
    """A visible order."""

    order_id: int
    side: int
    price: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Level:
    """All orders at one price."""

    price: int
    quantity: int
    orders: int


class _Side:
    """Levels by price; a level's orders in priority order."""

    def __init__(self) -> None:
        self.prices: list[int] = []  # ascending
        self.levels: dict[int, dict[int, BookOrder]] = {}

    def add(self, order: BookOrder) -> None:
        level = self.levels.get(order.price)
        if level is None:
            level = self.levels[order.price] = {}
            insort(self.prices, order.price)
        level[order.order_id] = order

    def remove(self, order: BookOrder) -> None:
        level = self.levels[order.price]
        del level[order.order_id]
        if not level:
            del self.levels[order.price]
            del self.prices[bisect_left(self.prices, order.price)]


class OrderBook:
    """The book of one instrument."""

    def __init__(self, instrument_id: int) -> None:
        self.instrument_id = instrument_id
        self.status: MarketState | int | None = None
        self.event_open = False  # more messages of the same event are to come: the book may be crossed
        self.digests = 0  # compared so far
        self.orders: dict[int, BookOrder] = {}
        self._sides = {int(Side.BUY): _Side(), int(Side.SELL): _Side()}
        self._digest = 0

    @property
    def digest(self) -> int:
        """128 bits over all visible orders."""
        return self._digest

    def apply(self, message: WireMessage) -> None:
        """Apply one message of the full channel, or SnapshotOrder. Raises BookMismatch; then nothing has changed."""
        match message:
            case market.OrderAdd() | market.SnapshotOrder():
                self._insert(BookOrder(message.order_id, int(message.side), message.price, message.qty))
            case market.OrderExecute():
                order = self._known(message.order_id, int(message.side))
                if message.last_qty <= 0:
                    raise BookMismatch(f"order {message.order_id}: executes {message.last_qty}")
                self._resize(order, order.quantity - message.last_qty)
            case market.OrderReduce():
                self._resize(self._known(message.order_id, int(message.side)), message.new_qty)
            case market.OrderDelete():
                self._remove(self._known(message.order_id, int(message.side)))
            case market.OrderReplace():
                if message.new_qty <= 0:
                    raise BookMismatch(f"order {message.order_id}: rests with {message.new_qty}")
                self._remove(self._known(message.order_id, int(message.side)))
                self._insert(BookOrder(message.order_id, int(message.side), message.new_price, message.new_qty))
            case market.InstrumentStatus():
                self.status = message.status
            case market.BookDigest():
                self._compare(message)
        flags = getattr(message, "event_flags", market.EventFlags.END_OF_EVENT)
        self.event_open = not int(flags) & market.EventFlags.END_OF_EVENT

    def clear(self) -> None:
        """Forget all orders: a snapshot is about to be read."""
        self.orders.clear()
        self._sides = {int(Side.BUY): _Side(), int(Side.SELL): _Side()}
        self._digest = 0

    def best(self, side: Side) -> Level | None:
        """Return the best level of a side."""
        return next(self.levels(side), None)

    def levels(self, side: Side) -> Iterator[Level]:
        """Yield the levels of a side, best first."""
        book = self._sides[int(side)]
        for price in reversed(book.prices) if side == Side.BUY else book.prices:
            level = book.levels[price]
            yield Level(price, sum(order.quantity for order in level.values()), len(level))

    def queue(self, side: Side) -> Iterator[BookOrder]:
        """Yield the orders of a side in priority order."""
        book = self._sides[int(side)]
        for price in reversed(book.prices) if side == Side.BUY else book.prices:
            yield from book.levels[price].values()

    def _known(self, order_id: int, side: int) -> BookOrder:
        order = self.orders.get(order_id)
        if order is None or order.side != side:
            raise BookMismatch(f"order {order_id} is not on this side of the book of instrument {self.instrument_id}")
        return order

    def _term(self, order: BookOrder) -> int:
        return digest_term(order.order_id, order.price, order.quantity, order.side)

    def _insert(self, order: BookOrder) -> None:
        if order.order_id in self.orders:
            raise BookMismatch(f"order {order.order_id} is in the book already")
        if order.quantity <= 0 or order.side not in self._sides:
            raise BookMismatch(f"order {order.order_id}: rests with {order.quantity} on side {order.side}")
        self.orders[order.order_id] = order
        self._sides[order.side].add(order)
        self._digest = (self._digest + self._term(order)) & MASK128

    def _remove(self, order: BookOrder) -> None:
        self._sides[order.side].remove(order)
        del self.orders[order.order_id]
        self._digest = (self._digest - self._term(order)) & MASK128

    def _resize(self, order: BookOrder, quantity: int) -> None:
        if not 0 <= quantity <= order.quantity:
            raise BookMismatch(f"order {order.order_id}: quantity from {order.quantity} to {quantity}")
        if quantity == 0:
            self._remove(order)
            return
        before = self._term(order)
        order.quantity = quantity
        self._digest = (self._digest - before + self._term(order)) & MASK128

    def _compare(self, message: market.BookDigest) -> None:
        theirs = message.digest_high << 64 | message.digest_low
        if theirs != self._digest or message.order_count != len(self.orders):
            raise BookMismatch(
                f"instrument {self.instrument_id}: {len(self.orders)} orders with digest {self._digest:032x}, "
                f"the exchange has {message.order_count} with {theirs:032x}"
            )
        self.digests += 1
