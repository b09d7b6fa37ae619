"""Log records of the simulation: real slots, with the templates the chain looks at."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from journaler.format import SLOT_SIZE
from ringbuf.wire.messages import EpochStart, Template

_SLOT = Struct("<IHHIBBHQQ80sQQ")
_HEAD = Struct("<IHHIBBHQ")
REQUEST = int(Template.NEW_ORDER_SINGLE)
BIND = int(Template.SESSION_BIND)
TICK = int(Template.TICK)
EPOCH = int(Template.EPOCH_START)
SOURCE_OPEN = int(Template.SOURCE_OPEN)


class Entry(NamedTuple):
    """What the simulated sequencer needs of a record."""

    template: int
    session: int
    source: int
    src_seq: int
    number: int  # the client's own
    payload: int


def make(
    template: int, *, session: int = 0, source: int = 0, src_seq: int = 0, number: int = 0, payload: int = 0
) -> bytes:
    block = EpochStart(epoch=payload).pack() if template == EPOCH else payload.to_bytes(8, "little")
    return _SLOT.pack(session, source, template, src_seq, 0, 0, 0, number, 0, block, 0, payload)


def parse(slot: bytes) -> Entry:
    session, source, template, src_seq, _, _, _, number = _HEAD.unpack_from(slot)
    return Entry(template, session, source, src_seq, number, int.from_bytes(slot[120:128], "little"))


def split(records: bytes) -> list[bytes]:
    return [records[at : at + SLOT_SIZE] for at in range(0, len(records), SLOT_SIZE)]
