"""The log ring of a running node as the Replica sees it, with the journal's files behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from journaler.chain import LogPosition, ReportFinder, RingCopier
from journaler.reader import LogCursor
from replicator.config import SLOT_SIZE, StreamConfig
from replicator.divergence import hash_key
from ringbuf import Lapped, Ring
from ringbuf.wire.messages import BookHash, Template

_BLOCK_OFFSET = 32
NS_PER_S = 1_000_000_000


class RingLog:
    """A LogPort. `look` before a round of the replicator reads the shared cursors once for all of it."""

    def __init__(
        self,
        ring: Ring,
        reports: Mapping[int, Ring],
        directory: Path,
        position: LogPosition,
        stream: StreamConfig,
        *,
        applied: Callable[[], int],
        clock_ns: Callable[[], int],
    ) -> None:
        """`position`: the end of the log in the files when the ring was made; all of it durable."""
        self._ring = ring
        self._directory = directory
        self._position = position
        self._slots_max = stream.frame_bytes // SLOT_SIZE
        self._copier = RingCopier(ring, self._slots_max)
        self._finders = [ReportFinder(reports[partition], Template.BOOK_HASH) for partition in sorted(reports)]
        self._applied = applied
        self._cursor: LogCursor | None = None
        self._rate = stream.catch_up_bytes_per_s
        self._clock_ns = clock_ns
        self._allowance = 0
        self._allowance_at_ns = clock_ns()
        self.laps = 0
        self.look()

    def look(self) -> None:
        """Read the cursors that other processes move."""
        self._seen = self._copier.look()

    @property
    def position(self) -> LogPosition:
        return self._position

    @property
    def end(self) -> int:
        return self._seen.published

    @property
    def durable(self) -> int:
        return self._seen.durable

    @property
    def commit(self) -> int:
        return self._seen.commit

    @property
    def wanted(self) -> int:
        return self._ring.wanted

    @property
    def applied(self) -> int:
        return self._applied()

    def take_hashes(self) -> list[tuple[int, int]]:
        found = []
        for finder in self._finders:
            for slot in finder.find():
                report = BookHash.unpack(slot, _BLOCK_OFFSET)
                key = hash_key(report.mark_index, report.instrument_id)
                found.append((key, report.hash_high << 64 | report.hash_low))
        return found

    def store_replicated(self, sequence: int) -> None:
        self._ring.store_replicated(sequence)
        self.look()

    def append(self, records: bytes, wanted: int) -> bool:
        done = self._ring.append(records, wanted=wanted)
        self.look()
        return done

    def copy(self, first: int, count: int) -> bytes | None:
        try:
            return self._ring.read(first, count)
        except (Lapped, ValueError):
            return None

    def read(self, first: int, end: int, slots_max: int) -> bytes | None:
        """From the ring while it has them; else from the files, at most at the rate of catching up."""
        records = self._copier.read(first, end)
        if records is not None:
            self._leave_files()
            return records
        return self._read_files(first)

    def close(self) -> None:
        self._leave_files()

    def _read_files(self, first: int) -> bytes | None:
        now_ns = self._clock_ns()
        earned = (now_ns - self._allowance_at_ns) * self._rate // NS_PER_S
        frame_bytes = self._slots_max * SLOT_SIZE
        self._allowance = min(self._allowance + earned, max(self._rate // 10, frame_bytes))
        self._allowance_at_ns = now_ns
        if self._allowance < frame_bytes:
            return None
        if self._cursor is None or self._cursor.sequence != first:
            self._leave_files()
            self._cursor = LogCursor(self._directory, first, slots_max=self._slots_max)
            self.laps += 1
        batch = self._cursor.read(self.durable)
        if batch is None:
            return None
        self._allowance -= len(batch[1])
        return batch[1]

    def _leave_files(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
