"""Both kinds of store for tests, each in a place of its own: embedded in a folder, or a database of a real server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from settlement.chdb_store import ChdbStore
from settlement.clickhouse_store import ClickhouseStore
from settlement.store import one
from tests.kit.clickhouse_server import ClickhouseServer
from tests.kit.ledger_books import chdb_store
from tests.kit.waiting import eventually

KINDS = ("chdb", "clickhouse")
AnyStore = ChdbStore | ClickhouseStore


class Stores:
    """Opens empty stores of one kind, and closes what a test left open."""

    def __init__(self, folder: Path, server: ClickhouseServer | None) -> None:
        self._folder = folder
        self._server = server
        self._numbers = itertools.count()
        self._opened: list[AnyStore] = []

    def fresh(self) -> AnyStore:
        """Open an empty store. The embedded engine has one folder at a time: an older one is closed."""
        number = next(self._numbers)
        if self._server is None:
            self.close()
            return self._keep(chdb_store(self._folder / f"store-{number}"))
        name = f"books_{number}"
        self._server.query(f"DROP DATABASE IF EXISTS {name}")
        self._server.query(f"CREATE DATABASE {name}")
        return self._keep(ClickhouseStore(replace(self._server.config(), database=name)))

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()

    def _keep(self, store: AnyStore) -> AnyStore:
        self._opened.append(store)
        return store


@contextmanager
def stores_of(kind: str, folder: Path) -> Iterator[Stores]:
    """Yield the stores of a kind; skips the test where there is no server."""
    server = None
    if kind == "clickhouse":
        server = ClickhouseServer(folder / "server")
        server.start()
    stores = Stores(folder, server)
    try:
        yield stores
    finally:
        stores.close()
        if server is not None:
            server.stop()


def mutate(store: AnyStore, sql: str) -> None:
    """Run an ALTER ... DELETE or UPDATE and wait until it is done: an old server does it later."""
    store.execute(sql)
    eventually(lambda: pending(store) == 0, deadline_s=60)


def pending(store: Any) -> int:
    return one(store.select("SELECT count() AS n FROM system.mutations WHERE is_done = 0"))["n"]
