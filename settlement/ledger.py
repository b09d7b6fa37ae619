"""The books in a store: blocks are appended in order of the log, each once, whatever fails in between.

A block is one insert a table, and then its row in `blocks`: only with that row it belongs to the books. A reader
stops at the last block's end, so it never sees half of one. What an interrupted block left behind lies beyond that
end and is cut off before anything is appended, like the torn tail of a journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from time import sleep

import numpy as np

from settlement.derivation import Balances, Block, Columns
from settlement.errors import BooksDiffer, StoreRefused, StoreUnavailable
from settlement.images import Image
from settlement.schema import ROW_TABLES, Replication, migrate
from settlement.store import Store, one

DAY_NS = 86_400_000_000_000
MUTATION_POLL_S = 0.05
MUTATION_TIMEOUT_S = 600.0
# A table with more parts than this is slow to read, and one with some thousands takes no more.
HELD_BLOCKS_MAX = 200


@dataclass(frozen=True, slots=True)
class Close:
    """All balances at the end of a UTC day."""

    day: int  # days since the epoch
    sequence: int  # the last record of the day
    balances: Balances


@dataclass(frozen=True, slots=True)
class Delivery:
    """A block with what belongs to it."""

    block: Block
    last_record: bytes  # the log's record block.end - 1
    definitions: Mapping[str, Columns] = field(default_factory=dict)
    close: Close | None = None
    image: Image | None = None  # of the state behind the block
    behind: bool = False  # more waits: what the store can do later it should do later


@dataclass(frozen=True, slots=True)
class Owner:
    """Who appends: one at a time, the one who claimed last."""

    token: int
    host: str
    pid: int


class Ledger:
    """The books of one exchange in one store."""

    def __init__(
        self, store: Store, owner: Owner, clock_ns: Callable[[], int], replication: Replication | None = None
    ) -> None:
        self.store = store
        self._owner = owner
        self._clock_ns = clock_ns
        self._replication = replication
        self._identity: tuple[int, int] | None = None
        self._sure = False
        self._claimed = False
        self._blocks_held = 0
        self.position = 0  # the next record; everything below is in the store
        self.closed_day = 0  # the last day that has been closed

    def open(self) -> int:
        """Migrate, claim, cut off what an interrupted block left; return the position. Again after a StoreError."""
        self.hold_merges(held=False)  # cutting needs them
        migrate(self.store, self._replication, now_ns=self._clock_ns())
        rows = self.store.select("SELECT cluster, insurance_account FROM identity")
        if len(rows["cluster"]):
            self._identity = (int(rows["cluster"][0]), int(rows["insurance_account"][0]))
        # Claimed once: who opens again after a failure must not take the books back from a successor.
        if self._claimed:
            self._check_owner()
        else:
            self._claim()
        self.position = stored_position(self.store)
        for table, column in ROW_TABLES.items():
            self._cut(table, f"{column} >= {self.position}")
        self.closed_day = one(self.store.select("SELECT max(day) AS day FROM days"))["day"]
        # The day's own row comes last: without it the close is half of one.
        self._cut("closes", f"day > {self.closed_day}")
        self._sure = True
        return self.position

    def check_identity(self, cluster: int, insurance_account: int) -> None:
        """Compare the exchange with the one the books are of. Raises BooksDiffer."""
        if self._identity is None:
            self.store.insert(
                "identity",
                {
                    "cluster": np.array([cluster], np.uint64),
                    "insurance_account": np.array([insurance_account], np.uint32),
                    "created_ns": np.array([self._clock_ns()], np.uint64),
                },
            )
            self._identity = (cluster, insurance_account)
        elif self._identity[0] != cluster:
            raise BooksDiffer(
                f"{self.store.place} has the books of another exchange ({self._identity[0]}, not {cluster})"
            )
        elif self._identity[1] != insurance_account:
            raise BooksDiffer(
                f"{self.store.place} was begun with ledger.insurance_account = {self._identity[1]}, not "
                f"{insurance_account}: use that, or rebuild the books"
            )

    def check_last_record(self, record: bytes) -> None:
        """Compare the log's record before the position with the one the books end with. Raises BooksDiffer."""
        rows = self.store.select(f"SELECT last_record FROM blocks WHERE end = {self.position}")
        if len(rows["last_record"]) and int(rows["last_record"][0]) != digest(record):
            raise BooksDiffer(
                f"{self.store.place}: record {self.position - 1} of the log is not the one the books end with; the log "
                "was restored from an older state, or is another one: rebuild the books"
            )

    def has_block_end(self, position: int, record: bytes) -> bool:
        """Tell whether a block of the books ends at `position`, with that record of the log."""
        rows = self.store.select(f"SELECT last_record FROM blocks WHERE end = {position}")
        return len(rows["last_record"]) > 0 and int(rows["last_record"][0]) == digest(record)

    def append(self, delivery: Delivery) -> None:
        """Append a block. One that is there already changes nothing; a gap is an error.

        Raises StoreError; then call `open` before the next try.
        """
        block, close = delivery.block, delivery.close
        if close is not None and close.day <= self.closed_day:
            close = None
        if block.end < self.position or (block.end == self.position and close is None):
            return
        if block.end > self.position and block.first != self.position:
            raise ValueError(f"block {block.first}..{block.end - 1} does not follow on {self.position}")
        if not self._sure:
            raise StoreUnavailable(f"{self.store.place}: an earlier block was interrupted; open the books again")
        self._sure = False
        self.hold_merges(held=delivery.behind)
        if block.end > self.position:
            self._insert_rows(delivery)
        if close is not None:
            self._insert_close(close)
        self._check_owner()
        if block.end > self.position:
            self.store.insert("blocks", _block_row(delivery))
        self.position = block.end
        self._sure = True

    def hold_merges(self, *, held: bool) -> None:
        """Merges of rows cost more than inserting them: while much waits they wait too. Raises StoreError."""
        if not held:
            self._blocks_held = 0
        self.store.hold_merges(held=held and self._blocks_held < HELD_BLOCKS_MAX)
        self._blocks_held += held

    def _insert_rows(self, delivery: Delivery) -> None:
        block = delivery.block
        for table, columns in (("postings", block.postings), ("trades", block.trades), ("orders", block.orders)):
            self.store.insert(table, columns)
        for table, columns in delivery.definitions.items():
            self.store.insert(table, columns)

    def _claim(self) -> None:
        # The last claim holds, also where the clock of the one before was ahead.
        last_ns = one(self.store.select("SELECT max(claimed_ns) AS claimed_ns FROM consumers"))["claimed_ns"]
        self.store.insert(
            "consumers",
            {
                "claimed_ns": np.array([max(self._clock_ns(), last_ns + 1)], np.uint64),
                "token": np.array([self._owner.token], np.uint64),
                "host": np.array([self._owner.host], object),
                "pid": np.array([self._owner.pid], np.uint32),
            },
        )
        self._claimed = True

    def _insert_close(self, close: Close) -> None:
        balances = close.balances
        count = len(balances.book)
        rows: Columns = {
            "day": np.full(count, close.day, np.uint32),
            "sequence": np.full(count, close.sequence, np.uint64),
            "book": balances.book,
            "account": balances.account,
            "asset": balances.asset,
            "available": balances.available,
            "held": balances.held,
        }
        order = np.lexsort((rows["asset"], rows["account"], rows["book"]))
        rows = {name: column[order] for name, column in rows.items()}
        self.store.insert("closes", rows)
        self.store.insert(
            "days",
            {
                "day": np.array([close.day], np.uint32),
                "sequence": np.array([close.sequence], np.uint64),
                "accounts": np.array([count], np.uint32),
                "checksum": np.array([checksum(rows)], np.uint64),
            },
        )
        self.closed_day = close.day

    def _check_owner(self) -> None:
        rows = self.store.select("SELECT argMax(token, claimed_ns) AS token FROM consumers")
        if one(rows)["token"] != self._owner.token:
            raise StoreRefused(f"{self.store.place}: another consumer has taken the books over; this one stops")

    def _cut(self, table: str, torn: str) -> None:
        if not _count(self.store, table, torn):
            return
        self.store.execute(f"ALTER TABLE {table} DELETE WHERE {torn}")
        waited = 0.0
        while _count(self.store, table, torn):
            if waited >= MUTATION_TIMEOUT_S:
                raise StoreUnavailable(f"{self.store.place}: rows of an interrupted block are still in {table}")
            sleep(MUTATION_POLL_S)
            waited += MUTATION_POLL_S


