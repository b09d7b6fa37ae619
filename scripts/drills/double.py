"""A second fault before the first is over: the standby has just taken over, alone, when its core dies, too.

Alone it recovers in place, as a new epoch; the first host comes back later and follows.
"""

from __future__ import annotations

import signal
import time

from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterSite
from scripts.drills._failover import Failover, play

TAKES_OVER_S = 30.0


def run(context: Context) -> Outcome:
    return play(context, _fault, takes_over=True)


def _fault(site: ClusterSite) -> Failover:
    leader, standby = site.leader, site.standby
    assert leader is not None
    at = time.monotonic()
    leader.kill()
    deadline = time.monotonic() + TAKES_OVER_S
    while not standby.leads and time.monotonic() < deadline:
        time.sleep(0.01)
    standby.signal(signal.SIGKILL, "fused")
    return Failover(at, leader.start)


DRILL = Drill(
    summary="the standby's core dies just after it has taken over from a dead host",
    run=run,
    faults=FORGED,
    options=(Option("rate", 200, "requests a second"),),
)
