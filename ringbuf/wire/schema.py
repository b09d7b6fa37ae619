"""Read an SBE schema and refuse what breaks the house rules.

House rules: flat messages of declared fields only; an explicit offset on every field; no gaps (padding is a declared,
zero field of a Pad type); natural alignment; blockLength given, exact and a multiple of 8; block caps per template
range; unique ids and names. Every emitter works from the `Schema` returned here, so a schema that loads is one that
can be laid over a ring slot as a C struct.
"""

from __future__ import annotations

import keyword
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

PRIMITIVE_SIZES = {
    "char": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
}
BLOCK_ALIGNMENT_BYTES = 8

# Highest blockLength by range of template ids: schema package, first id, last id, limit in bytes.
BLOCK_CAPS = (
    ("bullring_orders", 100, 199, 80),
    ("bullring_orders", 300, 499, 80),
    ("bullring_orders", 200, 299, 96),
    ("bullring_orders", 500, 599, 96),
    ("bullring_marketdata", 20, 39, 48),
)
REQUEST_RANGES = ((100, 199), (300, 499))

FNV_OFFSET_BASIS = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z")
_WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_C_KEYWORD_TEXT = (
    "auto break case char const continue default do double else enum extern float for goto if inline int long register "
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while "
    "bool catch class delete explicit export false friend mutable namespace new operator private protected public "
    "template this throw true try typeid typename using virtual"
)
_C_KEYWORDS = frozenset(_C_KEYWORD_TEXT.split())


class SchemaError(Exception):
    """The schema breaks a rule; the text names the place and the rule."""


@dataclass(frozen=True)
class SimpleType:
    name: str
    primitive: str
    length: int
    optional: bool
    description: str

    @property
    def size(self) -> int:
        return PRIMITIVE_SIZES[self.primitive] * self.length

    @property
    def is_padding(self) -> bool:
        return re.fullmatch(r"Pad\d+", self.name) is not None

    @property
    def is_text(self) -> bool:
        return re.fullmatch(r"Str\d+", self.name) is not None

    @property
    def null(self) -> int:
        """SBE default null of the primitive type."""
        bits = 8 * PRIMITIVE_SIZES[self.primitive]
        return (1 << bits) - 1 if self.primitive.startswith("u") else -(1 << (bits - 1))


@dataclass(frozen=True)
class EnumType:
    name: str
    primitive: str
    values: tuple[tuple[str, int], ...]
    description: str


@dataclass(frozen=True)
class SetType:
    name: str
    primitive: str
    choices: tuple[tuple[str, int], ...]
    description: str


@dataclass(frozen=True)
class Composite:
    name: str
    fields: tuple[SimpleType, ...]
    description: str


FieldType = SimpleType | EnumType | SetType


@dataclass(frozen=True)
class Field:
    name: str
    id: int
    type: FieldType
    offset: int
    description: str

    @property
    def primitive(self) -> str:
        return self.type.primitive

    @property
    def length(self) -> int:
        return self.type.length if isinstance(self.type, SimpleType) else 1

    @property
    def size(self) -> int:
        return PRIMITIVE_SIZES[self.primitive] * self.length

    @property
    def is_padding(self) -> bool:
        return isinstance(self.type, SimpleType) and self.type.is_padding

    @property
    def is_optional(self) -> bool:
        return isinstance(self.type, SimpleType) and self.type.optional

    @property
    def is_text(self) -> bool:
        return isinstance(self.type, SimpleType) and self.type.is_text

    @property
    def is_array(self) -> bool:
        return self.length > 1

    @property
    def snake(self) -> str:
        return snake(self.name)


@dataclass(frozen=True)
class Message:
    name: str
    id: int
    block_length: int
    fields: tuple[Field, ...]
    description: str

    @property
    def snake(self) -> str:
        return snake(self.name)

    @property
    def value_fields(self) -> tuple[Field, ...]:
        """The fields that carry something, that is all but padding."""
        return tuple(field for field in self.fields if not field.is_padding)

    @property
    def is_request(self) -> bool:
        return any(first <= self.id <= last for first, last in REQUEST_RANGES)


@dataclass(frozen=True)
class Schema:
    source: str
    package: str
    id: int
    version: int
    types: dict[str, SimpleType]
    enums: dict[str, EnumType]
    sets: dict[str, SetType]
    composites: dict[str, Composite]
    messages: tuple[Message, ...]

    @property
    def hash(self) -> int:
        return fnv1a_64(canonical_text(self).encode("ascii"))


def snake(name: str) -> str:
    """Return camelCase as snake_case; a run of capitals is one word (GTC stays gtc)."""
    return _WORD_BORDER.sub("_", name).lower()


def upper(name: str) -> str:
    return snake(name).upper()


