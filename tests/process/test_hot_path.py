"""The running exchange, watched by strace under load: the order path talks to sockets and waits, nothing else.

In the fused layout the gateway is in the same loop, so its socket calls belong there; memory, files
and syncs do not.
`tests/native/engine_hot_path.c` proves the stronger claim for the engine alone: no system call at all.
"""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.kit.exchange import Exchange

WARM_S = 3.0
WATCH_S = 1.5
SOCKETS = {"recvfrom", "sendto", "recvmsg", "sendmsg"}
# read and write: doorbells.
WAITING = {"epoll_wait", "epoll_pwait", "futex", "poll", "ppoll", "read", "sched_yield", "write"}
HOUSEKEEPING = {"getppid"}  # has the supervisor died?
BELLS_MAX = 4  # a sleeper's doorbell is opened when it is first rung: once a process, never once a message


def calls(pid: int, output: Path) -> dict[str, int]:
    """Return how often a process made each system call within WATCH_S. Skips where strace may not attach."""
    tracer = subprocess.Popen(
        ["strace", "-c", "-f", "-o", str(output), "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    time.sleep(WATCH_S)
    tracer.send_signal(signal.SIGINT)
    _, errors = tracer.communicate(timeout=10)
    if "attached" not in errors:
        pytest.skip(f"strace cannot attach here: {errors.strip()}")
    counts = {}
    for line in output.read_text().splitlines():
        words = line.split()
        # % time, seconds, usecs/call, calls, perhaps errors, name
        if len(words) in (5, 6) and words[0].replace(".", "").isdigit() and words[-1] != "total":
            counts[words[-1]] = int(words[3])
    return counts


@pytest.mark.slow
def test_the_fused_process_only_talks_and_waits(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace: nothing can be watched")
    with Exchange(tmp_path / "data") as exchange:
        rows = json.loads((exchange.data / "run" / "processes.json").read_text())
        if "fused" not in {row["name"] for row in rows}:
            pytest.skip("this machine's layout has no fused process")
        time.sleep(WARM_S)
        fused = calls(exchange.pid("fused"), tmp_path / "fused")
        journaler = calls(exchange.pid("journaler"), tmp_path / "journaler")
    assert sum(fused.get(name, 0) for name in SOCKETS) > 20, f"no load: {fused}"
    assert fused.pop("openat", 0) <= BELLS_MAX
    assert set(fused) <= SOCKETS | WAITING | HOUSEKEEPING, fused
    # The control: the process beside it does what is forbidden here, and the same harness sees it.
    assert not set(journaler) <= SOCKETS | WAITING | HOUSEKEEPING, journaler
