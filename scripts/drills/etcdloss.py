"""The arbiter is gone, or answers slowly. In sync the exchange goes on; only failover has to wait.

--how: kill (etcd dies and comes back with its data), stop (it stands still), with-standby (it dies, and then the
standby: answers stop until one of the two is back, and nothing is lost).
"""

from __future__ import annotations

import signal
import time

from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterSite
from scripts.drills._failover import Failover, play

HOW = ("kill", "stop", "with-standby")
GONE_S = 2.0


def run(context: Context) -> Outcome:
    how = context.options["how"]
    if how not in HOW:
        raise ValueError(f"--how {how}: must be one of {', '.join(HOW)}")
    return play(context, lambda site: _fault(site, how), takes_over=False)


def _fault(site: ClusterSite, how: str) -> Failover:
    at = time.monotonic()
    if how == "stop":
        site.signal_etcd(signal.SIGSTOP)
        return Failover(at, lambda: site.signal_etcd(signal.SIGCONT))
    site.kill_etcd()
    if how == "kill":
        return Failover(at, site.start_etcd)
    standby = site.standby
    standby.kill()
    time.sleep(GONE_S)
    site.start_etcd()
    return Failover(at, standby.start)


DRILL = Drill(
    summary="the arbiter is lost or stands still; in sync the exchange goes on",
    run=run,
    faults=FORGED,
    options=(Option("how", "kill", f"what happens to it: {', '.join(HOW)}"), Option("rate", 200, "requests/s")),
)
