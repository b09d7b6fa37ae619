"""Reading the log and the report archive: what other packages may use of the journaler.

LogReader reads files. LogFollower is the one reader of CORE K1: from the ring while the ring still holds it, from the
files when lapped, then from the ring again. ReportArchive reads old reports. All hand out copies of whole slots.
"""

from __future__ import annotations

import bisect
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from journaler._journal import ffi, lib
from journaler.errors import JournalRefused
from journaler.segments import Segment, list_segments
from ringbuf import Ring
from ringbuf.wait import address

SLOT_SIZE = 128
BATCH_SLOTS_MAX = 8192
UNBOUNDED = 2**64 - 1

Batch = tuple[int, bytes]  # first sequence, n * 128 bytes of whole linked groups


def ring_pointer(ring: Ring) -> Any:
    """Return the ring for this package's C; it must stay open as long as that uses it.

    Each extension has types of its own, so the address crosses.
    """
    return ffi.cast("ring_t *", address(ring.ptr))


class LogCursor:
    """A place in the log's files that moves forward."""

    def __init__(self, directory: Path, sequence: int = 0, *, slots_max: int = BATCH_SLOTS_MAX) -> None:
        self._directory = directory
        self._next = sequence
        self._slots_max = slots_max
        self._out = ffi.new("uint8_t[]", slots_max * SLOT_SIZE)
        self._walk = ffi.new("journal_walk_t *")
        self._segment: Segment | None = None
        self._map: mmap.mmap | None = None
        self._buffer: Any = None

    @property
    def sequence(self) -> int:
        """The next sequence to be read."""
        return self._next

    def read(self, limit: int | None = None) -> Batch | None:
        """Return the next records, None if there are none yet.

        With `limit`, only records below it, and all of those must be there: give what is known to be durable. Raises
        JournalRefused where they are damaged. Without it a batch that is just being written ends the log for now.
        """
        bound = UNBOUNDED if limit is None else limit
        while self._next < bound:
            if not self._open():
                return None
            walk = self._walk
            walk.want = self._next
            count = lib.journal_walk(walk, self._buffer, len(self._buffer), bound, self._out, self._slots_max)
            if count > 0:
                first = int(walk.want) - count
                self._next = int(walk.want)
                return first, bytes(ffi.buffer(self._out, count * SLOT_SIZE))
            if walk.stop == lib.WALK_ROOM:
                return None
            following = self._following()
            if following is None:
                if walk.stop != lib.WALK_END:
                    self._damaged_or_in_flight(limit)
                return None
            if walk.stop != lib.WALK_END or following.first_sequence != walk.sequence:
                self._damaged("a segment does not end where the next one begins")
            if not self._enter(following, adopt=False):
                return None
        return None

    def close(self) -> None:
        self._buffer = None
        if self._map is not None:
            self._map.close()
            self._map = None
        self._segment = None

    def _open(self) -> bool:
        if self._segment is not None:
            return True
        segments = list_segments(self._directory)
        index = bisect.bisect_right([segment.first_sequence for segment in segments], self._next) - 1
        return index >= 0 and self._enter(segments[index], adopt=True)

    def _following(self) -> Segment | None:
        assert self._segment is not None
        later = [each for each in list_segments(self._directory) if each.first_sequence > self._segment.first_sequence]
        return later[0] if later else None

    def _enter(self, segment: Segment, *, adopt: bool) -> bool:
        """Map a segment and check its header; False while its first batch is still to be written."""
        with segment.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        buffer = ffi.from_buffer(mapped)
        if not lib.journal_walk_header(self._walk, buffer, len(buffer), adopt):
            empty = lib.journal_first_nonzero(buffer, 512, 0) == 512
            del buffer
            mapped.close()
            if empty:
                return False
            raise self._refusal("the segment's header is damaged", segment.path, 0, segment.first_sequence)
        self.close()
        self._segment, self._map, self._buffer = segment, mapped, buffer
        return True

    def _refusal(self, reason: str, path: Path, offset: int, sequence: int) -> JournalRefused:
        advice = "Run `bullring journal verify` on the directory"
        return JournalRefused(reason, path=path, offset=offset, sequence=sequence, advice=advice)

    def _damaged(self, reason: str) -> None:
        assert self._segment is not None
        raise self._refusal(reason, self._segment.path, int(self._walk.offset), int(self._walk.sequence))

    def _damaged_or_in_flight(self, limit: int | None) -> None:
        walk = self._walk
        if limit is not None:
            self._damaged("a damaged batch below the durable end of the log")
        if lib.journal_scan(self._buffer, len(self._buffer), walk.offset, walk.batch + 2):
            self._damaged("a damaged batch before valid ones")


