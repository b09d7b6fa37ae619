"""Replay a log on a replica, and note on the way what it comes to: the trail that two replays are compared by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engine import Outputs, Places, Replica
from journaler import JournalError, LogReader
from journaler.identity import identity_at
from journaler.segments import list_segments
from ringbuf.wire import messages as wire
from scripts.config import Config
from scripts.node import engine_config
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.loading import load_replica
from scripts.snapshots.store import Snapshot

SLOT_SIZE = 128
BLOCK_OFFSET, FLAGS_OFFSET, FLAG_REJECT = 32, 14, 4
SLOT = np.dtype(
    {
        "names": ["session", "template"],
        "formats": ["<u4", "<u2"],
        "offsets": [0, 6],
        "itemsize": SLOT_SIZE,
    }
)
# Hashing the whole state costs as much as some thousand records: the first hash mark of so many is noted, wherever the
# replay began.
POINT_RECORDS = 10_000


def start_replica(config: Config, base: Snapshot | None) -> Replica:
    """Return a replica at a snapshot, whose files are checked first, or before the first record."""
    if base is not None:
        base.check_files()
        return load_replica(base.folder, base.manifest)
    replica = Replica(engine_config(config))
    replica.open(Places(), {})
    return replica


def mark_ends(first: int, records: bytes) -> Iterator[int]:
    """Yield the sequence behind every hash mark among the records."""
    slots = np.frombuffer(records, dtype=SLOT)
    marks = np.flatnonzero((slots["template"] == wire.Template.HASH_MARK) & (slots["session"] == 0))
    yield from (first + int(at) + 1 for at in marks)


def quarantined(journal: Path, start: int, end: int | None = None) -> list[int]:
    """Return the records at or above `start` that Quarantine records below `end` take out of effect, ascending.

    They lie behind their targets, so they are looked for before a replay begins.
    """
    found = set()
    for _, records in LogReader(journal).batches(start, end):
        slots = np.frombuffer(records, dtype=SLOT)
        for at in np.flatnonzero(slots["template"] == wire.Template.QUARANTINE):
            slot = records[int(at) * SLOT_SIZE : (int(at) + 1) * SLOT_SIZE]
            target = wire.Quarantine.unpack(slot, BLOCK_OFFSET).target_seq
            if not slot[FLAGS_OFFSET] & FLAG_REJECT and target >= start:
                found.add(target)
    return sorted(found)


def newest_ts(journal: Path, end: int) -> int:
    """Return the time stamp of the last record below `end`, 0 if there is none."""
    segments = [segment.first_sequence for segment in list_segments(journal) if segment.first_sequence < end]
    stamp = 0
    for _, records in LogReader(journal).batches(segments[-1], end) if segments else ():
        stamp = int.from_bytes(records[-16:-8], "little")
    return stamp


@dataclass(frozen=True, slots=True)
class Point:
    """What a replay came to after the records below `sequence`."""

    sequence: int
    state_hash: str
    output_hash: str


def follow(
    journal: Path,
    replica: Replica,
    to: int,
    *,
    outputs: Outputs | None = None,
    market: Outputs | None = None,
    at_mark: Callable[[int], None] | None = None,
    show: Callable[[int], None] | None = None,
) -> None:
    """Feed the log's records below `to`; stop behind hash marks for `at_mark`.

    Raises SnapshotError if the log ends early.
    """
    taken_out = quarantined(journal, replica.position)
    for matcher in replica.matchers:
        matcher.quarantine(taken_out)
    for first, records in LogReader(journal).batches(replica.position, to):
        end = first + len(records) // SLOT_SIZE
        stops = [] if at_mark is None else list(mark_ends(first, records))
        view = memoryview(records)
        for stop in dict.fromkeys([*stops, end]):
            part = view[(replica.position - first) * SLOT_SIZE : (stop - first) * SLOT_SIZE]
            if part:
                replica.feed(replica.position, part, outputs=outputs, market=market)
            if at_mark is not None and stop in stops:
                at_mark(stop)
        if show is not None:
            show(end)
    if replica.position != to:
        raise SnapshotError(f"{journal} ends at {replica.position}, below {to}")


class Trail:
    """The points of one replay."""

    def __init__(self, points: Sequence[Point] = ()) -> None:
        self.points = list(points)

    def note(self, replica: Replica) -> None:
        """Add where the replica stands, behind a hash mark, if it is the first of its POINT_RECORDS records."""
        if not self.points or replica.position // POINT_RECORDS != self.points[-1].sequence // POINT_RECORDS:
            self.end(replica)

    def end(self, replica: Replica) -> Point:
        point = Point(replica.position, replica.state_hash().hex(), replica.output_hash.hex())
        if not self.points or self.points[-1] != point:
            self.points.append(point)
        return point

    def save(self, path: Path) -> None:
        path.write_text("".join(json.dumps(asdict(point)) + "\n" for point in self.points))

    @classmethod
    def load(cls, path: Path) -> Trail:
        """Read a saved trail. Raises ValueError naming file and line."""
        points = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                points.append(Point(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not a point of a trail: {error}") from error
        return cls(points)

    def difference(self, other: Trail) -> tuple[int, str]:
        """Return (points both have, where they part: empty if nowhere)."""
        theirs = {point.sequence: point for point in other.points}
        common, agreed = 0, 0
        for point in self.points:
            if point.sequence not in theirs:
                continue
            common += 1
            peer = theirs[point.sequence]
            wrong = [name for name in ("state_hash", "output_hash") if getattr(point, name) != getattr(peer, name)]
            if wrong:
                return common, f"{' and '.join(wrong)} differ at {point.sequence}, not yet at {agreed}"
            agreed = point.sequence
        return common, ""


def logs_part(journal: Path, other: Path, start: int, end: int) -> int | None:
    """Return the first sequence in [start, end) at which the records of two logs differ, None if they do not."""
    try:
        if identity_at(journal, end) == identity_at(other, end):
            return None
    except JournalError:
        pass
    mine, theirs = LogReader(journal).batches(start, end, 4096), LogReader(other).batches(start, end, 4096)
    for (first, records), (first_there, records_there) in zip(mine, theirs, strict=False):
        for at in range(0, max(len(records), len(records_there)), SLOT_SIZE):
            if first != first_there or records[at : at + SLOT_SIZE] != records_there[at : at + SLOT_SIZE]:
                return min(first, first_there) + at // SLOT_SIZE
    return end
