"""The identity of the log at any sequence: what two nodes compare, whose files frame the same records differently."""

from __future__ import annotations

import bisect
import mmap
from pathlib import Path
from typing import NamedTuple

from journaler._journal import ffi, lib
from journaler.reader import SLOT_SIZE, UNBOUNDED, ring_pointer
from journaler.segments import list_segments
from ringbuf import Ring


class LogPosition(NamedTuple):
    """A place in the log: two logs with the same position are the same below it (CORE section 9)."""

    sequence: int = 0  # of the next record
    epoch: int = 0  # of the record before it
    chain: int = 0  # log hash over everything below


def extend(position: LogPosition, slots: bytes | bytearray | memoryview) -> LogPosition:
    """Return where the log stands after the slots (n x 128 bytes) that follow `position`."""
    chain = ffi.new("journal_chain_t *", tuple(position))
    lib.journal_chain_extend(chain, ffi.from_buffer(slots), len(slots) // SLOT_SIZE)
    return LogPosition(chain.sequence, chain.epoch, chain.log_hash)


def position_at(directory: Path, sequence: int) -> LogPosition | None:
    """Return the log's identity at `sequence` from the files; None if it is older or newer than they are.

    Reads the segment it lies in up to there, checking each batch. A batch that is just being written ends the log.
    """
    segments = list_segments(directory)
    index = bisect.bisect_right([segment.first_sequence for segment in segments], sequence) - 1
    if index < 0:
        return LogPosition() if sequence == 0 and not segments else None
    # At the first sequence of a segment that has no batch yet, the one before knows.
    for segment in (segments[index], *(segments[index - 1 : index] if index else ())):
        with segment.path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            buffer = ffi.from_buffer(mapped)
            walk, chain = ffi.new("journal_walk_t *"), ffi.new("journal_chain_t *")
            known = bool(lib.journal_walk_header(walk, buffer, len(mapped), True))
            found = known and lib.journal_chain_at(walk, buffer, len(mapped), sequence, chain) == lib.WALK_ROOM
            ffi.release(buffer)
            if found:
                return LogPosition(chain.sequence, chain.epoch, chain.log_hash)
            if known:
                return None
    return LogPosition() if sequence == 0 else None


class RingLook(NamedTuple):
    """The cursors of the log ring at one moment."""

    published: int
    durable: int  # the journaler's cursor
    commit: int


class RingCopier:
    """The replicator's view of the log ring: copies of what is published, committed or not."""

    def __init__(self, ring: Ring, slots_max: int) -> None:
        self._ring = ring  # keeps its memory mapped
        self._handle = ring_pointer(ring)
        self._out = ffi.new("uint8_t[]", slots_max * SLOT_SIZE)
        self._slots_max = slots_max
        self._view = ffi.new("journal_ring_view_t *")

    def look(self) -> RingLook:
        lib.journal_view_ring(self._handle, self._view)
        view = self._view
        return RingLook(int(view.published), int(view.cursor), int(view.commit))

    def read(self, first: int, end: int) -> bytes | None:
        """Return whole groups of [first, end), at most `slots_max` slots; None if the ring has moved on."""
        count = lib.journal_copy(self._handle, first, end, self._out, self._slots_max)
        return None if count < 0 else bytes(ffi.buffer(self._out, count * SLOT_SIZE))


class ReportFinder:
    """Finds the reports of one template in a report ring, from what is published now on."""

    def __init__(self, ring: Ring, template: int, slots_max: int = 256) -> None:
        self._ring = ring
        self._handle = ring_pointer(ring)
        self._template = template
        self._slots_max = slots_max
        self._out = ffi.new("uint8_t[]", slots_max * SLOT_SIZE)
        self._next = ffi.new("int64_t *", ring.published)

    def find(self) -> list[bytes]:
        """Return the slots since the last call. What the ring no longer has is not found."""
        found: list[bytes] = []
        published = self._ring.published
        self._next[0] = max(self._next[0], published - self._ring.capacity)
        while self._next[0] < published:
            args = (self._handle, self._next, published, self._template, self._out, self._slots_max)
            count = lib.journal_select(*args)
            data = bytes(ffi.buffer(self._out, count * SLOT_SIZE))
            found += [data[at : at + SLOT_SIZE] for at in range(0, len(data), SLOT_SIZE)]
        return found


def end_of(directory: Path) -> LogPosition:
    """Return the log's identity at its end, from the last segments only: of a log that was verified before."""
    for segment in reversed(list_segments(directory)):
        with segment.path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            buffer = ffi.from_buffer(mapped)
            walk, chain = ffi.new("journal_walk_t *"), ffi.new("journal_chain_t *")
            known = bool(lib.journal_walk_header(walk, buffer, len(mapped), True))
            if known:
                lib.journal_chain_at(walk, buffer, len(mapped), UNBOUNDED, chain)
            ffi.release(buffer)
            if known:
                return LogPosition(chain.sequence, chain.epoch, chain.log_hash)
    return LogPosition()
