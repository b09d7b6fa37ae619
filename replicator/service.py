"""The replicator of a node: one loop over the link, the arbiter, the disk, the log ring and the host's processes.

What may take long (syncs, reading files) runs on threads of its own; the loop itself never waits but in one place, and
there for whichever comes first.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from journaler.chain import LogPosition, end_of, position_at
from journaler.fork import cut_fork
from replicator import events as ev
from replicator.config import FailoverConfig, StreamConfig
from replicator.coordinator import Coordinator
from replicator.events import Core, Floor, State
from replicator.record import RecordFile
from replicator.replica import Replica
from replicator.ringlog import RingLog
from replicator.transport import Link, Waiter
from ringbuf import Doorbell, Ring, Watch

TICK_MS = 10
FRAMES_A_ROUND = 64
OWN_PAUSE_MS = 100
NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class LogReady:
    """The journaler runs and the log ring is there.

    `applied` tells how far the owners are, `beat_ms` when the sequencer last took a turn (monotonic, 0 = not yet);
    `bell` wakes the loop.
    """

    ring: Ring
    reports: Mapping[int, Ring]
    applied: Callable[[], int]
    beat_ms: Callable[[], int]
    bell: Doorbell | None
    close: Callable[[], None]  # called when the ring is not used any more


@dataclass(frozen=True, slots=True)
class Stop:
    """End the service."""


class Host(Protocol):
    """The node's processes and its operator."""

    def perform(self, action: ev.Action) -> None:
        """StartCore, StopCore, Activate, HoldIntake, CancelOnly, Page or Halt. Never waits."""

    def take(self) -> list[ev.Event | LogReady | Stop]:
        """What has happened: CoreChanged, IntakeHeld, HashesDiffer, Electable, Ordered, or one of the two above."""

    def fileno(self) -> int:
        """Readable when `take` has something."""


