"""What the ledger's loop tells of: differences once each, with their record; trouble with the store is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringbuf.wire import messages as wire
from settlement.bookkeeper import Bookkeeper, BookkeeperConfig
from settlement.chdb_store import ChdbStore
from settlement.derivation import Derivation
from settlement.errors import StoreUnavailable
from settlement.store import Store
from tests.kit.ledger_books import Books, FaultyStore, RecordingSource, chdb_store
from tests.kit.ledger_market import record_market
from tests.kit.ledger_run import SLOT_SIZE, Recording
from tests.kit.waiting import eventually

BLOCK = 32


@pytest.fixture(scope="module")
def market() -> Recording:
    return record_market(150)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChdbStore]:
    made = chdb_store(tmp_path / "store")
    yield made
    made.close()


class Run:
    """A bookkeeper over a recording, and what it told of."""

    def __init__(self, store: Store, market: Recording, *, reconcile_s: int = 1, rows_max: int = 10**9) -> None:
        self.told: list[str] = []
        self.books = Books(store, market)
        self.keeper = Bookkeeper(
            self.books.consumer,
            store,
            BookkeeperConfig(reconcile_s=reconcile_s, reconcile_rows_max=rows_max),
            from_beginning=lambda: (Derivation(), RecordingSource(market)),
            clock_ns=self._clock,
            on_difference=self.told.append,
        )
        self._now = 0

    def _clock(self) -> int:
        self._now += 10_000_000
        return self._now

    def facts(self) -> dict[str, Any]:
        self.keeper.step()
        return dict(self.keeper.facts())

    def reconciled(self, position: int) -> bool:
        found = self.facts().get("reconciled")
        return found is not None and found["position"] >= position


def test_sound_books_are_reconciled_again_and_again_without_a_word(store: ChdbStore, market: Recording) -> None:
    run = Run(store, market)

    eventually(lambda: run.reconciled(market.end), deadline_s=60)
    first = run.facts()["reconciled"]["at_ns"]
    eventually(lambda: run.facts()["reconciled"]["at_ns"] > first, deadline_s=60)

    assert run.told == []
    assert run.facts()["differences"] == []
    assert run.facts()["marks_compared"] > 0
    run.books.stop()


def test_changed_posting_is_told_of_once_with_its_record(store: ChdbStore, market: Recording) -> None:
    run = Run(store, market)
    eventually(lambda: run.reconciled(market.end), deadline_s=60)
    row = store.select("SELECT sequence, idx FROM postings WHERE code = 10 ORDER BY sequence, idx LIMIT 1 OFFSET 9")
    place = f"sequence = {row['sequence'][0]} AND idx = {row['idx'][0]}"
    store.execute(f"ALTER TABLE postings UPDATE available = available + 1 WHERE {place}")

    eventually(lambda: bool(run.facts()["differences"]), deadline_s=60)
    at = run.facts()["reconciled"]["at_ns"]
    eventually(lambda: run.facts()["reconciled"]["at_ns"] > at, deadline_s=60)

    assert len(run.told) == 1
    assert f"record {row['sequence'][0]} posting {row['idx'][0]}" in run.told[0]
    assert run.facts()["differences"] == run.told
    run.books.stop()


def changed_fee(market: Recording) -> Recording:
    """The same log with one report whose fee has another sign: the exchange's hash knows better."""
    slots = bytearray(market.reports[1])
    for at in range(0, len(slots), SLOT_SIZE):
        if int.from_bytes(slots[at + 4 : at + 6], "little") == wire.OrderExecuted.TEMPLATE_ID:
            fill = wire.OrderExecuted.unpack(slots, at + BLOCK)
            if fill.fee > 0 and fill.fee_rounding == 0:
                slots[at + BLOCK : at + BLOCK + fill.BLOCK_LENGTH] = replace(fill, fee=-fill.fee).pack()
                break
    return replace(market, reports={**market.reports, 1: slots})


def test_ledger_that_differs_from_the_exchange_is_told_of_once(store: ChdbStore, market: Recording) -> None:
    run = Run(store, changed_fee(market), reconcile_s=0)

    eventually(lambda: run.facts()["marks_compared"] > 1, deadline_s=60)

    assert len(run.told) == 1
    assert "differ from the hash mark at record" in run.told[0]
    run.books.stop()


def test_record_that_cannot_be_booked_is_a_difference(store: ChdbStore, market: Recording) -> None:
    records = bytearray(market.records)
    last = len(records) - SLOT_SIZE
    records[last + 6 : last + 8] = (999).to_bytes(2, "little")
    run = Run(store, replace(market, records=records), reconcile_s=0)

    eventually(lambda: run.facts()["state"] == "halted", deadline_s=60)
    run.facts()

    assert len(run.told) == 1
    assert "the ledger has stopped" in run.told[0]
    assert f"record {market.end - 1}" in run.told[0]
    run.books.stop()


def test_store_that_is_away_is_no_difference(store: ChdbStore, market: Recording) -> None:
    away = threading.Event()

    def before(what: str, number: int) -> None:
        if away.is_set():
            raise StoreUnavailable("gone for a walk")

    run = Run(FaultyStore(store, before=before), market)
    eventually(lambda: run.reconciled(market.end), deadline_s=60)
    away.set()
    with pytest.raises(StoreUnavailable, match="gone for a walk"):
        reconcile_now(run)

    assert run.told == []
    run.books.stop()


def reconcile_now(run: Run) -> None:
    """Ask as a command does, while the loop goes on in this thread."""
    errors: list[Exception] = []

    def ask() -> None:
        try:
            run.keeper.reconcile_soon()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: run.facts() and not thread.is_alive(), deadline_s=60)
    if errors:
        raise errors[0]


def test_too_many_postings_are_compared_on_command_only(store: ChdbStore, market: Recording) -> None:
    run = Run(store, market, rows_max=1)
    eventually(lambda: run.facts()["stored"] == market.end, deadline_s=60)
    for _ in range(400):
        found = run.facts()
        assert "reconciled" not in found or found["reconciled"]["compared"] == 0

    reconcile_now(run)

    assert run.facts()["reconciled"]["position"] == market.end
    run.books.stop()


def test_negative_times_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        BookkeeperConfig(reconcile_s=-1, reconcile_rows_max=0)


def test_fault_of_the_writer_ends_the_loop_instead_of_standing_still(store: ChdbStore, market: Recording) -> None:
    def before(what: str, number: int) -> None:
        if what == "INSERT trades":
            raise AttributeError("a fault of the program")

    run = Run(FaultyStore(store, before=before), market)

    with pytest.raises(AttributeError, match="a fault of the program"):
        eventually(lambda: run.reconciled(market.end), deadline_s=60)
    run.books.stop()


def test_call_that_does_not_come_back_is_seen(store: ChdbStore, market: Recording) -> None:
    gate = threading.Event()

    def before(what: str, number: int) -> None:
        if what == "INSERT trades":
            gate.wait()

    run = Run(FaultyStore(store, before=before), market, reconcile_s=0)

    eventually(lambda: run.facts() and run.books.consumer.busy_ns() > 5_000_000_000, deadline_s=60)
    gate.set()
    eventually(lambda: run.facts()["stored"] == market.end, deadline_s=60)
    run.books.stop()
    assert run.books.consumer.busy_ns() == 0
