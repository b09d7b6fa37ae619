"""Public streams of a whole exchange: local books equal REST while orders come and go, snapshots and resume in the
stream, units of time, slow readers, errors.
"""

import asyncio
import json
import random
import socket
import time
import urllib.request
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from struct import Struct
from typing import Any

import aiohttp
import pytest

from tests.kit.exchange import Exchange
from tests.kit.order_book import OrderBook
from tests.kit.web_client import WebClient

QUIET = ("--quiet-market", "--set", "gateway.feed.enabled=false", "--set", "ledger.enabled=false")
DEADLINE_S = 30.0
ORDERS = 60
LEVEL = Struct("<qq")
TICK, LOT = 100, 100_000  # BTCUSDT: of 10^-2 and 10^-5


class Site:
    def __init__(self, exchange: Exchange) -> None:
        self.base = exchange.ready["web"]["rest"].removesuffix("/api/v3")
        self.socket = exchange.ready["web"]["streams"].removesuffix("/ws")
        self.traders = []
        for _ in range(2):
            account = exchange.command("account", "create", "--fund", "BTC=1000", "--fund", "USDT=100000000")[0]
            key = exchange.command("key", "create", "--account", str(account["account"]), "--kind", "hmac")[0]
            self.traders.append(WebClient(self.base, key))

    def order(self, trader: int, side: str, price: int, quantity: str = "0.1", **more: str) -> Any:
        terms = {"symbol": "BTCUSDT", "side": side, "type": "LIMIT", "timeInForce": "GTC", "price": str(price)}
        answer = self.traders[trader].call("POST", "/api/v3/order", **{**terms, "quantity": quantity, **more})
        assert answer.status == 200, answer.body
        return answer.body

    def churn(self, seed: int, count: int = ORDERS) -> None:
        """Place, cross and cancel."""
        chance, placed = random.Random(seed), []
        for _ in range(count):
            if placed and chance.random() < 0.3:
                trader, order_id = placed.pop(chance.randrange(len(placed)))
                self.traders[trader].call("DELETE", "/api/v3/order", symbol="BTCUSDT", orderId=order_id)
                continue
            trader, side = chance.randrange(2), chance.choice(("BUY", "SELL"))
            body = self.order(trader, side, chance.randint(99_990, 100_010), f"0.{chance.randint(1, 9)}")
            placed.append((trader, body["orderId"]))

    def clear(self) -> None:
        """Leave the book empty."""
        for trader in self.traders:
            trader.call("DELETE", "/api/v3/openOrders", symbol="BTCUSDT")

    def gauge(self, name: str) -> float:
        """Return a number of the worker's metrics."""
        with urllib.request.urlopen(f"{self.base}/metrics", timeout=DEADLINE_S) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"bullring_web_{name}{{")).split()[-1])

    def depth(self) -> dict[str, Any]:
        body = WebClient(self.base).call("GET", "/api/v3/depth", symbol="BTCUSDT", limit=5000).body
        assert isinstance(body, dict)
        return body


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    limits = ("--set", "gateway.web.stream_attempts=0", "--set", "gateway.web.weight_per_minute=0")
    with Exchange(tmp_path_factory.mktemp("streams") / "data", *QUIET, *limits, web=1) as exchange:
        yield Site(exchange)


@asynccontextmanager
async def connected(site: Site, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session, session.ws_connect(site.socket + path) as connection:
        yield connection


async def until(
    connection: aiohttp.ClientWebSocketResponse, done: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Return what comes until a message fits, that one included."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(DEADLINE_S):
        while not found or not done(found[-1]):
            found.append(json.loads((await connection.receive()).data))
    return found


def subscribe(*names: str, **more: Any) -> str:
    return json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1, **more})


class LocalBook:
    """What the procedure of every client library makes of snapshot and diffs."""

    def __init__(self, update_id: int, bids: list[list[str]], asks: list[list[str]]) -> None:
        self.last = update_id
        self.sides = {"b": dict(map(tuple, bids)), "a": dict(map(tuple, asks))}  # type: ignore[arg-type]

    def apply(self, event: dict[str, Any]) -> None:
        assert event["U"] <= self.last + 1 <= event["u"], (self.last, event["U"], event["u"])
        for side, levels in self.sides.items():
            for price, quantity in event[side]:
                if quantity == "0.00000000":
                    levels.pop(price, None)
                else:
                    levels[price] = quantity
        self.last = event["u"]

    def levels(self) -> tuple[list[list[str]], list[list[str]]]:
        bids = sorted(map(list, self.sides["b"].items()), key=lambda level: -float(level[0]))
        return bids, sorted(map(list, self.sides["a"].items()), key=lambda level: float(level[0]))

    def checksum(self) -> int:
        packed = [
            LEVEL.pack(round(float(price) * TICK), round(float(quantity) * LOT))
            for side in self.levels()
            for price, quantity in side[:10]
        ]
        return zlib.crc32(b"".join(packed))


