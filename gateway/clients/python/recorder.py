"""Recordings of a feed: packets to pcap, messages to Parquet.

A pcap holds MoldUDP64 packets in UDP in IPv4 (link type raw IP): what tshark and docs/bullring.lua read. Parquet holds
one row a message, all kinds in one table in the order of their numbers; a column that a kind does not have is null.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from gateway.clients.python.arbiter import LENGTH, MOLD_HEADER
from ringbuf.wire.market_codec import MARKET_HEADER_SIZE
from ringbuf.wire.market_messages import MESSAGES, EventFlags, MarketTemplate

PCAP_MAGIC_NS = 0xA1B23C4D  # times in nanoseconds
LINKTYPE_RAW_IP = 101
SNAPLEN = 65535
UDP = 17
NS_PER_S = 10**9
PACKET_BYTES_MAX = 1472
ROW_GROUP = 1 << 16
TEMPLATE_OFFSET = 2

# Column -> (Arrow type, fields of messages that go into it). `price` and `qty` are what the message is about.
COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "transact_time": ("timestamp", ("transact_time",)),
    "instrument_id": ("uint32", ("instrument_id",)),
    "order_id": ("uint64", ("order_id",)),
    "trade_id": ("uint64", ("trade_id",)),
    "side": ("uint8", ("side", "aggressor_side", "surplus_side")),
    "price": ("int64", ("price", "last_px", "new_price", "indicative_px")),
    "qty": ("int64", ("qty", "last_qty", "new_qty", "indicative_qty")),
    "surplus_qty": ("int64", ("surplus_qty",)),
    "num_orders": ("uint32", ("num_orders", "order_count")),
    "bid_px": ("int64", ("bid_px",)),
    "bid_qty": ("int64", ("bid_qty",)),
    "ask_px": ("int64", ("ask_px",)),
    "ask_qty": ("int64", ("ask_qty",)),
    "status": ("uint8", ("status",)),
    "digest_low": ("uint64", ("digest_low",)),
    "digest_high": ("uint64", ("digest_high",)),
    "symbol": ("string", ("symbol",)),
    "event_flags": ("uint8", ("event_flags",)),
}


class PcapWriter:
    """A pcap file of UDP packets from one address to another."""

    def __init__(self, path: Path, *, source: tuple[str, int], destination: tuple[str, int]) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._source, self._destination = source, destination
        self._file.write(struct.pack("<IHHiIII", PCAP_MAGIC_NS, 2, 4, 0, 0, SNAPLEN, LINKTYPE_RAW_IP))
        self.packets = 0

    def write(self, time_ns: int, payload: bytes, destination: tuple[str, int] | None = None) -> None:
        """Add one datagram."""
        (source, source_port), (target, port) = self._source, destination or self._destination
        udp = struct.pack(">HHHH", source_port, port, 8 + len(payload), 0)
        addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
        size = 20 + len(udp) + len(payload)
        head = struct.pack(">BBHHHBBH", 0x45, 0, size, self.packets & 0xFFFF, 0, 64, UDP, 0) + addresses
        head = head[:10] + struct.pack(">H", _checksum(head)) + head[12:]
        self._file.write(
            struct.pack("<IIII", time_ns // NS_PER_S, time_ns % NS_PER_S, size, size) + head + udp + payload
        )
        self.packets += 1

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Packer:
    """Makes MoldUDP64 packets of numbered messages, for recording what came over TCP."""

    def __init__(self, session: str, size_max: int = PACKET_BYTES_MAX) -> None:
        self._session, self._size_max = session.encode("ascii"), size_max
        self._first, self._messages, self._size = 0, list[bytes](), MOLD_HEADER.size

    def add(self, number: int, message: bytes) -> bytes | None:
        """Add a message; return the packet before it if it does not fit in any more."""
        packet = None
        if self._size + LENGTH.size + len(message) > self._size_max or number != self._first + len(self._messages):
            packet = self.flush()
        if not self._messages:
            self._first = number
        self._messages.append(message)
        self._size += LENGTH.size + len(message)
        return packet

    def flush(self) -> bytes | None:
        """Return what there is as a packet."""
        if not self._messages:
            return None
        body = b"".join(LENGTH.pack(len(message)) + message for message in self._messages)
        packet = MOLD_HEADER.pack(self._session, self._first, len(self._messages)) + body
        self._messages, self._size = [], MOLD_HEADER.size
        return packet


class ParquetRecorder:
    """A Parquet file of messages."""

    def __init__(self, path: Path) -> None:
        # It takes a third of a second, and clients that record nothing need not wait for it.
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        self._arrow: Any = arrow
        types = {"timestamp": arrow.timestamp("ns", tz="UTC"), "string": arrow.string()}
        fields = [(name, types.get(kind) or getattr(arrow, kind)()) for name, (kind, _) in COLUMNS.items()]
        head = [("channel", arrow.uint16()), ("number", arrow.uint64()), ("event", arrow.string())]
        self._schema = arrow.schema([*head, *fields, ("end_of_event", arrow.bool_())])
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        self.messages = 0

    def add(self, channel: int, number: int, message: bytes) -> None:
        """Add one message as it came; unknown templates are rows without fields."""
        template = int.from_bytes(message[TEMPLATE_OFFSET : TEMPLATE_OFFSET + 2], "little")
        kind = MESSAGES.get(template)
        rows = self._rows
        rows["channel"].append(channel)
        rows["number"].append(number)
        rows["event"].append(MarketTemplate(template).name.lower() if kind is not None else str(template))
        values = kind.unpack(message, MARKET_HEADER_SIZE) if kind is not None else None
        for name, (_, fields) in COLUMNS.items():
            rows[name].append(_first(values, fields))
        flags = rows["event_flags"][-1]
        rows["end_of_event"].append(None if flags is None else bool(flags & EventFlags.END_OF_EVENT))
        self.messages += 1
        if self.messages % ROW_GROUP == 0:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting as a row group."""
        if self._rows["number"]:
            self._writer.write_table(self._arrow.table(self._rows, schema=self._schema))
            self._rows = {name: [] for name in self._schema.names}

    def close(self) -> None:
        self.flush()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first(message: Any, fields: Sequence[str]) -> Any:
    """Return the first of the fields that the message has, enumerations as numbers."""
    for name in fields:
        value = getattr(message, name, None)
        if value is not None:
            return int(value) if isinstance(value, int) else value
    return None


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
