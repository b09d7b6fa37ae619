"""Frames of the order-entry protocol: a 32-byte prefix, then one block.

    0 u32 messageLength (these 32 bytes and the block)   4 u16 encodingType = 0xEB50
    6 u16 blockLength   8 u16 templateId   10 u16 schemaId   12 u16 version   14 u16 flags
   16 u64 seqNum       24 u64 sendingTime                                     32 block

A reader trusts blockLength, not its own idea of the template: a newer peer may have appended fields, which are skipped.
A block shorter than the template is an error, because fields never leave a schema.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from ringbuf.wire.base import EncodingError, WireMessage
from ringbuf.wire.messages import MESSAGES, SCHEMA_ID, SCHEMA_VERSION, FrameFlag

FRAME_HEADER = Struct("<IHHHHHHQQ")
FRAME_HEADER_SIZE = FRAME_HEADER.size
SOFH_ENCODING_TYPE = 0xEB50
FRAME_LENGTH_MAX = 256
BLOCK_LENGTH_MAX = FRAME_LENGTH_MAX - FRAME_HEADER_SIZE
BLOCK_ALIGNMENT = 8
FRAME_LENGTH_MIN = FRAME_HEADER_SIZE + BLOCK_ALIGNMENT
PARTITION_SHIFT = 8
PARTITION_MAX = 255

_SOFH = Struct("<IH")


class DecodingError(ValueError):
    """A frame breaks the protocol: which field, what it was, what is allowed."""

    def __init__(self, field: str, *, value: int, limit: str) -> None:
        super().__init__(f"{field} = {value}, must be {limit}")
        self.field = field
        self.value = value
        self.limit = limit


class UnknownTemplate(DecodingError):
    """A well-formed frame of a template this version does not know: answered by BusinessReject, not Terminate."""

    def __init__(self, template_id: int) -> None:
        super().__init__("templateId", value=template_id, limit="a known template")


class BlockTooShort(DecodingError):
    """A well-formed frame whose block lacks fields of its template: answered by BusinessReject, not Terminate."""

    def __init__(self, *, value: int, minimum: int) -> None:
        super().__init__("blockLength", value=value, limit=f"at least {minimum}")


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The prefix as read; partition is bits 8..15 of flags, set on server frames only."""

    message_length: int
    block_length: int
    template_id: int
    version: int
    flags: int
    seq_num: int
    sending_time: int
    schema_id: int = SCHEMA_ID

    @property
    def partition(self) -> int:
        return self.flags >> PARTITION_SHIFT

    @property
    def frame_flags(self) -> FrameFlag:
        return FrameFlag(self.flags & 0xFF)


def encode_frame(
    message: WireMessage,
    *,
    seq_num: int = 0,
    flags: int = 0,
    sending_time: int = 0,
    version: int = SCHEMA_VERSION,
    partition: int = 0,
) -> bytes:
    """Return prefix and block. Raises EncodingError naming the message when a value does not fit its field."""
    kind = type(message)
    if not 0 <= partition <= PARTITION_MAX:
        raise EncodingError(f"partition {partition}: must be 0..{PARTITION_MAX}")
    if MESSAGES.get(kind.TEMPLATE_ID) is not kind:
        raise EncodingError(f"{kind.__name__}: not a message of schema {SCHEMA_ID}")
    try:
        header = FRAME_HEADER.pack(
            FRAME_HEADER_SIZE + kind.BLOCK_LENGTH,
            SOFH_ENCODING_TYPE,
            kind.BLOCK_LENGTH,
            kind.TEMPLATE_ID,
            SCHEMA_ID,
            version,
            flags | partition << PARTITION_SHIFT,
            seq_num,
            sending_time,
        )
        return header + message.pack()
    except struct.error as error:
        raise EncodingError(f"{kind.__name__}: {error}") from error


