"""Hosts as network namespaces on one bridge, and what can go wrong between them. Needs root and iproute2.

The drill itself is the clients' host: the bridge's own address. A host is cut off by taking its link down; one way
to another host by a route into nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from types import TracebackType

from scripts.drills import DrillSkipped
from scripts.exit_codes import ExitCode

HOSTS = {"a": 11, "b": 12, "etcd": 13}
CLIENT_HOST = 1
CLIENTS = "clients"


def needs_namespaces() -> None:
    """Raise DrillSkipped where hosts cannot be made of namespaces."""
    if os.geteuid() != 0:
        raise DrillSkipped("two hosts are two network namespaces: that takes root", ExitCode.NO_PERMISSION)
    for program, package in (("ip", "iproute2"), ("etcd", "etcd-server")):
        if shutil.which(program) is None:
            raise DrillSkipped(f"no {program} here: apt-get install {package}", ExitCode.UNAVAILABLE)


class Network:
    """Namespaces, bridge and links of one drill; all of it goes with the object."""

    def __init__(self) -> None:
        # Two drills at the same time must not meet: names and subnet are drawn.
        self._tag = secrets.token_hex(2)
        self._subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(254)}"
        self._bridge = f"br{self._tag}"
        self._made = False

    def __enter__(self) -> Network:
        _ip("link", "add", self._bridge, "type", "bridge")
        self._made = True
        _ip("addr", "add", f"{self._subnet}.{CLIENT_HOST}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for host, number in HOSTS.items():
            space, outer = self.namespace(host), self._outer(host)
            _ip("netns", "add", space)
            _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", outer, "master", self._bridge, "up")
            _ip("-n", space, "addr", "add", f"{self._subnet}.{number}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._made:
            return
        for host in HOSTS:
            _ip("netns", "del", self.namespace(host), check=False)
            _ip("link", "del", self._outer(host), check=False)
        _ip("link", "del", self._bridge, check=False)

    def namespace(self, host: str) -> str:
        return f"bullring-{self._tag}-{host}"

    def address(self, host: str) -> str:
        return f"{self._subnet}.{CLIENT_HOST if host == CLIENTS else HOSTS[host]}"

    def command(self, host: str, *command: str) -> list[str]:
        """The command line that runs a program on a host."""
        return ["ip", "netns", "exec", self.namespace(host), *command]

    def unplug(self, host: str) -> None:
        """The host is off the network: nobody hears from it, and nobody is told."""
        _ip("link", "set", self._outer(host), "down")

    def plug(self, host: str) -> None:
        _ip("link", "set", self._outer(host), "up")

    def block(self, source: str, target: str) -> None:
        """Nothing gets from `source` to `target` any more; the other direction still works."""
        _ip("-n", self.namespace(source), "route", "add", "blackhole", f"{self.address(target)}/32")

    def unblock(self, source: str, target: str) -> None:
        _ip("-n", self.namespace(source), "route", "del", "blackhole", f"{self.address(target)}/32", check=False)

    def cut(self, one: str, other: str) -> None:
        self.block(one, other)
        self.block(other, one)

    def mend(self, one: str, other: str) -> None:
        self.unblock(one, other)
        self.unblock(other, one)

    def _outer(self, host: str) -> str:
        return f"v{self._tag}{host}"


def _ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
