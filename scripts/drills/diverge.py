"""The standby's state is not the primary's: one balance is changed in its memory. It must be noticed, and never lead.

The balance is found in the standby's memory by its entry of the accounts' table and written through /proc. The next
change of it makes the state hashes differ; the standby stops until a person has looked, and the primary goes on alone.
Set right, it rebuilds its state from its log and joins again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from struct import Struct

from scripts.admin.account import credit
from scripts.admin.link import AdminLink
from scripts.demo import TRADERS
from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterNode, ClusterSite
from scripts.drills._failover import Failover, play
from scripts.exit_codes import ExitCode

ASSET = "SOL"  # none that the load trades: only the drill changes it
ENTRY = Struct("<IIqq")  # account, asset, available, held: engine/accounts.h
AVAILABLE = Struct("<q")
AVAILABLE_OFFSET = 8
SEGMENT_MAX = 1 << 30
CLIENTS_AGAIN_S = 1.0  # the search keeps this process, and the clients in it, from everything else


def run(context: Context) -> Outcome:
    problems: list[str] = []

    def fault(site: ClusterSite) -> Failover:
        leader, standby = site.leader, site.standby
        assert leader is not None
        account = site.accounts[TRADERS[0]].account
        if context.planted != "same":
            _change_balance(site, standby, account)
        time.sleep(CLIENTS_AGAIN_S)
        at = time.monotonic()
        with AdminLink.open(leader.config) as link:
            credit(link, account=account, asset=link.asset(ASSET), units=1)
        halted = context.wait(lambda: not standby.alive, deadline_s=15)
        if not halted:
            problems.append(f"two states from one log, and nobody noticed: {site.describe()}")
        elif (code := standby.stop()) != ExitCode.INTERNAL:
            problems.append(f"the standby ended with {code}, not {int(ExitCode.INTERNAL)}")
        if not any(note.startswith("diverged:") for note in leader.notes):
            problems.append("the primary was not told of it")
        return Failover(at, standby.start if halted else lambda: None)

    outcome = play(context, fault, takes_over=False)
    outcome.problems += problems
    outcome.check(outcome.facts["epoch_to"] == outcome.facts["epoch_from"], "somebody failed over")
    return outcome


def _change_balance(site: ClusterSite, standby: ClusterNode, account: int) -> None:
    leader = site.leader
    assert leader is not None
    with AdminLink.open(leader.config) as link:
        asset = link.asset(ASSET).asset_id
        balance = next(reply for reply in link.balances(account) if reply.asset_id == asset)
    entry = ENTRY.pack(account, asset, balance.available, balance.held)
    pid = standby.pids()["fused"]
    places = list(_find(pid, entry))
    if not places:
        raise RuntimeError(f"no balance of account {account} in the memory of process {pid}")
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        for place in places:
            memory.seek(place + AVAILABLE_OFFSET)
            memory.write(AVAILABLE.pack(balance.available + 1))


def _find(pid: int, wanted: bytes) -> Iterator[int]:
    """Yield where the bytes stand in the private memory of a process."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            first, last = (int(end, 16) for end in span.split("-"))
            if rights != "rw-p" or last - first > SEGMENT_MAX:
                continue
            memory.seek(first)
            data = memory.read(last - first)
            at = data.find(wanted)
            while at >= 0:
                yield first + at
                at = data.find(wanted, at + 1)


DRILL = Drill(
    summary="the standby's state is changed behind its back: noticed at the next hash mark, and it never leads",
    run=run,
    faults={"same": "the states are the same", **FORGED},
    options=(Option("rate", 200, "requests a second"),),
)
