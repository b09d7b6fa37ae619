"""Bytes of the journal, as format.h specifies them; for tools, marks and tests. The fast path is C."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple, Self

from journaler._journal import ffi, lib

FORMAT = 1
SLOT_SIZE = 128
BATCH_HEADER_SIZE = 64
SEGMENT_HEADER_SIZE = 512
MARK_SLOT_SIZE = 512
GROUP_SLOTS_MAX = 8

BATCH_MAGIC = 0x4A524E4C
SEGMENT_MAGIC = int.from_bytes(b"BLLJRNL1", "little")
MARK_MAGIC = int.from_bytes(b"BLLJMRK1", "little")

BATCH_FLAG_UNSYNCED = 1
SLOT_FLAG_MORE = 1

_BATCH = Struct("<IIIHHQIIQQQQ")
_SEGMENT = Struct("<QIIQQQQIIQQQQ")
_MARK = Struct("<QIIQQQQQIIQQQQ")

assert _BATCH.size == BATCH_HEADER_SIZE


def crc32c(data: bytes | bytearray | memoryview, seed: int = 0) -> int:
    """Return the CRC32C of `data`; `seed` is the checksum of what came before it."""
    return int(lib.crc32c(ffi.from_buffer(data), len(data), seed))


def log_hash(data: bytes | bytearray | memoryview, *, sequence: int, epoch: int, before: int) -> int:
    """Return the log identity after the slots in `data`, of which the first has `sequence`.

    `epoch` and `before` are the epoch and the hash before them; CORE section 9.
    """
    return int(lib.journal_log_hash(before, sequence, epoch, ffi.from_buffer(data), len(data) // SLOT_SIZE))


class BatchHeader(NamedTuple):
    magic: int
    length: int
    crc32c: int
    flags: int
    format: int
    first_seq: int
    slot_count: int
    prev_crc: int
    epoch: int
    batch: int
    log_hash: int
    ts_ns: int

    @classmethod
    def unpack(cls, buffer: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        return cls(*_BATCH.unpack_from(buffer, offset))

    def pack(self) -> bytes:
        return _BATCH.pack(*self)


class SegmentHeader(NamedTuple):
    magic: int
    format: int
    crc32c: int
    first_seq: int
    epoch: int
    batch: int
    log_hash: int
    prev_crc: int
    node: int
    cluster: int
    schema_hash: int
    segment_size: int
    ts_ns: int

    @classmethod
    def unpack(cls, buffer: bytes | bytearray | memoryview) -> Self:
        return cls(*_SEGMENT.unpack_from(buffer))

    def pack(self) -> bytes:
        return _SEGMENT.pack(*self).ljust(SEGMENT_HEADER_SIZE, b"\0")


class MarkSlot(NamedTuple):
    magic: int
    format: int
    crc32c: int
    counter: int
    sequence: int
    epoch: int
    batch: int
    log_hash: int
    crc: int
    node: int
    cluster: int
    segment_first: int
    offset: int
    ts_ns: int

    @classmethod
    def unpack(cls, buffer: bytes | bytearray | memoryview) -> Self:
        return cls(*_MARK.unpack_from(buffer))

    def pack(self) -> bytes:
        return _MARK.pack(*self).ljust(MARK_SLOT_SIZE, b"\0")
