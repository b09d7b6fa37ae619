"""Messages and frames: round trips, nulls, golden bytes, streaming, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringbuf.wire import base, codec, market_messages, messages
from ringbuf.wire.base import EncodingError, WireMessage
from ringbuf.wire.codec import DecodingError, FrameReader, decode_frame, encode_frame
from ringbuf.wire.market_codec import MARKET_HEADER, decode_market, encode_market
from ringbuf.wire.messages import FrameFlag, KeyCreate, NewOrderSingle, OrdType, Sequence, Side, TimeInForce
from tests.vectors import make_frames

VECTORS = json.loads(Path(make_frames.__file__).with_name("frames.json").read_text())
ALL_KINDS = [*messages.MESSAGES.values(), *market_messages.MESSAGES.values()]
KIND_IDS = [kind.__name__ for kind in ALL_KINDS]
EXAMPLES_PER_MESSAGE = 25  # there are 101 messages


def encode_any(message: WireMessage) -> bytes:
    return encode_frame(message) if type(message) in messages.MESSAGES.values() else encode_market(message)


def decode_any(kind: type[WireMessage], data: bytes) -> WireMessage:
    return decode_frame(data)[1] if kind in messages.MESSAGES.values() else decode_market(data)


def value_strategy(column: str, default: Any) -> st.SearchStrategy[Any]:
    if isinstance(default, str):
        size = int(column[1:])
        text = st.text(st.characters(exclude_categories=["Cs"]), max_size=size)
        return text.filter(lambda value: len(value.encode()) <= size and not value.endswith("\0"))
    if isinstance(default, bytes):
        return st.binary(min_size=len(default), max_size=len(default))
    bits = 8 * int(column[-1])
    if "u" in column:
        low, high = 0, (1 << bits) - 1 - (default is None)
    else:
        low, high = -(1 << (bits - 1)) + (default is None), (1 << (bits - 1)) - 1
    numbers = st.integers(low, high)
    return st.none() | numbers if default is None else numbers


def message_strategy(kind: type[WireMessage]) -> st.SearchStrategy[WireMessage]:
    defaults = kind()
    fields = {name: value_strategy(column, getattr(defaults, name)) for name, column, _ in kind.COLUMNS}
    return st.builds(kind, **fields)


any_message = st.sampled_from(ALL_KINDS).flatmap(message_strategy)


@pytest.mark.parametrize("kind", ALL_KINDS, ids=KIND_IDS)
@settings(max_examples=EXAMPLES_PER_MESSAGE)
@given(data=st.data())
def test_every_message_survives_a_round_trip(kind: type[WireMessage], data: st.DataObject) -> None:
    message = data.draw(message_strategy(kind))

    block = message.pack()

    assert len(block) == kind.BLOCK_LENGTH == kind.STRUCT.size
    assert kind.unpack(block) == message
    assert kind.unpack(b"\xff" * 3 + block, 3) == message
    assert decode_any(kind, encode_any(message)) == message


@pytest.mark.parametrize("kind", ALL_KINDS, ids=KIND_IDS)
@settings(max_examples=EXAMPLES_PER_MESSAGE)
@given(data=st.data())
def test_any_bytes_unpack_and_pack_back_but_for_padding(kind: type[WireMessage], data: st.DataObject) -> None:
    block = data.draw(st.binary(min_size=kind.BLOCK_LENGTH, max_size=kind.BLOCK_LENGTH))
    expected = bytearray(kind.BLOCK_LENGTH)
    for _, column, offset in kind.COLUMNS:
        size = int(column[1:]) if column[0] in "SV" else int(column[-1])
        expected[offset : offset + size] = block[offset : offset + size]

    assert kind.unpack(block).pack() == expected


@given(message=any_message)
def test_numpy_view_shows_the_same_values(message: WireMessage) -> None:
    module = messages if type(message) in messages.MESSAGES.values() else market_messages
    row = numpy.frombuffer(message.pack(), module.DTYPES[message.TEMPLATE_ID])[0]

    for name, column, _ in message.COLUMNS:
        value = getattr(message, name)
        if value is None:
            bits = 8 * int(column[-1])
            assert row[name] == ((1 << bits) - 1 if "u" in column else -(1 << (bits - 1)))
        elif isinstance(value, str):
            assert row[name].rstrip(b"\0") == value.encode()
        elif isinstance(value, bytes):
            assert row[name].tobytes() == value
        else:
            assert row[name] == value


def test_nulls_are_the_sbe_defaults_and_come_back_as_none() -> None:
    block = NewOrderSingle(side=Side.BUY).pack()

    assert struct.unpack_from("<q", block, 8) == (-(2**63),)
    assert struct.unpack_from("<I", block, 40) == (2**32 - 1,)
    order = NewOrderSingle.unpack(block)
    assert (order.price, order.display_qty, order.stop_px, order.expire_time) == (None, None, None, None)
    assert order.order_qty == 0


def test_enums_come_back_as_members_and_unknown_values_as_numbers() -> None:
    order = NewOrderSingle(side=Side.SELL, ord_type=OrdType.LIMIT, time_in_force=TimeInForce.GTC, stp_mode=99)

    seen = NewOrderSingle.unpack(order.pack())

    assert (seen.side, seen.ord_type, seen.time_in_force) == (Side.SELL, OrdType.LIMIT, TimeInForce.GTC)
    assert isinstance(seen.side, Side)
    assert (seen.stp_mode, type(seen.stp_mode)) == (99, int)


def test_messages_behave_as_frozen_dataclasses() -> None:
    order = NewOrderSingle(cl_ord_id=5, price=10)

    assert dataclasses.replace(order, price=11) == NewOrderSingle(cl_ord_id=5, price=11)
    assert dataclasses.asdict(order)["cl_ord_id"] == 5
    assert [field.name for field in dataclasses.fields(order)] == [name for name, _, _ in order.COLUMNS]
    assert {order: 1}[NewOrderSingle(cl_ord_id=5, price=10)] == 1
    assert copy.deepcopy(order) == pickle.loads(pickle.dumps(order)) == order
    assert not hasattr(order, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        order.price = 12  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del order.price


def test_messages_of_different_templates_are_never_equal() -> None:
    assert messages.BalanceQuery(request_id=1) != messages.InstrumentQuery(request_id=1)
    assert messages.AccountQuery() != messages.AssetQuery()


@pytest.mark.parametrize("section", ["orders", "market"])
def test_golden_frames_are_still_what_we_write_and_read(section: str) -> None:
    header = VECTORS["header"]
    kinds = messages.MESSAGES if section == "orders" else market_messages.MESSAGES
    assert {entry["template_id"] for entry in VECTORS[section]} == set(kinds)
    for entry in VECTORS[section]:
        kind = kinds[entry["template_id"]]
        defaults = kind()
        values = {
            name: bytes.fromhex(value) if isinstance(getattr(defaults, name), bytes) else value
            for name, value in entry["fields"].items()
        }
        message = kind(**values)
        encoded = encode_frame(message, **header) if section == "orders" else encode_market(message)
        assert kind.__name__ == entry["name"]
        assert encoded.hex() == entry["frame"]
        assert decode_any(kind, bytes.fromhex(entry["frame"])) == message


def test_frame_prefix_is_the_documented_32_bytes() -> None:
    frame = encode_frame(Sequence(next_seq_no=9), seq_num=3, flags=FrameFlag.LAST_IN_BATCH, sending_time=4, partition=2)

    assert frame.hex() == "2800000050eb" + "0800" + "0900" + "e903" + "0000" + "0402" + "03" + "00" * 7 + "04" + (
        "00" * 7 + "09" + "00" * 7
    )
    header, message = decode_frame(frame)
    assert (header.partition, header.frame_flags, header.seq_num) == (2, FrameFlag.LAST_IN_BATCH, 3)
    assert message == Sequence(next_seq_no=9)


def corrupt(offset: int, layout: str, value: int) -> bytes:
    frame = bytearray(encode_frame(NewOrderSingle()))
    struct.pack_into(layout, frame, offset, value)
    return bytes(frame)


@pytest.mark.parametrize(
    ("frame", "field", "value"),
    [
        (corrupt(0, "<I", 32), "messageLength", 32),
        (corrupt(0, "<I", 264), "messageLength", 264),
        (corrupt(0, "<I", 2**32 - 1), "messageLength", 2**32 - 1),
        (corrupt(0, "<I", 111), "messageLength", 111),
        (corrupt(4, "<H", 0xEB51), "encodingType", 0xEB51),
        (corrupt(4, ">H", 0xEB50), "encodingType", 0x50EB),
        (corrupt(6, "<H", 72), "blockLength", 72),
        (corrupt(10, "<H", 1002), "schemaId", 1002),
        (corrupt(8, "<H", 999), "templateId", 999),
        (corrupt(8, "<H", 202), "blockLength", 80),
        (corrupt(0, "<I", 120)[:6] + struct.pack("<H", 88) + corrupt(0, "<I", 120)[8:], "bytes available", 112),
        (b"\0" * 31, "bytes available", 31),
    ],
)
def test_a_bad_frame_is_refused_with_field_and_value(frame: bytes, field: str, value: int) -> None:
    with pytest.raises(DecodingError) as caught:
        decode_frame(frame)

    assert (caught.value.field, caught.value.value) == (field, value)
    assert field in str(caught.value)
    assert caught.value.limit in str(caught.value)


def test_a_longer_block_of_a_newer_version_is_read_and_the_rest_skipped() -> None:
    frame = bytearray(encode_frame(Sequence(next_seq_no=7)) + b"\xaa" * 8)
    struct.pack_into("<I", frame, 0, 48)
    struct.pack_into("<H", frame, 6, 16)

    assert decode_frame(frame)[1] == Sequence(next_seq_no=7)
    assert [message for _, message in FrameReader().feed(bytes(frame) * 2)] == [Sequence(next_seq_no=7)] * 2


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (KeyCreate(access_key_id="x" * 33), "KeyCreate.access_key_id: 33 bytes, limit 32"),
        (KeyCreate(access_key_id="é" * 17), "KeyCreate.access_key_id: 34 bytes, limit 32"),
        (KeyCreate(material=b"x" * 33), "KeyCreate.material: 33 bytes, limit 32"),
        (NewOrderSingle(price=2**63), "NewOrderSingle: "),
        (NewOrderSingle(cl_ord_id=-1), "NewOrderSingle: "),
        (NewOrderSingle(trailing_delta=65536), "NewOrderSingle: "),
        (market_messages.OrderAdd(), "OrderAdd: not a message of schema 1001"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(message: WireMessage, complaint: str) -> None:
    with pytest.raises(EncodingError, match=complaint):
        encode_frame(message)


def test_a_partition_that_does_not_fit_is_refused() -> None:
    with pytest.raises(EncodingError, match="partition 256"):
        encode_frame(Sequence(), partition=256)


@pytest.mark.parametrize(
    ("offset", "value", "field"),
    [(0, 32, "blockLength"), (0, 48, "bytes available"), (2, 29, "templateId"), (4, 1001, "schemaId")],
)
def test_a_bad_market_message_is_refused(offset: int, value: int, field: str) -> None:
    data = bytearray(encode_market(market_messages.OrderAdd()))
    struct.pack_into("<H", data, offset, value)

    with pytest.raises(DecodingError) as caught:
        decode_market(data)

    assert caught.value.field == field


def test_a_market_message_cut_in_its_header_is_refused() -> None:
    with pytest.raises(DecodingError, match="bytes available = 7"):
        decode_market(b"\0" * (MARKET_HEADER.size - 1))


@given(sent=st.lists(any_message.filter(lambda m: type(m) in messages.MESSAGES.values()), max_size=8), data=st.data())
def test_a_stream_cut_anywhere_yields_the_same_frames(sent: list[WireMessage], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(message, seq_num=index) for index, message in enumerate(sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader, seen = FrameReader(), []

    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        seen += [(header.seq_num, message) for header, message in reader.feed(stream[start:end])]

    assert seen == list(enumerate(sent))
    assert reader.pending_bytes == 0


def test_reader_keeps_frames_a_caller_did_not_take() -> None:
    reader = FrameReader()
    frames = b"".join(encode_frame(Sequence(next_seq_no=n)) for n in range(3))

    reader.feed(frames)

    assert [message for _, message in reader.feed(b"")] == [Sequence(next_seq_no=n) for n in range(3)]


def test_reader_refuses_a_bad_start_before_the_frame_is_complete() -> None:
    with pytest.raises(DecodingError, match="encodingType"):
        list(FrameReader().feed(b"GET / "))
    with pytest.raises(DecodingError, match="messageLength"):
        list(FrameReader().feed(struct.pack("<IH", 1 << 30, codec.SOFH_ENCODING_TYPE)))


def test_reader_goes_on_after_an_unknown_template_when_blocks_are_read_raw() -> None:
    good = encode_frame(Sequence(next_seq_no=1))

    blocks = list(FrameReader().raw(corrupt(8, "<H", 999) + good))

    assert [(header.template_id, len(block)) for header, block in blocks] == [(999, 80), (9, 8)]
    with pytest.raises(codec.UnknownTemplate):
        codec.decode_block(999, 80, blocks[0][1])
    with pytest.raises(codec.BlockTooShort):
        codec.decode_block(100, 72, bytes(80))


def test_damaged_frames_end_in_a_decoding_error_and_in_no_other(rng: random.Random) -> None:
    refused = 0
    for _ in range(2000):
        data = bytearray(encode_frame(NewOrderSingle()))
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            list(FrameReader().feed(data))
        except DecodingError:
            refused += 1
    assert refused > 0


def test_text_that_is_not_utf8_survives() -> None:
    assert base.pack_text(base.unpack_text(b"\xff\xfeA\0\0"), 8, "x") == b"\xff\xfeA"
