"""The supervisor of a replicated node: the replicator process decides, this starts and stops the core for it.

One loop waits for the replicator's messages, for processes that become ready and for processes that die, so a death of
the core is told within a millisecond: the other node takes over at once.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from engine import Places
from journaler.chain import end_of
from ringbuf import RingbufError
from scripts.cells import Cells
from scripts.config import CHECKOUT, Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import Node, NodeRings, engine_config
from scripts.placement import CORE_KINDS, NOT_PINNED, OBSERVER_KINDS, WEB_KINDS, Kind, ProcessPlan
from scripts.replica_process import CONFIG_FILE, NAME
from scripts.supervisor import FATAL, Child, Say, Supervisor

MESSAGE_MAX = 65536
POLL_MS = 200
REPLICATOR_READY_S = 30.0
HAND_OVER_S = 2.0


class ClusterSupervisor(Supervisor):
    """As Supervisor: `start()`, then `step()` until it returns False, then `stop()`; it may have no core meanwhile."""

    def __init__(self, config: Config, say: Say, on_state: Callable[[Mapping[str, Any]], None]) -> None:
        """`on_state` is told {"state", "epoch", "in_sync", "hot"} when that changes; `hot`: the standby is close."""
        super().__init__(config, say)
        self.state: dict[str, Any] = {"state": "init", "epoch": 0, "in_sync": False, "hot": False}
        self._on_state = on_state
        self._epoll = select.epoll()
        self._replicator: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._deaths: dict[int, Child] = {}
        self._pipes: dict[int, Child] = {}
        self._seeding = False
        self._failed_told = False
        self._log_told = False
        self._following_told = False
        self._waiting: list[ProcessPlan] = []  # observers that are started once they have something to observe

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> Node:
        """Start the replicator; the core follows when it says so. Raises CommandError."""
        self._say(self.placement.describe())
        self._snapshots.start()
        self._prepare()
        self._journal_end()  # verified as a whole, once, before anybody is told where it ends
        (self.config.run_dir / CONFIG_FILE).write_text(json.dumps(self.config.as_tables()))
        self._start_replicator()
        self.node = self._make_node(commit=None)
        return self.node

    def step(self) -> bool:
        """Handle what has happened, for at most a fifth of a second."""
        self._handle_events(POLL_MS / 1000)
        if self._rings is not None:
            self._look_at_storage()
            self._seeded()
            self._revive_observers()
            if not (self.state["state"] == "primary" and self.state["in_sync"]):
                # S1: the standby takes the snapshots, the primary only when it is alone.
                self._look_at_snapshots()
        return not self._stopping

    def _handle_events(self, timeout_s: float) -> None:
        happened = [(descriptor, self._whose(descriptor)) for descriptor, _ in self._epoll.poll(timeout_s)]
        for descriptor, child in happened:
            if self._socket is not None and descriptor == self._socket.fileno():
                self._from_replicator()
            elif child is None or self._whose(descriptor) is not child:
                continue  # what came first has ended it, and a new process may have got the number
            elif descriptor in self._pipes:
                self._becomes_ready(descriptor)
            else:
                self._dies(descriptor)

    def _whose(self, descriptor: int) -> Child | None:
        return self._pipes.get(descriptor) or self._deaths.get(descriptor)

    def stop(self) -> None:
        """Hand over to the other node if it can take over, then end the core in order, then the replicator."""
        self._hand_over()
        self._forget_children()
        replicator = self._replicator
        super().stop()
        if replicator is not None:
            self._tell(event="stop")
            try:
                replicator.wait(self.config.supervisor.stop_timeout_s)
            except subprocess.TimeoutExpired:
                replicator.kill()
                replicator.wait()
        if self._socket is not None:
            self._socket.close()
        self._epoll.close()

    def _hand_over(self) -> None:
        if not (self.state["state"] == "primary" and self.state["hot"]):
            return
        self._tell(event="switchover")
        deadline = time.monotonic() + HAND_OVER_S
        while self.state["state"] == "primary" and time.monotonic() < deadline and self._socket is not None:
            self._handle_events(0.01)

    # --- the replicator ---------------------------------------------------------------------------------------------

    def _start_replicator(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log_path = self.config.data_dir / "logs" / f"{NAME}.log"
        command = [sys.executable, "-m", "scripts.replica_process", str(self.config.run_dir), str(theirs.fileno())]
        with log_path.open("ab") as log:
            self._replicator = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd=CHECKOUT,
            )
        theirs.close()
        ours.settimeout(REPLICATOR_READY_S)
        try:
            message = json.loads(ours.recv(MESSAGE_MAX) or b'{"do": "failed"}')
        except TimeoutError:
            message = {"do": "failed", "error": f"not ready in {REPLICATOR_READY_S} s"}
        if message["do"] != "ready":
            self._replicator.kill()
            self._replicator.wait()
            self._replicator = None
            code = ExitCode(message.get("exit_code", ExitCode.INTERNAL))
            raise CommandError(f"{NAME}: {message.get('error', f'it ended; see {log_path}')}", code)
        ours.setblocking(False)
        self._socket = ours
        self._epoll.register(ours, select.EPOLLIN)
        self._write_processes()

    def _rows(self) -> list[dict[str, Any]]:
        rows = super()._rows()
        if self._replicator is not None:
            fixed = {"name": NAME, "kind": NAME, "wait": self.config.replication.wait, "core": NOT_PINNED}
            rows.append(fixed | {"pid": self._replicator.pid, "restarts": self.restarts.get(NAME, 0)})
        return rows

    def _tell(self, **message: Any) -> None:
        if self._socket is not None:
            with suppress(BrokenPipeError, ConnectionResetError):
                self._socket.send(json.dumps(message).encode())

    def _from_replicator(self) -> None:
        assert self._socket is not None
        while True:
            try:
                data = self._socket.recv(MESSAGE_MAX)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                self._replicator_died()
                return
            self._do(json.loads(data))

    def _do(self, message: Mapping[str, Any]) -> None:
        match message["do"]:
            case "start_core":
                self._begin_core(message["commit"], leads=message["leads"])
            case "stop_core":
                self._say(f"stopping the core: {message['reason']}")
                self._stop_core()
            case "state":
                self.state = {key: message[key] for key in self.state}
                self._on_state(self.state)
                self._launch_observers()
            case "page":
                self._say(f"{message['event']}: {message['text']}")
            case "halt":
                self._stop_core()
                raise CommandError(f"halted: {message['reason']}", ExitCode.INTERNAL)
            case "failed":
                raise CommandError(f"{NAME}: {message['error']}", ExitCode(message["exit_code"]))

    def _replicator_died(self) -> None:
        """Without it nobody knows whether this node may lead: its core goes, and both come back as after a reboot."""
        assert self._socket is not None and self._replicator is not None
        self._epoll.unregister(self._socket)
        self._socket.close()
        self._socket = None
        code = self._replicator.wait()
        self._replicator = None
        self._drop_core()
        if self._stopping:
            return
        self._say(f"{NAME} ended with {code}: restarted")
        self._count_death(NAME)
        self._check_deaths()
        self._start_replicator()

    # --- the core ---------------------------------------------------------------------------------------------------

    def _begin_core(self, commit: int, *, leads: bool) -> None:
        self._drop_core()
        node = self._make_node(commit=commit)
        self._seeding = node.log_end == 0 and not leads
        self._failed_told = self._log_told = self._following_told = False
        self._waiting = [plan for plan in self.placement.processes if plan.kind in OBSERVER_KINDS]
        self._observers_due.clear()
        self.node = node
        node.save()
        Cells.create(self.config.run_dir).close()
        try:
            self._rings = NodeRings.create(node)
        except RingbufError as error:
            raise CommandError(f"cannot create the rings: {error}", ExitCode.CANNOT_CREATE) from error
        journaler = [plan for plan in self.placement.processes if plan.kind is Kind.JOURNALER]
        self._launch(journaler)

    def _make_node(self, *, commit: int | None) -> Node:
        """`commit` None: of a node whose core is not started yet, to be looked at only."""
        directory = self.config.journal_dir
        position = end_of(directory) if directory.is_dir() else None
        end = position.sequence if position is not None else 0
        port = self.config.gateway.binary.port if self.node is None else self.node.binary_port
        commit = end if commit is None else min(commit, end)
        snapshot = self._choose_snapshot(commit)
        self.node = Node(
            config=self.config,
            plans=self.placement.processes,
            log_end=end,
            epoch=position.epoch if position is not None else 0,
            engine=engine_config(self.config) if snapshot is None else snapshot.manifest.engine,
            binary_port=port,
            web_port=self._web_port(),
            feed_ports=self.node.feed_ports if self.node is not None else {},
            snapshot="" if snapshot is None else str(snapshot.folder),
            places=Places() if snapshot is None else snapshot.manifest.places,
            commit=commit,
        )
        self._warn_of_fixed_capacities()
        return self.node

    def _launch(self, plans: list[ProcessPlan]) -> None:
        for plan in plans:
            child = self._spawn(plan)
            self._children.append(child)
            self._deaths[child.death_fd] = child
            self._epoll.register(child.death_fd, select.EPOLLIN)
            self._pipes[child.ready_pipe.fileno()] = child
            self._epoll.register(child.ready_pipe, select.EPOLLIN)
        self._write_processes()

    def _becomes_ready(self, descriptor: int) -> None:
        child = self._pipes.pop(descriptor)
        self._epoll.unregister(descriptor)
        if child.plan.kind in OBSERVER_KINDS:
            if child.hear():
                self._take_facts(child)
                self._write_processes()
            return
        try:
            self._read_facts(child)
        except CommandError as error:
            self._say(f"{child.plan.name} did not start: {error}")
            if error.code in FATAL:
                raise
            return  # its death is about to be told
        if child.plan.kind is Kind.JOURNALER:
            self._journaler_runs()
        elif self._core_ready() and not self._following_told:
            self._following_told = True
            self._tell(event="following")
            self._launch_observers()

    def _core_ready(self) -> bool:
        return all(child.ready for child in self._children if child.plan.kind not in OBSERVER_KINDS)

    def _launch_observers(self) -> None:
        """Feed and ledger follow like all others; web gateways need a leader for their sessions."""
        leads = self.state["state"] == "primary"
        ready = [plan for plan in self._waiting if leads or plan.kind not in WEB_KINDS]
        if self._following_told and ready:
            self._waiting = [plan for plan in self._waiting if plan not in ready]
            self._launch(ready)

    def _journaler_runs(self) -> None:
        if self._log_told:
            return
        self._log_told = True
        self._tell(event="log")
        if not self._seeding:
            plans = [plan for plan in self.placement.processes if plan.kind not in OBSERVER_KINDS]
            self._launch([plan for plan in plans if plan.kind is not Kind.JOURNALER])

    def _seeded(self) -> None:
        """A node with an empty log gets the first records, and with them what its core is made of; then it begins."""
        if self._seeding and self._rings is not None and self._rings.log.consumer(0).cursor > 0:
            self._seeding = False
            self._stop_core()

    def _dies(self, descriptor: int) -> None:
        child = self._deaths.pop(descriptor)
        self._epoll.unregister(descriptor)
        self._forget_pipe(child)
        child.process.wait()
        if self._stopping:
            return
        if not child.ready_pipe.closed:
            child.hear()  # why, if it has said so
        if child.plan.kind in OBSERVER_KINDS:
            self._bury_observers([child])
            return
        error = self._death(child)
        self._say(f"process died: {error}")
        self._count_death(child.plan.name)
        self._check_deaths()
        if error.code in FATAL:
            raise error
        if child.plan.kind in CORE_KINDS:
            if not self._failed_told:
                self._failed_told = True
                self._tell(event="failed")
            self._dump(child)  # after it was told: nobody waits for this
        else:
            self._dump(child)
            self._forget([child])
            self._launch([child.plan])

    def _revive_observers(self) -> None:
        for name in [name for name, at in self._observers_due.items() if time.monotonic() >= at]:
            del self._observers_due[name]
            self._launch([plan for plan in self.placement.processes if plan.name == name])

    def _forget_pipe(self, child: Child) -> None:
        for descriptor, each in list(self._pipes.items()):
            if each is child:
                self._epoll.unregister(descriptor)
                del self._pipes[descriptor]

    def _stop_core(self) -> None:
        self._drop_core()
        self._tell(event="down")

    def _drop_core(self) -> None:
        """Kill everything at once: what was acknowledged is on disk, and nothing else may leave any more."""
        self._forget_children()
        self._kill_all()
        self._remove_rings()
        self._seeding = False

    def _forget_children(self) -> None:
        for descriptor in self._deaths:
            self._epoll.unregister(descriptor)
        self._deaths.clear()
        for descriptor, child in self._pipes.items():
            self._epoll.unregister(descriptor)
            child.ready_pipe.close()
        self._pipes.clear()
