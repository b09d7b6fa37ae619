"""The ledger's watchdog ends what hangs, once, and nothing else."""

from __future__ import annotations

import threading

from scripts.ledger.watchdog import Watchdog
from tests.kit.waiting import eventually


def test_what_hangs_is_named_and_ended_once() -> None:
    ended, busy, said = threading.Event(), {"the writer": 0.0}, []

    Watchdog({"the writer": lambda: busy["the writer"]}, 0.1, said.append, wait=ended.wait)
    busy["the writer"] = 700.0

    eventually(lambda: said != [], deadline_s=30)
    ended.set()
    assert said == ["the writer has not come back from the store for 700 s (ledger.stall_s)"]


def test_work_below_the_limit_goes_on() -> None:
    ended, looks = threading.Event(), []

    def busy() -> float:
        looks.append(1)
        return 0.05

    said: list[str] = []
    Watchdog({"the loop": busy}, 0.1, said.append, wait=ended.wait)

    eventually(lambda: len(looks) > 30, deadline_s=30)
    ended.set()
    assert said == []


def test_limit_of_zero_watches_nothing() -> None:
    before = threading.active_count()

    Watchdog({"the loop": lambda: 9.0}, 0, lambda sentence: None, wait=threading.Event().wait)

    assert threading.active_count() == before
