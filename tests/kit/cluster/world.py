"""Time, chance, the network between the nodes, and what must hold at every moment."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from journaler.chain import LogPosition
from tests.kit.cluster.violation import Violation

if TYPE_CHECKING:
    from tests.kit.cluster.clients import Client, Downstream
    from tests.kit.cluster.node import Faults, SimNode

NODES = (0, 1)


class World:
    """The event queue and everything in it. `run` plays a whole history."""

    def __init__(self, seed: int, *, mode: str = "D2", faults: Faults | None = None) -> None:
        from tests.kit.cluster.arbiter import Arbiter
        from tests.kit.cluster.clients import Client, Downstream
        from tests.kit.cluster.node import Faults, SimNode

        self.seed = seed
        self.mode = mode
        self.faults = faults if faults is not None else Faults()
        self.rng = random.Random(f"cluster {seed} {mode}")
        self.now = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._trace = hashlib.sha256()
        self.lines: list[str] = []
        self.verbose = False
        self.healed = False
        self.loss = self.duplication = 0.0
        self.late = 0.0  # share of frames of which a copy arrives again seconds later
        self.delay_max = 3
        self.blocked: set[tuple[int, int]] = set()  # directions of the link between the nodes
        self.committed: list[int] = []  # chain after each record that any node has committed
        self.acked: dict[int, int] = {}  # sequence -> chain after it, of every record whose report reached a client
        self.leaders: dict[int, tuple[int, int]] = {}
        self.promotions = 0
        self.arbiter = Arbiter(self)
        self.nodes: list[SimNode] = [SimNode(self, node) for node in NODES]
        self.clients: list[Client] = [Client(self, session) for session in (1, 2, 3)]
        self.downstream: Downstream = Downstream(self)

    # --- time -------------------------------------------------------------------------------------------------------

    def after(self, delay_ms: int, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + max(0, delay_ms), next(self._numbers), call))

    def run_until(self, end_ms: int) -> None:
        while self._queue and self._queue[0][0] <= end_ms:
            self.now, _, call = heapq.heappop(self._queue)
            call()
        self.now = end_ms

    def note(self, *what: Any) -> None:
        """Part of the trace: the same seed must give the same one."""
        line = f"{self.now} {' '.join(map(str, what))}"
        self._trace.update(line.encode())
        if self.verbose:
            self.lines.append(line)

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    # --- the network ------------------------------------------------------------------------------------------------

    def send(self, source: int, target: int, frame: bytes) -> None:
        """One direction of the link: lost, late, twice, in another order, as chance and the nemesis have it."""
        copies = 2 if self.rng.random() < self.duplication else 1
        for _ in range(copies):
            if (source, target) in self.blocked or self.rng.random() < self.loss:
                continue
            self.after(self.rng.randint(0, self.delay_max), lambda: self._arrive(source, target, frame))
        if self.late and self.rng.random() < self.late:
            self.after(self.rng.randint(1500, 4000), lambda: self._arrive(source, target, frame))

    def _arrive(self, source: int, target: int, frame: bytes) -> None:
        if (source, target) not in self.blocked:
            node = self.nodes[target]
            node.deliver(lambda: node.on_frame(frame))

    # --- what must hold ---------------------------------------------------------------------------------------------

    def commits(self, node: int, first: int, positions: list[LogPosition]) -> None:
        """A node says that the records from `first` on are committed; `positions` are the log's after each."""
        for offset, position in enumerate(positions):
            sequence = first + offset
            if sequence < len(self.committed):
                if self.committed[sequence] != position.chain:
                    raise Violation(f"{self.now} ms: node {node} commits another record {sequence} than was committed")
                continue
            self.committed.append(position.chain)
            if self.acked.get(sequence, position.chain) != position.chain:
                raise Violation(f"{self.now} ms: node {node} commits another record {sequence} than was acknowledged")

    def acknowledges(self, node: int, sequence: int, chain: int) -> None:
        """A report about the record `sequence` has reached a client."""
        if self.acked.setdefault(sequence, chain) != chain:
            raise Violation(f"{self.now} ms: node {node} acknowledges another record {sequence} than before")
        if sequence < len(self.committed) and self.committed[sequence] != chain:
            raise Violation(f"{self.now} ms: node {node} acknowledges another record {sequence} than was committed")

    def cuts(self, node: int, end: int, positions: list[LogPosition], *, running: bool) -> None:
        """A node cuts its log off at `end`."""
        if running:
            raise Violation(f"{self.now} ms: node {node} cuts its log while its core runs")
        for sequence in range(end, min(len(positions) - 1, len(self.committed))):
            if positions[sequence + 1].chain == self.committed[sequence]:
                raise Violation(f"{self.now} ms: node {node} cuts off committed record {sequence}")

    def leads(self, node: int, incarnation: int, epoch: int) -> None:
        if self.leaders.setdefault(epoch, (node, incarnation)) != (node, incarnation):
            raise Violation(f"{self.now} ms: two leaders in epoch {epoch}: {self.leaders[epoch]} and node {node}")
        self.promotions += 1

    # --- a history --------------------------------------------------------------------------------------------------

    def run(self, *, trouble_ms: int = 12_000, patience_ms: int = 20_000, focus: str = "") -> None:
        """Start, make trouble, heal everything, wait until all is well again, compare."""
        from tests.kit.cluster.nemesis import Nemesis

        for node in self.nodes:
            node.boot()
        for client in self.clients:
            client.start()
        self.downstream.start()
        nemesis = Nemesis(self, focus)
        self.run_until(1500)
        nemesis.start(until=self.now + trouble_ms)
        self.run_until(self.now + trouble_ms)
        nemesis.heal()
        self.healed = True
        for client in self.clients:
            client.finishing = True
        end = self.now + patience_ms
        while not self.settled():
            if self.now >= end:
                raise Violation(f"not well {patience_ms} ms after the last fault: {self.describe()}")
            self.run_until(self.now + 100)
        self.check_end()

    def settled(self) -> bool:
        from replicator.events import Core, State

        leading = [node for node in self.nodes if node.up and node.state is State.PRIMARY]
        others = [node for node in self.nodes if node.up and node.state is State.STANDBY]
        if len(leading) != 1 or len(others) != 1 or not leading[0].replica.machine.in_sync:
            return False
        core = leading[0].core
        done = core is not None and core.phase is Core.LEADING and core.commit == core.end
        same = others[0].core is not None and core is not None and others[0].core.end == core.end
        return done and same and all(client.answered for client in self.clients)

    def check_end(self) -> None:
        logs = [node.disk.positions for node in self.nodes]
        if logs[0][-1] != logs[1][-1]:
            raise Violation(f"the logs differ in the end: {logs[0][-1]} and {logs[1][-1]}")
        for sequence, chain in self.acked.items():
            if logs[0][sequence + 1].chain != chain:
                raise Violation(f"acknowledged record {sequence} is lost")
        for client in self.clients:
            client.check(self.nodes[0].disk.entries)
        self.downstream.check(logs[0])

    def describe(self) -> str:
        nodes = [f"node {node.number}: {node.describe()}" for node in self.nodes]
        late = [client.describe() for client in self.clients if not client.answered]
        return "; ".join([*nodes, *late, f"arbiter {self.arbiter.view(0)}"])
