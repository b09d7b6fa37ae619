"""What a matcher says: one method for each report, filled from the order it is about."""

from __future__ import annotations

from typing import Any

from ringbuf.wire.messages import (
    OrderAmendRequest,
    OrderCancelRequest,
    OrderReplaceRequest,
    OrdStatus,
    ResponseTo,
    RestateReason,
)
from tests.oracle.accounts import Fee
from tests.oracle.choices import CANCEL_ANSWER_TO_REQUESTER
from tests.oracle.orders import LiveOrder, Market
from tests.oracle.records import MarketEvent, ModelError, OrderTerms, Record, Report

Change = OrderCancelRequest | OrderReplaceRequest | OrderAmendRequest


class MatcherReports:
    """Numbered reports and market events of one partition; outputs collect in `reports` and `market_events`."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.markets: dict[int, Market] = {}
        self.orders: dict[int, LiveOrder] = {}
        self.rates: dict[tuple[int, int], tuple[int, int]] = {}
        self.numbers: dict[int, int] = {}
        self.reports: list[Report] = []
        self.market_events: list[MarketEvent] = []
        # Log time of the input in work, and of the tick before it.
        self.now_ns = 0
        self.tick_ns: int | None = None

    def market_of(self, order: LiveOrder) -> Market:
        return self.markets[order.terms.instrument_id]

    def report(
        self,
        session: int,
        name: str,
        *,
        final: bool = False,
        numbered: bool = True,
        joined: bool = False,
        **fields: Any,
    ) -> None:
        number = 0
        if numbered:
            number = self.numbers.get(session, 0) + 1
            self.numbers[session] = number
        self.reports.append(Report(self.partition, session, number, name, fields, final, joined))

    def event(self, market: Market, name: str, **fields: Any) -> None:
        market.last_update_id += 1
        event = MarketEvent(self.partition, market.instrument_id, market.last_update_id, name, fields)
        self.market_events.append(event)

    def live_status(self, order: LiveOrder) -> int:
        if order.is_waiting:
            return OrdStatus.UNTRIGGERED
        return OrdStatus.PARTIALLY_FILLED if order.cum else OrdStatus.NEW

    def shown_price(self, order: LiveOrder) -> int | None:
        return None if order.is_market_type else order.price

    # -- new orders ------------------------------------------------------------------------------------------------

    def order_accepted(self, order: LiveOrder) -> None:
        terms = order.terms
        self.orders[order.order_id] = order
        self.report(
            order.session,
            "OrderAccepted",
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            ref_seq_num=terms.seq_num,
            price=self.shown_price(order),
            order_qty=order.total if order.amount is None else order.amount,
            client_tag=terms.client_tag,
            instrument_id=terms.instrument_id,
            account_id=terms.account_id,
            side=order.side,
            ord_type=terms.ord_type,
            time_in_force=terms.time_in_force,
            ord_status=self.live_status(order),
            exec_inst=terms.exec_inst,
        )

    def order_rejected(self, terms: OrderTerms, code: int, limit: int) -> None:
        self.report(
            terms.session,
            "OrderRejected",
            final=True,
            cl_ord_id=terms.cl_ord_id,
            order_id=terms.order_id,
            ref_seq_num=terms.seq_num,
            client_tag=terms.client_tag,
            limit=limit,
            instrument_id=terms.instrument_id,
            account_id=terms.account_id,
            reject_code=code,
            side=terms.side,
        )

    def triggered(self, order: LiveOrder) -> None:
        self.report(
            order.session,
            "OrderTriggered",
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            instrument_id=order.terms.instrument_id,
            account_id=order.terms.account_id,
        )

    # -- fills and ends --------------------------------------------------------------------------------------------

    def executed(
        self, order: LiveOrder, terms: dict[str, Any], liquidity: int, fee: Fee, leaves: int, *, joined: bool = False
    ) -> None:
        """Report a fill; with nothing left (`leaves` 0) it is the order's last report."""
        is_filled = leaves == 0
        if is_filled:
            self.forget(order)
        self.report(
            order.session,
            "OrderExecuted",
            final=is_filled,
            joined=joined,
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            **terms,
            leaves_qty=leaves,
            cum_qty=order.cum,
            fee=fee.units,
            instrument_id=order.terms.instrument_id,
            account_id=order.terms.account_id,
            fee_asset_id=fee.asset_id,
            side=order.side,
            liquidity=liquidity,
            ord_status=OrdStatus.FILLED if is_filled else OrdStatus.PARTIALLY_FILLED,
            fee_rounding=fee.rounding,
        )

    def canceled(
        self,
        order: LiveOrder,
        *,
        reason: int,
        status: int,
        session: int | None = None,
        cl_ord_id: int | None = None,
        client_tag: int | None = None,
        ref_seq_num: int = 0,
        joined: bool = False,
    ) -> None:
        """End the order; it must be off the book. A request that ended it gives session, id, tag and number."""
        if order.amount is None and order.leaves <= 0:
            raise ModelError(f"nothing to cancel: {order}")
        self.forget(order)
        self.report(
            order.session if session is None else session,
            "OrderCanceled",
            final=True,
            joined=joined,
            cl_ord_id=order.cl_ord_id if cl_ord_id is None else cl_ord_id,
            orig_cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            ref_seq_num=ref_seq_num,
            cum_qty=order.cum,
            canceled_qty=order.leaves if order.amount is None else 0,
            client_tag=order.terms.client_tag if client_tag is None else client_tag,
            instrument_id=order.terms.instrument_id,
            account_id=order.terms.account_id,
            cancel_reason=reason,
            side=order.side,
            ord_status=status,
        )

    def prevented(
        self, order: LiveOrder, counter: LiveOrder, quantity: int, leaves: int, *, mode: int, liquidity: int
    ) -> None:
        """Report what an order lost; with nothing left it is its last report."""
        is_over = leaves == 0
        if is_over:
            self.forget(order)
        self.report(
            order.session,
            "OrderPrevented",
            final=is_over,
            cl_ord_id=order.cl_ord_id,
            order_id=order.order_id,
            prevented_match_id=self.market_of(order).last_prevented_id,
            counter_order_id=counter.order_id,
            prevented_qty=quantity,
            leaves_qty=leaves,
            cum_qty=order.cum,
            instrument_id=order.terms.instrument_id,
            account_id=order.terms.account_id,
            side=order.side,
            stp_mode=mode,
            ord_status=OrdStatus.EXPIRED_IN_MATCH if is_over else self.live_status(order),
            liquidity=liquidity,
        )

    def forget(self, order: LiveOrder) -> None:
        del self.orders[order.order_id]
        order.is_resting = False
        if order.quote is not None and order.quote.live.get(order.side) is order:
            del order.quote.live[order.side]

    # -- answers to changes ----------------------------------------------------------------------------------------

    def replaced(
        self,
        order: LiveOrder,
        old_cl_ord_id: int,
        *,
        record: Record,
        keeps: bool,
        reason: int = RestateReason.CLIENT,
    ) -> None:
        is_answer = CANCEL_ANSWER_TO_REQUESTER and reason == RestateReason.CLIENT
        self.report(
            record.session if is_answer else order.session,
            "OrderReplaced",
            cl_ord_id=order.cl_ord_id,
            orig_cl_ord_id=old_cl_ord_id,
            order_id=order.order_id,
            ref_seq_num=record.seq_num,
            price=self.shown_price(order),
            order_qty=order.total,
            leaves_qty=order.leaves,
            cum_qty=order.cum,
            instrument_id=order.terms.instrument_id,
            account_id=order.terms.account_id,
            restate_reason=reason,
            side=order.side,
            ord_status=self.live_status(order),
            priority_retained=int(keeps),
        )

    def refuse(self, record: Record, message: Change, order: LiveOrder | None, code: int, limit: int = 0) -> None:
        self.report(
            record.session,
            "CancelReplaceReject",
            cl_ord_id=message.cl_ord_id,
            orig_cl_ord_id=order.cl_ord_id if order is not None else message.orig_cl_ord_id or 0,
            order_id=record.order_id,
            ref_seq_num=record.seq_num,
            limit=limit,
            instrument_id=message.instrument_id,
            account_id=record.account_id,
            reject_code=code,
            response_to=ResponseTo.CANCEL if isinstance(message, OrderCancelRequest) else ResponseTo.REPLACE,
            ord_status=self.live_status(order) if order is not None else OrdStatus.REJECTED,
        )
