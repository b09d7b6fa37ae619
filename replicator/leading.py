"""Being the leader: for whom commit waits, who is in the in-sync set, switchover, and the end of it."""

from __future__ import annotations

from replicator import events as ev
from replicator.events import ALONE, ClusterView, Core, Outcome, State
from replicator.machine import FOLLOWING, LEADING, NEVER, Handover, Machine


class Leading(Machine):
    """Rules F3, F4, F5, F9."""

    # --- the standby's acknowledgements -------------------------------------------------------------------------------

    def _on_ack(self, event: ev.PeerAck) -> None:
        """F4: only what was acknowledged to this epoch counts, and only by the standby's present incarnation (F6)."""
        peer = self.peer
        if self.state not in LEADING or not self.counts(event.epoch) or event.incarnation != peer.incarnation:
            return
        if event.sequence > peer.acked:
            peer.acked, peer.progress = event.sequence, self._now
            if self.gating:
                self._out.append(ev.SetReplicated(peer.acked))
        self._advance_handover()
        self._join()

    def _on_stream(self, event: ev.StreamStarted) -> None:
        if self.state in LEADING and event.incarnation == self.peer.incarnation:
            self.peer.streaming = True
            self.peer.progress = self._now

    # --- time ---------------------------------------------------------------------------------------------------------

    def _tick_primary(self) -> None:
        if self.peer.acked >= self._log.end:
            self.peer.progress = self._now
        self._tick_handover()
        if self._operation is not None:
            return
        if self._readback:
            if self._due(self._asked_at):
                self._asked_at = self._now
                self._read("readback")
        elif self.gating and self._standby_useless():
            self._lose_standby()
        elif self._now - self._floor_at >= self.config.floor_ms:
            self._floor_at = self._now
            self._persist()
            self._cas("floor", None)
        else:
            self._join()

    def _standby_useless(self) -> bool:
        """Silent, alive but acknowledging nothing, or of another opinion about the state."""
        stalled = self._now - self.peer.progress > self.config.standby_stalled_ms
        return self._standby_silent() or stalled or self._excluded == self.peer.incarnation

    def _cas(self, purpose: str, members: frozenset[tuple[int, int]] | None) -> None:
        view = self.view
        if view is not None:
            revisions = (view.leader_revision, view.members_revision, None)
            self._out.append(ev.Cas(self._begin(purpose), *revisions, None, members))

    # --- members ------------------------------------------------------------------------------------------------------

    def _lose_standby(self) -> None:
        """F3: leave the standby behind only after the arbiter has agreed."""
        if self.config.on_standby_loss == "halt" and self._excluded != self.peer.incarnation:
            self._page("standby_lost", "commit waits for the standby (on_standby_loss = halt)")
            return
        self._page("standby_lost", "the standby does not answer: going on alone")
        self._cas("solo", frozenset({self.me}))

    def _join(self) -> None:
        """F5: commit waits for the standby first, then it has everything, then it becomes a member."""
        peer = self.peer
        if self.config.mode == "D1a" or self.state is not State.PRIMARY or not peer.streaming or peer.acked < 0:
            return
        if self._standby_useless() or not peer.alike or self._member(self._peer_member):
            return
        if not self.gating:
            if self._log.end - peer.acked > self.config.join_lag_slots:
                return
            self.gating = True
            self._out.append(ev.SetReplicated(peer.acked))
        if self._join_goal is None:
            self._join_goal = self._log.end
        if peer.acked >= self._join_goal and self._operation is None and not self._readback and self.view is not None:
            self._join_revision = self.view.members_revision
            self._cas("join", frozenset({self.me, self._peer_member}))

    def _primary_answered(self, purpose: str, event: ev.CasDone) -> None:
        if event.view is None or event.outcome is Outcome.UNKNOWN:
            self._page("arbiter_lost", "the arbiter does not answer: the in-sync set stays as it is")
            self._readback = True
            self._asked_at = self._now
            return
        self._paged.discard("arbiter_lost")
        self._learn(event.view)
        if purpose == "join" and event.outcome is Outcome.WON and self.state in LEADING:
            self._page("standby_joined", f"node {self.config.peer} is in the in-sync set")
            self._out.append(ev.CancelOnly(False))

    def _learn(self, view: ClusterView) -> None:
        """A linearizable look at the arbiter while leading."""
        self._readback = False
        if view.leader is None:
            # Nobody can promote without a leader to follow: an arbiter that lost its data is one that does not answer.
            self._page("no_leader_known", "the arbiter has lost its data: bootstrap it again by hand")
            return
        self.view = view
        if not self._is_mine(view.leader, self.epoch):
            self._fence(f"the arbiter names node {view.leader.node} as leader of epoch {view.leader.epoch}")
        elif view.members == frozenset({self.me}):
            self._ungate(view)
        else:
            self._join_goal = None

    def _ungate(self, view: ClusterView) -> None:
        """We are the only member. Commit need not wait if no request of ours can still add another one (F3, F5)."""
        joining = self.peer.streaming and not self._standby_useless()
        if not self.gating or joining or view.members_revision == self._join_revision:
            return
        self.gating = False
        self._join_goal = None
        self.peer.streaming, self.peer.acked = False, -1
        self._out.append(ev.SetReplicated(ALONE))
        self._page("solo", "commit waits for this node's disk alone: a second failure may lose records")
        if self.config.on_standby_loss == "cancel_only":
            self._out.append(ev.CancelOnly(True))

    # --- switchover ---------------------------------------------------------------------------------------------------

    def _switch_over(self) -> None:
        ready = (
            self.state is State.PRIMARY
            and self.in_sync
            and self.peer.hot
            and self.peer.alike
            and not self._standby_useless()
        )
        if ready and self._handover is None:
            self._handover = Handover(self._now + self.config.handover_ms)
            self._out.append(ev.HoldIntake(True))
        else:
            self._page("switchover_refused", "a switchover needs a primary with a hot standby in sync")
            self._paged.discard("switchover_refused")

    def _on_held(self, event: ev.IntakeHeld) -> None:
        if self._handover is not None and self.state is State.PRIMARY:
            self._handover.end = event.end
            self._advance_handover()

    def _advance_handover(self) -> None:
        handover = self._handover
        if handover is None or handover.end is None or handover.sent or not self.in_sync:
            return
        if self._log.commit >= handover.end:
            # On our disk and on the standby's: it can promote without asking for anything more.
            handover.sent = True
            self._out.append(ev.SendHandover(handover.end))

    def _tick_handover(self) -> None:
        """Whatever the standby still makes of it: commit waits for its acknowledgement, so going on is safe."""
        if self._handover is None or self._now <= self._handover.deadline:
            return
        self._handover = None
        self._out.append(ev.HoldIntake(False))
        self._page("switchover_failed", "the standby did not take over in time; intake goes on")
        if self._disk_slow and self.in_sync:
            self._core_failed()  # our disk will not get that far: what the standby has is enough

    def _on_disk_slow(self, event: ev.DiskSlow) -> None:
        """J8: a disk that fails slowly is a failure: hand over while it can be done in order."""
        before, self._disk_slow = self._disk_slow, event.slow
        if event.slow and not before and self.state is State.PRIMARY:
            self._page("disk_slow", "the disk answers far too slowly: handing over to the standby")
            self._switch_over()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _fence(self, reason: str) -> None:
        """F9: this node does not lead any more. Its core is killed, never repaired in place."""
        self._page("fenced", f"{reason}: this node stops leading epoch {self.epoch}")
        self._stop_leading()
        self._stop_core(reason)

    def _stop_leading(self) -> None:
        self._enter(State.FENCED)
        self._bid = self._handover = None
        self._operation = None
        self._readback = self._followed = False
        self.gating = False
        self.peer.streaming, self.peer.acked = False, -1
        self._primary_heard = self._now
        self._floor_at = NEVER

    def _core_failed(self) -> None:
        """A dead core in sync: say so, and the standby promotes at once. Alone: recover, as a new epoch."""
        if self.state in LEADING:
            if self.in_sync:
                self._out.append(ev.SendStepDown())
            self._stop_leading()
            self._page("core_failed", "sequencer or journaler is dead or stuck: this node stops leading")
        self._stop_core("a process of the core died")

    def _stop_core(self, reason: str) -> None:
        if self.core is Core.DOWN:
            self._core_is_down()
        else:
            self._out.append(ev.StopCore(reason))

    def _core_is_down(self) -> None:
        """The core has been stopped: go on with what it was stopped for."""
        self._followed = False
        if self.config.mode == "D2m":
            # F6: what was acknowledged from memory may be gone with the ring, as after a reboot.
            self._new_incarnation()
        if self.state is State.FENCED:
            self._enter_verify()
        elif self.state in FOLLOWING and self._fork_at is not None:
            self._truncating = True
            self._out.append(ev.TruncateLog(self._fork_at))
            self._fork_at = None
        elif self.state in FOLLOWING:
            self._follow_if_ready()
        elif self.state is State.CANDIDATE or self.state in LEADING:
            self._start_core(self._log.commit)

    def _follow_if_ready(self) -> None:
        """Once the epoch is on disk (F13), find out where to go on."""
        settled = self.core in (Core.DOWN, Core.LOG, Core.FOLLOWING)
        if self._truncating or self._fork_at is not None or not settled:
            return
        if self.state in FOLLOWING and not self._followed and self._promise_on_disk(self.epoch):
            self._followed = True
            self._out.append(ev.Follow(self.epoch))
