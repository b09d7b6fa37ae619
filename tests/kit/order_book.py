"""A book kept from an order-by-order stream as its documentation says, which refuses what cannot be."""

import zlib
from struct import Struct
from typing import Any

LEVEL = Struct("<qq")
CHECKED_LEVELS = 10


class BrokenStream(AssertionError):
    """A message that cannot follow from those before it."""


class OrderBook:
    """`take()` messages in order. `ticks`, `lots`: how many of each a whole unit of price and quantity has."""

    def __init__(self, *, ticks: int = 1, lots: int = 1) -> None:
        self.last = -1
        self.whole = False
        self._ticks, self._lots = ticks, lots
        self._sides: dict[str, dict[int, tuple[int, int]]] = {"BUY": {}, "SELL": {}}  # in order of priority
        self._parts: int | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Raises BrokenStream."""
        if event["e"] == "l3Snapshot":
            self._begin(event)
        elif event["U"] != self.last + 1 or not self.whole:
            raise BrokenStream(f"U {event['U']} after {self.last}")
        else:
            for change in event["o"]:
                self._apply(change)
            self.last = event["u"]
        if self.whole and self.checksum() != event["c"]:
            raise BrokenStream(f"checksum at {self.last}")

    def _begin(self, event: dict[str, Any]) -> None:
        if self._parts is None:
            self._sides = {"BUY": {}, "SELL": {}}
            self.last = event["u"]
        elif (event["n"], event["u"]) != (self._parts - 1, self.last):
            raise BrokenStream(f"part {event['n']} of {event['u']} after part {self._parts} of {self.last}")
        for side, rows in (("BUY", event["b"]), ("SELL", event["a"])):
            for order_id, price, quantity in rows:
                self._sides[side][order_id] = self._price(price), self._quantity(quantity)
        self.whole = event["n"] == 0
        self._parts = None if self.whole else event["n"]

    def _apply(self, change: dict[str, Any]) -> None:
        order_id, kind = change["i"], change["x"]
        if kind == "ADD":
            if self.side_of(order_id) is not None:
                raise BrokenStream(f"order {order_id} is there already")
            self._sides[change["S"]][order_id] = self._price(change["p"]), self._quantity(change["q"])
            return
        side = self.side_of(order_id)
        if side is None:
            raise BrokenStream(f"{kind} of order {order_id}, which does not rest")
        orders = self._sides[side]
        price, quantity = orders[order_id]
        if kind == "TRADE":
            first = next(each for each, (at, _) in orders.items() if at == price)
            left = quantity - self._quantity(change["l"])
            if first != order_id or left < 0:
                raise BrokenStream(f"order {order_id} traded before order {first}, {left} left")
        elif kind == "REDUCE":
            left = self._quantity(change["q"])
        else:
            left = 0
        if left:
            orders[order_id] = price, left
        else:
            del orders[order_id]
        if kind == "REPLACE":
            orders[order_id] = self._price(change["p"]), self._quantity(change["q"])

    def side_of(self, order_id: int) -> str | None:
        """Return where an order rests."""
        return next((side for side, orders in self._sides.items() if order_id in orders), None)

    def levels(self, side: str) -> list[tuple[int, int]]:
        """Return ticks and lots, best first."""
        summed: dict[int, int] = {}
        for price, quantity in self._sides[side].values():
            summed[price] = summed.get(price, 0) + quantity
        return sorted(summed.items(), reverse=side == "BUY")

    def checksum(self) -> int:
        best = [LEVEL.pack(*level) for side in ("BUY", "SELL") for level in self.levels(side)[:CHECKED_LEVELS]]
        return zlib.crc32(b"".join(best))

    def _price(self, text: str) -> int:
        return round(float(text) * self._ticks)

    def _quantity(self, text: str) -> int:
        return round(float(text) * self._lots)
