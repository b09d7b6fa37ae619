"""The books in a store: each record once, whatever is interrupted, repeated or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringbuf.wire import messages as wire
from settlement.chart import Book, Code
from settlement.derivation import Block, Derivation
from settlement.errors import StoreRefused, StoreUnavailable
from settlement.ledger import HELD_BLOCKS_MAX, Delivery, Ledger, Owner, digest
from settlement.reader import Reader
from settlement.schema import MIGRATIONS, NEWEST, migrate
from settlement.store import one
from tests.kit.composed_exchange import BASE, make_exchange
from tests.kit.ledger_books import Books, FaultyStore, chdb_store
from tests.kit.ledger_market import DAY_NS, START_NS, record_market
from tests.kit.ledger_run import SLOT_SIZE, LedgerRun, Recording
from tests.kit.ledger_stores import KINDS, AnyStore, Stores, mutate, stores_of
from tests.kit.waiting import eventually

TABLES = ("postings", "trades", "orders", "blocks", "assets", "instruments", "accounts", "closes", "days")


@pytest.fixture(scope="module")
def market() -> Recording:
    return record_market(250)


@pytest.fixture(scope="module", params=KINDS)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with stores_of(request.param, tmp_path_factory.mktemp("books")) as made:
        yield made


@pytest.fixture
def store(stores: Stores) -> Iterator[AnyStore]:
    yield stores.fresh()
    stores.close()


def content(store: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the books; of orders the newest. Where blocks end does not count."""
    found = {}
    for table in TABLES:
        if table == "blocks":
            continue
        final = " FINAL" if table in ("orders", "assets", "instruments", "accounts") else ""
        rows = store.select(f"SELECT * FROM {table}{final}")
        names = sorted(rows)
        found[table] = sorted(zip(*(rows[name].tolist() for name in names), strict=True))
    return found


def derived(recording: Recording) -> tuple[Derivation, Block]:
    derivation = Derivation()
    recording.feed(derivation)
    return derivation, derivation.take()


def test_everything_derived_is_stored(store: AnyStore, market: Recording) -> None:
    books = Books(store, market)

    books.run()
    books.stop()

    derivation, block = derived(market)
    for table, columns in (("postings", block.postings), ("trades", block.trades)):
        names = sorted(columns)
        rows = store.select(f"SELECT * FROM {table}")
        got = sorted(zip(*(rows[name].tolist() for name in names), strict=True))
        assert got == sorted(zip(*(columns[name].tolist() for name in names), strict=True))
    sums = store.select(
        "SELECT book, account, asset, sum(available) AS a, sum(held) AS h FROM postings GROUP BY book, account, asset"
    )
    keys = zip(sums["book"].tolist(), sums["account"].tolist(), sums["asset"].tolist(), strict=True)
    stored = dict(zip(keys, zip(sums["a"].tolist(), sums["h"].tolist(), strict=True), strict=True))
    assert stored == {key: units for key, units in derivation.balances().as_dict().items() if key in stored}
    assert one(store.select("SELECT max(end) AS e, count() AS n FROM blocks"))["e"] == market.end
    assert books.ledger.position == market.end


def test_orders_are_stored_as_they_ended(store: AnyStore, market: Recording) -> None:
    books = Books(store, market)
    books.run()
    books.stop()

    _, block = derived(market)
    rows = store.select("SELECT * FROM orders FINAL")
    names = sorted(set(block.orders) - {"client_text"})
    got = sorted(zip(*(rows[name].tolist() for name in names), strict=True))
    assert got == sorted(zip(*(block.orders[name].tolist() for name in names), strict=True))


