"""What goes into the failover state machine and what comes out of it. Plain values: nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from replicator.protocol import Role
from ringbuf.ring import ALONE

__all__ = ["ALONE"]

Member = tuple[int, int]  # (node, incarnation) (F6)


class State(StrEnum):
    """Where a node is; RELIABILITY section 6 draws the arrows."""

    INIT = "init"
    VERIFY = "verify"  # reads who leads; decides what to become
    CATCHUP = "catchup"  # follows a primary, not known to be in the in-sync set
    STANDBY = "standby"  # follows, in the in-sync set as far as the primary says
    CANDIDATE = "candidate"  # has promised the next epoch and asks the arbiter for it
    ACTIVATING = "activating"  # leads; the core is being switched over
    PRIMARY = "primary"
    FENCED = "fenced"  # deposed or stepped down; the core is being stopped
    HALTED = "halted"  # needs a person


class Core(StrEnum):
    """The node's own core processes as the machine is told of them."""

    DOWN = "down"
    STARTING = "starting"
    LOG = "log"  # journaler and log ring are there: records can be appended
    FOLLOWING = "following"  # all owners are there and follow
    LEADING = "leading"
    FAILED = "failed"  # sequencer or journaler died


@dataclass(frozen=True, slots=True)
class Record:
    """What a node keeps on its own disk, synced before it acts on it (F1, F6, F13)."""

    incarnation: int = 0
    epoch: int = 0  # newest one led or followed
    promised: int = 0  # nothing of a lower epoch is acknowledged
    commit: int = 0  # everything below was committed when this was written: never cut off (Z5)


@dataclass(frozen=True, slots=True)
class Leader:
    """The leader key. `failovers`: unix seconds of the automatic promotions of the last hour, for damping only."""

    epoch: int
    node: int
    incarnation: int
    failovers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Floor:
    """The commit position a leader has vouched for (J5 mark d)."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One linearizable read of all keys, with the revisions a transaction compares."""

    leader: Leader | None
    leader_revision: int
    members: frozenset[Member]
    members_revision: int
    nonce_revision: int  # of the reader's own nonce key (F11)
    floor: Floor | None = None


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The process runs. `record`: what the disk said. `log_end`: where the log in the files ends, all of it durable."""

    record: Record
    log_end: int
    wall_s: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes. `wall_s` is used for damping only."""

    wall_s: int = 0


@dataclass(frozen=True, slots=True)
class Persisted:
    record: Record


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """Any frame of the peer. `epoch` is the one the peer leads or follows."""

    epoch: int
    incarnation: int
    role: Role
    hot: bool = False
    empty: bool = False
    caught_up: bool = False
    alike: bool = True  # may take our place, and we its


@dataclass(frozen=True, slots=True)
class PeerFenced:
    """The peer knows a newer epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PeerAck:
    """The standby has everything below `sequence`; its chain there is ours."""

    epoch: int
    incarnation: int
    sequence: int


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """The standby asked for the log from a position on that its log and ours have in common."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The primary asks us to take over; it holds its intake and we have its whole log."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class PeerSteppedDown:
    epoch: int


@dataclass(frozen=True, slots=True)
class LogAdvanced:
    """Own log: published, own durable, committed."""

    end: int
    durable: int
    commit: int


@dataclass(frozen=True, slots=True)
class LogMatched:
    """Following: our whole log is a prefix of the primary's, whose commit is `commit`."""

    epoch: int
    commit: int


@dataclass(frozen=True, slots=True)
class LogForkFound:
    """Following: only the records below `common` are the primary's too."""

    epoch: int
    common: int


@dataclass(frozen=True, slots=True)
class LogTruncated:
    end: int


@dataclass(frozen=True, slots=True)
class CoreChanged:
    core: Core
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class IntakeHeld:
    """The sequencer writes no record any more; `end` is the end of its log."""

    end: int


@dataclass(frozen=True, slots=True)
class HashesDiffer:
    """A state hash differs between primary and standby; `key` says which, see divergence.py."""

    key: int


@dataclass(frozen=True, slots=True)
class DiskSlow:
    """The journaler says that its disk answers far too slowly, or no more (J8)."""

    slow: bool


