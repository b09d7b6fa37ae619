"""The books as files, CSV or Parquet, for spreadsheets and other programs: piece by piece, so that size matters not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from settlement.derivation import Columns
from settlement.reader import NS_MAX, Reader

PIECE_ROWS = 500_000
FORMATS = ("csv", "parquet")
# Table -> its column of time, and the order of its rows.
TABLES = {
    "postings": ("ts_ns", "sequence, idx"),
    "trades": ("event_ns", "sequence, trade_id"),
    "orders": ("created_ns", "created_ns, order_id"),
    "closes": ("", "day, book, account, asset"),
    "assets": ("", "asset"),
    "instruments": ("", "instrument"),
    "accounts": ("", "account"),
}
FINAL_TABLES = frozenset({"orders", "closes", "assets", "instruments", "accounts"})


def export_table(
    reader: Reader,
    *,
    table: str,
    path: str,
    form: str = "csv",
    start_ns: int = 0,
    end_ns: int = NS_MAX,
    account: int | None = None,
) -> dict[str, Any]:
    """Write a table of the books to a new file; return how many rows it has and the position they end at.

    The file appears under its name only when it is whole. Raises ValueError, FileExistsError, OSError.
    """
    if table not in TABLES:
        raise ValueError(f"table = {table!r}: must be one of {', '.join(TABLES)}")
    if form not in FORMATS:
        raise ValueError(f"format = {form!r}: must be one of {', '.join(FORMATS)}")
    target = Path(path)
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    draft = target.with_name(f"{target.name}.part")
    position = reader.position
    rows = 0
    try:
        with ExitStack() as stack:
            write: Callable[[Columns], None] | None = None
            for piece in _pieces(reader, table, position, start_ns, end_ns, account):
                write = write or _writer(stack, draft, form, piece)
                write(piece)
                rows += len(next(iter(piece.values())))
        draft.rename(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return {"table": table, "path": str(target), "format": form, "rows": rows, "position": position}


def _pieces(
    reader: Reader, table: str, position: int, start_ns: int, end_ns: int, account: int | None
) -> Iterator[Columns]:
    """Yield the rows in order, at least one piece: an empty file has its columns too."""
    time, order = TABLES[table]
    where = ["1"]
    if table not in FINAL_TABLES:
        where.append(f"sequence < {position}")
    if time:
        where += [f"{time} >= {start_ns}", f"{time} < {end_ns}"]
    if account is not None:
        if table not in ("postings", "orders", "closes", "accounts"):
            raise ValueError(f"table {table} has no account: leave that out")
        where.append(f"account = {account}")
    final = " FINAL" if table in FINAL_TABLES else ""
    if table in FINAL_TABLES or not time:
        yield reader.store.select(f"SELECT * FROM {table}{final} WHERE {' AND '.join(where)} ORDER BY {order}")
        return
    after = 0
    while True:
        # By ranges of the log: a record's rows stay together, and no piece is read twice.
        piece = reader.store.select(
            f"SELECT * FROM {table} WHERE {' AND '.join(where)} AND sequence >= {after} ORDER BY {order} "
            f"LIMIT {PIECE_ROWS}"
        )
        count = len(piece["sequence"])
        if count < PIECE_ROWS:
            yield piece
            return
        last = int(piece["sequence"][-1])
        whole = int(np.searchsorted(piece["sequence"], last))
        if whole == 0:
            # One record alone has more rows than a piece: take them all.
            piece = reader.store.select(
                f"SELECT * FROM {table} WHERE {' AND '.join(where)} AND sequence = {last} ORDER BY {order}"
            )
            yield piece
            after = last + 1
            continue
        yield {name: column[:whole] for name, column in piece.items()}
        after = last


def _writer(stack: ExitStack, path: Path, form: str, first: Columns) -> Callable[[Columns], None]:
    # Late: only an export needs them.
    import pyarrow as pa
    from pyarrow import csv, parquet

    schema = to_table(first).schema
    made: Any
    if form == "csv":
        made = stack.enter_context(csv.CSVWriter(str(path), schema))
    else:
        made = stack.enter_context(parquet.ParquetWriter(str(path), schema, compression="zstd"))

    def write(piece: Columns) -> None:
        table: pa.Table = to_table(piece)
        made.write_table(table)

    return write


def to_table(columns: Columns) -> Any:
    """Return an Arrow table; texts of fixed length without their zeros."""
    import pyarrow as pa

    return pa.table(
        {name: _texts(column) if column.dtype.kind in "OS" else pa.array(column) for name, column in columns.items()}
    )


def _texts(column: np.ndarray[Any, Any]) -> Any:
    import pyarrow as pa

    texts = (value.decode() if isinstance(value, bytes) else str(value) for value in column.tolist())
    return pa.array([value.rstrip("\0") for value in texts], pa.string())
