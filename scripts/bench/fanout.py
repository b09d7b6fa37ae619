"""`bullring bench fanout`: one message to many subscribers, beside an aiohttp loop and a bare C loop. JSON lines.

The CPU time of the sending thread (kernel work included) is compared, in interleaved rounds of the same run, so that
other load on the machine and the subscribers' own work take nothing from it. Frames are equal: same bytes, none left
out. Delays are wall time, and do see other load. `--memory` connects, with a tenth that never read, and says what a
connection costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from gateway.web.streams.fanout import Audience
from gateway.web.streams.names import parse
from gateway.web.streams.sockets import StreamLimits, StreamSockets
from scripts.exit_codes import CommandError, ExitCode
from scripts.native import binary

STREAM = "btcusdt@trade"
GOAL_AIOHTTP, GOAL_BARE = {1_000: 1.8, 10_000: 1.2}, 1.5
SLOW_SHARE = 0.1
WARM = 100  # connections made and ended before memory is looked at
KIB = 1024
MESSAGE = {
    "e": "trade", "E": 1795644339342, "s": "BTCUSDT", "t": 12345, "p": "100035.70000000", "q": "0.00337000",
    "T": 1795644339338, "m": False, "M": True, "ns": 0,
}  # fmt: skip


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bullring bench fanout", description=__doc__)
    parser.add_argument("--subscribers", default="1000,10000", help="comma-separated (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=40, help="of a round (default %(default)s)")
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="what N connections cost, instead")
    options = parser.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for count in [options.memory] if options.memory else [int(text) for text in options.subscribers.split(",")]:
        needed = count + 200
        if hard != resource.RLIM_INFINITY and hard < needed:
            text = f"{count} subscribers need {needed} open files; the limit is {hard}"
            raise CommandError(text, ExitCode.NO_PERMISSION)
        bench = _memory(count) if options.memory else _fan_out(count, options.rounds, options.frames)
        print(json.dumps(uvloop.run(bench)), flush=True)
    return ExitCode.OK


class Clients:
    """Subscribers in a process of their own."""

    def __init__(self, port: int, path: str, count: int, silent: int = 0) -> None:
        words = [str(word) for word in (port, path, count, silent)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.bench._fanout_client", *words], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip

    async def ready(self) -> None:
        assert self._process.stdout is not None
        if await asyncio.to_thread(self._process.stdout.readline) != "connected\n":
            raise CommandError("the subscribers could not connect", ExitCode.NEGATIVE)

    async def end(self) -> dict[str, Any]:
        """Return what they saw."""
        told, _ = await asyncio.to_thread(self._process.communicate)
        result: dict[str, Any] = json.loads(told)
        return result


class Site:
    """Both ways on one server: ours at /ws, aiohttp's own at /plain."""

    def __init__(self, count: int, *, gateway: Any = None, live: Any = None) -> None:
        """Without `gateway` and `live` there is neither exchange nor books: what is told comes from the bench."""
        limits = StreamLimits(
            connections_max=count + WARM, attempts_per_5_minutes=0, messages_per_s=0, streams_max=16,
            queue_bytes=1 << 20,
        )
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


def stamped() -> dict[str, Any]:
    return MESSAGE | {"ns": time.monotonic_ns()}


async def _ours(site: Site, frames: int) -> float:
    spent = 0.0
    for _ in range(frames):
        begun = time.thread_time()
        message = stamped()
        site.audience.tell(lambda _, message=message: message)  # type: ignore[misc]
        spent += time.thread_time() - begun
        await asyncio.sleep(0.001)
    return spent


async def _aiohttp(site: Site, frames: int) -> float:
    """The loop that one writes with aiohttp; what it leaves to the event loop is counted too."""
    begun = time.thread_time()
    for _ in range(frames):
        text = json.dumps(stamped(), separators=(",", ":"))
        for socket in site.plain:
            await socket.send_str(text)
        await asyncio.sleep(0)
    return time.thread_time() - begun


