"""History from log and report slots: orders, fills, events with numbers, whatever batches they come in."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from gateway.web.account import events
from gateway.web.api import Call
from gateway.web.errors import ApiError
from gateway.web.history import LOG_SLOT, LOG_TAIL, REPORT_SLOT, SLOT_SIZE, HistoryBuilder
from gateway.web.reference import Key
from gateway.web.store import HistoryStore, StoreReader
from gateway.web.user_streams import Subscription, UserStreams
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage

ACCOUNT, OTHER, INSTRUMENT = 7, 8, 1
START_NS = 1_800_000_000_000_000_000
MORE, REJECT = 1, 4


class Tape:
    """Slots as the core would write them."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.reports: list[tuple[int, bytes]] = []
        self._seq_num = 0

    def record(self, message: WireMessage, *, aux: int = 0, flags: int = 0, partition: int = 1, source: int = 3) -> int:
        """Add a log record; return its sequence."""
        self._seq_num += 1
        sequence = len(self.log)
        head = LOG_SLOT.pack(2, source, message.TEMPLATE_ID, 0, 0, partition, flags, self._seq_num, 0)
        block = message.pack().ljust(80, b"\0")
        self.log.append(head + block + LOG_TAIL.pack(START_NS + sequence, aux))
        return sequence

    def report(self, message: WireMessage, *, cause: int, partition: int = 1) -> None:
        head = REPORT_SLOT.pack(2, message.TEMPLATE_ID, 0, partition, 0, 0, 0, 1, 0, cause)
        self.reports.append((partition, (head + message.pack()).ljust(SLOT_SIZE, b"\0")))

    @property
    def seq_num(self) -> int:
        return self._seq_num


def market(tape: Tape) -> None:
    """Two assets, a pair, two accounts, a deposit."""
    tape.record(wire.AssetAdd(asset_id=1, exponent=-8, symbol="BTC"))
    tape.record(wire.AssetAdd(asset_id=2, exponent=-8, symbol="USDT"))
    tape.record(
        wire.InstrumentAdd(
            symbol="BTC-USDT", base_asset_id=1, quote_asset_id=2, tick_size=1, price_exponent=-2, lot_size=1,
            qty_exponent=-5, quote_per_tick_lot=10, base_per_lot=1000, instrument_id=INSTRUMENT, assigned_partition=1,
        )
    )  # fmt: skip
    for account in (ACCOUNT, OTHER):
        tape.record(wire.AccountCreate(account_id=account))
    tape.record(wire.BalanceAdjust(amount=10**10, account_id=ACCOUNT, asset_id=2))


def order(**changes: object) -> wire.NewOrderSingle:
    terms = {
        "cl_ord_id": 1 << 63, "price": 9_500_000, "order_qty": 100, "instrument_id": INSTRUMENT, "account_id": ACCOUNT,
        "side": wire.Side.BUY, "ord_type": wire.OrdType.LIMIT, "time_in_force": wire.TimeInForce.GTC, **changes,
    }  # fmt: skip
    return wire.NewOrderSingle(**terms)  # type: ignore[arg-type]


