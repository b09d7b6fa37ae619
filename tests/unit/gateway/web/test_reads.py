"""Long reads of the store go on beside the event loop: nobody else waits for them, and there are only so many."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from gateway.web import public, reads
from gateway.web.account import my_trades
from gateway.web.api import Call
from gateway.web.errors import ApiError
from gateway.web.market_view import DayStatistics, StoreMarketView
from gateway.web.order_queries import find
from gateway.web.orders import COLUMNS, OrderState
from gateway.web.reads import THREADS, StoreReads
from gateway.web.reference import Asset, Instrument, Key, Reference
from gateway.web.store import HistoryStore, StoreReader
from ringbuf.wire import messages as wire

ACCOUNT = 7
DEADLINE_S = 60.0
PAIR = Instrument(
    1, "BTC-USDT", base_asset=1, quote_asset=2, partition=1, tick_size=1, price_exponent=-2, lot_size=1,
    qty_exponent=-5, quote_per_tick_lot=10, base_per_lot=1000,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one order, one fill and one trade."""
    store = HistoryStore.open(tmp_path / "h.db", cluster=1, log_end=0)
    fields: dict[str, Any] = dict.fromkeys(COLUMNS, 0)
    fields |= {
        "instrument": 1,
        "order_id": 5,
        "account": ACCOUNT,
        "client_id": "mine",
        "status": int(wire.OrdStatus.NEW),
    }
    store.put_orders([OrderState(**fields)])
    store.put_rows("fills", [(ACCOUNT, 1, 9, 5, -1, 100, 3, 3000, 0, 1, 1, 0, 10**18)])
    store.put_rows("trades", [(1, 9, 9, 100, 3, 3000, 10**18, 0, 5)])
    store.close()
    return tmp_path / "h.db"


@pytest.fixture
def call(path: Path) -> Call:
    """A signed request to a gateway that has this store and two lines of reads."""
    public_reads, private_reads = StoreReads(path), StoreReads(path)
    reference = Reference()
    for thing in (Asset(1, "BTC", -8), Asset(2, "USDT", -8), PAIR):
        reference.put(thing)

    async def read_market(work: Callable[[StoreMarketView], Any]) -> Any:
        return await public_reads.run(lambda store: work(StoreMarketView(store)))

    gateway: Any = SimpleNamespace(
        store=StoreReader(path), read=private_reads.run, read_market=read_market, reference=reference,
        caught_up=AsyncMock(), now_us=lambda: 0, day_statistics=DayStatistics(public_reads),
    )  # fmt: skip
    key = Key("k", ACCOUNT, permissions=3, credential=1, material="")
    return Call(gateway, {}, {"symbol": "BTCUSDT", "interval": "1m"}, key)


def test_others_are_answered_while_candles_are_read(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, held = threading.Event(), threading.Event()
    plain = StoreMarketView.candles

    def candles(*arguments: Any) -> Any:
        begun.set()
        assert held.wait(DEADLINE_S)
        return plain(*arguments)

    monkeypatch.setattr(StoreMarketView, "candles", candles)

    async def scenario() -> None:
        reading = [asyncio.create_task(public.klines(call)) for _ in range(THREADS + 3)]
        while not begun.is_set():
            await asyncio.sleep(0)

        trades = await my_trades(call)
        order = await find(call, PAIR, 5, None)

        assert not held.is_set()
        assert not any(task.done() for task in reading)
        assert ([trade["id"] for trade in trades], order.client_id) == ([9], "mine")
        held.set()
        assert [[candle[8] for candle in candles] for candles in await asyncio.gather(*reading)] == [[1]] * len(reading)

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_statistics_of_a_day_are_read_once_for_all_who_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, count = threading.Event(), 0
    plain = StoreMarketView.statistics

    def statistics(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        assert held.wait(DEADLINE_S)
        return plain(*arguments)

    monkeypatch.setattr(StoreMarketView, "statistics", statistics)

    async def scenario() -> None:
        days = DayStatistics(StoreReads(path))
        waiting = [asyncio.create_task(days.get([PAIR], 0, 2 * 10**18)) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # one who leaves takes nothing from the others
        held.set()

        for task in waiting[1:]:
            [(bar, _)] = await task
            assert (bar.count, bar.volume) == (1, 3)
        assert count == 1

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_statistics_that_could_not_be_read_are_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        days = DayStatistics(StoreReads(path))
        with monkeypatch.context() as broken:
            broken.setattr(reads, "READS_MAX", 0)
            with pytest.raises(ApiError):
                await days.get([PAIR], 0, 2 * 10**18)

        [(bar, _)] = await days.get([PAIR], 0, 2 * 10**18)

        assert bar.count == 1

    asyncio.run(scenario())


def test_reads_beyond_the_limit_are_refused_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "READS_MAX", 3)
    held = threading.Event()

    async def scenario() -> None:
        lane = StoreReads(path)
        under_way = [asyncio.create_task(lane.run(lambda _: held.wait(DEADLINE_S))) for _ in range(3)]
        await asyncio.sleep(0)

        with pytest.raises(ApiError) as refused:
            await lane.run(lambda _: None)

        assert (refused.value.code, refused.value.status, lane.refused) == (-1008, 503, 1)
        held.set()
        assert await asyncio.gather(*under_way) == [True] * 3
        assert await lane.run(lambda store: len(store.orders("1", ()))) == 1
        lane.close()

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_store_that_was_made_again_is_read_after_renew(path: Path) -> None:
    async def scenario() -> None:
        lane = StoreReads(path)
        assert await lane.run(lambda store: len(store.orders("1", ()))) == 1
        HistoryStore.open(path, cluster=2, log_end=0).close()  # of another log: a new file in its place

        lane.renew()

        assert await lane.run(lambda store: len(store.orders("1", ()))) == 0
        lane.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("moment", [9_999_999_999_999, (1 << 63) - 1])
@pytest.mark.parametrize("interval", ["1s", "1M"])
def test_times_far_in_the_future_are_times(call: Call, moment: int, interval: str) -> None:
    """Their nanoseconds have more than 64 bits: that was an internal error."""
    late, until = {"startTime": moment}, {"endTime": moment}

    def ask(handler: Any, times: dict[str, int]) -> Any:
        return asyncio.run(handler(replace(call, values={**call.values, "interval": interval, **times})))

    assert [candle[8] for candle in ask(public.klines, until)] == [1]
    assert [trade["a"] for trade in ask(public.aggregate_trades, until)] == [9]
    assert [trade["id"] for trade in ask(my_trades, until)] == [9]
    assert ask(public.klines, late) == ask(public.aggregate_trades, late) == ask(my_trades, late) == []
