"""A rolling upgrade under load: standby first, switchover, then the other node; no request is refused or lost.

--to: the folder of another checkout or installation whose environment the restarted nodes run in; "" = this one.
"""

from __future__ import annotations

import time
from pathlib import Path

from scripts.cluster import ask
from scripts.config import CHECKOUT
from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterNode, ClusterSite
from scripts.drills._failover import Failover, play


def run(context: Context) -> Outcome:
    target = Path(context.options["to"] or CHECKOUT)
    if not (target / ".venv" / "bin" / "python").exists():
        raise ValueError(f"--to {target}: there is no .venv/bin/python")
    problems: list[str] = []

    def fault(site: ClusterSite) -> Failover:
        leader, standby = site.leader, site.standby
        assert leader is not None
        at = time.monotonic()
        _restart(standby, target, problems)
        if not site.settled():
            problems.append(f"the upgraded standby did not come into sync: {site.describe()}")
            return Failover(at, lambda: None)
        ask(leader.config, {"order": "switchover"})
        if not context.wait(lambda: standby.leads):
            problems.append(f"the upgraded standby did not take over: {site.describe()}")
            return Failover(at, lambda: None)
        site.settled()
        _restart(leader, target, problems)
        return Failover(at, lambda: None)

    outcome = play(context, fault, takes_over=True)
    outcome.problems += problems
    outcome.check(outcome.facts["orders_rejected"] == 0, f"{outcome.facts['orders_rejected']} requests were refused")
    return outcome


def _restart(node: ClusterNode, target: Path, problems: list[str]) -> None:
    code = node.stop()
    if code != 0:
        problems.append(f"{node.name} ended with {code}")
    node.checkout = target
    node.start()


DRILL = Drill(
    summary="both nodes are replaced one after the other under load: a short pause, no request refused",
    run=run,
    faults=FORGED,
    options=(Option("to", "", "another checkout with its .venv"), Option("rate", 200, "requests a second")),
)
