"""What the fuzz of the whole server must notice of floods and revoked keys, and that of the framing of bytes too many:
one line is changed, the fuzz must fail.
"""

import re
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

# Each reads bytes that have not arrived, which changes no decision: only the address sanitizer can see it.
OVER_READS = {
    "a byte behind what has come": ("memcpy(&header, bytes, have);", "memcpy(&header, bytes, have + (have < 31));"),
    "the header before it is there": ("memcpy(&header, bytes, have);", "memcpy(&header, bytes, sizeof(header));"),
    "a byte behind the frame": (
        "    frame->header = header;",
        "    if (*(const volatile uint8_t *)(bytes + header.message_length) == 77 && available == 0)\n"
        "        return FRAMING_MALFORMED;\n    frame->header = header;",
    ),
    "a byte of the frame before": (
        "    frame->header = header;",
        "    if (*(const volatile uint8_t *)(bytes - 1) == 77 && available == 0)\n"
        "        return FRAMING_MALFORMED;\n    frame->header = header;",
    ),
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


def test_the_fuzz_of_the_framing_passes_without_a_fault(server: Path) -> None:
    done = mutants.native(server, "framing_fuzz", "-fsanitize=address")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fault", OVER_READS)
def test_a_byte_read_too_many_is_noticed(server: Path, fault: str) -> None:
    mutants.change(server / "framing.c", *OVER_READS[fault])

    done = mutants.native(server, "framing_fuzz", "-fsanitize=address")

    assert done.returncode != 0, done.stdout + done.stderr
    # Before the first frame is the sanitizer's own zone.
    assert re.search("AddressSanitizer: (use-after-poison|global-buffer-overflow)", done.stderr), done.stderr
