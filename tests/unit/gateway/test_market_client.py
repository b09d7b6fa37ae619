"""The Python client of the feed: order of messages, books, and a whole market through a bad network."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.clients import BookMismatch, Line, MarketFeed, OrderBook, Servers, SoupRefused, load_definitions
from gateway.clients.python.arbiter import MOLD_HEADER, Arbiter, MalformedPacket, NewSession
from gateway.marketdata.tokens import Entitlement
from ringbuf.wire import messages as wire
from ringbuf.wire.market_codec import decode_market
from ringbuf.wire.market_messages import BookDigest, InstrumentDefinition, OrderAdd, OrderExecute, SystemEvent
from ringbuf.wire.messages import Side
from tests.kit.composed_exchange import PAIR
from tests.kit.feed_site import FeedSite, config, flow, token, traders

SESSION = b"BR001TEST1"
DEADLINE_S = 60.0


def packet(first: int, *messages: bytes, session: bytes = SESSION, count: int | None = None) -> bytes:
    body = b"".join(len(message).to_bytes(2, "big") + message for message in messages)
    return MOLD_HEADER.pack(session, first, len(messages) if count is None else count) + body


def numbered(first: int, count: int) -> bytes:
    return packet(first, *(str(number).encode() for number in range(first, first + count)))


# --- order ------------------------------------------------------------------------------------------------------------


def test_every_message_comes_once_and_in_order() -> None:
    chance = random.Random(1)
    arbiter, found, now = Arbiter(1, next_number=1), [], 0.0
    packets = [numbered(first, 1 + chance.randrange(4)) for first in range(1, 4000)]  # each overlaps those behind it
    for start in range(0, len(packets), 8):
        batch = packets[start : start + 8] * 2
        chance.shuffle(batch)
        for data in batch[:12]:
            now += 0.001
            found += list(arbiter.packet(data, now))
    while arbiter.missing and (request := arbiter.request(now := now + 1)):
        _, first, count = MOLD_HEADER.unpack(request)
        found += list(arbiter.packet(numbered(first, min(count, 3)), now))

    assert found == [(number, str(number).encode()) for number in range(1, arbiter.end)]
    assert arbiter.end > 4000
    assert arbiter.duplicates > 100


def test_what_is_missing_is_asked_for_after_a_moment_and_not_for_ever() -> None:
    arbiter = Arbiter(1, next_number=5)
    assert list(arbiter.packet(numbered(9, 2), 0.0)) == []
    assert arbiter.missing == 6
    assert arbiter.request(0.0001) is None, "the other line may bring it"

    assert arbiter.request(0.01) == MOLD_HEADER.pack(SESSION, 5, 4)
    assert arbiter.request(0.011) is None
    asked = sum(arbiter.request(0.1 * turn) is not None for turn in range(1, 100))

    assert asked == 9
    assert arbiter.lost(11.0)
    assert [number for number, _ in arbiter.packet(numbered(5, 4), 11.0)] == [5, 6, 7, 8, 9, 10]
    assert not arbiter.missing
    assert not arbiter.lost(12.0)


def test_a_heartbeat_tells_of_what_was_lost_at_the_end() -> None:
    arbiter = Arbiter(1, next_number=1)
    list(arbiter.packet(numbered(1, 3), 0.0))
    list(arbiter.packet(packet(6), 0.0))

    assert arbiter.missing == 2


def test_everything_is_held_until_it_is_known_where_to_begin() -> None:
    arbiter = Arbiter(1)
    assert list(arbiter.packet(numbered(10, 5), 0.0)) == []

    assert [number for number, _ in arbiter.resume(12, 0.0)] == [12, 13, 14]


def test_sessions_are_told_apart() -> None:
    arbiter = Arbiter(1, next_number=1)
    assert list(arbiter.packet(packet(1, b"x", session=b"BR002TEST1"), 0.0)) == []
    assert len(list(arbiter.packet(packet(1, b"x"), 0.0))) == 1
    assert list(arbiter.packet(packet(9, session=b"BR001OLD00", count=0xFFFF), 0.0)) == []
    with pytest.raises(NewSession, match="BR001NEW00"):
        list(arbiter.packet(packet(1, b"x", session=b"BR001NEW00"), 0.0))
    list(arbiter.packet(packet(2, count=0xFFFF), 0.0))
    assert arbiter.ended


@pytest.mark.parametrize("data", [b"", SESSION, packet(1, b"abc")[:-1], packet(1, b"abc", count=2), packet(1, count=1)])
def test_a_damaged_packet_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        list(Arbiter(1, next_number=1).packet(data, 0.0))


# --- books ------------------------------------------------------------------------------------------------------------


def test_a_book_built_from_messages_is_the_exchanges() -> None:
    with FeedSite(lines=0) as site:
        book, seen = OrderBook(PAIR), 0
        for _ in flow(site.exchange, *traders(site.exchange), 800):
            messages = site.messages()
            for data in messages[seen:]:
                book.apply(decode_market(data))
            seen = len(messages)
            assert not book.event_open
        bids, asks = site.exchange.engine.book(PAIR)

        assert [(each.order_id, each.price, each.quantity) for each in book.queue(Side.BUY)] == bids
        assert [(each.order_id, each.price, each.quantity) for each in book.queue(Side.SELL)] == asks
        assert book.digest.to_bytes(16, "little") == site.exchange.engine.matchers[0].book_hash(PAIR)
        best = book.best(Side.BUY)
        assert best is not None
        assert best.price == bids[0][1]
        assert sum(level.orders for level in book.levels(Side.SELL)) == len(asks)


def test_a_message_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    book = OrderBook(1)
    book.apply(OrderAdd(order_id=1, price=10, qty=5, instrument_id=1, side=Side.BUY))
    digest = book.digest
    for wrong in (
        OrderAdd(order_id=1, price=10, qty=5, instrument_id=1, side=Side.BUY),
        OrderAdd(order_id=2, price=10, qty=0, instrument_id=1, side=Side.BUY),
        OrderExecute(order_id=1, last_qty=6, instrument_id=1, side=Side.BUY),
        OrderExecute(order_id=1, last_qty=1, instrument_id=1, side=Side.SELL),
        OrderExecute(order_id=7, last_qty=1, instrument_id=1, side=Side.BUY),
        BookDigest(digest_low=1, instrument_id=1, order_count=1),
    ):
        with pytest.raises(BookMismatch):
            book.apply(wrong)
    assert book.digest == digest


# --- a whole market ---------------------------------------------------------------------------------------------------


class BadNetwork:
    """Between the feed's destinations and a client's lines: loses, repeats and delays datagrams."""

    def __init__(self, site: FeedSite, chance: random.Random) -> None:
        self.site, self.chance = site, chance
        self.ports = [free_port(), free_port()]
        self.dead = [False, False]
        self.lose = self.repeat = self.delay = 0.0
        self.lost = 0
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._held: list[tuple[int, bytes]] = []

    def pump(self) -> None:
        for line, receiver in enumerate(self.site.lines):
            receiver.drain()
            for data in receiver.raw:
                if self.dead[line] or self.chance.random() < self.lose:
                    self.lost += 1
                elif self.chance.random() < self.delay:
                    self._held.append((line, data))
                else:
                    for _ in range(1 + (self.chance.random() < self.repeat)):
                        self._out.sendto(data, ("127.0.0.1", self.ports[line]))
            receiver.raw.clear()
        self.chance.shuffle(self._held)
        while len(self._held) > 8:
            line, data = self._held.pop()
            self._out.sendto(data, ("127.0.0.1", self.ports[line]))

    def close(self) -> None:
        self._out.close()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Market:
    """A site that is polled, a network, a client whose events are read."""

    def __init__(self, site: FeedSite, seed: int = 1) -> None:
        self.site = site
        self.network = BadNetwork(site, random.Random(seed))
        self.traders = traders(site.exchange)
        replay, snapshot = site.feed.listen_replay("127.0.0.1", 0), site.feed.listen_snapshot("127.0.0.1", 0)
        self.servers = Servers("127.0.0.1", replay, snapshot, site.feed.listen_rerequest("127.0.0.1", 0))
        self.lines = [Line("127.0.0.1", port) for port in self.network.ports]
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        while True:
            assert self.site.feed.poll() >= 0, self.site.feed.error
            self.network.pump()
            await asyncio.sleep(0)

    async def read(self, client: MarketFeed) -> None:
        async for _ in client.events():
            pass

    @contextlib.asynccontextmanager
    async def client(self, *, lines: bool = True) -> AsyncIterator[MarketFeed]:
        who = token()
        client = MarketFeed(1, self.servers, user=who.user, password=who.password, lines=self.lines if lines else ())
        async with client:
            tasks = [asyncio.create_task(self.run()), asyncio.create_task(self.read(client))]
            self._tasks = tasks
            try:
                yield client
            finally:
                for task in tasks:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        self.network.close()

    async def trade(self, count: int, seed: int) -> None:
        for turn, _ in enumerate(flow(self.site.exchange, *self.traders, count, seed=seed)):
            if turn % 4 == 0:
                await asyncio.sleep(0)

    async def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            for task in self._tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < end, "still false"
            await asyncio.sleep(0.001)

    async def same(self, client: MarketFeed) -> None:
        """Wait until the client has everything; its books must be the exchange's."""
        count = self.site.market.published
        await self.until(lambda: client.ready and client.next_number == count + 1)
        book = client.books[PAIR]
        bids, asks = self.site.exchange.engine.book(PAIR)
        assert [(each.order_id, each.price, each.quantity) for each in book.queue(Side.BUY)] == bids
        assert [(each.order_id, each.price, each.quantity) for each in book.queue(Side.SELL)] == asks
        assert book.digest.to_bytes(16, "little") == self.site.exchange.engine.matchers[0].book_hash(PAIR)


