"""Both hosts are lost for good: the exchange goes on from the off-site copy of its log, on a third machine.

The copy lags by up to --every seconds: so much may be lost (rpo_ms), and nothing else. The drill rebuilds the state
with `bullring restore`, starts a node on it, and has it answer.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.admin.link import AdminLink
from scripts.config import CHECKOUT, load
from scripts.drills import Context, Drill, Option, Outcome
from scripts.drills._cluster import OVERRIDES, ClusterSite
from scripts.drills._history import read_log
from scripts.drills._load import Load, SessionHistory
from scripts.ship import JOURNAL

WARM_S = 5.0
READY_S = 120.0
SLACK_S = 5.0  # one pass of the shipping, on a busy machine


def run(context: Context) -> Outcome:
    every_s = context.options["every"]
    outcome = Outcome({"runs": 0})
    for number in context.rounds():
        folder = context.folder / str(number)
        folder.mkdir()
        with ClusterSite(context, folder) as site:
            site.begin()
            outcome.facts.setdefault("epoch_from", site.epoch())
            load = Load(site.accounts, site.addresses, rate_per_s=context.options["rate"], seed=context.seed)
            with _shipping(site, folder / "offsite", every_s) as shipping:
                load.start()
                time.sleep(WARM_S + 2 * every_s)
                outcome.facts.setdefault("t_fault", context.now)
                for node in site.nodes.values():
                    node.kill()
                died = time.monotonic()
                shipping.kill()
            load.abandon()
            if context.planted == "early":
                _lose_a_segment(folder / "offsite" / JOURNAL)
            _recover(context, outcome, site, folder, load.histories, died)
        outcome.add(runs=1)
    return outcome


def _shipping(site: ClusterSite, target: Path, every_s: float) -> subprocess.Popen[bytes]:
    assert site.leader is not None
    command = [sys.executable, "-m", "scripts.cli", "ship", "--data", str(site.leader.config.data_dir)]
    return subprocess.Popen([*command, "--to", str(target), "--every", str(every_s)], cwd=CHECKOUT)


def _lose_a_segment(journal: Path) -> None:
    """The planted fault: the copy lacks its newest records, and its mark says nothing of it."""
    newest = sorted(journal.glob("segment-*.log"))[-1]
    data = bytearray(newest.read_bytes())
    data[4096:8192] = bytes(4096)
    newest.write_bytes(data)


def _recover(
    context: Context,
    outcome: Outcome,
    site: ClusterSite,
    folder: Path,
    histories: Mapping[str, SessionHistory],
    died: float,
) -> None:
    settings: dict[str, Any] = dict(OVERRIDES) | {
        "node.data_dir": str(folder / "third"),
        "node.name": "third",
        "gateway.binary.listen": "127.0.0.1:0",
    }
    began = time.monotonic()
    seal_key = site.nodes["a"].config.seal_key_path
    restored = _command("restore", "--from", str(folder / "offsite"), "--seal-key", str(seal_key), settings=settings)
    outcome.check(restored.returncode == 0, f"restore ended with {restored.returncode}: {restored.stderr[-300:]}")
    if restored.returncode != 0:
        return
    facts = json.loads(restored.stdout)
    outcome.facts |= {"restore_s": facts["elapsed_s"], "hash_marks": facts["hash_marks"]}
    outcome.check(facts["hash_marks"] > 0, "not one hash mark was compared: nothing was shown")
    _judge(outcome, histories, folder / "third" / JOURNAL, died, context.options["every"])
    _start(context, outcome, settings)
    outcome.facts["rto_ms"] = round((time.monotonic() - began) * 1000, 1)


def _judge(
    outcome: Outcome, histories: Mapping[str, SessionHistory], journal: Path, died: float, every_s: float
) -> None:
    """What was acknowledged before the last pass must be there; the rest is lost, and it must be the newest."""
    log = read_log(journal)
    outcome.check(log.back_at is None, f"time in the restored log goes back at record {log.back_at}")
    lost_at = [
        answer.at
        for history in histories.values()
        for number, answer in list(history.answers.items())
        if log.requests[history.session, number] == 0
    ]
    rpo_s = died - min(lost_at, default=died)
    doubled = sum(count > 1 for count in log.requests.values())
    answered = sum(len(history.answers) for history in histories.values())
    outcome.add(acked_before=answered, acked_lost=len(lost_at), acked_dup=doubled)
    outcome.facts["rpo_ms"] = max(outcome.facts.get("rpo_ms", 0.0), round(rpo_s * 1000, 1))
    outcome.check(rpo_s <= every_s + SLACK_S, f"{rpo_s:.1f} s are lost, more than one pass of {every_s} s and its time")
    outcome.check(doubled == 0, f"{doubled} requests are in the restored log more than once")
    outcome.check(len(lost_at) < answered, "everything that was acknowledged is lost")


def _start(context: Context, outcome: Outcome, settings: Mapping[str, Any]) -> None:
    command = [sys.executable, "-m", "scripts.cli", "run", "--json", *_sets(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as node:
        try:
            assert node.stdout is not None
            ready = next((json.loads(line) for line in node.stdout if '"ready"' in line), None)
            outcome.check(ready is not None, "no node starts on what was restored")
            if ready is not None:
                outcome.facts["epoch_to"] = ready["epoch"]
                outcome.facts.setdefault("t_first_ack", context.now)
                with AdminLink.open(load(None, settings)) as link:
                    outcome.check(len(link.accounts()) > 0, "the restored exchange knows no account")
        finally:
            node.send_signal(signal.SIGTERM)


def _command(*words: str, settings: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.cli", *words, "--json", *_sets(settings)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=READY_S, check=False)


def _sets(settings: Mapping[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


DRILL = Drill(
    summary="both hosts are lost: the exchange goes on from the off-site copy of its log",
    run=run,
    faults={"early": "the copy is damaged below its mark"},
    options=(Option("every", 1.0, "seconds between two passes of the shipping"), Option("rate", 200, "requests/s")),
)
