"""Who shares a core in turn asks for a real-time priority, and gets on without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.placement import Kind, ProcessPlan
from scripts.priority import take_turns

ROOT = Path(__file__).parents[3]
TURNS = ProcessPlan(Kind.GATEWAY, "gateway", "yield", core=0, in_turn=True, priority=1)


def refuse(*_: object) -> None:
    raise PermissionError


def test_without_the_right_to_it_a_process_parks_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", refuse)

    assert take_turns(TURNS, can_sleep=True) == ("park", 0)
    assert take_turns(TURNS, can_sleep=False) == ("yield", 0)
    said = capsys.readouterr().err
    assert "gateway: may not run at real-time priority 1 (placement.priority_order_path" in said


def test_who_has_no_priority_asks_for_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", refuse)

    assert take_turns(ProcessPlan(Kind.FUSED, "fused", "spin"), can_sleep=False) == ("spin", 0)
    assert capsys.readouterr().err == ""


def test_turns_are_round_robin_and_not_inherited() -> None:
    code = """
import os
from tests.unit.scripts.test_turns import TURNS
from scripts.priority import take_turns
wait, priority = take_turns(TURNS, can_sleep=True)
expected = os.SCHED_RR | os.SCHED_RESET_ON_FORK if priority else os.SCHED_OTHER
assert os.sched_getscheduler(0) == expected, os.sched_getscheduler(0)
assert wait == ("yield" if priority else "park"), wait
child = os.fork()
if child == 0:
    os._exit(os.sched_getscheduler(0))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == os.SCHED_OTHER
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
