"""kill -9 under load: of each process of one node in turn, or, with --nodes 2, of a host of two or a process there.

One node: --what any, or the only victim; --layout stages or fused. Two nodes: --what host (all processes of the
primary, and its link), standby, or a process of the primary or, with standby- before it, of the other one.
"""

from __future__ import annotations

from scripts.drills import FORGED, NODES, Drill, Option, _kill_host, _kill_process, by_nodes

DRILL = Drill(
    summary="kill -9 of processes of a node, or of a host of two, under load; what clients were told is judged",
    run=by_nodes(_kill_process.run, _kill_host.run),
    faults=FORGED,
    runs=8,
    options=(
        NODES,
        Option("what", "any", "the only victim"),
        Option("layout", "stages", "of one node: stages or fused"),
        Option("rate", 200, "requests a second"),
        Option("observers", 0, "1, of two nodes: feed, ledger and web gateway run beside, on both"),
    ),
)
