"""What stops the derivation, and that what is wrong in log or reports does not go unseen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringbuf.wire import messages as wire
from settlement.chart import Book, Code, account_name
from settlement.derivation import ROOM_MIN, Derivation, _Room, column_types
from settlement.errors import DerivationHalted
from tests.kit import mutants
from tests.kit.composed_exchange import make_exchange
from tests.kit.ledger_market import record_market
from tests.kit.ledger_run import SLOT_SIZE, LedgerRun, Recording

BLOCK = 32
ROOT = Path(__file__).resolve().parents[3]


def recording() -> Recording:
    """Two accounts, three trades, a replace, a cancel, an order refused by the matcher; hash marks in the end."""
    exchange = make_exchange(maker_rate=-100, taker_rate=700)
    run = LedgerRun(exchange.engine)
    one, two = (exchange.account(base=1_000_000, quote=1_000_000_000) for _ in range(2))
    exchange.buy(one, 100, 5_000)
    exchange.sell(two, 95, 2_000)
    exchange.sell(two, 101, 3_000)
    exchange.replace(one, 1, price=99, order_qty=6_000)
    exchange.buy(one, 102, 4_000, time_in_force=wire.TimeInForce.IOC)
    exchange.sell(two, 99, 100, time_in_force=wire.TimeInForce.IOC)
    exchange.sell(two, 99, 10, exec_inst=wire.ExecInst.POST_ONLY)
    exchange.cancel(one, 1)
    run.tick(1_700_000_002_000_000_000)
    run.tick(1_700_000_004_000_000_000)
    exchange.buy(one, 50, 1)
    run.tick(1_700_000_006_000_000_000)
    exchange.engine.close()
    return run.recording


@pytest.fixture(scope="module")
def sound() -> Recording:
    return recording()


def copy_of(source: Recording) -> Recording:
    copy = Recording(bytearray(source.records))
    copy.reports.update({partition: bytearray(slots) for partition, slots in source.reports.items()})
    return copy


def reports(source: Recording, kind: type) -> list[int]:
    """Return the report sequences of one kind in partition 1."""
    slots = source.reports[1]
    count = len(slots) // SLOT_SIZE
    wanted = int(kind.TEMPLATE_ID)  # type: ignore[attr-defined]
    return [i for i in range(count) if int.from_bytes(slots[i * SLOT_SIZE + 4 : i * SLOT_SIZE + 6], "little") == wanted]


def change(source: Recording, report: int, kind: Any, **fields: Any) -> None:
    """Overwrite fields of a report."""
    at = report * SLOT_SIZE + BLOCK
    block = replace(kind.unpack(source.reports[1], at), **fields).pack()
    source.reports[1][at : at + len(block)] = block


def halted(source: Recording) -> DerivationHalted:
    derivation = Derivation()
    with pytest.raises(DerivationHalted) as caught:
        source.feed(derivation)
    return caught.value


def test_sound_recording_agrees_with_the_exchange_at_every_mark(sound: Recording) -> None:
    derivation = Derivation()

    sound.feed(derivation)

    counts = derivation.counts()
    assert counts.marks_compared >= 2
    assert counts.marks_differing == 0
    assert counts.trades == 3


# --- planted faults in what is read -----------------------------------------------------------------------------------


def fill_fields(source: Recording, report: int) -> Any:
    return wire.OrderExecuted.unpack(source.reports[1], report * SLOT_SIZE + BLOCK)


def drop(source: Recording, report: int) -> None:
    del source.reports[1][report * SLOT_SIZE : (report + 1) * SLOT_SIZE]
    source.reports[1] += bytes(SLOT_SIZE)


def double(source: Recording, report: int) -> None:
    slot = source.reports[1][report * SLOT_SIZE : (report + 1) * SLOT_SIZE]
    source.reports[1][report * SLOT_SIZE : report * SLOT_SIZE] = slot


def swap_with_next(source: Recording, report: int) -> None:
    at = report * SLOT_SIZE
    slots = source.reports[1]
    slots[at : at + SLOT_SIZE], slots[at + SLOT_SIZE : at + 2 * SLOT_SIZE] = (
        slots[at + SLOT_SIZE : at + 2 * SLOT_SIZE],
        slots[at : at + SLOT_SIZE],
    )


def more_quantity(source: Recording, report: int) -> None:
    fill = fill_fields(source, report)
    change(source, report, wire.OrderExecuted, last_qty=fill.last_qty + 1, cum_qty=fill.cum_qty + 1)


def other_price(source: Recording, report: int) -> None:
    change(source, report, wire.OrderExecuted, last_px=fill_fields(source, report).last_px - 1)


def other_account(source: Recording, report: int) -> None:
    fill = fill_fields(source, report)
    change(source, report, wire.OrderExecuted, account_id=3 - fill.account_id)


def other_side(source: Recording, report: int) -> None:
    fill = fill_fields(source, report)
    change(source, report, wire.OrderExecuted, side=wire.Side(3 - fill.side))


@pytest.mark.parametrize(
    "fault", [drop, double, more_quantity, other_price, other_account, other_side], ids=lambda fault: fault.__name__
)
def test_wrong_report_of_a_trade_stops_the_derivation(
    sound: Recording, fault: Callable[[Recording, int], None]
) -> None:
    for report in reports(sound, wire.OrderExecuted):
        faulty = copy_of(sound)
        fault(faulty, report)

        error = halted(faulty)

        assert f"record {error.position}: " in str(error)


@pytest.mark.parametrize("kind", [wire.OrderCanceled, wire.OrderRejected, wire.OrderReplaced])
def test_missing_report_of_an_end_is_noticed(sound: Recording, kind: type) -> None:
    """Either at once, or when the exchange's own hash comes."""
    for report in reports(sound, kind):
        faulty = copy_of(sound)
        drop(faulty, report)
        derivation = Derivation()

        try:
            faulty.feed(derivation)
        except DerivationHalted:
            continue
        assert derivation.counts().marks_differing > 0


def test_fee_with_the_wrong_sign_differs_from_the_exchange_at_the_next_mark(sound: Recording) -> None:
    faulty = copy_of(sound)
    fill = next(i for i in reports(sound, wire.OrderExecuted) if fill_fields(sound, i).fee > 0)
    change(faulty, fill, wire.OrderExecuted, fee=-fill_fields(sound, fill).fee)
    derivation = Derivation()

    faulty.feed(derivation)

    counts = derivation.counts()
    assert counts.marks_differing > 0
    assert counts.last_mark_equal < counts.first_mark_differing


def test_adjustment_changed_in_the_log_differs_from_the_exchange_at_the_next_mark(sound: Recording) -> None:
    faulty = copy_of(sound)
    at = next(
        at
        for at in range(0, len(sound.records), SLOT_SIZE)
        if int.from_bytes(sound.records[at + 6 : at + 8], "little") == wire.Template.BALANCE_ADJUST
    )
    adjust = wire.BalanceAdjust.unpack(faulty.records, at + BLOCK)
    block = replace(adjust, amount=adjust.amount + 1).pack()
    faulty.records[at + BLOCK : at + BLOCK + len(block)] = block
    derivation = Derivation()

    faulty.feed(derivation)

    counts = derivation.counts()
    assert counts.marks_differing > 0
    assert counts.last_mark_equal < at // SLOT_SIZE < counts.first_mark_differing


# --- what is not understood -------------------------------------------------------------------------------------------


def with_request(source: Recording, message: Any, *, session: int = 2, aux: int = 99) -> Recording:
    """Return a copy with one more record."""
    copy = copy_of(source)
    slot = bytearray(SLOT_SIZE)
    slot[0:4] = session.to_bytes(4, "little")
    slot[4:6] = (1).to_bytes(2, "little")
    slot[6:8] = int(message.TEMPLATE_ID).to_bytes(2, "little")
    slot[BLOCK : BLOCK + message.BLOCK_LENGTH] = message.pack()
    slot[112:120] = copy.records[-16:-8]
    slot[120:128] = aux.to_bytes(8, "little")
    copy.records += slot
    return copy


def an_order(**fields: Any) -> wire.NewOrderSingle:
    terms: dict[str, Any] = {
        "price": 10,
        "order_qty": 5,
        "instrument_id": 1,
        "account_id": 1,
        "side": wire.Side.BUY,
        "ord_type": wire.OrdType.LIMIT,
        "time_in_force": wire.TimeInForce.GTC,
        "stp_mode": wire.StpMode.NONE,
    }
    return wire.NewOrderSingle(**(terms | fields))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (an_order(instrument_id=7), "instrument 7 was never added"),
        (an_order(price=1 << 40, order_qty=1 << 40), "no amount below 2^62"),
        (an_order(price=-3), "no amount below 2^62"),
        (an_order(account_id=3), "would have -50 units of asset 2 available"),
        (an_order(account_id=3, price=0), None),
        (wire.OrderReplaceRequest(order_id=77, instrument_id=1), "a change of order 77, which is not open"),
        (
            wire.BalanceAdjust(amount=5, account_id=1, asset_id=9, kind=wire.BalanceKind.DEPOSIT),
            "asset 9 was never added",
        ),
        (wire.OrderCancelRequest(instrument_id=1), None),
    ],
)
def test_record_that_cannot_be_is_named(sound: Recording, message: Any, said: str | None) -> None:
    faulty = with_request(sound, message)
    derivation = Derivation()
    if said is None:
        faulty.feed(derivation)
        return

    with pytest.raises(DerivationHalted) as caught:
        faulty.feed(derivation)

    assert caught.value.position == sound.end
    assert str(caught.value) == f"record {sound.end}: {said}" or said in str(caught.value)
    assert derivation.position == sound.end


# What the exchange writes under no session; a side of a quote has its quote's, an operator asks for a quarantine.
OWN = set(range(300, 320)) - {wire.QuoteLeg.TEMPLATE_ID, wire.Quarantine.TEMPLATE_ID}
LOGGED = [kind for number, kind in sorted(wire.MESSAGES.items()) if 100 <= number < 200 or 300 <= number < 400]


@pytest.mark.parametrize("kind", LOGGED, ids=lambda kind: kind.__name__)
def test_every_record_of_the_log_is_known(sound: Recording, kind: Any) -> None:
    """It may make no sense here; but a message that is new in the schema must not stop the books unseen."""
    faulty = with_request(sound, wire.Tick(now=1), session=0 if kind.TEMPLATE_ID in OWN else 2)
    slot = len(faulty.records) - SLOT_SIZE
    faulty.records[slot + 6 : slot + 8] = kind.TEMPLATE_ID.to_bytes(2, "little")

    try:
        faulty.feed(Derivation())
    except DerivationHalted as error:
        assert "is not understood" not in str(error)


def test_what_came_before_the_record_that_stops_it_is_kept(sound: Recording) -> None:
    faulty, whole = Derivation(), Derivation()
    sound.feed(whole)
    with pytest.raises(DerivationHalted):
        with_request(sound, an_order(account_id=3)).feed(faulty)

    kept, expected = faulty.take(), whole.take()

    np.testing.assert_array_equal(kept.postings["available"], expected.postings["available"])
    assert kept.end == sound.end
    with pytest.raises(DerivationHalted):
        faulty.feed(sound.end, b"", {})


def test_unknown_template_stops_it(sound: Recording) -> None:
    faulty = with_request(sound, wire.Tick(now=1))
    faulty.records[-SLOT_SIZE + 6 : -SLOT_SIZE + 8] = (999).to_bytes(2, "little")

    assert "request template 999 is not understood by this version of the ledger" in str(halted(faulty))


def test_records_out_of_order_are_refused(sound: Recording) -> None:
    derivation = Derivation()

    with pytest.raises(DerivationHalted, match="records from 5 on came instead"):
        derivation.feed(5, bytes(sound.records[5 * SLOT_SIZE : 6 * SLOT_SIZE]), {})


def test_mark_without_its_reports_is_refused(sound: Recording) -> None:
    derivation = Derivation()

    with pytest.raises(DerivationHalted, match=r"reports 0 to \d+ of partition 1 are not at hand"):
        derivation.feed(0, bytes(sound.records), {})


def test_numbers_of_books_and_codes_never_change() -> None:
    """They stand in every row of every store."""
    assert {book.name: book.value for book in Book} == {
        "CLIENT": 1, "INSURANCE": 2, "FEES": 10, "REBATES": 11, "DUST": 12, "ADJUSTMENTS": 13,
        "DEPOSITS": 20, "WITHDRAWALS": 21, "TREASURY": 22,
    }  # fmt: skip
    assert {code.name: code.value for code in Code} == {
        "DEPOSIT": 1, "WITHDRAWAL": 2, "ADJUSTMENT": 3, "DEPOSIT_PENDING": 4,
        "DEPOSIT_POSTED": 5, "DEPOSIT_VOIDED": 6,
        "WITHDRAWAL_PENDING": 7, "WITHDRAWAL_POSTED": 8, "WITHDRAWAL_VOIDED": 9, "HOLD": 10, "RELEASE": 11,
        "FILL_MAKER": 20, "FILL_TAKER": 21,
        "FILL_AUCTION": 22, "TRANSFER": 23, "FEE": 30, "REBATE": 31, "DUST": 32,
    }  # fmt: skip
    assert account_name(Book.CLIENT, 42) == "client:42"
    assert account_name(Book.TREASURY, 0) == "treasury"


def test_rounding_of_a_fee_goes_to_dust(sound: Recording) -> None:
    faulty = copy_of(sound)
    fill = next(i for i in reports(sound, wire.OrderExecuted) if fill_fields(sound, i).fee_rounding == 1)
    change(faulty, fill, wire.OrderExecuted, fee_rounding=0)
    derivation, plain = Derivation(), Derivation()

    faulty.feed(derivation)
    sound.feed(plain)

    asset = fill_fields(sound, fill).fee_asset_id
    without, with_dust = derivation.balances().as_dict(), plain.balances().as_dict()
    assert with_dust[Book.DUST, 0, asset][0] == without[Book.DUST, 0, asset][0] + 1
    assert with_dust[Book.FEES, 0, asset][0] == without[Book.FEES, 0, asset][0] - 1
    assert derivation.counts().marks_differing > 0
    change(faulty, fill, wire.OrderExecuted, fee_rounding=2)
    assert "rounded by more than a unit" in str(halted(faulty))


# --- planted faults in the derivation itself --------------------------------------------------------------------------


FAULTS = (
    ("derive_reports.c", "charged->available -= fill->fee;", "charged->available += fill->fee;"),
    ("derive_groups.c", "need = need > list->hold ? need - list->hold : 0;", ""),
    ("books.c", "entry->book == BOOK_CLIENT || entry->book == BOOK_INSURANCE", "entry->book == BOOK_CLIENT && i"),
    ("columns.c", "from[books_entry(&ledger->books, rows[i].slot)->offset++] = (uint32_t)i;", "from[i] = (uint32_t)i;"),
    ("derive_orders.c", "ledger->group.covered = ledger->group.linked;", ""),
    ("derive_reports.c", "order->version_count > 0 || order->by_amount", "order->by_amount"),
    ("derive_reports.c", "order->by_amount || order->covered", "order->covered"),
    ("derive_reports.c", "(leg == order && ended(order->status))", "false"),
    ("derive_reports.c", "if (!release(ledger, order, order->hold, report->transact_time))", "if (!order->hold)"),
    ("entry.c", "int64_t *to = fee < 0 ? &sums->rebates : &sums->fees;", "int64_t *to = &sums->dust;"),
    ("pool.c", "memcpy(pool->items, in, head.used * item_size);", ""),
    ("sort.c", "digit < DIGITS ? row->minor : row->major", "row->minor"),
)


@pytest.mark.slow
def test_ledger_s_tests_pass_with_a_sound_copy(tmp_path: Path) -> None:
    """The control of the controls: a copy is not found faulty for being a copy."""
    package = mutants.copy_package("settlement", tmp_path)
    mutants.build_module(package, "_ledger")

    done = mutants.unit(package, "-x", "tests/property/test_ledger_postings.py")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("file", "old", "new"), FAULTS)
def test_planted_fault_in_the_derivation_is_found(tmp_path: Path, file: str, old: str, new: str) -> None:
    package = mutants.copy_package("settlement", tmp_path)
    mutants.change(package / file, old, new)
    mutants.build_module(package, "_ledger")

    done = mutants.unit(package, "-x", "tests/property/test_ledger_postings.py")

    assert done.returncode == 1, done.stdout + done.stderr


# --- arrays that are used again ---------------------------------------------------------------------------------------


def test_rows_of_a_block_stand_until_it_is_given_back_and_large_arrays_do_not_stay() -> None:
    market = record_market(200)
    whole, pieces = Derivation(), Derivation()
    market.feed(whole)
    expected = whole.take()
    blocks, addresses = [], set()
    for end in (market.end // 3, market.end // 2, market.end):
        market.feed(pieces, end)
        blocks.append(pieces.take())
        addresses.add(blocks[-1].postings["sequence"].ctypes.data)

    assert len(addresses) == 3
    rows = sorted(np.concatenate([block.postings["sequence"] for block in blocks]).tolist())
    assert rows == sorted(expected.postings["sequence"].tolist())
    for block in blocks:
        pieces.give_back(block)
    again = pieces.take()
    assert len(again.postings["sequence"]) == 0
    assert again.postings["sequence"].base is not None

    room = _Room()
    assert set(room.take("trade", 0)) == set(column_types("trade"))
    large = room.take("order", 100_000)
    room.give_back("order", large)
    assert room.take("order", 90_000)["price"].ctypes.data == large["price"].ctypes.data
    room.give_back("order", large)
    assert len(room.take("order", 10)["price"].base) == ROOM_MIN
    assert room._spare["order"] == []
