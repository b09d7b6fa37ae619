"""What all parts of the failover state machine share: state, clock, and one request to the arbiter at a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from replicator import events as ev
from replicator.config import FailoverConfig
from replicator.events import Action, ClusterView, Core, Leader, Member, Record, State
from replicator.protocol import Role

LEADING = (State.ACTIVATING, State.PRIMARY)
FOLLOWING = (State.CATCHUP, State.STANDBY)
NEVER = -(1 << 60)

Ground = Literal["member", "holder", "bootstrap", "forced"]


@dataclass
class Peer:
    """The other node as far as its frames tell."""

    incarnation: int = 0
    epoch: int = 0
    role: Role = Role.NONE
    heard: int = NEVER
    hot: bool = False
    empty: bool = False
    alike: bool = True
    streaming: bool = False  # we send it the log
    acked: int = -1  # it has everything below; -1: not known
    progress: int = NEVER  # when it last acknowledged something, or had nothing to acknowledge


@dataclass
class Bid:
    """A promotion under way."""

    target: int
    view: ClusterView
    ground: Ground
    automatic: bool
    began: int
    planned: bool = False  # the primary has asked for it and holds its intake
    sent: bool = False


@dataclass
class Operation:
    """The one request to the arbiter that is under way."""

    request: int
    purpose: str


@dataclass
class Handover:
    """A planned switchover, seen by the primary."""

    deadline: int
    end: int | None = None
    sent: bool = False


class Machine:
    """State and helpers; the rules are in the classes built on it."""

    def __init__(self, config: FailoverConfig) -> None:
        self.config = config
        self.state = State.INIT
        self.epoch = 0  # newest one led or followed
        self.promised = 0  # nothing of a lower epoch is acknowledged; counts from the moment it is made
        self.incarnation = 0
        self.gating = False  # commit waits for the standby
        self.core = Core.DOWN
        self.peer = Peer()
        self.view: ClusterView | None = None
        self._record = Record()  # what the disk has
        self._writing: deque[Record] = deque()  # what it is to have next, in order
        self._empty = False
        self._log = ev.LogAdvanced(0, 0, 0)
        self._known_commit = 0  # never decreases
        self._log_known = False  # since the core was started
        self._now = 0
        self._wall_s = 0
        self._last_tick = NEVER
        self._primary_heard = NEVER
        self._stepped_down = False  # the primary told us to take over
        self._verify_since = 0
        self._followed = False
        self._fork_at: int | None = None  # our log is to be cut there once the core is down
        self._truncating = False  # it is being cut
        self._bid: Bid | None = None
        self._unpromising = False
        self._ordered: ev.Order | None = None
        self._operation: Operation | None = None
        self._requests = 0
        self._asked_at = NEVER
        self._floor_at = NEVER
        self._readback = False
        self._join_goal: int | None = None
        self._join_revision: int | None = None
        self._excluded = 0  # incarnation of a standby that is not let in again
        self._handover: Handover | None = None
        self._disk_slow = False
        self._electable = ev.Electable(True)
        self._paged: set[str] = set()
        self._out: list[Action] = []

    # --- who ----------------------------------------------------------------------------------------------------------

    @property
    def me(self) -> Member:
        return self.config.node, self.incarnation

    @property
    def role(self) -> Role:
        """What to tell the peer."""
        if self.state in LEADING:
            return Role.PRIMARY
        return Role.STANDBY if self.state in FOLLOWING else Role.NONE

    @property
    def empty(self) -> bool:
        """Whether this node has never been part of a cluster."""
        return self._empty and self.epoch == 0 and self.promised == 0

    @property
    def electable(self) -> bool:
        """Whether this node may promote itself: its clock is right."""
        return self._electable.electable

    def counts(self, epoch: int) -> bool:
        """F4: whether what the standby says in `epoch` is about our epoch's log."""
        return epoch == self.epoch

    @property
    def in_sync(self) -> bool:
        """Leading with a standby that commit waits for and that may promote."""
        return self.state in LEADING and self.gating and self._member(self._peer_member)

    @property
    def handing_over(self) -> bool:
        """The intake is held for a switchover."""
        return self._handover is not None

    @property
    def _peer_member(self) -> Member:
        return self.config.peer, self.peer.incarnation

    def _member(self, member: Member, view: ClusterView | None = None) -> bool:
        known = view if view is not None else self.view
        return known is not None and member in known.members

    def _is_mine(self, leader: Leader | None, epoch: int) -> bool:
        """Whether the leader key names this incarnation as leader of `epoch`."""
        return leader is not None and (leader.epoch, leader.node, leader.incarnation) == (epoch, *self.me)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _due(self, since: int) -> bool:
        return self._now - since >= self.config.arbiter_retry_ms

    def _primary_silent(self) -> bool:
        return self._stepped_down or self._now - self._primary_heard > self.config.primary_lost_ms

    def _standby_silent(self) -> bool:
        return self._now - self.peer.heard > self.config.standby_lost_ms

    def _forgive_own_stall(self) -> None:
        """Who did not run for a while has heard nothing for that reason: give the peer time to be heard."""
        stalled = self._now - self._last_tick > self.config.standby_lost_ms // 2
        if stalled and self._last_tick != NEVER:
            grace = 2 * self.config.heartbeat_ms
            if self.peer.heard != NEVER:
                self.peer.heard = max(self.peer.heard, self._now - self.config.standby_lost_ms + grace)
            if self._primary_heard != NEVER:
                self._primary_heard = max(self._primary_heard, self._now - self.config.primary_lost_ms + grace)
            self.peer.progress = max(self.peer.progress, self._now - self.config.standby_stalled_ms + grace)
        self._last_tick = self._now

    # --- what is done -------------------------------------------------------------------------------------------------

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self._paged.clear()
        self.state = state

    def _enter_verify(self) -> None:
        self._enter(State.VERIFY)
        self._operation = None
        self._verify_since = self._asked_at = self._now
        self._read("verify")

    def _new_incarnation(self) -> None:
        """By the clock, so that a node with a new disk, too, gets a number nobody has seen yet."""
        self.incarnation = max(self.incarnation + 1, self._wall_s * 1000)
        self._persist()

    def _persist(self) -> None:
        record = Record(self.incarnation, self.epoch, self.promised, self._known_commit)
        self._writing.append(record)
        self._out.append(ev.Persist(record))

    def _promise_on_disk(self, epoch: int) -> bool:
        """Whether the disk has this promise and no older, lower one is still on its way there."""
        return all(record.promised >= epoch for record in (self._record, *self._writing))

    def _begin(self, purpose: str) -> int:
        self._requests += 1
        self._operation = Operation(self._requests, purpose)
        return self._requests

    def _finish(self, request: int) -> str | None:
        """Return the purpose of the operation that ends here; None for one nobody waits for any more."""
        if self._operation is None or self._operation.request != request:
            return None
        purpose = self._operation.purpose
        self._operation = None
        return purpose

    def _read(self, purpose: str) -> None:
        if self._operation is None:
            self._out.append(ev.ReadCluster(self._begin(purpose)))

    def _start_core(self, commit: int) -> None:
        self.core = Core.STARTING
        self._log_known = False
        self._out.append(ev.StartCore(commit, leads=self.state not in FOLLOWING))

    def _halt(self, reason: str) -> None:
        self._enter(State.HALTED)
        self._page("halted", reason)
        self._out.append(ev.Halt(reason))

    def _page(self, name: str, text: str) -> None:
        """Tell a person, once in each state."""
        if name not in self._paged:
            self._paged.add(name)
            self._out.append(ev.Page(name, text))
