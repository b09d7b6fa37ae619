"""Histories as the gateways ask for them: over the socket, with the order and limits the web API promises."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from ringbuf.wire import messages as wire
from settlement.answers import answers
from settlement.history import DAY_NS, INTERVALS_NS, History, HistoryError
from settlement.overview import overview
from settlement.reader import Reader
from settlement.service import Service
from tests.kit.composed_exchange import PAIR
from tests.kit.ledger_books import Books, chdb_store
from tests.kit.ledger_market import record_market

T = TypeVar("T")
SECOND_NS = 1_000_000_000


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    market = record_market(300, days=70)
    store = chdb_store(tmp_path_factory.mktemp("history") / "store")
    books = Books(store, market)
    books.run()
    books.stop()
    yield Reader(store, lambda: market.end)
    store.close()


@pytest.fixture
def path(reader: Reader, tmp_path: Path) -> Iterator[Path]:
    service = Service(tmp_path / "ledger.sock", answers(reader, lambda: {"state": "running"}))
    yield tmp_path / "ledger.sock"
    service.close()


def ask(path: Path, question: Callable[[History], Awaitable[T]]) -> T:
    async def run() -> T:
        history = History(path, timeout_s=60)
        try:
            return await question(history)
        finally:
            await history.close()

    return asyncio.run(run())


def test_trades_without_bounds_are_the_newest(path: Path, reader: Reader) -> None:
    everything = reader.account_trades(1, instrument=PAIR, limit=10_000)

    found = ask(path, lambda history: history.my_trades(1, instrument=PAIR, limit=3))

    assert len(everything) > 10
    assert found == everything[-3:]


def test_trades_from_a_start_or_id_are_the_oldest_from_there(path: Path, reader: Reader) -> None:
    everything = reader.account_trades(1, instrument=PAIR, limit=10_000)
    middle = everything[5]

    from_start = ask(path, lambda history: history.my_trades(1, start_ns=middle.time_ns, limit=2))
    from_id = ask(path, lambda history: history.my_trades(1, instrument=PAIR, from_trade_id=middle.trade_id, limit=2))
    up_to = ask(path, lambda history: history.my_trades(1, end_ns=middle.time_ns, limit=2))

    assert from_start[0].time_ns == middle.time_ns
    assert from_id == everything[5:7]
    assert up_to == [trade for trade in everything if trade.time_ns < middle.time_ns][-2:]


def test_orders_newest_or_from_an_id(path: Path, reader: Reader) -> None:
    everything = reader.account_orders(2, limit=10_000)

    newest = ask(path, lambda history: history.all_orders(2, limit=4))
    onwards = ask(path, lambda history: history.all_orders(2, from_order_id=everything[3].order_id, limit=4))
    one = ask(path, lambda history: history.order(2, PAIR, order_id=everything[3].order_id))
    none = ask(path, lambda history: history.order(2, PAIR, order_id=2**40))

    assert newest == everything[-4:]
    assert onwards == everything[3:7]
    assert one == everything[3]
    assert none is None


def test_public_trades_carry_their_side(path: Path, reader: Reader) -> None:
    found = ask(path, lambda history: history.trades(PAIR, limit=5))

    assert found == reader.trades(PAIR, limit=5)
    assert {trade.maker_side for trade in found} <= set(wire.Side)


@pytest.mark.parametrize("interval", sorted(INTERVALS_NS))
def test_candles_open_where_their_interval_does(path: Path, reader: Reader, interval: str) -> None:
    trades = reader.trades(PAIR, from_trade_id=0, limit=100_000)

    found = ask(path, lambda history: history.klines(PAIR, interval, limit=100_000))

    assert sum(candle.trades for candle in found) == len(trades)
    assert sum(candle.quantity for candle in found) == sum(trade.quantity for trade in trades)
    begin = 4 * DAY_NS if interval == "1w" else 0
    assert all((candle.open_ns - begin) % INTERVALS_NS[interval] == 0 for candle in found)
    assert [candle.open_ns for candle in found] == sorted({candle.open_ns for candle in found})


def test_weeks_begin_on_monday_and_months_on_the_first(path: Path, reader: Reader) -> None:
    weeks = ask(path, lambda history: history.klines(PAIR, "1w"))
    months = ask(path, lambda history: history.klines(PAIR, "1M"))

    assert {datetime.fromtimestamp(candle.open_ns // SECOND_NS, UTC).weekday() for candle in weeks} == {0}
    assert {datetime.fromtimestamp(candle.open_ns // SECOND_NS, UTC).day for candle in months} == {1}
    assert len(months) >= 3
    trades = reader.trades(PAIR, from_trade_id=0, limit=100_000)
    second = [trade for trade in trades if months[1].open_ns <= trade.time_ns < months[2].open_ns]
    month = months[1]
    assert (month.open, month.close, month.trades) == (second[0].price, second[-1].price, len(second))
    assert (month.high, month.low) == (max(t.price for t in second), min(t.price for t in second))
    assert month.quantity == sum(trade.quantity for trade in second)


def test_candles_of_another_zone_and_from_a_start(path: Path) -> None:
    east = ask(path, lambda history: history.klines(PAIR, "1d", zone_ns=2 * 3600 * SECOND_NS))
    all_days = ask(path, lambda history: history.klines(PAIR, "1d"))
    later = ask(path, lambda history: history.klines(PAIR, "1d", start_ns=all_days[2].open_ns - 5, limit=2))
    months = ask(path, lambda history: history.klines(PAIR, "1M"))
    from_second = ask(path, lambda history: history.klines(PAIR, "1M", start_ns=months[0].open_ns + 1, limit=1))

    assert all(candle.open_ns % DAY_NS == 22 * 3600 * SECOND_NS for candle in east)
    assert later == all_days[2:4]
    assert from_second == months[1:2]


def test_questions_at_the_same_time_do_not_disturb_each_other(path: Path, reader: Reader) -> None:
    async def many(history: History) -> list[int]:
        found = await asyncio.gather(*(history.my_trades(1 + n % 4, limit=7) for n in range(20)))
        return [len({trade.account for trade in trades}) for trades in found]

    assert ask(path, many) == [1] * 20


def test_errors_say_whose_fault_it_is(path: Path, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="must be one of 1s") as wrong:
        ask(path, lambda history: history.klines(PAIR, "2m"))
    with pytest.raises(HistoryError, match="unknown instrument 77") as unknown:
        ask(path, lambda history: history.my_trades(1, instrument=77))
    with pytest.raises(HistoryError, match="does not answer") as away:
        ask(tmp_path / "nobody", lambda history: history.status())

    assert (wrong.value.kind, unknown.value.kind, away.value.kind) == ("request", "request", "unavailable")


def test_connection_is_made_again_when_the_ledger_was_restarted(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sock"

    async def twice() -> tuple[str, str]:
        history = History(path, timeout_s=60)
        first = Service(path, answers(reader, lambda: {"state": "first"}))
        before = (await history.status())["state"]
        # The connection's own thread of the service ends with its socket.
        history._free[0][1].transport.abort()
        await asyncio.sleep(0)
        first.close()
        second = Service(path, answers(reader, lambda: {"state": "second"}))
        after = (await history.status())["state"]
        await history.close()
        second.close()
        return before, after

    assert asyncio.run(twice()) == ("first", "second")


def test_overview_is_balanced_and_plain(path: Path, reader: Reader) -> None:
    found = ask(path, lambda history: history.overview())

    assert found == overview(reader, {"state": "running"})
    assert found["balanced"] is True
    assert set(map(float, found["sums"].values())) == {0.0}
    assert {row["book"] for row in found["trial_balance"]} >= {"client", "treasury", "fees"}
    assert found["last_closed_day"]["accounts"] > 0
