"""`bullring history check`: judge what clients wrote down against the log."""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import EngineError
from journaler import JournalError
from scripts.arguments import add_common, config_of, emit_one, progress
from scripts.exit_codes import CommandError, ExitCode
from scripts.history.check import LogFacts, judge, read_log
from scripts.history.faults import FAULTS, CannotPlant
from scripts.history.records import History
from scripts.replay import BEGINNING, find_start
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.replaying import start_replica
from scripts.snapshots.store import SnapshotStore
from scripts.snapshots.taking import committed_end


def run(arguments: Sequence[str]) -> int:
    """Check; 0: nothing is wrong, 1: something is. With --controls: 0 if every planted fault was noticed."""
    faults = "".join(f"\n  {name:<16}{text}" for name, (_, text) in FAULTS.items())
    parser = argparse.ArgumentParser(
        prog="bullring history",
        description=f"{__doc__}\n\nfaults it must notice (--plant):{faults}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="check")
    check = actions.add_parser("check", help="exactly once, real-time order, every word as the log gives it")
    add_common(check)
    check.add_argument("history", nargs="+", type=Path, metavar="FILE", help="what clients wrote down")
    check.add_argument("--from", dest="start", default=BEGINNING, metavar="SNAPSHOT", help="replay from a snapshot")
    check.add_argument("--to", type=int, metavar="SEQ", help="the log's end for this history")
    check.add_argument("--plant", choices=FAULTS, metavar="FAULT", help="plant a fault: the check has to fail")
    check.add_argument("--controls", action="store_true", help="plant each fault in turn; passes if each is noticed")
    check.add_argument("--seed", type=int, default=1, help="where faults are planted")
    options = parser.parse_args(arguments)
    try:
        history = History.load(options.history)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}", ExitCode.NO_INPUT) from error
    except ValueError as error:
        raise CommandError(str(error), ExitCode.BAD_INPUT) from error
    facts = _facts(options, history)
    if options.controls:
        row, good = _controls(history, facts, options.seed)
    else:
        row, good = _check(history, facts, options.plant, options.seed)
    emit_one(row, as_json=options.json)
    return ExitCode.OK if good else ExitCode.NEGATIVE


def _facts(options: argparse.Namespace, history: History) -> LogFacts:
    config = config_of(options)
    end = committed_end(config) if options.to is None else options.to
    try:
        base = find_start(SnapshotStore(config.data_dir), config.journal_dir, options.start)
        replica = start_replica(config, base)
        facts = read_log(config.journal_dir, replica, end, history)
        replica.close()
    except (EngineError, JournalError, SnapshotError) as error:
        raise CommandError(str(error), ExitCode.NEGATIVE) from error
    return facts


def _check(history: History, facts: LogFacts, planted: str | None, seed: int) -> tuple[dict[str, Any], bool]:
    if planted is not None:
        try:
            FAULTS[planted][0](history, facts, random.Random(seed))
        except CannotPlant:
            raise CommandError(f"--plant {planted}: nothing in the history to change", ExitCode.NO_INPUT) from None
    verdict = judge(history, facts)
    row = {
        "verdict": "fail" if verdict.problems else "pass",
        "planted": planted,
        "requests": len(history.sent),
        "acknowledged": verdict.acknowledged,
        "acked_lost": len(verdict.problems.get("lost", ())),
        "acked_dup": len(verdict.problems.get("duplicated", ())),
        "unknown": verdict.unknown,
        "unknown_in_log": verdict.unknown_in_log,
        "reports": verdict.reports,
        "market": verdict.market,
        "log_end": facts.end,
        "state_hash": facts.state_hash,
        "problems": verdict.sentences,
    }
    return row, not verdict.problems


def _controls(history: History, facts: LogFacts, seed: int) -> tuple[dict[str, Any], bool]:
    noticed: dict[str, str] = {}
    for name, (plant, _) in FAULTS.items():
        changed, known = copy.deepcopy(history), copy.deepcopy(facts)
        try:
            plant(changed, known, random.Random(seed))
        except CannotPlant:
            progress(f"{name}: nothing in this history to plant it in")
            noticed[name] = "not planted"
            continue
        problems = judge(changed, known).sentences
        noticed[name] = problems[0] if problems else ""
    missed = [name for name, problem in noticed.items() if not problem]
    return {"verdict": "fail" if missed else "pass", "controls": noticed, "missed": missed}, not missed
