"""What streams say, as the objects that become JSON. `unit_ns` is the unit of times: milli- or microseconds."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, NamedTuple

from gateway.web.market_view import Bar, average_text, percent_text
from gateway.web.reference import Instrument, Reference
from ringbuf.wire import market_messages as market
from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import Side

MS, US = 1_000_000, 1_000
CHECKSUM_LEVELS = 10
_LEVEL = Struct("<qq")
Level = tuple[int, int]
Resting = tuple[int, int, int]  # an order: id, ticks, lots
Body = dict[str, Any]


class Change(NamedTuple):
    """What happened to a resting order; fields that `kind` does not have mean nothing."""

    kind: type[WireMessage]
    update_id: int
    time_ns: int
    order_id: int
    side: int
    price: int
    quantity: int
    trade_id: int


def trade(instrument: Instrument, row: Sequence[int], now_ns: int, unit_ns: int) -> Body:
    """`row`: trade id, ticks, lots, time in ns, whether the buyer rested."""
    number, price, lots, time_ns, buyer_rested = row
    return {
        "e": "trade", "E": now_ns // unit_ns, "s": instrument.symbol, "t": number, "p": instrument.price_text(price),
        "q": instrument.qty_text(lots), "T": time_ns // unit_ns, "m": bool(buyer_rested), "M": True,
    }  # fmt: skip


def aggregate(instrument: Instrument, row: Sequence[int], now_ns: int, unit_ns: int) -> Body:
    """`row`: aggregate id, ticks, lots, first and last trade id, time in ns, whether the buyer rested."""
    number, price, lots, first, last, time_ns, buyer_rested = row
    return {
        "e": "aggTrade", "E": now_ns // unit_ns, "s": instrument.symbol, "a": number,
        "p": instrument.price_text(price), "q": instrument.qty_text(lots), "f": first, "l": last,
        "T": time_ns // unit_ns, "m": bool(buyer_rested), "M": True,
    }  # fmt: skip


def book_ticker(instrument: Instrument, update_id: int, bid: Level, ask: Level) -> Body:
    return {
        "u": update_id, "s": instrument.symbol, "b": instrument.price_text(bid[0]), "B": instrument.qty_text(bid[1]),
        "a": instrument.price_text(ask[0]), "A": instrument.qty_text(ask[1]),
    }  # fmt: skip


def levels_text(instrument: Instrument, levels: Iterable[Level]) -> list[list[str]]:
    price, quantity = instrument.price_text, instrument.qty_text
    return [[price(ticks), quantity(lots)] for ticks, lots in levels]


def partial_depth(instrument: Instrument, update_id: int, bids: Iterable[Level], asks: Iterable[Level]) -> Body:
    return {
        "lastUpdateId": update_id,
        "bids": levels_text(instrument, bids),
        "asks": levels_text(instrument, asks),
    }


def depth_diff(
    instrument: Instrument, first: int, last: int, bids: Iterable[Level], asks: Iterable[Level], now_ns: int,
    unit_ns: int,
) -> Body:  # fmt: skip
    return {
        "e": "depthUpdate", "E": now_ns // unit_ns, "s": instrument.symbol, "U": first, "u": last,
        "b": levels_text(instrument, bids), "a": levels_text(instrument, asks),
    }  # fmt: skip


def book_snapshot(
    instrument: Instrument, last: int, bids: Sequence[Level], asks: Sequence[Level], now_ns: int, unit_ns: int
) -> Body:
    return {
        "e": "bookSnapshot", "E": now_ns // unit_ns, "s": instrument.symbol, "u": last,
        "b": levels_text(instrument, bids), "a": levels_text(instrument, asks), "c": checksum(bids, asks),
    }  # fmt: skip


def order_change(instrument: Instrument, change: Change, unit_ns: int) -> Body:
    """Quantities of ADD, REDUCE, REPLACE are what rests from now on; l of TRADE is what was taken."""
    body: Body = {"x": _CHANGES[change.kind], "i": change.order_id, "T": change.time_ns // unit_ns}
    if change.kind is market.OrderAdd:
        body["S"] = "BUY" if change.side == Side.BUY else "SELL"
    if change.kind in (market.OrderAdd, market.OrderReplace):
        body["p"] = instrument.price_text(change.price)
    if change.kind is market.OrderExecute:
        last = {"L": instrument.price_text(change.price), "l": instrument.qty_text(change.quantity)}
        return body | last | {"t": change.trade_id}
    if change.kind is not market.OrderDelete:
        body["q"] = instrument.qty_text(change.quantity)
    return body


_CHANGES: dict[type[WireMessage], str] = {
    market.OrderAdd: "ADD",
    market.OrderExecute: "TRADE",
    market.OrderReduce: "REDUCE",
    market.OrderDelete: "DELETE",
    market.OrderReplace: "REPLACE",
}


def order_update(
    instrument: Instrument, first: int, last: int, changes: Iterable[Change], crc: int, now_ns: int, unit_ns: int
) -> Body:
    return {
        "e": "l3Update", "E": now_ns // unit_ns, "s": instrument.symbol, "U": first, "u": last,
        "o": [order_change(instrument, change, unit_ns) for change in changes], "c": crc,
    }  # fmt: skip


def order_snapshot(
    instrument: Instrument, last: int, orders: Iterable[tuple[bool, Resting]], parts_left: int, crc: int, now_ns: int,
    unit_ns: int,
) -> Body:  # fmt: skip
    """`orders`: whether a bid, and the order; best first, and by priority within a price."""
    sides: dict[bool, list[Any]] = {True: [], False: []}
    for is_bid, (order_id, price, quantity) in orders:
        sides[is_bid].append([order_id, instrument.price_text(price), instrument.qty_text(quantity)])
    return {
        "e": "l3Snapshot", "E": now_ns // unit_ns, "s": instrument.symbol, "u": last, "b": sides[True],
        "a": sides[False], "n": parts_left, "c": crc,
    }  # fmt: skip


def checksum(bids: Sequence[Level], asks: Sequence[Level]) -> int:
    """Return CRC-32 over the ten best levels, best first, bids before asks: i64 ticks and i64 lots, little-endian."""
    parts = [_LEVEL.pack(*level) for side in (bids, asks) for level in side[:CHECKSUM_LEVELS]]
    return zlib.crc32(b"".join(parts))


def kline(instrument: Instrument, reference: Reference, interval: str, bar: Bar, unit_ns: int, now_ns: int,
          *, closed: bool) -> Body:  # fmt: skip
    price, quantity = instrument.price_text, instrument.qty_text
    candle = {
        "t": bar.open_ns // unit_ns, "T": bar.close_ns // unit_ns - 1, "s": instrument.symbol, "i": interval,
        "f": bar.first_id, "L": bar.last_id, "o": price(bar.open), "c": price(bar.close), "h": price(bar.high),
        "l": price(bar.low), "v": quantity(bar.volume), "n": bar.count, "x": closed,
        "q": reference.quote_text(instrument, bar.quote), "V": quantity(bar.taker_volume),
        "Q": reference.quote_text(instrument, bar.taker_quote), "B": "0",
    }  # fmt: skip
    return {"e": "kline", "E": now_ns // unit_ns, "s": instrument.symbol, "k": candle}


def mini(instrument: Instrument, reference: Reference, bar: Bar, now_ns: int, unit_ns: int) -> Body:
    price = instrument.price_text
    return {
        "e": "24hrMiniTicker", "E": now_ns // unit_ns, "s": instrument.symbol, "c": price(bar.close),
        "o": price(bar.open), "h": price(bar.high), "l": price(bar.low), "v": instrument.qty_text(bar.volume),
        "q": reference.quote_text(instrument, bar.quote),
    }  # fmt: skip


def window(instrument: Instrument, reference: Reference, name: str, bar: Bar, now_ns: int, unit_ns: int) -> Body:
    """The fields that tickers of every window have."""
    price, change = instrument.price_text, bar.close - bar.open
    return {
        "e": f"{name}Ticker", "E": now_ns // unit_ns, "s": instrument.symbol, "p": price(change),
        "P": percent_text(bar), "o": price(bar.open), "h": price(bar.high),
        "l": price(bar.low), "c": price(bar.close), "w": average_text(reference, instrument, bar),
        "v": instrument.qty_text(bar.volume), "q": reference.quote_text(instrument, bar.quote),
        "O": bar.open_ns // unit_ns, "C": bar.close_ns // unit_ns, "F": bar.first_id, "L": bar.last_id, "n": bar.count,
    }  # fmt: skip


def day(
    instrument: Instrument, reference: Reference, bar: Bar, previous: int, best: tuple[Level, Level], now_ns: int,
    unit_ns: int,
) -> Body:  # fmt: skip
    price, quantity = instrument.price_text, instrument.qty_text
    bid, ask = best
    return window(instrument, reference, "24hr", bar, now_ns, unit_ns) | {
        "x": price(previous), "Q": quantity(bar.last_qty), "b": price(bid[0]), "B": quantity(bid[1]),
        "a": price(ask[0]), "A": quantity(ask[1]),
    }  # fmt: skip


def average(instrument: Instrument, reference: Reference, minutes: int, bar: Bar, now_ns: int, unit_ns: int) -> Body:
    text = average_text(reference, instrument, bar) if bar.volume else instrument.price_text(bar.close)
    return {
        "e": "avgPrice", "E": now_ns // unit_ns, "s": instrument.symbol, "i": f"{minutes}m", "w": text,
        "T": bar.last_ns // unit_ns,
    }  # fmt: skip
