"""`bullring bench rest` places real orders and measures both sides with the same load."""

import json
from pathlib import Path

import pytest

from scripts.bench import rest


@pytest.mark.slow
def test_every_order_is_answered_and_the_reference_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = rest.run(["--rounds", "1", "--seconds", "0.5", "--connections", "2", "--dir", str(tmp_path)])

    empty, order = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert code == 0
    assert (empty["case"], order["case"]) == ("empty_aiohttp_handler", "signed_order")
    assert order["refused"] == 0
    assert order["requests_per_s"] > 0 and order["ratio"] > 0
    assert 0 < order["p50_us"] <= order["p99_us"] <= order["p999_us"]
