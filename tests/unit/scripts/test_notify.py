"""The service manager hears what it must, and nobody minds where there is none."""

import socket
from pathlib import Path

import pytest

from scripts.notify import ServiceManager


def heard(listener: socket.socket) -> list[str]:
    listener.setblocking(False)
    words = []
    while True:
        try:
            words.append(listener.recv(4096).decode())
        except BlockingIOError:
            return words


@pytest.mark.parametrize("abstract", [False, True])
def test_a_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"\0{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{tmp_path}" if abstract else name)
        monkeypatch.setenv("WATCHDOG_USEC", "10000000")
        manager = ServiceManager()

        manager.ready("here")
        manager.alive()
        manager.alive()
        manager.busy(600)
        manager.busy(0)
        manager.status("well")
        manager.stopping()

        assert heard(listener) == [
            "READY=1\nSTATUS=here",
            "WATCHDOG=1",
            "WATCHDOG_USEC=600000000\nWATCHDOG=1",
            "WATCHDOG_USEC=10000000\nWATCHDOG=1",
            "STATUS=well",
            "STOPPING=1",
        ]


def test_without_a_manager_or_with_a_dead_one_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ServiceManager().ready("here")

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    ServiceManager().ready("here")
