"""The primary's host, or one of its processes, stands still for a while (SIGSTOP) and then goes on.

Longer than the standby waits, and it takes over; the old primary wakes up, finds itself deposed and follows.
"""

from __future__ import annotations

import signal
import time

from scripts.drills import Context, Outcome
from scripts.drills._cluster import ClusterSite
from scripts.drills._failover import Failover, play

WHAT = ("host", "supervisor", "replicator", "fused", "journaler")
TAKES_OVER_S = 0.6


def run(context: Context) -> Outcome:
    what, seconds = context.options["what"], context.options["for"]
    what = "host" if what == "any" else what
    if what not in WHAT:
        raise ValueError(f"--what {what}: must be one of {', '.join(WHAT)}")
    # A replicator that lives keeps the standby calm, whatever else stands still.
    silent = what in ("host", "replicator") and seconds > 2 * TAKES_OVER_S
    return play(context, lambda site: _fault(site, what, seconds), takes_over=silent)


def _fault(site: ClusterSite, what: str, seconds: float) -> Failover:
    leader = site.leader
    assert leader is not None
    names = () if what == "host" else (what,)
    at = time.monotonic()
    leader.signal(signal.SIGSTOP, *names)

    def undo() -> None:
        time.sleep(max(0.0, at + seconds - time.monotonic()))
        leader.signal(signal.SIGCONT)

    if seconds < 1.0:
        undo()
        return Failover(at, lambda: None)
    return Failover(at, undo)
