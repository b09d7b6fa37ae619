"""`bullring ledger fills|orders|trades|candles`: what was traded, by an account or of a pair, without limits of age."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ringbuf.wire import messages as wire
from scripts.arguments import emit
from scripts.config import Config
from scripts.exit_codes import ExitCode
from scripts.ledger.asking import books_of
from scripts.ledger.show import DAY_NS, NS, Names, add_period, period, time_text
from settlement.service import Row

LIMIT = 500
WEEK_OFFSET_NS = 4 * DAY_NS  # the first Monday: day 0 is a Thursday
INTERVALS_NS = {
    **{f"{n}m": n * 60 * NS for n in (1, 5, 15, 30)},
    **{f"{n}h": n * 3600 * NS for n in (1, 4, 12)},
    "1d": DAY_NS,
    "1w": 7 * DAY_NS,
}


def history_parsers(actions: Any) -> None:
    """Add the commands to `bullring ledger`."""
    for name, handler, what in (
        ("fills", show_fills, "what an account traded"),
        ("orders", show_orders, "an account's orders, open or ended"),
    ):
        parser = actions.add_parser(name, help=what)
        parser.add_argument("account", type=int, help="account id")
        parser.add_argument("--pair", metavar="SYMBOL", help="one pair; all by default")
        _add_bounds(parser, handler)
    trades = actions.add_parser("trades", help="trades of a pair")
    trades.add_argument("pair", metavar="PAIR")
    _add_bounds(trades, show_trades)
    candles = actions.add_parser("candles", help="candles of a pair")
    candles.add_argument("pair", metavar="PAIR")
    candles.add_argument("--interval", default="1h", choices=list(INTERVALS_NS), help="default %(default)s")
    _add_bounds(candles, show_candles)


def _add_bounds(parser: argparse.ArgumentParser, handler: Callable[[Config, argparse.Namespace], int]) -> None:
    parser.add_argument("--limit", type=int, default=LIMIT, help="rows: the first from --from on, else the newest")
    add_period(parser)
    parser.set_defaults(handler=handler)


def _show(
    config: Config, options: argparse.Namespace, call: str, row_of: Callable[[Row, Names], Row], **given: Any
) -> int:
    given |= period(options) | {"limit": options.limit}
    with books_of(config) as books:
        names = Names.load(books)
        if options.pair is not None:
            given["instrument"] = names.instrument_number(options.pair)
        rows = [row_of(row, names) for row in books.call(call, **given)]
    emit(rows, as_json=options.json, empty="nothing")
    return ExitCode.OK


def show_fills(config: Config, options: argparse.Namespace) -> int:
    return _show(config, options, "account_trades", _fill, account=options.account, newest=options.start is None)


def show_orders(config: Config, options: argparse.Namespace) -> int:
    return _show(config, options, "account_orders", _order, account=options.account, newest=options.start is None)


def show_trades(config: Config, options: argparse.Namespace) -> int:
    return _show(config, options, "trades", _trade)


def show_candles(config: Config, options: argparse.Namespace) -> int:
    interval_ns = INTERVALS_NS[options.interval]
    offset_ns = WEEK_OFFSET_NS if options.interval == "1w" else 0
    given = {"interval_ns": interval_ns, "offset_ns": offset_ns, "newest": options.start is None}
    return _show(config, options, "candles", lambda row, names: _candle(row, names, options.pair), **given)


def _fill(row: Row, names: Names) -> Row:
    pair = row["instrument"]
    return {
        "time": time_text(row["time_ns"]),
        "pair": names.pair(pair),
        "trade": row["trade_id"],
        "order": row["order_id"],
        "side": "buy" if row["is_buyer"] else "sell",
        "role": "maker" if row["is_maker"] else "taker",
        "price": names.price(row["price"], pair),
        "quantity": names.quantity(row["quantity"], pair),
        "amount": names.amount(row["amount"], names.instruments[pair]["quote_asset"]),
        "fee": f"{names.amount(row['fee'], row['fee_asset'])} {names.asset(row['fee_asset'])}",
    }


def _order(row: Row, names: Names) -> Row:
    pair = row["instrument"]
    return {
        "time": time_text(row["created_ns"]),
        "pair": names.pair(pair),
        "order": row["order_id"],
        "client_id": row["client_text"] or row["client_id"],
        "side": wire.Side(row["side"]).name.lower(),
        "type": wire.OrdType(row["order_type"]).name.lower(),
        "price": names.price(row["price"], pair),
        "quantity": names.quantity(row["quantity"], pair),
        "filled": names.quantity(row["filled"], pair),
        "status": wire.OrdStatus(row["status"]).name.lower(),
    }


def _trade(row: Row, names: Names) -> Row:
    pair = row["instrument"]
    return {
        "time": time_text(row["time_ns"]),
        "trade": row["trade_id"],
        "price": names.price(row["price"], pair),
        "quantity": names.quantity(row["quantity"], pair),
        "amount": names.amount(row["amount"], names.instruments[pair]["quote_asset"]),
        "maker": wire.Side(row["maker_side"]).name.lower() if row["maker_side"] else "auction",
    }


def _candle(row: Row, names: Names, symbol: str) -> Row:
    pair = names.instrument_number(symbol)
    prices = {name: names.price(row[name], pair) for name in ("open", "high", "low", "close")}
    return {
        "opens": time_text(row["open_ns"]),
        **prices,
        "quantity": names.quantity(row["quantity"], pair),
        "amount": names.amount(row["amount"], names.instruments[pair]["quote_asset"]),
        "trades": row["trades"],
    }