def life(tape: Tape) -> None:
    """An order with a text id: taken, partly filled, canceled; another one refused by partition 0."""
    tape.record(wire.OrderDetails(client_text="mine"), flags=MORE)
    cause = tape.record(order(), aux=5)
    common = {"order_id": 5, "cl_ord_id": 1 << 63, "instrument_id": INSTRUMENT, "account_id": ACCOUNT}
    tape.report(
        wire.OrderAccepted(
            **common, exec_id=1 << 56, transact_time=START_NS + 100, price=9_500_000, order_qty=100,
            side=wire.Side.BUY, ord_type=wire.OrdType.LIMIT, time_in_force=wire.TimeInForce.GTC,
            ord_status=wire.OrdStatus.NEW,
        ),
        cause=cause,
    )  # fmt: skip
    tape.report(
        wire.OrderExecuted(
            **common, exec_id=1 << 56 | 1, trade_id=1, transact_time=START_NS + 200, last_px=9_500_000, last_qty=40,
            leaves_qty=60, cum_qty=40, fee=7, fee_asset_id=1, side=wire.Side.BUY, liquidity=wire.Liquidity.TAKER,
            ord_status=wire.OrdStatus.PARTIALLY_FILLED,
        ),
        cause=cause,
    )  # fmt: skip
    refused = tape.record(order(cl_ord_id=77), aux=wire.RejectCode.INSUFFICIENT_BALANCE, flags=REJECT, partition=0)
    tape.report(
        wire.OrderRejected(
            cl_ord_id=77, ref_seq_num=tape.seq_num, instrument_id=INSTRUMENT, account_id=ACCOUNT, exec_id=0,
            transact_time=START_NS + 300, reject_code=wire.RejectCode.INSUFFICIENT_BALANCE, side=wire.Side.BUY,
        ),
        cause=refused, partition=0,
    )  # fmt: skip
    cancel = tape.record(wire.OrderCancelRequest(cl_ord_id=99, order_id=5, instrument_id=1, account_id=ACCOUNT))
    tape.report(
        wire.OrderCanceled(
            orig_cl_ord_id=1 << 63, **{**common, "cl_ord_id": 99}, exec_id=1 << 56 | 2, transact_time=START_NS + 400,
            cum_qty=40, canceled_qty=60, cancel_reason=wire.CancelReason.CLIENT, side=wire.Side.BUY,
            ord_status=wire.OrdStatus.CANCELED,
        ),
        cause=cancel,
    )  # fmt: skip


@pytest.fixture
def tape() -> Tape:
    made = Tape()
    market(made)
    life(made)
    return made


def feed(path: Path, tape: Tape, cuts: Sequence[int]) -> StoreReader:
    """Feed log and reports in batches that end at the cuts, with a new builder for each: as after a crash."""
    reports = list(tape.reports)
    start = 0
    for end in (*cuts, len(tape.log)):
        store = HistoryStore.open(path, cluster=1, log_end=10**6)
        builder = HistoryBuilder(store)
        builder.feed_log(b"".join(tape.log[start:end]))
        ready = [slot for _, slot in reports if int.from_bytes(slot[24:32], "little") < end]
        builder.feed_reports(ready)
        reports = [entry for entry in reports if entry[1] not in ready]
        builder.flush({"log": end, "reports": {}})
        store.close()
        start = end
    return StoreReader(path)


def test_an_order_its_fill_and_its_end_are_in_history(tape: Tape, tmp_path: Path) -> None:
    reader = feed(tmp_path / "h.db", tape, ())

    [found] = reader.orders("account = ?", (ACCOUNT,))
    assert (found.client_id, found.status_text, found.cum_qty, found.open) == ("mine", "CANCELED", 40, 0)
    assert found.cum_quote == 9_500_000 * 40 * 10
    assert reader.rows("SELECT trade_id, qty, fee FROM fills") == [(1, 40, 7)]
    assert reader.rows("SELECT trade_id, agg_id, buyer_is_maker FROM trades") == [(1, 1, 0)]


def test_events_tell_it_in_order_and_are_numbered_without_a_gap(tape: Tape, tmp_path: Path) -> None:
    reader = feed(tmp_path / "h.db", tape, ())

    events = [json.loads(event.body) for event in reader.events_since(0)]
    told = [(event["e"], event.get("x"), event["partition"], event["accountSeq"]) for event in events]
    assert sorted(told[1:], key=lambda each: (each[2], each[3])) == [
        ("executionReport", "NEW", 1, 1),
        ("executionReport", "TRADE", 1, 2),
        ("executionReport", "CANCELED", 1, 3),
    ]
    assert told[0] == ("balanceUpdate", None, 0, 1)
    canceled = events[-1]
    assert (canceled["c"], canceled["C"]) == ("99", "mine")


