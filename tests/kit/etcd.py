"""A real etcd on loopback, for tests; skipped with a reason where Debian's etcd-server is not installed."""

import shutil
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

from replicator.coordinator import CoordinatorConfig
from scripts.drills._etcd import etcd_answers, etcd_command
from tests.kit.ports import free_port
from tests.kit.waiting import eventually

PREFIX = "/bullring-test"


def needs_etcd() -> str:
    """Return the program, or skip the test."""
    program = shutil.which("etcd")
    if program is None:
        pytest.skip("no etcd here: apt-get install etcd-server")
    return program


class EtcdServer:
    """One member, its data in a folder of the test's; can be killed and started again on it."""

    def __init__(self, folder: Path) -> None:
        self._program = needs_etcd()
        self._folder = folder
        self.port = free_port()
        self._peer_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def config(self, node: int = 0, **changes: object) -> CoordinatorConfig:
        values: dict[str, object] = {"endpoints": (self.endpoint,), "prefix": PREFIX, "node": node, "timeout_ms": 2000}
        return CoordinatorConfig(**(values | changes))  # type: ignore[arg-type]

    def start(self) -> None:
        command = etcd_command(self._program, self._folder / "etcd", "127.0.0.1", self.port, self._peer_port)
        with (self._folder / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(lambda: etcd_answers(self.config()), deadline_s=30, what="etcd answers")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> "EtcdServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
