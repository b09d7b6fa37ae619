"""The market feed over WebSocket: /native, SBE streams and their requests, limits, readers that do not read."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from gateway.clients.python.arbiter import Arbiter
from gateway.clients.python.books import OrderBook
from gateway.errors import GatewayConfigError
from gateway.marketdata.streams import Kind, Stream
from gateway.marketdata.tokens import Entitlement
from gateway.marketdata.websocket import CLOSED_LOST, KEY_HEADER, MarketWeb, WebConfig
from ringbuf.wire import messages as wire
from ringbuf.wire.market_codec import decode_market
from tests.kit.composed_exchange import PAIR
from tests.kit.feed_site import GENERATION, KEY, FeedSite, Packet, config, flow, token, traders
from tests.kit.sbe_stream import Frame, read
from tests.unit.gateway.marketdata.test_streams import PAIR_IS

DEADLINE_S = 30.0
GOING_AWAY, POLICY, UNSUPPORTED = 1001, 1008, 1003
UNAUTHORIZED, NOT_FOUND, CONFLICT, BAD_REQUEST, TOO_MANY, UNAVAILABLE = 401, 404, 409, 400, 429, 503


def key(entitlements: Entitlement = Entitlement.ALL, *, subscriber: int = 7) -> str:
    minted = token(entitlements, subscriber=subscriber)
    return minted.user + minted.password


class Site:
    """A feed, its web, an aiohttp client."""

    def __init__(self, feed_site: FeedSite, market: MarketWeb, address: str, client: aiohttp.ClientSession) -> None:
        self.feed_site = feed_site
        self.exchange = feed_site.exchange
        self.market = market
        self.address = address
        self.client = client
        self._open: list[aiohttp.ClientWebSocketResponse] = []

    async def connect(self, path: str, *, token: str | None = None, **options: Any) -> aiohttp.ClientWebSocketResponse:
        headers = {KEY_HEADER: key() if token is None else token}
        # Kept: one that is forgotten is closed.
        self._open.append(await self.client.ws_connect(self.address + path, headers=headers, **options))
        return self._open[-1]

    async def refused(self, path: str, **options: Any) -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await self.connect(path, **options)
        return refusal.value.status

    async def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + DEADLINE_S
        while not (value := condition()):
            assert time.monotonic() < end, self.market.counters()
            await asyncio.sleep(0.001)
        return value


@asynccontextmanager
async def served(settings: Any = None, **limits: Any) -> AsyncIterator[Site]:
    def stalled(status: int) -> None:
        raise AssertionError(status)

    with FeedSite(settings, lines=0).start() as feed_site:
        market = MarketWeb(feed_site.feed, WebConfig(**({"key": KEY} | limits)))
        market.streams.define(PAIR_IS)
        application = web.Application()
        application.add_routes(market.routes())
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        running = asyncio.create_task(market.run(stalled))
        host, port = runner.addresses[0][:2]
        try:
            async with aiohttp.ClientSession() as client:
                yield Site(feed_site, market, f"http://{host}:{port}", client)
        finally:
            await market.stop()
            await running
            await runner.cleanup()


def run(scene: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * DEADLINE_S):
            await scene

    asyncio.run(bounded())


async def ask(socket: aiohttp.ClientWebSocketResponse, request: Any) -> Any:
    await socket.send_str(request if isinstance(request, str) else json.dumps(request))
    while True:
        message = await socket.receive(DEADLINE_S)
        if message.type == WSMsgType.TEXT:
            return json.loads(message.data)
        assert message.type == WSMsgType.BINARY, message


async def frame(socket: aiohttp.ClientWebSocketResponse) -> Frame:
    return read(await socket.receive_bytes(timeout=DEADLINE_S))


async def ended(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    """Read to the end; return the code it was closed with."""
    while (await socket.receive(DEADLINE_S)).type not in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED):
        pass
    return socket.close_code


# --- /native ---------------------------------------------------------------------------------------------------------


def test_native_packets_are_history_then_life_and_the_digests_agree() -> None:
    async def scene() -> None:
        async with served(heartbeat_s=0.05) as site:
            accounts = traders(site.exchange)
            for _ in flow(site.exchange, *accounts, 200):
                pass
            socket = await site.connect("/native?channel=1&number=1")
            arbiter, book = Arbiter(1), OrderBook(PAIR)
            list(arbiter.resume(1, 0.0))
            got: list[bytes] = []

            async def packet() -> Packet:
                data = await socket.receive_bytes(timeout=DEADLINE_S)
                for _, message in arbiter.packet(data, 0.0):
                    got.append(message)
                    book.apply(decode_market(message))
                return Packet.parse(data)

            while len(got) < site.feed_site.market.published:
                await packet()
            for _ in flow(site.exchange, *accounts, 50, seed=2):
                pass
            while len(got) < site.feed_site.market.published:
                await packet()
            heartbeat = await packet()
            assert got == site.feed_site.messages()
            assert book.digest.to_bytes(16, "little") == site.exchange.engine.matchers[0].book_hash(PAIR)
            assert (heartbeat.session, heartbeat.number, heartbeat.count) == (f"BR001{GENERATION}", len(got) + 1, 0)

    run(scene())


def test_native_without_a_number_begins_now_and_derived_channels_are_there_too() -> None:
    async def scene() -> None:
        async with served() as site:
            seller, buyer = traders(site.exchange)
            site.exchange.buy(buyer, 990, 5)
            await site.until(lambda: site.market.feed.position(101).next > 1)
            before = site.market.feed.position(101).next
            socket = await site.connect("/native?channel=101")
            site.exchange.sell(seller, 990, 2)
            packet = Packet.parse(await socket.receive_bytes(timeout=DEADLINE_S))
            assert packet.number == before
            assert type(decode_market(packet.messages[0])).__name__ == "Trade"

    run(scene())


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", BAD_REQUEST),
        ("channel=x", BAD_REQUEST),
        ("channel=-1", BAD_REQUEST),
        ("channel=2", NOT_FOUND),
        ("channel=99999999999999999999", BAD_REQUEST),
        ("channel=1&number=0", BAD_REQUEST),
        ("channel=1&number=3", BAD_REQUEST),
        ("channel=1&number=1&session=BR001OTHER", CONFLICT),
    ],
)
def test_a_native_request_that_cannot_be_is_refused(query: str, status: int) -> None:
    async def scene() -> None:
        async with served() as site:
            _, buyer = traders(site.exchange)
            site.exchange.buy(buyer, 990, 5)
            assert await site.refused(f"/native?{query}") == status
            assert site.market.counters()["refused"] == 1
            (await site.connect(f"/native?channel=1&number=2&session=BR001{GENERATION}"))._response.close()

    run(scene())


def test_messages_that_are_no_longer_kept_end_the_connection() -> None:
    async def scene() -> None:
        async with served(config(derived_slots=16384)) as site:
            _, buyer = traders(site.exchange)
            site.exchange.buy(buyer, 800, 5)
            await site.until(lambda: site.market.feed.position(101).next > 1)
            socket = await site.connect("/native?channel=101&number=1")
            (connection,) = site.market.connections
            connection._next = lambda: None  # type: ignore[method-assign]  # a reader that takes nothing for long
            for turn in range(4500):
                outputs = site.exchange.buy(buyer, 900 + turn % 50, 1)
                site.exchange.cancel(buyer, outputs[0].message.order_id)
                if turn % 500 == 0:
                    await asyncio.sleep(0.002)
            assert await ended(socket) == CLOSED_LOST

    run(scene())


# --- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "entitlements", "welcome"),
    [
        ("/native?channel=1", Entitlement.FULL, True),
        ("/native?channel=1", Entitlement.DERIVED | Entitlement.DEFINITIONS, False),
        ("/native?channel=101", Entitlement.DERIVED, True),
        ("/native?channel=101", Entitlement.FULL, False),
        ("/native?channel=900", Entitlement.DEFINITIONS, True),
        ("/native?channel=900", Entitlement.FULL, False),
        ("/ws", Entitlement.DERIVED, True),
        ("/stream?streams=btcusdt@trade", Entitlement.FULL, False),
    ],
)
def test_a_token_opens_what_it_says(path: str, entitlements: Entitlement, welcome: bool) -> None:
    async def scene() -> None:
        async with served() as site:
            if welcome:
                await site.connect(path, token=key(entitlements))
                await site.connect(f"{path}{'&' if '?' in path else '?'}token={key(entitlements)}", token="")
            else:
                assert await site.refused(path, token=key(entitlements)) == UNAUTHORIZED

    run(scene())


def test_no_token_a_wrong_one_and_none_needed() -> None:
    async def scene() -> None:
        async with served() as site:
            good = key()
            for bad in ("", "x", good[:-1], good + "A", good[:-1] + ("A" if good[-1] != "A" else "B")):
                assert await site.refused("/ws", token=bad) == UNAUTHORIZED
        async with served(key=None) as site:
            await site.connect("/ws", token="")

    run(scene())


def test_connections_are_counted() -> None:
    async def scene() -> None:
        async with served(connections_max=3, connections_per_user=2) as site:
            first = await site.connect("/ws")
            await site.connect("/ws")
            assert await site.refused("/ws") == TOO_MANY
            await site.connect("/ws", token=key(subscriber=8))
            assert await site.refused("/ws", token=key(subscriber=9)) == UNAVAILABLE
            await first.close()
            await site.until(lambda: len(site.market.connections) == 2)
            await site.connect("/ws")
        async with served(attempts_max=2) as site:
            await site.connect("/ws")
            assert await site.refused("/ws", token="") == UNAUTHORIZED
            assert await site.refused("/ws") == TOO_MANY

    run(scene())


# --- the streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/ws/btcusdt@trade/btcusdt@bestBidAsk", "/stream?streams=btcusdt@trade/btcusdt@bestBidAsk"]
)
def test_streams_by_path(path: str) -> None:
    async def scene() -> None:
        async with served() as site:
            seller, buyer = traders(site.exchange)
            socket = await site.connect(path)
            await site.until(lambda: not site.market.streams.waiting)
            site.exchange.buy(buyer, 990, 5)
            assert (await frame(socket)).name == "bestBidAsk"
            site.exchange.sell(seller, 990, 1)
            assert sorted([(await frame(socket)).name, (await frame(socket)).name]) == ["bestBidAsk", "trades"]

    run(scene())


def test_requests() -> None:
    async def scene() -> None:
        async with served(messages_per_s=100) as site:
            _, buyer = traders(site.exchange)
            socket = await site.connect("/ws/12345")
            answer = await ask(socket, {"method": "SUBSCRIBE", "params": ["btcusdt@depth20", "no@trade"], "id": 1})
            assert answer == {"result": None, "id": 1}
            first = await frame(socket)
            assert (first.name, first.levels("bids")) == ("depthSnapshot", [])
            answer = await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": "x"})
            assert answer == {"result": ["btcusdt@depth20", "no@trade"], "id": "x"}
            answer = await ask(socket, {"method": "UNSUBSCRIBE", "params": ["btcusdt@depth20"], "id": None})
            assert answer == {"result": None, "id": None}
            site.exchange.buy(buyer, 990, 5)
            await ask(socket, {"method": "SUBSCRIBE", "params": ["BTCUSDT@depth"], "id": -(1 << 63)})
            await site.until(lambda: not site.market.streams.waiting - {Stream("no", Kind.TRADE)})
            site.exchange.buy(buyer, 980, 5)
            assert (await frame(socket)).name == "depthDiff"

    run(scene())


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        ("{", 3, "Invalid JSON"),
        ("[" * 60000, 3, "Invalid JSON"),
        ("[]", 2, "an object with id"),
        ('"x"', 2, "an object with id"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1.5}, 2, "an object with id"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": True}, 2, "an object with id"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1 << 63}, 2, "an object with id"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": "x" * 37}, 2, "an object with id"),
        ({"method": "SUBSCRIBE", "params": ["btcusdt@kline_1s"], "id": 1}, 2, "one of trade, bestBidAsk"),
        ({"method": "SUBSCRIBE", "params": [], "id": 1}, 2, "params: must be a list"),
        ({"method": "SUBSCRIBE", "params": "btcusdt@trade", "id": 1}, 2, "params: must be a list"),
        ({"method": "SUBSCRIBE", "params": [1], "id": 1}, 2, "params: must be a list"),
        ({"method": "SUBSCRIBE", "params": ["a@trade", "b@trade", "c@trade"], "id": 1}, 2, "at most 2 streams"),
        ({"method": "UNSUBSCRIBE", "params": ["x"], "id": 1}, 2, "one of trade, bestBidAsk"),
        ({"method": "SET_PROPERTY", "params": ["combined", True], "id": 1}, 2, "must be SUBSCRIBE, UNSUBSCRIBE"),
        ({"id": 1}, 2, "method None"),
    ],
)
def test_a_wrong_request_is_answered_and_the_next_one_works(request_: Any, code: int, says: str) -> None:
    async def scene() -> None:
        async with served(streams_max=2) as site:
            socket = await site.connect("/ws")
            answer = await ask(socket, request_)
            assert (answer["code"], says in answer["msg"]) == (code, True), answer
            assert (await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 2})) == {"result": [], "id": 2}

    run(scene())


def test_too_many_messages_end_the_connection_and_no_other() -> None:
    async def scene() -> None:
        async with served() as site:
            calm, loud = await site.connect("/ws"), await site.connect("/ws")
            for _ in range(12):  # two seconds' worth: whenever a second begins
                await loud.ping()
            assert await ended(loud) == POLICY
            assert (await ask(calm, {"method": "LIST_SUBSCRIPTIONS", "id": 2}))["id"] == 2
            assert site.market.counters()["floods"] == 1

    run(scene())


@pytest.mark.parametrize(("path", "code"), [("/ws", UNSUPPORTED), ("/native?channel=1", UNSUPPORTED)])
def test_binary_from_a_client_is_refused(path: str, code: int) -> None:
    async def scene() -> None:
        async with served() as site:
            socket = await site.connect(path)
            await socket.send_bytes(b"x")
            assert await ended(socket) == code
            socket = await site.connect("/native?channel=1")
            await socket.send_str("x")
            assert await ended(socket) == POLICY

    run(scene())


def test_pings_are_answered_and_who_answers_none_is_dropped() -> None:
    async def scene() -> None:
        async with served(ping_s=0.05, silence_s=0.4, messages_per_s=1000) as site:
            awake = await site.connect("/ws")
            asleep = await site.connect("/ws", autoping=False)
            reading = asyncio.create_task(awake.receive())
            assert await ended(asleep) == POLICY
            await site.until(lambda: time.monotonic() - min(each._began for each in site.market.connections) > 1)
            assert not reading.done()
            await awake.ping(b"mine")
            reading.cancel()

    run(scene())


def test_a_connection_ends_with_its_day() -> None:
    async def scene() -> None:
        async with served(life_s=0.1) as site:
            assert await ended(await site.connect("/native?channel=1")) == GOING_AWAY

    run(scene())


def test_a_server_that_ends_says_so() -> None:
    async def scene() -> None:
        async with served() as site:
            socket = await site.connect("/ws")
            native = await site.connect("/native?channel=1")
            stopping = asyncio.create_task(site.market.stop())
            assert json.loads((await socket.receive(DEADLINE_S)).data)["e"] == "serverShutdown"
            assert await ended(socket) == GOING_AWAY
            assert await ended(native) == GOING_AWAY
            await stopping

    run(scene())


# --- readers that do not read ----------------------------------------------------------------------------------------


class Mute:
    """A WebSocket client that reads nothing: its handshake is made by hand, its buffer is small."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, address: str, path: str) -> Mute:
        host, port = address.removeprefix("http://").split(":")
        raw = sockets.socket()
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"{KEY_HEADER}: {key(subscriber=9)}\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        return cls(reader, writer)


