"""The log, or one partition's reports, as a table for auditors: a row a record, every field of every template by name.

CSV needs nothing but this; Parquet is written by DuckDB out of the same rows, through a pipe, so that neither needs
more memory for a long log than for a short one (docs/decisions/0021). Columns are the union of all templates' fields:
a field that a record does not have is empty. Enumerations go out by name, money and prices as the whole units, ticks
and lots that the log holds.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, IntFlag
from pathlib import Path
from struct import Struct
from typing import IO, Any

from journaler.errors import JournalError
from journaler.reader import SLOT_SIZE, LogReader, ReportArchive
from ringbuf.wire.messages import MESSAGES, RejectCode

BLOCK_OFFSET = 32
LOG_BLOCK_MAX, REPORT_BLOCK_MAX = 80, 96
FLAG_MORE, FLAG_LAZY, FLAG_REJECT = 1, 2, 4
TIER_SHIFT = 8
REPORTS_AT_ONCE = 4096
MEMORY_MAX = "200MB"
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
    sql_type: str


LOG_COLUMNS = (
    Column("sequence", "UBIGINT"),
    Column("time", "TIMESTAMP_NS"),
    Column("template", "VARCHAR"),
    Column("verdict", "VARCHAR"),  # accepted; rejected: the request changed nothing
    Column("verdict_code", "VARCHAR"),
    Column("partition", "UTINYINT"),
    Column("session", "UINTEGER"),
    Column("seq_num", "UBIGINT"),
    Column("source", "USMALLINT"),
    Column("src_seq", "UINTEGER"),
    Column("ingress_time", "TIMESTAMP_NS"),
    Column("tier", "UTINYINT"),
    Column("linked", "BOOLEAN"),  # the next record belongs to the same request
    Column("lazy", "BOOLEAN"),
    Column("aux", "UBIGINT"),
    Column("schema_version", "UTINYINT"),
    Column("unknown_block", "VARCHAR"),  # hex, of a template this version does not know
)
REPORT_COLUMNS = (
    Column("report_seq", "UBIGINT"),
    Column("partition", "UTINYINT"),
    Column("in_seq", "UBIGINT"),  # sequence of the log record that caused it
    Column("template", "VARCHAR"),
    Column("session", "UINTEGER"),
    Column("seq_num_low", "UINTEGER"),
    Column("account_seq_low", "UINTEGER"),
    Column("flags", "USMALLINT"),
    Column("schema_version", "UTINYINT"),
    Column("unknown_block", "VARCHAR"),
)
INTEGERS = {
    "u1": "UTINYINT", "u2": "USMALLINT", "u4": "UINTEGER", "u8": "UBIGINT",
    "i1": "TINYINT", "i2": "SMALLINT", "i4": "INTEGER", "i8": "BIGINT",
}  # fmt: skip


class Fields:
    """The union of the templates' fields, and where each stands in a row behind the fixed columns."""

    def __init__(self, fixed: Sequence[Column], templates: Sequence[range], block_max: int) -> None:
        known = {name: column.sql_type for name, column in ((column.name, column) for column in fixed)}
        self.block_max = block_max
        self.columns = list(fixed)
        self._width = len(fixed)
        self._places: dict[int, list[int]] = {}
        places: dict[str, int] = {}
        for template, message in sorted(MESSAGES.items()):
            if not any(template in each for each in templates):
                continue
            defaults = message()
            for name, kind, _ in message.COLUMNS:
                sql_type = _sql_type(kind, getattr(defaults, name), str(message.__annotations__[name]))
                # A field of a fixed column's name is another thing.
                public = f"field_{name}" if name in known else name
                if public not in places:
                    places[public] = len(self.columns)
                    self.columns.append(Column(public, sql_type))
                elif self.columns[places[public]].sql_type != sql_type:
                    self.columns[places[public]] = Column(
                        public, _wider(self.columns[places[public]].sql_type, sql_type)
                    )
            names = [f"field_{name}" if name in known else name for name, _, _ in message.COLUMNS]
            self._places[template] = [places[name] for name in names]

    def row(self, fixed: Row, template: int, slot: bytes | memoryview) -> Row:
        """Return the row; the last fixed value is the block in hex if the template is not known."""
        message = MESSAGES.get(template)
        if message is None or template not in self._places or self.block_max < message.BLOCK_LENGTH:
            fixed[-1] = bytes(slot[BLOCK_OFFSET : BLOCK_OFFSET + self.block_max]).hex()
            return fixed + [None] * (len(self.columns) - self._width)
        row = fixed + [None] * (len(self.columns) - self._width)
        block = message.unpack(slot, BLOCK_OFFSET)
        for place, name in zip(self._places[template], message.__match_args__, strict=True):
            row[place] = _value(getattr(block, name))
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
    for row in rows:
        writer.writerow(row)
        count += 1
    return count


