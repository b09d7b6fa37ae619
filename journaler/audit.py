"""The audit chain beside the segments (J2), as audit.c specifies it: read, continued, verified.

Its SHA-256 does not depend on batches, segments or nodes. Anybody can check it without this program: it is the SHA-256
of the log's slots, 128 bytes each, one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journaler._journal import ffi, lib
from journaler.errors import JournalRefused
from journaler.format import SLOT_SIZE
from journaler.segments import audit_name, list_segments

BLOCKS_PER_SLOT = SLOT_SIZE // 64
WORDS = 8
INITIAL = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ADVICE = "Compare the journal with the peer's or the archive's; without the file the next start makes it anew"
_AUDIT_NAME = re.compile(r"segment-(\d{20})\.audit\Z")
_TEXT = re.compile(
    r"audit 1\norigin (\d+)\nfirst (\d+)\nend (\d+)\nlog_hash ([0-9a-f]{16})\n"
    r"before ([0-9a-f]{64})\nafter ([0-9a-f]{64})\nsha256 ([0-9a-f]{64})\n\Z"
)

Words = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What stands beside a closed segment. `before` and `after` are chaining values of SHA-256."""

    origin: int
    first: int
    end: int
    log_hash: int
    before: Words
    after: Words
    sha256: str


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """Where the chain goes on: at the beginning of a segment."""

    sequence: int
    origin: int
    words: Words


class AuditHash:
    """SHA-256 over log slots that can start from any chaining value."""

    def __init__(self, words: Words = INITIAL) -> None:
        self._state = ffi.new("uint32_t[]", list(words))

    def update(self, slots: bytes | bytearray | memoryview) -> None:
        lib.sha256_blocks(self._state, ffi.from_buffer(slots), len(slots) // 64)

    @property
    def words(self) -> Words:
        return tuple(int(word) for word in self._state)

    def digest(self, slot_count: int) -> str:
        """Return the SHA-256, in hex, of all the `slot_count` slots from the chain's origin to here."""
        out: Any = ffi.new("uint8_t[]", 32)
        lib.sha256_digest(self._state, slot_count * BLOCKS_PER_SLOT, out)
        return bytes(ffi.buffer(out)).hex()


def read_audit(path: Path) -> AuditRecord:
    """Return the record of one file. Raises JournalRefused if that is not one."""
    match = _TEXT.match(path.read_text(encoding="ascii", errors="replace"))
    if match is None:
        raise JournalRefused("not an audit record", path=path, offset=0, sequence=0, advice=ADVICE)
    origin, first, end, log_hash, before, after, sha256 = match.groups()
    return AuditRecord(
        origin=int(origin),
        first=int(first),
        end=int(end),
        log_hash=int(log_hash, 16),
        before=_words(before),
        after=_words(after),
        sha256=sha256,
    )


def read_audits(directory: Path) -> dict[int, AuditRecord]:
    """Return all records by the first sequence of their segments, those of deleted segments too."""
    found = {}
    for path in sorted(directory.iterdir()):
        match = _AUDIT_NAME.match(path.name)
        if match is None:
            continue
        record = read_audit(path)
        if record.first != int(match.group(1)):
            raise _broken(path, record, f"it is that of the segment that begins with {record.first}")
        found[record.first] = record
    return found


def check_links(directory: Path, records: Iterable[AuditRecord]) -> None:
    """Raise JournalRefused where a record does not go on from the one that ends where it begins."""
    by_end: dict[int, AuditRecord] = {}
    for record in sorted(records, key=lambda each: each.first):
        before = by_end.get(record.first)
        path = directory / audit_name(record.first)
        if before is not None and (before.after, before.origin) != (record.before, record.origin):
            raise _broken(path, record, f"it does not go on from {audit_name(before.first)}")
        if before is None and record.first == record.origin and record.before != INITIAL:
            raise _broken(path, record, "it is the chain's first and does not begin as one")
        by_end[record.end] = record


def chain_end(directory: Path) -> ChainEnd:
    """Return where the chain goes on: at the first segment without a record, all before it having theirs."""
    records = read_audits(directory)
    check_links(directory, records.values())
    segments = list_segments(directory)
    if not segments:
        return ChainEnd(0, 0, INITIAL)
    first = segments[0].first_sequence
    before = next((record for record in records.values() if record.end == first), None)
    end = ChainEnd(first, first, INITIAL) if before is None else ChainEnd(first, before.origin, before.after)
    for segment in segments:
        record = records.get(segment.first_sequence)
        if record is None or record.first != end.sequence:
            break
        end = ChainEnd(record.end, record.origin, record.after)
    return end


def verify_segment(record: AuditRecord, path: Path, batches: Iterable[bytes]) -> None:
    """Hash the slots of a segment and compare. Raises JournalRefused if they are not those of the record."""
    chain, count = AuditHash(record.before), 0
    for slots in batches:
        chain.update(slots)
        count += len(slots) // SLOT_SIZE
    if count != record.end - record.first:
        raise _broken(path, record, f"the segment holds {count} records, not {record.end - record.first}")
    if chain.words != record.after or chain.digest(record.end - record.origin) != record.sha256:
        raise _broken(path, record, "the records are not those that were hashed when the segment was closed")


def _broken(path: Path, record: AuditRecord, reason: str) -> JournalRefused:
    return JournalRefused(f"audit chain: {reason}", path=path, offset=0, sequence=record.first, advice=ADVICE)


def _words(text: str) -> Words:
    return tuple(int(text[at : at + 8], 16) for at in range(0, WORDS * 8, 8))
