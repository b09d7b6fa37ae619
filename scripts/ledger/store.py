"""The ledger's store as the configuration names it, and the sources of the log."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from journaler import LogReader
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from settlement.chdb_store import ChdbConfig, ChdbStore
from settlement.clickhouse_store import ClickhouseConfig, ClickhouseStore
from settlement.derivation import Columns, Derivation
from settlement.images import Images
from settlement.ledger import Owner
from settlement.schema import Replication
from settlement.source import FileSource
from settlement.store import Store, Version

IMAGES_FOLDER = "ledger-images"


def make_store(config: Config) -> Store:
    """Open the store. Raises StoreUnavailable, StoreRefused; CommandError when the password cannot be read."""
    ledger = config.ledger
    if ledger.store == "clickhouse":
        return ClickhouseStore(_server(config))
    return ChdbStore(
        ChdbConfig(
            directory=config.ledger_dir,
            memory_bytes=ledger.memory_bytes,
            reserve_bytes=ledger.disk_reserve_bytes,
        )
    )


def make_replication(config: Config) -> Replication | None:
    """Return how the tables are replicated, None for plain ones."""
    server = config.ledger.clickhouse
    if config.ledger.store != "clickhouse" or not server.replication_path:
        return None
    return Replication(server.replication_path, server.replica, server.quorum)


def _server(config: Config) -> ClickhouseConfig:
    server = config.ledger.clickhouse
    replication = make_replication(config)
    return ClickhouseConfig(
        host=server.host,
        port=server.port,
        database=server.database,
        user=server.user,
        password=_password(server.password_file),
        secure=server.secure,
        timeout_s=server.timeout_s,
        quorum=0 if replication is None else replication.quorum,
    )


def _password(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise CommandError(
            f"cannot read ledger.clickhouse.password_file {path}: {error.strerror}", ExitCode.NO_INPUT
        ) from error


def make_owner() -> Owner:
    return Owner(secrets.randbits(63) or 1, socket.gethostname(), os.getpid())


def file_source(config: Config) -> FileSource:
    """Return the log in the journal's files; of a running exchange give a limit to whoever reads it.

    Raises LogTrimmed where its beginning is gone.
    """
    return FileSource(config.journal_dir)


def make_images(config: Config) -> Images:
    return Images(config.data_dir / IMAGES_FOLDER)


def from_beginning(config: Config, end: int) -> tuple[Derivation, FileSource]:
    """Return what goes through the journal's files from their first record on, or the first image in what is left.

    Raises LogTrimmed where there is none below record `end`.
    """
    first = LogReader(config.journal_dir).first_sequence
    insurance = config.ledger.insurance_account
    derivation = make_images(config).oldest(log_first=first, end=end, insurance_account=insurance)
    start = 0 if derivation is None else derivation.position
    return derivation or Derivation(insurance_account=insurance), FileSource(config.journal_dir, start)


class LateStore:
    """A store that is opened when it is first needed, and again after that failed."""

    def __init__(self, make: Callable[[], Store], place: str) -> None:
        self._make = make
        self._place = place
        self._lock = threading.Lock()
        self._store: Store | None = None

    @property
    def place(self) -> str:
        return self._place

    @property
    def version(self) -> Version:
        return self._opened().version

    def execute(self, sql: str) -> None:
        self._opened().execute(sql)

    def select(self, sql: str) -> Columns:
        return self._opened().select(sql)

    def insert(self, table: str, columns: Columns) -> None:
        self._opened().insert(table, columns)

    def hold_merges(self, *, held: bool) -> None:
        self._opened().hold_merges(held=held)

    def close(self) -> None:
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _opened(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = self._make()
            return self._store
