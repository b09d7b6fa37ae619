"""`bullring client ...`: log on as a person and trade, see orders and balances, watch reports. Decimals in and out."""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from gateway.clients import terms
from gateway.clients.python.client import BullringClient, LogonRefused, QueryRefused, Report, ReportGap, SessionLost
from gateway.clients.python.signing import load_signer
from gateway.clients.terms import (
    BAD_INPUT,
    INTERRUPTED,
    NO_INPUT,
    OK,
    REFUSED,
    UNAVAILABLE,
    USAGE,
    ClientCommandError,
    Market,
    decimal_text,
    units,
)
from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import (
    CancelFlags,
    CancelReason,
    CancelReplaceReject,
    ListStatus,
    ListStatusType,
    ListType,
    MassCancelFlags,
    MassCancelReport,
    MassCancelScope,
    NegotiateRejectCode,
    OrderCanceled,
    OrderExecuted,
    OrderRejected,
    OrdStatus,
    QuoteAck,
    RejectCode,
    Side,
    SideOrBoth,
)

ADDRESS_DEFAULT = "127.0.0.1:9100"
ANSWER_S = 10.0  # longest wait for the answer to a request
QUIET_S = 0.15  # after an answer, fills of the same request are waited for this long


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code (docs/EXIT_CODES.md)."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except ClientCommandError as error:
        return _complain(str(error), error.exit_code, as_json=options.json)
    except LogonRefused as error:
        return _complain(f"logon refused: {error}{_why(error)}", REFUSED, as_json=options.json)
    except QueryRefused as error:
        return _complain(f"query refused: {error}", REFUSED, as_json=options.json)
    except (SessionLost, OSError, TimeoutError) as error:
        why = str(error).removeprefix(f"{options.address}: ")
        return _complain(f"no exchange answers at {options.address}: {why}", UNAVAILABLE, as_json=options.json)
    except KeyboardInterrupt:
        return INTERRUPTED


def _why(error: LogonRefused) -> str:
    if error.code is not NegotiateRejectCode.CREDENTIALS:
        return ""
    return ": no such session, a key that is revoked or of another account, or a wrong signature; it does not say which"


def _complain(text: str, exit_code: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": False, "error": text, "exit_code": exit_code}))
    print(f"bullring client: {text}", file=sys.stderr)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bullring client",
        description="Trade as a person. One session serves one connection: a second one with the same session "
        "takes it over from the first.",
    )
    parser.add_argument("--address", default=ADDRESS_DEFAULT, metavar="HOST:PORT", help=f"default {ADDRESS_DEFAULT}")
    parser.add_argument("--session", type=int, required=True, metavar="N")
    parser.add_argument(
        "--key-file", type=Path, required=True, metavar="FILE", help="PEM, or hex digits of an HMAC secret"
    )
    parser.add_argument("--key-id", metavar="ID", help="default: the key file's name without its ending")
    parser.add_argument("--tls", type=Path, metavar="CA-FILE", help="speak TLS 1.3; trust these certificates (PEM)")
    parser.add_argument("--json", action="store_true", help="answer in JSON, one object a line")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    place = actions.add_parser("place", help="place an order: place BTC-USDT buy 0.5 64000")
    place.add_argument("symbol")
    terms.add_order_arguments(place)
    _add_changes(actions)
    _add_groups(actions)
    everything = actions.add_parser("cancel-all", help="cancel all orders of the account")
    everything.add_argument("symbol", nargs="?")
    everything.add_argument("--side", choices=["both", "buy", "sell"], default="both")
    everything.add_argument("--scope", choices=["session", "account"], default="account")
    lock = everything.add_mutually_exclusive_group()
    lock.add_argument("--lock", action="store_true", help="and refuse new orders of the account until --unlock")
    lock.add_argument("--unlock", action="store_true", help="cancel nothing, take new orders again")
    orders = actions.add_parser("orders", help="show open orders")
    orders.add_argument("symbol", nargs="?")
    actions.add_parser("balances", help="show what the account has")
    watch = actions.add_parser("watch", help="print reports as they come")
    watch.add_argument("--seconds", type=float, metavar="S", help="end after this time")
    return parser


