"""Rebuild one book order by order from market-data slots, and refuse events that cannot follow from what came before.

A slot: u64 update id of the instrument, standard SBE header (8 bytes), block. Update ids are contiguous per instrument.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any

from ringbuf.wire import market_messages as market
from ringbuf.wire.messages import Side

SLOT_SIZE = 64
BLOCK_OFFSET = 16
SLOT_PREFIX = Struct("<QHHHH")
END_OF_EVENT = int(market.EventFlags.END_OF_EVENT)
IMPLIED = int(market.EventFlags.IMPLIED)


class BookError(ValueError):
    """An event contradicts the book: a gap in update ids, an unknown order, more executed than open."""


@dataclass
class Order:
    """A resting order as far as the public feed shows it."""

    side: int
    price: int
    quantity: int


@dataclass(frozen=True)
class Top:
    """Best price of a side with its quantity, number of orders and their total; price None = empty."""

    price: int | None
    quantity: int
    order_count: int
    total_quantity: int


class _Side:
    """Levels of one side; each level keeps its orders in priority order."""

    def __init__(self, best_is_highest: bool) -> None:
        self._best_is_highest = best_is_highest
        self.prices: list[int] = []
        self.levels: dict[int, dict[int, Order]] = {}
        self.order_count = 0
        self.total_quantity = 0

    def add(self, order_id: int, order: Order) -> None:
        level = self.levels.get(order.price)
        if level is None:
            level = self.levels[order.price] = {}
            insort(self.prices, order.price)
        level[order_id] = order
        self.order_count += 1
        self.total_quantity += order.quantity

    def remove(self, order_id: int, order: Order) -> None:
        level = self.levels[order.price]
        del level[order_id]
        if not level:
            del self.levels[order.price]
            del self.prices[bisect_left(self.prices, order.price)]
        self.order_count -= 1
        self.total_quantity -= order.quantity

    def top(self) -> Top:
        if not self.prices:
            return Top(None, 0, 0, 0)
        best = self.prices[-1 if self._best_is_highest else 0]
        quantity = sum(order.quantity for order in self.levels[best].values())
        return Top(best, quantity, self.order_count, self.total_quantity)


class BookBuilder:
    """The book of one instrument; slots of other instruments are skipped."""

    def __init__(self, instrument_id: int) -> None:
        self.instrument_id = instrument_id
        self.bids = _Side(best_is_highest=True)
        self.asks = _Side(best_is_highest=False)
        self.orders: dict[int, Order] = {}
        self.next_update_id = 1
        self.event_open = False
        self._auction_bid = False  # the event before was the bid of an auction trade: its ask follows
        self._handlers: dict[int, Callable[[Any], None]] = {
            market.OrderAdd.TEMPLATE_ID: self._add,
            market.OrderExecute.TEMPLATE_ID: self._execute,
            market.OrderReduce.TEMPLATE_ID: self._reduce,
            market.OrderDelete.TEMPLATE_ID: self._delete,
            market.OrderReplace.TEMPLATE_ID: self._replace,
        }

    def apply(self, slots: bytes | bytearray | memoryview) -> int:
        """Apply whole slots in ring order, return how many concerned this book. Raises BookError."""
        applied = 0
        for offset in range(0, len(slots), SLOT_SIZE):
            update_id, _, template_id, _, _ = SLOT_PREFIX.unpack_from(slots, offset)
            kind = market.MESSAGES.get(template_id)
            if kind is None:
                continue
            message = kind.unpack(slots, offset + BLOCK_OFFSET)
            if getattr(message, "instrument_id", 0) != self.instrument_id:
                continue
            if update_id != self.next_update_id:
                raise BookError(f"update id {update_id}, expected {self.next_update_id}")
            self.next_update_id += 1
            applied += 1
            handler = self._handlers.get(template_id)
            if handler is not None:
                handler(message)
            self.event_open = not int(getattr(message, "event_flags", END_OF_EVENT)) & END_OF_EVENT
        return applied

    def top(self) -> tuple[Top, Top]:
        """Return best bid and best ask."""
        return self.bids.top(), self.asks.top()

    def _side(self, side: int) -> _Side:
        return self.bids if side == Side.BUY else self.asks

    def _known(self, order_id: int) -> Order:
        order = self.orders.get(order_id)
        if order is None:
            raise BookError(f"order {order_id} is not in the book")
        return order

    def _insert(self, order_id: int, order: Order) -> None:
        if order_id in self.orders:
            raise BookError(f"order {order_id} is in the book already")
        if order.quantity <= 0:
            raise BookError(f"order {order_id} rests with quantity {order.quantity}")
        self.orders[order_id] = order
        self._side(order.side).add(order_id, order)

    def _take_out(self, order_id: int) -> Order:
        order = self._known(order_id)
        self._side(order.side).remove(order_id, order)
        del self.orders[order_id]
        return order

    def _resize(self, order_id: int, quantity: int) -> None:
        order = self._known(order_id)
        if not 0 <= quantity <= order.quantity:
            raise BookError(f"order {order_id}: quantity from {order.quantity} to {quantity}")
        if quantity == 0:
            self._take_out(order_id)
            return
        self._side(order.side).total_quantity -= order.quantity - quantity
        order.quantity = quantity

    def _add(self, message: market.OrderAdd) -> None:
        self._insert(message.order_id, Order(int(message.side), message.price, message.qty))

    def _execute(self, message: market.OrderExecute) -> None:
        order = self._known(message.order_id)
        is_bid = bool(int(message.event_flags) & IMPLIED)
        in_auction, self._auction_bid = is_bid or self._auction_bid, is_bid
        # An auction has one price for all: an order gets its own or a better one.
        worse = message.last_px > order.price if order.side == Side.BUY else message.last_px < order.price
        if message.last_qty <= 0 or worse or (message.last_px != order.price and not in_auction):
            raise BookError(
                f"order {message.order_id}: {message.last_qty} executed at {message.last_px}, rests at {order.price}"
            )
        # The maker must be the first of its level: price-time priority as the public sees it.
        first = next(iter(self._side(order.side).levels[order.price]))
        if first != message.order_id:
            raise BookError(f"order {message.order_id} executed before order {first} of the same price")
        self._resize(message.order_id, order.quantity - message.last_qty)

    def _reduce(self, message: market.OrderReduce) -> None:
        self._resize(message.order_id, message.new_qty)

    def _delete(self, message: market.OrderDelete) -> None:
        self._take_out(message.order_id)

    def _replace(self, message: market.OrderReplace) -> None:
        side = self._take_out(message.order_id).side
        self._insert(message.order_id, Order(side, message.new_price, message.new_qty))
