"""Clients that number their requests and resend what was not answered; a downstream reader of committed records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journaler.chain import LogPosition
from tests.kit.cluster import records as rec
from tests.kit.cluster.core import Report, SimCore
from tests.kit.cluster.violation import Violation

if TYPE_CHECKING:
    from tests.kit.cluster.world import World

SILENCE_MS = 400


class Client:
    """One session. Keeps requests until a report shows that they were taken; carries on at either node."""

    def __init__(self, world: World, session: int) -> None:
        self.world = world
        self.session = session
        self.connection = 0  # number of the present connection; 0 = none
        self.finishing = False
        self._connections = 0
        self._node = 0
        self._core: SimCore | None = None
        self._established = False
        self._sent = 0
        self._heard = 0
        self._arrival = 0
        self._reports: dict[int, Report] = {}
        self._expected = 1

    @property
    def answered(self) -> bool:
        return self._expected > self._sent

    def describe(self) -> str:
        return f"client {self.session}: {self._sent} sent, {self._expected - 1} answered, node {self._node}"

    def start(self) -> None:
        self._live()

    def _live(self) -> None:
        world = self.world
        if self.connection and (not self._core_lives() or world.now - self._heard > SILENCE_MS):
            self.connection = 0
        if not self.connection:
            self._connect()
        elif self._established and not self.finishing:
            self._sent += 1
            self._send(self._sent)
        elif self._established and not self.answered and world.rng.random() < 0.3:
            self._send(self._expected)
            self._ask_missing()
        world.after(world.rng.randint(20, 100), self._live)

    def _ask_missing(self) -> None:
        """RetransmitRequest from the next report expected on."""
        core, connection = self._core, self.connection
        assert core is not None

        def answer() -> None:
            if connection == self.connection and core.phase.value == "leading":
                for report in core.reports(self.session, self._expected)[:64]:
                    self.send_report(core, report)

        node = self.world.nodes[self._node]
        self.world.after(self.world.rng.randint(0, 3), lambda: node.deliver(answer))

    def _core_lives(self) -> bool:
        node = self.world.nodes[self._node]
        return node.up and node.core is self._core and self._core is not None and self._core.phase.value == "leading"

    def _payload(self, number: int) -> int:
        return self.session << 32 | number

    def _connect(self) -> None:
        self._node = 1 - self._node
        node = self.world.nodes[self._node]
        if not node.leading or node.core is None:
            return  # refused, or NotReady
        self._connections += 1
        self.connection = self._connections
        self._core = node.core
        self._established = False
        self._heard = self._arrival = self.world.now
        self._to_core(rec.Entry(rec.BIND, self.session, 0, 0, 0, self.connection))

    def _send(self, number: int) -> None:
        self._to_core(rec.Entry(rec.REQUEST, self.session, 0, 0, number, self._payload(number)))

    def _to_core(self, entry: rec.Entry) -> None:
        core, connection = self._core, self.connection
        assert core is not None
        node = self.world.nodes[self._node]
        self._arrival = max(self._arrival, self.world.now + self.world.rng.randint(0, 3))

        def arrive() -> None:
            # A frame of an old connection may still be read by the gateway: the admission rule is what protects.
            if node.core is core and core.phase.value == "leading":
                core.submit(entry, self)

        self.world.after(self._arrival - self.world.now, lambda: node.deliver(arrive))
        del connection

    # --- from the gateway ---------------------------------------------------------------------------------------------

    def send_bound(self, core: SimCore, connection: int, last: int, reports: int) -> None:
        self.world.after(self.world.rng.randint(0, 3), lambda: self._bound(core, connection, last, reports))

    def send_report(self, core: SimCore, report: Report) -> None:
        self.world.after(self.world.rng.randint(0, 3), lambda: self._report(core, report))

    def _bound(self, core: SimCore, connection: int, last: int, reports: int) -> None:
        if connection != self.connection or core is not self._core:
            return
        self._heard = self.world.now
        self._established = True
        for report in core.reports(self.session, self._expected):
            self.send_report(core, report)
        for number in range(last + 1, self._sent + 1):
            self._send(number)

    def _report(self, core: SimCore, report: Report) -> None:
        # Reports that were on their way when the connection ended count: the client has read them.
        self._heard = self.world.now
        known = self._reports.setdefault(report.number, report)
        if known != report:
            raise self._violation(f"report {report.number} was {known}, now {report}")
        if report.payload != self._payload(report.number):
            raise self._violation(f"report {report.number} is about request {report.payload & 0xFFFFFFFF}")
        self.world.acknowledges(core.node.number, report.sequence, report.chain)
        while self._expected in self._reports:
            self._expected += 1
        if report.number > self._expected and core is self._core:
            for missing in core.reports(self.session, self._expected)[: report.number - self._expected]:
                self.send_report(core, missing)

    def _violation(self, text: str) -> Violation:
        return Violation(f"{self.world.now} ms: session {self.session}: {text}")

    def check(self, entries: list[rec.Entry]) -> None:
        """Every request once, in order, and the reports about these very records."""
        mine = [(at, e) for at, e in enumerate(entries) if e.template == rec.REQUEST and e.session == self.session]
        if [entry.number for _, entry in mine] != list(range(1, len(mine) + 1)):
            raise self._violation("its requests are not in the log once and in order")
        if len(mine) != self._sent:
            raise self._violation(f"{self._sent} requests sent, {len(mine)} in the log")
        for number, report in self._reports.items():
            if report.sequence != mine[number - 1][0]:
                raise self._violation(f"report {number} names another record")


class Downstream:
    """Settlement, wallet, publisher: takes committed records from whichever node it is connected to (F12)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._node = 0
        self._epoch = 0
        self._end = LogPosition()
        self._applied: list[int] = []
        self._cursors = {0: 0, 1: 0}  # how far each node has sent to it

    def start(self) -> None:
        self._live()

    def _live(self) -> None:
        world = self.world
        if world.rng.random() < 0.05:
            self._node = 1 - self._node
        node = world.nodes[self._node]
        if node.up and not node.paused and node.core is not None:
            self._take(node.core)
        world.after(world.rng.randint(50, 150), self._live)

    def _take(self, core: SimCore) -> None:
        first = self._cursors[self._node]
        batch = core.committed_from(first, 64)
        if not batch:
            return
        self._cursors[self._node] = first + len(batch)
        before = core.disk.positions[first]
        if not self.world.faults.downstream_unguarded and (core.epoch < self._epoch or before != self._end):
            self._cursors[self._node] = min(self._end.sequence, core.commit)
            return  # of a deposed node, or not what follows: asks again from where it is
        self._epoch = max(self._epoch, core.epoch)
        self._end = batch[-1]
        self._applied += [position.chain for position in batch]

    def check(self, positions: list[LogPosition]) -> None:
        truth = [position.chain for position in positions[1 : len(self._applied) + 1]]
        if self._applied != truth:
            raise Violation("downstream applied other records than the log has, or some of them twice")