def _add_changes(actions: Any) -> None:
    for name, text in (
        ("cancel", "cancel an order"),
        ("replace", "give an order a new price, total quantity or display quantity"),
        ("amend", "reduce an order's total quantity; it keeps its place"),
        ("status", "ask for the state of an open order"),
    ):
        change = actions.add_parser(name, help=text)
        change.add_argument("symbol")
        _add_which(change)
        if name == "cancel":
            change.add_argument("--only", choices=["new", "partially-filled"], help="only in this state")
        elif name == "replace":
            change.add_argument("--price")
            change.add_argument("--quantity", help="total quantity, what is filled included")
            change.add_argument("--display", metavar="QTY", help="visible quantity of an iceberg")
        elif name == "amend":
            change.add_argument("--quantity", required=True, help="total quantity, what is filled included")


def _add_which(change: argparse.ArgumentParser) -> None:
    which = change.add_mutually_exclusive_group(required=True)
    which.add_argument("--order-id", type=int, metavar="N")
    which.add_argument("--client-id", type=int, metavar="N")


def _add_groups(actions: Any) -> None:
    again = actions.add_parser(
        "cancel-replace",
        help="cancel an order and place a new one as one command",
        epilog=f'ORDER is quoted: "buy 0.5 64000 --post-only". {terms.ORDER_HELP}',
    )
    again.add_argument("symbol")
    again.add_argument("order", metavar="ORDER")
    _add_which(again)
    again.add_argument("--continue-on-failure", action="store_true", help="place it although the cancel failed")
    orders = actions.add_parser(
        "list",
        help='order list: list oco BTC-USDT "sell 1 66000 --post-only" "sell 1 --type stop --stop-price 60000"',
        epilog=f"oco: above, below; oto: working, pending; otoco: working, pending above, below. {terms.ORDER_HELP}",
    )
    orders.add_argument("kind", choices=["oco", "oto", "otoco"])
    orders.add_argument("symbol")
    orders.add_argument("legs", metavar="ORDER", nargs="+")
    orders.add_argument("--client-id", type=int, default=0, metavar="N", help="own number of the list")
    quote = actions.add_parser("quote", help="set both sides of a quote; a side that is not named is pulled")
    quote.add_argument("symbol")
    quote.add_argument("--bid", metavar="PRICE:QTY")
    quote.add_argument("--ask", metavar="PRICE:QTY")
    quote.add_argument("--set", type=int, default=0, choices=range(256), metavar="0..255", help="which quote")
    quote.add_argument("--quote-id", type=int, default=0, metavar="N")
    quote.add_argument("--post-only", action="store_true", help="refuse a side that would trade")
    quote.add_argument("--stp", choices=list(terms.STP_MODES), default="none")


async def _run(options: argparse.Namespace) -> int:
    host, _, port = options.address.rpartition(":")
    if not host or not port.isdigit():
        raise ClientCommandError(f"--address {options.address}: must be HOST:PORT", USAGE)
    try:
        signer = load_signer(options.key_file, options.key_id)
    except OSError as error:
        raise ClientCommandError(f"cannot read {options.key_file}: {error.strerror}", NO_INPUT) from error
    except ValueError as error:
        raise ClientCommandError(f"{options.key_file} holds no key: {error}", BAD_INPUT) from error
    address = (host.strip("[]"), int(port))
    tls = None if options.tls is None else _tls_context(options.tls)
    async with BullringClient([address], session_id=options.session, signer=signer, tls=tls) as client:
        desk = _Desk(client, as_json=options.json)
        await desk.load()
        action = getattr(desk, options.action.replace("-", "_"))
        code: int = await action(options)
        return code


