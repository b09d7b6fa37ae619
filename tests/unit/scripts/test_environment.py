"""scripts/environment.sh, in bash, with the parts that would change the system replaced by functions that only tell."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the real environment.sh and nothing to build."""
    (tmp_path / "scripts/build").mkdir(parents=True)
    (tmp_path / "build/logs").mkdir(parents=True)
    for package in ("ringbuf", "engine", "journaler", "replicator", "gateway", "settlement"):
        (tmp_path / package).mkdir()
    (tmp_path / "scripts/environment.sh").write_text((ROOT / "scripts/environment.sh").read_text())
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def bash(checkout: Path, script: str) -> subprocess.CompletedProcess[str]:
    text = f"set -euo pipefail\nsource {checkout}/scripts/environment.sh\n{script}"
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False, cwd="/", timeout=30)


MISSING_UNTIL_INSTALLED = """
apt-get() { printf 'apt-get %s\\n' "$*"; [[ $* != *install* ]] || touch "$ROOT/installed"; }
missing_packages() { [[ -e $ROOT/installed ]] || printf '%s\\n' cmake ninja-build; }
"""


def test_account_without_root_is_told_the_one_command(checkout: Path) -> None:
    done = bash(checkout, MISSING_UNTIL_INSTALLED + "is_root() { false; }\nsystem_packages")

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "bullring: system packages are missing; run: sudo apt-get update && sudo apt-get install -y cmake ninja-build"
    ]


def test_root_installs_what_is_missing(checkout: Path) -> None:
    done = bash(checkout, MISSING_UNTIL_INSTALLED + "is_root() { true; }\nsystem_packages")

    assert done.returncode == 0, done.stderr
    calls = (checkout / "build/logs/apt.log").read_text().splitlines()
    assert [line.split()[3] for line in calls] == ["update", "install"]
    assert calls[1].endswith("cmake ninja-build")


def test_package_still_missing_after_the_install_stops_the_start(checkout: Path) -> None:
    script = "apt-get() { :; }\nmissing_packages() { echo cmake; }\nis_root() { true; }\nsystem_packages"

    done = bash(checkout, script)

    assert done.returncode == 1
    assert "still missing after apt-get install: cmake" in done.stderr


def test_complete_system_installs_nothing(checkout: Path) -> None:
    done = bash(checkout, "apt-get() { echo called; exit 9; }\nmissing_packages() { :; }\nsystem_packages")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_failing_step_shows_the_end_of_its_log_and_stops(checkout: Path) -> None:
    done = bash(checkout, "noisy() { echo the reason; return 7; }\nshown 'a step' a_step noisy\necho not reached")

    assert done.returncode == 1
    assert done.stdout == ""
    assert "the reason" in done.stderr
    assert "a step failed with exit code 7; the whole log is build/logs/a_step.log" in done.stderr


def test_long_step_shows_a_sign_of_life_and_leaves_nothing_behind(checkout: Path) -> None:
    """bash() returns once the last holder of our pipes is gone: a heartbeat left behind would show as a timeout."""
    first = "HEARTBEAT_S=0.2\nlong() { echo at work; sleep 0.7; }\nshown 'a step' a_step long\n"
    script = first + "HEARTBEAT_S=60\nshown 'another' another true"

    done = bash(checkout, script)

    assert done.returncode == 0, done.stderr
    assert "s: at work" in done.stderr


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ringbuf/ring.c", True),
        ("engine/book.h", True),
        ("ringbuf/wire/orders.xml", True),
        ("engine/_build.py", True),
        ("scripts/build/CMakeLists.txt", True),
        ("pyproject.toml", True),
        ("engine/book.py", False),
        ("build/native/x.c", False),
    ],
)
def test_build_is_repeated_only_for_what_it_is_made_of(checkout: Path, name: str, counts: bool) -> None:
    path = checkout / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("first")
    first = bash(checkout, "native_hash").stdout
    path.write_text("second")
    second = bash(checkout, "native_hash").stdout

    assert len(first) == 65
    assert (first != second) == counts


def test_python_without_headers_or_venv_is_refused(checkout: Path) -> None:
    fake = checkout / "python-without-headers"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)

    done = bash(checkout, f"for name in {fake} no-such-python; do python_is_good $name || echo refused; done")

    assert done.stdout == "refused\nrefused\n"
