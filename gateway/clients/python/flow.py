"""The two numbered flows of a session as a client keeps them: own requests, and reports of one partition. No I/O."""

from typing import Generic, TypeVar

from ringbuf.wire.base import WireMessage
from ringbuf.wire.codec import encode_frame
from ringbuf.wire.messages import FrameFlag

Item = TypeVar("Item")
_FLAGS_OFFSET = 14


class OwnFlow:
    """Own requests, kept until they are known to be in the log."""

    def __init__(self) -> None:
        self.next_seq = 1
        self._taken = 0
        self._frames: dict[int, bytes] = {}

    def restart(self) -> None:
        """A new version of the session: numbers begin at 1."""
        self.next_seq = 1
        self._taken = 0
        self._frames.clear()

    def add(self, message: WireMessage, sending_time: int, *, more: bool = False) -> tuple[int, bytes]:
        """Number a request and keep its frame; `more` links it with the next one."""
        seq_num = self.next_seq
        flags = FrameFlag.MORE if more else 0
        frame = encode_frame(message, seq_num=seq_num, flags=flags, sending_time=sending_time)
        self._frames[seq_num] = frame
        self.next_seq += 1
        return seq_num, frame

    def taken(self, seq_num: int) -> None:
        """Requests up to `seq_num` are in the log: admission is in order, so an answer to one shows those before it."""
        while self._taken < seq_num:
            self._taken += 1
            self._frames.pop(self._taken, None)
        self.next_seq = max(self.next_seq, self._taken + 1)

    def resend(self, from_seq: int) -> list[bytes]:
        """Return the kept frames from `from_seq` on: same number, same block, possResend set."""
        frames = []
        for seq_num in range(max(from_seq, self._taken + 1), self.next_seq):
            frame = bytearray(self._frames[seq_num])
            frame[_FLAGS_OFFSET] |= FrameFlag.POSS_RESEND
            frames.append(bytes(frame))
        return frames


class ReportFlow(Generic[Item]):
    """Reports of one partition: yields each number once and in order, tells what is missing."""

    def __init__(self) -> None:
        self.expected = 1
        self._end = 1  # numbers below exist
        self._waiting: dict[int, Item] = {}
        self._asked_from = 0
        self._asked_count = 0

    @property
    def missing(self) -> int:
        """How many numbers from `expected` on have not come although later ones exist."""
        if not self._waiting:
            return self._end - self.expected
        return min(self._waiting) - self.expected

    def bound(self, next_seq: int) -> bool:
        """The exchange's next number is `next_seq`; return whether something is missing."""
        self._end = max(self._end, next_seq)
        return self.missing > 0

    def add(self, seq_num: int, item: Item) -> list[Item]:
        """Take one report; return those that are now in order."""
        self._end = max(self._end, seq_num + 1)
        if seq_num < self.expected:
            return []
        self._waiting[seq_num] = item
        return self._ready()

    def in_order(self, seq_num: int) -> bool:
        """Take a report that its reader has at once, if it is the next one and nothing waits; False: use add()."""
        if seq_num != self.expected or self._waiting:
            return False
        self.expected = seq_num + 1
        self._end = max(self._end, self.expected)
        return True

    def asked(self, count: int) -> None:
        """A request for `count` reports from `expected` on is under way."""
        self._asked_from, self._asked_count = self.expected, count

    def progressed(self) -> bool:
        """Whether the last request has been answered in full."""
        return self.expected >= self._asked_from + self._asked_count

    def give_up(self) -> list[Item]:
        """Skip what is missing; return what is in order behind it."""
        self.expected += self.missing
        return self._ready()

    def _ready(self) -> list[Item]:
        ready = []
        while self.expected in self._waiting:
            ready.append(self._waiting.pop(self.expected))
            self.expected += 1
        return ready
