"""Slots of a market channel as columns: numpy views of whole batches, without a step of Python a message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from gateway.marketdata.feed import SLOT_SIZE
from ringbuf.wire.base import WireMessage

TEMPLATE_AT, BLOCK_AT = 10, 16  # in a slot (ringbuf/include/slots.h)
NO_PRICE = -(1 << 63)  # the wire's null price


def layout(message: type[WireMessage]) -> Any:
    """Return a view of slots as if all were of one message."""
    columns = [("update_id", "<u8", 0), ("template", "<u2", TEMPLATE_AT)]
    columns += [(name, kind, BLOCK_AT + at) for name, kind, at in message.COLUMNS]
    shape: Any = {
        "names": [name for name, _, _ in columns],
        "formats": [kind for _, kind, _ in columns],
        "offsets": [at for _, _, at in columns],
        "itemsize": SLOT_SIZE,
    }
    return numpy.dtype(shape)


def flags_at(messages: Iterable[type[WireMessage]]) -> dict[int, int]:
    """Return where in a slot the event flags stand, by template."""
    return {
        message.TEMPLATE_ID: BLOCK_AT + at
        for message in messages
        for name, _, at in message.COLUMNS
        if name == "event_flags"
    }
