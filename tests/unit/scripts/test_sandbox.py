"""A process that has locked itself in is denied what it could do before: for real, as an unprivileged user."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.sandbox import landlock_version

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534
TIME_MAX_S = 60
# Tries everything on its own files, so that nothing but the sandbox can deny it, and prints who said what.
PROGRAM = """
import json, os, subprocess, sys
from pathlib import Path
from scripts.sandbox import program_paths, read_only
folder, shm, locked = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "locked"
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
opened = open(folder / "open-before", "w")
if locked:
    assert read_only([*program_paths(), folder / "journal" / "reports"])

def attempt(work):
    try:
        work()
        return "done"
    except OSError as error:
        return os.strerror(error.errno)

def child():
    code = subprocess.run(["cat", folder / "journal" / "segment"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if code.returncode:
        raise PermissionError(13, "")

said = {
    "read reports": attempt((folder / "journal" / "reports" / "1").read_bytes),
    "import": attempt(lambda: __import__("sched")),
    "use what was open": attempt(lambda: (opened.write("x"), opened.flush())),
    "write reports": attempt(lambda: (folder / "journal" / "reports" / "1").write_bytes(b"")),
    "read journal": attempt((folder / "journal" / "segment").read_bytes),
    "write journal": attempt(lambda: open(folder / "journal" / "segment", "r+b").close()),
    "read keys": attempt((folder / "seal.key").read_bytes),
    "make a file": attempt(lambda: (folder / "new").write_text("")),
    "remove a file": attempt((folder / "open-before").unlink),
    "write the log ring": attempt(lambda: open(shm, "r+b").close()),
    "in a child": attempt(child),
}
print(json.dumps(said))
"""
ALLOWED = {"read reports", "import", "use what was open"}


@pytest.fixture
def site() -> Iterator[tuple[Path, Path]]:
    """Files of a node and a ring, all of them the unprivileged user's own."""
    folder = Path(tempfile.mkdtemp(prefix="bullring-test-"))
    shm = Path(tempfile.mkstemp(prefix="bullring-test-", dir="/dev/shm")[1])
    (folder / "journal" / "reports").mkdir(parents=True)
    for name in ("journal/segment", "journal/reports/1", "seal.key"):
        (folder / name).write_text("x")
    if os.geteuid() == 0:
        for path in (folder, shm, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    yield folder, shm
    shutil.rmtree(folder)
    shm.unlink(missing_ok=True)


def play(site: tuple[Path, Path], how: str) -> dict[str, str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, site), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_MAX_S)
    if done.returncode and "Permission denied" in done.stderr and os.geteuid() == 0:
        pytest.skip("this checkout cannot be read by another user")
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


def test_a_locked_process_can_do_what_a_gateway_needs_and_nothing_else(site: tuple[Path, Path]) -> None:
    if landlock_version() == 0:
        pytest.skip("this kernel has no Landlock")

    said = play(site, "locked")

    assert {what for what, answer in said.items() if answer == "done"} == ALLOWED
    assert set(said.values()) == {"done", "Permission denied"}


def test_without_the_lock_everything_was_possible(site: tuple[Path, Path]) -> None:
    assert set(play(site, "open").values()) == {"done"}
