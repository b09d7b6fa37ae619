"""Who leads: the state machine of one node. Events go in, actions come out; it touches nothing and waits for nothing.

The rules of RELIABILITY section 6 and where they are kept:

    F1   Bidding._start_bid, _advance_bid: the promise is on disk before the promotion is asked for; `promised` counts
         from the moment it is made, and `accepts` is what the receiver asks before it takes or acknowledges anything
    F2   Bidding._eligible, _ask: only a member of the in-sync set promotes, and is the only one after it
    F3   Leading._lose_standby, _ungate: commit stops waiting for the standby only after that transaction has won
    F4   Leading._on_ack: an acknowledgement of another epoch does not count
    F5   Leading._join: commit waits for the standby first, then it has everything, then it becomes a member
    F6   members are (node, incarnation); _on_started makes a new incarnation
    F9   Leading._fence, _on_peer: who sees a newer epoch stops its core and follows
    F10  Bidding._advance_bid: the whole log is durable before the promotion is asked for
    F11  Bidding._give_up: the nonce is bumped before a promise is taken back
    F13  Bidding._consider_holding: a restarted leader asks for a new epoch like anybody else

F8 (nothing leaves that is not committed) is the commit cursor's, F12 (downstream refuses lower epochs) the reader's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replicator import events as ev
from replicator.bidding import Bidding
from replicator.config import FailoverConfig
from replicator.divergence import PART_BITS
from replicator.events import Action, Core, State
from replicator.leading import Leading
from replicator.machine import FOLLOWING, LEADING, NEVER
from replicator.protocol import Role


class Failover(Bidding, Leading):
    """One node. `step` takes an event and the monotonic time in ms and returns what is to be done, in order."""

    def __init__(self, config: FailoverConfig) -> None:
        super().__init__(config)
        self._handlers: dict[type, Callable[[Any], None]] = {
            ev.Started: self._on_started,
            ev.Tick: self._on_tick,
            ev.Persisted: self._on_persisted,
            ev.PeerHeard: self._on_peer,
            ev.PeerFenced: self._on_fenced,
            ev.PeerAck: self._on_ack,
            ev.StreamStarted: self._on_stream,
            ev.HandedOver: self._on_handed_over,
            ev.PeerSteppedDown: self._on_peer_stepped_down,
            ev.LogAdvanced: self._on_log,
            ev.LogMatched: self._on_matched,
            ev.LogForkFound: self._on_fork,
            ev.LogTruncated: self._on_truncated,
            ev.CoreChanged: self._on_core,
            ev.IntakeHeld: self._on_held,
            ev.HashesDiffer: self._on_hashes_differ,
            ev.DiskSlow: self._on_disk_slow,
            ev.Electable: self._on_electable,
            ev.ClusterRead: self._on_read,
            ev.CasDone: self._on_cas,
            ev.NonceBumped: self._on_nonce,
            ev.Ordered: self._on_ordered,
        }

    def step(self, event: ev.Event, now_ms: int) -> list[Action]:
        """Take one event. `now_ms` never decreases."""
        self._now = now_ms
        self._out = []
        if self.state is not State.HALTED:
            self._handlers[type(event)](event)
        return self._out

    def accepts(self, epoch: int) -> bool:
        """Whether records of a leader of `epoch` may be appended and acknowledged here (F1, F13, Z3)."""
        if self.state not in FOLLOWING or not epoch == self.epoch == self.promised:
            return False
        # An incarnation that a crash could give out again would be no new member (F6).
        return self._promise_on_disk(epoch) and self._record.incarnation == self.incarnation

    # --- starting and time --------------------------------------------------------------------------------------------

    def _on_started(self, event: ev.Started) -> None:
        self._record = event.record
        self._empty = event.log_end == 0
        self._known_commit = event.record.commit
        self._log = ev.LogAdvanced(event.log_end, event.log_end, self._known_commit)
        self._wall_s = event.wall_s
        self.epoch, self.promised = event.record.epoch, event.record.promised
        self.incarnation = event.record.incarnation
        self._new_incarnation()

    def _on_persisted(self, event: ev.Persisted) -> None:
        self._record = event.record
        self._writing.popleft()
        if self.state is State.INIT:
            self._enter_verify()
        self._follow_if_ready()
        self._advance_bid()

    def _on_tick(self, event: ev.Tick) -> None:
        self._wall_s = event.wall_s
        self._forgive_own_stall()
        if self.state is State.VERIFY:
            self._tick_verify()
        elif self.state in FOLLOWING:
            if self._primary_silent():
                self._enter_verify()
            elif self._now - self._asked_at >= self.config.floor_ms:
                self._asked_at = self._now
                self._persist()
                self._read("view")
        elif self.state is State.CANDIDATE:
            self._retry_bid()
        elif self.state is State.PRIMARY:
            self._tick_primary()

    def _tick_verify(self) -> None:
        if self._operation is None and self._due(self._asked_at):
            if self._unpromising:
                self._give_up()
            else:
                self._asked_at = self._now
                self._read("verify")

    # --- the arbiter's answers ----------------------------------------------------------------------------------------

    def _on_read(self, event: ev.ClusterRead) -> None:
        purpose = self._finish(event.request)
        if purpose is None:
            return
        if event.view is None:
            self._page("arbiter_lost", "the arbiter does not answer: no failover is possible until it does")
            return
        self._paged.discard("arbiter_lost")
        if self.state in LEADING:
            self._learn(event.view)
            return
        self.view = event.view
        if self.state is State.VERIFY and purpose == "unpromise":
            self._unpromise(event.view)
        elif self.state is State.VERIFY and not self._unpromising:
            self._verify_view(event.view)
        elif self.state is State.CANDIDATE:
            self._judge_bid(event.view)

    def _on_cas(self, event: ev.CasDone) -> None:
        purpose = self._finish(event.request)
        if purpose is None:
            return
        if purpose == "bid":
            self._bid_answered(event)
        elif self.state in LEADING:
            self._primary_answered(purpose, event)

    def _on_nonce(self, event: ev.NonceBumped) -> None:
        if self._finish(event.request) is not None and self.state is State.VERIFY:
            self._nonce_answered(done=event.done)

    # --- the peer -----------------------------------------------------------------------------------------------------

    def _on_peer(self, event: ev.PeerHeard) -> None:
        peer = self.peer
        if event.incarnation < peer.incarnation or self.state is State.INIT:
            return  # a frame of an earlier life of the peer
        if event.incarnation > peer.incarnation:
            peer.incarnation, peer.streaming, peer.acked = event.incarnation, False, -1
        peer.epoch, peer.role, peer.heard = event.epoch, event.role, self._now
        peer.hot, peer.empty, peer.alike = event.hot, event.empty, event.alike
        if not peer.alike:
            self._page(
                "nodes_differ", "the other node has another schema or another seal key: neither can replace the other"
            )
        if event.epoch < self.epoch and event.role is Role.PRIMARY:
            self._out.append(ev.SendFenced())
        elif event.epoch > self.epoch and self.state in LEADING:
            self._fence(f"the peer is in epoch {event.epoch}")
        elif event.role is Role.PRIMARY:
            self._hear_primary(event)

    def _hear_primary(self, event: ev.PeerHeard) -> None:
        if event.epoch == self.epoch and self.state in LEADING:
            self._halt(f"two leaders in epoch {self.epoch}")
            return
        if event.epoch == self.epoch:
            self._primary_heard = self._now
        stopping = self.state is State.FENCED or self.core in (Core.LEADING, Core.FAILED)
        if event.epoch < self.promised or stopping:
            return
        if event.epoch > self.epoch or self.state in (State.VERIFY, State.CANDIDATE):
            self._adopt(event.epoch)
        if self.state in FOLLOWING:
            self._enter(State.STANDBY if event.caught_up else State.CATCHUP)

    def _adopt(self, epoch: int) -> None:
        """Follow the leader of `epoch`; nothing is acknowledged to it before that is on disk (F13)."""
        self._followed = self._followed and epoch == self.epoch
        self._bid = None
        self._operation = None
        self._fork_at = None
        self._stepped_down = self._unpromising = False
        self.epoch = self.promised = epoch
        self._primary_heard = self._now
        self._enter(State.CATCHUP)
        last = self._writing[-1] if self._writing else self._record
        if last.epoch != epoch or last.promised != epoch:
            self._persist()
        self._follow_if_ready()

    def _on_matched(self, event: ev.LogMatched) -> None:
        if self.state in FOLLOWING and event.epoch == self.epoch and self.core is Core.DOWN:
            self._start_core(event.commit)

    def _on_fork(self, event: ev.LogForkFound) -> None:
        """Z5: records the leader does not have are cut off, unless they were committed."""
        if self.state not in FOLLOWING or event.epoch != self.epoch or self._truncating:
            return
        if event.common < self._known_commit:
            known = self._known_commit
            self._halt(f"epoch {self.epoch} has other records from {event.common} on; all below {known} was committed")
            return
        self._fork_at = event.common
        self._stop_core("the end of its log is not the leader's")

    def _on_truncated(self, event: ev.LogTruncated) -> None:
        self._truncating = False
        self._log = ev.LogAdvanced(event.end, event.end, self._known_commit)
        self._followed = False
        self._follow_if_ready()

    def _on_handed_over(self, event: ev.HandedOver) -> None:
        """The primary has stopped taking requests and we have its whole log: promote without waiting for anything."""
        here = self.state in FOLLOWING and event.epoch == self.epoch and self._log.end == event.sequence
        if not here or self.core is not Core.FOLLOWING or not self._electable.electable or not self.peer.alike:
            return
        if self.view is None or not self._eligible(self.view):
            self._read("view")  # too old a look; the primary asks again
            return
        self._operation = None
        self._start_bid(self.view, "member", automatic=False)
        assert self._bid is not None
        self._bid.planned = True
        self._advance_bid()

    def _on_peer_stepped_down(self, event: ev.PeerSteppedDown) -> None:
        if self.state in FOLLOWING and event.epoch == self.epoch:
            self._stepped_down = True
            self._enter_verify()

    def _on_fenced(self, event: ev.PeerFenced) -> None:
        if event.epoch > self.epoch and self.state in LEADING:
            self._fence(f"the peer says that there is epoch {event.epoch}")

    def _on_hashes_differ(self, event: ev.HashesDiffer) -> None:
        """S4: who leads does not keep such a standby in the set; who follows must never lead: a person has to look."""
        mark, part = event.key >> PART_BITS, event.key & ((1 << PART_BITS) - 1)
        what = f"the state at hash mark {mark} differs from the other node's ({part or 'accounts'})"
        self._page("diverged", what)
        self._out.append(ev.SendDiverged(event.key))
        if self.state in LEADING:
            self._excluded = self.peer.incarnation
        else:
            self._halt(f"{what}: keep data and logs of both nodes, replay the log from the last good snapshot")

    # --- this node ----------------------------------------------------------------------------------------------------

    def _on_core(self, event: ev.CoreChanged) -> None:
        self.core = event.core
        if event.core is Core.DOWN:
            self._core_is_down()
        elif event.core is Core.FAILED:
            self._core_failed()
        elif event.core is Core.FOLLOWING and self.state is State.ACTIVATING:
            self._store_gate()  # the core that had it may have died since the bid was won
            self._out.append(ev.Activate(self.epoch))
        elif event.core is Core.LEADING and self.state is State.ACTIVATING and event.epoch == self.epoch:
            self._enter(State.PRIMARY)
            self._floor_at = NEVER
        self._follow_if_ready()
        self._advance_bid()

    def _on_log(self, event: ev.LogAdvanced) -> None:
        self._log = event
        self._log_known = True
        self._known_commit = max(self._known_commit, event.commit)
        self._advance_handover()
        if event.end > 0:
            self._empty = False
        self._advance_bid()

    def _on_electable(self, event: ev.Electable) -> None:
        self._electable = event
        if event.electable:
            self._paged.discard("not_fit_to_lead")
        else:
            self._page("not_fit_to_lead", f"this node must not be made the leader: {event.reason}")

    def _on_ordered(self, event: ev.Ordered) -> None:
        if event.order is ev.Order.SWITCHOVER:
            self._switch_over()
            return
        self._ordered = event.order
        if self.state in FOLLOWING and event.order is ev.Order.PROMOTE:
            self._enter_verify()
