"""Trades of one pair as frames, made natively: there are many, and each goes out."""

from __future__ import annotations

import functools
from typing import Any

import orjson

from gateway._gateway import ffi, lib
from gateway.web.decimals import DECIMALS
from gateway.web.reference import Instrument
from gateway.web.streams import payloads
from gateway.web.streams.fanout import ws_frame
from ringbuf.wire.messages import SideOrBoth

PLACES_MAX: int = lib.TRADES_PLACES_MAX
HEAD_MAX: int = lib.TRADES_HEAD_MAX


@functools.lru_cache(1024)
def _scale(exponent: int, step: int) -> tuple[int, int]:
    """Return (what a step is multiplied with, decimals) of the text that to_text() makes."""
    places = max(DECIMALS, -exponent)
    return step * 10 ** (places + exponent), places


def trade_frames(instrument: Instrument, rows: Any, now_ns: int, head: bytes, unit_ns: int) -> bytes:
    """Return a frame of each trade, with what payloads.trade() says of it.

    `rows`: slots of trades (streams/live.py). `head`: what stands before the object, which is closed with one more
    bracket then. `unit_ns`: of the times.
    """
    price_times, price_places = _scale(instrument.price_exponent, instrument.tick_size)
    qty_times, qty_places = _scale(instrument.qty_exponent, instrument.lot_size)
    text = b'%b{"e":"trade","E":%d,"s":"%b","t":' % (head, now_ns // unit_ns, instrument.symbol.encode())
    if max(price_places, qty_places) > PLACES_MAX or max(price_times, qty_times) >> 64 or len(text) > HEAD_MAX:
        return _one_by_one(instrument, rows, now_ns, head, unit_ns)
    kept = ffi.new("char[]", text)
    form = ffi.new(
        "trades_form_t *",
        {
            "head": kept, "head_size": len(text), "wrapped": bool(head), "price_times": price_times,
            "price_places": price_places, "qty_times": qty_times, "qty_places": qty_places, "unit_ns": unit_ns,
        },
    )  # fmt: skip
    out = bytearray(len(rows) * lib.TRADES_FRAME_MAX)
    size = lib.trades_frames(ffi.from_buffer(rows), len(rows), form, ffi.from_buffer(out))
    return bytes(memoryview(out)[:size])


def _one_by_one(instrument: Instrument, rows: Any, now_ns: int, head: bytes, unit_ns: int) -> bytes:
    """The same for scales that 64 bits do not hold."""
    made = [payloads.trade(instrument, row, now_ns, unit_ns) for row in trade_rows(rows)]
    return b"".join(ws_frame(head + orjson.dumps(body) + (b"}" if head else b"")) for body in made)


def trade_rows(rows: Any) -> list[tuple[int, int, int, int, bool]]:
    """Return (id, ticks, lots, ns, whether the buyer rested) of each."""
    columns = (rows[name].tolist() for name in ("trade_id", "price", "qty", "transact_time"))
    # Nobody was first in an auction: then the buyer did not rest.
    rested = (rows["aggressor_side"] == SideOrBoth.SELL).tolist()
    return list(zip(*columns, rested, strict=True))
