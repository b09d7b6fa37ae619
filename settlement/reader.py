"""Questions to the books: balances at any time, statements, histories, candles, fees. Plain typed rows in whole units.

Every answer ends at one position of the log (`Reader.position`), so it never holds half of an entry. A moment T stands
for all records stamped before T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from ringbuf.wire import messages as wire
from settlement.chart import Book, Code
from settlement.derivation import Columns
from settlement.ledger import DAY_NS
from settlement.store import Store, literal, one

LIMIT_MAX = 1_000_000
NS_MAX = 2**63 - 1
FILL_CODES = (Code.FILL_MAKER, Code.FILL_TAKER, Code.FILL_AUCTION)
_IN_TRANSIT = (Book.DEPOSITS, Book.WITHDRAWALS)


@dataclass(frozen=True, slots=True)
class Asset:
    asset: int
    symbol: str
    exponent: int  # one unit is 10^exponent


@dataclass(frozen=True, slots=True)
class Instrument:
    instrument: int
    symbol: str
    base_asset: int
    quote_asset: int
    base_per_lot: int
    quote_per_tick_lot: int
    tick_size: int
    lot_size: int
    price_exponent: int
    qty_exponent: int


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """What a ledger account has in one asset."""

    book: int
    account: int
    asset: int
    available: int
    held: int


@dataclass(frozen=True, slots=True)
class Posting:
    """One change of one ledger account."""

    sequence: int
    idx: int
    ts_ns: int
    book: int
    account: int
    asset: int
    code: int
    available: int
    held: int
    fee: int
    instrument: int
    order_id: int
    reference: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One ledger account in one asset over a period. `lines` are columns, in order of the log."""

    book: int
    account: int
    asset: int
    start_ns: int
    end_ns: int
    opening: tuple[int, int]  # available, held
    closing: tuple[int, int]
    lines: Columns  # of postings, and available_after, held_after


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One book in one asset: the sum of its accounts."""

    book: int
    asset: int
    available: int
    held: int
    accounts: int


@dataclass(frozen=True, slots=True)
class AccountTrade:
    """One fill of an account, as `myTrades` shows it."""

    instrument: int
    trade_id: int
    order_id: int
    account: int
    price: int  # ticks
    quantity: int  # lots
    amount: int  # units of the quote asset
    fee: int  # units of fee_asset, negative = rebate
    fee_asset: int
    time_ns: int
    is_buyer: bool
    is_maker: bool
    list_id: int = 0  # of the order, 0 = in no list


@dataclass(frozen=True, slots=True)
class AccountOrder:
    """An order as it stands, or as it ended, as `allOrders` shows it."""

    instrument: int
    order_id: int
    client_id: int
    client_text: str
    list_id: int  # 0 = in no list
    account: int
    side: int
    order_type: int
    time_in_force: int
    exec_inst: int
    status: int
    reason: int
    price: int
    stop_price: int | None
    quantity: int
    display: int | None
    filled: int
    amount: int
    trailing: int
    expire_s: int | None
    tier: int
    created_ns: int
    updated_ns: int


@dataclass(frozen=True, slots=True)
class PublicTrade:
    """One trade of a pair."""

    instrument: int
    trade_id: int
    price: int
    quantity: int
    amount: int
    time_ns: int
    maker_side: int  # wire.Side, 0 in an auction

    @property
    def buyer_is_maker(self) -> bool:
        return self.maker_side == wire.Side.BUY


@dataclass(frozen=True, slots=True)
class Candle:
    """Trades of one interval; an interval without trades has none."""

    open_ns: int
    open: int
    high: int
    low: int
    close: int
    quantity: int
    amount: int
    trades: int
    taker_buy_quantity: int
    taker_buy_amount: int


@dataclass(frozen=True, slots=True)
class FeeRow:
    """Fees and volume of one group (0 = not grouped by that); both sides of a trade count."""

    instrument: int
    account: int
    tier: int
    asset: int  # the fees'
    fees: int
    rebates: int  # above 0: paid out
    rounding: int  # part of `fees` that only rounding made
    fills: int
    quantity: int  # lots of the instrument; sums over several instruments mean nothing
    amount: int


@dataclass(frozen=True, slots=True)
class Transit:
    """Money under one reference that is not final: what is still in transit."""

    book: int
    reference: int
    asset: int
    units: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Day:
    """A closed UTC day."""

    day: int  # since the epoch
    sequence: int  # the day's last record
    accounts: int  # ledger accounts with a balance of their own
    checksum: int  # of the close (settlement/ledger.py)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One comparison of the store with the log."""

    ts_ns: int
    kind: str
    position: int
    compared: int
    differences: int
    first_difference: str


