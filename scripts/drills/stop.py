"""SIGSTOP, then SIGCONT under load: of each process of one node in turn, or, with --nodes 2, of a host of a cluster.

One node: --what any, or the only victim; each stop lasts 0.05 to --for seconds. Two nodes: --what host, supervisor,
replicator, fused or journaler of the primary, for --for seconds; longer than the standby waits, and it takes over.
"""

from __future__ import annotations

from scripts.drills import FORGED, NODES, Drill, Option, _stop_host, _stop_process, by_nodes

DRILL = Drill(
    summary="processes of a node, or a host of two, stand still for a while and go on (SIGSTOP, SIGCONT)",
    run=by_nodes(_stop_process.run, _stop_host.run),
    faults=FORGED,
    runs=6,
    options=(
        NODES,
        Option("what", "any", "the only victim; of two nodes: host or a process of the primary"),
        Option("layout", "stages", "of one node: stages or fused"),
        Option("for", 3.0, "seconds, at most"),
        Option("rate", 200, "requests a second"),
    ),
)