def _tls_context(authorities: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise ClientCommandError(f"cannot read certificates from {authorities}: {error}", NO_INPUT) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class _Desk:
    """The actions; each prints rows and returns an exit code."""

    def __init__(self, client: BullringClient, *, as_json: bool) -> None:
        self._client = client
        self._as_json = as_json
        self._markets: dict[int, Market] = {}
        self._assets: dict[int, tuple[str, int]] = {}

    async def load(self) -> None:
        self._markets = {reply.instrument_id: Market(reply) for reply in await self._client.instruments()}
        self._assets = {reply.asset_id: (reply.symbol, reply.exponent) for reply in await self._client.assets()}

    async def place(self, options: argparse.Namespace) -> int:
        order = terms.order_of(options, self._market(options.symbol), self._money_units)
        return await self._follow(self._client.place(order))

    async def list(self, options: argparse.Namespace) -> int:
        market = self._market(options.symbol)
        legs = [terms.parse_order(text, market, self._money_units) for text in options.legs]
        kind = ListType[options.kind.upper()]
        try:
            numbers = self._client.place_list(kind, legs, list_cl_ord_id=options.client_id)
        except ValueError as error:
            raise ClientCommandError(str(error), USAGE) from error
        return await self._follow(*numbers)

    async def cancel_replace(self, options: argparse.Namespace) -> int:
        order = terms.parse_order(options.order, self._market(options.symbol), self._money_units)
        numbers = self._client.cancel_replace(
            order,
            order_id=options.order_id,
            orig_cl_ord_id=options.client_id,
            continue_on_failure=options.continue_on_failure,
        )
        return await self._follow(*numbers)

    async def quote(self, options: argparse.Namespace) -> int:
        market = self._market(options.symbol)
        number = self._client.quote(
            instrument_id=market.id,
            bid=terms.quote_side(options.bid, market),
            ask=terms.quote_side(options.ask, market),
            quote_id=options.quote_id,
            quote_set_id=options.set,
            post_only=options.post_only,
            stp_mode=terms.STP_MODES[options.stp],
        )
        return await self._follow(number)

    async def cancel(self, options: argparse.Namespace) -> int:
        market = self._market(options.symbol)
        flags = {"new": CancelFlags.ONLY_NEW, "partially-filled": CancelFlags.ONLY_PARTIALLY_FILLED}
        number = self._client.cancel(
            instrument_id=market.id,
            order_id=options.order_id,
            orig_cl_ord_id=options.client_id,
            flags=flags.get(options.only),
        )
        return await self._follow(number)

    async def replace(self, options: argparse.Namespace) -> int:
        market = self._market(options.symbol)
        if options.price is None and options.quantity is None and options.display is None:
            raise ClientCommandError("replace: --price, --quantity, --display or several of them", USAGE)
        number = self._client.replace(
            instrument_id=market.id,
            order_id=options.order_id,
            orig_cl_ord_id=options.client_id,
            price=None if options.price is None else market.ticks(options.price),
            quantity=None if options.quantity is None else market.lots(options.quantity),
            display_quantity=None if options.display is None else market.lots(options.display),
        )
        return await self._follow(number)

    async def amend(self, options: argparse.Namespace) -> int:
        market = self._market(options.symbol)
        number = self._client.amend(
            instrument_id=market.id,
            order_id=options.order_id,
            orig_cl_ord_id=options.client_id,
            quantity=market.lots(options.quantity),
        )
        return await self._follow(number)

    async def status(self, options: argparse.Namespace) -> int:
        number = self._client.order_status(
            instrument_id=self._market(options.symbol).id,
            order_id=options.order_id,
            orig_cl_ord_id=options.client_id,
        )
        return await self._follow(number)

    async def cancel_all(self, options: argparse.Namespace) -> int:
        instrument = 0 if options.symbol is None else self._market(options.symbol).id
        flags = MassCancelFlags.LOCK_ENTRY if options.lock else MassCancelFlags(0)
        number = self._client.mass_cancel(
            scope=MassCancelScope[options.scope.upper()],
            instrument_id=instrument,
            side=SideOrBoth[options.side.upper()],
            flags=MassCancelFlags.UNLOCK_ENTRY if options.unlock else flags,
        )
        return await self._follow(number)

    async def orders(self, options: argparse.Namespace) -> int:
        instrument = 0 if options.symbol is None else self._market(options.symbol).id
        rows = []
        for reply in await self._client.open_orders(instrument):
            market = self._markets[reply.instrument_id]
            rows.append(
                {
                    "order_id": reply.order_id,
                    "client_id": reply.cl_ord_id,
                    "symbol": market.symbol,
                    "side": _name(Side, reply.side),
                    "price": market.price(reply.price),
                    "quantity": market.quantity(reply.order_qty),
                    "filled": market.quantity(reply.cum_qty),
                }
            )
        self._print(rows, "no open orders")
        return OK

    async def balances(self, options: argparse.Namespace) -> int:
        rows = []
        for reply in await self._client.balances():
            symbol, exponent = self._assets.get(reply.asset_id, (str(reply.asset_id), 0))
            unit = Fraction(10) ** exponent
            rows.append(
                {
                    "asset": symbol,
                    "available": decimal_text(reply.available * unit),
                    "held": decimal_text(reply.held * unit),
                }
            )
        self._print(rows, "no balances")
        return OK

    async def watch(self, options: argparse.Namespace) -> int:
        async def follow() -> None:
            async for item in self._client.reports():
                self._print([self._row(item)], "")

        try:
            await asyncio.wait_for(follow(), options.seconds)
        except TimeoutError:
            return OK
        return OK

    # --- reports ----------------------------------------------------------------------------------------------------

    async def _follow(self, *numbers: int) -> int:
        """Print the reports that a command causes; return OK, or REFUSED if all of it or a part was refused."""
        outcome: int | None = None
        reports = self._client.reports()
        while True:
            wait_s = ANSWER_S if outcome is None else QUIET_S
            try:
                item = await asyncio.wait_for(anext(reports), wait_s)
            except TimeoutError:
                break
            self._print([self._row(item)], "")
            if isinstance(item, Report) and getattr(item.message, "ref_seq_num", 0) in numbers:
                outcome = REFUSED if _refused(item.message) else OK if outcome is None else outcome
        if outcome is None:
            raise ClientCommandError(f"no answer within {ANSWER_S:.0f} s: look at the open orders", UNAVAILABLE)
        return outcome

    def _row(self, item: Report | ReportGap) -> Mapping[str, Any]:
        if isinstance(item, ReportGap):
            return {"report": "gap", "partition": item.partition, "from": item.from_seq_num, "count": item.count}
        message = item.message
        row: dict[str, Any] = {"report": type(message).__name__, "number": item.seq_num}
        market = self._markets.get(getattr(message, "instrument_id", 0))
        if market is None:
            return row | _plain(message)
        row |= {"symbol": market.symbol} | _plain(message)
        row["price"] = market.price(getattr(message, "price", None) or getattr(message, "last_px", None))
        row |= _quantities(market, message)
        if "limit" in row:
            row["limit"] = self._limit(market, message)
        if isinstance(message, OrderExecuted):
            row["fee"] = self._money(message.fee_asset_id, message.fee)
        return {name: value for name, value in row.items() if value is not None}

    def _money_units(self, asset: int, text: str) -> int:
        symbol, exponent = self._assets[asset]
        return units(text, Fraction(10) ** exponent, "quantity", f"unit of {symbol}")

    def _money(self, asset: int, units: int) -> str:
        symbol, exponent = self._assets.get(asset, ("", 0))
        return f"{decimal_text(units * Fraction(10) ** exponent)} {symbol}".strip()

    def _limit(self, market: Market, message: Any) -> str | int | None:
        """The bound a refused request passed, in the unit of what was refused."""
        code = message.reject_code
        if code in PRICE_LIMITS:
            return market.price(message.limit)
        if code in QUANTITY_LIMITS:
            return market.quantity(message.limit)
        if code in NOTIONAL_LIMITS:
            return self._money(market.quote, message.limit)
        if code == RejectCode.INSUFFICIENT_BALANCE and isinstance(message, OrderRejected):
            return self._money(market.base if message.side == Side.SELL else market.quote, message.limit)
        return int(message.limit)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _market(self, symbol: str) -> Market:
        for market in self._markets.values():
            if market.symbol == symbol:
                return market
        known = ", ".join(sorted(market.symbol for market in self._markets.values())) or "none"
        raise ClientCommandError(f"unknown symbol {symbol!r}; there are: {known}", BAD_INPUT)

    def _print(self, rows: Sequence[Mapping[str, Any]], empty: str) -> None:
        if self._as_json:
            for row in rows:
                print(json.dumps(row), flush=True)
        elif not rows:
            print(empty)
        else:
            for row in rows:
                print("  ".join(f"{name}={value}" for name, value in row.items()), flush=True)


# What unit the limit of a refusal has.
PRICE_LIMITS = {RejectCode.INVALID_PRICE, RejectCode.PRICE_BAND}
QUANTITY_LIMITS = {RejectCode.INVALID_QTY, RejectCode.MIN_QTY, RejectCode.MAX_QTY}
NOTIONAL_LIMITS = {RejectCode.MIN_NOTIONAL, RejectCode.MAX_NOTIONAL}


def _refused(message: WireMessage) -> bool:
    if isinstance(message, QuoteAck):
        return RejectCode.NONE not in (message.bid_reject_code, message.ask_reject_code)
    return isinstance(message, OrderRejected | CancelReplaceReject) or (
        getattr(message, "reject_code", RejectCode.NONE) != RejectCode.NONE
    )


def _plain(message: WireMessage) -> dict[str, Any]:
    """The fields that need no scale."""
    row: dict[str, Any] = {}
    for name, field in (("order_id", "order_id"), ("client_id", "cl_ord_id")):
        if getattr(message, field, None):
            row[name] = getattr(message, field)
    if not isinstance(message, MassCancelReport) and hasattr(message, "side"):
        row["side"] = _name(Side, message.side)
    if hasattr(message, "ord_status"):
        row["status"] = _name(OrdStatus, message.ord_status)
    if isinstance(message, ListStatus):
        row |= {
            "list": message.list_id,
            "status": _name(ListStatusType, message.status_type),
            "legs": message.leg_count,
        }
    if isinstance(message, QuoteAck):
        row |= {"bid_order_id": message.bid_order_id, "bid_status": _name(OrdStatus, message.bid_status)}
        row |= {"ask_order_id": message.ask_order_id, "ask_status": _name(OrdStatus, message.ask_status)}
        row |= _quote_refusals(message)
    if isinstance(message, OrderCanceled):
        row["reason"] = _name(CancelReason, message.cancel_reason)
    if isinstance(message, MassCancelReport):
        row["canceled_orders"] = message.total_affected
    code = getattr(message, "reject_code", RejectCode.NONE)
    if code != RejectCode.NONE:
        row["code"] = f"{_name(RejectCode, code)} ({int(code)})"
        if getattr(message, "limit", 0):
            row["limit"] = getattr(message, "limit", 0)
    return row


def _quote_refusals(message: QuoteAck) -> dict[str, str]:
    codes = {"bid_code": message.bid_reject_code, "ask_code": message.ask_reject_code}
    return {side: f"{_name(RejectCode, code)} ({int(code)})" for side, code in codes.items() if code != RejectCode.NONE}


def _quantities(market: Market, message: WireMessage) -> dict[str, Any]:
    fields = {
        "order_qty": "quantity",
        "last_qty": "quantity",
        "leaves_qty": "leaves",
        "cum_qty": "filled",
        "canceled_qty": "canceled",
        "prevented_qty": "prevented",
    }
    return {name: market.quantity(getattr(message, field)) for field, name in fields.items() if hasattr(message, field)}


def _name(kind: Any, value: int) -> str:
    try:
        return str(kind(value).name).lower()
    except ValueError:
        return str(value)
