"""Write frames.json: one golden frame per template, and one with every nullable field absent.

    python -m tests.vectors.make_frames

Frames already in the file are promises to clients and journals: after a schema change only additions may appear in the
diff. The values are arbitrary but distinct per field, so that two swapped fields cannot go unnoticed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ringbuf.wire.base import WireMessage
from ringbuf.wire.codec import encode_frame
from ringbuf.wire.market_codec import encode_market
from ringbuf.wire.market_messages import MESSAGES as MARKET_MESSAGES
from ringbuf.wire.messages import MESSAGES, FrameFlag

PATH = Path(__file__).with_name("frames.json")
SEQ_NUM = 0x0102030405060708
SENDING_TIME = 1_700_000_000_123_456_789


def sample_value(name: str, kind: str, default: Any, index: int) -> Any:
    if isinstance(default, str):
        return f"{name}"[: int(kind[1:])].upper()
    if isinstance(default, bytes):
        return bytes(33 + (index + i) % 90 for i in range(len(default)))
    size = int(kind[-1])
    if size == 1:
        return index % 5 + 1
    value = int.from_bytes(bytes((index + i) % 100 + 1 for i in range(size)), "little")
    return -value if kind.startswith("<i") and index % 2 else value


def enum_members(kind: type[WireMessage], name: str) -> list[int]:
    """Return the values of the enum or set of a field (annotated "Side | int"), or nothing."""
    enum_name = kind.__annotations__[name].partition(" ")[0]
    found = getattr(sys.modules[kind.__module__], enum_name, ())
    return [int(member) for member in found]


def sample(kind: type[WireMessage], *, absent: bool) -> WireMessage:
    """Return a message with every field set, or with every nullable field None."""
    defaults = kind()
    values = {}
    for index, (name, column, _) in enumerate(kind.COLUMNS):
        default = getattr(defaults, name)
        members = enum_members(kind, name)
        if default is None and absent:
            values[name] = None
        elif members:
            values[name] = members[index % len(members)]
        else:
            values[name] = sample_value(name, column, default, index)
    return kind(**values)


def to_json(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def entry(message: WireMessage, frame: bytes) -> dict[str, Any]:
    fields = {name: to_json(getattr(message, name)) for name, _, _ in message.COLUMNS}
    return {"name": type(message).__name__, "template_id": message.TEMPLATE_ID, "fields": fields, "frame": frame.hex()}


def build() -> dict[str, Any]:
    orders: list[dict[str, Any]] = []
    market: list[dict[str, Any]] = []
    flags = int(FrameFlag.POSS_RETRANS | FrameFlag.LAST_IN_BATCH)
    for messages, entries in ((MESSAGES, orders), (MARKET_MESSAGES, market)):
        for kind in messages.values():
            for absent in (False, True):
                message = sample(kind, absent=absent)
                if absent and None not in [getattr(message, name) for name, _, _ in kind.COLUMNS]:
                    continue
                if entries is orders:
                    frame = encode_frame(message, seq_num=SEQ_NUM, flags=flags, sending_time=SENDING_TIME, partition=3)
                else:
                    frame = encode_market(message)
                entries.append(entry(message, frame))
    header = {"seq_num": SEQ_NUM, "flags": flags, "sending_time": SENDING_TIME, "partition": 3}
    return {"header": header, "orders": orders, "market": market}


if __name__ == "__main__":
    PATH.write_text(json.dumps(build(), indent=1) + "\n", encoding="utf-8")
