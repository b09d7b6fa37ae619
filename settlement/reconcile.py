"""Does the store say what the log says, and the exchange too; and if not, where the first difference is.

Three parties, compared at one position of the log, unit for unit: the exchange's accounts (their hash stands in every
HashMark of the log and is compared while records are derived; or the exchange's own core, run again), the books derived
from the log, and the rows in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from engine import EngineConfig, Places, ReplayError, Replica
from ringbuf.wire import messages as wire
from settlement.chart import Book, account_name, books_of, exchange_account
from settlement.definitions import BLOCK_OFFSET, record_fields
from settlement.derivation import SLOT_SIZE, Balances, Block, Columns, Derivation
from settlement.errors import DerivationHalted
from settlement.service import Row
from settlement.source import Source
from settlement.store import Store, one

Key = tuple[int, int, int]  # book, account, asset
Units = tuple[int, int]  # available, held
DIFFERENCES_MAX = 100  # kept of one comparison; the number of all is always told
FLAG_MORE = 1  # slots.h
_COMPARED = (
    "code", "available", "held", "fee", "instrument", "order_id", "reference", "price", "quantity", "ts_ns", "event_ns",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One account in one asset: what it should have and what was found."""

    key: Key
    expected: Units
    found: Units

    def __str__(self) -> str:
        book, account, asset = self.key
        return (
            f"{account_name(Book(book), account)} asset {asset}: available {self.found[0]}, held {self.found[1]}; "
            f"the log says available {self.expected[0]}, held {self.expected[1]}"
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison. `kind` says of whom: "store", "exchange"."""

    kind: str
    position: int
    compared: int  # ledger accounts
    count: int  # of differences
    differences: tuple[Difference, ...]  # at most DIFFERENCES_MAX
    sentence: str  # the first difference, "" if there is none

    @property
    def good(self) -> bool:
        return self.count == 0

    def as_row(self) -> Row:
        """Return it as plain values, as commands show it."""
        return {
            "kind": self.kind,
            "position": self.position,
            "compared": self.compared,
            "differences": self.count,
            "first_difference": self.sentence,
        }


def stored_balances(store: Store, position: int) -> dict[Key, Units]:
    """Return what the rows of the store add up to, below a position."""
    rows = store.select(
        "SELECT book, account, asset, sum(available) AS available_sum, sum(held) AS held_sum FROM postings "
        f"WHERE sequence < {position} GROUP BY book, account, asset"
    )
    keys = zip(rows["book"].tolist(), rows["account"].tolist(), rows["asset"].tolist(), strict=True)
    units = zip(rows["available_sum"].tolist(), rows["held_sum"].tolist(), strict=True)
    return dict(zip(keys, units, strict=True))


def compare_store(store: Store, balances: Balances) -> Result:
    """Compare the store's rows with the books at their position: the sum of every account, and the number of rows."""
    position = balances.position
    result = compare("store", position, balances.as_dict(), stored_balances(store, position))
    if not result.good:
        return result
    known = one(store.select(f"SELECT sum(postings) AS rows FROM blocks WHERE end <= {position}"))["rows"]
    found = one(store.select(f"SELECT count() AS rows FROM postings WHERE sequence < {position}"))["rows"]
    if known == found:
        return result
    sentence = f"the store has {found} postings below record {position}, its blocks were written with {known}"
    return Result("store", position, result.compared, 1, (), sentence)


def compare(kind: str, position: int, expected: dict[Key, Units], found: dict[Key, Units]) -> Result:
    """Compare balances account by account; an account that is on one side only has nothing on the other."""
    nothing = (0, 0)
    keys = sorted(expected.keys() | found.keys())
    differing = [
        Difference(key, expected.get(key, nothing), found.get(key, nothing))
        for key in keys
        if expected.get(key, nothing) != found.get(key, nothing)
    ]
    sentence = str(differing[0]) if differing else ""
    return Result(kind, position, len(keys), len(differing), tuple(differing[:DIFFERENCES_MAX]), sentence)


# --- recount ----------------------------------------------------------------------------------------------------------


def replay(derivation: Derivation, source: Source, end: int) -> Iterator[int]:
    """Derive a source up to record `end`; yields the position after each batch. Rows are the caller's."""
    while derivation.position < end:
        batch = source.read()
        if batch is None:
            return
        first, records = batch
        records = records[: (end - first) * SLOT_SIZE]
        derivation.feed(first, records, source.reports(derivation.wanted(records)))
        yield derivation.position


def recount(derivation: Derivation, source: Source, end: int, *, progress: Callable[[int], None]) -> Derivation:
    """Derive from where `derivation` stands to record `end`, keeping balances only. Raises DerivationHalted."""
    for position in replay(derivation, source, end):
        derivation.drop()
        progress(position)
    return derivation


# --- the first difference between store and log -----------------------------------------------------------------------


def first_wrong_record(store: Store, derivation: Derivation, source: Source, key: Key, end: int) -> str:
    """Name the first posting of an account that the store has otherwise than the log, which is derived anew.

    From where `derivation` stands on: record 0, or where what is left of the log begins.
    """
    book, account, asset = key
    start = derivation.position
    expected = _postings_of(derivation, source, key, end)
    names = ", ".join(("sequence", "idx", *_COMPARED))
    found = store.select(
        f"SELECT {names} FROM postings WHERE book = {book} AND account = {account} AND asset = {asset} "
        f"AND sequence >= {start} AND sequence < {end} ORDER BY sequence, idx"
    )
    count = min(len(expected["sequence"]), len(found["sequence"]))
    differs = np.zeros(count, bool)
    for name in ("sequence", "idx", *_COMPARED):
        differs |= expected[name][:count] != found[name][:count]
    at = int(np.argmax(differs)) if differs.any() else count
    who = f"{account_name(Book(book), account)} asset {asset}"
    if at == len(expected["sequence"]) == len(found["sequence"]):
        since = f" from record {start} on, where the log begins," if start else ""
        return f"{who}: every posting of it{since} is as the log says"
    if at == len(found["sequence"]):
        return f"{who}: {_posting(expected, at)} is missing in the store"
    if at == len(expected["sequence"]):
        return f"{who}: {_posting(found, at)} is too much in the store"
    return f"{who}: the log says {_posting(expected, at)}, the store has {_posting(found, at)}"


def _postings_of(derivation: Derivation, source: Source, key: Key, end: int) -> Columns:
    parts: list[Columns] = []
    for _ in replay(derivation, source, end):
        block: Block = derivation.take()
        rows = block.postings
        mine = (rows["book"] == key[0]) & (rows["account"] == key[1]) & (rows["asset"] == key[2])
        if mine.any():
            parts.append({name: column[mine] for name, column in rows.items()})
    if not parts:
        parts = [Derivation().take().postings]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _posting(columns: Columns, row: int) -> str:
    values = ", ".join(f"{name} {int(columns[name][row])}" for name in ("code", "available", "held"))
    return f"record {int(columns['sequence'][row])} posting {int(columns['idx'][row])} ({values})"


# --- the exchange's own core, run again -------------------------------------------------------------------------------


class SideBySide:
    """Derivation and engine over one log, compared where something was posted."""

    def __init__(self, source: Source, *, insurance_account: int) -> None:
        self._source = source
        self.derivation = Derivation(insurance_account=insurance_account)
        self._engine: Replica | None = None

    def run(self, end: int, progress: Callable[[int], None], *, single_from: int | None = None) -> Result | None:
        """Go on to record `end`; return the first difference found.

        Accounts are compared after each batch, from `single_from` on after each record.
        """
        while self.derivation.position < end:
            batch = self._source.read()
            if batch is None:
                return None
            first, records = batch[0], batch[1][: (end - batch[0]) * SLOT_SIZE]
            self._engine = self._engine or _replica(wire.Genesis.unpack(records, BLOCK_OFFSET))
            single = single_from is not None and first + len(records) // SLOT_SIZE > single_from
            for start, stop in _groups(records) if single else [(0, len(records) // SLOT_SIZE)]:
                found = self._step(self._engine, first + start, records[start * SLOT_SIZE : stop * SLOT_SIZE])
                if found is not None:
                    return found
            progress(self.derivation.position)
        return None

    def compare_all(self) -> Result:
        """Compare every account the ledger knows."""
        assert self._engine is not None
        sequencer = self._engine.sequencer
        keys = self.derivation.balances().as_dict()
        pairs = _exchange_accounts(keys)
        differing = [
            Difference((*books_of(account)[0], asset), sequencer.balance(account, asset), found)
            for account, asset in pairs
            if (found := exchange_balance(self.derivation, account, asset)) != sequencer.balance(account, asset)
        ]
        sentence = str(differing[0]) if differing else ""
        position = self.derivation.position
        kept = tuple(differing[:DIFFERENCES_MAX])
        return Result("exchange", position, len(pairs), len(differing), kept, sentence)

    def close(self) -> None:
        self._source.close()
        if self._engine is not None:
            self._engine.close()

    def _step(self, engine: Replica, first: int, records: bytes) -> Result | None:
        derivation = self.derivation
        try:
            derivation.feed(first, records, self._source.reports(derivation.wanted(records)))
        except DerivationHalted as error:
            return _different(derivation.position, f"the ledger cannot book it: {error}")
        try:
            engine.feed(first, records)
        except ReplayError as error:
            return _different(first, f"record {first}: the exchange's own core, run again, differs: {error}")
        if not derivation.rows:
            return None
        for account, asset in _touched(derivation.take().postings):
            expected, found = engine.sequencer.balance(account, asset), exchange_balance(derivation, account, asset)
            if found != expected:
                return _different(
                    first,
                    f"record {first}: after it account {account} has available {found[0]}, held {found[1]} of asset "
                    f"{asset} in the books, available {expected[0]}, held {expected[1]} in the exchange",
                )
        return None


def _replica(genesis: wire.Genesis) -> Replica:
    made = Replica(EngineConfig.of_genesis(genesis))
    made.open(Places(), {})
    return made


def compare_engine(
    make_source: Callable[[], Source], end: int, *, insurance_account: int, progress: Callable[[int], None]
) -> Result:
    """Run ledger and exchange side by side over the log; compare everything at the end, or name the first difference.

    The first run compares after each batch. If they part, a second one goes record by record through that batch.
    """
    first = SideBySide(make_source(), insurance_account=insurance_account)
    try:
        found = first.run(end, progress)
        if found is None:
            return first.compare_all()
    finally:
        first.close()
    second = SideBySide(make_source(), insurance_account=insurance_account)
    try:
        return second.run(end, lambda _: None, single_from=found.position) or found
    finally:
        second.close()


def exchange_balance(derivation: Derivation, account: int, asset: int) -> Units:
    """Return what the books say the exchange has in an account; of its own accounts several books are one."""
    units = [derivation.balance(book, number, asset) for book, number in books_of(account)]
    return sum(available for available, _ in units), sum(held for _, held in units)


def _different(position: int, sentence: str) -> Result:
    return Result("exchange", position, 0, 1, (), sentence)


def _groups(records: bytes) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of the linked groups."""
    start = 0
    for end in (np.flatnonzero((record_fields(records)["flags"] & FLAG_MORE) == 0) + 1).tolist():
        yield start, end
        start = end


def _touched(rows: Columns) -> list[tuple[int, int]]:
    """Return (account, asset) as the exchange has them of what was posted."""
    return _exchange_accounts(zip(*(rows[name].tolist() for name in ("book", "account", "asset")), strict=True))


def _exchange_accounts(ledger_accounts: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return the exchange's (account, asset) that these (book, account, asset) are parts of, in order."""
    found = {(exchange_account(book, account), asset) for book, account, asset in ledger_accounts}
    return sorted((account, asset) for account, asset in found if account is not None)