async def _fan_out(count: int, rounds: int, frames: int) -> dict[str, Any]:
    site = Site(count)
    await site.start()
    bare = subprocess.Popen(
        [binary("fanout_bench"), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert bare.stdin is not None and bare.stdout is not None
    bare_port = int(bare.stdout.readline())
    size = len(json.dumps(stamped(), separators=(",", ":"))) + 4
    spent: dict[str, list[float]] = {"ours": [], "aiohttp": [], "bare": []}
    delays: dict[str, list[dict[str, Any]]] = {"ours": [], "aiohttp": []}
    for _ in range(rounds):
        for name in spent:
            path = {"ours": f"/ws/{STREAM}", "aiohttp": "/plain", "bare": "-"}[name]
            if name == "bare" and spent["bare"]:
                pass  # its connections stay
            else:
                clients = Clients(bare_port if name == "bare" else site.port, path, count)
                await clients.ready()
                if name == "bare":
                    bare_clients = clients
            if name == "bare":
                bare.stdin.write(f"{frames} {size}\n")
                bare.stdin.flush()
                spent[name].append(int(await asyncio.to_thread(bare.stdout.readline)) / 1e9)
                continue
            listening = (lambda: len(site.audience)) if name == "ours" else (lambda: len(site.plain))
            await until(site, lambda listening=listening: listening() == count)
            spent[name].append(await (_ours if name == "ours" else _aiohttp)(site, frames))
            await asyncio.sleep(0.5)
            delays[name].append(await clients.end())
            site.plain.clear()
            await until(site, lambda: len(site.audience) == 0)
    bare.stdin.close()
    bare.wait()
    await bare_clients.end()
    await site.stop()
    per_frame = {name: statistics.median(values) / frames / count * 1e9 for name, values in spent.items()}
    goal = next((goal for at_most, goal in sorted(GOAL_AIOHTTP.items()) if count <= at_most), 1.2)
    return {
        "bench": "fanout", "subscribers": count, "rounds": rounds, "frames": frames, "frame_bytes": size,
        "cpu_ns_per_frame": {name: round(value) for name, value in per_frame.items()},
        "frames_per_cpu_second": round(1e9 / per_frame["ours"]),
        "times_aiohttp": round(per_frame["aiohttp"] / per_frame["ours"], 2), "goal_times_aiohttp": goal,
        "times_bare_send": round(per_frame["ours"] / per_frame["bare"], 2), "goal_times_bare_send": GOAL_BARE,
        "delay_p50_us": {name: statistics.median([row["p50_us"] for row in rows]) for name, rows in delays.items()},
        "delay_p99_us": {name: statistics.median([row["p99_us"] for row in rows]) for name, rows in delays.items()},
    }  # fmt: skip


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def _memory(count: int) -> dict[str, Any]:
    """Connect, send until the silent ones are behind, and see what is in memory."""
    site = Site(count)
    await site.start()
    warm = Clients(site.port, f"/ws/{STREAM}", WARM)
    await warm.ready()
    await warm.end()
    await until(site, lambda: len(site.audience) == 0)
    before, silent = _resident_bytes(), int(count * SLOW_SHARE)
    clients = Clients(site.port, f"/ws/{STREAM}", count, silent)
    await clients.ready()
    await until(site, lambda: len(site.audience) == count)
    connected = _resident_bytes()
    sent = 0
    while len(site.ours.fan.behind) < silent and sent < 20_000:
        for _ in range(200):
            message = stamped()
            site.audience.tell(*[lambda _, message=message: message] * 5)
            sent += 5
        site.ours.fan.poll()
        await asyncio.sleep(0.05)
        if site.ours.fan.slow_closed:
            break
    behind, after = len(site.ours.fan.behind), _resident_bytes()
    seen = await clients.end()
    await site.stop()
    return {
        "bench": "fanout memory", "connections": count, "silent": silent, "messages": sent, "behind": behind,
        "closed_slow": site.ours.fan.slow_closed,
        "kib_per_connection": round((connected - before) / count / KIB, 1),
        "kib_per_connection_behind": round((after - before) / count / KIB, 1),
        "delay_p99_us": seen["p99_us"],
    }  # fmt: skip
