"""An order on which its matcher dies, each time: found, reported, taken out of effect by two operators (R10).

Meanwhile the other pairs trade; afterwards the matcher is back, the order is answered with Quarantined, and what
clients were told is judged by a replay that skips it too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from ringbuf.wire import messages as wire
from scripts.config import CHECKOUT
from scripts.drills import Context, Drill, Option, Outcome
from scripts.drills._clients import Clients
from scripts.drills._node import BACK_S, DrillNode, judge_node, milliseconds_since, wait_until_trading
from scripts.drills._poisoned import VARIABLE
from scripts.exit_codes import ExitCode
from scripts.history.records import History

VICTIM, PARTITION, INSTRUMENT = "matcher-2", 2, 2
POISON_ID = 666_000_666
NOTICED_S = 20.0


def run(context: Context) -> Outcome:
    outcome = Outcome({"poisoned": 0})
    with DrillNode(context.folder, layout="stages", module="scripts.drills._poisoned") as node:
        node.start({VARIABLE: str(POISON_ID)})
        history = context.folder / "history"
        clients = Clients(node.accounts, node.address, history, rate_per_s=context.options["rate"], seed=context.seed)
        clients.start()
        outcome.check(wait_until_trading(context, clients, time.monotonic()), "the clients do not trade")
        _poison(context, node, clients, outcome)
        if not outcome.problems:
            outcome.check(clients.finish(), f"{clients.unanswered} requests were never answered")
            outcome.check(node.stop() == 0, "the node did not stop in order")
            judge_node(node, clients, outcome, context)
            _answer(History.load([history]), outcome)
    return outcome


def _poison(context: Context, node: DrillNode, clients: Clients, outcome: Outcome) -> None:
    at = time.monotonic()
    outcome.facts["t_fault"] = context.now
    clients.inject(
        wire.NewOrderSingle(
            instrument_id=INSTRUMENT, side=wire.Side.BUY, order_qty=1, price=300_000, ord_type=wire.OrdType.LIMIT,
            cl_ord_id=POISON_ID, time_in_force=wire.TimeInForce.GTC,
        )
    )  # fmt: skip
    if not context.wait(lambda: "ALARM" in node.said(), deadline_s=BACK_S, pause_s=0.05):
        outcome.problem(f"nobody noticed what {VICTIM} dies on: {node.said()[-500:]}")
        return
    outcome.facts |= {"t_detect": context.now, "detect_ms": milliseconds_since(at), "poisoned": 1}
    now = time.monotonic()
    outcome.check(context.wait(lambda: clients.answered_by({1}, now), deadline_s=BACK_S), "other pairs do not trade")
    found = _command(node, "list")
    outcome.check(len(found) == 1 and found[0]["fields"]["cl_ord_id"] == POISON_ID, f"the wrong record: {found}")
    if not found:
        return
    sequence = str(found[0]["sequence"])
    _command(node, "propose", sequence, "--operator", "7")
    refused = _command(node, "approve", sequence, "--operator", "7", code=ExitCode.REFUSED)
    outcome.check(not refused, "one operator alone could take a record out of effect")
    if context.planted != "one-operator":
        _command(node, "approve", sequence, "--operator", "9")
    deadline = NOTICED_S if context.planted else BACK_S
    back = context.wait(lambda: VICTIM in node.rows() and node.rows()[VICTIM]["ready"], deadline_s=deadline)
    outcome.check(back, f"{VICTIM} did not come back: {node.said()[-500:]}")
    if back:
        outcome.check(wait_until_trading(context, clients, time.monotonic()), "its pairs do not trade again")
        outcome.facts["rto_ms"] = milliseconds_since(at)


def _command(node: DrillNode, *arguments: str, code: ExitCode = ExitCode.OK) -> list[dict[str, Any]]:
    """Run `bullring quarantine`; return its rows, none if it ended with that other code."""
    command = [sys.executable, "-m", "scripts.cli", "quarantine", *arguments, "--data", str(node.data), "--json"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode == ExitCode.OK:
        return [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != code:
        raise RuntimeError(f"quarantine {' '.join(arguments)}: {done.stderr}")
    return []


def _answer(history: History, outcome: Outcome) -> None:
    """The one who sent it was told what became of it."""
    answers = [told.message for told in history.told if getattr(told.message, "cl_ord_id", 0) == POISON_ID]
    codes = [getattr(message, "reject_code", None) for message in answers]
    outcome.check(codes == [wire.RejectCode.QUARANTINED], f"the poisoned order was answered with {answers}")


DRILL = Drill(
    summary="a matcher dies on one record each time; it is found and taken out of effect by two operators",
    run=run,
    faults={"one-operator": "the record is never taken out: no second operator agrees"},
    options=(Option("rate", 150, "requests a second"),),
)
