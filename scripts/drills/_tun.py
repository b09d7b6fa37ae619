"""A bad network between the two nodes' replicators: a TUN device on each host, this program the wire between them.

Packets are delayed, lost, doubled and put out of order before TCP sees them: as a bad link does it.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType

from scripts.drills import DrillSkipped
from scripts.drills._net import Network
from scripts.exit_codes import ExitCode

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x1, 0x1000
DEVICE = "wire0"
PACKET_MAX = 65536
CLONE_NEWNET = 0x40000000
_ADDRESSES = {"a": "10.199.0.1", "b": "10.199.0.2"}


@dataclass
class Impairment:
    """What happens to each packet."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0  # packets of different delay overtake one another


class Wire:
    """The two devices and the thread between them. Set `impairment` at any time."""

    def __init__(self, network: Network, seed: int) -> None:
        if not Path("/dev/net/tun").exists():
            raise DrillSkipped("no /dev/net/tun here: packets cannot be delayed", ExitCode.UNAVAILABLE)
        self.impairment = Impairment()
        self.packets = self.lost = 0
        self._rng = random.Random(seed)
        self._devices = {host: _open(network, host) for host in _ADDRESSES}
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    @staticmethod
    def address(host: str) -> str:
        return _ADDRESSES[host]

    def __enter__(self) -> Wire:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for device in (*self._devices.values(), self._stop):
            os.close(device)

    def _run(self) -> None:
        first, second = self._devices.values()
        other = {first: second, second: first}
        queue: list[tuple[float, int, int, bytes]] = []
        numbers = count()
        poller = select.epoll()
        for device in (first, second, self._stop):
            poller.register(device, select.EPOLLIN)
        while True:
            timeout = max(0.0, queue[0][0] - time.monotonic()) if queue else None
            for descriptor, _ in poller.poll(timeout):
                if descriptor == self._stop:
                    poller.close()
                    return
                packet = os.read(descriptor, PACKET_MAX)
                self.packets += 1
                for due in self._fate():
                    heapq.heappush(queue, (due, next(numbers), other[descriptor], packet))
            while queue and queue[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(queue)
                os.write(target, packet)

    def _fate(self) -> list[float]:
        """When copies of a packet arrive; none if it is lost."""
        rng, how = self._rng, self.impairment
        if rng.random() < how.loss:
            self.lost += 1
            return []
        copies = 2 if rng.random() < how.duplication else 1
        now = time.monotonic()
        return [now + (how.delay_ms + rng.uniform(0, how.jitter_ms)) / 1000 for _ in range(copies)]


def _open(network: Network, host: str) -> int:
    """Make the device in the host's namespace; the descriptor stays ours."""
    space = network.namespace(host)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/var/run/netns/{space}", os.O_RDONLY)
    try:
        _enter(there)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    finally:
        _enter(home)
        os.close(home)
        os.close(there)
    peer = next(address for name, address in _ADDRESSES.items() if name != host)
    for command in (
        ("addr", "add", _ADDRESSES[host], "peer", peer, "dev", DEVICE),
        ("link", "set", DEVICE, "up"),
    ):
        subprocess.run(["ip", "-n", space, *command], check=True, capture_output=True)
    return device


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
