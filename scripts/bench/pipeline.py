"""`bullring bench pipeline`: client frame → gateway → sequencer → journal → matcher → gateway → client, over TCP.

Starts the real exchange (its own processes, a data folder of its own) once a case, drives it with the C load generator,
and measures a bare TCP echo and a bare fdatasync in the same round. One JSON object a line. The mix is the generator's
(82 % moves, 9 % new, 3 % IOC, 6 % cancels; about one trade in 17 commands); each line says what was really sent.
`cpu_ns_per_order` is the processor time each process took for a command, its waiting included where it spins or yields:
unlike the rate it says something on a machine that others use, too. Cases that a machine of so few cores cannot show
are named as skipped, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringbuf.wire import messages as wire
from scripts.admin.key import create_hmac_key
from scripts.admin.link import AdminLink
from scripts.bench._cores import ANY, Cores, choose
from scripts.config import STAGES_CORES_MIN, Config, load
from scripts.exit_codes import CommandError, ExitCode
from scripts.native import binary

FRAME_BYTES = 112  # a NewOrderSingle with its frame header
SYNC_BYTES = 4096
READY_TIMEOUT_S = 60.0
UNITS = 10**15
NS_PER_S = 1_000_000_000
PERMISSIONS = wire.Permissions.READ | wire.Permissions.TRADE


@dataclass(frozen=True)
class Case:
    """One start of the exchange. `window` is per session; 1 = one order in flight in all."""

    mode: str
    layout: str
    wait: str
    window: int
    archive: bool
    ledger: bool

    @property
    def sessions(self) -> int:
        return 1 if self.window == 1 else 4

    def not_here(self, cores: int) -> str:
        """Return why so few cores cannot show this case; empty if they can."""
        if self.layout == "stages" and self.wait == "spin" and cores < STAGES_CORES_MIN:
            return f"spinning stages need a core each: {STAGES_CORES_MIN}, there are {cores}"
        if self.layout == "fused" and self.wait == "spin" and cores < 2:
            return "a spinning order path leaves no core to the others"
        return ""


def run(arguments: Sequence[str]) -> int:
    """Run all cases; exit 1 if a case lost an order."""
    options = _options(arguments)
    cases = [
        Case(mode, layout, wait, window, not options.no_archive, options.ledger)
        for mode in options.modes.split(",")
        for layout in options.layouts.split(",")
        for wait in options.waits.split(",")
        for window in (int(text) for text in options.windows.split(","))
    ]
    cores = len(os.sched_getaffinity(0))
    for case in cases:
        if reason := case.not_here(cores):
            print(json.dumps({"bench": "pipeline", **_names(case), "skipped": reason}), flush=True)
    results: dict[Case, list[dict[str, Any]]] = {case: [] for case in cases if not case.not_here(cores)}
    echoes: list[dict[str, Any]] = []
    syncs: list[dict[str, Any]] = []
    root = Path(tempfile.mkdtemp(prefix="bullring-bench-", dir=options.dir))
    try:
        for _ in range(options.rounds):
            echoes.append(reference("echo", "1", str(FRAME_BYTES)))
            syncs.append(reference("fdatasync", "1", str(SYNC_BYTES), str(root / "sync.dat")))
            for case in results:
                results[case].append(_measure(case, root, options))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps({"bench": "pipeline", "reference": "tcp_echo", **_medians(echoes)}), flush=True)
    print(json.dumps({"bench": "pipeline", "reference": "fdatasync", **_medians(syncs)}), flush=True)
    for case, rounds in results.items():
        print(json.dumps(_summary(case, rounds, echoes, syncs)), flush=True)
    lost = sum(round_["unanswered"] for rounds in results.values() for round_ in rounds)
    return ExitCode.OK if lost == 0 else ExitCode.NEGATIVE


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bullring bench pipeline", description=__doc__)
    parser.add_argument("--modes", default="D0,D1", help="durability modes, comma-separated (default %(default)s)")
    parser.add_argument("--layouts", default="fused", help="fused,stages (default %(default)s)")
    parser.add_argument("--waits", default="yield", help="spin,yield,park of the order path (default %(default)s)")
    parser.add_argument("--windows", default="1,512", help="orders in flight per session (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured time of one case (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; medians are printed")
    parser.add_argument("--orders", type=int, default=1000, help="resting orders aimed at (default %(default)s)")
    parser.add_argument("--ledger", action="store_true", help="with the ledger's process beside it")
    parser.add_argument("--no-archive", action="store_true", help="journal inputs only, no report archive")
    parser.add_argument("--dir", default=None, help="where to put the data folders (the disk that is measured)")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: output is always JSON lines")
    return parser.parse_args(arguments)


def reference(*words: str) -> dict[str, Any]:
    done = subprocess.run([binary("references"), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"reference {words[0]} failed: {done.stderr.strip()}", ExitCode.UNAVAILABLE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _medians(samples: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("min_ns", "p50_ns", "p99_ns", "p999_ns")
    return {name: statistics.median(sample[name] for sample in samples) for name in names} | {"rounds": len(samples)}


@contextmanager
def exchange_of(case: Case, root: Path, gateway: str = "", tables: str = "") -> Iterator[tuple[str, Path]]:
    """Run the exchange of a case; yields (address of the binary gateway, its configuration file).

    `gateway`: further lines of the table gateway.binary. `tables`: further tables.
    """
    data = Path(tempfile.mkdtemp(prefix=f"{case.mode}-{case.layout}-", dir=root))
    cores = cores_of(root)
    config = data / "bench.toml"
    config.write_text(
        f"""
