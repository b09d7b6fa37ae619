"""A reconnect storm: the primary's host dies, and a crowd of sessions comes to the other node at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gateway.clients import BullringClient, load_signer
from scripts.admin.link import AdminLink
from scripts.admin.session import create_session
from scripts.demo import TRADERS, DemoAccount
from scripts.drills import FORGED, Context, Drill, Option, Outcome
from scripts.drills._cluster import ClusterSite
from scripts.drills._failover import Failover, play
from scripts.drills._kill_host import kill_host

KEEP_ALIVE_MS = 500
KEEP_ALIVE_LIVES = 2
READY_S = 60.0
BACK_S = 60.0


class Crowd:
    """Idle sessions of one account on a thread of their own, which log on again by themselves."""

    def __init__(self, account: DemoAccount, sessions: Sequence[int], addresses: Sequence[tuple[str, int]]) -> None:
        self._account = account
        self._sessions = sessions
        self._addresses = addresses
        self._clients: list[BullringClient] = []
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def start(self) -> None:
        """Log all on. Raises RuntimeError if they cannot."""
        self._thread.start()
        if not self._ready.wait(READY_S):
            raise RuntimeError(f"{len(self._clients)} of {len(self._sessions)} sessions could log on")

    def back(self) -> int:
        """How many are logged on, after having been cut off."""
        return sum(client.established and client.reconnects > 0 for client in self._clients)

    def finish(self) -> None:
        self._ended.set()
        self._thread.join(READY_S)

    async def _main(self) -> None:
        signer = load_signer(Path(self._account.key_file), self._account.key_id)
        for session in self._sessions:
            client = BullringClient(
                self._addresses,
                session_id=session,
                signer=signer,
                keep_alive_ms=KEEP_ALIVE_MS,
                keep_alive_lives=KEEP_ALIVE_LIVES,
                timeout_s=BACK_S,
            )
            await client.start()
            self._clients.append(client)
        self._ready.set()
        while not self._ended.is_set():
            await asyncio.sleep(0.05)
        for client in self._clients:
            with suppress(OSError):
                await client.close()


def run(context: Context) -> Outcome:
    count = context.options["sessions"]
    crowds: list[Crowd] = []
    times: list[float] = []
    missing: list[int] = []

    def fault(site: ClusterSite) -> Failover:
        leader = site.leader
        assert leader is not None
        account = site.accounts[TRADERS[0]]
        with AdminLink.open(leader.config) as link:
            sessions = [create_session(link, account.account) for _ in range(count)]
        crowd = Crowd(account, sessions, site.addresses)
        crowds.append(crowd)
        crowd.start()
        killed = kill_host(site, leader)
        context.wait(lambda: crowd.back() == count, deadline_s=BACK_S)
        times.append(time.monotonic() - killed.at)
        missing.append(count - crowd.back())
        crowd.finish()
        return killed

    outcome = play(context, fault, takes_over=True, overrides={"gateway.binary.connections_max": count + 64})
    outcome.facts |= {"sessions": count, "all_back_s": round(max(times, default=0.0), 3)}
    outcome.check(sum(missing) == 0, f"{sum(missing)} sessions did not come back within {BACK_S} s")
    return outcome


DRILL = Drill(
    summary="a crowd of sessions comes to the other node at once",
    run=run,
    faults=FORGED,
    options=(Option("sessions", 100, "how many, beside the load"), Option("rate", 200, "requests a second")),
)
