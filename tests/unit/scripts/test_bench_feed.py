"""`bullring bench feed` runs and says what it says it says; how fast is nobody's business here."""

import json

import pytest

from scripts.bench import feed
from scripts.exit_codes import CommandError, ExitCode

SMALL = ["--rounds", "1", "--events", "12000", "--operations", "20000", "--rate", "100000"]


def test_every_mode_prints_a_line_with_its_references(capsys: pytest.CaptureFixture[str]) -> None:
    assert feed.run(SMALL) == 0

    lines = {line["what"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert set(lines) == set(feed.MODES)
    assert {"match_to_kernel_us_p50", "send_us_p50", "ring_hop_us_p50", "bare_send_us_p50"} <= set(lines["latency"])
    assert {"us_p50_above_one_send", "quietest_us_p50_above_one_send"} <= set(lines["latency"])
    assert lines["latency"]["events"] > 500
    assert lines["publish"]["events_per_s"] > 0
    assert (lines["paced"]["lost"], lines["paced"]["laps"]) == (0, 0)
    assert lines["client"]["digests"] == 20
    assert lines["replay"]["ratio_to_copy"] > 0


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(CommandError, match="no mode nonsense; there are latency"):
        feed.run(["--modes", "nonsense"])


def test_a_lost_packet_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(feed, "_native", lambda words, priority: {"events": 10, "lost": 1})

    assert feed.run(["--modes", "paced", "--rounds", "1"]) == ExitCode.NEGATIVE
    assert json.loads(capsys.readouterr().out)["lost"] == 1
