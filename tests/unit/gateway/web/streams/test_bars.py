"""Bars from trades, candles from bars, windows from minutes; checked against plain loops."""

import random

import numpy
import pytest

from gateway.web.market_view import NS_PER_S, Bar
from gateway.web.streams.bars import MINUTE_NS, Rolling, Series, bars_of
from ringbuf.wire.messages import SideOrBoth

DTYPE = numpy.dtype(
    [("trade_id", "<u8"), ("price", "<i8"), ("qty", "<i8"), ("transact_time", "<u8"), ("aggressor_side", "u1")]
)
START = 1_784_592_000 * NS_PER_S
FACTOR = 10
Trade = tuple[int, int, int, int, int]


def trades(seed: int, count: int = 500) -> list[Trade]:
    chance, now = random.Random(seed), START
    found = []
    for number in range(1, count + 1):
        now += chance.randrange(0, 3 * NS_PER_S)
        side = chance.choice((SideOrBoth.BUY, SideOrBoth.SELL, SideOrBoth.BOTH))
        found.append((number, chance.randint(90, 110), chance.randint(1, 1 << 50), now, int(side)))
    return found


def expected(chosen: list[Trade]) -> tuple[int, ...]:
    prices, lots = [trade[1] for trade in chosen], [trade[2] for trade in chosen]
    taken = [trade for trade in chosen if trade[4] != SideOrBoth.SELL]
    return (
        prices[0], max(prices), min(prices), prices[-1], sum(lots),
        sum(price * quantity for price, quantity in zip(prices, lots, strict=True)) * FACTOR, len(chosen),
        chosen[0][0], chosen[-1][0], sum(trade[2] for trade in taken),
        sum(trade[1] * trade[2] for trade in taken) * FACTOR,
    )  # fmt: skip


def values(bar: Bar) -> tuple[int, ...]:
    return (
        bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote, bar.count, bar.first_id, bar.last_id,
        bar.taker_volume, bar.taker_quote,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_bars_of_seconds_are_exact_beyond_64_bits(seed: int) -> None:
    rows = trades(seed)
    by_second: dict[int, list[Trade]] = {}
    for trade in rows:
        by_second.setdefault(trade[3] // NS_PER_S, []).append(trade)

    found = bars_of(numpy.array(rows, dtype=DTYPE), FACTOR)

    assert [values(bar) for bar in found] == [expected(each) for each in by_second.values()]


def test_candles_end_once_each_and_stand_at_the_price_before() -> None:
    rows, series = trades(7), Series("1m", 0, START)
    bars = bars_of(numpy.array(rows, dtype=DTYPE), FACTOR)

    ended = [candle for bar in bars for candle in series.take(bar)]

    by_minute: dict[int, list[Trade]] = {}
    for trade in rows:
        by_minute.setdefault(trade[3] // MINUTE_NS * MINUTE_NS, []).append(trade)
    assert [candle.open_ns for candle in ended] == [START + at * MINUTE_NS for at in range(len(ended))]
    for candle in [*ended, series.candle]:
        if candle.open_ns in by_minute:
            assert values(candle) == expected(by_minute[candle.open_ns])
    quiet = series.until(series.candle.close_ns + MINUTE_NS)
    assert [(bar.count, bar.open, bar.close) for bar in quiet[1:]] == [(0, quiet[0].close, quiet[0].close)]


def test_window_holds_its_minutes_and_the_price_before() -> None:
    rows, rolling = trades(9), Rolling()
    for bar in bars_of(numpy.array(rows, dtype=DTYPE), FACTOR):
        rolling.take(bar)
    now = rows[-1][3]
    start = (now // MINUTE_NS - 5) * MINUTE_NS

    bar, before = rolling.window(5, now)

    assert values(bar) == expected([trade for trade in rows if trade[3] >= start])
    assert before == [trade for trade in rows if trade[3] < start][-1][1]
    whole, _ = rolling.window(1440, now)
    assert whole.count == len(rows)
