"""Postings out of the committed log: the Python side of derive.c.

A function of records and reports; reads no file and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from settlement._ledger import ffi, lib
from settlement.errors import DerivationHalted

SLOT_SIZE = 128
PARTITIONS_MAX: int = lib.PARTITIONS_MAX
CLIENT_TEXT_SIZE = 36
SPARE_MAX = 3  # blocks' worth of arrays: one being filled, one waiting, one being stored
ROOM_MIN, ROOM_FACTOR = 1024, 16
ROOM_SHARE = 8  # arrays are a part of this longer than the block they are made for, since the next ones differ a little

Columns = dict[str, npt.NDArray[Any]]
Reports = Mapping[int, tuple[int, bytes | memoryview]]  # partition -> first report sequence, slots

_DTYPES: dict[str, Any] = {
    "uint64_t *": np.uint64,
    "int64_t *": np.int64,
    "uint32_t *": np.uint32,
    "uint16_t *": np.uint16,
    "uint8_t *": np.uint8,
    "char *": f"S{CLIENT_TEXT_SIZE}",
}


def column_types(kind: str) -> dict[str, Any]:
    """Return name and dtype of every column of "posting", "trade" or "order" rows."""
    return {name: np.dtype(_DTYPES[field.type.cname]) for name, field in ffi.typeof(f"{kind}_columns_t").fields}


@dataclass(frozen=True, slots=True)
class Block:
    """What the records first..end-1 of the log mean: rows in the order of the store's keys, one array a column."""

    first: int
    end: int
    epoch: int
    ts_ns: int  # stamp of the last record
    postings: Columns
    trades: Columns
    orders: Columns


@dataclass(frozen=True, slots=True)
class Counts:
    """What has been derived so far, and how it compared with the exchange's hash marks."""

    records: int
    reports: int
    postings: int
    trades: int
    marks_compared: int
    marks_differing: int
    last_mark_equal: int  # sequence of the newest mark up to which everything agreed, -1 = none
    first_mark_differing: int  # -1 = none


@dataclass(frozen=True, slots=True)
class Balances:
    """Every ledger account at one position of the log: available and held of (book, account, asset), columns."""

    position: int
    book: npt.NDArray[Any]
    account: npt.NDArray[Any]
    asset: npt.NDArray[Any]
    available: npt.NDArray[Any]
    held: npt.NDArray[Any]

    def as_dict(self) -> dict[tuple[int, int, int], tuple[int, int]]:
        """Return (book, account, asset) -> (available, held)."""
        keys = zip(self.book.tolist(), self.account.tolist(), self.asset.tolist(), strict=True)
        values = zip(self.available.tolist(), self.held.tolist(), strict=True)
        return dict(zip(keys, values, strict=True))


