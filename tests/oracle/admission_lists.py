"""Admission of order lists, and of their pending legs when their time has come."""

from __future__ import annotations

from dataclasses import replace

from ringbuf.wire.messages import (
    CancelReason,
    ListOrderStatus,
    ListRole,
    ListStatusType,
    ListType,
    OrderListRequest,
    OrdStatus,
    OrdType,
    RejectCode,
    Side,
)
from tests.oracle.admission_changes import ChangeAdmission
from tests.oracle.filters import OrderRequest, Refusal
from tests.oracle.lines import OrderLine, OrderList, PairHold, Session
from tests.oracle.orders import IMMEDIATE, STOP_TYPES

ROLES = {
    ListType.OCO: (ListRole.OCO_ABOVE, ListRole.OCO_BELOW),
    ListType.OTO: (ListRole.OTO_WORKING, ListRole.OTO_PENDING),
    ListType.OTOCO: (ListRole.OTOCO_WORKING, ListRole.OTOCO_PENDING_ABOVE, ListRole.OTOCO_PENDING_BELOW),
}
PENDING_ROLES = (ListRole.OTO_PENDING, ListRole.OTOCO_PENDING_ABOVE, ListRole.OTOCO_PENDING_BELOW)
ABOVE_TYPES = (OrdType.LIMIT, OrdType.TAKE_PROFIT, OrdType.TAKE_PROFIT_LIMIT)


