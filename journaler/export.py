"""The log, or one partition's reports, as a table for auditors: a row a record, every field of every template by name.

CSV or Parquet out of the same rows, a row group at a time: neither needs more memory for a long log than for a short
one (docs/decisions/0021). Columns are the union of all templates' fields: a field that a record does not have is empty.
Enumerations go out by name, money and prices as the whole units, ticks and lots that the log holds.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, IntFlag
from pathlib import Path
from struct import Struct
from typing import IO, Any

from journaler.reader import SLOT_SIZE, LogReader, ReportArchive
from ringbuf.wire.messages import MESSAGES, RejectCode

BLOCK_OFFSET = 32
LOG_BLOCK_MAX, REPORT_BLOCK_MAX = 80, 96
FLAG_MORE, FLAG_LAZY, FLAG_REJECT = 1, 2, 4
TIER_SHIFT = 8
TIME_MAX_NS = 2**33 * 10**9
REPORTS_AT_ONCE = 4096
ROW_GROUP = 16384  # rows are wide: more of them only cost memory
LOG_TEMPLATES = (range(9, 10), range(100, 200), range(300, 400))
REPORT_TEMPLATES = (range(7, 10), range(200, 300))
_LOG_HEAD, _LOG_FOOT = Struct("<IHHIBBHQQ"), Struct("<QQ")
_REPORT_HEAD = Struct("<IHBBIHHIIQ")

Row = list[Any]
Rows = Iterator[Row]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: str  # u1..u8, i1..i8 (bytes of an integer), bool, time (nanoseconds, UTC) or text


LOG_COLUMNS = (
    Column("sequence", "u8"),
    Column("time", "time"),
    Column("template", "text"),
    Column("verdict", "text"),  # accepted; rejected: the request changed nothing
    Column("verdict_code", "text"),
    Column("partition", "u1"),
    Column("session", "u4"),
    Column("seq_num", "u8"),
    Column("source", "u2"),
    Column("src_seq", "u4"),
    Column("ingress_time", "time"),
    Column("tier", "u1"),
    Column("linked", "bool"),  # the next record belongs to the same request
    Column("lazy", "bool"),
    Column("aux", "u8"),
    Column("schema_version", "u1"),
    Column("unknown_block", "text"),  # hex, of a template this version does not know
)
REPORT_COLUMNS = (
    Column("report_seq", "u8"),
    Column("partition", "u1"),
    Column("in_seq", "u8"),  # sequence of the log record that caused it
    Column("template", "text"),
    Column("session", "u4"),
    Column("seq_num_low", "u4"),
    Column("account_seq_low", "u4"),
    Column("flags", "u2"),
    Column("schema_version", "u1"),
    Column("unknown_block", "text"),
)
INTEGERS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8")


class Fields:
    """The union of the templates' fields, and where each stands in a row behind the fixed columns."""

    def __init__(self, fixed: Sequence[Column], templates: Sequence[range], block_max: int) -> None:
        self.block_max = block_max
        self.columns = list(fixed)
        self._width = len(fixed)
        self._places: dict[int, list[int]] = {}
        taken = {column.name for column in fixed}
        places: dict[str, int] = {}
        for template, message in sorted(MESSAGES.items()):
            if any(template in each for each in templates):
                self._places[template] = [
                    self._place(message, name, kind, taken, places) for name, kind, _ in message.COLUMNS
                ]

    def _place(self, message: type[Any], name: str, kind: str, taken: set[str], places: dict[str, int]) -> int:
        """Return where a field goes, with a column for it."""
        own = _kind(kind, getattr(message(), name), str(message.__annotations__[name]))
        # A field of a fixed column's name is another thing.
        public = f"field_{name}" if name in taken else name
        place = places.setdefault(public, len(self.columns))
        if place == len(self.columns):
            self.columns.append(Column(public, own))
        elif self.columns[place].kind != own:
            self.columns[place] = Column(public, _wider(self.columns[place].kind, own))
        return place

    def row(self, fixed: Row, template: int, slot: bytes | memoryview) -> Row:
        """Return the row; the last fixed value is the block in hex if the template is not known."""
        message = MESSAGES.get(template)
        if message is None or template not in self._places or self.block_max < message.BLOCK_LENGTH:
            fixed[-1] = bytes(slot[BLOCK_OFFSET : BLOCK_OFFSET + self.block_max]).hex()
            return fixed + [None] * (len(self.columns) - self._width)
        row = fixed + [None] * (len(self.columns) - self._width)
        block = message.unpack(slot, BLOCK_OFFSET)
        for place, name in zip(self._places[template], message.__match_args__, strict=True):
            value = _value(getattr(block, name))
            # An enumeration's value that this version has no name for is a number in a column of names.
            row[place] = str(value) if isinstance(value, int) and self.columns[place].kind == "text" else value
        return row