def busy(site: Site, rounds: int) -> Iterator[None]:
    """Trade, in steps: every order is another best price, and is hit."""
    seller, buyer = traders(site.exchange)
    for turn in range(rounds):
        for price in range(900 + turn % 7, 1000):
            site.exchange.buy(buyer, price, 1)
            site.exchange.sell(seller, price, 1)
        site.exchange.buy(buyer, 500 + turn, 1)
        yield


def test_a_stuck_reader_is_cut_and_others_get_everything() -> None:
    async def scene() -> None:
        async with served(queue_bytes=65536) as site:
            mute = await Mute.open(site.address, "/ws/btcusdt@depth/btcusdt@trade")
            socket = await site.connect("/ws/btcusdt@trade")
            await site.until(lambda: not site.market.streams.waiting)
            got = 0

            async def take() -> None:
                nonlocal got
                async for message in socket:
                    got += len(read(message.data).groups["trades"])

            taking = asyncio.create_task(take())
            for _ in busy(site, 100):
                await asyncio.sleep(0.02)
                if site.market.counters()["stuck"]:
                    break
            assert site.market.counters()["stuck"] == 1
            await site.until(lambda: len(site.market.connections) == 1)
            executions = sum(each[2:4] == (21).to_bytes(2, "little") for each in site.feed_site.messages())
            await site.until(lambda: got == executions)
            taking.cancel()
            mute.writer.close()

    run(scene())


