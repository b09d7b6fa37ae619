"""Snapshots are taken while the exchange trades, and killed, with whoever takes or verifies them, at random moments.

After each kill the folder must hold only whole, verified snapshots; between them files of finished ones are damaged,
and the exchange is killed and started again: it must choose a good one, and come to the state that the whole log gives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine import EngineError
from journaler import JournalError
from scripts.config import CHECKOUT
from scripts.drills import Context, Drill, Option, Outcome
from scripts.drills._clients import Clients
from scripts.drills._node import BACK_S, DrillNode, judge_node, wait_until_trading
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.store import SnapshotStore
from scripts.snapshots.verifying import replay

TAKING_S = 120.0
DAMAGE_SHARE = 0.3
NO_SNAPSHOTS = {"snapshots.every_records": 0, "snapshots.every_s": 0}


def run(context: Context) -> Outcome:
    outcome = Outcome({"taken": 0, "killed": 0, "damaged": 0, "restarts": 0})
    with DrillNode(context.folder, layout="fused", settings=NO_SNAPSHOTS) as node:
        node.start()
        history = context.folder / "history"
        clients = Clients(node.accounts, node.address, history, rate_per_s=context.options["rate"], seed=context.seed)
        clients.start()
        outcome.check(wait_until_trading(context, clients, time.monotonic()), "the clients do not trade")
        damaged: set[str] = set()
        time.sleep(2.5)  # hash marks come once a second, and it takes two of them
        for number in context.rounds():
            _take(context, node, outcome, killed=number % 2 == 1)
            _look(node, outcome, damaged)
            _restart(context, node, clients, outcome, damaged)
            if outcome.problems:
                break
            context.say(f"round {number + 1}: {outcome.facts}")
        outcome.check(clients.finish(), f"{clients.unanswered} requests were never answered")
        outcome.check(node.stop() == 0, "the node did not stop in order")
        judge_node(node, clients, outcome, context)
    return outcome


def _take(context: Context, node: DrillNode, outcome: Outcome, *, killed: bool) -> None:
    command = [sys.executable, "-m", "scripts.cli", "snapshot", "take", "--data", str(node.data)]
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    if killed:
        time.sleep(context.rng.uniform(0.0, 3.0))
        # The whole group: a process that verifies must not live on unseen.
        os.killpg(process.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=TAKING_S)
    outcome.add(**{"killed" if killed else "taken": 1})
    if not killed and process.returncode != 0:
        outcome.problem(f"no snapshot was taken: {said[-300:]}")


def _look(node: DrillNode, outcome: Outcome, damaged: set[str]) -> None:
    """Whatever has a snapshot's name is whole, if it was not damaged, and comes to what it says."""
    good = [each for each in SnapshotStore(node.data).readable(outcome.problem) if each.folder.name not in damaged]
    for snapshot in good[:1]:
        manifest = snapshot.manifest
        try:
            found = replay(snapshot.folder, node.config.journal_dir, manifest.verified_to)
        except (SnapshotError, EngineError, JournalError) as error:
            outcome.problem(str(error))
            continue
        outcome.check(
            found == (manifest.verified_state_hash, manifest.verified_output_hash),
            f"snapshot {manifest.sequence} comes to another state than when it was taken",
        )


def _restart(context: Context, node: DrillNode, clients: Clients, outcome: Outcome, damaged: set[str]) -> None:
    """Damage the newest snapshot now and then; kill the exchange; it must start from a good one, or from none."""
    store = SnapshotStore(node.data)
    folders = store.folders()
    if folders and context.rng.random() < DAMAGE_SHARE:
        damaged.add(folders[0].name)
        _damage(context.rng.choice(sorted(folders[0].glob("*.image"))), context.rng.randrange(1 << 30))
        outcome.add(damaged=1)
    expected = next((folder.name for folder in folders if folder.name not in damaged), "")
    if context.planted == "damaged-chosen" and folders:
        expected = folders[-1].name + "0"
    before = len(node.notes)
    pid = node.kill("fused")
    if not context.wait(lambda: node.is_back("fused", pid), deadline_s=BACK_S, pause_s=0.01):
        outcome.problem(f"the exchange did not come back: {node.said()[-500:]}")
        return
    outcome.add(restarts=1)
    started = [note for note in node.notes[before:] if note.startswith("starting from the snapshot at ")]
    used = started[0].split()[5].rstrip(",") if started else ""
    outcome.check(
        (int(used) if used else 0) == (int(expected) if expected else 0),
        f"started from snapshot {used or 'none'}, the newest good one is {expected or 'none'}",
    )
    outcome.check(wait_until_trading(context, clients, time.monotonic()), "nobody trades after the restart")


def _damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << (at % 8)
    path.write_bytes(content)


DRILL = Drill(
    summary="taking of snapshots is killed, snapshots are damaged, the exchange is killed and starts from a good one",
    run=run,
    faults={"damaged-chosen": "the start uses another snapshot than the newest good one"},
    runs=4,
    options=(Option("rate", 200, "requests a second"),),
)
