"""Frames are read back as written, and bytes that are none are refused, each for its reason."""

import random

import pytest

from replicator.errors import BadFrame
from replicator.protocol import (
    CRC_OFFSET,
    FRAME_BYTES_MAX,
    HEADER_SIZE,
    Ack,
    Append,
    Chain,
    Diverged,
    Fenced,
    Flag,
    Frame,
    Handover,
    Hashes,
    Heartbeat,
    Hello,
    Kind,
    Message,
    Nack,
    Probe,
    Role,
    Sender,
    StepDown,
    _crc,
    encode,
)

SENDER = Sender(cluster=2**64 - 1, node=3, incarnation=2**40, epoch=7)
MESSAGES: list[Message] = [
    Hello(1, 2),
    Append(10, 2**64 - 1, 3, 9, 12, bytes(range(256))),
    Ack(5, 6, 4),
    Nack(9),
    Heartbeat(10, 9, 8, 2**63, Role.PRIMARY, Flag.HOT | Flag.MEMBER),
    Fenced(),
    Probe(77),
    Chain(77, 5, 1, 100, 99),
    Handover(12, 13),
    StepDown(),
    Diverged(4),
    Hashes.of([(1, 2**128 - 1), (2**64 - 1, 0)]),
]


def sealed(frame: bytearray) -> bytes:
    frame[CRC_OFFSET : CRC_OFFSET + 4] = _crc(bytes(frame)).to_bytes(4, "little")
    return bytes(frame)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_frame_is_read_back_as_written(message: Message) -> None:
    frame = Frame.decode(encode(SENDER, message))

    assert frame == Frame(SENDER, message)


def test_every_kind_has_a_frame() -> None:
    assert {message.KIND for message in MESSAGES} == set(Kind)


def test_the_end_of_an_append_counts_its_records() -> None:
    assert Append(10, 0, 0, 0, 0, bytes(256)).end == 12


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_no_changed_bit_and_no_missing_byte_goes_unnoticed(message: Message, rng: random.Random) -> None:
    data = encode(SENDER, message)

    for bit in rng.sample(range(8 * len(data)), 64):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadFrame):
            Frame.decode(bytes(changed))
    with pytest.raises(BadFrame):
        Frame.decode(data[: rng.randrange(len(data))])
    with pytest.raises(BadFrame):
        Frame.decode(data + b"\0")


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [(0, 1, "magic"), (4, 2, "version"), (5, 99, "kind"), (6, 1, "spare"), (8, 1, "length"), (28, 1, "spare")],
)
def test_a_wrong_field_is_named(offset: int, value: int, says: str) -> None:
    frame = bytearray(encode(SENDER, Nack(1)))
    frame[offset] = value

    with pytest.raises(BadFrame, match=says):
        Frame.decode(sealed(frame))


def test_records_must_be_whole() -> None:
    whole = encode(SENDER, Append(1, 0, 0, 0, 0, bytes(128)))
    for cut in (1, 128):
        frame = bytearray(whole[:-cut])
        frame[8:12] = len(frame).to_bytes(4, "little")
        with pytest.raises(BadFrame, match="bytes of records"):
            Frame.decode(sealed(frame))


def test_hashes_are_read_back_by_key() -> None:
    assert Hashes.of([(7, 2**100 + 5)]).items == [(7, 2**100 + 5)]


def test_a_role_nobody_has_is_refused() -> None:
    frame = bytearray(encode(SENDER, Heartbeat(1, 1, 1, 1, Role.NONE, Flag(0))))
    frame[HEADER_SIZE + 32] = 9

    with pytest.raises(BadFrame, match="role"):
        Frame.decode(sealed(frame))


def test_a_frame_has_a_largest_size() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode(SENDER, Append(1, 0, 0, 0, 0, bytes(FRAME_BYTES_MAX)))
    with pytest.raises(BadFrame):
        Frame.decode(bytes(FRAME_BYTES_MAX + 1))
