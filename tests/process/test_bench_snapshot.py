"""`bullring bench snapshot` and `bench recover` measure what they say; figures are in docs/BENCHMARKS.md."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "scripts.cli", "bench", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_small_snapshot_is_measured() -> None:
    (line,) = bench("snapshot", "--orders", "4096", "--balances", "400", "--rounds", "1", "--samples", "400")

    assert (line["orders"], line["balances"]) == (4096, 400)
    for name in ("alone_us", "follower_us", "fork_us"):
        assert 0 < line[name]["p50"] <= line[name]["p99"] <= line[name]["max"]
    assert line["fork_pause_ms"] > 0


@pytest.mark.slow
def test_a_short_log_is_recovered_from_its_beginning_and_from_a_snapshot() -> None:
    taken, whole, rest = bench("recover", "--records", "500000")

    assert taken["sequence"] < taken["verified_to"] <= 250_512
    assert (whole["snapshot_at"], rest["snapshot_at"]) == (None, taken["sequence"])
    assert whole["verified"] and rest["verified"]
    assert whole["trading_s"] > 0
    assert rest["matcher_back_s"] > 0
