"""Private events: what a report means to the account it concerns, in the shapes of the user data stream.

Each event carries (partition, accountSeq): numbers from 1 without a gap per account and partition. They follow from log
and reports alone, so history made anew numbers them the same, and a client resumes from the vector it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.web.orders import (
    NS_PER_MS,
    SIDES,
    STP_MODES,
    STRATEGY_FLAG,
    STRATEGY_ID_BITS,
    STRATEGY_ID_MAX,
    STRATEGY_TYPE_MAX,
    OrderState,
    expiry_text,
    is_working,
)
from gateway.web.reference import Asset, Instrument, Reference
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage

PARTITION_KEY, SEQUENCE_KEY = "partition", "accountSeq"
# An execId without its partition: unique for a symbol, and small enough for every JSON reader.
EXECUTION_MASK = (1 << 56) - 1
VECTOR_FORM = 'It must be {"partition": accountSeq}.'
PARTITION_DIGITS_MAX = 3
SEQUENCE_MAX = (1 << 63) - 1
REJECT_REASONS = {
    wire.RejectCode.INSUFFICIENT_BALANCE: "INSUFFICIENT_BALANCES",
    wire.RejectCode.WOULD_TRIGGER_IMMEDIATELY: "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY",
    wire.RejectCode.WOULD_TAKE_LIQUIDITY: "WOULD_MATCH_IMMEDIATELY",
    wire.RejectCode.LIST_PRICE_RELATION: "OCO_BAD_PRICES",
}
LIST_TYPES = {wire.ListType.OCO: "OCO", wire.ListType.OTO: "OTO", wire.ListType.OTOCO: "OTO"}
LIST_STATUS_TYPES = {
    wire.ListStatusType.RESPONSE: "RESPONSE",
    wire.ListStatusType.EXEC_STARTED: "EXEC_STARTED",
    wire.ListStatusType.UPDATED: "UPDATED",
    wire.ListStatusType.ALL_DONE: "ALL_DONE",
}
LIST_ORDER_STATUSES = {
    wire.ListOrderStatus.EXECUTING: "EXECUTING",
    wire.ListOrderStatus.ALL_DONE: "ALL_DONE",
    wire.ListOrderStatus.REJECT: "REJECT",
}


@dataclass(slots=True)
class ListState:
    """An order list as history knows it. `legs` are order ids, in the order they were sent."""

    list_id: int
    account: int
    instrument: int
    list_type: int
    client_id: str
    cl_ord_id: int
    status_type: int
    order_status: int
    created_ns: int
    updated_ns: int
    legs: list[int]


def execution_type(report: WireMessage, order: OrderState) -> str | None:
    """Return x of the executionReport, None for reports that are no event of an order."""
    match report:
        case wire.OrderAccepted() | wire.OrderTriggered():
            return "NEW"
        case wire.OrderRejected():
            return "REJECTED"
        case wire.OrderExecuted():
            return "TRADE"
        case wire.OrderReplaced():
            return "REPLACED"
        case wire.OrderPrevented():
            return "TRADE_PREVENTION"
        case wire.OrderCanceled():
            return {"CANCELED": "CANCELED", "EXPIRED_IN_MATCH": "TRADE_PREVENTION"}.get(order.status_text, "EXPIRED")
        case _:
            return None


class EventView:
    """Writes events; the order is the state after the report."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def execution_report(
        self, report: WireMessage, order: OrderState, *, client_id: str, orig_client_id: str
    ) -> dict[str, Any]:
        """`client_id` is of the request that caused it (a cancel's own), `orig_client_id` the order's then."""
        instrument = self._reference.instruments[order.instrument]
        time_ms = report.transact_time // NS_PER_MS  # type: ignore[attr-defined]
        body = {
            "e": "executionReport",
            "E": time_ms,
            "s": instrument.symbol,
            "c": client_id,
            "S": SIDES[order.side],
            "o": order.type_text,
            "f": order.tif_text,
            "q": instrument.qty_text(order.executed_text_qty),
            "p": instrument.price_text(order.price),
            "P": instrument.price_text(order.stop_px),
            "F": instrument.qty_text(order.display_qty),
            "g": order.list_id,
            "C": orig_client_id,
            "x": execution_type(report, order),
            "X": order.status_text,
            "r": _reject_reason(report),
            "i": order.order_id,
            **self._last(report, instrument),
            "T": time_ms,
            "I": report.exec_id & EXECUTION_MASK,  # type: ignore[attr-defined]
            "w": order.open == 1 and is_working(order),
            "O": order.created_ns // NS_PER_MS,
            "Z": self._reference.quote_text(instrument, order.cum_quote),
            "Q": self._reference.quote_text(instrument, order.amount),
            "V": STP_MODES[order.stp_mode],
            "z": instrument.qty_text(order.cum_qty),
        }
        self._conditional(body, report, order, instrument)
        return body

    def _last(self, report: WireMessage, instrument: Instrument) -> dict[str, Any]:
        if not isinstance(report, wire.OrderExecuted):
            zero = instrument.qty_text(0)
            return {
                "l": zero,
                "L": instrument.price_text(0),
                "n": "0",
                "N": None,
                "t": -1,
                "m": False,
                "M": False,
                "Y": self._reference.quote_text(instrument, 0),
            }
        fee_asset = self._reference.assets[report.fee_asset_id]
        return {
            "l": instrument.qty_text(report.last_qty),
            "L": instrument.price_text(report.last_px),
            "n": fee_asset.text(report.fee),
            "N": fee_asset.symbol,
            "t": report.trade_id,
            "m": report.liquidity == wire.Liquidity.MAKER,
            "M": True,
            "Y": self._reference.quote_text(
                instrument, report.last_px * report.last_qty * instrument.quote_per_tick_lot
            ),
        }

    def _conditional(
        self, body: dict[str, Any], report: WireMessage, order: OrderState, instrument: Instrument
    ) -> None:
        if order.working_ns:
            body["W"] = order.working_ns // NS_PER_MS
        if order.trailing_delta:
            body["d"] = order.trailing_delta
            body["D"] = order.working_ns // NS_PER_MS or -1
        if order.client_tag & STRATEGY_FLAG:
            body["j"] = order.client_tag & STRATEGY_ID_MAX
            body["J"] = order.client_tag >> STRATEGY_ID_BITS & STRATEGY_TYPE_MAX
        if isinstance(report, wire.OrderPrevented):
            body["v"] = report.prevented_match_id
            body["A"] = instrument.qty_text(report.prevented_qty)
            body["B"] = instrument.qty_text(report.prevented_qty)
            body["U"] = report.counter_order_id
            body["Cs"] = instrument.symbol
            body["pl"] = instrument.qty_text(report.prevented_qty)
        if (reason := expiry_text(order)) is not None:
            body["eR"] = reason

    def list_status(self, entry: ListState, report: wire.ListStatus, client_ids: dict[int, str]) -> dict[str, Any]:
        instrument = self._reference.instruments[entry.instrument]
        time_ms = report.transact_time // NS_PER_MS
        return {
            "e": "listStatus",
            "E": time_ms,
            "s": instrument.symbol,
            "g": entry.list_id,
            "c": LIST_TYPES[wire.ListType(entry.list_type)],
            "l": LIST_STATUS_TYPES[wire.ListStatusType(report.status_type)],
            "L": LIST_ORDER_STATUSES[wire.ListOrderStatus(report.order_status)],
            "r": _reject_reason(report),
            "C": entry.client_id,
            "T": time_ms,
            "O": [
                {"s": instrument.symbol, "i": order_id, "c": client_ids.get(order_id, "")} for order_id in entry.legs
            ],
        }

    def balance_update(self, asset: Asset, units: int, ts_ns: int) -> dict[str, Any]:
        time_ms = ts_ns // NS_PER_MS
        return {"e": "balanceUpdate", "E": time_ms, "a": asset.symbol, "d": asset.text(units), "T": time_ms}


def account_position(balances: list[tuple[Asset, int, int]], now_ms: int) -> dict[str, Any]:
    """Return outboundAccountPosition of (asset, available, held) rows; it is a state, not a numbered event."""
    return {
        "e": "outboundAccountPosition",
        "E": now_ms,
        "u": now_ms,
        "B": [{"a": asset.symbol, "f": asset.text(free), "l": asset.text(held)} for asset, free, held in balances],
    }


def is_vector(value: Any) -> bool:
    """Whether it is a vector of what was seen: {"partition": accountSeq}."""
    return isinstance(value, dict) and all(
        partition.isdecimal() and len(partition) <= PARTITION_DIGITS_MAX
        and isinstance(seq, int) and 0 <= seq <= SEQUENCE_MAX
        for partition, seq in value.items()
    )  # fmt: skip


def _reject_reason(report: WireMessage) -> str:
    code = getattr(report, "reject_code", wire.RejectCode.NONE)
    return "NONE" if code == wire.RejectCode.NONE else REJECT_REASONS.get(code, wire.RejectCode(code).name)
