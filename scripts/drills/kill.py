"""kill -9 under load: of each process of one node in turn, or, with --nodes 2, of a host of two or a process there.

One node: --what any, or the only victim; --layout stages or fused. Two nodes: --what host (all processes of the
primary, and its link), standby, or a process of the primary or, with standby- before it, of the other one.
"""

from __future__ import annotations

from scripts.drills import Context, Drill, Option, Outcome, _kill_host, _kill_process
from scripts.drills._node import FORGED


def run(context: Context) -> Outcome:
    nodes = context.options["nodes"]
    if nodes not in (1, 2):
        raise ValueError(f"--nodes {nodes}: must be 1 or 2")
    return _kill_process.run(context) if nodes == 1 else _kill_host.run(context)


DRILL = Drill(
    summary="kill -9 of processes of a node, or of a host of two, under load; what clients were told is judged",
    run=run,
    faults={"forged": FORGED},
    runs=8,
    options=(
        Option("nodes", 1, "1, or 2: network namespaces and an arbiter, as root"),
        Option("what", "any", "the only victim"),
        Option("layout", "stages", "of one node: stages or fused"),
        Option("rate", 200, "requests a second"),
        Option("observers", 0, "1, of two nodes: feed, ledger and web gateway run beside, on both"),
    ),
)
