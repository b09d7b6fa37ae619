"""Start the processes of a node in order, restart what dies, stop all cleanly. One supervisor per data folder."""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from engine import Places
from journaler import JournalError, LogReader
from journaler.recover import recover
from ringbuf import CounterReader, RingbufError, Storage, StorageLevel
from scripts.addresses import listen_error
from scripts.auditing.dump import Dump, broken_invariant
from scripts.config import CHECKOUT, Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import Node, NodeRings, counter_path, engine_config, feed_key, seal_key
from scripts.placement import CORE_KINDS, FEED_KINDS, OBSERVER_KINDS, WEB_KINDS, Kind, ProcessPlan, place, spare_cores
from scripts.poison import PoisonWatch
from scripts.rejoin import REJOIN
from scripts.snapshots.keeper import SnapshotKeeper
from scripts.snapshots.replaying import quarantined
from scripts.snapshots.store import Snapshot, SnapshotStore
from scripts.storage import disk_full_text, storage_text

POLL_S = 0.2
NS_PER_MS = 1_000_000
FACTS_BYTES_MAX = 65536
LOG_TAIL_LINES = 5
LOG_TAIL_BYTES = 4096
# An observer that dies is started again after a pause, which doubles while it dies young.
OBSERVER_PAUSE_S, OBSERVER_PAUSE_MAX_S, OBSERVER_YOUNG_S = 1.0, 30.0, 20.0
# What a restart cannot cure.
FATAL = {ExitCode.CANNOT_CREATE, ExitCode.BUSY, ExitCode.CONFIGURATION, ExitCode.NO_PERMISSION, ExitCode.IO_ERROR}
LOCK_FILE = "lock"
PROCESSES_FILE = "processes.json"

Say = Callable[[str], None]


