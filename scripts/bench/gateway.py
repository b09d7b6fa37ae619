"""`bullring bench gateway`: order entry under an open loop, and beside thousands of sessions that do nothing.

Open loop: requests at a constant rate over many sessions, whatever comes back; latency counts from the moment a
request was due (no coordinated omission), and `late_us` shows how well the generator kept its own schedule. Idle: how
much memory a session that only is there takes, and what a lone order pays for their presence; with and without in
turns, in one exchange.
One JSON object a line; the bare TCP echo of the same run is the reference.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.clients import HmacSigner
from gateway.clients.python.signing import signed_frame
from ringbuf.wire import messages as wire
from ringbuf.wire.codec import FrameReader
from scripts.admin.link import AdminLink
from scripts.bench._cores import Cores
from scripts.bench.pipeline import FRAME_BYTES, Case, cores_of, exchange_of, populate, reference, run_load
from scripts.config import Config, load
from scripts.exit_codes import CommandError, ExitCode
from scripts.native import binary

KEEP_ALIVE_MS = 60_000
DESCRIPTORS_BESIDE = 256  # files of the exchange and of this process that are no sessions
LOGON_S = 10.0


def run(arguments: Sequence[str]) -> int:
    """Run the benches; exit 1 if an order was lost."""
    options = _options(arguments)
    root = Path(tempfile.mkdtemp(prefix="bullring-bench-", dir=options.dir))
    lost = 0
    try:
        echoes = [reference("echo", "1", str(FRAME_BYTES)) for _ in range(options.rounds)]
        for mode in options.modes.split(","):
            lost += _open_loop(mode, root, options)
        if options.idle:
            lost += _idle(root, options)
        print(json.dumps({"bench": "gateway", "reference": "tcp_echo", **_percentiles(echoes)}), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return ExitCode.OK if lost == 0 else ExitCode.NEGATIVE


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bullring bench gateway", description=__doc__)
    parser.add_argument("--modes", default="D0,D1", help="durability modes of the open loop (default %(default)s)")
    parser.add_argument("--rate", type=float, default=100_000, help="requests a second (default %(default)s)")
    parser.add_argument("--sessions", type=int, default=64, help="sessions of the open loop (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured time (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case; medians are printed")
    parser.add_argument("--idle", type=int, default=5000, help="idle sessions, 0 = none (default %(default)s)")
    parser.add_argument("--layout", default="fused", choices=["fused", "stages"])
    parser.add_argument("--wait", default="yield", choices=["spin", "yield", "park"])
    parser.add_argument("--histogram", type=Path, metavar="FILE", help="of the last open loop, HdrHistogram text")
    parser.add_argument("--dir", default=None, help="where to put the data folders (the disk that is measured)")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: output is always JSON lines")
    return parser.parse_args(arguments)


def _load(
    address: str, instrument: int, logons: Sequence[tuple[int, str, str]], cores: Cores, *words: str
) -> dict[str, Any]:
    command = [str(binary("loadgen")), "--address", address, "--instrument", str(instrument), "--sessions", "-", *words]
    return run_load(command, logons, cores)


def _open_loop(mode: str, root: Path, options: argparse.Namespace) -> int:
    case = Case(mode, options.layout, options.wait, 512, archive=True, ledger=False)
    words = ["--rate", str(options.rate), "--seconds", str(options.seconds), "--wait", "yield"]
    if options.histogram is not None:
        words += ["--histogram", str(options.histogram.resolve())]
    with exchange_of(case, root) as (address, config_file):
        instrument, logons = populate(load(config_file), options.sessions)
        rounds = [_load(address, instrument, logons, cores_of(root), *words) for _ in range(options.rounds)]
    print(
        json.dumps(
            {
                "bench": "gateway",
                "case": "open_loop",
                "mode": mode,
                "placement": options.layout,
                "wait": options.wait,
                "sessions": options.sessions,
                "rate": options.rate,
                "rounds": options.rounds,
                "due": sum(round_["due"] for round_ in rounds),
                "sent": sum(round_["orders"] for round_ in rounds),
                "lost": sum(round_["unanswered"] for round_ in rounds),
                "gaps": sum(round_["gaps"] for round_ in rounds),
                "reports_per_s": round(statistics.median(round_["reports_per_s"] for round_ in rounds)),
                "mix": rounds[0]["mix"],
                **{f"rtt_us_{name}": _median_us(rounds, "rtt_ns", name) for name in ("p50", "p99", "p999", "max")},
                **{f"late_us_{name}": _median_us(rounds, "late_ns", name) for name in ("p50", "p99", "p999", "max")},
            }
        ),
        flush=True,
    )
    return sum(round_["unanswered"] for round_ in rounds)


def _median_us(rounds: Sequence[dict[str, Any]], kind: str, name: str) -> float:
    return round(float(statistics.median(round_[kind][name] for round_ in rounds)) / 1000, 2)


def _percentiles(samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {
        f"us_{name}": round(statistics.median(sample[f"{name}_ns"] for sample in samples) / 1000, 2)
        for name in ("p50", "p99", "p999")
    }


# --- idle sessions ----------------------------------------------------------------------------------------------------


def _idle(root: Path, options: argparse.Namespace) -> int:
    count = options.idle
    _allow_descriptors(count + DESCRIPTORS_BESIDE)
    case = Case("D0", options.layout, options.wait, 1, archive=True, ledger=False)
    words = ["--window", "1", "--seconds", str(options.seconds), "--wait", "spin"]
    limits = f"connections_max = {count + 64}"
    capacities = f"[capacities]\nsessions = {count + 1024}\n"
    with exchange_of(case, root, limits, capacities) as (address, config_file):
        config = load(config_file)
        instrument, logons = populate(config, 1)
        sessions, cores = _make_sessions(config, logons[0], count), cores_of(root)
        _load(address, instrument, logons, cores, *words)  # what the first run touches is not the sessions'
        alone, beside, bytes_each = [], [], []
        for _ in range(options.rounds):
            alone.append(_load(address, instrument, logons, cores, *words))
            before = _resident(config)
            idle = [_log_on(address, session, logons[0]) for session in sessions]
            bytes_each.append((_resident(config) - before) / count)
            beside.append(_load(address, instrument, logons, cores, *words))
            for client in idle:
                client.close()
            time.sleep(1.0)  # the gateway lets go of them
    print(
        json.dumps(
            {
                "bench": "gateway",
                "case": "idle_sessions",
                "placement": options.layout,
                "wait": options.wait,
                "idle": count,
                "rounds": options.rounds,
                "resident_bytes_each": round(max(bytes_each)),
                **{f"rtt_us_{name}_alone": _median_us(alone, "rtt_ns", name) for name in ("p50", "p99")},
                **{f"rtt_us_{name}_beside": _median_us(beside, "rtt_ns", name) for name in ("p50", "p99")},
            }
        ),
        flush=True,
    )
    return sum(round_["unanswered"] for round_ in (*alone, *beside))


def _allow_descriptors(wanted: int) -> None:
    """Children inherit the limit: the gateway needs as many as this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise CommandError(f"{wanted} open files are needed, the limit is {hard} (ulimit -Hn)", ExitCode.UNAVAILABLE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _make_sessions(config: Config, logon: tuple[int, str, str], count: int) -> list[int]:
    """Further sessions of the account that the first one belongs to."""
    with AdminLink.open(config) as link:
        known = {reply.session_id: reply for reply in link.query(wire.SessionQuery(), wire.SessionReply)}
        account = known[logon[0]].account_id
        return [link.command(wire.SessionCreate(account_id=account), "session") for _ in range(count)]


def _resident(config: Config) -> int:
    """Bytes that the process with the gateway has in memory of its own."""
    rows = json.loads((config.run_dir / "processes.json").read_text())
    pid = next(row["pid"] for row in rows if row["kind"] in ("fused", "gateway"))
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise CommandError(f"the kernel does not tell the memory of process {pid}", ExitCode.UNAVAILABLE)


def _log_on(address: str, session: int, logon: tuple[int, str, str]) -> socket.socket:
    """Open a connection with a bound session that says nothing more."""
    host, _, port = address.rpartition(":")
    signer = HmacSigner(logon[1], bytes.fromhex(logon[2]))
    version = time.time_ns()
    negotiate = wire.Negotiate(
        session_id=session,
        credential_type=signer.credential_type,
        session_ver_id=version,
        timestamp=version,
        access_key_id=signer.access_key_id,
    )
    establish = wire.Establish(
        session_id=session,
        keep_alive_interval_ms=KEEP_ALIVE_MS,
        session_ver_id=version,
        timestamp=version + 1,
        next_seq_no=1,
        credential_type=signer.credential_type,
        access_key_id=signer.access_key_id,
    )
    client = socket.create_connection((host, int(port)), LOGON_S)
    client.sendall(b"".join(signed_frame(message, signer, sending_time=0) for message in (negotiate, establish)))
    reader = FrameReader()
    while data := client.recv(4096):
        if any(header.template_id == wire.EstablishAck.TEMPLATE_ID for header, _ in reader.raw(data)):
            return client
    raise CommandError(f"session {session} was not let in", ExitCode.UNAVAILABLE)
