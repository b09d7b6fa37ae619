"""A ledger beside an engine in this process: every record and report the engine made, fed on as the consumer would."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine import ComposedEngine
from journaler import Journaler, JournalerConfig
from ringbuf import Ring
from ringbuf.wire import messages as wire
from settlement.chart import exchange_account
from settlement.derivation import Block, Columns, Derivation

SLOT_SIZE = 128
SESSION_ADMIN = 1
RING_SLOTS = 4096


@dataclass
class Recording:
    """A whole log with all reports, in memory."""

    records: bytearray = field(default_factory=bytearray)
    reports: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))

    @property
    def end(self) -> int:
        return len(self.records) // SLOT_SIZE

    def write(self, directory: Path) -> None:
        """Write it as the files of a journal, as a journaler would."""
        log = Ring.private(slot_size=SLOT_SIZE, slot_count=RING_SLOTS, gating={0: "journaler"})
        with log, Journaler(JournalerConfig(directory, "D0", segment_size_bytes=1 << 20), log, {}) as journaler:
            for first in range(0, self.end, RING_SLOTS // 2):
                piece = self.records[first * SLOT_SIZE : (first + RING_SLOTS // 2) * SLOT_SIZE]
                log.publish(*(bytes(piece[at : at + SLOT_SIZE]) for at in range(0, len(piece), SLOT_SIZE)))
                while journaler.position.sequence < log.published:
                    journaler.poll()
        folder = directory / "reports"
        folder.mkdir()
        for partition, slots in self.reports.items():
            (folder / str(partition)).write_bytes(slots)

    def reports_for(self, wanted: dict[int, tuple[int, int]]) -> dict[int, tuple[int, bytes]]:
        """Return what `Derivation.wanted` named."""
        return {
            partition: (first, bytes(self.reports[partition][first * SLOT_SIZE : end * SLOT_SIZE]))
            for partition, (first, end) in wanted.items()
        }

    def feed(self, derivation: Derivation, end: int | None = None) -> None:
        """Derive everything from the derivation's position on."""
        first = derivation.position
        records = bytes(self.records[first * SLOT_SIZE : None if end is None else end * SLOT_SIZE])
        derivation.feed(first, records, self.reports_for(derivation.wanted(records)))


class LedgerRun:
    """An engine, what it recorded, and the ledger derived from that."""

    def __init__(self, engine: ComposedEngine, **settings: Any) -> None:
        self.engine = engine
        self.recording = Recording()
        self.derivation = Derivation(**settings)
        self._seen = 0

    def record(self) -> None:
        """Take over what the engine wrote since the last call."""
        log = self.engine.log
        if log.published > self._seen:
            self.recording.records += log.read(self._seen, log.published - self._seen)
            self._seen = log.published
        for partition, ring in enumerate(self.engine.reports):
            known = len(self.recording.reports[partition]) // SLOT_SIZE
            if ring.published > known:
                self.recording.reports[partition] += ring.read(known, ring.published - known)

    def follow(self) -> None:
        """Record, and derive what came."""
        self.record()
        if self.recording.end > self.derivation.position:
            self.recording.feed(self.derivation)

    def tick(self, now_ns: int | None = None) -> None:
        """Let the engine write what is due: marks, and as its time passes, ticks and its hash."""
        if now_ns is not None:
            self.engine.set_time(now_ns)
        # A query is not logged, but what is due is written before it is answered.
        self.engine.submit(SESSION_ADMIN, wire.BalanceQuery(account_id=1))
        self.engine.replies()
        self.follow()

    def differences(self, accounts: range, assets: range) -> list[str]:
        """Return where the ledger's balances are not the engine's, one sentence each."""
        # What a tick caused is booked by the engine at once, its mark is written before the next command.
        self.tick()
        own = exchange_balances(self.derivation)
        found = []
        for account in accounts:
            for asset in assets:
                expected, units = self.engine.balance(account, asset), own.get((account, asset), (0, 0))
                if units != expected:
                    found.append(f"account {account} asset {asset}: {units}, engine {expected}")
        return found


def exchange_balances(derivation: Derivation) -> dict[tuple[int, int], tuple[int, int]]:
    """Return (account, asset) -> (available, held) as the exchange has them: its own are of several books."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for (book, number, asset), (available, held) in derivation.balances().as_dict().items():
        account = exchange_account(book, number)
        if account is not None:
            before = found.get((account, asset), (0, 0))
            found[account, asset] = (before[0] + available, before[1] + held)
    return found


def joined(blocks: list[Block], kind: str) -> Columns:
    """Return the rows of one kind of all blocks, "postings", "trades" or "orders"."""
    parts = [getattr(block, kind) for block in blocks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
