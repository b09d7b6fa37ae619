"""`bullring ledger status|statement|balance|trial-balance|fees|transit|closes|overview|reconcile|export|...`."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.arguments import add_common, command_parser, config_of, emit, emit_one
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.ledger.asking import books_of, command_error
from scripts.ledger.changing import changing_parsers
from scripts.ledger.checking import order_records, reconcile
from scripts.ledger.histories import history_parsers
from scripts.ledger.show import DAY_NS, Names, account_text, add_period, day_text, moment, period, time_text
from scripts.ledger.store import file_source, make_images, make_replication, make_store
from scripts.supervisor import DataLock
from settlement.chart import Book
from settlement.errors import SettlementError
from settlement.export import FORMATS, TABLES
from settlement.schema import NEWEST, drop_tables, migrate
from settlement.service import Row

Action = Callable[[Config, argparse.Namespace], int]


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("ledger", "The double-entry books derived from the log.")
    actions = parser.add_subparsers(dest="action", required=True)
    for make in (_reading_parsers, history_parsers, _checking_parsers, changing_parsers):
        make(actions)
    for action in actions.choices.values():
        add_common(action, nested=True)
    options = parser.parse_args(arguments)
    handler: Action = options.handler
    return handler(config_of(options), options)


def _reading_parsers(actions: Any) -> None:
    status = actions.add_parser("status", help="how far the books are, and how they compare")
    status.set_defaults(handler=show_status)
    statement = actions.add_parser("statement", help="an account's postings with opening, running and closing balance")
    statement.add_argument("account", type=int, help="account id; 0 for books without accounts")
    statement.add_argument("--asset", metavar="SYMBOL", help="one asset; all by default")
    statement.add_argument("--book", default="client", choices=[book.name.lower() for book in Book])
    add_period(statement)
    statement.set_defaults(handler=show_statement)
    balance = actions.add_parser("balance", help="balances, now or at any time")
    balance.add_argument("account", type=int, nargs="?", help="account id; all accounts by default")
    balance.add_argument("--at", metavar="TIME", help="before this moment")
    balance.set_defaults(handler=show_balance)
    trial = actions.add_parser("trial-balance", help="the sum of each book; every asset sums to zero")
    trial.add_argument("--at", metavar="TIME", help="before this moment")
    trial.set_defaults(handler=show_trial_balance)
    fees = actions.add_parser("fees", help="fees, rebates and volume")
    fees.add_argument("--by", default="instrument", metavar="WHAT[,WHAT]", help="instrument, account, tier; instrument")
    fees.add_argument("--account", type=int, metavar="N", help="one account")
    add_period(fees)
    fees.set_defaults(handler=show_fees)
    transit = actions.add_parser("transit", help="deposits and withdrawals that are not final")
    transit.set_defaults(handler=show_transit)
    closes = actions.add_parser("closes", help="closed days, or the balances one was closed with")
    closes.add_argument("day", nargs="?", metavar="DATE", help="for instance 2026-11-25")
    closes.set_defaults(handler=show_closes)
    page = actions.add_parser("overview", help="status, trial balance, reconciliations, days, transit, as JSON")
    page.set_defaults(handler=show_overview)


def _checking_parsers(actions: Any) -> None:
    check = actions.add_parser("reconcile", help="compare store, log and exchange; exit 1 if they differ")
    check.add_argument("--recount", action="store_true", help="derive everything from the journal anew")
    check.add_argument("--exchange", action="store_true", help="run the exchange's own core over the journal beside it")
    check.set_defaults(handler=reconcile)
    export = actions.add_parser("export", help="write a table of the books to a file")
    export.add_argument("table", choices=list(TABLES))
    export.add_argument(
        "path", type=Path, metavar="FILE", help="must not exist; the format follows from .csv or .parquet"
    )
    export.add_argument("--account", type=int, metavar="N", help="one account")
    add_period(export)
    export.set_defaults(handler=export_books)
    orders = actions.add_parser("order-records", help="each event of each order, for a regulator, from the journal")
    orders.add_argument("path", type=Path, metavar="FILE", help="must not exist; JSON")
    orders.add_argument("--pair", metavar="SYMBOL", help="one pair; all by default")
    orders.add_argument("--mic", default="XXXX", metavar="CODE", help="the venue's market identifier code (ISO 10383)")
    add_period(orders)
    orders.set_defaults(handler=order_records)
    migrating = actions.add_parser("migrate", help="make the tables of the configured server; for each of a cluster")
    migrating.set_defaults(handler=migrate_store)
    rebuild = actions.add_parser("rebuild", help="forget the store; the next start derives it from the journal again")
    rebuild.add_argument("--yes", action="store_true", help="really")
    rebuild.set_defaults(handler=rebuild_books)


# --- reading ----------------------------------------------------------------------------------------------------------


def show_status(config: Config, options: argparse.Namespace) -> int:
    with books_of(config) as books:
        facts = dict(next(books.call("status")))
    if options.json:
        print(json.dumps(facts))
    else:
        emit_one({name: value for name, value in facts.items() if value not in ("", [], None)}, as_json=False)
    return ExitCode.NEGATIVE if facts.get("differences") else ExitCode.OK


def show_overview(config: Config, options: argparse.Namespace) -> int:
    """JSON with or without --json. Exit 1 if an asset does not sum to zero, or a difference is known."""
    with books_of(config) as books:
        facts = dict(next(books.call("overview")))
    print(json.dumps(facts) if options.json else json.dumps(facts, indent=2))
    return ExitCode.OK if facts["balanced"] and not facts["status"].get("differences") else ExitCode.NEGATIVE


def show_statement(config: Config, options: argparse.Namespace) -> int:
    with books_of(config) as books:
        names = Names.load(books)
        assets, shown = [names.asset_number(options.asset)] if options.asset else sorted(names.assets), 0
        for asset in assets:
            given = {"account": options.account, "asset": asset, "book": options.book, **period(options)}
            answer = books.call("statement", **given)
            head = next(answer)
            if not options.asset and not head["lines"] and not head["opening_available"] and not head["opening_held"]:
                list(answer)
                continue
            _emit_statement(head, [dict(line) for line in answer], names, as_json=options.json)
            shown += 1
        if not shown and not options.json:
            print(f"{options.book} account {options.account}: no balance and no postings in this time")
    return ExitCode.OK


def _emit_statement(head: Row, lines: list[Row], names: Names, *, as_json: bool) -> None:
    asset = head["asset"]
    money = {
        name: names.amount(head[name], asset)
        for name in ("opening_available", "opening_held", "closing_available", "closing_held")
    }
    who = account_text(head["book"], head["account"])
    if as_json:
        print(json.dumps({"account": who, "asset": names.asset(asset), **money, "lines": len(lines)}))
    else:
        print(
            f"\n{who} {names.asset(asset)}: opening balance {money['opening_available']} available, "
            f"{money['opening_held']} held"
        )
    emit([_statement_line(line, names, asset) for line in lines], as_json=as_json, empty="no postings")
    if not as_json:
        print(f"closing balance {money['closing_available']} available, {money['closing_held']} held")


def _statement_line(line: Row, names: Names, asset: int) -> Row:
    found: dict[str, Any] = {
        "time": time_text(line["ts_ns"]),
        "record": line["sequence"],
        "posting": line["idx"],
        "what": line["what"],
        "pair": names.pair(line["instrument"]),
        "order": line["order_id"] or "-",
        "reference": line["reference"] or "-",
    }
    for name in ("available", "held", "fee", "available_after", "held_after"):
        found[name] = names.amount(line[name], asset)
    return found


def show_balance(config: Config, options: argparse.Namespace) -> int:
    given = {} if options.at is None else {"before_ns": moment(options.at, "--at")}
    if options.account is not None:
        given["account"] = options.account
    with books_of(config) as books:
        names = Names.load(books)
        rows = [
            {
                "account": account_text(row["book"], row["account"]),
                "asset": names.asset(row["asset"]),
                "available": names.amount(row["available"], row["asset"]),
                "held": names.amount(row["held"], row["asset"]),
            }
            for row in books.call("balances", **given)
        ]
    emit(rows, as_json=options.json, empty="no balances")
    return ExitCode.OK


def show_trial_balance(config: Config, options: argparse.Namespace) -> int:
    """Exit 1 if an asset does not sum to zero."""
    given = {} if options.at is None else {"before_ns": moment(options.at, "--at")}
    sums: dict[int, int] = {}
    rows: list[Row] = []
    with books_of(config) as books:
        names = Names.load(books)
        for row in books.call("trial_balance", **given):
            asset = row["asset"]
            sums[asset] = sums.get(asset, 0) + row["available"] + row["held"]
            rows.append(
                {
                    "asset": names.asset(asset),
                    "book": Book(row["book"]).name.lower(),
                    "available": names.amount(row["available"], asset),
                    "held": names.amount(row["held"], asset),
                    "accounts": row["accounts"],
                }
            )
    rows += [
        {
            "asset": names.asset(asset),
            "book": "sum",
            "available": names.amount(units, asset),
            "held": "",
            "accounts": "",
        }
        for asset, units in sorted(sums.items())
    ]
    emit(rows, as_json=options.json, empty="the books are empty")
    return ExitCode.NEGATIVE if any(sums.values()) else ExitCode.OK


def show_fees(config: Config, options: argparse.Namespace) -> int:
    by = [part for part in options.by.split(",") if part]
    # By pair in any case: what was traded of several pairs has no one unit, but their quote assets have.
    given: dict[str, Any] = {"by": [*by, "instrument"], **period(options)}
    if options.account is not None:
        given["account"] = options.account
    with books_of(config) as books:
        names = Names.load(books)
        found = list(books.call("fees", **given))
        rows = [_fee_row(row, by, names) for row in (found if "instrument" in by else _folded(found, by, names))]
    emit(rows, as_json=options.json, empty="no trades")
    return ExitCode.OK


def _folded(rows: list[Row], by: list[str], names: Names) -> list[Row]:
    """Return the rows of all pairs added up, turnover by quote asset."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = (*(row[name] for name in by), row["asset"])
        group = groups.setdefault(key, dict(row) | {"fees": 0, "rebates": 0, "rounding": 0, "fills": 0, "turnover": {}})
        for name in ("fees", "rebates", "rounding", "fills"):
            group[name] += row[name]
        quote = names.instruments[row["instrument"]]["quote_asset"]
        group["turnover"][quote] = group["turnover"].get(quote, 0) + row["amount"]
    return [groups[key] for key in sorted(groups)]


