"""`bullring ledger entry|reverse|transfer`: look at an entry, take one back by another, money that takes its time."""

from __future__ import annotations

import argparse
from typing import Any

from ringbuf.wire import messages as wire
from scripts.admin.account import require_account
from scripts.admin.link import AdminLink
from scripts.amounts import from_units, to_units
from scripts.arguments import emit, emit_one
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.ledger.asking import books_of
from scripts.ledger.show import Names, account_text, time_text
from settlement.chart import EXCHANGE_BOOKS, Code
from settlement.service import Row

KINDS = {"deposit": wire.BalanceKind.DEPOSIT, "withdrawal": wire.BalanceKind.WITHDRAWAL}
# What a BalanceAdjust was booked as, and its kind: these entries have a reverse.
_KIND_OF = {
    Code.DEPOSIT: wire.BalanceKind.DEPOSIT,
    Code.DEPOSIT_PENDING: wire.BalanceKind.DEPOSIT,
    Code.DEPOSIT_VOIDED: wire.BalanceKind.DEPOSIT,
    Code.WITHDRAWAL: wire.BalanceKind.WITHDRAWAL,
    Code.WITHDRAWAL_PENDING: wire.BalanceKind.WITHDRAWAL,
    Code.WITHDRAWAL_VOIDED: wire.BalanceKind.WITHDRAWAL,
    Code.ADJUSTMENT: wire.BalanceKind.ADJUSTMENT,
}


def changing_parsers(actions: Any) -> None:
    entry = actions.add_parser("entry", help="the postings of one record of the log")
    entry.add_argument("record", type=int, help="its sequence")
    entry.set_defaults(handler=show_entry)
    reverse = actions.add_parser("reverse", help="take a deposit, withdrawal or adjustment back by the opposite entry")
    reverse.add_argument("record", type=int, help="the sequence of its record, as a statement shows it")
    reverse.add_argument("--yes", action="store_true", help="really")
    reverse.set_defaults(handler=reverse_entry)
    transfer = actions.add_parser("transfer", help="a deposit or withdrawal that is pending, then posted or voided")
    transfer.add_argument("kind", choices=list(KINDS))
    transfer.add_argument("state", choices=["pending", "posted", "voided"])
    transfer.add_argument("account", type=int, help="account id")
    transfer.add_argument("asset", metavar="SYMBOL")
    transfer.add_argument("--amount", help="of pending and voided; posted takes what is pending")
    transfer.add_argument("--reference", type=int, required=True, metavar="N", help="whose: 1 and above")
    transfer.set_defaults(handler=transfer_money)


def show_entry(config: Config, options: argparse.Namespace) -> int:
    with books_of(config) as books:
        names = Names.load(books)
        rows = [_posting(row, names) for row in books.call("entry", sequence=options.record)]
    emit(rows, as_json=options.json, empty=f"record {options.record} posted nothing")
    return ExitCode.OK


def _posting(row: Row, names: Names) -> Row:
    return {
        "time": time_text(row["ts_ns"]),
        "posting": row["idx"],
        "account": account_text(row["book"], row["account"]),
        "asset": names.asset(row["asset"]),
        "what": Code(row["code"]).name.lower(),
        "available": names.amount(row["available"], row["asset"]),
        "held": names.amount(row["held"], row["asset"]),
        "fee": names.amount(row["fee"], row["asset"]),
        "pair": names.pair(row["instrument"]),
        "order": row["order_id"] or "-",
        "reference": row["reference"] or "-",
    }


def reverse_entry(config: Config, options: argparse.Namespace) -> int:
    """Send the opposite of a BalanceAdjust; both entries stay in the books."""
    with books_of(config) as books:
        rows = [row for row in books.call("entry", sequence=options.record) if row["book"] in EXCHANGE_BOOKS]
        names = Names.load(books)
    if len(rows) != 1 or rows[0]["code"] not in _KIND_OF:
        raise CommandError(
            f"record {options.record} is no deposit, withdrawal or adjustment: only those can be reversed",
            ExitCode.BAD_INPUT,
        )
    row = rows[0]
    what = f"{names.amount(-row['available'], row['asset'])} {names.asset(row['asset'])} of account {row['account']}"
    if not options.yes:
        raise CommandError(f"this books {what} against record {options.record}: say --yes", ExitCode.USAGE)
    message = wire.BalanceAdjust(
        amount=-row["available"],
        account_id=row["account"],
        asset_id=row["asset"],
        reference=row["reference"],
        kind=_KIND_OF[Code(row["code"])],
    )
    with AdminLink.open(config) as link:
        link.command(message, f"the reverse of record {options.record}")
    emit_one({"reversed": options.record, "booked": what}, as_json=options.json)
    return ExitCode.OK


def transfer_money(config: Config, options: argparse.Namespace) -> int:
    if options.reference <= 0:
        raise CommandError(f"--reference {options.reference}: must be 1 or above", ExitCode.USAGE)
    if (options.amount is None) != (options.state == "posted"):
        raise CommandError("--amount: pending and voided need it, posted takes what is pending", ExitCode.USAGE)
    with AdminLink.open(config) as link:
        require_account(link, options.account)
        asset = link.asset(options.asset)
        units = 0 if options.amount is None else to_units(options.amount, asset.exponent, "--amount")
        if options.amount is not None and units <= 0:
            raise CommandError(f"--amount {options.amount}: must be above 0", ExitCode.BAD_INPUT)
        comes_in = (options.kind == "deposit") == (options.state == "pending")
        message = wire.BalanceAdjust(
            amount=units if comes_in else -units,
            account_id=options.account,
            asset_id=asset.asset_id,
            reference=options.reference,
            kind=KINDS[options.kind],
        )
        link.command(message, f"{options.kind} {options.reference}, {options.state},")
    told = {"kind": options.kind, "state": options.state, "reference": options.reference, "account": options.account}
    if units:
        told |= {"amount": from_units(units, asset.exponent), "asset": asset.symbol}
    emit_one(told, as_json=options.json)
    return ExitCode.OK
