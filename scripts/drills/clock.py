"""The wall clock of a host jumps, or runs wrong, and is set right again: nobody fails over, time in the log goes on.

Timeouts are monotonic, so a wall clock must not end anything; the log's own time never goes back.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path
from struct import Struct

from scripts.cluster import ask
from scripts.drills import Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterSite
from scripts.drills._failover import Failover, play
from scripts.native import shim

NS_PER_S = 1_000_000_000
WHO = ("primary", "standby", "switchover")
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

    def preload(site: ClusterSite) -> None:
        for name in site.nodes:
            clocks[name] = WallClock(site.folder / f"{name}.clock")
            site.configure(name, {}, clocks[name].environment())

    def fault(site: ClusterSite) -> Failover:
        leader = site.leader
        assert leader is not None
        clock = clocks[leader.name if who == "primary" else site.standby.name]
        at = time.monotonic()
        for step in range(1, STEPS + 1):
            clock.set(jump_s * step / STEPS if drift else jump_s)
            time.sleep(LASTS_S / STEPS)
        if who == "switchover":
            ask(leader.config, {"order": "switchover"})
        return Failover(at, lambda: clock.set(0))

    outcome = play(context, fault, takes_over=who == "switchover", prepare=preload)
    expected = outcome.facts["epoch_from"] + (outcome.facts["runs"] if who == "switchover" else 0)
    outcome.check(outcome.facts["epoch_to"] == expected, "a wrong wall clock was taken for a failure")
    return outcome


DRILL = Drill(
    summary="a host's wall clock jumps or runs wrong, and is set right again",
    run=run,
    faults={"forged": "a client was told of a request that no log has"},
    options=(
        Option("who", "primary", f"whose clock, or the one that takes over: {', '.join(WHO)}"),
        Option("by", -3600.0, "seconds it is wrong by"),
        Option("drift", 0, "1: little by little instead of at once"),
        Option("rate", 200, "requests a second"),
    ),
)
