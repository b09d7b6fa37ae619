"""`bullring bench replication`: what a standby costs: D2 against D1, both hosts on this machine.

Each case is started anew on hosts of its own (network namespaces, as the drills make them: root, iproute2, etcd-server)
and driven by the C load generator over TCP. First D1's highest rate is measured; at half of it D1, D2 and the others
are offered the same open-loop load, latency counted from when a request was due. Then each one's own highest rate, and
how far the standby was behind meanwhile. The bare zmq round trip between the two hosts is taken in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringbuf import CounterReader
from scripts.bench.pipeline import populate
from scripts.config import CHECKOUT
from scripts.drills import Context, DrillSkipped
from scripts.drills._cluster import GATEWAY_PORT, ClusterSite
from scripts.exit_codes import CommandError, ExitCode
from scripts.native import binary
from scripts.node import counter_path
from scripts.replica_process import NAME as REPLICATOR

SESSIONS = 4
WINDOW = 512
WARM_S = 0.5
LAG_PAUSE_S = 0.02
ECHO_PORT = 9199
ECHO_BYTES = 256
ECHO_SAMPLES = 3000
READY_S = 60.0
ALONE = {"replication.peer": "", "node.mode": "D1"}
# The other end echoes; ours counts round trips in nanoseconds. One program, so that both ends are the same zmq.
ECHO = f"""
import sys, time, zmq
socket = zmq.Context().socket(zmq.PAIR)
if sys.argv[1] == "bind":
    socket.bind(sys.argv[2])
    while message := socket.recv():
        socket.send(message)
    sys.exit()
socket.connect(sys.argv[2])
message, times = bytes({ECHO_BYTES}), []
for _ in range({ECHO_SAMPLES}):
    began = time.perf_counter_ns()
    socket.send(message)
    socket.recv()
    times.append(time.perf_counter_ns() - began)
