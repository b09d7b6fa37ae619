"""One partition: books, matching, self-trade prevention, market states, reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ringbuf.wire.messages import (
    CancelReason,
    ExecInst,
    FeeTierSet,
    InstrumentAdd,
    InstrumentState,
    Liquidity,
    MarketState,
    MassCancelRequest,
    MassCancelScope,
    NewOrderSingle,
    OrderCancelRequest,
    OrderReplaceRequest,
    OrdStatus,
    OrdType,
    RejectCode,
    ResponseTo,
    Side,
    SideOrBoth,
    StpMode,
    TimeInForce,
)
from tests.oracle.accounts import trade_fees
from tests.oracle.book import Book, BookOrder, crosses, opposite
from tests.oracle.choices import CANCEL_ANSWER_TO_REQUESTER, MARKET_UNFILLED_IS_NO_LIQUIDITY
from tests.oracle.records import MarketEvent, ModelError, Record, Report

STATE_CODES = {
    MarketState.PRE_OPEN: RejectCode.MARKET_CLOSED,
    MarketState.AUCTION: RejectCode.AUCTION_ONLY,
    MarketState.CONTINUOUS: RejectCode.NONE,
    MarketState.CANCEL_ONLY: RejectCode.CANCEL_ONLY,
    MarketState.HALTED: RejectCode.MARKET_HALTED,
    MarketState.CLOSED: RejectCode.MARKET_CLOSED,
}


@dataclass(slots=True)
class Market:
    """One instrument at its matcher."""

    definition: InstrumentAdd
    state: int = MarketState.CONTINUOUS
    book: Book = field(default_factory=Book)
    last_trade_id: int = 0
    last_update_id: int = 0

    @property
    def instrument_id(self) -> int:
        return self.definition.instrument_id


class Matcher:
    """Handle log records one after the other; outputs collect in `reports` and `market_events`."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.markets: dict[int, Market] = {}
        self.orders: dict[int, BookOrder] = {}
        self.rates: dict[tuple[int, int], tuple[int, int]] = {}
        self.numbers: dict[int, int] = {}
        self.reports: list[Report] = []
        self.market_events: list[MarketEvent] = []

    def handle(self, record: Record) -> None:
        """Process one record to its end."""
        first_event = len(self.market_events)
        message = record.message
        if isinstance(message, NewOrderSingle):
            self.new_order(record, message)
        elif isinstance(message, OrderCancelRequest):
            self.cancel(record, message)
        elif isinstance(message, OrderReplaceRequest):
            self.replace(record, message)
        elif isinstance(message, MassCancelRequest):
            self.mass_cancel(record, message)
        elif isinstance(message, InstrumentAdd):
            if message.assigned_partition == self.partition:
                self.markets[message.instrument_id] = Market(message)
        elif isinstance(message, InstrumentState):
            self.change_state(record, message)
        elif isinstance(message, FeeTierSet):
            self.rates[message.tier, message.instrument_id] = (message.maker_rate, message.taker_rate)
        for index, event in enumerate(self.market_events[first_event:], first_event):
            following = self.market_events[index + 1 :]
            event.last = not any(later.instrument_id == event.instrument_id for later in following)

    # -- new orders ------------------------------------------------------------------------------------------------

    def new_order(self, record: Record, message: NewOrderSingle) -> None:
        market = self.markets[message.instrument_id]
        order = BookOrder(
            order_id=record.order_id,
            instrument_id=message.instrument_id,
            account_id=record.account_id,
            session=record.session,
            side=message.side,
            price=record.price,
            total=message.order_qty,
            cl_ord_id=message.cl_ord_id,
            stp_group_id=record.stp_group_id,
            stp_mode=message.stp_mode,
            post_only=bool(message.exec_inst & ExecInst.POST_ONLY),
            tier=record.tier,
        )
        code = STATE_CODES[MarketState(market.state)]
        if code == RejectCode.NONE and order.post_only and self.would_cross(market, order.side, order.price):
            code = RejectCode.WOULD_TAKE_LIQUIDITY
        if code != RejectCode.NONE:
            self.order_rejected(record, message, order, code, self.bound_of(market, order, code))
            return
        self.order_accepted(record, message, order)
        if message.time_in_force == TimeInForce.FOK and not self.is_fillable(market, order):
            self.canceled(order, reason=CancelReason.FOK_NOT_FILLABLE, status=OrdStatus.EXPIRED)
            return
        self.match(market, order)
        if order.order_id not in self.orders:
            return
        is_market = message.ord_type == OrdType.MARKET
        if is_market or message.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            nothing = is_market and order.cum == 0 and MARKET_UNFILLED_IS_NO_LIQUIDITY
            reason = CancelReason.NO_LIQUIDITY if nothing else CancelReason.IOC_REMAINDER
            self.canceled(order, reason=reason, status=OrdStatus.EXPIRED)
            return
        self.rest(market, order)

    def would_cross(self, market: Market, side: int, price: int) -> bool:
        best = market.book.best(opposite(side))
        return best is not None and crosses(side, price, best.price)

    def bound_of(self, market: Market, order: BookOrder, code: int) -> int:
        """Return the bound a reject names: what is filled, or the touch a post-only order would have met."""
        if code == RejectCode.QTY_BELOW_FILLED:
            return order.cum
        best = market.book.best(opposite(order.side))
        return best.price if code == RejectCode.WOULD_TAKE_LIQUIDITY and best is not None else 0

    def is_fillable(self, market: Market, order: BookOrder) -> bool:
        """Return True if a fill-or-kill order would fill completely."""
        found = 0
        for maker in market.book.within(order.side, order.price):
            if maker.stp_key == order.stp_key and order.stp_mode != StpMode.NONE:
                if order.stp_mode == StpMode.CANCEL_MAKER:
                    continue
                break
            found += maker.leaves
        return found >= order.total

    def rest(self, market: Market, order: BookOrder) -> None:
        market.book.add(order)
        self.event(market, "OrderAdd", order_id=order.order_id, price=order.price, qty=order.leaves, side=order.side)

    # -- matching --------------------------------------------------------------------------------------------------

    def match(self, market: Market, taker: BookOrder) -> None:
        """Trade the taker down to its limit. A taker that ended is no longer in `orders`."""
        while taker.order_id in self.orders and taker.leaves > 0:
            maker = market.book.best(opposite(taker.side))
            if maker is None or not crosses(taker.side, taker.price, maker.price):
                return
            if self.is_self_trade(taker, maker):
                self.prevent(market, taker, maker)
            else:
                self.trade(market, taker, maker)

    def is_self_trade(self, taker: BookOrder, maker: BookOrder) -> bool:
        return taker.stp_mode != StpMode.NONE and taker.stp_key == maker.stp_key

    def trade_price(self, taker: BookOrder, maker: BookOrder) -> int:
        return maker.price

    def trade(self, market: Market, taker: BookOrder, maker: BookOrder) -> None:
        quantity = min(taker.leaves, maker.leaves)
        price = self.trade_price(taker, maker)
        market.last_trade_id += 1
        definition = market.definition
        fees = trade_fees(
            taker_side=taker.side,
            base_units=quantity * definition.base_per_lot,
            quote_units=price * quantity * definition.quote_per_tick_lot,
            assets=(definition.base_asset_id, definition.quote_asset_id),
            maker_rate=self.rates_of(maker)[0],
            taker_rate=self.rates_of(taker)[1],
        )
        maker.cum += quantity
        taker.cum += quantity
        self.event(
            market,
            "OrderExecute",
            order_id=maker.order_id,
            trade_id=market.last_trade_id,
            last_px=price,
            last_qty=quantity,
            side=maker.side,
        )
        if maker.leaves == 0:
            market.book.remove(maker)
        terms = {"trade_id": market.last_trade_id, "last_px": price, "last_qty": quantity}
        self.executed(maker, terms, Liquidity.MAKER, fees.maker_fee, fees.maker_asset)
        self.executed(taker, terms, Liquidity.TAKER, fees.taker_fee, fees.taker_asset)

    def rates_of(self, order: BookOrder) -> tuple[int, int]:
        """Return (maker, taker) rates in millionths: of the instrument, else of all instruments, else 0."""
        of_all = self.rates.get((order.tier, 0), (0, 0))
        return self.rates.get((order.tier, order.instrument_id), of_all)

    def prevent(self, market: Market, taker: BookOrder, maker: BookOrder) -> None:
        """Apply the taker's self-trade mode to the pair; the maker's report comes first."""
        mode = taker.stp_mode
        if mode in (StpMode.DECREMENT, StpMode.TRANSFER):
            self.decrement(market, taker, maker)
            return
        if mode in (StpMode.CANCEL_MAKER, StpMode.CANCEL_BOTH):
            self.take_off(market, maker)
            self.canceled(maker, reason=CancelReason.SELF_TRADE, status=OrdStatus.EXPIRED_IN_MATCH)
        if mode in (StpMode.CANCEL_TAKER, StpMode.CANCEL_BOTH):
            self.canceled(taker, reason=CancelReason.SELF_TRADE, status=OrdStatus.EXPIRED_IN_MATCH)

    def decrement(self, market: Market, taker: BookOrder, maker: BookOrder) -> None:
        prevented = min(taker.leaves, maker.leaves)
        for order, counter in ((maker, taker), (taker, maker)):
            if order.leaves == prevented:
                if order is maker:
                    self.take_off(market, maker)
                self.canceled(order, reason=CancelReason.SELF_TRADE, status=OrdStatus.EXPIRED_IN_MATCH)
            else:
                order.total -= prevented
                if order is maker:
                    self.event(
                        market, "OrderReduce", order_id=maker.order_id, new_qty=maker.leaves, side=maker.side
                    )
                self.prevented(order, counter, prevented, taker.stp_mode, is_maker=order is maker)

    def take_off(self, market: Market, order: BookOrder) -> None:
        market.book.remove(order)
        self.event(market, "OrderDelete", order_id=order.order_id, side=order.side)

    # -- cancel and replace ----------------------------------------------------------------------------------------

    def cancel(self, record: Record, message: OrderCancelRequest) -> None:
        order = self.orders.get(record.order_id)
        if order is None:
            self.refuse(record, message, None, RejectCode.TOO_LATE_TO_CANCEL)
            return
        self.take_off(self.markets[order.instrument_id], order)
        self.canceled(
            order,
            reason=CancelReason.CLIENT,
            status=OrdStatus.CANCELED,
            session=record.session if CANCEL_ANSWER_TO_REQUESTER else order.session,
            cl_ord_id=message.cl_ord_id,
            ref_seq_num=record.seq_num,
        )

    def replace(self, record: Record, message: OrderReplaceRequest) -> None:
        order = self.orders.get(record.order_id)
        if order is None:
            self.refuse(record, message, None, RejectCode.TOO_LATE_TO_CANCEL)
            return
        market = self.markets[order.instrument_id]
        price = order.price if message.price is None else message.price
        total = order.total if message.order_qty is None else message.order_qty
        code = self.replace_code(market, order, price, total)
        if code != RejectCode.NONE:
            self.refuse(record, message, order, code)
            return
        keeps = self.keeps_priority(order, price, total)
        old_cl_ord_id = order.cl_ord_id
        if message.cl_ord_id != 0:
            order.cl_ord_id = message.cl_ord_id
        if keeps:
            order.total = total
            self.event(market, "OrderReduce", order_id=order.order_id, new_qty=order.leaves, side=order.side)
            self.replaced(record, order, old_cl_ord_id, keeps=True)
            return
        market.book.remove(order)
        order.price = price
        order.total = total
        self.replaced(record, order, old_cl_ord_id, keeps=False)
        if not self.would_cross(market, order.side, order.price):
            market.book.add(order)
            self.event(
                market,
                "OrderReplace",
                order_id=order.order_id,
                new_price=price,
                new_qty=order.leaves,
                side=order.side,
            )
            return
        self.event(market, "OrderDelete", order_id=order.order_id, side=order.side)
        self.match(market, order)
        if order.order_id in self.orders:
            self.rest(market, order)

    def replace_code(self, market: Market, order: BookOrder, price: int, total: int) -> int:
        state_code = STATE_CODES[MarketState(market.state)]
        if state_code != RejectCode.NONE:
            return state_code
        if total <= order.cum:
            return RejectCode.QTY_BELOW_FILLED
        if price == order.price and total == order.total:
            return RejectCode.REPLACE_NO_CHANGE
        if order.post_only and self.would_cross(market, order.side, price):
            return RejectCode.WOULD_TAKE_LIQUIDITY
        return RejectCode.NONE

    def keeps_priority(self, order: BookOrder, price: int, total: int) -> bool:
        return price == order.price and total < order.total

    def mass_cancel(self, record: Record, message: MassCancelRequest) -> None:
        hit = [order for order in self.orders.values() if self.is_in_scope(record, message, order)]
        for order in hit:
            self.take_off(self.markets[order.instrument_id], order)
            self.canceled(order, reason=CancelReason.MASS_CANCEL, status=OrdStatus.CANCELED)
        self.report(
            record.session,
            "MassCancelReport",
            cl_ord_id=message.cl_ord_id,
            ref_seq_num=record.seq_num,
            instrument_id=message.instrument_id,
            account_id=record.account_id,
            total_affected=len(hit),
            reject_code=RejectCode.NONE,
            side=message.side,
            scope=message.scope,
        )

    def is_in_scope(self, record: Record, message: MassCancelRequest, order: BookOrder) -> bool:
        if order.account_id != record.account_id:
            return False
        if message.scope == MassCancelScope.SESSION and order.session != record.session:
            return False
        if message.instrument_id not in (0, order.instrument_id):
            return False
        return message.side == SideOrBoth.BOTH or message.side == order.side

    def change_state(self, record: Record, message: InstrumentState) -> None:
        market = self.markets.get(message.instrument_id)
        if market is None:
            return
        previous, market.state = market.state, message.state
        if previous != market.state:
            self.event(market, "InstrumentStatus", status=market.state)
        self.report(
            record.session,
            "InstrumentStateReport",
            numbered=False,
            request_id=message.request_id,
            instrument_id=message.instrument_id,
            state=market.state,
            previous=previous,
            reject_code=RejectCode.NONE,
        )

    # -- outputs ---------------------------------------------------------------------------------------------------

    def report(
        self, session: int, name: str, *, final: bool = False, numbered: bool = True, **fields: Any
    ) -> None:
        number = 0
        if numbered:
            number = self.numbers.get(session, 0) + 1
            self.numbers[session] = number
        self.reports.append(Report(self.partition, session, number, name, fields, final))

    def event(self, market: Market, name: str, **fields: Any) -> None:
        market.last_update_id += 1
        event = MarketEvent(self.partition, market.instrument_id, market.last_update_id, name, fields)
        self.market_events.append(event)

    def order_accepted(self, record: Record, message: NewOrderSingle, order: BookOrder) -> None:
        self.orders[order.order_id] = order
        self.report(
            order.session,
            "OrderAccepted",
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            ref_seq_num=record.seq_num,
            price=None if message.ord_type == OrdType.MARKET else order.price,
            order_qty=order.total,
            client_tag=message.client_tag,
            instrument_id=order.instrument_id,
            account_id=order.account_id,
            side=order.side,
            ord_type=message.ord_type,
            ord_status=OrdStatus.NEW,
        )

    def order_rejected(
        self, record: Record, message: NewOrderSingle, order: BookOrder, code: int, limit: int
    ) -> None:
        self.report(
            order.session,
            "OrderRejected",
            final=True,
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            ref_seq_num=record.seq_num,
            client_tag=message.client_tag,
            limit=limit,
            instrument_id=order.instrument_id,
            account_id=order.account_id,
            reject_code=code,
            side=order.side,
        )

    def live_status(self, order: BookOrder) -> int:
        return OrdStatus.PARTIALLY_FILLED if order.cum else OrdStatus.NEW

    def executed(
        self, order: BookOrder, terms: dict[str, Any], liquidity: int, fee: int, fee_asset_id: int
    ) -> None:
        is_filled = order.leaves == 0
        if is_filled:
            del self.orders[order.order_id]
        self.report(
            order.session,
            "OrderExecuted",
            final=is_filled,
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            **terms,
            leaves_qty=order.leaves,
            cum_qty=order.cum,
            fee=fee,
            instrument_id=order.instrument_id,
            account_id=order.account_id,
            fee_asset_id=fee_asset_id,
            side=order.side,
            liquidity=liquidity,
            ord_status=OrdStatus.FILLED if is_filled else OrdStatus.PARTIALLY_FILLED,
        )

    def canceled(
        self,
        order: BookOrder,
        *,
        reason: int,
        status: int,
        session: int | None = None,
        cl_ord_id: int | None = None,
        ref_seq_num: int = 0,
    ) -> None:
        """End the order; it must be off the book."""
        if order.leaves <= 0:
            raise ModelError(f"nothing to cancel: {order}")
        del self.orders[order.order_id]
        self.report(
            order.session if session is None else session,
            "OrderCanceled",
            final=True,
            cl_ord_id=order.cl_ord_id if cl_ord_id is None else cl_ord_id,
            orig_cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            ref_seq_num=ref_seq_num,
            cum_qty=order.cum,
            canceled_qty=order.leaves,
            instrument_id=order.instrument_id,
            account_id=order.account_id,
            cancel_reason=reason,
            side=order.side,
            ord_status=status,
        )

    def replaced(self, record: Record, order: BookOrder, old_cl_ord_id: int, *, keeps: bool) -> None:
        self.report(
            record.session if CANCEL_ANSWER_TO_REQUESTER else order.session,
            "OrderReplaced",
            cl_ord_id=order.cl_ord_id,
            orig_cl_ord_id=old_cl_ord_id,
            order_id=order.order_id,
            ref_seq_num=record.seq_num,
            price=order.price,
            order_qty=order.total,
            leaves_qty=order.leaves,
            cum_qty=order.cum,
            instrument_id=order.instrument_id,
            account_id=order.account_id,
            side=order.side,
            ord_status=self.live_status(order),
            priority_retained=int(keeps),
        )

    def prevented(
        self, order: BookOrder, counter: BookOrder, quantity: int, mode: int, *, is_maker: bool
    ) -> None:
        self.report(
            order.session,
            "OrderPrevented",
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            counter_order_id=counter.order_id,
            prevented_qty=quantity,
            leaves_qty=order.leaves,
            cum_qty=order.cum,
            instrument_id=order.instrument_id,
            account_id=order.account_id,
            side=order.side,
            stp_mode=mode,
            ord_status=self.live_status(order),
            liquidity=Liquidity.MAKER if is_maker else Liquidity.TAKER,
        )

    def refuse(
        self,
        record: Record,
        message: OrderCancelRequest | OrderReplaceRequest,
        order: BookOrder | None,
        code: int,
    ) -> None:
        is_replace = isinstance(message, OrderReplaceRequest)
        self.report(
            record.session,
            "CancelReplaceReject",
            cl_ord_id=message.cl_ord_id,
            orig_cl_ord_id=order.cl_ord_id if order is not None else message.orig_cl_ord_id or 0,
            order_id=record.order_id,
            ref_seq_num=record.seq_num,
            limit=0 if order is None else self.bound_of(self.markets[order.instrument_id], order, code),
            instrument_id=message.instrument_id,
            account_id=record.account_id,
            reject_code=code,
            response_to=ResponseTo.REPLACE if is_replace else ResponseTo.CANCEL,
            ord_status=self.live_status(order) if order is not None else OrdStatus.REJECTED,
        )

    def check(self) -> None:
        resting: set[int] = set()
        for market in self.markets.values():
            market.book.check()
            for side in (Side.BUY, Side.SELL):
                resting.update(order.order_id for order in market.book.side(side))
        if resting != self.orders.keys():
            raise ModelError(f"live orders {sorted(self.orders)} but resting {sorted(resting)}")
