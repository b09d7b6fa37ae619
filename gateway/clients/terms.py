"""Decimals and words of a person into ticks, lots and terms of an order, and back."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import NoReturn

from gateway.clients.python.orders import Order
from ringbuf.wire.messages import InstrumentReply, OrdType, Side, StpMode, TimeInForce

OK, USAGE, BAD_INPUT, NO_INPUT, UNAVAILABLE, REFUSED, INTERRUPTED = 0, 2, 65, 66, 69, 76, 130
TYPES = {kind.name.lower().replace("_", "-"): kind for kind in OrdType}
TIMES_IN_FORCE = {tif.name.lower(): tif for tif in TimeInForce}
STP_MODES = {mode.name.lower().replace("_", "-"): mode for mode in StpMode}
ORDER_HELP = "An order takes the arguments of `place` without the symbol."

# (asset id, decimal text) -> units
MoneyUnits = Callable[[int, str], int]


class ClientCommandError(Exception):
    """The command cannot go on: one sentence, one exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Market:
    """One pair with its scales."""

    def __init__(self, reply: InstrumentReply) -> None:
        self.id = reply.instrument_id
        self.symbol = reply.symbol
        self.base, self.quote = reply.base_asset_id, reply.quote_asset_id
        self.tick = Fraction(reply.tick_size) * Fraction(10) ** reply.price_exponent
        self.lot = Fraction(reply.lot_size) * Fraction(10) ** reply.qty_exponent

    def ticks(self, text: str) -> int:
        return units(text, self.tick, "price", f"tick of {self.symbol}")

    def lots(self, text: str) -> int:
        return units(text, self.lot, "quantity", f"lot of {self.symbol}")

    def price(self, ticks: int | None) -> str | None:
        return None if ticks is None else decimal_text(ticks * self.tick)

    def quantity(self, lots: int | None) -> str | None:
        return None if lots is None else decimal_text(lots * self.lot)


class _QuotedOrder(argparse.ArgumentParser):
    """Parses an order that is one argument of a command."""

    def error(self, message: str) -> NoReturn:
        raise ClientCommandError(f"order: {message}", USAGE)


def add_order_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what describes an order, but its symbol."""
    parser.add_argument("side", choices=["buy", "sell"])
    parser.add_argument("quantity", help="in the base asset; with --amount in the quote asset")
    parser.add_argument("price", nargs="?", help="without a price: a market order")
    parser.add_argument("--type", choices=list(TYPES), help="default: limit with a price, market without")
    parser.add_argument("--stop-price", metavar="PRICE", help="of stop and take-profit orders")
    parser.add_argument("--trailing-bps", type=int, default=0, metavar="N", help="let a stop trail by N basis points")
    parser.add_argument("--time-in-force", choices=list(TIMES_IN_FORCE), default="gtc")
    parser.add_argument("--expire", metavar="TIME", help="of gtd: 2026-12-31T23:59:00Z, or seconds since 1970")
    parser.add_argument("--display", metavar="QTY", help="iceberg: visible quantity")
    parser.add_argument("--first-display", metavar="QTY", help="iceberg: visible quantity of the first slice")
    parser.add_argument("--min-quantity", metavar="QTY", help="trade so much at once or nothing")
    parser.add_argument("--post-only", action="store_true", help="refuse rather than trade at once")
    parser.add_argument("--reduce-only", action="store_true", help="kept with the order; no effect on spot")
    parser.add_argument("--amount", action="store_true", help="market order by money: the quantity is an amount")
    parser.add_argument("--stp", choices=list(STP_MODES), default="none", help="self-trade prevention")
    parser.add_argument("--client-id", type=int, default=0, metavar="N", help="own number of the order")
    parser.add_argument("--client-text", default="", metavar="TEXT", help="own text id; needs --client-id")
    parser.add_argument("--tag", type=int, default=0, metavar="N", help="any number; reports give it back")


def parse_order(text: str, market: Market, money_units: MoneyUnits) -> Order:
    """Read an order that is one quoted argument. Raises ClientCommandError."""
    parser = _QuotedOrder(prog="ORDER", add_help=False)
    add_order_arguments(parser)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ClientCommandError(f"order {text!r}: {error}", USAGE) from error
    return order_of(parser.parse_args(words), market, money_units)


def order_of(options: argparse.Namespace, market: Market, money_units: MoneyUnits) -> Order:
    """Return the terms in ticks and lots. Raises ClientCommandError naming what is wrong."""

    def lots(quantity: str | None) -> int | None:
        return None if quantity is None else market.lots(quantity)

    def ticks(price: str | None) -> int | None:
        return None if price is None else market.ticks(price)

    amount = options.amount
    return Order(
        instrument_id=market.id,
        side=Side.BUY if options.side == "buy" else Side.SELL,
        quantity=money_units(market.quote, options.quantity) if amount else market.lots(options.quantity),
        price=ticks(options.price),
        ord_type=None if options.type is None else TYPES[options.type],
        stop_price=ticks(options.stop_price),
        trailing_delta=options.trailing_bps,
        time_in_force=TIMES_IN_FORCE[options.time_in_force],
        expire_time=None if options.expire is None else _seconds(options.expire),
        display_quantity=lots(options.display),
        first_display_quantity=lots(options.first_display),
        min_quantity=lots(options.min_quantity),
        post_only=options.post_only,
        reduce_only=options.reduce_only,
        quote_amount=amount,
        stp_mode=STP_MODES[options.stp],
        cl_ord_id=options.client_id,
        client_text=options.client_text,
        client_tag=options.tag,
    )


def quote_side(text: str | None, market: Market) -> tuple[int, int] | None:
    """Return (ticks, lots) of PRICE:QTY, None for a side that is pulled. Raises ClientCommandError."""
    if text is None:
        return None
    price, separator, quantity = text.partition(":")
    if not separator:
        raise ClientCommandError(f"{text}: must be PRICE:QTY", USAGE)
    return market.ticks(price), market.lots(quantity)


def _seconds(text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ClientCommandError(f"--expire {text}: must be a time like 2026-12-31T23:59:00Z", BAD_INPUT) from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def units(text: str, unit: Fraction, what: str, unit_name: str) -> int:
    """Return how many units `text` is. Raises ClientCommandError if that is no whole positive number."""
    try:
        value = Fraction(Decimal(text))
    except (InvalidOperation, ValueError, OverflowError):
        raise ClientCommandError(f"{what} {text!r}: must be a decimal number", BAD_INPUT) from None
    count = value / unit
    if count <= 0:
        raise ClientCommandError(f"{what} {text}: must be more than 0", BAD_INPUT)
    if count.denominator != 1:
        raise ClientCommandError(
            f"{what} {text}: must be a multiple of the {unit_name}, {decimal_text(unit)}", BAD_INPUT
        )
    return int(count)


def decimal_text(value: Fraction) -> str:
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
