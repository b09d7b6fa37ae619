"""C headers: structs that lie over a ring slot, constants, and validators for requests."""

from __future__ import annotations

from ringbuf.wire.schema import EnumType, Field, FieldType, Message, Schema, SetType, SimpleType, snake, upper

# The ring has a cursor type sequence_t already; a struct named after the message would clash with it.
C_STRUCT_NAMES = {"Sequence": "sequence_message"}

# What a value outside its enum is answered with; every other enum is InvalidCombination.
ENUM_REJECT_CODES = {
    "Side": "INVALID_SIDE",
    "OrdType": "INVALID_ORD_TYPE",
    "TimeInForce": "INVALID_TIME_IN_FORCE",
    "StpMode": "INVALID_STP",
}
COMMON_PREFIX = "wire"
SOFH_ENCODING_TYPE = 0xEB50
DENSE_ENUM_LIMIT = 63

_HEADER_TOP = """\
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
"""

_FRAME_HEADER_WRITE = """
/* Write a frame_header_t at any address, word by word: one filled in elsewhere and copied would wait for its stores. */
static inline void frame_header_write(uint8_t *target, uint16_t template_id, uint16_t block_length, uint16_t flags,
                                      uint64_t seq_num, uint64_t sending_time)
{
    const uint32_t length = FRAME_HEADER_SIZE + block_length;
    const uint64_t first = length | (uint64_t)SOFH_ENCODING_TYPE << 32 | (uint64_t)block_length << 48;
    const uint64_t second = template_id | (uint64_t)ORDERS_SCHEMA_ID << 16 | (uint64_t)ORDERS_SCHEMA_VERSION << 32 |
                            (uint64_t)flags << 48;

    memcpy(target, &first, sizeof(first));
    memcpy(target + 8, &second, sizeof(second));
    memcpy(target + offsetof(frame_header_t, seq_num), &seq_num, sizeof(seq_num));
    memcpy(target + offsetof(frame_header_t, sending_time), &sending_time, sizeof(sending_time));
}
"""


def struct_name(message: Message) -> str:
    return C_STRUCT_NAMES.get(message.name, message.snake)


def c_type(primitive: str) -> str:
    return "char" if primitive == "char" else f"{primitive}_t"


def common_header(orders: Schema, marketdata: Schema, banner: str) -> str:
    """Nulls and whatever types both schemas name, so that the two headers can meet in one file."""
    out = _top(banner, "BULLRING_WIRE_COMMON_H", includes="")
    out += ["/* SBE default nulls by primitive type. */"]
    for bits in (8, 16, 32, 64):
        out.append(f"#define U{bits}_NULL UINT{bits}_MAX")
    for bits in (8, 16, 32, 64):
        out.append(f"#define I{bits}_NULL INT{bits}_MIN")
    out += ["", "/* The same by type of the schema. */", "#define PX_NULL INT64_MIN", "#define QTY_NULL INT64_MIN"]
    out += ["#define AMOUNT_NULL INT64_MIN"]
    optional = {t.name: t for schema in (orders, marketdata) for t in schema.types.values() if t.optional}
    out += [f"#define {upper(t.name)}_NULL {_null_macro(t)}" for t in optional.values()]
    for name in orders.enums.keys() & marketdata.enums.keys():
        assert orders.enums[name] == marketdata.enums[name]
    for name, enum in orders.enums.items():
        if name in marketdata.enums:
            out += ["", *_enum(enum)]
    for name, flags in orders.sets.items():
        if name in marketdata.sets:
            out += ["", *_set(flags)]
    return _end(out, "BULLRING_WIRE_COMMON_H")


def schema_header(schema: Schema, other: Schema, banner: str) -> str:
    """One schema: constants, structs, block lengths, and for the orders frame prefix and validators."""
    prefix = schema.package.removeprefix("bullring_")
    guard = f"BULLRING_{prefix.upper()}_H"
    out = _top(banner, guard, includes='#include "wire_common.h"\n')
    out += [
        f"#define {prefix.upper()}_SCHEMA_ID {schema.id}u",
        f"#define {prefix.upper()}_SCHEMA_VERSION {schema.version}u",
        "/* FNV-1a over names, ids, offsets, types and values; descriptions are not in it. */",
        f"#define {prefix.upper()}_SCHEMA_HASH UINT64_C(0x{schema.hash:016x})",
    ]
    for enum in schema.enums.values():
        if enum.name not in other.enums:
            out += ["", *_enum(enum)]
    for flags in schema.sets.values():
        if flags.name not in other.sets:
            out += ["", *_set(flags)]
    out += _frame_prefix(schema) if "sofh" in schema.composites else _market_header(schema)
    out += ["", "/* Template ids. */", "enum {"]
    out += [f"    TEMPLATE_{upper(message.name)} = {message.id}," for message in schema.messages]
    out += ["};"]
    for message in schema.messages:
        out += ["", *_struct(message)]
    out += ["", *_block_length(schema, prefix), "", *_template_name(schema, prefix)]
    requests = [message for message in schema.messages if message.is_request]
    if requests:
        out += _validators(requests, prefix)
    return _end(out, guard)


