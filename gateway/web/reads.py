"""Reads of the store beside the event loop.

A row by its key takes some ten microseconds and is read where it is needed (`Gateway.store`). Whatever may go over many
rows - candles, a day's statistics, an account's orders, missed events - would hold up every other client of the worker
meanwhile, and far longer when the pages must come from the disk: it is read here, on threads with read-only connections
of their own. SQLite lets Python go on while it works; what is made of the rows is made on the thread as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeVar

from gateway.web.errors import unavailable
from gateway.web.store import StoreReader

Result = TypeVar("Result")
THREADS = 2
READS_MAX = 256  # under way and waiting; more are refused rather than answered after everybody has gone


class StoreReads:
    """Reads that begin in the order in which they were asked for, `THREADS` at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store-read")
        self._lock = Lock()  # of the next two
        self._idle: list[StoreReader] = []
        self._generation = 0
        self._under_way = 0
        self.refused = 0

    async def run(self, work: Callable[[StoreReader], Result]) -> Result:
        """Return what `work` makes of the store as it is now or later; it must touch nothing that the loop changes.

        Raises ApiError -1008 when READS_MAX are under way.
        """
        if self._under_way >= READS_MAX:
            self.refused += 1
            raise unavailable()
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)
        finally:
            self._under_way -= 1

    def renew(self) -> None:
        """The store may be another file now: use no connection again that was opened before."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self.renew()

    def _run(self, work: Callable[[StoreReader], Result]) -> Result:
        with self._lock:
            generation = self._generation
            reader = self._idle.pop() if self._idle else None
        if reader is None:
            reader = StoreReader(self._path)
        try:
            return work(reader)
        finally:
            with self._lock:
                current = generation == self._generation
                if current:
                    self._idle.append(reader)
            if not current:
                reader.close()
