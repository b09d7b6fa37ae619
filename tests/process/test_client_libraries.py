"""Unmodified client libraries of the ecosystem, pinned, trade against a whole exchange (tests/clients)."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.certificate import make_certificate
from tests.kit.exchange import Exchange
from tests.kit.foreign import ROOT, environment

QUIET = ("--quiet-market", "--set", "gateway.feed.enabled=false", "--set", "ledger.enabled=false")
LIMITLESS = (
    "--set", "gateway.web.weight_per_minute=0", "--set", "gateway.web.requests_per_5_minutes=0",
    "--set", "gateway.web.stream_attempts=0",
)  # fmt: skip
SESSION_S = 600.0
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
)  # fmt: skip
FUNDS = ("--fund", "BTC=100", "--fund", "ETH=1000", "--fund", "SOL=1000", "--fund", "USDT=10000000")


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """Quiet, without limits of use; each library trades on a pair of its own."""
    with Exchange(tmp_path_factory.mktemp("libraries") / "data", *QUIET, *LIMITLESS, web=1) as exchange:
        yield exchange


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """The same over TLS; the certificate, which signs itself, lies beside its data."""
    folder = tmp_path_factory.mktemp("encrypted")
    certificate, key = make_certificate(folder)
    files = ("--set", f'gateway.web.tls_certificate="{certificate}"', "--set", f'gateway.web.tls_key="{key}"')
    with Exchange(folder / "data", *QUIET, *LIMITLESS, *files, web=1) as exchange:
        yield exchange


def facts_of(exchange: Exchange) -> dict[str, Any]:
    """Return what a session is told: addresses, and the keys of two accounts."""
    keys = []
    for _ in range(2):
        account = exchange.command("account", "create", *FUNDS)[0]["account"]
        keys.append(exchange.command("key", "create", "--account", str(account), "--kind", "hmac")[0])
    names = {"api_key": keys[0]["api_key"], "api_secret": keys[0]["api_secret"]}
    others = {"other_key": keys[1]["api_key"], "other_secret": keys[1]["api_secret"]}
    return {**exchange.ready["web"], **names, **others, "parts": ["rest", "sockets", "streams"]}


@dataclass(frozen=True)
class Client:
    """Whose session it is: the environment of tests/clients/requirements-NAME.txt."""

    script: str
    tls: bool = False  # it goes nowhere without


SHORT = {
    "ccxt": Client("ccxt_session.py"),
    "python-binance": Client("python_binance_session.py"),
    "binance-sdk-spot": Client("binance_sdk_session.py"),
}
# BULLRING_CLIENTS=all plays these, too: minutes to install, a minute or two to run.
LONG = {
    "freqtrade": Client("freqtrade_session.py"),
    "nautilus-trader": Client("nautilus_session.py"),
    "cryptofeed": Client("cryptofeed_session.py", tls=True),
}
PLAYED = SHORT | (LONG if os.environ.get("BULLRING_CLIENTS") == "all" else {})


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PLAYED))
def test_unmodified_library_trades(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    client, programs = PLAYED[name], environment(name)
    exchange: Exchange = request.getfixturevalue("encrypted" if client.tls else "exchange")
    script = ROOT / "tests" / "clients" / client.script
    command = [str(programs / "python"), str(script), json.dumps(facts_of(exchange))]
    trusting = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(exchange.data.parent / "certificate.pem"))

    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SESSION_S, check=False, cwd=tmp_path,
        env=os.environ | (trusting if client.tls else {}),
    )  # fmt: skip

    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    assert json.loads(done.stdout.splitlines()[-1])["version"]


@pytest.mark.slow
def test_session_script_fails_on_an_exchange_that_answers_wrong(exchange: Exchange, tmp_path: Path) -> None:
    """The control: with another account's secret the same session must not pass."""
    programs = environment("python-binance")
    facts = facts_of(exchange)
    facts["api_secret"] = facts["other_secret"]
    script = ROOT / "tests" / "clients" / "python_binance_session.py"
    command = [str(programs / "python"), str(script), json.dumps(facts)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=SESSION_S, check=False, cwd=tmp_path)

    assert done.returncode != 0
    assert "-1022" in done.stderr


@pytest.mark.slow
def test_rest_answers_as_its_openapi_document_says(exchange: Exchange, tmp_path: Path) -> None:
    """schemathesis makes requests from the document: no answer may be a server error or have an undocumented form.

    BULLRING_SCHEMA_EXAMPLES sets how many for each operation.
    """
    programs = environment("schemathesis")
    key = facts_of(exchange)["api_key"]
    command = [str(programs / "schemathesis"), "run", exchange.ready["web"]["openapi"], "--seed", "1"]
    command += ["--header", f"X-MBX-APIKEY: {key}", "--checks", ",".join(CHECKS), "--workers", "1"]
    command += ["--max-examples", os.environ.get("BULLRING_SCHEMA_EXAMPLES", "4"), "--phases", "fuzzing"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=SESSION_S * 2, check=False, cwd=tmp_path)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
