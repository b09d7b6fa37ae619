"""What an operator chooses and sees of the failover state machine; what is safe is shown by model and simulation."""

from dataclasses import replace
from typing import Any

import pytest

from replicator import events as ev
from replicator.config import FailoverConfig
from replicator.events import ALONE, ClusterView, Core, Leader, Order, Outcome, Record, State
from replicator.failover import Failover
from replicator.protocol import Role

ME, PEER = 1, 2
STEP_MS = 10


class Node:
    """A machine whose disk, core and arbiter answer at once; what it did besides is in `out`."""

    def __init__(self, **changes: Any) -> None:
        settings: dict[str, Any] = {"cluster": 1, "node": ME, "peer": PEER, "mode": "D2"}
        self.machine = Failover(FailoverConfig(**(settings | changes)))
        self.view = ClusterView(None, 0, frozenset(), 0, 0)
        self.arbiter_answers = True
        self.now = 0
        self.out: list[ev.Action] = []

    def send(self, event: ev.Event) -> None:
        events = [event]
        while events:
            for action in self.machine.step(events.pop(0), self.now):
                self.out.append(action)
                events += self._answers(action)

    def pass_time(self, ms: int) -> None:
        for _ in range(ms // STEP_MS):
            self.now += STEP_MS
            self.send(ev.Tick(self.now // 1000))

    def took(self, kind: type) -> list[Any]:
        """Return what it did of one kind since the last call, and forget all."""
        found, self.out = [action for action in self.out if isinstance(action, kind)], []
        return found

    def pages(self) -> list[str]:
        return [page.event for page in self.took(ev.Page)]

    def _answers(self, action: ev.Action) -> list[ev.Event]:
        match action:
            case ev.Persist(record):
                return [ev.Persisted(record)]
            case ev.ReadCluster(request):
                return [ev.ClusterRead(request, self.view if self.arbiter_answers else None)]
            case ev.BumpNonce(request):
                return [ev.NonceBumped(request, self.arbiter_answers)]
            case ev.Cas():
                return [self._decide(action)]
            case ev.StartCore():
                return [ev.CoreChanged(Core.LOG), ev.LogAdvanced(0, 0, 0), ev.CoreChanged(Core.FOLLOWING)]
            case ev.Activate(epoch):
                return [ev.CoreChanged(Core.LEADING, epoch)]
            case ev.StopCore():
                return [ev.CoreChanged(Core.DOWN)]
            case _:
                return []

    def _decide(self, cas: ev.Cas) -> ev.CasDone:
        if not self.arbiter_answers:
            return ev.CasDone(cas.request, Outcome.UNKNOWN)
        view = self.view
        if (cas.leader_revision, cas.members_revision) != (view.leader_revision, view.members_revision):
            return ev.CasDone(cas.request, Outcome.LOST, view)
        if cas.leader is not None:
            view = replace(view, leader=cas.leader, leader_revision=view.leader_revision + 1)
        if cas.members is not None:
            view = replace(view, members=cas.members, members_revision=view.members_revision + 1)
        self.view = view
        return ev.CasDone(cas.request, Outcome.WON, view)


def heard(node: Node, *, role: Role = Role.STANDBY, hot: bool = True, **changes: Any) -> None:
    facts: dict[str, Any] = {"epoch": 1, "incarnation": 1, "role": role, "hot": hot}
    node.send(ev.PeerHeard(**(facts | changes)))


def leader(**changes: Any) -> Node:
    """A primary of epoch 1, alone."""
    node = Node(**changes)
    node.send(ev.Started(Record(), 0, 0))
    node.send(ev.PeerHeard(0, 1, Role.NONE, empty=True))
    node.pass_time(500)
    assert (node.machine.state, node.machine.epoch) == (State.PRIMARY, 1)
    return node


def pair(**changes: Any) -> Node:
    """A primary of epoch 1 with a standby in sync."""
    node = leader(**changes)
    heard(node)
    node.send(ev.StreamStarted(1))
    node.send(ev.PeerAck(1, 1, 0))
    node.pass_time(50)
    assert node.machine.in_sync
    node.took(ev.Action)  # type: ignore[arg-type]
    return node


def follower(members: frozenset[tuple[int, int]] | None = None, **changes: Any) -> Node:
    """A standby of node 2's epoch 1, in sync unless `members` says otherwise."""
    node = Node(**changes)
    node.send(ev.Started(Record(incarnation=0, epoch=0, promised=0), 0, 0))
    both = frozenset({(ME, node.machine.incarnation), (PEER, 1)})
    node.view = ClusterView(Leader(1, PEER, 1), 1, both if members is None else members, 1, 0)
    heard(node, role=Role.PRIMARY, caught_up=True)
    node.send(ev.LogMatched(1, 0))
    node.pass_time(500)
    heard(node, role=Role.PRIMARY, caught_up=True)
    assert node.machine.state is State.STANDBY
    node.took(ev.Action)  # type: ignore[arg-type]
    return node


# --- without a standby ------------------------------------------------------------------------------------------------


def test_a_lost_standby_leaves_the_primary_alone_after_its_time_and_not_before() -> None:
    node = pair()

    node.pass_time(240)  # 50 have passed since it was heard
    assert node.machine.gating
    node.pass_time(50)

    assert not node.machine.gating
    assert [each.sequence for each in node.out if isinstance(each, ev.SetReplicated)] == [ALONE]
    assert node.view.members == {(ME, node.machine.incarnation)}
    assert node.pages() == ["standby_lost", "solo"]


def test_cancel_only_takes_nothing_new_until_the_standby_is_back() -> None:
    node = pair(on_standby_loss="cancel_only")
    node.pass_time(400)
    assert [each.on for each in node.took(ev.CancelOnly)] == [True]

    heard(node)
    node.send(ev.StreamStarted(1))
    node.send(ev.PeerAck(1, 1, 0))
    node.pass_time(50)

    assert node.machine.in_sync
    assert [each.on for each in node.took(ev.CancelOnly)] == [False]


def test_halt_acknowledges_nothing_until_the_standby_is_back() -> None:
    node = pair(on_standby_loss="halt")

    node.pass_time(5000)

    assert node.machine.gating
    assert node.took(ev.SetReplicated) == []
    assert node.view.members == {(ME, node.machine.incarnation), (PEER, 1)}


def test_a_standby_that_lives_and_acknowledges_nothing_is_lost_too() -> None:
    node = pair()
    node.send(ev.LogAdvanced(10, 10, 0))

    for _ in range(13):
        heard(node)
        node.pass_time(100)

    assert not node.machine.gating


def test_without_the_arbiter_a_lost_standby_stops_all_answers() -> None:
    node = pair()
    node.arbiter_answers = False

    node.pass_time(3000)

    assert node.machine.gating
    assert "arbiter_lost" in node.pages()
    node.arbiter_answers = True
    node.pass_time(1000)
    assert not node.machine.gating


def test_without_the_arbiter_a_pair_goes_on() -> None:
    node = pair()
    node.arbiter_answers = False

    for _ in range(50):
        heard(node)
        node.send(ev.PeerAck(1, 1, 0))
        node.pass_time(100)

    assert node.machine.in_sync
    assert node.machine.state is State.PRIMARY


def test_in_d1a_commit_never_waits_for_the_standby() -> None:
    node = leader(mode="D1a")
    heard(node)
    node.send(ev.StreamStarted(1))
    node.send(ev.PeerAck(1, 1, 0))

    node.pass_time(1000)

    assert not node.machine.gating
    assert node.view.members == {(ME, node.machine.incarnation)}


# --- taking over ------------------------------------------------------------------------------------------------------


def test_a_standby_takes_over_after_its_patience_and_not_before() -> None:
    node = follower()

    node.pass_time(590)
    assert node.machine.state is State.STANDBY
    node.pass_time(150)

    assert (node.machine.state, node.machine.epoch) == (State.PRIMARY, 2)
    assert node.view.leader is not None
    assert (node.view.leader.node, node.view.members) == (ME, {(ME, node.machine.incarnation)})


def test_a_standby_that_is_told_takes_over_at_once() -> None:
    node = follower()

    node.send(ev.PeerSteppedDown(1))
    node.pass_time(50)

    assert node.machine.state is State.PRIMARY


def test_who_is_not_in_sync_does_not_lead_until_a_person_says_so() -> None:
    node = follower(members=frozenset({(PEER, 1)}))
    node.pass_time(5000)
    assert node.machine.epoch == 1

    node.send(ev.Ordered(Order.PROMOTE))
    node.pass_time(200)

    assert (node.machine.state, node.machine.epoch) == (State.PRIMARY, 2)
    assert "promotion_forced" in node.pages()


def test_a_node_that_is_not_fit_does_not_lead() -> None:
    node = follower()
    node.send(ev.Electable(False, "its clock is wrong"))

    node.pass_time(3000)

    assert node.machine.epoch == 1
    assert node.pages() == ["not_fit_to_lead", "not_electable"]
    node.send(ev.Electable(True))
    node.pass_time(500)
    assert node.machine.state is State.PRIMARY


@pytest.mark.parametrize(
    ("ages_s", "leads"),
    [((10,), False), ((29,), False), ((31,), True), ((100, 200, 300), False), ((100, 200, 3601), True)],
)
def test_failovers_are_damped(ages_s: tuple[int, ...], leads: bool) -> None:
    node = follower(failover_gap_s=30, failovers_per_hour=3)
    wall_s = 1_000_000
    recent = tuple(wall_s - age for age in ages_s)
    node.view = replace(node.view, leader=Leader(1, PEER, 1, recent))

    for _ in range(100):
        node.now += STEP_MS
        node.send(ev.Tick(wall_s))

    assert (node.machine.state is State.PRIMARY) == leads
    assert ("failover_damped" in node.pages()) == (not leads)


def test_states_that_differ_halt_the_standby_and_leave_the_primary_alone() -> None:
    standby, primary = follower(), pair()

    standby.send(ev.HashesDiffer(7 << 16))
    primary.send(ev.HashesDiffer(7 << 16))
    heard(primary)
    primary.pass_time(50)

    assert standby.machine.state is State.HALTED
    assert (primary.machine.state, primary.machine.gating) == (State.PRIMARY, False)
    heard(primary)
    primary.send(ev.StreamStarted(1))
    primary.send(ev.PeerAck(1, 1, 0))
    primary.pass_time(50)
    assert not primary.machine.gating, "the same incarnation is not let in again"


# --- handing over -----------------------------------------------------------------------------------------------------


def test_a_switchover_holds_the_intake_and_hands_over_what_is_committed() -> None:
    node = pair()
    node.send(ev.LogAdvanced(5, 5, 3))
    node.send(ev.Ordered(Order.SWITCHOVER))
    assert [each.held for each in node.took(ev.HoldIntake)] == [True]

    node.send(ev.IntakeHeld(5))
    assert node.took(ev.SendHandover) == []
    node.send(ev.PeerAck(1, 1, 5))
    node.send(ev.LogAdvanced(5, 5, 5))
    node.send(ev.PeerAck(1, 1, 5))

    assert [each.sequence for each in node.took(ev.SendHandover)] == [5]


def test_a_switchover_that_nobody_takes_ends_in_time() -> None:
    node = pair()
    node.send(ev.Ordered(Order.SWITCHOVER))
    node.send(ev.IntakeHeld(0))

    for _ in range(30):
        heard(node)
        node.pass_time(10)

    assert [each.held for each in node.out if isinstance(each, ev.HoldIntake)] == [True, False]
    assert "switchover_failed" in node.pages()
    assert node.machine.state is State.PRIMARY


@pytest.mark.parametrize(("hot", "alike"), [(False, True), (True, False)])
def test_a_switchover_to_a_node_that_could_not_lead_is_refused(hot: bool, alike: bool) -> None:
    node = pair()
    heard(node, hot=hot, alike=alike)
    node.took(ev.Page)

    node.send(ev.Ordered(Order.SWITCHOVER))

    assert [each for each in node.out if isinstance(each, ev.HoldIntake)] == []
    assert node.pages() == ["switchover_refused"]


def test_a_slow_disk_hands_over() -> None:
    node = pair()

    node.send(ev.DiskSlow(True))

    assert [each.held for each in node.out if isinstance(each, ev.HoldIntake)] == [True]
    assert node.pages() == ["disk_slow"]


def test_a_dead_core_says_so_when_there_is_a_standby() -> None:
    node = pair()

    node.send(ev.CoreChanged(Core.FAILED))

    assert len(node.took(ev.SendStepDown)) == 1
    assert node.machine.state is not State.PRIMARY


def test_a_leader_that_hears_of_a_newer_epoch_stops_its_core() -> None:
    node = pair()

    heard(node, epoch=2, role=Role.PRIMARY)

    assert node.took(ev.StopCore)
    assert not node.machine.gating or node.machine.state is not State.PRIMARY
