"""Decimal text and whole units convert exactly or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.amounts import UNITS_MAX, from_units, step, to_units
from scripts.exit_codes import CommandError


@pytest.mark.parametrize(
    ("text", "exponent", "units"),
    [("10", -8, 1_000_000_000), ("0.00000001", -8, 1), ("-2.5", -1, -25), ("1e3", 0, 1000), ("0", -8, 0)],
)
def test_amounts_become_units(text: str, exponent: int, units: int) -> None:
    assert to_units(text, exponent, "amount") == units


@pytest.mark.parametrize(
    ("text", "exponent", "sentence"),
    [
        ("0.000000001", -8, "finer than one unit, which is 0.00000001"),
        ("0.1", 0, "finer than one unit, which is 1"),
        ("ten", -8, "must be a decimal number"),
        ("NaN", -8, "must be a finite number"),
        ("1e99999999", 0, "must have at most 40 digits"),
        (str(UNITS_MAX + 1), 0, f"beyond the largest amount, {UNITS_MAX}"),
    ],
)
def test_what_is_no_whole_number_of_units_is_refused(text: str, exponent: int, sentence: str) -> None:
    with pytest.raises(CommandError) as caught:
        to_units(text, exponent, "--fund BTC")

    assert sentence in str(caught.value)
    assert "--fund BTC" in str(caught.value)


@given(st.integers(-UNITS_MAX, UNITS_MAX), st.integers(-18, 0))
def test_units_survive_a_round_trip(units: int, exponent: int) -> None:
    assert to_units(from_units(units, exponent), exponent, "amount") == units


@pytest.mark.parametrize(("text", "expected"), [("0.05", (5, -2)), ("0.010", (1, -2)), ("25", (25, 0)), ("10", (1, 1))])
def test_steps_split_into_mantissa_and_exponent(text: str, expected: tuple[int, int]) -> None:
    assert step(text, "--tick") == expected


def test_step_must_be_positive() -> None:
    with pytest.raises(CommandError, match="greater than 0"):
        step("0", "--tick")
