"""One node's half of replication: frames in and out, the stream of the log, the state machine that says what counts.

Everything outside (sockets, rings, disks, the arbiter, processes) is behind two ports, so tests run this very code over
simulated ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from journaler.chain import LogPosition
from replicator import events as ev
from replicator.config import FailoverConfig, StreamConfig
from replicator.divergence import HashLedger
from replicator.errors import BadFrame, LogForked
from replicator.events import Core, State
from replicator.failover import Failover
from replicator.machine import FOLLOWING, LEADING, NEVER
from replicator.primary import LogSender, LogSource
from replicator.protocol import (
    Ack,
    Append,
    Chain,
    Diverged,
    Fenced,
    Flag,
    Frame,
    Handover,
    Hashes,
    Heartbeat,
    Hello,
    Message,
    Nack,
    Probe,
    Role,
    Sender,
    StepDown,
    encode,
)
from replicator.standby import ForkSearch, LogReceiver, LogSink, Verdict

REPEATS = 3  # of a frame that matters and is not answered
KNOWN, UNKNOWN, TOO_OLD = 1, 0, 2


class LogPort(LogSource, LogSink, Protocol):
    """The log ring of a running core."""

    @property
    def position(self) -> LogPosition:
        """The end of the log when the core was started; all of it durable."""

    @property
    def end(self) -> int: ...

    @property
    def durable(self) -> int: ...

    @property
    def commit(self) -> int: ...

    @property
    def wanted(self) -> int:
        """Below it somebody waits for the acknowledgement."""

    @property
    def applied(self) -> int:
        """How far the slowest owner has applied the log."""

    def take_hashes(self) -> list[tuple[int, int]]:
        """State hashes of this node that were not taken before: (key, hash), see divergence.py."""

    def store_replicated(self, sequence: int) -> None: ...


class Port(Protocol):
    """The rest of the node."""

    def send(self, frame: bytes) -> None:
        """Send to the peer, or drop."""

    def perform(self, action: ev.Action) -> None: ...

    def ask_chain(self, sequence: int) -> None:
        """Find the log's identity at a sequence in our files; answered by `Replica.chain_known`."""

    @property
    def resting_end(self) -> LogPosition:
        """The end of the log in the files while no core runs."""


