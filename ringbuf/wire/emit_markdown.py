"""docs/PROTOCOL_TABLES.md: every message and enum as a table."""

from __future__ import annotations

from ringbuf.wire.schema import EnumType, Field, Message, Schema, SetType, SimpleType, snake

_GROUPS = (
    ("bullring_orders", 1, 99, "Session"),
    ("bullring_orders", 100, 199, "Requests"),
    ("bullring_orders", 200, 299, "Reports"),
    ("bullring_orders", 300, 329, "Log records"),
    ("bullring_orders", 330, 399, "Administration"),
    ("bullring_orders", 400, 499, "Queries"),
    ("bullring_orders", 500, 599, "Replies"),
    ("bullring_marketdata", 1, 19, "Reference"),
    ("bullring_marketdata", 20, 39, "Incrementals"),
    ("bullring_marketdata", 40, 99, "Snapshots"),
)


def tables(orders: Schema, marketdata: Schema, banner: str) -> str:
    lines = [f"<!-- {banner} -->", "# Protocol tables", ""]
    lines += [
        "Offsets are within the block, sizes in bytes. Everything is little-endian. Padding is zero. The rules are in",
        "[PROTOCOL.md](PROTOCOL.md) and [FEED.md](FEED.md). A client of order entry needs Session, Requests, Reports,",
        "Queries and Replies; log records never are on a connection, administration is for the operator's socket.",
        "",
    ]
    for schema, title in ((orders, "Order entry, log and administration"), (marketdata, "Market data")):
        lines += [
            f"## {title}",
            "",
            f"Schema id {schema.id}, version {schema.version}, hash `0x{schema.hash:016x}`.",
            "",
        ]
        for composite in schema.composites.values():
            lines += [f"### Composite {composite.name}", "", f"{_cell(composite.description)}.", ""]
            lines += ["| offset | name | type | description |", "|---:|---|---|---|"]
            offset = 0
            for part in composite.fields:
                lines.append(f"| {offset} | `{part.name}` | {part.primitive} | {_cell(part.description)} |")
                offset += part.size
            lines.append("")
        for package, first, last, heading in _GROUPS:
            members = [message for message in schema.messages if first <= message.id <= last]
            if package == schema.package and members:
                lines += [f"### {heading}", ""]
                for message in members:
                    lines += _message(message)
    lines += ["## Enums and sets", ""]
    shown: set[str] = set()
    for schema in (orders, marketdata):
        kinds: list[EnumType | SetType] = [*schema.enums.values(), *schema.sets.values()]
        for kind in kinds:
            if kind.name not in shown:
                shown.add(kind.name)
                lines += _members(kind)
    return "\n".join(lines).rstrip() + "\n"


def _message(message: Message) -> list[str]:
    lines = [f"#### {message.name} ({message.id}, {message.block_length} B)", "", f"{_cell(message.description)}.", ""]
    lines += ["| offset | name | type | description |", "|---:|---|---|---|"]
    for field in message.fields:
        lines.append(f"| {field.offset} | `{field.name}` | {_type(field)} | {_description(field)} |")
    return [*lines, ""]


def _type(field: Field) -> str:
    primitive = f"char[{field.length}]" if field.is_array else field.primitive
    return primitive if field.type.name == primitive else f"{field.type.name} ({primitive})"


def _description(field: Field) -> str:
    text = field.description or field.type.description
    if isinstance(field.type, SimpleType):
        if not field.description and text in (field.type.name, field.type.primitive):
            text = snake(field.name).replace("_", " ")
        if field.type.optional:
            text += f"; absent = {field.type.null}"
    return _cell(text)


def _members(kind: EnumType | SetType) -> list[str]:
    is_set = isinstance(kind, SetType)
    lines = [f"### {kind.name} ({kind.primitive}{' bits' if is_set else ''})", "", f"{_cell(kind.description)}.", ""]
    lines += [f"| {'bit' if is_set else 'value'} | name |", "|---:|---|"]
    members = kind.choices if isinstance(kind, SetType) else kind.values
    lines += [f"| {value} | {name} |" for name, value in sorted(members, key=lambda item: item[1])]
    return [*lines, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
