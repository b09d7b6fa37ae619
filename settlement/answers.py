"""What can be asked, by name, with plain arguments and rows: of the service, or by who opens the store itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from settlement.chart import Book, Code
from settlement.export import export_table
from settlement.overview import overview
from settlement.reader import NS_MAX, Reader, Statement
from settlement.service import Handler, Row

_TEXTS = frozenset({"client_text", "table", "path", "form"})


def rows_of(values: Iterable[Any]) -> Iterator[Row]:
    """Yield dataclasses as dicts of plain values."""
    for value in values:
        yield {entry.name: getattr(value, entry.name) for entry in fields(value)}


def answers(reader: Reader, status: Callable[[], Mapping[str, Any]]) -> dict[str, Handler]:
    """Return every call that reads."""

    def asked(method: Callable[..., Iterable[Any]]) -> Handler:
        return lambda **given: rows_of(method(**plain(given)))

    return {
        "status": lambda: [dict(status())],
        "assets": asked(reader.assets),
        "instruments": asked(reader.instruments),
        "balances": asked(reader.balances),
        "trial_balance": asked(reader.trial_balance),
        "statement": lambda **given: statement_rows(reader.statement(**plain(given))),
        "entry": asked(reader.entry),
        "in_transit": asked(reader.in_transit),
        "account_trades": asked(reader.account_trades),
        "account_orders": asked(reader.account_orders),
        "trades": asked(reader.trades),
        "candles": asked(reader.candles),
        "fees": asked(reader.fees),
        "closes": asked(reader.closes),
        "days": asked(reader.days),
        "reconciliations": asked(reader.reconciliations),
        "overview": lambda: [overview(reader, status())],
        "export": lambda **given: [export_table(reader, **plain(given))],
    }


def plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments checked for their kind: all are whole numbers but the few that are texts.

    Numbers go into questions to the store as they are, so nothing else may pass for one. Raises ValueError.
    """
    checked = dict(given)
    for name, value in given.items():
        if name == "book":
            checked[name] = book_named(value)
        elif name in _TEXTS:
            if not isinstance(value, str):
                raise ValueError(f"{name} = {value!r}: must be a text")
        elif name == "by":
            if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
                raise ValueError(f"by = {value!r}: must be a list of texts")
        elif value is not None and not isinstance(value, int):
            raise ValueError(f"{name} = {value!r}: must be a whole number")
    return checked


def book_named(value: Any) -> Book:
    """Return the book of a name or number. Raises ValueError."""
    for book in Book:
        if value in (book.name.lower(), book.value):
            return book
    raise ValueError(f"book = {value!r}: must be one of {', '.join(book.name.lower() for book in Book)}")


def statement_rows(statement: Statement) -> Iterator[Row]:
    """Yield the statement's head, and then its lines."""
    yield {
        "book": int(statement.book),
        "account": statement.account,
        "asset": statement.asset,
        "start_ns": statement.start_ns,
        "end_ns": min(statement.end_ns, NS_MAX),
        "opening_available": statement.opening[0],
        "opening_held": statement.opening[1],
        "closing_available": statement.closing[0],
        "closing_held": statement.closing[1],
        "lines": len(statement.lines["sequence"]),
    }
    names = list(statement.lines)
    columns = [column.tolist() for column in statement.lines.values()]
    for values in zip(*columns, strict=True):
        row = dict(zip(names, values, strict=True))
        row["what"] = Code(row["code"]).name.lower()
        yield row
