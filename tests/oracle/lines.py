"""Open orders, order lists and quotes as the sequencer knows them: an upper bound, as of the marks."""

from __future__ import annotations

from dataclasses import dataclass, field

from ringbuf.wire.messages import ListType, SessionKind, Side
from tests.oracle.filters import Instrument, OrderRequest
from tests.oracle.orders import DATED, MARKET_TYPES, WAITING_TYPES


@dataclass(slots=True)
class Session:
    session_id: int
    account_id: int
    kind: int
    is_bound: bool = False
    last_seq: int = 0

    @property
    def is_privileged(self) -> bool:
        return self.kind == SessionKind.PRIVILEGED


@dataclass(slots=True)
class Version:
    """Terms a replace or amend in flight asks for."""

    price: int
    total: int
    display: int | None
    cl_ord_id: int


@dataclass(slots=True, eq=False)
class OrderLine:
    """An open order. A pending leg of a list is one too, without a hold; the matcher has not heard of it."""

    order_id: int
    partition: int
    session: int
    instrument: Instrument
    request: OrderRequest
    price: int
    total: int
    cl_ord_id: int
    display: int | None
    # Units of the quote asset that are left, of an order by quote amount.
    amount: int | None = None
    cum: int = 0
    hold: int = 0
    pending: list[Version] = field(default_factory=list)
    # Highest terms among the versions since the first replace still in flight was sent.
    price_max: int = 0
    total_max: int = 0
    amends: int = 0
    # In an entry of its own beside the order table: what waits, icebergs, dated orders, legs.
    has_entry: bool = False
    # The matcher has not answered it yet: of a cancel-replace or quote it holds only what was taken for it.
    is_unanswered: bool = True
    is_pending_leg: bool = False
    order_list: OrderList | None = None
    pair: PairHold | None = None
    quote: QuoteLines | None = None
    is_done: bool = False
    # When it was counted in the order rates; its first fill gives one back.
    counted_ns: int | None = None

    @property
    def account_id(self) -> int:
        return self.request.account.account_id

    @property
    def side(self) -> int:
        return self.request.side

    @property
    def ord_type(self) -> int:
        return self.request.message.ord_type

    @property
    def is_market_type(self) -> bool:
        return self.ord_type in MARKET_TYPES

    @property
    def is_algo(self) -> bool:
        return self.ord_type in WAITING_TYPES

    @property
    def is_dated(self) -> bool:
        return self.request.message.time_in_force in DATED

    @property
    def is_iceberg(self) -> bool:
        return self.display is not None and self.display < self.total

    @property
    def asset_paid(self) -> int:
        return self.instrument.asset_paid(self.side)

    @property
    def open_lots(self) -> int:
        """Return the lots it may still buy or sell, as far as known."""
        if self.amount is None:
            return self.total_max - self.cum
        reference = self.instrument.reference()
        return self.instrument.lots_for(self.amount, reference) if reference else 0

    def need(self) -> int:
        """Return what the order must hold now.

        With replaces in flight the highest terms count, and only fills make the hold smaller: a version still in
        flight carries its own total, so quantity prevented meanwhile must stay covered.
        """
        if not self.pending:
            self.price_max, self.total_max = self.price, self.total
        if self.amount is not None and self.side == Side.BUY:
            return self.amount
        return self.instrument.hold_for(self.side, self.price_max, self.total_max - self.cum)


@dataclass(slots=True, eq=False)
class PairHold:
    """The one hold of an OCO pair: what its dearest live leg needs, until one leg is the one that goes on."""

    legs: tuple[OrderLine, OrderLine]
    hold: int = 0
    chosen: OrderLine | None = None

    def need(self) -> int:
        """Return the most that one of the legs still in question needs.

        A leg that has traded, was prevented or has fired is the chosen one, before its peer's end is reported: the
        peer cannot trade any more, and what the leg has spent is no longer there to cover it.
        """
        return max((leg.need() for leg in self.legs if not leg.is_done and self.chosen in (None, leg)), default=0)


@dataclass(slots=True, eq=False)
class OrderList:
    """A list until all its legs have ended."""

    list_id: int
    list_type: int
    list_cl_ord_id: int
    session: int
    instrument_id: int
    account_id: int
    legs: list[OrderLine]
    was_refused: bool = False
    # Its working leg ended without being filled, or all of it is over: it is due to end.
    is_ending: bool = False

    @property
    def working(self) -> OrderLine | None:
        return None if self.list_type == ListType.OCO else self.legs[0]

    @property
    def pending(self) -> list[OrderLine]:
        return [leg for leg in self.legs if leg.is_pending_leg and not leg.is_done]

    @property
    def is_over(self) -> bool:
        return all(leg.is_done for leg in self.legs)


@dataclass(slots=True, eq=False)
class QuoteLines:
    """The orders of one (account, instrument, quoteSetId), those in flight included."""

    lines: list[OrderLine] = field(default_factory=list)
    in_flight: int = 0

    def of_side(self, side: int) -> list[OrderLine]:
        return [line for line in self.lines if line.side == side and not line.is_done]
