"""Whether a wall clock can be trusted: a node whose clock jumped must not be made the leader (RELIABILITY section 8).

Clients sign the time and gateways compare it with their own, so behind a wrong clock nobody could log on. What is
watched is the wall clock against the boot clock, which nobody sets; a clock that the kernel calls synchronized again
is believed.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

from replicator.events import Electable

NS_PER_MS = 1_000_000
TIME_ERROR = 5  # adjtimex(2): nothing keeps this clock right
TIMEX_LONGS = 26  # struct timex on 64-bit Linux
MAXERROR_US = 3  # its position there

_libc = ctypes.CDLL(None, use_errno=True)


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def error_us() -> int | None:
    """The most the kernel thinks that the wall clock is wrong by; None: it does not know."""
    timex = (ctypes.c_long * TIMEX_LONGS)()
    state = _libc.adjtimex(ctypes.byref(timex))
    return None if state in (-1, TIME_ERROR) else int(timex[MAXERROR_US])


class ClockWatch:
    """Call `look` now and then; it returns what has changed."""

    def __init__(
        self,
        jump_ms: int,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        boot_ns: Callable[[], int] = boot_ns,
        error_us: Callable[[], int | None] = error_us,
    ) -> None:
        """`jump_ms`: a difference that no slewing makes between two looks."""
        self._jump_ms = jump_ms
        self._wall_ns, self._boot_ns, self._error_us = wall_ns, boot_ns, error_us
        self._trusted = self._offset()  # of the wall clock from the boot clock
        self._right = True

    def look(self) -> Electable | None:
        """None: as before."""
        offset = self._offset()
        off_ms = (offset - self._trusted) // NS_PER_MS
        right = abs(off_ms) <= self._jump_ms or self._synchronized()
        if right:
            self._trusted = offset
        changed, self._right = right != self._right, right
        if not changed:
            return None
        return Electable(right, "" if right else f"its wall clock has jumped by {off_ms} ms; set it right, or restart")

    def _offset(self) -> int:
        return self._wall_ns() - self._boot_ns()

    def _synchronized(self) -> bool:
        error = self._error_us()
        return error is not None and error <= self._jump_ms * 1000
