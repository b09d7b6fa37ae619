"""`bullring client ...`: log on as a person and trade, see orders and balances, watch reports. Decimals in and out."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any

from gateway.clients.python.client import BullringClient, LogonRefused, QueryRefused, Report, ReportGap, SessionLost
from gateway.clients.python.signing import load_signer
from ringbuf.wire.base import WireMessage
from ringbuf.wire.messages import (
    CancelReason,
    CancelReplaceReject,
    InstrumentReply,
    MassCancelReport,
    MassCancelScope,
    OrderAccepted,
    OrderCanceled,
    OrderExecuted,
    OrderRejected,
    OrderReplaced,
    RejectCode,
    Side,
    TimeInForce,
)

OK, USAGE, BAD_INPUT, NO_INPUT, UNAVAILABLE, REFUSED, INTERRUPTED = 0, 2, 65, 66, 69, 76, 130
ADDRESS_DEFAULT = "127.0.0.1:9100"
ANSWER_S = 10.0  # longest wait for the answer to a request
QUIET_S = 0.15  # after an answer, fills of the same request are waited for this long
TIMES_IN_FORCE = {"gtc": TimeInForce.GTC, "ioc": TimeInForce.IOC, "fok": TimeInForce.FOK}


class ClientCommandError(Exception):
    """The command cannot go on: one sentence, one exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code (docs/EXIT_CODES.md)."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except ClientCommandError as error:
        return _complain(str(error), error.exit_code, as_json=options.json)
    except LogonRefused as error:
        return _complain(f"logon refused: {error}", REFUSED, as_json=options.json)
    except QueryRefused as error:
        return _complain(f"query refused: {error}", REFUSED, as_json=options.json)
    except (SessionLost, OSError, TimeoutError) as error:
        return _complain(f"no exchange answers at {options.address}: {error}", UNAVAILABLE, as_json=options.json)
    except KeyboardInterrupt:
        return INTERRUPTED


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
    parser.add_argument("--json", action="store_true", help="answer in JSON, one object a line")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    place = actions.add_parser("place", help="place an order: place BTC-USDT buy 0.5 64000")
    place.add_argument("symbol")
    place.add_argument("side", choices=["buy", "sell"])
    place.add_argument("quantity")
    place.add_argument("price", nargs="?", help="without a price: a market order")
    place.add_argument("--time-in-force", choices=list(TIMES_IN_FORCE), default="gtc")
    place.add_argument("--post-only", action="store_true", help="refuse rather than trade at once")
    place.add_argument("--client-id", type=int, default=0, metavar="N", help="own number of the order")
    for name, text in (("cancel", "cancel an order"), ("replace", "give an order a new price or total quantity")):
        change = actions.add_parser(name, help=text)
        change.add_argument("symbol")
        which = change.add_mutually_exclusive_group(required=True)
        which.add_argument("--order-id", type=int, metavar="N")
        which.add_argument("--client-id", type=int, metavar="N")
        if name == "replace":
            change.add_argument("--price")
            change.add_argument("--quantity", help="total quantity, what is filled included")
    everything = actions.add_parser("cancel-all", help="cancel all orders of the account")
    everything.add_argument("symbol", nargs="?")
    orders = actions.add_parser("orders", help="show open orders")
    orders.add_argument("symbol", nargs="?")
    actions.add_parser("balances", help="show what the account has")
    watch = actions.add_parser("watch", help="print reports as they come")
    watch.add_argument("--seconds", type=float, metavar="S", help="end after this time")
    return parser


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
    async with BullringClient([(host, int(port))], session_id=options.session, signer=signer) as client:
        desk = _Desk(client, as_json=options.json)
        await desk.load()
        action = getattr(desk, options.action.replace("-", "_"))
        code: int = await action(options)
        return code


class _Market:
    """One pair with its scales."""

    def __init__(self, reply: InstrumentReply) -> None:
        self.id = reply.instrument_id
        self.symbol = reply.symbol
        self.base, self.quote = reply.base_asset_id, reply.quote_asset_id
        self.tick = Fraction(reply.tick_size) * Fraction(10) ** reply.price_exponent
        self.lot = Fraction(reply.lot_size) * Fraction(10) ** reply.qty_exponent

    def ticks(self, text: str) -> int:
        return _units(text, self.tick, "price", f"tick of {self.symbol}")

    def lots(self, text: str) -> int:
        return _units(text, self.lot, "quantity", f"lot of {self.symbol}")

    def price(self, ticks: int | None) -> str | None:
        return None if ticks is None else _text(ticks * self.tick)

    def quantity(self, lots: int | None) -> str | None:
        return None if lots is None else _text(lots * self.lot)


