"""kill -9 of producers, relays and consumers: nothing torn, lost or duplicated; planted faults are caught.

The program is tests/native/ring_kill.c against the real ring.h. Longer: BULLRING_KILLS=100000.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("BULLRING_KILLS", "2000"))
FAULT_ATTEMPTS = 5  # a fault shows only if a death falls into its window
FAULTS = {
    1: "publish before write",
    2: "re-attach at claim instead of pub",
    3: "observer without the look at claim",
    4: "successor sets claim back to pub",
    5: "relay resumes at its cursor",
}


def build(folder: Path, *, fault: int = 0) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    program = folder / f"ring_kill_{fault}"
    sources = ["tests/native/ring_kill.c", "ringbuf/segment.c"]
    options = "-std=gnu11 -O2 -D_GNU_SOURCE -Wall -Wextra -Werror -I. -Iringbuf/include".split()
    subprocess.run(
        [compiler, *options, f"-DRING_KILL_FAULT={fault}", *sources, "-o", str(program)], cwd=ROOT, check=True
    )
    return program


def run(program: Path, kills: int) -> tuple[int, dict[str, int]]:
    done = subprocess.run([program, str(kills)], capture_output=True, text=True, timeout=60 + kills / 20)
    return done.returncode, json.loads(done.stdout)


def test_nothing_is_torn_lost_or_duplicated_by_kill_9(tmp_path: Path) -> None:
    status, seen = run(build(tmp_path), KILLS)

    assert (seen["bad"], seen["observed_bad"]) == (0, 0), seen
    assert seen["checked"] == seen["records"], seen
    assert seen["observed"] > 0
    assert seen["lapped"] > 0, "the observer was never lapped: the test proves nothing of R5"
    assert status == 0


@pytest.mark.parametrize("fault", FAULTS, ids=FAULTS.values())
def test_planted_fault_is_caught(fault: int, tmp_path: Path) -> None:
    program = build(tmp_path, fault=fault)

    runs = []
    for _ in range(FAULT_ATTEMPTS):
        runs.append(run(program, 1000))
        if runs[-1][0] != 0:
            break

    status, seen = runs[-1]
    assert status == 1, runs
    assert seen["bad"] > 0 or seen["observed_bad"] > 0, runs
