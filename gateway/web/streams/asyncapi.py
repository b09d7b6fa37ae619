"""The AsyncAPI document of public streams, made from the names and payloads the code itself uses."""

from __future__ import annotations

from typing import Any

from gateway.web.market_view import INTERVALS, NS_PER_S, Bar
from gateway.web.reference import Asset, Instrument, Reference
from gateway.web.streams import payloads
from gateway.web.streams.names import LATEST_ONLY, WINDOWS_MIN, Kind
from gateway.web.streams.payloads import MS, Change
from ringbuf.wire import market_messages as market
from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import Side

VERSION = "3.0.0"
SPEEDS = "[@100ms|@1000ms]"
NAMES: dict[Kind, tuple[str, str]] = {
    Kind.TRADE: ("{symbol}@trade", "every trade"),
    Kind.AGG_TRADE: ("{symbol}@aggTrade", "trades of one taker order at one price"),
    Kind.BOOK_TICKER: ("{symbol}@bookTicker", "best bid and ask, with each change"),
    Kind.KLINE: ("{symbol}@kline_{interval}[@+08:00]", "the open candle every second; x is true once, at its end"),
    Kind.MINI: ("{symbol}@miniTicker or !miniTicker@arr", "24 hours, every second if something changed"),
    Kind.TICKER: ("{symbol}@ticker or !ticker@arr", "24 hours with best prices, every second"),
    Kind.WINDOW: ("{symbol}@ticker_{window} or !ticker_{window}@arr", f"windows {', '.join(WINDOWS_MIN)}"),
    Kind.AVERAGE: ("{symbol}@avgPrice", "average of five minutes, every second"),
    Kind.PARTIAL: (f"{{symbol}}@depth{{5|10|20}}{SPEEDS}", "the best levels, if they changed"),
    Kind.DIFF: (f"{{symbol}}@depth{SPEEDS}", "levels that changed; U is the u before, plus 1"),
    Kind.BOOK: (f"{{symbol}}@book{SPEEDS}", "bookSnapshot, then bookUpdate, each with a checksum; can be resumed"),
    Kind.L3: ("{symbol}@l3", "order by order: l3Snapshot in parts, then l3Update, with checksums; can be resumed"),
}