def write_parquet(path: Path, columns: Sequence[Column], rows: Iterable[Row]) -> int:
    """Write a Parquet file (zstd), whole or not at all; return how many rows. Raises JournalError without DuckDB."""
    try:
        import duckdb
    except ImportError as error:
        raise JournalError(
            "Parquet needs the package duckdb: `pip install 'bullring-exchange[parquet]'`, or use CSV"
        ) from error
    with tempfile.TemporaryDirectory(prefix="bullring-export-") as folder:
        pipe = Path(folder) / "rows.csv"
        os.mkfifo(pipe)
        feeder = _Feeder(pipe, columns, rows)
        draft = path.with_name(f"{path.name}.tmp")
        types = ", ".join(f"'{column.name}': '{column.sql_type}'" for column in columns)
        source = (
            f"read_csv('{pipe}', header = true, auto_detect = false, delim = ',', quote = '\"', columns = {{{types}}})"
        )
        feeder.start()
        try:
            with duckdb.connect() as database:
                database.execute(f"SET threads = 1; SET memory_limit = '{MEMORY_MAX}'")
                how = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP}"
                database.execute(f"COPY (SELECT * FROM {source}) TO {_quoted(draft)} ({how})")
            # The pipe ends early where the journal is damaged: nobody may take that for the whole.
            count = feeder.finish()
        except duckdb.Error as error:
            draft.unlink(missing_ok=True)
            feeder.abandon()
            raise JournalError(f"writing {path} failed: {error}") from error
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        draft.rename(path)
        return count


class _Feeder(threading.Thread):
    """Writes the rows into a pipe that DuckDB reads."""

    def __init__(self, pipe: Path, columns: Sequence[Column], rows: Iterable[Row]) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._write: Callable[[IO[str]], int] = lambda file: write_csv(file, columns, rows)
        self._error: Exception | None = None
        self._count = 0

    def run(self) -> None:
        try:
            with self._pipe.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                self._count = self._write(file)
        except Exception as error:
            self._error = error

    def finish(self) -> int:
        """Return the number of rows. Raises what went wrong while reading the journal."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._count

    def abandon(self) -> None:
        """Let a writer go that still waits for its reader; a failure of its own comes first."""
        with contextlib.suppress(OSError):
            os.close(os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK))
        self.join()
        if self._error is not None and not isinstance(self._error, BrokenPipeError):
            raise self._error


def _log_row(fields: Fields, sequence: int, slot: memoryview) -> Row:
    session, source, template, src_seq, version, partition, flags, seq_num, ingress_ns = _LOG_HEAD.unpack_from(slot)
    ts_ns, aux = _LOG_FOOT.unpack_from(slot, 112)
    rejected = bool(flags & FLAG_REJECT)
    message = MESSAGES.get(template)
    fixed: Row = [
        sequence, _time(ts_ns), message.__name__ if message else str(template),
        "rejected" if rejected else "accepted", _reject_name(aux) if rejected else None,
        partition, session, seq_num, source, src_seq, _time(ingress_ns), flags >> TIER_SHIFT,
        "true" if flags & FLAG_MORE else "false", "true" if flags & FLAG_LAZY else "false", aux, version, None,
    ]  # fmt: skip
    return fields.row(fixed, template, slot)


def _report_row(fields: Fields, sequence: int, slot: memoryview) -> Row:
    session, template, version, partition, account_seq, flags, _, seq_num, _, in_seq = _REPORT_HEAD.unpack_from(slot)
    message = MESSAGES.get(template)
    name = message.__name__ if message else str(template)
    fixed: Row = [sequence, partition, in_seq, name, session, seq_num, account_seq, flags, version, None]
    return fields.row(fixed, template, slot)


def _time(ns: int) -> str | None:
    """UTC with nanoseconds; None for 0 or a time no calendar has."""
    seconds, rest = divmod(ns, 1_000_000_000)
    if not 0 < seconds < 2**33:
        return None
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d}"


def _reject_name(code: int) -> str:
    try:
        return RejectCode(code).name
    except ValueError:
        return str(code)


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntFlag):
        return "|".join(member.name or str(member.value) for member in value)
    if isinstance(value, IntEnum):
        return value.name
    return value


def _sql_type(kind: str, default: Any, annotation: str) -> str:
    base = kind.lstrip("<>|=")
    if base not in INTEGERS or isinstance(default, IntEnum | IntFlag) or not _plain_integer(annotation):
        return "VARCHAR"
    return INTEGERS[base]


def _plain_integer(annotation: str) -> bool:
    return re.fullmatch(r"int( \| None)?", annotation) is not None


def _wider(first: str, second: str) -> str:
    """The type that holds both; text if they differ in more than size."""
    order = ["UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"], ["TINYINT", "SMALLINT", "INTEGER", "BIGINT"]
    for kinds in order:
        if first in kinds and second in kinds:
            return max(first, second, key=kinds.index)
    return "VARCHAR"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
