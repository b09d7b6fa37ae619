"""One whole exchange as real processes for a drill: its own supervisor, clients that trade on it, and the judgement."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from engine import EngineError
from journaler import JournalError
from journaler.recover import recover
from scripts.config import CHECKOUT, Config, load
from scripts.demo import DemoAccount, load_accounts
from scripts.drills import Context, Outcome
from scripts.drills._clients import Clients
from scripts.history.check import LogFacts, Verdict, judge, read_log
from scripts.history.faults import FAULTS
from scripts.history.records import History
from scripts.snapshots.archive_check import ArchiveCheck
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.replaying import follow, start_replica

START_S, STOP_S, BACK_S = 120.0, 60.0, 120.0
STAGES = ("journaler", "sequencer", "matcher-1", "matcher-2", "gateway", "admin")
FUSED = ("journaler", "fused")
SETTINGS = {
    "capacities.orders_per_partition": 16384,
    "capacities.accounts": 64,
    "capacities.balances": 1024,
    "capacities.sessions": 64,
    "capacities.instruments": 16,
    "capacities.assets": 16,
    "capacities.keys": 64,
    "rings.log_slots": 16384,
    "rings.report_slots": 16384,
    "rings.market_slots": 16384,
    "journal.segment_size_bytes": 8 << 20,
    "placement.wait_order_path": "park",
    # Neither on the order path nor part of what is judged here.
    "gateway.web.workers": 0,
    "ledger.enabled": False,
    "supervisor.restarts_max": 1000,
    "supervisor.ready_timeout_s": 120,
    # A loaded machine lets processes wait; the drills stop them for longer where that is the point.
    "supervisor.stuck_ms": 3000,
}


class DrillNode:
    """A node below `folder`, started like an operator would. Use as a context manager; `kill` and `stop_process`."""

    def __init__(
        self, folder: Path, *, layout: str, settings: Mapping[str, Any] | None = None, module: str = ""
    ) -> None:
        # Another module than the command's own, given "node" and the command.
        self._command = [sys.executable, "-m", *([module, "node"] if module else ["scripts.cli"])]
        self.data = folder / "data"
        keys = SETTINGS | {"placement.layout": layout, "gateway.binary.listen": "127.0.0.1:0"} | dict(settings or {})
        self._options = [word for key, value in keys.items() for word in ("--set", f"{key}={_text(value)}")]
        self.config: Config = load(None, {"node.data_dir": str(self.data)} | keys)
        self.errors = folder / "node.stderr"
        self.notes: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._end_strays()

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it trades. Raises RuntimeError with its last words."""
        command = [*self._command, "demo", "--quiet-market", "--json", "--data", str(self.data)]
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                [*command, *self._options], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=os.environ | dict(environment or {}),
            )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            facts = json.loads(line)
            if facts.get("event") == "ready":
                self.ready = facts
                threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True).start()
                return
        raise RuntimeError(f"the node did not start: {self.errors.read_text()[-2000:]}")

    def _listen(self, lines: IO[str]) -> None:
        """Nobody else reads the pipe, and its writer must not wait."""
        for line in lines:
            facts = json.loads(line)
            if facts.get("event") == "note":
                self.notes.append(facts["text"])

    def stop(self) -> int:
        """Stop it in order; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return int(self.process.returncode)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.ready["binary_gateway"].rpartition(":")
        return host, int(port)

    @property
    def accounts(self) -> dict[str, DemoAccount]:
        return load_accounts(self.config)

    # --- processes --------------------------------------------------------------------------------------------------

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return what the supervisor says of its processes, by name."""
        rows = json.loads((self.config.run_dir / "processes.json").read_text())
        return {row["name"]: row for row in rows}

    def kill(self, name: str) -> int:
        """kill -9; return the pid it had."""
        pid = int(self.rows()[name]["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def is_back(self, name: str, pid: int) -> bool:
        """Whether another process has taken the place of that one, and takes part."""
        row = self.rows().get(name)
        return row is not None and row["pid"] != pid and bool(row["ready"])

    def said(self) -> str:
        """Return the supervisor's notes and what anybody wrote to standard error."""
        return "\n".join([*self.notes, self.errors.read_text()])

    def _end_strays(self) -> None:
        """Children of a killed supervisor end by themselves; a stopped one cannot."""
        try:
            rows = self.rows()
        except (OSError, ValueError):
            return
        for row in rows.values():
            if Path(f"/proc/{row['pid']}/cmdline").exists() and self._is_ours(row["pid"]):
                os.kill(row["pid"], signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        try:
            return str(self.config.run_dir) in Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            return False


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def judge_node(node: DrillNode, clients: Clients, outcome: Outcome, context: Context) -> Verdict:
    """The node has been stopped: compare the clients' history with the log, the archive with a full replay."""
    history = History.load([clients.history])
    journal = node.config.journal_dir
    try:
        end = recover(journal).position.sequence
        replica = start_replica(node.config, None)
        archive = ArchiveCheck(journal, allow_short=True)
        follow(journal, replica, end, outputs=archive)
        full_hash = replica.state_hash().hex()
        ends = replica.report_ends
        replica.close()
        replica = start_replica(node.config, None)
        facts: LogFacts = read_log(journal, replica, end, history)
        replica.close()
    except (EngineError, JournalError, SnapshotError) as error:
        outcome.problem(str(error))
        return Verdict()
    if context.planted == "forged":
        FAULTS["lost"][0](history, facts, context.rng)
    verdict = judge(history, facts)
    outcome.facts |= {
        "requests": len(history.sent),
        "acked_before": verdict.acknowledged,
        "acked_lost": len(verdict.problems.get("lost", ())),
        "acked_dup": len(verdict.problems.get("duplicated", ())),
        "unknown_resolved": verdict.unknown_in_log,
        "orders_rejected": sum(session.refused for session in clients.sessions.values()),
        "reports_judged": verdict.reports,
        "archive_compared": archive.compared,
        "hash_equal": full_hash == facts.state_hash,
        "conservation_ok": not facts.unsound,
        "log_end": end,
    }
    outcome.check(archive.compared == sum(ends.values()), f"the archive has {archive.compared} of {sum(ends.values())}")
    for sentence in verdict.sentences:
        outcome.problem(sentence)
    for session in clients.sessions.values():
        for problem in session.problems:
            outcome.problem(problem)
    return verdict


def wait_until_trading(context: Context, clients: Clients, since: float) -> bool:
    """Whether every session and every matcher answers requests sent from now on."""
    return context.wait(
        lambda: clients.all_answered_since(since) and clients.traded_since(since), deadline_s=BACK_S, pause_s=0.005
    )


def milliseconds_since(moment: float) -> int:
    return round((time.monotonic() - moment) * 1000)
