"""Admission of new orders, alone or in a cancel-replace."""

from __future__ import annotations

import re
from typing import Any

from ringbuf.wire.messages import (
    CancelFlags,
    ListRole,
    NewOrderSingle,
    OrderCancelRequest,
    OrdType,
    RejectCode,
    Side,
    StpMode,
    TimeInForce,
)
from tests.oracle import filters
from tests.oracle.filters import OrderRequest, Refusal, effective_tif, expiry_of
from tests.oracle.lines import OrderLine, Session
from tests.oracle.orders import DATED
from tests.oracle.records import CancelReplace, OrderTerms, Record
from tests.oracle.tables import Tables

EXEC_INST_KNOWN = 0x1F
CANCEL_FLAGS_KNOWN = 0x07
ONLY_FLAGS = CancelFlags.ONLY_NEW | CancelFlags.ONLY_PARTIALLY_FILLED
CLIENT_TEXT = re.compile(r"[.A-Z:/a-z0-9_-]{0,36}")


def check_known(message: NewOrderSingle) -> None:
    """Refuse a value outside its enum, in the order of check 1."""
    if message.list_role not in set(ListRole) or message.exec_inst & ~int(EXEC_INST_KNOWN):
        raise Refusal(RejectCode.INVALID_COMBINATION)
    if message.side not in set(Side):
        raise Refusal(RejectCode.INVALID_SIDE)
    if message.ord_type not in set(OrdType):
        raise Refusal(RejectCode.INVALID_ORD_TYPE)
    if message.time_in_force not in set(TimeInForce):
        raise Refusal(RejectCode.INVALID_TIME_IN_FORCE)
    if message.stp_mode not in set(StpMode):
        raise Refusal(RejectCode.INVALID_STP)


