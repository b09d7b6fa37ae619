"""The committed log with the reports its marks name, in order: of a running exchange, or of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from journaler.reader import LogFollower, LogReader, ReportArchive
from ringbuf import Lapped, Ring
from settlement.derivation import SLOT_SIZE, Reports
from settlement.errors import LogTrimmed, SourceNotReady

Batch = tuple[int, bytes]
_TEMPLATE_OFFSET = 4  # of a report slot


class Source(Protocol):
    """Where records and reports come from, each once and in order."""

    def read(self) -> Batch | None:
        """Return the next records, None if there are none now."""

    def reports(self, wanted: Mapping[int, tuple[int, int]]) -> Reports:
        """Return reports (first, end) by partition. Raises SourceNotReady where they cannot be read yet."""

    def close(self) -> None: ...


class LiveSource:
    """A running exchange: rings while they still hold it, files otherwise. Only an observer: nobody waits for it."""

    def __init__(self, log: Ring, reports: Mapping[int, Ring], directory: Path, start: int) -> None:
        """Raises LogTrimmed."""
        _insist_on(directory, start)
        self._follower = LogFollower(log, directory, start)
        self._archive = ReportArchive(directory)
        self._rings = reports

    @property
    def laps(self) -> int:
        """Times it had fallen so far behind that it went to the files."""
        return self._follower.laps

    def read(self) -> Batch | None:
        return self._follower.read()

    def reports(self, wanted: Mapping[int, tuple[int, int]]) -> Reports:
        return {partition: (first, self._read(partition, first, end)) for partition, (first, end) in wanted.items()}

    def close(self) -> None:
        self._follower.close()
        self._archive.close()

    def _read(self, partition: int, first: int, end: int) -> bytes:
        data = self._archive.read(partition, first, end - first)
        whole = _whole_slots(data)
        if whole < end - first:
            # Not in the archive yet, or lost there with the power and not made again yet: the ring has the newest.
            data = data[: whole * SLOT_SIZE] + self._from_ring(partition, first + whole, end)
        return data

    def _from_ring(self, partition: int, first: int, end: int) -> bytes:
        ring = self._rings[partition]
        try:
            return b"".join(
                ring.read(start, min(end - start, ring.capacity)) for start in range(first, end, ring.capacity)
            )
        except (Lapped, IndexError) as error:
            raise SourceNotReady(f"reports {first} to {end - 1} of partition {partition}: {error}") from error


class FileSource:
    """A log that nobody writes, or the part of one below `limit` that is known to be durable."""

    def __init__(self, directory: Path, start: int = 0, limit: int | None = None) -> None:
        """Raises LogTrimmed."""
        _insist_on(directory, start)
        self._batches = LogReader(directory).batches(start, limit)
        self._archive = ReportArchive(directory)

    def read(self) -> Batch | None:
        return next(self._batches, None)

    def reports(self, wanted: Mapping[int, tuple[int, int]]) -> Reports:
        found = {}
        for partition, (first, end) in wanted.items():
            data = self._archive.read(partition, first, end - first)
            whole = _whole_slots(data)
            if whole < end - first:
                raise SourceNotReady(
                    f"report {first + whole} of partition {partition} is not in the archive: start the exchange once, "
                    "it makes its reports again from the log"
                )
            found[partition] = (first, data)
        return found

    def close(self) -> None:
        self._archive.close()


def _insist_on(directory: Path, start: int) -> None:
    first = LogReader(directory).first_sequence
    if first > start:
        raise LogTrimmed(
            f"the log in {directory} begins at record {first} and is needed from record {start} on: bring its archived "
            "segments back"
        )


def _whole_slots(data: bytes) -> int:
    """Return how many slots come before the first one that is missing (zeros)."""
    templates = np.frombuffer(data, np.uint16)[_TEMPLATE_OFFSET // 2 :: SLOT_SIZE // 2]
    holes = np.flatnonzero(templates == 0)
    return int(holes[0]) if len(holes) else len(templates)