@dataclass
class Child:
    """A process of the node as the supervisor sees it."""

    plan: ProcessPlan
    process: subprocess.Popen[bytes]
    ready_pipe: IO[bytes]
    log_path: Path
    started: float
    death_fd: int  # readable when the process has ended
    counters: Path
    log_begin: int  # where its part of the log begins
    facts: dict[str, Any] = field(default_factory=dict)
    rejoins: bool = False

    @property
    def ready(self) -> bool:
        return bool(self.facts.get("ready"))

    def hear(self) -> bool:
        """Take down what it has said on its pipe; False if it has neither said anything nor ended."""
        try:
            line = os.read(self.ready_pipe.fileno(), FACTS_BYTES_MAX)
        except BlockingIOError:
            return False
        self.facts = json.loads(line) if line else {}
        self.ready_pipe.close()
        return True

    def said(self) -> str:
        """Return the end of what it has written itself: those before it wrote into the same file."""
        with self.log_path.open("rb") as log:
            log.seek(max(self.log_begin, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def heartbeat_ns(self) -> int:
        """Return when it last said that its loop goes on; 0: it has not said so yet."""
        try:
            with CounterReader(self.counters) as reader:
                return reader.snapshot().gauges.get("loop.heartbeat_ns", 0)
        except (OSError, RingbufError):
            return 0

    def close(self) -> None:
        os.close(self.death_fd)
        if not self.ready_pipe.closed:
            self.ready_pipe.close()


class DataLock:
    """The right to work on a data folder; the kernel drops it with the process, however that ends."""

    def __init__(self, config: Config) -> None:
        try:
            config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(config.data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CommandError(
                f"cannot use the data folder {config.data_dir}: {error.strerror}", ExitCode.CANNOT_CREATE
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 20, 0).decode().strip() or "unknown"
            os.close(self._fd)
            raise CommandError(
                f"another exchange (process {holder}) already runs on {config.data_dir}; stop it or choose another "
                "folder with --data",
                ExitCode.BUSY,
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


class Supervisor:
    """A running node. `start()`, then `step()` until it returns False, then `stop()`."""

    process_module = "scripts.processes"

    def __init__(self, config: Config, say: Say) -> None:
        self.config = config
        self.placement = place(config, sorted(os.sched_getaffinity(0)))
        self.node: Node | None = None
        self.restarts: dict[str, int] = {plan.name: 0 for plan in self.placement.processes}
        self._say = say
        self._lock = DataLock(config)
        self._children: list[Child] = []
        self._rings: NodeRings | None = None
        self._restart_times: deque[float] = deque()
        self._observer_pauses: dict[str, float] = {}
        self._observers_due: dict[str, float] = {}
        self._stopping = False
        self._storage = Storage(StorageLevel.OK, slow=False)
        self._web_socket: socket.socket | None = None
        # Told how many seconds a recovery may take before it begins, and 0 when it is over.
        self.on_recovery: Callable[[float], None] = lambda seconds: None
        self._snapshots = SnapshotKeeper(config)
        self._poison = PoisonWatch(config.run_dir)

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> Node:
        """Start everything and return when all are ready. Raises CommandError; then nothing is left running."""
        self._say(self.placement.describe())
        self._snapshots.start()
        try:
            self._prepare()
            self._start_all()
        except BaseException:
            self._kill_all()
            self._remove_rings()
            raise
        assert self.node is not None
        return self.node

    def step(self) -> bool:
        """Wait a moment and restart what has died; False when asked to stop. Raises CommandError to give up."""
        if self._stopping:
            return False
        self._pause()
        self._look_at_storage()
        self._look_at_matchers()
        self._look_at_snapshots()
        self._hear_from_new_ones()
        for plan in self._poison.cured():
            self._say(f"{plan.name} comes back without the record that was taken out of effect")
            self._children.append(self._spawn(plan, rejoins=True))
        dead = [child for child in self._children if child.process.poll() is not None]
        if not self._stopping:
            self._hear_observers()
            self._bury_observers([child for child in dead if child.plan.kind in OBSERVER_KINDS])
            self._revive_observers()
            needed = [child for child in dead if child.plan.kind not in OBSERVER_KINDS]
            if needed:
                self._restart(needed)
        return not self._stopping

    def _pause(self) -> None:
        """Wait a moment, or until a process ends."""
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(child.death_fd, selectors.EVENT_READ)
            selector.select(POLL_S)

    def _look_at_snapshots(self) -> None:
        spare = spare_cores(self.placement.processes, os.sched_getaffinity(0))
        self._snapshots.step(self._rings, spare, self._say)

    def _look_at_matchers(self) -> None:
        """Pause the pairs of a matcher that does not move; itself says when it does again."""
        assert self._rings is not None
        slow_ns = self.config.supervisor.stuck_ms * NS_PER_MS
        for child in self._children:
            if child.plan.kind is not Kind.MATCHER or not child.ready:
                continue
            beat = child.heartbeat_ns()
            if beat and time.time_ns() - beat > slow_ns:
                self._set_away(child.plan)

    def _set_away(self, plan: ProcessPlan) -> None:
        assert self._rings is not None
        for partition in plan.partitions:
            ring = self._rings.reports[partition]
            if not ring.away:
                ring.set_away(True)
                self._say(f"{plan.name} is away: the pairs of partition {partition} are paused")

    def _hear_from_new_ones(self) -> None:
        """Read what processes that rejoin have said since the last look."""
        for child in self._children:
            if child.ready or child.ready_pipe.closed or child.plan.kind in OBSERVER_KINDS:
                continue
            late = time.monotonic() - child.started > self.config.supervisor.ready_timeout_s
            if late:
                child.process.kill()
            if child.hear() and child.facts.get("ready"):
                self._take_facts(child)
                self._rejoined(child)

    def _rejoined(self, child: Child) -> None:
        self._say(f"{child.plan.name} is back after {time.monotonic() - child.started:.2f} s")
        self._write_processes()

    def _look_at_storage(self) -> None:
        """Say what the journaler says of its disk when that changes; give up, in order, on a full one (J9)."""
        assert self._rings is not None
        storage = self._rings.log.storage
        if storage == self._storage:
            return
        self._storage = storage
        directory = self.config.journal_dir
        if storage.level is StorageLevel.HALT:
            raise CommandError(disk_full_text(directory), ExitCode.IO_ERROR)
        self._say(f"disk of {directory}: {storage_text(storage)}")

    def request_stop(self) -> None:
        self._stopping = True

    def stop(self) -> None:
        """End the processes in order: gateways, order path, journaler, observers. What was answered is kept."""
        self._stopping = True
        self._snapshots.stop()
        stages: list[set[Kind]] = [
            {*WEB_KINDS, Kind.GATEWAY, Kind.ADMIN},
            {Kind.SEQUENCER, Kind.FUSED},
            {Kind.MATCHER},
            FEED_KINDS,
            {Kind.JOURNALER},
            OBSERVER_KINDS,
        ]
        for kinds in stages:
            self._end([child for child in self._children if child.plan.kind in kinds])
        self._forget(self._children)
        self._remove_rings()
        self._write_processes()
        if self._web_socket is not None:
            self._web_socket.close()
        self._lock.release()

    # --- starting ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        config = self.config
        try:
            config.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            (config.data_dir / "logs").mkdir(mode=0o700, exist_ok=True)
            config.counters_dir.mkdir(mode=0o700, exist_ok=True)
            seal_key(config)
            feed_key(config)
        except OSError as error:
            raise CommandError(f"cannot create {error.filename}: {error.strerror}", ExitCode.CANNOT_CREATE) from error
        if (config.run_dir.stat().st_mode & 0o077) or config.run_dir.stat().st_uid != os.getuid():
            raise CommandError(f"{config.run_dir} must belong to this user alone (mode 0700)", ExitCode.NO_PERMISSION)

    def _start_all(self) -> None:
        self._remove_rings()
        self._poison.start()
        end, epoch = self._journal_end()
        # A port the kernel chose is kept over restarts: clients come back to it.
        port = self.config.gateway.binary.port if self.node is None else self.node.binary_port
        snapshot = self._choose_snapshot(end)
        begin = 0 if snapshot is None else snapshot.manifest.sequence
        self.node = Node(
            config=self.config,
            plans=self.placement.processes,
            log_end=end,
            epoch=epoch + 1,
            engine=engine_config(self.config) if snapshot is None else snapshot.manifest.engine,
            binary_port=port,
            web_port=self._web_port(),
            feed_ports=self.node.feed_ports if self.node is not None else {},
            snapshot="" if snapshot is None else str(snapshot.folder),
            places=Places() if snapshot is None else snapshot.manifest.places,
            quarantined=tuple(quarantined(self.config.journal_dir, begin, end)) if end else (),
        )
        self._warn_of_fixed_capacities()
        self.node.save()
        try:
            self._rings = NodeRings.create(self.node)
        except RingbufError as error:
            raise CommandError(f"cannot create the rings: {error}", ExitCode.CANNOT_CREATE) from error
        self._start(self.placement.processes)

    def _web_port(self) -> int:
        """Return the port the workers share; held by a socket of ours that takes no connections."""
        web = self.config.gateway.web
        if web.workers and self._web_socket is None:
            self._web_socket = reserve_port(web.host, web.port)
        return 0 if self._web_socket is None else int(self._web_socket.getsockname()[1])

    def _start(self, plans: tuple[ProcessPlan, ...] | list[ProcessPlan]) -> None:
        """Start processes side by side, so that they can recover together, and wait until all are ready.

        Gateways come last: they take requests as soon as they are there. Observers are not waited for.
        """
        core = [plan for plan in plans if plan.kind in CORE_KINDS]
        gateways = [plan for plan in plans if plan.kind not in CORE_KINDS | OBSERVER_KINDS]
        # The journaler first: it takes its place in the rings before anything is published.
        for group in ([plan for plan in core if plan.kind is Kind.JOURNALER],
                      [plan for plan in core if plan.kind is not Kind.JOURNALER], gateways):  # fmt: skip
            started = [self._spawn(plan) for plan in group]
            self._children += started
            self._wait_ready(started)
        observers = [self._spawn(plan) for plan in plans if plan.kind in OBSERVER_KINDS]
        self._children += observers
        # Addresses of feed and web gateway are told with those of order entry; the ledger may take its time.
        self._wait_ready([child for child in observers if child.plan.kind in FEED_KINDS | WEB_KINDS])
        self._observers_due.clear()
        self._write_processes()

    def _journal_end(self) -> tuple[int, int]:
        """Verify the journal; return the sequence after its last record and the epoch of that."""
        directory = self.config.journal_dir
        if not directory.is_dir():
            return 0, 0
        try:
            position = recover(directory).position
        except JournalError as error:
            raise CommandError(f"the journal cannot be used: {error}", ExitCode.IO_ERROR) from error
        return position.sequence, position.epoch

    def _choose_snapshot(self, end: int) -> Snapshot | None:
        """Return the snapshot to start from. Raises CommandError when the log alone does not reach back far enough."""
        directory = self.config.journal_dir
        snapshot = SnapshotStore(self.config.data_dir).choose(directory, end, self._say) if end else None
        if snapshot is not None:
            self._say(f"starting from the snapshot at {snapshot.manifest.sequence}, replaying to {end}")
        elif end and LogReader(directory).first_sequence > 0:
            raise CommandError(
                f"{directory} begins at {LogReader(directory).first_sequence} and no snapshot can be used: bring the "
                "archived files or another snapshot back",
                ExitCode.IO_ERROR,
            )
        return snapshot

    def _warn_of_fixed_capacities(self) -> None:
        assert self.node is not None
        wanted, fixed = self.config.placement.partitions, self.node.engine.partitions
        if wanted != fixed:
            self._say(f"note: the log was begun with {fixed} partitions; placement.partitions = {wanted} has no effect")
            self.config = replace(
                self.config, placement=replace(self.config.placement, partitions=fixed, matcher_processes=())
            )
            self.placement = place(self.config, sorted(os.sched_getaffinity(0)))
            self.node = replace(self.node, config=self.config, plans=self.placement.processes)
            self.restarts = {plan.name: self.restarts.get(plan.name, 0) for plan in self.placement.processes}

    def _spawn(self, plan: ProcessPlan, *, rejoins: bool = False) -> Child:
        read_fd, write_fd = os.pipe()
        log_path = self.config.data_dir / "logs" / f"{plan.name}.log"
        command = [sys.executable, "-m", self.process_module, str(self.config.run_dir), plan.name, str(write_fd)]
        if rejoins:
            command.append(REJOIN)
        with log_path.open("ab") as log:
            log_begin = log.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_fd,),
                # Ctrl-C goes to the whole terminal group; the supervisor alone decides the order of stopping.
                start_new_session=True,
                # Wherever we were started: another folder named scripts there must not be taken for ours.
                cwd=CHECKOUT,
            )
        os.close(write_fd)
        os.set_blocking(read_fd, False)
        pipe = os.fdopen(read_fd, "rb", buffering=0)
        counters = counter_path(self.config, plan.name)
        counters.unlink(missing_ok=True)
        death_fd = os.pidfd_open(process.pid)
        return Child(plan, process, pipe, log_path, time.monotonic(), death_fd, counters, log_begin, rejoins=rejoins)

    def _wait_ready(self, children: list[Child]) -> None:
        deadline = time.monotonic() + self.config.supervisor.ready_timeout_s
        with selectors.DefaultSelector() as selector:
            for child in children:
                selector.register(child.ready_pipe, selectors.EVENT_READ, child)
            while any(not child.ready for child in children):
                if self._stopping:
                    raise CommandError("stopped while starting", ExitCode.INTERRUPTED)
                if time.monotonic() > deadline:
                    late = ", ".join(child.plan.name for child in children if not child.ready)
                    raise CommandError(
                        f"{late} not ready in supervisor.ready_timeout_s = {self.config.supervisor.ready_timeout_s}",
                        ExitCode.UNAVAILABLE,
                    )
                for key, _ in selector.select(POLL_S):
                    self._read_facts(key.data)
                    selector.unregister(key.fileobj)
                self._check_alive()

    def _read_facts(self, child: Child) -> None:
        child.hear()
        self._take_facts(child)
        if not child.ready:
            child.process.wait()
            raise self._death(child)

    def _take_facts(self, child: Child) -> None:
        if child.ready and "port" in child.facts and self.node is not None:
            self.node = replace(self.node, binary_port=child.facts["port"])
            self.node.save()
        if child.ready and "feed_ports" in child.facts and self.node is not None:
            self.node = replace(self.node, feed_ports={**self.node.feed_ports, **child.facts["feed_ports"]})
            self.node.save()

    def _check_alive(self) -> None:
        for child in self._children:
            if child.ready and child.process.poll() is not None:
                raise self._death(child)

    def _death(self, child: Child) -> CommandError:
        if "error" in child.facts:
            return CommandError(child.facts["error"], ExitCode(child.facts["exit_code"]))
        tail = child.said().splitlines()[-LOG_TAIL_LINES:]
        code = child.process.returncode
        ending = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        said = f"; the end of {child.log_path}:\n  " + "\n  ".join(tail) if tail else ""
        return CommandError(
            f"{child.plan.name} ended with {ending}{said}",
            ExitCode(code) if code in set(ExitCode) and code else ExitCode.INTERNAL,
        )

    # --- dying ------------------------------------------------------------------------------------------------------

    def _restart(self, dead: list[Child]) -> None:
        for child in dead:
            error = self._death(child)
            self._say(f"process died: {error}")
            self._dump(child)
            if error.code in FATAL:
                raise error
            self._count_death(child.plan.name, counts=not self._is_coming_back(child))
        self._check_deaths()
        if all(self._may_rejoin(child) for child in dead):
            self._replace(dead)
            return
        # One fault domain, or a start that was not complete: fresh rings, and everything from snapshot and journal.
        self._kill_all()
        self.on_recovery(self.config.supervisor.ready_timeout_s)
        self._start_all()
        self.on_recovery(0)
        self._say("restarted the exchange from its journal")

    def _count_death(self, name: str, *, counts: bool = True) -> None:
        """`counts`: towards supervisor.restarts_max, too."""
        if counts:
            self._restart_times.append(time.monotonic())
        self.restarts[name] = self.restarts.get(name, 0) + 1

    def _check_deaths(self) -> None:
        """Raise CommandError when too many died lately: another restart would not help."""
        limits = self.config.supervisor
        while self._restart_times and self._restart_times[0] < time.monotonic() - limits.restart_window_s:
            self._restart_times.popleft()
        if len(self._restart_times) > limits.restarts_max:
            raise CommandError(
                f"{len(self._restart_times)} deaths within {limits.restart_window_s} s: giving up "
                f"(supervisor.restarts_max = {limits.restarts_max})",
                ExitCode.INTERNAL,
            )

    def _dump(self, child: Child) -> None:
        """Write down what a process broke, and how far everybody was (`bullring audit dump` explains it)."""
        if child.process.returncode != -signal.SIGABRT or self._rings is None:
            return
        broken = broken_invariant(child.said())
        if broken is None:
            return
        reports = {str(partition): ring.published for partition, ring in self._rings.reports.items()}
        log = self._rings.log
        dump = Dump(
            process=child.plan.name,
            ts_ns=time.time_ns(),
            place=broken["place"],
            function=broken["function"],
            condition=broken["condition"],
            log_published=log.published,
            log_visible=log.visible,
            reports=reports,
        )
        self._say(f"wrote {dump.save(self.config.data_dir)}: see `bullring audit dump`")

    @staticmethod
    def _is_coming_back(child: Child) -> bool:
        """A matcher that dies before it is back is judged by what it dies on, not by how often the node restarts."""
        return child.plan.kind is Kind.MATCHER and child.rejoins and not child.ready

    def _may_rejoin(self, child: Child) -> bool:
        """Whether a successor can take the place of a process that died alone."""
        if child.plan.kind not in CORE_KINDS:
            return True
        assert self.node is not None
        # Of two nodes the replicator decides who leads: a core that has lost a process starts again under it.
        alone = self.node.commit is None
        return alone and child.plan.kind is not Kind.FUSED and (child.ready or child.rejoins)

    def _replace(self, dead: list[Child]) -> None:
        """Start successors for processes that died alone; the others go on, and the wait for them is `step`'s."""
        for child in dead:
            self._forget([child])
            if child.plan.kind is Kind.MATCHER:
                self._set_away(child.plan)
            poison = self._poison.died(child.plan) if self._is_coming_back(child) else None
            if poison is None:
                self._children.append(self._spawn(child.plan, rejoins=child.plan.kind in CORE_KINDS))
            else:
                self._say(
                    f"ALARM: {child.plan.name} dies on record {poison.sequence} each time: it stays down and its pairs "
                    f"stay paused. See `bullring quarantine list`"
                )
        self._write_processes()

    def _hear_observers(self) -> None:
        """Read what those have to say that nobody waited for."""
        for child in self._children:
            awaited = child.plan.kind in OBSERVER_KINDS and not child.ready and not child.ready_pipe.closed
            if awaited and child.hear():
                self._take_facts(child)
                if child.ready and self.restarts.get(child.plan.name):
                    self._rejoined(child)
                else:  # the ledger, at a start: nobody waited for it
                    self._write_processes()

    def _bury_observers(self, dead: list[Child]) -> None:
        """Note when the dead are to come back. Trading goes on without them, however often they die."""
        now = time.monotonic()
        for child in dead:
            name = child.plan.name
            young = now - child.started < OBSERVER_YOUNG_S
            before = self._observer_pauses.get(name, 0.0) if young else 0.0
            pause = min(max(2 * before, OBSERVER_PAUSE_S), OBSERVER_PAUSE_MAX_S)
            self._observer_pauses[name] = pause
            self._observers_due[name] = now + pause
            self.restarts[name] = self.restarts.get(name, 0) + 1
            self._say(f"process died: {self._death(child)}; trading is not affected, it comes back in {pause:g} s")
            self._dump(child)
        if dead:
            self._forget(dead)
            self._write_processes()

    def _revive_observers(self) -> None:
        due = [name for name, at in self._observers_due.items() if time.monotonic() >= at]
        for name in due:
            del self._observers_due[name]
            plan = next(plan for plan in self.placement.processes if plan.name == name)
            self._children.append(self._spawn(plan))
        if due:
            self._write_processes()

    def _end(self, children: list[Child]) -> None:
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.config.supervisor.stop_timeout_s
        for child in children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say(f"{child.plan.name} did not end within {self.config.supervisor.stop_timeout_s} s: killed")
                child.process.kill()
                child.process.wait()

    def _kill_all(self) -> None:
        self._snapshots.stop()
        for child in self._children:
            if child.process.poll() is None:
                child.process.kill()
        for child in self._children:
            child.process.wait()
        self._forget(self._children)

    def _forget(self, children: list[Child]) -> None:
        for child in children:
            child.close()
        self._children = [child for child in self._children if child not in children]

    def _remove_rings(self) -> None:
        if self._rings is not None:
            self._rings.close()
            self._rings = None

    def _rows(self) -> list[dict[str, Any]]:
        """What processes.json says of each process."""
        return [
            {
                "name": child.plan.name,
                "kind": child.plan.kind,
                "pid": child.process.pid,
                "wait": child.plan.wait,
                "core": child.plan.core,
                "restarts": self.restarts.get(child.plan.name, 0),
                "ready": child.ready,
            }
            for child in self._children
        ]

    def _write_processes(self) -> None:
        path = self.config.run_dir / PROCESSES_FILE
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(self._rows()))
        temporary.rename(path)


def reserve_port(host: str, port: int) -> socket.socket:
    """Bind address and port so that nobody but processes of ours can have them. Raises CommandError."""
    key = "gateway.web.listen"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Sharing a port is between us alone: without the option the kernel says whether anybody is there already.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except socket.gaierror as error:
        raise CommandError(f"{key}: no such host {host!r}", ExitCode.CONFIGURATION) from error
    except OSError as error:
        raise listen_error(error, f"{host}:{port}", key) from error
    return held
