"""Private history on disk: orders, fills, lists, prevented matches, public trades, events, reference data.

One process writes (HistoryStore), workers read (StoreReader). It is derived from log and reports: whoever loses it
makes it again, so a commit need not wait for the disk. Bounded: old events, ended orders that never traded, and old
public trades go (`prune`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.web.orders import COLUMNS, OrderState
from gateway.web.private_events import ListState

SCHEMA_VERSION = 2
CHECKPOINT_PAGES = 8192  # of 4 KiB: a page that changes often is copied and synced once for all of them
PRUNE_ROWS = 5000  # at a time, so that no commit is long
_ORDER_COLUMNS = ", ".join(COLUMNS)
_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE reference (kind TEXT, id TEXT, body TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE orders ({_ORDER_COLUMNS}, PRIMARY KEY (instrument, order_id)) WITHOUT ROWID;
CREATE INDEX orders_account ON orders (account, instrument, order_id);
CREATE INDEX orders_created ON orders (account, created_ns);
CREATE INDEX orders_client ON orders (account, client_id);
CREATE INDEX orders_open ON orders (account) WHERE open = 1;
CREATE INDEX orders_list ON orders (list_id) WHERE list_id >= 0;
CREATE INDEX orders_ended ON orders (updated_ns) WHERE open = 0 AND cum_qty = 0;
CREATE INDEX orders_key ON orders (account, idempotency_key) WHERE idempotency_key != 0;
CREATE TABLE fills (
    account, instrument, trade_id, order_id, list_id, price, qty, quote, fee, fee_asset, side, maker, ts_ns,
    PRIMARY KEY (account, instrument, trade_id, order_id)) WITHOUT ROWID;
CREATE INDEX fills_time ON fills (account, ts_ns);
CREATE INDEX fills_order ON fills (instrument, order_id);
CREATE TABLE trades (
    instrument, trade_id, agg_id, price, qty, quote, ts_ns, buyer_is_maker, taker_order,
    PRIMARY KEY (instrument, trade_id)) WITHOUT ROWID;
CREATE INDEX trades_time ON trades (instrument, ts_ns);
CREATE INDEX trades_agg ON trades (instrument, agg_id);
CREATE TABLE lists (
    list_id INTEGER PRIMARY KEY, account, instrument, list_type, client_id, cl_ord_id, status_type, order_status,
    created_ns, updated_ns, legs TEXT);
CREATE INDEX lists_account ON lists (account, list_id);
CREATE TABLE prevented (
    instrument, match_id, account, order_id, counter_order_id, price, qty, stp_mode, ts_ns,
    PRIMARY KEY (account, instrument, match_id, order_id)) WITHOUT ROWID;
CREATE TABLE amendments (
    instrument, order_id, execution_id, account, orig_client_id, new_client_id, orig_qty, new_qty, ts_ns,
    PRIMARY KEY (instrument, order_id, execution_id)) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, account, partition, seq, ts_ns, body TEXT NOT NULL);
CREATE INDEX events_account ON events (account, partition, seq);
CREATE TABLE counters (account, partition, seq, PRIMARY KEY (account, partition)) WITHOUT ROWID;
CREATE TABLE texts (account, number, text, PRIMARY KEY (account, number)) WITHOUT ROWID;
"""


@dataclass(slots=True)
class Fill:
    """One side of a trade. `quote` and `fee` are units of their assets."""

    account: int
    instrument: int
    trade_id: int
    order_id: int
    list_id: int
    price: int
    qty: int
    quote: int
    fee: int
    fee_asset: int
    side: int
    maker: int
    ts_ns: int


@dataclass(slots=True)
class Trade:
    instrument: int
    trade_id: int
    agg_id: int
    price: int
    qty: int
    quote: int
    ts_ns: int
    buyer_is_maker: int
    taker_order: int


@dataclass(slots=True)
class Event:
    """`id` is the order in which history made it; (partition, seq) is what the account sees."""

    id: int
    account: int
    partition: int
    seq: int
    ts_ns: int
    body: str


