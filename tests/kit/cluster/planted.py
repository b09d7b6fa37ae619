"""One rule broken at a time, for the simulation to find."""

from __future__ import annotations

from replicator import events as ev
from replicator.events import ALONE, ClusterView, Core, Leader, State
from replicator.failover import Failover
from replicator.machine import FOLLOWING, Bid
from replicator.primary import LogSender
from replicator.protocol import Ack, Append, Frame, Sender, encode
from replicator.replica import Replica
from replicator.standby import LogReceiver, Verdict
from tests.kit.cluster.node import Faults


class UntoldReceiver(Replica):
    """F1: a receiver that was not told of the promise goes on acknowledging the old leader."""

    def _on_append(self, frame: Frame) -> None:
        append, machine = frame.message, self.machine
        assert isinstance(append, Append)
        if frame.sender.epoch < machine.promised:
            who = Sender(self._config.cluster, self._config.node, machine.incarnation, frame.sender.epoch)
            self._port.send(encode(who, Ack(append.end, append.chain_after, 0)))
        super()._on_append(frame)


class AnybodyPromotes(Failover):
    """F2: who is not in the in-sync set promotes, too."""

    def _eligible(self, view: ClusterView) -> bool:
        return True

    def _still_grounded(self, bid: Bid, view: ClusterView) -> bool:
        follows = view.leader is not None and view.leader.epoch == bid.target - 1
        return follows if bid.ground == "member" else super()._still_grounded(bid, view)


class SoloWithoutAsking(Failover):
    """F3: a silent standby is left behind before the arbiter has agreed."""

    def _lose_standby(self) -> None:
        super()._lose_standby()
        self._out.append(ev.SetReplicated(ALONE))


class AnyAckCounts(Failover):
    """F4, first half."""

    def counts(self, epoch: int) -> bool:
        return True


class BlindSender(LogSender):
    def acknowledge(self, sequence: int, chain: int) -> bool:
        if not self._acked <= sequence <= self.next_sequence:
            return False
        self._acked = sequence
        return True


class BlindReplica(Replica):
    """F4, second half: neither the epoch nor the chain of an acknowledgement is looked at."""

    SENDER = BlindSender


class MemberBeforeGate(Failover):
    """F5: membership first; commit begins to wait only when the arbiter's answer is there."""

    def _join(self) -> None:
        peer = self.peer
        if (
            self.gating
            or self.state is not State.PRIMARY
            or not peer.streaming
            or peer.acked < 0
            or self._standby_useless()
        ):
            return
        if self._operation is None and not self._member(self._peer_member) and self._log.end - peer.acked < 64:
            self._cas("join", frozenset({self.me, self._peer_member}))

    def _primary_answered(self, purpose: str, event: ev.CasDone) -> None:
        super()._primary_answered(purpose, event)
        if purpose == "join" and self.in_sync is False and self._member(self._peer_member):
            self.gating = True
            self._out.append(ev.SetReplicated(max(0, self.peer.acked)))


class SameIncarnation(Failover):
    """F6: a restart is not a new member."""

    def _new_incarnation(self) -> None:
        self.incarnation = 1
        self._persist()


class Unfenced(Failover):
    """F9: a deposed leader does not stop."""

    def _fence(self, reason: str) -> None:
        pass


class PromoteUnsynced(Failover):
    """F10: the log need not be durable before the promotion."""

    def _whole_log_durable(self) -> bool:
        return self._log_known and self.core in (Core.LOG, Core.FOLLOWING)


class ForgottenRequest(Failover):
    """F11: a promise is taken back while the request for it may still be under way."""

    def _give_up(self) -> None:
        self._bid = None
        self._operation = None
        self.promised = self.epoch
        self._persist()
        self._enter_verify()


class ResumesEpoch(Failover):
    """F13: a restarted leader goes on where it was."""

    def _consider_holding(self, view: ClusterView, leader: Leader) -> None:
        self._won(leader.epoch, view)


class TrustingReceiver(LogReceiver):
    """Z3: appends what comes, whatever it continues."""

    def _append(self, frame: Append) -> Verdict:
        if frame.end <= self._position.sequence:
            return Verdict.DUPLICATE
        missing = frame.end - self._position.sequence
        records = frame.records[-128 * missing :]
        if not self._sink.append(records, frame.wanted):
            return Verdict.GAP
        end = self._position.sequence + len(records) // 128
        self._position = self._position._replace(sequence=end, chain=frame.chain_after)
        self._ends.append(self._position)
        return Verdict.APPENDED


class TrustingReplica(Replica):
    RECEIVER = TrustingReceiver


class Careless(Failover):
    """F9 and the fork rule: follows without looking where the logs part."""

    def _on_fork(self, event: ev.LogForkFound) -> None:
        if self.state in FOLLOWING:
            self._on_matched(ev.LogMatched(event.epoch, event.common))


# Rule -> (durability mode in which it matters, what is planted, scenario that brings it out).
PLANTED: dict[str, tuple[str, Faults, str]] = {
    "F1": ("D2", Faults(replica=UntoldReceiver), "deaf_standby"),
    "F2": ("D2", Faults(machine=AnybodyPromotes), ""),
    "F3": ("D2", Faults(machine=SoloWithoutAsking), "partition"),
    "F4": ("D2", Faults(machine=AnyAckCounts, replica=BlindReplica), "stale_acks"),
    "F5": ("D2", Faults(machine=MemberBeforeGate), "unheard_join"),
    "F6": ("D2m", Faults(machine=SameIncarnation), "forgetful_standby"),
    "F8": ("D2", Faults(release_published=True), ""),
    "F9": ("D2", Faults(machine=Unfenced), ""),
    "F10": ("D2m", Faults(machine=PromoteUnsynced), "unsynced_candidate"),
    "F11": ("D2m", Faults(machine=ForgottenRequest), "late_request"),
    "F12": ("D2", Faults(downstream_unguarded=True), ""),
    "F13": ("D2", Faults(machine=ResumesEpoch), ""),
    "Z3": ("D2", Faults(replica=TrustingReplica), ""),
    "Z5": ("D2", Faults(machine=Careless), ""),
    "R6": ("D2", Faults(cursor_before_publish=True), "sequencer_restarts"),
    "R7": ("D2", Faults(publish_again=True), ""),
}
