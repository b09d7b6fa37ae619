"""Putting back what the un-synced archives lost with the power: made again from the log, byte for byte."""

from __future__ import annotations

import os
from pathlib import Path

from journaler.errors import ArchiveDiverged
from journaler.segments import write_at

SLOT_SIZE = 128
MARKET_SLOT_SIZE = 64


def append_missing(directory: Path, partition: int, first: int, slots: bytes) -> int:
    """Write regenerated reports from report sequence `first` on where there are none; return how many were missing.

    What is there already is compared. Raises ArchiveDiverged if it differs: then nothing was written. The caller has
    the directory's lock, or the journaler of it does not run.
    """
    return _append(Path(directory) / "reports", SLOT_SIZE, partition, first, slots)


def append_missing_market(directory: Path, partition: int, first: int, slots: bytes) -> int:
    """The same with market slots. The journaler may run: what it writes meanwhile are the same bytes."""
    return _append(Path(directory) / "market", MARKET_SLOT_SIZE, partition, first, slots)


def _append(folder: Path, size: int, partition: int, first: int, slots: bytes) -> int:
    if len(slots) % size:
        raise ValueError(f"{len(slots)} bytes are not whole slots of {size}")
    folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(folder / str(partition), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        there = os.pread(fd, len(slots), first * size)
        there = there[: len(there) // size * size]
        if slots.startswith(there):
            missing = (len(slots) - len(there)) // size
        else:
            missing = _count_holes(folder, size, partition, first, slots, there)
        if missing:
            write_at(fd, slots, first * size)
            os.fdatasync(fd)
        return missing
    finally:
        os.close(fd)


def _count_holes(folder: Path, size: int, partition: int, first: int, slots: bytes, there: bytes) -> int:
    missing = (len(slots) - len(there)) // size
    for at in range(0, len(there), size):
        old = there[at : at + size]
        if old == slots[at : at + size]:
            continue
        if any(old):
            sequence = first + at // size
            kind = "report" if folder.name == "reports" else "market slot"
            raise ArchiveDiverged(f"{kind} {sequence} of partition {partition} was archived with other bytes")
        missing += 1
    return missing