class LogReader:
    """The log in the files of a directory, as far as it is whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = Path(directory)

    @property
    def first_sequence(self) -> int:
        """The oldest sequence in the files."""
        segments = list_segments(self._directory)
        return segments[0].first_sequence if segments else 0

    @property
    def end(self) -> int:
        """The sequence after the last whole record. Checks the last segment; a live journal may already be further."""
        segments = list_segments(self._directory)
        for segment in reversed(segments):
            cursor = LogCursor(self._directory, segment.first_sequence)
            while cursor.read() is not None:
                pass
            end = cursor.sequence
            cursor.close()
            if end > segment.first_sequence or segment is segments[0]:
                return end
        return 0

    @property
    def last_sequence(self) -> int:
        """The last whole record, -1 if there is none."""
        return self.end - 1

    def batches(self, start: int = 0, limit: int | None = None, slots_max: int = BATCH_SLOTS_MAX) -> Iterator[Batch]:
        """Yield (first sequence, slots) from `start` on, up to `limit` or the end; never ends inside a linked group.

        `start` must be the beginning of a group. Raises JournalRefused at damage, and if `start` is older than the
        files.
        """
        if start < self.first_sequence:
            raise JournalRefused(
                f"sequence {start} is older than the files",
                path=self._directory,
                offset=0,
                sequence=self.first_sequence,
                advice="Bring the archived segments back",
            )
        cursor = LogCursor(self._directory, start, slots_max=slots_max)
        try:
            while (batch := cursor.read(limit)) is not None:
                yield batch
        finally:
            cursor.close()

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()


class LogFollower:
    """Every observer's view of the log: never misses a record, never holds the sequencer up (CORE K1).

    Sees a record only when the ring shows it (commit in D1 and D2, pub in D0), also when it comes from a file.
    """

    def __init__(self, ring: Ring, directory: Path, start: int = 0, *, slots_max: int = BATCH_SLOTS_MAX) -> None:
        self._ring = ring
        self._handle = ring_pointer(ring)
        self._directory = Path(directory)
        self._next = start
        self._slots_max = slots_max
        self._out = ffi.new("uint8_t[]", slots_max * SLOT_SIZE)
        self._view = ffi.new("journal_ring_view_t *")
        self._files: LogCursor | None = None
        self.laps = 0  # times it had to go to the files

    @property
    def sequence(self) -> int:
        """The next sequence to be read."""
        return self._next

    def read(self) -> Batch | None:
        """Return the next visible records, None if there are none yet."""
        count = lib.journal_follow(self._handle, self._next, self._out, self._slots_max)
        if count == 0:
            return None
        if count > 0:
            first = self._next
            self._next = first + count
            self._leave_files()
            return first, bytes(ffi.buffer(self._out, count * SLOT_SIZE))
        return self._read_files()

    def close(self) -> None:
        self._leave_files()

    def _read_files(self) -> Batch | None:
        if self._files is None:
            self._files = LogCursor(self._directory, self._next, slots_max=self._slots_max)
            self.laps += 1
        lib.journal_view_ring(self._handle, self._view)
        durable = min(int(self._view.visible), int(self._view.cursor)) if self._view.gating else int(self._view.commit)
        batch = self._files.read(durable)
        if batch is not None:
            self._next = batch[0] + len(batch[1]) // SLOT_SIZE
        return batch

    def _leave_files(self) -> None:
        if self._files is not None:
            self._files.close()
            self._files = None


class ReportArchive:
    """Old reports by partition and report sequence, as far as they were written."""

    def __init__(self, directory: Path) -> None:
        self._folder = Path(directory) / "reports"
        self._files: dict[int, int] = {}

    def count(self, partition: int) -> int:
        """The report sequence after the last one in the archive, 0 if there is no file."""
        fd = self._file(partition)
        return 0 if fd is None else os.fstat(fd).st_size // SLOT_SIZE

    def read(self, partition: int, first: int, count: int) -> bytes:
        """Return up to `count` slots from report sequence `first` on; fewer at the end, empty beyond it.

        A slot of zeros (template 0) is one that a power loss took and that has not been made again yet.
        """
        fd = self._file(partition)
        if fd is None or count <= 0:
            return b""
        data = os.pread(fd, count * SLOT_SIZE, first * SLOT_SIZE)
        return data[: len(data) // SLOT_SIZE * SLOT_SIZE]

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()

    def _file(self, partition: int) -> int | None:
        fd = self._files.get(partition)
        if fd is None:
            try:
                fd = os.open(self._folder / str(partition), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            self._files[partition] = fd
        return fd
