"""Debian's ZooKeeper on loopback, for replicated tables; without it the test is skipped."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.kit.ports import free_port
from tests.kit.waiting import eventually

JAR = Path("/usr/share/java/zookeeper.jar")


class Zookeeper:
    """One server without authentication, in a folder."""

    def __init__(self, folder: Path) -> None:
        if not JAR.is_file() or shutil.which("java") is None:
            pytest.skip("no ZooKeeper here; Debian: apt-get install zookeeper")
        folder.mkdir(parents=True)
        self.port = free_port()
        command = ["java", "-Xmx128m", "-Dzookeeper.admin.enableServer=false", "-cp", str(JAR)]
        command += ["org.apache.zookeeper.server.ZooKeeperServerMain", str(self.port), str(folder)]
        self._console = (folder / "console").open("wb")
        self._process = subprocess.Popen(command, cwd=folder, stdout=self._console, stderr=self._console)
        eventually(self._answers, deadline_s=60, what="ZooKeeper answers")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._console.close()

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._process.args
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"srvr")
                return b"Mode" in probe.recv(1000)
        except OSError:
            return False