class Replica:
    """Call `frame`, `event`, `core_log` as things happen, `poll` often. Time is the caller's: ms, never decreasing."""

    RECEIVER = LogReceiver
    SENDER = LogSender

    def __init__(
        self,
        config: FailoverConfig,
        stream: StreamConfig,
        port: Port,
        *,
        likeness: int = 0,
        machine: type[Failover] = Failover,
    ) -> None:
        """`likeness`: equal on both nodes if they may replace each other (schema, keys outside the log)."""
        self.machine = machine(config)
        self.hashes = HashLedger()
        self.bad_frames = 0
        self._config = config
        self._stream = stream
        self._port = port
        self._now = 0
        self._log: LogPort | None = None
        self._sender: LogSender | None = None
        self._receiver: LogReceiver | None = None
        self._search: ForkSearch | None = None
        self._matched = False  # our log is a prefix of the log of the leader we follow
        self._cell: int | None = None  # of `replicated`, decided while there was no log to store it in
        self._acked = -1
        self._nacked = -1
        self._told = ev.LogAdvanced(-1, -1, -1)
        self._heartbeat_at = NEVER
        self._handover_end = 0
        self._step_downs = 0
        self._peer_flags = Flag(0)
        self._peer_commit = 0
        self._likeness = likeness
        self._alike = True
        self._asks: dict[int, list[Callable[[LogPosition | None], None]]] = {}
        self._frames: dict[type, Callable[[Frame], None]] = {
            Hello: self._on_hello,
            Append: self._on_append,
            Ack: self._on_ack,
            Nack: self._on_nack,
            Heartbeat: self._on_heartbeat,
            Fenced: lambda frame: self._step(ev.PeerFenced(frame.sender.epoch)),
            Probe: self._on_probe,
            Chain: self._on_chain,
            Handover: self._on_handover,
            StepDown: lambda frame: self._step(ev.PeerSteppedDown(frame.sender.epoch)),
            Diverged: self._on_diverged,
            Hashes: self._on_hashes,
        }

    # --- from outside -------------------------------------------------------------------------------------------------

    def event(self, event: ev.Event, now_ms: int) -> None:
        """Something happened on this node or at the arbiter. CoreChanged(LOG) comes after `core_log`."""
        self._now = now_ms
        if isinstance(event, ev.CoreChanged) and event.core in (Core.DOWN, Core.FAILED):
            self._close_log()
        self._step(event)

    def core_log(self, log: LogPort, now_ms: int) -> None:
        """Journaler and log ring are there."""
        self._now = now_ms
        self._log, self._sender = log, None
        self._acked = -1
        if self._cell is not None:
            log.store_replicated(self._cell)
        self._receiver = self.RECEIVER(log, log.position, self._stream.window_bytes)
        self._tell_log()
        self._step(ev.CoreChanged(Core.LOG))
        if self._matched:
            self._say_hello()

    def log_lost(self) -> None:
        """The log ring must not be used any more; what became of the core is told later."""
        self._close_log()

    def frame(self, data: bytes, now_ms: int) -> None:
        """Take a frame from the peer, whatever it contains."""
        self._now = now_ms
        try:
            frame = Frame.decode(data)
        except BadFrame:
            self.bad_frames += 1
            return
        sender = frame.sender
        if sender.cluster != self._config.cluster or sender.node != self._config.peer:
            self.bad_frames += 1
            return
        if sender.incarnation < self.machine.peer.incarnation:
            return
        role = _ROLES.get(type(frame.message), Role.NONE)
        if isinstance(frame.message, Heartbeat):
            self._peer_flags, role = frame.message.flags, frame.message.role
            self._alike = frame.message.likeness == self._likeness
        flags = self._peer_flags
        hot, empty, member = Flag.HOT in flags, Flag.EMPTY in flags, Flag.MEMBER in flags
        self._step(ev.PeerHeard(sender.epoch, sender.incarnation, role, hot, empty, member, self._alike))
        self._frames[type(frame.message)](frame)

    def poll(self, now_ms: int, wall_s: int) -> None:
        """Send what there is to send; let time pass."""
        self._now = now_ms
        self._tell_log()
        self._pump_receiver()
        self._pump_sender()
        if now_ms - self._heartbeat_at >= self._config.heartbeat_ms:
            self._heartbeat_at = now_ms
            self._heartbeat()
        self._step(ev.Tick(wall_s))

    def chain_known(self, sequence: int, position: LogPosition | None, now_ms: int) -> None:
        """The answer to `Port.ask_chain`."""
        self._now = now_ms
        for callback in self._asks.pop(sequence, []):
            callback(position)

    @property
    def hot(self) -> bool:
        """All owners are there and have applied what is committed."""
        log = self._log
        core = self.machine.core in (Core.FOLLOWING, Core.LEADING)
        return core and log is not None and log.commit - log.applied <= self._config.join_lag_slots

    # --- the state machine --------------------------------------------------------------------------------------------

    def _step(self, event: ev.Event) -> None:
        led = self.machine.state in LEADING
        for action in self.machine.step(event, self._now):
            self._perform(action)
        if self.machine.state in LEADING and not led:
            self._heartbeat()  # whoever led before closes its clients' connections as soon as it hears of us

    def _perform(self, action: ev.Action) -> None:
        match action:
            case ev.SetReplicated(sequence):
                self._cell = sequence
                if self._log is not None:
                    self._log.store_replicated(sequence)
            case ev.Follow():
                self._follow()
            case ev.SendHandover(sequence):
                self._handover_end = sequence
                self._send_handover()
            case ev.SendStepDown():
                self._step_downs = REPEATS
                self._send(StepDown())
            case ev.SendDiverged(key):
                self._send(Diverged(key))
            case ev.SendFenced():
                self._send(Fenced())
            case ev.StartCore():
                self._cell = None
                self._port.perform(action)
            case ev.Activate():
                self._matched = False
                self._receiver = None  # from here on the sequencer is the log ring's producer
                self._port.perform(action)
            case _:
                self._port.perform(action)

    def _send(self, message: Message) -> None:
        machine = self.machine
        sender = Sender(self._config.cluster, self._config.node, machine.incarnation, machine.epoch)
        self._port.send(encode(sender, message))

    def _tell_log(self) -> None:
        log = self._log
        if log is None:
            return
        told = ev.LogAdvanced(log.end, log.durable, log.commit)
        if told != self._told:
            self._told = told
            self._step(told)

    def _close_log(self) -> None:
        self._matched = False
        self._log = self._sender = self._receiver = None
        self._acked = -1
        self._told = ev.LogAdvanced(-1, -1, -1)

    # --- heartbeats ---------------------------------------------------------------------------------------------------

    def _heartbeat(self) -> None:
        machine, log = self.machine, self._log
        if machine.state in (State.INIT, State.HALTED):
            return
        flags = Flag.HOT if self.hot and machine.electable else Flag(0)
        flags |= Flag.EMPTY if machine.empty else Flag(0)
        flags |= Flag.STREAMING if self._sender is not None and machine.peer.streaming else Flag(0)
        flags |= Flag.MEMBER if machine.in_sync else Flag(0)
        end = log.end if log is not None else self._port.resting_end.sequence
        durable, commit = (log.durable, log.commit) if log is not None else (end, 0)
        self._send(Heartbeat(end, durable, commit, self._likeness, machine.role, flags))
        self._compare_hashes()
        if self._step_downs > 0 and machine.state not in LEADING:
            self._step_downs -= 1
            self._send(StepDown())
        if machine.handing_over and self._handover_end:
            self._send_handover()
        if not machine.handing_over:
            self._handover_end = 0
        if machine.state in FOLLOWING:
            self._ask_again()

    def _on_heartbeat(self, frame: Frame) -> None:
        beat = frame.message
        assert isinstance(beat, Heartbeat)
        if beat.role is not Role.PRIMARY or not self.machine.accepts(frame.sender.epoch):
            return
        self._peer_commit = beat.commit
        if Flag.STREAMING not in beat.flags and self._receiver is not None:
            if self._matched:
                self._say_hello()
            elif self._search is None:
                self._follow()
        self._raise_commit(beat.commit)

    def _raise_commit(self, commit: int) -> None:
        """Owners here stop where the primary's commit stands: as far as our log is known to be the primary's."""
        if self._receiver is None or self._log is None or not self._matched:
            return
        bound = min(commit, self._receiver.position.sequence)
        if self._cell is None or bound > self._cell:
            self._cell = bound
            self._log.store_replicated(bound)

    # --- following: where to go on ------------------------------------------------------------------------------------

    def _own_end(self) -> LogPosition:
        return self._receiver.position if self._receiver is not None else self._port.resting_end

    def _follow(self) -> None:
        self._matched = False
        self._search = ForkSearch(self._own_end().sequence)
        self._ask_again()

    def _ask_again(self) -> None:
        search = self._search
        if search is not None and self._log_settled():
            self._send(Probe(search.probe))

    def _log_settled(self) -> bool:
        """Whether all of our log is in the files, where its chain can be read."""
        return self._log is None or self._log.durable == self._own_end().sequence

    def _on_chain(self, frame: Frame) -> None:
        answer, search = frame.message, self._search
        assert isinstance(answer, Chain)
        if not self.machine.accepts(frame.sender.epoch):
            return
        self._peer_commit = answer.commit
        if search is None:
            end = self._own_end()
            if answer.known == KNOWN and answer.sequence == end.sequence and answer.chain != end.chain:
                self._follow()  # what we said hello with is not the primary's
            return
        if answer.sequence != search.probe:
            return
        if answer.known == TOO_OLD:
            text = f"the primary has no record before {answer.sequence} any more: seed this node anew"
            self._port.perform(ev.Page("too_far_behind", text))
        elif answer.known == UNKNOWN:
            if answer.log_end < search.probe:
                search.ends_at(answer.log_end)
                self._searched(search)
        else:
            self._compare_chain(search, answer)

    def _compare_chain(self, search: ForkSearch, answer: Chain) -> None:
        end = self._own_end()
        if answer.sequence == end.sequence:
            search.answer(end.chain, answer.chain)
            self._searched(search)
            return

        def ours(position: LogPosition | None) -> None:
            if position is not None and self._search is search and search.probe == answer.sequence:
                search.answer(position.chain, answer.chain)
                self._searched(search)

        self._ask_chain(answer.sequence, ours)

    def _searched(self, search: ForkSearch) -> None:
        common = search.common
        if common is None:
            self._ask_again()
            return
        self._search = None
        if common == search.own_end:
            self._matched = True
            self._step(ev.LogMatched(self.machine.epoch, min(self._peer_commit, common)))
            if self._receiver is not None:
                self._say_hello()
        else:
            self._step(ev.LogForkFound(self.machine.epoch, common))

    def _say_hello(self) -> None:
        if self._receiver is not None and self.machine.accepts(self.machine.epoch):
            position = self._receiver.position
            self._nacked = -1
            self._send(Hello(position.sequence, position.chain))

    def _ask_chain(self, sequence: int, callback: Callable[[LogPosition | None], None]) -> None:
        waiting = self._asks.setdefault(sequence, [])
        waiting.append(callback)
        if len(waiting) == 1:
            self._port.ask_chain(sequence)

    # --- following: the stream ----------------------------------------------------------------------------------------

    def _on_append(self, frame: Frame) -> None:
        append, receiver = frame.message, self._receiver
        assert isinstance(append, Append)
        if receiver is None or not self._matched or not self.machine.accepts(frame.sender.epoch):
            return
        self._judge(receiver.append(append))
        self._raise_commit(append.commit)

    def _judge(self, verdict: Verdict | None) -> None:
        receiver = self._receiver
        if receiver is None or verdict is None:
            return
        if verdict is Verdict.FORKED:
            self._follow()
        elif verdict is Verdict.GAP and self._nacked != receiver.position.sequence:
            self._nacked = receiver.position.sequence
            self._send(Nack(self._nacked))

    def _pump_receiver(self) -> None:
        receiver, log = self._receiver, self._log
        if receiver is None or log is None or not self._matched or not self.machine.accepts(self.machine.epoch):
            return
        self._judge(receiver.resume())
        safe = receiver.position if self._config.mode == "D2m" else receiver.durable_end(log.durable)
        again = self._now - self._heartbeat_at >= self._config.heartbeat_ms
        if safe.sequence > self._acked or again:
            self._acked = safe.sequence
            self._send(Ack(safe.sequence, safe.chain, log.applied))
        if again:
            self._nacked = -1

    def _on_handover(self, frame: Frame) -> None:
        handover, receiver = frame.message, self._receiver
        assert isinstance(handover, Handover)
        end = LogPosition() if receiver is None else receiver.position
        if (end.sequence, end.chain) == (handover.sequence, handover.chain) and self._matched:
            self._tell_log()
            self._step(ev.HandedOver(frame.sender.epoch, handover.sequence))

    def _on_diverged(self, frame: Frame) -> None:
        assert isinstance(frame.message, Diverged)
        if frame.sender.epoch == self.machine.epoch:
            self._step(ev.HashesDiffer(frame.message.key))

    # --- leading ------------------------------------------------------------------------------------------------------

    def _on_probe(self, frame: Frame) -> None:
        assert isinstance(frame.message, Probe)
        if self.machine.state in LEADING and self._log is not None and frame.sender.epoch == self.machine.epoch:
            self._answer_chain(frame.message.sequence)

    def _answer_chain(self, sequence: int) -> None:
        log, epoch = self._log, self.machine.epoch
        if log is None:
            return
        if sequence > log.durable:
            self._send(Chain(sequence, 0, UNKNOWN, log.end, log.commit))
            return

        def answer(position: LogPosition | None) -> None:
            if self._log is None or self.machine.epoch != epoch or self.machine.state not in LEADING:
                return
            chain, known = (position.chain, KNOWN) if position is not None else (0, TOO_OLD)
            self._send(Chain(sequence, chain, known, self._log.end, self._log.commit))

        self._ask_chain(sequence, answer)

    def _on_hello(self, frame: Frame) -> None:
        hello, machine = frame.message, self.machine
        assert isinstance(hello, Hello)
        if machine.state not in LEADING or frame.sender.epoch != machine.epoch or self._log is None:
            return
        known = self._sender.position_at(hello.sequence) if self._sender is not None else None
        incarnation, epoch = frame.sender.incarnation, machine.epoch

        def start(position: LogPosition | None) -> None:
            if self._log is None or machine.epoch != epoch or machine.state not in LEADING:
                return
            if position is None or position.chain != hello.chain or incarnation != machine.peer.incarnation:
                self._answer_chain(hello.sequence)
                return
            self._sender = self.SENDER(self._log, self._stream, position)
            self._step(ev.StreamStarted(incarnation))
            self._pump_sender()

        if known is not None:
            start(known)
        elif hello.sequence <= self._log.durable:
            self._ask_chain(hello.sequence, start)
        else:
            self._answer_chain(hello.sequence)

    def _pump_sender(self) -> None:
        sender, log = self._sender, self._log
        if sender is None or log is None:
            return
        if self.machine.state not in LEADING or not self.machine.peer.streaming:
            self._sender = None
            return
        for append in sender.frames_to(log.end, commit=log.commit, wanted=log.wanted):
            self._send(append)

    def _on_ack(self, frame: Frame) -> None:
        ack, sender = frame.message, self._sender
        assert isinstance(ack, Ack)
        if not self.machine.counts(frame.sender.epoch) or sender is None:
            return
        try:
            known = sender.acknowledge(ack.sequence, ack.chain)
        except LogForked as forked:
            self._port.perform(ev.Page("log_forked", str(forked)))
            self._sender = None
            return
        if known:
            self._step(ev.PeerAck(frame.sender.epoch, frame.sender.incarnation, ack.sequence))

    def _on_hashes(self, frame: Frame) -> None:
        assert isinstance(frame.message, Hashes)
        if self.machine.state in LEADING and frame.sender.epoch == self.machine.epoch:
            for key, value in frame.message.items:
                self._differ(self.hashes.peer(key, value))

    def _compare_hashes(self) -> None:
        """S4: the standby sends what its owners say at the marks of the log, the primary compares."""
        found = self._log.take_hashes() if self._log is not None else []
        if self.machine.state in LEADING:
            for key, value in found:
                self._differ(self.hashes.own(key, value))
        elif found and self._matched and self.machine.accepts(self.machine.epoch):
            self._send(Hashes.of(found))

    def _differ(self, key: int | None) -> None:
        if key is not None:
            self._step(ev.HashesDiffer(key))

    def _on_nack(self, frame: Frame) -> None:
        assert isinstance(frame.message, Nack)
        if self._sender is not None and frame.sender.epoch == self.machine.epoch:
            if not self._sender.rewind(frame.message.sequence):
                self._sender = None  # the standby says hello again
            else:
                self._pump_sender()

    def _send_handover(self) -> None:
        position = self._sender.position_at(self._handover_end) if self._sender is not None else None
        if position is not None:
            self._send(Handover(position.sequence, position.chain))


_ROLES: dict[type[Message], Role] = {
    Append: Role.PRIMARY,
    Chain: Role.PRIMARY,
    Handover: Role.PRIMARY,
    Hello: Role.STANDBY,
    Ack: Role.STANDBY,
    Nack: Role.STANDBY,
    Probe: Role.STANDBY,
}
