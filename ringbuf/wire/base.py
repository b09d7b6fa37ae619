"""What every generated message shares: the interface, text and raw fields, numpy layouts."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, dataclass_transform

if TYPE_CHECKING:
    import dataclasses
    from typing import Self

    import numpy

# (snake_case name, numpy format, offset in the block); padding is left out.
Columns = tuple[tuple[str, str, int], ...]


class EncodingError(ValueError):
    """A value does not fit its field."""


class _LazyFields:
    """Answer __dataclass_fields__ when somebody asks: building it for every message at import costs too much."""

    def __get__(self, instance: object, owner: type[WireMessage]) -> dict[str, dataclasses.Field[Any]]:
        import dataclasses

        cached = _FIELDS.get(owner)
        if cached is None:
            defaults = owner()
            columns = [(name, owner.__annotations__[name], getattr(defaults, name)) for name, _, _ in owner.COLUMNS]
            twin = dataclasses.make_dataclass(
                owner.__name__, [(name, kind, dataclasses.field(default=default)) for name, kind, default in columns]
            )
            cached = _FIELDS[owner] = {field.name: field for field in dataclasses.fields(twin)}
        return cached


_FIELDS: dict[type, dict[str, dataclasses.Field[Any]]] = {}


@dataclass_transform(frozen_default=True)
class WireMessage:
    """One fixed block of the schema: frozen, slotted, equal by value. Generated classes add fields, pack and unpack."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]]

    TEMPLATE_ID: ClassVar[int]
    BLOCK_LENGTH: ClassVar[int]
    STRUCT: ClassVar[Struct]
    COLUMNS: ClassVar[Columns]

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    else:
        __dataclass_fields__ = _LazyFields()

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((self.TEMPLATE_ID, self._values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self._values()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

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
