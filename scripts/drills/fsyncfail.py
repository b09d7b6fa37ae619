"""A sync fails: the k-th of a real journaler, whichever file it is of, for many k.

The process must end at once with 74, say so in the ring's `panic` and in a file, and acknowledge nothing after that;
what it had acknowledged must be on the strictest disk after a power loss at that very moment. A start is refused until
an operator has looked; then the log goes on.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path

from journaler.errors import JournalError
from journaler.recover import recover
from journaler.segments import PANIC_FILE
from scripts.drills import Context, Drill, Option, Outcome
from scripts.drills._journal import JournalSite
from scripts.exit_codes import ExitCode

GO_ON_RECORDS = 50
RECORDS_AFTER_FAILURE = 2000


def run(context: Context) -> Outcome:
    outcome = Outcome({"runs": 0, "acked_before": 0, "acked_lost": 0, "syncs_max": 0, "detect_ms_max": 0.0})
    for number in context.rounds():
        folder = context.folder / str(number)
        folder.mkdir()
        with JournalSite(folder, context.rng) as site:
            _fail_once(context, site, outcome, context.rng.randrange(1, context.options["syncs"] + 1))
        outcome.add(runs=1)
    return outcome


def _fail_once(context: Context, site: JournalSite, outcome: Outcome, which: int) -> None:
    site.disk["fail_at"] = which
    site.disk["error"] = errno.EIO if context.rng.random() < 0.8 else errno.ENOSPC
    site.disk["lie"] = {None: 0, "unnoticed": 1, "no-sync": 2}[context.planted]
    outcome.facts["syncs_max"] = max(outcome.facts["syncs_max"], which)
    said = site.start()
    where = f"sync {which}"
    went_on_from = -1

    def went_on() -> bool:
        nonlocal went_on_from
        if went_on_from < 0 and site.disk["failed_at_ns"]:
            went_on_from = site.log.commit
        lied = site.disk["lie"] == 2 and site.log.commit > RECORDS_AFTER_FAILURE
        return lied or (went_on_from >= 0 and site.log.commit > went_on_from + RECORDS_AFTER_FAILURE)

    if said.get("ready"):
        outcome.check(site.run_until(went_on, context), f"{where}: neither failed nor went on")
    if site.alive and went_on():
        outcome.problem(f"{where}: the journaler went on acknowledging after it")
    elif site.disk["failed_at_ns"]:
        _judge_the_death(context, site, outcome, where)
    _judge_the_files(context, site, outcome, where)


def _judge_the_death(context: Context, site: JournalSite, outcome: Outcome, where: str) -> None:
    code = site.exit_code(context)
    detect_ms = (time.monotonic_ns() - site.disk["failed_at_ns"]) / 1e6
    outcome.facts["detect_ms_max"] = round(max(outcome.facts["detect_ms_max"], detect_ms), 1)
    outcome.check(code == ExitCode.IO_ERROR, f"{where}: exit code {code}, not {int(ExitCode.IO_ERROR)}: {site.said()}")
    outcome.check(site.log.panic == site.disk["error"], f"{where}: the ring's panic cell says {site.log.panic}")
    outcome.check(site.disk["after"] == 0, f"{where}: the same thread synced again afterwards")


def _judge_the_files(context: Context, site: JournalSite, outcome: Outcome, where: str) -> None:
    acked, left = site.lose_power(context)
    panicked = site.disk["failed_at_ns"] and site.disk["lie"] == 0
    site.end()
    outcome.add(acked_before=acked)
    try:
        kept = recover(left).position.sequence
    except JournalError as error:
        outcome.problem(f"{where}: refused after a power loss: {error}")
        kept = 0
    outcome.add(acked_lost=max(0, acked - kept))
    outcome.check(kept >= acked, f"{where}: {acked} were acknowledged, the disk held {kept} after a power loss")
    if panicked:
        _judge_the_restart(site, outcome, where, acked)


def _judge_the_restart(site: JournalSite, outcome: Outcome, where: str, acked: int) -> None:
    site.disk["fail_at"] = 0
    panic: Path = site.journal / PANIC_FILE
    outcome.check(panic.exists(), f"{where}: no panic file for the operator")
    refused = site.start()
    outcome.check("verify --direct" in str(refused.get("error")), f"{where}: the next start was not refused: {refused}")
    site.end()
    panic.unlink(missing_ok=True)
    said = site.start()
    if not said.get("ready"):
        outcome.problem(f"{where}: did not start after the operator's word: {said}")
        return
    outcome.check(site.log.base >= acked, f"{where}: went on at {site.log.base}, below {acked} acknowledged")
    site.publish(GO_ON_RECORDS)
    published = site.log.published
    outcome.check(site.stop() == ExitCode.OK, f"{where}: did not stop in order: {site.said()}")
    end = recover(site.journal).position.sequence
    outcome.check(end == published, f"{where}: the log ends at {end}, {published} were published")


DRILL = Drill(
    summary="EIO or ENOSPC on the k-th sync of a real journaler, for many k",
    run=run,
    runs=12,
    options=(Option("syncs", 120, "k is drawn from 1 to this"),),
    faults={
        "unnoticed": "the failed sync is taken for a good one",
        "no-sync": "nothing is ever synced before it is acknowledged",
    },
)
