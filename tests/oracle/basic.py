"""Profile "basic": the features and rules of an engine without the order types of MATCHING.md.

It stands beside the full model so that such an engine can still be compared, and goes when none is left.
"""

from __future__ import annotations

from typing import Any

from ringbuf.wire.messages import (
    CancelReason,
    ExecInst,
    ListRole,
    MarketState,
    OrderReplaceRequest,
    OrdStatus,
    OrdType,
    RejectCode,
    StpMode,
    TimeInForce,
)
from tests.oracle import filters, matching
from tests.oracle.accounts import Fee
from tests.oracle.admission import check_known
from tests.oracle.exchange import Exchange
from tests.oracle.filters import OrderRequest, Refusal
from tests.oracle.lines import OrderLine, Version
from tests.oracle.matcher import Matcher
from tests.oracle.orders import LiveOrder, Market
from tests.oracle.sequencer import Sequencer

EXEC_INST_LATER = ExecInst.QUOTE_AMOUNT | ExecInst.REDUCE_ONLY | ExecInst.HIDDEN | ExecInst.DISPLAY_IS_MINIMUM
STATE_CODES = matching.STATE_CODES | {
    MarketState.PRE_OPEN: RejectCode.MARKET_CLOSED,
    MarketState.AUCTION: RejectCode.AUCTION_ONLY,
}

# Fields such an engine does not fill.
NOT_YET = {"OrderAccepted": ("exec_inst",), "OrderPrevented": ("prevented_match_id",)}


def check_features(message: filters.NewOrderSingle, stp_group_id: int) -> None:
    """Refuse what is not built and combinations without sense."""
    absent = (
        (message.ord_type in (OrdType.MARKET, OrdType.LIMIT), RejectCode.INVALID_ORD_TYPE),
        (message.display_qty is None, RejectCode.INVALID_DISPLAY_QTY),
        (message.stop_px is None, RejectCode.INVALID_STOP_PX),
        (message.trailing_delta == 0, RejectCode.INVALID_TRAILING_DELTA),
        (message.list_role == ListRole.NONE, RejectCode.INVALID_LIST),
        (message.expire_time is None, RejectCode.INVALID_EXPIRE),
        (not message.exec_inst & EXEC_INST_LATER, RejectCode.INVALID_COMBINATION),
        (message.time_in_force not in (TimeInForce.GTD, TimeInForce.DAY), RejectCode.INVALID_TIME_IN_FORCE),
        (message.stp_group_id in (0, stp_group_id), RejectCode.INVALID_STP),
    )
    for is_good, code in absent:
        if not is_good:
            raise Refusal(code)
    is_market = message.ord_type == OrdType.MARKET
    if is_market and message.price is not None:
        raise Refusal(RejectCode.INVALID_PRICE)
    is_immediate = is_market or message.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
    if message.exec_inst & ExecInst.POST_ONLY and is_immediate:
        raise Refusal(RejectCode.INVALID_COMBINATION)


class BasicSequencer(Sequencer):
    """Limit and market orders, cancel, replace, mass cancel."""

    def judge(self, request: OrderRequest) -> None:
        message = request.message
        check_known(message)
        request.account = self.account_for(request.session, message.account_id)
        self.check_age(request)
        request.instrument = self.instrument_for(message.instrument_id)
        check_features(message, request.account.stp_group_id)
        filters.check_limit_price(request)
        filters.check_order_qty(request)
        filters.check_protection(request)
        if request.is_market_type:
            limits = request.instrument.limits
            request.price = min(max(request.price, limits.min_px), limits.max_px)
        filters.check_order_notional(request)
        filters.check_order_band(request)
        self.check_caps(request)
        self.check_identity(request)
        self.check_room(request)
        request.need = self.need_of(request)

    def checked_version(self, line: OrderLine, message: OrderReplaceRequest, stamp_ns: int) -> Version:
        version = self.new_version(line, message)
        self.check_new_terms(line, message, version)
        self.check_in_flight(line)
        self.check_new_client_id(line, version.cl_ord_id)
        return version


class BasicMatcher(Matcher):
    """Cancels where the full rules have reports of prevention; no auctions."""

    def report(self, session: int, name: str, **options: Any) -> None:
        for field in NOT_YET.get(name, ()):
            del options[field]
        super().report(session, name, **options)

    def state_code(self, market: Market, order: LiveOrder, *, is_new: bool = True) -> int:
        return STATE_CODES[MarketState(market.state)]

    def executed(
        self,
        order: LiveOrder,
        terms: dict[str, int],
        liquidity: int,
        fee: Fee,
        leaves: int,
        *,
        joined: bool = False,
    ) -> None:
        super().executed(order, terms, liquidity, Fee(fee.units, fee.asset_id), leaves, joined=joined)

    def prevent(self, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
        mode = taker.terms.stp_mode
        if mode in (StpMode.DECREMENT, StpMode.TRANSFER):
            self.decrement(market, taker, maker)
            return
        if mode in (StpMode.CANCEL_MAKER, StpMode.CANCEL_BOTH):
            self.self_trade_ends(maker)
        if mode in (StpMode.CANCEL_TAKER, StpMode.CANCEL_BOTH):
            self.self_trade_ends(taker)

    def self_trade_ends(self, order: LiveOrder) -> None:
        self.end(order, reason=CancelReason.SELF_TRADE, status=OrdStatus.EXPIRED_IN_MATCH)

    def decrement(self, market: Market, taker: LiveOrder, maker: LiveOrder) -> None:
        quantity = self.meeting_quantity(market, taker, maker)
        for order in (maker, taker):
            if order.leaves == quantity:
                self.self_trade_ends(order)
            else:
                self.hide(market, order, quantity)
                self.prevented_at(market, order, maker if order is taker else taker, quantity, taker, maker)


class BasicExchange(Exchange):
    """The model of profile "basic"."""

    sequencer_class = BasicSequencer
    matcher_class = BasicMatcher
