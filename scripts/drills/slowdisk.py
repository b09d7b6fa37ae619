"""The disk answers slowly: several slow syncs, then one that hangs, under a real journaler.

The log ring must say so within a second of the third slow one, and of the hanging one while it hangs; the flag must
fall again; nothing is acknowledged before its sync is over, and the journaler goes on when the disk does.
"""

from __future__ import annotations

from pathlib import Path

from journaler.errors import JournalError
from journaler.recover import recover
from scripts.drills import Context, Drill, Outcome
from scripts.drills._journal import JournalSite
from scripts.exit_codes import ExitCode

SLOW_NS = 300_000_000
HANG_NS = 3_000_000_000
RECORDS = 200
DEAF = {"journal.sync_slow_ms": 1000, "journal.sync_stalled_ms": 600_000}


def run(context: Context) -> Outcome:
    outcome = Outcome({"runs": 0, "acked_before": 0, "acked_lost": 0, "detect_ms_max": 0.0})
    for number in context.rounds():
        folder = context.folder / str(number)
        folder.mkdir()
        keys = {"journal.sync_alarm_s": 2} | (DEAF if context.planted == "deaf" else {})
        with JournalSite(folder, context.rng, keys) as site:
            said = site.start()
            if not said.get("ready"):
                outcome.problem(f"did not start: {said}")
                continue
            site.disk["lie"] = 2 if context.planted == "no-sync" else 0
            if _several_slow_ones(context, site, outcome):
                _one_that_hangs(context, site, outcome)
            _goes_on(context, site, outcome)
        outcome.add(runs=1)
    return outcome


def _several_slow_ones(context: Context, site: JournalSite, outcome: Outcome) -> bool:
    site.run_until(lambda: site.log.commit > RECORDS, context)
    outcome.check(not site.log.storage.slow, "the alarm is raised on a healthy disk")
    # Marks, segments being prepared and audit records are synced too: not all of the slow ones are the log's.
    site.disk["delay_ns"], site.disk["delay_count"] = SLOW_NS, 40
    noticed = site.run_until(lambda: site.log.storage.slow, context, deadline_s=20)
    outcome.facts.setdefault("t_detect", context.now)
    outcome.check(noticed, "slow syncs raised no alarm")
    site.disk["delay_count"] = 0
    if not noticed:
        return False
    fell = site.run_until(lambda: not site.log.storage.slow, context, deadline_s=30)
    outcome.check(fell, "the alarm did not fall when the disk was well again")
    return fell


def _one_that_hangs(context: Context, site: JournalSite, outcome: Outcome) -> None:
    site.disk["delay_ns"], site.disk["delay_count"] = HANG_NS, 8
    outcome.facts.setdefault("t_fault", context.now)
    began = context.now
    seen = site.run_until(lambda: site.log.storage.slow and site.disk["delaying"] > 0, context, deadline_s=20)
    outcome.check(seen, "a hanging sync was not told of while it hung")
    outcome.facts["detect_ms_max"] = max(outcome.facts["detect_ms_max"], round((context.now - began) * 1000, 1))
    site.disk["delay_count"] = 0


def _goes_on(context: Context, site: JournalSite, outcome: Outcome) -> None:
    before = site.log.commit
    went_on = site.run_until(lambda: site.log.commit > before + RECORDS, context)
    outcome.check(went_on and site.alive, f"did not go on with the disk: {site.said()}")
    acked, left = site.lose_power(context)
    kept = _kept(left, outcome)
    outcome.add(acked_before=acked, acked_lost=max(0, acked - kept))
    outcome.check(kept >= acked, f"{acked} were acknowledged, the disk held {kept} after a power loss")
    if site.alive:
        outcome.check(site.stop() == ExitCode.OK, f"did not stop in order: {site.said()}")


def _kept(folder: Path, outcome: Outcome) -> int:
    try:
        return recover(folder).position.sequence
    except JournalError as error:
        outcome.problem(f"refused after a power loss: {error}")
        return 0


DRILL = Drill(
    summary="slow and hanging syncs under a real journaler: an alarm in time, nothing acknowledged early",
    run=run,
    faults={
        "deaf": "thresholds that no sync reaches",
        "no-sync": "nothing is synced before it is acknowledged",
    },
)
