"""What `bullring install` lays out, checked with systemd's own tools, and against what the supervisor does."""

import os
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from scripts import install
from scripts.config import load
from scripts.exit_codes import CommandError, ExitCode
from scripts.supervisor import FATAL

UNITS = sorted(path for path in install.UNITS.iterdir() if path.suffix in install.UNIT_SUFFIXES)
SERVICES = [path for path in UNITS if path.suffix == ".service"]
EXPOSURE_MAX = "20"  # tenths: 2.0
TIME_MAX_S = 120


class UnitFile(RawConfigParser):
    """A unit file; names are as written."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, interpolation=None, comment_prefixes=("#",))
        self.read_string(path.read_text())

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    environment = os.environ | {"SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=TIME_MAX_S, env=environment, check=False
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root folder with everything installed, and a program where the units look for it."""
    prefix = tmp_path / "venv"
    program = prefix / "bin" / "bullring"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert install.run(["--root", str(tmp_path), "--prefix", str(prefix), "--json"]) == ExitCode.OK
    return tmp_path


# --- systemd's judgement ----------------------------------------------------------------------------------------------


def verify(path: Path) -> str:
    done = analyze("verify", "--man=no", str(path))
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", [path.name for path in UNITS])
def test_systemd_has_nothing_to_say_about_a_unit(root: Path, unit: str) -> None:
    path = root / install.UNIT_FOLDER / unit
    # An instance, as it would be started.
    if "@" in unit:
        instance = path.with_name(unit.replace("@", "@a"))
        instance.symlink_to(path.name)
        path = instance

    assert verify(path) == ""


def test_a_wrong_unit_is_noticed(root: Path) -> None:
    path = root / install.UNIT_FOLDER / "bullring@.service"
    path.write_text(path.read_text().replace("WatchdogSec=10", "WatchdogSec=10\nWatchDogs=yes"))

    assert "WatchDogs" in verify(path)


@pytest.mark.parametrize("unit", [path.name for path in SERVICES])
def test_a_service_is_hardened(root: Path, unit: str) -> None:
    path = root / install.UNIT_FOLDER / unit

    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(path))

    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_a_service_without_hardening_is_noticed(root: Path) -> None:
    path = root / install.UNIT_FOLDER / "bullring@.service"
    path.write_text(path.read_text().replace("CapabilityBoundingSet=\n", "").replace("NoNewPrivileges=yes\n", ""))

    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", str(path))

    assert done.returncode != 0


# --- the supervisor and the units -------------------------------------------------------------------------------------


def test_restart_policy_of_the_node_is_that_of_its_supervisor() -> None:
    unit = UnitFile(install.UNITS / "bullring@.service")
    limits = load().supervisor

    assert int(unit["Unit"]["StartLimitIntervalSec"]) == limits.restart_window_s
    assert int(unit["Unit"]["StartLimitBurst"]) == limits.restarts_max
    assert int(unit["Service"]["TimeoutStopSec"]) > 4 * limits.stop_timeout_s
    prevented = {int(code) for code in unit["Service"]["RestartPreventExitStatus"].split()}
    assert prevented == {int(code) for code in FATAL} | {int(ExitCode.INTERNAL)}


def test_every_user_and_folder_of_the_units_is_made() -> None:
    users = (install.HOST / "bullring.sysusers").read_text()

    for path in SERVICES:
        service = UnitFile(path)["Service"]
        assert f"u {service['User']} " in users
        assert service["StateDirectory"].startswith("bullring")
        assert service["Slice"] == "bullring.slice"


# --- installing -------------------------------------------------------------------------------------------------------


def test_files_lie_where_they_belong(root: Path) -> None:
    for unit in UNITS:
        assert (root / "etc/systemd/system" / unit.name).is_file()
    service = (root / "etc/systemd/system/bullring@.service").read_text()
    assert f"ExecStart={root}/venv/bin/bullring run" in service
    assert (root / "etc/bullring").stat().st_mode & 0o777 == 0o750
    example = root / install.EXAMPLE
    assert load(example).node.environment == "production"
    assert example.stat().st_mode & 0o777 == 0o640


def test_a_changed_file_is_kept_unless_it_is_to_be_replaced(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = root / "etc/sysctl.d/90-bullring.conf"
    changed.write_text("vm.swappiness = 5\n")
    again = ["--root", str(root), "--prefix", str(root / "venv")]

    assert install.run(again) == ExitCode.NEGATIVE
    assert "kept" in capsys.readouterr().out
    assert changed.read_text() == "vm.swappiness = 5\n"

    assert install.run([*again, "--replace"]) == ExitCode.OK
    assert "vm.swappiness = 1\n" in changed.read_text()


def test_a_relative_prefix_and_an_unwritable_root_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--prefix venv: must be an absolute path"):
        install.run(["--root", str(tmp_path), "--prefix", "venv"])
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="cannot install to"):
        install.run(["--root", str(tmp_path / "file")])
