"""Readers of private events that take nothing: closed with 1008 when 20,000 messages wait, and gone soon after."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import TestServer

from gateway.web import listen_keys, ws_api
from gateway.web.listen_keys import ListenKeys, ListenKeySockets
from gateway.web.ws_api import QUEUED_MAX, SocketApi

DEADLINE_S = 60.0
EVENT = {"e": "executionReport", "text": "x" * 1000}
KERNEL_MESSAGES_MAX = 20_000  # what both kernels may take of so large messages, generously
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def make_api() -> SocketApi:
    config = SimpleNamespace(connections_max=10, body_bytes_max=131_072)
    gateway: Any = SimpleNamespace(config=config, limits=SimpleNamespace(admit=lambda *_, **__: None))
    metrics: Any = SimpleNamespace()
    return SocketApi(gateway, metrics, metrics, metrics)


async def serving(handle: Any, path: str) -> TestServer:
    app = web.Application()
    app.router.add_get(path, handle)
    server = TestServer(app)
    await server.start_server()
    return server


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def flood(send: Any, ended: Any) -> int:
    """Send until it is over; return how many it took. The kernels take what they can first."""
    sent = 0
    while not ended():
        assert sent < QUEUED_MAX + KERNEL_MESSAGES_MAX
        send()
        sent += 1
        if sent % 100 == 0:
            await asyncio.sleep(0)
    return sent


def test_reader_of_the_websocket_api_that_takes_nothing_is_told_1008() -> None:
    async def scenario() -> None:
        api = make_api()
        server = await serving(api.handle, "/ws-api/v3")
        async with ClientSession() as session:
            client = await session.ws_connect(server.make_url("/ws-api/v3"), max_msg_size=0, autoping=False)
            await until(lambda: api.count)
            [connection] = api._connections
            client._conn.protocol.pause_reading()  # type: ignore[union-attr]
            client._conn.transport.pause_reading()  # type: ignore[union-attr]

            sent = await flood(lambda: connection.event(EVENT), lambda: api.slow)

            assert sent > QUEUED_MAX
            client._conn.transport.resume_reading()  # type: ignore[union-attr]
            received = 0
            while (message := await client.receive(DEADLINE_S)).type is WSMsgType.TEXT:
                received += 1
            assert client.close_code == 1008, message
            assert received <= sent - QUEUED_MAX  # what had left before; the rest is not kept for it
            await until(lambda: api.count == 0)
            assert api.slow == 1
        await server.close()

    asyncio.run(scenario())


def test_reader_that_never_comes_back_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its close frame never leaves; the connection was kept for ever."""
    monkeypatch.setattr(ws_api, "GOODBYE_S", 0.2)

    async def scenario() -> None:
        api = make_api()
        server = await serving(api.handle, "/ws-api/v3")
        dead = socket.create_connection((server.host, server.port))
        dead.sendall(HANDSHAKE.format(path="/ws-api/v3").encode())
        await until(lambda: api.count)
        [connection] = api._connections

        await flood(lambda: connection.event(EVENT), lambda: api.slow)
        await until(lambda: api.count == 0 and not server.handler.connections)

        dead.close()
        await server.close()

    asyncio.run(scenario())


def test_reader_of_a_listen_key_that_takes_nothing_is_forgotten(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_api, "GOODBYE_S", 0.2)

    async def scenario() -> None:
        keys = ListenKeys(tmp_path / "keys.db")
        name = keys.create(7)
        subscriptions: list[Any] = []
        streams: Any = SimpleNamespace(subscribe=subscriptions.append, unsubscribe=subscriptions.remove)
        gateway: Any = SimpleNamespace(config=SimpleNamespace(body_bytes_max=131_072))
        sockets = ListenKeySockets(gateway, keys, streams)
        server = await serving(sockets.handle, f"/ws/{{listen_key:{listen_keys.PATTERN}}}")
        dead = socket.create_connection((server.host, server.port))
        dead.sendall(HANDSHAKE.format(path=f"/ws/{name}").encode())
        await until(lambda: subscriptions)
        [subscription] = subscriptions

        for _ in range(QUEUED_MAX):
            subscription.deliver(EVENT["text"], 0)
        await asyncio.sleep(0.5)  # longer than a goodbye takes: nobody has said one
        assert subscriptions
        for at in range(KERNEL_MESSAGES_MAX):
            subscription.deliver(EVENT["text"], 0)
            if at % 100 == 0:
                await asyncio.sleep(0)
        await until(lambda: not subscriptions and not server.handler.connections)

        dead.close()
        await server.close()
        keys.close()

    asyncio.run(scenario())
