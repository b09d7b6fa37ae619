"""One order book: two plain lists in priority order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ringbuf.wire.messages import Side
from tests.oracle.records import ModelError


@dataclass(slots=True)
class BookOrder:
    """An order as its matcher knows it. `total` includes what is filled."""

    order_id: int
    instrument_id: int
    account_id: int
    session: int
    side: int
    price: int
    total: int
    cl_ord_id: int
    stp_group_id: int
    stp_mode: int
    post_only: bool
    tier: int
    cum: int = 0

    @property
    def leaves(self) -> int:
        return self.total - self.cum

    @property
    def stp_key(self) -> tuple[str, int]:
        """Groups and accounts are numbered in spaces of their own."""
        if self.stp_group_id:
            return ("group", self.stp_group_id)
        return ("account", self.account_id)


def opposite(side: int) -> int:
    return Side.SELL if side == Side.BUY else Side.BUY


def is_better(side: int, price: int, other: int) -> bool:
    """Return True if `price` comes before `other` on this side of the book."""
    return price > other if side == Side.BUY else price < other


def crosses(taker_side: int, limit: int, maker_price: int) -> bool:
    return maker_price <= limit if taker_side == Side.BUY else maker_price >= limit


class Book:
    """Resting orders, best first, then oldest first."""

    def __init__(self) -> None:
        self.bids: list[BookOrder] = []
        self.asks: list[BookOrder] = []

    def side(self, side: int) -> list[BookOrder]:
        return self.bids if side == Side.BUY else self.asks

    def add(self, order: BookOrder) -> None:
        """Place the order behind every order of the same or a better price."""
        orders = self.side(order.side)
        orders.insert(self.place(orders, order), order)

    def place(self, orders: list[BookOrder], order: BookOrder) -> int:
        for index, resting in enumerate(orders):
            if is_better(order.side, order.price, resting.price):
                return index
        return len(orders)

    def remove(self, order: BookOrder) -> None:
        self.side(order.side).remove(order)

    def best(self, side: int) -> BookOrder | None:
        orders = self.side(side)
        return orders[0] if orders else None

    def within(self, taker_side: int, limit: int) -> Iterator[BookOrder]:
        """Yield the makers a taker may meet, in priority order."""
        for maker in self.side(opposite(taker_side)):
            if not crosses(taker_side, limit, maker.price):
                return
            yield maker

    def check(self) -> None:
        """Raise if the book is crossed, out of order, or holds an order without quantity."""
        if self.bids and self.asks and self.bids[0].price >= self.asks[0].price:
            raise ModelError(f"crossed book: {self.bids[0]} / {self.asks[0]}")
        for side in (Side.BUY, Side.SELL):
            orders = self.side(side)
            for order in orders:
                if order.leaves <= 0 or order.side != side:
                    raise ModelError(f"order does not belong in the book: {order}")
            for front, back in pairwise(orders):
                if is_better(side, back.price, front.price):
                    raise ModelError(f"priority broken: {front} before {back}")