@pytest.mark.parametrize("cuts", [(3,), (6, 8), (8,), (9,), (6, 8, 9)])
def test_batches_and_restarts_between_them_change_nothing(tape: Tape, tmp_path: Path, cuts: Sequence[int]) -> None:
    whole = feed(tmp_path / "whole.db", tape, ())
    parts = feed(tmp_path / "parts.db", tape, cuts)

    def content(reader: StoreReader) -> list[object]:
        bodies = sorted((event.account, event.partition, event.seq, event.body) for event in reader.events_since(0))
        return [bodies, reader.orders("1", ()), reader.rows("SELECT * FROM fills"), reader.vector(ACCOUNT)]

    assert content(parts) == content(whole)


def test_store_of_another_log_or_ahead_of_this_one_is_made_again(tape: Tape, tmp_path: Path) -> None:
    feed(tmp_path / "h.db", tape, ()).close()

    same = HistoryStore.open(tmp_path / "h.db", cluster=1, log_end=len(tape.log))
    assert same.meta()["log"] == len(tape.log)
    same.close()
    for cluster, log_end in ((2, len(tape.log)), (1, len(tape.log) - 1)):
        fresh = HistoryStore.open(tmp_path / "h.db", cluster=cluster, log_end=log_end)
        assert (fresh.meta()["log"], fresh.open_orders()) == (0, [])
        fresh.close()


def test_number_stands_for_a_text_that_was_noted(tape: Tape, tmp_path: Path) -> None:
    store = HistoryStore.open(tmp_path / "h.db", cluster=1, log_end=10**6)
    builder = HistoryBuilder(store)
    builder.note_text(ACCOUNT, 99, "cancel-of-mine")
    builder.feed_log(b"".join(tape.log))
    builder.feed_reports([slot for _, slot in tape.reports])
    builder.flush({"log": len(tape.log), "reports": {}})
    store.close()

    last = json.loads(StoreReader(tmp_path / "h.db").events_since(0)[-1].body)
    assert (last["c"], last["C"]) == ("cancel-of-mine", "mine")


@pytest.mark.parametrize(("kept", "first_kept"), [(2, 3), (1, 4)])
def test_events_that_are_no_longer_kept_are_never_a_silent_gap(tmp_path: Path, kept: int, first_kept: int) -> None:
    """Also where none of an account's events is left."""
    store = HistoryStore.open(tmp_path / "h.db", cluster=1, log_end=0)
    store.put_rows("events", [(seq, ACCOUNT, 1, seq, START_NS, "{}") for seq in (1, 2, 3)])
    store.put_rows("events", [(4, OTHER, 1, 1, START_NS, "{}")])
    store.put_rows("counters", [(ACCOUNT, 1, 3), (OTHER, 1, 1)])
    store.prune(events_max=kept, ended_before_ns=0, trades_before_ns=0, instruments=())
    store.close()
    reader = StoreReader(tmp_path / "h.db")
    gateway: Any = SimpleNamespace(store=reader, on_events=[], read=AsyncMock(side_effect=lambda work: work(reader)))
    streams = UserStreams(gateway)
    told: list[str] = []

    def resume(seen: int) -> None:
        asyncio.run(streams.resume(Subscription(ACCOUNT, told.append, microseconds=False), {"1": seen}, AsyncMock()))

    with pytest.raises(ApiError) as refused:
        resume(1)

    assert (refused.value.code, dict(refused.value.details or {})["firstKept"]) == (-2042, first_kept)
    resume(first_kept - 1)
    assert told == ["{}"] * (4 - first_kept)
    gateway.caught_up = AsyncMock()
    key = Key("k", ACCOUNT, permissions=1, credential=1, material="")
    answer = asyncio.run(events(Call(gateway, {}, {"after": {"1": 1}}, key)))
    assert (answer["lost"], answer["vector"]) == ({"1": [2, first_kept - 1]}, {"1": 3})
    assert len(answer["events"]) == 4 - first_kept
