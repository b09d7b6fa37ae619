"""A sequencer or matcher that died alone comes back: it catches up on private rings and goes on in the real ones (R7).

Rings outlive processes. What the successor makes again is compared with what its predecessor published, as far as ring
or archive still have it; what that one had not published is published now; then it takes the predecessor's place.
Any difference ends the process with DIVERGED: nobody may trade on a state that cannot be explained.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from engine import EngineConfig, Matcher, Places, Replica, Sequencer
from journaler import LogFollower, LogReader, ReportArchive
from ringbuf import Lapped, Ring
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import JOURNALER, NodeRings
from scripts.snapshots.files import load_image
from scripts.snapshots.loading import SEQUENCER_FILE, load_replica, load_reports, matcher_file, reports_file
from scripts.snapshots.replaying import quarantined
from scripts.snapshots.store import Snapshot, SnapshotStore

SLOT_SIZE = 128
FLAGS_OFFSET, FLAG_MORE = 14, 1
PRIVATE_REPORTS, PRIVATE_MARKET = 1 << 12, 1 << 16
REPLICA = 2
REJOIN = "rejoin"  # said to a process that takes the place of a dead one
_WORKING = Struct("<qq")


class Diverged(CommandError):
    """What is made again is not what was published."""

    def __init__(self, ring: str, sequence: int) -> None:
        super().__init__(
            f"DIVERGED: {ring} slot {sequence} was published with other bytes than the log gives now", ExitCode.DIVERGED
        )


class WorkingOn:
    """Which record a matcher works on while it comes back, for the supervisor to read when it dies there (R10).

    `suspect`: where an earlier attempt died; from there on records are done one at a time.
    """

    def __init__(self, run_dir: Path, name: str) -> None:
        self._fd = os.open(self.path(run_dir, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, mmap.PAGESIZE)
        self._map = mmap.mmap(self._fd, mmap.PAGESIZE)
        self.suspect = _WORKING.unpack_from(self._map)[0] - 1

    @staticmethod
    def path(run_dir: Path, name: str) -> Path:
        return run_dir / f"working.{name}"

    @classmethod
    def read(cls, run_dir: Path, name: str) -> tuple[int, bool] | None:
        """Return (sequence, whether it is exact) of an attempt that did not end well, None if there is none."""
        try:
            sequence, exact = _WORKING.unpack_from(cls.path(run_dir, name).read_bytes())
        except (OSError, ValueError):
            return None
        return (sequence - 1, bool(exact)) if sequence else None

    def store(self, sequence: int, *, exact: bool) -> None:
        _WORKING.pack_into(self._map, 0, sequence + 1, exact)

    def done(self) -> None:
        _WORKING.pack_into(self._map, 0, 0, 0)
        self._map.close()
        os.close(self._fd)


def choose(config: Config, end: int, files: Sequence[str]) -> Snapshot | None:
    """Return the snapshot to come back from: the newest whose `files` are good; None: the log from its beginning."""
    said: list[str] = []
    snapshot = SnapshotStore(config.data_dir).choose(config.journal_dir, end, said.append, files=files)
    if snapshot is None and LogReader(config.journal_dir).first_sequence > 0:
        raise CommandError(f"no snapshot can be used, and the log's beginning is gone: {said}", ExitCode.IO_ERROR)
    return snapshot


@dataclass
class Merge:
    """Compares what is made again with a ring, and publishes there what is new."""

    name: str
    ring: Ring
    wait: Callable[[], None]
    archived: Callable[[int, int], bytes] | None = None
    compared: int = 0

    def __call__(self, first: int, slots: bytes, size: int) -> None:
        published = self.ring.published
        below = min(max(0, published - first), len(slots) // size)
        if below:
            self._compare(first, slots[: below * size], size)
        new = slots[below * size :]
        # The ring may be smaller than what comes at once; its readers see no more of it than before.
        step = self.ring.capacity // 4 * size
        for at in range(0, len(new), step):
            part = new[at : at + step]
            while self.ring.room() < len(part) // size:
                self.wait()
            self.ring.publish(*[part[slot : slot + size] for slot in range(0, len(part), size)])

    def _compare(self, first: int, slots: bytes, size: int) -> None:
        count = len(slots) // size
        try:
            there = self.ring.read(first, count)
        except Lapped:
            there = self.archived(first, count) if self.archived is not None else b""
        for at in range(0, len(there), size):
            if there[at : at + size] != slots[at : at + size]:
                raise Diverged(self.name, first + at // size)
        self.compared += len(there) // size


class MatcherRejoin:
    """Brings one matcher to where the log is now, and into the place of its predecessor."""

    def __init__(
        self, config: Config, engine: EngineConfig, rings: NodeRings, partition: int, wait: Callable[[], None]
    ) -> None:
        self._rings, self._partition = rings, partition
        self._journal = config.journal_dir
        self.real = (rings.reports[partition], rings.market[partition])
        for ring in self.real:
            ring.lock_producer()
        archive = ReportArchive(config.journal_dir) if config.journal.archive else None
        self._reports = Merge(
            f"report.{partition}",
            self.real[0],
            wait,
            None if archive is None else lambda first, count: archive.read(partition, first, count),
        )
        self._market = Merge(f"market.{partition}", self.real[1], wait)
        files = (matcher_file(partition), reports_file(partition))
        end = min(rings.log.visible, rings.log.consumer(JOURNALER).cursor)
        snapshot = choose(config, end, files)
        self.matcher = Matcher(engine, partition)
        self._begin(snapshot)
        self.matcher.quarantine(quarantined(self._journal, self.matcher.position, end))

    def _begin(self, snapshot: Snapshot | None) -> None:
        places, unsettled = Places(), b""
        if snapshot is not None:
            load_image(snapshot.folder / matcher_file(self._partition), self.matcher)
            places, unsettled = snapshot.manifest.places, load_reports(snapshot.folder, self._partition)
        count = len(unsettled) // SLOT_SIZE
        slots = max(PRIVATE_REPORTS, 1 << (2 * count).bit_length())
        self._private = (
            Ring.private(
                slot_size=SLOT_SIZE,
                slot_count=slots,
                base=places.settled.get(self._partition, 0),
                gating={REPLICA: "rejoin"},
            ),
            Ring.private(
                slot_size=SLOT_SIZE // 2, slot_count=PRIVATE_MARKET, base=places.market.get(self._partition, 0)
            ),
        )
        if unsettled:
            self._private[0].publish(*[unsettled[at : at + SLOT_SIZE] for at in range(0, len(unsettled), SLOT_SIZE)])
        self._seen = [self._private[0].base, self._private[1].base]
        self.matcher.attach(log=self._rings.log, reports=self._private[0], market=self._private[1])
        self.began_at = self.matcher.position

    def run(self, working: WorkingOn | None = None) -> None:
        """Catch up with what is committed and step into the real rings. Raises Diverged."""
        follower = LogFollower(self._rings.log, self._journal, self.matcher.position)
        while (batch := follower.read()) is not None:
            first, records = batch
            end = first + len(records) // SLOT_SIZE
            if working is None or working.suspect < 0 or end <= working.suspect:
                if working is not None:
                    working.store(first, exact=False)
                self._feed(first, records)
            else:
                self._feed_singly(first, records, working)
        follower.close()
        self._drain()
        for private, real in zip(self._private, self.real, strict=True):
            if private.published != real.published:
                raise Diverged(f"partition {self._partition}", min(private.published, real.published))
        self.matcher.attach(log=self._rings.log, reports=self.real[0], market=self.real[1])
        for ring in self._private:
            ring.close()

    @property
    def compared(self) -> int:
        """How many slots were compared with what the predecessor published."""
        return self._reports.compared + self._market.compared

    def _feed(self, first: int, records: bytes) -> None:
        view, done, count = memoryview(records), 0, len(records) // SLOT_SIZE
        while done < count or not self.matcher.idle:
            taken = self.matcher.feed(first + done, view[done * SLOT_SIZE :])
            done += taken
            if not self._drain() and taken == 0:
                raise CommandError(f"matcher {self._partition} stands still at {first + done}", ExitCode.INTERNAL)

    def _feed_singly(self, first: int, records: bytes, working: WorkingOn) -> None:
        start = 0
        for at in range(0, len(records), SLOT_SIZE):
            if records[at + FLAGS_OFFSET] & FLAG_MORE:
                continue
            working.store(first + start // SLOT_SIZE, exact=True)
            self._feed(first + start // SLOT_SIZE, records[start : at + SLOT_SIZE])
            start = at + SLOT_SIZE

    def _drain(self) -> bool:
        moved = False
        for index, merge in enumerate((self._reports, self._market)):
            ring, first = self._private[index], self._seen[index]
            count = ring.published - first
            if count == 0:
                continue
            merge(first, ring.read(first, count), ring.slot_size)
            self._seen[index] = first + count
            moved = True
        self._private[0].advance(REPLICA, self._seen[0])
        return moved


def rejoin_sequencer(config: Config, engine: EngineConfig, rings: NodeRings, check: Callable[[], None]) -> Sequencer:
    """Return a sequencer that leads in the place of its predecessor: same epoch, same rings. Raises Diverged."""
    for ring in (rings.log, rings.reports[0], rings.reply):
        ring.lock_producer()
    # The journaler may go on meanwhile; what is at or above its cursor now nobody overwrites: we are the producer.
    durable, published = rings.log.consumer(JOURNALER).cursor, rings.log.published
    snapshot = choose(config, min(durable, rings.log.visible), _all_files(engine))
    if snapshot is None:
        replica = Replica(engine)
        replica.open(Places(), {})
    else:
        replica = load_replica(snapshot.folder, snapshot.manifest)
    for matcher in replica.matchers:
        matcher.quarantine(quarantined(config.journal_dir, replica.position, durable))
    answers = _Answers(rings.reports[0], ReportArchive(config.journal_dir) if config.journal.archive else None)
    for first, records in LogReader(config.journal_dir).batches(replica.position, durable):
        replica.feed(first, records, outputs=answers)
        check()
    if replica.position < published:
        rest = rings.log.read(replica.position, published - replica.position)
        replica.feed(replica.position, rest, outputs=answers)
    sequencer = replica.sequencer
    answers.claim()
    sequencer.attach(
        log=rings.log,
        report0=rings.reports[0],
        reply=rings.reply,
        reports={partition: ring for partition, ring in rings.reports.items() if partition},
        ingress=rings.ingress,
    )
    sequencer.resume()
    replica.close()
    return sequencer


def _all_files(engine: EngineConfig) -> list[str]:
    partitions = range(1, engine.partitions + 1)
    return [SEQUENCER_FILE, *map(matcher_file, partitions), *map(reports_file, partitions)]


class _Answers:
    """The sequencer's own reports, made again: compared below what its ring shows, kept above."""

    def __init__(self, ring: Ring, archive: ReportArchive | None) -> None:
        self._merge = Merge(
            "report.0", ring, _never, None if archive is None else lambda first, count: archive.read(0, first, count)
        )
        self._ring = ring
        self._published = ring.published
        self._kept: list[bytes] = []

    def __call__(self, partition: int, first: int, slots: bytes) -> None:
        if partition:
            return
        below = min(max(0, self._published - first), len(slots) // SLOT_SIZE) * SLOT_SIZE
        if below:
            self._merge(first, slots[:below], SLOT_SIZE)
        self._kept += [slots[at : at + SLOT_SIZE] for at in range(below, len(slots), SLOT_SIZE)]

    def claim(self) -> None:
        """Put back what its predecessor had written but not published: it is released when its cause is committed."""
        self._ring.claim_copy(self._kept)


def _never() -> None:
    raise AssertionError("nothing of this is published here")
