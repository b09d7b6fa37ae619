"""`bullring bench publisher`: a web worker's market data at a high rate of engine events. JSON lines.

A real matcher in a process of its own fills a market ring at a fixed rate; the publisher of a web worker keeps its
books from it and tells subscribers of trades, best prices and depth (every 100 ms). Lag is the time from a burst's
publication in the ring until the publisher has told of all of it. Interleaved with rounds of the same in which nobody
listens: the books alone are the reference. Conflation is what best prices and depth leave out: `events_per_message`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import numpy
import uvloop

from gateway.marketdata.feed import Feed, FeedConfig, Kind
from gateway.web.streams.live import LiveMarket
from ringbuf import Ring
from scripts.bench._fanout_site import Clients, Site, until
from scripts.exit_codes import CommandError, ExitCode
from scripts.native import binary

RATE = 500_000
RING_SLOTS, SLOT_SIZE = 1 << 20, 64
DERIVED_SLOTS = 1 << 16  # as gateway.web.derived_slots has it
PAIRS = 4
STREAMS = ("trade", "bookTicker", "depth@100ms")
POLL_S = 0.001  # as the publisher's own loop
OPERATIONS_PER_EVENT = 1.2  # at most: some have no event
NS_PER_US = 1000


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bullring bench publisher", description=__doc__)
    parser.add_argument("--rate", type=int, default=RATE, help="events/s of the matcher (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subscribers", type=int, default=8, help="each to a pair's streams (default %(default)s)")
    options = parser.parse_args(arguments)
    lines = uvloop.run(_bench(options))
    for line in lines:
        print(json.dumps(line), flush=True)
    return ExitCode.OK if all(line["laps"] == 0 for line in lines) else ExitCode.NEGATIVE


class Matcher:
    """The process that fills the ring."""

    def __init__(self, ring: Ring, events: float) -> None:
        words = [ring.name, str(int(events * OPERATIONS_PER_EVENT)), str(PAIRS)]
        self._process = subprocess.Popen(
            [binary("market_pace"), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def ready(self) -> None:
        if await self._line() != "ready":
            raise CommandError("the matcher of the bench did not start", ExitCode.UNAVAILABLE)

    async def fill(self, rate: int, seconds: float) -> Any:
        """Fill the ring for a while; return (events published so far, ns) of each burst."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rate} {int(seconds * 1000)}\n")
        self._process.stdin.flush()
        bursts = []
        while (line := await self._line()) != "end":
            if not line:
                raise CommandError("the matcher of the bench ended", ExitCode.INTERNAL)
            bursts.append([int(word) for word in line.split()])
        return numpy.array(bursts, dtype=numpy.int64)

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await asyncio.to_thread(self._process.stdout.readline)).strip()

    async def end(self) -> None:
        await asyncio.to_thread(self._process.communicate)