@dataclass(frozen=True, slots=True)
class Electable:
    """Whether this node may promote itself: clock, disk. `reason` says why not."""

    electable: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClusterRead:
    """Answer to ReadCluster; None: no answer in time."""

    request: int
    view: ClusterView | None


class Outcome(StrEnum):
    WON = "won"
    LOST = "lost"
    UNKNOWN = "unknown"  # no answer: it may have happened, or happen later


@dataclass(frozen=True, slots=True)
class CasDone:
    """Answer to Cas. With LOST comes what stands there instead."""

    request: int
    outcome: Outcome
    view: ClusterView | None = None


@dataclass(frozen=True, slots=True)
class NonceBumped:
    request: int
    done: bool


class Order(StrEnum):
    """What an operator asks for."""

    SWITCHOVER = "switchover"
    PROMOTE = "promote"  # although not in the in-sync set, or damped: may lose records
    BOOTSTRAP = "bootstrap"  # the arbiter knows no leader: make this log the cluster's


@dataclass(frozen=True, slots=True)
class Ordered:
    order: Order


Event = (
    Started
    | Tick
    | Persisted
    | PeerHeard
    | PeerFenced
    | PeerAck
    | StreamStarted
    | HandedOver
    | PeerSteppedDown
    | LogAdvanced
    | LogMatched
    | LogForkFound
    | LogTruncated
    | CoreChanged
    | IntakeHeld
    | HashesDiffer
    | DiskSlow
    | Electable
    | ClusterRead
    | CasDone
    | NonceBumped
    | Ordered
)


# --- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Persist:
    """Write and sync; answered by Persisted, in order."""

    record: Record


@dataclass(frozen=True, slots=True)
class ReadCluster:
    request: int


@dataclass(frozen=True, slots=True)
class Cas:
    """One transaction: if the revisions are these (None: not compared), put leader, members and the commit position."""

    request: int
    leader_revision: int
    members_revision: int
    nonce_revision: int | None
    leader: Leader | None  # None: leave the key as it is
    members: frozenset[Member] | None


@dataclass(frozen=True, slots=True)
class BumpNonce:
    """Make every promotion request of this node that is still under way worthless (F11)."""

    request: int


@dataclass(frozen=True, slots=True)
class SetReplicated:
    """Store the `replicated` cell: commit = min(own durable, this). ALONE: wait for nobody."""

    sequence: int


@dataclass(frozen=True, slots=True)
class StartCore:
    """Start journaler, sequencer and matchers as followers; they apply up to `commit`.

    `leads`: this node is about to lead, so an empty log is to be begun here and not to be had from the other node.
    """

    commit: int
    leads: bool = False


@dataclass(frozen=True, slots=True)
class StopCore:
    """Kill them. Answered by CoreChanged(DOWN)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Activate:
    """Switch the core from following to leading `epoch` once it has applied the whole log."""

    epoch: int


@dataclass(frozen=True, slots=True)
class TruncateLog:
    """Keep a copy of the records from `end` on, then cut them off; answered by LogTruncated. The core is down."""

    end: int


@dataclass(frozen=True, slots=True)
class Follow:
    """Find out where the primary of `epoch` and we have the same log, then stream from there."""

    epoch: int


@dataclass(frozen=True, slots=True)
class HoldIntake:
    held: bool


@dataclass(frozen=True, slots=True)
class CancelOnly:
    """Gateways refuse new orders, or take them again."""

    on: bool


@dataclass(frozen=True, slots=True)
class SendHandover:
    sequence: int


@dataclass(frozen=True, slots=True)
class SendStepDown:
    pass


@dataclass(frozen=True, slots=True)
class SendDiverged:
    key: int


@dataclass(frozen=True, slots=True)
class SendFenced:
    pass


@dataclass(frozen=True, slots=True)
class Page:
    """Tell a person. `event` is a stable name."""

    event: str
    text: str


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop the core and do nothing more until a person has looked."""

    reason: str


Action = (
    Persist
    | ReadCluster
    | Cas
    | BumpNonce
    | SetReplicated
    | StartCore
    | StopCore
    | Activate
    | TruncateLog
    | Follow
    | HoldIntake
    | CancelOnly
    | SendHandover
    | SendStepDown
    | SendDiverged
    | SendFenced
    | Page
    | Halt
)
