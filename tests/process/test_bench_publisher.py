"""`bullring bench publisher` fills a ring and says how far the publisher is behind, at a size that takes seconds."""

import json

import pytest

from scripts.bench import publisher


@pytest.mark.slow
def test_books_alone_and_published_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    code = publisher.run(["--rate", "20000", "--seconds", "0.5", "--rounds", "1", "--subscribers", "4"])

    alone, published = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert code == 0
    assert (alone["case"], published["case"]) == ("books alone", "published")
    assert (alone["messages"], alone["sends"]) == (0, 0)
    assert 0 < published["messages"] < 10_000  # of some ten thousand events: trades each, the rest conflated
    assert published["sends"] > 0
    for line in (alone, published):
        assert line["events_per_s"] > 0 and line["laps"] == 0
        assert 0 < line["lag_p50_us"] <= line["lag_p99_us"] <= line["lag_max_us"]
