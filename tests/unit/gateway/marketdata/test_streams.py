"""The SBE streams say what the books and prints of the market ring say, read by a decoder of its own."""

from itertools import count
from typing import Any

import pytest

from gateway.marketdata import sbe_streams
from gateway.marketdata.streams import Kind, MarketStreams, Stream, StreamNameError
from ringbuf.wire import market_messages as market
from ringbuf.wire import messages as wire
from ringbuf.wire.market_codec import decode_market
from ringbuf.wire.market_messages import InstrumentDefinition
from ringbuf.wire.messages import Side
from tests.kit.composed_exchange import PAIR
from tests.kit.feed_site import FeedSite, config, flow, traders
from tests.kit.sbe_stream import Frame, read

TICK, LOT = 25, 10
NOW_NS = 1_700_000_000_123_456_789
PAIR_IS = InstrumentDefinition(
    tick_size=TICK, lot_size=LOT, instrument_id=PAIR, price_exponent=-2, qty_exponent=-5, symbol="BTC-USDT", partition=1
)


class Taker:
    """A subscriber that keeps everything."""

    def __init__(self) -> None:
        self.frames: list[tuple[Stream, bytes]] = []
        self.failures: list[str] = []

    def offer(self, stream: Stream, frame: bytes) -> None:
        self.frames.append((stream, frame))

    def fail(self, reason: str) -> None:
        self.failures.append(reason)

    def read(self, kind: Kind) -> list[Frame]:
        return [read(frame) for stream, frame in self.frames if stream.kind is kind]


class Desk:
    """Streams over a small exchange; time passes as the test says."""

    def __init__(self, site: FeedSite, *, define: bool = True) -> None:
        self.site = site
        self.streams = MarketStreams(site.feed, clock_ns=lambda: NOW_NS)
        self.taker = Taker()
        self._time = count(1.0)
        if define:
            self.streams.define(PAIR_IS)

    def want(self, *kinds: Kind) -> None:
        for kind in kinds:
            self.streams.subscribe(self.taker, Stream("btcusdt", kind))
        self.poll()

    def poll(self) -> None:
        """Everything published is read and told."""
        self.site.settle()
        now = next(self._time)
        while self.streams.poll(now):
            pass

    def levels(self, side: Side) -> list[tuple[int, int]]:
        """The book, in mantissas."""
        levels = self.site.feed.levels(1, PAIR, side, 1000)
        assert levels is not None
        return [(price * TICK, quantity * LOT) for price, quantity in levels.levels]


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("btcusdt@trade", Stream("btcusdt", Kind.TRADE)),
        ("BTC-USDT@bestBidAsk", Stream("btcusdt", Kind.BEST)),
        ("a1b2@depth20", Stream("a1b2", Kind.SNAPSHOT)),
        ("btcusdt@depth", Stream("btcusdt", Kind.DIFF)),
    ],
)
def test_names(name: str, stream: Stream) -> None:
    assert Stream.parse(name) == stream


@pytest.mark.parametrize("name", ["", "btcusdt", "@trade", "btcusdt@", "btcusdt@Trade", "btcusdt@depth5", "123"])
def test_a_wrong_name_is_told_the_choices(name: str) -> None:
    with pytest.raises(StreamNameError, match="one of trade, bestBidAsk, depth20, depth"):
        Stream.parse(name)