class _Desk:
    """The actions; each prints rows and returns an exit code."""

    def __init__(self, client: BullringClient, *, as_json: bool) -> None:
        self._client = client
        self._as_json = as_json
        self._markets: dict[int, _Market] = {}
        self._assets: dict[int, tuple[str, int]] = {}

    async def load(self) -> None:
        self._markets = {reply.instrument_id: _Market(reply) for reply in await self._client.instruments()}
        self._assets = {reply.asset_id: (reply.symbol, reply.exponent) for reply in await self._client.assets()}

    async def place(self, options: argparse.Namespace) -> int:
        market = self._market(options.symbol)
        price = None if options.price is None else market.ticks(options.price)
        immediate = price is None and options.time_in_force == "gtc"
        number = self._client.new_order(
            instrument_id=market.id,
            side=Side.BUY if options.side == "buy" else Side.SELL,
            quantity=market.lots(options.quantity),
            price=price,
            cl_ord_id=options.client_id,
            time_in_force=TimeInForce.IOC if immediate else TIMES_IN_FORCE[options.time_in_force],
            post_only=options.post_only,
        )
        return await self._follow(number)

    async def cancel(self, options: argparse.Namespace) -> int:
        market = self._market(options.symbol)
        number = self._client.cancel(
            instrument_id=market.id, order_id=options.order_id, orig_cl_ord_id=options.client_id
        )
        return await self._follow(number)

    async def replace(self, options: argparse.Namespace) -> int:
        market = self._market(options.symbol)
        if options.price is None and options.quantity is None:
            raise ClientCommandError("replace: --price, --quantity or both", USAGE)
        number = self._client.replace(
            instrument_id=market.id,
            order_id=options.order_id,
            orig_cl_ord_id=options.client_id,
            price=None if options.price is None else market.ticks(options.price),
            quantity=None if options.quantity is None else market.lots(options.quantity),
        )
        return await self._follow(number)

    async def cancel_all(self, options: argparse.Namespace) -> int:
        instrument = 0 if options.symbol is None else self._market(options.symbol).id
        return await self._follow(self._client.mass_cancel(scope=MassCancelScope.ACCOUNT, instrument_id=instrument))

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
            rows.append({"asset": symbol, "available": _text(reply.available * unit), "held": _text(reply.held * unit)})
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

    async def _follow(self, number: int) -> int:
        """Print the reports that a request causes; return OK or REFUSED."""
        outcome: int | None = None
        reports = self._client.reports()
        while True:
            wait_s = ANSWER_S if outcome is None else QUIET_S
            try:
                item = await asyncio.wait_for(anext(reports), wait_s)
            except TimeoutError:
                break
            self._print([self._row(item)], "")
            if isinstance(item, Report) and getattr(item.message, "ref_seq_num", 0) == number:
                refused = isinstance(item.message, OrderRejected | CancelReplaceReject) or (
                    getattr(item.message, "reject_code", RejectCode.NONE) != RejectCode.NONE
                )
                outcome = REFUSED if refused else OK if outcome is None else outcome
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

    def _money(self, asset: int, units: int) -> str:
        symbol, exponent = self._assets.get(asset, ("", 0))
        return f"{_text(units * Fraction(10) ** exponent)} {symbol}".strip()

    def _limit(self, market: _Market, message: Any) -> str | int | None:
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

    def _market(self, symbol: str) -> _Market:
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


def _plain(message: WireMessage) -> dict[str, Any]:
    """The fields that need no scale."""
    row: dict[str, Any] = {}
    for name, field in (("order_id", "order_id"), ("client_id", "cl_ord_id")):
        if getattr(message, field, None):
            row[name] = getattr(message, field)
    if isinstance(message, OrderAccepted | OrderExecuted | OrderCanceled | OrderReplaced | OrderRejected):
        row["side"] = _name(Side, message.side)
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


def _quantities(market: _Market, message: WireMessage) -> dict[str, Any]:
    fields = {
        "order_qty": "quantity",
        "last_qty": "quantity",
        "leaves_qty": "leaves",
        "cum_qty": "filled",
        "canceled_qty": "canceled",
    }
    return {name: market.quantity(getattr(message, field)) for field, name in fields.items() if hasattr(message, field)}


def _name(kind: Any, value: int) -> str:
    try:
        return str(kind(value).name).lower()
    except ValueError:
        return str(value)


def _units(text: str, unit: Fraction, what: str, unit_name: str) -> int:
    """Return how many units `text` is. Raises ClientCommandError if that is no whole positive number."""
    try:
        value = Fraction(Decimal(text))
    except (InvalidOperation, ValueError, OverflowError):
        raise ClientCommandError(f"{what} {text!r}: must be a decimal number", BAD_INPUT) from None
    units = value / unit
    if units.denominator != 1 or units <= 0:
        raise ClientCommandError(f"{what} {text}: must be a multiple of the {unit_name}, {_text(unit)}", BAD_INPUT)
    return int(units)


def _text(value: Fraction) -> str:
    """Plain decimal text of a fraction whose denominator has only twos and fives."""
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    scaled = int(value * 10**digits)
    sign, body = ("-", str(-scaled)) if scaled < 0 else ("", str(scaled))
    if digits == 0:
        return sign + body
    body = body.rjust(digits + 1, "0")
    return f"{sign}{body[:-digits]}.{body[-digits:]}"
