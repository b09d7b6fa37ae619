"""Clients of a drill on a thread and an event loop of their own."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod

START_S = 60.0


class ClientThread(ABC):
    """Who derives from it logs on in `trade_all`, sets `ready`, trades, and ends when told so in a way of its own."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._main, daemon=True)

    @abstractmethod
    async def trade_all(self) -> None: ...

    def start(self, deadline_s: float = START_S) -> None:
        """Log on with all sessions and begin to trade. Raises RuntimeError if they cannot."""
        self.thread.start()
        if not self.ready.wait(deadline_s) or self.error is not None:
            raise RuntimeError(f"the clients could not log on: {self.error}")

    def _main(self) -> None:
        try:
            asyncio.run(self.trade_all())
        except BaseException as error:
            self.error = error
            self.ready.set()
