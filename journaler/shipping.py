"""Copies a journal to another place as it grows, for the day when both nodes are lost (RELIABILITY B1).

The copy is a journal itself: the same segment files with the same bytes, as far as `durable.mark` says that they are
synced, and a mark of its own that is written last. So `recover` judges it as it does any journal, and a crash leaves
the copy of the pass before. What the source has cut off since (a fork, Z5) is put aside, never lost.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from journaler.chain import position_at
from journaler.cursors import store_cursor
from journaler.errors import JournalError
from journaler.format import MARK_SLOT_SIZE, SEGMENT_HEADER_SIZE, MarkSlot
from journaler.marks import MARK_FILE, NO_SEGMENT, decode_slot
from journaler.segments import Segment, audit_name, list_segments, segment_name, sync_directory, write_at, write_whole

CONSUMER = "offsite"
CHUNK = 1 << 20
ASIDE = "aside"
ARCHIVE = "bring the archived segments to the copy first"


@dataclass(frozen=True, slots=True)
class Shipped:
    """What one pass has done: the copy holds everything below `sequence`."""

    sequence: int
    epoch: int
    copied_bytes: int
    put_aside: Path | None = None


def durable_mark(directory: Path) -> MarkSlot | None:
    """Return the newest whole slot of durable.mark: it says in which file, and where there, the synced log ends."""
    try:
        data = (directory / MARK_FILE).read_bytes()
    except FileNotFoundError:
        return None
    parts = [data[at : at + MARK_SLOT_SIZE] for at in (0, MARK_SLOT_SIZE)]
    whole = [MarkSlot.unpack(part) for part in parts if decode_slot(part) is not None]
    return max(whole, key=lambda slot: slot.counter, default=None)


def cut_at_mark(directory: Path) -> None:
    """Drop from a copy of a copy what its mark does not vouch for: the parts of a pass that did not end.

    Raises JournalError if there is no mark.
    """
    mark = durable_mark(directory)
    if mark is None:
        raise JournalError(f"{directory / MARK_FILE} is missing: no pass of the shipping has ended")
    for segment in list_segments(directory):
        if segment.first_sequence > mark.segment_first:
            segment.path.unlink()
            (directory / audit_name(segment.first_sequence)).unlink(missing_ok=True)
        elif segment.first_sequence == mark.segment_first:
            size = segment.path.stat().st_size
            with segment.path.open("r+b") as file:
                file.truncate(mark.offset)
                file.truncate(size)
                os.fsync(file.fileno())
    sync_directory(directory)


class Shipper:
    """Call `ship` now and then."""

    def __init__(self, source: Path, target: Path) -> None:
        """`target` is made if it is not there; if it is, it must be empty or an earlier copy of this log."""
        self._source = source
        self._target = target
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._seen: MarkSlot | None = None  # the source's mark that was shipped last; None: compare the logs first

    def ship(self) -> Shipped | None:
        """Copy what has been synced since the last pass; None if there is nothing in the source yet.

        Raises JournalError if the source has deleted records that the copy lacks, OSError if a disk fails.
        """
        mark = durable_mark(self._source)
        if mark is None or mark.segment_first == NO_SEGMENT:
            return None
        place, aside = self._place(mark)
        copied = 0
        for segment in list_segments(self._source):
            if place[0] <= segment.first_sequence <= mark.segment_first:
                start = place[1] if segment.first_sequence == place[0] else 0
                end = mark.offset if segment.first_sequence == mark.segment_first else segment.path.stat().st_size
                copied += self._copy(segment, start, end)
        self._copy_audits(mark)
        sync_directory(self._target)
        if copied or self._seen is None:
            self._write_mark(mark)
            store_cursor(self._source, CONSUMER, mark.sequence)
        self._seen = mark
        return Shipped(mark.sequence, mark.epoch, copied, aside)

    # --- where to go on -----------------------------------------------------------------------------------------------

    def _place(self, mark: MarkSlot) -> tuple[tuple[int, int], Path | None]:
        """Return (segment, offset) from which on to copy, and where a part that the source cut off was put."""
        have = durable_mark(self._target)
        segments = list_segments(self._source)
        if not segments:
            raise JournalError(f"{self._source} has a mark and no segments: there is nothing to copy")
        if have is None:
            if segments[0].first_sequence > 0:
                raise JournalError(f"{self._source} does not hold the log's beginning: {ARCHIVE}")
            return (0, 0), self._put_aside(0)  # of a first pass that a crash ended
        if segments[0].first_sequence > have.segment_first:
            raise JournalError(f"{self._source} begins behind {have.sequence}, where the copy ends: {ARCHIVE}")
        seen = self._seen
        grown = seen is not None and seen.epoch == mark.epoch and seen.sequence <= mark.sequence
        if grown or self._is_copy(have, mark):
            return (have.segment_first, have.offset), None
        first = self._last_common()
        return (first, 0), self._put_aside(first)

    def _is_copy(self, have: MarkSlot, mark: MarkSlot) -> bool:
        """Whether the copy, whole, is the beginning of the source."""
        if have.sequence > mark.sequence:
            return False
        position = position_at(self._source, have.sequence)
        same_file = self._headers_agree(have.segment_first)
        return position is not None and position.chain == have.log_hash and same_file

    def _last_common(self) -> int:
        """The newest segment that begins alike on both sides; 0 if none does."""
        names = [segment.first_sequence for segment in list_segments(self._target)]
        return next((first for first in reversed(names) if self._headers_agree(first)), 0)

    def _headers_agree(self, first: int) -> bool:
        def header(directory: Path) -> bytes:
            try:
                with (directory / segment_name(first)).open("rb") as file:
                    return file.read(SEGMENT_HEADER_SIZE)
            except FileNotFoundError:
                return b""

        return header(self._source) == header(self._target) != b""

    def _put_aside(self, first: int) -> Path | None:
        """Move the copy's files from segment `first` on, with the mark that vouches for them, to a folder beside it."""
        later = [segment for segment in list_segments(self._target) if segment.first_sequence >= first]
        if not later:
            return None
        folder = self._target.with_name(f"{self._target.name}-{ASIDE}-{time.time_ns()}")
        folder.mkdir(mode=0o700)
        for segment in reversed(later):
            segment.path.rename(folder / segment.path.name)
            (self._target / audit_name(segment.first_sequence)).unlink(missing_ok=True)
        if (self._target / MARK_FILE).exists():
            (self._target / MARK_FILE).rename(folder / MARK_FILE)
        sync_directory(folder)
        sync_directory(self._target)
        return folder

    # --- copying ------------------------------------------------------------------------------------------------------

    def _copy(self, segment: Segment, start: int, end: int) -> int:
        """Bring [start, end) of one segment over; the rest of the copy is a hole, which reads as zeros."""
        if start >= end:
            return 0
        target = os.open(self._target / segment.path.name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with segment.path.open("rb") as source:
                os.ftruncate(target, os.fstat(source.fileno()).st_size)
                for offset in range(start, end, CHUNK):
                    data = os.pread(source.fileno(), min(CHUNK, end - offset), offset)
                    write_at(target, data, offset)
            os.fsync(target)
        finally:
            os.close(target)
        return end - start

    def _copy_audits(self, mark: MarkSlot) -> None:
        """The audit record of a closed segment is written some time after it."""
        for segment in list_segments(self._target):
            name = audit_name(segment.first_sequence)
            source, target = self._source / name, self._target / name
            if segment.first_sequence < mark.segment_first and source.exists() and not target.exists():
                write_whole(target, source.read_bytes())

    def _write_mark(self, mark: MarkSlot) -> None:
        write_whole(self._target / MARK_FILE, mark.pack() + bytes(MARK_SLOT_SIZE))