class HistoryStore:
    """The writing side; everything between two commits becomes visible at once."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA cache_size = -16384")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    @classmethod
    def open(cls, path: Path, *, cluster: int, log_end: int) -> HistoryStore:
        """Open the store of this log, a fresh one if there is none or it is of another log or ahead of this one."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = cls(path)
        if store._fits(cluster, log_end):
            return store
        store.close()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        store = cls(path)
        store._db.executescript(_SCHEMA)
        store.put_meta({"schema": SCHEMA_VERSION, "cluster": cluster, "log": 0})
        return store

    def _fits(self, cluster: int, log_end: int) -> bool:
        try:
            meta = self.meta()
        except sqlite3.DatabaseError:
            return False
        known = (meta.get("schema"), meta.get("cluster")) == (SCHEMA_VERSION, cluster)
        return known and int(meta.get("log", 0)) <= log_end

    def meta(self) -> dict[str, Any]:
        return {name: orjson.loads(value) for name, value in self._db.execute("SELECT name, value FROM meta")}

    def put_meta(self, values: Mapping[str, Any]) -> None:
        rows = [(name, orjson.dumps(value).decode()) for name, value in values.items()]
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    # --- what the history builder writes ----------------------------------------------------------------------------

    def put_reference(self, rows: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
        texts = [(kind, name, orjson.dumps(body).decode()) for kind, name, body in rows]
        self._db.executemany("INSERT OR REPLACE INTO reference VALUES (?, ?, ?)", texts)

    def drop_reference(self, kind: str, name: str) -> None:
        self._db.execute("DELETE FROM reference WHERE kind = ? AND id = ?", (kind, name))

    def put_orders(self, orders: Iterable[OrderState]) -> None:
        marks = ", ".join("?" * len(COLUMNS))
        # clientTag, clOrdId and the idempotency key use all 64 bits; SQLite's integers are signed.
        rows = [
            tuple(map(_signed, order.row())) if order.client_tag | order.cl_ord_id | order.idempotency_key >= 1 << 63
            else order.row()
            for order in orders
        ]  # fmt: skip
        self._db.executemany(f"INSERT OR REPLACE INTO orders VALUES ({marks})", rows)

    def drop_orders(self, keys: Iterable[tuple[int, int]]) -> None:
        self._db.executemany("DELETE FROM orders WHERE instrument = ? AND order_id = ?", keys)

    def put_rows(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert whole rows of any other table; a row that is there already is replaced."""
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)

    def put_lists(self, lists: Iterable[ListState]) -> None:
        self.put_rows(
            "lists",
            [
                (
                    entry.list_id, entry.account, entry.instrument, entry.list_type, entry.client_id,
                    _signed(entry.cl_ord_id), entry.status_type, entry.order_status, entry.created_ns, entry.updated_ns,
                    orjson.dumps(entry.legs).decode(),
                )
                for entry in lists
            ],
        )  # fmt: skip

    # --- what it reads when it starts -------------------------------------------------------------------------------

    def open_orders(self) -> list[OrderState]:
        return [_order(row) for row in self._db.execute(f"SELECT {_ORDER_COLUMNS} FROM orders WHERE open = 1")]

    def order(self, instrument: int, order_id: int) -> OrderState | None:
        query = f"SELECT {_ORDER_COLUMNS} FROM orders WHERE instrument = ? AND order_id = ?"
        row = self._db.execute(query, (instrument, order_id)).fetchone()
        return None if row is None else _order(row)

    def order_list(self, list_id: int) -> ListState | None:
        row = self._db.execute("SELECT * FROM lists WHERE list_id = ?", (list_id,)).fetchone()
        return None if row is None else _list(row)

    def counters(self) -> dict[tuple[int, int], int]:
        rows = self._db.execute("SELECT account, partition, seq FROM counters")
        return {(account, partition): seq for account, partition, seq in rows}

    def texts(self) -> dict[tuple[int, int], str]:
        return {(account, _unsigned(number)): text for account, number, text in self._db.execute("SELECT * FROM texts")}

    def last_event(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])

    def last_trade(self, instrument: int) -> Trade | None:
        query = "SELECT * FROM trades WHERE instrument = ? ORDER BY trade_id DESC LIMIT 1"
        row = self._db.execute(query, (instrument,)).fetchone()
        return None if row is None else Trade(*row)

    def reference_rows(self) -> list[tuple[str, dict[str, Any]]]:
        rows = self._db.execute("SELECT kind, body FROM reference")
        return [(kind, orjson.loads(body)) for kind, body in rows]

    # --- bounds -----------------------------------------------------------------------------------------------------

    def prune(
        self, *, events_max: int, ended_before_ns: int, trades_before_ns: int, instruments: Iterable[int]
    ) -> None:
        """Drop the oldest of what is only kept for a while, a bounded number of rows at a time."""
        self._db.execute(
            "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id <= ? ORDER BY id LIMIT ?)",
            (self.last_event() - events_max, PRUNE_ROWS),
        )
        self._db.execute(
            "DELETE FROM orders WHERE (instrument, order_id) IN (SELECT instrument, order_id FROM orders"
            " WHERE open = 0 AND cum_qty = 0 AND updated_ns < ? LIMIT ?)",
            (ended_before_ns, PRUNE_ROWS),
        )
        for instrument in instruments:
            self._db.execute(
                "DELETE FROM trades WHERE instrument = ? AND trade_id IN (SELECT trade_id FROM trades"
                " WHERE instrument = ? AND ts_ns < ? LIMIT ?)",
                (instrument, instrument, trades_before_ns, PRUNE_ROWS),
            )


@dataclass(frozen=True, slots=True)
class Page:
    """The first or the newest `limit` rows in order of a column that has an index for it."""

    by: str
    limit: int
    newest: bool


class StoreReader:
    """A worker's view: never waits for the writer. Any thread may use it, one at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA cache_size = -8192")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read meanwhile is as of one commit."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def reference_rows(self) -> list[tuple[str, dict[str, Any]]]:
        rows = self._db.execute("SELECT kind, body FROM reference")
        return [(kind, orjson.loads(body)) for kind, body in rows]

    def orders(self, where: str, values: Sequence[Any], *, page: Page | None = None) -> list[OrderState]:
        """Return orders, oldest first; `page` says which ones a limit keeps."""
        query = f"SELECT {_ORDER_COLUMNS} FROM orders WHERE {where}"
        if page is not None:
            direction = "DESC" if page.newest else "ASC"
            query += f" ORDER BY {page.by} {direction}, order_id {direction} LIMIT {page.limit:d}"
        found = [_order(row) for row in self._db.execute(query, [_signed(value) for value in values])]
        found.sort(key=lambda order: (order.created_ns, order.order_id))
        return found

    def order(self, instrument: int, order_id: int) -> OrderState | None:
        found = self.orders("instrument = ? AND order_id = ?", (instrument, order_id))
        return found[0] if found else None

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._db.execute(query, [_signed(value) for value in values]).fetchall()

    def lists(self, where: str, values: Sequence[Any], limit: int = 1000) -> list[ListState]:
        query = f"SELECT * FROM lists WHERE {where} ORDER BY list_id LIMIT {limit:d}"
        return [_list(row) for row in self._db.execute(query, [_signed(value) for value in values])]

    def events_since(self, event_id: int, limit: int = 10_000) -> list[Event]:
        query = "SELECT id, account, partition, seq, ts_ns, body FROM events WHERE id > ? ORDER BY id LIMIT ?"
        return [Event(*row) for row in self._db.execute(query, (event_id, limit))]

    def events_of(self, account: int, partition: int, after_seq: int, limit: int) -> list[Event]:
        query = (
            "SELECT id, account, partition, seq, ts_ns, body FROM events"
            " WHERE account = ? AND partition = ? AND seq > ? ORDER BY seq LIMIT ?"
        )
        return [Event(*row) for row in self._db.execute(query, (account, partition, after_seq, limit))]

    def last_event(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])

    def vector(self, account: int, up_to: int | None = None) -> dict[int, int]:
        """Return the newest sequence of each partition that has told this account something, or had at an event."""
        vector: dict[int, int] = dict(
            self._db.execute("SELECT partition, seq FROM counters WHERE account = ?", (account,)).fetchall()
        )
        if up_to is not None:  # the sign keeps the index of accounts out of it: what is newer is little
            later = self._db.execute(
                "SELECT partition, min(seq) FROM events WHERE id > ? AND +account = ? GROUP BY partition",
                (up_to, account),
            )
            for partition, seq in later:
                vector[partition] = seq - 1
        return {partition: seq for partition, seq in vector.items() if seq > 0}


def _signed(value: Any) -> Any:
    return value - (1 << 64) if isinstance(value, int) and value >= 1 << 63 else value


def _unsigned(value: int) -> int:
    return value + (1 << 64) if value < 0 else value


_TAG, _CL_ORD_ID, _KEY = (COLUMNS.index(name) for name in ("client_tag", "cl_ord_id", "idempotency_key"))


def _order(row: Sequence[Any]) -> OrderState:
    order = OrderState(*row)
    order.client_tag = _unsigned(row[_TAG])
    order.cl_ord_id = _unsigned(row[_CL_ORD_ID])
    order.idempotency_key = _unsigned(row[_KEY])
    return order


def _list(row: Sequence[Any]) -> ListState:
    entry = ListState(*[*row[:10], orjson.loads(row[10])])
    entry.cl_ord_id = _unsigned(entry.cl_ord_id)
    return entry
