"""Which stages share a process, on which core, waiting how: a pure function of configuration and cores (DESIGN 2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scripts.config import STAGES_CORES_MIN, Config, ConfigError

NOT_PINNED = -1
# Below, one core is the order path's and its processes share it.
FEW_CORES = 3


class Kind(StrEnum):
    """What a process runs."""

    JOURNALER = "journaler"
    SEQUENCER = "sequencer"
    MATCHER = "matcher"
    GATEWAY = "gateway"
    ADMIN = "admin"
    FUSED = "fused"
    HISTORY = "history"
    WEB = "web"
    FEED = "feed"
    FEED_WEB = "feed-web"
    LEDGER = "ledger"


FEED_KINDS = {Kind.FEED, Kind.FEED_WEB}
CORE_KINDS = {Kind.JOURNALER, Kind.SEQUENCER, Kind.MATCHER, Kind.FUSED}
# Trading does without these: they are started last, and started again for as long as it takes.
WEB_KINDS = {Kind.HISTORY, Kind.WEB}
OBSERVER_KINDS = {*FEED_KINDS, *WEB_KINDS, Kind.LEDGER}


@dataclass(frozen=True)
class ProcessPlan:
    """One process. Plans stand in starting order."""

    kind: Kind
    name: str
    wait: str
    core: int = NOT_PINNED
    partitions: tuple[int, ...] = ()
    # One of several of the order path on one core: after each look it is the next one's turn.
    in_turn: bool = False
    priority: int = 0  # real-time; 0 = none


@dataclass(frozen=True)
class Placement:
    layout: str
    reason: str
    processes: tuple[ProcessPlan, ...]

    def describe(self) -> str:
        """Return the choice as one line a process."""
        lines = [f"placement: {self.layout} ({self.reason})"]
        for plan in self.processes:
            core = "any core" if plan.core == NOT_PINNED else f"core {plan.core}"
            hosts = f", partitions {', '.join(map(str, plan.partitions))}" if plan.partitions else ""
            turns = f", in turn at real-time priority {plan.priority}" if plan.in_turn else ""
            lines.append(f"  {plan.name}: {core}, wait {plan.wait}{turns}{hosts}")
        if self.layout == "fused":
            lines.append("  one fault domain: a fault in gateway, sequencer or a matcher ends all of them together")
        return "\n".join(lines)


def place(config: Config, cores: Sequence[int]) -> Placement:
    """Choose the processes. `cores` are those this process may use. Raises ConfigError."""
    wanted = config.placement.layout
    if wanted == "auto":
        layout = "stages" if len(cores) >= STAGES_CORES_MIN else "fused"
        reason = f"{len(cores)} cores, stages need {STAGES_CORES_MIN}"
    else:
        layout, reason = wanted, "configured"
    plans = _fused(config, cores) if layout == "fused" else _stages(config, cores)
    plans += _web(config)
    plans += _feed(config, cores, plans)
    if config.ledger.enabled:
        plans = (*plans, ProcessPlan(Kind.LEDGER, "ledger", "park"))
    return Placement(layout, reason, plans)


def _web(config: Config) -> tuple[ProcessPlan, ...]:
    """The web gateway: one process that keeps private history, and the workers."""
    workers = config.gateway.web.workers
    if workers == 0:
        return ()
    return (
        ProcessPlan(Kind.HISTORY, "history", "park"),
        *(ProcessPlan(Kind.WEB, f"web-{number}", "park") for number in range(workers)),
    )


def _fused(config: Config, cores: Sequence[int]) -> tuple[ProcessPlan, ...]:
    placement = config.placement
    wait = "park" if placement.wait_order_path == "auto" else placement.wait_order_path
    partitions = tuple(range(1, placement.partitions + 1))
    for core in (placement.core_gateway, *placement.cores_matchers):
        _pinned(core, cores)  # not used here; but a core that is not there is told now, not when the layout changes
    return (
        ProcessPlan(Kind.JOURNALER, "journaler", placement.wait_journaler, _pinned(placement.core_journaler, cores)),
        ProcessPlan(Kind.FUSED, "fused", wait, _pinned(placement.core_sequencer, cores), partitions),
    )


def _stages(config: Config, cores: Sequence[int]) -> tuple[ProcessPlan, ...]:
    placement = config.placement
    hosted = placement.matcher_processes or tuple((number,) for number in range(1, placement.partitions + 1))
    chosen = placement.cores_matchers or (NOT_PINNED,) * len(hosted)
    if len(chosen) != len(hosted):
        raise ConfigError(
            f"placement.cores_matchers = {list(chosen)}: must be [] or one core for each of {len(hosted)} processes"
        )
    pins = _order_path_pins(config, cores, (placement.core_sequencer, placement.core_gateway, *chosen))
    sequencer, gateway, *matchers = pins

    def plan(kind: Kind, name: str, core: int, group: tuple[int, ...] = ()) -> ProcessPlan:
        shares = core != NOT_PINNED and pins.count(core) > 1
        priority = placement.priority_order_path if shares else 0
        return ProcessPlan(kind, name, _order_path_wait(config, core, shares=shares), core, group, shares, priority)

    return (
        ProcessPlan(Kind.JOURNALER, "journaler", placement.wait_journaler, _pinned(placement.core_journaler, cores)),
        plan(Kind.SEQUENCER, "sequencer", sequencer),
        *(
            plan(Kind.MATCHER, f"matcher-{'-'.join(map(str, group))}", core, group)
            for group, core in zip(hosted, matchers, strict=True)
        ),
        plan(Kind.GATEWAY, "gateway", gateway),
        ProcessPlan(Kind.ADMIN, "admin", "park"),
    )


def _order_path_pins(config: Config, cores: Sequence[int], configured: Sequence[int]) -> list[int]:
    """Return the core of each process of the order path, in the order of their configured ones."""
    journaler, wait = config.placement.core_journaler, config.placement.wait_order_path
    # The first core is left to the kernel, the supervisor and everything that sleeps.
    free = [core for core in list(cores)[1:] if core not in (journaler, *configured)]
    if len(cores) < FEW_CORES:
        # Unpinned, each would now and then wait milliseconds for its turn behind a process that is not concerned.
        shared = next((core for core in reversed(cores) if core != journaler), cores[-1])
        together = next((core for core in configured if core != NOT_PINNED), shared)
        return [_pinned(together if core == NOT_PINNED else core, cores) for core in configured]
    pins = []
    for core in configured:
        own = free.pop(0) if core == NOT_PINNED and free and wait in ("auto", "spin") else core
        pins.append(_pinned(own, cores))
    return pins


def _order_path_wait(config: Config, core: int, *, shares: bool) -> str:
    """Return how a process of the order path on that core waits."""
    wait = config.placement.wait_order_path
    if shares:
        return "yield" if wait == "yield" else "park"
    if wait in ("auto", "spin"):
        # A spinning process without a core of its own would take it from one that works.
        return "spin" if core != NOT_PINNED else "yield"
    return wait


def _feed(config: Config, cores: Sequence[int], plans: tuple[ProcessPlan, ...]) -> tuple[ProcessPlan, ...]:
    """Nobody waits for the feed: it gets what is left."""
    placement = config.placement
    if not config.has_feed:
        return ()
    core = _pinned(placement.core_feed, cores)
    taken = {plan.core for plan in plans}
    left = [each for each in list(cores)[1:] if each not in taken and each != placement.core_journaler]
    if core == NOT_PINNED and left and any(plan.wait == "spin" for plan in plans):
        core = left[0]
    own = core != NOT_PINNED and core not in taken
    wait = placement.wait_feed if placement.wait_feed != "auto" else "spin" if own else "park"
    feed = ProcessPlan(Kind.FEED, "feed", wait, core)
    web = ProcessPlan(Kind.FEED_WEB, "feed-web", "park", NOT_PINNED)
    return (feed, web) if config.has_feed_web else (feed,)


def spare_cores(processes: Sequence[ProcessPlan], cores: Collection[int]) -> set[int]:
    """Return the cores for work that nobody waits for: not those of pinned processes that never sleep, if it can be.

    Who yields gives its core to whoever else is there, for a whole time slice however nice that one is. Where processes
    go in turn at a real-time priority there may be no time left.
    """
    return set(cores) - {plan.core for plan in processes if plan.wait != "park" or plan.in_turn} or set(cores)


def _pinned(core: int, cores: Sequence[int]) -> int:
    if core != NOT_PINNED and core not in cores:
        raise ConfigError(f"placement: core {core} is not one of those this process may use: {sorted(cores)}")
    return core
