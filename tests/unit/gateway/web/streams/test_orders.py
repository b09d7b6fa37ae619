"""Order by order: a book kept from the stream is the exchange's, also where it comes in parts, late, or again."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from gateway.marketdata.feed import Kind
from gateway.web.reference import Instrument
from gateway.web.streams import live as live_module
from gateway.web.streams import orders as orders_module
from gateway.web.streams.fanout import Audience, FanOut
from gateway.web.streams.live import LiveMarket
from gateway.web.streams.names import parse
from gateway.web.streams.orders import PART_ORDERS, Listener, OrderStream, OrderStreams
from gateway.web.streams.payloads import MS
from ringbuf.wire.messages import Side
from tests.kit.composed_exchange import PAIR
from tests.kit.feed_site import FeedSite, config, flow, traders
from tests.kit.order_book import BrokenStream, OrderBook
from tests.kit.stream_peer import Peer

NOW_NS = 1_700_000_000_123_456_789
QUEUE_BYTES = 1 << 20
INSTRUMENT = Instrument(
    PAIR, "BASE-QUOTE", base_asset=1, quote_asset=2, partition=1, tick_size=1, price_exponent=0, lot_size=1,
    qty_exponent=0, quote_per_tick_lot=1, base_per_lot=1,
)  # fmt: skip


class Desk:
    """The order-by-order stream of one pair, over a small exchange."""

    def __init__(self, site: FeedSite) -> None:
        self.site = site
        self.live = LiveMarket(site.feed, lambda status: pytest.fail(f"the feed stopped: {status}"))
        self.fan = FanOut(QUEUE_BYTES)
        self.audience = Audience(self.fan, parse("basequote@l3"))
        self.streams = OrderStreams(self.live)
        self.poll()
        self.stream: OrderStream = self.streams.add(self.audience, INSTRUMENT)

    def poll(self) -> None:
        """Everything published is told."""
        for _ in range(100):
            self.live.poll()
            self.streams.tell(NOW_NS) if hasattr(self, "stream") else None
            self.fan.poll()

    def join(self, after: int | None = None) -> tuple[Peer, list[bool]]:
        """Return a new subscriber, and whether it wants to be one: clear the list and it does not."""
        peer, wants = Peer(self.fan), [True]
        self.stream.begin(Listener(peer.outlet, lambda: (False, MS), lambda: bool(wants)), after, NOW_NS)
        return peer, wants

    def read(self, peer: Peer, book: OrderBook) -> list[Any]:
        """Let a subscriber take all there is; return it."""
        found: list[Any] = []
        for _ in range(1000):
            messages = peer.messages()
            for message in messages:
                book.take(message)
            found += messages
            self.poll()
            if not messages and book.last == self.stream.last_id and book.whole:
                return found
        raise AssertionError(f"the book is at {book.last}, the stream at {self.stream.last_id}")

    def levels(self) -> list[Any]:
        sides = self.live.sides(INSTRUMENT, 100_000)
        assert sides is not None
        return [sides[1], sides[2]]


@pytest.fixture
def site() -> Iterator[FeedSite]:
    with FeedSite(config(publish=Kind(0)), lines=0) as made:  # as in a worker of the web gateway
        yield made.start()


def shown(book: OrderBook) -> list[Any]:
    return [book.levels("BUY"), book.levels("SELL")]


def test_book_kept_from_the_stream_is_the_exchanges(site: FeedSite) -> None:
    desk, (seller, buyer) = Desk(site), traders(site.exchange)
    book = OrderBook()
    peer, _ = desk.join()

    for at, _ in enumerate(flow(site.exchange, seller, buyer, 600)):
        if at % 7 == 0:
            desk.poll()
            desk.read(peer, book)
            assert shown(book) == desk.levels()

    assert book.last > 600


@pytest.mark.parametrize("fault", ["dropped", "doubled", "changed"])
def test_planted_faults_of_the_stream_are_found(site: FeedSite, fault: str) -> None:
    """The control of the book above: it must not accept a stream that is wrong."""
    desk, (seller, buyer) = Desk(site), traders(site.exchange)
    peer, _ = desk.join()
    messages: list[Any] = []
    for _ in flow(site.exchange, seller, buyer, 60):
        desk.poll()
        messages += peer.messages()
    planted = deepcopy(messages)
    at = next(at for at, message in enumerate(messages) if at > 10 and message["o"][0]["x"] == "ADD")
    if fault == "dropped":
        del planted[at]
    elif fault == "doubled":
        planted.insert(at, planted[at])
    else:
        planted[at]["o"][0]["q"] = "12345.00000000"

    for told, broken in ((messages, False), (planted, True)):
        book = OrderBook()
        if broken:
            with pytest.raises(BrokenStream):
                for message in told:
                    book.take(message)
        else:
            for message in told:
                book.take(message)


def test_large_book_comes_in_parts_while_trading_goes_on(site: FeedSite) -> None:
    desk, (seller, buyer) = Desk(site), traders(site.exchange)
    for at in range(2 * PART_ORDERS + 500):
        site.exchange.sell(seller, 2000 + at % 300, 5)
    desk.poll()
    early, book = desk.join()[0], OrderBook()

    for _ in flow(site.exchange, seller, buyer, 200):
        pass
    site.exchange.buy(buyer, 2010, 70)  # takes orders of parts that have not been sent yet
    desk.poll()
    assert not early.outlet.takes_more
    assert len(desk.audience) == 0  # it has not read the first part: it is not given the next
    parts = desk.read(early, book)

    assert [part["n"] for part in parts if part["e"] == "l3Snapshot"] == [2, 1, 0]
    assert len(desk.audience) == 1
    assert shown(book) == desk.levels()


def test_subscriber_resumes_from_an_update_id_or_gets_the_book(site: FeedSite) -> None:
    desk, (seller, buyer) = Desk(site), traders(site.exchange)
    book, (peer, _) = OrderBook(), desk.join()
    for _ in flow(site.exchange, seller, buyer, 50):
        pass
    desk.read(peer, book)
    desk.audience.remove(peer.outlet)
    left_at = book.last
    for _ in flow(site.exchange, seller, buyer, 50, seed=2):
        pass
    desk.poll()

    again, _ = desk.join(after=left_at)
    late, _ = desk.join(after=1 << 50)

    [missed] = again.messages()
    assert (missed["e"], missed["U"]) == ("l3Update", left_at + 1)
    book.take(missed)
    assert shown(book) == desk.levels()
    assert [message["e"] for message in late.messages()] == ["l3Snapshot"]


def test_who_leaves_while_joining_is_not_let_in(site: FeedSite) -> None:
    desk, (seller, _) = Desk(site), traders(site.exchange)
    for at in range(PART_ORDERS + 1):
        site.exchange.sell(seller, 2000 + at, 5)
    desk.poll()
    peer, wants = desk.join()
    assert desk.stream.joining

    wants.clear()
    assert not desk.stream.joining
    peer.messages()
    desk.poll()

    assert len(desk.audience) == 0


def test_worker_that_is_too_far_behind_has_listeners_begin_anew(
    site: FeedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, (seller, buyer) = Desk(site), traders(site.exchange)
    peer, _ = desk.join()
    monkeypatch.setattr(orders_module, "WAITING_MAX", 20)
    for _ in flow(site.exchange, seller, buyer, 60):
        pass

    desk.poll()

    assert peer.reasons == ["order events were lost; connect again"]
    book, (fresh, _) = OrderBook(), desk.join()
    site.exchange.sell(seller, 1500, 3)
    desk.read(fresh, book)
    assert shown(book) == desk.levels()


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_poll_that_would_stop_within_an_event_goes_on_to_its_end(
    site: FeedSite, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Books were asked for in the middle of an event, and the publisher died of it, when many events waited."""
    monkeypatch.setattr(live_module, "POLL_LIMIT", limit)
    seller, buyer = traders(site.exchange)
    live = LiveMarket(site.feed, lambda status: pytest.fail(f"the feed stopped: {status}"))
    live.poll()
    for at in range(40):
        site.exchange.sell(seller, 1000 + at % 4, 1)
    site.exchange.buy(buyer, 1003, 30)  # one event of many messages
    whole = 0

    while live.poll()[0]:
        if live.between_events(1):
            whole += 1
            assert live.sides(INSTRUMENT, 10) is not None
            assert live.feed.orders(1, PAIR, Side.SELL) is not None

    assert whole > 4
