"""The simulated core of a node: ingress ring, sequencer, journaler, report stream, by the real rules.

commit = min(own durable, `replicated`), never decreasing. The sequencer admits a request only if its number is the
session's last + 1. Nothing derived from a record at or above commit leaves. The ingress cursor is never believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from journaler.chain import LogPosition
from replicator import events as ev
from replicator.divergence import hash_key
from replicator.events import Core
from tests.kit.cluster import records as rec
from tests.kit.cluster.violation import Violation

if TYPE_CHECKING:
    from tests.kit.cluster.clients import Client
    from tests.kit.cluster.node import SimNode

CAPACITY = 2048
TURN = 8
TICK_MS = 50


class Report(NamedTuple):
    """About one request of a session: the session's n-th, the record it is about, and what it says."""

    number: int
    sequence: int
    chain: int
    payload: int


class SimCore:
    """A LogPort of the Replica and the exchange behind it."""

    def __init__(self, node: SimNode, commit: int) -> None:
        self.node = node
        self.world = node.world
        self.disk = node.disk
        self.phase = Core.LOG
        self.commit = 0
        self.position = self.disk.positions[-1]
        self._base_commit = commit
        self._cell = commit
        self._stopped = False
        self._syncing = False
        self._held = False
        self._dead = False  # the sequencer, for a moment; rings and journaler are not
        self._epoch = 0
        self._source = 0
        self._ring: list[rec.Entry] = []  # ingress; a restarted sequencer reads it again
        self._cursor = 0  # as stored in the ring's header
        self._next = 0  # as the sequencer has it in memory
        self._last: dict[int, int] = {}
        self._bound: dict[int, Client] = {}
        self._binds: dict[int, tuple[Client, int]] = {}
        self._pending_binds: dict[int, tuple[Client, int, int]] = {}
        self._counts: dict[int, int] = {}
        self._hashed = 0
        self._reported = 0  # records whose reports were published; the report ring survives a sequencer's restart
        self.streams: dict[int, list[Report]] = {}
        self._raise_commit()

    # --- the log port -------------------------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        return len(self.disk.records)

    @property
    def durable(self) -> int:
        return self.disk.durable

    @property
    def wanted(self) -> int:
        return self.end

    @property
    def applied(self) -> int:
        return self.commit

    def take_hashes(self) -> list[tuple[int, int]]:
        """The last 64 records' chain, at every 64th: two nodes with one log have one state."""
        marks = range(self._hashed // 64 + 1, self.commit // 64 + 1)
        self._hashed = self.commit
        return [(hash_key(mark, 1), self.disk.positions[64 * mark].chain) for mark in marks]

    def store_replicated(self, sequence: int) -> None:
        self._cell = sequence
        self._raise_commit()

    def append(self, records: bytes, wanted: int) -> bool:
        slots = rec.split(records)
        if self.end - self.durable + len(slots) > CAPACITY:
            return False
        for slot in slots:
            self.disk.append(slot)
        self.kick()
        return True

    def copy(self, first: int, count: int) -> bytes | None:
        return b"".join(self.disk.records[first : first + count])

    def read(self, first: int, end: int, slots_max: int) -> bytes | None:
        return b"".join(self.disk.records[first : min(end, first + slots_max)])

    # --- the journaler ------------------------------------------------------------------------------------------------

    def kick(self) -> None:
        if self._syncing or self._stopped or self.durable >= self.end:
            return
        self._syncing = True
        target = self.end
        rng = self.world.rng
        delay = rng.randint(1, 4) + (rng.randint(0, self.node.slow_disk_ms) if self.node.slow_disk_ms else 0)
        self.node.later(delay, lambda: self._synced(target))

    def _synced(self, target: int) -> None:
        if self._stopped:
            return
        self._syncing = False
        self.disk.durable = max(self.disk.durable, min(target, self.end))
        self._raise_commit()
        self.kick()
        self.node.poll()

    def _raise_commit(self) -> None:
        commit = min(self.durable, self._cell)
        if commit > self.commit:
            first, self.commit = self.commit, commit
            self.world.commits(self.node.number, first, self.disk.positions[first + 1 : commit + 1])
            if self.phase is Core.LEADING:
                self._release()

    # --- the sequencer ------------------------------------------------------------------------------------------------

    def activate(self, epoch: int) -> None:
        """Lead once everything is applied."""
        if self._stopped:
            return
        if self.phase is not Core.FOLLOWING or self.commit != self.end:
            self.node.later(2, lambda: self.activate(epoch))
            return
        self._epoch = epoch
        self.node.later(self.world.rng.randint(2, 40), self._lead)

    def _lead(self) -> None:
        if self._stopped:
            return
        self.phase = Core.LEADING
        self._bound, self._binds, self._pending_binds = {}, {}, {}
        self._ring, self._next, self._cursor = [], 0, 0
        self._dead = False
        self.world.leads(self.node.number, self.node.replica.machine.incarnation, self._epoch)
        self.disk.append(rec.make(rec.EPOCH, payload=self._epoch))
        self._source = self._epoch  # a new ingress ring in each epoch
        self.disk.append(rec.make(rec.SOURCE_OPEN, source=self._source & 0xFFFF))
        self._rebuild()
        self._publish()
        self.node.event(ev.CoreChanged(Core.LEADING, self._epoch))
        self._tick()

    def _tick(self) -> None:
        """Time is a record, too: the log grows although no client asks for anything."""
        if self._stopped or self.phase is not Core.LEADING:
            return
        quiet = self._held or self._dead or self.world.healed
        if not quiet and self.end - self.commit < CAPACITY:
            self.disk.append(rec.make(rec.TICK))
            self._publish()
        self.node.later(TICK_MS, self._tick)

    def _rebuild(self) -> None:
        """The sequencer's state is a function of the log."""
        self._last, self._counts = {}, {}
        self.streams = {}
        for sequence, entry in enumerate(self.disk.entries):
            if entry.template == rec.REQUEST:
                self._last[entry.session] = entry.number
                self._report(sequence, entry)
        self._reported = self.end

    def _report(self, sequence: int, entry: rec.Entry) -> None:
        stream = self.streams.setdefault(entry.session, [])
        stream.append(Report(len(stream) + 1, sequence, self.disk.positions[sequence + 1].chain, entry.payload))

    def hold(self, held: bool) -> None:
        self._held = held
        if held:
            self.node.later(self.world.rng.randint(1, 20), self._is_held)
        else:
            self._turn()

    def _is_held(self) -> None:
        if self._held and not self._stopped and not self._dead:
            self.node.event(ev.IntakeHeld(self.end))

    def submit(self, entry: rec.Entry, client: Client) -> None:
        """A gateway puts a request into the ingress ring."""
        if entry.template == rec.BIND:
            self._binds[len(self._ring)] = (client, client.connection)
        self._ring.append(entry)
        self._turn()

    def _turn(self) -> None:
        if self._stopped or self.phase is not Core.LEADING or self._held or self._dead:
            return
        limit = min(len(self._ring), self._next + TURN)
        while self._next < limit and self.end - self.commit < CAPACITY:
            self._take(self._next, self._ring[self._next])
            self._next += 1
        self._cursor = self._next
        self._publish()
        if self._next < len(self._ring):
            self.node.later(1, self._turn)

    def _take(self, index: int, entry: rec.Entry) -> None:
        place = {"source": self._source & 0xFFFF, "src_seq": index}
        if entry.template == rec.BIND:
            self.disk.append(rec.make(rec.BIND, session=entry.session, payload=entry.payload, **place))
            bind = self._binds.get(index)
            if bind is not None:
                client, connection = bind
                self._bound.pop(entry.session, None)
                self._waiting_bind(self.end - 1, client, connection)
        elif entry.number == self._last.get(entry.session, 0) + 1:
            self._last[entry.session] = entry.number
            more = {"session": entry.session, "number": entry.number, "payload": entry.payload}
            self.disk.append(rec.make(rec.REQUEST, **more, **place))
        elif entry.number > self._last.get(entry.session, 0):
            # Connections keep their order and a bind tells where to go on: only we can have lost what is missing.
            raise Violation(f"{self.world.now} ms: a request of session {entry.session} was lost before {entry.number}")

    def _waiting_bind(self, sequence: int, client: Client, connection: int) -> None:
        self._pending_binds[sequence] = (client, connection, self._last.get(client.session, 0))

    def _publish(self) -> None:
        self.kick()
        if self.world.faults.release_published:
            self._release()
        self.node.poll()

    def _release(self) -> None:
        """F8: what leaves is derived from committed input."""
        if self._dead:
            return
        bound = self.end if self.world.faults.release_published else self.commit
        pending = self._pending_binds
        while self._reported < bound:
            sequence, self._reported = self._reported, self._reported + 1
            entry = self.disk.entries[sequence]
            if entry.template == rec.REQUEST:
                self._report(sequence, entry)
                client = self._bound.get(entry.session)
                if client is not None:
                    client.send_report(self, self.streams[entry.session][-1])
            elif entry.template == rec.BIND and sequence in pending:
                client, connection, last = pending.pop(sequence)
                self._bound[entry.session] = client
                client.send_bound(self, connection, last, len(self.streams.get(entry.session, [])))

    def restart_sequencer(self) -> None:
        """The sequencer and its matcher die in the middle of a turn and are replaced over the same rings (R6, R7)."""
        if self.phase is not Core.LEADING or self._held or self._stopped or self._dead:
            return
        self.world.note("sequencer dies", self.node.number)
        self._dead = True
        self.node.later(self.world.rng.randint(10, 200), self._restart)

    def _restart(self) -> None:
        if self._stopped or self.phase is not Core.LEADING:
            return
        self._dead = False
        if self.world.faults.cursor_before_publish:
            self._cursor = len(self._ring)  # stored for requests that never reached the log
        source = self._source & 0xFFFF
        taken = [e.src_seq for e in self.disk.entries if e.source == source and e.template != rec.SOURCE_OPEN]
        self._next = self._cursor if self.world.faults.cursor_before_publish else max(taken, default=-1) + 1
        reported = self._reported
        kept = {session: list(stream) for session, stream in self.streams.items()}
        self._rebuild_published(reported, kept)
        self._release()
        self._turn()

    def _rebuild_published(self, reported: int, kept: dict[int, list[Report]]) -> None:
        """Make all reports again; only those behind what the ring has are published, the others are compared."""
        self._last = {}
        for entry in self.disk.entries:
            if entry.template == rec.REQUEST:
                self._last[entry.session] = entry.number
        self.streams = {}
        for sequence in range(reported):
            entry = self.disk.entries[sequence]
            if entry.template == rec.REQUEST:
                self._report(sequence, entry)
        if self.world.faults.publish_again:
            self.streams = {session: kept[session] + stream[-3:] for session, stream in self.streams.items()}
            for session, stream in self.streams.items():
                self.streams[session] = [report._replace(number=at + 1) for at, report in enumerate(stream)]
                client = self._bound.get(session)
                for report in self.streams[session][-3:]:
                    if client is not None:
                        client.send_report(self, report)

    # --- gateway and downstream ---------------------------------------------------------------------------------------

    def reports(self, session: int, first: int) -> list[Report]:
        """Retransmission: what was published from report number `first` on."""
        return self.streams.get(session, [])[first - 1 :]

    def committed_from(self, sequence: int, count: int) -> list[LogPosition]:
        """Positions after the committed records from `sequence` on."""
        return self.disk.positions[sequence + 1 : min(self.commit, sequence + count) + 1]

    @property
    def epoch(self) -> int:
        return self._epoch if self.phase is Core.LEADING else self.node.replica.machine.epoch

    def stop(self) -> None:
        self._stopped = True
        self.phase = Core.DOWN
