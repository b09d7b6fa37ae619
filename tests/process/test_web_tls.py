"""The web gateway over TLS, and how things end: events no longer kept, listen keys, slow readers, a shutdown."""

import asyncio
import contextlib
import json
import sqlite3
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.kit import eventually
from tests.kit.certificate import make_certificate
from tests.kit.exchange import Exchange
from tests.kit.order_book import OrderBook
from tests.process.test_web_rest import QUIET, Site, limit, make_site

WAIT_S = 60.0
EVENTS_MAX = 1000
TICK, LOT = 100, 100_000  # BTCUSDT: of 10^-2 and 10^-5
SLOW_STREAMS, SLOW_REQUESTS = 1000, 200


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder)
    settings = {
        "tls_certificate": f'"{certificate}"', "tls_key": f'"{key}"', "events_max": str(EVENTS_MAX),
        "stream_messages_per_s": "0", "stream_queue_bytes": "65536", "weight_per_minute": "0",
        "orders_per_10_seconds": "0",
    }  # fmt: skip
    flags = [part for name, value in settings.items() for part in ("--set", f"gateway.web.{name}={value}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))  # for the clients of this process
        with Exchange(folder / "data", *QUIET, *flags, web=1) as exchange:
            yield make_site(exchange)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, ssl=ssl.create_default_context(), max_msg_size=0) as connection,
    ):
        yield connection


async def received(connection: aiohttp.ClientWebSocketResponse) -> Any:
    message = await connection.receive(WAIT_S)
    assert message.type is aiohttp.WSMsgType.TEXT, message
    return json.loads(message.data)


def streams(site: Site, path: str) -> str:
    return str(site.exchange.ready["web"]["streams"]).removesuffix("/ws") + path


def test_addresses_are_those_of_tls_and_plain_text_gets_nothing(site: Site) -> None:
    urls = site.exchange.ready["web"]
    assert urls["rest"].startswith("https://") and urls["streams"].startswith("wss://")

    async def plain() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(urls["rest"].replace("https", "http", 1) + "/ping")

    asyncio.run(plain())


def test_book_of_an_encrypted_stream_is_the_one_of_rest(site: Site) -> None:
    async def scenario() -> None:
        async with connected(streams(site, "/ws/btcusdt@l3")) as connection:
            book = OrderBook(ticks=TICK, lots=LOT)
            while not book.whole:
                book.take(await received(connection))
            for at in range(30):
                site.anna.call("POST", "/api/v3/order", **limit("BUY", str(95_000 + at), "0.1"))
            site.ben.call("POST", "/api/v3/order", **limit("SELL", "95020", "0.55"))
            depth = site.anna.call("GET", "/api/v3/depth", symbol="BTCUSDT", limit=5000).body
            while book.last < depth["lastUpdateId"]:
                book.take(await received(connection))
            assert book.levels("BUY") == [(round(float(p) * TICK), round(float(q) * LOT)) for p, q in depth["bids"]]

    asyncio.run(scenario())
    site.anna.call("DELETE", "/api/v3/allOpenOrders")


def test_slow_reader_over_tls_is_ended_and_others_are_served(site: Site) -> None:
    def closed() -> float:
        url = f"{site.base}/metrics"
        context = ssl.create_default_context()
        with urllib.request.urlopen(url, context=context) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith("bullring_web_stream_slow_closed{")).split()[-1])

    async def scenario() -> None:
        names = [f"aa{at}@trade" for at in range(SLOW_STREAMS)]  # no such pairs: only the list of them is long
        async with connected(streams(site, "/ws")) as slow, connected(streams(site, "/ws/btcusdt@trade")) as other:
            await slow.send_json({"method": "SUBSCRIBE", "params": names, "id": 1})
            assert (await received(slow))["id"] == 1
            before = await asyncio.to_thread(closed)
            transport: Any = slow._response.connection.transport  # type: ignore[union-attr]
            transport.pause_reading()
            with contextlib.suppress(ConnectionError):
                for at in range(SLOW_REQUESTS):
                    await slow.send_json({"method": "LIST_SUBSCRIPTIONS", "id": at})
            assert await asyncio.to_thread(eventually, lambda: closed() > before, deadline_s=WAIT_S)
            await asyncio.to_thread(site.anna.call, "POST", "/api/v3/order", **limit("BUY", "95000", "0.1"))
            await asyncio.to_thread(site.ben.call, "POST", "/api/v3/order", **limit("SELL", "95000", "0.1"))
            assert (await received(other))["p"] == "95000.00000000"

    asyncio.run(scenario())


