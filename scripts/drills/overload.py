"""Ten times the usual load in bursts, with clients that do not read, on small rings; cancels are never shed by orders.

New orders may be answered SystemBusy, slow readers disconnected; every cancel is answered, memory does not grow,
nothing is lost. Afterwards the usual clients' history is judged.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import quantiles

from ringbuf.wire import messages as wire
from scripts.drills import Context, Drill, Option, Outcome
from scripts.drills._clients import Clients
from scripts.drills._node import DrillNode, judge_node, wait_until_trading

BURST_FACTOR = 10
BURST_S, PAUSE_S = 3.0, 1.5
SMALL = {"rings.ingress_slots": 1024, "rings.log_slots": 4096, "rings.report_slots": 4096}
MEMORY_GROWTH_MAX = 1.5
BUSY = {wire.RejectCode.SYSTEM_BUSY, wire.RejectCode.THROTTLE_EXCEEDED}


def run(context: Context) -> Outcome:
    outcome = Outcome({"bursts": 0})
    with DrillNode(context.folder, layout=context.options["layout"], settings=SMALL) as node:
        node.start()
        history, rate = context.folder / "history", context.options["rate"]
        clients = Clients(node.accounts, node.address, history, rate_per_s=rate, seed=context.seed)
        clients.start()
        outcome.check(wait_until_trading(context, clients, time.monotonic()), "the clients do not trade")
        before = _memory(node)
        for _ in context.rounds():
            clients.rate_per_s = rate * BURST_FACTOR
            with clients.not_reading(1):
                time.sleep(BURST_S)
                clients.rate_per_s = rate
            time.sleep(PAUSE_S)
            outcome.add(bursts=1)
        outcome.check(wait_until_trading(context, clients, time.monotonic()), "nobody trades after the bursts")
        after = _memory(node)
        outcome.facts["memory_mib"] = {name: [before[name] >> 20, after[name] >> 20] for name in before}
        for name, size in after.items():
            outcome.check(size < before[name] * MEMORY_GROWTH_MAX + (64 << 20), f"{name} grew to {size >> 20} MiB")
        outcome.check(clients.finish(120.0), f"{clients.unanswered} requests were never answered")
        outcome.check(node.stop() == 0, "the node did not stop in order")
        _cancels(clients, outcome, context)
        judge_node(node, clients, outcome, context)
    return outcome


def _cancels(clients: Clients, outcome: Outcome, context: Context) -> None:
    """No cancel was refused because of load."""
    refused = [code for session in clients.sessions.values() for code in session.refused_cancels]
    if context.planted == "cancel-shed":
        refused.append(wire.RejectCode.SYSTEM_BUSY)
    shed = [code for code in refused if code in BUSY]
    outcome.check(not shed, f"{len(shed)} cancels were shed by order load")
    waits = sorted(wait for session in clients.sessions.values() for wait in session.cancel_waits)
    if len(waits) > 1:
        outcome.facts["cancel_ms_p50"] = round(1000 * waits[len(waits) // 2], 1)
        outcome.facts["cancel_ms_p99"] = round(1000 * quantiles(waits, n=100)[98], 1)
    outcome.facts |= {"cancels": len(waits), "orders_shed": sum(s.shed for s in clients.sessions.values())}


def _memory(node: DrillNode) -> dict[str, int]:
    """Return the private memory of each process, by name."""
    sizes = {}
    for name, row in node.rows().items():
        for line in Path(f"/proc/{row['pid']}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                sizes[name] = int(line.split()[1]) << 10
    return sizes


DRILL = Drill(
    summary="bursts of ten times the load with slow readers on small rings; cancels get through, nothing is lost",
    run=run,
    faults={"cancel-shed": "a cancel was refused because of the load"},
    runs=3,
    options=(Option("layout", "fused", "stages or fused"), Option("rate", 300, "requests a second outside of bursts")),
)
