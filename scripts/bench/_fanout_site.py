"""What the benches of streams share: a server with both ways, and subscribers in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.web.reference import Asset, Instrument, Reference
from gateway.web.streams.fanout import Audience
from gateway.web.streams.names import parse
from gateway.web.streams.sockets import StreamLimits, StreamSockets
from scripts.exit_codes import CommandError, ExitCode

STREAM = "btcusdt@trade"
WARM = 100  # connections made and ended before memory is looked at
MESSAGE = {
    "e": "trade", "E": 1795644339342, "s": "BTCUSDT", "t": 12345, "p": "100035.70000000", "q": "0.00337000",
    "T": 1795644339338, "m": False, "M": True, "ns": 0,
}  # fmt: skip


def allow_descriptors(count: int) -> None:
    """Raise the limit of open files. Raises CommandError when that is not enough for so many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = count + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        text = f"{count} subscribers need {needed} open files; the limit is {hard}"
        raise CommandError(text, ExitCode.NO_PERMISSION)


def stamped() -> dict[str, Any]:
    return MESSAGE | {"ns": time.monotonic_ns()}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Clients:
    """Subscribers in a process of their own, on `core` if given; of them the `dead` never read, the `slow` a little."""

    def __init__(
        self, port: int, path: str, count: int, *, dead: int = 0, slow: int = 0, core: int | None = None
    ) -> None:
        words = [str(word) for word in (port, path, count, dead, slow)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.bench._fanout_client", *words], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})

    async def ready(self) -> None:
        assert self._process.stdout is not None
        if await asyncio.to_thread(self._process.stdout.readline) != "connected\n":
            raise CommandError("the subscribers could not connect", ExitCode.NEGATIVE)

    async def told(self) -> dict[str, Any]:
        """Return what they saw since the last time."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        result: dict[str, Any] = json.loads(await asyncio.to_thread(self._process.stdout.readline))
        return result

    async def end(self) -> None:
        await asyncio.to_thread(self._process.communicate)


class Gateway:
    """What the publisher asks its worker for: names and scales of pairs."""

    def __init__(self, pairs: int = 0) -> None:
        self.reference = Reference()
        self.reference.put(Asset(1, "USDT", -8))
        for number in range(1, pairs + 1):
            self.reference.put(Asset(1 + number, f"C{number}", -8))
            self.reference.put(Instrument(number, f"C{number}-USDT", 1 + number, 1, 1, 1, -2, 1, -5, 10, 1000))


class Site:
    """Both ways on one server: ours at /ws, aiohttp's own at /plain."""

    def __init__(self, count: int, *, pairs: int = 0, live: Any = None) -> None:
        """Without `live` there are no books: what is told comes from the bench."""
        limits = StreamLimits(
            connections_max=count + WARM, attempts_per_5_minutes=0, messages_per_s=0, streams_max=16,
            queue_bytes=1 << 20,
        )  # fmt: skip
        gateway: Any = Gateway(pairs)
        self.ours = StreamSockets(gateway, live, limits)
        self.plain: list[web.WebSocketResponse] = []
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def audience(self) -> Audience:
        return self.ours.publisher.audience(parse(STREAM))  # another one after everybody has left

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/ws/{names:.*}", self.ours.handle)
        app.router.add_get("/plain", self._plain)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=4096).start()
        self.port = self._runner.addresses[0][1]

    async def _plain(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.plain.append(socket)
        async for _ in socket:
            pass
        return socket

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()


async def until(site: Site, holds: Any) -> None:
    while not holds():
        site.ours.fan.poll()
        await asyncio.sleep(0.01)
