"""messages.py and market_messages.py: enums and one slotted frozen class per message.

The classes behave as frozen dataclasses (dataclasses.fields, replace and asdict work), but slots, __init__ and __eq__
are not made by the decorator: it compiles several functions per class at import, 60 ms for the whole schema.
"""

from __future__ import annotations

import textwrap

from ringbuf.wire.schema import EnumType, Field, Message, Schema, SetType, SimpleType, upper

STRUCT_CODES = {
    "char": "s",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
}

DOCSTRING_WIDTH = 105
NUMPY_FORMATS = {
    "int8": "i1",
    "uint8": "u1",
    "int16": "<i2",
    "uint16": "<u2",
    "int32": "<i4",
    "uint32": "<u4",
    "int64": "<i8",
    "uint64": "<u8",
}


def template_class(schema: Schema) -> str:
    return "Template" if schema.package == "bullring_orders" else "MarketTemplate"


def module(schema: Schema, other: Schema, banner: str) -> str:
    """The Python side of one schema; market data takes the types it shares from messages.py."""
    is_base = schema.package == "bullring_orders"
    enums = [enum for enum in schema.enums.values() if is_base or enum.name not in other.enums]
    sets = [flags for flags in schema.sets.values() if is_base or flags.name not in other.sets]
    shared = sorted((schema.enums.keys() & other.enums.keys()) | (schema.sets.keys() & other.sets.keys()))
    lines = [f'"""{banner}"""', "", *_imports(schema, [] if is_base else shared), ""]
    lines += [f"SCHEMA_ID = {schema.id}", f"SCHEMA_VERSION = {schema.version}"]
    lines += [f"SCHEMA_HASH = 0x{schema.hash:016X}"]
    for enum in enums:
        lines += ["", "", *_enum_class(enum.name, "IntEnum", enum.description, enum.values)]
    for flags in sets:
        masks = tuple((name, 1 << bit) for name, bit in flags.choices)
        lines += ["", "", *_enum_class(flags.name, "IntFlag", flags.description, masks)]
    templates = tuple((message.name, message.id) for message in schema.messages)
    lines += ["", "", *_enum_class(template_class(schema), "IntEnum", "template ids", templates), "", ""]
    lines += _lookup_tables(schema)
    for message in schema.messages:
        lines += ["", "", *_message(message)]
    return "\n".join([*lines, "", "", *_tables(schema)]) + "\n"


def _imports(schema: Schema, shared: list[str]) -> list[str]:
    has_raw = any(field.primitive == "char" and not field.is_text for m in schema.messages for field in m.value_fields)
    names = ["Columns", "WireMessage", "build_dtypes", *(["pack_raw"] if has_raw else []), "pack_text", "unpack_text"]
    lines = [
        "from __future__ import annotations",
        "",
        "from enum import IntEnum, IntFlag",
        "from struct import Struct",
        "from typing import TYPE_CHECKING, Any, ClassVar",
        "",
        f"from ringbuf.wire.base import {', '.join(names)}",
    ]
    if shared:
        lines.append(f"from ringbuf.wire.messages import {', '.join(shared)}")
    return [*lines, "", "if TYPE_CHECKING:", "    import numpy"]


def _enum_class(name: str, base: str, description: str, members: tuple[tuple[str, int], ...]) -> list[str]:
    lines = [f"class {name}({base}):", *_docstring(description), ""]
    return [*lines, *(f"    {upper(member)} = {value}" for member, value in members)]


def _lookup_tables(schema: Schema) -> list[str]:
    """A dict finds the member for a value without the cost of calling the enum, and lets an unknown value through."""
    used = {field.type.name for message in schema.messages for field in message.fields}
    return [f"_NO_{upper(flags.name)} = {flags.name}(0)" for flags in schema.sets.values() if flags.name in used] + [
        f"_{upper(enum.name)}: dict[int, {enum.name}] = {{int(member): member for member in {enum.name}}}"
        for enum in schema.enums.values()
        if enum.name in used
    ]


def _message(message: Message) -> list[str]:
    lines = [f"class {message.name}(WireMessage):", *_docstring(message.description), ""]
    lines += _tuple("__match_args__", [f'"{field.snake}"' for field in message.value_fields])
    lines += ["    __slots__ = __match_args__"]
    lines += [f"    TEMPLATE_ID: ClassVar[int] = {message.id}"]
    lines += [f"    BLOCK_LENGTH: ClassVar[int] = {message.block_length}"]
    lines += [f'    STRUCT: ClassVar[Struct] = Struct("{_struct_format(message)}")']
    columns = [f'("{field.snake}", "{_numpy_format(field)}", {field.offset})' for field in message.value_fields]
    lines += [*_tuple("COLUMNS: ClassVar[Columns]", columns), ""]
    lines += [f"    {field.snake}: {_annotation(field)[0]}" for field in message.value_fields]
    return [*lines, "", *_init(message), "", *_pack(message), "", *_unpack(message)]


