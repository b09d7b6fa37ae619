"""A simulated host: disk, core processes and the real Replica on top. Crashes take what a crash takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from journaler.chain import LogPosition, extend
from replicator import events as ev
from replicator.config import FailoverConfig, StreamConfig
from replicator.events import Core, Floor, Record, State
from replicator.failover import Failover
from replicator.replica import Replica
from tests.kit.cluster.core import SimCore
from tests.kit.cluster.records import Entry, parse
from tests.kit.cluster.violation import Violation

if TYPE_CHECKING:
    from tests.kit.cluster.world import World

CLUSTER = 77
POLL_MS = 10


@dataclass(frozen=True)
class Faults:
    """What is planted: another class in place of the real one, or a rule of the core turned off."""

    machine: type[Failover] = Failover
    replica: type[Replica] = Replica
    release_published: bool = False  # F8: reports leave before commit
    cursor_before_publish: bool = False  # R6: the sequencer trusts its ingress cursor
    publish_again: bool = False  # R7: a restarted matcher publishes what it had published
    downstream_unguarded: bool = False  # F12


class Disk:
    """What survives. `durable` records survive everything, the rest a lucky crash."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.positions: list[LogPosition] = [LogPosition()]  # [n]: the log's identity below sequence n
        self.entries: list[Entry] = []
        self.durable = 0
        self.record = Record()

    def append(self, slot: bytes) -> None:
        self.records.append(slot)
        self.positions.append(extend(self.positions[-1], slot))
        self.entries.append(parse(slot))

    def cut(self, end: int) -> None:
        del self.records[end:], self.entries[end:], self.positions[end + 1 :]
        self.durable = min(self.durable, end)


