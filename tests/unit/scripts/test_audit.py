"""What an account held, and why: every change in the log is accounted for, and nothing else."""

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from scripts.auditing.account import parse_time, time_text
from scripts.cli import main
from scripts.exit_codes import CommandError, ExitCode
from scripts.snapshots.taking import take
from tests.kit.images import Log, replica_at, small_log, write_log
from tests.unit.scripts.test_snapshots import config_of

ACCOUNT = 1
BASE, QUOTE = 1, 2
NS = 1_000_000_000


@pytest.fixture(scope="module")
def log() -> Log:
    return small_log(seconds=4, orders=30)


@pytest.fixture(scope="module")
def data(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "data"
    write_log(folder / "journal", log)
    return folder


def audit(capsys: pytest.CaptureFixture[str], data: Path, *options: str, account: int = ACCOUNT) -> dict[str, Any]:
    assert main(["audit", "account", str(account), "--data", str(data), "--json", *options]) == ExitCode.OK
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def held(log: Log, sequence: int, asset: int) -> tuple[int, int]:
    replica = replica_at(log, sequence)
    try:
        return replica.sequencer.balance(ACCOUNT, asset)
    finally:
        replica.close()


def test_balances_are_those_of_a_replay(data: Path, log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    for sequence in (log.end, log.end // 2, log.end // 3):
        while not log.is_cut(sequence):
            sequence += 1
        balances = audit(capsys, data, "--to", str(sequence))["balances"]

        for asset, symbol in ((BASE, "BASE"), (QUOTE, "QUOTE")):
            available, on_hold = held(log, sequence, asset)
            assert balances[symbol] == {"available": str(available), "held": str(on_hold)}


def test_changes_add_up_to_the_balances(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = audit(capsys, data, "--rows", "100000")

    assert answer["changes"] == len(answer["rows"]) > 50
    for symbol, balance in answer["balances"].items():
        rows = [row for row in answer["rows"] if row["asset"] == symbol]
        assert sum(Decimal(row["available_change"]) for row in rows) == Decimal(balance["available"])
        assert sum(Decimal(row["held_change"]) for row in rows) == Decimal(balance["held"])
        assert (rows[-1]["available"], rows[-1]["held"]) == (balance["available"], balance["held"])


def test_each_change_says_why(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = audit(capsys, data, "--rows", "100000")["rows"]

    assert rows[0]["why"].startswith("BalanceAdjust")
    holds = [row for row in rows if row["why"].startswith("NewOrderSingle")]
    fills = [row for row in rows if "OrderExecuted" in row["why"]]
    assert all(Decimal(row["held_change"]) > 0 for row in holds)
    assert holds
    assert fills
    assert len(holds) + len(fills) > len(rows) // 2


def test_a_time_stands_for_the_records_up_to_it(data: Path, log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    whole = audit(capsys, data, "--rows", "100000")["rows"]
    middle = whole[len(whole) // 2]

    answer = audit(capsys, data, "--at", middle["time"].replace(" ", "T"), "--rows", "1")

    assert answer["time"] <= middle["time"]
    assert answer["rows"][-1]["sequence"] == middle["sequence"]


def test_from_a_snapshot_it_says_the_same(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    snapshot = take(config_of(copy), lambda _: None, keep=3).manifest.sequence

    later = audit(capsys, copy, "--rows", "100000")
    whole = audit(capsys, copy, "--rows", "100000", "--from", "beginning")

    assert (later["followed_from"], whole["followed_from"]) == (snapshot, 0)
    assert later["balances"] == whole["balances"]
    assert later["rows"] == [row for row in whole["rows"] if row["sequence"] >= snapshot]


def test_an_account_without_money_is_said(data: Path) -> None:
    with pytest.raises(CommandError, match="account 9 never had any money"):
        from scripts import audit as command

        command.run(["account", "9", "--data", str(data)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12:03:04.5", "2026-11-25 12:03:04.500000000"),
        ("2026-11-24T12:03:04.123456789", "2026-11-24 12:03:04.123456789"),
        ("2026-11-24T12:03:04Z", "2026-11-24 12:03:04.000000000"),
    ],
)
def test_times(text: str, expected: str) -> None:
    newest = parse_time("2026-11-25T20:00:00", 0)

    assert time_text(parse_time(text, newest)) == expected


@pytest.mark.parametrize("text", ["noon", "25:00:00", "12:03:04.1234567890", "2026-13-01T00:00:00"])
def test_a_bad_time_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="--at"):
        parse_time(text, NS)
