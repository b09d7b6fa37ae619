"""A target as a candidate of tracebook-conformance (PyPI), in this process or over its protocol on stdin and stdout:

    python -m tests.oracle.conformance model

so that `tracebook-conformance qualify --candidate-cmd` drives it. What the suite has and we do not is in `MISSING`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from decimal import Decimal
from itertools import count

from tracebook.conformance import (
    BookSnapshot,
    BookState,
    ConformanceConfig,
    ConformanceError,
    EngineMetadata,
    Observation,
    Outcome,
    RestingOrder,
    TradeFill,
    canonical_decimal,
    serve_stdio,
)
from tracebook.core.order import NO_OWNER, OrderSide, OrderType, SelfTradePolicy
from tracebook.events import MarketEvent

from ringbuf.wire.messages import Side, StpMode, TimeInForce
from tests.oracle.adapter import EngineTarget, ModelTarget
from tests.oracle.driver import Driver, Events, MakeTarget, Trade
from tests.oracle.world import World

TARGETS: dict[str, MakeTarget] = {"model": ModelTarget, "engine": EngineTarget}
# Features of the suite without a counterpart here, and why.
MISSING = {"pro-rata-allocation": "levels are first in, first out; no pair allocates in proportion to size"}
LOTS_PER_UNIT = 10**9
PRICE_MAX_TICKS = 10**9
REFERENCE_TICKS = 10_000
TIMES = {
    OrderType.LIMIT: TimeInForce.GTC,
    OrderType.MARKET: TimeInForce.IOC,
    OrderType.IOC: TimeInForce.IOC,
    OrderType.FOK: TimeInForce.FOK,
}
STP_MODES = {
    SelfTradePolicy.NONE: StpMode.NONE,
    SelfTradePolicy.CANCEL_RESTING: StpMode.CANCEL_MAKER,
    SelfTradePolicy.CANCEL_INCOMING: StpMode.CANCEL_TAKER,
}


class Refused(Exception):
    """The reason code of a rejected event."""


class Candidate:
    """Translates events of the suite into commands, and books and trades back."""

    def __init__(self, config: ConformanceConfig, make_target: MakeTarget, name: str) -> None:
        if config.matching_algorithm != "fifo":
            raise ConformanceError(f"not supported: {MISSING['pro-rata-allocation']}")
        self.config = config
        self.metadata = EngineMetadata(f"bullring-{name}", "0", "C" if name == "engine" else "Python")
        self.driver = Driver(make_target(World(partitions=1, orders_max=4096)))
        self.tick_size = Decimal(canonical_decimal(config.tick_size))
        self.numbers = count(1)
        # Open orders by (symbol, id of the suite), and back by our number; books by symbol.
        self.active: dict[tuple[str, int], int] = {}
        self.sources: dict[int, tuple[int, int]] = {}
        self.instruments: dict[str, int] = {}

    # -- the suite's interface ---------------------------------------------------------------------------------------

    def apply(self, event: MarketEvent, index: int) -> Observation:
        """Do one event; tell its outcome, its trades and the state after it."""
        events = Events()
        try:
            events = self.do(event)
            outcome = Outcome("applied")
        except Refused as refusal:
            outcome = Outcome("rejected", str(refusal))
        self.active = {key: number for key, number in self.active.items() if self.driver.orders[number].is_open}
        trades = tuple(self.fill_of(event.symbol, trade) for trade in events.trades)
        state = self.snapshot()
        return Observation(index, outcome, trades, state.digest(), state.order_count)

    def fill_of(self, symbol: str, trade: Trade) -> TradeFill:
        is_buy = self.driver.orders[trade.taker].side == Side.BUY
        buyer, seller = (trade.taker, trade.maker) if is_buy else (trade.maker, trade.taker)
        return TradeFill(
            symbol=symbol,
            buy_order_id=self.sources[buyer][0],
            sell_order_id=self.sources[seller][0],
            price=self.price_text(trade.price),
            quantity=self.quantity_text(trade.quantity),
        )

    def snapshot(self) -> BookState:
        """Return every resting order in priority order."""
        return BookState(
            tuple(
                BookSnapshot(symbol, self.resting(symbol, Side.BUY), self.resting(symbol, Side.SELL))
                for symbol in sorted(self.instruments)
            )
        )

    def resting(self, symbol: str, side: int) -> tuple[RestingOrder, ...]:
        return tuple(
            RestingOrder(
                order_id=self.sources[number][0],
                price=self.price_text(price),
                remaining_quantity=self.quantity_text(quantity),
                owner=self.sources[number][1],
            )
            for number, price, quantity in self.driver.queue(side, self.instruments[symbol])
        )

    def close(self) -> None:
        self.driver.target.close()

    # -- numbers -----------------------------------------------------------------------------------------------------

    def ticks(self, price: float) -> int:
        """Return a price in ticks: the suite wants prices snapped to the grid."""
        return round(price / float(self.tick_size))

    def lots(self, quantity: float) -> int:
        return int(Decimal(str(quantity)) * LOTS_PER_UNIT)

    def price_text(self, ticks: int) -> str:
        return canonical_decimal(ticks * self.tick_size)

    def quantity_text(self, lots: int) -> str:
        return canonical_decimal(Decimal(lots) / LOTS_PER_UNIT, self.config.quantity_decimal_places)

    # -- events ------------------------------------------------------------------------------------------------------

    def do(self, event: MarketEvent) -> Events:
        if event.op in ("new", "clear") and event.symbol not in self.instruments:
            self.instruments[event.symbol] = self.driver.add_market(
                price_max=PRICE_MAX_TICKS, reference_px=REFERENCE_TICKS
            )
        if event.op == "clear":
            return self.clear(event)
        if event.op == "new":
            return self.enter(event)
        number = self.active.get((event.symbol, event.order_id or 0))
        if number is None:
            raise Refused("ORDER_NOT_ACTIVE")
        act: dict[str, Callable[[MarketEvent, int], Events]] = {
            "cancel": lambda event, number: self.driver.cancel(number),
            "reduce": self.reduce,
            "replace": self.replace,
        }
        return act[event.op](event, number)

    def clear(self, event: MarketEvent) -> Events:
        for (symbol, _), number in self.active.items():
            if symbol == event.symbol:
                self.driver.cancel(number)
        return Events()

    def enter(self, event: MarketEvent) -> Events:
        key = (event.symbol, event.order_id or 0)
        if key in self.active:
            raise Refused("DUPLICATE_ORDER_ID")
        number = next(self.numbers)
        self.sources[number] = (key[1], event.owner)
        events = self.driver.order(
            number,
            self.owner_of(event.owner),
            Side.BUY if event.side == OrderSide.BUY else Side.SELL,
            self.lots(event.quantity or 0),
            None if event.order_type == OrderType.MARKET else self.ticks(event.price or 0),
            time_in_force=TIMES[event.order_type],
            instrument_id=self.instruments[event.symbol],
            stp_mode=self.stp_mode(event.owner),
        )
        if events.rejected:
            raise Refused("INVALID_ORDER")
        self.active[key] = number
        return events

    def owner_of(self, owner: int) -> str:
        return f"owner {owner}"

    def stp_mode(self, owner: int) -> int:
        """Orders of nobody never prevent anything."""
        return StpMode.NONE if owner == NO_OWNER else STP_MODES[self.config.self_trade_policy]

    def reduce(self, event: MarketEvent, number: int) -> Events:
        """Take a quantity off an order in its place; all of it is a cancel."""
        leaves, less = self.driver.leaves(number), self.lots(event.quantity or 0)
        if less > leaves:
            raise Refused("INVALID_ORDER")
        if less == leaves:
            return self.driver.cancel(number)
        return self.driver.amend(number, self.driver.orders[number].total - less)

    def replace(self, event: MarketEvent, number: int) -> Events:
        """Cancel and enter anew, in one group: the suite's replace always loses priority."""
        old = self.driver.orders[number]
        price = old.price if event.price is None else self.ticks(event.price)
        quantity = self.driver.leaves(number) if event.quantity is None else self.lots(event.quantity)
        if price <= 0 or quantity <= 0:
            raise Refused("INVALID_REPLACEMENT")
        successor = next(self.numbers)
        source_id, owner = self.sources[number]
        self.sources[successor] = (source_id, owner)
        events = self.driver.cancel_replace(number, successor, quantity, price, stp_mode=self.stp_mode(owner))
        self.active[event.symbol, source_id] = successor
        return events


def factory(name: str) -> Callable[[ConformanceConfig], Candidate]:
    """Return what makes candidates of one kind of target."""
    return lambda config: Candidate(config, TARGETS[name], name)


if __name__ == "__main__":
    exit_code = serve_stdio(factory(sys.argv[1] if len(sys.argv) > 1 else "model"))
    sys.stdout.flush()
    sys.stderr.flush()
    # The suite gives a candidate half a second to end. Taking the interpreter down needs more on a busy machine.
    os._exit(exit_code)
