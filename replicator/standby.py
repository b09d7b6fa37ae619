"""The standby's side of the stream: what it appends (Z3) and acknowledges, and where its log and the primary's part."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Protocol

from journaler.chain import LogPosition, extend
from replicator.config import SLOT_SIZE
from replicator.protocol import Append


class LogSink(Protocol):
    """The log ring, whose producer the standby's replicator is."""

    def append(self, records: bytes, wanted: int) -> bool:
        """Publish whole groups at the end; False if there is no room now."""

    def copy(self, first: int, count: int) -> bytes | None:
        """Return records that were appended before; None if the ring has moved on."""


class Verdict(StrEnum):
    APPENDED = "appended"
    DUPLICATE = "duplicate"  # byte-identical to what is there
    GAP = "gap"  # begins above our end: something was lost on the way
    FULL = "full"  # no room in the ring; kept until there is
    FORKED = "forked"  # not what our log has, or not what it continues


class LogReceiver:
    """Appends frames in order. Whether the epoch may be appended at all is the state machine's `accepts`."""

    def __init__(self, sink: LogSink, position: LogPosition, waiting_bytes_max: int) -> None:
        """`position`: the end of our log, all of it durable."""
        self._sink = sink
        self._position = position
        self._ends: deque[LogPosition] = deque([position])
        self._waiting: deque[Append] = deque()
        self._waiting_bytes = 0
        self._waiting_bytes_max = waiting_bytes_max
        self.duplicates = 0

    @property
    def position(self) -> LogPosition:
        """The end of what was appended."""
        return self._position

    def append(self, frame: Append) -> Verdict:
        """Take one frame of an accepted epoch."""
        if self._waiting:
            return self._wait(frame)
        return self._append(frame)

    def resume(self) -> Verdict | None:
        """Try frames that waited for room; return the last verdict, None if none waited."""
        verdict = None
        while self._waiting:
            verdict = self._append(self._waiting[0])
            if verdict is Verdict.FULL:
                break
            self._waiting_bytes -= len(self._waiting.popleft().records)
            if verdict is Verdict.FORKED:
                self._waiting.clear()
                self._waiting_bytes = 0
        return verdict

    def durable_end(self, durable: int) -> LogPosition:
        """Return the last frame end at or below `durable`: what may be acknowledged."""
        while len(self._ends) > 1 and self._ends[1].sequence <= durable:
            self._ends.popleft()
        return self._ends[0]

    def _append(self, frame: Append) -> Verdict:
        end = self._position.sequence
        if frame.first > end:
            return Verdict.GAP
        if frame.end <= end:
            return self._compare(frame)
        if frame.first == end and frame.chain_before != self._position.chain:
            return Verdict.FORKED
        records = frame.records[(end - frame.first) * SLOT_SIZE :]
        position = extend(self._position, records)
        if position.chain != frame.chain_after:
            # Covers what overlaps with our log, too: equal chains are equal logs.
            return Verdict.FORKED
        if not self._sink.append(records, frame.wanted):
            return Verdict.FULL if self._waiting else self._wait(frame)
        self._position = position
        self._ends.append(position)
        return Verdict.APPENDED

    def _compare(self, frame: Append) -> Verdict:
        ours = self._sink.copy(frame.first, frame.end - frame.first)
        self.duplicates += 1
        return Verdict.DUPLICATE if ours is None or ours == frame.records else Verdict.FORKED

    def _wait(self, frame: Append) -> Verdict:
        """Keep a frame until the disk has made room; what does not fit is sent again by the primary."""
        if self._waiting_bytes + len(frame.records) > self._waiting_bytes_max:
            return Verdict.GAP
        self._waiting.append(frame)
        self._waiting_bytes += len(frame.records)
        return Verdict.FULL


class ForkSearch:
    """Finds the last sequence below which our log and the primary's are the same, asking for one chain at a time.

    `probe` is the sequence to ask about; give both chains to `answer` until `common` is known.
    """

    def __init__(self, own_end: int) -> None:
        self.own_end = own_end
        self._same = 0  # two logs are the same below 0
        self._differ = own_end + 1
        self.probe = own_end

    @property
    def common(self) -> int | None:
        """The number of records both logs begin with, once it is known."""
        return self._same if self._differ - self._same <= 1 else None

    def answer(self, ours: int, theirs: int) -> None:
        """The chains at `probe`."""
        if ours == theirs:
            self._same = self.probe
        else:
            self._differ = self.probe
        self.probe = (self._same + self._differ) // 2

    def ends_at(self, log_end: int) -> None:
        """The primary's log ends below `probe`."""
        if log_end < self.probe:
            self._differ = min(self._differ, log_end + 1)
            self.probe = max(self._same, log_end)