def test_local_book_equals_rest_under_churn(site: Site) -> None:
    async def scenario() -> None:
        async with connected(site, "/ws/btcusdt@depth@100ms") as connection:
            working = asyncio.create_task(asyncio.to_thread(site.churn, 1))
            events = await until(connection, lambda event: True)
            snapshot = await asyncio.to_thread(site.depth)
            assert snapshot["lastUpdateId"] >= events[0]["U"] - 1
            book = LocalBook(snapshot["lastUpdateId"], snapshot["bids"], snapshot["asks"])
            await working
            site.order(0, "BUY", 90_000)
            final = await asyncio.to_thread(site.depth)
            events += await until(connection, lambda event: event["u"] >= final["lastUpdateId"])
            for before, event in pairwise(events):
                assert event["U"] == before["u"] + 1
            for event in events:
                if event["u"] > book.last:
                    book.apply(event)
            assert book.levels() == (final["bids"], final["asks"])

    asyncio.run(scenario())


def test_book_begins_with_its_snapshot_and_checksums_agree(site: Site) -> None:
    async def scenario() -> None:
        async with connected(site, "/ws/btcusdt@book@100ms") as connection:
            [first] = await until(connection, lambda event: event["e"] == "bookSnapshot")
            book = LocalBook(first["u"], first["b"], first["a"])
            assert book.checksum() == first["c"]
            await asyncio.to_thread(site.churn, 2)
            final = await asyncio.to_thread(site.depth)
            for event in await until(connection, lambda event: event["u"] >= final["lastUpdateId"]):
                assert event["U"] == book.last + 1
                book.apply(event)
                assert book.checksum() == event["c"]
            assert book.levels() == (final["bids"], final["asks"])

    asyncio.run(scenario())


def test_depth_resumes_from_an_update_id(site: Site) -> None:
    async def scenario() -> None:
        async with connected(site, "/ws/btcusdt@book@100ms") as connection:
            [first] = await until(connection, lambda event: event["e"] == "bookSnapshot")
        book = LocalBook(first["u"], first["b"], first["a"])
        await asyncio.to_thread(site.churn, 3)
        final = await asyncio.to_thread(site.depth)
        async with connected(site, "/ws") as connection:
            await connection.send_str(subscribe("btcusdt@book@100ms", resume={"btcusdt@book@100ms": book.last}))
            [answer, *events] = await until(connection, lambda event: event.get("u", 0) >= final["lastUpdateId"])
            assert answer == {"result": None, "id": 1}
            for event in events:
                assert event["e"] == "bookUpdate"
                assert event["U"] == book.last + 1
                book.apply(event)
                assert book.checksum() == event["c"]
            assert book.levels() == (final["bids"], final["asks"])
        async with connected(site, "/ws") as connection:  # from what never was: the book is told anew
            await connection.send_str(subscribe("btcusdt@book", resume={"btcusdt@book": 1 << 50}))
            events = await until(connection, lambda event: "e" in event)
            assert events[-1]["e"] == "bookSnapshot"

    asyncio.run(scenario())


def test_book_kept_order_by_order_equals_rest_and_has_the_ids_of_orders(site: Site) -> None:
    async def scenario() -> None:
        async with connected(site, "/ws/btcusdt@l3") as connection:
            book = OrderBook(ticks=TICK, lots=LOT)
            for event in await until(connection, lambda event: event["e"] == "l3Snapshot" and event["n"] == 0):
                book.take(event)
            await asyncio.to_thread(site.churn, 6)
            placed = await asyncio.to_thread(site.order, 0, "BUY", 90_001)
            final = await asyncio.to_thread(site.depth)
            events = await until(connection, lambda event: event["u"] >= final["lastUpdateId"])
            for event in events:
                book.take(event)
            assert book.last == final["lastUpdateId"]
            for side, levels in (("BUY", final["bids"]), ("SELL", final["asks"])):
                assert book.levels(side) == [(round(float(p) * TICK), round(float(q) * LOT)) for p, q in levels]
            assert book.side_of(placed["orderId"]) == "BUY"
            assert {change["x"] for event in events for change in event["o"]} >= {"ADD", "TRADE", "DELETE"}

    asyncio.run(scenario())


