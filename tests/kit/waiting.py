"""Wait for a condition instead of sleeping for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, deadline_s: float = 5.0, pause_s: float = 0.01, what: str = "") -> T:
    """Return the first truthy result of `condition`, asked again and again.

    Raises AssertionError with `what` and the last result once `deadline_s` seconds are over. The condition is asked at
    least once, and once more after the deadline, so a stalled machine alone does not fail a test.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        late = time.monotonic() >= deadline
        result = condition()
        if result:
            return result
        if late:
            name = what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"not within {deadline_s} s: {name}; last result: {result!r}")
        time.sleep(pause_s)
