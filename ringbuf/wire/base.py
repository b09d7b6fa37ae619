"""What every generated message shares: the interface, text and raw fields, numpy layouts."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing import Self

    import numpy

# (snake_case name, numpy format, offset in the block); padding is left out.
Columns = tuple[tuple[str, str, int], ...]


class EncodingError(ValueError):
    """A value does not fit its field."""


class WireMessage:
    """One fixed block of the schema. Generated classes fill in everything."""

    __slots__ = ()

    TEMPLATE_ID: ClassVar[int]
    BLOCK_LENGTH: ClassVar[int]
    STRUCT: ClassVar[Struct]
    COLUMNS: ClassVar[Columns]

    def pack(self) -> bytes:
        """Return the block. Raises struct.error or EncodingError for a value that does not fit."""
        raise NotImplementedError

    @classmethod
    def unpack(cls, buffer: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """Read a block; nulls become None, enum values unknown to this version stay int, padding is not looked at."""
        raise NotImplementedError


def pack_text(value: str, size: int, field: str) -> bytes:
    """Return UTF-8 bytes; struct fills them with zeros. struct alone would cut a long text silently."""
    data = value.encode("utf-8", "surrogateescape")
    if len(data) > size:
        raise EncodingError(f"{field}: {len(data)} bytes, limit {size}")
    return data


def unpack_text(data: bytes) -> str:
    """Return the text before the trailing zeros; bytes that are not UTF-8 survive a round trip as surrogates."""
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


def pack_raw(value: bytes, size: int, field: str) -> bytes:
    if len(value) > size:
        raise EncodingError(f"{field}: {len(value)} bytes, limit {size}")
    return value


def build_dtypes(messages: dict[int, type[WireMessage]]) -> dict[int, numpy.dtype[Any]]:
    """Return a dtype per template that lies over a block; itemsize is the block length."""
    import numpy

    return {
        template_id: numpy.dtype(
            {
                "names": [name for name, _, _ in message.COLUMNS],
                "formats": [kind for _, kind, _ in message.COLUMNS],
                "offsets": [offset for _, _, offset in message.COLUMNS],
                "itemsize": message.BLOCK_LENGTH,
            }
        )
        for template_id, message in messages.items()
    }
