"""Read a recorded set: the orders as members sent them, the trades the venue made of them, the book in between.

Files of a set's folder: commands.csv.gz (ts_ns, cmd, order_id, side, price, qty, tif, display, shown, tag),
trades.csv.gz (ts_ns, maker, taker, price, qty), checkpoints.csv.gz (after_cmd, ts_ns, bid, bid_qty, ask, ask_qty,
n_bids, n_asks, open_bid_qty, open_ask_qty), meta.json. The CSV files have a header line and hold integers.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.exit_codes import CommandError, ExitCode

SUPPORTED_TIF = {"GTC", "IOC", "PO", "MKT"}


@dataclass(frozen=True, slots=True)
class Command:
    """One line of commands.csv.gz; price in ticks, quantity in lots."""

    index: int
    ts_ns: int
    kind: str  # new, cancel, amend, uncross
    order: int
    side: str  # B, S
    price: int
    quantity: int
    tif: str
    display: int  # visible quantity of an iceberg, 0 = none
    shown: int  # of its first slice
    tag: str


# Owners of orders.
RESTING, TAKING, FIRST_GROUP = 0, 1, 2

# (ts_ns, maker, taker, price, quantity)
Trade = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class BookState:
    """What a checkpoint says of the book; an empty side has price and quantity 0."""

    bid: int
    bid_qty: int
    ask: int
    ask_qty: int
    n_bids: int
    n_asks: int
    open_bid_qty: int
    open_ask_qty: int

    def with_order(self, side: str, price: int, quantity: int) -> BookState:
        """Return the book with one order more."""
        if side == "B":
            best = max(price, self.bid) if self.n_bids else price
            visible = (self.bid_qty if best == self.bid else 0) + (quantity if price == best else 0)
            return replace(
                self, bid=best, bid_qty=visible, n_bids=self.n_bids + 1, open_bid_qty=self.open_bid_qty + quantity
            )
        best = min(price, self.ask) if self.n_asks else price
        visible = (self.ask_qty if best == self.ask else 0) + (quantity if price == best else 0)
        return replace(
            self, ask=best, ask_qty=visible, n_asks=self.n_asks + 1, open_ask_qty=self.open_ask_qty + quantity
        )


@dataclass(frozen=True, slots=True)
class Auction:
    """What the venue's uncrossing made: one price, its volume, and what each order of the book got."""

    price: int
    quantity: int
    fills: dict[int, int]


