"""The PyPI package `sbe`, which nobody here wrote, reads our schemas and agrees with our bytes."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import pytest
import sbe

from ringbuf.wire import generate, market_messages, messages
from ringbuf.wire import schema as wire_schema
from tests.vectors import make_frames

REPO = Path(generate.__file__).resolve().parents[2]
VECTORS = json.loads(Path(make_frames.__file__).with_name("frames.json").read_text())
SOFH_SIZE = 6
CASES = {
    "orders": (generate.ORDERS, messages.MESSAGES, SOFH_SIZE),
    "market": (generate.MARKETDATA, market_messages.MESSAGES, 0),
}


def names_by_value(kind: wire_schema.EnumType | wire_schema.SetType) -> dict[int, str]:
    members = kind.values if isinstance(kind, wire_schema.EnumType) else kind.choices
    return {value: name for name, value in members}


def expected_value(field: wire_schema.Field, value: Any) -> Any:
    """Our value as the package shows it: enums by name, sets as lists of names, nulls as the raw number."""
    if isinstance(field.type, wire_schema.EnumType):
        return names_by_value(field.type)[value]
    if isinstance(field.type, wire_schema.SetType):
        return [name for bit, name in sorted(names_by_value(field.type).items()) if value >> bit & 1]
    if field.is_padding:
        return 0
    if value is None:
        return field.type.null
    if field.primitive == "char" and not field.is_text:
        return bytes.fromhex(value).decode("ascii")
    return value


def has_gaps(kind: wire_schema.FieldType) -> bool:
    """The package encodes a set by the position of a choice, not by its bit: right only for bits 0, 1, 2 in order."""
    return isinstance(kind, wire_schema.SetType) and [bit for _, bit in kind.choices] != list(range(len(kind.choices)))


def comparable(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    return sorted(value) if isinstance(value, list | set | tuple) else value


@pytest.mark.parametrize("section", CASES)
def test_the_peer_decodes_and_reencodes_every_golden_frame(section: str) -> None:
    source, kinds, skip = CASES[section]
    with (REPO / source).open() as file:
        peer = sbe.Schema.parse(file)
    ours = {message.id: message for message in wire_schema.load(REPO / source).messages}
    assert set(peer.messages) == set(kinds)
    for entry in VECTORS[section]:
        frame = bytes.fromhex(entry["frame"])[skip:]
        decoded = peer.decode(frame)
        message = ours[entry["template_id"]]

        assert decoded.message_name == entry["name"]
        for field in message.fields:
            want = expected_value(field, entry["fields"].get(field.snake))
            assert comparable(decoded.value[field.name]) == comparable(want), (entry["name"], field.name)
        if not any(has_gaps(field.type) for field in message.fields):
            again = peer.encode(peer.messages[message.id], decoded.value, decoded.header)
            assert again == frame, entry["name"]
