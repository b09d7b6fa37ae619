"""Which segments may be deleted (J10), and deleting them.

A closed segment may go when all of this is true: enough newer verified snapshots cover it, every registered consumer
is past it, its audit record is written, and, if there is an archive, that holds it with matching SHA-256. Only the
oldest segments go, so the log that stays has no hole. In doubt everything stays.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from journaler.archiving import DirectoryArchive
from journaler.audit import read_audits
from journaler.cursors import read_cursors
from journaler.errors import JournalLocked
from journaler.segments import TRIM_FILE, audit_name, list_segments, sync_directory, trimmed_to, write_whole

RETENTION_LOCK = "retention.lock"
SNAPSHOTS_MIN = 2


@dataclass(frozen=True, slots=True)
class SnapshotFact:
    """A snapshot of the state. Everything below `sequence` is in it: a replay from it begins there."""

    sequence: int
    verified: bool  # loaded in a fresh process and compared with a later hash mark


class SnapshotIndex(Protocol):
    """Who knows the snapshots."""

    def snapshots(self) -> Sequence[SnapshotFact]: ...


@dataclass(frozen=True, slots=True, order=True)
class SegmentFact:
    """A segment on disk: records [first, end). `closed`: a later segment follows, nothing more will be written."""

    first: int
    end: int
    closed: bool
    path: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """The oldest segments that may go, and why the next one stays."""

    delete: tuple[SegmentFact, ...]
    keep: tuple[SegmentFact, ...]
    reason: str


def decide(
    segments: Sequence[SegmentFact],
    *,
    snapshots: Iterable[SnapshotFact],
    consumers: Mapping[str, int],
    audited: Collection[int],
    archived: Collection[int] | None,
    snapshots_min: int = SNAPSHOTS_MIN,
) -> Plan:
    """Return what may be deleted. Looks at nothing but its arguments.

    `audited` and `archived` name segments by first sequence; `archived` None: no archive is asked for.
    """
    if snapshots_min < SNAPSHOTS_MIN:
        raise ValueError(f"snapshots_min = {snapshots_min}: must be {SNAPSHOTS_MIN} or more")
    ordered = sorted(segments)
    for index, segment in enumerate(ordered):
        reason = _reason_to_keep(segment, snapshots, consumers, audited, archived, snapshots_min)
        if reason:
            return Plan(tuple(ordered[:index]), tuple(ordered[index:]), reason)
    return Plan((), tuple(ordered), "no segment is closed")


def _reason_to_keep(
    segment: SegmentFact,
    snapshots: Iterable[SnapshotFact],
    consumers: Mapping[str, int],
    audited: Collection[int],
    archived: Collection[int] | None,
    snapshots_min: int,
) -> str:
    if not segment.closed:
        return "it is being written"
    covering = {each.sequence for each in snapshots if each.verified and each.sequence >= segment.end}
    if len(covering) < snapshots_min:
        return f"{len(covering)} verified snapshots cover it, {snapshots_min} must"
    behind = sorted(name for name, sequence in consumers.items() if sequence < segment.end)
    if behind:
        return f"still needed by {', '.join(behind)}"
    if segment.first not in audited:
        return "its audit record is not written yet"
    if archived is not None and segment.first not in archived:
        return "it is not in the archive with matching SHA-256"
    return ""


def segment_facts(directory: Path) -> list[SegmentFact]:
    """Return the segments there are. The last one counts as being written, whether somebody writes it or not."""
    found = list_segments(directory)
    ends = [segment.first_sequence for segment in found[1:]]
    closed = [SegmentFact(each.first_sequence, end, True, each.path) for each, end in zip(found, ends, strict=False)]
    last = [SegmentFact(each.first_sequence, each.first_sequence, False, each.path) for each in found[-1:]]
    return closed + last


def audited_segments(directory: Path, segments: Iterable[SegmentFact]) -> set[int]:
    """Return the segments, by first sequence, with an audit record that ends where they end."""
    records = read_audits(directory)
    return {each.first for each in segments if each.first in records and records[each.first].end == each.end}


def retain(
    directory: Path, snapshots: SnapshotIndex, *, archive: DirectoryArchive | None = None, dry_run: bool = False
) -> Plan:
    """Archive what the other rules let go, delete what is archived then, and return what was (or would be) deleted.

    May run while the journal is being written. Raises JournalLocked if another one runs, JournalError in doubt.
    """
    with _locked(directory):
        segments = segment_facts(directory)
        facts = snapshots.snapshots()
        consumers = read_cursors(directory)
        audited = audited_segments(directory, segments)
        plan = decide(segments, snapshots=facts, consumers=consumers, audited=audited, archived=None)
        if archive is not None:
            archived = {each.first for each in plan.delete if _archived(archive, directory, each, dry_run=dry_run)}
            plan = decide(segments, snapshots=facts, consumers=consumers, audited=audited, archived=archived)
        if plan.delete and not dry_run:
            delete(directory, plan)
        return plan


def delete(directory: Path, plan: Plan) -> None:
    """Delete the segments of a plan, the oldest first. A crash at any point leaves a log without a hole.

    What will be the log's beginning is said before anything is deleted: so the next start knows a beginning that
    retention has deleted from one that was lost. Audit records stay.
    """
    first = plan.keep[0].first
    if first > trimmed_to(directory):
        write_whole(directory / TRIM_FILE, f"first {first}\n".encode())
    for segment in plan.delete:
        segment.path.unlink()
    sync_directory(directory)


def _archived(archive: DirectoryArchive, directory: Path, segment: SegmentFact, *, dry_run: bool) -> bool:
    audit = directory / audit_name(segment.first)
    if not dry_run:
        for path in (segment.path, audit):
            archive.store(path)
    return archive.holds(segment.path) and archive.holds(audit)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory / RETENTION_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise JournalLocked(f"another retention run works on {directory}") from None
    finally:
        os.close(fd)
