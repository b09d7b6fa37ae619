"""SIGSTOP, then SIGCONT under load: of each process of one node in turn, or, with --nodes 2, of a host of a cluster.

One node: --what any, or the only victim; each stop lasts 0.05 to --for seconds. Two nodes: --what host, supervisor,
replicator, fused or journaler of the primary, for --for seconds; longer than the standby waits, and it takes over.
"""

from __future__ import annotations

from scripts.drills import Context, Drill, Option, Outcome, _stop_host, _stop_process
from scripts.drills._node import FORGED


def run(context: Context) -> Outcome:
    nodes = context.options["nodes"]
    if nodes not in (1, 2):
        raise ValueError(f"--nodes {nodes}: must be 1 or 2")
    return _stop_process.run(context) if nodes == 1 else _stop_host.run(context)


DRILL = Drill(
    summary="processes of a node, or a host of two, stand still for a while and go on (SIGSTOP, SIGCONT)",
    run=run,
    faults={"forged": FORGED},
    runs=6,
    options=(
        Option("nodes", 1, "1, or 2: network namespaces and an arbiter, as root"),
        Option("what", "any", "the only victim; of two nodes: host or a process of the primary"),
        Option("layout", "stages", "of one node: stages or fused"),
        Option("for", 3.0, "seconds, at most"),
        Option("rate", 200, "requests a second"),
    ),
)
