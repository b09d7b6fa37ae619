"""`bullring bench fanout` measures what it says, at a size that takes seconds."""

import json

import pytest

from scripts.bench import fanout


@pytest.mark.slow
def test_all_three_ways_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert fanout.run(["--subscribers", "20", "--rounds", "1", "--frames", "10"]) == 0

    line = json.loads(capsys.readouterr().out)
    assert line["subscribers"] == 20
    assert all(line["cpu_ns_per_frame"][name] > 0 for name in ("ours", "aiohttp", "bare"))
    assert line["delay_p99_us"]["ours"] > 0


@pytest.mark.slow
def test_slow_and_dead_connections_are_behind_and_the_others_are_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert fanout.run(["--slow", "50", "--rounds", "2", "--frames", "5"]) == 0

    line = json.loads(capsys.readouterr().out)
    assert (line["connections"], line["slow"], line["dead"], line["closed_slow"]) == (50, 3, 2, 0)
    for name in ("p50_us", "p99_us", "cpu_us_per_message"):
        assert line[name]["alone"] > 0 and line[name]["beside"] > 0
        assert 0 <= line[f"{name}_rounds_worse"] <= 2
    assert line["kib_per_connection"] <= line["kib_per_connection_behind"]
