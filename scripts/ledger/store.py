"""The ledger's store as the configuration names it, and the sources of the log."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable

from scripts.config import Config
from settlement.chdb_store import ChdbConfig, ChdbStore
from settlement.derivation import Columns
from settlement.ledger import Owner
from settlement.source import FileSource
from settlement.store import Store, Version


def make_store(config: Config) -> Store:
    """Open the store. Raises StoreUnavailable, StoreRefused."""
    ledger = config.ledger
    return ChdbStore(
        ChdbConfig(
            directory=config.ledger_dir,
            memory_bytes=ledger.memory_bytes,
            threads=ledger.threads,
            reserve_bytes=ledger.disk_reserve_bytes,
        )
    )


def make_owner() -> Owner:
    return Owner(secrets.randbits(63) or 1, socket.gethostname(), os.getpid())


def file_source(config: Config) -> FileSource:
    """Return the log in the journal's files; of a running exchange give a limit to whoever reads it."""
    return FileSource(config.journal_dir)


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
