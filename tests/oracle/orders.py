"""Orders and markets as a matcher knows them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ringbuf.wire.messages import (
    ExecInst,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentSchedule,
    InstrumentVolatility,
    MarketState,
    OrdType,
    Side,
    TimeInForce,
)
from tests.oracle.book import Book
from tests.oracle.records import OrderTerms

MARKET_TYPES = (OrdType.MARKET, OrdType.STOP, OrdType.TAKE_PROFIT)
STOP_TYPES = (OrdType.STOP, OrdType.STOP_LIMIT)
TAKE_PROFIT_TYPES = (OrdType.TAKE_PROFIT, OrdType.TAKE_PROFIT_LIMIT)
WAITING_TYPES = STOP_TYPES + TAKE_PROFIT_TYPES
IMMEDIATE = (TimeInForce.IOC, TimeInForce.FOK)
DATED = (TimeInForce.GTD, TimeInForce.DAY)
COLLECTING = (MarketState.PRE_OPEN, MarketState.AUCTION)


def goes_up(ord_type: int, side: int) -> bool:
    """Return True for an order that fires when the price rises to its stop price."""
    return (ord_type in STOP_TYPES) == (side == Side.BUY)


@dataclass(slots=True, eq=False)
class LiveOrder:
    """An accepted order. `total` includes what is filled; of an order by quote amount `amount` is what is left."""

    terms: OrderTerms
    price: int
    total: int
    cl_ord_id: int
    display: int | None
    first_display: int | None
    amount: int | None
    cum: int = 0
    # Whether it rests in the book, and what it shows there.
    is_resting: bool = False
    visible: int = 0
    is_waiting: bool = False
    # Trailing: the extreme price it follows, once it is active; and which activation of the market it was.
    is_active: bool = False
    activation: int = 0
    extreme: int | None = None
    pair: OcoPair | None = None
    quote: QuoteSet | None = None

    @classmethod
    def of(cls, terms: OrderTerms) -> LiveOrder:
        return cls(
            terms=terms,
            price=terms.price,
            total=terms.quantity,
            cl_ord_id=terms.cl_ord_id,
            display=terms.display_qty,
            first_display=terms.first_display_qty,
            amount=terms.amount,
        )

    @property
    def order_id(self) -> int:
        return self.terms.order_id

    @property
    def side(self) -> int:
        return self.terms.side

    @property
    def session(self) -> int:
        return self.terms.session

    @property
    def leaves(self) -> int:
        return self.total - self.cum

    @property
    def is_iceberg(self) -> bool:
        return self.display is not None

    @property
    def is_market_type(self) -> bool:
        return self.terms.ord_type in MARKET_TYPES

    @property
    def may_rest(self) -> bool:
        return not self.is_market_type and self.terms.time_in_force not in IMMEDIATE

    @property
    def post_only(self) -> bool:
        return bool(self.terms.exec_inst & ExecInst.POST_ONLY)

    @property
    def stp_key(self) -> tuple[str, int]:
        """Groups and accounts are numbered in spaces of their own."""
        if self.terms.stp_group_id:
            return ("group", self.terms.stp_group_id)
        return ("account", self.terms.account_id)


@dataclass(slots=True, eq=False)
class OcoPair:
    """Two orders of which one ends the other."""

    above: LiveOrder
    below: LiveOrder

    def peer_of(self, order: LiveOrder) -> LiveOrder:
        return self.below if order is self.above else self.above


@dataclass(slots=True, eq=False)
class QuoteSet:
    """The live orders of one (account, instrument, quoteSetId), by side."""

    quote_set_id: int
    live: dict[int, LiveOrder] = field(default_factory=dict)


@dataclass(slots=True)
class VolatilityHalt:
    """The way back from a volatility halt: when the current part of it is over, as the band said when it began."""

    until_ns: int
    is_auction: bool = False


@dataclass(slots=True, eq=False)
class Market:
    """One instrument at its matcher."""

    definition: InstrumentAdd
    limits: InstrumentLimits | None = None
    state: int = MarketState.CONTINUOUS
    book: Book = field(default_factory=Book)
    last_trade_id: int = 0
    last_update_id: int = 0
    last_prevented_id: int = 0
    last_px: int | None = None
    # Stop orders in order of acceptance, and those that fired, in the order in which they will have their turn.
    waiting: list[LiveOrder] = field(default_factory=list)
    queue: list[LiveOrder] = field(default_factory=list)
    last_activation: int = 0
    quotes: dict[tuple[int, int], QuoteSet] = field(default_factory=dict)
    volatility: InstrumentVolatility | None = None
    volatility_px: int | None = None
    halt: VolatilityHalt | None = None
    schedule: dict[int, InstrumentSchedule] = field(default_factory=dict)
    # What was in the book when the last indicative price was published, and when that was.
    indicative_book: frozenset[tuple[int, ...]] = frozenset()
    indicative_ns: int = 0
    # While it uncrosses: what everything is done at.
    auction_px: int | None = None

    @property
    def instrument_id(self) -> int:
        return self.definition.instrument_id

    @property
    def is_continuous(self) -> bool:
        return self.state == MarketState.CONTINUOUS

    @property
    def is_collecting(self) -> bool:
        return self.state in COLLECTING

    def lots_for(self, amount: int, price: int) -> int:
        """Return how many lots this many units of the quote asset allow at a price; none at 0 and below."""
        return amount // (price * self.definition.quote_per_tick_lot) if price > 0 else 0

    def quote_units(self, price: int, quantity: int) -> int:
        return price * quantity * self.definition.quote_per_tick_lot

    def cover_for(self, side: int, price: int, quantity: int) -> int:
        """Return what this many lots still to fill may cost at worst."""
        if side == Side.BUY:
            return self.quote_units(price, quantity)
        return quantity * self.definition.base_per_lot