def fnv1a_64(data: bytes) -> int:
    value = FNV_OFFSET_BASIS
    for byte in data:
        value = ((value ^ byte) * FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return value


def canonical_text(schema: Schema) -> str:
    """Return what a peer must agree on to read our bytes, one fact a line; descriptions and comments are not in it."""
    lines = [f"schema {schema.package} {schema.id} {schema.version}"]
    for composite in schema.composites.values():
        lines.append(f"composite {composite.name}")
        lines += [f"  {field.name} {field.primitive}" for field in composite.fields]
    for enum in sorted(schema.enums.values(), key=lambda item: item.name):
        lines.append(f"enum {enum.name} {enum.primitive}")
        lines += [f"  {name} {value}" for name, value in sorted(enum.values, key=lambda item: item[1])]
    for flags in sorted(schema.sets.values(), key=lambda item: item.name):
        lines.append(f"set {flags.name} {flags.primitive}")
        lines += [f"  {name} {bit}" for name, bit in sorted(flags.choices, key=lambda item: item[1])]
    for message in sorted(schema.messages, key=lambda item: item.id):
        lines.append(f"message {message.name} {message.id} {message.block_length}")
        for field in message.fields:
            presence = "optional" if field.is_optional else "required"
            lines.append(f"  {field.offset} {field.name} {field.type.name} {field.primitive} {field.length} {presence}")
    return "\n".join(lines) + "\n"


def load(path: Path) -> Schema:
    """Parse and check one schema file. Raises SchemaError."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise SchemaError(f"{path.name}: not XML: {error}") from error
    schema = _parse(root, path.name)
    _check_types(schema)
    _check_messages(schema)
    return schema


def check_shared(schemas: tuple[Schema, ...]) -> None:
    """Refuse an enum, set or type that two schemas define differently: the C names are shared."""
    for index, left in enumerate(schemas):
        for right in schemas[index + 1 :]:
            for kind in ("types", "enums", "sets"):
                ours, theirs = getattr(left, kind), getattr(right, kind)
                for name in ours.keys() & theirs.keys():
                    if ours[name] != theirs[name]:
                        raise SchemaError(f"{name}: {left.source} and {right.source} differ")
            for clash in {message.name for message in left.messages} & {message.name for message in right.messages}:
                raise SchemaError(f"message {clash}: in {left.source} and in {right.source}")


def _attribute(element: ElementTree.Element, name: str, where: str) -> str:
    value = element.get(name)
    if value is None or value == "":
        raise SchemaError(f"{where}: attribute {name} missing")
    return value


def _number(text: str | None, where: str) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise SchemaError(f"{where}: {text!r} is not a number") from None


def _parse(root: ElementTree.Element, source: str) -> Schema:
    if root.get("byteOrder", "littleEndian") != "littleEndian":
        raise SchemaError(f"{source}: byteOrder must be littleEndian")
    schema = Schema(
        source=source,
        package=_attribute(root, "package", source),
        id=_number(root.get("id"), f"{source}: schema id"),
        version=_number(root.get("version"), f"{source}: schema version"),
        types={},
        enums={},
        sets={},
        composites={},
        messages=(),
    )
    for types in root.findall("types"):
        for element in types:
            _parse_type(element, schema)
    messages = tuple(_parse_message(element, schema) for element in root if element.tag.rpartition("}")[2] == "message")
    return Schema(**{**schema.__dict__, "messages": messages})


def _parse_type(element: ElementTree.Element, schema: Schema) -> None:
    name = _attribute(element, "name", f"{schema.source}: <{element.tag}>")
    where = f"{schema.source}: {name}"
    if any(name in table for table in (schema.types, schema.enums, schema.sets, schema.composites)):
        raise SchemaError(f"{where}: defined twice")
    description = _attribute(element, "description", where)
    if element.tag == "type":
        schema.types[name] = _simple_type(element, where)
    elif element.tag == "enum":
        values = tuple(
            (_attribute(item, "name", where), _number(item.text, where)) for item in element.findall("validValue")
        )
        schema.enums[name] = EnumType(name, _attribute(element, "encodingType", where), values, description)
    elif element.tag == "set":
        choices = tuple(
            (_attribute(item, "name", where), _number(item.text, where)) for item in element.findall("choice")
        )
        schema.sets[name] = SetType(name, _attribute(element, "encodingType", where), choices, description)
    elif element.tag == "composite":
        fields = tuple(_simple_type(item, where) for item in element)
        schema.composites[name] = Composite(name, fields, description)
    else:
        raise SchemaError(f"{where}: <{element.tag}> is not allowed")


def _simple_type(element: ElementTree.Element, where: str) -> SimpleType:
    name = _attribute(element, "name", where)
    primitive = _attribute(element, "primitiveType", where)
    presence = element.get("presence", "required")
    if primitive not in PRIMITIVE_SIZES:
        raise SchemaError(f"{where}: primitiveType {primitive} is not allowed")
    if presence not in ("required", "optional"):
        raise SchemaError(f"{where}: presence {presence} is not allowed")
    length = _number(element.get("length", "1"), where)
    if length < 1 or (length > 1 and primitive != "char"):
        raise SchemaError(f"{where}: only char may be an array, length at least 1")
    if presence == "optional" and primitive == "char":
        raise SchemaError(f"{where}: char cannot be optional")
    return SimpleType(name, primitive, length, presence == "optional", element.get("description", ""))


def _parse_message(element: ElementTree.Element, schema: Schema) -> Message:
    name = _attribute(element, "name", f"{schema.source}: message")
    where = f"{schema.source}: {name}"
    fields = []
    for child in element:
        if child.tag != "field":
            raise SchemaError(f"{where}: <{child.tag}> is not allowed, messages are flat")
        fields.append(_parse_field(child, schema, where))
    return Message(
        name=name,
        id=_number(element.get("id"), f"{where}: id"),
        block_length=_number(element.get("blockLength"), f"{where}: blockLength"),
        fields=tuple(fields),
        description=_attribute(element, "description", where),
    )


def _parse_field(element: ElementTree.Element, schema: Schema, where: str) -> Field:
    name = _attribute(element, "name", where)
    here = f"{where}.{name}"
    type_name = _attribute(element, "type", here)
    found = schema.types.get(type_name) or schema.enums.get(type_name) or schema.sets.get(type_name)
    if found is None:
        raise SchemaError(f"{here}: unknown type {type_name}")
    if element.get("presence", "required") != "required":
        raise SchemaError(f"{here}: presence belongs on the type")
    return Field(
        name=name,
        id=_number(element.get("id"), f"{here}: id"),
        type=found,
        offset=_number(element.get("offset"), f"{here}: offset"),
        description=element.get("description", ""),
    )


def _check_name(name: str, where: str) -> None:
    if _NAME.match(name) is None:
        raise SchemaError(f"{where}: {name!r} is not a plain camelCase name")
    if snake(name) in _C_KEYWORDS or keyword.iskeyword(snake(name)):
        raise SchemaError(f"{where}: {name} is a keyword")


def _check_types(schema: Schema) -> None:
    for enum in schema.enums.values():
        _check_members(f"{schema.source}: {enum.name}", enum.primitive, enum.values, is_set=False)
    for flags in schema.sets.values():
        _check_members(f"{schema.source}: {flags.name}", flags.primitive, flags.choices, is_set=True)


def _check_members(where: str, primitive: str, members: tuple[tuple[str, int], ...], *, is_set: bool) -> None:
    if primitive not in ("uint8", "uint16", "uint32"):
        raise SchemaError(f"{where}: encodingType {primitive} is not allowed")
    if not members:
        raise SchemaError(f"{where}: has no members")
    bits = 8 * PRIMITIVE_SIZES[primitive]
    limit = bits - 1 if is_set else (1 << bits) - 1
    if len({name.lower() for name, _ in members}) != len(members):
        raise SchemaError(f"{where}: a name is used twice")
    if len({value for _, value in members}) != len(members):
        raise SchemaError(f"{where}: a value is used twice")
    for name, value in members:
        if _NAME.match(name) is None:
            raise SchemaError(f"{where}: {name!r} is not a plain camelCase name")
        if not 0 <= value <= limit:
            raise SchemaError(f"{where}.{name}: {value} is above {limit}")


def _check_messages(schema: Schema) -> None:
    ids: dict[int, str] = {}
    names: set[str] = set()
    for message in schema.messages:
        where = f"{schema.source}: {message.name}"
        if message.id in ids:
            raise SchemaError(f"{where}: id {message.id} is already {ids[message.id]}")
        if not 1 <= message.id <= 0xFFFF:
            raise SchemaError(f"{where}: id {message.id} is not in 1..65535")
        if message.name in names or message.name in schema.enums or message.name in schema.sets:
            raise SchemaError(f"{where}: the name is already used")
        ids[message.id] = message.name
        names.add(message.name)
        _check_name(message.name, where)
        _check_fields(message, where)
        _check_block(message, schema, where)


def _check_fields(message: Message, where: str) -> None:
    names: set[str] = set()
    ids: set[int] = set()
    expected = 0
    for field in message.fields:
        here = f"{where}.{field.name}"
        _check_name(field.name, here)
        if field.snake in names:
            raise SchemaError(f"{here}: the name is used twice")
        if field.id in ids:
            raise SchemaError(f"{here}: field id {field.id} is used twice")
        if field.offset < expected:
            raise SchemaError(f"{here}: offset {field.offset} overlaps, the next free byte is {expected}")
        if field.offset > expected:
            raise SchemaError(f"{here}: gap, offset {field.offset} instead of {expected}")
        if field.offset % PRIMITIVE_SIZES[field.primitive] != 0:
            raise SchemaError(f"{here}: offset {field.offset} is not aligned for {field.primitive}")
        names.add(field.snake)
        ids.add(field.id)
        expected += field.size
    if expected != message.block_length:
        raise SchemaError(f"{where}: fields end at {expected}, blockLength is {message.block_length}")


def _check_block(message: Message, schema: Schema, where: str) -> None:
    if message.block_length == 0 or message.block_length % BLOCK_ALIGNMENT_BYTES != 0:
        raise SchemaError(f"{where}: blockLength {message.block_length} is not a multiple of {BLOCK_ALIGNMENT_BYTES}")
    for package, first, last, limit in BLOCK_CAPS:
        if package == schema.package and first <= message.id <= last and message.block_length > limit:
            raise SchemaError(f"{where}: blockLength {message.block_length} is above {limit}")
