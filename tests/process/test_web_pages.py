"""The pages in a real Chromium: a person logs in, trades, sees it; the operator sees the exchange. Skipped without a
Chromium (Debian: apt-get install chromium). BULLRING_SCREENSHOTS names a folder for pictures to look at.
"""

import json
import os
import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright import sync_api

from tests.kit.exchange import Exchange
from tests.kit.web_client import WebClient

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
]
TIMEOUT_MS = 120_000  # Chromium draws without a graphics card, on a machine that others use too
DESKTOP, PHONE = {"width": 1400, "height": 860}, {"width": 390, "height": 844}


@dataclass
class Site:
    exchange: Exchange
    base: str
    key: dict[str, Any]
    maker: WebClient


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    flags = ("--set", "gateway.feed.enabled=false", "--set", "ledger.reconcile_s=2")
    with Exchange(tmp_path_factory.mktemp("pages") / "data", *flags, web=1) as exchange:
        base = exchange.ready["web"]["page"].rstrip("/")
        keys = []
        for _ in range(2):
            account = exchange.command("account", "create", "--fund", "BTC=10", "--fund", "USDT=1000000")[0]["account"]
            keys.append(exchange.command("key", "create", "--account", str(account), "--kind", "hmac")[0])
        yield Site(exchange, base, keys[0], WebClient(base, keys[1]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on which no error may appear, in scripts or on the console."""
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
    yield page
    context.close()
    # A refused order is an answer with status 400, which the console tells of too.
    assert [each for each in faults if "the server responded with a status of 4" not in each] == []


def picture(page: Any, name: str) -> None:
    folder = os.environ.get("BULLRING_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def log_in(page: Any, site: Site) -> None:
    page.keyboard.press("l")
    page.fill("#key", site.key["api_key"])
    page.fill("#secret", site.key["api_secret"])
    page.click("#login-do")
    sync_api.expect(page.locator("#login-open")).to_have_text("Log out", timeout=TIMEOUT_MS)


def test_market_is_shown_live(page: Any, site: Site) -> None:
    page.goto(site.base)
    expect = sync_api.expect
    expect(page.locator("#link")).to_have_text("live", timeout=TIMEOUT_MS)
    expect(page.locator("#bids tr").nth(4)).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.locator("#asks tr").nth(4)).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.locator("#tape tr").nth(4)).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.locator("#last")).to_have_text(re.compile(r"^\d+\.\d+$"), timeout=TIMEOUT_MS)
    expect(page.locator("#change")).to_contain_text("%", timeout=TIMEOUT_MS)
    assert page.evaluate("candles.data().length") > 0
    best_bid, best_ask = (page.locator(at).first.inner_text() for at in ("#bids td", "#asks tr:last-child td"))
    assert float(best_bid) < float(best_ask)
    picture(page, "trading")


def test_person_trades_by_keyboard(page: Any, site: Site) -> None:
    expect = sync_api.expect
    page.goto(f"{site.base}#BTCUSDT")
    expect(page.locator("#link")).to_have_text("live", timeout=TIMEOUT_MS)
    log_in(page, site)
    expect(page.locator("#private")).to_contain_text("No open orders.", timeout=TIMEOUT_MS)
    page.keyboard.press("b")
    page.keyboard.type("0.01")
    page.fill("#price", "90000")
    page.keyboard.press("Enter")
    expect(page.locator("#result")).to_contain_text("NEW", timeout=TIMEOUT_MS)
    expect(page.locator("[data-cancel]")).to_have_count(1, timeout=TIMEOUT_MS)
    picture(page, "order")
    page.click("[data-cancel]")
    expect(page.locator("#private")).to_contain_text("No open orders.", timeout=TIMEOUT_MS)

    page.select_option("#type", "MARKET")
    page.fill("#quantity", "0.01")
    page.click("#submit")
    expect(page.locator("#result")).to_contain_text("FILLED", timeout=TIMEOUT_MS)
    page.locator("body").press("Escape")
    page.keyboard.press("2")
    expect(page.locator("#private")).to_contain_text("taker", timeout=TIMEOUT_MS)
    page.keyboard.press("3")
    expect(page.locator("#private")).to_contain_text("USDT", timeout=TIMEOUT_MS)
    picture(page, "balances")


def test_each_type_of_order_can_be_sent(page: Any, site: Site) -> None:
    expect = sync_api.expect
    page.goto(f"{site.base}#BTCUSDT")
    expect(page.locator("#last")).to_have_text(re.compile(r"^\d+\.\d+$"), timeout=TIMEOUT_MS)
    log_in(page, site)
    page.click("#sell")
    cases = [
        ("LIMIT_MAKER", {"price": "109000"}),
        ("STOP_LOSS", {"stop": "92000"}),
        ("STOP_LOSS_LIMIT", {"price": "91900", "stop": "92000"}),
        ("TAKE_PROFIT", {"stop": "108000"}),
        ("TAKE_PROFIT_LIMIT", {"price": "108100", "stop": "108000"}),
        ("OCO", {"price": "109000", "stop": "92000"}),
    ]
    for kind, fields in cases:
        page.select_option("#type", kind)
        for name, value in {"quantity": "0.01", **fields}.items():
            page.fill(f"#{name}", value)
        page.click("#submit")
        expect(page.locator("#result")).to_have_text(re.compile("^(order|list) [0-9]+"), timeout=TIMEOUT_MS)
    expect(page.locator("[data-cancel]")).to_have_count(7, timeout=TIMEOUT_MS)
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#cancel-all")
    expect(page.locator("#private")).to_contain_text("No open orders.", timeout=TIMEOUT_MS)


def test_refusals_are_clear(page: Any, site: Site) -> None:
    expect = sync_api.expect
    page.goto(f"{site.base}#BTCUSDT")
    expect(page.locator("#link")).to_have_text("live", timeout=TIMEOUT_MS)
    page.keyboard.press("l")
    page.fill("#key", site.key["api_key"])
    page.fill("#secret", "wrong")
    page.click("#login-do")
    expect(page.locator("#login-error")).to_contain_text("-1022", timeout=TIMEOUT_MS)
    page.click("#login-cancel")
    log_in(page, site)
    page.fill("#quantity", "0.01")
    page.fill("#price", "90000.001")
    page.click("#submit")
    expect(page.locator("#result")).to_contain_text("PRICE_FILTER", timeout=TIMEOUT_MS)
    expect(page.locator("#result")).to_contain_text("nearest valid 90000 or 90000.01", timeout=TIMEOUT_MS)
    page.fill("#price", "")
    page.click("#submit")
    expect(page.locator("#result")).to_have_text("price is missing", timeout=TIMEOUT_MS)


def test_fits_a_phone(page: Any, site: Site) -> None:
    page.set_viewport_size(PHONE)
    for path in ("/", "/operator"):
        page.goto(site.base + path)
        sync_api.expect(page.locator("body")).to_contain_text("Bullring")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        picture(page, f"phone{path.replace('/', '-')}")


def test_operator_sees_the_exchange(page: Any, site: Site) -> None:
    expect = sync_api.expect
    page.goto(f"{site.base}/operator")
    expect(page.locator("#running")).to_have_text("running", timeout=TIMEOUT_MS)
    expect(page.locator("#processes")).to_contain_text("web-0")
    expect(page.locator("#rings")).to_contain_text("log")
    expect(page.locator("#markets")).to_contain_text("TRADING")
    expect(page.locator("#alerts")).to_contain_text("Nothing to worry about.")
    expect(page.locator("#what option").first).to_be_attached(timeout=TIMEOUT_MS)
    several = re.compile(r"^([2-9]|\d\d+)$")
    expect(page.locator("#updated")).to_have_attribute("data-samples", several, timeout=TIMEOUT_MS)
    expect(page.locator("#balanced")).to_have_text("every asset sums to zero", timeout=TIMEOUT_MS)
    expect(page.locator("#trial")).to_contain_text("treasury")
    expect(page.locator("#reconciliations td:nth-child(5)").first).to_have_text("0", timeout=TIMEOUT_MS)
    expect(page.locator("#ledger")).to_contain_text("hash marks of the exchange agree")
    picture(page, "operator")


def test_operator_is_told_of_a_process_that_died(page: Any, site: Site) -> None:
    expect = sync_api.expect
    page.goto(f"{site.base}/operator")
    expect(page.locator("#processes")).to_contain_text("history", timeout=TIMEOUT_MS)
    os.kill(site.exchange.pid("history"), signal.SIGKILL)
    expect(page.locator("#alerts")).to_contain_text("Process history was started again 1 times.", timeout=TIMEOUT_MS)
    picture(page, "operator-alert")


def test_operators_data_is_for_this_machine_only(site: Site) -> None:
    def status(**headers: str) -> int:
        request = urllib.request.Request(f"{site.base}/operator/data", headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                assert json.loads(answer.read())["facts"]["running"] is True
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status() == 200
    assert status(Host="evil.example") == 401
    assert status(**{"X-Forwarded-For": "203.0.113.7"}) == 401
