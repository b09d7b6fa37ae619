"""Stepping back for those whom somebody waits for."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

NICE_MAX = 19
AUTOGROUP = Path("/proc/self/autogroup")
ATTEMPTS = 50
PAUSE_S = 0.1


def step_back(nice: int) -> None:
    """Make this process at least so nice (0..19), and its session, if it leads one.

    Where the kernel shares time out by session (autogroups, sched(7)), niceness counts only among the processes of
    one session: a process in a session of its own would keep the share of any other, however nice it is.
    """
    reached = os.nice(max(0, nice - os.nice(0)))
    if os.getsid(0) != os.getpid():
        return
    for _ in range(ATTEMPTS):
        try:
            AUTOGROUP.write_text(str(reached), encoding="ascii")
        except OSError as error:
            if error.errno != errno.EAGAIN:  # no such thing here; or not ours to change
                return
            time.sleep(PAUSE_S)  # the kernel takes one change at a time from who is not root
        else:
            return
