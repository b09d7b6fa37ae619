"""Frames of clients: any pieces, any size, and what is against the rules."""

import os

import pytest

from gateway.web.streams.incoming import FrameError, FrameReader

LIMIT = 70_000


def frame(payload: bytes, opcode: int = 1, *, final: bool = True, masked: bool = True) -> bytes:
    size, mask = len(payload), os.urandom(4)
    head = bytes([opcode | (0x80 if final else 0)])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_message_comes_whole_from_any_pieces(size: int, piece: int) -> None:
    if size > 1000 and piece == 1:
        piece = 997
    payload, reader = os.urandom(size), FrameReader(LIMIT)
    data = frame(payload) + frame(b"ping", 9)

    found = [message for at in range(0, len(data), piece) for message in reader.feed(data[at : at + piece])]

    assert found == [(1, payload), (9, b"ping")]


def test_fragments_are_joined_around_a_ping() -> None:
    data = frame(b"one ", final=False) + frame(b"!", 9) + frame(b"two", 0)

    assert list(FrameReader(LIMIT).feed(data)) == [(9, b"!"), (1, b"one two")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"x", masked=False), 1002),
        (frame(b"x", 0xC1), 1002),  # a reserved bit: compression nobody agreed to
        (frame(b"x", 0), 1002),
        (frame(b"x", final=False) + frame(b"y"), 1002),
        (frame(b"x" * 126, 9), 1002),
        (frame(b"x", 9, final=False), 1002),
        (frame(b"x", 5), 1002),
        (frame(b"x" * (LIMIT + 1)), 1009),
        (frame(b"x" * 40_000, final=False) + frame(b"x" * 40_000, 0), 1009),
        (b"\x81\xff" + b"\xff" * 8, 1009),  # its length alone is too much: nothing is kept for it
    ],
    ids=range(10),  # the masks are random, and names of tests must not be
)
def test_what_is_against_the_rules_ends_the_connection(data: bytes, code: int) -> None:
    with pytest.raises(FrameError) as caught:
        list(FrameReader(LIMIT).feed(data))

    assert caught.value.code == code
