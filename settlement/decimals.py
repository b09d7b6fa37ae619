"""Whole units as plain decimal text, exactly."""

from __future__ import annotations


def decimal_text(units: int, exponent: int) -> str:
    """Return units x 10^exponent without an exponent: (150, -2) -> "1.50"."""
    if exponent >= 0:
        return str(units * 10**exponent)
    digits = f"{abs(units):0{1 - exponent}d}"
    return f"{'-' if units < 0 else ''}{digits[:exponent]}.{digits[exponent:]}"
