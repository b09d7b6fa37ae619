"""`bullring audit account|dump`: what an account held at a time, and why; what a broken invariant came from."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from engine import EngineError
from journaler import JournalError
from scripts.arguments import add_common, config_of, emit, emit_one, progress
from scripts.auditing.account import AccountAudit, parse_time, time_text
from scripts.auditing.dump import FOLDER, Dump, explain
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.progress import Progress
from scripts.replay import BEGINNING, find_start
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.replaying import newest_ts, start_replica
from scripts.snapshots.store import Snapshot, SnapshotStore
from scripts.snapshots.taking import committed_end

ROWS = 20


def run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        code: int = options.action(options, config_of(options))
    except (EngineError, JournalError, SnapshotError) as error:
        raise CommandError(str(error), ExitCode.NEGATIVE) from error
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bullring audit", description="Explain the past by the log.")
    add_common(parser)
    actions = parser.add_subparsers(required=True, metavar="account|dump")
    account = actions.add_parser("account", help="what an account held at a time, and why")
    account.add_argument("account", type=int, help="account id")
    when = account.add_mutually_exclusive_group()
    when.add_argument("--at", metavar="TIME", help="12:03:04.5 or 2026-11-25T12:03:04.5, UTC; the end by default")
    when.add_argument("--to", type=int, metavar="SEQ", help="before this record")
    account.add_argument(
        "--from",
        dest="start",
        metavar="SNAPSHOT",
        help=f"a snapshot's sequence or {BEGINNING!r}; the newest snapshot before the time by default",
    )
    account.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"changes shown; the last {ROWS}")
    account.set_defaults(action=_account)
    dump = actions.add_parser(
        "dump", help="replay the log to where a process broke an invariant: is it the log's doing?"
    )
    dump.add_argument("file", nargs="?", type=Path, help="in DATA/dumps; the newest one by default")
    dump.set_defaults(action=_dump)
    for action in (account, dump):
        add_common(action, nested=True)
    return parser


def _account(options: argparse.Namespace, config: Config) -> int:
    if options.rows < 1:
        raise CommandError(f"--rows {options.rows}: must be 1 or more", ExitCode.USAGE)
    journal, store = config.journal_dir, SnapshotStore(config.data_dir)
    if not journal.is_dir():
        raise CommandError(f"{journal}: no journal there", ExitCode.NO_INPUT)
    end = committed_end(config)
    if options.to is not None and not 0 <= options.to <= end:
        raise CommandError(f"--to {options.to}: must be 0 to {end}", ExitCode.USAGE)
    to = end if options.to is None else options.to
    until_ns = None if options.at is None else parse_time(options.at, newest_ts(journal, end))
    base = find_start(store, journal, options.start) if options.start else _newest_before(store, to, until_ns)
    replica = start_replica(config, base)
    audit = AccountAudit(options.account, replica, options.rows)
    bar = Progress("audit", replica.position, to)
    began_at, opening = replica.position, audit.holdings()["balances"]
    audit.follow(journal, to, until_ns, bar.show)
    bar.finish()
    known = replica.sequencer.balance_changes(options.account) > 0
    facts = {
        "account": options.account,
        "time": time_text(audit.ts_ns) if audit.ts_ns else "",
        "sequence": replica.position,
        "followed_from": began_at,
        "opening": opening,
        "changes": audit.count,
        **audit.holdings(),
    }
    rows = list(audit.rows())
    replica.close()
    if not known:
        raise CommandError(f"account {options.account} never had any money up to there", ExitCode.NEGATIVE)
    if options.json:
        print(json.dumps(facts | {"rows": rows}))
        return ExitCode.OK
    open_orders = facts.pop("open_orders")
    emit_one(facts, as_json=False)
    print()
    emit(rows, as_json=False, empty="no changes since then")
    if open_orders:
        print("\nopen orders, with what they hold (units):")
        emit(open_orders, as_json=False)
    return ExitCode.OK


def _dump(options: argparse.Namespace, config: Config) -> int:
    there = sorted((config.data_dir / FOLDER).glob("*.json"))
    path = options.file or (there[-1] if there else None)
    if path is None:
        raise CommandError(f"{config.data_dir / FOLDER}: no dump there", ExitCode.NO_INPUT)
    try:
        dump = Dump.load(path)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: not a dump that can be read: {error}", ExitCode.BAD_INPUT) from error
    base = _newest_before(SnapshotStore(config.data_dir), dump.log_visible, None)
    row = explain(dump, config.journal_dir, base, 0 if base is None else base.manifest.sequence)
    emit_one(row, as_json=options.json)
    return ExitCode.OK


def _newest_before(store: SnapshotStore, to: int, until_ns: int | None) -> Snapshot | None:
    for snapshot in store.readable(progress):
        manifest = snapshot.manifest
        if manifest.sequence <= to and (until_ns is None or manifest.ts_ns <= until_ns):
            return snapshot
    return None
