"""Every drill passes in a short version, and fails with each of the faults it has to notice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import drill
from scripts.drill_report import record
from scripts.drills import COMMON_FIELDS, Context, Drill, Outcome, load, names
from scripts.exit_codes import CommandError, ExitCode

ROOT = Path(__file__).resolve().parents[2]
# By the drill's name, and words for people.
SHORT: dict[str, tuple[str, ...]] = {
    "diskfull": (),
    "diverge": (),
    "fsyncfail": ("--runs", "3"),
    "kill": ("--runs", "5"),
    "ledger": ("--runs", "3"),
    "kill of a host": ("--nodes", "2", "--runs", "2"),
    "poison": (),
    "restore": (),
    "snapkill": ("--runs", "2"),
    "slowdisk": (),
    "switchover": ("--runs", "2"),
    "torture": ("--stride", "11", "--batches", "3"),
}
# BULLRING_DRILLS=all plays these, too: half a minute each.
LONG: dict[str, tuple[str, ...]] = {
    "blackout": (),
    "clock": ("--who", "standby"),
    "double": (),
    "etcdloss": ("--how", "with-standby"),
    "link": (),
    "partition": ("--link", "isolated"),
    "overload": ("--runs", "1"),
    "stop": ("--runs", "3", "--for", "2"),
    "stop of a host": ("--nodes", "2", "--runs", "1"),
    "storm": (),
    "upgrade": (),
}
PLAYED = SHORT | (LONG if os.environ.get("BULLRING_DRILLS") == "all" else {})
# One course plays and judges every drill of two nodes, another those of one node's processes: one control each.
CONTROLS = {name: options for name, options in PLAYED.items() if " of a " not in name} | {
    "kill": ("--runs", "1"),
    "ledger": ("--runs", "1"),
    "snapkill": ("--runs", "1"),
    "switchover": ("--runs", "1"),
    "fsyncfail": ("--runs", "1"),
    "torture": ("--stride", "61", "--batches", "2"),
}
TIME_MAX_S = 600


def play(name: str, *options: str) -> tuple[int, dict[str, object]]:
    """Run a drill as an operator does; skip where this machine cannot show it."""
    command = [sys.executable, "-m", "scripts.cli", "drill", name, "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_MAX_S)
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stdout + done.stderr
    line = json.loads(lines[0])
    if line["verdict"] == "skipped":
        assert done.returncode in (ExitCode.NO_PERMISSION, ExitCode.UNAVAILABLE)
        pytest.skip(f"{name}: {line['reason']}")
    return done.returncode, line


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYED)
def test_drill_passes(name: str) -> None:
    code, line = play(name.split()[0], *PLAYED[name])

    assert (code, line["verdict"], line["problems"]) == (ExitCode.OK, "pass", []), line
    # What was acknowledged after the last pass of the shipping is lost with both hosts: the drill judges how much.
    assert line["acked_lost"] == 0 or name == "restore"


def planted() -> list[tuple[str, str]]:
    """Every fault of the drills played; those of one course are judged by the same code, which is controlled once."""
    pairs = [(name, fault) for name in CONTROLS for fault in load(name).faults]
    return [pair for pair in pairs if pair[1] != "forged" or pair[0] in ("kill", "switchover")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault"), planted())
def test_drill_fails_with_a_planted_fault(name: str, fault: str) -> None:
    code, line = play(name, "--plant", fault, *CONTROLS[name])

    assert (code, line["verdict"], line["planted"]) == (ExitCode.NEGATIVE, "fail", fault), line
    assert line["problems"]


# --- the frame --------------------------------------------------------------------------------------------------------


def test_every_drill_has_faults_to_notice_and_says_what_it_does() -> None:
    for name in names():
        assert load(name).faults and load(name).summary, name


def test_unknown_drill_and_fault_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="no drill 'nothing'; there are: "):
        drill.run(["nothing"])
    with pytest.raises(CommandError, match="--plant nothing: must be one of no-mark"):
        drill.run(["torture", "--plant", "nothing"])
    assert drill.run([]) == ExitCode.USAGE
    assert "torture" in capsys.readouterr().out


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[Context]:
    """A drill that fails unless nothing is planted, and misses one of its faults."""
    seen: list[Context] = []

    def run(context: Context) -> Outcome:
        seen.append(context)
        outcome = Outcome({name: 0 for name in COMMON_FIELDS})
        for _ in context.rounds():
            outcome.add(runs=1)
        outcome.check(context.planted in (None, "missed"), "found")
        return outcome

    made = Drill("a toy", run, {"seen": "is noticed", "missed": "is not"}, runs=3)
    monkeypatch.setattr(drill, "load", lambda name: made)
    return seen


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    line: dict[str, object] = json.loads(capsys.readouterr().out)
    return line


def test_verdict_is_the_exit_code_and_one_line(toy: list[Context], capsys: pytest.CaptureFixture[str]) -> None:
    assert drill.run(["torture", "--json", "--seed", "7"]) == ExitCode.OK
    line = last_line(capsys)
    assert (line["verdict"], line["seed"], line["runs"]) == ("pass", 7, 3)

    assert drill.run(["torture", "--json", "--plant", "seen", "--runs", "2"]) == ExitCode.NEGATIVE
    line = last_line(capsys)
    assert (line["verdict"], line["problems"], line["runs"]) == ("fail", ["found"], 2)
    assert toy[0].rng.random() == Context(Path(), 7, 1, None, None, {}, print).rng.random()
    assert not toy[0].folder.exists()


def test_controls_name_the_fault_that_was_missed(toy: list[Context], capsys: pytest.CaptureFixture[str]) -> None:
    assert drill.run(["torture", "--json", "--controls"]) == ExitCode.NEGATIVE
    assert last_line(capsys)["problems"] == ["the planted fault 'missed' was not noticed"]


def test_drill_that_breaks_is_no_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(context: Context) -> Outcome:
        raise RuntimeError("broken")

    monkeypatch.setattr(drill, "load", lambda name: Drill("a broken toy", run, {"any": "is never noticed"}))

    for options in ([], ["--controls"]):
        assert drill.run(["torture", "--json", *options]) == ExitCode.INTERNAL
        assert last_line(capsys)["verdict"] == "error"


def test_seconds_bound_the_rounds_instead_of_their_number(
    toy: list[Context], capsys: pytest.CaptureFixture[str]
) -> None:
    assert drill.run(["torture", "--json", "--seconds", "0"]) == ExitCode.OK
    assert last_line(capsys)["runs"] == 1


# --- the runbook ------------------------------------------------------------------------------------------------------


def test_report_shows_the_newest_verdict_of_each_kind(
    toy: list[Context], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "drills.jsonl"
    for name, *options in (["torture"], ["kill", "--plant", "seen"], ["kill"]):
        drill.run([name, "--json", "--record", str(file), *options])
    capsys.readouterr()

    assert drill.run(["report", str(file), "--json"]) == ExitCode.OK

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["drill"], row["verdict"], row["acked_lost"]) for row in rows] == [
        ("kill", "pass", 0),
        ("torture", "pass", 0),
    ]
    assert all(row["date"].endswith("Z") and row["version"] for row in rows)


def test_report_of_a_failed_drill_is_negative_and_names_the_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "drills.jsonl"
    for verdict, problems in (("pass", []), ("fail", ["two were lost"])):
        record(file, {"drill": "kill", "verdict": verdict, "problems": problems, "options": {"what": "host"}})

    assert drill.run(["report", str(file)]) == ExitCode.NEGATIVE
    assert "two were lost" in capsys.readouterr().out
    assert drill.run(["report", str(file), "--all"]) == ExitCode.NEGATIVE
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_report_names_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot read"):
        drill.run(["report", str(tmp_path / "none")])
    (tmp_path / "bad").write_text("{}\nnot json\n")
    with pytest.raises(CommandError, match="line 2: not a recorded drill"):
        drill.run(["report", str(tmp_path / "bad")])
