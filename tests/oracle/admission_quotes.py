"""Admission of two-sided quotes."""

from __future__ import annotations

from ringbuf.wire.messages import (
    NewOrderSingle,
    OrdType,
    Quote,
    QuoteFlags,
    RejectCode,
    Side,
    StpMode,
    TimeInForce,
)
from tests.oracle import filters
from tests.oracle.accounts import Account
from tests.oracle.admission_lists import ListAdmission
from tests.oracle.choices import REPLACES_IN_FLIGHT_MAX
from tests.oracle.filters import Instrument, OrderRequest, Refusal
from tests.oracle.lines import QuoteLines, Session
from tests.oracle.records import QuoteSides, Record


class QuoteAdmission(ListAdmission):
    """Both sides or none."""

    def admit_quote(self, session: Session, seq_num: int, message: Quote, stamp_ns: int) -> None:
        try:
            placed = self.judge_quote(session, seq_num, message, stamp_ns)
        except Refusal as refusal:
            self.reject_quote(session, seq_num, message, refusal.code)
            return
        account = self.account_for(session, message.account_id)
        key = (account.account_id, message.instrument_id, message.quote_set_id)
        quotes = self.quotes.setdefault(key, QuoteLines())
        quotes.in_flight += 1
        self.count_order(account, stamp_ns)
        terms = {}
        for request in placed:
            line = self.enlist(request)
            line.quote = quotes
            quotes.lines.append(line)
            available = self.ledger.available[line.account_id, line.asset_paid]
            extra = min(available, request.need)
            self.set_hold(line, extra)
            terms[request.side] = self.terms_of(line, extra=extra)
        self.log.append(
            Record(
                partition=self.instrument_for(message.instrument_id).definition.assigned_partition,
                stamp_ns=stamp_ns,
                session=session.session_id,
                seq_num=seq_num,
                message=message,
                account_id=account.account_id,
                body=QuoteSides(terms.get(Side.BUY), terms.get(Side.SELL)),
            )
        )

    def judge_quote(self, session: Session, seq_num: int, message: Quote, stamp_ns: int) -> list[OrderRequest]:
        """Run all checks of a quote; return the sides to place, the bid first."""
        if message.stp_mode not in set(StpMode):
            raise Refusal(RejectCode.INVALID_STP)
        account = self.account_for(session, message.account_id)
        instrument = self.instrument_for(message.instrument_id)
        self.check_blocked(account, message.instrument_id)
        self.check_quote_shape(message)
        filters.check_stp_of(message, account, instrument)
        placed = self.quote_sides(session, seq_num, message, stamp_ns, account, instrument)
        for request in placed:
            self.check_side(request)
        self.check_quote_caps(account, instrument, len(placed))
        self.check_order_rate(account, stamp_ns)
        for request in placed:
            if request.side == Side.BUY:
                self.check_position(request)
        quotes = self.quotes.get((account.account_id, message.instrument_id, message.quote_set_id))
        if quotes is not None and quotes.in_flight >= REPLACES_IN_FLIGHT_MAX:
            raise Refusal(RejectCode.PENDING_REQUEST)
        self.check_quote_ids(account, message, placed, quotes)
        self.check_quote_room(instrument, quotes, len(placed))
        self.check_quote_money(placed, quotes)
        return placed

    def check_quote_shape(self, message: Quote) -> None:
        is_bid, is_ask = message.bid_qty > 0, message.ask_qty > 0
        is_negative = message.bid_qty < 0 or message.ask_qty < 0
        has_no_price = (is_bid and message.bid_px is None) or (is_ask and message.ask_px is None)
        if is_negative or has_no_price or message.quote_flags & ~int(QuoteFlags.POST_ONLY):
            raise Refusal(RejectCode.INVALID_QUOTE)
        if is_bid and is_ask and (message.bid_px or 0) >= (message.ask_px or 0):
            raise Refusal(RejectCode.INVALID_QUOTE)

    def quote_sides(
        self, session: Session, seq_num: int, message: Quote, stamp_ns: int, account: Account, instrument: Instrument
    ) -> list[OrderRequest]:
        """Return each side with a quantity as the limit order it goes in as."""
        both = (
            (Side.BUY, message.bid_px, message.bid_qty, message.bid_cl_ord_id),
            (Side.SELL, message.ask_px, message.ask_qty, message.ask_cl_ord_id),
        )
        requests = []
        for side, price, quantity, cl_ord_id in both:
            order = NewOrderSingle(
                cl_ord_id=cl_ord_id,
                price=price,
                order_qty=quantity,
                client_tag=message.client_tag,
                instrument_id=message.instrument_id,
                account_id=message.account_id,
                exec_inst=int(message.quote_flags),
                stp_group_id=message.stp_group_id,
                side=side,
                ord_type=OrdType.LIMIT,
                time_in_force=TimeInForce.GTC,
                stp_mode=message.stp_mode,
            )
            request = OrderRequest(order, seq_num, stamp_ns, session)
            request.account, request.instrument = account, instrument
            if quantity:
                requests.append(request)
        return requests

    def check_side(self, request: OrderRequest) -> None:
        filters.check_limit_price(request)
        filters.check_order_qty(request)
        filters.check_order_notional(request)
        filters.check_order_band(request)
        request.need = self.need_of(request)

    def check_quote_caps(self, account: Account, instrument: Instrument, placed: int) -> None:
        lines = self.open_lines(account.account_id)
        here = [line for line in lines if line.instrument is instrument]
        if len(lines) + placed > account.open_orders_max:
            raise Refusal(RejectCode.OPEN_ORDER_LIMIT)
        if 0 < instrument.rules.open_orders_max < len(here) + placed:
            raise Refusal(RejectCode.OPEN_ORDER_LIMIT)

    def check_quote_ids(
        self, account: Account, message: Quote, placed: list[OrderRequest], quotes: QuoteLines | None
    ) -> None:
        ids = [request.message.cl_ord_id for request in placed if request.message.cl_ord_id]
        for cl_ord_id in ids:
            self.check_client_id(account.account_id, message.instrument_id, cl_ord_id, own=quotes)
        if len(ids) != len(set(ids)):
            raise Refusal(RejectCode.DUPLICATE_CL_ORD_ID)

    def check_quote_room(self, instrument: Instrument, quotes: QuoteLines | None, placed: int) -> None:
        if placed:
            self.check_order_room(instrument.definition.assigned_partition, placed - 1)
        partition = instrument.definition.assigned_partition
        known = sum(self.instruments[key[1]].definition.assigned_partition == partition for key in self.quotes)
        if quotes is None and known >= self.quotes_max:
            raise Refusal(RejectCode.QUOTE_CAPACITY)

    def check_quote_money(self, placed: list[OrderRequest], quotes: QuoteLines | None) -> None:
        """Each side may use what the set's orders of that side hold already."""
        for request in placed:
            known = [] if quotes is None else quotes.of_side(request.side)
            asset_id = request.instrument.asset_paid(request.side)
            other_cover = sum(line.hold for line in known)
            self.check_cover(request.account.account_id, asset_id, request.need, other_cover)