@dataclass(frozen=True)
class Recording:
    name: str
    meta: dict[str, Any]
    commands: list[Command]
    trades: list[Trade]
    checkpoints: dict[int, BookState]

    @property
    def takers(self) -> set[int]:
        """Orders that traded as aggressor."""
        return {taker for _, _, taker, _, _ in self.trades}

    @property
    def auction(self) -> Auction | None:
        """The opening auction, None if the set has none."""
        facts = self.meta.get("auction")
        if facts is None:
            return None
        return Auction(facts["price"], facts["qty"], {order: quantity for order, quantity in facts["fills"]})

    @property
    def self_matches(self) -> list[tuple[int, int]]:
        """(taker, maker) where the venue canceled the maker instead of letting one member trade with itself."""
        return [(taker, maker) for taker, maker in self.meta.get("smp_pairs_taker_maker", [])]

    @property
    def has_market_orders(self) -> bool:
        return any(command.tif == "MKT" for command in self.commands)

    @property
    def reference_price(self) -> int:
        """What the exchange takes as price before the first trade."""
        return self.auction.price if self.auction is not None else self.commands[0].price

    @property
    def band_bps(self) -> int:
        """An upper price band that refuses none of the recorded prices."""
        highest = max((command.price for command in self.commands), default=0)
        return 10_000 * (highest // self.reference_price + 1)

    @property
    def protection_price(self) -> int:
        """The price a market buy holds money at before the first trade."""
        return self.reference_price * (10_000 + self.band_bps) // 10_000

    def owners(self) -> dict[int, int]:
        """Return who owns each order: RESTING, TAKING, or an owner for each group that may not trade with itself."""
        takers = self.takers
        owners = {command.order: TAKING if command.order in takers else RESTING for command in self.commands}
        groups: dict[int, int] = {}
        for pair in self.self_matches:
            known = sorted({groups[order] for order in pair if order in groups})
            group = known[0] if known else FIRST_GROUP + len(set(groups.values()))
            groups.update({order: group for order in groups if groups[order] in known} | dict.fromkeys(pair, group))
        return owners | groups


def load(folder: Path) -> Recording:
    """Read a set. Raises CommandError naming file and fault."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        commands = [_command(index, row) for index, row in enumerate(_rows(folder / "commands.csv.gz", 10))]
        trades: list[Trade] = [
            (row[0], row[1], row[2], row[3], row[4])
            for row in (list(map(int, row)) for row in _rows(folder / "trades.csv.gz", 5))
        ]
        checkpoints = {int(row[0]): BookState(*map(int, row[2:])) for row in _rows(folder / "checkpoints.csv.gz", 10)}
    except FileNotFoundError as error:
        raise CommandError(f"{folder} is no recorded set: {error.filename} is missing", ExitCode.NO_INPUT) from error
    except (OSError, ValueError, EOFError) as error:
        raise CommandError(f"{folder}: {error}", ExitCode.BAD_INPUT) from error
    name = str(meta.get("name", folder.name))
    return Recording(name=name, meta=meta, commands=commands, trades=trades, checkpoints=checkpoints)


def _rows(path: Path, columns: int) -> Iterator[list[str]]:
    with gzip.open(path, "rt", newline="") as file:
        reader = csv.reader(file)
        next(reader, None)
        for row in reader:
            if len(row) != columns:
                raise ValueError(f"{path.name} line {reader.line_num}: {len(row)} columns, expected {columns}")
            yield row


def _command(index: int, row: list[str]) -> Command:
    ts, kind, order, side, price, quantity, tif, display, shown, tag = row
    return Command(
        index, int(ts), kind, int(order), side, int(price), int(quantity), tif, int(display), int(shown), tag
    )


def unsupported(recording: Recording) -> list[str]:
    """Return what the set needs and the exchange cannot do yet, empty if it can be replayed."""
    counts: Counter[str] = Counter()
    for command in recording.commands:
        if command.kind == "uncross":
            if recording.auction is None:
                counts["a call auction that meta.json does not describe"] += 1
        elif command.kind == "new":
            if command.tif not in SUPPORTED_TIF:
                counts[f"time in force {command.tif}"] += 1
        elif command.kind not in ("cancel", "amend"):
            counts[f"command {command.kind!r}"] += 1
    return [f"{what}: {count}" for what, count in counts.items()]


def funds_needed(recording: Recording, owners: dict[int, int], window: int) -> dict[int, tuple[int, int]]:
    """Return (base, quote) units each owner needs so that no order can be short of cover.

    An upper bound: what an order holds counts from its submission until `window` commands after its cancel, fills
    never give anything back. One tick x one lot = one quote unit, one lot = one base unit.
    """
    held: dict[int, list[int]] = {owner: [0, 0] for owner in set(owners.values())}
    peak: dict[int, list[int]] = {owner: [0, 0] for owner in held}
    holds: dict[int, tuple[int, int, int]] = {}
    releases: deque[tuple[int, int]] = deque()
    for command in recording.commands:
        while releases and releases[0][0] <= command.index:
            owner, asset, amount = holds.pop(releases.popleft()[1], (0, 0, 0))
            if amount:
                held[owner][asset] -= amount
        if command.kind in ("new", "amend"):
            owner = owners[command.order]
            buy = command.side == "B"
            price = recording.protection_price if command.tif == "MKT" else command.price
            amount = price * command.quantity if buy else command.quantity
            # Amended orders keep their larger hold until the end: simple, and a bound.
            known = holds.get(command.order, (owner, int(buy), 0))[2]
            holds[command.order] = (owner, int(buy), known + amount)
            held[owner][int(buy)] += amount
            peak[owner][int(buy)] = max(peak[owner][int(buy)], held[owner][int(buy)])
        elif command.kind == "cancel":
            releases.append((command.index + window, command.order))
    return {owner: (base, quote) for owner, (base, quote) in peak.items()}
