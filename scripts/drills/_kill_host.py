"""A host of the cluster dies, or one of its processes; the other node takes over, and clients notice a pause.

--what: host (all processes killed and the link down), standby (the other host), or a process of the primary:
supervisor, replicator, fused, journaler; or standby-fused, standby-journaler, standby-replicator. sequencer, matcher-1
and gateway are played in layout stages, feed and ledger with the observers beside; for gateway, feed and ledger nobody
takes over: they come back alone.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from scripts.drills import Context, Outcome
from scripts.drills._cluster import OBSERVERS, ClusterNode, ClusterSite
from scripts.drills._failover import Failover, play

PROCESSES = ("supervisor", "replicator", "fused", "journaler")
STAGES = ("sequencer", "matcher-1", "gateway")
OBSERVED = ("feed", "ledger")
ALONE = ("gateway", *OBSERVED)  # nobody takes over for these
WHAT = ("host", "standby", *PROCESSES, *STAGES, *OBSERVED, *(f"standby-{name}" for name in PROCESSES[1:]))


def run(context: Context) -> Outcome:
    what = "host" if context.options["what"] == "any" else context.options["what"]
    if what not in WHAT:
        raise ValueError(f"--what {what}: must be one of {', '.join(WHAT)}")
    takes_over = what in ("host", *PROCESSES, *STAGES) and what not in ALONE
    layout = "stages" if what in STAGES else "fused"
    overrides = {"placement.layout": layout, "placement.wait_order_path": "park"}
    overrides |= dict(OBSERVERS) if what in OBSERVED else {}
    return play(context, lambda site: _fault(site, what), takes_over=takes_over, overrides=overrides)


def _fault(site: ClusterSite, what: str) -> Failover:
    leader, standby = site.leader, site.standby
    assert leader is not None
    victim = standby if what.startswith("standby") else leader
    if what in ("host", "standby"):
        return kill_host(site, victim)
    name = what.removeprefix("standby-")
    return _kill_process(victim, name)


def kill_host(site: ClusterSite, victim: ClusterNode) -> Failover:
    """Take a host away at once, network first."""
    site.network.unplug(victim.name)
    at = time.monotonic()
    victim.kill()

    def undo() -> None:
        site.network.plug(victim.name)
        victim.start()

    return Failover(at, undo)


def _kill_process(victim: ClusterNode, name: str) -> Failover:
    at = time.monotonic()
    victim.signal(signal.SIGKILL, name)
    undo: Callable[[], None] = lambda: None  # noqa: E731
    if name == "supervisor":
        # Its children notice and end by themselves; a service manager would start it again.
        victim.reap()
        undo = victim.start
    return Failover(at, undo)
