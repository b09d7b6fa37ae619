"""The ledger's work in one loop: consume, compare, answer what only the loop can; tell when something differs."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from settlement.consumer import Consumer
from settlement.derivation import Derivation
from settlement.errors import SettlementError, StoreError, StoreUnavailable
from settlement.reconcile import Result, compare_store, first_wrong_record
from settlement.service import Row
from settlement.source import Source
from settlement.store import Store

# Naming the wrong posting derives the whole log anew: beyond this the alarm goes without it, and the command does that.
NAMED_RECORDS_MAX = 5_000_000
REQUEST_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class BookkeeperConfig:
    """How often the store is compared with the books in memory, and up to how many postings."""

    reconcile_s: int  # 0 = only when asked
    reconcile_rows_max: int

    def __post_init__(self) -> None:
        if self.reconcile_s < 0 or self.reconcile_rows_max < 0:
            raise ValueError("reconcile_s and reconcile_rows_max: must not be negative")


class Bookkeeper:
    """Call `step` again and again from one thread; `reconcile_soon` and `facts` from any."""

    def __init__(
        self,
        consumer: Consumer,
        store: Store,
        config: BookkeeperConfig,
        *,
        from_beginning: Callable[[], tuple[Derivation, Source]],
        clock_ns: Callable[[], int],
        on_difference: Callable[[str], None],
    ) -> None:
        """`from_beginning` makes what goes through the log from its first record that is left, for naming a difference;
        `on_difference` is told once for each kind of difference, with a sentence."""
        self._consumer = consumer
        self._store = store
        self._config = config
        self._from_beginning = from_beginning
        self._clock_ns = clock_ns
        self._on_difference = on_difference
        self._requests: queue.Queue[Future[Result]] = queue.Queue()
        self._due_ns = 0
        self._last: Result | None = None
        self._last_ns = 0
        self._told: dict[str, str] = {}

    def step(self) -> bool:
        """Do a piece of work; False when there was none."""
        worked = self._consumer.step()
        self._watch()
        self._answer_requests()
        self._reconcile_if_due()
        return worked

    def facts(self) -> Row:
        """Return how far it is and how it compares, as plain values."""
        found: dict[str, Any] = asdict(self._consumer.status) | asdict(self._consumer.counts)
        found["open_orders"] = self._consumer.derivation.open_orders
        found["differences"] = list(self._told.values())
        if self._last is not None:
            found["reconciled"] = {
                "at_ns": self._last_ns,
                "position": self._last.position,
                "compared": self._last.compared,
                "differences": self._last.count,
            }
        return found

    def reconcile_soon(self) -> Result:
        """Compare the whole store with the books in memory, as soon as the loop comes to it. Raises StoreError."""
        wanted: Future[Result] = Future()
        self._requests.put(wanted)
        try:
            return wanted.result(REQUEST_TIMEOUT_S)
        except TimeoutError:
            raise StoreUnavailable(f"no answer within {REQUEST_TIMEOUT_S:g} s: the ledger is catching up") from None

    # --- inside -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        unbooked = self._consumer.status.unbooked
        if unbooked:
            self._tell("record", unbooked)
        counts = self._consumer.counts
        if counts.marks_differing:
            self._tell(
                "exchange",
                f"ledger and exchange differ from the hash mark at record {counts.first_mark_differing} on; they "
                f"agreed at record {counts.last_mark_equal}. `bullring ledger reconcile --exchange` names the record",
            )

    def _answer_requests(self) -> None:
        while not self._requests.empty():
            wanted = self._requests.get()
            try:
                wanted.set_result(self._reconcile())
            except SettlementError as error:
                wanted.set_exception(error)

    def _reconcile_if_due(self) -> None:
        now = self._clock_ns()
        if self._config.reconcile_s == 0 or now < self._due_ns:
            return
        self._due_ns = now + self._config.reconcile_s * 1_000_000_000
        if self._consumer.counts.postings > self._config.reconcile_rows_max:
            return
        try:
            self._reconcile()
        except StoreError:
            # The consumer tells of it, and tries again; so does the next time.
            return

    def _reconcile(self) -> Result:
        if self._consumer.status.state == "running":
            self._consumer.flush()
        status = self._consumer.status
        if status.trouble or status.stored < status.derived:
            raise StoreUnavailable(status.trouble or "the store is behind the log")
        balances = self._consumer.derivation.balances()
        result = compare_store(self._store, balances)
        self._last, self._last_ns = result, self._clock_ns()
        self._keep(result)
        if not result.good:
            self._tell("store", f"the store differs from the log: {self._named(result)}")
        return result

    def _named(self, result: Result) -> str:
        if not result.differences or result.position > NAMED_RECORDS_MAX:
            return result.sentence
        try:
            derivation, source = self._from_beginning()
            with closing(source):
                return first_wrong_record(self._store, derivation, source, result.differences[0].key, result.position)
        except SettlementError as error:
            return f"{result.sentence} (the record cannot be named: {error})"

    def _keep(self, result: Result) -> None:
        self._store.insert(
            "reconciliations",
            {
                "ts_ns": np.array([self._last_ns], np.uint64),
                "kind": np.array([result.kind], object),
                "position": np.array([result.position], np.uint64),
                "compared": np.array([result.compared], np.uint64),
                "differences": np.array([result.count], np.uint64),
                "first_difference": np.array([result.sentence], object),
            },
        )

    def _tell(self, kind: str, sentence: str) -> None:
        if kind not in self._told:
            self._told[kind] = sentence
            self._on_difference(sentence)
