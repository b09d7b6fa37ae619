"""The wall clock of a host jumps, or runs wrong, and is set right again: nobody fails over, time in the log goes on.

Timeouts are monotonic, so a wall clock must not end anything; the log's own time never goes back. Clients sign the
time, so a standby with a wrong clock refuses to take over.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path
from struct import Struct

from scripts.cluster import ask
from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterNode, ClusterSite
from scripts.drills._failover import Failover, play
from scripts.native import shim

NS_PER_S = 1_000_000_000
WHO = ("primary", "standby")
LASTS_S = 2.0
STEPS = 20
_I64 = Struct("<q")


class WallClock:
    """What is added to the wall clock of one host."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_bytes(bytes(mmap.PAGESIZE))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), mmap.PAGESIZE)

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(shim("clock_shim")), "BULLRING_CLOCK_CONTROL": str(self._file)}

    def set(self, offset_s: float) -> None:
        _I64.pack_into(self._map, 0, round(offset_s * NS_PER_S))


def run(context: Context) -> Outcome:
    who, jump_s, drift = (context.options[name] for name in ("who", "by", "drift"))
    if who not in WHO:
        raise ValueError(f"--who {who}: must be one of {', '.join(WHO)}")
    clocks: dict[str, WallClock] = {}
    unnoticed: list[str] = []

    def preload(site: ClusterSite) -> None:
        for name in site.nodes:
            clocks[name] = WallClock(site.folder / f"{name}.clock")
            site.configure(name, {}, clocks[name].environment())

    def fault(site: ClusterSite) -> Failover:
        leader, standby = site.leader, site.standby
        assert leader is not None
        victim = leader if who == "primary" else standby
        at = time.monotonic()
        for step in range(1, STEPS + 1):
            clocks[victim.name].set(jump_s * step / STEPS if drift else jump_s)
            time.sleep(LASTS_S / STEPS)
        if not context.wait(lambda: _said(victim, "not_fit_to_lead")):
            unnoticed.append("nobody noticed the wrong clock")
        if who == "standby":
            # Behind this clock nobody could log on.
            ask(leader.config, {"order": "switchover"})
            if not context.wait(lambda: _said(leader, "switchover_refused")):
                unnoticed.append("a node with a wrong clock was to be made the leader")
        return Failover(at, lambda: clocks[victim.name].set(0))

    outcome = play(context, fault, takes_over=False, prepare=preload)
    outcome.problems += unnoticed
    unchanged = outcome.facts["epoch_to"] == outcome.facts["epoch_from"]
    outcome.check(unchanged, "a wrong wall clock was taken for a failure")
    return outcome


def _said(node: ClusterNode, event: str) -> bool:
    return any(note.startswith(f"{event}:") for note in node.notes)


DRILL = Drill(
    summary="a host's wall clock jumps or runs wrong, and is set right again",
    run=run,
    faults=FORGED,
    options=(
        Option("who", "primary", f"whose clock: {', '.join(WHO)}"),
        Option("by", -3600.0, "seconds it is wrong by"),
        Option("drift", 0, "1: little by little instead of at once"),
        Option("rate", 200, "requests a second"),
    ),
)
