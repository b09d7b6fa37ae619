"""Who steps back does so beside every other process, not only beside those of its own session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

AUTOGROUP = Path("/proc/self/autogroup")
PROGRAM = "import os; from scripts.priority import step_back; step_back(7); print(os.nice(0), open({path!r}).read())"


def step_back(*, session: bool) -> tuple[int, str]:
    """Return niceness and autogroup of a process that has stepped back by 7."""
    command = [sys.executable, "-c", PROGRAM.format(path=str(AUTOGROUP))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=session)
    nice, _, group = done.stdout.strip().partition(" ")
    return int(nice), group


def autogroup() -> str:
    """Return our own group; skips the test where there is none: another kernel, or a control group."""
    text = AUTOGROUP.read_text() if AUTOGROUP.exists() else ""
    if not text.startswith("/autogroup-"):
        pytest.skip("no autogroups here (kernel, or a control group)")
    return text.strip()


@pytest.mark.skipif(os.nice(0) > 7, reason="nicer already")
def test_a_session_of_its_own_steps_back_as_a_whole() -> None:
    autogroup()
    nice, group = step_back(session=True)
    assert nice == 7
    assert group.endswith("nice 7")


@pytest.mark.skipif(os.nice(0) > 7, reason="nicer already")
def test_nobody_elses_session_is_touched() -> None:
    before = autogroup()
    nice, group = step_back(session=False)
    assert nice == 7
    assert group == before
    assert autogroup() == before
