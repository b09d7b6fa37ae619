"""Drills: inject a fault, wait, look, judge. `bullring drill NAME` runs one and prints one JSON line.

A module scripts/drills/NAME.py defines `DRILL = Drill(...)`: that is the registration. Its `run` is given a Context
and returns an Outcome; what it finds wrong it says as sentences with `outcome.problem()`. A drill that finds nothing
passes. Each names the faults it must notice: `--plant FAULT` runs it against one (and should fail), `--controls`
against all of them (and passes if each was noticed).
"""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.exit_codes import ExitCode

FOLDER = Path(__file__).parent

# Of RELIABILITY section 14. A drill fills in those that apply; times are seconds since the drill began.
COMMON_FIELDS = (
    "t_fault", "t_detect", "t_first_ack", "rto_ms", "acked_before", "acked_lost", "acked_dup", "unknown_resolved",
    "orders_rejected", "md_gap", "hash_equal", "conservation_ok", "epoch_from", "epoch_to",
)  # fmt: skip


# The fault of every drill that judges what clients were told.
FORGED = {"forged": "a client was told of a request that no log has"}


class DrillSkipped(Exception):
    """This machine cannot show it: why, and the exit code that says so."""

    def __init__(self, reason: str, code: ExitCode = ExitCode.NO_PERMISSION) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Option:
    """An option of one drill, beside the common ones: --NAME, of the type of its default."""

    name: str
    default: Any
    help: str


@dataclass(frozen=True)
class Drill:
    """What `bullring drill` knows of a drill. `runs`: how often its scenario is played by default."""

    summary: str
    run: Callable[[Context], Outcome]
    faults: Mapping[str, str]
    runs: int = 1
    options: Sequence[Option] = ()


@dataclass
class Context:
    """What a drill is given. `folder` is its own, empty, and removed afterwards; `planted` a name of its faults."""

    folder: Path
    seed: int
    runs: int
    seconds: float | None
    planted: str | None
    options: Mapping[str, Any]
    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    @property
    def now(self) -> float:
        """Seconds since the drill began: what the t_ fields are counted in."""
        return round(time.monotonic() - self.began, 6)

    def rounds(self) -> Iterator[int]:
        """Yield 0, 1, 2, ...: `runs` times, or with --seconds as often as that time allows, at least once."""
        number = 0
        while number == 0 or (number < self.runs if self.seconds is None else self.now < self.seconds):
            yield number
            number += 1

    def wait(self, condition: Callable[[], Any], *, deadline_s: float = 60.0, pause_s: float = 0.002) -> bool:
        """Wait until `condition` holds; False if it did not within a time that no healthy machine needs."""
        deadline = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > deadline:
                return bool(condition())
            time.sleep(pause_s)
        return True


@dataclass
class Outcome:
    """What a drill found: facts for the JSON line, and problems, each a sentence."""

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def check(self, condition: bool, text: str) -> None:
        if not condition:
            self.problem(text)

    def add(self, **counts: int) -> None:
        """Add to facts that are sums over the rounds."""
        for name, count in counts.items():
            self.facts[name] = self.facts.get(name, 0) + count

    @property
    def passed(self) -> bool:
        return not self.problems


Scenario = Callable[[Context], Outcome]
NODES = Option("nodes", 1, "1, or 2: network namespaces and an arbiter, as root")


def by_nodes(one: Scenario, two: Scenario) -> Scenario:
    """Return a `run` that plays what the option NODES says: `one` of a single node, `two` of a cluster."""

    def run(context: Context) -> Outcome:
        nodes = context.options["nodes"]
        if nodes not in (1, 2):
            raise ValueError(f"--nodes {nodes}: must be 1 or 2")
        return (one if nodes == 1 else two)(context)

    return run


def names() -> list[str]:
    """Return the drills there are."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def load(name: str) -> Drill:
    """Return a drill by its name."""
    drill = importlib.import_module(f"scripts.drills.{name}").DRILL
    assert isinstance(drill, Drill)
    return drill