def _top(banner: str, guard: str, includes: str) -> list[str]:
    lines = [f"/* {banner} */", f"#ifndef {guard}", f"#define {guard}", "", *_HEADER_TOP.rstrip().split("\n")]
    if includes:
        lines += ["", *includes.rstrip().split("\n")]
    lines += [
        "",
        "#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__",
        '#error "the wire is little-endian and the structs are the wire"',
        "#endif",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
    ]
    return lines


def _end(lines: list[str], guard: str) -> str:
    lines += ["", "#ifdef __cplusplus", "}", "#endif", "", f"#endif /* {guard} */"]
    return "\n".join(lines) + "\n"


def _null_macro(simple: SimpleType) -> str:
    return f"UINT{simple.primitive[4:]}_MAX" if simple.primitive[0] == "u" else f"INT{simple.primitive[3:]}_MIN"


def _enum(enum: EnumType) -> list[str]:
    prefix = upper(enum.name)
    lines = [f"/* {enum.name}, {enum.primitive}: {enum.description} */", "enum {"]
    lines += [f"    {prefix}_{upper(name)} = {value}," for name, value in enum.values]
    lines += ["};", "", *_enum_check(enum)]
    return lines


def _enum_check(enum: EnumType) -> list[str]:
    """A membership test: one shift for small enums, a switch for the wide ones."""
    lines = [f"static inline int {COMMON_PREFIX}_is_{snake(enum.name)}({c_type(enum.primitive)} value)", "{"]
    highest = max(value for _, value in enum.values)
    if highest <= DENSE_ENUM_LIMIT:
        mask = sum(1 << value for _, value in enum.values)
        lines.append(f"    return value <= {highest}u && ((UINT64_C(0x{mask:x}) >> value) & 1u) != 0;")
    else:
        lines.append("    switch (value) {")
        lines += [f"    case {upper(enum.name)}_{upper(name)}:" for name, _ in enum.values]
        lines += ["        return 1;", "    default:", "        return 0;", "    }"]
    return [*lines, "}"]


def _set(flags: SetType) -> list[str]:
    prefix = upper(flags.name)
    mask = sum(1 << bit for _, bit in flags.choices)
    lines = [f"/* {flags.name}, {flags.primitive}: {flags.description} */"]
    lines += [f"#define {prefix}_{upper(name)} (1u << {bit})" for name, bit in flags.choices]
    return [*lines, f"#define {prefix}_MASK 0x{mask:x}u"]


def _frame_prefix(schema: Schema) -> list[str]:
    sofh, header = schema.composites["sofh"], schema.composites["messageHeader"]
    lines = ["", f"#define SOFH_ENCODING_TYPE 0x{SOFH_ENCODING_TYPE:X}u", "#define FRAME_HEADER_SIZE 32u"]
    lines += ["#define FRAME_FLAG_PARTITION_SHIFT 8u", "#define FRAME_FLAG_PARTITION_MASK 0xff00u"]
    for composite, name in ((sofh, "sofh"), (header, "message_header")):
        lines += ["", f"/* {composite.description}. Packed: for reading at any address. */"]
        lines += [f"typedef struct __attribute__((packed)) {name} {{"]
        lines += [f"    {c_type(field.primitive)} {snake(field.name)};" for field in composite.fields]
        size = sum(field.size for field in composite.fields)
        lines += [f"}} {name}_t;", f'static_assert(sizeof({name}_t) == {size}, "{name}");']
    lines += ["", "/* Both in front of a block. Every member is naturally aligned, so this one needs no packing. */"]
    lines += _flat_header("frame_header", (*sofh.fields, *header.fields), 32)
    return [*lines, "", *_FRAME_HEADER_WRITE.strip().split("\n")]


def _market_header(schema: Schema) -> list[str]:
    header = schema.composites["messageHeader"]
    lines = ["", "#define MARKET_HEADER_SIZE 8u", "", f"/* {header.description}. */"]
    return [*lines, *_flat_header("market_header", header.fields, 8)]


