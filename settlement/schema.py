"""The tables of the books, as numbered migrations; a store is brought from whatever it has to the newest.

One dialect for a ClickHouse of 18.16 and a new one. Partitions are 30 days of nanoseconds, without a time zone. Rows
are keyed by (epoch, sequence, idx) of the log; what was written twice collapses at a merge. `blocks` says how far the
books go: rows at or beyond its last `end` are no part of them (settlement/ledger.py).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from settlement.errors import StoreRefused
from settlement.store import Store, Version, literal

PARTITION_NS = 2_592_000_000_000_000
# An old server that was killed in a merge stumbles over what is left of it, and does no merge and no mutation of the
# table until that is so old; its own default is a day. A merge that goes on touches its files more often.
TEMPORARY_LIFETIME_S = 20
# Sequences, times and amounts of a block lie in ranges much smaller than their types: cutting the bits that are all the
# same takes less time than LZ4, and less space.
CODEC = "T64"
CODEC_SINCE: Version = (20, 3)
_WHOLE_NUMBER = re.compile(r"\b(U?Int(?:32|64))\b")


@dataclass(frozen=True, slots=True)
class Replication:
    """Tables kept by several servers: ReplicatedMergeTree in `path` of the coordination service, quorum inserts."""

    path: str  # for instance "/clickhouse/bullring"
    replica: str  # this server's name, for instance "{replica}", a macro of its configuration
    quorum: int  # servers that must have a block before an insert returns

    def __post_init__(self) -> None:
        if not self.path.startswith("/"):
            raise ValueError(f"path = {self.path!r}: must begin with /")
        if not self.replica:
            raise ValueError("replica: must not be empty")
        if not 1 <= self.quorum <= 31:
            raise ValueError(f"quorum = {self.quorum}: must be 1..31")


@dataclass(frozen=True, slots=True)
class Table:
    """Columns as SQL, the key, and the column that tells the newest of equal keys ("" = no key comes twice)."""

    name: str
    columns: str
    key: str
    newest: str = ""
    partition: str = ""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    what: str
    tables: tuple[Table, ...] = ()
    statements: tuple[str, ...] = ()

    @property
    def checksum(self) -> int:
        """Of what it does: a changed migration is another schema under the same number."""
        return zlib.crc32(repr((self.tables, self.statements)).encode())


_POSTINGS = Table(
    "postings",
    "epoch UInt32, sequence UInt64, idx UInt32, ts_ns UInt64, event_ns UInt64, book UInt8, account UInt32, "
    "asset UInt32, code UInt8, available Int64, held Int64, fee Int64, instrument UInt32, order_id UInt64, "
    "reference UInt64, price Int64, quantity Int64",
    key="book, account, asset, sequence, idx",
    newest="epoch",
    partition=f"intDiv(ts_ns, {PARTITION_NS})",
)
_TRADES = Table(
    "trades",
    "epoch UInt32, sequence UInt64, event_ns UInt64, trade_id UInt64, instrument UInt32, price Int64, "
    "quantity Int64, amount Int64, buyer UInt32, seller UInt32, buyer_order UInt64, seller_order UInt64, "
    "buyer_fee Int64, seller_fee Int64, buyer_fee_asset UInt32, seller_fee_asset UInt32, maker_side UInt8, "
    "buyer_tier UInt8, seller_tier UInt8, buyer_rounding UInt8, seller_rounding UInt8",
    key="instrument, trade_id",
    newest="epoch",
    partition=f"intDiv(event_ns, {PARTITION_NS})",
)
_ORDERS = Table(
    "orders",
    "epoch UInt32, sequence UInt64, account UInt32, instrument UInt32, order_id UInt64, client_id UInt64, "
    "list_id UInt64, client_text FixedString(36), created_ns UInt64, updated_ns UInt64, price Int64, stop_price Int64, "
    "quantity Int64, display Int64, filled Int64, amount Int64, exec_inst UInt32, expire_s UInt32, reason UInt16, "
    "trailing UInt16, side UInt8, order_type UInt8, time_in_force UInt8, status UInt8, tier UInt8",
    key="account, instrument, order_id",
    newest="sequence",
    partition=f"intDiv(created_ns, {PARTITION_NS})",
)
_BLOCKS = Table(
    "blocks",
    "first UInt64, end UInt64, epoch UInt32, ts_ns UInt64, postings UInt32, trades UInt32, orders UInt32, "
    "last_record UInt64",
    key="end",
)
_ASSETS = Table(
    "assets", "asset UInt32, exponent Int8, symbol FixedString(12), sequence UInt64", key="asset", newest="sequence"
)
_INSTRUMENTS = Table(
    "instruments",
    "instrument UInt32, base_asset UInt32, quote_asset UInt32, base_per_lot Int64, quote_per_tick_lot Int64, "
    "tick_size Int64, lot_size Int64, price_exponent Int8, qty_exponent Int8, partition UInt8, symbol FixedString(24), "
    "sequence UInt64",
    key="instrument",
    newest="sequence",
)
_ACCOUNTS = Table(
    "accounts",
    "account UInt32, firm UInt32, stp_group UInt32, tier UInt8, sequence UInt64",
    key="account",
    newest="sequence",
)
_CLOSES = Table(
    "closes",
    "day UInt32, sequence UInt64, book UInt8, account UInt32, asset UInt32, available Int64, held Int64",
    key="day, book, account, asset",
    newest="sequence",
)
_DAYS = Table("days", "day UInt32, sequence UInt64, accounts UInt32, checksum UInt64", key="day", newest="sequence")
_CONSUMERS = Table("consumers", "claimed_ns UInt64, token UInt64, host String, pid UInt32", key="claimed_ns")
_IDENTITY = Table("identity", "cluster UInt64, insurance_account UInt32, created_ns UInt64", key="cluster")
_RECONCILIATIONS = Table(
    "reconciliations",
    "ts_ns UInt64, kind String, position UInt64, compared UInt64, differences UInt64, first_difference String",
    key="ts_ns",
)

MIGRATIONS = (
    Migration(
        1,
        "books",
        (
            _POSTINGS,
            _TRADES,
            _ORDERS,
            _BLOCKS,
            _ASSETS,
            _INSTRUMENTS,
            _ACCOUNTS,
            _CLOSES,
            _DAYS,
            _CONSUMERS,
            _IDENTITY,
            _RECONCILIATIONS,
        ),
    ),
)
NEWEST = MIGRATIONS[-1].number
# Tables with rows of single records: what a block that was not finished may have left behind, and by which column.
ROW_TABLES = {
    "postings": "sequence",
    "trades": "sequence",
    "orders": "sequence",
    "assets": "sequence",
    "instruments": "sequence",
    "accounts": "sequence",
    "days": "sequence",
    "closes": "sequence",
}
_MIGRATIONS_TABLE = Table(
    "schema_migrations", "number UInt32, what String, checksum UInt32, applied_ns UInt64", key="number"
)


def create_statement(table: Table, replication: Replication | None, version: Version) -> str:
    """Return the CREATE TABLE of a table for an engine of that version."""
    engine = "ReplacingMergeTree" if table.newest else "MergeTree"
    arguments = [table.newest] if table.newest else []
    if replication is not None:
        engine = f"Replicated{engine}"
        arguments = [literal(f"{replication.path}/{table.name}"), literal(replication.replica), *arguments]
    partition = f" PARTITION BY {table.partition}" if table.partition else ""
    columns = _WHOLE_NUMBER.sub(rf"\1 CODEC({CODEC})", table.columns) if version >= CODEC_SINCE else table.columns
    return (
        f"CREATE TABLE IF NOT EXISTS {table.name} ({columns}) ENGINE = {engine}({', '.join(arguments)})"
        f"{partition} ORDER BY ({table.key}) "
        f"SETTINGS index_granularity = 8192, temporary_directories_lifetime = {TEMPORARY_LIFETIME_S}"
    )


def migrate(store: Store, replication: Replication | None, *, now_ns: int) -> int:
    """Bring the store to the newest schema; return how many migrations that took.

    Raises StoreRefused if it is newer than this program, or a migration was applied in another form.
    """
    store.execute(create_statement(_MIGRATIONS_TABLE, replication, store.version))
    rows = store.select("SELECT number, checksum FROM schema_migrations ORDER BY number")
    applied = dict(zip(rows["number"].tolist(), rows["checksum"].tolist(), strict=True))
    known = {migration.number: migration for migration in MIGRATIONS}
    for number, checksum in applied.items():
        if number not in known:
            raise StoreRefused(
                f"{store.place} has schema {number}, this program knows {NEWEST}: use the newer program, or rebuild "
                "the books"
            )
        if known[number].checksum != checksum:
            raise StoreRefused(
                f"{store.place}: schema {number} was made in another form ({checksum}, expected "
                f"{known[number].checksum}): rebuild the books"
            )
    missing = [migration for migration in MIGRATIONS if migration.number not in applied]
    # The list of a cluster is on all its servers, the tables only where they were made.
    for migration in MIGRATIONS if replication is not None else missing:
        for table in migration.tables:
            store.execute(create_statement(table, replication, store.version))
    for migration in missing:
        for statement in migration.statements:
            store.execute(statement)
        store.execute(
            f"INSERT INTO schema_migrations SELECT toUInt32({migration.number}), {literal(migration.what)}, "
            f"toUInt32({migration.checksum}), toUInt64({now_ns})"
        )
    return len(missing)


def drop_tables(store: Store) -> None:
    """Remove the books. They can be made again from the journal."""
    tables = [table for migration in MIGRATIONS for table in migration.tables] + [_MIGRATIONS_TABLE]
    for table in tables:
        store.execute(f"DROP TABLE IF EXISTS {table.name}")
