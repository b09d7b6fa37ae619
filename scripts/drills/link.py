"""The link between the nodes is bad: packets are late, lost, doubled, out of order.

The exchange goes on, with the standby or, where the link is too bad for it, without; nothing acknowledged is lost.
"""

from __future__ import annotations

import time

from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import LINK_PORT, ClusterSite
from scripts.drills._failover import Failover, play
from scripts.drills._tun import Impairment, Wire

HOW = {
    "delay": Impairment(delay_ms=20, jitter_ms=5),
    "loss": Impairment(loss=0.05),
    "duplication": Impairment(duplication=0.5),
    "reorder": Impairment(delay_ms=1, jitter_ms=30),
    "all": Impairment(loss=0.02, duplication=0.2, delay_ms=5, jitter_ms=30),
    "dead": Impairment(loss=1.0),
}
LASTS_S = 3.0


def run(context: Context) -> Outcome:
    how = context.options["how"]
    if how not in HOW:
        raise ValueError(f"--how {how}: must be one of {', '.join(HOW)}")
    wires: list[Wire] = []

    def over_wire(site: ClusterSite) -> None:
        wire = site.attach(Wire(site.network, context.seed))
        wires.append(wire)
        for name, other in (("a", "b"), ("b", "a")):
            site.configure(
                name,
                {
                    "replication.listen": f"{wire.address(name)}:{LINK_PORT}",
                    "replication.peer": f"{wire.address(other)}:{LINK_PORT}",
                },
            )

    def fault(_: ClusterSite) -> Failover:
        at = time.monotonic()
        wires[0].impairment = HOW[how]
        time.sleep(LASTS_S)

        def undo() -> None:
            wires[0].impairment = Impairment()

        return Failover(at, undo)

    outcome = play(context, fault, takes_over=False, prepare=over_wire)
    outcome.facts |= {"packets": wires[0].packets, "packets_lost": wires[0].lost}
    outcome.check(wires[0].packets > 100, "hardly a packet went over the wire: nothing was shown")
    return outcome


DRILL = Drill(
    summary="the link between the nodes is late, lossy, repeating or out of order",
    run=run,
    faults=FORGED,
    options=(Option("how", "all", f"what is wrong: {', '.join(HOW)}"), Option("rate", 200, "requests a second")),
)
