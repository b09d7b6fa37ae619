"""`bullring replay`: apply the log again, and say what it comes to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import EngineError, Replica
from journaler import JournalError, LogReader
from scripts.arguments import add_common, config_of, emit_one, progress
from scripts.config import Config, load
from scripts.exit_codes import CommandError, ExitCode
from scripts.progress import Progress
from scripts.snapshots.archive_check import ArchiveCheck
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.replaying import Trail, follow, logs_part, start_replica
from scripts.snapshots.store import Snapshot, SnapshotStore
from scripts.snapshots.taking import committed_end

BEGINNING, NEWEST = "beginning", "newest"


def run(arguments: Sequence[str]) -> int:
    """Replay; 0: done, and everything that was asked to be compared agreed; 1: something differs."""
    options = _parser().parse_args(arguments)
    config = config_of(options)
    try:
        row, agreed = _replay(options, config)
    except (EngineError, JournalError, SnapshotError) as error:
        raise CommandError(str(error), ExitCode.NEGATIVE) from error
    emit_one(row, as_json=options.json)
    return ExitCode.OK if agreed else ExitCode.NEGATIVE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bullring replay", description=__doc__)
    add_common(parser)
    parser.add_argument(
        "--from",
        dest="start",
        default=BEGINNING,
        metavar="SNAPSHOT",
        help=f"a snapshot's sequence, {NEWEST!r}, or {BEGINNING!r} (the default)",
    )
    parser.add_argument("--to", type=int, metavar="SEQ", help="stop before this record; the committed end by default")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="recount every table at hash marks, compare the outputs with the report archive and the states with "
        "the snapshots passed",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OTHER",
        help="a data folder, whose log is replayed too, or a trail that another replay has saved: with another "
        "build, on another machine",
    )
    parser.add_argument("--trail", type=Path, metavar="FILE", help="save the hashes on the way, for --compare")
    return parser


def find_start(store: SnapshotStore, journal: Path, wanted: str) -> Snapshot | None:
    """Return the snapshot that --from names, None for the beginning of the log. Raises CommandError."""
    if wanted == BEGINNING:
        if LogReader(journal).first_sequence == 0:
            return None
        raise CommandError(f"the log begins at {LogReader(journal).first_sequence}: give --from", ExitCode.NO_INPUT)
    snapshots = list(store.readable(progress))
    if wanted == NEWEST and snapshots:
        return snapshots[0]
    for snapshot in snapshots:
        if wanted == str(snapshot.manifest.sequence):
            return snapshot
    there = ", ".join(str(snapshot.manifest.sequence) for snapshot in snapshots) or "none"
    raise CommandError(f"--from {wanted}: no such snapshot; there are: {there}", ExitCode.NO_INPUT)


@dataclass
class Checks:
    """What --verify adds. `done` counts what was compared."""

    replica: Replica
    snapshots: dict[int, Snapshot]
    recounts: int = 0
    snapshots_met: int = 0

    def at_mark(self, sequence: int) -> None:
        if wrong := self.replica.check():
            raise SnapshotError(f"at {sequence}: {wrong}")
        self.recounts += 1
        snapshot = self.snapshots.get(sequence)
        if snapshot is None:
            return
        self.snapshots_met += 1
        manifest = snapshot.manifest
        if (self.replica.state_hash().hex(), self.replica.output_hash.hex()) != (
            manifest.state_hash,
            manifest.output_hash,
        ):
            raise SnapshotError(f"the snapshot at {sequence} holds another state than the log gives")


def _replay(options: argparse.Namespace, config: Config) -> tuple[dict[str, Any], bool]:
    journal, store = config.journal_dir, SnapshotStore(config.data_dir)
    if not journal.is_dir():
        raise CommandError(f"{journal}: no journal there", ExitCode.NO_INPUT)
    end = committed_end(config)
    to = end if options.to is None else options.to
    base = find_start(store, journal, options.start)
    start = 0 if base is None else base.manifest.sequence
    if not start <= to <= end:
        raise CommandError(f"--to {to}: must be {start} to {end}", ExitCode.USAGE)
    replica = start_replica(config, base)
    checks = Checks(replica, {each.manifest.sequence: each for each in store.readable(progress)})
    archive = ArchiveCheck(journal, allow_short=True) if options.verify and config.journal.archive else None
    trail, bar = Trail(), Progress("replay", start, to)

    def at_mark(sequence: int) -> None:
        trail.note(replica)
        if options.verify:
            checks.at_mark(sequence)

    follow(journal, replica, to, outputs=archive, at_mark=at_mark, show=bar.show)
    elapsed = bar.elapsed_s
    point = trail.end(replica)
    bar.finish()
    row: dict[str, Any] = {
        "from": start,
        "to": to,
        "records": to - start,
        "elapsed_s": round(elapsed, 3),
        "records_per_s": round((to - start) / max(elapsed, 1e-9)),
        "state_hash": point.state_hash,
        "output_hash": point.output_hash,
    }
    if options.verify:
        row |= {"recounts": checks.recounts, "snapshots_met": checks.snapshots_met}
        row |= {"reports_compared": 0 if archive is None else archive.compared}
    replica.close()
    if options.trail is not None:
        trail.save(options.trail)
    if options.compare is None:
        return row, True
    return _compare(row, trail, options.compare, journal)


def _compare(row: dict[str, Any], mine: Trail, other: Path, journal: Path) -> tuple[dict[str, Any], bool]:
    start, to = row["from"], row["to"]
    log_parts: int | None = None
    if other.is_dir():
        config = load(None, {"node.data_dir": str(other)})
        theirs = _trail_of(config, to)
        log_parts = logs_part(journal, config.journal_dir, max(start, LogReader(config.journal_dir).first_sequence), to)
    elif other.is_file():
        theirs = Trail.load(other)
    else:
        raise CommandError(f"--compare {other}: neither a data folder nor a saved trail", ExitCode.NO_INPUT)
    common, difference = mine.difference(theirs)
    if log_parts is not None:
        difference = f"the logs differ from record {log_parts} on" + (f"; {difference}" if difference else "")
    elif common == 0:
        difference = "there is no record at which both noted their state"
    return row | {"compared_points": common, "difference": difference}, not difference


def _trail_of(config: Config, to: int) -> Trail:
    """Replay another folder's log from its beginning, or from its oldest snapshot if that has been deleted."""
    journal = config.journal_dir
    end = min(to, LogReader(journal).end)
    snapshots = list(SnapshotStore(config.data_dir).readable(progress))
    base = None if LogReader(journal).first_sequence == 0 or not snapshots else snapshots[-1]
    replica = start_replica(config, base)
    trail, bar = Trail(), Progress("other", replica.position, end)
    follow(journal, replica, end, at_mark=lambda _: trail.note(replica), show=bar.show)
    trail.end(replica)
    bar.finish()
    replica.close()
    return trail
