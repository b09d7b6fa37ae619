"""Both hosts die at the same moment and come back, one after the other; who led goes on, and nothing is lost."""

from __future__ import annotations

import time

from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterSite
from scripts.drills._failover import Failover, play

FIRST = ("primary", "standby", "both")
BETWEEN_S = 2.0


def run(context: Context) -> Outcome:
    first = context.options["first"]
    if first not in FIRST:
        raise ValueError(f"--first {first}: must be one of {', '.join(FIRST)}")
    return play(context, lambda site: _fault(site, first), takes_over=True)


def _fault(site: ClusterSite, first: str) -> Failover:
    leader, standby = site.leader, site.standby
    assert leader is not None
    at = time.monotonic()
    leader.kill()
    standby.kill()
    order = [standby, leader] if first == "standby" else [leader, standby]
    for node in order:
        node.start()
        if first != "both":
            time.sleep(BETWEEN_S)
    return Failover(at, lambda: None)


DRILL = Drill(
    summary="both hosts die together and come back",
    run=run,
    faults=FORGED,
    options=(Option("first", "both", f"who comes back first: {', '.join(FIRST)}"), Option("rate", 200, "requests/s")),
)
