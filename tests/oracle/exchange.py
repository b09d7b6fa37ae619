"""The whole model: one sequencer, its matchers, and marks that say what is settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Items
from typing import Any

from ringbuf.wire.messages import Side
from tests.oracle.book import Book
from tests.oracle.choices import DUE_ORDERS_RUN_AT_ONCE
from tests.oracle.lines import OrderLine
from tests.oracle.matcher import Matcher
from tests.oracle.records import ALL_MATCHERS, LogEntry, Outcome, Record, Report
from tests.oracle.sequencer import Frames, Sequencer

START_NS = 1_700_000_000_000_000_000
# One command: session, linked frames with their numbers, age in microseconds.
Numbered = tuple[int, Frames, int]


class Exchange:
    """Submit commands, read what the clients would see.

    `submit` and `burst` settle everything before they return. `admit`, `step` and `mark` are the pieces: with them
    commands, matching and settlement may be interleaved in any way that rings and marks allow.
    """

    sequencer_class = Sequencer
    matcher_class = Matcher

    def __init__(self, *, partitions: int = 2, orders_max: int = 1024, **capacities: int) -> None:
        self.sequencer = self.sequencer_class(partitions=partitions, orders_max=orders_max, **capacities)
        self.matchers = {partition: self.matcher_class(partition) for partition in range(1, partitions + 1)}
        self.inputs: dict[int, deque[Record]] = {partition: deque() for partition in self.matchers}
        self.unsettled: dict[int, deque[Report]] = {partition: deque() for partition in self.matchers}
        self.outcome = Outcome()
        self.now_ns = START_NS

    def bind(self, session_id: int) -> None:
        self.sequencer.sessions[session_id].is_bound = True

    def next_seq(self, session_id: int) -> int:
        return self.sequencer.sessions[session_id].last_seq + 1

    # -- the pieces ------------------------------------------------------------------------------------------------

    def admit(self, session_id: int, frames: Frames, age_us: int = 0, stamp_ns: int | None = None) -> None:
        """Judge one command; what it writes waits for the matchers."""
        self.sequencer.admit(session_id, frames, self.now_ns if stamp_ns is None else stamp_ns, age_us)
        self.publish()

    def tick(self, now_ns: int, stamp_ns: int | None = None) -> None:
        self.sequencer.tick(now_ns, now_ns if stamp_ns is None else stamp_ns)
        self.publish()

    def publish(self) -> None:
        """Hand new log records to the matchers, new reports and replies to the clients."""
        for record in self.sequencer.log:
            for partition, inputs in self.inputs.items():
                if record.partition in (ALL_MATCHERS, partition):
                    inputs.append(record)
        self.outcome.reports += self.sequencer.reports
        self.outcome.replies += self.sequencer.replies
        self.sequencer.log, self.sequencer.reports, self.sequencer.replies = [], [], []

    def step(self, partition: int) -> None:
        """Let a matcher process its next input."""
        matcher = self.matchers[partition]
        matcher.handle(self.inputs[partition].popleft())
        self.unsettled[partition].extend(matcher.reports)
        self.outcome.reports += matcher.reports
        self.outcome.market_events += matcher.market_events
        matcher.reports, matcher.market_events = [], []

    def mark(self, partition: int) -> None:
        """Settle the partition's next report, and those that no mark may part from it."""
        unsettled = self.unsettled[partition]
        is_more = True
        while is_more:
            report = unsettled.popleft()
            self.sequencer.settle(report)
            is_more = report.joined
        self.publish()

    def admit_due(self) -> None:
        """Admit what marks have made due, before any other command."""
        self.sequencer.admit_due(self.now_ns)
        self.publish()

    @property
    def has_due(self) -> bool:
        return DUE_ORDERS_RUN_AT_ONCE and bool(self.sequencer.due)

    # -- whole turns -----------------------------------------------------------------------------------------------

    def submit(self, session_id: int, message: Any, *, seq_num: int | None = None, age_us: int = 0) -> Outcome:
        """Run one command (a message, or a tuple of linked ones) to its end."""
        first = self.next_seq(session_id) if seq_num is None else seq_num
        messages = message if isinstance(message, tuple) else (message,)
        return self.burst([(session_id, list(enumerate(messages, first)), age_us)])

    def burst(self, commands: Items[Numbered], log: Items[LogEntry] = ()) -> Outcome:
        """Admit every command before the matchers see the first, then settle all.

        `log` is what a target's log tells of this step: its stamps count, and its ticks are done where it had them.
        """
        stamps = {(entry.session, entry.seq_num): entry.stamp_ns for entry in log if entry.now_ns is None}
        entries = deque(log)
        done: list[LogEntry] = []
        for session_id, frames, age_us in commands:
            key = (session_id, frames[0][0])
            if key in stamps:
                self.tick_until(entries, key, done)
            stamp_ns = stamps.get(key, self.now_ns)
            self.admit(session_id, frames, age_us, stamp_ns)
            done.append(LogEntry(stamp_ns, *key))
        self.settle_all()
        self.tick_until(entries, None, done)
        self.settle_all()
        self.sequencer.check()
        outcome, self.outcome = self.outcome, Outcome()
        outcome.log = done
        return outcome

    def tick_until(self, entries: deque[LogEntry], key: tuple[int, int] | None, done: list[LogEntry]) -> None:
        """Do the ticks that the log has before a command, or to its end."""
        keys = [None if entry.now_ns is not None else (entry.session, entry.seq_num) for entry in entries]
        if key is not None and key not in keys:
            return
        for _ in range(len(keys) if key is None else keys.index(key) + 1):
            entry = entries.popleft()
            if entry.now_ns is not None:
                self.now_ns = max(self.now_ns, entry.now_ns)
                self.tick(entry.now_ns, entry.stamp_ns)
                done.append(entry)

    def settle_all(self) -> None:
        """Match and settle until nothing is on its way."""
        while any(self.inputs.values()) or any(self.unsettled.values()) or self.has_due:
            for partition, inputs in self.inputs.items():
                while inputs:
                    self.step(partition)
            for partition, unsettled in self.unsettled.items():
                while unsettled:
                    self.mark(partition)
            self.admit_due()

    # -- queries ---------------------------------------------------------------------------------------------------

    def balance(self, account_id: int, asset_id: int) -> tuple[int, int]:
        ledger = self.sequencer.ledger
        return ledger.available[account_id, asset_id], ledger.held[account_id, asset_id]

    def book_of(self, instrument_id: int) -> Book:
        partition = self.sequencer.instruments[instrument_id].definition.assigned_partition
        return self.matchers[partition].markets[instrument_id].book

    def book(self, instrument_id: int) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Return (bids, asks) as (order id, price, visible quantity) in priority order."""
        book = self.book_of(instrument_id)
        bids, asks = (
            [(order.order_id, order.price, order.visible) for order in book.side(side)]
            for side in (Side.BUY, Side.SELL)
        )
        return bids, asks

    def open_orders(self, account_id: int) -> list[OrderLine]:
        """Return the account's open orders by (partition, order id)."""
        lines = self.sequencer.lines
        return [lines[key] for key in sorted(lines) if lines[key].account_id == account_id and not lines[key].is_done]

    def check(self) -> None:
        """Raise if a book is crossed or out of order, or money does not add up."""
        self.sequencer.check()
        for matcher in self.matchers.values():
            matcher.check()
