"""Becoming a leader: who may ask for the next epoch, in which order it is asked for, and how one stops asking."""

from __future__ import annotations

from replicator import events as ev
from replicator.events import ALONE, ClusterView, Core, Leader, Outcome, State
from replicator.machine import Bid, Ground, Machine
from replicator.protocol import Role

HOUR_S = 3600


class Bidding(Machine):
    """Rules F1, F2, F10, F11, F13."""

    # --- deciding what to become --------------------------------------------------------------------------------------

    def _verify_view(self, view: ClusterView) -> None:
        leader = view.leader
        if self._truncating:
            return
        if leader is None:
            self._consider_bootstrap(view)
        elif self._is_mine(leader, self.promised) and self.epoch < self.promised:
            self._won(leader.epoch, view)  # a request that we had given up for lost
        elif leader.epoch < self.promised:
            self._give_up()
        elif leader.node == self.config.node:
            self._consider_holding(view, leader)
        elif self._ordered is ev.Order.PROMOTE:
            self._ordered = None
            floor = view.floor.sequence if view.floor is not None else "unknown"
            self._page("promotion_forced", f"commit was at {floor} or above, this node's log ends at {self._log.end}")
            self._start_bid(view, "forced", automatic=False)
        elif self._eligible(view) and self._primary_silent() and self._may_promote(leader):
            self._start_bid(view, "member", automatic=True)

    def _eligible(self, view: ClusterView) -> bool:
        """F2: this very incarnation (F6) is in the in-sync set of the leader it follows."""
        return self._member(self.me, view) and view.leader is not None and view.leader.epoch == self.epoch

    def _may_promote(self, leader: Leader) -> bool:
        if not self._electable.electable or not self.peer.alike:
            reason = self._electable.reason if self.peer.alike else "it has another schema or seal key"
            self._page("not_electable", f"the primary is lost and this node must not lead: {reason}")
            return False
        recent = [at for at in leader.failovers if self._wall_s - at < HOUR_S]
        gap = self._wall_s - max(recent) if recent else HOUR_S
        if len(recent) >= self.config.failovers_per_hour or gap < self.config.failover_gap_s:
            text = f"{len(recent)} failovers within an hour, the last {gap} s ago: promote by hand"
            self._page("failover_damped", text)
            return False
        return True

    def _consider_holding(self, view: ClusterView, leader: Leader) -> None:
        """We led last: our disk gated every commit, so our log has them all. But it must be a new epoch (F13)."""
        if self.promised < leader.epoch:
            self._halt(f"this node led epoch {leader.epoch}, says the arbiter, but its disk knows only {self.promised}")
            return
        if view.floor is not None and view.floor.sequence > self._log.end:
            # J5: the end of the journal is gone, whatever the journal itself says.
            self._halt(f"everything below {view.floor.sequence} was committed, this node's log ends at {self._log.end}")
            return
        others = {member for member in view.members if member[0] != self.config.node}
        if others and self._now - self._verify_since < 2 * self.config.primary_lost_ms:
            return  # a standby in sync is hot and takes over faster than we recover
        self._start_bid(view, "holder", automatic=False)

    def _consider_bootstrap(self, view: ClusterView) -> None:
        first = self.empty and self.peer.empty and self.peer.role is Role.NONE and self.config.node < self.config.peer
        if first or self._ordered is ev.Order.BOOTSTRAP:
            self._ordered = None
            self._start_bid(view, "bootstrap", automatic=False)
        elif not self.empty:
            text = (
                "the arbiter knows no leader, but this node has a log: the arbiter's data was lost, or it is another "
                "one. Compare the logs of both nodes, then bootstrap from the longer one by hand"
            )
            self._page("no_leader_known", text)

    # --- a bid for the next epoch -------------------------------------------------------------------------------------

    def _start_bid(self, view: ClusterView, ground: Ground, *, automatic: bool) -> None:
        """F1: promise the next epoch. From here on nothing of a lower one is acknowledged, on this host by nobody."""
        known = view.leader.epoch if view.leader is not None else max(self.epoch, self.promised)
        self._bid = Bid(known + 1, view, ground, automatic, self._now)
        self.promised = known + 1
        self._persist()
        self._enter(State.CANDIDATE)
        if self.core is Core.DOWN:
            self._start_core(view.floor.sequence if view.floor is not None else 0)

    def _advance_bid(self) -> None:
        """Ask the arbiter once the promise (F1) and the whole log (F10) are on disk."""
        bid = self._bid
        if bid is None or bid.sent or self.state is not State.CANDIDATE or self._operation is not None:
            return
        if not self._still_grounded(bid, bid.view):
            self._give_up()  # we are not the member any more that the view names (F6)
        elif self._promise_on_disk(bid.target) and self._whole_log_durable():
            self._ask(bid)

    def _whole_log_durable(self) -> bool:
        known = self._log_known and self.core in (Core.LOG, Core.FOLLOWING)
        return known and self._log.durable == self._log.end

    def _ask(self, bid: Bid) -> None:
        """F2: one transaction names the leader and makes it the only member."""
        view = bid.view
        failovers = view.leader.failovers if view.leader is not None else ()
        if bid.automatic:
            failovers = (*(at for at in failovers if self._wall_s - at < HOUR_S), self._wall_s)
        leader = Leader(bid.target, self.config.node, self.incarnation, failovers)
        revisions = (view.leader_revision, view.members_revision, view.nonce_revision)
        bid.sent = True
        self._out.append(ev.Cas(self._begin("bid"), *revisions, leader, frozenset({self.me})))

    def _bid_answered(self, event: ev.CasDone) -> None:
        bid = self._bid
        if bid is None or self.state is not State.CANDIDATE:
            return
        if event.view is None or event.outcome is Outcome.UNKNOWN:
            self._asked_at = self._now
            self._read("bid_readback")
        elif event.outcome is Outcome.WON:
            self._won(bid.target, event.view)
        else:
            self._judge_bid(event.view)

    def _retry_bid(self) -> None:
        """Time has passed: look again at what became of a request without an answer, or see that it is pointless."""
        bid = self._bid
        if bid is None or self._operation is not None:
            return
        if not bid.sent and self._primary_is_back(bid):
            self._give_up()
        elif bid.sent and self._due(self._asked_at):
            self._asked_at = self._now
            self._read("bid_readback")
        else:
            self._advance_bid()

    def _judge_bid(self, view: ClusterView) -> None:
        """The arbiter's state after a bid that did not plainly win: won after all, pointless now, or to be repeated."""
        bid = self._bid
        if bid is None:
            return
        if self._is_mine(view.leader, bid.target):
            self._won(bid.target, view)
        elif not self._still_grounded(bid, view) or self._primary_is_back(bid):
            self._give_up()
        else:
            bid.view, bid.sent = view, False
            self._advance_bid()

    def _still_grounded(self, bid: Bid, view: ClusterView) -> bool:
        if bid.ground == "bootstrap":
            return view.leader is None
        if view.leader is None or view.leader.epoch != bid.target - 1:
            return False
        if bid.ground == "member":
            return self._member(self.me, view)
        return bid.ground == "forced" or view.leader.node == self.config.node

    def _primary_is_back(self, bid: Bid) -> bool:
        patience = 4 * self.config.handover_ms if bid.planned else 0
        return bid.ground == "member" and self._primary_heard > bid.began + patience

    def _give_up(self) -> None:
        """F11: first make what may still be under way worthless, then see who leads, only then promise less."""
        self._bid = None
        self._unpromising = True
        self._enter(State.VERIFY)
        self._verify_since = self._asked_at = self._now
        self._out.append(ev.BumpNonce(self._begin("nonce")))

    def _nonce_answered(self, *, done: bool) -> None:
        if done:
            self._read("unpromise")
        # Else the next tick begins again.

    def _unpromise(self, view: ClusterView) -> None:
        self._unpromising = False
        if self._is_mine(view.leader, self.promised) and self.epoch < self.promised:
            self._won(self.promised, view)
            return
        self.promised = max(self.epoch, view.leader.epoch if view.leader is not None else 0)
        self._persist()

    def _won(self, epoch: int, view: ClusterView) -> None:
        self._bid = None
        self.view = view
        self.epoch = self.promised = epoch
        self._unpromising = self._stepped_down = False
        self._persist()
        self._enter(State.ACTIVATING)
        self._join_goal = self._join_revision = None
        self._handover = None
        self.peer.streaming = False
        self._gate_from_the_start(view)
        self._page("promoted", f"this node leads epoch {epoch}")
        if self.core is Core.FOLLOWING:
            self._out.append(ev.Activate(epoch))
        elif self.core is Core.DOWN:
            self._start_core(self._log.commit)

    def _gate_from_the_start(self, view: ClusterView) -> None:
        """Whoever is a member besides us, commit waits for it: the gated set includes the in-sync set, always (F5)."""
        others = [incarnation for node, incarnation in view.members if node != self.config.node]
        self.gating = bool(others)
        self.peer.acked = -1
        if others:
            self.peer.incarnation = max(self.peer.incarnation, *others)
            self.peer.acked = self._log.commit
            self.peer.heard = self.peer.progress = self._now
        self._store_gate()

    def _store_gate(self) -> None:
        self._out.append(ev.SetReplicated(self.peer.acked if self.gating else ALONE))
