"""`bullring bench ring`: figures and verdicts from what the two sides answer, and its say without a reference."""

import json
from pathlib import Path

import pytest

from scripts.bench import ring

ROUND_TRIP = {"rtt_ns_min": 90, "rtt_ns_p50": 100, "rtt_ns_p90": 110, "rtt_ns_p99": 120, "rtt_ns_p999": 130}


def round_trip(p50: int) -> ring.Json:
    return {**ROUND_TRIP, "rtt_ns_p50": p50}


class FakeSide:
    """Answers with rates or round trips in turn."""

    def __init__(self, *answers: ring.Json) -> None:
        self.answers = list(answers)

    def run(self, topology: str, wait: str, messages: int) -> ring.Json:
        return self.answers.pop(0)


def rate(value: float) -> ring.Json:
    return {"messages_per_s": value, "sleeps": 0}


def test_throughput_is_the_median_of_the_rounds() -> None:
    side = FakeSide(rate(5e6), rate(1e6), rate(3e6))

    line = ring.measure(ring.Case("1to1", "yield", 10), side, None, 3)  # type: ignore[arg-type]

    assert (line["messages_per_s"], line["messages_per_s_min"], line["messages_per_s_max"]) == (3e6, 1e6, 5e6)
    assert (line["reference_messages_per_s"], line["ratio"], line["reached"]) == (None, None, None)


@pytest.mark.parametrize(
    ("ours", "theirs", "bare", "reached"), [(100, 200, 70, True), (100, 90, 70, False), (100, 200, 50, False)]
)
def test_pingpong_is_judged_against_the_best_of_the_reference_and_the_bare_one(
    ours: int, theirs: int, bare: int, reached: bool
) -> None:
    series = {"ours": [round_trip(ours)], "reference": [round_trip(theirs)], "bare": [round_trip(bare)]}
    slow = {"ours": [round_trip(5000)], "reference": [round_trip(6000)], "bare": []}
    lines = [
        ring._report_pingpong(ring.Case("pingpong", "spin", 1), series),
        ring._report_pingpong(ring.Case("pingpong", "park", 1), slow),
    ]

    summary = ring.best_pingpong(lines)

    assert summary is not None
    assert (summary["wait"], summary["reference_rtt_ns_p50"], summary["reached"]) == ("spin", theirs, reached)


def test_missing_reference_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "ring_bench"
    program.write_text('#!/bin/sh\necho \'{"messages_per_s": 7, "sleeps": 0}\'\n')
    program.chmod(0o755)
    arguments = "--json --rounds 1 --topology 1to1 --wait yield".split()

    status = ring.run([*arguments, "--jar", str(tmp_path / "none.jar"), "--program", str(program)])

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    assert "none.jar" in lines[0]["skipped"]
    assert [(line["case"], line["messages_per_s"]) for line in lines[1:]] == [("1to1", 7)]


def test_failed_run_of_ours_is_an_error_and_no_figure(tmp_path: Path) -> None:
    program = tmp_path / "ring_bench"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)

    with pytest.raises(RuntimeError, match="ended with 1"):
        ring.Ours(program).run("1to1", "yield", 10)


def test_every_line_can_be_shown_to_people() -> None:
    case = ring.Case("1to1", "yield", 10)
    side = FakeSide(rate(5e6))
    shown = [
        ring.human(ring.skipped(case, "no reason")),
        ring.human(ring.measure(case, side, None, 1)),  # type: ignore[arg-type]
        ring.human(
            ring._report_pingpong(
                ring.Case("pingpong", "spin", 1), {"ours": [round_trip(9)], "reference": [], "bare": []}
            )
        ),
    ]

    assert "skipped: no reason" in shown[0]
    assert "5.0 M/s" in shown[1]
    assert "p50 9 ns" in shown[2]
