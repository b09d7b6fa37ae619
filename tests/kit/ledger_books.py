"""Books in a real store for tests: a recording as a source, a consumer without a process, a store that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from settlement.chdb_store import ChdbConfig, ChdbStore
from settlement.consumer import Consumer, ConsumerConfig
from settlement.derivation import Columns, Reports
from settlement.images import Images
from settlement.ledger import Ledger, Owner
from settlement.schema import Replication
from settlement.source import Batch
from settlement.store import Store, Version
from tests.kit.ledger_run import SLOT_SIZE, Recording
from tests.kit.waiting import eventually

GIB = 1 << 30
NOWHERE = Path("/nonexistent")


def chdb_store(directory: Path) -> ChdbStore:
    return ChdbStore(ChdbConfig(directory=directory, memory_bytes=GIB))


@dataclass
class RecordingSource:
    """A recording in batches."""

    recording: Recording
    batch: int = 64
    at: int = 0

    def read(self) -> Batch | None:
        first, end = self.at, min(self.at + self.batch, self.recording.end)
        if first == end:
            return None
        self.at = end
        return first, bytes(self.recording.records[first * SLOT_SIZE : end * SLOT_SIZE])

    def reports(self, wanted: Mapping[int, tuple[int, int]]) -> Reports:
        return self.recording.reports_for(dict(wanted))

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class FaultyStore:
    """Hands on to a store; `plan` may raise before a call, or after it is done: then the caller cannot know."""

    store: Store
    before: Callable[[str, int], None] = lambda what, number: None
    after: Callable[[str, int], None] = lambda what, number: None
    calls: int = field(default=0)
    held: list[bool] = field(default_factory=list)

    @property
    def place(self) -> str:
        return self.store.place

    def hold_merges(self, *, held: bool) -> None:
        if held != (self.held or [False])[-1]:
            self.held.append(held)
        self.store.hold_merges(held=held)

    @property
    def version(self) -> Version:
        return self.store.version

    def execute(self, sql: str) -> None:
        self._around(sql.split("(")[0], lambda: self.store.execute(sql))

    def select(self, sql: str) -> Columns:
        found: list[Columns] = []
        self._around("SELECT", lambda: found.append(self.store.select(sql)))
        return found[0]

    def insert(self, table: str, columns: Columns) -> None:
        self._around(f"INSERT {table}", lambda: self.store.insert(table, columns))

    def close(self) -> None:
        self.store.close()

    def _around(self, what: str, action: Callable[[], None]) -> None:
        self.calls += 1
        number = self.calls
        self.before(what, number)
        action()
        self.after(what, number)


class Books:
    """A consumer over a recording and a store, driven by hand."""

    def __init__(
        self,
        store: Store,
        recording: Recording,
        *,
        token: int = 1,
        now_ns: int = 0,
        batch: int = 64,
        replication: Replication | None = None,
        images: Path | None = None,
        image_records: int = 10**9,
    ) -> None:
        """`images`: where images of the derivation are kept; nowhere by default."""
        self.now_ns = now_ns
        self.ended = threading.Event()
        self.ledger = Ledger(store, Owner(token, "host", 1), self._clock, replication)
        config = ConsumerConfig(
            block_rows=40, flush_ms=1, retry_ms=1, insurance_account=0, image_records=image_records
        )
        self.read_from: list[int] = []
        self.needed_from: list[int] = []

        def source(start: int) -> RecordingSource:
            self.read_from.append(start)
            return RecordingSource(recording, batch, start)

        self.consumer = Consumer(
            source,
            self.ledger,
            config,
            clock_ns=self._clock,
            wait=self.ended.wait,
            images=Images(images or NOWHERE),
            on_image=self.needed_from.append,
        )
        self._end = recording.end

    def run(self) -> None:
        """Consume everything, store it."""
        eventually(self._caught_up, deadline_s=120)

    def stop(self) -> None:
        self.consumer.stop()

    def _caught_up(self) -> bool:
        for _ in range(100):
            if not self.consumer.step():
                break
        status = self.consumer.status
        if status.state == "halted":
            raise AssertionError(status.trouble)
        if status.derived == self._end:
            self.consumer.flush()
        return self.consumer.status.stored == self._end

    def _clock(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns
