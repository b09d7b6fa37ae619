"""The `bullring` command finds its subcommands, helps quickly and documents its exit codes."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.arguments import SECONDS_MAX, duration_s, emit_one, table
from scripts.cli import BENCHES, COMMANDS, main
from scripts.exit_codes import MEANING, ExitCode

ROOT = Path(__file__).resolve().parents[3]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.OK

    out = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in COMMANDS)


def test_nothing_given_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.USAGE
    assert "commands:" in capsys.readouterr().out


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["acount", "list"]) == ExitCode.USAGE
    assert "did you mean account?" in capsys.readouterr().err


def test_errors_are_json_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stat", "--json", "--set", "node.mdoe=D0"]) == ExitCode.CONFIGURATION

    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["exit_code"] == ExitCode.CONFIGURATION
    assert "did you mean node.mode?" in answer["error"]


def test_help_imports_nothing_heavy() -> None:
    """Lazy imports: what only a subcommand needs must not make `bullring --help` slow."""
    program = "import sys; from scripts.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)

    loaded = set(done.stderr.split())
    assert loaded.isdisjoint({"numpy", "cryptography", "ringbuf", "engine", "gateway", "journaler", "argparse", "json"})


def test_documented_exit_codes_are_the_real_ones() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", (ROOT / "docs" / "EXIT_CODES.md").read_text(), re.MULTILINE)

    assert rows == [(str(int(code)), code.name, MEANING[code]) for code in ExitCode]


def test_table_aligns_numbers_to_the_right() -> None:
    text = table([{"name": "a", "n": 5}, {"name": "long", "n": 1234}])

    assert text.splitlines() == ["name     n", "a        5", "long  1234"]


def test_dissector_is_installed_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plugins"

    assert main(["dissector", "--folder", str(folder), "--json"]) == ExitCode.OK
    installed = json.loads(capsys.readouterr().out)["installed"]
    assert installed == str(folder / "bullring.lua")
    assert "bullring_oe" in (folder / "bullring.lua").read_text()
    assert main(["dissector", "--folder", "/proc/no", "--json"]) == ExitCode.CANNOT_CREATE


def test_benches_are_listed_each_with_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == ExitCode.OK
    out = capsys.readouterr().out
    names = [path.stem for path in BENCHES.glob("*.py") if not path.stem.startswith("_")]
    assert all(re.search(rf"^  {name} +\S", out, re.MULTILINE) for name in names)

    assert main(["bench"]) == ExitCode.USAGE
    assert main(["bench", "nothing"]) == ExitCode.USAGE
    assert "no bench 'nothing'; there are: book," in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-1", "0", "abc", "nan", "inf", f"{SECONDS_MAX + 1}"])
def test_time_that_is_none_is_refused_with_its_limit(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=rf"{text}: must be a number of seconds above 0, at most"):
        duration_s(text)


def test_one_answer_is_told_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    money: dict[str, Any] = {"BTC": {"available": "1.5", "held": "0"}, "USDT": {"available": "2", "held": "1"}}

    emit_one({"account": 7, "balances": money, "file": None, "fault": "", "none": {}}, as_json=False)

    assert capsys.readouterr().out.splitlines() == [
        "account:  7",
        "balances: BTC available=1.5, held=0; USDT available=2, held=1",
        "file:     -",
        "fault:    -",
        "none:     none",
    ]