class Admission(Tables):
    """Checks 1 to 29, and what an admitted order becomes: a line, a hold, a record."""

    def admit_order(self, request: OrderRequest) -> None:
        """Admit one order, or refuse it."""
        message, session = request.message, request.session
        try:
            self.judge(request)
            self.check_money(request)
        except Refusal as refusal:
            self.reject_order(session, request.seq_num, message, refusal.code, refusal.limit)
            return
        line = self.enlist(request)
        self.count_line(line)
        self.set_hold(line, request.need)
        self.log.append(self.record_of(request, message, self.terms_of(line)))

    # -- the checks ------------------------------------------------------------------------------------------------

    def judge(self, request: OrderRequest) -> None:
        """Run all checks but the money (29). A pending leg that is due has its place and was counted already."""
        message = request.message
        if not request.is_due:
            check_known(message)
            request.account = self.account_for(request.session, message.account_id)
            self.check_age(request)
        request.instrument = self.instrument_for(message.instrument_id)
        self.check_blocked(request.account, message.instrument_id)
        filters.check_filters(request)
        if not request.is_due:
            self.check_caps(request)
            self.check_order_rate(request.account, request.stamp_ns, len(request.earlier))
        self.check_position(request)
        if not request.is_due:
            self.check_identity(request)
            self.check_room(request)
        request.need = self.need_of(request)

    def check_age(self, request: OrderRequest) -> None:
        age_max = request.message.max_latency_us
        if age_max and request.age_us > age_max:
            raise Refusal(RejectCode.STALE_REQUEST, age_max)

    def check_caps(self, request: OrderRequest) -> None:
        """Count open orders; in a list each leg counts those before it as open."""
        account, rules, earlier = request.account, request.instrument.rules, request.earlier
        lines = self.open_lines(account.account_id)
        if len(lines) + len(earlier) >= account.open_orders_max:
            raise Refusal(RejectCode.OPEN_ORDER_LIMIT, account.open_orders_max)
        here = [line for line in lines if line.instrument is request.instrument]
        if rules.open_orders_max and len(here) + len(earlier) >= rules.open_orders_max:
            raise Refusal(RejectCode.OPEN_ORDER_LIMIT, rules.open_orders_max)
        algos = sum(line.is_algo for line in here) + sum(leg.is_waiting_type for leg in earlier)
        if request.is_waiting_type and 0 < rules.algo_orders_max <= algos:
            raise Refusal(RejectCode.ALGO_ORDER_LIMIT, rules.algo_orders_max)
        icebergs = sum(line.is_iceberg for line in here) + sum(leg.display is not None for leg in earlier)
        if request.display is not None and 0 < rules.iceberg_orders_max <= icebergs:
            raise Refusal(RejectCode.ICEBERG_ORDER_LIMIT, rules.iceberg_orders_max)

    def check_position(self, request: OrderRequest) -> None:
        """Refuse a buy with which the account could come to have more than the instrument allows."""
        if request.side == Side.BUY:
            lots = sum(self.position_lots(leg) for leg in [*request.earlier, request] if leg.side == Side.BUY)
            self.check_position_of(request, lots, except_line=self.line_of_due(request))

    def line_of_due(self, request: OrderRequest) -> OrderLine | None:
        return next((line for line in self.lines.values() if line.request is request), None) if request.is_due else None

    def position_lots(self, request: OrderRequest) -> int:
        reference = request.instrument.reference()
        if request.is_quote_amount and reference:
            return request.instrument.lots_for(request.message.order_qty, reference)
        return request.message.order_qty

    def check_position_of(self, request: OrderRequest, lots: int, except_line: OrderLine | None = None) -> None:
        instrument, account_id = request.instrument, request.account.account_id
        position_max = instrument.rules.position_max
        open_lots = sum(
            line.open_lots
            for line in self.open_lines(account_id)
            if line.instrument is instrument and line.side == Side.BUY and line is not except_line
        )
        key = (account_id, instrument.definition.base_asset_id)
        owned = self.ledger.available[key] + self.ledger.held[key]
        if position_max and owned + (open_lots + lots) * instrument.definition.base_per_lot > position_max:
            raise Refusal(RejectCode.POSITION_LIMIT, position_max)

    def check_identity(self, request: OrderRequest) -> None:
        message = request.message
        text = "" if request.details is None else request.details.client_text
        if (text and message.cl_ord_id == 0) or not CLIENT_TEXT.fullmatch(text):
            raise Refusal(RejectCode.INVALID_CL_ORD_ID)
        self.check_client_id(request.account.account_id, message.instrument_id, message.cl_ord_id)
        if message.cl_ord_id and message.cl_ord_id in (leg.message.cl_ord_id for leg in request.earlier):
            raise Refusal(RejectCode.DUPLICATE_CL_ORD_ID)

    def check_room(self, request: OrderRequest) -> None:
        partition = request.instrument.definition.assigned_partition
        self.check_order_room(partition, len(request.earlier))
        if self.needs_entry(request):
            self.check_entry_room(partition, sum(self.needs_entry(leg) for leg in request.earlier))

    def check_order_room(self, partition: int, more: int = 0) -> None:
        if len(self.slots[partition]) + more >= self.orders_max:
            raise Refusal(RejectCode.ORDER_CAPACITY)

    def check_entry_room(self, partition: int, more: int = 0) -> None:
        used = sum(line.has_entry for line in self.lines.values() if line.partition == partition)
        if used + more >= self.entries_max:
            raise Refusal(RejectCode.ALGO_CAPACITY)

    def needs_entry(self, request: OrderRequest) -> bool:
        """Return True for what waits, market orders, icebergs, dated orders and orders of lists."""
        is_dated = request.message.time_in_force in DATED
        return request.message.ord_type != OrdType.LIMIT or request.display is not None or is_dated or request.role != 0

    def need_of(self, request: OrderRequest) -> int:
        """Return what the order may cost at worst."""
        if request.is_quote_amount and request.side == Side.BUY:
            return request.message.order_qty
        return request.instrument.hold_for(request.side, request.price, request.lots)

    def check_money(self, request: OrderRequest) -> None:
        asset_id = request.instrument.asset_paid(request.side)
        self.check_cover(request.account.account_id, asset_id, request.need, request.other_cover)

    # -- what becomes of it ----------------------------------------------------------------------------------------

    def enlist(self, request: OrderRequest) -> OrderLine:
        """Give an admitted order its id and its line. The hold is set by who knows it."""
        partition = request.instrument.definition.assigned_partition
        lots = request.lots
        line = OrderLine(
            order_id=self.next_order_id(partition),
            partition=partition,
            session=request.session.session_id,
            instrument=request.instrument,
            request=request,
            price=request.price,
            total=lots,
            cl_ord_id=request.message.cl_ord_id,
            display=request.display,
            amount=request.message.order_qty if request.is_quote_amount else None,
            price_max=request.price,
            total_max=lots,
            has_entry=self.needs_entry(request),
        )
        self.lines[partition, line.order_id] = line
        self.slots[partition].add(line.order_id % self.orders_max)
        self.take_client_id(line, line.cl_ord_id)
        return line

    def count_line(self, line: OrderLine) -> None:
        """Count a new order in its account's rates."""
        line.counted_ns = line.request.stamp_ns
        self.count_order(line.request.account, line.request.stamp_ns)

    def terms_of(self, line: OrderLine, *, extra: int = 0) -> OrderTerms:
        """Return the order as the log carries it."""
        request, message = line.request, line.request.message
        return OrderTerms(
            order_id=line.order_id,
            instrument_id=message.instrument_id,
            account_id=line.account_id,
            firm_id=request.account.firm_id,
            session=line.session,
            seq_num=request.seq_num,
            cl_ord_id=message.cl_ord_id,
            client_tag=message.client_tag,
            side=message.side,
            ord_type=message.ord_type,
            time_in_force=effective_tif(message),
            price=request.price,
            quantity=request.lots,
            stop_px=message.stop_px,
            trailing_delta=message.trailing_delta,
            display_qty=request.display,
            first_display_qty=request.first_display if request.display is not None else None,
            min_qty=request.min_qty,
            amount=line.amount,
            expire_s=expiry_of(request),
            exec_inst=message.exec_inst,
            stp_group_id=request.account.stp_group_id,
            stp_mode=message.stp_mode,
            tier=request.account.fee_tier,
            need=request.need,
            extra=extra,
        )

    def record_of(self, request: OrderRequest, message: Any, body: Any, **fields: int) -> Record:
        return Record(
            partition=request.instrument.definition.assigned_partition,
            stamp_ns=request.stamp_ns,
            session=request.session.session_id,
            seq_num=request.seq_num,
            message=message,
            account_id=request.account.account_id,
            body=body,
            **fields,
        )

    # -- cancel-replace --------------------------------------------------------------------------------------------

    def admit_cancel_replace(
        self, session: Session, seq_num: int, cancel: OrderCancelRequest, request: OrderRequest
    ) -> None:
        """Admit a cancel and the order behind it."""
        order = request.message
        accounts = {message.account_id or session.account_id for message in (cancel, order)}
        if len(accounts) > 1 or cancel.instrument_id != order.instrument_id:
            self.reject_change(session, seq_num, cancel, Refusal(RejectCode.INVALID_GROUP))
            self.reject_order(session, request.seq_num, order, RejectCode.INVALID_GROUP)
            return
        try:
            line = self.checked_cancel(session, cancel, request.stamp_ns, in_group=True)
        except Refusal as refusal:
            self.reject_change(session, seq_num, cancel, refusal)
            if cancel.cancel_flags & CancelFlags.CONTINUE_ON_FAILURE:
                self.admit_order(request)
            else:
                self.reject_order(session, request.seq_num, order, RejectCode.CANCEL_FAILED)
            return
        line.request.account.cancels.add(request.stamp_ns)
        self.admit_successor(session, seq_num, cancel, line, request)

    def admit_successor(
        self, session: Session, seq_num: int, cancel: OrderCancelRequest, line: OrderLine, request: OrderRequest
    ) -> None:
        """Admit the order that takes the place of `line`; if it is refused, the cancel goes on alone."""
        is_same_asset = request.message.side == line.side
        request.other_cover = line.hold if is_same_asset else 0
        try:
            self.judge(request)
            self.check_money(request)
        except Refusal as refusal:
            self.reject_order(session, request.seq_num, request.message, refusal.code, refusal.limit)
            self.log_change(session, seq_num, cancel, line, request.stamp_ns)
            return
        successor = self.enlist(request)
        self.count_line(successor)
        available = self.ledger.available[successor.account_id, successor.asset_paid]
        extra = min(available, request.need)
        self.set_hold(successor, extra)
        both = CancelReplace(cancel, self.terms_of(successor, extra=extra), is_same_asset)
        record = self.record_of(request, cancel, both, order_id=line.order_id)
        record.seq_num = seq_num
        self.log.append(record)

    def log_change(self, session: Session, seq_num: int, message: Any, line: OrderLine, stamp_ns: int) -> None:
        """Write a request that names an order, resolved."""
        self.log.append(
            Record(
                partition=line.partition,
                stamp_ns=stamp_ns,
                session=session.session_id,
                seq_num=seq_num,
                message=message,
                account_id=line.account_id,
                order_id=line.order_id,
            )
        )

    def resolve(self, account_id: int, message: Any) -> OrderLine:
        """Return the open order a request names: by order id if given, else by client order id."""
        instrument = self.instrument_for(message.instrument_id)
        line: OrderLine | None = None
        if message.order_id is not None:
            line = self.lines.get((instrument.definition.assigned_partition, message.order_id))
        elif message.orig_cl_ord_id is not None:
            holders = self.holders(account_id, message.instrument_id, message.orig_cl_ord_id)
            line = holders[-1] if holders else None
        if line is None or line.is_done or line.account_id != account_id or line.instrument is not instrument:
            raise Refusal(RejectCode.UNKNOWN_ORDER)
        return line

    def checked_cancel(
        self, session: Session, message: OrderCancelRequest, stamp_ns: int, *, in_group: bool = False
    ) -> OrderLine:
        """Return the order a cancel is for; a pending leg's cancel is for the working leg."""
        flags = message.cancel_flags
        is_odd = flags & ~int(CANCEL_FLAGS_KNOWN) or flags & ONLY_FLAGS == ONLY_FLAGS
        if is_odd or (flags & CancelFlags.CONTINUE_ON_FAILURE and not in_group):
            raise Refusal(RejectCode.INVALID_COMBINATION)
        account = self.account_for(session, message.account_id)
        line = self.resolve(account.account_id, message)
        if in_group and line.order_list is not None:
            raise Refusal(RejectCode.INVALID_LIST)
        if in_group and line.quote is not None:
            raise Refusal(RejectCode.INVALID_QUOTE)
        self.check_cancel_rate(account, stamp_ns)
        if line.is_pending_leg and line.order_list is not None and line.order_list.working is not None:
            return line.order_list.working
        return line
