"""A dump of a broken invariant is explained: by a record of the log, or by nothing in it."""

import json
from pathlib import Path

import pytest

from scripts.auditing.dump import DUMPS_MAX, FOLDER, Dump, broken_invariant
from scripts.cli import main
from scripts.exit_codes import ExitCode
from tests.kit.images import SLOT_SIZE, Log, small_log, write_log

SAID = "something\n/x/engine/accounts.c:87: invariant broken in balance_change: balance->held >= 0\nAborted\n"


@pytest.fixture(scope="module")
def log() -> Log:
    return small_log(seconds=2, orders=20)


def explained(data: Path, log: Log, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    dump = Dump("sequencer", 1_700_000_000_000_000_000, "a.c:1", "f", "x > 0", log.end, log.end, {"0": 1})
    dump.save(data)
    assert main(["audit", "dump", "--data", str(data), "--json"]) == ExitCode.OK
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_what_a_process_said_is_understood() -> None:
    assert broken_invariant(SAID) == {
        "place": "/x/engine/accounts.c:87", "function": "balance_change", "condition": "balance->held >= 0"
    }  # fmt: skip
    assert broken_invariant("nothing of the kind") is None


def test_a_sound_log_is_not_the_cause(log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "data" / "journal", log)

    answer = explained(tmp_path / "data", log, capsys)

    assert (answer["verdict"], answer["condition"]) == ("not by the log", "x > 0")


def test_the_record_that_breaks_it_is_named(log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record in the middle has an older stamp than the one before: an invariant of the sequencer."""
    at = next(at for at in range(log.end // 2, log.end) if log.is_cut(at) and log.is_cut(at + 1))
    slots = bytearray(log.slots)
    slots[at * SLOT_SIZE + 112 : at * SLOT_SIZE + 120] = bytes(8)
    broken = Log(log.config, bytes(slots))
    write_log(tmp_path / "data" / "journal", broken, reports=False)

    answer = explained(tmp_path / "data", broken, capsys)

    assert (answer["verdict"], answer["replayed_to"]) == ("by the log", at)
    assert "ts_ns" in str(answer["again"])


def test_only_the_newest_dumps_are_kept(tmp_path: Path) -> None:
    for second in range(DUMPS_MAX + 2):
        Dump("feed", second * 10**9, "a.c:1", "f", "x > 0", second, second, {}).save(tmp_path)

    kept = sorted((tmp_path / FOLDER).iterdir())
    assert [Dump.load(path).log_visible for path in kept] == list(range(2, DUMPS_MAX + 2))
