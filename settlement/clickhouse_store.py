"""A ClickHouse server as the store, over its native protocol (clickhouse-driver); from version 18.16 on.

Columns go as numpy arrays and come back so. A connection that fails in the middle of an insert leaves open whether
the block is there: the ledger opens the books again before it goes on. Text formats (INSERT ... FORMAT JSONEachRow) are
never used: an old server waits for ever then.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from clickhouse_driver import Client
from clickhouse_driver import errors as driver

from settlement.derivation import Columns
from settlement.errors import StoreError, StoreRefused, StoreUnavailable
from settlement.store import Version

VERSION_MIN: Version = (18, 16)
# What passes by itself: no space, no memory, too many parts, timeouts, a quorum that is not there, read-only replicas.
_TEMPORARY = {74, 75, 76, 159, 202, 203, 209, 210, 225, 236, 241, 242, 243, 252, 285, 286, 289, 319, 394, 439, 999}


@dataclass(frozen=True, kw_only=True)
class ClickhouseConfig:
    """Where the server is, and how blocks are written. `quorum` 0 = plain tables."""

    host: str
    port: int
    database: str
    user: str
    password: str
    secure: bool
    timeout_s: int
    quorum: int = 0
    compression: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port = {self.port}: must be 1..65535")
        if not 1 <= self.timeout_s <= 3600:
            raise ValueError(f"timeout_s = {self.timeout_s}: must be 1..3600")
        if not 0 <= self.quorum <= 31:
            raise ValueError(f"quorum = {self.quorum}: must be 0..31")


class ClickhouseStore:
    """A Store on a server. Raises StoreUnavailable when it does not answer."""

    def __init__(self, config: ClickhouseConfig) -> None:
        # It logs every refused connection with a traceback; whoever uses the store tells that in a sentence.
        logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)
        self._config = config
        self._lock = threading.Lock()
        self._client: Client | None = self._connect()
        row = self.select("SELECT version() AS v")
        try:
            major, minor = str(row["v"][0]).split(".")[:2]
        except BaseException:
            self.close()
            raise
        self._version = (int(major), int(minor))
        if self._version < VERSION_MIN:
            self.close()
            raise StoreRefused(
                f"{self.place} has version {row['v'][0]}: at least {VERSION_MIN[0]}.{VERSION_MIN[1]} is needed"
            )

    @property
    def place(self) -> str:
        return f"ClickHouse at {self._config.host}:{self._config.port}, database {self._config.database}"

    @property
    def version(self) -> Version:
        return self._version

    def execute(self, sql: str) -> None:
        # Tables are made server by server: when the first one notes that it has them there is no quorum yet.
        self._ask(lambda client: client.execute(sql, settings={"insert_quorum": 0}))

    def select(self, sql: str) -> Columns:
        columns, types = self._ask(lambda client: client.execute(sql, columnar=True, with_column_types=True))
        if not columns:
            return {name: np.empty(0, _DTYPES.get(kind, object)) for name, kind in types}
        return {name: np.asarray(column) for (name, _), column in zip(types, columns, strict=True)}

    def insert(self, table: str, columns: Columns) -> None:
        if len(next(iter(columns.values()))) == 0:
            return
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES"
        values = [_to_driver(column) for column in columns.values()]
        self._ask(lambda client: client.execute(sql, values, columnar=True))

    def hold_merges(self, *, held: bool) -> None:
        """A server has cores of its own, and would remember it longer than we live."""

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.disconnect()
                self._client = None

    def _connect(self) -> Client:
        config = self._config
        settings: dict[str, Any] = {
            "use_numpy": True,
            # Exactly once is the ledger's own work. The server's would drop a block that is written again after its
            # half was cut off.
            "insert_deduplicate": 0,
            "max_insert_block_size": 1 << 24,
        }
        if config.quorum:
            settings |= {"insert_quorum": config.quorum, "select_sequential_consistency": 1}
        return Client(
            host=config.host,
            port=config.port,
            database=config.database,
            user=config.user,
            password=config.password,
            secure=config.secure,
            connect_timeout=config.timeout_s,
            send_receive_timeout=config.timeout_s,
            compression="lz4" if config.compression else False,
            settings=settings,
        )

    def _ask(self, action: Any) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            try:
                return action(self._client)
            except driver.ServerException as error:
                raise self._server_error(error) from error
            except (driver.Error, OSError, EOFError) as error:
                # What came of it is not known, and the connection may be in the middle of an answer.
                self._client.disconnect()
                self._client = None
                raise StoreUnavailable(f"{self.place}: {_first_line(error)}") from error

    def _server_error(self, error: driver.ServerException) -> StoreError:
        kind = StoreUnavailable if error.code in _TEMPORARY else StoreRefused
        return kind(f"{self.place}: Code: {error.code}. {_first_line(error)}")


_DTYPES: dict[str, Any] = {
    "UInt64": np.uint64,
    "UInt32": np.uint32,
    "UInt16": np.uint16,
    "UInt8": np.uint8,
    "Int64": np.int64,
    "Int32": np.int32,
    "Int8": np.int8,
}


def _to_driver(column: np.ndarray[Any, Any]) -> Any:
    """Numbers go as they are; the driver takes texts as lists."""
    return column if column.dtype.kind in "iu" else np.array(column.tolist(), object)


def _first_line(error: Exception) -> str:
    return str(error).split("Stack trace")[0].strip().splitlines()[0] if str(error) else type(error).__name__