class ListAdmission(ChangeAdmission):
    """All legs or none."""

    def admit_list(
        self, session: Session, seq_num: int, message: OrderListRequest, legs: list[OrderRequest]
    ) -> None:
        """Judge the list, each leg, then their relations; refuse all of it, or give all legs their ids."""
        failed: OrderRequest | None = None
        try:
            self.check_kind(session, message, legs)
            for failed in legs:
                self.judge_leg(message, legs, failed)
            failed = None
            self.check_relations(message, legs)
            self.check_list_room(message, legs[0])
        except Refusal as refusal:
            self.refuse_list(session, seq_num, message, legs, failed, refusal)
            return
        self.start_list(session, seq_num, message, legs)

    def check_kind(self, session: Session, message: OrderListRequest, legs: list[OrderRequest]) -> None:
        self.account_for(session, message.account_id)
        self.instrument_for(message.instrument_id)
        roles = ROLES.get(message.list_type)
        if roles is None or len(roles) != len(legs) or message.leg_count != len(legs):
            raise Refusal(RejectCode.INVALID_ORDER_LIST)
        for index, (leg, role) in enumerate(zip(legs, roles, strict=True)):
            leg.role, leg.earlier = role, legs[:index]

    def judge_leg(self, message: OrderListRequest, legs: list[OrderRequest], leg: OrderRequest) -> None:
        """Run the leg's own checks; the money of a pair is judged once, at its second leg, of a pending leg later."""
        self.judge(leg)
        if leg.role in PENDING_ROLES:
            return
        if message.list_type == ListType.OCO:
            if leg is legs[1]:
                asset_id = leg.instrument.asset_paid(leg.side)
                self.check_cover(leg.account.account_id, asset_id, max(legs[0].need, leg.need))
        else:
            self.check_money(leg)

    def refuse_list(
        self,
        session: Session,
        seq_num: int,
        message: OrderListRequest,
        legs: list[OrderRequest],
        failed: OrderRequest | None,
        refusal: Refusal,
    ) -> None:
        self.reject_list(session, seq_num, message, refusal.code if failed is None else RejectCode.INVALID_GROUP)
        for leg in legs:
            own = (refusal.code, refusal.limit) if leg is failed else (RejectCode.INVALID_GROUP, 0)
            self.reject_order(session, leg.seq_num, leg.message, *own)

    # -- relations -------------------------------------------------------------------------------------------------

    def check_relations(self, message: OrderListRequest, legs: list[OrderRequest]) -> None:
        account_id = legs[0].account.account_id
        for leg in legs:
            is_here = leg.message.instrument_id == message.instrument_id and leg.account.account_id == account_id
            if not is_here or leg.is_quote_amount or leg.min_qty:
                raise Refusal(RejectCode.INVALID_ORDER_LIST)
        if message.account_id not in (0, account_id):
            raise Refusal(RejectCode.INVALID_ORDER_LIST)
        if message.list_type != ListType.OCO:
            working = legs[0].message
            if working.ord_type != OrdType.LIMIT or working.time_in_force in IMMEDIATE:
                raise Refusal(RejectCode.INVALID_ORDER_LIST)
        if message.list_type != ListType.OTO:
            self.check_pair(*legs[-2:])

    def check_pair(self, above: OrderRequest, below: OrderRequest) -> None:
        """Selling, the profit is above and the stop below; buying, the stop is above."""
        if above.side != below.side or above.message.order_qty != below.message.order_qty:
            raise Refusal(RejectCode.INVALID_ORDER_LIST)
        profit, stop = (above, below) if above.side == Side.SELL else (below, above)
        is_maker = profit.message.ord_type != OrdType.LIMIT or profit.is_post_only
        if profit.message.ord_type not in ABOVE_TYPES or not is_maker or stop.message.ord_type not in STOP_TYPES:
            raise Refusal(RejectCode.INVALID_ORDER_LIST)
        high, low = self.relation_price(above), self.relation_price(below)
        if high is not None and low is not None and high <= low:
            raise Refusal(RejectCode.LIST_PRICE_RELATION)

    def relation_price(self, leg: OrderRequest) -> int | None:
        """Return the price that counts: of stops and take-profits the stop price, trailing ones may have none."""
        return leg.message.price if leg.message.ord_type == OrdType.LIMIT else leg.message.stop_px

    def check_list_room(self, message: OrderListRequest, leg: OrderRequest) -> None:
        most = leg.instrument.rules.order_lists_max
        open_lists = [
            order_list
            for order_list in self.lists.values()
            if order_list.account_id == leg.account.account_id and order_list.instrument_id == message.instrument_id
        ]
        if most and len(open_lists) >= most:
            raise Refusal(RejectCode.ORDER_LIST_LIMIT, most)
        if len(self.lists) >= self.lists_max:
            raise Refusal(RejectCode.LIST_CAPACITY)

    # -- an admitted list ------------------------------------------------------------------------------------------

    def start_list(
        self, session: Session, seq_num: int, message: OrderListRequest, legs: list[OrderRequest]
    ) -> None:
        """Give all legs their ids, tell of those that wait, and send the others to the matcher."""
        lines = [self.enlist(leg) for leg in legs]
        self.last_list_id += 1
        order_list = OrderList(
            list_id=self.last_list_id,
            list_type=message.list_type,
            list_cl_ord_id=message.list_cl_ord_id,
            session=session.session_id,
            instrument_id=message.instrument_id,
            account_id=legs[0].account.account_id,
            legs=lines,
        )
        self.lists[order_list.list_id] = order_list
        for line in lines:
            line.order_list = order_list
            line.is_pending_leg = line.request.role in PENDING_ROLES
            self.count_line(line)
        self.list_status(order_list, ListStatusType.EXEC_STARTED, ListOrderStatus.EXECUTING, seq_num)
        for line in order_list.pending:
            self.accept_pending(line)
        if order_list.working is None:
            self.send_pair(message, lines[0], lines[1])
        else:
            self.send_leg(order_list.working)

    def accept_pending(self, line: OrderLine) -> None:
        message = line.request.message
        self.report(
            line.session,
            "OrderAccepted",
            cl_ord_id=line.cl_ord_id,
            order_id=line.order_id,
            ref_seq_num=line.request.seq_num,
            price=message.price,
            order_qty=message.order_qty,
            client_tag=message.client_tag,
            instrument_id=message.instrument_id,
            account_id=line.account_id,
            side=message.side,
            ord_type=message.ord_type,
            time_in_force=self.terms_of(line).time_in_force,
            ord_status=OrdStatus.PENDING_NEW,
            exec_inst=message.exec_inst,
        )

    def send_leg(self, line: OrderLine) -> None:
        """Hold what one leg needs, and write it."""
        self.set_hold(line, line.request.need)
        self.log.append(self.record_of(line.request, line.request.message, self.terms_of(line)))

    def send_pair(self, message: OrderListRequest, above: OrderLine, below: OrderLine) -> None:
        """Hold once for both legs of an OCO pair, and write them as one input."""
        above.pair = below.pair = PairHold((above, below))
        self.set_hold(above.pair, above.pair.need())
        terms = (self.terms_of(above), self.terms_of(below))
        self.log.append(self.record_of(above.request, message, terms))

    # -- pending legs ----------------------------------------------------------------------------------------------

    def admit_due(self, stamp_ns: int) -> None:
        """Start pending legs whose working leg was filled, end lists, in the order in which that was settled."""
        while self.due:
            order_list = self.due.popleft()
            if order_list.is_ending:
                self.cancel_pending(order_list)
                self.finish_list(order_list)
                continue
            lines = order_list.pending
            for line in lines:
                line.request = replace(line.request, is_due=True, earlier=[], seq_num=0, stamp_ns=stamp_ns)
            self.admit_pending(order_list, lines)

    def admit_pending(self, order_list: OrderList, lines: list[OrderLine]) -> None:
        failed: OrderLine | None = None
        try:
            for failed in lines:
                self.judge(failed.request)
                if failed is lines[-1]:
                    # Of a pair the dearer leg counts.
                    need = max(line.request.need for line in lines)
                    self.check_cover(failed.account_id, failed.asset_paid, need)
        except Refusal as refusal:
            for line in lines:
                own = (refusal.code, refusal.limit) if line is failed else (RejectCode.INVALID_GROUP, 0)
                self.refuse_pending(line, *own)
            return
        for line in lines:
            line.is_pending_leg = False
            # Reference and band may have moved since: so has the protection price.
            line.price = line.price_max = line.request.price
        if len(lines) == 1:
            self.send_leg(lines[0])
        else:
            message = OrderListRequest(list_type=order_list.list_type, instrument_id=order_list.instrument_id)
            self.send_pair(message, lines[0], lines[1])

    def refuse_pending(self, line: OrderLine, code: int, limit: int) -> None:
        """Refuse a due leg. It has had its order id since its list was accepted."""
        session = self.sessions[line.session]
        self.reject_order(
            session, 0, line.request.message, code, limit, order_id=line.order_id, account_id=line.account_id
        )
        self.finish(line)

    def cancel_pending(self, order_list: OrderList) -> None:
        """End the pending legs of a list whose working leg ended without being filled."""
        for line in order_list.pending:
            message = line.request.message
            self.report(
                line.session,
                "OrderCanceled",
                cl_ord_id=line.cl_ord_id,
                orig_cl_ord_id=line.cl_ord_id,
                order_id=line.order_id,
                ref_seq_num=0,
                cum_qty=0,
                canceled_qty=line.total,
                client_tag=message.client_tag,
                instrument_id=message.instrument_id,
                account_id=line.account_id,
                cancel_reason=CancelReason.LIST_CANCELED,
                side=line.side,
                ord_status=OrdStatus.CANCELED,
            )
            self.finish(line)
