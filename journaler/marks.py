"""durable.mark: how far this node's journal was synced, kept outside the journal (J5).

Without it a damaged last batch looks exactly like a torn one. The journaler writes it behind; nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from journaler.errors import JournalRefused
from journaler.format import FORMAT, MARK_MAGIC, MARK_SLOT_SIZE, MarkSlot, crc32c

MARK_FILE = "durable.mark"
NO_SEGMENT = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything below `sequence` was synced, and the chain was this there."""

    counter: int
    sequence: int
    epoch: int
    batch: int
    log_hash: int
    crc: int
    ts_ns: int


def decode_slot(data: bytes) -> Mark | None:
    """Return the mark of one slot, None if it is torn or empty."""
    if len(data) < MARK_SLOT_SIZE:
        return None
    slot = MarkSlot.unpack(data)
    if slot.magic != MARK_MAGIC or slot.format != FORMAT:
        return None
    if crc32c(data[:12] + b"\0\0\0\0" + data[16:MARK_SLOT_SIZE]) != slot.crc32c:
        return None
    return Mark(slot.counter, slot.sequence, slot.epoch, slot.batch, slot.log_hash, slot.crc, slot.ts_ns)


def read_mark(directory: Path) -> Mark | None:
    """Return the newest mark, None if there never was one.

    Raises JournalRefused if the file is there with neither slot valid: at most one of them can be torn by a crash.
    """
    path = directory / MARK_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    slots = [decode_slot(data[at : at + MARK_SLOT_SIZE]) for at in (0, MARK_SLOT_SIZE)]
    valid = [slot for slot in slots if slot is not None]
    if valid:
        return max(valid, key=lambda mark: mark.counter)
    if any(data):
        raise JournalRefused(
            "neither slot of the durable mark is valid",
            path=path,
            offset=0,
            sequence=0,
            advice="Verify the journal against the peer's or the backup's before starting without the mark",
        )
    return None
