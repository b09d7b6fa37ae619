"""Market data over WebSocket: `/native`, one MoldUDP64 packet a binary frame, and the SBE streams of spot clients.

Routes for an aiohttp application; the web gateway mounts them, or a process of their own serves them. Everything runs
on one event loop, which polls the feed as well. A reader that is too slow costs a bounded queue, then its connection.
docs/FEED.md specifies both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket as sockets
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from gateway.errors import GatewayConfigError
from gateway.marketdata.feed import DERIVED_BASE, PACKET_SIZE_MAX, REFERENCE, Feed
from gateway.marketdata.streams import MarketStreams, Stream, StreamNameError
from gateway.marketdata.tokens import PASSWORD_SIZE, USER_SIZE, Entitlement, Token, check

KEY_HEADER, KEY_PARAMETER = "X-MBX-APIKEY", "token"
ATTEMPTS_WINDOW_S = 300
MESSAGE_BYTES_MAX = 65536
ID_TEXT_MAX = 36
GOODBYE_S = 1.0  # for the closing handshake; then the connection is cut
HOUSEKEEPING_S = 0.1
STALLED_S = 10.0  # a message that is published and cannot be had for so long is lost
MOLD_HEADER = struct.Struct(">10sQH")
CLOSED_LOST = 4001  # messages that are asked for are no longer kept
TCP_NOTSENT_LOWAT = 25  # Linux; CPython 3.11 does not name it
UNSENT_BYTES = 16384
_BAD_REQUEST, _BAD_JSON = 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """Limits. `key` is what tokens are made with; None welcomes everybody."""

    key: bytes | None = field(default=None, repr=False)
    connections_max: int = 1024
    connections_per_user: int = 8
    attempts_max: int = 300  # of one address in five minutes
    streams_max: int = 1024  # of a connection
    messages_per_s: int = 5  # that a client may send, pings and pongs among them
    queue_bytes: int = 1 << 20  # that a connection may have unsent, besides what the system holds
    packet_bytes: int = 16384  # of /native
    ping_s: float = 20.0
    silence_s: float = 60.0  # without a pong
    life_s: float = 86400.0
    heartbeat_s: float = 1.0  # of /native
    poll_s: float = 0.001

    def __post_init__(self) -> None:
        """Check the ranges, naming field and limit."""
        bounds = {
            "connections_max": (1, 65536),
            "connections_per_user": (1, 65536),
            "attempts_max": (1, 1_000_000),
            "streams_max": (1, 65536),
            "messages_per_s": (1, 10_000),
            "queue_bytes": (65536, 1 << 30),
            "packet_bytes": (256, PACKET_SIZE_MAX),
            "ping_s": (0.01, 3600),
            "silence_s": (0.01, 3600),
            "life_s": (0.01, 1e9),
            "heartbeat_s": (0.01, 60),
            "poll_s": (0.0001, 1),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise GatewayConfigError(f"{name} = {getattr(self, name)}: must be {low} to {high}")


Authorize = Callable[[web.Request, Entitlement], str]
"""Return who asks, or raise web.HTTPUnauthorized: what a request wants is known."""


def by_token(key: bytes | None) -> Authorize:
    """Return the authority of `bullring feed token`: user name and password in one word, in a header or the query."""

    def authorize(request: web.Request, wanted: Entitlement) -> str:
        if key is None:
            return request.remote or ""
        text = request.headers.get(KEY_HEADER) or request.query.get(KEY_PARAMETER, "")
        grant = (
            check(key, Token(text[:USER_SIZE], text[USER_SIZE:])) if len(text) == USER_SIZE + PASSWORD_SIZE else None
        )
        if grant is None or not grant.entitlements & wanted:
            raise web.HTTPUnauthorized(text=f"{KEY_HEADER}: no token, or none for this")
        return str(grant.subscriber)

    return authorize


class MarketWeb:
    """The routes and what stands behind them. `run()` must be running while they serve."""

    def __init__(self, feed: Feed, config: WebConfig, *, authorize: Authorize | None = None) -> None:
        """The feed is started and keeps books."""
        self.feed = feed
        self.config = config
        self.streams = MarketStreams(feed)
        self.authorize = authorize or by_token(config.key)
        self.connections: dict[Connection, str] = {}
        self.accepted = self.refused = self.stuck = self.floods = 0
        self._attempts: dict[str, int] = {}
        self._window = 0
        self._stopping = False

    def routes(self) -> list[web.RouteDef]:
        """Return what to mount."""
        return [
            web.get("/native", self._native),
            *(web.get(path, self._streams) for path in ("/ws", "/ws/{names:.*}", "/stream")),
        ]

    async def run(self, stalled: Callable[[int], None]) -> None:
        """Poll feed and streams until `stop()`. `stalled` takes the status of a feed that cannot go on."""
        due = 0.0
        while not self._stopping:
            now = time.monotonic()
            work = self.feed.poll(4096)
            if work < 0:
                stalled(work)
            work = max(work, 0) + self.streams.poll(now)
            for connection in list(self.connections):
                connection.tick(now, moved=work > 0)
            if now >= due:
                due = now + HOUSEKEEPING_S
                for connection in list(self.connections):
                    connection.housekeep(now)
            await asyncio.sleep(0 if work else self.config.poll_s)

    async def stop(self) -> None:
        """Say goodbye to everybody and end `run()`."""
        self._stopping = True
        for connection in list(self.connections):
            connection.leave()
        end = time.monotonic() + 2 * GOODBYE_S
        while self.connections and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def counters(self) -> dict[str, int]:
        """Return all counters by name."""
        return {
            "accepted": self.accepted,
            "refused": self.refused,
            "open": len(self.connections),
            "stuck": self.stuck,
            "floods": self.floods,
            "frames": self.streams.frames,
            "laps": self.streams.laps,
        }

    async def _native(self, request: web.Request) -> web.StreamResponse:
        try:
            self._admit(request)
            channel = _number(request, "channel", None)
            if channel not in self.feed.channels:
                raise web.HTTPNotFound(text=f"channel = {channel}: must be one of {self.feed.channels}")
            user = self._known(request, _needed(channel))
            number = self._first(request, channel)
        except web.HTTPException:
            self.refused += 1
            raise
        return await self._serve(NativeConnection(self, request, channel, number), request, user)

    def _first(self, request: web.Request, channel: int) -> int:
        session, position = self.feed.session(channel), self.feed.position(channel)
        if request.query.get("session", session) != session:
            raise web.HTTPConflict(text=f"session: it is {session} now")
        number = _number(request, "number", position.next)
        if not position.oldest <= number <= position.next:
            raise web.HTTPBadRequest(text=f"number = {number}: must be {position.oldest} to {position.next}")
        return number

    async def _streams(self, request: web.Request) -> web.StreamResponse:
        try:
            self._admit(request)
            user = self._known(request, Entitlement.DERIVED)
        except web.HTTPException:
            self.refused += 1
            raise
        names = request.match_info.get("names", "") or request.query.get("streams", "")
        connection = StreamConnection(self, request)
        connection.begin([name for name in names.split("/") if name])
        return await self._serve(connection, request, user)

    def _admit(self, request: web.Request) -> None:
        window = int(time.monotonic()) // ATTEMPTS_WINDOW_S
        if window != self._window:
            self._window, self._attempts = window, {}
        address = request.remote or ""
        self._attempts[address] = self._attempts.get(address, 0) + 1
        if self._attempts[address] > self.config.attempts_max:
            wait = ATTEMPTS_WINDOW_S - int(time.monotonic()) % ATTEMPTS_WINDOW_S
            raise web.HTTPTooManyRequests(headers={"Retry-After": str(wait)})
        if self._stopping or len(self.connections) >= self.config.connections_max:
            raise web.HTTPServiceUnavailable(text="no connection is free")

    def _known(self, request: web.Request, wanted: Entitlement) -> str:
        user = self.authorize(request, wanted)
        if list(self.connections.values()).count(user) >= self.config.connections_per_user:
            raise web.HTTPTooManyRequests(text=f"at most {self.config.connections_per_user} connections of a user")
        return user

    async def _serve(self, connection: Connection, request: web.Request, user: str) -> web.StreamResponse:
        self.accepted += 1
        self.connections[connection] = user
        try:
            return await connection.serve(request)
        finally:
            del self.connections[connection]
            connection.gone()


class Connection:
    """One WebSocket: what came in is looked at at once, what goes out is taken from `_next()` as the peer takes it."""

    def __init__(self, site: MarketWeb, request: web.Request) -> None:
        self._site = site
        self._config = site.config
        self._socket = web.WebSocketResponse(
            autoping=False,
            compress=False,
            timeout=GOODBYE_S,
            max_msg_size=MESSAGE_BYTES_MAX,
            writer_limit=UNSENT_BYTES,
        )
        self._transport = request.transport
        self._replies: deque[str] = deque()
        self._wake = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._began = self._ponged = self._pinged = time.monotonic()
        self._ping_due = False
        self._second, self._received = 0, 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve until one side has enough."""
        await self._socket.prepare(request)
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        finally:
            writer.cancel()
            await asyncio.wait({writer})
        return self._socket

    def close(self, code: int, reason: str) -> None:
        """End it, soon, whatever the peer does."""
        if self._closing is None:
            self._closing = (code, reason)
            self._wake.set()
            if self._transport is not None:
                asyncio.get_running_loop().call_later(GOODBYE_S, self._transport.abort)

    def leave(self) -> None:
        """Close because the server ends."""
        self.close(WSCloseCode.GOING_AWAY, "shutting down")

    def tick(self, now: float, *, moved: bool) -> None:
        """There may be something new to send."""

    def housekeep(self, now: float) -> None:
        """Ping; end what is silent or old."""
        if now - self._ponged > self._config.silence_s:
            self.close(WSCloseCode.POLICY_VIOLATION, f"no pong for {self._config.silence_s:g} s")
        elif now - self._began > self._config.life_s:
            self.leave()
        elif now - self._pinged >= self._config.ping_s:
            self._pinged = now
            self._ping_due = True
            self._wake.set()

    def gone(self) -> None:
        """It is over."""

    def _next(self) -> bytes | None:
        """Return the next binary frame, if there is one."""
        raise NotImplementedError

    def _heard(self, text: str) -> None:
        """The client sent text."""
        self.close(WSCloseCode.POLICY_VIOLATION, "nothing is expected here")

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self._closing is None:
                if self._ping_due:
                    self._ping_due = False
                    await self._socket.ping(str(time.time_ns() // 1_000_000).encode())
                elif self._replies:
                    await self._socket.send_str(self._replies.popleft())
                elif frame := self._next():
                    await self._socket.send_bytes(frame)
                else:
                    self._wake.clear()
                    await self._wake.wait()
            await self._farewell()
            code, reason = self._closing
            await self._socket.close(code=code, message=reason.encode())

    async def _farewell(self) -> None:
        """Say something before the end."""

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                return
            if not self._within_rate():
                self._site.floods += self._closing is None
                self.close(WSCloseCode.POLICY_VIOLATION, f"more than {self._config.messages_per_s} messages a second")
            elif message.type == WSMsgType.PONG:
                self._ponged = time.monotonic()
            elif message.type == WSMsgType.PING:
                with contextlib.suppress(ConnectionError):
                    await self._socket.pong(message.data)
            elif message.type == WSMsgType.TEXT:
                self._heard(message.data)
            else:
                self.close(WSCloseCode.UNSUPPORTED_DATA, "requests are text")

    def _within_rate(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._received = second, 0
        self._received += 1
        return self._received <= self._config.messages_per_s


class NativeConnection(Connection):
    """Packets of a channel from a number on: history first, then what comes."""

    def __init__(self, site: MarketWeb, request: web.Request, channel: int, number: int) -> None:
        super().__init__(site, request)
        self._channel = channel
        self._number = number
        self._sent = self._moved = time.monotonic()

    def tick(self, now: float, *, moved: bool) -> None:
        if moved or now - self._sent >= self._config.heartbeat_s:
            self._wake.set()

    def housekeep(self, now: float) -> None:
        super().housekeep(now)
        position = self._site.feed.position(self._channel)
        if self._number >= position.next:
            self._moved = now
        elif self._number < position.oldest or now - self._moved > STALLED_S:
            self.close(CLOSED_LOST, f"message {self._number} is no longer kept")

    def _next(self) -> bytes | None:
        now, feed = time.monotonic(), self._site.feed
        packet = feed.packet(self._channel, self._number, self._config.packet_bytes)
        if packet:
            self._number += MOLD_HEADER.unpack_from(packet)[2]
            self._moved = now
        elif now - self._sent >= self._config.heartbeat_s:
            packet = MOLD_HEADER.pack(feed.session(self._channel).encode(), self._number, 0)
        if packet:
            self._sent = now
        return packet or None


class StreamConnection(Connection):
    """SBE frames of the streams that a client has subscribed to; its requests are JSON."""

    def __init__(self, site: MarketWeb, request: web.Request) -> None:
        super().__init__(site, request)
        self._names: dict[Stream, str] = {}
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._latest: dict[Stream, bytes] = {}
        _keep_unsent_small(request)

    def begin(self, names: list[str]) -> None:
        """Subscribe to what a path names. Clients connect to paths that are no streams, and subscribe afterwards."""
        for name in names[: self._config.streams_max]:
            with contextlib.suppress(StreamNameError):
                self._add(Stream.parse(name), name)

    def offer(self, stream: Stream, frame: bytes) -> None:
        if stream.latest_only:
            self._latest[stream] = frame
        else:
            self._queue.append(frame)
            self._queued += len(frame)
            if self._queued > self._config.queue_bytes:
                self._site.stuck += self._closing is None
                self.fail("too slow")
        self._wake.set()

    def fail(self, reason: str) -> None:
        self._queue.clear()
        self._queued = 0
        self.close(WSCloseCode.POLICY_VIOLATION, reason)

    def gone(self) -> None:
        for stream in self._names:
            self._site.streams.unsubscribe(self, stream)

    def _add(self, stream: Stream, name: str) -> None:
        self._names[stream] = name
        self._site.streams.subscribe(self, stream)

    def _remove(self, stream: Stream) -> None:
        self._names.pop(stream, None)
        self._latest.pop(stream, None)
        self._site.streams.unsubscribe(self, stream)

    def _next(self) -> bytes | None:
        if self._queue:
            frame = self._queue.popleft()
            self._queued -= len(frame)
            return frame
        return self._latest.pop(next(iter(self._latest))) if self._latest else None

    async def _farewell(self) -> None:
        if self._closing is not None and self._closing[0] == WSCloseCode.GOING_AWAY:
            await self._socket.send_str(json.dumps({"e": "serverShutdown", "E": time.time_ns() // 1_000_000}))

    def _heard(self, text: str) -> None:
        self._replies.append(json.dumps(self._answer(text)))
        self._wake.set()

    def _answer(self, text: str) -> dict[str, Any]:
        try:
            request = json.loads(text)
        except (ValueError, RecursionError) as error:
            return {"code": _BAD_JSON, "msg": f"Invalid JSON: {error}"}
        number = request.get("id") if isinstance(request, dict) else None
        if not isinstance(request, dict) or not _is_id(number):
            return {"code": _BAD_REQUEST, "msg": f"Invalid request: an object with id: an int64, a text of up to "
                    f"{ID_TEXT_MAX} characters, or null"}  # fmt: skip
        try:
            return {"result": self._do(request.get("method"), request.get("params", [])), "id": number}
        except ValueError as error:
            return {"code": _BAD_REQUEST, "msg": f"Invalid request: {error}", "id": number}

    def _do(self, method: object, names: object) -> list[str] | None:
        if method == "LIST_SUBSCRIPTIONS":
            return list(self._names.values())
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            raise ValueError(f"method {method!r}: must be SUBSCRIBE, UNSUBSCRIBE or LIST_SUBSCRIPTIONS")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
            raise ValueError("params: must be a list of stream names")
        streams = {Stream.parse(name): name for name in names}
        if method == "UNSUBSCRIBE":
            for stream in streams:
                self._remove(stream)
            return None
        if len(self._names.keys() | streams.keys()) > self._config.streams_max:
            raise ValueError(f"params: at most {self._config.streams_max} streams a connection")
        for stream, name in streams.items():
            self._add(stream, name)
        return None


def _needed(channel: int) -> Entitlement:
    if channel == REFERENCE:
        return Entitlement.DEFINITIONS
    return Entitlement.DERIVED if channel > DERIVED_BASE else Entitlement.FULL


def _keep_unsent_small(request: web.Request) -> None:
    """What waits below us can no longer be culled: best prices of a slow reader would be old ones."""
    socket = None if request.transport is None else request.transport.get_extra_info("socket")
    if socket is not None and socket.family in (sockets.AF_INET, sockets.AF_INET6):
        socket.setsockopt(sockets.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        request.transport.set_write_buffer_limits(high=UNSENT_BYTES)  # type: ignore[union-attr]


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= ID_TEXT_MAX
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63)


def _number(request: web.Request, name: str, default: int | None) -> int:
    text = request.query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 19:
        raise web.HTTPBadRequest(text=f"{name} = {text}: must be a number")
    return int(text)