def test_order_by_order_stream_resumes_from_an_update_id(site: Site) -> None:
    async def scenario() -> None:
        book = OrderBook(ticks=TICK, lots=LOT)
        async with connected(site, "/ws/btcusdt@l3") as connection:
            for event in await until(connection, lambda event: event["e"] == "l3Snapshot" and event["n"] == 0):
                book.take(event)
        await asyncio.to_thread(site.churn, 7)
        final = await asyncio.to_thread(site.depth)
        async with connected(site, "/stream?timeUnit=MICROSECOND") as connection:
            await connection.send_str(subscribe("btcusdt@l3", resume={"btcusdt@l3": book.last}))
            answer, missed = await until(connection, lambda event: "data" in event)
            assert answer == {"result": None, "id": 1}
            assert missed["data"]["e"] == "l3Update"
            assert missed["data"]["o"][0]["T"] > 10**15
            book.take(missed["data"])
            assert (book.last, len(book.levels("BUY"))) == (final["lastUpdateId"], len(final["bids"]))

    asyncio.run(scenario())


def test_stream_that_is_left_and_taken_again_at_once_is_told_once(site: Site) -> None:
    """Two greetings waited for the same subscriber, and each let it in: everything came twice."""

    async def scenario() -> None:
        async with connected(site, "/ws") as connection:
            for method in ("SUBSCRIBE", "UNSUBSCRIBE", "SUBSCRIBE"):
                await connection.send_str(json.dumps({"method": method, "params": ["btcusdt@l3"], "id": 1}))
            await until(connection, lambda event: event.get("e") == "l3Snapshot" and event["n"] == 0)
            [first, second] = [await asyncio.to_thread(site.order, 0, "BUY", price) for price in (90_002, 90_003)]
            # Where the requests came apart there was a snapshot of the first subscription too.
            events = await until(connection, lambda event: "o" in event and event["o"][-1]["i"] == second["orderId"])
            told = [change["i"] for event in events for change in event.get("o", [])]
            assert told == [first["orderId"], second["orderId"]]

    asyncio.run(scenario())


