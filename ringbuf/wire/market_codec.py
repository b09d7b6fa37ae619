"""Market data messages as they travel in MoldUDP64, SoupBinTCP and the market ring: an 8-byte SBE header, then a block.

0 u16 blockLength   2 u16 templateId   4 u16 schemaId   6 u16 version   8 block
"""

from __future__ import annotations

import struct
from struct import Struct

from ringbuf.wire.base import EncodingError, WireMessage
from ringbuf.wire.codec import BlockTooShort, DecodingError, UnknownTemplate
from ringbuf.wire.market_messages import MESSAGES, SCHEMA_ID, SCHEMA_VERSION

MARKET_HEADER = Struct("<HHHH")
MARKET_HEADER_SIZE = MARKET_HEADER.size


def encode_market(message: WireMessage, *, version: int = SCHEMA_VERSION) -> bytes:
    """Return header and block. Raises EncodingError naming the message when a value does not fit its field."""
    kind = type(message)
    if MESSAGES.get(kind.TEMPLATE_ID) is not kind:
        raise EncodingError(f"{kind.__name__}: not a message of schema {SCHEMA_ID}")
    try:
        header = MARKET_HEADER.pack(kind.BLOCK_LENGTH, kind.TEMPLATE_ID, SCHEMA_ID, version)
        return header + message.pack()
    except struct.error as error:
        raise EncodingError(f"{kind.__name__}: {error}") from error


def decode_market(buffer: bytes | bytearray | memoryview, offset: int = 0) -> WireMessage:
    """Return the message at `offset`; fields a newer version appended are skipped. Raises DecodingError."""
    available = len(buffer) - offset
    if available < MARKET_HEADER_SIZE:
        raise DecodingError("bytes available", value=available, limit=f"at least {MARKET_HEADER_SIZE}")
    block_length, template_id, schema_id, _ = MARKET_HEADER.unpack_from(buffer, offset)
    if schema_id != SCHEMA_ID:
        raise DecodingError("schemaId", value=schema_id, limit=str(SCHEMA_ID))
    kind = MESSAGES.get(template_id)
    if kind is None:
        raise UnknownTemplate(template_id)
    if block_length < kind.BLOCK_LENGTH:
        raise BlockTooShort(value=block_length, minimum=kind.BLOCK_LENGTH)
    if available < MARKET_HEADER_SIZE + block_length:
        raise DecodingError("bytes available", value=available, limit=f"at least {MARKET_HEADER_SIZE + block_length}")
    return kind.unpack(buffer, offset + MARKET_HEADER_SIZE)
