"""What an operator may get wrong: refused before it does anything, with the field and its limit."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gateway.clients.terms import ClientCommandError, units
from scripts.admin.asset import add_asset
from scripts.admin.instrument import Pair, add_pair
from scripts.exit_codes import CommandError, ExitCode
from scripts.web import check_certificate
from tests.kit.certificate import make_certificate


@pytest.mark.parametrize("symbol", ["", "btc", "B C", "ABCDEFGHIJKLM", "BTC-1", "Ä"])
def test_asset_of_another_name_is_refused_before_the_log_has_it(symbol: str) -> None:
    link: Any = None

    with pytest.raises(CommandError, match="must be 1 to 12 characters A-Z 0-9"):
        add_asset(link, symbol, -8)


@pytest.mark.parametrize("symbol", ["", "btc-usdt", "-BTC", "BTC-", "B C", "ABCDEFGHIJKL-ABCDEFGHIJKL", "BTC--USDT"])
def test_pair_of_another_name_is_refused_before_the_log_has_it(symbol: str) -> None:
    link: Any = None

    with pytest.raises(CommandError, match="must be 1 to 24 characters A-Z 0-9, with"):
        add_pair(link, Pair(symbol, "BTC", "USDT", tick="1", lot="1"), 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [("0", "price 0: must be more than 0"), ("-1", "price -1: must be more than 0"),
     ("0.3", "price 0.3: must be a multiple of the tick of X-Y, 0.5"), ("x", "price 'x': must be a decimal number")],
)  # fmt: skip
def test_client_says_what_is_wrong_with_a_number(text: str, said: str) -> None:
    with pytest.raises(ClientCommandError) as refused:
        units(text, Fraction(1, 2), "price", "tick of X-Y")

    assert str(refused.value) == said


def test_certificate_that_cannot_be_used_is_named_with_its_key_of_the_configuration(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    check_certificate(str(certificate), str(key))
    bad, missing = tmp_path / "bad.pem", tmp_path / "missing.pem"
    bad.write_text("nothing of the kind")

    for pair, why in (
        ((missing, key), f"cannot read {missing}: No such file or directory"),
        ((certificate, missing), f"cannot read {missing}: No such file or directory"),
        ((bad, key), "no certificate in PEM form and the key that belongs to it"),
        ((certificate, certificate), "no certificate in PEM form and the key that belongs to it"),
    ):
        with pytest.raises(CommandError) as refused:
            check_certificate(str(pair[0]), str(pair[1]))
        assert refused.value.code == ExitCode.CONFIGURATION
        assert "gateway.web.tls_certificate = " in str(refused.value) and why in str(refused.value)
