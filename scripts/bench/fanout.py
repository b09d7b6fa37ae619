"""`bullring bench fanout`: one message to many subscribers, beside an aiohttp loop and a bare C loop. JSON lines.

The CPU time of the sending thread (kernel work included) is compared, in interleaved rounds of the same run, so that
other load on the machine and the subscribers' own work take nothing from it. Frames are equal: same bytes, none left
out. Delays are wall time, and do see other load. On a loopback the sender's time holds what the receiving kernel does
with each packet, half of it, which no subscriber on another machine costs: `--receiving other-core` runs in a network
namespace whose loopback hands packets to another core (needs root). `--slow N` instead measures what a tenth of slow
and dead ones among N connections do to the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from scripts.bench._fanout_site import STREAM, Clients, Site, allow_descriptors, stamped, until
from scripts.bench._fanout_slow import beside_slow_ones
from scripts.exit_codes import CommandError, ExitCode
from scripts.native import binary

GOAL_AIOHTTP, GOAL_BARE = {1_000: 1.8, 10_000: 1.2}, 1.5
SENDER, OTHER_CORE, PREPARED = "sender", "other-core", "prepared"
_PREPARE = "ip link set lo up && mount -t sysfs sysfs /sys && echo {mask:x} > /sys/class/net/lo/queues/rx-0/rps_cpus"


def run(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    if options.receiving == OTHER_CORE:
        return _in_namespace(arguments)
    if options.slow:
        allow_descriptors(options.slow)
        print(json.dumps(uvloop.run(beside_slow_ones(options.slow, options.rounds, options.frames))), flush=True)
        return ExitCode.OK
    pinned = options.receiving == PREPARED
    if pinned:
        os.sched_setaffinity(0, {_cores()[0]})
    for count in [int(text) for text in options.subscribers.split(",")]:
        allow_descriptors(count)
        bench = FanOutBench(count, options.rounds, options.frames, _cores()[1] if pinned else None)
        print(json.dumps(uvloop.run(bench.run())), flush=True)
    return ExitCode.OK


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bullring bench fanout", description=__doc__)
    parser.add_argument("--subscribers", default="1000,10000", help="comma-separated (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=40, help="of a round (default %(default)s)")
    parser.add_argument("--slow", type=int, default=0, metavar="N", help="N connections, a tenth slow or dead, instead")
    parser.add_argument("--receiving", default=SENDER, choices=(SENDER, OTHER_CORE, PREPARED), help="whose work it is")
    return parser.parse_args(arguments)


_CORES = sorted(os.sched_getaffinity(0))


def _cores() -> tuple[int, int]:
    """Return the sender's core and the subscribers'. Raises CommandError when there is only one."""
    if len(_CORES) < 2:
        raise CommandError("--receiving other-core needs two cores", ExitCode.UNAVAILABLE)
    return _CORES[0], _CORES[1]


def _in_namespace(arguments: Sequence[str]) -> int:
    """Run all of it again where packets are received on another core than the sender's."""
    words = [sys.executable, "-m", "scripts.cli", "bench", "fanout", *arguments, "--receiving", PREPARED]
    script = _PREPARE.format(mask=1 << _cores()[1]) + ' && exec "$@"'
    command = ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *words]
    if os.geteuid() != 0:
        raise CommandError("--receiving other-core makes a network namespace: it needs root", ExitCode.NO_PERMISSION)
    return subprocess.run(command, cwd=Path(__file__).resolve().parents[2], check=False).returncode


