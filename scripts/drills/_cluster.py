"""Two nodes and an etcd as real processes on hosts of their own, for drills of failover."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from replicator.transport import KeyPair
from scripts.config import CHECKOUT, Config, load
from scripts.demo import DemoAccount, prepare
from scripts.drills import Context
from scripts.drills._etcd import etcd_answers, etcd_command
from scripts.drills._net import Network, needs_namespaces
from scripts.replica_process import coordinator_config

ETCD_PORT, ETCD_PEER_PORT, GATEWAY_PORT, LINK_PORT = 2379, 2380, 9100, 9110
T = TypeVar("T", bound=AbstractContextManager[Any])
READY_S = 120.0
SETTLED_S = 60.0
# Small capacities, so that a node is there in a moment; no damping, since a drill fails over again and again.
OVERRIDES: Mapping[str, Any] = {
    "capacities.orders_per_partition": 16384,
    "journal.segment_size_bytes": 16 << 20,
    "replication.failover_gap_s": 0,
    "replication.failovers_per_hour": 1000,
    "supervisor.restarts_max": 1000,
    "placement.layout": "fused",
    # Who only observes is left out: two nodes share this machine's cores. `--observers 1` brings them back.
    "ledger.enabled": False,
    "gateway.feed.enabled": False,
    "gateway.web.workers": 0,
}
OBSERVERS: Mapping[str, Any] = {"ledger.enabled": True, "gateway.feed.enabled": True, "gateway.web.workers": 1}


@dataclass
class State:
    """One word of a node about itself, and when it came."""

    at: float
    state: str
    epoch: int
    in_sync: bool
    hot: bool = False  # a leader: its standby is close behind


@dataclass
class ClusterNode:
    """A node's supervisor as a process; `states` is what it has said."""

    name: str
    number: int
    settings: Mapping[str, Any]
    config: Config
    network: Network
    environment: Mapping[str, str] = field(default_factory=dict)
    checkout: Path = CHECKOUT  # whose program runs there
    process: subprocess.Popen[str] | None = None
    states: list[State] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ready: bool = False

    def start(self) -> None:
        log = self.config.data_dir.parent / f"{self.name}.stderr"
        python = sys.executable if self.checkout == CHECKOUT else str(self.checkout / ".venv" / "bin" / "python")
        command = [python, "-m", "scripts.cli", "run", "--json"]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
        with log.open("a") as errors:
            self.process = subprocess.Popen(
                self.network.command(self.name, *command),
                cwd=self.checkout,
                env=os.environ | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(ValueError):
                facts = json.loads(line)
                if facts.get("event") == "state":
                    said = State(time.monotonic(), *(facts[key] for key in ("state", "epoch", "in_sync", "hot")))
                    self.states.append(said)
                elif facts.get("event") == "ready":
                    self.ready = True
                elif facts.get("event") == "note":
                    self.notes.append(facts["text"])

    @property
    def state(self) -> State:
        return self.states[-1] if self.states else State(0.0, "none", 0, False)

    @property
    def leads(self) -> bool:
        return self.alive and self.state.state == "primary"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def pids(self) -> dict[str, int]:
        """The node's processes by name, its supervisor under `supervisor`."""
        assert self.process is not None
        rows: list[dict[str, Any]] = []
        with suppress(OSError, ValueError):
            rows = json.loads((self.config.run_dir / "processes.json").read_text())
        # `ip netns exec` becomes the command it was given.
        return {row["name"]: row["pid"] for row in rows} | {"supervisor": self.process.pid}

    def signal(self, number: int, *names: str) -> list[int]:
        """Send a signal to these processes, to all of them without names; return the pids that got it."""
        reached = []
        for name, pid in self.pids().items():
            if not names or name in names:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                    reached.append(pid)
        return reached

    def kill(self) -> None:
        """All processes of the host, at once."""
        # The supervisor first: else it would begin to restart what is being killed.
        self.signal(signal.SIGKILL, "supervisor")
        self.signal(signal.SIGKILL)
        self.reap()

    def reap(self) -> None:
        if self.process is not None:
            self.process.wait()
            self.states.append(State(time.monotonic(), "dead", 0, False))

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        if self.process is None:
            return 0
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.states.append(State(time.monotonic(), "dead", 0, False))
        return code


class ClusterSite:
    """Network, etcd and both nodes. `with ClusterSite(context) as site: site.begin()`."""

    def __init__(self, context: Context, folder: Path, overrides: Mapping[str, Any] | None = None) -> None:
        needs_namespaces()
        self._context = context
        self._stack = ExitStack()
        self.folder = folder
        self.network = self._stack.enter_context(Network())
        self._etcd: subprocess.Popen[bytes] | None = None
        self._overrides = dict(OVERRIDES) | dict(overrides or {})
        self.nodes = self._make_nodes()
        self.accounts: dict[str, DemoAccount] = {}

    def __enter__(self) -> ClusterSite:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            if node.process is not None and node.alive:
                node.signal(signal.SIGCONT)
                node.kill()
        self.kill_etcd()
        self._stack.close()

    # --- life -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start all, wait until the standby is in sync, make pairs and accounts. Raises RuntimeError if it does not."""
        self.start_etcd()
        for node in self.nodes.values():
            node.start()
        if not self.settled(READY_S):
            raise RuntimeError(f"the cluster did not start: {self.describe()}")
        leader = self.leader
        assert leader is not None
        self.accounts = prepare(leader.config, 2)

    @property
    def leader(self) -> ClusterNode | None:
        leading = [node for node in self.nodes.values() if node.leads]
        return max(leading, key=lambda node: node.state.epoch) if leading else None

    @property
    def standby(self) -> ClusterNode:
        leader = self.leader
        return next(node for node in self.nodes.values() if node is not leader)

    def settled(self, deadline_s: float = SETTLED_S) -> bool:
        """Wait until one node leads and the other is in sync with it and close behind."""

        def settled() -> bool:
            leader = self.leader
            return leader is not None and leader.state.in_sync and leader.state.hot

        return self._context.wait(settled, deadline_s=deadline_s)

    def epoch(self) -> int:
        return self.leader.state.epoch if self.leader is not None else 0

    def stop(self) -> dict[str, int]:
        """End both nodes in order: the standby first, so that nobody fails over."""
        leader = self.leader
        order = [node for node in self.nodes.values() if node is not leader] + ([leader] if leader is not None else [])
        return {node.name: node.stop() for node in order}

    def describe(self) -> str:
        said = []
        for node in self.nodes.values():
            errors = self.folder / f"{node.name}.stderr"
            tail = errors.read_text(errors="replace").splitlines()[-3:] if errors.exists() else []
            said.append(f"{node.name}: {node.state}, notes {node.notes[-3:]}, {tail}")
        return "; ".join(said)

    def attach(self, thing: T) -> T:
        """Have something entered now, and left with the site."""
        self._stack.enter_context(thing)
        return thing

    def configure(self, name: str, changes: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> None:
        """Change settings or the environment of a node; they hold from its next start."""
        node = self.nodes[name]
        node.settings = dict(node.settings) | dict(changes)
        node.config = load(None, node.settings)
        node.environment = dict(node.environment) | dict(environment or {})

    # --- etcd -------------------------------------------------------------------------------------------------------

    def start_etcd(self) -> None:
        address, folder = self.network.address("etcd"), self.folder / "etcd"
        command = etcd_command("etcd", folder, address, ETCD_PORT, ETCD_PEER_PORT)
        with (self.folder / "etcd.log").open("ab") as log:
            self._etcd = subprocess.Popen(self.network.command("etcd", *command), stdout=log, stderr=log)
        self._context.wait(lambda: etcd_answers(coordinator_config(self.nodes["a"].config)))

    def kill_etcd(self) -> None:
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait()
            self._etcd = None

    def signal_etcd(self, number: int) -> None:
        assert self._etcd is not None
        self._etcd.send_signal(number)

    # --- nodes ------------------------------------------------------------------------------------------------------

    def _make_nodes(self) -> dict[str, ClusterNode]:
        keys = {name: KeyPair.make() for name in "ab"}
        seal = os.urandom(32)
        nodes = {}
        for number, name in enumerate("ab", 1):
            other = "b" if name == "a" else "a"
            data = self.folder / name
            data.mkdir(mode=0o700)
            keys[name].save(data)
            (data / "seal.key").write_bytes(seal)
            (data / "seal.key").chmod(0o600)
            address, peer = self.network.address(name), self.network.address(other)
            settings = {
                "node.name": name,
                "node.node_id": number,
                "node.data_dir": str(data),
                "gateway.binary.listen": f"{address}:{GATEWAY_PORT}",
                "replication.peer": f"{peer}:{LINK_PORT}",
                "replication.peer_node": 3 - number,
                "replication.listen": f"{address}:{LINK_PORT}",
                "replication.peer_key": keys[other].public,
                "arbiter.endpoints": f"{self.network.address('etcd')}:{ETCD_PORT}",
                "arbiter.prefix": f"/bullring-drill-{self.folder.name}",
            } | self._overrides
            nodes[name] = ClusterNode(name, number, settings, load(None, settings), self.network)
        return nodes

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where clients try, one after the other."""
        return [(self.network.address(name), GATEWAY_PORT) for name in self.nodes]
