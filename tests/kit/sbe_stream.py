"""A reader of the public SBE market streams, written from their schema's facts and not from our encoder."""

from __future__ import annotations

from dataclasses import dataclass, field

BLOCKS = {
    10000: ("trades", ("eventTime:8", "transactTime:8", "priceExponent:1", "qtyExponent:1")),
    10001: (
        "bestBidAsk",
        (
            "eventTime:8", "bookUpdateId:8", "priceExponent:1", "qtyExponent:1", "bidPrice:8", "bidQty:8", "askPrice:8",
            "askQty:8",
        ),
    ),
    10002: ("depthSnapshot", ("eventTime:8", "bookUpdateId:8", "priceExponent:1", "qtyExponent:1")),
    10003: (
        "depthDiff",
        ("eventTime:8", "firstBookUpdateId:8", "lastBookUpdateId:8", "priceExponent:1", "qtyExponent:1"),
    ),
}  # fmt: skip
GROUPS = {10000: ("trades",), 10001: (), 10002: ("bids", "asks"), 10003: ("bids", "asks")}
# Bytes of the number of entries, and fields.
ENTRIES = {
    "trades": (4, ("id:8", "price:8", "qty:8", "isBuyerMaker:1")),
    "bids": (2, ("price:8", "qty:8")),
    "asks": (2, ("price:8", "qty:8")),
}


@dataclass
class Frame:
    """One message."""

    name: str
    symbol: str
    fields: dict[str, int]
    groups: dict[str, list[dict[str, int]]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.fields[name]

    def levels(self, side: str) -> list[tuple[int, int]]:
        return [(entry["price"], entry["qty"]) for entry in self.groups[side]]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, size: int, *, signed: bool = False) -> int:
        assert self.at + size <= len(self.data), "cut short"
        value = int.from_bytes(self.data[self.at : self.at + size], "little", signed=signed)
        self.at += size
        return value

    def block(self, fields: tuple[str, ...], length: int) -> dict[str, int]:
        end, found = self.at + length, {}
        for text in fields:
            name, _, size = text.partition(":")
            found[name] = self.number(int(size), signed=True)
        assert self.at == end, "the block is as long as its fields of this version"
        return found


def read(data: bytes) -> Frame:
    """Decode one frame, every byte of it."""
    reader = _Reader(data)
    length, template, schema, version = (reader.number(2) for _ in range(4))
    assert (schema, version) == (1, 0)
    name, fields = BLOCKS[template]
    frame = Frame(name, "", reader.block(fields, length))
    for group in GROUPS[template]:
        count_size, entry = ENTRIES[group]
        entry_length, count = reader.number(2), reader.number(count_size)
        frame.groups[group] = [reader.block(entry, entry_length) for _ in range(count)]
    size = reader.number(1)
    frame.symbol = data[reader.at : reader.at + size].decode()
    assert reader.at + size == len(data), "the symbol is the last thing"
    return frame