def _fee_row(row: Row, by: list[str], names: Names) -> Row:
    found: dict[str, Any] = {}
    if "instrument" in by:
        found["pair"] = names.pair(row["instrument"])
    for name in ("account", "tier"):
        if name in by:
            found[name] = row[name]
    found["asset"] = names.asset(row["asset"])
    found["fees"] = names.amount(row["fees"], row["asset"])
    found["rebates"] = names.amount(row["rebates"], row["asset"])
    found["rounding"] = names.amount(row["rounding"], row["asset"])
    found["fills"] = row["fills"]
    if "instrument" in by:
        pair = names.instruments[row["instrument"]]
        found["volume"] = names.quantity(row["quantity"], row["instrument"])
        found["turnover"] = names.amount(row["amount"], pair["quote_asset"])
    else:
        found["turnover"] = {names.asset(quote): names.amount(units, quote) for quote, units in row["turnover"].items()}
    return found


def show_transit(config: Config, options: argparse.Namespace) -> int:
    with books_of(config) as books:
        names = Names.load(books)
        rows = [
            {
                "book": Book(row["book"]).name.lower(),
                "reference": row["reference"],
                "asset": names.asset(row["asset"]),
                "amount": names.amount(abs(row["units"]), row["asset"]),
                "since": time_text(row["first_ns"]),
            }
            for row in books.call("in_transit")
        ]
    emit(rows, as_json=options.json, empty="nothing in transit")
    return ExitCode.OK