Row = TypeVar("Row")


class Reader:
    """Answers from a store; `position` tells how far the books go now."""

    def __init__(self, store: Store, position: Callable[[], int]) -> None:
        self.store = store
        self._position = position

    @property
    def position(self) -> int:
        return self._position()

    # --- definitions ------------------------------------------------------------------------------------------------

    def assets(self) -> list[Asset]:
        rows = self.store.select("SELECT asset, symbol, exponent FROM assets FINAL ORDER BY asset")
        return [Asset(asset, text(symbol), exponent) for asset, symbol, exponent in _rows(rows, Asset)]

    def instruments(self) -> list[Instrument]:
        names = ", ".join(field.name for field in fields(Instrument))
        rows = self.store.select(f"SELECT {names} FROM instruments FINAL ORDER BY instrument")
        return [Instrument(number, text(symbol), *rest) for number, symbol, *rest in _rows(rows, Instrument)]

    def instrument(self, number: int) -> Instrument:
        """Raises LookupError."""
        for found in self.instruments():
            if found.instrument == number:
                return found
        raise LookupError(f"unknown instrument {number}")

    # --- balances ---------------------------------------------------------------------------------------------------

    def balances(
        self, account: int | None = None, *, book: Book | None = None, before_ns: int = NS_MAX, at: int | None = None
    ) -> list[BalanceRow]:
        """Return what accounts had before a moment, or before record `at`; all accounts, or one, or one book."""
        where = [f"sequence < {self.position if at is None else min(at, self.position)}", f"ts_ns < {before_ns}"]
        if account is not None:
            where += [f"book IN ({Book.CLIENT:d}, {Book.INSURANCE:d})", f"account = {account}"]
        if book is not None:
            where.append(f"book = {book:d}")
        rows = self.store.select(
            "SELECT book, account, asset, sum(available) AS available_sum, sum(held) AS held_sum FROM postings "
            f"WHERE {' AND '.join(where)} GROUP BY book, account, asset ORDER BY book, account, asset"
        )
        return [BalanceRow(*values) for values in zip(*(column.tolist() for column in rows.values()), strict=True)]

    def trial_balance(self, *, before_ns: int = NS_MAX) -> list[TrialRow]:
        """Return the sum of each book in each asset; over all books every asset sums to zero."""
        rows = self.store.select(
            "SELECT book, asset, sum(available) AS available_sum, sum(held) AS held_sum, "
            f"uniqExact(account) AS accounts FROM postings WHERE sequence < {self.position} AND ts_ns < {before_ns} "
            "GROUP BY book, asset ORDER BY asset, book"
        )
        return [TrialRow(*values) for values in zip(*(column.tolist() for column in rows.values()), strict=True)]

    def statement(
        self, account: int, asset: int, *, book: Book = Book.CLIENT, start_ns: int = 0, end_ns: int = NS_MAX
    ) -> Statement:
        """Return opening and closing balance of a period and every posting in it, with the balance after each."""
        where = f"book = {book:d} AND account = {account} AND asset = {asset}"
        opening = self._opening(where, start_ns)
        lines = self.store.select(
            "SELECT sequence, idx, ts_ns, event_ns, code, available, held, fee, instrument, order_id, reference, "
            f"price, quantity FROM postings WHERE {where} AND sequence < {self.position} AND ts_ns >= {start_ns} "
            f"AND ts_ns < {end_ns} "
            "ORDER BY sequence, idx"
        )
        lines["available_after"] = opening[0] + np.cumsum(lines["available"])
        lines["held_after"] = opening[1] + np.cumsum(lines["held"])
        closing = opening
        if len(lines["sequence"]):
            closing = (int(lines["available_after"][-1]), int(lines["held_after"][-1]))
        return Statement(book, account, asset, start_ns, end_ns, opening, closing, lines)

    def _opening(self, where: str, start_ns: int) -> tuple[int, int]:
        """Return available and held of a ledger account before a moment: the last close before it, and what came since.

        The key of postings goes on with the sequence, so what lies before the close is not read.
        """
        closed = one(
            self.store.select(
                f"SELECT max(day) AS newest, max(sequence) AS last, count() AS closed FROM days "
                f"WHERE day < {start_ns // DAY_NS} AND sequence < {self.position}"
            )
        )
        first = 0
        sums = {"a": 0, "h": 0}
        if closed["closed"]:
            first = closed["last"] + 1
            sums = one(
                self.store.select(
                    "SELECT sum(available) AS a, sum(held) AS h FROM closes FINAL "
                    f"WHERE day = {closed['newest']} AND {where}"
                )
            )
        since = one(
            self.store.select(
                f"SELECT sum(available) AS a, sum(held) AS h FROM postings WHERE {where} AND sequence >= {first} "
                f"AND sequence < {self.position} AND ts_ns < {start_ns}"
            )
        )
        return sums["a"] + since["a"], sums["h"] + since["h"]

    def entry(self, sequence: int) -> list[Posting]:
        """Return the postings of one record of the log, in order; they sum to zero in every asset."""
        names = ", ".join(field.name for field in fields(Posting))
        rows = self.store.select(
            f"SELECT {names} FROM postings WHERE sequence = {sequence} AND sequence < {self.position} ORDER BY idx"
        )
        return [Posting(*values) for values in _rows(rows, Posting)]

    def in_transit(self) -> list[Transit]:
        """Return deposits and withdrawals that are neither final nor voided, oldest first."""
        books = ", ".join(f"{book:d}" for book in _IN_TRANSIT)
        rows = self.store.select(
            "SELECT book, reference, asset, sum(available) AS units, min(ts_ns) AS first_ns, max(ts_ns) AS last_ns "
            f"FROM postings WHERE book IN ({books}) AND sequence < {self.position} "
            "GROUP BY book, reference, asset HAVING units != 0 ORDER BY first_ns"
        )
        return [Transit(*values) for values in zip(*(column.tolist() for column in rows.values()), strict=True)]

    # --- histories --------------------------------------------------------------------------------------------------

    def account_trades(
        self,
        account: int,
        *,
        instrument: int | None = None,
        order_id: int | None = None,
        from_trade_id: int | None = None,
        start_ns: int = 0,
        end_ns: int = NS_MAX,
        limit: int = 500,
        newest: bool = False,
    ) -> list[AccountTrade]:
        """Return fills of an account in order of the log: the first `limit` that fit, or the last ones (`newest`)."""
        codes = ", ".join(f"{code:d}" for code in FILL_CODES)
        where = [
            f"book IN ({Book.CLIENT:d}, {Book.INSURANCE:d})",
            f"account = {account}",
            f"code IN ({codes})",
            f"event_ns >= {start_ns}",
            f"event_ns < {end_ns}",
            f"sequence < {self.position}",
        ]
        known = {found.instrument: found for found in self.instruments()}
        if instrument is not None:
            pair = known.get(instrument)
            if pair is None:
                raise LookupError(f"unknown instrument {instrument}")
            where += [f"asset IN ({pair.base_asset}, {pair.quote_asset})", f"instrument = {instrument}"]
        if order_id is not None:
            where.append(f"order_id = {order_id}")
        if from_trade_id is not None:
            where.append(f"reference >= {from_trade_id}")
        direction = " DESC" if newest else ""
        rows = self.store.select(
            "SELECT sequence, idx, event_ns, asset, code, available, held, fee, instrument, order_id, reference, "
            f"price, quantity FROM postings WHERE {' AND '.join(where)} ORDER BY sequence{direction}, idx{direction} "
            f"LIMIT {2 * bounded(limit)}"
        )
        lists = self._lists_of(account, {int(number) for number in rows["order_id"]})
        fills = [
            replace(fill, list_id=lists.get((fill.instrument, fill.order_id), 0))
            for fill in _fills(rows, known, account)
        ]
        return fills[::-1] if newest else fills

    def _lists_of(self, account: int, orders: set[int]) -> dict[tuple[int, int], int]:
        """Return (instrument, order id) -> list of those orders that are in one."""
        if not orders:
            return {}
        rows = self.store.select(
            f"SELECT instrument, order_id, max(list_id) AS list FROM orders WHERE account = {account} AND list_id != 0 "
            f"AND order_id >= {min(orders)} AND order_id <= {max(orders)} GROUP BY instrument, order_id"
        )
        columns = (rows[name].tolist() for name in ("instrument", "order_id", "list"))
        return {(instrument, order_id): number for instrument, order_id, number in zip(*columns, strict=True)}

    def account_orders(
        self,
        account: int,
        *,
        instrument: int | None = None,
        order_id: int | None = None,
        from_order_id: int | None = None,
        client_text: str | None = None,
        start_ns: int = 0,
        end_ns: int = NS_MAX,
        limit: int = 500,
        newest: bool = False,
        refused: bool = False,
    ) -> list[AccountOrder]:
        """Return orders of a pair by id, of all by age: the first `limit` that fit, or the last ones (`newest`).

        Those the matcher refused only if asked for.
        """
        where = [f"account = {account}", f"created_ns >= {start_ns}", f"created_ns < {end_ns}"]
        if instrument is not None:
            where.append(f"instrument = {instrument}")
        if order_id is not None:
            where.append(f"order_id = {order_id}")
        if from_order_id is not None:
            where.append(f"order_id >= {from_order_id}")
        if client_text is not None:
            padded = client_text.encode().ljust(36, b"\0").decode()
            where.append(f"client_text = {literal(padded)}")
        if not refused:
            where.append(f"status != {wire.OrdStatus.REJECTED:d}")
        direction = " DESC" if newest else ""
        age = "" if instrument is not None else f"created_ns{direction}, "
        names = ", ".join(field.name for field in fields(AccountOrder))
        rows = self.store.select(
            f"SELECT {names} FROM orders FINAL WHERE {' AND '.join(where)} "
            f"ORDER BY {age}order_id{direction}, instrument{direction} LIMIT {bounded(limit)}"
        )
        orders = [_order(values) for values in _rows(rows, AccountOrder)]
        return orders[::-1] if newest else orders

    def trades(
        self,
        instrument: int,
        *,
        from_trade_id: int | None = None,
        start_ns: int = 0,
        end_ns: int = NS_MAX,
        limit: int = 500,
    ) -> list[PublicTrade]:
        """Return trades of a pair from an id on; without one, the newest."""
        where = [
            f"instrument = {instrument}",
            f"event_ns >= {start_ns}",
            f"event_ns < {end_ns}",
            f"sequence < {self.position}",
        ]
        if from_trade_id is not None:
            where.append(f"trade_id >= {from_trade_id}")
        direction = " DESC" if from_trade_id is None and start_ns == 0 else ""
        rows = self.store.select(
            "SELECT instrument, trade_id, price, quantity, amount, event_ns, maker_side FROM trades "
            f"WHERE {' AND '.join(where)} ORDER BY trade_id{direction} LIMIT {bounded(limit)}"
        )
        found = [PublicTrade(*values) for values in zip(*(column.tolist() for column in rows.values()), strict=True)]
        return found[::-1] if direction else found

    def candles(
        self,
        instrument: int,
        interval_ns: int,
        *,
        offset_ns: int = 0,
        start_ns: int = 0,
        end_ns: int = NS_MAX,
        limit: int = 500,
        newest: bool = True,
    ) -> list[Candle]:
        """Return the candles of intervals that begin at offset + n x interval; of those that fit the newest `limit`."""
        begin = f"intDiv(event_ns - {offset_ns}, {interval_ns})"
        bought = f"maker_side = {wire.Side.SELL:d}"
        columns = (
            f"{begin} AS k",
            "argMin(price, trade_id) AS open",
            "max(price) AS high",
            "min(price) AS low",
            "argMax(price, trade_id) AS close",
            _wide_sum("lots", "quantity"),
            _wide_sum("units", "amount"),
            "count() AS trades",
            _wide_sum("bought_lots", "quantity", bought),
            _wide_sum("bought_units", "amount", bought),
        )
        rows = self.store.select(
            f"SELECT {', '.join(columns)} FROM trades WHERE instrument = {instrument} "
            f"AND event_ns >= {max(start_ns, offset_ns)} AND event_ns < {end_ns} AND sequence < {self.position} "
            f"GROUP BY k ORDER BY k{' DESC' if newest else ''} LIMIT {bounded(limit)}"
        )
        found = [
            Candle(k * interval_ns + offset_ns, open_, high, low, close, lots, units, trades, bought_lots, bought_units)
            for k, open_, high, low, close, lots, units, trades, bought_lots, bought_units in _wide_rows(rows)
        ]
        return found[::-1] if newest else found

    # --- reports ----------------------------------------------------------------------------------------------------

    def fees(
        self,
        by: Iterable[str] = ("instrument",),
        *,
        start_ns: int = 0,
        end_ns: int = NS_MAX,
        account: int | None = None,
    ) -> list[FeeRow]:
        """Return fees and volume, grouped by any of instrument, account, tier; always by the asset of the fees."""
        groups = tuple(by)
        unknown = set(groups) - {"instrument", "account", "tier"}
        if unknown:
            raise ValueError(f"fees by {', '.join(sorted(unknown))}: must be instrument, account or tier")
        found: dict[tuple[int, ...], list[int]] = {}
        for side in ("buyer", "seller"):
            for values in self._fees_of(side, groups, start_ns, end_ns, account):
                key, sums = tuple(values[:4]), values[4:]
                kept = found.setdefault(key, [0] * len(sums))
                found[key] = [one_sum + other for one_sum, other in zip(kept, sums, strict=True)]
        return [FeeRow(*key, *sums) for key, sums in sorted(found.items())]

    def _fees_of(
        self, side: str, groups: tuple[str, ...], start_ns: int, end_ns: int, account: int | None
    ) -> Iterator[tuple[Any, ...]]:
        columns = {"instrument": "instrument", "account": side, "tier": f"{side}_tier"}
        keys = ", ".join(
            f"{column if name in groups else 'toUInt32(0)'} AS by_{name}" for name, column in columns.items()
        )
        fee = f"{side}_fee"
        sums = (
            _wide_sum("fees", fee, f"{fee} > 0"),
            _wide_sum("rebates", f"-{fee}", f"{fee} < 0"),
            f"sum({side}_rounding) AS rounding",
            "count() AS fills",
            _wide_sum("lots", "quantity"),
            _wide_sum("units", "amount"),
        )
        mine = "" if account is None else f" AND {side} = {account}"
        rows = self.store.select(
            f"SELECT {keys}, {fee}_asset AS asset, {', '.join(sums)} FROM trades WHERE event_ns >= {start_ns} "
            f"AND event_ns < {end_ns} AND sequence < {self.position}{mine} "
            "GROUP BY by_instrument, by_account, by_tier, asset"
        )
        yield from _wide_rows(rows)

    def closes(self, day: int) -> list[BalanceRow]:
        """Return the balances a UTC day was closed with, empty if it was not. Day = days since the epoch."""
        rows = self.store.select(
            "SELECT book, account, asset, available, held FROM closes FINAL "
            f"WHERE day = {day} ORDER BY book, account, asset"
        )
        return [BalanceRow(*values) for values in zip(*(column.tolist() for column in rows.values()), strict=True)]

    def days(self) -> list[Day]:
        """Return every closed day."""
        rows = self.store.select("SELECT day, sequence, accounts, checksum FROM days FINAL ORDER BY day")
        return [Day(*values) for values in zip(*(column.tolist() for column in rows.values()), strict=True)]

    def reconciliations(self, limit: int = 100) -> list[Reconciliation]:
        """Return the newest comparisons of the store with the log, newest first."""
        names = ", ".join(field.name for field in fields(Reconciliation))
        rows = self.store.select(f"SELECT {names} FROM reconciliations ORDER BY ts_ns DESC LIMIT {bounded(limit)}")
        return [
            Reconciliation(ts_ns, text(kind), position, compared, differences, text(first))
            for ts_ns, kind, position, compared, differences, first in _rows(rows, Reconciliation)
        ]


