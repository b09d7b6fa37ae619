"""Inputs that a matcher dies on again and again (R10): found while it comes back, taken out by two operators' record.

The first death may have had any cause. A successor notes what it works on (scripts/rejoin.py); when two of them die on
the same record, trying again is no use: the supervisor leaves the matcher down, its pairs stay paused, and says so in
RUN_DIR/poison.NAME.json. A Quarantine record in the log lets it come back without doing that record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.placement import ProcessPlan
from scripts.rejoin import WorkingOn

DEATHS = 2


@dataclass(frozen=True)
class Poison:
    """A matcher that is down, and the record it dies on. `quarantined`: the log says that it is not to be done."""

    name: str
    partitions: tuple[int, ...]
    sequence: int
    since_ns: int
    proposed_by: int = 0
    quarantined: bool = False

    @staticmethod
    def path(run_dir: Path, name: str) -> Path:
        return run_dir / f"poison.{name}.json"

    def save(self, run_dir: Path) -> None:
        path = self.path(run_dir, self.name)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.rename(path)


def read_all(run_dir: Path) -> list[Poison]:
    """Return the matchers that are down because of an input."""
    found = []
    for path in sorted(run_dir.glob("poison.*.json")):
        facts: dict[str, Any] = json.loads(path.read_text())
        facts["partitions"] = tuple(facts["partitions"])
        found.append(Poison(**facts))
    return found


class PoisonWatch:
    """What the supervisor knows of matchers that died while coming back."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._deaths: dict[tuple[str, int], int] = {}
        self._down: dict[str, ProcessPlan] = {}

    def start(self) -> None:
        """Forget what an earlier run left."""
        for pattern in ("poison.*.json", "working.*"):
            for path in self._run_dir.glob(pattern):
                path.unlink()
        self._deaths.clear()
        self._down.clear()

    def died(self, plan: ProcessPlan) -> Poison | None:
        """Count a death while coming back; the poison if it is one: then the matcher stays down."""
        working = WorkingOn.read(self._run_dir, plan.name)
        if working is None or not working[1]:
            return None
        key = (plan.name, working[0])
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] < DEATHS:
            return None
        poison = Poison(plan.name, plan.partitions, working[0], time.time_ns())
        poison.save(self._run_dir)
        self._down[plan.name] = plan
        return poison

    def cured(self) -> Iterator[ProcessPlan]:
        """Yield the plans of matchers that may come back, once."""
        if not self._down:
            return
        for poison in read_all(self._run_dir):
            if poison.quarantined and poison.name in self._down:
                Poison.path(self._run_dir, poison.name).unlink()
                WorkingOn.path(self._run_dir, poison.name).unlink(missing_ok=True)
                yield self._down.pop(poison.name)