def play(scene: Callable[[Market], Awaitable[None]], **changes: Any) -> None:
    with FeedSite(config(heartbeat_ms=20, **changes), ring_slots=1 << 15) as site:
        site.start()

        async def run() -> None:
            await scene(Market(site))

        asyncio.run(run())


def test_a_late_joiner_reads_a_snapshot_and_joins_the_lines() -> None:
    async def scene(market: Market) -> None:
        await market.trade(400, seed=1)
        async with market.client() as client:
            await market.same(client)
            await market.until(lambda: client.live)
            await market.trade(200, seed=2)
            await market.same(client)
            assert (client.snapshots, client.rejoined, client.mismatches) == (1, 1, 0)

    play(scene)


def test_loss_repetition_and_disorder_do_not_reach_the_book() -> None:
    async def scene(market: Market) -> None:
        async with market.client() as client:
            await market.trade(50, seed=1)
            await market.until(lambda: client.live)
            market.network.lose = market.network.repeat = market.network.delay = 0.2
            await market.trade(1500, seed=2)
            await market.same(client)
            assert market.network.lost > 50
            assert client.arbiter.duplicates > 50
            assert client.mismatches == 0

    play(scene)


def test_a_dead_line_is_made_up_for_by_the_other_and_two_by_the_replay_server() -> None:
    async def scene(market: Market) -> None:
        async with market.client() as client:
            await market.until(lambda: client.live)
            market.network.dead = [True, False]
            await market.trade(200, seed=1)
            await market.same(client)
            assert client.live
            market.network.dead = [True, True]
            await market.trade(200, seed=2)
            await market.same(client)
            assert not client.live
            market.network.dead = [False, True]
            await market.trade(200, seed=3)
            await market.until(lambda: client.live)
            await market.same(client)
            assert client.snapshots == 1

    play(scene)


