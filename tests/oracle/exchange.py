"""The whole model: one sequencer, its matchers, everything settled between two steps."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Any

from ringbuf.wire.messages import Side
from tests.oracle.book import Book
from tests.oracle.matcher import Matcher
from tests.oracle.records import ALL_MATCHERS, Outcome
from tests.oracle.sequencer import OrderLine, Sequencer


class Exchange:
    """Submit commands, read what the clients would see."""

    def __init__(self, *, partitions: int = 2, orders_max: int = 1024) -> None:
        self.sequencer = Sequencer(partitions=partitions, orders_max=orders_max)
        self.matchers = {partition: Matcher(partition) for partition in range(1, partitions + 1)}

    def bind(self, session_id: int) -> None:
        self.sequencer.sessions[session_id].is_bound = True

    def next_seq(self, session_id: int) -> int:
        return self.sequencer.sessions[session_id].last_seq + 1

    def submit(self, session_id: int, message: Any, *, seq_num: int | None = None) -> Outcome:
        """Run one command through admission, matching and settlement."""
        return self.burst([(session_id, self.next_seq(session_id) if seq_num is None else seq_num, message)])

    def burst(self, commands: Items[tuple[int, int, Any]]) -> Outcome:
        """Admit every (session, seq_num, message) before the matchers see the first, then settle all."""
        for session_id, seq_num, message in commands:
            self.sequencer.admit(session_id, seq_num, message)
        log, self.sequencer.log = self.sequencer.log, []
        for record in log:
            for matcher in self.matchers.values():
                if record.partition in (ALL_MATCHERS, matcher.partition):
                    matcher.handle(record)
        return self.collect()

    def collect(self) -> Outcome:
        """Settle what the matchers reported; check the money; hand everything out."""
        outcome = Outcome(reports=self.sequencer.reports, replies=self.sequencer.replies)
        self.sequencer.reports, self.sequencer.replies = [], []
        for matcher in self.matchers.values():
            for report in matcher.reports:
                self.sequencer.settle(report)
            outcome.reports.extend(matcher.reports)
            outcome.market_events.extend(matcher.market_events)
            matcher.reports, matcher.market_events = [], []
        self.sequencer.check()
        return outcome

    # -- queries ---------------------------------------------------------------------------------------------------

    def balance(self, account_id: int, asset_id: int) -> tuple[int, int]:
        ledger = self.sequencer.ledger
        return ledger.available[account_id, asset_id], ledger.held[account_id, asset_id]

    def book_of(self, instrument_id: int) -> Book:
        partition = self.sequencer.instruments[instrument_id].definition.assigned_partition
        return self.matchers[partition].markets[instrument_id].book

    def book(self, instrument_id: int) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Return (bids, asks) as (order id, price, leaves) in priority order."""
        book = self.book_of(instrument_id)
        bids, asks = (
            [(order.order_id, order.price, order.leaves) for order in book.side(side)]
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