def _count(store: Store, table: str, condition: str) -> int:
    return one(store.select(f"SELECT count() AS rows FROM {table} WHERE {condition}"))["rows"]


def stored_position(store: Store) -> int:
    """Return the first record that is not in the books."""
    return one(store.select("SELECT max(end) AS position FROM blocks"))["position"]


def digest(record: bytes) -> int:
    """Return 64 bits that tell one record from another."""
    return int.from_bytes(blake2b(record, digest_size=8).digest(), "little")


def checksum(rows: Columns) -> int:
    """Return 64 bits over all columns, name by name: of a close, so that a later change of it shows."""
    total = blake2b(digest_size=8)
    for name in sorted(rows):
        total.update(name.encode())
        total.update(np.ascontiguousarray(rows[name]).tobytes())
    return int.from_bytes(total.digest(), "little")


def _block_row(delivery: Delivery) -> Columns:
    block = delivery.block
    counts = (len(next(iter(rows.values()))) for rows in (block.postings, block.trades, block.orders))
    postings, trades, orders = counts
    return {
        "first": np.array([block.first], np.uint64),
        "end": np.array([block.end], np.uint64),
        "epoch": np.array([block.epoch], np.uint32),
        "ts_ns": np.array([block.ts_ns], np.uint64),
        "postings": np.array([postings], np.uint32),
        "trades": np.array([trades], np.uint32),
        "orders": np.array([orders], np.uint32),
        "last_record": np.array([digest(delivery.last_record)], np.uint64),
    }