def bounded(limit: int) -> int:
    """Return `limit` if it may be asked for. Raises ValueError."""
    if not 1 <= limit <= LIMIT_MAX:
        raise ValueError(f"limit = {limit}: must be 1..{LIMIT_MAX}")
    return limit


def text(value: Any) -> str:
    """Return a FixedString or String as text, whichever way a store hands it out."""
    return (value.decode() if isinstance(value, bytes) else str(value)).rstrip("\0")


def _wide_sum(name: str, what: str, condition: str = "1") -> str:
    """Return SQL for a sum of amounts not below 0: in two halves of 32 bits, since it may need more than 64 bits."""
    return (
        f"sumIf(intDiv({what}, 4294967296), {condition}) AS high_{name}, "
        f"sumIf({what} % 4294967296, {condition}) AS low_{name}"
    )


def _wide_rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """Yield the rows with the two halves of each wide sum made one whole number."""
    values: list[list[Any]] = []
    for name, column in columns.items():
        if name.startswith("high_"):
            low = columns[name.replace("high_", "low_", 1)].tolist()
            values.append([(high << 32) + rest for high, rest in zip(column.tolist(), low, strict=True)])
        elif not name.startswith("low_"):
            values.append(column.tolist())
    return zip(*values, strict=True)


def _rows(columns: Columns, kind: type[Row]) -> Iterator[tuple[Any, ...]]:
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return zip(*(columns[name].tolist() for name in names), strict=True)


