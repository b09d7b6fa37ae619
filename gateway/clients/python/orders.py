"""What an order, an order list or a cancel-replace is on the wire: one frame, or several that are linked. No I/O.

Prices are ticks, quantities lots (docs/PROTOCOL.md, section 1). What each term does is in docs/MATCHING.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import (
    CancelFlags,
    ExecInst,
    ListRole,
    ListType,
    NewOrderSingle,
    OrderCancelRequest,
    OrderDetails,
    OrderListRequest,
    OrdType,
    Side,
    StpMode,
    TimeInForce,
)

GROUP_FRAMES_MAX = 8
_ROLES = {
    ListType.OCO: (ListRole.OCO_ABOVE, ListRole.OCO_BELOW),
    ListType.OTO: (ListRole.OTO_WORKING, ListRole.OTO_PENDING),
    ListType.OTOCO: (ListRole.OTOCO_WORKING, ListRole.OTOCO_PENDING_ABOVE, ListRole.OTOCO_PENDING_BELOW),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The terms of a new order. Without `ord_type` it is a limit order, or a market order if it has no price."""

    instrument_id: int
    side: Side
    quantity: int  # lots; with `quote_amount` units of the quote asset
    price: int | None = None
    ord_type: OrdType | None = None
    stop_price: int | None = None  # of a trailing order: the price that activates it
    trailing_delta: int = 0  # basis points; makes a stop or take-profit order trail
    time_in_force: TimeInForce = TimeInForce.GTC
    expire_time: int | None = None  # s since the epoch; GTD, and Day if it is not the market's own end of day
    display_quantity: int | None = None  # makes an iceberg
    first_display_quantity: int | None = None  # of an iceberg: its first visible slice
    min_quantity: int | None = None  # ends without a trade if it could not trade so much at once
    post_only: bool = False
    reduce_only: bool = False
    quote_amount: bool = False
    stp_mode: StpMode = StpMode.NONE
    stp_group_id: int = 0
    cl_ord_id: int = 0
    client_text: str = ""  # text id, kept with the order; then cl_ord_id must not be 0
    account_id: int = 0
    client_tag: int = 0
    max_latency_us: int = 0

    def frames(self, role: ListRole = ListRole.NONE) -> list[WireMessage]:
        """Return the order's frame, behind its OrderDetails if it needs one."""
        order = NewOrderSingle(
            instrument_id=self.instrument_id,
            side=self.side,
            order_qty=self.quantity,
            price=self.price,
            ord_type=self._type(),
            stop_px=self.stop_price,
            trailing_delta=self.trailing_delta,
            time_in_force=self.time_in_force,
            expire_time=self.expire_time,
            display_qty=self.display_quantity,
            exec_inst=self._instructions(),
            stp_mode=self.stp_mode,
            stp_group_id=self.stp_group_id,
            cl_ord_id=self.cl_ord_id,
            account_id=self.account_id,
            client_tag=self.client_tag,
            max_latency_us=self.max_latency_us,
            list_role=role,
        )
        if not self.client_text and self.first_display_quantity is None and self.min_quantity is None:
            return [order]
        details = OrderDetails(
            client_text=self.client_text, initial_display_qty=self.first_display_quantity, min_qty=self.min_quantity
        )
        return [details, order]

    def _type(self) -> OrdType:
        if self.ord_type is not None:
            return self.ord_type
        return OrdType.MARKET if self.price is None else OrdType.LIMIT

    def _instructions(self) -> ExecInst:
        chosen = ExecInst(0)
        for wanted, bit in (
            (self.post_only, ExecInst.POST_ONLY),
            (self.reduce_only, ExecInst.REDUCE_ONLY),
            (self.quote_amount, ExecInst.QUOTE_AMOUNT),
        ):
            chosen |= bit if wanted else ExecInst(0)
        return chosen


def list_frames(kind: ListType, legs: Sequence[Order], *, list_cl_ord_id: int = 0) -> list[WireMessage]:
    """Return an order list: legs in the order above, below; working, pending; or working, pending above, below.

    Raises ValueError for a wrong number of legs.
    """
    roles = _ROLES[kind]
    if len(legs) != len(roles):
        raise ValueError(f"{kind.name} has {len(roles)} legs, not {len(legs)}")
    frames: list[WireMessage] = [
        OrderListRequest(
            list_cl_ord_id=list_cl_ord_id,
            instrument_id=legs[0].instrument_id,
            account_id=legs[0].account_id,
            list_type=kind,
            leg_count=len(legs),
        )
    ]
    for role, leg in zip(roles, legs, strict=True):
        frames += leg.frames(role)
    return frames


def cancel_replace_frames(
    order: Order,
    *,
    order_id: int | None = None,
    orig_cl_ord_id: int | None = None,
    cl_ord_id: int = 0,
    continue_on_failure: bool = False,
) -> list[WireMessage]:
    """Return a cancel of one order linked with a new order; the new one may use the money of the old one."""
    cancel = OrderCancelRequest(
        instrument_id=order.instrument_id,
        account_id=order.account_id,
        order_id=order_id,
        orig_cl_ord_id=orig_cl_ord_id,
        cl_ord_id=cl_ord_id,
        cancel_flags=CancelFlags.CONTINUE_ON_FAILURE if continue_on_failure else CancelFlags(0),
    )
    return [cancel, *order.frames()]
