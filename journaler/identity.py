"""The identity of the log at any sequence: what two nodes, a snapshot or a note elsewhere can be compared by (J5)."""

from __future__ import annotations

from pathlib import Path

from journaler.errors import JournalError, JournalRefused
from journaler.format import SLOT_SIZE, SegmentHeader, log_hash
from journaler.reader import LogReader
from journaler.recover import FROM_PEER, Recovery
from journaler.segments import list_segments
from ringbuf.wire.messages import EpochStart, Template

TEMPLATE_OFFSET, FLAGS_OFFSET, BLOCK_OFFSET = 6, 14, 32
FLAG_REJECT = 4


def identity_at(directory: Path, sequence: int) -> int:
    """Return the log hash before record `sequence`, by walking the log. Raises JournalError if it is not all there."""
    segments = [each for each in list_segments(directory) if each.first_sequence <= sequence]
    if not segments:
        raise JournalError(f"{directory} has nothing at or below sequence {sequence}")
    with segments[-1].path.open("rb") as file:
        header = SegmentHeader.unpack(file.read(512))
    place, identity, epoch = header.first_seq, header.log_hash, header.epoch
    for first, slots in LogReader(directory).batches(place, sequence):
        identity = log_hash(slots, sequence=first, epoch=epoch, before=identity)
        epoch = _epoch_after(slots, epoch)
        place = first + len(slots) // SLOT_SIZE
    if place < sequence:
        raise JournalError(f"{directory} ends at {place}, below sequence {sequence}")
    return identity


def check_floor(directory: Path, recovery: Recovery, sequence: int, expected: int | None = None) -> None:
    """Check that the log reaches `sequence`, and has the log hash `expected` there if that is known.

    For what is known of the log from outside its folder: a peer's acknowledgement, a snapshot, a coordinator's floor.
    Raises JournalRefused.
    """
    end = recovery.position.sequence
    if end < sequence:
        reason = f"it ends at sequence {end}, but {sequence} is known to have been durable"
    elif expected is not None and identity_at(directory, sequence) != expected:
        reason = f"its records below sequence {sequence} are not those that are known to have been durable"
    else:
        return
    raise JournalRefused(reason, path=directory, offset=recovery.position.offset, sequence=end, advice=FROM_PEER)


def _epoch_after(slots: bytes, epoch: int) -> int:
    if Template.EPOCH_START & 0xFF not in slots[TEMPLATE_OFFSET::SLOT_SIZE]:
        return epoch
    for at in range(0, len(slots), SLOT_SIZE):
        template = int.from_bytes(slots[at + TEMPLATE_OFFSET : at + TEMPLATE_OFFSET + 2], "little")
        if template == Template.EPOCH_START and not slots[at + FLAGS_OFFSET] & FLAG_REJECT:
            epoch = max(epoch, EpochStart.unpack(slots, at + BLOCK_OFFSET).epoch)
    return epoch
