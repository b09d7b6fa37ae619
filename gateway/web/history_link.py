"""A worker's side of history: how far it is, and waiting until it has reached what a client has been told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

RECONNECT_S = 0.05
MOMENT_S = 0.02


class HistoryLate(TimeoutError):
    """History has not reached a position in time: its process is down or far behind."""


class HistoryLink:
    """Keeps the newest state line of the history process; connects again when that was started anew."""

    def __init__(self, path: Path, *, on_state: Callable[[], None]) -> None:
        self._path = path
        self._on_state = on_state
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._waiters: list[tuple[dict[int, int], asyncio.Future[None]]] = []
        self.positions: dict[int, int] = {}
        self.log = 0
        self.event = 0
        self.reference = (0, -1)  # changes whenever reference data may have changed
        self._connects = 0

    @property
    def connected(self) -> bool:
        return self._writer is not None

    async def start(self) -> None:
        """Connect and wait for the first state. Raises HistoryLate."""
        self._task = asyncio.create_task(self._run())
        await self._wait({}, 30.0)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def send_text(self, account: int, number: int, text: str) -> None:
        """Say what clients shall see in place of `number`; before the request that carries it."""
        if self._writer is not None:
            self._writer.write(orjson.dumps({"account": account, "number": number, "text": text}) + b"\n")

    async def reached(self, needed: Mapping[int, int], timeout_s: float = 10.0) -> None:
        """Return when reports below the given sequences are in history. Raises HistoryLate."""
        if self.connected and all(self.positions.get(partition, 0) >= at for partition, at in needed.items()):
            return
        if self._writer is not None:
            self._writer.write(b'{"hurry":true}\n')
        await self._wait(dict(needed), timeout_s)

    async def moved(self) -> None:
        """Return at the next commit of history, or after a moment without one."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry: tuple[dict[int, int], asyncio.Future[None]] = ({}, done)
        self._waiters.append(entry)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOMENT_S):
                await done
        if entry in self._waiters:
            self._waiters.remove(entry)

    async def _wait(self, needed: dict[int, int], timeout_s: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (needed, done)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await done
        except TimeoutError:
            raise HistoryLate(f"history has not reached {needed} within {timeout_s} s") from None
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                self._writer = writer
                self._connects += 1
                try:
                    while line := await reader.readline():
                        self._take(orjson.loads(line))
                finally:
                    self._writer = None
                    writer.close()
            await asyncio.sleep(RECONNECT_S)

    def _take(self, state: dict[str, Any]) -> None:
        self.positions = {int(partition): position for partition, position in state["reports"].items()}
        self.log, self.event = state["log"], state["event"]
        self.reference = (self._connects, state["reference"])
        waiting, self._waiters = self._waiters, []
        for needed, done in waiting:
            if done.done():
                continue
            if all(self.positions.get(partition, 0) >= at for partition, at in needed.items()):
                done.set_result(None)
            else:
                self._waiters.append((needed, done))
        self._on_state()
