"""Other people's programs at pinned versions, each in an environment of its own (some exclude one another)."""

import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "foreign"
INSTALL_S = 900


def environment(name: str) -> Path:
    """Return the environment of tests/clients/requirements-NAME.txt, made once; skips where it cannot be installed.

    A first line `# Python 3.12` says which interpreter it needs, if not ours.
    """
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


def _interpreter(wanted: Path) -> str:
    """Return the Python that requirements are for; skips when it is not here."""
    needed = re.match(r"# Python (\d+\.\d+)\n", wanted.read_text())
    if needed is None:
        return sys.executable
    program = shutil.which(f"python{needed[1]}")
    if program is None or subprocess.run([program, "-V"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"not run: {wanted.name} needs Python {needed[1]}, which is not here")
    return program


def _install(folder: Path, wanted: Path) -> None:
    commands = (
        [_interpreter(wanted), "-m", "venv", "--clear", str(folder)],
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
