"""MoldUDP64 for a client: packets of both lines in, every message once and in order out; what is missing is told."""

from __future__ import annotations

import struct
from collections.abc import Iterator

MOLD_HEADER = struct.Struct(">10sQH")
LENGTH = struct.Struct(">H")
END_OF_SESSION = 0xFFFF
CHANNEL_SIZE = 5  # the part of a session's name that names the channel
REQUEST_MAX = 0xFFFE
HELD_MAX = 65536  # messages kept while one before them is missing
PATIENCE_S = 0.0005  # the other line may bring what is missing
RETRY_S = 0.02
ATTEMPTS_MAX = 10


class MalformedPacket(ValueError):
    """A datagram that is no MoldUDP64 packet."""


class NewSession(Exception):
    """Packets of the channel have another generation: history began anew."""

    def __init__(self, session: str) -> None:
        super().__init__(session)
        self.session = session


def parse_packet(data: bytes) -> tuple[str, int, int, list[bytes]]:
    """Return session, first number, count (END_OF_SESSION at the end) and messages. Raises MalformedPacket."""
    if len(data) < MOLD_HEADER.size:
        raise MalformedPacket(f"{len(data)} bytes: a packet has at least {MOLD_HEADER.size}")
    session, first, count = MOLD_HEADER.unpack_from(data)
    messages: list[bytes] = []
    at = MOLD_HEADER.size
    for _ in range(0 if count == END_OF_SESSION else count):
        if len(data) < at + LENGTH.size:
            raise MalformedPacket(f"message {first + len(messages)} is cut off")
        (size,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size
        if len(data) < at + size:
            raise MalformedPacket(f"message {first + len(messages)} is cut off")
        messages.append(data[at : at + size])
        at += size
    return session.decode("ascii", "replace"), first, count, messages


class Arbiter:
    """One channel. Feed it everything that comes, from lines, re-requests and replay; take what is due."""

    def __init__(self, channel: int, *, next_number: int | None = None) -> None:
        """Begin at `next_number`; None = hold everything until `resume()` says where to begin."""
        self.session = f"BR{channel:03}"  # all ten characters once a packet has come
        self.next = next_number
        self.end = 1  # one above the largest number heard of
        self.ended = False
        self.duplicates = self.gaps = self.requests = 0
        self._held: dict[int, bytes] = {}
        self._gap_at: float | None = None
        self._gap_next: int | None = None
        self._asked_at: float | None = None
        self._asked = 0

    def concerns(self, data: bytes) -> bool:
        """Whether a datagram says that it is a packet of this channel, of whichever generation."""
        return len(data) >= MOLD_HEADER.size and data.startswith(self.session[:CHANNEL_SIZE].encode())

    def packet(self, data: bytes, now: float) -> Iterator[tuple[int, bytes]]:
        """Take a datagram; yield (number, message) that are due. Raises MalformedPacket or NewSession."""
        session, first, count, messages = parse_packet(data)
        if not session.startswith(self.session):
            if session[:CHANNEL_SIZE] == self.session[:CHANNEL_SIZE] and count != END_OF_SESSION:
                raise NewSession(session)
            return
        self.session = session
        self.ended |= count == END_OF_SESSION
        self.end = max(self.end, first + len(messages))
        for place, message in enumerate(messages):
            yield from self.message(first + place, message, now)
        self._note(now)

    def message(self, number: int, message: bytes, now: float) -> Iterator[tuple[int, bytes]]:
        """Take a single message; yield what is due."""
        self.end = max(self.end, number + 1)
        if self.next is not None and number < self.next:
            self.duplicates += 1
        elif self.next == number:
            self.next += 1
            yield number, message
            yield from self._due()
        elif number in self._held:
            self.duplicates += 1
        elif len(self._held) < HELD_MAX:
            self._held[number] = message
        self._note(now)

    def resume(self, next_number: int, now: float) -> Iterator[tuple[int, bytes]]:
        """Begin at `next_number`; yield what is due."""
        self.next = next_number
        self._held = {number: message for number, message in self._held.items() if number >= next_number}
        yield from self._due()
        self._note(now)

    @property
    def missing(self) -> int:
        """How many messages are known to exist and have not been delivered."""
        return 0 if self.next is None else max(0, self.end - self.next)

    def request(self, now: float) -> bytes | None:
        """Return what to send to the re-request server now, None if nothing."""
        if self._gap_at is None or self.next is None or self._asked >= ATTEMPTS_MAX or now - self._gap_at < PATIENCE_S:
            return None
        if self._asked_at is not None and now - self._asked_at < RETRY_S:
            return None
        end = min(self._held, default=self.end)
        self._asked_at = now
        self._asked += 1
        self.requests += 1
        return MOLD_HEADER.pack(self.session.encode(), self.next, min(end - self.next, REQUEST_MAX))

    def lost(self, now: float) -> bool:
        """Whether asking has not helped: replay over TCP."""
        if self._gap_at is None or self._asked < ATTEMPTS_MAX or self._asked_at is None:
            return False
        return now - self._asked_at >= RETRY_S

    def _due(self) -> Iterator[tuple[int, bytes]]:
        while self.next is not None and (message := self._held.pop(self.next, None)) is not None:
            self.next += 1
            yield self.next - 1, message

    def _note(self, now: float) -> None:
        if not self.missing:
            self._gap_at = None
        elif self._gap_at is None or self._gap_next != self.next:
            self.gaps += self._gap_at is None
            self._gap_at, self._asked_at, self._asked = now, None, 0
        self._gap_next = self.next
