"""`bullring bench recover`: how long a start takes until the exchange trades, after a log of millions of records.

Each start verifies the journal and replays; the first one the whole log, the second from a snapshot a million records
before its end; a matcher that comes back alone replays the same million. "verified": it came to
trade, which it does not if a hash mark differs on the way, and its matcher came back; else the exit code is 1.
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
from typing import Any

from engine import EngineConfig
from scripts.arguments import progress
from scripts.bench._bulk import BulkMarket
from scripts.config import CHECKOUT, load
from scripts.exit_codes import ExitCode
from scripts.snapshots.store import describe
from scripts.snapshots.taking import take

KEYS = {
    "placement.layout": "stages",
    "placement.wait_order_path": "park",
    "gateway.binary.listen": "127.0.0.1:0",
    "gateway.web.workers": 0,
    "gateway.feed.enabled": False,
    "ledger.enabled": False,
    "journal.archive": False,
    "snapshots.every_records": 0,
    "snapshots.every_s": 0,
}
BEHIND = 1_000_000


def run(arguments: list[str]) -> int:
    """Run the bench; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bullring bench recover", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000, help="in the log")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; a temporary folder by default")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bullring-bench-", dir=options.directory) as name:
        data = Path(name) / "data"
        config = load(None, KEYS | {"node.data_dir": str(data)})
        behind = min(BEHIND, options.records // 2)
        market = BulkMarket(
            EngineConfig(partitions=2, orders_per_partition=1 << 17, cluster_id=7), config.journal_dir, accounts=2
        )
        market.run_to(options.records - behind, market.trade, progress)
        snapshot = take(config, progress, keep=3)
        print(
            json.dumps({"bench": "snapshot-take", **describe(snapshot), "taken_s": snapshot.manifest.taken_s}),
            flush=True,
        )
        market.run_to(options.records, market.trade, progress)
        market.close()
        aside = data / "aside"
        (data / "snapshots").rename(aside)
        whole = _start(data)
        _print(whole, options.records, snapshot_at=None)
        aside.rename(data / "snapshots")
        rest = _start(data, restart_matcher=True)
        _print(rest, options.records, snapshot_at=snapshot.manifest.sequence)
    return ExitCode.OK if whole["verified"] and rest["verified"] else ExitCode.NEGATIVE


def _print(row: dict[str, Any], records: int, *, snapshot_at: int | None) -> None:
    print(json.dumps({"bench": "recover", "records": records, "snapshot_at": snapshot_at, **row}), flush=True)


def _start(data: Path, *, restart_matcher: bool = False) -> dict[str, Any]:
    """Start the exchange; return how long it took to trade, and a matcher to come back."""
    keys = [word for key, value in KEYS.items() for word in ("--set", f"{key}={json.dumps(value).strip(chr(34))}")]
    command = [sys.executable, "-m", "scripts.cli", "run", "--json", "--data", str(data), *keys]
    began = time.monotonic()
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        row: dict[str, Any] = {}
        for line in process.stdout:
            facts = json.loads(line)
            if facts.get("event") == "ready":
                row["trading_s"] = round(time.monotonic() - began, 3)
                break
        if restart_matcher and row:
            rows = json.loads((data / "run" / "processes.json").read_text())
            victim = next(each for each in rows if each["name"] == "matcher-1")
            killed = time.monotonic()
            os.kill(victim["pid"], signal.SIGKILL)
            for line in process.stdout:
                if "matcher-1 is back" in line:
                    row["matcher_back_s"] = round(time.monotonic() - killed, 3)
                    break
        process.send_signal(signal.SIGINT)
    asked = {"trading_s"} | ({"matcher_back_s"} if restart_matcher else set())
    return row | {"verified": asked <= row.keys()}
