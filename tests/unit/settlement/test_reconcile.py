"""Every planted fault in the store or between ledger and exchange is found, and the first wrong record is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ringbuf.wire import messages as wire
from settlement.derivation import Columns, Derivation
from settlement.reconcile import compare_engine, compare_store, first_wrong_record, recount
from tests.kit.ledger_books import Books, RecordingSource
from tests.kit.ledger_market import record_market
from tests.kit.ledger_run import SLOT_SIZE, Recording
from tests.kit.ledger_stores import KINDS, AnyStore, Stores, mutate, stores_of

BLOCK = 32


@pytest.fixture(scope="module")
def market() -> Recording:
    return record_market(200, partitions=1)


@pytest.fixture(scope="module", params=KINDS)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with stores_of(request.param, tmp_path_factory.mktemp("reconcile")) as made:
        yield made


@pytest.fixture
def store(stores: Stores, market: Recording) -> Iterator[AnyStore]:
    opened = stores.fresh()
    books = Books(opened, market)
    books.run()
    books.stop()
    yield opened
    stores.close()


def derived(market: Recording) -> Derivation:
    derivation = Derivation()
    market.feed(derivation)
    return derivation


def no_progress(position: int) -> None:
    assert position > 0


def test_sound_store_agrees(store: AnyStore, market: Recording) -> None:
    result = compare_store(store, derived(market).balances())

    assert result.good
    assert result.sentence == ""
    assert result.compared > 8


# --- faults in the store ----------------------------------------------------------------------------------------------


def one_posting(store: AnyStore) -> Columns:
    """Return a hold of account 2 in the middle of the books, as columns of one row."""
    return store.select(
        "SELECT * FROM postings WHERE book = 1 AND account = 2 AND code = 10 ORDER BY sequence, idx LIMIT 1 OFFSET 7"
    )


def where(row: Columns) -> str:
    return f"sequence = {row['sequence'][0]} AND idx = {row['idx'][0]}"


def dropped(store: AnyStore) -> str:
    row = one_posting(store)
    mutate(store, f"ALTER TABLE postings DELETE WHERE {where(row)}")
    return f"record {row['sequence'][0]} posting {row['idx'][0]}"


def doubled(store: AnyStore) -> str:
    store.execute("SYSTEM STOP MERGES postings")  # a merge would undo it
    row = one_posting(store)
    store.insert("postings", row)
    return f"record {row['sequence'][0]} posting {row['idx'][0]}"


def given_to_another(store: AnyStore) -> str:
    row = one_posting(store)
    mutate(store, f"ALTER TABLE postings DELETE WHERE {where(row)}")
    row["account"] = np.array([3], np.uint32)
    store.insert("postings", row)
    return f"record {row['sequence'][0]} posting {row['idx'][0]}"


def mis_signed(store: AnyStore) -> str:
    row = one_posting(store)
    mutate(store, f"ALTER TABLE postings UPDATE available = -available, held = -held WHERE {where(row)}")
    return f"record {row['sequence'][0]} posting {row['idx'][0]}"


def a_unit_more(store: AnyStore) -> str:
    row = one_posting(store)
    mutate(store, f"ALTER TABLE postings UPDATE available = available + 1 WHERE {where(row)}")
    return f"record {row['sequence'][0]} posting {row['idx'][0]}"


def lost_block(store: AnyStore) -> str:
    block = store.select("SELECT first, end FROM blocks WHERE postings > 3 ORDER BY end LIMIT 1 OFFSET 2")
    first, end = int(block["first"][0]), int(block["end"][0])
    mutate(store, f"ALTER TABLE postings DELETE WHERE sequence >= {first} AND sequence < {end}")
    return "the log says record"


def block_delivered_twice(store: AnyStore) -> str:
    store.execute("SYSTEM STOP MERGES postings")
    block = store.select("SELECT first, end FROM blocks WHERE postings > 3 ORDER BY end LIMIT 1 OFFSET 2")
    first, end = int(block["first"][0]), int(block["end"][0])
    store.insert("postings", store.select(f"SELECT * FROM postings WHERE sequence >= {first} AND sequence < {end}"))
    return ""


@pytest.mark.parametrize(
    "fault",
    [dropped, doubled, given_to_another, mis_signed, a_unit_more, lost_block, block_delivered_twice],
    ids=lambda fault: fault.__name__,
)
def test_planted_fault_in_the_store_is_found_and_named(
    store: AnyStore, market: Recording, fault: Callable[[AnyStore], str]
) -> None:
    planted = fault(store)

    result = compare_store(store, derived(market).balances())

    assert not result.good
    assert result.sentence
    if result.differences:
        named = first_wrong_record(
            store, Derivation(), RecordingSource(market), result.differences[0].key, market.end
        )
        assert planted in named


def test_rows_too_many_are_found_even_where_every_sum_is_right(store: AnyStore, market: Recording) -> None:
    store.execute("SYSTEM STOP MERGES postings")
    row = one_posting(store)
    back = {name: column.copy() for name, column in row.items()}
    back["available"], back["held"], back["idx"] = -row["available"], -row["held"], np.array([99], np.uint32)
    store.insert("postings", row)
    store.insert("postings", back)

    result = compare_store(store, derived(market).balances())

    assert not result.good
    assert "the store has" in result.sentence
    assert "its blocks were written with" in result.sentence


def test_account_without_a_fault_is_said_to_be_sound(store: AnyStore, market: Recording) -> None:
    named = first_wrong_record(store, Derivation(), RecordingSource(market), (1, 2, 1), market.end)

    assert named == "client:2 asset 1: every posting of it is as the log says"


# --- recount ----------------------------------------------------------------------------------------------------------


def test_recount_gives_the_same_books_in_any_part(market: Recording) -> None:
    for end in (market.end // 3, market.end):
        expected = Derivation()
        market.feed(expected, end)

        again = recount(Derivation(), RecordingSource(market), end, progress=no_progress)

        assert again.position == end
        assert again.balances().as_dict() == expected.balances().as_dict()
        assert again.rows == 0


# --- ledger and exchange ----------------------------------------------------------------------------------------------


def test_ledger_and_exchange_agree_over_the_whole_log(market: Recording) -> None:
    result = compare_engine(lambda: RecordingSource(market), market.end, insurance_account=0, progress=no_progress)

    assert result.good, result.sentence
    assert result.position == market.end
    assert result.compared >= 10


def faulty(market: Recording, kind: Any, number: int, **change: Callable[[Any], Any]) -> tuple[Recording, int]:
    """Return a copy in which one report reads otherwise, and the record that caused the report."""
    copy = Recording(bytearray(market.records), dict(market.reports))
    slots = copy.reports[1] = bytearray(market.reports[1])
    found = [
        at
        for at in range(0, len(slots), SLOT_SIZE)
        if int.from_bytes(slots[at + 4 : at + 6], "little") == kind.TEMPLATE_ID
    ]
    at = found[number]
    report = kind.unpack(slots, at + BLOCK)
    block = replace(report, **{name: make(report) for name, make in change.items()}).pack()
    slots[at + BLOCK : at + BLOCK + len(block)] = block
    return copy, int.from_bytes(slots[at + 24 : at + 32], "little")


def test_first_record_at_which_ledger_and_exchange_part_is_named(market: Recording) -> None:
    other, cause = faulty(market, wire.OrderExecuted, 40, fee=lambda report: report.fee + 5)

    result = compare_engine(lambda: RecordingSource(other), other.end, insurance_account=0, progress=no_progress)

    assert not result.good
    # Booked by the mark that follows its cause.
    assert cause < result.position <= cause + 3
    assert f"record {result.position}: after it account" in result.sentence
    assert "in the exchange" in result.sentence


def test_report_that_cannot_be_booked_is_named(market: Recording) -> None:
    other, cause = faulty(market, wire.OrderExecuted, 41, cum_qty=lambda report: report.cum_qty + 1)

    result = compare_engine(lambda: RecordingSource(other), other.end, insurance_account=0, progress=no_progress)

    assert "the ledger cannot book it: record" in result.sentence
    assert cause < result.position <= cause + 3


def test_log_changed_after_the_fact_is_named(market: Recording) -> None:
    """The exchange's own core refuses it at the next hash mark."""
    other = Recording(bytearray(market.records), market.reports)
    at = next(
        at
        for at in range(0, len(other.records), SLOT_SIZE)
        if int.from_bytes(other.records[at + 6 : at + 8], "little") == wire.Template.BALANCE_ADJUST
    )
    adjust = wire.BalanceAdjust.unpack(other.records, at + BLOCK)
    block = replace(adjust, amount=adjust.amount + 1).pack()
    other.records[at + BLOCK : at + BLOCK + len(block)] = block

    result = compare_engine(lambda: RecordingSource(other), other.end, insurance_account=0, progress=no_progress)

    assert not result.good
    assert "differs from the HASHMARK" in result.sentence
