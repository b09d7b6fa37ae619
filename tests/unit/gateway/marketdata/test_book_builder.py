"""The book builder follows the feed and refuses events that contradict it."""

import pytest

from gateway.marketdata.book_builder import SLOT_PREFIX, BookBuilder, BookError
from ringbuf.wire import market_messages as market
from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import Side

INSTRUMENT = 7
BUY, SELL = Side.BUY, Side.SELL


class Feed:
    """Slots as a matcher would write them, with contiguous update ids."""

    def __init__(self) -> None:
        self.book = BookBuilder(INSTRUMENT)
        self.update_id = 0

    def send(self, message: WireMessage, update_id: int | None = None) -> int:
        self.update_id = self.update_id + 1 if update_id is None else update_id
        prefix = SLOT_PREFIX.pack(self.update_id, message.BLOCK_LENGTH, message.TEMPLATE_ID, 1002, 0)
        return self.book.apply((prefix + message.pack()).ljust(64, b"\0"))

    def add(self, order_id: int, side: Side, price: int, qty: int) -> None:
        self.send(market.OrderAdd(order_id=order_id, side=side, price=price, qty=qty, instrument_id=INSTRUMENT))

    def execute(self, order_id: int, price: int, qty: int) -> None:
        self.send(
            market.OrderExecute(order_id=order_id, last_px=price, last_qty=qty, side=SELL, instrument_id=INSTRUMENT)
        )


@pytest.fixture
def feed() -> Feed:
    feed = Feed()
    feed.add(1, SELL, 101, 5)
    feed.add(2, SELL, 101, 3)
    feed.add(3, SELL, 103, 2)
    feed.add(4, BUY, 99, 7)
    return feed


def tops(feed: Feed) -> list[tuple[int | None, int, int, int]]:
    return [(top.price, top.quantity, top.order_count, top.total_quantity) for top in feed.book.top()]


def test_best_prices_counts_and_totals(feed: Feed) -> None:
    assert tops(feed) == [(99, 7, 1, 7), (101, 8, 3, 10)]


def test_executions_shrink_and_remove_makers_in_order(feed: Feed) -> None:
    feed.execute(1, 101, 5)
    feed.execute(2, 101, 1)

    assert tops(feed)[1] == (101, 2, 2, 4)


def test_reduce_delete_and_replace(feed: Feed) -> None:
    feed.send(market.OrderReduce(order_id=1, new_qty=2, instrument_id=INSTRUMENT, side=SELL))
    feed.send(market.OrderDelete(order_id=2, instrument_id=INSTRUMENT, side=SELL))
    feed.send(market.OrderReplace(order_id=4, new_price=100, new_qty=9, instrument_id=INSTRUMENT, side=BUY))

    assert tops(feed) == [(100, 9, 1, 9), (101, 2, 2, 4)]


def test_replaced_order_goes_to_the_back(feed: Feed) -> None:
    feed.send(market.OrderReplace(order_id=1, new_price=101, new_qty=5, instrument_id=INSTRUMENT, side=SELL))

    with pytest.raises(BookError, match="order 1 executed before order 2"):
        feed.execute(1, 101, 1)


def test_price_of_zero_is_a_price() -> None:
    feed = Feed()
    feed.add(1, BUY, 0, 4)

    assert tops(feed)[0] == (0, 4, 1, 4)


def test_other_instruments_are_skipped(feed: Feed) -> None:
    applied = feed.send(market.OrderAdd(order_id=9, side=BUY, price=100, qty=1, instrument_id=8), update_id=1)

    assert applied == 0
    assert tops(feed)[0][0] == 99


def test_gap_in_update_ids_is_refused(feed: Feed) -> None:
    with pytest.raises(BookError, match="update id 6, expected 5"):
        feed.send(market.OrderDelete(order_id=1, instrument_id=INSTRUMENT, side=SELL), update_id=6)


def test_unknown_order_and_overfill_are_refused(feed: Feed) -> None:
    with pytest.raises(BookError, match="order 77 is not in the book"):
        feed.send(market.OrderDelete(order_id=77, instrument_id=INSTRUMENT, side=SELL))
    with pytest.raises(BookError, match="quantity from 5 to -1"):
        feed.execute(1, 101, 6)


def test_same_order_id_twice_is_refused(feed: Feed) -> None:
    with pytest.raises(BookError, match="order 4 is in the book already"):
        feed.add(4, BUY, 98, 1)
