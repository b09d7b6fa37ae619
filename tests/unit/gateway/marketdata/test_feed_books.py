"""The derived channel is a pure function of the market ring, and says what the book says at the end of every event."""

from collections.abc import Iterator
from struct import Struct

import pytest

from engine.engine import START_NS
from gateway.clients.python.books import OrderBook
from gateway.marketdata.feed import Feed
from ringbuf import Ring
from ringbuf.wire import market_messages as market
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage
from ringbuf.wire.market_codec import decode_market, encode_market
from ringbuf.wire.market_messages import (
    AuctionIndicative,
    Bbo,
    BookDigest,
    EventFlags,
    InstrumentStatus,
    LevelUpdate,
    OrderAdd,
    Trade,
)
from ringbuf.wire.messages import Side, SideOrBoth
from tests.kit.composed_exchange import PAIR
from tests.kit.feed_site import FeedSite, Packet, config, flow, traders

DERIVED = "BR101TEST1"
FAILED, LAPPED = -2, -1
HASH_MARK_NS = 2_000_000_000
UPDATE_ID = Struct("<Q")


def history(feed: Feed, channel: int = 101) -> list[bytes]:
    """Return all messages of a channel that the feed still has."""
    position, found = feed.position(channel), []
    number = position.oldest
    while number < position.next:
        packet = Packet.parse(feed.packet(channel, number))
        found += packet.messages
        number += packet.count
    return found


def drain(feed: Feed) -> None:
    while (done := feed.poll()) > 0:
        pass
    assert done == 0, feed.error or feed.hole


def events(messages: list[WireMessage]) -> Iterator[list[WireMessage]]:
    """Cut a list of messages at the ends of events."""
    event: list[WireMessage] = []
    for message in messages:
        event.append(message)
        if int(message.event_flags) & EventFlags.END_OF_EVENT:  # type: ignore[attr-defined]
            yield event
            event = []
    assert not event


def test_levels_and_best_prices_are_those_of_the_book_after_every_event() -> None:
    with FeedSite(lines=0).start() as site:
        levels: dict[tuple[int, int], tuple[int, int]] = {}
        seen, prints = 0, 0
        best: Bbo | None = None
        for _ in flow(site.exchange, *traders(site.exchange), 600):
            drain(site.feed)
            messages = [decode_market(each) for each in history(site.feed)]
            for message in messages[seen:]:
                if isinstance(message, LevelUpdate):
                    key = int(message.side), message.price
                    levels[key] = message.new_qty, message.num_orders
                    if message.new_qty == 0:
                        assert message.num_orders == 0
                        del levels[key]
                elif isinstance(message, Bbo):
                    best = message
                prints += isinstance(message, Trade)
            seen = len(messages)
            bids, asks = site.exchange.engine.book(PAIR)
            expected: dict[tuple[int, int], list[int]] = {}
            for side, orders in ((1, bids), (2, asks)):
                for _, price, qty in orders:
                    expected.setdefault((side, price), []).append(qty)
            assert levels == {key: (sum(each), len(each)) for key, each in expected.items()}
            if best is not None:
                assert best.bid_px == (bids[0][1] if bids else None)
                assert best.ask_px == (asks[0][1] if asks else None)
                assert best.ask_qty == (levels[2, asks[0][1]][0] if asks else 0)
        executions = [each for each in site.messages() if isinstance(decode_market(each), market.OrderExecute)]
        assert prints == len(executions) > 50
        assert list(events([decode_market(each) for each in history(site.feed)]))


def test_a_restarted_feed_numbers_its_messages_alike() -> None:
    with FeedSite(lines=1).start() as site:
        for _ in flow(site.exchange, *traders(site.exchange), 500):
            site.settle()
        first, position = history(site.feed), site.feed.position(101)

        again = site.make_feed()
        again.start()
        drain(again)

        assert again.position(101).next == position.next
        assert history(again) == first
        site.lines[0].drain()
        sent_again = [packet for packet in site.lines[0].receive() if packet.session == DERIVED][-1]
        assert (sent_again.count, sent_again.number) == (0, position.next), "history is not sent once more"


