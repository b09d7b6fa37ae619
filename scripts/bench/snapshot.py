"""`bullring bench snapshot`: what a snapshot costs the order path, at a million resting orders and a million balances.

Latency of one order through a composed core (admission, matching, settlement; no disk), in interleaved rounds: alone;
while a process of its own follows the log and takes a snapshot, which is what the exchange does; and after a fork of
the core's process, whose child lives on as long as writing the state takes: the alternative. The fork itself is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from engine import EngineConfig
from scripts.arguments import progress
from scripts.bench._bulk import BulkMarket
from scripts.config import CHECKOUT, load

ORDERS, BALANCES = 1_000_000, 1_000_000
KEYS = {"journal.archive": False, "ledger.enabled": False, "gateway.feed.enabled": False, "gateway.web.workers": 0}


def run(arguments: list[str]) -> int:
    """Run the bench; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bullring bench snapshot", description=__doc__)
    parser.add_argument("--orders", type=int, default=ORDERS, help="resting")
    parser.add_argument("--balances", type=int, default=BALANCES, help="accounts times two assets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=20_000, help="orders of a round")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; a temporary folder by default")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bullring-bench-", dir=options.directory) as name:
        data = Path(name) / "data"
        config = load(None, KEYS | {"node.data_dir": str(data)})
        per_partition = 1 << max(10, (options.orders // 2 + options.orders // 8).bit_length())
        accounts = options.balances // 2
        engine = EngineConfig(
            partitions=2, orders_per_partition=per_partition, accounts_max=accounts + 16,
            balances_max=options.balances + 64, open_orders_per_account_max=options.orders * 2, cluster_id=7,
        )  # fmt: skip
        progress(f"making {options.balances} balances and {options.orders} orders")
        market = BulkMarket(engine, config.journal_dir, accounts=accounts)
        market.run_to(market.engine.log.published + options.orders, market.rest, progress)
        rows: dict[str, list[dict[str, float]]] = {"alone": [], "follower": [], "fork": []}
        pauses = []
        for _ in range(options.rounds):
            rows["alone"].append(_sample(market, options.samples))
            follower = _follower(data)
            rows["follower"].append(_sample(market, options.samples))
            _end(follower)
            pause, child = _fork()
            pauses.append(pause)
            rows["fork"].append(_sample(market, options.samples))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        _print(options, rows, pauses)
        market.close()
    return 0


def _print(options: argparse.Namespace, rows: dict[str, list[dict[str, float]]], pauses: list[float]) -> None:
    line: dict[str, Any] = {"bench": "snapshot", "orders": options.orders, "balances": options.balances}
    for name, rounds in rows.items():
        line[f"{name}_us"] = {key: round(median(each[key] for each in rounds), 2) for key in rounds[0]}
    line |= {
        "fork_pause_ms": round(median(pauses), 3),
        "fork_pause_ms_max": round(max(pauses), 3),
    }
    print(json.dumps(line), flush=True)


def _sample(market: BulkMarket, count: int) -> dict[str, float]:
    """Return percentiles of the time of one request at a time, in microseconds."""
    times = []
    for _ in range(count // 4):
        began = time.perf_counter_ns()
        market.trade(4)
        times.append((time.perf_counter_ns() - began) / 4000)
    times.sort()
    return {
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
        "p99.9": times[len(times) * 999 // 1000],
        "max": times[-1],
    }


def _follower(data: Path) -> subprocess.Popen[bytes]:
    keys = [word for key, value in KEYS.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "scripts.cli", "snapshot", "take", "--data", str(data), *keys]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _fork() -> tuple[float, int]:
    """Fork; return how long it kept us, in milliseconds, and the child, which only lives."""
    began = time.perf_counter_ns()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return (time.perf_counter_ns() - began) / 1e6, child