def test_trades_aggregates_and_candles_are_those_of_rest(site: Site) -> None:
    async def scenario() -> None:
        names = ("btcusdt@trade", "btcusdt@aggTrade", "btcusdt@kline_1d", "btcusdt@miniTicker")
        async with connected(site, f"/stream?streams={'/'.join(names)}") as connection:
            # Candle and statistics are told once they have been read; only then is everything live.
            seen: set[str] = set()
            while not {"btcusdt@kline_1d", "btcusdt@miniTicker"} <= seen:
                seen.add((await until(connection, lambda event: True))[-1]["stream"])
            await asyncio.to_thread(site.clear)
            for price in (100_021, 100_021, 100_022):
                site.order(0, "SELL", price, "0.1")
            taken = site.order(1, "BUY", 100_030, "0.3")
            last = taken["fills"][-1]["tradeId"]

            def told(event: dict[str, Any]) -> bool:
                return event["stream"] == "btcusdt@kline_1d" and event["data"]["k"]["L"] >= last

            events = await until(connection, told)
        by_name: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for event in events:
            by_name[event["stream"]].append(event["data"])
        public = WebClient(site.base)
        trades = public.call("GET", "/api/v3/trades", symbol="BTCUSDT", limit=3).body
        told_trades = [(each["t"], each["p"], each["q"], each["T"], each["m"]) for each in by_name["btcusdt@trade"]]
        assert told_trades[-3:] == [
            (each["id"], each["price"], each["qty"], each["time"], each["isBuyerMaker"]) for each in trades
        ]
        aggregates = public.call("GET", "/api/v3/aggTrades", symbol="BTCUSDT", limit=2).body
        told_aggregates = by_name["btcusdt@aggTrade"][-2:]
        assert [{name: each[name] for name in "apqflTmM"} for each in told_aggregates] == aggregates
        [candle] = public.call("GET", "/api/v3/klines", symbol="BTCUSDT", interval="1d", limit=1).body
        told_candle = by_name["btcusdt@kline_1d"][-1]["k"]
        assert [told_candle[name] for name in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q")] == candle[:11]

    asyncio.run(scenario())


def test_pair_that_has_never_traded_has_no_candles(site: Site) -> None:
    """They came with a price of zero, which a client library took for one."""

    async def scenario() -> None:
        site.order(0, "SELL", 100_004)
        site.order(1, "BUY", 100_004)
        async with connected(site, "/stream?streams=ethbtc@kline_1s/btcusdt@kline_1s") as connection:
            events, ended = [], 0
            while ended < 4:
                events += await until(connection, lambda event: True)
                ended += events[-1]["data"]["k"]["x"]
            assert {event["stream"] for event in events} == {"btcusdt@kline_1s"}

    asyncio.run(scenario())


def test_times_are_in_microseconds_where_asked_for(site: Site) -> None:
    async def scenario() -> None:
        async with (
            connected(site, "/ws/btcusdt@trade?timeUnit=MICROSECOND") as fine,
            connected(site, "/ws/btcusdt@trade?timeUnit=millisecond") as plain,
        ):
            await asyncio.to_thread(site.clear)
            site.order(0, "SELL", 100_001)
            site.order(1, "BUY", 100_001, "0.1")
            [event, other] = [(await until(each, lambda _: True))[0] for each in (fine, plain)]
            assert event["t"] == other["t"]
            assert event["T"] // 1000 == other["T"]
        async with aiohttp.ClientSession() as session:
            answer = await session.get(f"{site.base}/ws/btcusdt@trade?timeUnit=HOURS")
            assert (answer.status, (await answer.json())["code"]) == (400, -1194)

    asyncio.run(scenario())


def test_requests_are_answered_and_wrong_ones_say_why(site: Site) -> None:
    cases = [
        ('{"method":"SUBSCRIBE","params":["btcusdt@trade","ETHUSDT@depth"],"id":7}', {"result": None, "id": 7}),
        ('{"method":"LIST_SUBSCRIPTIONS","id":"a"}', {"result": ["btcusdt@trade", "ethusdt@depth"], "id": "a"}),
        ('{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":null}', {"result": None, "id": None}),
        ('{"method":"SET_PROPERTY","params":["combined",true],"id":1}', {"result": None, "id": 1}),
        ('{"method":"GET_PROPERTY","params":["combined"],"id":1}', {"result": True, "id": 1}),
        ('{"method":"GET_PROPERTY","params":["colour"],"id":1}', (0, "Unknown property")),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":1}', (1, "expected Boolean")),
        ('{"method":"SUBSCRIBE","params":["btcusdt@weather"],"id":1}', (2, "no stream is called 'btcusdt@weather'")),
        ('{"method":"SUBSCRIBE","params":"btcusdt@trade","id":1}', (2, "params must be a list")),
        ('{"method":"FLY","id":1}', (2, "method must be one of")),
        ('{"method":"LIST_SUBSCRIPTIONS","id":1.5}', (2, "id must be")),
        ('{"method":', (3, "Invalid JSON")),
        ("[]", (2, "it must be an object")),
    ]

    async def scenario() -> None:
        for at in range(0, len(cases), 5):  # five messages a second are allowed
            async with connected(site, "/ws/0") as connection:
                for text, wanted in cases[at : at + 5]:
                    await connection.send_str(text)
                    [answer] = await until(connection, lambda _: True)
                    if isinstance(wanted, dict):
                        assert answer == wanted
                    else:
                        assert answer["code"] == wanted[0]
                        assert wanted[1] in answer["msg"]

    asyncio.run(scenario())


def test_flood_of_requests_ends_the_connection(site: Site) -> None:
    async def scenario() -> None:
        async with connected(site, "/ws") as connection:
            for _ in range(30):
                await connection.send_str('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            async with asyncio.timeout(DEADLINE_S):
                while (await connection.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
            assert connection.close_code == 1008

    asyncio.run(scenario())


def test_reader_that_stops_reading_is_behind_and_the_others_miss_nothing(site: Site) -> None:
    """By hand, with a small window: the kernel must not take everything for it. Its end: streams/test_fanout.py."""

    async def scenario() -> None:
        host, port = site.socket.removeprefix("ws://").rsplit(":", 1)
        dead = socket.socket()
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        dead.connect((host, int(port)))
        names = "/".join(f"btcusdt@{kind}" for kind in ("trade", "book@100ms", "depth20@100ms", "bookTicker"))
        head = (
            f"GET /stream?streams={names} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        dead.sendall(head.encode())
        async with connected(site, "/ws/btcusdt@book@100ms") as connection:
            [first] = await until(connection, lambda event: event["e"] == "bookSnapshot")
            book = LocalBook(first["u"], first["b"], first["a"])
            end = time.monotonic() + DEADLINE_S
            while site.gauge("stream_behind") == 0:
                assert time.monotonic() < end, "the kernel took everything for the silent reader"
                await asyncio.to_thread(site.churn, 5)
            final = await asyncio.to_thread(site.depth)
            for event in await until(connection, lambda event: event["u"] >= final["lastUpdateId"]):
                assert event["U"] == book.last + 1
                book.apply(event)
            assert book.levels() == (final["bids"], final["asks"])
        assert site.gauge("stream_behind") >= 1
        dead.close()

    asyncio.run(scenario())


def test_ping_is_answered(site: Site) -> None:
    async def scenario() -> None:
        url = f"{site.socket}/ws"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, autoping=False) as client:
            await client.ping(b"hello")
            message = await client.receive(timeout=DEADLINE_S)
            assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"hello")

    asyncio.run(scenario())


def test_rest_depth_has_the_order_that_was_just_placed(site: Site) -> None:
    for price in range(91_000, 91_020):
        site.order(0, "BUY", price)
        end = time.monotonic() + DEADLINE_S
        while not any(float(level[0]) == price for level in site.depth()["bids"]):
            assert time.monotonic() < end
