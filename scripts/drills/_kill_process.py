"""kill -9 of one process of a node after another, under load from several clients; nothing is lost, nothing repeated.

Afterwards the clients' own history is judged against the log, the archive against a full replay of it. --layout fused
kills what stands in one process together; --what names the only victim.
"""

from __future__ import annotations

import time
from statistics import median

from scripts.drills import Context, Outcome
from scripts.drills._clients import Clients
from scripts.drills._node import BACK_S, FUSED, STAGES, DrillNode, judge_node, milliseconds_since, wait_until_trading

ANY = "any"


def run(context: Context) -> Outcome:
    layout, what = context.options["layout"], context.options["what"]
    victims = STAGES if layout == "stages" else FUSED
    if what not in (ANY, *victims):
        raise ValueError(f"--what {what}: must be one of {', '.join((ANY, *victims))}")
    outcome = Outcome({"layout": layout, "kills": 0})
    snapshots = {"snapshots.every_records": 10_000, "snapshots.every_s": 10}
    with DrillNode(context.folder, layout=layout, settings=snapshots) as node:
        node.start()
        clients = Clients(
            node.accounts, node.address, context.folder / "history", rate_per_s=context.options["rate"],
            seed=context.seed,
        )  # fmt: skip
        clients.start()
        outcome.check(wait_until_trading(context, clients, time.monotonic()), "the clients do not trade")
        pool = victims if what == ANY else (what,)
        times: dict[str, list[int]] = {}
        for number in context.rounds():
            victim = context.rng.choice(pool)
            _kill_once(context, node, clients, outcome, victim, times)
            if outcome.problems:
                break
            context.say(f"round {number + 1}: {victim} was back after {times[victim][-1]} ms")
        outcome.check(clients.finish(), f"{clients.unanswered} requests were never answered")
        outcome.facts["rto_ms"] = {name: {"median": median(each), "max": max(each)} for name, each in times.items()}
        outcome.check(node.stop() == 0, "the node did not stop in order")
        judge_node(node, clients, outcome, context)
    return outcome


def _kill_once(
    context: Context, node: DrillNode, clients: Clients, outcome: Outcome, victim: str, times: dict[str, list[int]]
) -> None:
    time.sleep(context.rng.uniform(0.0, 0.5))
    outcome.facts.setdefault("t_fault", context.now)
    at = time.monotonic()
    pid = node.kill(victim)
    outcome.add(kills=1)
    if not context.wait(lambda: node.is_back(victim, pid), deadline_s=BACK_S, pause_s=0.01):
        outcome.problem(f"{victim} did not come back: {node.said()[-500:]}")
        return
    if not wait_until_trading(context, clients, time.monotonic()):
        outcome.problem(f"nobody trades after {victim} came back: {node.said()[-500:]}")
        return
    times.setdefault(victim, []).append(milliseconds_since(at))