def test_what_strangers_send_is_no_sign_that_the_lines_are_alive() -> None:
    async def scene(market: Market) -> None:
        market.network.dead = [True, True]
        strange = [b"hello", packet(1, b"x", session=b"BR002TEST1"), packet(7, session=b"XX001TEST1")]

        async def disturb() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                while True:
                    for port in market.network.ports:
                        for data in strange:
                            stranger.sendto(data, ("127.0.0.1", port))
                    await asyncio.sleep(0.001)

        async with market.client() as client:
            disturbing = asyncio.create_task(disturb())
            await market.until(lambda: client.snapshots == 1)
            await market.trade(300, seed=1)
            await market.same(client)
            assert not client.live
            assert client.rejoined == 0
            disturbing.cancel()

    play(scene)


def test_without_lines_everything_comes_over_tcp() -> None:
    async def scene(market: Market) -> None:
        async with market.client(lines=False) as client:
            await market.trade(300, seed=1)
            await market.same(client)
            assert not client.live

    play(scene)


def test_definitions_come_from_the_reference_channel() -> None:
    async def scene(market: Market) -> None:
        market.site.feed.define(SystemEvent())
        for symbol in ("A-B", "C-D"):
            market.site.feed.define(InstrumentDefinition(instrument_id=len(symbol), symbol=symbol, partition=1))
        market.site.feed.define(InstrumentDefinition(instrument_id=9, symbol="E-F", partition=1))
        who = token()
        run = asyncio.create_task(market.run())
        found = await load_definitions(market.servers, user=who.user, password=who.password)
        run.cancel()
        assert {number: each.symbol for number, each in found.items()} == {3: "C-D", 9: "E-F"}

    play(scene)


def test_who_is_not_entitled_is_told_so() -> None:
    async def scene(market: Market) -> None:
        who = token(Entitlement.DERIVED)
        run = asyncio.create_task(market.run())
        async with MarketFeed(1, market.servers, user=who.user, password=who.password) as client:
            with pytest.raises(SoupRefused):
                await anext(client.events())
        run.cancel()

    play(scene)


def test_a_market_that_is_halted_says_so_to_late_joiners() -> None:
    async def scene(market: Market) -> None:
        market.site.exchange.admin(wire.InstrumentState(instrument_id=PAIR, state=wire.MarketState.HALTED))
        async with market.client() as client:
            await market.until(lambda: client.ready)
            assert client.books[PAIR].status == wire.MarketState.HALTED

    play(scene)
