"""The market feed of a real exchange: watched, recorded, killed, reopened; its data lost and made again."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.clients import (
    BullringClient,
    Line,
    MarketFeed,
    OrderBook,
    Report,
    Servers,
    load_definitions,
    load_signer,
)
from ringbuf.wire.market_codec import decode_market
from ringbuf.wire.messages import OrderCanceled, Side
from tests.kit import eventually
from tests.kit.exchange import Exchange, bullring
from tests.kit.feed_site import MARKET_SLOT_SIZE, Packet
from tests.kit.flow_sample import SAMPLE
from tests.kit.sbe_stream import read
from tests.unit.gateway.test_market_client import free_port
from tests.unit.gateway.test_recorder import read_pcap, table

DEADLINE_S = 60.0
OFF = "gateway.feed.enabled=false"
BITSTAMP = Path("data/l3/bitstamp_btcusd_20260502_a")


def node_facts(exchange: Exchange) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((exchange.data / "run" / "node.json").read_text())
    return facts


def servers(exchange: Exchange) -> Servers:
    ports = node_facts(exchange)["feed_ports"]
    return Servers("127.0.0.1", ports["listen_replay"], ports["listen_snapshot"], ports["listen_rerequest"])


def login(exchange: Exchange) -> dict[str, str]:
    (token,) = exchange.command("feed", "token", "5")
    return {"user": token["user"], "password": token["password"]}


class Reader:
    """Reads a feed's events all the time."""

    def __init__(self, feed: MarketFeed) -> None:
        self.feed = feed
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for _ in self.feed.events():
            pass

    async def digests(self, more: int) -> None:
        """Wait until so many more digests have agreed and nothing is missing."""
        end, wanted = time.monotonic() + DEADLINE_S, self._agreed() + more
        while self._agreed() < wanted or not self.feed.ready:
            if self._task.done():
                self._task.result()
            assert time.monotonic() < end, f"{self._agreed()} of {wanted} digests: {self._state()}"
            await asyncio.sleep(0.02)

    def _state(self) -> str:
        feed = self.feed
        place = f"at {feed.next_number} of {feed.arbiter.end}, ready {feed.ready}, live {feed.live}"
        return f"{place}, {feed.snapshots} snapshots, {feed.replays} replays, {feed.arbiter.requests} requests"

    def _agreed(self) -> int:
        return sum(book.digests for book in self.feed.books.values())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