def test_prints_are_those_of_the_ring() -> None:
    with FeedSite(lines=0).start() as site:
        desk = Desk(site)
        desk.want(Kind.TRADE)
        for _ in flow(site.exchange, *traders(site.exchange), 400):
            pass
        desk.poll()

        executions: list[Any] = [
            decoded for each in site.messages() if isinstance(decoded := decode_market(each), market.OrderExecute)
        ]
        wanted = [
            (each.trade_id, each.last_px * TICK, each.last_qty * LOT, int(each.side == Side.BUY)) for each in executions
        ]
        frames = desk.taker.read(Kind.TRADE)
        entries = [entry for frame in frames for entry in frame.groups["trades"]]
        assert [(each["id"], each["price"], each["qty"], each["isBuyerMaker"]) for each in entries] == wanted
        assert len(frames) == len({each.transact_time for each in executions}) < len(wanted)
        assert {frame["transactTime"] for frame in frames} == {each.transact_time // 1000 for each in executions}
        assert {(frame.symbol, frame["priceExponent"], frame["qtyExponent"]) for frame in frames} == {
            ("BTCUSDT", -2, -5)
        }
        assert {frame["eventTime"] for frame in frames} == {NOW_NS // 1000}


def test_best_prices_are_the_newest_ones_and_an_empty_side_is_zero() -> None:
    with FeedSite(lines=0).start() as site:
        desk = Desk(site)
        desk.want(Kind.BEST)
        seller, buyer = traders(site.exchange)
        site.exchange.buy(buyer, 990, 5)
        site.exchange.buy(buyer, 991, 6)
        desk.poll()
        site.exchange.sell(seller, 1000, 7)
        desk.poll()

        first, second = desk.taker.read(Kind.BEST)
        assert (first["bidPrice"], first["bidQty"], first["askPrice"], first["askQty"]) == (991 * TICK, 6 * LOT, 0, 0)
        assert (second["askPrice"], second["askQty"]) == (1000 * TICK, 7 * LOT)
        assert (first["bookUpdateId"], second["bookUpdateId"]) == (2, 3)


def apply(book: dict[str, dict[int, int]], frame: Frame) -> None:
    for side in ("bids", "asks"):
        for price, quantity in frame.levels(side):
            if quantity:
                book[side][price] = quantity
            else:  # it may have come and gone between two frames
                book[side].pop(price, None)


def test_differences_on_a_snapshot_are_the_book() -> None:
    with FeedSite(lines=0).start() as site:
        desk = Desk(site)
        accounts = traders(site.exchange)
        for _ in flow(site.exchange, *accounts, 100):
            pass
        desk.poll()
        desk.want(Kind.DIFF, Kind.SNAPSHOT)
        (snapshot,) = desk.taker.read(Kind.SNAPSHOT)
        assert snapshot.levels("bids") == desk.levels(Side.BUY)[:20]
        assert snapshot.levels("asks") == desk.levels(Side.SELL)[:20]
        base = {"bids": dict(desk.levels(Side.BUY)), "asks": dict(desk.levels(Side.SELL))}
        for turn, _ in enumerate(flow(site.exchange, *accounts, 300, seed=2)):
            if turn % 7 == 0:
                desk.poll()
        desk.poll()

        frames, last = desk.taker.read(Kind.DIFF), snapshot["bookUpdateId"]
        for frame in frames:
            assert frame["firstBookUpdateId"] == last + 1
            assert frame["lastBookUpdateId"] >= frame["firstBookUpdateId"]
            last = frame["lastBookUpdateId"]
            apply(base, frame)
        assert len(frames) > 20
        assert sorted(base["bids"].items(), reverse=True) == desk.levels(Side.BUY)
        assert sorted(base["asks"].items()) == desk.levels(Side.SELL)
        newest = desk.taker.read(Kind.SNAPSHOT)[-1]
        assert newest["bookUpdateId"] == last
        assert newest.levels("bids") == desk.levels(Side.BUY)[:20]


def test_a_difference_that_is_left_out_is_noticed() -> None:
    """Control of the test above: it can fail."""
    with FeedSite(lines=0).start() as site:
        desk = Desk(site)
        desk.want(Kind.DIFF)
        base: dict[str, dict[int, int]] = {"bids": {}, "asks": {}}
        for turn, _ in enumerate(flow(site.exchange, *traders(site.exchange), 100)):
            if turn % 7 == 0:
                desk.poll()
        desk.poll()
        frames = desk.taker.read(Kind.DIFF)
        assert frames[3]["firstBookUpdateId"] > frames[1]["lastBookUpdateId"] + 1
        for frame in frames[:2] + frames[3:]:
            for side in ("bids", "asks"):
                base[side] |= dict(frame.levels(side))
        left = [(price, quantity) for price, quantity in sorted(base["asks"].items()) if quantity]
        assert left != desk.levels(Side.SELL)


def test_more_levels_than_a_group_counts_are_several_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sbe_streams, "LEVELS_MAX", 2)
    with FeedSite(lines=0).start() as site:
        desk = Desk(site)
        desk.want(Kind.DIFF)
        _, buyer = traders(site.exchange)
        for price in range(900, 905):
            site.exchange.buy(buyer, price, 1)
        desk.poll()

        frames = desk.taker.read(Kind.DIFF)
        assert [len(frame.groups["bids"]) for frame in frames] == [2, 2, 1]
        assert {(frame["firstBookUpdateId"], frame["lastBookUpdateId"]) for frame in frames} == {(1, 5)}


def test_a_symbol_may_come_later_and_what_was_before_is_not_told() -> None:
    with FeedSite(lines=0).start() as site:
        desk = Desk(site, define=False)
        desk.want(Kind.DIFF, Kind.TRADE)
        seller, buyer = traders(site.exchange)
        site.exchange.buy(buyer, 990, 5)
        site.exchange.sell(seller, 990, 1)
        desk.poll()
        assert desk.taker.frames == []
        desk.streams.define(PAIR_IS)
        desk.poll()
        site.exchange.buy(buyer, 980, 5)
        desk.poll()
        for state in (wire.MarketState.HALTED, wire.MarketState.CONTINUOUS):
            site.exchange.admin(wire.InstrumentState(instrument_id=PAIR, state=state))
        site.exchange.buy(buyer, 970, 5)
        desk.poll()

        first, second = desk.taker.read(Kind.DIFF)
        assert (first.levels("bids"), second.levels("bids")) == ([(980 * TICK, 5 * LOT)], [(970 * TICK, 5 * LOT)])
        # What changed no level has ids, too: they are covered.
        assert second["firstBookUpdateId"] == first["lastBookUpdateId"] + 1 < second["lastBookUpdateId"]
        assert desk.taker.read(Kind.TRADE) == []


def test_nothing_is_read_for_nobody_and_nothing_old_is_told_to_the_next() -> None:
    with FeedSite(lines=0).start() as site:
        desk = Desk(site)
        desk.want(Kind.TRADE)
        seller, buyer = traders(site.exchange)
        desk.streams.unsubscribe(desk.taker, Stream("btcusdt", Kind.TRADE))
        desk.streams.unsubscribe(desk.taker, Stream("btcusdt", Kind.TRADE))
        site.exchange.buy(buyer, 990, 5)
        site.exchange.sell(seller, 990, 1)
        site.settle()
        assert desk.streams.poll(1.0) == 0
        desk.want(Kind.TRADE)
        site.exchange.sell(seller, 990, 2)
        desk.poll()

        (frame,) = desk.taker.read(Kind.TRADE)
        assert [entry["qty"] for entry in frame.groups["trades"]] == [2 * LOT]


def test_who_was_lapped_begins_anew() -> None:
    settings = config(derived_slots=16384)
    with FeedSite(settings, lines=0, ring_slots=1 << 15).start() as site:
        desk = Desk(site)
        desk.want(Kind.DIFF, Kind.BEST)
        _, buyer = traders(site.exchange)
        for turn in range(4500):
            outputs = site.exchange.buy(buyer, 900 + turn % 50, 1)
            site.exchange.cancel(buyer, outputs[0].message.order_id)
        desk.poll()

        assert desk.streams.laps == 1
        assert desk.taker.failures == ["btcusdt@depth lost messages"]
