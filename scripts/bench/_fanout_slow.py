"""A tenth of slow and dead connections among many: what they take in memory, and what the others notice.

Rounds are interleaved: the fast ones alone, and beside the others, which are behind by then.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from gateway.web.streams.names import parse
from scripts.bench._fanout_site import STREAM, WARM, Clients, Site, resident_bytes, stamped, until

SHARE = 0.1
KIB = 1024
GOAL_KIB = 40
OTHER_STREAM = "ethusdt@trade"  # what the slow ones listen to besides, and get behind with
LARGE_BYTES = 16_384
SETTLE_S = 0.3
PACE_S = 0.3
ALONE, BESIDE = "alone", "beside"


async def beside_slow_ones(count: int, rounds: int, frames: int) -> dict[str, Any]:
    hesitant = int(count * SHARE)
    site = Site(count)
    await site.start()
    await _warm(site)
    before = resident_bytes()
    fast = Clients(site.port, f"/ws/{STREAM}", count - hesitant)
    await fast.ready()
    await until(site, lambda: len(site.audience) == count - hesitant)
    seen: dict[str, list[dict[str, float]]] = {ALONE: [], BESIDE: []}
    memory = {"connected": 0.0, "behind": 0.0}
    for _ in range(rounds):
        seen[ALONE].append(await _round(site, fast, frames))
        slow = Clients(
            site.port, f"/ws/{STREAM}/{OTHER_STREAM}", hesitant, dead=hesitant // 2, slow=hesitant - hesitant // 2
        )
        await slow.ready()
        await until(site, lambda: len(site.audience) == count)
        memory["connected"] = max(memory["connected"], (resident_bytes() - before) / count / KIB)
        await _fall_behind(site, hesitant)
        seen[BESIDE].append(await _round(site, fast, frames))
        memory["behind"] = max(memory["behind"], (resident_bytes() - before) / count / KIB)
        await slow.end()
        await until(site, lambda: len(site.audience) == count - hesitant)
    closed = site.ours.fan.slow_closed
    await fast.end()
    await site.stop()
    return _line(count, hesitant, frames, seen, memory) | {"closed_slow": closed}


async def _warm(site: Site) -> None:
    """What the first connections make once is not what a connection costs."""
    clients = Clients(site.port, f"/ws/{STREAM}", WARM)
    await clients.ready()
    await clients.end()
    await until(site, lambda: len(site.audience) == 0)


async def _fall_behind(site: Site, hesitant: int) -> None:
    """Send what only the slow ones get, until all of them have something waiting."""
    other = site.ours.publisher.audience(parse(OTHER_STREAM))
    while len(site.ours.fan.behind) < hesitant:
        other.tell(lambda _: {"fill": "x" * LARGE_BYTES})
        site.ours.fan.poll()
        await asyncio.sleep(0.01)


async def _round(site: Site, fast: Clients, frames: int) -> dict[str, float]:
    """The publisher's loop: tell, and look after those who are behind."""
    await _polled(site, SETTLE_S)
    await fast.told()
    spent = 0.0
    for _ in range(frames):
        begun = time.thread_time()
        message = stamped()
        site.audience.tell(lambda _, message=message: message)  # type: ignore[misc]
        spent += time.thread_time() - begun
        spent += await _polled(site, PACE_S)
    await _polled(site, SETTLE_S)
    told = await fast.told()
    return {"cpu_us_per_message": spent / frames * 1e6, "p50_us": told["p50_us"], "p99_us": told["p99_us"]}


async def _polled(site: Site, seconds: float) -> float:
    """Look after the sockets for a while; return the CPU time that took, in seconds."""
    end, spent = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        begun = time.thread_time()
        site.ours.fan.poll()
        spent += time.thread_time() - begun
        await asyncio.sleep(0.001)
    return spent


def _line(
    count: int, hesitant: int, frames: int, seen: dict[str, list[dict[str, float]]], memory: dict[str, float]
) -> dict[str, Any]:
    rounds = len(seen[ALONE])
    line: dict[str, Any] = {
        "bench": "fanout slow", "connections": count, "slow": hesitant - hesitant // 2, "dead": hesitant // 2,
        "rounds": rounds, "frames": frames, "kib_per_connection": round(memory["connected"], 1),
        "kib_per_connection_behind": round(memory["behind"], 1), "goal_kib": GOAL_KIB,
    }  # fmt: skip
    for name in ("p50_us", "p99_us", "cpu_us_per_message"):
        values = {case: [each[name] for each in results] for case, results in seen.items()}
        line[name] = {case: round(statistics.median(each)) for case, each in values.items()}
        pairs = list(zip(values[BESIDE], values[ALONE], strict=True))
        line[f"{name}_ratio"] = round(statistics.median(beside / alone for beside, alone in pairs), 2)
        line[f"{name}_rounds_worse"] = sum(beside > alone for beside, alone in pairs)
    return line
