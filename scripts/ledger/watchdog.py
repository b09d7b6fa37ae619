"""Ends a ledger that stands still inside its store: the engine's threads can wait for each other for ever.

What is stored stays whole whenever the process ends (a block counts with its last row), and the supervisor starts it
again; a process that hangs is worse than one that is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

LOOKS_A_LIMIT = 20


class Watchdog:
    """Looks at how long each of some things has been at one piece of work; calls `end` once if one passes the limit."""

    def __init__(
        self,
        busy_s: Mapping[str, Callable[[], float]],
        limit_s: float,
        end: Callable[[str], None],
        *,
        wait: Callable[[float], bool],
    ) -> None:
        """`wait` sleeps for seconds, cut short and True when all ends. A limit of 0: nothing is watched."""
        self._busy_s = busy_s
        self._limit_s = limit_s
        self._end = end
        self._wait = wait
        if limit_s > 0:
            threading.Thread(target=self._run, name="ledger-watchdog", daemon=True).start()

    def _run(self) -> None:
        while not self._wait(self._limit_s / LOOKS_A_LIMIT):
            for name, busy in self._busy_s.items():
                seconds = busy()
                if seconds > self._limit_s:
                    self._end(f"{name} has not come back from the store for {seconds:.0f} s (ledger.stall_s)")
                    return
