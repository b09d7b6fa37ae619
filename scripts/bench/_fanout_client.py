"""Subscribers of `bullring bench fanout`, in a process of their own: many connections, read as fast as they come.

Prints one line when all are connected, and one JSON line of what came since the last for each line of its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
STAMP = b'"ns":'
SAMPLED = 10  # one connection of so many has its delays looked at
READ_BYTES = 1 << 18
SLOW_BYTES, SLOW_S = 256, 0.25  # what a slow one reads, and how often


def connect(port: int, path: str, *, hesitant: bool) -> socket.socket:
    made = socket.socket()
    if hesitant:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", port))
    if path != "-":
        made.sendall(HANDSHAKE.format(path=path).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += made.recv(4096)
    made.setblocking(False)
    return made


class Subscribers:
    """All of one process; the last `slow` read a little now and then, and the `dead` before them never."""

    def __init__(self, sockets: list[socket.socket], *, dead: int, slow: int) -> None:
        fast = len(sockets) - dead - slow
        self._by_descriptor = {made.fileno(): made for made in sockets}
        self._slow = sockets[fast + dead :]
        self.epoll = select.epoll()
        for made in sockets[:fast]:
            self.epoll.register(made.fileno(), select.EPOLLIN)
        self._sampled = {made.fileno() for made in sockets[:fast:SAMPLED]}
        self._delays_us: list[float] = []
        self._bytes = 0

    def read(self, descriptor: int) -> None:
        data = self._by_descriptor[descriptor].recv(READ_BYTES)
        self._bytes += len(data)
        if descriptor in self._sampled and (found := data.rfind(STAMP)) >= 0:
            stamp = data[found + len(STAMP) : found + 32].split(b"}")[0].split(b",")[0]
            self._delays_us.append((time.monotonic_ns() - int(stamp)) / 1000)
        if not data:
            self.epoll.unregister(descriptor)

    def read_slowly(self) -> None:
        for made in self._slow:
            with contextlib.suppress(BlockingIOError):  # it has read all there is: not slow enough for so little
                self._bytes += len(made.recv(SLOW_BYTES))

    def told(self) -> str:
        """Return what came since the last time."""
        self._delays_us.sort()
        line = {"bytes": self._bytes, "p50_us": at(self._delays_us, 0.5), "p99_us": at(self._delays_us, 0.99)}
        self._delays_us.clear()
        self._bytes = 0
        return json.dumps(line)

    @property
    def wait_s(self) -> float | None:
        return SLOW_S if self._slow else None


def main(arguments: list[str]) -> int:
    """PORT PATH CONNECTIONS DEAD SLOW."""
    port, path = int(arguments[0]), arguments[1]
    count, dead, slow = (int(word) for word in arguments[2:])
    fast = count - dead - slow
    subscribers = Subscribers([connect(port, path, hesitant=n >= fast) for n in range(count)], dead=dead, slow=slow)
    subscribers.epoll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    print("connected", flush=True)
    while True:
        for descriptor, _ in subscribers.epoll.poll(subscribers.wait_s):
            if descriptor != sys.stdin.fileno():
                subscribers.read(descriptor)
            elif os.read(descriptor, 4096):
                print(subscribers.told(), flush=True)
            else:
                return 0
        subscribers.read_slowly()


def at(values: list[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(len(values) * share))], 1) if values else None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
