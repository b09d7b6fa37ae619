"""Who goes first on a core: real-time priorities for those whom orders wait for, stepping back for all others."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

from scripts.placement import ProcessPlan

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


def raise_priority(wanted: int, policy: int = os.SCHED_FIFO) -> int:
    """Run the calling thread at a real-time priority; return the one it has now, 0 if not allowed or not wanted."""
    if wanted == 0:
        return 0
    try:
        os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, os.sched_param(wanted))
    except PermissionError:
        return 0
    return wanted


def take_turns(plan: ProcessPlan, *, can_sleep: bool) -> tuple[str, int]:
    """Take the priority of those that share a core in turn; return how to wait, and that priority, 0 if not allowed."""
    # Round robin: who yields passes the turn to exactly the next one, and who never does is made to.
    priority = raise_priority(plan.priority, os.SCHED_RR)
    if priority == plan.priority:
        return plan.wait, priority
    print(
        f"{plan.name}: may not run at real-time priority {plan.priority} (placement.priority_order_path; it takes "
        "root, CAP_SYS_NICE or LimitRTPRIO): it parks when idle, and its turn may come milliseconds late",
        file=sys.stderr,
        flush=True,
    )
    # A yield at normal priority puts its process behind everybody, also behind those who are not concerned.
    return "park" if can_sleep else plan.wait, priority
