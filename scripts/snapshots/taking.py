"""Take a snapshot: follow the log in a process of its own, and store where that stands (decision 0012).

The exchange is not asked and does not pause. The place is the newest hash mark that another one follows: so the stored
state can be verified at once, by loading it in a fresh process and replaying it to that next mark.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from engine import EngineError, Replica, image_layout
from journaler import JournalError, LogReader
from journaler.identity import identity_at
from journaler.segments import list_segments
from ringbuf import RingbufError
from ringbuf.wire import messages as wire
from scripts.config import Config
from scripts.exit_codes import CommandError
from scripts.node import Node, NodeRings
from scripts.snapshots.archive_check import ArchiveCheck
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.loading import write_replica
from scripts.snapshots.replaying import follow, mark_ends, start_replica
from scripts.snapshots.store import Manifest, Snapshot, SnapshotStore, write_manifest
from scripts.snapshots.verifying import replay_elsewhere

SLOT_SIZE = 128
LOCK_FILE = "lock"

Say = Callable[[str], None]


class NothingNew(SnapshotError):
    """No snapshot is newer than the newest there is."""


def committed_end(config: Config) -> int:
    """Return the sequence below which the log is committed and in files: of a running node, or of a stopped one."""
    try:
        node = Node.load(config.run_dir)
        rings = NodeRings.attach(node, writable=False)
    except (CommandError, RingbufError):
        return LogReader(config.journal_dir).end
    try:
        return min(rings.log.visible, rings.log.consumer(0).cursor)
    finally:
        rings.close()


def hash_marks(journal: Path, start: int, end: int) -> list[int]:
    """Return the sequences of the last hash marks in [start, end): two or none, looking from the end backwards."""
    bounds = [segment.first_sequence for segment in list_segments(journal) if start < segment.first_sequence < end]
    found: list[int] = []
    upper = end
    for lower in reversed([start, *bounds]):
        here: list[int] = []
        for first, records in LogReader(journal).batches(lower, upper):
            here += [end - 1 for end in mark_ends(first, records)]
        found = here + found
        upper = lower
        if len(found) > 1:
            return found[-2:]
    return []


def take(config: Config, say: Say, *, keep: int) -> Snapshot:
    """Take and verify one snapshot, delete all but the newest `keep`. Raises SnapshotError, NothingNew."""
    store = SnapshotStore(config.data_dir)
    store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(store.folder):
        began = time.monotonic()
        journal, end = config.journal_dir, committed_end(config)
        base = store.choose(journal, end, say)
        marks = hash_marks(journal, 0 if base is None else base.manifest.sequence, end)
        if not marks:
            raise NothingNew(f"no two hash marks in the log above {0 if base is None else base.manifest.sequence}")
        sequence, verified_to = marks[0] + 1, marks[1] + 1
        say(f"following the log from {0 if base is None else base.manifest.sequence} to {sequence}")
        try:
            replica = start_replica(config, base)
            folder = store.begin(sequence)
            _store(config, replica, sequence, verified_to, folder, began)
        except (EngineError, JournalError) as error:
            raise SnapshotError(str(error)) from error
        say(f"loading it in a fresh process and replaying to {verified_to}")
        found = replay_elsewhere(folder, journal, verified_to)
        manifest = Manifest.load(folder)
        if found != (manifest.verified_state_hash, manifest.verified_output_hash):
            raise SnapshotError(f"loaded and replayed to {verified_to}, the snapshot comes to another state: {folder}")
        done = store.finish(folder)
        store.prune(keep)
        return Snapshot(done, manifest)


def _store(config: Config, replica: Replica, sequence: int, verified_to: int, folder: Path, began: float) -> None:
    """Bring the replica to `sequence`, store it, go on to `verified_to`, and write down what it comes to there."""
    journal = config.journal_dir
    archive = ArchiveCheck(journal) if config.journal.archive else None
    follow(journal, replica, sequence, outputs=archive)
    if archive is not None:
        archive.sync(replica.report_ends)
    manifest = Manifest(
        sequence=sequence,
        epoch=replica.sequencer.epoch,
        log_hash=identity_at(journal, sequence),
        ts_ns=replica.sequencer.last_ts,
        layout=image_layout(),
        schema_hash=wire.SCHEMA_HASH,
        engine=replica.config,
        places=replica.places,
        unsettled={partition: len(slots) // SLOT_SIZE for partition, slots in replica.unsettled().items()},
        files=write_replica(folder, replica),
        state_hash=replica.state_hash().hex(),
        output_hash=replica.output_hash.hex(),
        verified_to=verified_to,
        verified_state_hash="",
        verified_output_hash="",
        taken_s=0.0,
    )
    follow(journal, replica, verified_to)
    manifest = replace(
        manifest,
        verified_state_hash=replica.state_hash().hex(),
        verified_output_hash=replica.output_hash.hex(),
        taken_s=round(time.monotonic() - began, 3),
    )
    replica.close()
    write_manifest(folder, manifest)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SnapshotError(f"another snapshot is being taken in {folder}") from None
    finally:
        os.close(fd)