def _flat_header(name: str, fields: tuple[SimpleType, ...], size: int) -> list[str]:
    lines = [f"typedef struct {name} {{"]
    asserts = [f'static_assert(sizeof({name}_t) == {size}, "{name}");']
    offset = 0
    for field in fields:
        member = snake(field.name)
        lines.append(f"    {c_type(field.primitive)} {member};")
        asserts.append(f'static_assert(offsetof({name}_t, {member}) == {offset}, "{name}");')
        offset += field.size
    return [*lines, f"}} {name}_t;", *asserts]


def _struct(message: Message) -> list[str]:
    name = struct_name(message)
    lines = [f"/* {message.name} ({message.id}): {message.description} */", f"typedef struct {name} {{"]
    for field in message.fields:
        array = f"[{field.length}]" if field.is_array else ""
        lines.append(f"    {c_type(field.primitive)} {field.snake}{array};{_field_comment(field.type)}")
    lines.append(f"}} {name}_t;")
    lines.append(f'static_assert(sizeof({name}_t) == {message.block_length}, "{message.name}");')
    for field in message.fields:
        lines.append(f'static_assert(offsetof({name}_t, {field.snake}) == {field.offset}, "{message.name}");')
    return lines


def _field_comment(kind: FieldType) -> str:
    if isinstance(kind, SimpleType):
        return f" /* {upper(kind.name)}_NULL = absent */" if kind.optional else ""
    return f" /* {upper(kind.name)}_... */"


def _block_length(schema: Schema, prefix: str) -> list[str]:
    lines = ["/* 0 = unknown template. */"]
    lines += [f"static inline uint16_t {prefix}_block_length(uint16_t template_id)"]
    lines += ["{", "    switch (template_id) {"]
    for message in schema.messages:
        lines += [f"    case TEMPLATE_{upper(message.name)}:", f"        return {message.block_length};"]
    return [*lines, "    default:", "        return 0;", "    }", "}"]


def _template_name(schema: Schema, prefix: str) -> list[str]:
    lines = [
        f"static inline const char *{prefix}_template_name(uint16_t template_id)",
        "{",
        "    switch (template_id) {",
    ]
    for message in schema.messages:
        lines += [f"    case TEMPLATE_{upper(message.name)}:", f'        return "{message.name}";']
    return [*lines, "    default:", '        return "unknown";', "    }", "}"]


def _validators(requests: list[Message], prefix: str) -> list[str]:
    lines = [
        "",
        "/* Shape checks of requests: enums and sets in range, padding zero; REJECT_CODE_NONE = good. Prices,",
        " * quantities and ids are the business of the sequencer. The block must be 8-byte aligned, as every block",
        " * behind a frame header in an aligned buffer is. */",
    ]
    for message in requests:
        lines += [*_validator(message, prefix), ""]
    lines += [
        "/* Check the block of any request; the caller has checked that it is as long as the template says. */",
        f"static inline uint16_t {prefix}_validate(uint16_t template_id, const void *block)",
        "{",
        "    switch (template_id) {",
    ]
    for message in requests:
        lines.append(f"    case TEMPLATE_{upper(message.name)}:")
        lines.append(f"        return {prefix}_validate_{message.snake}((const {struct_name(message)}_t *)block);")
    return [*lines, "    default:", "        return REJECT_CODE_UNKNOWN_TEMPLATE;", "    }", "}"]


def _validator(message: Message, prefix: str) -> list[str]:
    checked = [field for field in message.fields if not isinstance(field.type, SimpleType)]
    padding = [field for field in message.fields if field.is_padding]
    name = struct_name(message)
    lines = [f"static inline uint16_t {prefix}_validate_{message.snake}(const {name}_t *block)", "{"]
    if not checked and not padding:
        lines.append("    (void)block;")
    for field in checked:
        lines += _range_check(field)
    if padding:
        lines.append(f"    if (({' | '.join(f'block->{field.snake}' for field in padding)}) != 0)")
        lines.append("        return REJECT_CODE_PADDING_NOT_ZERO;")
    return [*lines, "    return REJECT_CODE_NONE;", "}"]


def _range_check(field: Field) -> list[str]:
    code = ENUM_REJECT_CODES.get(field.type.name, "INVALID_COMBINATION")
    if isinstance(field.type, SetType):
        condition = f"(block->{field.snake} & ~{upper(field.type.name)}_MASK) != 0"
    else:
        condition = f"!{COMMON_PREFIX}_is_{snake(field.type.name)}(block->{field.snake})"
    return [f"    if ({condition})", f"        return REJECT_CODE_{code};"]
