"""`bullring bench gateway` measures what it says: an open loop that is kept, idle sessions that are there."""

import json
from pathlib import Path

import pytest

from scripts.bench import gateway


@pytest.mark.slow
def test_open_loop_and_idle_sessions_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    histogram = tmp_path / "latency.hgrm"
    what = ["--modes", "D0", "--rounds", "1", "--seconds", "1", "--rate", "2000", "--sessions", "8", "--idle", "40"]
    assert gateway.run([*what, "--dir", str(tmp_path), "--histogram", str(histogram)]) == 0
    open_loop, idle, reference = (json.loads(line) for line in capsys.readouterr().out.splitlines())

    assert open_loop["lost"] == open_loop["gaps"] == 0
    assert 0 < open_loop["sent"] <= open_loop["due"] == 2000
    assert 0 < open_loop["rtt_us_p50"] <= open_loop["rtt_us_p99"] <= open_loop["rtt_us_max"]
    assert idle["idle"] == 40
    assert idle["resident_bytes_each"] > 0
    assert reference["us_p50"] > 0
    rows = [line.split() for line in histogram.read_text().splitlines()[2:] if not line.startswith("#")]
    values, shares = [float(row[0]) for row in rows], [float(row[1]) for row in rows]
    assert values == sorted(values)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    # Percentiles of the file are those of the answer: within one bucket.
    median = next(value for value, share in zip(values, shares, strict=True) if share >= 0.5)
    assert median == pytest.approx(open_loop["rtt_us_p50"], rel=0.02)
