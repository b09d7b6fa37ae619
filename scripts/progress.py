"""How far a long command has come: a bar on a terminal, now and then a line elsewhere; on standard error."""

from __future__ import annotations

import sys
import time

BAR_WIDTH = 30
REDRAW_S = 0.1
LINE_S = 5.0


class Progress:
    """Counts from `start` to `end`; `rate` is in units a second so far."""

    def __init__(self, what: str, start: int, end: int, unit: str = "records") -> None:
        self._what = what
        self._start, self._end = start, max(end, start)
        self._unit = unit
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._due = self._began + (0.0 if self._terminal else LINE_S)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def rate(self, at: int) -> float:
        return (at - self._start) / max(self.elapsed_s, 1e-9)

    def show(self, at: int) -> None:
        """Draw, if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + (REDRAW_S if self._terminal else LINE_S)
        self._draw(at)

    def finish(self) -> None:
        """Leave the line of the bar."""
        if self._terminal:
            print("\r" + " " * (len(self._what) + BAR_WIDTH + 60) + "\r", end="", file=sys.stderr, flush=True)

    def _draw(self, at: int) -> None:
        share = 1.0 if self._end == self._start else (at - self._start) / (self._end - self._start)
        done = int(share * BAR_WIDTH)
        rate = self.rate(at)
        left_s = (self._end - at) / rate if rate > 0 else 0.0
        text = (
            f"{self._what} [{'#' * done}{'.' * (BAR_WIDTH - done)}] {share:4.0%}  {at} of {self._end}, "
            f"{rate:,.0f} {self._unit}/s, {left_s:.0f} s left"
        )
        print(f"\r{text} " if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr, flush=True)
