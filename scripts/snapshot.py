"""`bullring snapshot`: list, take and verify snapshots of the engine's state."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from scripts.arguments import add_common, config_of, emit, emit_one, progress
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.priority import NICE_MAX, step_back
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.store import Snapshot, SnapshotStore, describe
from scripts.snapshots.taking import NothingNew, take
from scripts.snapshots.verifying import replay_elsewhere


def run(arguments: Sequence[str]) -> int:
    """Run one of the subcommands; 0: done, 1: a snapshot is not good, 66: nothing to take or verify."""
    options = _parser().parse_args(arguments)
    code: int = options.action(options, config_of(options))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bullring snapshot", description=__doc__)
    add_common(parser)
    actions = parser.add_subparsers(required=True, metavar="list|take|verify")
    listing = actions.add_parser("list", help="the snapshots there are, the newest first")
    listing.set_defaults(action=_list)
    taking = actions.add_parser("take", help="take one now, of a running or a stopped exchange, and verify it")
    taking.add_argument("--keep", type=int, metavar="N", help="how many to keep; snapshots.keep by default")
    taking.set_defaults(action=_take)
    verifying = actions.add_parser("verify", help="checksums; load in a fresh process, replay, compare")
    verifying.add_argument("sequence", nargs="*", type=int, metavar="SEQUENCE", help="which ones; all by default")
    verifying.set_defaults(action=_verify)
    for each in (listing, taking, verifying):
        add_common(each, nested=True)
    return parser


def _list(options: argparse.Namespace, config: Config) -> int:
    rows = [describe(snapshot) for snapshot in SnapshotStore(config.data_dir).readable(progress)]
    emit(rows, as_json=options.json, empty="no snapshots")
    return ExitCode.OK


def _take(options: argparse.Namespace, config: Config) -> int:
    keep = config.snapshots.keep if options.keep is None else options.keep
    if keep < 1:
        raise CommandError(f"--keep {keep}: must be 1 or more", ExitCode.USAGE)
    # Whoever trades goes first.
    step_back(NICE_MAX)
    try:
        snapshot = take(config, progress, keep=keep)
    except NothingNew as error:
        raise CommandError(str(error), ExitCode.NO_INPUT) from error
    except SnapshotError as error:
        raise CommandError(str(error), ExitCode.NEGATIVE) from error
    emit_one(describe(snapshot) | {"taken_s": snapshot.manifest.taken_s}, as_json=options.json)
    return ExitCode.OK


def _verify(options: argparse.Namespace, config: Config) -> int:
    found = list(SnapshotStore(config.data_dir).readable(progress))
    wanted = set(options.sequence) or {snapshot.manifest.sequence for snapshot in found}
    missing = wanted - {snapshot.manifest.sequence for snapshot in found}
    if missing or not wanted:
        which = ", ".join(map(str, sorted(missing))) or "any"
        raise CommandError(f"{config.data_dir}: no readable snapshot {which}", ExitCode.NO_INPUT)
    rows = [_verdict(snapshot, config) for snapshot in found if snapshot.manifest.sequence in wanted]
    emit(rows, as_json=options.json)
    return ExitCode.OK if all(row["verdict"] == "good" for row in rows) else ExitCode.NEGATIVE


def _verdict(snapshot: Snapshot, config: Config) -> dict[str, Any]:
    manifest = snapshot.manifest
    row: dict[str, Any] = {"sequence": manifest.sequence, "verdict": "good", "replayed_to": manifest.verified_to}
    try:
        progress(f"loading {manifest.sequence} in a fresh process and replaying to {manifest.verified_to}")
        found = replay_elsewhere(snapshot.folder, config.journal_dir, manifest.verified_to)
    except SnapshotError as error:
        return row | {"verdict": "bad", "reason": str(error)}
    if found != (manifest.verified_state_hash, manifest.verified_output_hash):
        return row | {"verdict": "bad", "reason": "it comes to another state than when it was taken"}
    return row | {"reason": ""}
