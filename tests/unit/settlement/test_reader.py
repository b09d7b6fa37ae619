"""What the books answer is what the recorded market did: recomputed here from the raw reports, the slow way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringbuf.wire import messages as wire
from settlement.chart import Book
from settlement.derivation import Derivation
from settlement.reader import NS_MAX, BalanceRow, Reader, bounded
from tests.kit.composed_exchange import BASE, PAIR, QUOTE
from tests.kit.ledger_books import Books
from tests.kit.ledger_market import DAY_NS, record_market
from tests.kit.ledger_run import SLOT_SIZE, Recording
from tests.kit.ledger_stores import KINDS, AnyStore, stores_of

ACCOUNTS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def market() -> Recording:
    return record_market(300, days=3)


@pytest.fixture(scope="module", params=KINDS)
def store(
    request: pytest.FixtureRequest, market: Recording, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AnyStore]:
    with stores_of(request.param, tmp_path_factory.mktemp("reader")) as stores:
        opened = stores.fresh()
        books = Books(opened, market)
        books.run()
        books.stop()
        yield opened


@pytest.fixture
def reader(store: AnyStore, market: Recording) -> Reader:
    return Reader(store, lambda: market.end)


def reports(market: Recording, kind: type) -> list[Any]:
    """Return all reports of a kind of partition 1, in order."""
    slots = market.reports[1]
    found = []
    for at in range(0, len(slots), SLOT_SIZE):
        if int.from_bytes(slots[at + 4 : at + 6], "little") == kind.TEMPLATE_ID:  # type: ignore[attr-defined]
            found.append(kind.unpack(slots, at + 32))  # type: ignore[attr-defined]
    return found


def times(market: Recording) -> list[int]:
    return [
        int.from_bytes(market.records[at + 112 : at + 120], "little") for at in range(0, len(market.records), SLOT_SIZE)
    ]


# --- definitions and balances -----------------------------------------------------------------------------------------


def test_definitions_have_their_names(reader: Reader) -> None:
    assert [(asset.asset, asset.symbol) for asset in reader.assets()] == [(BASE, "BASE"), (QUOTE, "QUOTE")]
    assert reader.instrument(PAIR).symbol == "BASE-QUOTE"
    with pytest.raises(LookupError, match="unknown instrument 9"):
        reader.instrument(9)


def test_balances_at_any_record_are_what_the_log_says_there(reader: Reader, market: Recording) -> None:
    for end in range(1, market.end, market.end // 9):
        derivation = Derivation()
        market.feed(derivation, end)
        expected = {key: units for key, units in derivation.balances().as_dict().items() if units != (0, 0)}

        rows = reader.balances(at=end)

        got = {(row.book, row.account, row.asset): (row.available, row.held) for row in rows}
        assert {key: units for key, units in got.items() if units != (0, 0)} == expected


def test_balances_before_a_moment_are_those_at_its_first_record(reader: Reader, market: Recording) -> None:
    stamps = times(market)
    for sequence in range(5, market.end, market.end // 7):
        assert reader.balances(before_ns=stamps[sequence]) == reader.balances(at=sequence)


def test_balances_of_one_account_are_its_own(reader: Reader) -> None:
    everything = reader.balances()

    for account in ACCOUNTS:
        assert reader.balances(account) == [row for row in everything if row.book == 1 and row.account == account]
    assert reader.balances(book=Book.TREASURY) == [row for row in everything if row.book == Book.TREASURY]


def test_trial_balance_sums_to_zero_in_every_asset_at_any_time(reader: Reader, market: Recording) -> None:
    for moment in (*times(market)[:: market.end // 11], NS_MAX):
        sums: dict[int, int] = defaultdict(int)
        for row in reader.trial_balance(before_ns=moment):
            sums[row.asset] += row.available + row.held
        assert set(sums.values()) <= {0}
    assert {row.book for row in reader.trial_balance()} >= {Book.CLIENT, Book.FEES, Book.REBATES, Book.TREASURY}


# --- statements -------------------------------------------------------------------------------------------------------


def test_statement_goes_from_opening_to_closing_balance(reader: Reader, market: Recording) -> None:
    stamps = times(market)
    start, end = stamps[market.end // 3], stamps[2 * market.end // 3]
    for account in ACCOUNTS:
        for asset in (BASE, QUOTE):
            statement = reader.statement(account, asset, start_ns=start, end_ns=end)

            assert statement.opening == balance_of(reader.balances(account, before_ns=start), asset)
            assert statement.closing == balance_of(reader.balances(account, before_ns=end), asset)
            lines = statement.lines
            assert len(lines["sequence"]) > 5
            running = statement.opening
            for row in range(len(lines["sequence"])):
                running = (running[0] + int(lines["available"][row]), running[1] + int(lines["held"][row]))
                assert running == (int(lines["available_after"][row]), int(lines["held_after"][row]))
            assert running == statement.closing
            assert min(lines["ts_ns"]) >= start
            assert max(lines["ts_ns"]) < end


def balance_of(rows: list[BalanceRow], asset: int) -> tuple[int, int]:
    found = [(row.available, row.held) for row in rows if row.asset == asset]
    return found[0] if found else (0, 0)


def test_statement_without_postings_stands_still(reader: Reader, market: Recording) -> None:
    statement = reader.statement(1, BASE, start_ns=times(market)[-1] + DAY_NS)

    assert statement.opening == statement.closing == balance_of(reader.balances(1), BASE)
    assert len(statement.lines["sequence"]) == 0
    assert reader.statement(77, BASE).closing == (0, 0)


# --- histories --------------------------------------------------------------------------------------------------------


def expected_trades(market: Recording, account: int) -> list[tuple[Any, ...]]:
    return [
        (fill.trade_id, fill.order_id, fill.last_px, fill.last_qty, fill.fee, fill.transact_time,
         fill.side == wire.Side.BUY, fill.liquidity == wire.Liquidity.MAKER)
        for fill in reports(market, wire.OrderExecuted)
        if fill.account_id == account
    ]  # fmt: skip


@pytest.mark.parametrize("account", ACCOUNTS)
def test_account_trades_are_the_fills_reported(reader: Reader, market: Recording, account: int) -> None:
    expected = expected_trades(market, account)

    fills = reader.account_trades(account, instrument=PAIR, limit=10_000)

    assert len(expected) > 10
    assert [
        (fill.trade_id, fill.order_id, fill.price, fill.quantity, fill.fee, fill.time_ns, fill.is_buyer, fill.is_maker)
        for fill in fills
    ] == expected
    assert [fill.amount for fill in fills] == [fill.price * fill.quantity for fill in fills]
    assert fills == reader.account_trades(account, limit=10_000)
    own = [report for report in reports(market, wire.OrderExecuted) if report.account_id == account]
    for fill, report in zip(fills, own, strict=True):
        assert fill.fee == 0 or fill.fee_asset == report.fee_asset_id


def test_account_trades_by_id_order_time_and_limit(reader: Reader, market: Recording) -> None:
    everything = reader.account_trades(1, instrument=PAIR, limit=10_000)
    middle = everything[len(everything) // 2]

    assert (
        reader.account_trades(1, instrument=PAIR, from_trade_id=middle.trade_id, limit=3)
        == [fill for fill in everything if fill.trade_id >= middle.trade_id][:3]
    )
    assert reader.account_trades(1, instrument=PAIR, order_id=middle.order_id) == [
        fill for fill in everything if fill.order_id == middle.order_id
    ]
    assert reader.account_trades(1, instrument=PAIR, start_ns=middle.time_ns, limit=10_000) == [
        fill for fill in everything if fill.time_ns >= middle.time_ns
    ]
    assert reader.account_trades(1, instrument=PAIR, limit=4, newest=True) == everything[-4:]
    with pytest.raises(LookupError, match="unknown instrument 5"):
        reader.account_trades(1, instrument=5)


def test_orders_end_as_their_last_report_says(reader: Reader, market: Recording) -> None:
    ended = {report.order_id: report for report in reports(market, wire.OrderCanceled)}
    filled: dict[int, int] = defaultdict(int)
    for fill in reports(market, wire.OrderExecuted):
        filled[fill.order_id] += fill.last_qty
    accepted = {report.order_id: report for report in reports(market, wire.OrderAccepted)}
    seen = 0
    for account in ACCOUNTS:
        orders = reader.account_orders(account, instrument=PAIR, limit=10_000)
        assert [order.order_id for order in orders] == sorted(order.order_id for order in orders)
        for order in orders:
            seen += 1
            report = accepted[order.order_id]
            assert (order.account, order.side, order.order_type) == (account, report.side, report.ord_type)
            assert order.client_id == report.cl_ord_id or order.order_id in {
                r.order_id for r in reports(market, wire.OrderReplaced)
            }
            assert order.filled == filled[order.order_id]
            if order.order_id in ended:
                assert (order.status, order.reason) == (
                    ended[order.order_id].ord_status,
                    ended[order.order_id].cancel_reason,
                )
            assert order.stop_price is None
            assert order.expire_s is None
    assert seen == len(accepted)


def test_orders_by_id_time_and_limit(reader: Reader) -> None:
    everything = reader.account_orders(2, instrument=PAIR, limit=10_000)
    middle = everything[len(everything) // 2]

    assert reader.account_orders(2, instrument=PAIR, order_id=middle.order_id) == [middle]
    assert (
        reader.account_orders(2, instrument=PAIR, from_order_id=middle.order_id, limit=2)
        == everything[len(everything) // 2 :][:2]
    )
    assert reader.account_orders(2, instrument=PAIR, limit=3, newest=True) == everything[-3:]
    assert reader.account_orders(2, instrument=PAIR, end_ns=middle.created_ns, limit=10_000) == [
        order for order in everything if order.created_ns < middle.created_ns
    ]
    assert reader.account_orders(2, client_text="nobody") == []


@pytest.mark.parametrize("kind", KINDS)
def test_orders_of_all_pairs_are_by_age(kind: str, market: Recording, tmp_path: Path) -> None:
    with stores_of(kind, tmp_path) as stores:
        store = stores.fresh()
        books = Books(store, market)
        books.run()
        books.stop()
        # The same orders a little later in another pair, whose ids are lower.
        rows = store.select("SELECT * FROM orders FINAL WHERE account = 2")
        rows["instrument"] = rows["instrument"] + np.uint32(1)
        rows["created_ns"] = rows["created_ns"] + np.uint64(1)
        rows["order_id"] = np.arange(1, len(rows["order_id"]) + 1, dtype=np.uint64)
        store.insert("orders", rows)
        reader = Reader(store, lambda: market.end)

        everything = reader.account_orders(2, limit=10_000)

        assert {order.instrument for order in everything} == {PAIR, PAIR + 1}
        assert [order.created_ns for order in everything] == sorted(order.created_ns for order in everything)
        newest = reader.account_orders(2, limit=4, newest=True)
        assert newest == everything[-4:]
        assert {order.instrument for order in newest} == {PAIR, PAIR + 1}


def test_public_trades_and_candles_are_the_takers_fills(reader: Reader, market: Recording) -> None:
    takers = [fill for fill in reports(market, wire.OrderExecuted) if fill.liquidity == wire.Liquidity.TAKER]

    trades = reader.trades(PAIR, from_trade_id=0, limit=10_000)

    assert [(trade.trade_id, trade.price, trade.quantity, trade.time_ns, trade.buyer_is_maker) for trade in trades] == [
        (fill.trade_id, fill.last_px, fill.last_qty, fill.transact_time, fill.side == wire.Side.SELL) for fill in takers
    ]
    assert reader.trades(PAIR, limit=5) == trades[-5:]
    hour = 3_600_000_000_000
    candles = reader.candles(PAIR, hour, limit=10_000)
    by_hour: dict[int, list[Any]] = defaultdict(list)
    for fill in takers:
        by_hour[fill.transact_time // hour * hour].append(fill)
    assert [candle.open_ns for candle in candles] == sorted(by_hour)
    for candle in candles:
        fills = by_hour[candle.open_ns]
        prices = [fill.last_px for fill in fills]
        assert (candle.open, candle.high, candle.low, candle.close) == (prices[0], max(prices), min(prices), prices[-1])
        assert candle.quantity == sum(fill.last_qty for fill in fills)
        assert candle.amount == sum(fill.last_qty * fill.last_px for fill in fills)
        assert candle.trades == len(fills)
        bought = [fill for fill in fills if fill.side == wire.Side.BUY]
        assert candle.taker_buy_quantity == sum(fill.last_qty for fill in bought)
        assert candle.taker_buy_amount == sum(fill.last_qty * fill.last_px for fill in bought)
    assert reader.candles(PAIR, hour, limit=2) == candles[-2:]
    assert reader.candles(PAIR, hour, limit=2, newest=False) == candles[:2]


# --- reports ----------------------------------------------------------------------------------------------------------


def test_fees_add_up_to_the_houses_books(reader: Reader) -> None:
    house = {(row.book, row.asset): row.available for row in reader.trial_balance()}
    for groups in ((), ("instrument",), ("account",), ("tier", "account"), ("instrument", "account", "tier")):
        fees: dict[int, int] = defaultdict(int)
        rebates: dict[int, int] = defaultdict(int)
        rounding: dict[int, int] = defaultdict(int)
        for row in reader.fees(groups):
            fees[row.asset] += row.fees
            rebates[row.asset] += row.rebates
            rounding[row.asset] += row.rounding
        for asset in (BASE, QUOTE):
            assert fees[asset] - rounding[asset] == house.get((Book.FEES, asset), 0)
            assert rounding[asset] == house.get((Book.DUST, asset), 0)
            assert rebates[asset] == -house.get((Book.REBATES, asset), 0)
        assert sum(rounding.values()) > 0


def test_fees_of_an_account_are_those_of_its_fills(reader: Reader, market: Recording) -> None:
    fills = [fill for fill in reports(market, wire.OrderExecuted) if fill.account_id == 3]

    rows = reader.fees(("account",), account=3)

    assert sum(row.fills for row in rows) == len(fills)
    assert sum(row.quantity for row in rows) == sum(fill.last_qty for fill in fills)
    assert sum(row.fees for row in rows) == sum(fill.fee for fill in fills if fill.fee > 0)
    assert {row.account for row in rows} == {3}
    with pytest.raises(ValueError, match="fees by colour: must be instrument, account or tier"):
        reader.fees(("colour",))


def test_closed_days_are_listed_with_their_balances(reader: Reader) -> None:
    days = reader.days()

    assert len(days) >= 2
    for day in days:
        rows = reader.closes(day.day)
        assert len(rows) == day.accounts
        nothing = [row for row in rows if (row.available, row.held) != (0, 0)]
        at_end = [row for row in reader.balances(at=day.sequence + 1) if (row.available, row.held) != (0, 0)]
        assert nothing == at_end
    assert reader.closes(1) == []


def test_answers_stop_at_the_position(store: AnyStore, market: Recording) -> None:
    """A reader between two inserts of a block must not see the first one."""
    half = Reader(store, lambda: market.end // 2)

    assert half.balances() == half.balances(at=market.end // 2)
    assert half.balances() != Reader(store, lambda: market.end).balances()
    sums: dict[int, int] = defaultdict(int)
    for row in half.trial_balance():
        sums[row.asset] += row.available + row.held
    assert set(sums.values()) == {0}


@pytest.mark.parametrize("limit", [0, -1, 1_000_001])
def test_limits_out_of_range_are_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit = {limit}: must be 1..1000000"):
        bounded(limit)


def test_rows_are_plain_values(reader: Reader) -> None:
    fill = reader.account_trades(1, limit=1)[0]

    assert replace(fill, price=1).price == 1
    assert all(type(value) in (int, bool) for value in (fill.trade_id, fill.fee, fill.time_ns, fill.is_buyer))
