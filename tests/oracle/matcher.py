"""One partition: takes log records in their order, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from ringbuf.wire.messages import (
    CancelReason,
    FeeTierSet,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentSchedule,
    InstrumentState,
    InstrumentVolatility,
    KillScope,
    KillSwitch,
    MassCancelFlags,
    MassCancelRequest,
    MassCancelScope,
    NewOrderSingle,
    OrderAmendRequest,
    OrderCancelRequest,
    OrderListRequest,
    OrderReplaceRequest,
    OrdStatus,
    Quote,
    RejectCode,
    Side,
    SideOrBoth,
    Tick,
)
from tests.oracle.orders import LiveOrder, Market
from tests.oracle.quotes import Quotes
from tests.oracle.records import CancelReplace, ModelError, Record


class Matcher(Quotes):
    """Handle log records; outputs collect in `reports` and `market_events`."""

    def handle(self, record: Record) -> None:
        """Process one record, or one whole group, to its end."""
        first_event = len(self.market_events)
        self.now_ns = record.stamp_ns
        message = record.message
        if isinstance(record.body, CancelReplace):
            self.cancel_replace(record, record.body)
        elif isinstance(message, NewOrderSingle):
            self.new_order(record.body)
        elif isinstance(message, OrderListRequest):
            self.new_pair(*record.body)
        elif isinstance(message, OrderCancelRequest):
            self.cancel(record, message)
        elif isinstance(message, OrderReplaceRequest):
            self.replace(record, message)
        elif isinstance(message, OrderAmendRequest):
            self.amend(record, message)
        elif isinstance(message, Quote):
            self.quote(record, message, record.body)
        elif isinstance(message, Tick):
            self.tick(message.now)
        else:
            self.control(record, message)
        final = {event.instrument_id: event for event in self.market_events[first_event:]}
        for event in final.values():
            event.last = True

    def control(self, record: Record, message: object) -> None:
        """Take what operators do, and mass cancels."""
        if isinstance(message, MassCancelRequest):
            self.mass_cancel(record, message)
        elif isinstance(message, KillSwitch):
            self.kill(record, message)
        elif isinstance(message, InstrumentAdd):
            if message.assigned_partition == self.partition:
                self.markets[message.instrument_id] = Market(message)
        elif isinstance(message, InstrumentState):
            self.change_state(record, message)
        elif isinstance(message, FeeTierSet):
            self.rates[message.tier, message.instrument_id] = (message.maker_rate, message.taker_rate)
        elif isinstance(message, InstrumentLimits):
            self.markets[message.instrument_id].limits = message
        elif isinstance(message, InstrumentVolatility):
            market = self.markets[message.instrument_id]
            market.volatility = message
            if market.last_px is not None:
                market.volatility_px = market.last_px
        elif isinstance(message, InstrumentSchedule):
            schedule = self.markets[message.instrument_id].schedule
            schedule.pop(message.entry, None)
            if message.active:
                schedule[message.entry] = message

    # -- many orders at once ---------------------------------------------------------------------------------------

    def mass_cancel(self, record: Record, message: MassCancelRequest) -> None:
        """Cancel all in scope; an unlock cancels nothing."""
        is_unlock = bool(message.mass_flags & MassCancelFlags.UNLOCK_ENTRY)
        total = self.end_all(
            lambda order: not is_unlock and self.is_in_scope(record, message, order), reason=CancelReason.MASS_CANCEL
        )
        self.report(
            record.session,
            "MassCancelReport",
            cl_ord_id=message.cl_ord_id,
            ref_seq_num=record.seq_num,
            instrument_id=message.instrument_id,
            account_id=record.account_id,
            total_affected=total,
            reject_code=RejectCode.NONE,
            side=message.side,
            scope=message.scope,
        )

    def kill(self, record: Record, message: KillSwitch) -> None:
        """Cancel all in the reach of the kill switch."""
        total = self.end_all(lambda order: self.is_killed(message, order), reason=CancelReason.KILL_SWITCH)
        self.report(
            record.session,
            "MassCancelReport",
            cl_ord_id=0,
            ref_seq_num=record.seq_num,
            instrument_id=message.target_id if message.scope == KillScope.INSTRUMENT else 0,
            account_id=message.target_id if message.scope == KillScope.ACCOUNT else 0,
            total_affected=total,
            reject_code=RejectCode.NONE,
            side=SideOrBoth.BOTH,
            scope=message.scope,
        )

    def end_all(self, is_meant: Callable[[LiveOrder], bool], *, reason: int) -> int:
        """End the orders that are meant, and the other legs of their pairs; return how many ended."""
        before = len(self.orders)
        for order in [order for order in self.orders.values() if is_meant(order)]:
            if order.order_id in self.orders:
                self.end(order, reason=reason, status=OrdStatus.CANCELED)
        return before - len(self.orders)

    def is_in_scope(self, record: Record, message: MassCancelRequest, order: LiveOrder) -> bool:
        terms = order.terms
        is_owned = {
            MassCancelScope.SESSION: terms.account_id == record.account_id and terms.session == record.session,
            MassCancelScope.ACCOUNT: terms.account_id == record.account_id,
            MassCancelScope.FIRM: terms.firm_id == record.firm_id,
            MassCancelScope.INSTRUMENT: True,
            MassCancelScope.ALL: True,
        }[MassCancelScope(message.scope)]
        return (
            is_owned
            and message.instrument_id in (0, terms.instrument_id)
            and message.side in (SideOrBoth.BOTH, order.side)
            and message.stp_group_id in (0, terms.stp_group_id)
        )

    def is_killed(self, message: KillSwitch, order: LiveOrder) -> bool:
        return {
            KillScope.ACCOUNT: order.terms.account_id == message.target_id,
            KillScope.FIRM: order.terms.firm_id == message.target_id,
            KillScope.INSTRUMENT: order.terms.instrument_id == message.target_id,
            KillScope.ALL: True,
        }[KillScope(message.scope)]

    # -- soundness -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise unless every live order is in exactly one place, and only books that do not match are crossed."""
        places: list[LiveOrder] = []
        for market in self.markets.values():
            market.book.check()
            if market.is_continuous and market.book.is_crossed():
                raise ModelError(f"crossed book of {market.instrument_id}: {market.book.bids[0]} {market.book.asks[0]}")
            if market.is_continuous and market.queue:
                raise ModelError(f"orders wait for their turn in {market.instrument_id}")
            places += [order for side in (Side.BUY, Side.SELL) for order in market.book.side(side)]
            places += market.waiting + market.queue
            if not all(order.is_waiting for order in market.waiting + market.queue):
                raise ModelError(f"an order that does not wait is among those that do: {market.waiting}")
        if len(places) != len(self.orders) or {order.order_id for order in places} != self.orders.keys():
            raise ModelError(f"live orders {sorted(self.orders)} but {sorted(order.order_id for order in places)}")
