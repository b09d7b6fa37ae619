"""The failover rules as an explicit-state model: two nodes, an arbiter, no clocks, every interleaving within bounds.

The network is a set of messages that only grows: every delay, loss, repetition and reordering is covered. A node may
stop at any point and go on later; a restart is a power loss. `explore` returns the first history that breaks the
promise, or None if there is none. This checks the rules; tests/kit/cluster checks the code that keeps them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

Entry = tuple[int, int]  # (epoch, number of the order)
Message = tuple[object, ...]


@dataclass(frozen=True)
class Rules:
    """Which rules hold. `durable_ack`: D2, the standby acknowledges what is on its disk; else D2m, its memory."""

    promise: bool = True  # F1: no acknowledgement of an epoch below the promised one
    member: bool = True  # F2: only a member of the in-sync set promotes
    solo: bool = True  # F3: the standby is left behind only by a transaction
    ack_epoch: bool = True  # F4: an acknowledgement counts in its own epoch only
    gate_first: bool = True  # F5: gate, then membership
    incarnation: bool = True  # F6: a restarted node is another member
    commit_gate: bool = True  # F8: only what every member has leaves
    promotion_sync: bool = True  # F10: the candidate's whole log is durable first
    nonce: bool = True  # F11: giving up invalidates the request first
    persist: bool = True  # F13: promise and epoch survive a restart
    durable_ack: bool = False


@dataclass(frozen=True)
class Bounds:
    orders: int = 2
    epochs: int = 3
    restarts: int = 1
    bumps: int = 1
    states: int = 3_000_000


class Node(NamedTuple):
    role: str  # P primary, S standby, C candidate
    epoch: int
    inc: int
    log: tuple[Entry, ...]
    durable: int
    gate: bool
    match: int
    match_inc: int
    promised: int
    solo: bool


class World(NamedTuple):
    epoch: int
    holder: int
    members: frozenset[tuple[int, int]]
    nodes: tuple[Node, Node]
    messages: frozenset[Message]
    acked: frozenset[tuple[int, Entry]]
    orders: int
    restarts: int
    nonces: tuple[int, int]


Step = tuple[str, World]
_FRESH = {"gate": True, "match": 0, "match_inc": 0, "solo": False}


def start() -> World:
    nodes = tuple(Node(role, 1 if role == "P" else 0, 0, (), 0, True, 0, 0, 1, False) for role in "PS")
    assert len(nodes) == 2
    return World(1, 0, frozenset({(0, 0), (1, 0)}), nodes, frozenset(), frozenset(), 0, 0, (0, 0))


@dataclass
class Model:
    rules: Rules = field(default_factory=Rules)
    bounds: Bounds = field(default_factory=Bounds)

    def steps(self, world: World) -> Iterator[Step]:
        for index in (0, 1):
            node = world.nodes[index]
            if node.role == "P":
                yield from self._lead(world, index, node)
            if node.durable < len(node.log):
                yield f"sync{index}", _with(world, index, node._replace(durable=len(node.log)))
            for message in world.messages:
                yield from self._receive(world, index, node, message)
            yield from self._candidate(world, index, node)
            if world.restarts < self.bounds.restarts:
                yield self._restart(world, index, node)
        for message in world.messages:
            if message[0] == "cas":
                yield from self._arbiter(world, message)

    def _lead(self, world: World, index: int, node: Node) -> Iterator[Step]:
        rules = self.rules
        if world.orders < self.bounds.orders:
            log = (*node.log, (node.epoch, world.orders))
            yield f"order@{index}", _with(world, index, node._replace(log=log))._replace(orders=world.orders + 1)
        message: Message = ("rep", index, node.epoch, node.log)
        if node.log and message not in world.messages:
            yield f"send{index}", _say(world, message)
        commit = min(node.durable, node.match) if node.gate else node.durable
        if not rules.commit_gate:
            commit = len(node.log)
        new = frozenset((at, node.log[at]) for at in range(min(commit, len(node.log)))) - world.acked
        if new:
            yield f"ACK{index}", world._replace(acked=world.acked | new)
        yield from self._members(world, index, node)

    def _members(self, world: World, index: int, node: Node) -> Iterator[Step]:
        other, rules = 1 - index, self.rules
        mine = world.epoch == node.epoch and world.holder == index
        if node.gate and not node.solo:
            alone = _with(world, index, node._replace(solo=True, gate=False))
            if not rules.solo:
                yield f"sololocal{index}", alone
            elif mine:
                yield f"solocas{index}", alone._replace(members=frozenset({(index, node.inc)}))
        both = frozenset({(index, node.inc), (other, node.match_inc)})
        if node.solo and not node.gate and rules.gate_first:
            yield f"gate{index}", _with(world, index, node._replace(gate=True))
        elif node.solo and node.match >= len(node.log) and mine and rules.solo:
            if rules.gate_first:
                yield f"joincas{index}", _with(world, index, node._replace(solo=False))._replace(members=both)
            elif not node.gate:
                yield f"joincas_early{index}", world._replace(members=both)

    def _receive(self, world: World, index: int, node: Node, message: Message) -> Iterator[Step]:
        if message[0] == "rep" and message[1] == 1 - index:
            yield from self._records(world, index, node, message)
        elif message[0] == "ack" and message[1] == 1 - index and node.role == "P":
            _, _, epoch, inc, length = message
            assert isinstance(epoch, int) and isinstance(inc, int) and isinstance(length, int)
            late = self.rules.ack_epoch and epoch != node.epoch
            if late or length > len(node.log) or inc < node.match_inc:
                return
            match = length if inc != node.match_inc else max(length, node.match)
            changed = node._replace(match=match, match_inc=inc)
            if changed != node:
                yield f"gotack{index}", _with(world, index, changed)

    def _records(self, world: World, index: int, node: Node, message: Message) -> Iterator[Step]:
        _, _, epoch, log = message
        assert isinstance(epoch, int) and isinstance(log, tuple)
        ack: Message = ("ack", index, epoch, node.inc, len(log))
        if epoch < node.promised or (node.role == "P" and epoch <= node.epoch):
            if not self.rules.promise and epoch < node.promised and ack not in world.messages:
                yield f"staleack{index}", _say(world, ack)
            return
        changed = node
        if epoch > node.promised or node.role == "P" or epoch > node.epoch or len(log) > len(node.log):
            keep = 0
            while keep < min(len(log), len(node.log)) and log[keep] == node.log[keep]:
                keep += 1
            durable = len(log) if self.rules.durable_ack else min(node.durable, keep)
            fresh = node._replace(role="S", epoch=epoch, promised=epoch, log=log, durable=durable)
            changed = fresh._replace(**_FRESH)
        if changed != node or ack not in world.messages:
            yield f"recv{index}", _say(_with(world, index, changed), ack)

    def _candidate(self, world: World, index: int, node: Node) -> Iterator[Step]:
        rules = self.rules
        member = self._is_member(world, index, node.inc)
        whole = not rules.promotion_sync or node.durable == len(node.log)
        may = world.epoch < self.bounds.epochs and world.epoch >= node.promised
        if node.role == "S" and may and (member or not rules.member) and whole:
            request: Message = ("cas", index, world.epoch, node.inc, world.nonces[index])
            promised = world.epoch + 1 if rules.promise else node.promised
            candidate = node._replace(role="C", promised=promised)
            yield f"PROMISE{index}", _say(_with(world, index, candidate), request)
        behind = node.role == "C" or (node.role == "S" and node.epoch < world.epoch)
        if behind and world.holder == index and world.epoch > node.epoch and member:
            leader = node._replace(role="P", epoch=world.epoch, promised=world.epoch)
            alone = leader._replace(gate=False, solo=True, match=0, match_inc=0)
            yield f"ACTIVATE{index}", _with(world, index, alone)
        if (node.role == "C" or (node.role == "S" and node.promised > world.epoch)) and world.holder != index:
            given_up = _with(world, index, node._replace(role="S", promised=max(node.epoch, world.epoch)))
            if not rules.nonce:
                yield f"UNPROMISE{index}", given_up
            elif world.nonces[index] < self.bounds.bumps:
                first, second = (nonce + (at == index) for at, nonce in enumerate(world.nonces))
                yield f"UNPROMISE{index}", given_up._replace(nonces=(first, second))

    def _is_member(self, world: World, index: int, inc: int) -> bool:
        return any(at == index and (known == inc or not self.rules.incarnation) for at, known in world.members)

    def _restart(self, world: World, index: int, node: Node) -> Step:
        """Power loss. Its own disk gated every commit, so a leader may renew its own membership."""
        log = node.log[: node.durable]
        epoch, promised = node.epoch, node.promised
        if not self.rules.persist:
            epoch = promised = log[-1][0] if log else 0
        fresh = Node("S", epoch, node.inc + 1, log, len(log), promised=promised, **_FRESH)  # type: ignore[arg-type]
        after = _with(world, index, fresh)._replace(restarts=world.restarts + 1)
        old, new = (index, node.inc), (index, node.inc + 1)
        if self.rules.incarnation and world.holder == index:
            led = node.role == "P" and old in world.members and world.epoch == node.epoch
            if world.members == {old} or led:
                after = after._replace(members=(world.members - {old}) | {new})
        return f"RESTART{index}", after

    def _arbiter(self, world: World, message: Message) -> Iterator[Step]:
        _, index, epoch, inc, nonce = message
        assert isinstance(index, int) and isinstance(inc, int)
        same = world.epoch == epoch and (nonce == world.nonces[index] or not self.rules.nonce)
        if same and (self._is_member(world, index, inc) or not self.rules.member):
            promoted = world._replace(epoch=world.epoch + 1, holder=index, members=frozenset({(index, inc)}))
            yield f"PROMOTES{index}", promoted


def _with(world: World, index: int, node: Node) -> World:
    nodes = (node, world.nodes[1]) if index == 0 else (world.nodes[0], node)
    return world._replace(nodes=nodes)


def _say(world: World, message: Message) -> World:
    return world._replace(messages=world.messages | {message})


def broken(world: World) -> str | None:
    """The promise: one order at an index, and whoever leads by the arbiter's word has every acknowledged one."""
    seen: dict[int, Entry] = {}
    for at, entry in world.acked:
        if seen.setdefault(at, entry) != entry:
            return f"two orders acknowledged at {at}"
    for index, node in enumerate(world.nodes):
        if node.role != "P" or node.epoch != world.epoch or world.holder != index:
            continue
        for at, entry in world.acked:
            if at >= len(node.log) or node.log[at] != entry:
                return f"leader {index} of epoch {node.epoch} lacks acknowledged {entry} at {at}"
    return None