def test_a_print_names_the_side_that_took() -> None:
    with FeedSite(lines=0).start() as site:
        seller, buyer = traders(site.exchange)
        site.exchange.sell(seller, 100, 5)
        site.exchange.buy(buyer, 100, 2)
        drain(site.feed)

        *_, trade, level, best = [decode_market(each) for each in history(site.feed)]

        assert isinstance(trade, Trade)
        assert (trade.price, trade.qty, trade.aggressor_side, trade.trade_id) == (100, 2, SideOrBoth.BUY, 1)
        assert isinstance(level, LevelUpdate)
        assert (level.price, level.new_qty, level.num_orders, level.side) == (100, 3, 1, Side.SELL)
        assert isinstance(best, Bbo)
        assert (best.bid_px, best.bid_qty, best.ask_px, best.ask_qty) == (None, 0, 100, 3)
        assert [int(each.event_flags) for each in (trade, level, best)] == [0, 0, 128]  # type: ignore[attr-defined]


def test_a_change_of_the_market_state_is_told_too() -> None:
    with FeedSite(lines=0).start() as site:
        site.exchange.admin(wire.InstrumentState(instrument_id=PAIR, state=wire.MarketState.HALTED))
        drain(site.feed)

        (status,) = [decode_market(each) for each in history(site.feed)]

        assert isinstance(status, InstrumentStatus)
        assert status.status == wire.MarketState.HALTED
        assert status.event_flags == EventFlags.END_OF_EVENT


def test_slices_of_an_iceberg_come_one_after_the_other_and_nobody_sees_the_rest() -> None:
    with FeedSite(lines=0).start() as site:
        seller, buyer = traders(site.exchange)
        site.exchange.sell(seller, 100, 50, display_qty=10)
        site.exchange.sell(seller, 100, 7)
        site.exchange.buy(buyer, 100, 22)
        drain(site.feed)

        messages = [decode_market(each) for each in history(site.feed)]
        levels = [(each.new_qty, each.num_orders) for each in messages if isinstance(each, LevelUpdate)]
        prints = [each.qty for each in messages if isinstance(each, Trade)]
        # 10 of the slice, all 7 behind it, 5 of the next slice.
        assert prints == [10, 7, 5]
        assert levels == [(10, 1), (17, 2), (5, 1)]
        follow_the_full_channel(site, buyer)


def test_an_auction_prints_once_and_nobody_is_the_aggressor() -> None:
    with FeedSite(lines=0).start() as site:
        seller, buyer = traders(site.exchange)
        site.exchange.admin(wire.InstrumentState(instrument_id=PAIR, state=wire.MarketState.AUCTION))
        for price in (99, 100, 101):
            site.exchange.sell(seller, price, 5)
            site.exchange.buy(buyer, price, 5)
        drain(site.feed)
        collecting = [decode_market(each) for each in history(site.feed)]
        site.exchange.admin(wire.InstrumentState(instrument_id=PAIR, state=wire.MarketState.CONTINUOUS))
        drain(site.feed)
        messages = [decode_market(each) for each in history(site.feed)]

        assert any(isinstance(each, AuctionIndicative) for each in collecting)
        assert not any(isinstance(each, Trade) for each in collecting)
        prints = [each for each in messages if isinstance(each, Trade)]
        assert {(each.price, each.aggressor_side) for each in prints} == {(100, SideOrBoth.BOTH)}
        assert sum(each.qty for each in prints) == 10
        assert len({each.trade_id for each in prints}) == len(prints)
        best = [each for each in messages if isinstance(each, Bbo)][-1]
        assert (best.bid_px, best.ask_px) == (99, 101)
        follow_the_full_channel(site, buyer)


def follow_the_full_channel(site: FeedSite, buyer: int) -> None:
    """The client's book is the matcher's: the digest of a mark, which comes with time, agrees."""
    site.exchange.engine.set_time(START_NS + HASH_MARK_NS)
    site.exchange.buy(buyer, 1, 1)
    book = OrderBook(PAIR)
    for message in site.messages():
        book.apply(decode_market(message))
    assert book.digests > 0


# --- rings written by hand --------------------------------------------------------------------------------------------


class Made:
    """A feed on a ring that the test writes."""

    def __init__(self, **changes: object) -> None:
        self.ring = Ring.private(slot_size=64, slot_count=1 << 14)
        self.feed = Feed(config(**changes))
        self.feed.attach({1: self.ring})
        self.feed.start()

    def publish(self, *messages: WireMessage | bytes) -> None:
        for message in messages:
            data = message if isinstance(message, bytes) else encode_market(message)
            self.ring.publish(UPDATE_ID.pack(1) + data)

    def derived(self) -> list[WireMessage]:
        drain(self.feed)
        return [decode_market(each) for each in history(self.feed)]


