"""From a snapshot's files to engine objects: whole replicas, or one owner in the process that runs it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from engine import EngineConfig, Matcher, Replica, Sequencer
from scripts.snapshots.files import FileFact, SnapshotError, load_image, write_image
from scripts.snapshots.store import Manifest

SEQUENCER_FILE = "sequencer.image"


def matcher_file(partition: int) -> str:
    return f"matcher-{partition}.image"


def reports_file(partition: int) -> str:
    return f"reports-{partition}.slots"


def write_replica(folder: Path, replica: Replica) -> dict[str, FileFact]:
    """Store all owners, and the reports that are not settled yet; return what the manifest has to say of the files."""
    facts = {SEQUENCER_FILE: write_image(folder / SEQUENCER_FILE, replica.sequencer)}
    for matcher in replica.matchers:
        name = matcher_file(matcher.partition)
        facts[name] = write_image(folder / name, matcher)
    for partition, reports in replica.unsettled().items():
        name = reports_file(partition)
        facts[name] = write_reports(folder / name, reports)
    return facts


def load_replica(folder: Path, manifest: Manifest) -> Replica:
    """Return a replica that stands where the snapshot was taken; the files have been checked. Raises SnapshotError."""
    replica = Replica(manifest.engine)
    load_image(folder / SEQUENCER_FILE, replica.sequencer)
    for matcher in replica.matchers:
        load_image(folder / matcher_file(matcher.partition), matcher)
    unsettled = {matcher.partition: load_reports(folder, matcher.partition) for matcher in replica.matchers}
    replica.open(manifest.places, unsettled, output_hash=int.from_bytes(bytes.fromhex(manifest.output_hash), "little"))
    return replica


def load_owners(folder: Path, engine: EngineConfig, sequencer: Sequencer | None, matchers: Sequence[Matcher]) -> None:
    """Load the owners of one process, before their rings are attached. Raises SnapshotError."""
    manifest = Manifest.load(folder)
    if manifest.engine != engine:
        raise SnapshotError(f"{folder} is of an engine with other capacities")
    if sequencer is not None:
        load_image(folder / SEQUENCER_FILE, sequencer)
    for matcher in matchers:
        load_image(folder / matcher_file(matcher.partition), matcher)


def load_reports(folder: Path, partition: int) -> bytes:
    """Return the reports of a partition that had been made but not settled."""
    return (folder / reports_file(partition)).read_bytes()


def write_reports(path: Path, reports: bytes) -> FileFact:
    with path.open("xb") as file:
        file.write(reports)
        file.flush()
        os.fsync(file.fileno())
    return FileFact(len(reports), hashlib.sha256(reports).hexdigest())
