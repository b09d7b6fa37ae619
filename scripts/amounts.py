"""Decimal text <-> whole units, exactly: a value that is not a whole number of units is refused, never rounded."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from fractions import Fraction

from scripts.exit_codes import CommandError, ExitCode
from settlement.decimals import decimal_text

UNITS_MAX = (1 << 62) - 1
DIGITS_MAX = 40


def to_units(text: str, exponent: int, name: str) -> int:
    """Return the number of units of 10^exponent in `text`. Raises CommandError naming `name` and the limit."""
    # Fraction, since Decimal would round at 28 digits.
    units = Fraction(decimal(text, name)) / Fraction(10) ** exponent
    if units.denominator != 1:
        raise CommandError(f"{name} = {text}: finer than one unit, which is {unit_text(exponent)}", ExitCode.BAD_INPUT)
    if abs(units) > UNITS_MAX:
        limit = from_units(UNITS_MAX, exponent)
        raise CommandError(f"{name} = {text}: beyond the largest amount, {limit}", ExitCode.BAD_INPUT)
    return int(units)


def from_units(units: int, exponent: int) -> str:
    """Return `units` of 10^exponent as plain decimal text."""
    return decimal_text(units, exponent)


def decimal(text: str, name: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise CommandError(f"{name} = {text!r}: must be a decimal number", ExitCode.BAD_INPUT) from None
    if not value.is_finite():
        raise CommandError(f"{name} = {text!r}: must be a finite number", ExitCode.BAD_INPUT)
    # A bound on the work that "1e999999999" can cause.
    if abs(value.adjusted()) > DIGITS_MAX or len(value.as_tuple().digits) > DIGITS_MAX:
        raise CommandError(f"{name} = {text!r}: must have at most {DIGITS_MAX} digits", ExitCode.BAD_INPUT)
    return value


def step(text: str, name: str) -> tuple[int, int]:
    """Return (mantissa, exponent) of a positive decimal: "0.05" -> (5, -2). Trailing zeros do not count."""
    value = decimal(text, name).normalize()
    if value <= 0:
        raise CommandError(f"{name} = {text}: must be greater than 0", ExitCode.BAD_INPUT)
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    return int("".join(map(str, digits))), exponent


def unit_text(exponent: int) -> str:
    return from_units(1, exponent)