def log_rows(directory: Path, start: int | None, limit: int | None) -> tuple[list[Column], Rows]:
    """Return the columns, and a row for each record of [start, limit). Raises JournalRefused at damage."""
    fields = Fields(LOG_COLUMNS, LOG_TEMPLATES, LOG_BLOCK_MAX)

    def rows() -> Rows:
        reader = LogReader(directory)
        for first, slots in reader.batches(reader.first_sequence if start is None else start):
            view = memoryview(slots)
            for index in range(len(slots) // SLOT_SIZE):
                if limit is not None and first + index >= limit:
                    return
                yield _log_row(fields, first + index, view[index * SLOT_SIZE : (index + 1) * SLOT_SIZE])

    return fields.columns, rows()


def report_rows(directory: Path, partition: int, start: int | None, limit: int | None) -> tuple[list[Column], Rows]:
    """Return the columns, and a row for each archived report of a partition, numbers in [start, limit)."""
    fields = Fields(REPORT_COLUMNS, REPORT_TEMPLATES, REPORT_BLOCK_MAX)

    def rows() -> Rows:
        archive = ReportArchive(directory)
        try:
            place = start or 0
            end = archive.count(partition) if limit is None else min(limit, archive.count(partition))
            while slots := archive.read(partition, place, min(REPORTS_AT_ONCE, end - place)):
                view = memoryview(slots)
                for index in range(len(slots) // SLOT_SIZE):
                    slot = view[index * SLOT_SIZE : (index + 1) * SLOT_SIZE]
                    if any(slot):  # zeros: a power loss took it, and it has not been made again
                        yield _report_row(fields, place + index, slot)
                place += len(slots) // SLOT_SIZE
        finally:
            archive.close()

    return fields.columns, rows()


def write_csv(file: IO[str], columns: Sequence[Column], rows: Iterable[Row]) -> int:
    """Write a heading and the rows (RFC 4180, UTF-8); return how many rows."""
    count = 0
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    times = [place for place, column in enumerate(columns) if column.kind == "time"]
    bools = [place for place, column in enumerate(columns) if column.kind == "bool"]
    for row in rows:
        for place in times:
            row[place] = _time_text(row[place])
        for place in bools:
            row[place] = "true" if row[place] else "false"
        writer.writerow(row)
        count += 1
    return count


def write_parquet(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> int:
    """Write a Parquet file (zstd), whole or not at all; return how many rows."""
    # Loading it takes as long as all the rest of the command.
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    integers = {kind: getattr(arrow, f"{'u' * (kind[0] == 'u')}int{8 * int(kind[1])}")() for kind in INTEGERS}
    types = integers | {"bool": arrow.bool_(), "time": arrow.timestamp("ns", tz="UTC"), "text": arrow.string()}
    schema = arrow.schema([(column.name, types[column.kind]) for column in columns])
    draft = path.with_name(f"{path.name}.tmp")
    count, remaining = 0, iter(rows)
    try:
        with parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
            while group := list(itertools.islice(remaining, ROW_GROUP)):
                arrays = [
                    arrow.array(values, type=field.type)
                    for values, field in zip(zip(*group, strict=True), schema, strict=True)
                ]
                writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
                count += len(group)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    draft.rename(path)
    return count


def _log_row(fields: Fields, sequence: int, slot: memoryview) -> Row:
    session, source, template, src_seq, version, partition, flags, seq_num, ingress_ns = _LOG_HEAD.unpack_from(slot)
    ts_ns, aux = _LOG_FOOT.unpack_from(slot, 112)
    rejected = bool(flags & FLAG_REJECT)
    message = MESSAGES.get(template)
    fixed: Row = [
        sequence, _time(ts_ns), message.__name__ if message else str(template),
        "rejected" if rejected else "accepted", _reject_name(aux) if rejected else None,
        partition, session, seq_num, source, src_seq, _time(ingress_ns), flags >> TIER_SHIFT,
        bool(flags & FLAG_MORE), bool(flags & FLAG_LAZY), aux, version, None,
    ]  # fmt: skip
    return fields.row(fixed, template, slot)


def _report_row(fields: Fields, sequence: int, slot: memoryview) -> Row:
    session, template, version, partition, account_seq, flags, _, seq_num, _, in_seq = _REPORT_HEAD.unpack_from(slot)
    message = MESSAGES.get(template)
    name = message.__name__ if message else str(template)
    fixed: Row = [sequence, partition, in_seq, name, session, seq_num, account_seq, flags, version, None]
    return fields.row(fixed, template, slot)


def _time(ns: int) -> int | None:
    """None for 0, and for a time beyond what tools can show."""
    return ns if 0 < ns < TIME_MAX_NS else None


def _time_text(ns: int | None) -> str | None:
    """UTC with nanoseconds."""
    if ns is None:
        return None
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d}"


def _reject_name(code: int) -> str:
    try:
        return RejectCode(code).name
    except ValueError:
        return str(code)


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # what was no UTF-8 came as surrogates
    if isinstance(value, IntFlag):
        return "|".join(member.name or str(member.value) for member in value)
    if isinstance(value, IntEnum):
        return value.name
    return value


def _kind(kind: str, default: Any, annotation: str) -> str:
    base = kind.lstrip("<>|=")
    plain = re.fullmatch(r"int( \| None)?", annotation) is not None
    return base if base in INTEGERS and plain and not isinstance(default, IntEnum | IntFlag) else "text"


def _wider(first: str, second: str) -> str:
    """The kind that holds both; text if they differ in more than size."""
    same = first in INTEGERS and second in INTEGERS and first[0] == second[0]
    return max(first, second) if same else "text"
