"""`bullring bench pipeline` drives a real exchange over TCP and loses nothing."""

import json
from pathlib import Path

import pytest

from scripts.bench import pipeline


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "layout"), [("D0", "fused"), ("D1", "stages")])
def test_every_order_is_answered(mode: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what = ["--modes", mode, "--layouts", layout, "--waits", "park", "--windows", "1,64"]
    code = pipeline.run([*what, "--rounds", "1", "--seconds", "0.5", "--dir", str(tmp_path)])

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    cases = [line for line in lines if "window" in line]
    assert code == 0
    assert [line["reference"] for line in lines if "reference" in line] == ["tcp_echo", "fdatasync"]
    assert {(case["mode"], case["placement"]) for case in cases} == {(mode, layout)}
    assert [case["window"] for case in cases] == [1, 64]
    assert all(case["lost"] == 0 and case["orders_per_s"] > 0 for case in cases)
    assert all(0 < case["rtt_us_p50"] <= case["rtt_us_p99"] <= case["rtt_us_p999"] for case in cases)