def decode_header(buffer: bytes | bytearray | memoryview, offset: int = 0) -> FrameHeader:
    """Return the checked prefix. The block itself may still be missing. Raises DecodingError."""
    available = len(buffer) - offset
    if available < FRAME_HEADER_SIZE:
        raise DecodingError("bytes available", value=available, limit=f"at least {FRAME_HEADER_SIZE}")
    length, encoding, block_length, template_id, schema_id, version, flags, seq_num, sending_time = (
        FRAME_HEADER.unpack_from(buffer, offset)
    )
    _check_sofh(length, encoding)
    if schema_id != SCHEMA_ID:
        raise DecodingError("schemaId", value=schema_id, limit=str(SCHEMA_ID))
    if block_length != length - FRAME_HEADER_SIZE:
        raise DecodingError("blockLength", value=block_length, limit=str(length - FRAME_HEADER_SIZE))
    return FrameHeader(
        message_length=length,
        block_length=block_length,
        template_id=template_id,
        version=version,
        flags=flags,
        seq_num=seq_num,
        sending_time=sending_time,
    )


def decode_frame(buffer: bytes | bytearray | memoryview, offset: int = 0) -> tuple[FrameHeader, WireMessage]:
    """Return prefix and message of the frame at `offset`; bytes behind it are left alone. Raises DecodingError."""
    header = decode_header(buffer, offset)
    if len(buffer) - offset < header.message_length:
        raise DecodingError("bytes available", value=len(buffer) - offset, limit=f"at least {header.message_length}")
    return header, decode_block(header.template_id, header.block_length, buffer, offset + FRAME_HEADER_SIZE)


def decode_block(
    template_id: int, block_length: int, buffer: bytes | bytearray | memoryview, offset: int = 0
) -> WireMessage:
    """Return the message of a block found without a prefix, as in a slot or journal. Raises DecodingError."""
    kind = MESSAGES.get(template_id)
    if kind is None:
        raise UnknownTemplate(template_id)
    if block_length < kind.BLOCK_LENGTH:
        raise BlockTooShort(value=block_length, minimum=kind.BLOCK_LENGTH)
    if len(buffer) - offset < kind.BLOCK_LENGTH:
        raise DecodingError("bytes available", value=len(buffer) - offset, limit=f"at least {kind.BLOCK_LENGTH}")
    return kind.unpack(buffer, offset)


def _check_sofh(length: int, encoding: int) -> None:
    if encoding != SOFH_ENCODING_TYPE:
        raise DecodingError("encodingType", value=encoding, limit=f"{SOFH_ENCODING_TYPE} (0xEB50)")
    if not FRAME_LENGTH_MIN <= length <= FRAME_LENGTH_MAX:
        raise DecodingError("messageLength", value=length, limit=f"{FRAME_LENGTH_MIN}..{FRAME_LENGTH_MAX}")
    if length % BLOCK_ALIGNMENT != 0:
        raise DecodingError("messageLength", value=length, limit=f"a multiple of {BLOCK_ALIGNMENT}")


class FrameReader:
    """Cut a byte stream into frames.

    At most one incomplete frame is kept between calls. After a DecodingError the stream has lost its frame borders:
    the connection ends. UnknownTemplate and BlockTooShort concern one frame only; with `raw()` a caller can answer
    them and go on.
    """

    def __init__(self) -> None:
        self._pending = bytearray()

    @property
    def pending_bytes(self) -> int:
        return len(self._pending)

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[tuple[FrameHeader, WireMessage]]:
        """Yield every frame completed by `data`. Raises DecodingError."""
        return (
            (header, decode_block(header.template_id, header.block_length, block)) for header, block in self.raw(data)
        )

    def raw(self, data: bytes | bytearray | memoryview) -> Iterator[tuple[FrameHeader, bytes]]:
        """Yield prefix and block bytes of every frame completed by `data`. Raises DecodingError for a bad prefix.

        `data` is taken over at the call; a caller that stops early finds the remaining frames at the next call.
        """
        self._pending += data
        return self._frames()

    def _frames(self) -> Iterator[tuple[FrameHeader, bytes]]:
        while len(self._pending) >= _SOFH.size:
            # A bad start must not wait for the rest of a frame that may never come.
            _check_sofh(*_SOFH.unpack_from(self._pending))
            if len(self._pending) < FRAME_HEADER_SIZE:
                return
            header = decode_header(self._pending)
            if len(self._pending) < header.message_length:
                return
            block = bytes(self._pending[FRAME_HEADER_SIZE : header.message_length])
            del self._pending[: header.message_length]
            yield header, block
