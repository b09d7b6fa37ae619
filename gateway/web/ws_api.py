"""The WebSocket API: requests with an id, answers with the same; logon, and private events on the same connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from gateway.web.api import Call, Endpoint, Security
from gateway.web.auth import check_time, not_permitted, socket_payload, socket_payload_encoded
from gateway.web.cancels import cancel_those
from gateway.web.decimals import whole
from gateway.web.endpoints import ENDPOINTS
from gateway.web.errors import ApiError, bad_value, missing
from gateway.web.exchange_info import rate_limits
from gateway.web.gateway import Gateway
from gateway.web.metrics import Metrics
from gateway.web.private_events import VECTOR_FORM, is_vector
from gateway.web.reference import Key
from gateway.web.rest import time_unit
from gateway.web.user_streams import Subscription, UserStreams

PING_EVERY_S = 20.0
SILENT_MAX_S = 60.0
CONNECT_WEIGHT = 2
QUEUED_MAX = 20_000  # messages a slow reader may let wait; then the connection is closed
WRITTEN_AT_ONCE = 100
RESUME_AHEAD_MAX = 1_000  # messages that wait for the reader of missed events before more of them are read
IN_FLIGHT_MAX = 256
ID_LENGTH_MAX = 36
INT64_MAX = (1 << 63) - 1
GOODBYE_S = 5.0
METHODS: dict[str, Endpoint] = {endpoint.socket: endpoint for endpoint in ENDPOINTS if endpoint.socket}
CLOSE_SLOW, CLOSE_GOING, CLOSE_SILENT = 1008, 1001, 1002


async def say_goodbye(socket: web.WebSocketResponse, transport: asyncio.Transport | None, code: int, why: str) -> None:
    """Close a connection, also one whose peer takes nothing any more."""
    heard = False
    try:
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(GOODBYE_S):
                await socket.close(code=code, message=why.encode())
                heard = True
    finally:
        if transport is not None and not heard:
            transport.abort()


class Connection:
    """One client. Requests run side by side; their answers come when they are ready."""

    def __init__(self, api: SocketApi, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._api = api
        self._gateway = api.gateway
        self._socket = socket
        self._transport = request.transport
        self._closing = False
        self._goodbye: asyncio.Task[None] | None = None  # the handler must not return before it is said
        self.address = request.remote or ""
        self._microseconds = time_unit(request.query.get("timeUnit") or request.headers.get("X-MBX-TIME-UNIT"))
        self._limits_shown = request.query.get("returnRateLimits", "true").lower() != "false"
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._key: Key | None = None
        self._authorized_ms = 0
        self._connected_ms = time.time_ns() // 1_000_000
        self._subscriptions: dict[int, Subscription] = {}
        self._next_subscription = 0
        self._heard_at = time.monotonic()
        self._in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._ends_with_us = False  # cancel on disconnect
        self._placed: dict[str, list[int]] = {}

    async def run(self) -> None:
        writer = asyncio.create_task(self._write())
        pinger = asyncio.create_task(self._ping())
        try:
            async for message in self._socket:
                self._heard_at = time.monotonic()
                if message.type is WSMsgType.TEXT:
                    await self._in_flight.acquire()
                    self._spawn(message.data)
                elif message.type is WSMsgType.PING:
                    await self._socket.pong(message.data)
                elif message.type is WSMsgType.BINARY:
                    self._send(_error(None, ApiError(-1135, "JSON Request is invalid."), []))
        finally:
            for subscription in self._subscriptions.values():
                self._api.streams.unsubscribe(subscription)
            for task in (writer, pinger, *self._tasks):
                task.cancel()
            if self._placed and self._key is not None:
                self._api.cancel_placed(self._key, self._placed)
            await asyncio.gather(writer, pinger, *self._tasks, return_exceptions=True)
            if self._goodbye is not None:
                await self._goodbye

    def event(self, body: dict[str, Any]) -> None:
        """Tell of something that is no subscription's: serverShutdown."""
        self._send(orjson.dumps({"event": body}).decode())

    async def close(self, code: int, why: str) -> None:
        self._end(code, why)
        assert self._goodbye is not None
        await asyncio.shield(self._goodbye)

    def _end(self, code: int, why: str) -> None:
        self._closing = True
        if self._goodbye is None:
            goodbye = say_goodbye(self._socket, self._transport, code, why)
            self._goodbye = asyncio.get_running_loop().create_task(goodbye)

    # --- out ----------------------------------------------------------------------------------------------------------

    def _send(self, text: str) -> None:
        if self._closing:
            return
        if self._queue.qsize() >= QUEUED_MAX:
            self._queue = asyncio.Queue()
            self._api.slow += 1
            self._end(CLOSE_SLOW, "the reader is too slow")
            return
        self._queue.put_nowait(text)

    async def _room(self) -> None:
        """Return when the reader has taken most of what waits for it."""
        while self._queue.qsize() > RESUME_AHEAD_MAX:
            self._taken.clear()
            await self._taken.wait()

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            written = 0
            while (text := await self._queue.get()) is not None:
                await self._socket.send_str(text)
                if self._queue.qsize() <= RESUME_AHEAD_MAX:
                    self._taken.set()
                written += 1
                if written % WRITTEN_AT_ONCE == 0:  # neither a full queue nor a ready socket lets others have a turn
                    await asyncio.sleep(0)

    async def _ping(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(PING_EVERY_S)
                if time.monotonic() - self._heard_at > SILENT_MAX_S:
                    await self.close(CLOSE_SILENT, "no pong")
                    return
                await self._socket.ping(str(time.time_ns() // 1_000_000).encode())

    # --- in -----------------------------------------------------------------------------------------------------------

    def _spawn(self, text: str) -> None:
        task = asyncio.get_running_loop().create_task(self._request(text))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_flight.release()

    async def _request(self, text: str) -> None:
        started = time.perf_counter()
        call = Call(self._gateway, {}, address=self.address, microseconds=self._microseconds)
        request_id: Any = None
        shown = self._limits_shown
        status, endpoint = 200, None
        try:
            request = _parsed(text)
            request_id = _request_id(request)
            params = {} if request.get("params") is None else request["params"]
            if not isinstance(params, dict):
                raise bad_value("params", "It must be an object.")
            shown = params.get("returnRateLimits", shown) is not False
            method = str(request.get("method", "")).removeprefix("v3/")
            endpoint = METHODS.get(method)
            call.params = params
            result = await (self._session(method, call) if endpoint is None else self._call(endpoint, call))
            answer = {"id": request_id, "status": status, "result": result}
            if shown:
                answer["rateLimits"] = self._limits(call)
            self._send(orjson.dumps(answer).decode())
        except ApiError as error:
            status = error.status
            self._send(_error(request_id, error, self._limits(call) if shown else None))
        except Exception:
            status = 500
            self._api.logger.exception("unexpected error on a socket")
            unknown = ApiError(-1000, "An unknown error occurred while processing the request.", status=status)
            self._send(_error(request_id, unknown, None))
        if endpoint is not None:
            self._api.metrics.request(endpoint, status, time.perf_counter() - started, transport="socket")

    async def _call(self, endpoint: Endpoint, call: Call) -> Any:
        gateway = self._gateway
        weight = gateway.admit(endpoint, call)
        if endpoint.security is not Security.NONE:
            await self._authenticate(call, endpoint.security)
            gateway.charge_key(endpoint, call, weight)
        call.values = endpoint.parse(call.params)
        result = await endpoint.handler(call)
        if endpoint.free_on_success:
            gateway.free(call, weight)
        if self._ends_with_us and endpoint.security is Security.TRADE:
            self._note_placed(result)
        return result

    def _note_placed(self, result: Any) -> None:
        """Remember what this connection has placed and what may still be open."""
        rows = result
        if isinstance(result, dict):
            rows = [result, result.get("newOrderResponse"), *result.get("orders", ())]
        for row in rows:
            if isinstance(row, dict) and "orderId" in row and row.get("status", "NEW") in ("NEW", "PARTIALLY_FILLED"):
                self._placed.setdefault(row["symbol"], []).append(row["orderId"])

    async def _authenticate(self, call: Call, security: Security) -> None:
        """By the request's own signature, or as who has logged on."""
        params = call.params
        if "signature" not in params and "apiKey" not in params and self._key is not None:
            self._key = await self._gateway.key(self._key.id)  # it may have been revoked
            self._gateway.check(self._key, security)
            call.key = self._key
            if params.get("timestamp") is not None:
                call.deadline_us = check_time(
                    str(params["timestamp"]), _optional(params.get("recvWindow")), self._gateway.now_us()
                )
            return
        call.key, call.deadline_us = await self._signed(params)
        self._gateway.check(call.key, security)

    async def _signed(self, params: Any) -> tuple[Key, int]:
        access_key = params.get("apiKey")
        if access_key is None:
            raise missing("apiKey")
        signed = await self._gateway.verify(
            str(access_key), _optional(params.get("signature")),
            (socket_payload(params), socket_payload_encoded(params)),
            timestamp=_optional(params.get("timestamp")), recv_window=_optional(params.get("recvWindow")),
        )  # fmt: skip
        return signed.key, signed.deadline_us

    def _limits(self, call: Call) -> list[dict[str, Any]]:
        used = int(call.headers.get("X-MBX-USED-WEIGHT-1M", 0))
        orders = {
            "SECOND": call.headers.get("X-MBX-ORDER-COUNT-10S"),
            "DAY": call.headers.get("X-MBX-ORDER-COUNT-1D"),
        }
        rows = []
        for row in rate_limits(call):
            if row["rateLimitType"] == "REQUEST_WEIGHT":
                rows.append(row | {"count": used})
            elif row["rateLimitType"] == "ORDERS" and (count := orders[row["interval"]]) is not None:
                rows.append(row | {"count": int(count)})
        return rows

    # --- the session --------------------------------------------------------------------------------------------------

    async def _session(self, method: str, call: Call) -> Any:
        self._gateway.admit(SESSION, call)
        handlers = {
            "session.logon": self._logon,
            "session.status": self._status,
            "session.logout": self._logout,
            "session.subscriptions": self._list,
            "userDataStream.subscribe": self._subscribe,
            "userDataStream.subscribe.signature": self._subscribe_signed,
            "userDataStream.unsubscribe": self._unsubscribe,
        }
        handler = handlers.get(method)
        if handler is None:
            raise ApiError(-1000, f"Unknown method '{method[:64]}'.", details={"field": "method"})
        return await handler(call)

    def _session_body(self) -> dict[str, Any]:
        now_ms = time.time_ns() // 1_000_000
        factor = 1000 if self._microseconds else 1
        return {
            "apiKey": None if self._key is None else self._key.id,
            "authorizedSince": None if self._key is None else self._authorized_ms * factor,
            "connectedSince": self._connected_ms * factor,
            "returnRateLimits": self._limits_shown,
            "serverTime": now_ms * factor,
            "userDataStream": bool(self._subscriptions),
        }

    async def _logon(self, call: Call) -> dict[str, Any]:
        key, _ = await self._signed(call.params)
        self._key, self._authorized_ms = key, time.time_ns() // 1_000_000
        self._ends_with_us = str(call.params.get("cancelOnDisconnect")).lower() == "true"
        return self._session_body()

    async def _status(self, _: Call) -> dict[str, Any]:
        return self._session_body()

    async def _logout(self, _: Call) -> dict[str, Any]:
        self._key = None
        return self._session_body()

    async def _subscribe(self, call: Call) -> dict[str, Any]:
        if self._key is None:
            raise not_permitted()
        self._key = await self._gateway.key(self._key.id)
        return await self._subscribe_key(self._key, call)

    async def _subscribe_signed(self, call: Call) -> dict[str, Any]:
        key, _ = await self._signed(call.params)
        return await self._subscribe_key(key, call)

    async def _subscribe_key(self, key: Key, call: Call) -> dict[str, Any]:
        self._gateway.check(key, Security.USER_DATA)
        if any(each.account == key.account for each in self._subscriptions.values()):
            raise ApiError(-2035, "User Data Stream subscription already active.")
        after: Any = call.params.get("after")
        if isinstance(after, str):
            with contextlib.suppress(ValueError):
                after = orjson.loads(after)
        if after is not None and not is_vector(after):
            raise bad_value("after", VECTOR_FORM)
        number = self._next_subscription
        head = f'{{"subscriptionId":{number},"event":'

        def send(body: str) -> None:
            self._send(f"{head}{body}}}")

        subscription = Subscription(key.account, send, microseconds=self._microseconds)
        self._subscriptions[number] = subscription  # at once: another request may come while missed events are read
        self._next_subscription += 1
        try:
            if after is None:
                vector = self._api.streams.subscribe(subscription)
            else:
                vector = await self._api.streams.resume(subscription, after, self._room)
        except Exception:
            self._subscriptions.pop(number, None)
            raise
        return {"subscriptionId": number, "vector": vector}

    async def _unsubscribe(self, call: Call) -> dict[str, Any]:
        wanted = call.params.get("subscriptionId")
        if wanted is None:
            chosen = list(self._subscriptions)
        elif (number := whole(str(wanted))) is not None:
            chosen = [number]
        else:
            raise ApiError(-2042, "Subscription ID is invalid.", details={"field": "subscriptionId"})
        if not chosen or any(number not in self._subscriptions for number in chosen):
            raise ApiError(-2036, "User Data Stream subscription not active.")
        for number in chosen:
            self._api.streams.unsubscribe(self._subscriptions.pop(number))
        return {}

    async def _list(self, _: Call) -> list[dict[str, Any]]:
        return [{"subscriptionId": number} for number in self._subscriptions]


async def _never(_: Call) -> None:
    """Session methods are of the connection, not of this table."""


SESSION = Endpoint("", "", "Session methods", _never, weight=2)


class SocketApi:
    """Serves `/ws-api/v3`."""

    def __init__(self, gateway: Gateway, streams: UserStreams, metrics: Metrics, logger: Any) -> None:
        self.gateway = gateway
        self.streams = streams
        self.metrics = metrics
        self.logger = logger
        self.slow = 0
        self._canceling: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()

    @property
    def count(self) -> int:
        return len(self._connections)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        gateway = self.gateway
        if self.count >= gateway.config.connections_max:
            raise ApiError(-1008, "Too many connections.", status=503, retry_after_s=1)
        socket = web.WebSocketResponse(autoping=False, max_msg_size=gateway.config.body_bytes_max)
        connection = Connection(self, socket, request)
        gateway.limits.admit(connection.address, CONNECT_WEIGHT, always=True)
        await socket.prepare(request)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
        return socket

    def cancel_placed(self, key: Key, placed: dict[str, list[int]]) -> None:
        """A connection that asked for it has ended: its orders end, too."""
        by_symbol = self.gateway.reference.by_symbol
        orders = {by_symbol[symbol].id: ids for symbol, ids in placed.items() if symbol in by_symbol}
        task = asyncio.get_running_loop().create_task(self._cancel(key, orders))
        self._canceling.add(task)
        task.add_done_callback(self._canceling.discard)

    async def _cancel(self, key: Key, orders: dict[int, list[int]]) -> None:
        instruments = self.gateway.reference.instruments
        with contextlib.suppress(ApiError):
            for instrument_id, order_ids in orders.items():
                await cancel_those(Call(self.gateway, {}, key=key), instruments[instrument_id], order_ids)

    async def shutdown(self) -> None:
        """Say goodbye to everybody."""
        now_ms = time.time_ns() // 1_000_000
        for connection in list(self._connections):
            connection.event({"e": "serverShutdown", "E": now_ms})
        await asyncio.sleep(0)
        closing = (connection.close(CLOSE_GOING, "the server shuts down") for connection in list(self._connections))
        await asyncio.gather(*closing, return_exceptions=True)
        await asyncio.gather(*self._canceling, return_exceptions=True)


def _parsed(text: str) -> dict[str, Any]:
    try:
        request = orjson.loads(text)
    except ValueError:
        raise ApiError(-1135, "JSON Request is invalid.") from None
    if not isinstance(request, dict):
        raise ApiError(-1135, "JSON Request is invalid.")
    return request


def _request_id(request: dict[str, Any]) -> Any:
    value = request.get("id")
    text = isinstance(value, str) and len(value) <= ID_LENGTH_MAX
    number = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INT64_MAX
    if value is None or text or number:
        return value
    raise ApiError(-1100, "Illegal characters found in parameter 'id'; it must be an integer or up to 36 characters.")


def _optional(value: Any) -> str | None:
    return None if value is None else str(value)


def _error(request_id: Any, error: ApiError, limits: list[dict[str, Any]] | None) -> str:
    body: dict[str, Any] = error.body()
    if error.retry_after_s is not None:
        body["data"] = {
            "serverTime": time.time_ns() // 1_000_000,
            "retryAfter": (int(time.time()) + error.retry_after_s) * 1000,
        }
    answer = {"id": request_id, "status": error.status, "error": body}
    if limits is not None:
        answer["rateLimits"] = limits
    return orjson.dumps(answer).decode()
