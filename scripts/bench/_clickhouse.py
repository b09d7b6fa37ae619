"""A ClickHouse server of our own on loopback, in one folder, for benches and tests: Debian's, from version 18.16 on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from clickhouse_driver import Client

from settlement.clickhouse_store import ClickhouseConfig

START_S = 60.0
POLL_S = 0.05
DATABASE = "bullring"
_CONFIG = """<?xml version="1.0"?>
<yandex>
  <logger><level>warning</level><log>{folder}/log</log><errorlog>{folder}/errors</errorlog></logger>
  <tcp_port>{port}</tcp_port><http_port>{http}</http_port><interserver_http_port>{interserver}</interserver_http_port>
  <listen_host>127.0.0.1</listen_host>
  <interserver_http_host>127.0.0.1</interserver_http_host>
  <path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path><format_schema_path>{folder}/formats/</format_schema_path>
  <users_config>users.xml</users_config><default_profile>default</default_profile>
  <default_database>default</default_database><mark_cache_size>67108864</mark_cache_size><timezone>UTC</timezone>
  <mlock_executable>false</mlock_executable>{more}
</yandex>
"""
_USERS = """<?xml version="1.0"?>
<yandex>
  <profiles><default><max_memory_usage>2000000000</max_memory_usage><max_threads>2</max_threads></default></profiles>
  <users><default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
  <quota>default</quota></default></users>
  <quotas><default><interval><duration>3600</duration><queries>0</queries><errors>0</errors>
  <result_rows>0</result_rows><read_rows>0</read_rows><execution_time>0</execution_time></interval></default></quotas>
</yandex>
"""


def server_program() -> str | None:
    """Return the server's program; Debian has it in /usr/sbin."""
    return shutil.which("clickhouse-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def local_config(port: int, *, timeout_s: int) -> ClickhouseConfig:
    """Return how to reach the server on that port of this host."""
    return ClickhouseConfig(
        host="127.0.0.1",
        port=port,
        database=DATABASE,
        user="default",
        password="",
        secure=False,
        timeout_s=timeout_s,
    )


class LocalServer:
    """One server; `kill` and `start` as often as you like, the data stays. `more` is XML for its configuration."""

    def __init__(self, program: str, folder: Path, more: str = "") -> None:
        self._program = program
        self._folder = folder
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        config = _CONFIG.format(folder=folder, port=self.port, http=free_port(), interserver=free_port(), more=more)
        (folder / "config.xml").write_text(config)
        (folder / "users.xml").write_text(_USERS)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises RuntimeError with its last words if it ends, or is not there in time."""
        with (self._folder / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [self._program, f"--config-file={self._folder / 'config.xml'}"],
                cwd=self._folder,
                stdout=console,
                stderr=console,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not start: {(self._folder / 'console').read_text()[-2000:]}")
            time.sleep(POLL_S)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(START_S)

    def config(self, *, timeout_s: int = 20) -> ClickhouseConfig:
        return local_config(self.port, timeout_s=timeout_s)

    def query(self, sql: str) -> None:
        """Run a statement outside any store."""
        client = Client("127.0.0.1", port=self.port)
        client.execute(sql)
        client.disconnect()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
