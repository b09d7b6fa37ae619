"""The requests of a session by name: each builds its frames and returns the number that its answer will carry."""

from collections.abc import Sequence
from typing import Protocol

from gateway.clients.python.orders import Order, cancel_replace_frames, list_frames
from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import (
    CancelFlags,
    ListType,
    MassCancelFlags,
    MassCancelRequest,
    MassCancelScope,
    OrderAmendRequest,
    OrderCancelRequest,
    OrderReplaceRequest,
    OrderStatusRequest,
    Quote,
    QuoteFlags,
    Side,
    SideOrBoth,
    StpMode,
    TimeInForce,
)


class Requests(Protocol):
    """What a client sends; the client numbers and carries it."""

    def send(self, message: WireMessage) -> int: ...

    def send_group(self, messages: Sequence[WireMessage]) -> list[int]: ...

    def new_order(
        self,
        *,
        instrument_id: int,
        side: Side,
        quantity: int,
        price: int | None = None,
        cl_ord_id: int = 0,
        time_in_force: TimeInForce = TimeInForce.GTC,
        post_only: bool = False,
        stp_mode: StpMode = StpMode.NONE,
        account_id: int = 0,
        client_tag: int = 0,
        max_latency_us: int = 0,
    ) -> int:
        """Send a plain order in ticks and lots; without a price it is a market order. `place` knows all terms."""
        order = Order(
            instrument_id=instrument_id,
            side=side,
            quantity=quantity,
            price=price,
            cl_ord_id=cl_ord_id,
            time_in_force=time_in_force,
            post_only=post_only,
            stp_mode=stp_mode,
            account_id=account_id,
            client_tag=client_tag,
            max_latency_us=max_latency_us,
        )
        return self.place(order)

    def place(self, order: Order) -> int:
        """Send an order with any terms; its answer has the returned number."""
        return self.send_group(order.frames())[-1]

    def place_list(self, kind: ListType, legs: Sequence[Order], *, list_cl_ord_id: int = 0) -> list[int]:
        """Send an OCO, OTO or OTOCO list; ListStatus answers the first number, each leg has its own."""
        return self.send_group(list_frames(kind, legs, list_cl_ord_id=list_cl_ord_id))

    def cancel_replace(
        self,
        order: Order,
        *,
        order_id: int | None = None,
        orig_cl_ord_id: int | None = None,
        cl_ord_id: int = 0,
        continue_on_failure: bool = False,
    ) -> list[int]:
        """Cancel an order and send a new one as one command; return the cancel's number, then the order's last."""
        frames = cancel_replace_frames(
            order,
            order_id=order_id,
            orig_cl_ord_id=orig_cl_ord_id,
            cl_ord_id=cl_ord_id,
            continue_on_failure=continue_on_failure,
        )
        return self.send_group(frames)

    def quote(
        self,
        *,
        instrument_id: int,
        bid: tuple[int, int] | None,
        ask: tuple[int, int] | None,
        quote_id: int = 0,
        quote_set_id: int = 0,
        bid_cl_ord_id: int = 0,
        ask_cl_ord_id: int = 0,
        post_only: bool = False,
        stp_mode: StpMode = StpMode.NONE,
        account_id: int = 0,
        client_tag: int = 0,
    ) -> int:
        """Set both sides of a quote to (price, open quantity); None pulls a side. QuoteAck answers."""
        bid_px, bid_qty = (None, 0) if bid is None else bid
        ask_px, ask_qty = (None, 0) if ask is None else ask
        return self.send(
            Quote(
                quote_id=quote_id,
                bid_px=bid_px,
                bid_qty=bid_qty,
                ask_px=ask_px,
                ask_qty=ask_qty,
                bid_cl_ord_id=bid_cl_ord_id,
                ask_cl_ord_id=ask_cl_ord_id,
                client_tag=client_tag,
                instrument_id=instrument_id,
                account_id=account_id,
                quote_set_id=quote_set_id,
                quote_flags=QuoteFlags.POST_ONLY if post_only else QuoteFlags(0),
                stp_mode=stp_mode,
            )
        )

    def cancel(
        self,
        *,
        instrument_id: int,
        order_id: int | None = None,
        orig_cl_ord_id: int | None = None,
        cl_ord_id: int = 0,
        flags: CancelFlags | None = None,
    ) -> int:
        """Cancel an order by its id or by its client id; `flags` may restrict it to a state."""
        return self.send(
            OrderCancelRequest(
                instrument_id=instrument_id,
                order_id=order_id,
                orig_cl_ord_id=orig_cl_ord_id,
                cl_ord_id=cl_ord_id,
                cancel_flags=CancelFlags(0) if flags is None else flags,
            )
        )

    def replace(
        self,
        *,
        instrument_id: int,
        order_id: int | None = None,
        orig_cl_ord_id: int | None = None,
        cl_ord_id: int = 0,
        price: int | None = None,
        quantity: int | None = None,
        display_quantity: int | None = None,
    ) -> int:
        """Give an order a new price, total quantity (filled included) or display quantity; None stays."""
        return self.send(
            OrderReplaceRequest(
                instrument_id=instrument_id,
                order_id=order_id,
                orig_cl_ord_id=orig_cl_ord_id,
                cl_ord_id=cl_ord_id,
                price=price,
                order_qty=quantity,
                display_qty=display_quantity,
            )
        )

    def amend(
        self,
        *,
        instrument_id: int,
        quantity: int,
        order_id: int | None = None,
        orig_cl_ord_id: int | None = None,
        cl_ord_id: int = 0,
    ) -> int:
        """Reduce an order's total quantity (filled included); it keeps its place."""
        return self.send(
            OrderAmendRequest(
                instrument_id=instrument_id,
                order_id=order_id,
                orig_cl_ord_id=orig_cl_ord_id,
                cl_ord_id=cl_ord_id,
                new_qty=quantity,
            )
        )

    def order_status(
        self,
        *,
        instrument_id: int,
        order_id: int | None = None,
        orig_cl_ord_id: int | None = None,
        request_id: int = 0,
    ) -> int:
        """Ask for the state of an open order; OrderStatus answers, numbered like any report."""
        return self.send(
            OrderStatusRequest(
                request_id=request_id, instrument_id=instrument_id, order_id=order_id, orig_cl_ord_id=orig_cl_ord_id
            )
        )

    def mass_cancel(
        self,
        *,
        scope: MassCancelScope = MassCancelScope.SESSION,
        instrument_id: int = 0,
        side: SideOrBoth = SideOrBoth.BOTH,
        cl_ord_id: int = 0,
        stp_group_id: int = 0,
        flags: MassCancelFlags | None = None,
    ) -> int:
        """Cancel all orders of the session or account; with LOCK_ENTRY new ones are refused until UNLOCK_ENTRY."""
        return self.send(
            MassCancelRequest(
                scope=scope,
                instrument_id=instrument_id,
                side=side,
                cl_ord_id=cl_ord_id,
                stp_group_id=stp_group_id,
                mass_flags=MassCancelFlags(0) if flags is None else flags,
            )
        )
