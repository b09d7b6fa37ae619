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
def test_memory_is_that_of_connections_of_which_a_tenth_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert fanout.run(["--memory", "50"]) == 0

    line = json.loads(capsys.readouterr().out)
    assert (line["connections"], line["silent"]) == (50, 5)
    assert line["behind"] == 5  # all of them, and nobody else
