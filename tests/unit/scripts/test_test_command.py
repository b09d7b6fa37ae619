"""./scripts/test says failed when anything failed or is missing: the real script, with the tools replaced."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

ENVIRONMENT = """
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
say() { printf '%s\\n' "$*" >&2; }
environment() { :; }
test_tools() { :; }
native_build() { echo "built $*"; }
"""
TOOL = '#!/bin/sh\necho "$(basename "$0") $*" >> "{log}"\ncase "$*" in {failing}) exit 3;; esac\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("tests/unit/test_a.py", "tests/property/test_b.py", "tests/process/test_c.py", "tests/native/d.c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "ringbuf/wire").mkdir(parents=True)
    (tmp_path / "ringbuf/wire/generate.py").write_text("")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/environment.sh").write_text(ENVIRONMENT)
    (tmp_path / "scripts/test").write_text((ROOT / "scripts/test").read_text())
    return tmp_path


def run_tests(checkout: Path, *arguments: str, failing: str = "nothing") -> subprocess.CompletedProcess[str]:
    """Run ./scripts/test; a tool whose arguments match the shell pattern `failing` fails."""
    tools = checkout / ".venv/bin"
    tools.mkdir(parents=True, exist_ok=True)
    for name in ("python", "ruff", "mypy", "ctest"):
        (tools / name).write_text(TOOL.format(log=checkout / "calls", failing=failing))
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(checkout / "scripts/test"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})


def summary(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.splitlines()[-1]


def test_everything_passing_passes(checkout: Path) -> None:
    done = run_tests(checkout)

    assert done.returncode == 0, done.stderr
    assert summary(done).startswith("TEST SUMMARY: all 10 steps passed")


def test_quick_leaves_out_sanitizers_and_slow_tests_and_says_so(checkout: Path) -> None:
    done = run_tests(checkout, "--quick")

    assert done.returncode == 0, done.stderr
    assert summary(done).startswith("TEST SUMMARY: all 8 steps passed")
    assert "no sanitizers, no tests marked slow" in summary(done)
    assert "san-" not in done.stdout
    pytest_calls = [line for line in (checkout / "calls").read_text().splitlines() if "-m pytest" in line]
    assert len(pytest_calls) == 3
    assert all(line.endswith("-m not slow") for line in pytest_calls)


@pytest.mark.parametrize(
    ("failing", "title"),
    [
        ("*--check*", "generated files are fresh"),
        ("*tests/unit*", "unit tests"),
        ("*tests/property*", "property tests"),
        ("*tests/process*", "process tests"),
        ("*build/native*", "native tests"),
        ("*san-thread*", "native tests, thread sanitizer"),
        ("*san-address*", "native tests, address+undefined"),
    ],
)
def test_one_failing_step_fails_the_command_and_the_rest_still_runs(checkout: Path, failing: str, title: str) -> None:
    done = run_tests(checkout, failing=failing)

    assert done.returncode == 1
    assert "1 of 10 steps FAILED" in summary(done)
    assert summary(done).endswith(f": {title}")
    assert "tests/process" in (checkout / "calls").read_text()


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("ringbuf/wire/generate.py", "generated files are fresh"),
        ("tests/unit/test_a.py", "unit tests"),
        ("tests/property/test_b.py", "property tests"),
        ("tests/process/test_c.py", "process tests"),
        ("tests/native/d.c", "native tests"),
    ],
)
def test_missing_step_is_not_counted_as_passed(checkout: Path, name: str, title: str) -> None:
    (checkout / name).unlink()

    done = run_tests(checkout, "--quick")

    assert done.returncode == 1
    assert "1 of 8 steps FAILED" in summary(done)
    assert title in summary(done)


def test_planted_faults_alone_are_no_native_tests(checkout: Path) -> None:
    (checkout / "tests/native/planted").mkdir()
    (checkout / "tests/native/d.c").rename(checkout / "tests/native/planted/d.c")

    done = run_tests(checkout)

    assert done.returncode == 1
    assert "3 of 10 steps FAILED" in summary(done)


def test_arguments_go_to_pytest_alone(checkout: Path) -> None:
    done = run_tests(checkout, "tests/unit/test_a.py", "-k", "name")

    assert done.returncode == 0, done.stderr
    assert (checkout / "calls").read_text() == "python -m pytest tests/unit/test_a.py -k name\n"
