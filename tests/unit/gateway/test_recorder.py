"""Recordings: a pcap that a parser of our own and tshark read, a Parquet file that says what the messages say."""

import re
import struct
from pathlib import Path
from typing import Any

from gateway.clients.python.recorder import Packer, ParquetRecorder, PcapWriter
from ringbuf.wire.market_codec import decode_market, encode_market
from ringbuf.wire.market_messages import Bbo, OrderAdd, OrderDelete, OrderExecute
from tests.kit.feed_site import FeedSite, Packet, flow, traders


def read_pcap(path: Path) -> list[tuple[int, bytes]]:
    """Return (time in ns, UDP payload) of each packet."""
    data = path.read_bytes()
    assert struct.unpack("<IHHiIII", data[:24]) == (0xA1B23C4D, 2, 4, 0, 0, 65535, 101)
    packets, at = [], 24
    while at < len(data):
        seconds, nanoseconds, size, _ = struct.unpack_from("<IIII", data, at)
        packets.append((seconds * 10**9 + nanoseconds, data[at + 16 + 28 : at + 16 + size]))
        at += 16 + size
    return packets


def test_a_pcap_holds_the_packets_and_their_times(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    with PcapWriter(path, source=("10.0.0.1", 9), destination=("239.1.1.1", 9301)) as pcap:
        pcap.write(1_700_000_000_000_000_123, b"abc")
        pcap.write(1_700_000_001_000_000_000, b"", ("239.1.1.2", 9302))

    assert read_pcap(path) == [(1_700_000_000_000_000_123, b"abc"), (1_700_000_001_000_000_000, b"")]
    header = path.read_bytes()[24 + 16 : 24 + 16 + 20]
    assert sum(struct.unpack(">10H", header)) % 0xFFFF == 0, "the checksum of IPv4"


def test_messages_are_packed_in_order_and_gaps_begin_a_packet() -> None:
    packer, packets = Packer("BR001TEST1", size_max=100), []
    for number in (1, 2, 3, 4, 9, 10):
        packets.append(packer.add(number, bytes([number]) * 30))
    packets.append(packer.flush())

    found = [Packet.parse(packet) for packet in packets if packet is not None]

    assert [(each.number, each.count) for each in found] == [(1, 2), (3, 2), (9, 2)]
    assert found[2].messages == [bytes([9]) * 30, bytes([10]) * 30]
    assert packer.flush() is None


def table(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    read = pyarrow.parquet.read_table(path)
    return read.set_column(
        read.schema.get_field_index("transact_time"), "transact_time", read["transact_time"].cast(pyarrow.int64())
    ).to_pylist()


def test_parquet_says_what_the_messages_say(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with FeedSite(lines=0) as site, ParquetRecorder(path) as recorder:
        for _ in flow(site.exchange, *traders(site.exchange), 300):
            pass
        messages = site.messages()
        for number, message in enumerate(messages, 1):
            recorder.add(1, number, message)
        recorder.add(101, 7, encode_market(Bbo(bid_px=None, ask_px=5, ask_qty=2, instrument_id=1)))
        recorder.add(1, 8, b"\0\0\x63\0\xea\x03\0\0")

    rows = table(path)

    assert len(rows) == len(messages) + 2
    kinds = set()
    for row, message in zip(rows, messages, strict=False):
        decoded = decode_market(message)
        kinds.add(type(decoded))
        assert row["event"] == re.sub(r"\B([A-Z])", r"_\1", type(decoded).__name__).lower()
        assert row["transact_time"] == decoded.transact_time  # type: ignore[attr-defined]
        assert row["order_id"] == decoded.order_id  # type: ignore[attr-defined]
        price = getattr(decoded, "price", getattr(decoded, "last_px", getattr(decoded, "new_price", None)))
        quantity = getattr(decoded, "qty", getattr(decoded, "last_qty", getattr(decoded, "new_qty", None)))
        assert (row["price"], row["qty"]) == (price, quantity)
        assert row["end_of_event"] == bool(int(decoded.event_flags) & 128)  # type: ignore[attr-defined]
    assert {OrderAdd, OrderExecute, OrderDelete} <= kinds
    assert (rows[-2]["bid_px"], rows[-2]["ask_px"], rows[-2]["event"]) == (None, 5, "bbo")
    assert (rows[-1]["event"], rows[-1]["price"]) == ("99", None)
