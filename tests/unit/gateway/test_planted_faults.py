"""What the fuzz of the whole server must notice of floods and revoked keys: one line is changed, the fuzz must fail."""

import signal
from pathlib import Path

import pytest

from tests.kit import mutants

pytestmark = pytest.mark.slow

FUZZ = "gateway_fuzz"

FAULTS = {
    "floods are not counted": ("limits.c", "connection->flood_intervals += !connection->flooded;", ""),
    "who was not read is never read again": ("limits.c", "connection->unread_until_ns = 0;\n    /* That", "/* That"),
    "a flood ends without its reason": ("requests.c", "TERMINATE_CODE_FLOOD", "TERMINATE_CODE_UNSPECIFIED"),
    "a revoked key is not looked at": ("reports.c", "server->keys_changed = true;", ""),
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BULLRING_QUICK", "1")
    return mutants.copy_package("gateway", tmp_path) / "binary"


def test_the_fuzz_passes_without_a_fault(server: Path) -> None:
    done = mutants.native(server, FUZZ)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_noticed(server: Path, fault: str) -> None:
    name, old, new = FAULTS[fault]
    mutants.change(server / name, old, new)

    done = mutants.native(server, FUZZ)

    assert done.returncode == -signal.SIGABRT, done.stdout + done.stderr
    assert "invariant broken" in done.stderr