def document(url: str) -> dict[str, Any]:
    """Return the document; `url` is the base of the WebSocket addresses."""
    host = url.partition("://")[2]
    updates, snapshots = examples(), snapshot_examples()
    messages = {str(kind): _message(str(kind), kind, example) for kind, example in updates.items()}
    messages |= {f"{kind}Snapshot": _message(f"{kind}Snapshot", kind, each) for kind, each in snapshots.items()}
    channels = {}
    for kind, (name, text) in NAMES.items():
        told = [str(kind), f"{kind}Snapshot"] if kind in snapshots else [str(kind)]
        references = {each: {"$ref": f"#/components/messages/{each}"} for each in told}
        channels[str(kind)] = {"address": f"/ws/{name}", "description": text, "messages": references}
    operations = {
        f"receive_{kind}": {"action": "receive", "channel": {"$ref": f"#/channels/{kind}"}} for kind in map(str, NAMES)
    }
    return {
        "asyncapi": VERSION,
        "info": {"title": "Bullring public streams", "version": "1", "description": _DESCRIPTION},
        "servers": {"streams": {"host": host, "protocol": url.partition("://")[0]}},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _message(name: str, kind: Kind, example: Any) -> dict[str, Any]:
    return {
        "name": name,
        "summary": NAMES[kind][1],
        "contentType": "application/json",
        "payload": schema(example),
        "examples": [{"payload": example}],
        "x-newest-only": kind in LATEST_ONLY,
    }


_DESCRIPTION = (
    "Connect to /ws/NAME[/NAME...] for bare payloads or to /stream?streams=NAME/NAME for {stream, data}; then"
    ' {"method": "SUBSCRIBE" | "UNSUBSCRIBE" | "LIST_SUBSCRIPTIONS", "params": [NAME...], "id": n}.'
    f" timeUnit=MICROSECOND gives times in microseconds. Intervals: {', '.join(INTERVALS)}."
    " A slow reader gets only the newest message of streams marked x-newest-only; GET_PROPERTY conflated says how many"
    " it missed. Of the others it gets all, until its queue is full and the connection is closed with 1008."
)


PAIR = Instrument(
    1, "BTC-USDT", base_asset=1, quote_asset=2, partition=1, tick_size=1, price_exponent=-2, lot_size=1,
    qty_exponent=-5, quote_per_tick_lot=10, base_per_lot=1000,
)  # fmt: skip
START_NS = 1_784_592_000 * NS_PER_S


def snapshot_examples() -> dict[Kind, Any]:
    """Return what the streams begin with that begin with a book."""
    bids, asks = [(10_000_000, 50_000)], [(10_005_000, 70_000)]
    orders = [(True, (4711, *bids[0])), (False, (4712, *asks[0]))]
    crc = payloads.checksum(bids, asks)
    return {
        Kind.BOOK: payloads.book_snapshot(PAIR, 157, bids, asks, START_NS, MS),
        Kind.L3: payloads.order_snapshot(PAIR, 157, orders, 0, crc, START_NS, MS),
    }


def examples() -> dict[Kind, Any]:
    """Return a message of each kind, made by the code that makes the real ones."""
    reference = Reference()
    reference.put(Asset(1, "BTC", -8))
    reference.put(Asset(2, "USDT", -8))
    pair, start = PAIR, START_NS
    bar = Bar(
        start, start + 60 * NS_PER_S, 10_000_000, 10_010_000, 9_990_000, 10_005_000, volume=150_000,
        quote=15_007_500_000_000, count=2, first_id=1, last_id=2, taker_volume=100_000,
        taker_quote=10_005_000_000_000, last_qty=50_000, last_ns=start,
    )  # fmt: skip
    bids, asks = [(10_000_000, 50_000)], [(10_005_000, 0)]
    diff = payloads.depth_diff(pair, 158, 160, bids, asks, start, MS)
    return {
        Kind.TRADE: payloads.trade(pair, (2, 10_005_000, 50_000, start, True), start, MS),
        Kind.AGG_TRADE: payloads.aggregate(pair, (1, 10_005_000, 150_000, 1, 2, start, True), start, MS),
        Kind.BOOK_TICKER: payloads.book_ticker(pair, 160, bids[0], (10_005_000, 70_000)),
        Kind.KLINE: payloads.kline(pair, reference, "1m", bar, MS, start, closed=False),
        Kind.MINI: payloads.mini(pair, reference, bar, start, MS),
        Kind.TICKER: payloads.day(pair, reference, bar, 9_990_000, (bids[0], asks[0]), start, MS),
        Kind.WINDOW: payloads.window(pair, reference, "1h", bar, start, MS),
        Kind.AVERAGE: payloads.average(pair, reference, 5, bar, start, MS),
        Kind.PARTIAL: payloads.partial_depth(pair, 160, bids, asks),
        Kind.DIFF: diff,
        Kind.BOOK: diff | {"e": "bookUpdate", "c": payloads.checksum(bids, [])},
        Kind.L3: payloads.order_update(PAIR, 158, 162, _changes(), payloads.checksum(bids, []), start, MS),
    }


def _changes() -> list[Change]:
    terms: list[tuple[type[WireMessage], int, int]] = [
        (market.OrderAdd, 10_000_000, 70_000),
        (market.OrderExecute, 10_000_000, 20_000),
        (market.OrderReduce, 0, 40_000),
        (market.OrderReplace, 9_999_000, 30_000),
        (market.OrderDelete, 0, 0),
    ]
    return [
        Change(kind, 158 + at, START_NS, 4713, int(Side.BUY), price, quantity, 99)
        for at, (kind, price, quantity) in enumerate(terms)
    ]


def schema(example: Any) -> dict[str, Any]:
    """Return the JSON schema of what looks like this; of objects in a list, what all of them have is required."""
    if isinstance(example, dict):
        properties = {name: schema(value) for name, value in example.items()}
        return {"type": "object", "properties": properties, "required": list(properties)}
    if isinstance(example, list) and example and isinstance(example[0], dict):
        properties = {name: schema(value) for each in example for name, value in each.items()}
        required = [name for name in properties if all(name in each for each in example)]
        return {"type": "array", "items": {"type": "object", "properties": properties, "required": required}}
    if isinstance(example, list):
        kinds = list({str(schema(each)): schema(each) for each in example}.values())
        return {"type": "array", "items": {"anyOf": kinds} if len(kinds) > 1 else kinds[0] if kinds else {}}
    return {"type": {bool: "boolean", int: "integer", str: "string"}[type(example)]}
