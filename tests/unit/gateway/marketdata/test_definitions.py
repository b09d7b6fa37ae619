"""The reference channel follows from the log alone, and from the file when that is there."""

from pathlib import Path

import pytest

from gateway.marketdata.definitions import Definitions, DefinitionsLost
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage
from ringbuf.wire.market_messages import InstrumentDefinition, SystemEvent, SystemEventCode
from tests.kit.composed_exchange import Exchange, make_exchange


def records(exchange: Exchange) -> list[tuple[int, bytes]]:
    return exchange.engine.log_records()


def pair(symbol: str) -> wire.InstrumentAdd:
    return wire.InstrumentAdd(
        tick_size=5, lot_size=2, price_exponent=-2, qty_exponent=-3, quote_per_tick_lot=1, base_per_lot=1,
        base_asset_id=1, quote_asset_id=2, symbol=symbol,
    )  # fmt: skip


def follow(path: Path, batches: list[tuple[int, bytes]], generation: str = "TEST1") -> list[WireMessage]:
    """Return all messages of the channel as a fresh process finds them."""
    found: list[WireMessage] = []
    definitions = Definitions(path, generation, found.append)
    for first, data in batches:
        definitions.apply(first, data)
    return found


def test_every_instrument_and_every_change_is_told_in_the_order_of_the_log(tmp_path: Path) -> None:
    exchange = make_exchange()
    exchange.admin(pair("X-Y"))
    refused = exchange.engine.submit(1, pair("X-Y"))
    assert isinstance(refused[-1].message, wire.AdminAck)
    assert refused[-1].message.code != wire.RejectCode.NONE
    exchange.admin(wire.InstrumentLimits(instrument_id=2, min_qty=3, max_qty=9, min_notional=7, min_px=1, max_px=99))

    found = follow(tmp_path / "d", records(exchange))

    assert isinstance(found[0], SystemEvent)
    assert found[0].event_code == SystemEventCode.START
    assert all(isinstance(each, InstrumentDefinition) for each in found[1:])
    facts = [
        (each.instrument_id, each.symbol, each.base_asset, each.quote_asset, each.min_qty, each.max_qty)
        for each in found[1:]
        if isinstance(each, InstrumentDefinition)
    ]
    assert facts == [
        (1, "BASE-QUOTE", "BASE", "QUOTE", 1, (1 << 63) - 1),
        (2, "X-Y", "BASE", "QUOTE", 1, (1 << 63) - 1),
        (2, "X-Y", "BASE", "QUOTE", 3, 9),
    ]
    last = found[-1]
    assert isinstance(last, InstrumentDefinition)
    assert (last.tick_size, last.lot_size, last.price_exponent, last.qty_exponent) == (5, 2, -2, -3)
    assert (last.partition, last.min_notional, last.status) == (1, 7, wire.MarketState.CONTINUOUS)


def test_a_restart_goes_on_where_the_file_ends(tmp_path: Path) -> None:
    exchange = make_exchange()
    first = records(exchange)
    exchange.admin(pair("X-Y"))
    second = records(exchange)
    before = follow(tmp_path / "d", first)

    again = follow(tmp_path / "d", second)

    assert len(before) == 2
    assert again[:2] == before
    assert again == follow(tmp_path / "fresh", first + second)
    assert follow(tmp_path / "d", first + second) == again, "records read once more change nothing"


def test_a_file_of_another_history_or_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    exchange = make_exchange()
    batches = records(exchange)
    found = follow(tmp_path / "d", batches)
    assert follow(tmp_path / "d", batches, generation="OTHER") == found
    (tmp_path / "d").write_text("{")
    assert follow(tmp_path / "d", batches) == found


def test_a_log_without_its_beginning_is_refused_without_the_file(tmp_path: Path) -> None:
    exchange = make_exchange()
    records(exchange)
    exchange.admin(pair("X-Y"))

    with pytest.raises(DefinitionsLost, match="the log begins at"):
        follow(tmp_path / "d", records(exchange))
