"""Fixtures of all tests: a printed seed, shared memory that must not leak, the recorded data beside the checkout."""

import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SHM = Path("/dev/shm")
SEED_VARIABLE = "BULLRING_TEST_SEED"
SHARED_VARIABLE = "BULLRING_SHARED"

_prefix_numbers = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    # Through the environment, so that the workers of xdist have the seed of the process that prints it.
    os.environ.setdefault(SEED_VARIABLE, str(random.SystemRandom().randrange(2**32)))
    settings.register_profile("bullring", deadline=None, print_blob=True)
    settings.load_profile("bullring")


def commit() -> str:
    """Return the short name of the commit under test."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git here)"
    return done.stdout.strip()


def pytest_report_header() -> str:
    return f"bullring: commit {commit()}, {SEED_VARIABLE}={os.environ[SEED_VARIABLE]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Print seed and commit with every failed test that drew random numbers."""
    report = yield
    if report.failed and "seed" in getattr(item, "fixturenames", ()):
        report.sections.append(("how to repeat", f"{SEED_VARIABLE}={os.environ[SEED_VARIABLE]} commit {commit()}"))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what long random tests went through: their property "counts", numbers by name."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, counts in getattr(report, "user_properties", ()):
                if name == "counts" and report.when == "call":
                    numbers = ", ".join(f"{what} {count:,}" for what, count in counts.items())
                    terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {numbers}")


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run: BULLRING_TEST_SEED, or a fresh one that is printed."""
    return int(os.environ[SEED_VARIABLE])


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """A generator of this test's own: the same numbers whichever tests run besides."""
    return random.Random(f"{seed} {request.node.nodeid}")


def leaked_segments(prefix: str, folder: Path = SHM) -> list[Path]:
    """Return what still stands in shared memory under `prefix`."""
    return sorted(folder.glob(f"{prefix}*"))


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.fixture
def shm_prefix() -> Iterator[str]:
    """A prefix for the names of this test's shared-memory segments; a segment left behind fails the test."""
    prefix = f"bullring-test-{os.getpid()}-{next(_prefix_numbers)}-"
    yield prefix
    leaked = leaked_segments(prefix)
    for path in leaked:
        remove(path)
    assert not leaked, f"segments left in shared memory: {[path.name for path in leaked]}"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded market data and reference texts, read-only; the test is skipped where it is absent."""
    path = Path(os.environ.get(SHARED_VARIABLE) or ROOT.parent / "shared")
    if not path.is_dir():
        pytest.skip(f"no recorded data: neither {SHARED_VARIABLE} nor ../shared beside the checkout")
    return path