def _tuple(target: str, items: list[str]) -> list[str]:
    if len(items) == 1:
        return [f"    {target} = ({items[0]},)"]
    return [f"    {target} = (", *(f"        {item}," for item in items), "    )"]


def _init(message: Message) -> list[str]:
    lines = ["    def __init__(", "        self,"]
    for field in message.value_fields:
        kind, default = _annotation(field)
        lines.append(f"        {field.snake}: {kind} = {default},")
    lines += ["    ) -> None:", "        put = object.__setattr__"]
    return [*lines, *(f'        put(self, "{field.snake}", {field.snake})' for field in message.value_fields)]


def _docstring(text: str) -> list[str]:
    """One line where it fits, else a short promise and the rest below it."""
    sentence = text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
    lines = textwrap.wrap(sentence, DOCSTRING_WIDTH)
    if len(lines) == 1:
        return [f'    """{sentence}"""']
    return [f'    """{lines[0]}', *(f"    {line}" for line in lines[1:]), '    """']


def _struct_format(message: Message) -> str:
    parts = []
    for field in message.fields:
        if field.is_padding:
            parts.append(f"{field.size}x")
        elif field.is_array:
            parts.append(f"{field.length}s")
        else:
            parts.append(STRUCT_CODES[field.primitive])
    return "<" + "".join(parts)


def _numpy_format(field: Field) -> str:
    """Text is S, which drops trailing zeros; raw bytes are V, which keeps them."""
    if field.primitive == "char":
        return f"{'S' if field.is_text else 'V'}{field.length}"
    return NUMPY_FORMATS[field.primitive]


def _annotation(field: Field) -> tuple[str, str]:
    """Return type and default. Text is str, raw bytes are bytes of full length, an optional is None."""
    if isinstance(field.type, EnumType):
        zero = next((f"{field.type.name}.{upper(name)}" for name, value in field.type.values if value == 0), "0")
        return f"{field.type.name} | int", zero
    if isinstance(field.type, SetType):
        return f"{field.type.name} | int", f"_NO_{upper(field.type.name)}"
    if field.primitive == "char":
        return ("str", '""') if field.is_text else ("bytes", f"bytes({field.length})")
    return ("int | None", "None") if field.is_optional else ("int", "0")


def _null_literal(field: Field) -> str:
    assert isinstance(field.type, SimpleType)
    value = field.type.null
    return f"-0x{-value:X}" if value < 0 else f"0x{value:X}"


def _pack(message: Message) -> list[str]:
    lines = ["    def pack(self) -> bytes:", "        return self.STRUCT.pack("]
    for field in message.value_fields:
        value = f"self.{field.snake}"
        if field.primitive == "char":
            helper = "pack_text" if field.is_text else "pack_raw"
            value = f'{helper}({value}, {field.length}, "{message.name}.{field.snake}")'
        elif field.is_optional:
            value = f"{_null_literal(field)} if {value} is None else {value}"
        lines.append(f"            {value},")
    return [*lines, "        )"]


def _unpack(message: Message) -> list[str]:
    lines = ["    @classmethod"]
    lines += [f"    def unpack(cls, buffer: bytes | bytearray | memoryview, offset: int = 0) -> {message.name}:"]
    lines += ["        v = cls.STRUCT.unpack_from(buffer, offset)", "        return cls("]
    for index, field in enumerate(message.value_fields):
        value = f"v[{index}]"
        if isinstance(field.type, EnumType):
            value = f"_{upper(field.type.name)}.get({value}, {value})"
        elif isinstance(field.type, SetType):
            value = f"{field.type.name}({value})"
        elif field.is_text:
            value = f"unpack_text({value})"
        elif field.is_optional:
            value = f"None if {value} == {_null_literal(field)} else {value}"
        lines.append(f"            {value},")
    return [*lines, "        )"]


def _tables(schema: Schema) -> list[str]:
    lines = ["MESSAGES: dict[int, type[WireMessage]] = {"]
    lines += [f"    {message.id}: {message.name}," for message in schema.messages]
    return [
        *lines,
        "}",
        "",
        "if TYPE_CHECKING:",
        "    DTYPES: dict[int, numpy.dtype[Any]]",
        "",
        "",
        "def __getattr__(name: str) -> Any:",
        '    """Build DTYPES (template id -> dtype of a block without padding) at first use: numpy is slow to load."""',
        '    if name == "DTYPES":',
        '        globals()["DTYPES"] = build_dtypes(MESSAGES)',
        '        return globals()["DTYPES"]',
        '    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")',
    ]
