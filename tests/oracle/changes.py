"""Cancel, replace, amend and cancel-replace in the matcher."""

from __future__ import annotations

from ringbuf.wire.messages import (
    CancelFlags,
    CancelReason,
    OrderAmendRequest,
    OrderCancelRequest,
    OrderReplaceRequest,
    OrdStatus,
    RejectCode,
)
from tests.oracle.choices import CANCEL_ANSWER_TO_REQUESTER
from tests.oracle.matching import Matching
from tests.oracle.orders import LiveOrder, Market
from tests.oracle.records import CancelReplace, Record


class Changes(Matching):
    """Requests that name an order. The sequencer has resolved which one."""

    # -- cancel ----------------------------------------------------------------------------------------------------

    def cancel(self, record: Record, message: OrderCancelRequest, *, joined: bool = False) -> bool:
        """Cancel the order, or refuse; return True if it was canceled."""
        order = self.orders.get(record.order_id)
        if order is None:
            self.refuse(record, message, None, RejectCode.TOO_LATE_TO_CANCEL)
            return False
        if self.is_restricted(order, message.cancel_flags):
            self.refuse(record, message, order, RejectCode.CANCEL_RESTRICTED)
            return False
        self.end(
            order,
            reason=CancelReason.CLIENT,
            status=OrdStatus.CANCELED,
            session=record.session if CANCEL_ANSWER_TO_REQUESTER else order.session,
            cl_ord_id=message.cl_ord_id,
            client_tag=message.client_tag,
            ref_seq_num=record.seq_num,
            joined=joined,
        )
        return True

    def is_restricted(self, order: LiveOrder, flags: int) -> bool:
        """Return True if the request wants orders of another state only."""
        if order.cum:
            return bool(flags & CancelFlags.ONLY_NEW)
        return bool(flags & CancelFlags.ONLY_PARTIALLY_FILLED)

    def cancel_replace(self, record: Record, both: CancelReplace) -> None:
        """Cancel, then enter the new order on the cover of both."""
        old = self.orders.get(record.order_id)
        cover = both.terms.extra
        if old is not None and both.is_same_asset:
            cover += self.cover_of(old)
        if not self.cancel(record, both.cancel, joined=True):
            if not both.cancel.cancel_flags & CancelFlags.CONTINUE_ON_FAILURE:
                self.order_rejected(both.terms, RejectCode.CANCEL_FAILED, 0)
                return
            cover = both.terms.extra
        if cover < both.terms.need:
            self.order_rejected(both.terms, RejectCode.INSUFFICIENT_BALANCE, cover)
            return
        self.new_order(both.terms)

    def cover_of(self, order: LiveOrder) -> int:
        """Return what an order that waits or rests may still cost."""
        return self.market_of(order).cover_for(order.side, order.price, order.leaves)

    # -- replace ---------------------------------------------------------------------------------------------------

    def replace(self, record: Record, message: OrderReplaceRequest) -> None:
        order = self.orders.get(record.order_id)
        if order is None:
            self.refuse(record, message, None, RejectCode.TOO_LATE_TO_CANCEL)
            return
        market = self.market_of(order)
        price = order.price if message.price is None else message.price
        total = order.total if message.order_qty is None else message.order_qty
        display = self.new_display(order, total, message.display_qty)
        code, limit = self.replace_code(market, order, price, total, display)
        if code != RejectCode.NONE:
            self.refuse(record, message, order, code, limit)
            return
        keeps = order.is_waiting or self.keeps_priority(order, price, total)
        old_cl_ord_id = self.rename(order, message.cl_ord_id)
        order.display = display
        if order.is_waiting:
            order.price, order.total = price, total
        elif keeps:
            self.reduce_to(market, order, total)
        else:
            self.leave_level(market, order, price, total)
        self.replaced(order, old_cl_ord_id, record=record, keeps=keeps)
        if not keeps:
            self.go_again(market, order)

    def new_display(self, order: LiveOrder, total: int, display_qty: int | None) -> int | None:
        """Return the display quantity after a replace; none for an ordinary order, which shows all that is open."""
        if display_qty is None:
            return order.display
        return display_qty if display_qty < total - order.cum else None

    def replace_code(
        self, market: Market, order: LiveOrder, price: int, total: int, display: int | None
    ) -> tuple[int, int]:
        state_code = self.state_code(market, order, is_new=False)
        if state_code != RejectCode.NONE:
            return state_code, 0
        if total <= order.cum:
            return RejectCode.QTY_BELOW_FILLED, order.cum
        if price == order.price and total == order.total and display == order.display:
            return RejectCode.REPLACE_NO_CHANGE, 0
        if order.is_waiting or self.keeps_priority(order, price, total):
            return RejectCode.NONE, 0
        return self.post_only_code(market, order, price)

    def keeps_priority(self, order: LiveOrder, price: int, total: int) -> bool:
        return price == order.price and total <= order.total

    def rename(self, order: LiveOrder, cl_ord_id: int) -> int:
        """Give the order a new client id, if there is one; return the old one."""
        old = order.cl_ord_id
        order.cl_ord_id = cl_ord_id or old
        return old

    def reduce_to(self, market: Market, order: LiveOrder, total: int) -> None:
        """Make an order smaller in its place. Hidden quantity goes first: the slice is cut only to the whole rest."""
        order.total = total
        if order.is_resting and order.visible > order.leaves:
            order.visible = order.leaves
            self.event(market, "OrderReduce", order_id=order.order_id, new_qty=order.visible, side=order.side)

    def leave_level(self, market: Market, order: LiveOrder, price: int, total: int) -> None:
        """Take a resting order out of its level. Market data hears of it at the end of the order's course."""
        market.book.remove(order)
        order.is_resting, order.visible = False, 0
        order.price, order.total, order.first_display = price, total, None

    def go_again(self, market: Market, order: LiveOrder) -> None:
        """Let a replaced order trade like a new one and rest at the back, or end."""
        if market.is_continuous:
            self.course(market, order)
        if order.order_id not in self.orders:
            self.event(market, "OrderDelete", order_id=order.order_id, side=order.side)
        else:
            self.show(order)
            order.is_resting = True
            market.book.add(order)
            self.event(
                market,
                "OrderReplace",
                order_id=order.order_id,
                new_price=order.price,
                new_qty=order.visible,
                side=order.side,
            )
        self.work_off_queue(market)

    # -- amend -----------------------------------------------------------------------------------------------------

    def amend(self, record: Record, message: OrderAmendRequest) -> None:
        """Reduce the total; priority stays, in every state of the market."""
        order = self.orders.get(record.order_id)
        if order is None:
            self.refuse(record, message, None, RejectCode.TOO_LATE_TO_CANCEL)
            return
        if message.new_qty >= order.total:
            self.refuse(record, message, order, RejectCode.QTY_NOT_REDUCED, order.total)
            return
        if message.new_qty <= order.cum:
            self.refuse(record, message, order, RejectCode.QTY_BELOW_FILLED, order.cum)
            return
        old_cl_ord_id = self.rename(order, message.cl_ord_id)
        self.reduce_to(self.market_of(order), order, message.new_qty)
        self.replaced(order, old_cl_ord_id, record=record, keeps=True)
