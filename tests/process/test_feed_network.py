"""The feed between hosts: lines and servers behind links that lose, double and reorder frames, one of them dying."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from engine.engine import START_NS
from gateway.clients import Line, MarketFeed, Servers
from gateway.marketdata.feed import Destination, Feed, Kind
from tests.kit.composed_exchange import PAIR, Exchange, make_exchange
from tests.kit.feed_site import config, flow, token, traders
from tests.kit.namespaces import Faults, Network, available, send_whole_frames

PORT = 9300
ORDERS = 12_000
ORDERS_BEFORE_JOINED = ORDERS // 5
ORDERS_A_DIGEST = 500
# Those after it has joined at the latest, and the one at the very end.
DIGESTS_MIN = ORDERS // ORDERS_A_DIGEST - ORDERS_BEFORE_JOINED // ORDERS_A_DIGEST + 1
DEADLINE_S = 120.0
SECOND_NS = 1_000_000_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not available(), reason="needs root: makes network namespaces"),
]


class Publisher:
    """An exchange and its feed on host "a", trading until all orders are sent, polling until told to stop."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.done = threading.Event()
        self.stop = threading.Event()
        self.servers = Servers("", 0, 0)
        self.exchange: Exchange = make_exchange(ring_slots=1 << 17)
        self.killed = 0
        self.joined = threading.Event()  # a follower has: what is said before, nobody hears

    @property
    def published(self) -> int:
        return self.exchange.engine.market[1].published

    def run(self) -> None:
        for interface in ("a1", "a2", "a3"):
            send_whole_frames(interface)
        feed = self._start()
        self.ready.set()
        sent = 0
        for sent, _ in enumerate(flow(self.exchange, *traders(self.exchange), ORDERS), 1):
            if sent % ORDERS_A_DIGEST == 0:
                self.exchange.engine.set_time(START_NS + sent // ORDERS_A_DIGEST * 2 * SECOND_NS)
            while sent == ORDERS_BEFORE_JOINED and not (self.joined.is_set() or self.stop.is_set()):
                if feed.poll() == 0:
                    time.sleep(0.0005)
            if sent == ORDERS // 2:
                # A process that dies leaves nothing behind, and its successor starts with what is published then.
                feed.shutdown()
                feed = self._start()
                self.killed += 1
            feed.poll()
            if sent % 20 == 0:
                time.sleep(0.001)
        self.exchange.engine.set_time(START_NS + ORDERS * SECOND_NS)
        self.exchange.buy(1, 1, 1)
        self.done.set()
        while not self.stop.is_set():
            if feed.poll() == 0:
                time.sleep(0.0005)
        feed.shutdown()

    def _start(self) -> Feed:
        lines = [Destination(line, Kind.ALL, f"10.77.{line + 1}.2", PORT) for line in (0, 1)]
        feed = Feed(replace(config(heartbeat_ms=100, orders_expected=1 << 16), destinations=lines))
        feed.attach({1: self.exchange.engine.market[1]})
        feed.start()
        before = self.servers
        host = "10.77.3.1"
        self.servers = Servers(
            host,
            feed.listen_replay(host, before.replay_port),
            feed.listen_snapshot(host, before.snapshot_port),
            feed.listen_rerequest(host, before.rerequest_port or 0),
        )
        return feed


class Follower:
    """A client on host "b"."""

    def __init__(self, network: Network, publisher: Publisher) -> None:
        self.network = network
        self.publisher = publisher
        self.feed: Any = None
        self.digest = b""
        self.digests = 0

    def run(self) -> None:
        for interface in ("b1", "b2", "b3"):
            send_whole_frames(interface)
        asyncio.run(self._follow())

    async def _follow(self) -> None:
        who = token()
        lines = [Line(f"10.77.{number}.2", PORT) for number in (1, 2)]
        async with MarketFeed(1, self.publisher.servers, user=who.user, password=who.password, lines=lines) as feed:
            self.feed = feed
            reading = asyncio.create_task(self._read(feed))
            end = time.monotonic() + DEADLINE_S
            while not (self.publisher.done.is_set() and (feed.next_number or 0) > self.publisher.published):
                assert not reading.done(), reading.result()
                if PAIR in feed.books and feed.next_number:
                    self.publisher.joined.set()
                assert time.monotonic() < end, f"at {feed.next_number} of {self.publisher.published}"
                if self.publisher.published > ORDERS // 3:
                    self.network.links[0].down = True
                await asyncio.sleep(0.01)
            reading.cancel()
            await asyncio.wait({reading})
            book = feed.books[PAIR]
            self.digest, self.digests = book.digest.to_bytes(16, "little"), book.digests

    async def _read(self, feed: MarketFeed) -> None:
        async for _ in feed.events():
            pass


@pytest.mark.parametrize("seed", [1, 2])
def test_the_book_is_the_exchange_s_through_a_bad_network(seed: int) -> None:
    bad = {"loss": 0.05, "double": 0.05, "late": 0.05}
    with Network(Faults(**bad), Faults(**bad), Faults(loss=0.01, double=0.01, late=0.02), seed=seed) as network:
        publisher = Publisher()
        follower = Follower(network, publisher)
        network.run("a", publisher.run)
        assert publisher.ready.wait(30)
        following = network.run("b", follower.run)
        following.join(DEADLINE_S)
        publisher.stop.set()
    feed = follower.feed
    assert follower.digest == publisher.exchange.engine.matchers[0].book_hash(PAIR)
    assert follower.digests >= DIGESTS_MIN
    assert publisher.killed == 1
    assert feed.mismatches == 0
    assert min(network.lost, network.doubled, network.reordered) > 100
    assert feed.arbiter.requests > 100, "gaps there were, and they were filled"
    publisher.exchange.engine.close()