def test_best_prices_of_a_slow_reader_are_culled_to_the_newest() -> None:
    async def scene() -> None:
        async with served(queue_bytes=65536) as site:
            mute = await Mute.open(site.address, "/ws/btcusdt@bestBidAsk")
            await site.until(lambda: not site.market.streams.waiting)
            for _ in busy(site, 20):
                await asyncio.sleep(0.002)
            told = site.market.streams.frames
            # More than the system's buffers hold is not needed to cull: frames are offered faster than written.
            assert site.market.counters()["stuck"] == 0
            (connection,) = site.market.connections
            connection._next, later = (lambda: None), connection._next  # type: ignore[method-assign]
            for _ in busy(site, 5):
                await asyncio.sleep(0.002)
            assert site.market.streams.frames > told
            newest = later()
            assert newest is not None
            assert later() is None, "one frame is kept, whatever was offered"
            best = site.market.feed.levels(1, PAIR, wire.Side.BUY, 1)
            assert best is not None
            assert best.levels
            assert read(newest)["bidPrice"] == best.levels[0][0] * PAIR_IS.tick_size
            mute.writer.close()

    run(scene())


@pytest.mark.parametrize(
    ("name", "value"), [("messages_per_s", 0), ("queue_bytes", 1), ("packet_bytes", 65508), ("poll_s", 0)]
)
def test_limits_name_their_field(name: str, value: float) -> None:
    with pytest.raises(GatewayConfigError, match=f"{name} = {value}"):
        WebConfig(**{name: value})  # type: ignore[arg-type]
