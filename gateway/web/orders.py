"""One order as private history knows it, how a report changes it, and how clients see it (API names and texts).

Prices are ticks, quantities lots. The same code makes history in its process and the answer to an order in a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from gateway.web.reference import Instrument, Reference
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage

NS_PER_MS = 1_000_000
# Keys are the wire's numbers: members of an IntEnum and plain integers find the same entry.
STATUS: dict[int, str] = {
    wire.OrdStatus.NEW: "NEW",
    wire.OrdStatus.PARTIALLY_FILLED: "PARTIALLY_FILLED",
    wire.OrdStatus.FILLED: "FILLED",
    wire.OrdStatus.CANCELED: "CANCELED",
    wire.OrdStatus.REJECTED: "REJECTED",
    wire.OrdStatus.UNTRIGGERED: "NEW",
    wire.OrdStatus.PENDING_NEW: "PENDING_NEW",
    wire.OrdStatus.EXPIRED: "EXPIRED",
    wire.OrdStatus.EXPIRED_IN_MATCH: "EXPIRED_IN_MATCH",
}
ENDED: set[int] = {
    wire.OrdStatus.FILLED,
    wire.OrdStatus.CANCELED,
    wire.OrdStatus.REJECTED,
    wire.OrdStatus.EXPIRED,
    wire.OrdStatus.EXPIRED_IN_MATCH,
}
TYPES: dict[int, str] = {
    wire.OrdType.MARKET: "MARKET",
    wire.OrdType.LIMIT: "LIMIT",
    wire.OrdType.STOP: "STOP_LOSS",
    wire.OrdType.STOP_LIMIT: "STOP_LOSS_LIMIT",
    wire.OrdType.TAKE_PROFIT: "TAKE_PROFIT",
    wire.OrdType.TAKE_PROFIT_LIMIT: "TAKE_PROFIT_LIMIT",
}
MARKET_TYPES: set[int] = {wire.OrdType.MARKET, wire.OrdType.STOP, wire.OrdType.TAKE_PROFIT}
SIDES: dict[int, str] = {wire.Side.BUY: "BUY", wire.Side.SELL: "SELL"}
TIFS: dict[int, str] = {
    wire.TimeInForce.DAY: "DAY",
    wire.TimeInForce.GTC: "GTC",
    wire.TimeInForce.IOC: "IOC",
    wire.TimeInForce.FOK: "FOK",
    wire.TimeInForce.GTD: "GTD",
}
STP_MODES: dict[int, str] = {
    wire.StpMode.NONE: "NONE",
    wire.StpMode.CANCEL_TAKER: "EXPIRE_TAKER",
    wire.StpMode.CANCEL_MAKER: "EXPIRE_MAKER",
    wire.StpMode.CANCEL_BOTH: "EXPIRE_BOTH",
    wire.StpMode.DECREMENT: "DECREMENT",
    wire.StpMode.TRANSFER: "TRANSFER",
}
EXPIRY_REASONS: dict[int, str] = {
    wire.CancelReason.FOK_NOT_FILLABLE: "UNFILLED_FOK_ORDER_EXPIRED",
    wire.CancelReason.NO_LIQUIDITY: "INSUFFICIENT_LIQUIDITY",
    wire.CancelReason.MIN_QTY_NOT_FILLABLE: "UNFILLED_IOC_QUANTITY_EXPIRED",
}
# clientTag of the web gateway: bit 63 says that strategy id (bits 0..35) and type (bits 36..62) are in it.
STRATEGY_FLAG = 1 << 63
STRATEGY_ID_BITS = 36
STRATEGY_ID_MAX = (1 << STRATEGY_ID_BITS) - 1
STRATEGY_TYPE_MAX = (1 << 27) - 1
LIST_NONE = -1
# As plain numbers: combining members of a flag costs microseconds.
POST_ONLY, QUOTE_AMOUNT = int(wire.ExecInst.POST_ONLY), int(wire.ExecInst.QUOTE_AMOUNT)
ADMITTED = 255  # status of an order that the log holds and no report has confirmed; readers do not show it


def strategy_tag(strategy_id: int | None, strategy_type: int | None) -> int:
    """Return the clientTag that carries both; 0 when there is neither."""
    if strategy_id is None and strategy_type is None:
        return 0
    return STRATEGY_FLAG | (strategy_type or 0) << STRATEGY_ID_BITS | (strategy_id or 0)


@dataclass(slots=True)
class OrderState:
    """Field order is the column order of the store."""

    instrument: int
    order_id: int
    account: int
    partition: int
    client_id: str
    cl_ord_id: int
    list_id: int
    price: int | None
    qty: int
    amount: int  # of the quote asset, 0 = the order is by quantity
    display_qty: int
    stop_px: int | None
    trailing_delta: int
    expire_s: int
    client_tag: int
    exec_inst: int
    side: int
    ord_type: int
    tif: int
    stp_mode: int
    status: int
    cum_qty: int
    cum_quote: int  # in units of the quote asset
    prevented_qty: int
    prevented_match: int
    expiry_reason: int
    created_ns: int
    updated_ns: int
    working_ns: int
    open: int
    idempotency_key: int
    orig_client_id: str = ""  # of a cancel or amend: the id the order had

    def row(self) -> tuple[Any, ...]:
        return _ROW(self)

    @property
    def is_limit_maker(self) -> bool:
        return self.ord_type == wire.OrdType.LIMIT and bool(self.exec_inst & POST_ONLY)

    @property
    def type_text(self) -> str:
        return "LIMIT_MAKER" if self.is_limit_maker else TYPES[self.ord_type]

    @property
    def status_text(self) -> str:
        return STATUS[self.status]

    @property
    def tif_text(self) -> str:
        """A market order is shown as GTC, as clients expect; it is IOC all the same."""
        return "GTC" if self.ord_type == wire.OrdType.MARKET else TIFS[self.tif]

    @property
    def executed_text_qty(self) -> int:
        """Original quantity as shown: an order by amount has none of its own."""
        return self.cum_qty if self.amount else self.qty


COLUMNS = tuple(field.name for field in fields(OrderState))[:-1]
_ROW: Callable[[OrderState], tuple[Any, ...]] = attrgetter(*COLUMNS)


def client_text(text: str, cl_ord_id: int) -> str:
    """Return the client order id as clients see it: the text, else the number."""
    return text or (str(cl_ord_id) if cl_ord_id else "")


def new_order(
    order: wire.NewOrderSingle, *, order_id: int, account: int, partition: int, ts_ns: int, list_id: int = LIST_NONE,
    details: wire.OrderDetails | None = None,
) -> OrderState:  # fmt: skip
    """Return an admitted order before its first report."""
    by_amount = bool(int(order.exec_inst) & QUOTE_AMOUNT)
    return OrderState(
        instrument=order.instrument_id,
        order_id=order_id,
        account=account,
        partition=partition,
        client_id=client_text(details.client_text if details is not None else "", order.cl_ord_id),
        cl_ord_id=order.cl_ord_id,
        list_id=list_id,
        price=None if order.ord_type in MARKET_TYPES else order.price,
        qty=0 if by_amount else order.order_qty,
        amount=order.order_qty if by_amount else 0,
        display_qty=order.display_qty or 0,
        stop_px=order.stop_px,
        trailing_delta=order.trailing_delta,
        expire_s=order.expire_time or 0,
        client_tag=order.client_tag,
        exec_inst=int(order.exec_inst),
        side=int(order.side),
        ord_type=int(order.ord_type),
        tif=int(order.time_in_force),
        stp_mode=int(order.stp_mode),
        status=ADMITTED,
        cum_qty=0,
        cum_quote=0,
        prevented_qty=0,
        prevented_match=0,
        expiry_reason=0,
        created_ns=ts_ns,
        updated_ns=ts_ns,
        working_ns=0,
        open=1,
        idempotency_key=0 if details is None else details.idempotency_key,
    )


def apply_report(order: OrderState, report: WireMessage, quote_per_tick_lot: int) -> None:
    """Change the order by one report about it. Reports of other kinds change nothing."""
    match report:
        case wire.OrderAccepted():
            order.status = int(report.ord_status)
            order.tif = int(report.time_in_force)
            if report.ord_status == wire.OrdStatus.NEW:
                order.working_ns = report.transact_time
        case wire.OrderRejected():
            order.status = int(wire.OrdStatus.REJECTED)
        case wire.OrderExecuted():
            order.status = int(report.ord_status)
            order.cum_qty = report.cum_qty
            order.cum_quote += report.last_px * report.last_qty * quote_per_tick_lot
        case wire.OrderCanceled():
            order.status = int(report.ord_status)
            order.expiry_reason = int(report.cancel_reason)
        case wire.OrderReplaced():
            order.status = int(report.ord_status)
            order.qty = report.order_qty
            order.price = report.price if report.price is not None else order.price
        case wire.OrderTriggered():
            order.status = int(wire.OrdStatus.NEW)
            order.working_ns = report.transact_time
        case wire.OrderPrevented():
            order.status = int(report.ord_status)
            order.prevented_qty += report.prevented_qty
            order.prevented_match = report.prevented_match_id
        case _:
            return
    order.updated_ns = report.transact_time
    order.open = 0 if order.status in ENDED else 1


def expiry_text(order: OrderState) -> str | None:
    """Return why an order expired, in the API's words; None when there is nothing to say."""
    if order.status != wire.OrdStatus.EXPIRED:
        return None
    if order.expiry_reason == wire.CancelReason.IOC_REMAINDER:
        market = order.ord_type in MARKET_TYPES
        return "INSUFFICIENT_LIQUIDITY" if market else "UNFILLED_IOC_QUANTITY_EXPIRED"
    return EXPIRY_REASONS.get(order.expiry_reason)


