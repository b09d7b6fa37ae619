"""Other people's programs at pinned versions, each in an environment of its own (some exclude one another)."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "foreign"
INSTALL_S = 300


def environment(name: str) -> Path:
    """Return the environment of tests/clients/requirements-NAME.txt, made once; skips where it cannot be installed."""
    wanted = ROOT / "tests" / "clients" / f"requirements-{name}.txt"
    folder = FOLDER / name
    done = folder / "installed.txt"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_file() or done.read_text() != wanted.read_text():
            _install(folder, wanted)
            done.write_text(wanted.read_text())
    return folder / "bin"


def _install(folder: Path, wanted: Path) -> None:
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "-r", str(wanted)],
    )
    for command in commands:
        try:
            made = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"not run: {wanted.name} could not be installed within {INSTALL_S} s")
        if made.returncode != 0:
            reason = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
            pytest.skip(f"not run: {wanted.name} cannot be installed here: {reason}")
