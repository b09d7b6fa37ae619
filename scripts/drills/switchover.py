"""Planned switchovers under load: the operator orders, the standby takes over, no request is refused."""

from __future__ import annotations

import time

from scripts.cluster import ask
from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterSite
from scripts.drills._failover import Failover, play


def run(context: Context) -> Outcome:
    outcome = play(context, _fault, takes_over=True)
    outcome.check(outcome.facts["orders_rejected"] == 0, f"{outcome.facts['orders_rejected']} requests were refused")
    return outcome


def _fault(site: ClusterSite) -> Failover:
    leader = site.leader
    assert leader is not None
    at = time.monotonic()
    ask(leader.config, {"order": "switchover"})
    return Failover(at, lambda: None)


DRILL = Drill(
    summary="planned switchovers under load: a short pause, no request refused",
    run=run,
    faults=FORGED,
    runs=5,
    options=(Option("rate", 200, "requests a second"),),
)
