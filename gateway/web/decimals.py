"""Decimal text <-> whole units, exactly. No float comes near a price, a quantity or money."""

import functools
import re

NUMBER = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
DECIMALS = 8  # what prices and quantities are shown with, unless an asset is finer
TEXTS_CACHED = 16384
WHOLE_DIGITS_MAX = 19
_NUMBER = re.compile(NUMBER)


class NotANumber(ValueError):
    """The text is not a plain positive decimal number."""


class TooFine(ValueError):
    """The number is no whole multiple of the unit."""


@functools.lru_cache(TEXTS_CACHED)
def to_text(units: int, exponent: int, decimals: int = DECIMALS) -> str:
    """Return units x 10^exponent with at least `decimals` decimals, more where the unit is finer."""
    places = max(decimals, -exponent)
    scaled = units * 10 ** (places + exponent)
    if places == 0:
        return str(scaled)
    sign = "-" if scaled < 0 else ""
    whole, part = divmod(abs(scaled), 10**places)
    return f"{sign}{whole}.{part:0{places}d}"


def parse(text: str) -> tuple[int, int]:
    """Return (mantissa, exponent) of a number without sign: "1.50" is (15, -1). Raises NotANumber."""
    match = _NUMBER.match(text)
    if match is None:
        raise NotANumber(text)
    whole, part = match.group(1), (match.group(2) or ".")[1:].rstrip("0")
    return int(whole + part), -len(part)


def to_units(text: str, exponent: int) -> int:
    """Return the number of units of 10^exponent in `text`. Raises NotANumber, TooFine."""
    mantissa, own = parse(text)
    return units_of(mantissa, own, exponent, text)


def units_of(mantissa: int, own: int, exponent: int, text: str) -> int:
    """Return the number of units of 10^exponent in mantissa x 10^own, the number `text`. Raises TooFine."""
    if own >= exponent:
        return int(mantissa * 10 ** (own - exponent))
    units, rest = divmod(mantissa, int(10 ** (exponent - own)))
    if rest:
        raise TooFine(text)
    return units


def whole(text: str) -> int | None:
    """Return a number of 1 to 19 ASCII digits; None for any other text, also where Unicode sees digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= WHOLE_DIGITS_MAX else None