class OrderView:
    """Writes orders as the API shows them. Times come out in ms, or us when asked for."""

    def __init__(self, reference: Reference, *, microseconds: bool = False) -> None:
        self._reference = reference
        self._per_tick = 1000 if microseconds else NS_PER_MS

    def time(self, ns: int) -> int:
        return ns // self._per_tick

    def ack(self, order: OrderState) -> dict[str, Any]:
        """The shortest answer to a new order."""
        return {
            "symbol": self._instrument(order).symbol,
            "orderId": order.order_id,
            "orderListId": order.list_id,
            "clientOrderId": order.client_id,
            "transactTime": self.time(order.updated_ns),
        }

    def result(self, order: OrderState) -> dict[str, Any]:
        """What new orders, cancels and lists show of an order."""
        instrument = self._instrument(order)
        body = {
            "symbol": instrument.symbol,
            "orderId": order.order_id,
            "orderListId": order.list_id,
            "clientOrderId": order.client_id,
            "transactTime": self.time(order.updated_ns),
            **self._terms(order, instrument),
        }
        body["workingTime"] = self.time(order.working_ns) if order.working_ns else -1
        body["selfTradePreventionMode"] = STP_MODES[order.stp_mode]
        self._conditional(body, order, instrument)
        if (reason := expiry_text(order)) is not None:
            body["expiryReason"] = reason
        return body

    def canceled(self, order: OrderState, cancel_id: str) -> dict[str, Any]:
        """The answer to a cancel: clientOrderId is the cancel's own."""
        body = self.result(order)
        return {
            "symbol": body.pop("symbol"),
            "origClientOrderId": order.client_id,
            **body,
            "clientOrderId": cancel_id,
        }

    def query(self, order: OrderState) -> dict[str, Any]:
        """What GET order, openOrders and allOrders show."""
        instrument = self._instrument(order)
        body = {
            "symbol": instrument.symbol,
            "orderId": order.order_id,
            "orderListId": order.list_id,
            "clientOrderId": order.client_id,
            **self._terms(order, instrument),
            "stopPrice": instrument.price_text(order.stop_px),
            "icebergQty": instrument.qty_text(order.display_qty),
            "time": self.time(order.created_ns),
            "updateTime": self.time(order.updated_ns),
            "isWorking": is_working(order),
            "workingTime": self.time(order.working_ns) if order.working_ns else -1,
            "origQuoteOrderQty": self._reference.quote_text(instrument, order.amount),
            "selfTradePreventionMode": STP_MODES[order.stp_mode],
        }
        self._conditional(body, order, instrument)
        if (reason := expiry_text(order)) is not None:
            body["expiryReason"] = reason
        return body

    def fill(self, report: wire.OrderExecuted) -> dict[str, Any]:
        instrument = self._reference.instruments[report.instrument_id]
        fee_asset = self._reference.assets[report.fee_asset_id]
        return {
            "price": instrument.price_text(report.last_px),
            "qty": instrument.qty_text(report.last_qty),
            "commission": fee_asset.text(report.fee),
            "commissionAsset": fee_asset.symbol,
            "tradeId": report.trade_id,
        }

    def _instrument(self, order: OrderState) -> Instrument:
        return self._reference.instruments[order.instrument]

    def _terms(self, order: OrderState, instrument: Instrument) -> dict[str, Any]:
        quote = self._reference.assets[instrument.quote_asset]
        return {
            "price": instrument.price_text(order.price),
            "origQty": instrument.qty_text(order.executed_text_qty),
            "executedQty": instrument.qty_text(order.cum_qty),
            "origQuoteOrderQty": quote.text(order.amount),
            "cummulativeQuoteQty": quote.text(order.cum_quote),
            "status": order.status_text,
            "timeInForce": order.tif_text,
            "type": order.type_text,
            "side": SIDES[order.side],
        }

    def _conditional(self, body: dict[str, Any], order: OrderState, instrument: Instrument) -> None:
        if order.stop_px is not None:
            body["stopPrice"] = instrument.price_text(order.stop_px)
        if order.display_qty:
            body["icebergQty"] = instrument.qty_text(order.display_qty)
        if order.trailing_delta:
            body["trailingDelta"] = order.trailing_delta
        if order.client_tag & STRATEGY_FLAG:
            body["strategyId"] = order.client_tag & STRATEGY_ID_MAX
            body["strategyType"] = order.client_tag >> STRATEGY_ID_BITS & STRATEGY_TYPE_MAX
        if order.prevented_match:
            body["preventedMatchId"] = order.prevented_match
            body["preventedQuantity"] = instrument.qty_text(order.prevented_qty)
        if order.expire_s:
            body["expireTime"] = order.expire_s * 1000


def is_working(order: OrderState) -> bool:
    """Whether the order is, or was when it ended, in the book rather than waiting for a trigger or a working leg."""
    return order.working_ns != 0
