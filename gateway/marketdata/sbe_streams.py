"""Messages of the public SBE market streams (schema `stream_1_0`: id 1, version 0), as spot clients decode them.

Little-endian: header of four u16 (block length, template, schema, version), block, groups, symbol as varString8. Times
are microseconds, prices and quantities mantissas of the exponents in the block. Written from the public facts of that
schema; docs/FEED.md has the layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

SCHEMA_ID, SCHEMA_VERSION = 1, 0
TRADES, BEST_BID_ASK, DEPTH_SNAPSHOT, DEPTH_DIFF = 10000, 10001, 10002, 10003
NO_PRICE = 0  # of a side without orders, with quantity 0
_TRADES = Struct("<HHHHqqbb")
_TRADES_GROUP = Struct("<HI")
_TRADE = Struct("<qqqB")
_BEST_BID_ASK = Struct("<HHHHqqbbqqqq")
_DEPTH_SNAPSHOT = Struct("<HHHHqqbb")
_DEPTH_DIFF = Struct("<HHHHqqqbb")
_LEVELS_GROUP = Struct("<HH")
_LEVEL = Struct("<qq")
_HEADER_SIZE = 8
LEVELS_MAX = 65535  # a group counts in u16


@dataclass(frozen=True, slots=True)
class Scale:
    """How an instrument's ticks and lots become mantissas, and what clients call it."""

    symbol: str
    tick_size: int
    lot_size: int
    price_exponent: int
    qty_exponent: int

    def level(self, price: int, quantity: int) -> tuple[int, int]:
        """Return mantissas of ticks and lots."""
        return price * self.tick_size, quantity * self.lot_size


def _head(layout: Struct, template: int) -> tuple[int, int, int, int]:
    return layout.size - _HEADER_SIZE, template, SCHEMA_ID, SCHEMA_VERSION


def _text(symbol: str) -> bytes:
    data = symbol.encode()
    return bytes([len(data)]) + data


def _levels(scale: Scale, levels: Sequence[tuple[int, int]]) -> bytes:
    group = _LEVELS_GROUP.pack(_LEVEL.size, len(levels))
    return group + b"".join(_LEVEL.pack(*scale.level(price, quantity)) for price, quantity in levels)


def trades(scale: Scale, event_us: int, transact_us: int, entries: Sequence[tuple[int, int, int, bool]]) -> bytes:
    """Return TradesStreamEvent; an entry is trade id, ticks, lots, whether the buyer was resting."""
    block = _TRADES.pack(*_head(_TRADES, TRADES), event_us, transact_us, scale.price_exponent, scale.qty_exponent)
    group = _TRADES_GROUP.pack(_TRADE.size, len(entries))
    rows = (_TRADE.pack(number, *scale.level(price, quantity), maker) for number, price, quantity, maker in entries)
    return block + group + b"".join(rows) + _text(scale.symbol)


def best_bid_ask(
    scale: Scale, event_us: int, update_id: int, bid: tuple[int, int] | None, ask: tuple[int, int] | None
) -> bytes:
    """Return BestBidAskStreamEvent; a side is ticks and lots, None without orders."""
    sides = [scale.level(*side) if side is not None else (NO_PRICE, 0) for side in (bid, ask)]
    exponents = scale.price_exponent, scale.qty_exponent
    head = _head(_BEST_BID_ASK, BEST_BID_ASK)
    return _BEST_BID_ASK.pack(*head, event_us, update_id, *exponents, *sides[0], *sides[1]) + _text(scale.symbol)


def depth_snapshot(
    scale: Scale,
    event_us: int,
    update_id: int,
    bids: Sequence[tuple[int, int]],
    asks: Sequence[tuple[int, int]],
) -> bytes:
    """Return DepthSnapshotStreamEvent: the best levels, best first."""
    head = _head(_DEPTH_SNAPSHOT, DEPTH_SNAPSHOT)
    block = _DEPTH_SNAPSHOT.pack(*head, event_us, update_id, scale.price_exponent, scale.qty_exponent)
    return block + _levels(scale, bids) + _levels(scale, asks) + _text(scale.symbol)


def depth_diff(
    scale: Scale,
    event_us: int,
    first_id: int,
    last_id: int,
    bids: Sequence[tuple[int, int]],
    asks: Sequence[tuple[int, int]],
) -> bytes:
    """Return DepthDiffStreamEvent: the levels that changed, with what is there now; 0 = nothing."""
    head = _head(_DEPTH_DIFF, DEPTH_DIFF)
    block = _DEPTH_DIFF.pack(*head, event_us, first_id, last_id, scale.price_exponent, scale.qty_exponent)
    return block + _levels(scale, bids) + _levels(scale, asks) + _text(scale.symbol)
