"""What every process of a node shares: rings, recovery, loop, numbers. Their kinds stand in scripts/processes.py.

Recovery is the composed replay of CORE section 9 over the real rings: each owner loads the node's snapshot, if there is
one, and feeds itself from the journal's files up to their end; matchers write their reports again from there on, the
sequencer settles them as the marks say; then the sequencer leads. So nothing is in a recovered node that a running one
did not go through.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from engine import Matcher, Sequencer
from journaler import LogReader
from ringbuf import Counter, CounterFile, Doorbell, Ring, Runner, Stage, StageStatus, Watch
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import SLOT_SIZE, Node, NodeRings, counter_path
from scripts.placement import NOT_PINNED, Kind, ProcessPlan
from scripts.priority import take_turns
from scripts.snapshots.loading import load_owners, load_reports
from scripts.snapshots.replaying import quarantined

# One call of the C loop: the Python between two calls costs the request it meets tens of microseconds. With this and
# the journaler's BEHIND_NS at 1 ms the p99 of a lone order in D0 was 45 to 68 us, at 5 ms 23 to 50 (echo 12). Logons
# wait for it.
RUN_NS = 5_000_000
# When nothing is going on the C loop may keep us longer: what Python does besides can wait that long.
IDLE_RUN_NS = 20_000_000
# Units of work a stage does before the next one has its turn. Under load all that a turn has to say to a client leaves
# with one send(), which costs the order path more than anything it does itself: CPU time of a command in D0, window
# 2048, at 256 and at 1024 in turn: 530 to 648 ns and 474 to 573.
POLL_LIMIT = 1024
HOUSEKEEPING_S = 0.1
QUIET_RUNS_BEFORE_END = 20
DRAIN_S = 5.0
STANDSTILL_S = 0.0005
# Who talks to strangers cannot write the log, whatever they make it do.
READ_ONLY = {Kind.GATEWAY: frozenset({"log"}), Kind.ADMIN: frozenset({"log"})}

Ready = Callable[[Mapping[str, Any]], None]


class Owner(Protocol):
    """Who rebuilds its state from the log: sequencer or matcher."""

    @property
    def position(self) -> int: ...
    def feed(self, first_sequence: int, records: memoryview, /) -> int: ...


class Process:
    """What all kinds share: rings, doorbell, stop flag, the loop."""

    def __init__(self, node: Node, plan: ProcessPlan, stack: ExitStack, *, rejoins: bool = False) -> None:
        self.node = node
        self.config = node.config
        self.plan = plan
        self.rejoins = rejoins
        self.stopping = False
        self._parent = os.getppid()
        self.rings = NodeRings.attach(node, read_only=READ_ONLY.get(plan.kind, frozenset()))
        stack.callback(self.rings.close)
        self._stack = stack
        self.counters = stack.enter_context(CounterFile.create(counter_path(self.config, plan.name), plan.name))
        self._sources: list[tuple[str, Callable[[], Mapping[str, int]]]] = []
        self._gauges: dict[str, Counter] = {}
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        if plan.core != NOT_PINNED:
            os.sched_setaffinity(0, {plan.core})

    def at_end(self, action: Callable[[], object]) -> None:
        """Have something done when this process ends."""
        self._stack.callback(action)

    def doorbell(self, watched: Iterable[tuple[Ring, Watch]], *, sockets: bool = False) -> Doorbell | None:
        """Return what this process sleeps on, rung when one of the watched cursors moves; None when it spins."""
        if self.plan.wait == "spin":
            return None
        doorbells = self.rings.doorbells
        bell = doorbells.fifo(self.plan.name) if sockets else doorbells.futex(self.plan.name)
        self._stack.callback(bell.close)
        for ring, which in watched:
            ring.watch(bell, which)
        return bell

    def count(self, name: str, source: Callable[[], Mapping[str, int]]) -> None:
        """Have the numbers that `source` returns written to this process's counter file, again and again."""
        self._sources.append((name, source))

    def recover(self, owners: Sequence[Owner]) -> None:
        """Feed the records of the journal's files behind the snapshot, or all of them, to the owners."""
        start = min(owner.position for owner in owners)
        end = self.node.recovered_end
        if end > start:
            known = self.node.quarantined
            taken_out = quarantined(self.config.journal_dir, start, end) if known is None else known
            for owner in owners:
                if isinstance(owner, Matcher):
                    owner.quarantine(taken_out)
            self.feed(owners, LogReader(self.config.journal_dir).batches(start, end))

    def load(self, sequencer: Sequencer | None, matchers: Sequence[Matcher]) -> None:
        """Load this process's owners from the node's snapshot, if it has one, before their rings are attached."""
        if not self.node.snapshot:
            return
        folder = Path(self.node.snapshot)
        load_owners(folder, self.node.engine, sequencer, matchers)
        for matcher in matchers:
            # Made before the snapshot and settled after it: the log will not make them again.
            slots, ring = load_reports(folder, matcher.partition), self.rings.reports[matcher.partition]
            if len(slots) // SLOT_SIZE > ring.capacity:
                raise CommandError(
                    f"rings.report_slots = {ring.capacity}: the snapshot has {len(slots) // SLOT_SIZE} reports that "
                    "are not settled yet",
                    ExitCode.CONFIGURATION,
                )
            if slots:
                ring.publish(*[slots[at : at + SLOT_SIZE] for at in range(0, len(slots), SLOT_SIZE)])

    def feed(self, owners: Sequence[Owner], batches: Iterable[tuple[int, bytes]]) -> None:
        """Feed batches; an owner that stands still waits for another one (reports to settle, room to report)."""
        for first, records in batches:
            view = memoryview(records)
            end = first + len(records) // SLOT_SIZE
            while behind := [owner for owner in owners if owner.position < end]:
                moved = False
                for owner in behind:
                    before = owner.position
                    owner.feed(before, view[(before - first) * SLOT_SIZE :])
                    moved |= owner.position > before
                if not moved:
                    self.check_parent()
                    time.sleep(STANDSTILL_S)

    def serve(
        self,
        stages: Sequence[Stage],
        doorbell: Doorbell | None,
        *,
        sockets: int = -1,
        sleep_ns: int = IDLE_RUN_NS,
        service: Callable[[], object] | None = None,
        lapped: Mapping[int, Owner] | None = None,
        cure: Callable[[int], None] | None = None,
        quiet: Callable[[], bool] | None = None,
        on_stop: Callable[[], None] | None = None,
        idle: Callable[[], bool] | None = None,
    ) -> None:
        """Run the stages until asked to stop, then until `quiet`. When one stops `lapped` says whom to feed from files;
        `cure`, where given, takes its status instead.
        """
        wait, priority = take_turns(self.plan, can_sleep=doorbell is not None)
        if self.plan.in_turn:
            self.count("turns", lambda: {"realtime_priority": priority})
        runner = Runner(
            stages,
            wait,
            doorbell,
            limit=POLL_LIMIT,
            socket=sockets,
            idle_timeout_ns=sleep_ns,
            in_turn=self.plan.in_turn,
        )
        gc.collect()
        gc.freeze()
        gc.disable()
        busy, due, quiet_runs, deadline = True, 0.0, 0, 0.0
        while True:
            result = runner.run(RUN_NS if busy else IDLE_RUN_NS)
            busy = result.work > 0
            if service is not None:
                service()
            if idle is not None and doorbell is not None and not busy and not self.stopping:
                _sleep(doorbell, idle)
            if result.status < 0 and cure is not None:
                cure(result.status)
            elif result.status < 0:
                self._cure(result.status, result.stage, lapped or {})
            now = time.monotonic()
            if now >= due:
                due = now + HOUSEKEEPING_S
                self.check_parent()
                self.write_counters(runner)
            if not self.stopping:
                continue
            if deadline == 0.0:
                deadline = now + DRAIN_S
                if on_stop is not None:
                    on_stop()
            quiet_runs = 0 if busy or (quiet is not None and not quiet()) else quiet_runs + 1
            if quiet_runs >= QUIET_RUNS_BEFORE_END or now > deadline:
                self.write_counters(runner)
                return

    def check_parent(self) -> None:
        """A process without its supervisor would live on unseen."""
        if os.getppid() != self._parent:
            raise CommandError(f"{self.plan.name}: the supervisor has gone", ExitCode.INTERNAL)

    def _cure(self, status: int, index: int, lapped: Mapping[int, Owner]) -> None:
        if status != StageStatus.LAPPED or index not in lapped:
            raise CommandError(f"{self.plan.name}: stage {index} failed ({status})", ExitCode.INTERNAL)
        # All owners of this process together: a sequencer waits for reports that a matcher here has still to make.
        owners = list(lapped.values())
        first = min(owner.position for owner in owners)
        limit = min(self.rings.log.visible, self.rings.log.consumer(0).cursor)
        if limit > first:
            self.feed(owners, LogReader(self.config.journal_dir).batches(first, limit))

    def write_counters(self, runner: Runner | None = None) -> None:
        """Write all numbers to the counter file. A process without a C loop has no numbers of one."""
        names = ("rounds", "idle_rounds", "yields", "sleeps") if runner is not None else ()
        self.write_gauges(**{name: getattr(runner, name) for name in names})

    def write_gauges(self, **loop: int) -> None:
        """Write what `count` was told of, and numbers of the loop, to the counter file."""
        loop["heartbeat_ns"] = time.time_ns()
        for name, numbers in (("loop", loop), *((name, source()) for name, source in self._sources)):
            for key, value in numbers.items():
                full = f"{name}.{key}"
                if full not in self._gauges:
                    self._gauges[full] = self.counters.gauge(full)
                self._gauges[full].set(value)

    def _stop(self, *_: object) -> None:
        self.stopping = True


def _sleep(doorbell: Doorbell, idle: Callable[[], bool]) -> None:
    """Sleep until rung or until it is time for housekeeping, unless something has come up."""
    doorbell.arm()
    if idle():
        doorbell.wait(int(HOUSEKEEPING_S * 1e9))
    doorbell.disarm()
