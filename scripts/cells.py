"""What the processes of a replicated node tell one another while it runs: a page of 64-bit cells in its run folder.

Each cell has one writer. An aligned 64-bit store is one store, so a reader sees the old value or the new one.
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from pathlib import Path

CELLS_FILE = "role.cells"
PARTITIONS_MAX = 64


class Cell(IntEnum):
    """Name and place. Behind them: how far each owner has applied the log, by partition, 0 = the sequencer."""

    LEAD_EPOCH = 0  # replicator: become the leader of this epoch
    HOLD = 1  # replicator: write no record
    CANCEL_ONLY = 2  # replicator: gateways take nothing that could rest
    LEADING_EPOCH = 3  # sequencer: leads this epoch
    HELD_END = 4  # sequencer: holds; the end of its log + 1, 0 = does not hold
    DIVERGED = 5  # sequencer: the hash mark + 1 at which its state is not the primary's
    BEAT_MS = 6  # sequencer: monotonic time of its last turn
    APPLIED = 8


class Cells:
    """The page, mapped."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("q")

    @classmethod
    def create(cls, run_dir: Path) -> Cells:
        """Make the page anew, all zero: those who still have the old one write into nothing."""
        path = run_dir / CELLS_FILE
        draft = path.with_suffix(".new")
        draft.write_bytes(bytes(mmap.PAGESIZE))
        draft.chmod(0o660)
        draft.replace(path)
        return cls(path)

    @classmethod
    def attach(cls, run_dir: Path) -> Cells:
        return cls(run_dir / CELLS_FILE)

    def __getitem__(self, cell: int) -> int:
        return self._words[cell]

    def __setitem__(self, cell: int, value: int) -> None:
        self._words[cell] = value

    def applied(self, partitions: int) -> int:
        """How far the slowest owner is."""
        return min(self._words[Cell.APPLIED + partition] for partition in range(partitions + 1))

    def close(self) -> None:
        self._words.release()
        self._map.close()
