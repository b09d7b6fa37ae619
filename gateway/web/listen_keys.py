"""The withdrawn way to private events, for older clients: a listen key, and its events bare on `/ws/<listenKey>`.

A key is known to all workers, lives an hour, and is renewed by PUT. Events and their numbers are those of the WebSocket
API.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import string
import time
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from gateway.web.api import Call, Endpoint, Param, Security
from gateway.web.errors import ApiError
from gateway.web.gateway import Gateway
from gateway.web.rest import time_unit
from gateway.web.user_streams import Subscription, UserStreams
from gateway.web.ws_api import CLOSE_GOING, CLOSE_SLOW, PING_EVERY_S, QUEUED_MAX, say_goodbye

LIVES_S = 3600
LENGTH = 64
ALPHABET = string.ascii_letters + string.digits
PATTERN = f"[A-Za-z0-9]{{{LENGTH}}}"


class ListenKeys:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS listen_keys (listen_key TEXT PRIMARY KEY, account INTEGER, expires_s REAL)"
            " WITHOUT ROWID"
        )

    def close(self) -> None:
        self._db.close()

    def create(self, account: int) -> str:
        """Return the account's living key, renewed, or a new one."""
        now = time.time()
        self._db.execute("DELETE FROM listen_keys WHERE expires_s < ?", (now,))
        row = self._db.execute("SELECT listen_key FROM listen_keys WHERE account = ?", (account,)).fetchone()
        name = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH)) if row is None else str(row[0])
        self._db.execute("INSERT OR REPLACE INTO listen_keys VALUES (?, ?, ?)", (name, account, now + LIVES_S))
        return name

    def renew(self, name: str, account: int) -> bool:
        changed = self._db.execute(
            "UPDATE listen_keys SET expires_s = ? WHERE listen_key = ? AND account = ? AND expires_s >= ?",
            (time.time() + LIVES_S, name, account, time.time()),
        )
        return changed.rowcount == 1

    def drop(self, name: str, account: int) -> bool:
        changed = self._db.execute("DELETE FROM listen_keys WHERE listen_key = ? AND account = ?", (name, account))
        return changed.rowcount == 1

    def account(self, name: str) -> int | None:
        """Return whose key it is while it lives."""
        row = self._db.execute(
            "SELECT account FROM listen_keys WHERE listen_key = ? AND expires_s >= ?", (name, time.time())
        ).fetchone()
        return None if row is None else int(row[0])


def no_listen_key() -> ApiError:
    return ApiError(-1125, "This listenKey does not exist.")


def endpoints(keys: ListenKeys) -> tuple[Endpoint, ...]:
    async def create(call: Call) -> dict[str, Any]:
        return {"listenKey": keys.create(call.account)}

    async def renew(call: Call) -> dict[str, Any]:
        if not keys.renew(call.need("listenKey"), call.account):
            raise no_listen_key()
        return {}

    async def drop(call: Call) -> dict[str, Any]:
        if not keys.drop(call.need("listenKey"), call.account):
            raise no_listen_key()
        return {}

    name = Param("listenKey", required=True)
    path = "/api/v3/userDataStream"
    stream = Security.USER_STREAM
    return (
        Endpoint("POST", path, "Make a listen key (older clients)", create, security=stream, weight=2),
        Endpoint("PUT", path, "Renew a listen key", renew, (name,), security=stream, weight=2),
        Endpoint("DELETE", path, "End a listen key", drop, (name,), security=stream, weight=2),
    )


class ListenKeySockets:
    """Serves `/ws/<listenKey>`."""

    def __init__(self, gateway: Gateway, keys: ListenKeys, streams: UserStreams) -> None:
        self._gateway = gateway
        self._keys = keys
        self._streams = streams
        self._sockets: set[web.WebSocketResponse] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["listen_key"]
        account = self._keys.account(name)
        if account is None:
            raise no_listen_key()
        microseconds = time_unit(request.query.get("timeUnit"))
        socket = web.WebSocketResponse(heartbeat=PING_EVERY_S, max_msg_size=self._gateway.config.body_bytes_max)
        await socket.prepare(request)
        queue: asyncio.Queue[str] = asyncio.Queue()
        writer = asyncio.create_task(self._write(socket, request.transport, queue, name))

        def send(body: str) -> None:
            if queue.qsize() < QUEUED_MAX:
                queue.put_nowait(body)
            elif not writer.cancelling():  # a second time would cut its goodbye short
                writer.cancel()

        subscription = Subscription(account, send, microseconds=microseconds)
        self._streams.subscribe(subscription)
        self._sockets.add(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            self._sockets.discard(socket)
            self._streams.unsubscribe(subscription)
            if not writer.cancelling():
                writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return socket

    async def _write(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, queue: asyncio.Queue[str], name: str
    ) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                while self._keys.account(name) is not None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(PING_EVERY_S):
                            await socket.send_str(await queue.get())
                await socket.send_json({"e": "listenKeyExpired", "E": time.time_ns() // 1_000_000, "listenKey": name})
                await socket.close(code=CLOSE_GOING)
            except asyncio.CancelledError:
                await say_goodbye(socket, transport, CLOSE_SLOW, "the reader is too slow")
                raise

    async def shutdown(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        for socket in list(self._sockets):
            with contextlib.suppress(ConnectionError):
                await socket.send_json({"e": "serverShutdown", "E": now_ms})
                await socket.close(code=CLOSE_GOING)
