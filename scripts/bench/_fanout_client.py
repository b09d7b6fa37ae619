"""Subscribers of `bullring bench fanout`, in a process of their own: many connections, read as fast as they come.

Prints one line when all are connected; at the end of its input one JSON line of what came.
"""

from __future__ import annotations

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


def connect(port: int, path: str, *, silent: bool) -> socket.socket:
    made = socket.socket()
    if silent:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", port))
    if path != "-":
        made.sendall(HANDSHAKE.format(path=path).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += made.recv(4096)
    made.setblocking(False)
    return made


def main(arguments: list[str]) -> int:
    """PORT PATH CONNECTIONS SILENT: the last so many never read."""
    port, path, count, silent = int(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3])
    all_made = [connect(port, path, silent=at >= count - silent) for at in range(count)]
    sockets = {made.fileno(): made for made in all_made}
    epoll = select.epoll()
    for descriptor in list(sockets)[: count - silent]:
        epoll.register(descriptor, select.EPOLLIN)
    sampled = set(list(sockets)[: count - silent : SAMPLED])
    epoll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    print("connected", flush=True)
    total = 0
    delays: list[float] = []
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == sys.stdin.fileno():
                if not os.read(descriptor, 4096):
                    delays.sort()
                    told = {"bytes": total, "p50_us": at(delays, 0.5), "p99_us": at(delays, 0.99)}
                    print(json.dumps(told), flush=True)
                    return 0
                delays.clear()
                continue
            data = sockets[descriptor].recv(READ_BYTES)
            total += len(data)
            if descriptor in sampled and (found := data.rfind(STAMP)) >= 0:
                stamp = data[found + len(STAMP) : found + 32].split(b"}")[0].split(b",")[0]
                delays.append((time.monotonic_ns() - int(stamp)) / 1000)
            if not data:
                epoll.unregister(descriptor)


def at(values: list[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(len(values) * share))], 1) if values else None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
