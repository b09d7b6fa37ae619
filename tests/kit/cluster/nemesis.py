"""Trouble, by chance: crashes, stops, partitions, slow disks, a lost arbiter, planned switchovers in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from replicator import events as ev

if TYPE_CHECKING:
    from tests.kit.cluster.node import SimNode
    from tests.kit.cluster.world import World


class Nemesis:
    """Picks a fault, lets it last, picks the next; several may overlap."""

    def __init__(self, world: World, focus: str = "") -> None:
        """`focus` names a scenario that is played half of the time."""
        self._world = world
        self._rng = world.rng
        self._until = 0
        self._focus: Callable[[], None] | None = getattr(self, f"_{focus}") if focus else None
        self._faults: list[Callable[[], None]] = [
            self._crash,
            self._crash,
            self._crash_both,
            self._core_dies,
            self._core_dies,
            self._sequencer_restarts,
            self._pause,
            self._pause,
            self._partition,
            self._partition,
            self._one_way,
            self._no_arbiter,
            self._slow_arbiter,
            self._slow_disk,
            self._bad_link,
            self._switchover,
            self._switchover,
            self._stale_acks,
            self._deaf_standby,
            self._unheard_join,
            self._forgetful_standby,
            self._unsynced_candidate,
            self._late_request,
        ]

    def start(self, until: int) -> None:
        self._until = until
        self._next()

    def heal(self) -> None:
        world = self._world
        world.blocked.clear()
        world.loss = world.duplication = world.late = 0.0
        world.delay_max = 3
        world.arbiter.cut_off.clear()
        world.arbiter.sticky.clear()
        world.arbiter.mute.clear()
        world.arbiter.slow_ms = 0
        for node in world.nodes:
            node.slow_disk_ms = 0
            node.resume()
            if not node.up:
                node.boot()
        world.note("healed")

    def _next(self) -> None:
        if self._world.now < self._until:
            if self._focus is not None and self._rng.random() < 0.5:
                self._focus()
                self._world.after(4000, self._next)
                return
            self._rng.choice(self._faults)()
            self._world.after(self._rng.choice([50, 300, 1000, 2500]), self._next)

    def _node(self) -> SimNode:
        """More often the one that leads: that is where it hurts."""
        leading = [node for node in self._world.nodes if node.leading]
        return leading[0] if leading and self._rng.random() < 0.6 else self._rng.choice(self._world.nodes)

    def _duration(self) -> int:
        return self._rng.choice([20, 100, 400, 800, 1500, 3000])

    def _undo(self, undo: Callable[[], None]) -> None:
        self._world.after(self._duration(), undo)

    def _crash(self, node: SimNode | None = None) -> None:
        target = node if node is not None else self._node()
        target.crash(power=self._rng.random() < 0.5)
        self._undo(lambda: None if target.up else target.boot())

    def _crash_both(self) -> None:
        for node in self._world.nodes:
            self._crash(node)

    def _core_dies(self) -> None:
        self._node().kill_core()

    def _sequencer_restarts(self) -> None:
        node = self._node()
        if node.core is not None and node.up and not node.paused:
            node.core.restart_sequencer()

    def _pause(self) -> None:
        node = self._node()
        node.pause()
        self._undo(node.resume)

    def _partition(self) -> None:
        both = {(0, 1), (1, 0)}
        self._block(both)

    def _one_way(self) -> None:
        self._block({self._rng.choice([(0, 1), (1, 0)])})

    def _block(self, directions: set[tuple[int, int]]) -> None:
        self._world.note("partition", sorted(directions))
        self._world.blocked |= directions

        def undo() -> None:
            self._world.blocked -= directions

        self._undo(undo)

    def _no_arbiter(self) -> None:
        cut = self._rng.choice([{0}, {1}, {0, 1}])
        self._world.note("no arbiter", sorted(cut))
        self._world.arbiter.cut_off |= cut

        def undo() -> None:
            self._world.arbiter.cut_off -= cut

        self._undo(undo)

    def _slow_arbiter(self) -> None:
        self._world.arbiter.slow_ms = self._rng.choice([30, 90, 150])

        def undo() -> None:
            self._world.arbiter.slow_ms = 0

        self._undo(undo)

    def _slow_disk(self) -> None:
        node = self._node()
        node.slow_disk_ms = self._rng.choice([50, 300, 1500])

        def undo() -> None:
            node.slow_disk_ms = 0

        self._undo(undo)

    def _bad_link(self) -> None:
        world = self._world
        world.loss, world.duplication = self._rng.choice([(0.0, 0.3), (0.05, 0.05), (0.3, 0.1)])
        world.delay_max = self._rng.choice([3, 30, 200])

        def undo() -> None:
            world.loss = world.duplication = 0.0
            world.delay_max = 3

        self._undo(undo)

    def _switchover(self) -> None:
        for node in self._world.nodes:
            if node.leading:
                self._world.note("switchover", node.number)
                node.event(ev.Ordered(ev.Order.SWITCHOVER))
                return

    # --- scenarios: faults that matter together ---------------------------------------------------------------------

    def _pair(self) -> tuple[SimNode, SimNode] | None:
        """Leader and standby, if there are both."""
        leading = [node for node in self._world.nodes if node.leading]
        if len(leading) != 1:
            return None
        other = self._world.nodes[1 - leading[0].number]
        return (leading[0], other) if other.up and not other.paused else None

    def _reboot(self, node: SimNode, *, down_ms: int) -> None:
        node.crash(power=True)
        self._world.after(down_ms, lambda: None if node.up else node.boot())

    def _slow(self, node: SimNode, *, for_ms: int) -> None:
        node.slow_disk_ms = 1500

        def undo() -> None:
            node.slow_disk_ms = 0

        self._world.after(for_ms, undo)

    def _stale_acks(self) -> None:
        """The leader loses what the standby has, leads again, and old acknowledgements arrive."""
        pair = self._pair()
        if pair is None:
            return
        world, (leader, standby) = self._world, pair
        world.note("scenario: stale acknowledgements")
        world.late = 0.5
        self._slow(leader, for_ms=700)
        world.arbiter.cut_off.add(standby.number)
        link = (leader.number, standby.number)
        epoch = leader.replica.machine.epoch
        end = world.now + 5000

        def watch() -> None:
            machine = leader.replica.machine
            if leader.leading and machine.epoch > epoch and machine.peer.streaming:
                world.blocked.add(link)
                world.after(280, leader_dies)
            elif world.now < end:
                world.after(2, watch)
            else:
                calm()

        def leader_dies() -> None:
            calm()
            self._reboot(leader, down_ms=2500)

        def calm() -> None:
            world.late = 0.0
            world.arbiter.cut_off.discard(standby.number)
            world.blocked.discard(link)

        world.after(self._rng.randint(300, 600), lambda: self._reboot(leader, down_ms=20))
        world.after(800, watch)

    def _deaf_standby(self) -> None:
        """The standby hears nothing and promotes; then it hears again what the old leader still sends."""
        pair = self._pair()
        if pair is None:
            return
        leader, standby = pair
        self._world.note("scenario: deaf standby")
        link = (leader.number, standby.number)
        self._world.blocked.add(link)
        self._world.arbiter.slow_ms = 90

        def heal() -> None:
            self._world.blocked.discard(link)
            self._world.arbiter.slow_ms = 0

        self._world.after(self._rng.randint(600, 800), heal)

    def _unheard_join(self) -> None:
        """The arbiter's answer to a join is lost, then the link, then the leader."""
        pair = self._pair()
        if pair is None:
            return
        world, (leader, standby) = self._world, pair
        world.note("scenario: unheard join")
        link = (leader.number, standby.number)
        end = world.now + 4000

        def watch() -> None:
            view = world.arbiter.view(0)
            if (standby.number, standby.replica.machine.incarnation) in view.members and standby.up:
                world.blocked.add(link)
                world.after(200, leader_dies)
            elif world.now < end:
                world.after(1, watch)
            else:
                world.arbiter.mute.discard(leader.number)

        def leader_dies() -> None:
            world.arbiter.mute.discard(leader.number)
            world.blocked.discard(link)
            self._reboot(leader, down_ms=2500)

        self._reboot(standby, down_ms=400)
        world.after(380, lambda: world.arbiter.mute.add(leader.number))
        world.after(400, watch)

    def _forgetful_standby(self) -> None:
        """The standby reboots and forgets what it acknowledged from memory; then the leader is lost."""
        pair = self._pair()
        if pair is None:
            return
        leader, standby = pair
        self._world.note("scenario: forgetful standby")
        self._slow(standby, for_ms=1000)
        self._world.after(self._rng.randint(300, 800), lambda: self._reboot(standby, down_ms=10))
        self._world.after(self._rng.randint(800, 1000), lambda: self._reboot(leader, down_ms=3000))

    def _unsynced_candidate(self) -> None:
        """The leader is lost, and the candidate reboots around its promotion."""
        pair = self._pair()
        if pair is None:
            return
        leader, standby = pair
        self._world.note("scenario: unsynced candidate")
        self._slow(standby, for_ms=1600)
        self._world.after(300, lambda: self._reboot(leader, down_ms=3000))
        self._world.after(self._rng.randint(900, 1300), lambda: self._reboot(standby, down_ms=50))

    def _late_request(self) -> None:
        """A promotion request is under way for long; meanwhile its sender follows again, and then reboots."""
        pair = self._pair()
        if pair is None:
            return
        world, (leader, standby) = self._world, pair
        world.note("scenario: late request")
        both = {(0, 1), (1, 0)}
        world.blocked |= both
        world.arbiter.cut_off.add(leader.number)

        def heal() -> None:
            world.blocked -= both

        def requests_stick() -> None:
            world.arbiter.sticky.add(standby.number)

        def requests_pass() -> None:
            world.arbiter.sticky.discard(standby.number)
            world.arbiter.cut_off.discard(leader.number)

        world.after(self._rng.randint(560, 620), requests_stick)
        world.after(self._rng.randint(640, 900), heal)
        world.after(900, requests_pass)
        self._slow(standby, for_ms=2500)
        world.after(self._rng.randint(1500, 2500), lambda: self._reboot(standby, down_ms=50))
