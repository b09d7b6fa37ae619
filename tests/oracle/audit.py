"""Check a stream of reports for what must hold whatever the matching rules decide.

Knows nothing of books or balances, so it serves the model and the engine alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ringbuf.wire.messages import Liquidity, Side
from tests.oracle.records import ModelError, Report


@dataclass(slots=True)
class Life:
    """What the client of an order knows of it."""

    side: int
    price: int | None
    total: int
    cum: int = 0
    is_done: bool = False

    @property
    def leaves(self) -> int:
        return self.total - self.cum


class Audit:
    """Follow every order from its acceptance to its end."""

    def __init__(self) -> None:
        self.orders: dict[tuple[int, int], Life] = {}
        self.numbers: dict[tuple[int, int], int] = defaultdict(int)
        self.trades: dict[int, int] = defaultdict(int)
        self.fees: dict[int, int] = defaultdict(int)

    def follow(self, reports: Iterable[Report]) -> None:
        """Take the reports of one partition, or of several one after the other."""
        maker: Report | None = None
        for report in reports:
            if report.seq_num != 0:
                self.numbers[report.session, report.partition] += 1
                self.expect(report, "number", self.numbers[report.session, report.partition], report.seq_num)
            if maker is not None:
                self.pair(maker, report)
                maker = None
            elif report.name == "OrderExecuted":
                self.expect(report, "liquidity of the first report", Liquidity.MAKER, report.fields["liquidity"])
                maker = report
            if report.partition != 0:
                self.apply(report)
        if maker is not None:
            raise ModelError(f"half a trade: {maker}")

    def expect(self, report: Report, what: str, wanted: object, got: object) -> None:
        if wanted != got:
            raise ModelError(f"{what}: {wanted} expected in {report}")

    def apply(self, report: Report) -> None:
        values = report.fields
        key = (report.partition, values.get("order_id", 0))
        if report.name == "OrderAccepted":
            self.expect(report, "no such order before", False, key in self.orders)
            self.orders[key] = Life(values["side"], values["price"], values["order_qty"])
        if report.name not in ("OrderExecuted", "OrderCanceled", "OrderPrevented", "OrderReplaced"):
            return
        order = self.orders[key]
        self.expect(report, "order is live", False, order.is_done)
        if report.name == "OrderExecuted":
            self.fill(report, order)
        elif report.name == "OrderCanceled":
            self.expect(report, "canceled quantity", order.leaves, values["canceled_qty"])
        elif report.name == "OrderPrevented":
            order.total -= values["prevented_qty"]
        else:
            order.total, order.price = values["order_qty"], values["price"]
        self.expect(report, "cumulative quantity", order.cum, values["cum_qty"])
        if "leaves_qty" in values:
            self.expect(report, "leaves", order.leaves, values["leaves_qty"])
        order.is_done = report.name == "OrderCanceled" or order.leaves == 0
        self.expect(report, "final", order.is_done, report.final)

    def fill(self, report: Report, order: Life) -> None:
        values = report.fields
        order.cum += values["last_qty"]
        if order.price is not None:
            beyond = values["last_px"] - order.price if order.side == Side.BUY else order.price - values["last_px"]
            if beyond > 0:
                raise ModelError(f"beyond the limit {order.price}: {report}")
        self.fees[values["fee_asset_id"]] += values["fee"]

    def pair(self, maker: Report, taker: Report) -> None:
        """Both reports of a trade are neighbours and tell the same trade."""
        self.expect(taker, "name", "OrderExecuted", taker.name)
        one, other = maker.fields, taker.fields
        self.expect(taker, "liquidity", Liquidity.TAKER, other["liquidity"])
        for name in ("trade_id", "last_px", "last_qty", "instrument_id"):
            self.expect(taker, name, one[name], other[name])
        self.expect(taker, "side", {Side.BUY, Side.SELL}, {one["side"], other["side"]})
        self.trades[one["instrument_id"]] += 1
        self.expect(taker, "trade id", self.trades[one["instrument_id"]], other["trade_id"])
        if other["fee"] < 0:
            raise ModelError(f"negative taker fee: {taker}")
        if one["fee"] < 0:
            self.expect(taker, "asset of the rebate", one["fee_asset_id"], other["fee_asset_id"])
            if -one["fee"] > other["fee"]:
                raise ModelError(f"rebate above the fee: {maker} / {taker}")
