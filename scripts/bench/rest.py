"""`bullring bench rest`: a signed order over REST, to its answer, beside an empty aiohttp handler.

Starts a quiet exchange with one web worker and, beside it, a process that answers the same request with an empty
object. One load generator sends the same bytes to both, in interleaved rounds: signed orders made ahead, so that no
time of the client is measured but sending and reading. One JSON object a line; `ratio` is requests a second over those
of the empty handler, `cpu_us` the processor time of a request by process: what a busy machine does not change much.
Orders rest far from the market and are canceled between rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from scripts.admin.account import create_account, credit
from scripts.admin.key import create_hmac_key, parse_permissions
from scripts.admin.link import AdminLink
from scripts.config import CHECKOUT, Config, load
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import Node
from scripts.stat import read_processes

READY_S = 60.0
FUNDS = 10**16  # units of 10^-8
PRICE_TICKS = 8_000_000
PRICES = 10_000
WINDOW_MS = 60_000
MADE_AHEAD_MAX = 200_000
JOIN_S = 10.0


def run(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    depths = [int(text) for text in options.connections.split(",")]
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    spent: dict[tuple[str, int], list[dict[str, float]]] = {}
    root = Path(tempfile.mkdtemp(prefix="bullring-bench-", dir=options.dir))
    refused = 0
    try:
        with _exchange(root, options.mode) as site, _empty_handler() as (empty_port, empty_pid):
            for _ in range(options.rounds):
                for connections in depths:
                    for name, port, pids in (
                        ("empty", empty_port, {"handler": empty_pid}), ("order", site.port, site.pids)
                    ):  # fmt: skip
                        before = _cpu_ns(pids)
                        load_of = uvloop.run(_round(port, site, connections, options.seconds))
                        results.setdefault((name, connections), []).append(load_of.numbers())
                        count = len(load_of.latencies_ns)
                        used = {who: (ns - before[who]) / 1000 / count for who, ns in _cpu_ns(pids).items()}
                        used["client"] = load_of.client_ns / 1000 / count
                        spent.setdefault((name, connections), []).append(used)
                        refused += load_of.refused if name == "order" else 0
                    site.cancel_all()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for connections in depths:
        empty, order = (_medians(results[(name, connections)]) for name in ("empty", "order"))
        line = {"bench": "rest", "connections": connections, "mode": options.mode, "rounds": options.rounds}
        cpu = {name: {"cpu_us": _medians(spent[(name, connections)])} for name in ("empty", "order")}
        print(json.dumps({**line, "case": "empty_aiohttp_handler", **empty, **cpu["empty"]}), flush=True)
        ratio = round(order["requests_per_s"] / empty["requests_per_s"], 3)
        last = {**order, "ratio": ratio, "refused": refused, **cpu["order"]}
        print(json.dumps({**line, "case": "signed_order", **last}), flush=True)
    return ExitCode.OK if refused == 0 else ExitCode.INTERNAL


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bullring bench rest", description=__doc__)
    parser.add_argument("--connections", default="1,16,64", help="at once, one request each (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of one case (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; medians are printed")
    parser.add_argument("--mode", default="D1", choices=("D0", "D1"), help="durability (default %(default)s)")
    parser.add_argument("--dir", default=None, help="where to put the data folder (the disk that is measured)")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: output is always JSON lines")
    return parser.parse_args(arguments)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in rounds), 1) for name in rounds[0]}


def _cpu_ns(pids: dict[str, int]) -> dict[str, int]:
    """Return the processor time of all threads of some processes, by the names given."""
    return {
        name: sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))
        for name, pid in pids.items()
    }


# --- what is measured -------------------------------------------------------------------------------------------------


class Site:
    """The exchange of the bench: where it listens and who trades on it."""

    def __init__(self, config: Config) -> None:
        node = Node.load(config.run_dir)
        self.port = node.web_port
        self.pids = {process["name"]: int(process["pid"]) for process in read_processes(node)}
        with AdminLink.open(config) as link:
            account = create_account(link)
            for asset in link.assets().values():
                credit(link, account=account, asset=asset, units=FUNDS)
            self._key_id, secret = create_hmac_key(link, config, account, parse_permissions("read,trade"))
        self._secret = secret.read_text().strip().encode()
        self._count = 0

    def orders(self) -> Iterator[bytes]:
        """Yield signed orders, ready to be sent, that are good for a minute."""
        while True:
            self._count += 1
            cents = PRICE_TICKS + self._count % PRICES
            body = (
                "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity=0.001"
                f"&price={cents // 100}.{cents % 100:02d}"
                f"&newOrderRespType=FULL&recvWindow={WINDOW_MS}&timestamp={time.time_ns() // 1_000_000}"
            )
            yield self._request("POST", "/api/v3/order", self._signed(body))

    def cancel_all(self) -> None:
        query = self._signed(f"timestamp={time.time_ns() // 1_000_000}")
        url = f"http://127.0.0.1:{self.port}/api/v3/allOpenOrders?{query}"
        request = urllib.request.Request(url, method="DELETE", headers={"X-MBX-APIKEY": self._key_id})
        with urllib.request.urlopen(request, timeout=READY_S):
            pass

    def _signed(self, text: str) -> str:
        return f"{text}&signature={hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()}"

    def _request(self, method: str, path: str, body: str) -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-MBX-APIKEY: {self._key_id}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return (head + body).encode()


@contextmanager
def _exchange(root: Path, mode: str) -> Iterator[Site]:
    settings = {
        "gateway.web.listen": "127.0.0.1:0", "gateway.web.workers": 1, "gateway.web.weight_per_minute": 0,
        "gateway.web.requests_per_5_minutes": 0, "gateway.web.orders_per_10_seconds": 0,
        "gateway.web.orders_per_day": 0, "gateway.feed.enabled": False, "ledger.enabled": False, "node.mode": mode,
    }  # fmt: skip
    command = [sys.executable, "-m", "scripts.cli", "demo", "--json", "--quiet-market", "--listen", "127.0.0.1:0"]
    command += ["--data", str(root / "data")]
    for key, value in settings.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        try:
            assert process.stdout is not None
            if not any(json.loads(line).get("event") == "ready" for line in process.stdout):
                raise CommandError("the exchange of the bench did not start", ExitCode.UNAVAILABLE)
            yield Site(load(None, {"node.data_dir": str(root / "data"), **settings}))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(READY_S)


async def _nothing(_: web.Request) -> web.Response:
    return web.Response(body=b"{}", content_type="application/json")


def _serve_nothing(port_pipe: Any) -> None:
    async def serve() -> None:
        app = web.Application()
        app.router.add_route("POST", "/api/v3/order", _nothing)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port_pipe.send(runner.addresses[0][1])
        while os.getppid() == parent:
            await asyncio.sleep(1.0)

    parent = os.getppid()
    uvloop.run(serve())


@contextmanager
def _empty_handler() -> Iterator[tuple[int, int]]:
    """Start the reference; yield its port and its process id."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_nothing, args=(theirs,), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield int(ours.recv()), process.pid
    finally:
        process.terminate()
        process.join(JOIN_S)


