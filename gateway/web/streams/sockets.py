"""Public streams over WebSocket: `/ws`, `/ws/<stream>[/<stream>...]` and `/stream?streams=`; requests are JSON."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import orjson
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from gateway.web.errors import LIMITED, ApiError
from gateway.web.gateway import Gateway
from gateway.web.rest import time_unit
from gateway.web.streams.depth import DepthStream
from gateway.web.streams.fanout import CLOSE, PING, PONG, TEXT, FanOut, Outlet, ws_frame
from gateway.web.streams.incoming import FrameError, FrameReader
from gateway.web.streams.live import LiveMarket
from gateway.web.streams.names import RESUMABLE, WITH_SNAPSHOT, Stream, StreamNameError, parse
from gateway.web.streams.orders import Listener, OrderStream
from gateway.web.streams.payloads import MS, US
from gateway.web.streams.publisher import MarketPublisher

MESSAGE_BYTES_MAX = 65536
ID_TEXT_MAX = 36
HOUSEKEEPING_S = 1.0
GOODBYE_S = 1.0
HANDSHAKE_S = 5.0
KERNEL_BYTES = 65536
UNKNOWN_PROPERTY, BAD_VALUE, BAD_REQUEST, BAD_JSON = 0, 1, 2, 3
CONFLATED = "conflated"
COMBINED = "combined"


@dataclass(frozen=True, kw_only=True)
class StreamLimits:
    """0 = no limit, where that makes sense."""

    connections_max: int
    attempts_per_5_minutes: int  # of one address
    messages_per_s: int  # from a client, pings and pongs among them
    streams_max: int  # of a connection
    queue_bytes: int  # kept for a connection that does not keep up
    ping_s: float = 20.0
    silence_s: float = 60.0  # without a pong
    life_s: float = 86400.0


class RequestError(ValueError):
    """A request that cannot be done: code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamSockets:
    """The routes. Start `run()` as well."""

    def __init__(self, gateway: Gateway, live: LiveMarket, limits: StreamLimits) -> None:
        self.limits = limits
        self._gateway = gateway
        self.fan = FanOut(limits.queue_bytes)
        self.publisher = MarketPublisher(gateway, live, self.fan)
        self.connections: set[Connection] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Begin to publish."""
        self._tasks = [asyncio.create_task(self.publisher.run()), asyncio.create_task(self._keep_house())]

    async def shutdown(self) -> None:
        """Say goodbye to everybody."""
        self._stopping = True
        goodbye = orjson.dumps({"e": "serverShutdown", "E": time.time_ns() // MS})
        for connection in list(self.connections):
            connection.tell_all(goodbye)
            connection.close(WSCloseCode.GOING_AWAY, "the server shuts down")
        end = time.monotonic() + GOODBYE_S
        while self.connections and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await self.publisher.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.fan.close()

    def numbers(self) -> dict[str, int]:
        """Return what `bullring stat` shows."""
        return {
            "stream_connections": len(self.connections),
            "stream_frames": self.fan.frames,
            "stream_sends": self.fan.sends,
            "stream_behind": len(self.fan.behind),
            "stream_conflated": self.fan.conflated,
            "stream_slow_closed": self.fan.slow_closed,
            "stream_laps": self.publisher.live.laps,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection to its end."""
        self._admit(request.remote or "")
        unit_ns = US if time_unit(request.query.get("timeUnit")) else MS
        combined = request.path == "/stream"
        names = request.query.get("streams", "") if combined else request.match_info.get("names", "")
        socket = web.WebSocketResponse(
            autoping=False, autoclose=False, compress=False, max_msg_size=MESSAGE_BYTES_MAX, timeout=GOODBYE_S
        )
        transport = request.transport
        if transport is None:
            raise web.HTTPBadRequest
        # What the kernel holds for a slow reader is old by the time it is read, and memory that nothing else bounds.
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, KERNEL_BYTES)
        if transport.get_extra_info("ssl_object") is None:
            transport.pause_reading()  # what comes behind the handshake is for the outlet to read
        await socket.prepare(request)
        if not await _flushed(transport):
            return socket
        connection = Connection(self, transport, unit_ns=unit_ns, combined=combined)
        self.connections.add(connection)
        connection.begin([name for name in names.split("/") if name])
        if connection.encrypted:
            try:
                await connection.read(socket)
            finally:
                self.drop(connection)
        return socket  # of a plain one nothing is left here: the outlet reads and writes

    def drop(self, connection: Connection) -> None:
        """It is over."""
        if connection in self.connections:
            self.connections.discard(connection)
            connection.gone()

    def _admit(self, address: str) -> None:
        limits, attempts = self.limits, self.limits.attempts_per_5_minutes
        wait = self._gateway.limits.connect(address, attempts) if attempts else 0
        if wait:
            text = f"Too many connection attempts; current limit is {attempts} per 5 MINUTE."
            raise ApiError(-1003, text, status=LIMITED, retry_after_s=wait)
        if self._stopping or len(self.connections) >= limits.connections_max:
            raise ApiError(-1008, "Too many connections.", status=503, retry_after_s=1)

    async def _keep_house(self) -> None:
        ping_due = time.monotonic() + self.limits.ping_s
        while True:
            await asyncio.sleep(min(HOUSEKEEPING_S, self.limits.ping_s))
            now = time.monotonic()
            ping = None
            if now >= ping_due:
                ping_due = now + self.limits.ping_s
                ping = ws_frame(str(time.time_ns() // MS).encode(), PING)
            for connection in list(self.connections):
                connection.housekeep(now, ping)


async def _flushed(transport: Any) -> bool:
    """Wait until the answer to the handshake is out: frames must not overtake it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HANDSHAKE_S):
            while transport.get_write_buffer_size():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        return not transport.is_closing()
    return False


class Connection:
    """One client: what it has subscribed to."""

    __slots__ = ("_began", "_closing", "_combined", "_count", "_frames", "_heard", "_outlet", "_second", "_site",
                 "_streams", "_transport", "_unit_ns")  # fmt: skip

    def __init__(self, site: StreamSockets, transport: Any, *, unit_ns: int, combined: bool) -> None:
        self._site = site
        self._transport = transport
        self._unit_ns = unit_ns
        self._combined = combined
        self._outlet = Outlet(site.fan, transport, self._broken, self._received)
        self._frames = FrameReader(MESSAGE_BYTES_MAX)
        self._streams: dict[Stream, object] = {}  # with a token of this subscription
        self._began = self._heard = time.monotonic()
        self._second = self._count = 0
        self._closing = False

    def begin(self, names: Iterable[str]) -> None:
        """Subscribe to what a path names. Clients connect to paths that are no streams, and subscribe afterwards."""
        for name in list(names)[: self._site.limits.streams_max]:
            with contextlib.suppress(StreamNameError):
                self._add(parse(name), None)

    @property
    def encrypted(self) -> bool:
        return self._outlet.encrypted

    def _received(self, data: bytes) -> None:
        """Take what has come on a plain connection, b"" at its end."""
        try:
            for opcode, content in self._frames.feed(data):
                self._message(opcode, content)
        except FrameError as error:
            self.close(error.code, str(error))
        if not data:
            self._site.drop(self)

    async def read(self, socket: web.WebSocketResponse) -> None:
        """Take what the client sends on an encrypted connection, until one side ends it."""
        while True:
            message: WSMessage = await socket.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                if message.type is WSMsgType.CLOSE:
                    self._message(CLOSE, int(message.data or WSCloseCode.OK).to_bytes(2, "big"))
                return
            content = message.data.encode() if isinstance(message.data, str) else bytes(message.data)
            self._message(int(message.type), content)

    def _message(self, opcode: int, content: bytes) -> None:
        if self._closing and opcode != CLOSE:
            return
        if opcode == CLOSE:
            self.close(int.from_bytes(content[:2], "big") or WSCloseCode.OK, "")
            self._site.drop(self)
        elif not self._within_rate():
            limit = self._site.limits.messages_per_s
            self.close(WSCloseCode.POLICY_VIOLATION, f"more than {limit} messages a second")
        elif opcode == PONG:
            self._heard = time.monotonic()
        elif opcode == PING:
            self._outlet.send(ws_frame(content, PONG))
        elif opcode == TEXT:
            self._outlet.send(ws_frame(orjson.dumps(self._answer(content))))
        else:
            self._outlet.send(ws_frame(orjson.dumps(_error(BAD_REQUEST, "Invalid request: requests are text"))))

    def _within_rate(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        limit = self._site.limits.messages_per_s
        return not limit or self._count <= limit

    def housekeep(self, now: float, ping: bytes | None) -> None:
        """Ping; end what is silent or old."""
        limits = self._site.limits
        if now - self._heard > limits.silence_s:
            self.close(WSCloseCode.POLICY_VIOLATION, f"no pong for {limits.silence_s:g} s")
        elif now - self._began > limits.life_s:
            self.close(WSCloseCode.GOING_AWAY, "connections live 24 hours")
        elif ping is not None:
            self._outlet.send(ping)

    def tell_all(self, body: bytes) -> None:
        """Tell of something that belongs to no stream."""
        if self._combined:
            body = b'{"stream":"!serverShutdown","data":' + body + b"}"
        self._outlet.send(ws_frame(body))

    def close(self, code: int, reason: str) -> None:
        """End it, soon, whatever the peer does."""
        if self._closing:
            return
        self._closing = True
        for stream in list(self._streams):
            self._remove(stream)
        self._outlet.send(ws_frame(int(code).to_bytes(2, "big") + reason.encode(), CLOSE))
        asyncio.get_running_loop().call_later(GOODBYE_S, self._end)

    def _end(self) -> None:
        if self.encrypted:
            self._transport.abort()
        self._site.drop(self)

    def gone(self) -> None:
        """It is over."""
        self._closing = True
        for stream in list(self._streams):
            self._remove(stream)
        self._outlet.close()

    def _broken(self, reason: str) -> None:
        # Not at once: whoever found out is in the middle of telling others.
        asyncio.get_running_loop().call_soon(self.close, WSCloseCode.POLICY_VIOLATION, reason)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _answer(self, content: bytes) -> dict[str, Any]:
        try:
            request = orjson.loads(content)
        except ValueError as error:
            return _error(BAD_JSON, f"Invalid JSON: {error}")
        if not isinstance(request, dict):
            return _error(BAD_REQUEST, "Invalid request: it must be an object")
        number = request.get("id")
        if not _is_id(number):
            text = f"Invalid request: id must be an int64, a text of up to {ID_TEXT_MAX} characters, or null"
            return _error(BAD_REQUEST, text)
        try:
            result = self._do(request)
        except RequestError as error:
            return {**_error(error.code, str(error)), "id": number}
        return {"result": result, "id": number}

    def _do(self, request: dict[str, Any]) -> Any:
        methods: dict[object, Callable[[dict[str, Any]], Any]] = {
            "SUBSCRIBE": self._subscribe,
            "UNSUBSCRIBE": self._unsubscribe,
            "LIST_SUBSCRIPTIONS": lambda _: [stream.name for stream in self._streams],
            "SET_PROPERTY": self._set_property,
            "GET_PROPERTY": self._get_property,
        }
        method = request.get("method")
        if not isinstance(method, str) or method not in methods:
            raise RequestError(BAD_REQUEST, f"Invalid request: method must be one of {', '.join(map(str, methods))}")
        return methods[method](request)

    def _subscribe(self, request: dict[str, Any]) -> None:
        streams, limit = _named(request), self._site.limits.streams_max
        if len(self._streams.keys() | set(streams)) > limit:
            raise RequestError(BAD_REQUEST, f"Invalid request: at most {limit} streams a connection")
        resume = request.get("resume", {})
        if not isinstance(resume, dict) or not all(isinstance(each, int) and each >= 0 for each in resume.values()):
            raise RequestError(BAD_REQUEST, "Invalid request: resume must be {stream: update id}")
        after = {parse_request(name): update_id for name, update_id in resume.items()}
        if any(stream not in streams or stream.kind not in RESUMABLE for stream in after):
            raise RequestError(BAD_REQUEST, "Invalid request: resume names a depth, book or l3 stream in params")
        for stream in streams:
            self._add(stream, after.get(stream))

    def _unsubscribe(self, request: dict[str, Any]) -> None:
        for stream in _named(request):
            self._remove(stream)

    def _set_property(self, request: dict[str, Any]) -> None:
        params = request.get("params")
        if not isinstance(params, list) or len(params) != 2:
            raise RequestError(BAD_REQUEST, "Invalid request: params must be [property, value]")
        if params[0] != COMBINED:
            raise RequestError(UNKNOWN_PROPERTY, "Unknown property")
        if not isinstance(params[1], bool):
            raise RequestError(BAD_VALUE, "Invalid value type: expected Boolean")
        if params[1] != self._combined:
            self._combined = params[1]
            for stream in self._streams:
                audience = self._site.publisher.audience(stream)
                if audience.remove(self._outlet):  # else it is still to be greeted, and then in the new form
                    audience.add(self._outlet, combined=self._combined, unit_ns=self._unit_ns, newest=False)

    def _get_property(self, request: dict[str, Any]) -> bool | int:
        params = request.get("params")
        if not isinstance(params, list) or len(params) != 1:
            raise RequestError(BAD_REQUEST, "Invalid request: params must be [property]")
        if params[0] == COMBINED:
            return self._combined
        if params[0] == CONFLATED:
            return self._outlet.conflated
        raise RequestError(UNKNOWN_PROPERTY, "Unknown property")

    # --- streams ------------------------------------------------------------------------------------------------------

    def _add(self, stream: Stream, after: int | None) -> None:
        if stream in self._streams:
            if after is None:
                return
            self._remove(stream)
        token = self._streams[stream] = object()
        publisher = self._site.publisher
        audience = publisher.audience(stream)
        if stream.kind in WITH_SNAPSHOT or after is not None:
            publisher.greet(stream, lambda told: self._greet(stream, token, told, after))
        else:
            audience.add(self._outlet, combined=self._combined, unit_ns=self._unit_ns)

    def _greet(self, stream: Stream, token: object, told: DepthStream | OrderStream, after: int | None) -> None:
        """Begin with what the subscriber missed, or with the book; what follows goes on from there."""
        if self._streams.get(stream) is not token:
            return  # it has left; if it has come again, that is another greeting
        now_ns = time.time_ns()
        if isinstance(told, OrderStream):
            listener = Listener(
                self._outlet, lambda: (self._combined, self._unit_ns), lambda: self._streams.get(stream) is token
            )
            told.begin(listener, after, now_ns)
        else:
            self._greet_depth(told, after, now_ns)

    def _greet_depth(self, depth: DepthStream, after: int | None, now_ns: int) -> None:
        first = None if after is None or after == depth.last_id else depth.since(after, now_ns)
        if first is None and after != depth.last_id:
            first = depth.snapshot(now_ns)
        if first is not None:
            frame = depth.audience.frame(first, combined=self._combined, unit_ns=self._unit_ns)
            self._outlet.send(frame)
        depth.audience.add(self._outlet, combined=self._combined, unit_ns=self._unit_ns)

    def _remove(self, stream: Stream) -> None:
        if stream in self._streams:
            del self._streams[stream]
            publisher = self._site.publisher
            publisher.audience(stream).remove(self._outlet)
            publisher.left(stream)


def parse_request(name: object) -> Stream:
    """Return the stream of a name in a request. Raises RequestError."""
    try:
        return parse(str(name))
    except StreamNameError as error:
        raise RequestError(BAD_REQUEST, f"Invalid request: {error}") from None


def _named(request: dict[str, Any]) -> list[Stream]:
    names = request.get("params")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise RequestError(BAD_REQUEST, "Invalid request: params must be a list of stream names")
    return [parse_request(name) for name in names]


def _error(code: int, text: str) -> dict[str, Any]:
    return {"code": code, "msg": text}


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= ID_TEXT_MAX
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63)