def test_events_that_are_no_longer_kept_are_refused_by_name_over_the_socket(site: Site) -> None:
    orders = [limit("BUY", str(80_000 + at), "0.001") for at in range(20)]
    for _ in range(EVENTS_MAX // 40 + 5):
        assert len(site.anna.call("POST", "/api/v3/batchOrders", batchOrders=json.dumps(orders)).body) == 20
        site.anna.call("DELETE", "/api/v3/allOpenOrders")

    async def resumed(after: dict[str, int]) -> Any:
        async with connected(site.exchange.ready["web"]["ws_api"]) as socket:
            params = site.anna.socket_params(after=json.dumps(after))
            await socket.send_json({"id": 1, "method": "userDataStream.subscribe.signature", "params": params})
            while (answer := await received(socket)).get("id") != 1:
                pass
            return answer

    def refused() -> Any:
        answer = asyncio.run(resumed({"1": 0}))
        return answer.get("error")

    error = eventually(refused, deadline_s=WAIT_S)  # history forgets every ten seconds
    assert error["code"] == -2042
    assert error["details"]["from"] == 1 and error["details"]["firstKept"] > 1
    kept = site.anna.call("GET", "/api/v3/account/events", after='{"1":0}').body
    assert kept["lost"]["1"][0] == 1
    assert asyncio.run(resumed(kept["vector"]))["status"] == 200


def test_listen_key_whose_time_is_over_says_so_and_ends(site: Site) -> None:
    made = site.anna.raw("POST", "/api/v3/userDataStream").body["listenKey"]

    async def scenario() -> None:
        async with connected(streams(site, f"/ws/{made}")) as socket:
            with sqlite3.connect(site.exchange.data / "web" / "listen_keys.db", timeout=30) as keys:
                keys.execute("UPDATE listen_keys SET expires_s = 1")
            keys.close()
            # It is looked at with the next event, or after twenty seconds.
            await asyncio.to_thread(site.anna.call, "POST", "/api/v3/order", **limit("BUY", "80000", "0.001"))
            told = [await received(socket)]
            while told[-1]["e"] != "listenKeyExpired":
                told.append(await received(socket))
            assert told[-1]["listenKey"] == made
            message = await socket.receive(WAIT_S)
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)

    asyncio.run(scenario())
    site.anna.call("DELETE", "/api/v3/allOpenOrders")


def test_shutdown_is_told_on_every_kind_of_connection(site: Site) -> None:
    """The last one: it stops the exchange."""
    made = site.anna.raw("POST", "/api/v3/userDataStream").body["listenKey"]
    urls = [streams(site, "/ws/btcusdt@trade"), streams(site, "/stream?streams=btcusdt@trade"),
            site.exchange.ready["web"]["ws_api"], streams(site, f"/ws/{made}")]  # fmt: skip

    async def last_words(url: str, ready: asyncio.Semaphore) -> tuple[dict[str, Any], int | None]:
        async with connected(url) as socket:
            ready.release()
            told = await received(socket)
            while (message := await socket.receive(WAIT_S)).type is aiohttp.WSMsgType.TEXT:
                pass
            # The frame's own code: close_code is 1006 where the answer to it finds nobody any more.
            return told, message.data if message.type is aiohttp.WSMsgType.CLOSE else None

    async def scenario() -> list[tuple[dict[str, Any], int | None]]:
        ready = asyncio.Semaphore(0)
        waiting = [asyncio.create_task(last_words(url, ready)) for url in urls]
        for _ in urls:
            await ready.acquire()
        assert await asyncio.to_thread(site.exchange.stop) == 0
        return await asyncio.gather(*waiting)

    (bare, *_), (wrapped, *_), (api, *_), (key, *_) = found = asyncio.run(scenario())

    assert bare["e"] == api["event"]["e"] == key["e"] == "serverShutdown"
    assert (wrapped["stream"], wrapped["data"]["e"]) == ("!serverShutdown", "serverShutdown")
    assert [code for _, code in found] == [1001] * 4