def _order(values: tuple[Any, ...]) -> AccountOrder:
    named = dict(zip((field.name for field in fields(AccountOrder)), values, strict=True))
    absent = {"stop_price": -(2**63), "display": -(2**63), "expire_s": 2**32 - 1}
    for name, nothing in absent.items():
        if named[name] == nothing:
            named[name] = None
    named["client_text"] = text(named["client_text"])
    return AccountOrder(**named)


def _fills(rows: Columns, known: dict[int, Instrument], account: int) -> Iterator[AccountTrade]:
    """Pair the two postings of each fill: one an asset, next to one another."""
    values = list(zip(*(column.tolist() for column in rows.values()), strict=True))
    names = list(rows)
    for first, second in zip(values[::2], values[1::2], strict=False):
        one_side, other = dict(zip(names, first, strict=True)), dict(zip(names, second, strict=True))
        pair = known[one_side["instrument"]]
        base = one_side if one_side["asset"] == pair.base_asset else other
        charged = other if other["fee"] else one_side
        if not charged["fee"]:
            charged = one_side if one_side["held"] == 0 else other  # no fee: it would be in what was received
        yield AccountTrade(
            instrument=pair.instrument,
            trade_id=base["reference"],
            order_id=base["order_id"],
            account=account,
            price=base["price"],
            quantity=base["quantity"],
            amount=base["price"] * base["quantity"] * pair.quote_per_tick_lot,
            fee=charged["fee"],
            fee_asset=charged["asset"],
            time_ns=base["event_ns"],
            is_buyer=base["held"] == 0,
            is_maker=base["code"] == Code.FILL_MAKER,
        )