def add(order_id: int, price: int, *, qty: int = 1, side: Side = Side.BUY, end: bool = True) -> OrderAdd:
    flags = EventFlags.END_OF_EVENT if end else EventFlags(0)
    return OrderAdd(
        transact_time=order_id, order_id=order_id, price=price, qty=qty, instrument_id=1, side=side, event_flags=flags
    )


def execute(order_id: int, side: Side, flags: int) -> market.OrderExecute:
    return market.OrderExecute(
        transact_time=9, order_id=order_id, trade_id=3, last_px=5, last_qty=1, instrument_id=1, side=side,
        event_flags=EventFlags(flags),
    )  # fmt: skip


def test_the_two_halves_of_an_auctions_print_are_one_print_without_aggressor() -> None:
    made = Made()
    made.publish(add(1, 6), add(2, 4, side=Side.SELL))
    made.publish(execute(1, Side.BUY, EventFlags.IMPLIED), execute(2, Side.SELL, EventFlags.END_OF_EVENT))

    trades = [each for each in made.derived() if isinstance(each, Trade)]

    assert [(each.trade_id, each.price, each.qty, each.aggressor_side) for each in trades] == [
        (3, 5, 1, SideOrBoth.BOTH)
    ]


def test_nothing_is_said_before_the_end_of_an_event() -> None:
    made = Made()
    made.publish(add(1, 10, end=False), add(2, 11, end=False))
    assert made.derived() == []

    made.publish(add(3, 11))

    *levels, best = made.derived()
    assert [(each.price, each.new_qty) for each in levels] == [(10, 1), (11, 2)]  # type: ignore[attr-defined]
    assert isinstance(best, Bbo)
    assert (best.bid_px, best.bid_qty) == (11, 2)


def test_an_event_of_any_length_passes_through_a_small_ring() -> None:
    made, count = Made(derived_slots=1 << 14), 40000
    for order_id in range(1, count):
        made.publish(add(order_id, order_id, end=False))
        if order_id % 500 == 0:
            drain(made.feed)
    assert made.feed.position(101).next > count - 5000, "it is told in parts"
    made.publish(add(count, count))
    drain(made.feed)

    position = made.feed.position(101)
    assert position.next - 1 > count
    last = decode_market(Packet.parse(made.feed.packet(101, position.next - 1)).messages[0])
    assert isinstance(last, Bbo)
    assert last.bid_px == count
    assert last.event_flags == EventFlags.END_OF_EVENT


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (add(1, 10), "message 3 of partition 1, template 20: does not fit the book (-2)"),
        (
            BookDigest(instrument_id=1, order_count=2),
            "message 3 of partition 1, template 27: does not fit the book (-5)",
        ),
        (
            market.OrderDelete(order_id=9, instrument_id=1, side=Side.BUY),
            "message 3 of partition 1, template 23: does not fit the book (-1)",
        ),
        (bytes(4) + b"\x01\x00" + bytes(2), "message 3 of partition 1: schema 1, block of 0 bytes"),
    ],
)
def test_a_ring_that_contradicts_itself_stops_the_feed(message: WireMessage | bytes, text: str) -> None:
    made = Made()
    made.publish(add(1, 10), add(2, 11))
    made.publish(message)

    status = 1
    while status > 0:
        status = made.feed.poll()

    assert status == FAILED
    assert made.feed.error == text
    assert made.feed.poll() == FAILED


def test_an_instrument_beyond_the_limit_stops_the_feed() -> None:
    made = Made()
    made.publish(OrderAdd(order_id=1, price=1, qty=1, instrument_id=17, side=Side.BUY))

    assert made.feed.poll() == FAILED
    assert made.feed.error == "instrument 17 is above instruments_max = 16"


def test_without_an_archive_a_lapped_feed_names_the_hole() -> None:
    with FeedSite(lines=0, ring_slots=1 << 10) as site:
        for _ in flow(site.exchange, *traders(site.exchange), 2000):
            pass
        site.start()

        assert site.feed.poll() == LAPPED
        hole = site.feed.hole
        assert hole is not None
        assert (hole.partition, hole.first) == (1, 0)
