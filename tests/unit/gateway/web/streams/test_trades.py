"""Frames of trades made natively are those that the general code makes of the same trades."""

import random

import numpy
import orjson
import pytest

from gateway.web.reference import Instrument
from gateway.web.streams import payloads
from gateway.web.streams.fanout import ws_frame
from gateway.web.streams.live import _LAYOUTS, TRADES
from gateway.web.streams.payloads import MS, US
from gateway.web.streams.trades import trade_frames, trade_rows

NOW_NS = 1_795_654_345_574_123_456
HEAD = b'{"stream":"btcusdt@trade","data":'


@pytest.mark.parametrize("unit_ns", [MS, US])
@pytest.mark.parametrize("head", [b"", HEAD])
@pytest.mark.parametrize(
    ("price_exponent", "tick_size", "qty_exponent", "lot_size"),
    [(-2, 1, -5, 1), (0, 5, -8, 25), (-8, 1, -12, 1), (-18, 10**6, 0, 10**6), (-20, 1, -5, 1), (4, 10**9, -5, 1)],
)
def test_frames_are_those_of_the_general_code(
    unit_ns: int, head: bytes, price_exponent: int, tick_size: int, qty_exponent: int, lot_size: int
) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    pair = Instrument(7, "BTC-USDT", 1, 2, 1, tick_size, price_exponent, lot_size, qty_exponent, 1, 1)
    rows = numpy.zeros(300, dtype=_LAYOUTS[TRADES])
    for row in rows:
        row["trade_id"] = chance.choice((0, 1, chance.getrandbits(40), (1 << 64) - 1))
        row["price"] = chance.choice((0, 1, -1, chance.getrandbits(20), chance.getrandbits(62), -(1 << 62)))
        row["qty"] = chance.choice((0, 1, chance.getrandbits(20), (1 << 63) - 1))
        row["transact_time"] = chance.choice((0, 999, chance.getrandbits(62), (1 << 64) - 1))
        row["aggressor_side"] = chance.randrange(3)

    made = trade_frames(pair, rows, NOW_NS, head, unit_ns)

    bodies = [orjson.dumps(payloads.trade(pair, row, NOW_NS, unit_ns)) for row in trade_rows(rows)]
    assert made == b"".join(ws_frame(head + body + (b"}" if head else b"")) for body in bodies), seed
    assert trade_frames(pair, rows[:0], NOW_NS, head, unit_ns) == b""