class _Room:
    """Arrays for blocks, used again: to get fresh pages takes longer than to fill them."""

    def __init__(self) -> None:
        self._spare: dict[str, list[Columns]] = {kind: [] for kind in ("posting", "trade", "order")}

    def take(self, kind: str, size: int) -> Columns:
        """Return columns of `size` rows with anything in them."""
        spare = self._spare[kind]
        columns = spare.pop() if spare else {}
        rows = len(next(iter(columns.values()))) if columns else -1
        # What blocks of a long way behind needed goes once they are small again.
        if not size <= rows <= max(ROOM_MIN, size * ROOM_FACTOR):
            room = max(ROOM_MIN, size + size // ROOM_SHARE)
            columns = {name: np.empty(room, dtype) for name, dtype in column_types(kind).items()}
        return {name: column[:size] for name, column in columns.items()}

    def give_back(self, kind: str, columns: Columns) -> None:
        whole = {name: column if column.base is None else column.base for name, column in columns.items()}
        if len(self._spare[kind]) < SPARE_MAX:
            self._spare[kind].append(whole)


class Derivation:
    """Turns records into postings, one batch after the other, and keeps the books as of the last record."""

    def __init__(self, *, insurance_account: int = 0) -> None:
        """`insurance_account`: the exchange's account that is the insurance fund, 0 = none."""
        pointer = lib.ledger_new(insurance_account)
        if pointer == ffi.NULL:
            raise MemoryError("no memory for the books")
        self._own(pointer)

    def _own(self, pointer: Any) -> None:
        self._ledger = ffi.gc(pointer, lib.ledger_free)
        self._spans = ffi.new("report_span_t[]", PARTITIONS_MAX)
        self._units = ffi.new("int64_t[2]")
        self._room = _Room()
        self._block_first = self.position

    @classmethod
    def from_image(cls, image: bytes | memoryview) -> Self | None:
        """Return the derivation an image was taken of; None if this build makes others, or it is damaged."""
        pointer = lib.ledger_from_image(ffi.from_buffer("char[]", image), len(image))
        if pointer == ffi.NULL:
            return None
        made = cls.__new__(cls)
        made._own(pointer)
        return made

    def image(self) -> bytes:
        """Return the state behind the last record as bytes; the block must have been taken or dropped just before."""
        if self.rows:
            raise ValueError("the block has rows: take or drop them first")
        if self.error is not None:
            raise ValueError(self.error)
        image = ffi.new("char[]", lib.ledger_image_size(self._ledger))
        lib.ledger_write_image(self._ledger, image)
        return bytes(ffi.buffer(image))

    @property
    def position(self) -> int:
        """The next record."""
        return int(self._ledger.position)

    @property
    def last_ts_ns(self) -> int:
        """The last record's stamp, 0 before the first."""
        return int(self._ledger.last_ts_ns)

    @property
    def insurance_account(self) -> int:
        return int(self._ledger.insurance_account)

    @property
    def epoch(self) -> int:
        return int(self._ledger.epoch)

    @property
    def cluster(self) -> int:
        """The exchange's number in its log's first record, 0 before that."""
        return int(self._ledger.cluster)

    @property
    def error(self) -> str | None:
        """Why it cannot go on, None if it can."""
        return ffi.string(self._ledger.error).decode(errors="replace") if self._ledger.failed else None

    @property
    def rows(self) -> int:
        """Rows of the block so far."""
        return int(lib.ledger_row_count(self._ledger))

    @property
    def open_orders(self) -> int:
        return int(lib.ledger_open_order_count(self._ledger))

    def settled(self, partition: int) -> int:
        """Return the first report of the partition that no mark has booked yet."""
        return int(self._ledger.settled[partition])

    def wanted(self, records: bytes | memoryview) -> dict[int, tuple[int, int]]:
        """Return, by partition, the reports (first, end) that the marks among the next records book."""
        ends = ffi.new("int64_t[]", PARTITIONS_MAX)
        buffer = ffi.from_buffer("log_slot_t[]", records)
        lib.ledger_scan_marks(buffer, len(records) // SLOT_SIZE, ends)
        found = ((partition, self.settled(partition), int(end)) for partition, end in enumerate(ends) if end)
        return {partition: (first, end) for partition, first, end in found if end > first}

    def feed(self, first: int, records: bytes | memoryview, reports: Reports) -> None:
        """Derive `records`, n * 128 bytes from sequence `first` on; `reports` holds what `wanted` named.

        Raises DerivationHalted at a record that it does not understand; everything before that one is derived.
        """
        kept = []
        for partition, (start, slots) in reports.items():
            span = self._spans[partition]
            span.slots = ffi.from_buffer("report_slot_t[]", slots)
            span.first, span.count = start, len(slots) // SLOT_SIZE
            kept.append(span.slots)
        buffer = ffi.from_buffer("log_slot_t[]", records)
        done = lib.ledger_feed(self._ledger, buffer, first, len(records) // SLOT_SIZE, self._spans)
        for partition in reports:
            self._spans[partition].count = 0
        if done < 0:
            raise DerivationHalted(self.error or "the derivation failed", position=self.position)

    def take(self) -> Block:
        """Return the rows of everything derived since the last call, and begin a new block."""
        counts = ffi.new("block_counts_t *")
        self._check(lib.ledger_close_block(self._ledger, counts))
        sizes = {"posting": int(counts.postings), "trade": int(counts.trades), "order": int(counts.orders)}
        columns = [self._room.take(kind, size) for kind, size in sizes.items()]
        structs = [_struct(kind, arrays) for kind, arrays in zip(sizes, columns, strict=True)]
        self._check(lib.ledger_take_block(self._ledger, *structs))
        first, self._block_first = self._block_first, self.position
        return Block(first, self.position, self.epoch, self.last_ts_ns, *columns)

    def give_back(self, block: Block) -> None:
        """Nobody reads the block's rows any more: later blocks may be written over them. From any thread."""
        for kind, columns in (("posting", block.postings), ("trade", block.trades), ("order", block.orders)):
            self._room.give_back(kind, columns)

    def drop(self) -> None:
        """Forget the rows since the last block: a replay up to what a store has already."""
        lib.ledger_drop_block(self._ledger)
        self._block_first = self.position

    def counts(self) -> Counts:
        raw = self._ledger.counts
        return Counts(**{name: int(getattr(raw, name)) for name, _ in ffi.typeof("ledger_counts_t").fields})

    def balance(self, book: int, account: int, asset: int) -> tuple[int, int]:
        """Return available and held of one ledger account, (0, 0) if it never had any."""
        lib.ledger_balance(self._ledger, book, account, asset, self._units, self._units + 1)
        return int(self._units[0]), int(self._units[1])

    def balances(self) -> Balances:
        """Return every ledger account as of the last record."""
        count = int(lib.ledger_balance_count(self._ledger))
        columns: Columns = {
            "book": np.empty(count, np.uint8),
            "account": np.empty(count, np.uint32),
            "asset": np.empty(count, np.uint32),
            "available": np.empty(count, np.int64),
            "held": np.empty(count, np.int64),
        }
        pointers = [_pointer(array) for array in columns.values()]
        lib.ledger_balances(self._ledger, *pointers)
        return Balances(self.position, **columns)

    def _check(self, good: bool) -> None:
        if not good:
            raise MemoryError(self.error or "no memory for a block")


def _struct(kind: str, arrays: Columns) -> Any:
    """Return the C struct that points to the arrays; they must outlive it."""
    struct = ffi.new(f"{kind}_columns_t *")
    for name, array in arrays.items():
        setattr(struct, name, ffi.cast(ffi.typeof(getattr(struct, name)), array.ctypes.data))
    return struct


def _pointer(array: npt.NDArray[Any]) -> Any:
    return ffi.cast("void *", array.ctypes.data)
