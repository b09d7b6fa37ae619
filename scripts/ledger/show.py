"""Whole units and nanoseconds as people read them, and back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from scripts.amounts import from_units
from scripts.exit_codes import CommandError, ExitCode
from scripts.ledger.asking import Books
from settlement.chart import Book, account_name
from settlement.service import Row

NS = 1_000_000_000
US = 1_000
DAY_NS = 86_400 * NS


@dataclass(frozen=True)
class Names:
    """Assets and pairs by number, and amounts in their decimals."""

    assets: Mapping[int, Row]
    instruments: Mapping[int, Row]

    @classmethod
    def load(cls, books: Books) -> Names:
        return cls(
            {row["asset"]: row for row in books.call("assets")},
            {row["instrument"]: row for row in books.call("instruments")},
        )

    def asset(self, number: int) -> str:
        return str(self.assets[number]["symbol"]) if number in self.assets else str(number)

    def pair(self, number: int) -> str:
        if number == 0:
            return "-"
        return str(self.instruments[number]["symbol"]) if number in self.instruments else str(number)

    def amount(self, units: int, asset: int) -> str:
        """Return units of an asset as plain decimal text."""
        return from_units(units, self.assets[asset]["exponent"]) if asset in self.assets else f"{units} units"

    def quantity(self, lots: int, instrument: int) -> str:
        pair = self.instruments[instrument]
        return from_units(lots * pair["lot_size"], pair["qty_exponent"])

    def price(self, ticks: int, instrument: int) -> str:
        pair = self.instruments[instrument]
        return from_units(ticks * pair["tick_size"], pair["price_exponent"])

    def asset_number(self, symbol: str) -> int:
        """Raises CommandError naming what there is."""
        return _number_of(symbol, self.assets, "asset")

    def instrument_number(self, symbol: str) -> int:
        """Raises CommandError naming what there is."""
        return _number_of(symbol, self.instruments, "pair")


def _number_of(symbol: str, rows: Mapping[int, Row], what: str) -> int:
    for number, row in rows.items():
        if row["symbol"] == symbol:
            return number
    known = ", ".join(sorted(row["symbol"] for row in rows.values())) or "none"
    raise CommandError(f"unknown {what} {symbol!r}; there are: {known}", ExitCode.BAD_INPUT)


def account_text(book: int, account: int) -> str:
    return account_name(Book(book), account)


def time_text(ns: int) -> str:
    """Return a moment as UTC with microseconds, as regulators want it."""
    seconds, rest = divmod(ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // US:06d}Z"


def moment(text: str, name: str) -> int:
    """Return nanoseconds since the epoch of a date, a UTC time, or a number of nanoseconds. Raises CommandError."""
    if text.isdigit():
        return int(text)
    head, dot, digits = text.removesuffix("Z").partition(".")
    try:
        when = datetime.fromisoformat(head)
        if dot and not digits.isdigit():
            raise ValueError(digits)
        fraction = int(Fraction(f"0.{digits}") * NS) if dot else 0
    except ValueError:
        raise CommandError(
            f"{name} = {text!r}: must be a date (2026-11-25), a UTC time (2026-11-25T12:30:00.5Z) or nanoseconds",
            ExitCode.USAGE,
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return int(when.timestamp()) * NS + fraction


def day_text(day: int) -> str:
    return f"{datetime.fromtimestamp(day * DAY_NS // NS, UTC):%Y-%m-%d}"


def add_period(parser: argparse.ArgumentParser) -> None:
    """Add --from and --to, which `period` reads."""
    parser.add_argument("--from", dest="start", metavar="TIME", help="date, UTC time or nanoseconds")
    parser.add_argument("--to", dest="end", metavar="TIME", help="likewise; before this moment")


def period(options: Any) -> dict[str, int]:
    """Return start_ns and end_ns of --from and --to where given."""
    found = {}
    if options.start is not None:
        found["start_ns"] = moment(options.start, "--from")
    if options.end is not None:
        found["end_ns"] = moment(options.end, "--to")
    if len(found) == 2 and found["start_ns"] > found["end_ns"]:
        raise CommandError("--from is after --to", ExitCode.USAGE)
    return found
