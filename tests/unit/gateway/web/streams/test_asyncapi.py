"""The AsyncAPI document: every kind of stream, with an example that fits its schema; checksums as documented."""

import zlib
from struct import pack

from gateway.web.streams.asyncapi import document, examples
from gateway.web.streams.names import Kind
from gateway.web.streams.payloads import checksum


def test_every_kind_has_a_channel_and_a_message() -> None:
    made = document("ws://127.0.0.1:8080")

    assert made["servers"]["streams"] == {"host": "127.0.0.1:8080", "protocol": "ws"}
    kinds = {str(kind) for kind in Kind}
    assert set(made["channels"]) == kinds
    assert set(made["components"]["messages"]) == kinds | {"bookSnapshot", "l3Snapshot"}
    assert set(made["channels"]["l3"]["messages"]) == {"l3", "l3Snapshot"}
    change = made["components"]["messages"]["l3"]["payload"]["properties"]["o"]["items"]
    assert change["required"] == ["x", "i", "T"]
    assert set(change["properties"]) == {"x", "i", "T", "S", "p", "q", "L", "l", "t"}
    assert made["components"]["messages"]["kline"]["payload"]["properties"]["k"]["properties"]["x"] == {
        "type": "boolean"
    }


def test_examples_have_the_shapes_clients_know() -> None:
    made = examples()

    assert made[Kind.TRADE]["p"] == "100050.00000000"
    assert made[Kind.DIFF]["a"] == [["100050.00000000", "0.00000000"]]  # removed: clients compare this text
    assert (made[Kind.TICKER]["p"], made[Kind.TICKER]["P"]) == ("50.00000000", "0.050")
    assert made[Kind.AVERAGE]["w"] == "100050.00000000"


def test_checksum_is_over_ten_levels_of_each_side() -> None:
    bids, asks = [(100 - at, at + 1) for at in range(12)], [(101 + at, at + 1) for at in range(12)]
    packed = b"".join(pack("<qq", *level) for level in bids[:10] + asks[:10])

    assert checksum(bids, asks) == zlib.crc32(packed)
    assert checksum(bids, asks) != checksum(bids, [(101, 2), *asks[1:]])
