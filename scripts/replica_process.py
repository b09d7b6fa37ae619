"""The replicator of a node as a process: `python -m scripts.replica_process RUN_DIR SOCKET_FD`.

The supervisor gives it a socket: it tells what becomes of the core's processes, and is told to start and stop them. An
operator reaches it through `replicator.sock` in the run folder: one JSON line, one answer. It outlives the core, and
ends with its supervisor.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from replicator import events as ev
from replicator.config import FailoverConfig, StreamConfig
from replicator.coordinator import Coordinator, CoordinatorConfig
from replicator.errors import ReplicatorError
from replicator.events import Core, Order
from replicator.record import RecordFile
from replicator.service import LogReady, Service, Stop
from replicator.transport import SECRET_FILE, KeyPair, Link, LinkConfig
from ringbuf import Counter, CounterFile
from ringbuf.wire import messages as wire
from scripts.cells import Cell, Cells
from scripts.clock import ClockWatch
from scripts.config import REPLICATOR_SOCKET, Config, from_tables
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import Node, NodeRings, counter_path, seal_key

NAME = "replicator"
CONFIG_FILE = "config.json"
MESSAGE_MAX = 65536
LINE_MAX = 4096
COUNTERS_S = 0.1
CLOCK_S = 1.0


class ProcessHost:
    """The supervisor, the operator and the cells of the core, as the Service sees them."""

    def __init__(self, config: Config, supervisor: socket.socket) -> None:
        self._config = config
        self._supervisor = supervisor
        self._epoll = select.epoll()
        self._listener = self._listen(config.run_dir / REPLICATOR_SOCKET)
        self._clients: dict[int, socket.socket] = {}
        self._cells: Cells | None = None
        self._rings: NodeRings | None = None
        self._awaited_epoch = 0
        self._held_told = False
        self._diverged_told = False
        self._clock = ClockWatch(config.replication.clock_jump_ms)
        self._clock_due = 0.0
        self.status: Callable[[], str] = lambda: "{}"
        self._supervisor.setblocking(False)
        self._epoll.register(self._supervisor, select.EPOLLIN)
        self._epoll.register(self._listener, select.EPOLLIN)

    # --- what the service asks for ------------------------------------------------------------------------------------

    def perform(self, action: ev.Action) -> None:
        cells = self._cells
        match action:
            case ev.StartCore(commit, leads):
                self._tell(do="start_core", commit=commit, leads=leads)
            case ev.StopCore(reason):
                self._tell(do="stop_core", reason=reason)
            case ev.Page(event, text):
                self._tell(do="page", event=event, text=text)
            case ev.Halt(reason):
                self._tell(do="halt", reason=reason)
            case ev.Activate(epoch) if cells is not None:
                self._awaited_epoch = epoch
                cells[Cell.LEAD_EPOCH] = epoch
            case ev.HoldIntake(held) if cells is not None:
                self._held_told = False
                cells[Cell.HOLD] = int(held)
            case ev.CancelOnly(on) if cells is not None:
                cells[Cell.CANCEL_ONLY] = int(on)

    def take(self) -> list[ev.Event | LogReady | Stop]:
        happened: list[ev.Event | LogReady | Stop] = []
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._supervisor.fileno():
                happened += self._from_supervisor()
            elif descriptor == self._listener.fileno():
                self._accept()
            else:
                happened += self._from_operator(descriptor)
        return happened + self._from_cells() + self._from_clock()

    def fileno(self) -> int:
        return self._epoll.fileno()

    # --- the supervisor -----------------------------------------------------------------------------------------------

    def _tell(self, **message: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has gone, and we are about to
            self._supervisor.send(json.dumps(message).encode())

    def tell_state(self, state: str, epoch: int, *, in_sync: bool, hot: bool) -> None:
        """Have the supervisor say what this node is."""
        self._tell(do="state", state=state, epoch=epoch, in_sync=in_sync, hot=hot)

    def _from_supervisor(self) -> list[ev.Event | LogReady | Stop]:
        found: list[ev.Event | LogReady | Stop] = []
        while True:
            try:
                data = self._supervisor.recv(MESSAGE_MAX)
            except BlockingIOError:
                return found
            if not data:
                return [*found, Stop()]
            found.append(self._event(json.loads(data)))

    def _event(self, message: Mapping[str, Any]) -> ev.Event | LogReady | Stop:
        match message["event"]:
            case "log":
                return self._log_ready()
            case "following":
                return ev.CoreChanged(Core.FOLLOWING)
            case "down":
                return ev.CoreChanged(Core.DOWN)
            case "failed":
                return ev.CoreChanged(Core.FAILED)
            case "switchover":
                return ev.Ordered(Order.SWITCHOVER)
            case _:
                return Stop()

    def _log_ready(self) -> LogReady:
        node = Node.load(self._config.run_dir)
        rings = NodeRings.attach(node)
        cells = Cells.attach(self._config.run_dir)
        self._cells = cells
        self._awaited_epoch = 0
        self._held_told = self._diverged_told = False
        bell = rings.doorbells.fifo(NAME) if self._config.replication.wait == "park" else None

        def close() -> None:
            rings.close()
            cells.close()
            if self._cells is cells:
                self._cells = None

        def applied() -> int:
            return cells.applied(node.engine.partitions)

        def beat_ms() -> int:
            return cells[Cell.BEAT_MS]

        return LogReady(rings.log, rings.reports, applied, beat_ms, bell, close)

    # --- the cells ----------------------------------------------------------------------------------------------------

    def _from_cells(self) -> list[ev.Event | LogReady | Stop]:
        cells = self._cells
        found: list[ev.Event | LogReady | Stop] = []
        if cells is None:
            return found
        if self._awaited_epoch and cells[Cell.LEADING_EPOCH] == self._awaited_epoch:
            found.append(ev.CoreChanged(Core.LEADING, self._awaited_epoch))
            self._awaited_epoch = 0
        if cells[Cell.HOLD] and cells[Cell.HELD_END] and not self._held_told:
            self._held_told = True
            found.append(ev.IntakeHeld(cells[Cell.HELD_END] - 1))
        if cells[Cell.DIVERGED] and not self._diverged_told:
            self._diverged_told = True
            found.append(ev.HashesDiffer(0))
        return found

    def _from_clock(self) -> list[ev.Event | LogReady | Stop]:
        now = time.monotonic()
        if now < self._clock_due:
            return []
        self._clock_due = now + CLOCK_S
        changed = self._clock.look()
        return [] if changed is None else [changed]

    # --- the operator -------------------------------------------------------------------------------------------------

    @staticmethod
    def _listen(path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(8)
        return listener

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.setblocking(False)
        self._clients[client.fileno()] = client
        self._epoll.register(client, select.EPOLLIN)

    def _from_operator(self, descriptor: int) -> list[ev.Event | LogReady | Stop]:
        client = self._clients.pop(descriptor)
        self._epoll.unregister(client)
        with client, suppress(OSError, ValueError, KeyError):
            wanted = json.loads(client.recv(LINE_MAX))
            if wanted.get("order") is None:
                client.sendall(self.status().encode() + b"\n")
                return []
            order = Order(wanted["order"])
            client.sendall(b'{"ok": true}\n')
            return [ev.Ordered(order)]
        return []


def likeness(config: Config) -> int:
    """A number that is equal on two nodes that may replace each other: same schema, same seal key, same mode."""
    text = f"{wire.SCHEMA_HASH} {config.node.mode} {seal_key(config).hex()}"
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little")


def failover_config(config: Config) -> FailoverConfig:
    replication = config.replication
    shared = (
        "cluster on_standby_loss heartbeat_ms standby_lost_ms standby_stalled_ms primary_lost_ms core_stuck_ms "
        "handover_ms failover_gap_s failovers_per_hour"
    ).split()
    values = {name: getattr(replication, name) for name in shared}
    return FailoverConfig(
        node=config.node.node_id,
        peer=replication.peer_node,
        mode=config.node.mode,  # type: ignore[arg-type]
        arbiter_retry_ms=config.arbiter.timeout_ms,
        **values,
    )


def stream_config(config: Config) -> StreamConfig:
    replication = config.replication
    return StreamConfig(
        window_bytes=replication.window_bytes,
        frame_bytes=replication.frame_bytes,
        catch_up_bytes_per_s=replication.catch_up_bytes_per_s,
    )


def coordinator_config(config: Config) -> CoordinatorConfig:
    arbiter = config.arbiter
    return CoordinatorConfig(
        endpoints=tuple(part.strip() for part in arbiter.endpoints.split(",")),
        prefix=arbiter.prefix,
        node=config.node.node_id,
        timeout_ms=arbiter.timeout_ms,
        ca=Path(arbiter.ca) if arbiter.ca else None,
        certificate=Path(arbiter.certificate) if arbiter.certificate else None,
        key=Path(arbiter.key) if arbiter.key else None,
    )


class _Reporter:
    """Tells the supervisor what the node is when that changes, and keeps the counter file."""

    def __init__(self, service: Service, host: ProcessHost, counters: CounterFile) -> None:
        self._service = service
        self._host = host
        self._counters = counters
        self._gauges: dict[str, Counter] = {}
        self._said: tuple[str, int, bool, bool] | None = None
        self._due = 0.0

    def __call__(self) -> None:
        machine = self._service.replica.machine
        said = (str(machine.state), machine.epoch, machine.in_sync, machine.in_sync and machine.peer.hot)
        if said != self._said:
            self._said = said
            self._host.tell_state(said[0], said[1], in_sync=said[2], hot=said[3])
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + COUNTERS_S
        for key, value in self._service.counters().items():
            if key not in self._gauges:
                self._gauges[key] = self._counters.gauge(f"{NAME}.{key}")
            self._gauges[key].set(value)


def run(config: Config, supervisor: socket.socket) -> None:
    """Serve until the supervisor says stop. Raises ReplicatorError or ValueError for what cannot work."""
    keys = KeyPair.load(config.data_dir / SECRET_FILE)
    replication = config.replication
    coordinator = Coordinator(coordinator_config(config))
    link = Link(
        LinkConfig(listen=replication.listen, peer=replication.peer, keys=keys, peer_public=replication.peer_key)
    )
    host = ProcessHost(config, supervisor)
    service = Service(
        failover_config(config),
        stream_config(config),
        link=link,
        coordinator=coordinator,
        record=RecordFile(config.data_dir),
        journal=config.journal_dir,
        host=host,
        likeness=likeness(config),
    )
    host.status = service.status
    with CounterFile.create(counter_path(config, NAME), NAME) as counters:
        service.each_round = _Reporter(service, host, counters)
        host._tell(do="ready")
        try:
            service.run()
        finally:
            coordinator.close()
            link.close()


def main(arguments: Sequence[str]) -> int:
    run_dir, descriptor = Path(arguments[0]), int(arguments[1])
    supervisor = socket.socket(fileno=descriptor)
    # The supervisor alone decides when this ends: Ctrl-C goes to the whole terminal group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        config = from_tables(json.loads((run_dir / CONFIG_FILE).read_text()))
        run(config, supervisor)
        return ExitCode.OK
    except (CommandError, ReplicatorError, OSError, ValueError) as error:
        code = error.code if isinstance(error, CommandError) else _exit_code(error)
        print(f"{NAME}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        with suppress(OSError):
            supervisor.send(json.dumps({"do": "failed", "error": str(error), "exit_code": int(code)}).encode())
        return code


def _exit_code(error: Exception) -> ExitCode:
    if isinstance(error, ReplicatorError | ValueError):
        return ExitCode.CONFIGURATION
    return ExitCode.IO_ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
