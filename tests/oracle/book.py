"""One order book: two plain lists in priority order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from ringbuf.wire.messages import Side
from tests.oracle.records import ModelError

if TYPE_CHECKING:
    from tests.oracle.orders import LiveOrder


def opposite(side: int) -> int:
    return Side.SELL if side == Side.BUY else Side.BUY


def is_better(side: int, price: int, other: int) -> bool:
    """Return True if `price` comes before `other` on this side of the book."""
    return price > other if side == Side.BUY else price < other


def crosses(taker_side: int, limit: int, maker_price: int) -> bool:
    return maker_price <= limit if taker_side == Side.BUY else maker_price >= limit


class Book:
    """Resting orders, best first, then oldest first. Of an iceberg one slice is in it."""

    def __init__(self) -> None:
        self.bids: list[LiveOrder] = []
        self.asks: list[LiveOrder] = []

    def side(self, side: int) -> list[LiveOrder]:
        return self.bids if side == Side.BUY else self.asks

    def add(self, order: LiveOrder) -> None:
        """Place the order behind every order of the same or a better price."""
        orders = self.side(order.side)
        orders.insert(self.place(orders, order), order)

    def place(self, orders: list[LiveOrder], order: LiveOrder) -> int:
        for index, resting in enumerate(orders):
            if is_better(order.side, order.price, resting.price):
                return index
        return len(orders)

    def remove(self, order: LiveOrder) -> None:
        self.side(order.side).remove(order)

    def best(self, side: int) -> LiveOrder | None:
        orders = self.side(side)
        return orders[0] if orders else None

    def within(self, taker_side: int, limit: int) -> Iterator[LiveOrder]:
        """Yield the makers a taker may meet, in priority order."""
        for maker in self.side(opposite(taker_side)):
            if not crosses(taker_side, limit, maker.price):
                return
            yield maker

    def contents(self) -> frozenset[tuple[int, ...]]:
        """Return what is in the book: order id, price, visible and whole quantity of each order."""
        orders = (*self.bids, *self.asks)
        return frozenset((order.order_id, order.price, order.visible, order.leaves) for order in orders)

    def is_crossed(self) -> bool:
        return bool(self.bids and self.asks and self.bids[0].price >= self.asks[0].price)

    def check(self) -> None:
        """Raise if the book is out of order, or holds an order that shows nothing or more than it has."""
        for side in (Side.BUY, Side.SELL):
            orders = self.side(side)
            for order in orders:
                if not 0 < order.visible <= order.leaves or order.side != side or order.is_waiting:
                    raise ModelError(f"order does not belong in the book: {order}")
            for front, back in pairwise(orders):
                if is_better(side, back.price, front.price):
                    raise ModelError(f"priority broken: {front} before {back}")
