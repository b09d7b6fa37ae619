"""kill -9 and failing disks: nothing that was committed is ever missing, nothing unsynced is ever committed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from journaler.errors import JournalError
from journaler.reader import LogReader
from journaler.recover import recover
from ringbuf import Mode, Ring
from tests.kit import journals

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("BULLRING_JOURNAL_KILLS", "12"))
EXIT_PANIC = 74
START_TIME_MAX_S = 20
EIO = 5


def make_ring(prefix: str, *, base: int = 0) -> Ring:
    gating = {0: "journaler"}
    return Ring.create(f"{prefix}log", slot_size=128, slot_count=1024, base=base, mode=Mode.DURABLE, gating=gating)


def command(ring: Ring, directory: Path, seed: int) -> list[str]:
    return [sys.executable, "-m", "tests.kit.journal_child", ring.name, str(directory), str(seed)]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_commit(ring: Ring, sequence: int, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_TIME_MAX_S
    while ring.commit < sequence:
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline, f"commit stays at {ring.commit}"
        time.sleep(0.001)


def expected(slots: bytes, first: int) -> bytes:
    """What the child publishes under these sequences; the length of groups, which is random, is taken as it is."""
    count = len(slots) // 128
    return b"".join(journals.slot(first + index, flags=slots[index * 128 + 14]) for index in range(count))


def check_files(directory: Path, since: int) -> int:
    """Check the records from `since` on; return the end of the log."""
    for first, slots in LogReader(directory).batches(since):
        assert slots == expected(slots, first)
    return recover(directory).position.sequence


def drain(child: subprocess.Popen[str]) -> list[int]:
    """Return what the dead child said was synced."""
    out, _ = child.communicate()
    return [int(line.split()[1]) for line in out.splitlines() if line.startswith("synced ")]


@pytest.mark.parametrize("rings", ["survive", "are lost"])
def test_nothing_committed_is_lost_by_kill_9(
    tmp_path: Path, shm_prefix: str, rng: random.Random, seed: int, rings: str
) -> None:
    """The rings survive when a process dies, and are lost with the machine's memory (the page cache stays, here)."""
    ring = make_ring(shm_prefix)
    checked = 0
    for round_number in range(KILLS):
        child = start(command(ring, tmp_path, seed + round_number))
        wait_for_commit(ring, ring.commit + rng.randrange(1, 1500), child)
        time.sleep(rng.random() * 0.02)
        child.send_signal(signal.SIGKILL)
        synced = drain(child)

        committed = ring.commit
        end = check_files(tmp_path, checked)
        assert end >= committed, f"round {round_number}"
        assert end >= max(synced, default=0)
        checked = end
        if rings == "are lost":
            ring.close()
            ring = make_ring(shm_prefix, base=end)
    ring.close()
    assert checked > 100 * KILLS // 2


def test_failed_sync_panics_and_commits_nothing_more(tmp_path: Path, shm_prefix: str, seed: int) -> None:
    """The k-th fdatasync of the process returns EIO: exit code 74, the ring's panic cell, a file for the operator."""
    strace = usable_strace()
    for attempt, which in enumerate((5, 23, 60)):
        directory = tmp_path / str(attempt)
        with make_ring(shm_prefix) as ring:
            inject = ["-e", "trace=fdatasync", "-e", f"inject=fdatasync:error=EIO:when={which}"]
            log = tmp_path / f"strace-{attempt}"
            child = start([strace, "-f", "-o", str(log), *inject, *command(ring, directory, seed)])
            synced = drain(child)

            assert child.returncode == EXIT_PANIC, log.read_text()[-2000:]
            assert ring.panic == EIO
            assert max(synced, default=0) <= ring.commit <= ring.consumer(0).cursor
            assert "errno 5" in (directory / "panic").read_text()
            assert recover(directory).position.sequence >= ring.commit
            with pytest.raises(JournalError, match="verify --direct"):
                journals.opened(directory, ring).__enter__()


def usable_strace() -> str:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace here: the same is tested with replaced system calls in tests/native/journal_order.c")
    done = subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"strace may not trace here: {done.stderr.decode(errors='replace').strip()}")
    return strace
