"""Parts of the network between the nodes, the arbiter and the clients fail, and come back.

--link: ab (the nodes cannot reach each other), one-way (the standby hears nothing from the primary), back-way (the
primary hears nothing from the standby), flap (ab comes and goes), a-etcd, b-etcd (primary, standby without the
arbiter), isolated (the primary without everybody), client (clients cannot reach the primary, nodes see each other).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterSite
from scripts.drills._failover import Failover, play
from scripts.drills._net import CLIENTS

LINKS = ("ab", "one-way", "back-way", "flap", "a-etcd", "b-etcd", "isolated", "client")
FLAPS = 10
FLAP_S = 0.25
CLIENTS_CUT_S = 2.0


def run(context: Context) -> Outcome:
    link = context.options["link"]
    if link not in LINKS:
        raise ValueError(f"--link {link}: must be one of {', '.join(LINKS)}")
    return play(context, lambda site: _fault(site, link), takes_over=link == "isolated")


def _fault(site: ClusterSite, link: str) -> Failover:
    leader, network = site.leader, site.network
    assert leader is not None
    a, b = leader.name, site.standby.name
    at = time.monotonic()
    undo: Callable[[], None]
    match link:
        case "ab":
            network.cut(a, b)
            undo = lambda: network.mend(a, b)  # noqa: E731
        case "one-way":
            network.block(a, b)
            undo = lambda: network.unblock(a, b)  # noqa: E731
        case "back-way":
            network.block(b, a)
            undo = lambda: network.unblock(b, a)  # noqa: E731
        case "flap":
            for _ in range(FLAPS):
                network.cut(a, b)
                time.sleep(FLAP_S)
                network.mend(a, b)
                time.sleep(FLAP_S)
            undo = lambda: None  # noqa: E731
        case "client":
            # Nobody fails over: for as long as it lasts clients have to wait.
            network.block(a, CLIENTS)
            time.sleep(CLIENTS_CUT_S)
            network.unblock(a, CLIENTS)
            undo = lambda: None  # noqa: E731
        case "isolated":
            network.unplug(a)
            undo = lambda: network.plug(a)  # noqa: E731
        case _:
            node = a if link == "a-etcd" else b
            network.cut(node, "etcd")
            undo = lambda: network.mend(node, "etcd")  # noqa: E731
    return Failover(at, undo)


DRILL = Drill(
    summary="the network between nodes, arbiter and clients fails in part, and comes back",
    run=run,
    faults=FORGED,
    options=(Option("link", "ab", f"what fails: {', '.join(LINKS)}"), Option("rate", 200, "requests a second")),
)
