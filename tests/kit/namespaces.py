"""Network namespaces joined by links that lose, double and reorder frames: for tests that may make them (root)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
# Checksums and segments would be left to a card that is not there: a frame must be whole when it is seen.
ETHTOOL_OFF = (0x17, 0x19, 0x1F, 0x24)  # set: transmit checksum, scatter-gather, TSO, GSO
ETH_P_ALL = 3
PACKET_OUTGOING = 4
_libc = ctypes.CDLL(None, use_errno=True)


def available() -> bool:
    """Whether this process may make network namespaces."""
    name = f"bullring{os.getpid()}x"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    subprocess.run(["ip", "netns", "del", name], check=True, capture_output=True)
    return True


@dataclass
class Faults:
    """What happens to a frame, as probabilities; `down` loses all."""

    loss: float = 0.0
    double: float = 0.0
    late: float = 0.0  # overtaken by some of those behind it
    down: bool = False


class Network:
    """Two hosts, "a" and "b", joined by some links. Link n (from 1) has the addresses 10.77.n.1 and 10.77.n.2."""

    def __init__(self, *links: Faults, seed: int = 1) -> None:
        self.links = links
        self.frames = self.lost = self.doubled = self.reordered = 0
        self._tag = f"bullring{os.getpid()}"
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def __enter__(self) -> Self:
        for host in ("a", "b", "m"):
            self._ip("netns", "add", self._name(host))
        for number in range(1, len(self.links) + 1):
            for place, host in ((1, "a"), (2, "b")):
                end, middle = f"{host}{number}", f"m{host}{number}"
                peer = ["type", "veth", "peer", "name", middle, "netns", self._name("m")]
                self._ip("link", "add", end, "netns", self._name(host), *peer)
                self._ip("-n", self._name(host), "addr", "add", f"10.77.{number}.{place}/24", "dev", end)
                self._ip("-n", self._name(host), "link", "set", end, "up")
                self._ip("-n", self._name("m"), "link", "set", middle, "promisc", "on", "up")
        self.run("m", self._forward)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        for host in ("a", "b", "m"):
            subprocess.run(["ip", "netns", "del", self._name(host)], check=False, capture_output=True)
        if error is None and self._failures:
            raise self._failures[0]

    def run(self, host: str, work: Callable[[], Any]) -> threading.Thread:
        """Run on a thread whose sockets are in a host's namespace. What it raises is raised at the end."""

        def inside() -> None:
            try:
                enter(self._name(host))
                work()
            except BaseException as error:
                self._failures.append(error)

        thread = threading.Thread(target=inside, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _forward(self) -> None:
        ends: dict[int, tuple[socket.socket, Faults]] = {}
        for number, faults in enumerate(self.links, 1):
            pair = [_whole_frames(f"m{host}{number}") for host in ("a", "b")]
            ends[pair[0].fileno()] = (pair[1], faults)
            ends[pair[1].fileno()] = (pair[0], faults)
        sockets = {each.fileno(): each for each, _ in ends.values()}
        late: list[tuple[int, socket.socket, bytes]] = []
        while not self._stop.is_set():
            ready, _, _ = select.select(list(sockets), [], [], 0.005)
            for fd in ready:
                frame, address = sockets[fd].recvfrom(65536)
                if address[2] == PACKET_OUTGOING:
                    continue
                other, faults = ends[fd]
                self.frames += 1
                self._pass(other, faults, frame, late)
            # A frame that is late is overtaken by what came meanwhile, or waits for the next turn of silence.
            due = [each for each in late if self.frames >= each[0]] if ready else late
            for each in due:
                _send(each[1], each[2])
            late = [each for each in late if each not in due]

    def _pass(
        self, other: socket.socket, faults: Faults, frame: bytes, late: list[tuple[int, socket.socket, bytes]]
    ) -> None:
        dice = self._random.random()
        if faults.down or dice < faults.loss:
            self.lost += 1
            return
        if dice < faults.loss + faults.late:
            self.reordered += 1
            late.append((self.frames + 1 + self._random.randrange(8), other, frame))
            return
        _send(other, frame)
        if dice < faults.loss + faults.late + faults.double:
            self.doubled += 1
            _send(other, frame)

    def _name(self, host: str) -> str:
        return self._tag + host

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


def enter(name: str) -> None:
    """Put this thread into a namespace: sockets it opens are there."""
    with Path("/run/netns", name).open("rb") as file:
        if _libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}")


def _whole_frames(interface: str) -> socket.socket:
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    found.bind((interface, 0))
    return found


def send_whole_frames(interface: str) -> None:
    """Have an interface of this namespace leave nothing of a frame to a card."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in ETHTOOL_OFF:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", interface.encode(), ctypes.addressof(value)) + bytes(16)
            fcntl.ioctl(control, SIOCETHTOOL, request)


def _send(other: socket.socket, frame: bytes) -> None:
    for _ in range(1000):
        try:
            other.send(frame)
            return
        except OSError:  # the queue of the device is full
            time.sleep(0.0001)
