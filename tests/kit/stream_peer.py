"""The other end of a stream's outlet, in this process: what it was sent."""

import json
import socket
from typing import Any

from gateway.web.streams.fanout import FanOut, Outlet

SEND_BYTES = 4096


class Transport:
    """As much of one as an outlet asks for."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made

    def get_extra_info(self, name: str) -> Any:
        return self._socket if name == "socket" else None

    def abort(self) -> None:
        self._socket.close()


class Peer:
    """A client whose socket takes little: what it does not read stays with the server."""

    def __init__(self, fan: FanOut) -> None:
        ours, self.socket = socket.socketpair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self.reasons: list[str] = []
        self.heard: list[bytes] = []
        self.outlet = Outlet(fan, Transport(ours), self.reasons.append, self.heard.append)
        self._unread = b""

    def read(self) -> bytes:
        """Return all bytes that have come."""
        self.socket.setblocking(False)
        data = b""
        while True:
            try:
                data += self.socket.recv(1 << 20)
            except BlockingIOError:
                return data

    def messages(self) -> list[Any]:
        """Return the content of all whole text frames that have come."""
        self._unread += self.read()
        found = []
        while (frame := _frame(self._unread)) is not None:
            payload, self._unread = frame
            found.append(json.loads(payload))
        return found


def _frame(data: bytes) -> tuple[bytes, bytes] | None:
    """Return the first payload and what follows it."""
    if len(data) < 2:
        return None
    size, at = data[1], 2
    if size > 125:
        width = 2 if size == 126 else 8
        size, at = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
    return None if len(data) < at + size else (data[at : at + size], data[at + size :])