def show_closes(config: Config, options: argparse.Namespace) -> int:
    with books_of(config) as books:
        if options.day is None:
            days = [
                {
                    "day": day_text(row["day"]),
                    "last_record": row["sequence"],
                    "accounts": row["accounts"],
                    "checksum": f"{row['checksum']:016x}",
                }
                for row in books.call("days")
            ]
            emit(days, as_json=options.json, empty="no day is closed yet")
            return ExitCode.OK
        names = Names.load(books)
        day = moment(options.day, "day") // DAY_NS
        rows = [
            {
                "account": account_text(row["book"], row["account"]),
                "asset": names.asset(row["asset"]),
                "available": names.amount(row["available"], row["asset"]),
                "held": names.amount(row["held"], row["asset"]),
            }
            for row in books.call("closes", day=day)
        ]
    emit(rows, as_json=options.json, empty=f"{day_text(day)} is not closed")
    return ExitCode.OK


# --- writing ----------------------------------------------------------------------------------------------------------


def export_books(config: Config, options: argparse.Namespace) -> int:
    form = options.path.suffix.removeprefix(".")
    if form not in FORMATS:
        raise CommandError(f"{options.path}: must end with .csv or .parquet", ExitCode.USAGE)
    given = {"table": options.table, "path": str(options.path.absolute()), "form": form, **period(options)}
    if options.account is not None:
        given["account"] = options.account
    with books_of(config) as books:
        facts = next(books.call("export", **given))
    emit_one(facts, as_json=options.json)
    return ExitCode.OK


def migrate_store(config: Config, options: argparse.Namespace) -> int:
    """The ledger does it by itself on the server it writes to; the others of a cluster need it before that."""
    try:
        store = make_store(config)
        try:
            done = migrate(store, make_replication(config), now_ns=time.time_ns())
            emit_one({"store": store.place, "schema": NEWEST, "migrations": done}, as_json=options.json)
        finally:
            store.close()
    except SettlementError as error:
        raise command_error(error) from error
    return ExitCode.OK


def rebuild_books(config: Config, options: argparse.Namespace) -> int:
    if not options.yes:
        raise CommandError("this removes the store of the books: say --yes", ExitCode.USAGE)
    lock = DataLock(config)
    try:
        file_source(config).close()  # the books are made from record 0 on
        make_images(config).clear()
        if config.ledger.store == "chdb":
            if config.ledger_dir.is_dir():
                shutil.rmtree(config.ledger_dir)
            emit_one({"removed": str(config.ledger_dir)}, as_json=options.json)
        else:
            store = make_store(config)
            drop_tables(store)
            emit_one({"removed": store.place}, as_json=options.json)
            store.close()
    except SettlementError as error:
        raise command_error(error) from error
    finally:
        lock.release()
    return ExitCode.OK
