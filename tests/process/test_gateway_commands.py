"""`bullring client`: a person trades against a running exchange."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.clients import AdminClient, BullringClient, Report, load_signer
from gateway.clients.commands import run
from gateway.clients.terms import BAD_INPUT, NO_INPUT, OK, REFUSED, UNAVAILABLE, USAGE
from ringbuf.wire.messages import OrderExecuted, Side
from tests.kit.certificate import make_certificate
from tests.kit.engine_site import EngineSite
from tests.kit.exchange import Exchange, bullring
from tests.kit.ports import free_port

Rows = list[dict[str, Any]]


@dataclass
class Person:
    """Calls the command as one trader and reads what it printed."""

    site: EngineSite
    session: int
    key_file: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, port: int | None = None) -> tuple[int, Rows]:
        self.capsys.readouterr()
        code = self.call(*arguments, port=port)
        return code, self.printed()

    def call(self, *arguments: str, port: int | None = None) -> int:
        address = f"127.0.0.1:{self.site.port if port is None else port}"
        common = ["--address", address, "--session", str(self.session), "--key-file", str(self.key_file), "--json"]
        return run([*common, *arguments])

    def printed(self) -> Rows:
        return [json.loads(line) for line in self.capsys.readouterr().out.splitlines()]


@pytest.fixture
def people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[list[Person]]:
    with EngineSite(tmp_path) as site, AdminClient(site.admin_path) as admin:
        base, quote = admin.asset_add("BTC", exponent=-8), admin.asset_add("USDT", exponent=-6)
        # One tick = 0.05 USDT, one lot = 0.001 BTC: 50 units of USDT each; one lot = 100000 units of BTC.
        instrument = admin.instrument_add(
            "BTC-USDT",
            base_asset_id=base,
            quote_asset_id=quote,
            tick_size=5,
            price_exponent=-2,
            qty_exponent=-3,
            quote_per_tick_lot=50,
            base_per_lot=100_000,
        )
        admin.instrument_limits(instrument)
        found = []
        for name in ("anna", "bert"):
            private = Ed25519PrivateKey.generate()
            key_file = tmp_path / f"{name}.pem"
            key_file.write_bytes(
                private.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
            account = admin.account_create()
            for asset, units in ((base, 10 * 10**8), (quote, 1_000_000 * 10**6)):
                admin.balance_adjust(account_id=account, asset_id=asset, amount=units)
            admin.key_create(name, account_id=account, material=private.public_key().public_bytes_raw())
            found.append(Person(site, admin.session_create(account_id=account), key_file, capsys))
        yield found


def test_orders_are_placed_seen_changed_and_canceled_in_decimals(people: list[Person]) -> None:
    anna = people[0]

    code, placed = anna("place", "BTC-USDT", "buy", "0.5", "64000.05", "--client-id", "7")
    _, orders = anna("orders")
    _, balances = anna("balances")
    changed, replaced = anna("replace", "BTC-USDT", "--client-id", "7", "--price", "63000")
    canceled, ended = anna("cancel", "BTC-USDT", "--order-id", str(placed[0]["order_id"]))
    _, left = anna("orders", "BTC-USDT")

    assert (code, changed, canceled) == (OK, OK, OK)
    assert placed[0]["report"] == "OrderAccepted"
    assert [(row["price"], row["quantity"], row["client_id"]) for row in orders] == [("64000.05", "0.5", 7)]
    held = {row["asset"]: row["held"] for row in balances}
    assert held == {"BTC": "0", "USDT": "32000.025"}
    assert (replaced[0]["report"], replaced[0]["price"]) == ("OrderReplaced", "63000")
    assert (ended[0]["report"], ended[0]["reason"], ended[0]["canceled"]) == ("OrderCanceled", "client", "0.5")
    assert left == []


def test_a_market_order_trades_and_both_see_it(people: list[Person]) -> None:
    anna, bert = people
    anna("place", "BTC-USDT", "sell", "1", "100")

    code, rows = bert("place", "BTC-USDT", "buy", "0.25", "100", "--time-in-force", "ioc")

    assert code == OK
    executed = next(row for row in rows if row["report"] == "OrderExecuted")
    assert (executed["price"], executed["quantity"], executed["side"]) == ("100", "0.25", "buy")
    _, balances = bert("balances")
    assert {row["asset"]: row["available"] for row in balances} == {"BTC": "10.25", "USDT": "999975"}
    _, canceled = anna("cancel-all")
    assert canceled[-1]["canceled_orders"] == 1


def test_refusal_has_its_exit_code_and_reason(people: list[Person]) -> None:
    code, rows = people[0]("place", "BTC-USDT", "buy", "1000", "64000")

    assert code == REFUSED
    assert rows[0]["report"] == "OrderRejected"
    assert rows[0]["code"].startswith("insufficient_balance")
    assert rows[0]["limit"] == "1000000 USDT"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["place", "BTC-USDT", "buy", "0.0005", "64000"], "lot"),
        (["place", "BTC-USDT", "buy", "1", "64000.01"], "tick"),
        (["place", "BTC-USDT", "buy", "one", "64000"], "quantity"),
        (["place", "DOGE-USDT", "buy", "1", "1"], "BTC-USDT"),
    ],
)
def test_input_that_makes_no_sense_is_refused_here(people: list[Person], arguments: list[str], named: str) -> None:
    code, rows = people[0](*arguments)

    assert code == BAD_INPUT
    assert named in rows[0]["error"]


def test_no_exchange_and_no_key_are_told_apart(people: list[Person], tmp_path: Path) -> None:
    anna = people[0]

    assert anna("orders", port=1)[0] == UNAVAILABLE
    anna.key_file = tmp_path / "none.pem"
    assert anna("orders")[0] == NO_INPUT


def test_watch_prints_what_happens_to_resting_orders(people: list[Person]) -> None:
    anna, bert = people
    anna("place", "BTC-USDT", "sell", "1", "100")
    logons = anna.site.server.counters()["logons"]
    watching = threading.Thread(target=anna.call, args=("watch", "--seconds", "2"))

    async def trade() -> None:
        address = ("127.0.0.1", bert.site.port)
        async with BullringClient([address], session_id=bert.session, signer=load_signer(bert.key_file)) as client:
            bound = anna.site.server.counters
            while bound()["logons"] < logons + 2:  # before anna's the fill would not be hers to watch
                await asyncio.sleep(0.01)
            client.new_order(instrument_id=1, side=Side.BUY, quantity=3, price=2000)
            async for report in client.reports():
                if isinstance(report, Report) and isinstance(report.message, OrderExecuted):
                    return

    watching.start()
    asyncio.run(asyncio.wait_for(trade(), 10))
    watching.join(10)

    rows = anna.printed()
    assert [(row["report"], row["side"], row["quantity"]) for row in rows if row["number"]] == [
        ("OrderExecuted", "sell", "0.003")
    ]


def test_every_kind_of_order_is_placed_by_words(people: list[Person]) -> None:
    anna = people[0]
    pair = "BTC-USDT"
    anna("place", pair, "sell", "0.001", "100")
    people[1]("place", pair, "buy", "0.001", "100")  # now there is a last price
    placed = [
        anna("place", pair, "buy", "1", "90", "--time-in-force", "gtd", "--expire", "2090-01-01T00:00:00Z"),
        anna("place", pair, "buy", "1", "90", "--display", "0.2", "--first-display", "0.1", "--tag", "4"),
        anna("place", pair, "buy", "1", "121", "--type", "stop-limit", "--stop-price", "120"),
        anna("place", pair, "sell", "1", "130", "--type", "take-profit-limit", "--trailing-bps", "50"),
        anna("place", pair, "buy", "1", "95", "--client-id", "9", "--client-text", "hello", "--stp", "cancel-both"),
        anna("quote", pair, "--bid", "80:1", "--ask", "140:1", "--set", "3", "--quote-id", "5"),
        anna("list", "oco", pair, "sell 1 150 --post-only", "sell 1 55 --type stop-limit --stop-price 60"),
        anna("amend", pair, "--client-id", "9", "--quantity", "0.5"),
        anna("status", pair, "--client-id", "9"),
        anna("cancel-replace", pair, "buy 0.4 96 --client-id 10", "--client-id", "9"),
        anna("replace", pair, "--client-id", "10", "--display", "0.1"),
        anna("cancel", pair, "--client-id", "10", "--only", "new"),
        anna("cancel-all", pair, "--lock"),
        anna("cancel-all", "--unlock"),
    ]

    assert [code for code, _ in placed] == [OK] * len(placed)
    first = [rows[0]["report"] for _, rows in placed]
    assert first[:9] == [*["OrderAccepted"] * 5, "QuoteAck", "ListStatus", "OrderReplaced", "OrderStatus"]
    assert placed[2][1][0]["status"] == "untriggered"
    assert placed[8][1][0]["quantity"] == "0.5"
    assert [row["report"] for row in placed[9][1]] == ["OrderCanceled", "OrderAccepted"]
    canceled = [row for row in placed[12][1] if row["report"] == "MassCancelReport"]
    assert canceled[-1]["canceled_orders"] == 8


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["place", "BTC-USDT", "buy", "1", "90", "--time-in-force", "gtd", "--expire", "soon"], BAD_INPUT, "--expire"),
        (["list", "oco", "BTC-USDT", "sell 1 150"], USAGE, "2 legs"),
        (["list", "oco", "BTC-USDT", "sell 1 150", "hold 1 150"], USAGE, "order: argument side"),
        (["quote", "BTC-USDT", "--bid", "80"], USAGE, "PRICE:QTY"),
        (["replace", "BTC-USDT", "--client-id", "1"], USAGE, "--price"),
    ],
)
def test_what_is_no_order_is_named(people: list[Person], arguments: list[str], code: int, named: str) -> None:
    got, rows = people[0](*arguments)

    assert got == code
    assert named in rows[0]["error"]


def test_a_quote_refused_on_both_sides_ends_with_its_code(people: list[Person]) -> None:
    code, rows = people[0]("quote", "BTC-USDT", "--bid", "80:1", "--ask", "70:1")

    assert code == REFUSED
    assert rows[0]["bid_code"].startswith("invalid_quote")


def test_a_running_exchange_takes_orders_over_tls(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    tls = free_port()
    settings = {"tls_listen": f'"127.0.0.1:{tls}"', "tls_certificate": f'"{certificate}"', "tls_key": f'"{key}"'}
    config = tmp_path / "own.toml"
    config.write_text("[gateway.binary]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    with Exchange(tmp_path / "data", "--quiet-market", "--config", str(config)) as exchange:
        account = exchange.command("account", "create")[0]["account"]
        exchange.command("account", "deposit", str(account), "--fund", "USDT=1000")
        made = exchange.command("key", "create", "--account", str(account))[0]
        session, secret = str(made["session"]), made["secret_saved_in"]
        words = ["--session", session, "--key-file", secret, "--tls", str(certificate), "--json"]
        done = bullring("client", "--address", f"127.0.0.1:{tls}", *words, "balances")

    assert done.returncode == OK, done.stdout + done.stderr
    assert json.loads(done.stdout) == {"asset": "USDT", "available": "1000", "held": "0"}
