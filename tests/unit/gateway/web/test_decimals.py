"""Decimal text and units: exact both ways, refused where it would not be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.decimals import NotANumber, TooFine, parse, to_text, to_units, whole


@given(units=st.integers(0, 10**18), exponent=st.integers(-18, 0))
def test_text_and_units_are_inverse(units: int, exponent: int) -> None:
    assert to_units(to_text(units, exponent, 0)[:20] if exponent == 0 else to_text(units, exponent), exponent) == units


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.", ".5", "1e5", "1,5", " 1", "1 ", "0x1", "１", "1" * 21, "nan"])
def test_what_is_no_plain_number_is_refused(text: str) -> None:
    with pytest.raises(NotANumber):
        parse(text)


def test_a_number_finer_than_the_unit_is_refused() -> None:
    assert to_units("1.50", -1) == 15
    with pytest.raises(TooFine):
        to_units("1.55", -1)


def test_at_least_eight_decimals_and_the_sign_are_shown() -> None:
    assert to_text(-150, -2) == "-1.50000000"
    assert to_text(0, 0) == "0.00000000"
    assert to_text(1, -12) == "0.000000000001"


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), ("9" * 19, 10**19 - 1), ("9" * 20, None), ("9" * 5000, None), ("²", None), ("٣", None),
     ("-1", None), ("", None), ("[1]", None)],
)  # fmt: skip
def test_whole_number_is_of_ascii_digits_and_short(text: str, number: int | None) -> None:
    """`limit=²` was an internal error: what Unicode calls a digit is no number to int()."""
    assert whole(text) == number
