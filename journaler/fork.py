"""Cut the end of a log off that the leader does not have (Z5, F9), keeping a copy of what is cut.

Safe against a crash at any moment: the copy first, then a lower durable mark, then segments from the newest on, at last
the segment in which the cut lies, replaced as a whole. Who starts again finds a log that ends at the cut or later.
"""

from __future__ import annotations

import bisect
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from journaler._journal import ffi, lib
from journaler.chain import LogPosition, extend
from journaler.errors import JournalError, JournalLocked
from journaler.format import BATCH_HEADER_SIZE, SLOT_FLAG_MORE, SLOT_SIZE, BatchHeader, crc32c
from journaler.marks import read_mark
from journaler.reader import LogReader
from journaler.recover import Position, recover
from journaler.repair import write_mark
from journaler.segments import audit_name, list_segments, lock_directory, sync_directory

FORKED = "forked"
FLAGS_OFFSET = 14


class Fork(NamedTuple):
    """What was cut."""

    position: Position  # where the log ends now
    cut: int  # records
    kept_in: Path | None


def cut_fork(directory: Path, sequence: int) -> Fork:
    """Make the log end at `sequence`, or where the linked group begins that it lies in.

    Raises JournalLocked if the journal is being written, JournalRefused or JournalError if it is not whole as it is.
    """
    lock = lock_directory(directory)
    if lock is None:
        raise JournalLocked(f"{directory} is being written: a log is cut only while nobody writes it")
    try:
        recovery = recover(directory)
        end = recovery.position.sequence
        if sequence >= end:
            return Fork(recovery.position, 0, None)
        if sequence < recovery.first_sequence:
            raise JournalError(f"{directory} begins at {recovery.first_sequence}: cannot end at {sequence}")
        place = _find(directory, sequence)
        kept_in = _keep(directory, place.end, end)
        mark = read_mark(directory)
        counter = mark.counter if mark is not None else 0
        write_mark(directory, place.before, counter=counter + 1)
        _cut(directory, place)
        position = recover(directory).position
        write_mark(directory, position, counter=counter + 2)
        return Fork(position, end - position.sequence, kept_in)
    finally:
        os.close(lock)


class _Place(NamedTuple):
    """The batch in which the cut lies."""

    path: Path
    first_sequence: int  # of its segment
    offset: int  # of the batch
    before: Position  # the log's end without the batch
    stay: int  # records of the batch
    end: int


def _find(directory: Path, sequence: int) -> _Place:
    segments = list_segments(directory)
    segment = segments[bisect.bisect_right([each.first_sequence for each in segments], sequence) - 1]
    data = segment.path.read_bytes()
    buffer, walk = ffi.from_buffer(data), ffi.new("journal_walk_t *")
    if not lib.journal_walk_header(walk, buffer, len(data), True):
        raise JournalError(f"{segment.path}: its header is damaged")
    while True:
        before = _position(walk, segment.first_sequence)
        walk.want = walk.sequence
        lib.journal_walk(walk, buffer, len(data), walk.sequence + 1, ffi.NULL, 0)
        if walk.stop != lib.WALK_ROOM:
            raise JournalError(f"{segment.path}: no record {sequence}")
        walk.held = 0
        if walk.sequence > sequence:
            break
    count = sequence - before.sequence
    slots = before.offset + BATCH_HEADER_SIZE
    while count > 0 and data[slots + (count - 1) * SLOT_SIZE + FLAGS_OFFSET] & SLOT_FLAG_MORE:
        count -= 1
    return _Place(segment.path, segment.first_sequence, before.offset, before, count, before.sequence + count)


def _position(walk: Any, segment_first: int) -> Position:
    values = {name: int(getattr(walk, name)) for name in ("sequence", "epoch", "batch", "log_hash", "crc", "offset")}
    return Position(segment_first=segment_first, **values)


def _keep(directory: Path, first: int, end: int) -> Path:
    """Write the records from `first` on, and what they were, beside the journal."""
    folder = directory / FORKED / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{first}-{end}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that a crash ended
    folder.mkdir(parents=True)
    with (folder / "records").open("wb") as file:
        for _, slots in LogReader(directory).batches(first, end):
            file.write(slots)
        file.flush()
        os.fsync(file.fileno())
    note = {"first": first, "end": end, "slot_bytes": SLOT_SIZE, "cut_at_unix_ns": time.time_ns()}
    (folder / "note.json").write_text(json.dumps(note) + "\n")
    sync_directory(folder)
    sync_directory(directory / FORKED)
    sync_directory(directory)
    return folder


def _cut(directory: Path, place: _Place) -> None:
    for segment in reversed(list_segments(directory)):
        if segment.first_sequence < place.first_sequence:
            break
        (directory / audit_name(segment.first_sequence)).unlink(missing_ok=True)
        if segment.first_sequence > place.first_sequence or place.end == place.first_sequence:
            segment.path.unlink()
            sync_directory(directory)
    if place.end == place.first_sequence:
        return
    data = place.path.read_bytes()
    kept = data[: place.offset] + _shorter_batch(data, place)
    draft = place.path.with_suffix(".tmp")
    with draft.open("wb") as file:
        file.write(kept.ljust(len(data), b"\0"))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(place.path)
    sync_directory(directory)


def _shorter_batch(data: bytes, place: _Place) -> bytes:
    """The batch with its first `count` records only: the same number and chain, its own checksum."""
    if place.stay == 0:
        return b""
    start = place.offset + BATCH_HEADER_SIZE
    slots = data[start : start + place.stay * SLOT_SIZE]
    before = LogPosition(place.before.sequence, place.before.epoch, place.before.log_hash)
    header = BatchHeader.unpack(data, place.offset)._replace(
        length=len(slots), slot_count=place.stay, log_hash=extend(before, slots).chain, crc32c=0
    )
    crc = crc32c(slots, crc32c(header.pack(), header.prev_crc))
    return header._replace(crc32c=crc).pack() + slots
