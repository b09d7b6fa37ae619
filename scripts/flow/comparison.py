"""Compare what the exchange reported with what was recorded: every execution in order, every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from scripts.flow.recording import BookState, Recording, Trade

DIFFERENCES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Execution:
    """One side of a trade, as an execution report told it; `order` is the recorded order id."""

    trade_id: int
    order: int
    price: int
    quantity: int
    is_maker: bool
    ts_ns: int  # recorded time of the command that traded
    is_auction: bool = False


@dataclass
class Comparison:
    """Collects, then judges. What does not fit is kept in `differences`, in words."""

    recording: Recording
    differences: list[str] = field(default_factory=list)
    checkpoints_seen: int = 0
    checkpoints_bad: int = 0
    post_only_rejects: int = 0
    self_matches_prevented: set[int] = field(default_factory=set)  # recorded order ids that prevention ended
    self_matches_sent: set[int] = field(default_factory=set)  # no taker of ours reached them: canceled as recorded
    auction_fills: dict[int, int] = field(default_factory=dict)  # recorded order id -> quantity
    _auction_sides: dict[int, int] = field(default_factory=dict)  # trade id -> sides heard
    _makers: dict[int, Execution] = field(default_factory=dict)
    _takers: dict[int, Execution] = field(default_factory=dict)

    def execution(self, execution: Execution) -> None:
        if execution.is_auction:
            self._auction_execution(execution)
            return
        side = self._makers if execution.is_maker else self._takers
        if execution.trade_id in side:
            self.difference(f"trade {execution.trade_id} was reported twice to the same side")
        side[execution.trade_id] = execution

    def _auction_execution(self, execution: Execution) -> None:
        order = execution.order
        self.auction_fills[order] = self.auction_fills.get(order, 0) + execution.quantity
        self._auction_sides[execution.trade_id] = self._auction_sides.get(execution.trade_id, 0) + 1
        auction = self.recording.auction
        if auction is None or execution.price != auction.price:
            self.difference(f"order {order} traded in the auction at {execution.price}, recorded {auction}")

    def checkpoint(self, index: int, state: BookState) -> None:
        self.checkpoints_seen += 1
        if not self.agrees(index, state):
            self.checkpoints_bad += 1
            self.difference(f"after command {index}: book {state}, recorded {self.recording.checkpoints[index]}")

    def agrees(self, index: int, state: BookState) -> bool:
        expected = self.recording.checkpoints[index]
        command = self.recording.commands[index]
        if command.tag == "smp":  # the venue had canceled it already; ours goes when the taker comes
            expected = expected.with_order(command.side, command.price, command.quantity)
        return state == expected

    def difference(self, text: str) -> None:
        self.differences.append(text)

    @property
    def half_reported(self) -> set[int]:
        """Trades of which only one side has been heard."""
        return (self._makers.keys() ^ self._takers.keys()) | {
            trade for trade, sides in self._auction_sides.items() if sides != 2
        }

    @property
    def execution_count(self) -> int:
        return len(self._makers) + len(self._takers) + sum(self._auction_sides.values())

    def trades(self) -> list[Trade]:
        """Return the trades in order; the fills of one maker by one aggressor at one price and time are one row."""
        rows: dict[tuple[int, int, int, int], int] = {}
        for trade_id in sorted(self._makers.keys() & self._takers.keys()):
            maker, taker = self._makers[trade_id], self._takers[trade_id]
            if (maker.price, maker.quantity) != (taker.price, taker.quantity):
                self.difference(f"trade {trade_id}: the maker heard {maker}, the taker {taker}")
            key = (taker.ts_ns, maker.order, taker.order, taker.price)
            rows[key] = rows.get(key, 0) + taker.quantity
        return [(*key, quantity) for key, quantity in rows.items()]

    def conclude(self) -> bool:
        """Compare all that was collected; True = everything agrees."""
        for trade_id in sorted(self.half_reported):
            self.difference(f"trade {trade_id}: only one side was reported")
        trade_ids = sorted(self._makers.keys() | self._takers.keys() | self._auction_sides.keys())
        if trade_ids != list(range(1, len(trade_ids) + 1)):
            self.difference("trade ids are not 1, 2, 3, ...")
        self._compare_trades(self.trades(), self.recording.trades)
        self._compare_auction()
        self._compare_self_matches()
        missing = self.recording.checkpoints.keys() - set(range(len(self.recording.commands)))
        if self.checkpoints_seen + len(missing) != len(self.recording.checkpoints) or missing:
            self.difference(f"{self.checkpoints_seen} of {len(self.recording.checkpoints)} checkpoints were compared")
        expected = self.recording.meta.get("post_only_rejects")
        if expected is not None and self.post_only_rejects != expected:
            self.difference(f"{self.post_only_rejects} post-only orders were refused, recorded {expected}")
        return not self.differences

    def _compare_auction(self) -> None:
        auction = self.recording.auction
        if auction is None:
            return
        # Two market orders stand for members whose orders the recording never shows: theirs are not comparable.
        seen = {command.order for command in self.recording.commands if command.tif != "MKT"}
        got = {order: quantity for order, quantity in self.auction_fills.items() if order in seen}
        recorded = {order: quantity for order, quantity in auction.fills.items() if order in seen}
        for order in sorted(got.keys() | recorded.keys()):
            if got.get(order) != recorded.get(order):
                text = f"{got.get(order, 0)}, recorded {recorded.get(order, 0)}"
                self.difference(f"the auction filled of order {order} {text}")
        if sum(self.auction_fills.values()) != 2 * auction.quantity:
            self.difference(f"the auction traded {sum(self.auction_fills.values()) / 2}, recorded {auction.quantity}")

    def _compare_self_matches(self) -> None:
        recorded = {maker for _, maker in self.recording.self_matches}
        if self.self_matches_prevented - recorded:
            self.difference(
                f"self-match prevention ended {sorted(self.self_matches_prevented - recorded)}, recorded not"
            )
        if missing := recorded - self.self_matches_prevented - self.self_matches_sent:
            self.difference(f"self-match prevention was recorded for {sorted(missing)}, and did not come")

    def _compare_trades(self, got: list[Trade], recorded: list[Trade]) -> None:
        for number, (mine, theirs) in enumerate(zip(got, recorded, strict=False)):
            if mine != theirs:
                self.difference(f"trade {number}: (ts, maker, taker, price, qty) {mine}, recorded {theirs}")
                break
        if len(got) != len(recorded):
            self.difference(f"{len(got)} trades, recorded {len(recorded)}")
