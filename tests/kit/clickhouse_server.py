"""Debian's ClickHouse server on loopback, in a folder of the test's own; without it the test is skipped."""

from pathlib import Path

import pytest

from scripts.bench._clickhouse import DATABASE, LocalServer, server_program

__all__ = ["DATABASE", "ClickhouseServer"]


class ClickhouseServer(LocalServer):
    def __init__(self, folder: Path, more: str = "") -> None:
        program = server_program()
        if program is None:
            pytest.skip(
                "no ClickHouse server here: ./scripts/test as root installs it, or: apt-get install clickhouse-server"
            )
        super().__init__(program, folder, more)
