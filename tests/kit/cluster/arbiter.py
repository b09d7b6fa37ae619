"""A simulated etcd: linearizable, but its clients may wait in vain, and what they gave up may still happen later."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from replicator import events as ev
from replicator.events import ClusterView, Floor, Leader, Member, Outcome

if TYPE_CHECKING:
    from tests.kit.cluster.world import World

TIMEOUT_MS = 100


class Arbiter:
    """Leader, members, nonces and floor with their revisions."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._revision = 1
        self._leader: Leader | None = None
        self._leader_revision = 0
        self._members: frozenset[Member] = frozenset()
        self._members_revision = 0
        self._nonces = {0: 0, 1: 0}
        self._floor: Floor | None = None
        self.cut_off: set[int] = set()  # nodes that cannot reach it
        self.sticky: set[int] = set()  # nodes whose transactions are under way for a second and more
        self.mute: set[int] = set()  # nodes that do not hear its answers
        self.slow_ms = 0

    def view(self, node: int) -> ClusterView:
        return ClusterView(
            self._leader,
            self._leader_revision,
            self._members,
            self._members_revision,
            self._nonces[node],
            self._floor,
        )

    def ask(self, node: int, action: ev.Action, floor: Floor | None, answer: Callable[[ev.Event], None]) -> None:
        """Send a request; exactly one answer comes, perhaps one that says nothing."""
        open_requests = [True]

        def reply(event: ev.Event) -> None:
            if open_requests.pop() if open_requests else False:
                answer(event)

        world = self._world
        world.after(TIMEOUT_MS, lambda: reply(_no_answer(action)))
        if node in self.sticky and isinstance(action, ev.Cas):
            world.after(world.rng.randint(600, 1500), lambda: self._do(node, action, floor))
            return
        if node in self.cut_off:
            # On its way when the link broke: some requests still get through, late.
            if world.rng.random() < 0.3:
                world.after(world.rng.randint(100, 3000), lambda: self._do(node, action, floor))
            return

        def arrive() -> None:
            event = self._do(node, action, floor)
            back = world.rng.randint(0, 2 + self.slow_ms)
            world.after(back, lambda: None if node in self.cut_off | self.mute else reply(event))

        world.after(world.rng.randint(0, 3 + self.slow_ms), arrive)

    def _do(self, node: int, action: ev.Action, floor: Floor | None) -> ev.Event:
        match action:
            case ev.ReadCluster(request):
                return ev.ClusterRead(request, self.view(node))
            case ev.BumpNonce(request):
                self._revision += 1
                self._nonces[node] = self._revision
                return ev.NonceBumped(request, True)
            case ev.Cas():
                return self._transact(node, action, floor)
        raise AssertionError(f"no request: {action}")

    def _transact(self, node: int, action: ev.Cas, floor: Floor | None) -> ev.Event:
        same = (action.leader_revision, action.members_revision) == (self._leader_revision, self._members_revision)
        nonce = action.nonce_revision is None or action.nonce_revision == self._nonces[node]
        if not (same and nonce):
            return ev.CasDone(action.request, Outcome.LOST, self.view(node))
        self._revision += 1
        if action.leader is not None:
            self._leader, self._leader_revision = action.leader, self._revision
            self._world.note("arbiter: leader", action.leader)
        if action.members is not None:
            self._members, self._members_revision = action.members, self._revision
            self._world.note("arbiter: members", sorted(action.members))
        if floor is not None:
            self._floor = floor
        return ev.CasDone(action.request, Outcome.WON, self.view(node))


def _no_answer(action: ev.Action) -> ev.Event:
    match action:
        case ev.ReadCluster(request):
            return ev.ClusterRead(request, None)
        case ev.BumpNonce(request):
            return ev.NonceBumped(request, False)
        case ev.Cas():
            return ev.CasDone(action.request, Outcome.UNKNOWN)
    raise AssertionError(f"no request: {action}")