socket.send(b"")
time.sleep(0.1)
times.sort()
print(times[len(times) // 2], times[len(times) * 99 // 100])
"""


@dataclass(frozen=True)
class Load:
    """One measurement of a running case. `rate` 0: as much as the windows let through."""

    rate: float
    seconds: float


def run(arguments: Sequence[str]) -> int:
    """Run all cases; exit 1 if one lost an order, 69 or 77 where hosts cannot be made."""
    options = _options(arguments)
    modes = ["D1", *(mode for mode in options.modes.split(",") if mode != "D1")]
    results: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
    echoes: list[tuple[int, int]] = []
    try:
        for number in range(options.rounds):
            half = 0.0
            for mode in modes:
                measured = _case(mode, half, options, seed=number, echoes=echoes)
                half = half or measured["max_per_s"] / 2
                results[mode].append(measured)
    except DrillSkipped as skipped:
        raise CommandError(str(skipped), skipped.code) from skipped
    echo_us = statistics.median(p50 for p50, _ in echoes) / 1000
    p99_us = statistics.median(p99 for _, p99 in echoes) / 1000
    _print(reference="zmq_round_trip", bytes=ECHO_BYTES, p50_us=round(echo_us, 1), p99_us=round(p99_us, 1))
    alone = _median(results["D1"], "p50_us")
    for mode, rounds in results.items():
        _print(**_summary(mode, rounds, alone, echo_us))
    lost = sum(measured["lost"] for rounds in results.values() for measured in rounds)
    return ExitCode.OK if lost == 0 else ExitCode.NEGATIVE


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bullring bench replication", description=__doc__)
    parser.add_argument("--modes", default="D2,D2m,D1a", help="beside D1, comma-separated (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; medians are printed")
    parser.add_argument("--rate", type=float, default=0.0, help="offer this instead of half of D1's highest rate")
    parser.add_argument("--dir", default=None, help="where to put the data folders (the disk that is measured)")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: output is always JSON lines")
    return parser.parse_args(arguments)


def _print(**facts: Any) -> None:
    print(json.dumps({"bench": "replication", **facts}), flush=True)


# --- one case ---------------------------------------------------------------------------------------------------------


def _case(
    mode: str, half: float, options: argparse.Namespace, *, seed: int, echoes: list[tuple[int, int]]
) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="bullring-bench-", dir=options.dir) as folder,
        _site(Path(folder), mode, seed) as site,
    ):
        if mode == "D1":
            echoes.append(_echo(site))
        leader = site.leader if mode != "D1" else site.nodes["a"]
        assert leader is not None
        instrument, logons = populate(leader.config, SESSIONS)
        address = f"{site.network.address(leader.name)}:{GATEWAY_PORT}"

        def load(what: Load) -> dict[str, Any]:
            return _load(address, instrument, logons, what)

        if mode == "D1":
            # The rate to be offered to everybody follows from this one.
            highest, lag = load(Load(0, options.seconds)), 0
            offered = options.rate or highest["orders_per_s"] / 2
            steady = load(Load(offered, options.seconds))
        else:
            offered = options.rate or half
            steady = load(Load(offered, options.seconds))
            with _Lag(counter_path(leader.config, REPLICATOR)) as watch:
                highest = load(Load(0, options.seconds))
            lag = watch.highest
        rtt = steady["rtt_ns"]
        return {
            "max_per_s": highest["orders_per_s"],
            "offered_per_s": offered,
            "reached_per_s": steady["orders_per_s"],
            "p50_us": rtt["p50"] / 1000,
            "p99_us": rtt["p99"] / 1000,
            "p999_us": rtt["p999"] / 1000,
            "lost": steady["unanswered"] + highest["unanswered"],
            "standby_lag_max": lag,
            "in_sync": mode == "D1" or mode == "D1a" or bool(site.leader and site.leader.state.in_sync),
        }


@contextmanager
def _site(folder: Path, mode: str, seed: int) -> Iterator[ClusterSite]:
    """Yield hosts with a node of one case that answers: two nodes, or one alone."""
    context = Context(folder, seed, 1, None, None, {}, print)
    overrides = {"capacities.orders_per_partition": 65536, "journal.segment_size_bytes": 64 << 20, "node.mode": mode}
    with ClusterSite(context, folder, overrides if mode != "D1" else {}) as site:
        site.start_etcd()
        if mode == "D1":
            site.configure("a", overrides | ALONE)
            site.nodes["a"].start()
            ready = context.wait(lambda: site.nodes["a"].ready, deadline_s=READY_S)
        else:
            for node in site.nodes.values():
                node.start()
            ready = site.settled(READY_S) if mode != "D1a" else context.wait(lambda: site.leader, deadline_s=READY_S)
        if not ready:
            raise CommandError(f"the case {mode} did not start: {site.describe()}", ExitCode.UNAVAILABLE)
        yield site
        site.stop()


def _load(address: str, instrument: int, logons: Sequence[tuple[int, str, str]], what: Load) -> dict[str, Any]:
    command = [str(binary("loadgen")), "--address", address, "--instrument", str(instrument), "--sessions", "-"]
    command += ["--seconds", str(what.seconds), "--warmup", str(WARM_S), "--wait", "yield", "--orders", "1000"]
    command += ["--rate", str(what.rate)] if what.rate else ["--window", str(WINDOW)]
    lines = "".join(f"{session} {key_id} {secret}\n" for session, key_id, secret in logons)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise CommandError(f"load generator failed: {done.stderr.strip()}", ExitCode.UNAVAILABLE)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _echo(site: ClusterSite) -> tuple[int, int]:
    """Return p50 and p99 of a zmq round trip between the two hosts, in nanoseconds."""
    address = f"tcp://{site.network.address('b')}:{ECHO_PORT}"
    program = [sys.executable, "-c", ECHO]
    with subprocess.Popen(site.network.command("b", *program, "bind", address), cwd=CHECKOUT) as other:
        ours = site.network.command("a", *program, "connect", address)
        done = subprocess.run(ours, capture_output=True, text=True, cwd=CHECKOUT, timeout=READY_S, check=True)
        other.wait(READY_S)
    p50, p99 = done.stdout.split()
    return int(p50), int(p99)


class _Lag:
    """Watches how many records the standby has not acknowledged yet."""

    def __init__(self, counters: Path) -> None:
        self._counters = counters
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.highest = 0

    def __enter__(self) -> _Lag:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        with CounterReader(self._counters) as reader:
            while not self._ended.wait(LAG_PAUSE_S):
                counters = reader.snapshot().gauges
                self.highest = max(self.highest, counters.get(f"{REPLICATOR}.standby_lag", 0))


# --- summing up -------------------------------------------------------------------------------------------------------


def _median(rounds: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(statistics.median(measured[name] for measured in rounds))


def _summary(mode: str, rounds: Sequence[Mapping[str, Any]], alone_us: float, echo_us: float) -> dict[str, Any]:
    offered, reached = _median(rounds, "offered_per_s"), _median(rounds, "reached_per_s")
    p50 = _median(rounds, "p50_us")
    return {
        "mode": mode,
        "rounds": len(rounds),
        "max_per_s": round(_median(rounds, "max_per_s")),
        "offered_per_s": round(offered),
        "reached_per_s": round(reached),
        "reached": round(reached / offered, 4),
        "p50_us": round(p50, 1),
        "p99_us": round(_median(rounds, "p99_us"), 1),
        "p999_us": round(_median(rounds, "p999_us"), 1),
        "over_d1_in_round_trips": None if mode == "D1" else round((p50 - alone_us) / echo_us, 2),
        "standby_lag_max": max(measured["standby_lag_max"] for measured in rounds),
        "in_sync_at_the_end": all(measured["in_sync"] for measured in rounds),
        "lost": sum(measured["lost"] for measured in rounds),
    }