@dataclass(frozen=True)
class Explored:
    fault: str | None
    history: tuple[str, ...]
    states: int
    exhaustive: bool


def explore(rules: Rules | None = None, bounds: Bounds | None = None) -> Explored:
    """Breadth first, so that the history returned is a shortest one."""
    model = Model(rules or Rules(), bounds or Bounds())
    first = start()
    parents: dict[World, tuple[World, str] | None] = {first: None}
    queue = deque([first])
    while queue:
        world = queue.popleft()
        fault = broken(world)
        if fault is not None:
            history = []
            at = world
            while (parent := parents[at]) is not None:
                history.append(parent[1])
                at = parent[0]
            return Explored(fault, tuple(reversed(history)), len(parents), True)
        for label, after in model.steps(world):
            if after not in parents:
                parents[after] = (world, label)
                queue.append(after)
        if len(parents) > model.bounds.states:
            return Explored(None, (), len(parents), False)
    return Explored(None, (), len(parents), True)


def without(rule: str, *, durable_ack: bool = False) -> Rules:
    """All rules but one. With durable acknowledgements those that only memory needs are left out anyway."""
    rules = Rules(durable_ack=durable_ack)
    if durable_ack:
        rules = replace(rules, incarnation=False, promotion_sync=False, nonce=False)
    return replace(rules, **{rule: False})