[node]
data_dir = "{data}/data"
mode = "{case.mode}"
[journal]
archive = {"true" if case.archive else "false"}
[ledger]
enabled = {"true" if case.ledger else "false"}
[placement]
layout = "{case.layout}"
partitions = 1
wait_order_path = "{case.wait}"
core_journaler = {cores.journaler}
core_sequencer = {cores.order_path}
[gateway.binary]
listen = "127.0.0.1:0"
{gateway}
[gateway.web]
workers = 0
[gateway.feed]
enabled = false
{tables}
""",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "scripts.cli", "run", "--config", str(config), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _wait_ready(process), config
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=READY_TIMEOUT_S)
            shutil.rmtree(data, ignore_errors=True)


def _wait_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("event") == "ready":
            return str(event["binary_gateway"])
    raise CommandError("the exchange of a bench case did not start", ExitCode.UNAVAILABLE)


def populate(config: Config, sessions: int) -> tuple[int, list[tuple[int, str, str]]]:
    """Create a pair and funded accounts; returns (instrument, [(session, key id, secret in hex)])."""
    logons: list[tuple[int, str, str]] = []
    with AdminLink.open(config) as link:
        base = link.command(wire.AssetAdd(exponent=-8, symbol="BASE"), "asset BASE")
        quote = link.command(wire.AssetAdd(exponent=-8, symbol="QUOTE"), "asset QUOTE")
        instrument = link.command(
            wire.InstrumentAdd(
                tick_size=1,
                lot_size=1,
                quote_per_tick_lot=1,
                base_per_lot=1,
                base_asset_id=base,
                quote_asset_id=quote,
                symbol="BASE-QUOTE",
            ),
            "pair",
        )
        link.command(wire.FeeTierSet(maker_rate=100, taker_rate=300), "fees")
        for _ in range(sessions):
            account = link.command(wire.AccountCreate(), "account")
            for asset in (base, quote):
                deposit = wire.BalanceAdjust(
                    amount=UNITS, account_id=account, asset_id=asset, kind=wire.BalanceKind.DEPOSIT
                )
                link.command(deposit, "deposit")
            key_id, secret_file = create_hmac_key(link, config, account, PERMISSIONS)
            session = link.command(wire.SessionCreate(account_id=account), "session")
            logons.append((session, key_id, secret_file.read_text(encoding="ascii").strip()))
    return instrument, logons


def _measure(case: Case, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    with exchange_of(case, root) as (address, config_file):
        config = load(config_file)
        instrument, logons = populate(config, case.sessions)
        command = [str(binary("loadgen")), "--address", address, "--instrument", str(instrument), "--sessions", "-"]
        command += ["--seconds", str(options.seconds), "--window", str(case.window), "--orders", str(options.orders)]
        # In D1 the journaler works beside the load generator: a spinning generator would take its turn away.
        command += ["--wait", "spin" if case.mode == "D0" else "yield"]
        before = _cpu_ns(config)
        result = run_load(command, logons, cores_of(root))
        spent = {name: used - before.get(name, 0) for name, used in _cpu_ns(config).items()}
    spent["loadgen"] = result["cpu_ns"]
    result["cpu_ns_per_order"] = {name: used / max(1, result["orders_in_all"]) for name, used in spent.items()}
    return result


def cores_of(root: Path) -> Cores:
    return choose(root, sorted(os.sched_getaffinity(0)))


def run_load(command: Sequence[str], logons: Sequence[tuple[int, str, str]], cores: Cores) -> dict[str, Any]:
    """Run the load generator with these sessions; returns what it printed."""

    def pin() -> None:
        os.sched_setaffinity(0, {cores.journaler})

    done = subprocess.run(
        command,
        input="".join(f"{session} {key_id} {secret}\n" for session, key_id, secret in logons),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=pin if cores.journaler != ANY else None,
    )
    if not done.stdout:
        raise CommandError(f"load generator failed: {done.stderr.strip()}", ExitCode.UNAVAILABLE)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _cpu_ns(config: Config) -> dict[str, int]:
    """Return the processor time of each process of the exchange so far, all its threads together."""
    tick_ns = NS_PER_S // os.sysconf("SC_CLK_TCK")
    found = {}
    for row in json.loads((config.run_dir / "processes.json").read_text()):
        fields = Path(f"/proc/{row['pid']}/stat").read_text().rpartition(")")[2].split()
        found[row["name"]] = (int(fields[11]) + int(fields[12])) * tick_ns  # user and system, proc(5)
    return found


def _names(case: Case) -> dict[str, Any]:
    return {"mode": case.mode, "placement": case.layout, "wait": case.wait, "window": case.window}


def _summary(
    case: Case, rounds: list[dict[str, Any]], echoes: list[dict[str, Any]], syncs: list[dict[str, Any]]
) -> dict[str, Any]:
    def median_us(name: str) -> float:
        return round(float(statistics.median(round_["rtt_ns"][name] for round_ in rounds)) / 1000, 2)

    echo_us = statistics.median(echo["p50_ns"] for echo in echoes) / 1000
    sync_us = statistics.median(sync["p50_ns"] for sync in syncs) / 1000
    echo_p99_us = statistics.median(echo["p99_ns"] for echo in echoes) / 1000
    floor_us = echo_us if case.mode == "D0" else echo_us + sync_us
    rates = sorted(round_["orders_per_s"] for round_ in rounds)
    return {
        "bench": "pipeline",
        **_names(case),
        "sessions": case.sessions,
        "archive": case.archive,
        "ledger": case.ledger,
        "rounds": len(rounds),
        "orders_per_s": round(statistics.median(rates)),
        "orders_per_s_best": round(rates[-1]),
        "commands_per_fill": statistics.median(round_["commands_per_fill"] for round_ in rounds),
        "reports_per_order": round(statistics.median(_per_order(round_) for round_ in rounds), 3),
        "cpu_ns_per_order": {
            name: round(statistics.median(round_["cpu_ns_per_order"][name] for round_ in rounds))
            for name in rounds[0]["cpu_ns_per_order"]
        },
        "mix": rounds[0]["mix"],
        "rejects": rounds[0]["rejects"],
        "lost": sum(round_["unanswered"] for round_ in rounds),
        "rtt_us_p50": median_us("p50"),
        "rtt_us_p99": median_us("p99"),
        "rtt_us_p999": median_us("p999"),
        "reference_us_p50": round(floor_us, 2),
        "ratio_p50": round(median_us("p50") / floor_us, 2) if case.window == 1 else None,
        "ratio_p99_echo": round(median_us("p99") / echo_p99_us, 2) if case.window == 1 and case.mode == "D0" else None,
    }


def _per_order(round_: dict[str, Any]) -> float:
    return float(round_["reports"]) / float(max(1, round_["orders"]))