class Round:
    """What one round has seen."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int]] = []  # (ns, events taken so far), after each step that took some
        self.cpu_s = 0.0
        self.frames = self.sends = self.laps = 0
        self.bursts: Any = None

    def lags_us(self) -> Any:
        """Return the lag of each burst that was taken."""
        at, taken = (numpy.array(column, dtype=numpy.int64) for column in zip(*self.taken, strict=True))
        first = numpy.searchsorted(taken, self.bursts[:, 0])
        done = first < len(taken)
        return (at[first[done]] - self.bursts[done, 1]) / NS_PER_US


async def _bench(options: argparse.Namespace) -> list[dict[str, Any]]:
    total = options.rate * (options.seconds * options.rounds * 2 + 1)
    ring = Ring.create(f"bullring-bench-{os.getpid()}", slot_size=SLOT_SIZE, slot_count=RING_SLOTS)
    results: dict[str, list[Round]] = {"books alone": [], "published": []}
    try:
        matcher = Matcher(ring, total)
        live = _live(ring)
        site = Site(options.subscribers, pairs=PAIRS, live=live)
        await site.start()
        await matcher.ready()
        await _round(site, matcher, options.rate, 0.5)  # the books fill
        for _ in range(options.rounds):
            for name, rounds in results.items():
                clients = [] if name == "books alone" else _subscribe(site.port, options.subscribers)
                for each in clients:
                    await each.ready()
                await until(site, lambda wanted=bool(clients): (len(site.ours.connections) > 0) == wanted)
                rounds.append(await _round(site, matcher, options.rate, options.seconds))
                for each in clients:
                    await each.end()
                await until(site, lambda: not site.ours.connections)
        await matcher.end()
        await site.stop()
    finally:
        ring.close()
    return [_line(name, rounds, options) for name, rounds in results.items()]


def _live(ring: Ring) -> LiveMarket:
    config = FeedConfig(
        partitions=1, generation="BENCH", publish=Kind(0), instruments_max=64, derived_slots=DERIVED_SLOTS
    )
    feed = Feed(config)
    feed.attach({1: ring})
    feed.start()

    def stalled(status: int) -> None:
        raise CommandError(f"the publisher was lapped by the market ring ({status})", ExitCode.NEGATIVE)

    return LiveMarket(feed, stalled)


def _subscribe(port: int, subscribers: int) -> list[Clients]:
    share = max(1, subscribers // PAIRS)
    paths = ["/".join(f"c{pair}usdt@{stream}" for stream in STREAMS) for pair in range(1, PAIRS + 1)]
    return [Clients(port, f"/ws/{path}", share) for path in paths]


async def _round(site: Site, matcher: Matcher, rate: int, seconds: float) -> Round:
    """The publisher's own loop, with a look at the clock after each step."""
    seen, publisher, feed = Round(), site.ours.publisher, site.ours.publisher.live.feed
    frames, sends, laps = publisher.fan.frames, publisher.fan.sends, publisher.live.laps
    filling = asyncio.create_task(matcher.fill(rate, seconds))
    begun, taken = time.thread_time(), feed.position(1).next - 1
    while not (filling.done() and taken >= filling.result()[-1][0]):
        more, before = publisher.step(time.monotonic()), taken
        taken = feed.position(1).next - 1
        if taken > before:
            seen.taken.append((time.monotonic_ns(), taken))
        await asyncio.sleep(0 if more else POLL_S)
    seen.cpu_s = time.thread_time() - begun
    seen.bursts = filling.result()
    seen.frames, seen.sends = publisher.fan.frames - frames, publisher.fan.sends - sends
    seen.laps = publisher.live.laps - laps
    return seen


def _line(name: str, rounds: list[Round], options: argparse.Namespace) -> dict[str, Any]:
    def events(each: Round) -> int:
        return int(each.bursts[-1][0] - each.bursts[0][0])

    def offered_s(each: Round) -> float:
        return float(each.bursts[-1][1] - each.bursts[0][1]) / 1e9

    lags = numpy.concatenate([each.lags_us() for each in rounds])
    count = sum(events(each) for each in rounds)
    frames = sum(each.frames for each in rounds)
    return {
        "bench": "publisher", "case": name, "rounds": len(rounds), "asked_per_s": options.rate,
        "subscribers": options.subscribers if name == "published" else 0,
        "events_per_s": round(count / sum(offered_s(each) for each in rounds)),
        "lag_p50_us": round(float(numpy.percentile(lags, 50))), "lag_p99_us": round(float(numpy.percentile(lags, 99))),
        "lag_max_us": round(float(lags.max())), "laps": sum(each.laps for each in rounds),
        "cpu_ns_per_event": round(sum(each.cpu_s for each in rounds) * 1e9 / count),
        "events_per_cpu_second": round(count / sum(each.cpu_s for each in rounds)),
        "messages": frames, "sends": sum(each.sends for each in rounds),
        "events_per_message": round(count / frames, 1) if frames else None,
    }  # fmt: skip