def test_a_new_consumer_goes_on_where_the_books_end(store: AnyStore, market: Recording, stores: Stores) -> None:
    part = Recording(market.records[: market.end // 2 * SLOT_SIZE], market.reports)
    first = Books(store, part)
    first.run()
    first.stop()
    second = Books(store, market, token=2)
    second.run()
    second.stop()

    between = content(store)

    fresh = stores.fresh()
    whole = Books(fresh, market)
    whole.run()
    whole.stop()
    assert content(fresh) == between


def test_opening_balance_is_that_of_the_last_close_and_what_came_since(store: AnyStore) -> None:
    market = record_market(300, days=5)
    books = Books(store, market)
    books.run()
    books.stop()
    reader = Reader(store, lambda: market.end)
    days = reader.days()
    assert len(days) >= 4
    # At the end of a day, the beginning of the next one, and in the middle of that.
    moments = [(day.day + 1) * DAY_NS + part for day in days for part in (-1, 0, DAY_NS // 2)]

    expected = {}
    for moment in moments:
        for row in reader.balances(before_ns=moment):
            expected[moment, row.book, row.account, row.asset] = (row.available, row.held)
    assert len(expected) > 5 * len(moments)

    def check(since: int) -> int:
        checked = 0
        for (moment, book, account, asset), units in expected.items():
            if moment >= since:
                statement = reader.statement(account, asset, book=Book(book), start_ns=moment, end_ns=moment)
                assert statement.opening == units
                checked += 1
        return checked

    check(0)
    # What lies before the close is not looked at any more.
    mutate(store, f"ALTER TABLE postings DELETE WHERE sequence <= {days[-1].sequence}")
    assert check((days[-1].day + 1) * DAY_NS) > 5


def test_far_behind_blocks_are_larger_and_merges_wait(store: AnyStore, market: Recording, stores: Stores) -> None:
    Books(store, market, batch=8).run()
    small = one(store.select("SELECT count() AS n FROM blocks"))["n"]
    before = content(store)

    faulty = FaultyStore(stores.fresh())
    behind = Books(faulty, market, now_ns=START_NS + DAY_NS, batch=8)
    behind.run()

    assert one(faulty.store.select("SELECT count() AS n FROM blocks"))["n"] < small / 2
    assert content(faulty.store) == before
    eventually(lambda: faulty.held == [True, False])
    behind.stop()


def test_merges_wait_for_so_many_blocks_and_no_more(store: AnyStore, market: Recording) -> None:
    faulty = FaultyStore(store)
    ledger = Ledger(faulty, Owner(1, "host", 1), lambda: 1)
    ledger.open()

    for _ in range(HELD_BLOCKS_MAX):
        ledger.hold_merges(held=True)
    assert faulty.held == [True]
    ledger.hold_merges(held=True)
    assert faulty.held == [True, False]
    ledger.hold_merges(held=True)
    assert faulty.held == [True, False]


def test_block_delivered_again_changes_nothing(store: AnyStore, market: Recording) -> None:
    ledger = Ledger(store, Owner(1, "host", 1), lambda: 1)
    ledger.open()
    _, block = derived(market)
    delivery = Delivery(block, bytes(market.records[-SLOT_SIZE:]))

    ledger.append(delivery)
    once = content(store)
    ledger.append(delivery)

    assert content(store) == once
    with pytest.raises(ValueError, match="does not follow"):
        ledger.append(Delivery(Block(block.end + 5, block.end + 9, 1, 1, *[{}] * 3), b""))


class Planned(StoreUnavailable):
    """A failure of the test's own."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_failure_at_any_call_leaves_the_same_books(
    store: AnyStore, market: Recording, when: str, stores: Stores
) -> None:
    """Every insert, query and mutation fails once, before it is done or after: then the caller cannot know."""
    reference = Books(store, market)
    reference.run()
    reference.stop()
    expected = content(store)
    inner = stores.fresh()
    seen: Counter[str] = Counter()
    failed: list[str] = []

    def fail(what: str, number: int) -> None:
        seen[what] += 1
        if seen[what] in (1, 4, 9) and not what.startswith("SELECT"):
            failed.append(what)
            raise Planned(f"planned at {what}")

    faulty = FaultyStore(inner, **{when: fail})
    books = Books(faulty, market)

    books.run()
    books.stop()

    assert len(failed) > 20
    assert {"INSERT postings", "INSERT blocks", "INSERT orders"} <= set(failed)
    assert books.consumer.status.retries == len(failed)
    assert content(inner) == expected
    keys = one(inner.select("SELECT count() AS rows, uniqExact(sequence, idx) AS keys FROM postings"))
    assert keys["rows"] == keys["keys"]


def test_half_a_block_is_cut_off_before_anything_is_appended(store: AnyStore, market: Recording) -> None:
    ledger = Ledger(store, Owner(1, "host", 1), lambda: 1)
    ledger.open()
    _, block = derived(market)
    store.insert("postings", block.postings)
    store.insert("orders", block.orders)

    again = Ledger(store, Owner(2, "host", 1), lambda: 2)
    again.open()

    assert one(store.select("SELECT count() AS rows FROM postings"))["rows"] == 0
    assert one(store.select("SELECT count() AS rows FROM orders"))["rows"] == 0


# --- closes -----------------------------------------------------------------------------------------------------------


def test_each_day_is_closed_with_the_balances_at_its_end(store: AnyStore) -> None:
    market = record_market(120, days=4)
    books = Books(store, market)

    books.run()
    books.stop()

    days = store.select("SELECT day, sequence, accounts FROM days ORDER BY day")
    assert len(days["day"]) >= 3
    times = np.frombuffer(bytes(market.records), np.uint64)[14::16]
    for day, sequence in zip(days["day"].tolist(), days["sequence"].tolist(), strict=True):
        assert times[sequence] // DAY_NS == day < times[sequence + 1] // DAY_NS
        derivation = Derivation()
        market.feed(derivation, sequence + 1)
        rows = store.select(f"SELECT book, account, asset, available, held FROM closes WHERE day = {day}")
        keys = zip(rows["book"].tolist(), rows["account"].tolist(), rows["asset"].tolist(), strict=True)
        values = zip(rows["available"].tolist(), rows["held"].tolist(), strict=True)
        assert dict(zip(keys, values, strict=True)) == derivation.balances().as_dict()


def test_day_is_closed_although_the_books_ended_exactly_there(store: AnyStore) -> None:
    market = record_market(60, days=2)
    times = np.frombuffer(bytes(market.records), np.uint64)[14::16]
    midnight = int(np.searchsorted(times, (int(times[0]) // DAY_NS + 1) * DAY_NS))
    first = Books(store, Recording(market.records[: midnight * SLOT_SIZE], market.reports))
    first.run()
    first.stop()
    assert first.ledger.position == midnight
    assert len(store.select("SELECT day FROM days")["day"]) == 0

    second = Books(store, market, token=2)
    second.run()
    second.stop()

    days = store.select("SELECT day, sequence FROM days ORDER BY day")
    assert days["sequence"].tolist()[0] == midnight - 1


def test_money_in_transit_is_listed_until_it_is_voided_or_posted(store: AnyStore) -> None:
    exchange = make_exchange()
    run = LedgerRun(exchange.engine)
    account = exchange.account(base=1000)
    for amount, reference in ((-300, 7), (-200, 8), (300, 7), (-50, 9), (0, 9)):
        exchange.admin(
            wire.BalanceAdjust(
                amount=amount, account_id=account, asset_id=BASE, reference=reference, kind=wire.BalanceKind.WITHDRAWAL
            )
        )
    run.follow()
    exchange.engine.close()
    books = Books(store, run.recording)
    books.run()
    books.stop()

    found = Reader(store, lambda: run.recording.end).in_transit()

    assert [(row.book, row.reference, row.asset, row.units) for row in found] == [(Book.WITHDRAWALS, 8, BASE, 200)]
    codes = store.select("SELECT code FROM postings WHERE book = 21 ORDER BY sequence")["code"].tolist()
    assert codes == [
        Code.WITHDRAWAL_PENDING,
        Code.WITHDRAWAL_PENDING,
        Code.WITHDRAWAL_VOIDED,
        Code.WITHDRAWAL_PENDING,
        Code.WITHDRAWAL_POSTED,
    ]


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_newer_schema_is_refused(store: AnyStore) -> None:
    assert migrate(store, None, now_ns=1) == len(MIGRATIONS)
    assert migrate(store, None, now_ns=2) == 0
    store.execute(f"INSERT INTO schema_migrations SELECT toUInt32({NEWEST + 1}), 'later', toUInt32(1), toUInt64(1)")

    with pytest.raises(StoreRefused, match=f"has schema {NEWEST + 1}, this program knows {NEWEST}"):
        migrate(store, None, now_ns=3)


def test_migration_made_in_another_form_is_refused(store: AnyStore) -> None:
    migrate(store, None, now_ns=1)
    mutate(store, "ALTER TABLE schema_migrations UPDATE checksum = 5 WHERE number = 1")

    with pytest.raises(StoreRefused, match="schema 1 was made in another form"):
        migrate(store, None, now_ns=2)


def halt(books: Books) -> str:
    for _ in range(100_000):
        books.consumer.step()
        if books.consumer.status.state == "halted":
            return books.consumer.status.trouble
    raise AssertionError(books.consumer.status)


def test_books_of_another_exchange_are_refused(store: AnyStore, market: Recording) -> None:
    books = Books(store, market)
    books.run()
    books.stop()
    other = Recording(bytearray(market.records), market.reports)
    other.records[32:40] = (12345).to_bytes(8, "little")
    again = Books(store, other, token=2)

    assert "has the books of another exchange" in halt(again)
    again.stop()


def test_log_with_another_past_is_refused(store: AnyStore, market: Recording) -> None:
    books = Books(store, market)
    books.run()
    books.stop()
    other = Recording(bytearray(market.records), market.reports)
    other.records[-SLOT_SIZE + 24] ^= 1
    again = Books(store, other, token=2)

    assert f"record {market.end - 1} of the log is not the one the books end with" in halt(again)
    again.stop()


def test_log_shorter_than_the_books_is_refused(store: AnyStore, market: Recording) -> None:
    books = Books(store, market)
    books.run()
    books.stop()
    shorter = Books(store, Recording(market.records[: -5 * SLOT_SIZE], market.reports), token=2)

    assert f"the books end at record {market.end}, the log at {market.end - 5}" in halt(shorter)
    shorter.stop()


def test_consumer_that_was_replaced_stops_writing(store: AnyStore, market: Recording) -> None:
    _, block = derived(market)
    old = Ledger(store, Owner(1, "one", 1), lambda: 1)
    old.open()
    new = Ledger(store, Owner(2, "two", 2), lambda: 2)
    new.open()

    with pytest.raises(StoreRefused, match="another consumer has taken the books over"):
        old.append(Delivery(block, b""))
    with pytest.raises(StoreRefused, match="another consumer has taken the books over"):
        old.open()


@pytest.mark.parametrize(
    ("sql", "said"),
    [("SELECT nonsense FROM nowhere", "Code: 60"), ("SELECT throwIf(1)", "Code: 395"), ("SELECT )", "Code: 62")],
)
def test_store_errors_keep_their_text(store: AnyStore, sql: str, said: str) -> None:
    with pytest.raises(StoreRefused, match=said):
        store.select(sql)


def test_second_process_on_the_directory_is_told_so(tmp_path: Path) -> None:
    first = chdb_store(tmp_path / "store")

    with pytest.raises(StoreUnavailable, match="another process has the store in"):
        chdb_store(tmp_path / "store")
    first.close()


def test_digest_tells_records_apart() -> None:
    assert digest(b"a" * 128) != digest(b"b" * 128)
