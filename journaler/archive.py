"""Putting back reports that the un-synced archive lost with the power: made again from the log, byte for byte."""

from __future__ import annotations

import os
from pathlib import Path

from journaler.errors import ArchiveDiverged

SLOT_SIZE = 128
ZERO_SLOT = bytes(SLOT_SIZE)


def append_missing(directory: Path, partition: int, first: int, slots: bytes) -> int:
    """Write regenerated reports from report sequence `first` on where there are none; return how many were missing.

    What is there already is compared. Raises ArchiveDiverged if it differs: then nothing was written. The caller has
    the directory's lock, or the journaler of it does not run.
    """
    if len(slots) % SLOT_SIZE:
        raise ValueError(f"{len(slots)} bytes are not whole report slots of {SLOT_SIZE}")
    folder = Path(directory) / "reports"
    folder.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(folder / str(partition), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        there = os.pread(fd, len(slots), first * SLOT_SIZE)
        there = there[: len(there) // SLOT_SIZE * SLOT_SIZE]
        if slots.startswith(there):
            missing = (len(slots) - len(there)) // SLOT_SIZE
        else:
            missing = _count_holes(partition, first, slots, there)
        if missing:
            os.pwrite(fd, slots, first * SLOT_SIZE)
            os.fdatasync(fd)
        return missing
    finally:
        os.close(fd)


def _count_holes(partition: int, first: int, slots: bytes, there: bytes) -> int:
    missing = (len(slots) - len(there)) // SLOT_SIZE
    for at in range(0, len(there), SLOT_SIZE):
        old = there[at : at + SLOT_SIZE]
        if old == slots[at : at + SLOT_SIZE]:
            continue
        if old != ZERO_SLOT:
            sequence = first + at // SLOT_SIZE
            raise ArchiveDiverged(f"report {sequence} of partition {partition} was archived with other bytes")
        missing += 1
    return missing
