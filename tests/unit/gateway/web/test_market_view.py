"""Candles and statistics of the store's trades, checked against plain loops."""

import random
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.web.market_view import NS_PER_S, Bar, StoreMarketView, candle_start
from gateway.web.reference import Instrument
from gateway.web.store import HistoryStore, StoreReader, Trade

PAIR = Instrument(
    1, "BTC-USDT", base_asset=1, quote_asset=2, partition=1, tick_size=1, price_exponent=-2, lot_size=1,
    qty_exponent=-5, quote_per_tick_lot=10, base_per_lot=1000,
)  # fmt: skip
START = 1_785_000_000 * NS_PER_S  # days before a month ends


def trades(step_s: int, count: int = 400) -> list[Trade]:
    chance, now, found = random.Random(step_s), START, []
    for number in range(1, count + 1):
        now += chance.randrange(0, step_s * NS_PER_S)
        price, lots, quote = chance.randint(90, 110), chance.randint(1 << 52, 1 << 53), chance.randint(1 << 61, 1 << 62)
        found.append(Trade(1, number, number, price, lots, quote, now, chance.randrange(2), number))
    return found


def view(tmp_path: Path, rows: list[Trade]) -> StoreMarketView:
    store = HistoryStore.open(tmp_path / "h.db", cluster=1, log_end=0)
    store.put_rows("trades", [tuple(getattr(row, name) for name in Trade.__slots__) for row in rows])
    store.close()
    return StoreMarketView(StoreReader(tmp_path / "h.db"))


def expected(chosen: list[Trade]) -> tuple[int, ...]:
    prices, taken = [trade.price for trade in chosen], [trade for trade in chosen if not trade.buyer_is_maker]
    return (
        prices[0], max(prices), min(prices), prices[-1], sum(trade.qty for trade in chosen),
        sum(trade.quote for trade in chosen), len(chosen), chosen[0].trade_id, chosen[-1].trade_id,
        sum(trade.qty for trade in taken), sum(trade.quote for trade in taken), chosen[-1].qty, chosen[-1].ts_ns,
    )  # fmt: skip


def values(bar: Bar) -> tuple[int, ...]:
    return (
        bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote, bar.count, bar.first_id, bar.last_id,
        bar.taker_volume, bar.taker_quote, bar.last_qty, bar.last_ns,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "step_s", "offset_s"),
    [("1s", 3, 0), ("1m", 100, 0), ("1d", 10_000, 5 * 3600), ("1w", 50_000, 0), ("1M", 100_000, -3 * 3600)],
)
def test_candles_are_exact_and_without_a_gap(tmp_path: Path, interval: str, step_s: int, offset_s: int) -> None:
    rows = trades(step_s)

    candles = view(tmp_path, rows).candles(PAIR, interval, 5000, None, None, offset_s)

    by_start: dict[int, list[Trade]] = {}
    for trade in rows:
        by_start.setdefault(candle_start(interval, trade.ts_ns, offset_s), []).append(trade)
    assert all(later.open_ns == candle.close_ns for candle, later in pairwise(candles))
    assert [values(bar) for bar in candles if bar.count] == [expected(each) for each in by_start.values()]
    quiet = [(bar, before) for before, bar in pairwise(candles) if not bar.count]
    assert all(bar.open == bar.high == bar.low == bar.close == before.close for bar, before in quiet)


def test_statistics_hold_their_time_only_and_the_price_before(tmp_path: Path) -> None:
    rows = trades(100)
    market, start, end = view(tmp_path, rows), rows[100].ts_ns, rows[300].ts_ns

    bar, before = market.statistics(PAIR, start, end)

    assert values(bar) == expected([trade for trade in rows if start <= trade.ts_ns < end])
    assert before == [trade for trade in rows if trade.ts_ns < start][-1].price
    later, price = market.statistics(PAIR, rows[-1].ts_ns + 1, rows[-1].ts_ns + 2)
    assert (later.count, later.first_id, later.open, later.close, price) == (0, -1, *[rows[-1].price] * 3)
    assert market.statistics(PAIR, 0, START)[1] == 0