class FanOutBench:
    """One number of subscribers; `core`: theirs, while the senders have another."""

    def __init__(self, count: int, rounds: int, frames: int, core: int | None) -> None:
        self._count, self._rounds, self._frames, self._core = count, rounds, frames, core
        self._spent: dict[str, list[float]] = {"ours": [], "aiohttp": [], "bare": []}
        self._delays: dict[str, list[dict[str, Any]]] = {"ours": [], "aiohttp": []}
        self._walls: list[float] = []
        self._site = Site(count)

    async def run(self) -> dict[str, Any]:
        bare = Bare(self._count)
        await self._site.start()
        await bare.start(self._core)
        size = len(json.dumps(stamped(), separators=(",", ":"))) + 4
        for _ in range(self._rounds):
            await self._ours()
            await self._aiohttp()
            self._spent["bare"].append(await bare.send(self._frames, size))
        await bare.end()
        await self._site.stop()
        return self._line(size)

    async def _ours(self) -> None:
        site, count = self._site, self._count
        clients = Clients(site.port, f"/ws/{STREAM}", count, core=self._core)
        await clients.ready()
        await until(site, lambda: len(site.audience) == count)
        spent, began = 0.0, time.monotonic()
        for _ in range(self._frames):
            begun = time.thread_time()
            message = stamped()
            site.audience.tell(lambda _, message=message: message)  # type: ignore[misc]
            spent += time.thread_time() - begun
            await asyncio.sleep(0.001)
        self._walls.append(time.monotonic() - began)
        await self._seen("ours", clients, spent)
        await until(site, lambda: len(site.audience) == 0)

    async def _aiohttp(self) -> None:
        """The loop that one writes with aiohttp; what it leaves to the event loop is counted too."""
        site = self._site
        clients = Clients(site.port, "/plain", self._count, core=self._core)
        await clients.ready()
        await until(site, lambda: len(site.plain) == self._count)
        begun = time.thread_time()
        for _ in range(self._frames):
            text = json.dumps(stamped(), separators=(",", ":"))
            for socket in site.plain:
                await socket.send_str(text)
            await asyncio.sleep(0)
        await self._seen("aiohttp", clients, time.thread_time() - begun)
        site.plain.clear()

    async def _seen(self, name: str, clients: Clients, spent: float) -> None:
        await asyncio.sleep(0.5)
        self._spent[name].append(spent)
        self._delays[name].append(await clients.told())
        await clients.end()

    def _line(self, size: int) -> dict[str, Any]:
        count, frames = self._count, self._frames
        per_frame = {name: statistics.median(spent) / frames / count * 1e9 for name, spent in self._spent.items()}
        goal = next((goal for at_most, goal in sorted(GOAL_AIOHTTP.items()) if count <= at_most), 1.2)
        line = {
            "bench": "fanout", "subscribers": count, "rounds": self._rounds, "frames": frames, "frame_bytes": size,
            "receiving": SENDER if self._core is None else OTHER_CORE,
            "cpu_ns_per_frame": {name: round(value) for name, value in per_frame.items()},
            "frames_per_cpu_second": round(1e9 / per_frame["ours"]),
            "messages_per_s": round(frames * count / statistics.median(self._walls)),
            "times_aiohttp": round(per_frame["aiohttp"] / per_frame["ours"], 2), "goal_times_aiohttp": goal,
            "times_bare_send": round(per_frame["ours"] / per_frame["bare"], 2), "goal_times_bare_send": GOAL_BARE,
        }  # fmt: skip
        for percentile in ("p50_us", "p99_us"):
            line[f"delay_{percentile}"] = {
                name: statistics.median([row[percentile] for row in rows]) for name, rows in self._delays.items()
            }
        return line


class Bare:
    """A loop of send() in C, to subscribers of its own, which stay."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._process = subprocess.Popen(
            [binary("fanout_bench"), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def start(self, core: int | None) -> None:
        assert self._process.stdout is not None
        port = int(await asyncio.to_thread(self._process.stdout.readline))
        self._clients = Clients(port, "-", self._count, core=core)
        await self._clients.ready()

    async def send(self, frames: int, size: int) -> float:
        """Return the CPU time it took, in seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{frames} {size}\n")
        self._process.stdin.flush()
        return int(await asyncio.to_thread(self._process.stdout.readline)) / 1e9

    async def end(self) -> None:
        await asyncio.to_thread(self._process.communicate)
        await self._clients.end()