class Service:
    """The port of the Replica. `run` returns when the host says Stop, or after a Halt has been passed on."""

    def __init__(
        self,
        config: FailoverConfig,
        stream: StreamConfig,
        *,
        link: Link,
        coordinator: Coordinator,
        record: RecordFile,
        journal: Path,
        host: Host,
        likeness: int,
    ) -> None:
        self.replica = Replica(config, stream, self, likeness=likeness)
        self._config = config
        self._stream = stream
        self._link = link
        self._coordinator = coordinator
        self._record = record
        self._journal = journal
        self._host = host
        self._disk = _Worker("disk")  # one after the other: promises must reach the disk in order
        self._reader = _Worker("files")
        self._resting = end_of(journal) if journal.is_dir() else LogPosition()
        self._log: RingLog | None = None
        self._ready: LogReady | None = None
        self._opening: LogReady | None = None
        self._looking = False
        self._bell: Doorbell | None = None
        self._waiter = self._make_waiter()
        self._stopping = False
        self._disk_slow = False
        self._durable_seen = -1
        self._durable_at = 0
        self._round_at = 0  # when we ourselves began to run without a pause
        self._last_round = 0
        self.rounds = 0
        self.each_round: Callable[[], None] = lambda: None  # called at the end of every one

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        record = self._record.load()
        self._coordinator.start(self.status)
        self.replica.event(ev.Started(record, self._resting.sequence, self._wall_s()), self._now_ms())
        try:
            while not self._stopping:
                self._wait()
                self.round()
        finally:
            self._close_log()
            self._disk.close()
            self._reader.close()

    def round(self) -> None:
        """Take what has come and send what there is to send."""
        self.rounds += 1
        now = self._now_ms()
        if now - self._last_round > OWN_PAUSE_MS:
            self._round_at = now  # we did not look: nobody else has to have stood still
        self._last_round = now
        self._take_frames(now)
        for answer in self._coordinator.take():
            self.replica.event(answer, now)
        for done in (*self._disk.take(), *self._reader.take()):
            done()
        for happened in self._host.take():
            self._happened(happened)
        if self._log is not None:
            self._log.look()
            self._look_at_disk()
            self._look_at_core(self._log)
        elif self._opening is not None:
            self._open_log(self._opening)
        self.replica.poll(self._now_ms(), self._wall_s())
        self.each_round()

    def _look_at_disk(self) -> None:
        slow = self._ready is not None and self._ready.ring.storage.slow
        if slow != self._disk_slow:
            self._disk_slow = slow
            self.replica.event(ev.DiskSlow(slow), self._now_ms())

    def _look_at_core(self, log: RingLog) -> None:
        """A sequencer or journaler that stands still is as good as dead, if the standby can take over at once."""
        now = self._now_ms()
        if log.durable != self._durable_seen or log.durable == log.end:
            self._durable_seen, self._durable_at = log.durable, now
        machine, ready = self.replica.machine, self._ready
        if machine.state is not State.PRIMARY or not machine.in_sync or not machine.peer.hot or ready is None:
            return
        beat = ready.beat_ms()
        stuck = now - max(self._durable_at, self._round_at) > self._config.core_stuck_ms
        if stuck or (beat and now - max(beat, self._round_at) > self._config.core_stuck_ms):
            self.replica.event(ev.CoreChanged(Core.FAILED), now)

    def _wait(self) -> None:
        bell, log = self._bell, self._log
        if bell is None or log is None:
            self._waiter.wait(TICK_MS)
            return
        before = (log.end, log.durable)
        bell.arm()
        log.look()
        if before == (log.end, log.durable):
            self._waiter.wait(TICK_MS)
        bell.disarm()
        bell.drain()

    def _take_frames(self, now: int) -> None:
        for _ in range(FRAMES_A_ROUND):
            frame = self._link.receive()
            if frame is None:
                return
            self.replica.frame(frame, now)

    def _make_waiter(self) -> Waiter:
        sources = [self._coordinator.fileno(), self._disk.fileno(), self._reader.fileno(), self._host.fileno()]
        if self._bell is not None:
            sources.append(self._bell.fileno())
        return Waiter(self._link, *sources)

    @staticmethod
    def _now_ms() -> int:
        return time.monotonic_ns() // NS_PER_MS

    @staticmethod
    def _wall_s() -> int:
        return int(time.time())

    # --- the host -----------------------------------------------------------------------------------------------------

    def _happened(self, happened: ev.Event | LogReady | Stop) -> None:
        match happened:
            case Stop():
                # Whoever leads and must end says so: the other node need not wait for silence.
                self._close_log()
                self.replica.event(ev.CoreChanged(Core.FAILED), self._now_ms())
                self._stopping = True
            case LogReady():
                self._close_log()
                self._opening = happened
            case ev.CoreChanged(core=Core.DOWN):
                self._close_log()
                # Nobody writes the files now: what they hold is what the next core begins with.
                self._reader.submit(lambda: end_of(self._journal), self._core_is_down)
            case ev.CoreChanged(core=Core.FAILED):
                self._close_log()
                self.replica.event(happened, self._now_ms())
            case _:
                self.replica.event(happened, self._now_ms())

    def _core_is_down(self, resting: LogPosition) -> None:
        self._resting = resting
        self.replica.event(ev.CoreChanged(Core.DOWN), self._now_ms())

    def _open_log(self, ready: LogReady) -> None:
        """Once all of the log is in the files, its identity there is where we go on."""
        if self._looking or ready.ring.published != ready.ring.consumer(0).cursor:
            return
        self._looking = True

        def opened(position: LogPosition) -> None:
            self._looking = False
            if self._opening is not ready:
                return  # the core was stopped meanwhile
            ready.ring.lock_producer()
            self._opening, self._ready, self._bell = None, ready, ready.bell
            self._log = RingLog(
                ready.ring,
                ready.reports,
                self._journal,
                position,
                self._stream,
                applied=ready.applied,
                clock_ns=time.monotonic_ns,
            )
            if ready.bell is not None:
                ready.ring.watch(ready.bell, Watch.PUBLISHED)
                ready.ring.watch(ready.bell, Watch.CURSORS)
            self._waiter = self._make_waiter()
            self.replica.core_log(self._log, self._now_ms())

        self._reader.submit(lambda: end_of(self._journal), opened)

    def _close_log(self) -> None:
        if self._opening is not None:
            self._opening.close()
            self._opening = None
        if self._log is not None:
            self.replica.log_lost()
            self._log.close()
            self._log = None
        if self._bell is not None:
            self._bell.close()
            self._bell = None
            self._waiter = self._make_waiter()
        if self._ready is not None:
            self._ready.close()
            self._ready = None

    # --- the port -----------------------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        self._link.send(frame)

    @property
    def resting_end(self) -> LogPosition:
        return self._resting

    def ask_chain(self, sequence: int) -> None:
        def known(position: LogPosition | None) -> None:
            self.replica.chain_known(sequence, position, self._now_ms())

        self._reader.submit(lambda: position_at(self._journal, sequence), known)

    def perform(self, action: ev.Action) -> None:
        match action:
            case ev.Persist(record):

                def stored(_: None) -> None:
                    self.replica.event(ev.Persisted(record), self._now_ms())

                self._disk.submit(lambda: self._record.store(record), stored)
            case ev.ReadCluster() | ev.BumpNonce():
                self._coordinator.ask(action)
            case ev.Cas():
                self._coordinator.ask(action, self._floor() if action.leader is None else None)
            case ev.TruncateLog(end):
                self._reader.submit(lambda: cut_fork(self._journal, end).position.sequence, self._truncated)
            case ev.Activate():
                if self._ready is not None:
                    self._ready.ring.unlock_producer()  # the sequencer is its producer from here on
                self._host.perform(action)
            case ev.Halt():
                self._host.perform(action)
                self._stopping = True
            case _:
                self._host.perform(action)

    def _truncated(self, end: int) -> None:
        self._resting = end_of(self._journal)
        self.replica.event(ev.LogTruncated(end), self._now_ms())

    def _floor(self) -> Floor | None:
        log = self._log
        return Floor(self.replica.machine.epoch, log.commit) if log is not None else None

    # --- looking ------------------------------------------------------------------------------------------------------

    def status(self) -> str:
        """What the node says of itself under its key at the arbiter; any thread."""
        machine, log = self.replica.machine, self._log
        facts: dict[str, Any] = {
            "state": machine.state,
            "epoch": machine.epoch,
            "incarnation": machine.incarnation,
            "in_sync": machine.in_sync,
            "core": machine.core,
        }
        if log is not None:
            facts |= {"log_end": log.end, "durable": log.durable, "commit": log.commit}
        return json.dumps(facts)

    def counters(self) -> dict[str, int]:
        """Numbers for `bullring stat`."""
        machine, log, link = self.replica.machine, self._log, self._link
        return {
            "state": list(State).index(machine.state),
            "epoch": machine.epoch,
            "in_sync": int(machine.in_sync),
            "gating": int(machine.gating),
            "standby_acked": machine.peer.acked,
            "standby_lag": max(0, log.end - machine.peer.acked) if log is not None and machine.peer.acked >= 0 else 0,
            "frames_sent": link.sent,
            "frames_received": link.received,
            "frames_dropped": link.dropped,
            "frames_bad": self.replica.bad_frames,
            "laps": log.laps if log is not None else 0,
            "hashes_compared": self.replica.hashes.compared,
            "arbiter_requests": self._coordinator.requests,
            "arbiter_failures": self._coordinator.failures,
            "rounds": self.rounds,
        }


class _Worker:
    """Runs calls one after the other on a thread; their answers are handed out on the loop's."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._done: deque[Callable[[], None]] = deque()
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._ready

    def submit(self, call: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """An exception of `call` is raised on the loop's thread: a disk that fails ends the process (J8)."""
        self._calls.put((call, done))

    def take(self) -> list[Callable[[], None]]:
        try:
            os.eventfd_read(self._ready)
        except BlockingIOError:
            return []
        taken = []
        while self._done:
            taken.append(self._done.popleft())
        return taken

    def close(self) -> None:
        self._calls.put(None)
        self._thread.join()
        os.close(self._ready)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            call, done = item
            try:
                self._done.append(_bind(done, call()))
            except Exception as error:
                self._done.append(_raise(error))
            os.eventfd_write(self._ready, 1)


def _bind(done: Callable[[Any], None], result: Any) -> Callable[[], None]:
    return lambda: done(result)


def _raise(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail
