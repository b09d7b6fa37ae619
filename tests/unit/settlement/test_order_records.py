"""Order records for regulators: every event of every order of the window, once; nothing missing is called complete."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringbuf.wire import messages as wire
from settlement.errors import DerivationHalted
from settlement.order_records import OrderRecords, Window, time_text, write_order_records
from tests.kit.composed_exchange import make_exchange
from tests.kit.documents import DOCS
from tests.kit.ledger_books import RecordingSource
from tests.kit.ledger_market import DAY_NS, START_NS, record_market
from tests.kit.ledger_run import SLOT_SIZE, LedgerRun, Recording

Record = dict[str, Any]


@pytest.fixture(scope="module")
def market() -> Recording:
    return record_market(300, days=3)


def records_of(recording: Recording, window: Window = Window()) -> tuple[list[Record], Record]:  # noqa: B008
    made = OrderRecords(RecordingSource(recording), window, end=None, insurance_account=0, venue="XTST")
    return list(made.records(lambda _: None)), made.statement()


def reports(market: Recording, kind: type) -> list[Any]:
    slots = market.reports[1]
    return [
        kind.unpack(slots, at + 32)  # type: ignore[attr-defined]
        for at in range(0, len(slots), SLOT_SIZE)
        if int.from_bytes(slots[at + 4 : at + 6], "little") == kind.TEMPLATE_ID  # type: ignore[attr-defined]
    ]


def test_every_report_of_an_order_is_one_record(market: Recording) -> None:
    found, statement = records_of(market)

    events = statement["events"]
    fills = reports(market, wire.OrderExecuted)
    assert events["NEWO"] == len(reports(market, wire.OrderAccepted))
    assert events["FILL"] == sum(fill.ord_status == wire.OrdStatus.FILLED for fill in fills)
    assert events["PARF"] == len(fills) - events["FILL"]
    assert events["REME"] == len(reports(market, wire.OrderReplaced))
    assert events["CAME"] + events["EXPI"] == len(reports(market, wire.OrderCanceled))
    assert statement["orderRecords"] == len(found) == sum(events.values())
    assert statement["complete"] is True
    assert statement["wholeWindow"] is True
    assert statement["tradesBooked"] * 2 == statement["fillsRead"] == len(fills)
    assert statement["hashMarksCompared"] > 0


def test_every_field_stands_in_the_table_of_the_regulation_s_articles(market: Recording) -> None:
    found, _ = records_of(market)
    table = (DOCS / "LEDGER.md").read_text().split("| article (field of Table 2)")[1].split("\n\n")[0]
    named = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row)]

    assert sorted(named) == sorted(set().union(*found))


def test_sequence_numbers_are_unique_and_in_order(market: Recording) -> None:
    found, _ = records_of(market)

    numbers = [tuple(map(int, record["sequenceNumber"].split("."))) for record in found]
    assert numbers == sorted(set(numbers))


def test_windows_that_meet_have_everything_once(market: Recording) -> None:
    everything, _ = records_of(market)
    middle = START_NS + DAY_NS

    first, said = records_of(market, Window(end_ns=middle))
    second, _ = records_of(market, Window(start_ns=middle))

    assert first + second == everything
    assert said["windowEnd"] == said["completeUntil"] == time_text(middle)
    assert all(record["dateAndTime"] < time_text(middle) for record in first)


def test_window_beyond_the_log_is_complete_only_as_far_as_that(market: Recording) -> None:
    _, statement = records_of(market, Window(end_ns=START_NS + 1000 * DAY_NS))

    assert statement["wholeWindow"] is False
    assert statement["completeUntil"] == statement["logEnds"] < statement["windowEnd"]


def test_one_orders_life_with_its_terms() -> None:
    exchange = make_exchange(maker_rate=0, taker_rate=0)
    run = LedgerRun(exchange.engine)
    seller, buyer = exchange.account(base=10**9, quote=10**12), exchange.account(base=10**9, quote=10**12)
    exchange.order(seller, wire.Side.SELL, 100, 5)
    exchange.order(buyer, wire.Side.BUY, 101, 8, time_in_force=wire.TimeInForce.GTC)
    exchange.order(seller, wire.Side.SELL, 101, 3)
    exchange.order(buyer, wire.Side.BUY, 10**9, 10**9)  # cannot pay for it
    run.tick()
    exchange.engine.close()

    found, _ = records_of(run.recording)

    of_buyer = [record for record in found if record["clientId"] == str(buyer)]
    told = [(r["event"], r["passiveOrAggressive"], r["tradedQuantity"], r["remainingQuantity"]) for r in of_buyer]
    assert [event for event, *_ in told] == ["NEWO", "PARF", "FILL", "REMO"]
    assert [passive for _, passive, *_ in told] == [None, "AGRE", "PASV", None]
    lots = [None if traded is None else float(traded) for _, _, traded, _ in told]
    assert lots[1] == 5 * lots[2] / 3
    assert float(told[2][3]) == 0
    new, refused = of_buyer[0], of_buyer[3]
    assert (new["buySellIndicator"], new["orderType"], new["validityPeriod"]) == ("BUYI", "LMTO", "GTCV")
    assert (new["segmentMic"], new["orderStatus"], new["orderId"]) == ("XTST", "ACTI", of_buyer[1]["orderId"])
    assert refused["reason"] == "INSUFFICIENT_BALANCE"
    assert refused["orderId"].startswith("R")
    assert of_buyer[1]["transactionId"] == next(r for r in found if r["event"] == "FILL")["transactionId"]


def test_refused_order_may_have_had_any_value() -> None:
    exchange = make_exchange(maker_rate=0, taker_rate=0)
    run = LedgerRun(exchange.engine)
    account = exchange.account(base=10**9, quote=10**12)
    session = exchange.sessions[account]
    nonsense = {"order_qty": -5, "price": None, "instrument_id": 1, "account_id": account}
    for wrong in ({"time_in_force": 7}, {"ord_type": 0}, {"side": 9}, {"ord_type": 2, "instrument_id": 77}):
        order = {"side": 1, "ord_type": 2, "time_in_force": 1} | nonsense | wrong
        exchange.engine.submit(session, wire.NewOrderSingle(cl_ord_id=5, **order))
    run.tick()
    exchange.engine.close()

    found, statement = records_of(run.recording)

    assert [record["event"] for record in found] == ["REMO"] * 3
    assert statement["refusedForUnknownPairs"] == 1
    assert (found[0]["validityPeriod"], found[1]["orderTypeOfVenue"], found[2]["buySellIndicator"]) == ("7", "0", "9")
    assert statement["complete"] is True


def test_pair_that_is_not_traded_is_refused(market: Recording) -> None:
    with pytest.raises(LookupError, match="unknown pair 'A-B'"):
        records_of(market, Window(pair="A-B"))


def test_missing_report_is_no_complete_export(market: Recording) -> None:
    faulty = replace(market, reports={**market.reports, 1: bytearray(market.reports[1])})
    place = next(
        at
        for at in range(0, len(faulty.reports[1]), SLOT_SIZE)
        if int.from_bytes(faulty.reports[1][at + 4 : at + 6], "little") == wire.OrderExecuted.TEMPLATE_ID
    )
    del faulty.reports[1][place : place + SLOT_SIZE]
    faulty.reports[1] += bytes(SLOT_SIZE)

    with pytest.raises(DerivationHalted):
        records_of(faulty)


def test_file_is_whole_json_with_its_statement(market: Recording, tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    made = OrderRecords(RecordingSource(market), Window(), end=None, insurance_account=0, venue="XTST")

    told = write_order_records(path, made, lambda _: None)

    content = json.loads(path.read_text())
    assert content["orderRecords"] == records_of(market)[0]
    assert content["completeness"]["orderRecords"] == len(content["orderRecords"])
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileExistsError):
        write_order_records(path, made, lambda _: None)


def test_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="start_ns = 5: must not be after end_ns = 4"):
        Window(start_ns=5, end_ns=4)


def test_times_are_microseconds_of_utc() -> None:
    assert time_text(START_NS + 123_456_789) == "2023-11-14T22:13:20.123456Z"
