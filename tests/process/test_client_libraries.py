"""Unmodified client libraries of the ecosystem, pinned, trade against a whole exchange (tests/clients)."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.exchange import Exchange
from tests.kit.foreign import ROOT, environment

QUIET = ("--quiet-market", "--set", "gateway.feed.enabled=false", "--set", "ledger.enabled=false")
SESSION_S = 120.0
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
)  # fmt: skip
FUNDS = ("--fund", "BTC=100", "--fund", "ETH=1000", "--fund", "SOL=1000", "--fund", "USDT=10000000")


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """Quiet, without limits of use; each library trades on a pair of its own."""
    limits = ("--set", "gateway.web.weight_per_minute=0", "--set", "gateway.web.requests_per_5_minutes=0")
    with Exchange(tmp_path_factory.mktemp("libraries") / "data", *QUIET, *limits, web=1) as exchange:
        yield exchange


def facts_of(exchange: Exchange) -> dict[str, Any]:
    """Return what a session is told: addresses, and the keys of two accounts."""
    keys = []
    for _ in range(2):
        account = exchange.command("account", "create", *FUNDS)[0]["account"]
        keys.append(exchange.command("key", "create", "--account", str(account), "--kind", "hmac")[0])
    names = {"api_key": keys[0]["api_key"], "api_secret": keys[0]["api_secret"]}
    others = {"other_key": keys[1]["api_key"], "other_secret": keys[1]["api_secret"]}
    return {**exchange.ready["web"], **names, **others, "parts": ["rest", "sockets"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("ccxt", "ccxt_session.py"),
        ("python-binance", "python_binance_session.py"),
        ("binance-sdk-spot", "binance_sdk_session.py"),
    ],
)
def test_unmodified_library_trades(exchange: Exchange, tmp_path: Path, name: str, script: str) -> None:
    programs = environment(name)
    facts = facts_of(exchange)
    command = [str(programs / "python"), str(ROOT / "tests" / "clients" / script), json.dumps(facts)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=SESSION_S, check=False, cwd=tmp_path)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert json.loads(done.stdout.splitlines()[-1])


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
