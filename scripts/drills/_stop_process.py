"""SIGSTOP of one process of a node after another, for 0.05 to --for seconds, then SIGCONT; nothing is lost.

While a matcher stands still, orders of other pairs are answered; when it stands longer than `supervisor.stuck_ms`, its
own pairs are paused.
"""

from __future__ import annotations

import os
import signal
import time

from scripts.drills import Context, Outcome
from scripts.drills._clients import MARKETS, Clients
from scripts.drills._node import FUSED, STAGES, DrillNode, judge_node, wait_until_trading

ANY = "any"
SHORTEST_S = 0.05
OTHERS_S = 1.0  # how long it must last before others are looked at


def run(context: Context) -> Outcome:
    layout, what, longest = context.options["layout"], context.options["what"], context.options["for"]
    victims = STAGES if layout == "stages" else FUSED
    if what not in (ANY, *victims):
        raise ValueError(f"--what {what}: must be one of {', '.join((ANY, *victims))}")
    outcome = Outcome({"layout": layout, "stops": 0})
    with DrillNode(context.folder, layout=layout) as node:
        node.start()
        history = context.folder / "history"
        clients = Clients(node.accounts, node.address, history, rate_per_s=context.options["rate"], seed=context.seed)
        clients.start()
        outcome.check(wait_until_trading(context, clients, time.monotonic()), "the clients do not trade")
        for number in context.rounds():
            victim = context.rng.choice(victims) if what == ANY else what
            seconds = context.rng.uniform(SHORTEST_S, longest)
            _stop_once(context, node, clients, outcome, victim, seconds)
            if outcome.problems:
                break
            context.say(f"round {number + 1}: {victim} stood still for {seconds:.2f} s")
        outcome.check(clients.finish(), f"{clients.unanswered} requests were never answered")
        outcome.check(node.stop() == 0, "the node did not stop in order")
        judge_node(node, clients, outcome, context)
    return outcome


def _stop_once(
    context: Context, node: DrillNode, clients: Clients, outcome: Outcome, victim: str, seconds: float
) -> None:
    pid = int(node.rows()[victim]["pid"])
    outcome.facts.setdefault("t_fault", context.now)
    at = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        if victim.startswith("matcher-") and seconds > OTHERS_S:
            others = {market.partition for market in MARKETS} - {int(victim.removeprefix("matcher-"))}
            answered = context.wait(lambda: clients.answered_by(others, at), deadline_s=seconds)
            outcome.add(others_looked_at=1)
            outcome.check(answered, f"nobody but {victim} stood still, and others did not answer")
        time.sleep(max(0.0, at + seconds - time.monotonic()))
    finally:
        os.kill(pid, signal.SIGCONT)
    outcome.add(stops=1)
    if not wait_until_trading(context, clients, time.monotonic()):
        outcome.problem(f"nobody trades after {victim} went on: {node.said()[-500:]}")
    outcome.check(int(node.rows()[victim]["pid"]) == pid, f"{victim} was replaced although it was only stopped")
