"""The `bullring` command finds its subcommands, helps quickly and documents its exit codes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.arguments import table
from scripts.cli import COMMANDS, main
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