class SimNode:
    """The port of its Replica."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.disk = Disk()
        self.up = False
        self.paused = False
        self.core: SimCore | None = None
        self.slow_disk_ms = 0
        self._life = 0
        self._backlog: list[Callable[[], None]] = []
        self._core_life = 0
        self._written_at = 0  # one write after the other
        self.replica: Replica

    @property
    def state(self) -> State:
        return self.replica.machine.state

    @property
    def leading(self) -> bool:
        return self.up and not self.paused and self.core is not None and self.core.phase is Core.LEADING

    def describe(self) -> str:
        core = "no core" if self.core is None else f"core {self.core.phase} {self.core.commit}/{self.core.end}"
        return f"{self.state if self.up else 'down'} epoch {self.replica.machine.epoch} {core}"

    # --- life ---------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        world, life = self.world, self._life
        self.up = True
        config = FailoverConfig(
            cluster=CLUSTER,
            node=self.number,
            peer=1 - self.number,
            mode="D2m" if world.mode == "D2m" else "D2",
            failover_gap_s=0,
            failovers_per_hour=1000,
            join_lag_slots=64,
        )
        stream = StreamConfig(window_bytes=64 * 1024, frame_bytes=1024)
        self.replica = world.faults.replica(config, stream, self, machine=world.faults.machine)
        world.note("boot", self.number, len(self.disk.records))
        started = ev.Started(self.disk.record, len(self.disk.records), 1000 + (world.now + self.number) // 1000)
        self.replica.event(started, world.now)
        self._tick(life)

    def crash(self, *, power: bool) -> None:
        """The whole host, or all its processes."""
        if not self.up:
            return
        self.up = self.paused = False
        self._life += 1
        self._core_life += 1
        self._backlog.clear()
        if self.core is not None:
            self.core.stop()
            self.core = None
        end = len(self.disk.records)
        keep = self.world.rng.randint(self.disk.durable, end) if power or self.world.rng.random() < 0.5 else end
        self.disk.cut(keep)
        self.disk.durable = keep  # recovery syncs what it keeps
        self.world.note("crash", self.number, "power" if power else "processes", keep)

    def pause(self) -> None:
        if self.up:
            self.paused = True
            self.world.note("pause", self.number)

    def resume(self) -> None:
        if not self.paused:
            return
        self.paused = False
        self.world.note("resume", self.number)
        backlog, self._backlog = self._backlog, []
        for call in backlog:
            call()

    def deliver(self, call: Callable[[], None]) -> None:
        """Run it on the node now; later if it is stopped, never if it is down."""
        if not self.up:
            return
        if self.paused:
            life = self._life
            self._backlog.append(lambda: call() if life == self._life else None)
        else:
            call()

    def later(self, delay_ms: int, call: Callable[[], None]) -> None:
        """Something this very life of the node waits for."""
        life = self._life
        self.world.after(delay_ms, lambda: self.deliver(call) if life == self._life else None)

    def _tick(self, life: int) -> None:
        if life != self._life:
            return
        if not self.paused:
            self.poll()
        self.world.after(POLL_MS, lambda: self._tick(life))

    def poll(self) -> None:
        self.replica.poll(self.world.now, (1_000_000 + self.world.now) // 1000)

    def on_frame(self, frame: bytes) -> None:
        self.replica.frame(frame, self.world.now)
        self.poll()

    def event(self, event: ev.Event) -> None:
        before = self.state
        self.replica.event(event, self.world.now)
        if self.state is not before:
            self.world.note("node", self.number, self.state, self.replica.machine.epoch)
        self.poll()

    # --- the port -----------------------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        self.world.send(self.number, 1 - self.number, frame)

    @property
    def resting_end(self) -> LogPosition:
        return self.disk.positions[-1]

    def ask_chain(self, sequence: int) -> None:
        def answer() -> None:
            known = sequence < len(self.disk.positions)
            position = self.disk.positions[sequence] if known else None
            self.replica.chain_known(sequence, position, self.world.now)
            self.poll()

        self.later(self.world.rng.randint(0, 5), answer)

    def perform(self, action: ev.Action) -> None:
        rng = self.world.rng
        match action:
            case ev.Persist(record):
                self._written_at = max(self._written_at, self.world.now + rng.randint(0, 8 + self.slow_disk_ms))
                self.later(self._written_at - self.world.now, lambda: self._persisted(record))
            case ev.ReadCluster() | ev.BumpNonce():
                self._ask_arbiter(action, None)
            case ev.Cas():
                commit = self.core.commit if self.core is not None else 0
                floor = Floor(self.replica.machine.epoch, commit) if action.leader is None else None
                self._ask_arbiter(action, floor)
            case ev.StartCore(commit):
                self._start_core(commit)
            case ev.StopCore():
                self.later(rng.randint(0, 30), self._stop_core)
            case ev.Activate(epoch):
                if self.core is not None:
                    self.core.activate(epoch)
            case ev.TruncateLog(end):
                self.later(rng.randint(5, 50), lambda: self._truncate(end))
            case ev.HoldIntake(held):
                if self.core is not None:
                    self.core.hold(held)
            case ev.Page(event, _):
                self.world.note("page", self.number, event)
            case ev.Halt(reason):
                self.world.note("halt", self.number, reason)

    def _persisted(self, record: Record) -> None:
        self.disk.record = record
        self.event(ev.Persisted(record))

    def _ask_arbiter(self, action: ev.Action, floor: Floor | None) -> None:
        life = self._life

        def answer(event: ev.Event) -> None:
            if life == self._life:
                self.deliver(lambda: self.event(event) if life == self._life else None)

        self.world.arbiter.ask(self.number, action, floor, answer)

    def _start_core(self, commit: int) -> None:
        if self.core is not None:
            raise Violation(f"node {self.number} starts a second core")
        self._core_life += 1
        life = self._core_life
        core = SimCore(self, min(commit, len(self.disk.records)))

        def log() -> None:
            if life == self._core_life:
                self.core = core
                self.replica.core_log(core, self.world.now)
                core.kick()
                self.later(self.world.rng.randint(5, 300), following)

        def following() -> None:
            if life == self._core_life and core.phase is Core.LOG:
                core.phase = Core.FOLLOWING
                self.event(ev.CoreChanged(Core.FOLLOWING))

        self.later(self.world.rng.randint(5, 200), log)

    def _stop_core(self) -> None:
        self._core_life += 1
        if self.core is not None:
            self.core.stop()
            self.core = None
        # What was in the ring and not in a file is gone; what was written stays, synced or not, and recovery syncs it.
        self.disk.cut(self.world.rng.randint(self.disk.durable, len(self.disk.records)))
        self.disk.durable = len(self.disk.records)
        self.event(ev.CoreChanged(Core.DOWN))

    def _truncate(self, end: int) -> None:
        self.world.note("truncate", self.number, len(self.disk.records), end)
        self.world.cuts(self.number, end, self.disk.positions, running=self.core is not None)
        self.disk.cut(end)
        self.event(ev.LogTruncated(end))

    def kill_core(self) -> None:
        """Sequencer or journaler dies."""
        if self.core is not None and not self.paused:
            self.world.note("core dies", self.number)
            self.core.stop()
            self.event(ev.CoreChanged(Core.FAILED))
