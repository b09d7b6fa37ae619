"""Verify a journal at start and find its end: rules J4 and J5.

Whole valid batches are kept. What follows the last one is either nothing, or one batch that was being written when the
node stopped (cut, since nobody was ever told of it), or damage in what had been synced: then nothing is touched and the
start is refused with file, offset, sequence and what to do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from journaler._journal import ffi, lib
from journaler.errors import JournalRefused
from journaler.marks import NO_SEGMENT, Mark, read_mark
from journaler.segments import PANIC_FILE, Buffer, Segment, list_segments, read_segment, trimmed_to

UNBOUNDED = 2**64 - 1
FROM_PEER = "Nothing was changed. Keep the directory as it is; repair it from the peer or from a backup"
STOPS = {
    lib.WALK_MAGIC: "neither a batch nor zeros",
    lib.WALK_SHAPE: "a batch header with impossible sizes or an unknown format",
    lib.WALK_CHAIN: "a batch that does not continue the one before it",
    lib.WALK_CRC: "a batch with a wrong checksum",
    lib.WALK_HASH: "a valid batch whose log hash is not that of its records",
    lib.WALK_GROUP: "a valid batch that ends inside a linked group",
}


@dataclass(frozen=True, slots=True)
class Position:
    """Where the chain ends and the next batch goes."""

    sequence: int = 0  # of the next record
    epoch: int = 0
    batch: int = 0
    log_hash: int = 0
    crc: int = 0
    segment_first: int = NO_SEGMENT
    offset: int = 0


@dataclass(frozen=True, slots=True)
class TornTail:
    """Remains of a batch nobody was told of: not zero from `offset` to `end`."""

    path: Path
    offset: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recovery:
    verdict: Literal["clean", "torn"]
    position: Position
    first_sequence: int
    mark: Mark | None
    torn: TornTail | None
    segments: tuple[Path, ...]


class _Walk:
    """The chain through all segments."""

    def __init__(self, mark: Mark | None) -> None:
        self.chain: Any = ffi.new("journal_walk_t *")
        self.mark = mark
        self.mark_seen = mark is None

    def header(self, data: Buffer, *, adopt: bool) -> bool:
        return bool(lib.journal_walk_header(self.chain, ffi.from_buffer(data), len(data), adopt))

    def check_mark(self, path: Path) -> None:
        """The batch that ends where the mark says must be the one it saw."""
        mark = self.mark
        if mark is None or self.mark_seen or self.chain.sequence < mark.sequence:
            return
        self.mark_seen = True
        here = (self.chain.sequence, self.chain.crc, self.chain.log_hash, self.chain.batch, self.chain.epoch)
        if here != (mark.sequence, mark.crc, mark.log_hash, mark.batch, mark.epoch):
            raise JournalRefused(
                f"the journal is not the one durable.mark saw synced up to sequence {mark.sequence}",
                path=path,
                offset=int(self.chain.offset),
                sequence=int(self.chain.sequence),
                advice=FROM_PEER,
            )

    def run(self, data: Buffer, path: Path) -> None:
        """Check all batches of a segment whose header has been checked."""
        buffer = ffi.from_buffer(data)
        self.check_mark(path)
        if not self.mark_seen and self.mark is not None:
            self.chain.want = self.chain.sequence
            lib.journal_walk(self.chain, buffer, len(data), self.mark.sequence, ffi.NULL, 0)
            self.check_mark(path)
            if self.chain.stop != lib.WALK_ROOM:
                return
        self.chain.want = self.chain.sequence
        lib.journal_walk(self.chain, buffer, len(data), UNBOUNDED, ffi.NULL, 0)

    def position(self, segment_first: int, offset: int) -> Position:
        chain = self.chain
        return Position(
            sequence=int(chain.sequence),
            epoch=int(chain.epoch),
            batch=int(chain.batch),
            log_hash=int(chain.log_hash),
            crc=int(chain.crc),
            segment_first=segment_first,
            offset=offset,
        )


def _refuse(reason: str, path: Path, offset: int, sequence: int, advice: str = FROM_PEER) -> JournalRefused:
    return JournalRefused(reason, path=path, offset=offset, sequence=sequence, advice=advice)


def _first_nonzero(data: Buffer, offset: int) -> int:
    return int(lib.journal_first_nonzero(ffi.from_buffer(data), len(data), offset))


def _tail(walk: _Walk, data: Buffer, path: Path, offset: int, reason: str) -> TornTail | None:
    """Judge what follows the last whole batch of the last segment (J4)."""
    start = _first_nonzero(data, offset)
    if start == len(data):
        return None
    sequence = int(walk.chain.sequence)
    if walk.chain.stop in (lib.WALK_HASH, lib.WALK_GROUP) and offset > 0:
        raise _refuse(STOPS[walk.chain.stop], path, offset, sequence)
    later = int(lib.journal_scan(ffi.from_buffer(data), len(data), offset, walk.chain.batch + 2))
    if later:
        raise _refuse(f"{reason}, and the batch at byte {later} shows that it had been synced", path, offset, sequence)
    end = len(data) - (len(bytes(data)) - len(bytes(data).rstrip(b"\0")))
    return TornTail(path, offset, end, reason)


def _walk_middle(walk: _Walk, segment: Segment, following: Segment, data: Buffer) -> None:
    """Check a segment that is not the last: it must be whole and end where the next one begins."""
    sequence = int(walk.chain.sequence)
    if segment.first_sequence != sequence:
        raise _refuse(f"the records before it end at sequence {sequence}", segment.path, 0, segment.first_sequence)
    if not walk.header(data, adopt=False):
        raise _refuse("the segment's header is damaged or continues another journal", segment.path, 0, sequence)
    walk.run(data, segment.path)
    chain = walk.chain
    start = _first_nonzero(data, chain.offset)
    if start < len(data):
        reason = STOPS.get(chain.stop, "bytes after a gap of zeros")
        raise _refuse(reason, segment.path, int(chain.offset), int(chain.sequence))
    if chain.sequence != following.first_sequence:
        reason = f"the segment ends before {following.path.name} begins"
        raise _refuse(reason, segment.path, int(chain.offset), int(chain.sequence))


def _walk_last(walk: _Walk, segment: Segment, data: Buffer) -> tuple[int, TornTail | None]:
    """Check the last segment; return the offset of the next batch (0: its header goes there too) and what is torn."""
    sequence = int(walk.chain.sequence)
    if segment.first_sequence != sequence:
        raise _refuse(f"the records before it end at sequence {sequence}", segment.path, 0, segment.first_sequence)
    if not walk.header(data, adopt=False):
        if lib.journal_walk_header(ffi.new("journal_walk_t *"), ffi.from_buffer(data), len(data), True):
            raise _refuse("the segment's header continues another journal", segment.path, 0, sequence)
        # Header and first batch are one write: a crash may have left any part of it.
        return 0, _tail(walk, data, segment.path, 0, "an incomplete segment header")
    walk.run(data, segment.path)
    if walk.chain.offset == 512 and walk.chain.sequence == sequence:
        # The header came through and its batch did not: both are written again.
        return 0, _tail(walk, data, segment.path, 0, "a segment header without its first batch")
    offset = int(walk.chain.offset)
    return offset, _tail(walk, data, segment.path, offset, STOPS.get(walk.chain.stop, "bytes after a gap of zeros"))


def recover(
    directory: Path, *, require_mark: bool = True, allow_trimmed: bool = False, direct: bool = False
) -> Recovery:
    """Verify the whole journal and return where it ends. Reads only.

    `allow_trimmed` accepts a beginning that is gone without retention having deleted it. `require_mark=False` is for
    an operator who has compared with the peer. `direct` reads past the page cache.
    Raises JournalRefused, or OSError if the disk cannot be read.
    """
    mark = read_mark(directory)
    segments = list_segments(directory)
    walk = _Walk(mark)
    offset, torn = 0, None
    first = segments[0].first_sequence if segments else 0
    if first > trimmed_to(directory) and not allow_trimmed:
        raise _refuse(f"the records before sequence {first} are missing", segments[0].path, 0, 0)
    for index, segment in enumerate(segments):
        data = read_segment(segment.path, direct=direct)
        if index == 0 and first != 0 and not walk.header(data, adopt=True):
            raise _refuse("the header of the oldest segment is damaged", segment.path, 0, first)
        if index + 1 < len(segments):
            _walk_middle(walk, segment, segments[index + 1], data)
        else:
            offset, torn = _walk_last(walk, segment, data)
    last = segments[-1] if segments else None
    sequence = int(walk.chain.sequence)
    path = last.path if last else directory
    if mark is not None and sequence < mark.sequence:
        what = torn.reason if torn else "the journal ends"
        raise _refuse(f"{what}, but durable.mark says that sequence {mark.sequence} was synced", path, offset, sequence)
    walk.check_mark(path)
    if mark is None and require_mark and (sequence > 0 or torn):
        reason = "durable.mark is missing, so damage at the end could not be told from a crash"
        raise _refuse(reason, path, offset, sequence)
    return Recovery(
        verdict="torn" if torn else "clean",
        position=walk.position(last.first_sequence if last else NO_SEGMENT, offset),
        first_sequence=first,
        mark=mark,
        torn=torn,
        segments=tuple(segment.path for segment in segments),
    )


def cut(recovery: Recovery) -> None:
    """Zero the torn tail and sync, so that nothing of it can be read later; remove half-made files."""
    torn = recovery.torn
    if torn is not None:
        fd = os.open(torn.path, os.O_WRONLY)
        try:
            os.pwrite(fd, bytes(torn.end - torn.offset), torn.offset)
            os.fsync(fd)
        finally:
            os.close(fd)


def panicked(directory: Path) -> str | None:
    """Return what a journaler said when a write or sync failed, None if none did (J8)."""
    try:
        return (directory / PANIC_FILE).read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
