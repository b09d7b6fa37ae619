"""The primary's side of the stream: what is sent, how far ahead of the acknowledgements, and which of them count."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from journaler.chain import LogPosition, extend
from replicator.config import SLOT_SIZE, StreamConfig
from replicator.errors import LogForked
from replicator.protocol import Append


class LogSource(Protocol):
    """Where records to be sent come from: the ring, the files behind it."""

    def read(self, first: int, end: int, slots_max: int) -> bytes | None:
        """Return whole groups from `first` on, below `end`; None if they cannot be had just now."""


class LogSender:
    """Sends the log to one standby. Cumulative acknowledgements, a window by bytes (Z4), sending again on request.

    Acknowledgements come at the ends of frames, where both sides know the chain.
    """

    def __init__(self, source: LogSource, config: StreamConfig, start: LogPosition) -> None:
        """`start`: where the standby's log ends; its chain there has been found equal to ours."""
        self._source = source
        self._config = config
        self._next = start
        self._acked = start.sequence
        self._known: dict[int, LogPosition] = {start.sequence: start}  # frame ends not below the last acknowledged one
        self._order: deque[int] = deque([start.sequence])

    @property
    def next_sequence(self) -> int:
        """What is sent next."""
        return self._next.sequence

    @property
    def acked(self) -> int:
        return self._acked

    @property
    def window_left(self) -> int:
        """Bytes that may be sent before an acknowledgement must come."""
        return self._config.window_bytes - (self._next.sequence - self._acked) * SLOT_SIZE

    def frames_to(self, end: int, *, commit: int, wanted: int) -> Iterator[Append]:
        """Yield frames with the records below `end` as far as window and source allow."""
        slots_max = self._config.frame_bytes // SLOT_SIZE
        while self._next.sequence < end and self.window_left >= self._config.frame_bytes:
            first = self._next
            records = self._source.read(first.sequence, end, slots_max)
            if not records:
                return
            self._next = extend(first, records)
            self._remember(self._next)
            yield Append(first.sequence, first.chain, self._next.chain, commit, wanted, records)

    def acknowledge(self, sequence: int, chain: int) -> bool:
        """Take an acknowledgement; False if it says nothing new or names no frame end we know.

        Raises LogForked if the standby's chain there is another one.
        """
        position = self._known.get(sequence)
        if position is None or sequence < self._acked:
            return False
        if position.chain != chain:
            raise LogForked("acknowledged another log", sequence=sequence, ours=position.chain, theirs=chain)
        self._acked = sequence
        while self._order[0] < sequence:
            self._known.pop(self._order.popleft(), None)
        return True

    def rewind(self, sequence: int) -> bool:
        """Send again from `sequence` on; False if we do not remember the chain there."""
        position = self._known.get(sequence)
        if position is None:
            return False
        if position.sequence < self._next.sequence:
            self._next = position
        return True

    def position_at(self, sequence: int) -> LogPosition | None:
        """Return what is known of the log there without reading it again."""
        return self._known.get(sequence)

    def _remember(self, position: LogPosition) -> None:
        if position.sequence not in self._known:
            # After a rewind frames may end elsewhere than before: in the order of sequences, so that all old ends go.
            if self._order and position.sequence < self._order[-1]:
                self._order = deque(sorted((*self._order, position.sequence)))
            else:
                self._order.append(position.sequence)
        self._known[position.sequence] = position
