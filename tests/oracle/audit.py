"""Check a stream of reports for what must hold whatever the matching rules decide.

Knows nothing of books or balances, so it serves the model and the engine alike. Of requests it knows what no report
tells: the terms of quotes, and which orders are the legs of a pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ringbuf.wire.messages import (
    ExecInst,
    Liquidity,
    ListRole,
    ListStatusType,
    NewOrderSingle,
    OrdStatus,
    OrdType,
    Quote,
    RestateReason,
    Side,
    TimeInForce,
)
from tests.oracle.records import SEQUENCER, ModelError, Report

PAIR_ROLES = (ListRole.OCO_ABOVE, ListRole.OCO_BELOW, ListRole.OTOCO_PENDING_ABOVE, ListRole.OTOCO_PENDING_BELOW)
FIRST_OF_PAIR = (Liquidity.MAKER, Liquidity.AUCTION, Liquidity.TRANSFER)
ABOUT_ORDERS = ("OrderExecuted", "OrderCanceled", "OrderPrevented", "OrderReplaced", "OrderTriggered", "OrderRejected")


@dataclass(slots=True)
class Life:
    """What the client of an order knows of it.

    `amount`: what is left of an order by quote amount, as long as it is known (a prevention tells no price).
    """

    side: int
    price: int | None
    total: int
    status: int = OrdStatus.NEW
    time_in_force: int = TimeInForce.GTC
    by_amount: bool = False
    amount: int | None = None
    pair: tuple[int, int] | None = None
    cum: int = 0
    is_done: bool = False

    @property
    def leaves(self) -> int:
        return self.total - self.cum


class Audit:
    """Follow every order from its acceptance to its end. `scales`: quotePerTickLot of each instrument."""

    def __init__(self, scales: dict[int, int]) -> None:
        self.scales = scales
        # By (instrument, order id): ids are unique within a partition, and an instrument belongs to one.
        self.orders: dict[tuple[int, int], Life] = {}
        self.numbers: dict[tuple[int, int], int] = defaultdict(int)
        self.trades: dict[int, int] = defaultdict(int)
        self.preventions: dict[int, int] = defaultdict(int)
        self.fees: dict[int, int] = defaultdict(int)
        self.lists: dict[int, int] = {}
        self.quotes: dict[tuple[int, int], Quote] = {}
        self.legs: dict[tuple[int, int], tuple[int, int]] = {}
        self.executed_leg: dict[tuple[int, int], tuple[int, int]] = {}

    def note(self, session: int, frames: list[tuple[int, Any]]) -> None:
        """Remember what a request says and no report will. A number that was not taken may come again."""
        for number, message in frames:
            self.legs.pop((session, number), None)
            self.quotes.pop((session, number), None)
            if isinstance(message, Quote):
                self.quotes[session, number] = message
            elif isinstance(message, NewOrderSingle) and message.list_role in PAIR_ROLES:
                self.legs[session, number] = (session, frames[0][0])

    def follow(self, reports: Iterable[Report]) -> None:
        """Take the reports of one partition, or of several one after the other."""
        first: Report | None = None
        for report in reports:
            if report.seq_num != 0:
                self.numbers[report.session, report.partition] += 1
                self.expect(report, "number", self.numbers[report.session, report.partition], report.seq_num)
            if first is not None:
                self.pair(first, report)
                first = None
            elif report.name == "OrderExecuted":
                self.expect(report, "first of two", True, report.fields["liquidity"] in FIRST_OF_PAIR)
                first = report
            self.apply(report)
        if first is not None:
            raise ModelError(f"half a trade: {first}")

    def expect(self, report: Report, what: str, wanted: object, got: object) -> None:
        if wanted != got:
            raise ModelError(f"{what}: {wanted} expected in {report}")

    # -- lives -----------------------------------------------------------------------------------------------------

    def apply(self, report: Report) -> None:
        values = report.fields
        if report.name == "OrderAccepted":
            self.accept(report)
        elif report.name == "QuoteAck":
            self.quote(report)
        elif report.name == "ListStatus":
            self.list_status(report)
        elif report.name in ABOUT_ORDERS:
            key = (values["instrument_id"], values["order_id"])
            if report.name == "OrderRejected" and (key not in self.orders or values["order_id"] is None):
                return
            self.change(report, self.orders[key])

    def accept(self, report: Report) -> None:
        """Begin a life; that of a pending leg goes on when its time comes."""
        values = report.fields
        key = (values["instrument_id"], values["order_id"])
        if key in self.orders:
            self.expect(report, "order is pending", OrdStatus.PENDING_NEW, self.orders[key].status)
            self.expect(report, "quantity of the leg", self.orders[key].total, values["order_qty"])
            self.orders[key].status = values["ord_status"]
            return
        by_amount = bool(values["exec_inst"] & ExecInst.QUOTE_AMOUNT)
        is_waiting = values["ord_type"] not in (OrdType.LIMIT, OrdType.MARKET)
        if report.partition != SEQUENCER:
            self.expect(report, "waits", is_waiting, values["ord_status"] == OrdStatus.UNTRIGGERED)
        self.orders[key] = Life(
            side=values["side"],
            price=values["price"],
            total=0 if by_amount else values["order_qty"],
            status=values["ord_status"],
            time_in_force=values["time_in_force"],
            by_amount=by_amount,
            amount=values["order_qty"] if by_amount else None,
            pair=self.legs.get((report.session, values["ref_seq_num"])),
        )

    def change(self, report: Report, order: Life) -> None:
        values = report.fields
        self.expect(report, "order is live", False, order.is_done)
        if report.name == "OrderExecuted":
            self.fill(report, order)
        elif report.name == "OrderCanceled":
            self.expect(report, "canceled quantity", 0 if order.by_amount else order.leaves,
                        values["canceled_qty"])  # fmt: skip
        elif report.name == "OrderPrevented":
            self.prevent(report, order)
        elif report.name == "OrderTriggered":
            self.expect(report, "status before", OrdStatus.UNTRIGGERED, order.status)
            order.status = OrdStatus.NEW
        elif report.name == "OrderReplaced":
            self.expect(report, "smaller only", True, values["restate_reason"] == RestateReason.CLIENT
                        or values["order_qty"] < order.total)  # fmt: skip
            order.total, order.price = values["order_qty"], values["price"]
        if "cum_qty" in values:
            self.expect(report, "cumulative quantity", order.cum, values["cum_qty"])
        if "leaves_qty" in values and not order.by_amount:
            self.expect(report, "leaves", order.leaves, values["leaves_qty"])
        self.end(report, order)

    def end(self, report: Report, order: Life) -> None:
        values = report.fields
        order.is_done = report.name in ("OrderCanceled", "OrderRejected") or values.get("leaves_qty") == 0
        if report.partition != SEQUENCER:
            self.expect(report, "final", order.is_done, report.final)
        if order.is_done and order.time_in_force == TimeInForce.FOK:
            self.expect(report, "fill-or-kill is all or nothing", True, order.cum in (0, order.total))

    def fill(self, report: Report, order: Life) -> None:
        values = report.fields
        self.expect(report, "may trade", True, order.status not in (OrdStatus.UNTRIGGERED, OrdStatus.PENDING_NEW))
        order.cum += values["last_qty"]
        if order.price is not None:
            beyond = values["last_px"] - order.price if order.side == Side.BUY else order.price - values["last_px"]
            if beyond > 0:
                raise ModelError(f"beyond the limit {order.price}: {report}")
        if order.amount is not None:
            self.spend(report, order, values["last_px"], values["last_qty"])
        if order.pair is not None:
            key = (values["instrument_id"], values["order_id"])
            self.expect(report, "leg that trades", self.executed_leg.setdefault(order.pair, key), key)
        self.fees[values["fee_asset_id"]] += values["fee"]
        self.expect(report, "rounding of a fee", True, values.get("fee_rounding", 0) <= max(0, values["fee"]))

    def spend(self, report: Report, order: Life, price: int, quantity: int) -> None:
        """An order by quote amount never spends, or receives, more than its amount."""
        per_lot = price * self.scales[report.fields["instrument_id"]]
        order.amount = (order.amount or 0) - per_lot * quantity
        self.expect(report, "amount left", True, order.amount >= 0)
        self.expect(report, "lots the amount allows", order.amount // per_lot, report.fields["leaves_qty"])

    def prevent(self, report: Report, order: Life) -> None:
        values = report.fields
        instrument_id, number = values["instrument_id"], values["prevented_match_id"]
        following = self.preventions[instrument_id] + (values["liquidity"] == Liquidity.MAKER)
        is_next = number in (following, self.preventions[instrument_id] + 1)
        self.expect(report, "number of the prevention", True, is_next)
        self.preventions[instrument_id] = number
        order.amount = None
        if not order.by_amount:
            order.total -= values["prevented_qty"]

    # -- quotes and lists ------------------------------------------------------------------------------------------

    def quote(self, report: Report) -> None:
        """A placed side begins a life; a kept one has one; a refused or pulled one has none."""
        values = report.fields
        message = self.quotes.get((report.session, values["ref_seq_num"]))
        for name, side in (("bid", Side.BUY), ("ask", Side.SELL)):
            key = (values["instrument_id"], values[f"{name}_order_id"])
            if key[1] is None:
                continue
            if message is None:
                raise ModelError(f"a quote nobody sent: {report}")
            price, quantity = getattr(message, f"{name}_px"), getattr(message, f"{name}_qty")
            if key not in self.orders:
                self.expect(report, f"status of the {name}", OrdStatus.NEW, values[f"{name}_status"])
                self.orders[key] = Life(side, price, quantity)
            kept = self.orders[key]
            self.expect(report, f"kept {name}", (False, price, quantity), (kept.is_done, kept.price, kept.leaves))

    def list_status(self, report: Report) -> None:
        """A list begins once and ends once."""
        values = report.fields
        list_id = values["list_id"]
        if values["status_type"] == ListStatusType.EXEC_STARTED:
            self.expect(report, "a new list", False, list_id in self.lists)
            self.lists[list_id] = ListStatusType.EXEC_STARTED
        elif values["status_type"] == ListStatusType.ALL_DONE:
            self.expect(report, "a list under way", ListStatusType.EXEC_STARTED, self.lists.get(list_id))
            self.lists[list_id] = ListStatusType.ALL_DONE

    # -- pairs of reports ------------------------------------------------------------------------------------------

    def pair(self, first: Report, second: Report) -> None:
        """Both reports of a trade are neighbours and tell the same trade."""
        self.expect(second, "name", "OrderExecuted", second.name)
        one, other = first.fields, second.fields
        wanted = Liquidity.TAKER if one["liquidity"] == Liquidity.MAKER else one["liquidity"]
        self.expect(second, "liquidity", wanted, other["liquidity"])
        for name in ("trade_id", "last_px", "last_qty", "instrument_id"):
            self.expect(second, name, one[name], other[name])
        self.expect(second, "side", {Side.BUY, Side.SELL}, {one["side"], other["side"]})
        if wanted == Liquidity.TRANSFER:
            self.expect(second, "a transfer is no trade", (0, 0, 0), (other["trade_id"], one["fee"], other["fee"]))
            return
        if wanted == Liquidity.AUCTION:
            self.expect(first, "the bid is first", Side.BUY, one["side"])
        self.trades[one["instrument_id"]] += 1
        self.expect(second, "trade id", self.trades[one["instrument_id"]], other["trade_id"])
        if other["fee"] < 0:
            raise ModelError(f"negative taker fee: {second}")
        if one["fee"] < 0:
            self.expect(second, "asset of the rebate", one["fee_asset_id"], other["fee_asset_id"])
            if -one["fee"] > other["fee"]:
                raise ModelError(f"rebate above the fee: {first} / {second}")
