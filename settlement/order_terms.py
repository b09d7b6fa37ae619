"""An order as a regulator's record shows it: terms, and the words the regulation uses for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ringbuf.wire import messages as wire

Decimals = Callable[[int | None], str | None]

# In the files of the venue and its members, not in the events.
FIELDS_NOT_HELD = (
    "legal entity identifiers of members and clients",
    "natural persons behind a client",
    "investment decision and execution decision within the firm",
    "direct electronic access",
    "trading capacity",
    "digital token identifiers (ISO 24165)",
    "indicative auction price and volume",
)
CANCELED_BY: dict[int, str] = {
    wire.CancelReason.CLIENT: "CAME",
    wire.CancelReason.MASS_CANCEL: "CAME",
    wire.CancelReason.CANCEL_ON_DISCONNECT: "CAME",
    wire.CancelReason.QUOTE_REPLACED: "CAME",
    wire.CancelReason.LIST_CANCELED: "CAME",
    wire.CancelReason.REPLACED: "CAME",
    wire.CancelReason.COVER: "CAME",
    wire.CancelReason.EXPIRED: "EXPI",
    wire.CancelReason.IOC_REMAINDER: "EXPI",
    wire.CancelReason.AMOUNT_SPENT: "EXPI",
    wire.CancelReason.AUCTION_END: "EXPI",
}  # every other reason: the market operator
RESTATED_BY: dict[int, str] = {
    wire.RestateReason.CLIENT: "REME",
    wire.RestateReason.QUOTE: "REME",
    wire.RestateReason.SELF_TRADE: "REMA",
    wire.RestateReason.ICEBERG_REFRESH: "REMA",
}
ENDED = frozenset({"FILL", "REMO", "CAME", "CAMO", "EXPI"})
_VALIDITY: dict[int, str] = {
    wire.TimeInForce.DAY: "DAVY",
    wire.TimeInForce.GTC: "GTCV",
    wire.TimeInForce.IOC: "IOCV",
    wire.TimeInForce.FOK: "FOKV",
    wire.TimeInForce.GTD: "GTDV",
}
_SIDES: dict[int, str] = {wire.Side.BUY: "BUYI", wire.Side.SELL: "SELL"}
_PRICELESS = (wire.OrdType.MARKET, wire.OrdType.STOP, wire.OrdType.TAKE_PROFIT)
_NOT_STOPS = (wire.OrdType.MARKET, wire.OrdType.LIMIT)


@dataclass(frozen=True, slots=True)
class Order:
    """An order's terms now. Ticks and lots; `quantity` of an order by amount is units of the quote asset."""

    instrument: int
    account: int
    client_id: int
    side: int
    order_type: int
    time_in_force: int
    price: int | None
    stop_price: int | None
    quantity: int
    display: int | None
    exec_inst: int
    stp_mode: int
    expire_s: int | None
    client_text: str = ""
    list_id: int = 0
    minimum: int | None = None
    order_id: str = ""
    session: int = 0
    created_ns: int = 0
    received_ns: int = 0
    priority_ns: int = 0
    remaining: int | None = None
    filled: int = 0
    status: int = wire.OrdStatus.PENDING_NEW

    def fields(self, price: Decimals, lots: Decimals, money: Decimals) -> dict[str, Any]:
        """Return its part of a record."""
        by_amount = bool(self.exec_inst & wire.ExecInst.QUOTE_AMOUNT)
        remaining = self.quantity if self.remaining is None else self.remaining
        hidden = bool(self.exec_inst & wire.ExecInst.HIDDEN)
        shown = 0 if hidden else remaining if self.display is None else min(self.display, remaining)
        return {
            "buySellIndicator": _SIDES.get(self.side, str(self.side)),
            "orderType": "LMTO" if self.order_type in _NOT_STOPS else "STOP",
            # A refused order may have had anything there.
            "orderTypeOfVenue": value_name(wire.OrdType, self.order_type),
            "validityPeriod": _VALIDITY.get(self.time_in_force, str(self.time_in_force)),
            "validityUntilSeconds": self.expire_s,
            # Of these the price is the venue's protection price, not a limit of the client.
            "limitPrice": None if self.order_type in _PRICELESS else price(self.price),
            "stopPrice": price(self.stop_price),
            "priceNotation": "MONE",
            "orderStatus": "INAC" if self.status == wire.OrdStatus.UNTRIGGERED else "ACTI",
            "quantityNotation": "MONE" if by_amount else "UNIT",
            "initialQuantity": money(self.quantity) if by_amount else lots(self.quantity),
            "remainingQuantity": None if by_amount else lots(remaining),
            "displayedQuantity": None if by_amount else lots(shown),
            "cumulatedTradedQuantity": lots(self.filled),
            "minimumAcceptableQuantity": lots(self.minimum),
            "passiveOnlyIndicator": bool(self.exec_inst & wire.ExecInst.POST_ONLY),
            "selfExecutionPrevention": self.stp_mode != wire.StpMode.NONE,
            "strategyLinkedOrderId": str(self.list_id) if self.list_id else None,
        }


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to an order, as it is afterwards."""

    name: str  # NEWO, TRIG, REME, REMA, CAME, CAMO, REMO, EXPI, PARF, FILL
    time_ns: int
    order: Order
    reason: str | None = None
    price: int | None = None
    quantity: int | None = None
    trade_id: str | None = None
    passive: str | None = None


def order_of_request(request: wire.NewOrderSingle, details: wire.OrderDetails | None) -> Order:
    minimum = bool(request.exec_inst & wire.ExecInst.DISPLAY_IS_MINIMUM)
    return Order(
        instrument=request.instrument_id,
        account=request.account_id,
        client_id=request.cl_ord_id,
        side=request.side,
        order_type=request.ord_type,
        time_in_force=request.time_in_force,
        price=request.price,
        stop_price=request.stop_px,
        quantity=request.order_qty,
        display=None if minimum else request.display_qty,
        exec_inst=request.exec_inst,
        stp_mode=request.stp_mode,
        expire_s=request.expire_time,
        client_text="" if details is None else details.client_text,
        list_id=0 if details is None else details.list_id,
        minimum=request.display_qty if minimum else None if details is None else details.min_qty,
    )


def order_of_leg(leg: wire.QuoteLeg) -> Order:
    """Return a side of a quote as the limit order it is."""
    return Order(
        instrument=leg.instrument_id,
        account=leg.account_id,
        client_id=leg.cl_ord_id,
        side=leg.side,
        order_type=wire.OrdType.LIMIT,
        time_in_force=wire.TimeInForce.GTC,
        price=leg.price,
        stop_price=None,
        quantity=leg.quantity,
        display=None,
        exec_inst=wire.ExecInst.POST_ONLY if leg.quote_flags & wire.QuoteFlags.POST_ONLY else 0,
        stp_mode=leg.stp_mode,
        expire_s=None,
    )


def value_name(kind: type[IntEnum], code: int) -> str:
    """Return the name of a number, or the number where it has none."""
    try:
        return kind(code).name
    except ValueError:
        return str(code)