@pytest.mark.slow
def test_the_feed_of_a_running_exchange_through_kill_and_restart(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    lines = [
        "--set",
        f'gateway.feed.line_a=["all@127.0.0.1:{ports[0]}"]',
        "--set",
        f'gateway.feed.line_b=["all@127.0.0.1:{ports[1]}"]',
        "--set",
        "gateway.feed.end_session_on_stop=true",
    ]
    with Exchange(tmp_path / "data", *lines) as exchange:

        async def scene() -> None:
            who = login(exchange)
            found = await load_definitions(servers(exchange), **who)
            assert {each.symbol for each in found.values()} == set(exchange.ready["pairs"])
            partition = next(each.partition for each in found.values() if each.symbol == "BTC-USDT")
            receivers = [Line("127.0.0.1", port) for port in ports]
            async with MarketFeed(partition, servers(exchange), **who, lines=receivers) as feed:
                reader = Reader(feed)
                await reader.digests(4)
                assert feed.live
                pid = exchange.pid("feed")
                os.kill(pid, signal.SIGKILL)
                await reader.digests(8)
                assert exchange.pid("feed") != pid
                # A death of the core makes new rings of the same history.
                os.kill(exchange.pid("fused"), signal.SIGKILL)
                await reader.digests(8)
                assert feed.mismatches == 0
                assert feed.snapshots == 1, "numbers went on where they were"
                await reader.stop()

        asyncio.run(scene())
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        listener.bind(("127.0.0.1", ports[1]))
    listener.setblocking(False)
    heard: dict[str, list[Packet]] = {}
    with contextlib.suppress(BlockingIOError):
        while True:
            packet = Packet.parse(listener.recv(65536))
            heard.setdefault(packet.session[:5], []).append(packet)
    listener.close()
    assert set(heard) == {"BR001", "BR002", "BR101", "BR102", "BR900"}
    for packets in heard.values():
        assert [each.count for each in packets[-5:]] == [0xFFFF] * 5, "nothing comes after the end"
        assert {each.number for each in packets[-5:]} == {max(each.number + each.count for each in packets[:-5])}


def two_sided(views: list[Any]) -> Any:
    """Return the first view that has both sides, None if there is none."""
    return next((view for view in views if view["bids"] and view["asks"]), None)


@pytest.mark.slow
def test_watch_and_record_show_what_the_exchange_does(tmp_path: Path) -> None:
    with Exchange(tmp_path / "data") as exchange:
        pcap, parquet = tmp_path / "x.pcap", tmp_path / "x.parquet"
        (facts,) = exchange.command(
            "feed", "record", "--pcap", str(pcap), "--parquet", str(parquet), "--channel", "1", "--from", "1",
            "--messages", "500",
        )  # fmt: skip

        # Makers that get no turn on a busy machine leave a side empty now and then.
        watch = ("feed", "watch", "BTC-USDT", "--seconds", "2.5")
        view = eventually(lambda: two_sided(exchange.command(*watch)), deadline_s=60)
        assert view["status"] == "continuous"
        assert Decimal(view["bids"][0][0]) < Decimal(view["asks"][0][0])
        assert facts["messages"] >= 500
        packets = [Packet.parse(data) for _, data in read_pcap(pcap)]
        messages = [message for packet in packets for message in packet.messages]
        assert packets[0].number == 1
        assert len(messages) == facts["messages"]
        rows = table(parquet)
        assert [row["number"] for row in rows] == list(range(1, len(messages) + 1))
        books: dict[int, OrderBook] = {}
        for message in messages:
            decoded: Any = decode_market(message)
            books.setdefault(decoded.instrument_id, OrderBook(decoded.instrument_id)).apply(decoded)
        assert any(book.orders for book in books.values())
        done = bullring("feed", "watch", "NO-SUCH", "--data", str(exchange.data))
        assert (done.returncode, "no instrument NO-SUCH; there are: BTC-USDT" in done.stderr) == (65, True)
        done = bullring("feed", "watch", "BTC-USDT", "--data", str(exchange.data), "--user", "AAAAAA")
        assert (done.returncode, "the feed refused the login: not authorized" in done.stderr) == (76, True)


@pytest.mark.slow
def test_websockets_of_a_running_exchange(tmp_path: Path) -> None:
    with Exchange(tmp_path / "data", "--set", 'gateway.feed.listen_web="127.0.0.1:0"') as exchange:

        async def scene() -> None:
            who = login(exchange)
            headers = {"X-MBX-APIKEY": who["user"] + who["password"]}
            url = f"http://127.0.0.1:{node_facts(exchange)['feed_ports']['listen_web']}"
            async with aiohttp.ClientSession(headers=headers) as client:
                async with client.ws_connect(f"{url}/ws/btcusdt@depth20/btcusdt@bestBidAsk") as streams:
                    seen = set()
                    while seen < {"depthSnapshot", "bestBidAsk"}:
                        frame = read(await streams.receive_bytes(timeout=DEADLINE_S))
                        assert frame.symbol == "BTCUSDT"
                        seen.add(frame.name)
                books: dict[int, OrderBook] = {}
                async with client.ws_connect(f"{url}/native?channel=1&number=1") as native:
                    while not sum(book.digests for book in books.values()) > 3:
                        packet = Packet.parse(await native.receive_bytes(timeout=DEADLINE_S))
                        for message in packet.messages:
                            decoded: Any = decode_market(message)
                            books.setdefault(decoded.instrument_id, OrderBook(decoded.instrument_id)).apply(decoded)
                    os.kill(exchange.pid("feed-web"), signal.SIGKILL)
                    while (await native.receive(DEADLINE_S)).type == aiohttp.WSMsgType.BINARY:
                        pass

                async def again() -> int:
                    session = packet.session
                    path = f"{url}/native?channel=1&number={packet.number}&session={session}"
                    async with client.ws_connect(path) as native:
                        return Packet.parse(await native.receive_bytes(timeout=DEADLINE_S)).number

                end = time.monotonic() + DEADLINE_S
                while True:
                    try:
                        assert await again() == packet.number
                        break
                    except aiohttp.ClientError:
                        assert time.monotonic() < end
                        await asyncio.sleep(0.1)

        asyncio.run(scene())


@pytest.fixture(params=["sample", "bitstamp"])
def recorded(request: pytest.FixtureRequest) -> Path:
    """A folder of recorded order flow."""
    if request.param == "sample":
        return SAMPLE
    folder: Path = request.getfixturevalue("shared_data") / BITSTAMP
    if not folder.is_dir():
        pytest.skip(f"the recorded set {BITSTAMP} is not in the shared data")
    return folder


@pytest.mark.slow
def test_recorded_flow_is_followed_by_udp(tmp_path: Path, recorded: Path) -> None:
    """Every digest of a client that sees only the feed agrees, and it has every event."""
    port = free_port()
    line = f'gateway.feed.line_a=["full@127.0.0.1:{port}"]'
    with Exchange(tmp_path / "data", "--quiet-market", "--set", line) as exchange:

        async def scene() -> None:
            receivers = [Line("127.0.0.1", port)]
            async with MarketFeed(1, servers(exchange), **login(exchange), lines=receivers) as feed:
                reader = Reader(feed)
                done = await asyncio.to_thread(
                    bullring, "replay-flow", str(recorded), "--data", str(exchange.data), "--json", timeout_s=300
                )
                assert done.returncode == 0, done.stderr
                await many_orders(exchange, 200)
                await reader.digests(1)
                archive = exchange.data / "journal" / "market" / "1"
                end = time.monotonic() + DEADLINE_S
                while feed.next_number != archive.stat().st_size // MARKET_SLOT_SIZE + 1:
                    assert time.monotonic() < end
                    await asyncio.sleep(0.05)
                assert feed.next_number > 1000
                assert feed.live
                assert (feed.mismatches, feed.snapshots) == (0, 1)
                await reader.stop()

        asyncio.run(scene())


async def many_orders(exchange: Exchange, count: int) -> None:
    """Place and cancel orders until partition 1 has had at least `count` events."""
    you = exchange.ready["accounts"]["you"]
    signer = load_signer(Path(you["key_file"]), you["key_id"])
    async with BullringClient([exchange.address], session_id=you["session"], signer=signer) as client:
        for turn in range(count // 2 // 100):
            for order in range(turn * 100, turn * 100 + 100):
                price = 9_500_000 + order % 1000
                client.new_order(instrument_id=1, side=Side.BUY, quantity=100, price=price, cl_ord_id=order + 1)
                client.cancel(instrument_id=1, orig_cl_ord_id=order + 1)
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            canceled = 0
            async for report in client.reports():
                canceled += isinstance(report.message, OrderCanceled) if isinstance(report, Report) else 0
                if canceled == count // 2:
                    return


@pytest.mark.slow
def test_market_data_that_ring_and_archive_have_lost_is_made_again(tmp_path: Path) -> None:
    with Exchange(tmp_path / "data", "--quiet-market", "--set", "rings.market_slots=4096") as exchange:

        async def scene() -> None:
            who = login(exchange)
            await many_orders(exchange, 12_000)
            archive = exchange.data / "journal" / "market" / "1"
            eventually(lambda: archive.stat().st_size >= 12_000 * 64)
            whole = archive.read_bytes()
            with archive.open("r+b") as file:
                file.seek(64 * 100)
                file.write(bytes(64 * 200))
            os.kill(exchange.pid("feed"), signal.SIGKILL)
            async with MarketFeed(1, servers(exchange), **who) as feed:
                reader = Reader(feed)
                await many_orders(exchange, 200)
                await reader.digests(1)
                assert feed.mismatches == 0
                await reader.stop()
            assert archive.read_bytes()[: len(whole)] == whole

        asyncio.run(scene())
        said = (exchange.data / "logs" / "feed.log").read_text()
        assert "slot 100 of market ring 1 is missing; making it again from the journal" in said
        assert "200 slots were missing and are there again" in said


def test_an_exchange_without_feed_says_so(tmp_path: Path) -> None:
    with Exchange(tmp_path / "data", "--quiet-market", "--set", OFF) as exchange:
        done = bullring("feed", "watch", "BTC-USDT", "--data", str(exchange.data))

        assert done.returncode == 69
        assert "runs without a market feed" in done.stderr


def test_a_token_is_refused_beyond_its_limits(tmp_path: Path) -> None:
    (tmp_path / "feed.key").write_bytes(bytes(32))

    done = bullring("feed", "token", str(1 << 25), "--data", str(tmp_path))
    assert (done.returncode, "subscriber = 33554432: must be 0 to 33554431" in done.stderr) == (2, True)
    assert bullring("feed", "token", "1", "--days", "-1", "--data", str(tmp_path)).returncode == 2
    assert bullring("feed", "token", "1", "--data", str(tmp_path / "none")).returncode == 66
    assert json.loads(bullring("feed", "token", "1", "--json", "--data", str(tmp_path)).stdout)["grant"] == "all"
