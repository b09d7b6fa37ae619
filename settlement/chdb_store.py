"""The embedded store: ClickHouse's engine in this process (chdb), one directory, one process at a time.

Facts it is built around: one path per process; a second process on the same directory fails; queries are serialised
inside; after a fork the child's queries hang; a frame of the calling thread must hold the table that an insert names;
with more than one thread for a query the one that makes the answer and the one that waits for it were seen waiting for
each other on a loaded machine, each at its end of the same queue.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from settlement.derivation import Columns
from settlement.errors import StoreError, StoreRefused, StoreUnavailable
from settlement.store import Version

DATABASE = "ledger"
LOCK_FILE = "bullring.lock"
# Rows go on as they come instead of being gathered from small blocks again; up to so many of them are one part.
PART_ROWS_MAX = 4_000_000
_AS_ONE_PART = (
    f"max_block_size = {PART_ROWS_MAX}, min_insert_block_size_rows = {PART_ROWS_MAX}, min_insert_block_size_bytes = 0"
)
_CODE = re.compile(r"Code: (\d+)")
# What passes: memory, disk, too many parts, timeouts. Everything else needs somebody to look at it.
_TEMPORARY = {74, 75, 76, 159, 202, 203, 209, 210, 236, 241, 242, 243, 252, 319, 394, 439, 999}


@dataclass(frozen=True, kw_only=True)
class ChdbConfig:
    """Where the embedded store is and what it may take."""

    directory: Path
    memory_bytes: int  # of one query
    reserve_bytes: int = 0  # of the disk's free space that is left alone

    def __post_init__(self) -> None:
        if self.reserve_bytes < 0:
            raise ValueError(f"reserve_bytes = {self.reserve_bytes}: must not be negative")
        if self.memory_bytes < 1 << 27:
            raise ValueError(f"memory_bytes = {self.memory_bytes}: must be at least {1 << 27}")


class ChdbStore:
    """A Store in this process. Raises StoreUnavailable when another process has the directory."""

    def __init__(self, config: ChdbConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._session: Any = None
        self._merges_held = False
        self._directory_lock = _lock(config.directory)
        try:
            # Late: the import takes half a second and some hundred megabytes, and most commands need neither.
            from chdb import session

            make_session: Any = session.Session
            self._session = make_session(str(config.directory))
            self.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
            self.execute(f"USE {DATABASE}")
            self.execute(f"SET max_memory_usage = {config.memory_bytes}, max_threads = 1")
            # Rows of a block have different keys: nothing to collapse before the first merge.
            self.execute("SET optimize_on_insert = 0, mutations_sync = 2")
            major, minor = str(self.select("SELECT version() AS v")["v"][0]).split(".")[:2]
        except ImportError as error:
            self.close()
            raise StoreRefused(f"the embedded store is not installed: {error}") from error
        except RuntimeError as error:
            self.close()
            raise _store_error(error, self.place) from error
        except BaseException:
            self.close()
            raise
        self._version = (int(major), int(minor))

    @property
    def place(self) -> str:
        return f"chdb in {self._config.directory}"

    @property
    def version(self) -> Version:
        return self._version

    def execute(self, sql: str) -> None:
        self._query(sql, "CSV")

    def select(self, sql: str) -> Columns:
        table = self._query(sql, "ArrowTable")
        return {name: _to_numpy(table.column(name)) for name in table.column_names}

    def insert(self, table: str, columns: Columns) -> None:
        if len(next(iter(columns.values()))) == 0:
            return
        self._check_space()
        block = pa.table({name: _to_arrow(column) for name, column in columns.items()})
        with self._lock:
            # Found by its name in this very frame; under the lock, since with two queries at once it may not be.
            try:
                self._alive.query(
                    f"INSERT INTO {table} ({', '.join(columns)}) SETTINGS {_AS_ONE_PART} SELECT * FROM Python(block)"
                )
            except RuntimeError as error:
                raise _store_error(error, self.place) from error
        del block

    def hold_merges(self, *, held: bool) -> None:
        if held != self._merges_held:
            self.execute(f"SYSTEM {'STOP' if held else 'START'} MERGES")
            self._merges_held = held

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._directory_lock >= 0:
            os.close(self._directory_lock)
            self._directory_lock = -1

    def _check_space(self) -> None:
        """The journal may be on the same disk: a full one would stop trading."""
        if self._config.reserve_bytes == 0:
            return
        disk = os.statvfs(self._config.directory)
        free = disk.f_bavail * disk.f_frsize
        if free < self._config.reserve_bytes:
            raise StoreUnavailable(
                f"{self.place}: {free} bytes are free on its disk, and {self._config.reserve_bytes} are kept free "
                "(ledger.disk_reserve_bytes)"
            )

    @property
    def _alive(self) -> Any:
        if self._session is None:
            raise StoreUnavailable(f"{self.place} is closed")
        return self._session

    def _query(self, sql: str, form: str) -> Any:
        with self._lock:
            try:
                return self._alive.query(sql, form)
            except RuntimeError as error:
                raise _store_error(error, self.place) from error


def _lock(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"cannot use the store's folder {directory}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreUnavailable(f"another process has the store in {directory}") from None
    return fd


def _store_error(error: Exception, place: str) -> StoreError:
    text = " ".join(str(error).split())
    found = _CODE.search(text)
    kind = StoreUnavailable if found is None or int(found.group(1)) in _TEMPORARY else StoreRefused
    return kind(f"{place}: {text}")


def _to_arrow(column: np.ndarray[Any, Any]) -> Any:
    if column.dtype.kind == "S":
        size = column.dtype.itemsize
        buffer = pa.py_buffer(np.ascontiguousarray(column))
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(column), [None, buffer])
    return pa.array(column)


def _to_numpy(column: Any) -> np.ndarray[Any, Any]:
    """Return a copy-free array of whole numbers, or an array of objects for texts."""
    if column.num_chunks == 0:
        return np.empty(0, column.type.to_pandas_dtype())
    return np.asarray(column.to_numpy())
