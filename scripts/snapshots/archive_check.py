"""Compare reports that a replay made again with the archive that the live matchers filled."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from journaler import ReportArchive
from scripts.snapshots.files import SnapshotError

SLOT_SIZE = 128
WAIT_S = 20.0
PAUSE_S = 0.01


class ArchiveCheck:
    """A node whose outputs the log does not explain is not what its log says. Raises SnapshotError then.

    `allow_short`: reports that the archive does not have yet, or any more, are passed over; else they are waited for:
    the journaler writes the archive behind.
    """

    def __init__(self, journal: Path, *, allow_short: bool = False) -> None:
        self._journal = journal
        self._archive = ReportArchive(journal)
        self._allow_short = allow_short
        self.compared = 0

    def __call__(self, partition: int, first: int, slots: bytes) -> None:
        count = len(slots) // SLOT_SIZE
        if not self._allow_short:
            self._await(partition, first + count)
        archived = self._archive.read(partition, first, count)
        self.compared += len(archived) // SLOT_SIZE
        if slots.startswith(archived):
            return
        for at in range(0, len(archived), SLOT_SIZE):
            if archived[at : at + SLOT_SIZE] != slots[at : at + SLOT_SIZE]:
                raise SnapshotError(
                    f"DIVERGED: report {first + at // SLOT_SIZE} of partition {partition} in the archive is not what "
                    "the log gives"
                )

    def _await(self, partition: int, end: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while self._archive.count(partition) < end:
            if time.monotonic() > deadline:
                raise SnapshotError(
                    f"the report archive of partition {partition} ends at {self._archive.count(partition)}, "
                    f"it is needed up to {end}"
                )
            time.sleep(PAUSE_S)

    def sync(self, ends: Mapping[int, int]) -> None:
        """Have everything below `ends` on disk: a start from a snapshot there makes only later reports again."""
        for partition, end in ends.items():
            self._await(partition, end)
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(self._journal / "reports" / str(partition), os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
