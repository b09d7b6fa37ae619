"""Connections that never say anything whole: whoever has not sent a request's head in time is closed.

aiohttp closes a connection that idles between requests; one that dribbles the head of its first request it would keep
for ever. The body of a request has a time limit of its own (rest.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

HEAD_S = 10.0
LOOK_S = 1.0


class HeadGuard:
    """Looks at the server's connections once a second."""

    def __init__(self, head_s: float = HEAD_S) -> None:
        self._head_s = head_s
        self._silent_since: dict[Any, float] = {}
        self.closed = 0

    async def run(self, server: Any) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(server.connections, asyncio.get_running_loop().time())

    def look(self, connections: list[Any], now: float) -> None:
        """Close the connections that have not sent one request in time."""
        silent = {each for each in connections if is_silent(each)}
        known = self._silent_since
        self._silent_since = {each: known.get(each, now) for each in silent}
        for connection, since in self._silent_since.items():
            if now - since >= self._head_s:
                self.closed += 1
                connection.force_close()


def is_silent(connection: Any) -> bool:
    """Whether no request of this connection has been read whole yet."""
    return connection._request_count == 0 and connection._current_request is None and connection.transport is not None
