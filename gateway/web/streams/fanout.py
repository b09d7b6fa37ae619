"""The same bytes to many connections: one frame, one native call, and a bounded queue for whoever does not keep up.

A connection whose socket takes everything is `clear`: frames go to the kernel directly, nothing is copied or kept for
it. One that does not keeps what it missed: the newest message of streams where only that counts, all of the others, up
to `queue_bytes`; beyond, it is closed. TLS connections are never clear: their transport encrypts.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy
import orjson

from gateway._gateway import ffi, lib
from gateway.web.streams.names import Stream

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_FINAL, _LENGTH_16, _LENGTH_64 = 0x80, 126, 127
TLS_UNSENT_BYTES = 65536
DESCRIPTORS_STEP = 1024
READY_MAX = 4096
READ_BYTES = 65536
Make = Callable[[int], Any]


def ws_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a whole WebSocket frame of a server."""
    size = len(payload)
    if size < _LENGTH_16:
        return bytes((_FINAL | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((_FINAL | opcode, _LENGTH_16)) + size.to_bytes(2, "big") + payload
    return bytes((_FINAL | opcode, _LENGTH_64)) + size.to_bytes(8, "big") + payload


class FanOut:
    """All outlets of a worker."""

    def __init__(self, queue_bytes: int) -> None:
        self.queue_bytes = queue_bytes
        self.clear = numpy.zeros(DESCRIPTORS_STEP, dtype=numpy.uint8)
        self.behind: set[Outlet] = set()  # have something queued, or are never clear
        self.encrypted: set[Outlet] = set()  # are never clear
        self.by_socket: dict[int, Outlet] = {}
        self.epoll = select.epoll()
        self.frames = self.sends = self.conflated = self.slow_closed = 0

    def close(self) -> None:
        self.epoll.close()

    def reserve(self, descriptor: int) -> None:
        while descriptor >= len(self.clear):
            self.clear = numpy.concatenate((self.clear, numpy.zeros(len(self.clear), dtype=numpy.uint8)))

    def poll(self) -> None:
        """Read what has come; give those who are behind what their sockets now take."""
        for descriptor, events in self.epoll.poll(0, READY_MAX):
            outlet = self.by_socket.get(descriptor)
            if outlet is not None and events & select.EPOLLOUT:
                outlet.flush()
            if outlet is not None and events & ~select.EPOLLOUT and not outlet.closed:
                outlet.receive()
        for outlet in list(self.encrypted):
            outlet.flush()


class Outlet:
    """One connection: its way out, and for plain ones the way in as well.

    `broken` is told, with a reason, when it cannot go on; `heard` what has come, b"" at the end.
    """

    __slots__ = ("_backlog", "_backlog_bytes", "_fan", "_heard", "_latest", "_transport", "broken", "closed",
                 "conflated", "descriptor", "encrypted")  # fmt: skip

    def __init__(
        self, fan: FanOut, transport: Any, broken: Callable[[str], None], heard: Callable[[bytes], None]
    ) -> None:
        """Take a connection whose handshake has been sent. A plain one is ours from now on: the transport ends."""
        self._fan = fan
        self._transport = transport
        self._heard = heard
        self.broken = broken
        self.encrypted = transport.get_extra_info("ssl_object") is not None
        # Ours, so that no other connection gets the number while groups hold it.
        self.descriptor = os.dup(transport.get_extra_info("socket").fileno())
        self._backlog: deque[bytes | memoryview] = deque()
        self._backlog_bytes = 0
        self._latest: dict[Stream, bytes] = {}
        self.conflated = 0
        self.closed = False
        fan.reserve(self.descriptor)
        fan.by_socket[self.descriptor] = self
        fan.clear[self.descriptor] = not self.encrypted
        if self.encrypted:
            fan.behind.add(self)
            fan.encrypted.add(self)
        else:
            fan.epoll.register(self.descriptor, select.EPOLLIN)
            transport.abort()  # its descriptor; the connection goes on with ours
            self._transport = None

    @property
    def takes_more(self) -> bool:
        """Whether it is open and nothing waits for its socket."""
        if self.closed:
            return False
        if self.encrypted:
            return not self._backlog and self._transport.get_write_buffer_size() < TLS_UNSENT_BYTES
        return bool(self._fan.clear[self.descriptor])

    def receive(self) -> None:
        """Read what has come."""
        try:
            data = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._heard(data)

    def send(self, frame: bytes) -> None:
        """Send an answer, a ping: in its turn, never left out."""
        if self.closed:
            return
        if self._fan.clear[self.descriptor]:
            self.missed(None, frame, self._try(frame))
        else:
            self.queue(None, frame)

    def queue(self, stream: Stream | None, frame: bytes) -> None:
        """Keep a frame for later. `stream`: one of which only the newest counts."""
        if self.closed:
            return
        if self.encrypted and not self._backlog and self._transport.get_write_buffer_size() < TLS_UNSENT_BYTES:
            self._transport.write(frame)
        elif stream is not None and stream.latest_only:
            if self._latest.pop(stream, None) is not None:
                self.conflated += 1
                self._fan.conflated += 1
            self._latest[stream] = frame
        else:
            self._backlog.append(frame)
            self._backlog_bytes += len(frame)
            if self._backlog_bytes > self._fan.queue_bytes:
                self._fan.slow_closed += 1
                self.fail("the reader is too slow")

    def missed(self, stream: Stream | None, frame: bytes, taken: int) -> None:
        """A send took only part of it."""
        if taken == len(frame) or self.closed:
            return
        if taken < 0:
            self.fail("the connection is broken")
            return
        fan = self._fan
        fan.clear[self.descriptor] = 0
        fan.behind.add(self)
        fan.epoll.modify(self.descriptor, select.EPOLLIN | select.EPOLLOUT)
        if taken:
            rest = memoryview(frame)[taken:]
            self._backlog.append(rest)
            self._backlog_bytes += len(rest)
        else:
            self.queue(stream, frame)

    def flush(self) -> None:
        """Send what is queued, as far as it goes."""
        if self.encrypted:
            while not self.closed and self._transport.get_write_buffer_size() < TLS_UNSENT_BYTES:
                waiting = self._pop()
                if waiting is None:
                    return
                self._transport.write(waiting)
            return
        while not self.closed:
            frame = self._pop()
            if frame is None:
                self._fan.epoll.modify(self.descriptor, select.EPOLLIN)
                self._fan.behind.discard(self)
                self._fan.clear[self.descriptor] = 1
                return
            taken = self._try(frame)
            if taken < 0:
                self.fail("the connection is broken")
            elif taken < len(frame):
                rest = memoryview(frame)[taken:]
                self._backlog.appendleft(rest)
                self._backlog_bytes += len(rest)
                return

    def _pop(self) -> bytes | memoryview | None:
        if self._backlog:
            frame = self._backlog.popleft()
            self._backlog_bytes -= len(frame)
            return frame
        return self._latest.pop(next(iter(self._latest))) if self._latest else None

    def _try(self, frame: bytes | memoryview) -> int:
        """Return how many bytes the socket took, negative when it is broken."""
        self._fan.sends += 1
        return int(lib.fanout_send_one(self.descriptor, ffi.from_buffer(frame), len(frame)))

    def fail(self, reason: str) -> None:
        """It cannot go on: what is queued is worthless."""
        if not self.closed:
            self._latest.clear()
            while len(self._backlog) > 1 or (self._backlog and isinstance(self._backlog[0], bytes)):
                self._backlog.pop()  # a frame of which a part is out must be ended
            self._backlog_bytes = sum(len(each) for each in self._backlog)
            self.broken(reason)

    def close(self) -> None:
        """Forget it; no group may hold it any more."""
        if self.closed:
            return
        self.closed = True
        fan = self._fan
        fan.clear[self.descriptor] = 0
        if not self.encrypted:
            fan.epoll.unregister(self.descriptor)
        fan.behind.discard(self)
        fan.encrypted.discard(self)
        del fan.by_socket[self.descriptor]
        self._backlog.clear()
        self._latest.clear()
        os.close(self.descriptor)


class Group:
    """Outlets that get the same bytes."""

    def __init__(self, fan: FanOut) -> None:
        self._fan = fan
        self._index: dict[Outlet, int] = {}
        self._outlets: list[Outlet] = []
        self._sockets = numpy.zeros(16, dtype=numpy.int32)

    def __len__(self) -> int:
        return len(self._outlets)

    def add(self, outlet: Outlet) -> None:
        count = len(self._outlets)
        if count == len(self._sockets):
            self._sockets = numpy.concatenate((self._sockets, self._sockets))
        self._index[outlet] = count
        self._outlets.append(outlet)
        self._sockets[count] = outlet.descriptor

    def remove(self, outlet: Outlet) -> bool:
        """Return whether it was among them."""
        index = self._index.pop(outlet, None)
        if index is None:
            return False
        last = self._outlets.pop()
        if last is not outlet:
            self._outlets[index], self._index[last] = last, index
            self._sockets[index] = last.descriptor
        return True

    def outlets(self) -> list[Outlet]:
        return list(self._outlets)

    def deliver(self, stream: Stream | None, frame: bytes) -> None:
        """Send a frame to all; without a stream it is one that nobody may miss."""
        fan, count = self._fan, len(self._outlets)
        waiting: list[Outlet] = []
        if fan.behind:
            sockets = self._sockets[:count]
            waiting = [self._outlets[index] for index in numpy.flatnonzero(fan.clear[sockets] == 0)]
        failed, sent = numpy.empty(count, dtype=numpy.int32), numpy.empty(count, dtype=numpy.int64)
        failures = lib.fanout_send(
            ffi.from_buffer("int32_t[]", self._sockets),
            count,
            ffi.from_buffer("uint8_t[]", fan.clear),
            ffi.from_buffer(frame),
            len(frame),
            ffi.from_buffer("int32_t[]", failed),
            ffi.from_buffer("int64_t[]", sent),
        )
        fan.sends += count
        hit = [(self._outlets[int(failed[at])], int(sent[at])) for at in range(failures)]
        for outlet, taken in hit:
            outlet.missed(stream, frame, taken)
        for outlet in waiting:  # after the others: nobody waits for those who do not keep up
            outlet.queue(stream, frame)


class Audience:
    """Who listens to one stream, by the form they want it in: (wrapped with its name, unit of times)."""

    def __init__(self, fan: FanOut, stream: Stream) -> None:
        self._fan = fan
        self.stream = stream
        self._groups: dict[tuple[bool, int], Group] = {}
        self._head = b'{"stream":"' + stream.name.encode() + b'","data":'
        self._newest: Make | None = None

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups.values())

    def add(self, outlet: Outlet, *, combined: bool, unit_ns: int, newest: bool = True) -> None:
        """Add a listener; it gets the newest message at once where only that counts."""
        self._groups.setdefault((combined, unit_ns), Group(self._fan)).add(outlet)
        if newest and self._newest is not None:
            outlet.send(self.frame(self._newest, combined=combined, unit_ns=unit_ns))

    def remove(self, outlet: Outlet) -> bool:
        """Return whether it was among them."""
        found = False
        for key, group in list(self._groups.items()):
            found |= group.remove(outlet)
            if not group:
                del self._groups[key]
        return found

    def tell(self, *made: Make, keep: bool = False) -> None:
        """Format each message once per form and send it to all; several go out together. `keep`: even to the slow."""
        if self.stream.latest_only:
            self._newest = made[-1]
        bodies: dict[int, list[bytes]] = {}
        for (combined, unit_ns), group in list(self._groups.items()):
            if unit_ns not in bodies:
                bodies[unit_ns] = [orjson.dumps(make(unit_ns)) for make in made]
            frames = b"".join(ws_frame(self._wrapped(body, combined=combined)) for body in bodies[unit_ns])
            self._fan.frames += len(made)
            group.deliver(None if keep else self.stream, frames)

    def tell_frames(self, count: int, made: Callable[[bytes, int], bytes]) -> None:
        """Send `count` messages as frames that `made` makes of (what stands before the payload, unit of times)."""
        for (combined, unit_ns), group in list(self._groups.items()):
            self._fan.frames += count
            group.deliver(self.stream, made(self._head if combined else b"", unit_ns))

    def fail(self, reason: str) -> None:
        """None of them can go on."""
        for group in list(self._groups.values()):
            for outlet in group.outlets():
                outlet.fail(reason)

    def frame(self, make: Make, *, combined: bool, unit_ns: int) -> bytes:
        """Return one message in one form."""
        return ws_frame(self._wrapped(orjson.dumps(make(unit_ns)), combined=combined))

    def _wrapped(self, body: bytes, *, combined: bool) -> bytes:
        return self._head + body + b"}" if combined else body
