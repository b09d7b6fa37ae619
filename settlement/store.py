"""A columnar store behind one interface: blocks of columns in, columns out; see chdb_store and clickhouse_store.

The SQL is what a ClickHouse of version 18.16 understands and a new one still does: no window functions, no CTEs, no
codecs; times are whole nanoseconds in UInt64. Values in it are whole numbers or go through `literal`.
"""

from __future__ import annotations

from typing import Protocol

from settlement.derivation import Columns

Version = tuple[int, int]


class Store(Protocol):
    """Where the books are kept. All methods raise StoreUnavailable (try again) or StoreRefused (somebody must act)."""

    @property
    def place(self) -> str:
        """What it is and where, for messages."""

    @property
    def version(self) -> Version:
        """Of the engine, for what not every version has."""

    def execute(self, sql: str) -> None:
        """Run a statement that returns nothing: DDL, mutations."""

    def select(self, sql: str) -> Columns:
        """Run a query; return its columns by name, each an array of one length."""

    def insert(self, table: str, columns: Columns) -> None:
        """Append rows. All or none of those that fall into one partition of the table are there, whatever happens."""

    def hold_merges(self, *, held: bool) -> None:
        """Put off, or take up again, what the store does to its rows of itself; not over a restart. A hint."""

    def close(self) -> None:
        """Let go of it. Idempotent."""


def literal(text: str) -> str:
    """Return `text` as a string literal of the SQL dialect."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def one(columns: Columns) -> dict[str, int]:
    """Return the only row of a query for whole numbers."""
    (length,) = {len(column) for column in columns.values()}
    if length != 1:
        raise ValueError(f"{length} rows where one was expected")
    return {name: int(column[0]) for name, column in columns.items()}