# --- the load ---------------------------------------------------------------------------------------------------------


class Load:
    """What one round has seen."""

    def __init__(self) -> None:
        self.latencies_ns: list[int] = []
        self.refused = 0
        self.seconds = 0.0
        self.client_ns = 0

    def numbers(self) -> dict[str, float]:
        ordered = sorted(self.latencies_ns)

        def at(part: float) -> float:
            return ordered[min(len(ordered) - 1, int(len(ordered) * part))] / 1000

        return {
            "requests_per_s": len(ordered) / self.seconds, "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999),
        }  # fmt: skip


class _Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last one is whole."""

    def __init__(self, take: Callable[[], bytes | None], load: Load) -> None:
        self._take = take
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent_ns = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.lower().find(b"content-length: ")
        length = int(self._buffer[at + 16 : self._buffer.find(b"\r\n", at)])
        if len(self._buffer) < head + 4 + length:
            return
        self._load.latencies_ns.append(time.perf_counter_ns() - self._sent_ns)
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            self._load.refused += 1
        self._buffer = self._buffer[head + 4 + length :]
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _next(self) -> None:
        assert self._transport is not None
        request = self._take()
        if request is None:
            self._transport.close()
            return
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(request)


async def _round(port: int, site: Site, connections: int, seconds: float) -> Load:
    made = site.orders()
    ahead = [next(made) for _ in range(min(MADE_AHEAD_MAX, int(seconds * 12_000)))]
    load_of = Load()
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds

    def take() -> bytes | None:
        return ahead.pop() if ahead and loop.time() < end else None

    started, started_ns = loop.time(), time.process_time_ns()
    opened = [
        await loop.create_connection(lambda: _Connection(take, load_of), "127.0.0.1", port) for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in opened))
    load_of.seconds, load_of.client_ns = loop.time() - started, time.process_time_ns() - started_ns
    return load_of
