"""The folder of a node's snapshots: manifests, which of them can be used, which may go."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine import EngineConfig, Places, image_layout
from journaler import JournalError, LogReader
from journaler.identity import identity_at
from journaler.retention import SnapshotFact
from scripts.snapshots.files import FileFact, SnapshotError, check_file

FOLDER = "snapshots"
MANIFEST = "manifest.json"
FORMAT = 1
DIGITS = 20
UNFINISHED = ".new"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a snapshot says of itself. `sequence`: the next record to be applied to it."""

    sequence: int
    epoch: int
    log_hash: int
    ts_ns: int  # of the last record in it
    layout: int
    schema_hash: int
    engine: EngineConfig
    places: Places
    unsettled: Mapping[int, int]  # reports in front of `places`, by partition
    files: Mapping[str, FileFact]
    state_hash: str
    output_hash: str  # over all outputs from the beginning of the log
    verified_to: int  # replayed up to here by another process, which came to:
    verified_state_hash: str
    verified_output_hash: str
    taken_s: float

    def dump(self) -> str:
        """Return it as JSON. Hashes are hexadecimal."""
        facts = asdict(self) | {"format": FORMAT}
        for name in ("log_hash", "layout", "schema_hash"):
            facts[name] = f"{facts[name]:016x}"
        return json.dumps(facts, indent=1)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a snapshot's manifest. Raises SnapshotError naming what is wrong with it."""
        path = folder / MANIFEST
        try:
            facts = json.loads(path.read_text())
            if facts.pop("format") != FORMAT:
                raise SnapshotError(f"{path} has another format than {FORMAT}")
            for name in ("log_hash", "layout", "schema_hash"):
                facts[name] = int(facts[name], 16)
            facts["engine"] = EngineConfig(**facts["engine"])
            facts["places"] = Places(**{name: _numbered(value) for name, value in facts["places"].items()})
            facts["unsettled"] = _numbered(facts["unsettled"])
            facts["files"] = {name: FileFact(**fact) for name, fact in facts["files"].items()}
            return cls(**facts)
        except OSError as error:
            raise SnapshotError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SnapshotError(f"{path} is damaged: {error}") from error


def _numbered(table: Mapping[str, int]) -> dict[int, int]:
    return {int(key): int(value) for key, value in table.items()}


@dataclass(frozen=True)
class Snapshot:
    folder: Path
    manifest: Manifest

    def check_files(self, names: Sequence[str] | None = None) -> None:
        """Compare every file, or those named, with the manifest. Raises SnapshotError."""
        for name, fact in self.manifest.files.items():
            if names is None or name in names:
                check_file(self.folder / name, fact)


class SnapshotStore:
    """The snapshots beside a journal."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER

    def folders(self) -> list[Path]:
        """Return the folders of finished snapshots, the newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((each for each in self.folder.iterdir() if each.name.isdecimal()), reverse=True)

    def readable(self, say: Callable[[str], None] = lambda _: None) -> Iterator[Snapshot]:
        """Yield the snapshots whose manifest can be read, the newest first; `say` is told of the others."""
        for folder in self.folders():
            try:
                yield Snapshot(folder, Manifest.load(folder))
            except SnapshotError as error:
                say(str(error))

    def choose(
        self, journal: Path, end: int, say: Callable[[str], None], *, files: Sequence[str] | None = None
    ) -> Snapshot | None:
        """Return the newest snapshot that this build can load and that belongs to the log up to `end`; None: none does.

        `say` is told why a newer one is passed over. `files`: those that must be good; all by default.
        """
        for snapshot in self.readable(say):
            reason = _unfit(snapshot, journal, end, files)
            if not reason:
                return snapshot
            say(f"snapshot {snapshot.manifest.sequence} is not used: {reason}")
        return None

    def snapshots(self) -> Sequence[SnapshotFact]:
        """Say to the journal's retention what it need not keep."""
        facts = []
        for snapshot in self.readable():
            manifest = snapshot.manifest
            try:
                snapshot.check_files()
            except SnapshotError:
                continue
            facts.append(SnapshotFact(manifest.sequence, verified=manifest.layout == image_layout()))
        return facts

    def prune(self, keep: int) -> list[int]:
        """Delete all but the newest `keep` snapshots, and what an interrupted taking left; return their sequences."""
        gone = []
        for folder in self.folders()[keep:]:
            # Renamed first: a half-deleted folder must not look like a snapshot.
            doomed = folder.with_suffix(UNFINISHED)
            folder.rename(doomed)
            shutil.rmtree(doomed)
            gone.append(int(folder.name))
        for leftover in self.folder.glob(f"*{UNFINISHED}"):
            shutil.rmtree(leftover)
        return gone

    def begin(self, sequence: int) -> Path:
        """Return an empty folder for a snapshot that is being taken."""
        folder = self.folder / f"{sequence:0{DIGITS}}{UNFINISHED}"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, parents=True)
        return folder

    def finish(self, folder: Path) -> Path:
        """Give a verified snapshot its name; from now on a start may choose it."""
        sync_folder(folder)
        done = folder.with_suffix("")
        folder.rename(done)
        sync_folder(self.folder)
        return done


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write or replace a manifest, whole or not at all."""
    temporary = folder / f"{MANIFEST}.tmp"
    with temporary.open("w") as file:
        file.write(manifest.dump())
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MANIFEST)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unfit(snapshot: Snapshot, journal: Path, end: int, files: Sequence[str] | None) -> str:
    manifest = snapshot.manifest
    if manifest.layout != image_layout():
        return "a build that lays state out otherwise has written it"
    if manifest.sequence > end:
        return f"the log ends at {end}"
    if manifest.sequence < LogReader(journal).first_sequence:
        return "the log's files begin behind it"
    try:
        if identity_at(journal, manifest.sequence) != manifest.log_hash:
            return "it is of another log: the log hashes differ"
        snapshot.check_files(files)
    except (JournalError, SnapshotError) as error:
        return str(error)
    return ""


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """Return the row of `bullring snapshot list`."""
    manifest = snapshot.manifest
    return {
        "sequence": manifest.sequence,
        "epoch": manifest.epoch,
        "ts_ns": manifest.ts_ns,
        "bytes": sum(fact.size_bytes for fact in manifest.files.values()),
        "verified_to": manifest.verified_to,
        "state_hash": manifest.state_hash,
        "output_hash": manifest.output_hash,
        "log_hash": f"{manifest.log_hash:016x}",
    }
