"""REST against a whole exchange of processes: orders, errors, keys, limits, what happens after a restart."""

import concurrent.futures
import gzip
import json
import os
import signal
import socket
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit import eventually
from tests.kit.exchange import Exchange
from tests.kit.web_client import Answer, WebClient

ROOT = Path(__file__).resolve().parents[2]
QUIET = ("--quiet-market", "--set", "gateway.feed.enabled=false", "--set", "ledger.enabled=false")


@dataclass
class Site:
    """An exchange with two trading accounts; HMAC keys but where named otherwise."""

    exchange: Exchange
    base: str
    anna: WebClient
    ben: WebClient
    account: int
    ben_account: int

    def key(self, account: int, *arguments: str) -> WebClient:
        line = self.exchange.command("key", "create", "--account", str(account), *arguments)[0]
        return WebClient(self.base, line)


def make_site(exchange: Exchange) -> Site:
    base = exchange.ready["web"]["rest"].removesuffix("/api/v3")
    accounts, clients = [], []
    for _ in range(2):
        funds = ("--fund", "BTC=100", "--fund", "ETH=1000", "--fund", "SOL=1000", "--fund", "USDT=10000000")
        account = exchange.command("account", "create", *funds)[0]["account"]
        line = exchange.command("key", "create", "--account", str(account), "--kind", "hmac")[0]
        accounts.append(account)
        clients.append(WebClient(base, line))
    return Site(exchange, base, clients[0], clients[1], accounts[0], accounts[1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    # On a fast machine all tests together take a minute's weight; limits have tests of their own.
    roomy = ("--set", "gateway.web.weight_per_minute=600000")
    with Exchange(tmp_path_factory.mktemp("web") / "data", *QUIET, *roomy, web=2) as exchange:
        yield make_site(exchange)


def limit(side: str, price: str, quantity: str = "0.1", symbol: str = "BTCUSDT", **more: str) -> dict[str, str]:
    order = {"symbol": symbol, "side": side, "type": "LIMIT", "timeInForce": "GTC", "price": price}
    return {**order, "quantity": quantity, **more}


def test_order_lives_from_placing_to_cancel(site: Site) -> None:
    placed = site.anna.call("POST", "/api/v3/order", **limit("BUY", "95000", newClientOrderId="my-order.1"))
    assert placed.status == 200
    assert placed.body["status"] == "NEW"
    order_id = placed.body["orderId"]

    seen = site.anna.call("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="my-order.1").body
    assert (seen["orderId"], seen["price"], seen["isWorking"]) == (order_id, "95000.00000000", True)
    assert order_id in [row["orderId"] for row in site.anna.call("GET", "/api/v3/openOrders").body]

    canceled = site.anna.call("DELETE", "/api/v3/order", body=True, symbol="BTCUSDT", orderId=order_id).body
    assert (canceled["status"], canceled["origClientOrderId"]) == ("CANCELED", "my-order.1")
    assert site.anna.call("GET", "/api/v3/order", symbol="BTCUSDT", orderId=order_id).body["status"] == "CANCELED"
    again = site.anna.call("DELETE", "/api/v3/order", symbol="BTCUSDT", orderId=order_id)
    assert (again.status, again.code, again.body["msg"]) == (400, -2011, "Unknown order sent.")


def test_trade_is_the_same_for_both_sides(site: Site) -> None:
    maker = site.ben.call("POST", "/api/v3/order", **limit("SELL", "101000", "0.3")).body
    taker = site.anna.call("POST", "/api/v3/order", **limit("BUY", "101000", "0.3")).body

    assert taker["status"] == "FILLED"
    [fill] = taker["fills"]
    assert (fill["price"], fill["qty"]) == ("101000.00000000", "0.30000000")
    [mine] = site.anna.call("GET", "/api/v3/myTrades", symbol="BTCUSDT", orderId=taker["orderId"]).body
    [theirs] = site.ben.call("GET", "/api/v3/myTrades", symbol="BTCUSDT", orderId=maker["orderId"]).body
    assert (mine["id"], mine["isMaker"], mine["isBuyer"]) == (fill["tradeId"], False, True)
    assert (theirs["id"], theirs["isMaker"], theirs["isBuyer"]) == (fill["tradeId"], True, False)
    public = site.anna.call("GET", "/api/v3/trades", symbol="BTCUSDT", limit=1).body
    assert public[0]["id"] == fill["tradeId"]


def test_money_is_conserved_over_a_session_of_orders(site: Site) -> None:
    def totals() -> dict[str, int]:
        sums: dict[str, int] = {}
        for client in (site.anna, site.ben):
            for row in client.call("GET", "/api/v3/account").body["balances"]:
                units = sum(int(row[name].replace(".", "")) for name in ("free", "locked"))
                sums[row["asset"]] = sums.get(row["asset"], 0) + units
        return sums

    before = totals()
    for index in range(10):
        price = str(3900 + index)
        site.ben.call("POST", "/api/v3/order", **limit("SELL", price, "0.5", "ETHUSDT"))
        taker = site.anna.call("POST", "/api/v3/order", **limit("BUY", price, "0.7", "ETHUSDT")).body
        assert float(taker["executedQty"]) >= 0.5
    site.anna.call("DELETE", "/api/v3/openOrders", symbol="ETHUSDT")
    site.ben.call("DELETE", "/api/v3/allOpenOrders")

    assert totals() == before


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"symbol": "NOPE"}, -1121, "Invalid symbol."),
        ({"side": "HOLD"}, -1117, "Invalid side."),
        ({"type": "MAGIC"}, -1116, "Invalid orderType."),
        ({"timeInForce": "LATER"}, -1115, "Invalid timeInForce."),
        ({"quantity": "0.000001"}, -1013, "Filter failure: LOT_SIZE"),
        ({"price": "95000.001"}, -1013, "Filter failure: PRICE_FILTER"),
        ({"price": "200000"}, -1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
        ({"quantity": "1e5"}, -1100, "Illegal characters found in parameter 'quantity'"),
        ({"quantity": "5000"}, -2010, "Account has insufficient balance for requested action."),
        ({"stopPrice": "94000"}, -1106, "Parameter 'stopPrice' sent when not required."),
        ({"price": ""}, -1105, "Parameter 'price' was empty."),
        ({"newClientOrderId": "has space"}, -1100, "Illegal characters found in parameter 'newClientOrderId'"),
        ({"icebergQty": "5"}, -2010, "IcebergQty exceeds QTY."),
    ],
)
def test_wrong_order_is_refused_with_code_and_text(site: Site, change: dict[str, str], code: int, text: str) -> None:
    answer = site.anna.call("POST", "/api/v3/order", **{**limit("BUY", "95000"), **change})

    assert (answer.status, answer.code) == (400, code)
    assert answer.body["msg"].startswith(text)


def test_filter_failure_says_field_value_and_nearest_valid(site: Site) -> None:
    answer = site.anna.call("POST", "/api/v3/order", **limit("BUY", "95000.005"))

    details = answer.body["details"]
    assert details["filter"] == "PRICE_FILTER"
    assert (details["field"], details["value"]) == ("price", "95000.005")
    assert details["nearest"] == ["95000.00000000", "95000.01000000"]
    nearest = site.anna.call("POST", "/api/v3/order/test", **limit("BUY", details["nearest"][0]))
    assert (nearest.status, nearest.body) == (200, {})


def test_exchange_info_is_what_the_engine_enforces(site: Site) -> None:
    [info] = site.anna.call("GET", "/api/v3/exchangeInfo", symbol="ETHUSDT").body["symbols"]
    filters = {row["filterType"]: row for row in info["filters"]}
    assert info["filters"][0]["filterType"] == "PRICE_FILTER"
    step, tick = filters["LOT_SIZE"]["stepSize"], filters["PRICE_FILTER"]["tickSize"]
    assert (step, tick) == ("0.00010000", "0.01000000")

    smallest = site.anna.call("POST", "/api/v3/order", **limit("BUY", "3000.01", step, "ETHUSDT"))
    assert smallest.status == 200
    site.anna.call("DELETE", "/api/v3/order", symbol="ETHUSDT", orderId=smallest.body["orderId"])
    too_small = site.anna.call("POST", "/api/v3/order", **limit("BUY", "3000.01", "0.00005", "ETHUSDT"))
    assert too_small.body["msg"] == "Filter failure: LOT_SIZE"


@pytest.mark.parametrize("kind", ["hmac", "ed25519", "rsa"])
def test_each_kind_of_key_signs_in_query_body_and_both(site: Site, kind: str) -> None:
    client = site.key(site.account, "--kind", kind)

    assert client.call("GET", "/api/v3/account").status == 200
    assert client.call("POST", "/api/v3/order/test", body=True, **limit("BUY", "95000")).status == 200
    query, body = "symbol=BTCUSDT&side=BUY&type=LIMIT", f"price=95000&quantity=1&timeInForce=GTC&timestamp={now()}"
    signature = urllib.parse.quote(client.sign(query + body), safe="")
    split = client.raw("POST", "/api/v3/order/test", query, f"{body}&signature={signature}".encode())
    assert (split.status, split.body) == (200, {})


def now() -> int:
    return int(time.time() * 1000)


def test_forged_signatures_are_refused(site: Site) -> None:
    good = site.anna.signed({"symbol": "BTCUSDT"})
    other = site.ben.signed({"symbol": "BTCUSDT"})
    head, _, signature = good.rpartition("=")
    flipped = "0" if signature[0] != "0" else "1"
    forged = {
        "changed parameter": good.replace("BTCUSDT", "ETHUSDT"),
        "added parameter": f"limit=5&{good}",
        "changed signature": f"{head}={flipped}{signature[1:]}",
        "another's signature": other,
        "no signature": good.rpartition("&")[0],
        "empty signature": f"{head}=",
    }

    answers = {name: site.anna.raw("GET", "/api/v3/openOrders", query) for name, query in forged.items()}

    assert site.anna.raw("GET", "/api/v3/openOrders", good).status == 200
    codes = {name: answer.code for name, answer in answers.items()}
    refused = {name: -1102 if name in ("no signature", "empty signature") else -1022 for name in forged}
    assert codes == refused


@pytest.mark.parametrize(
    ("shift_ms", "window", "text"),
    [
        (-6000, None, "Timestamp for this request is outside of the recvWindow."),
        (-61000, "60000", "Timestamp for this request is outside of the recvWindow."),
        (60_000, None, "Timestamp for this request was 1000ms ahead of the server's time."),
        (0, "60001", "recvWindow must be less than or equal to 60000."),
    ],
)
def test_request_outside_of_its_time_is_refused(site: Site, shift_ms: int, window: str | None, text: str) -> None:
    more = {} if window is None else {"recvWindow": window}

    answer = site.anna.call("GET", "/api/v3/account", timestamp=now() + shift_ms, **more)

    assert answer.status == 400
    assert answer.body["msg"] == text
    if answer.code == -1021:
        assert abs(answer.body["details"]["serverTime"] - now()) < 60_000


def test_replayed_request_is_refused_once_its_window_is_over(site: Site) -> None:
    query = site.anna.signed({})
    assert site.anna.raw("GET", "/api/v3/account", query).status == 200

    late = eventually(lambda: _refused(site.anna.raw("GET", "/api/v3/account", query)), deadline_s=60)

    assert late == -1021


def _refused(answer: object) -> int | None:
    return answer.code if answer.status != 200 else None  # type: ignore[attr-defined]


def test_permission_matrix(site: Site) -> None:
    reader = site.key(site.account, "--kind", "hmac", "--permissions", "read")
    trader = site.key(site.account, "--kind", "hmac", "--permissions", "trade")
    stranger = WebClient(site.base, {"api_key": "nobody", "api_secret": "none", "kind": "hmac-sha256"})
    nobody = WebClient(site.base)
    reads = [("GET", "/api/v3/account"), ("GET", "/api/v3/openOrders"), ("GET", "/api/v3/allOrders"),
             ("GET", "/api/v3/myTrades"), ("GET", "/sapi/v1/capital/config/getall")]  # fmt: skip
    trades = [("POST", "/api/v3/order/test"), ("DELETE", "/api/v3/openOrders"), ("POST", "/api/v3/countdownCancelAll")]
    order = limit("BUY", "95000", countdownTime="0")

    def outcome(client: WebClient, method: str, path: str) -> str:
        answer = client.call(method, path, **order)
        return "done" if answer.status == 200 or answer.body["code"] == -2011 else f"{answer.status} {answer.code}"

    assert {outcome(reader, *call) for call in reads} == {"done"}
    assert {outcome(reader, *call) for call in trades} == {"401 -2015"}
    assert {outcome(trader, *call) for call in reads} == {"401 -2015"}
    assert {outcome(trader, *call) for call in trades} == {"done"}
    assert {outcome(stranger, *call) for call in reads + trades} == {"401 -2015"}
    assert {outcome(nobody, *call) for call in reads + trades} == {"401 -2014"}
    assert {outcome(client, "GET", "/api/v3/ping") for client in (reader, trader, stranger, nobody)} == {"done"}


def test_revoked_key_is_refused_at_once(site: Site) -> None:
    client = site.key(site.account, "--kind", "hmac")
    assert client.call("GET", "/api/v3/account").status == 200

    site.exchange.command("key", "revoke", client.key["key_id"])

    assert eventually(lambda: client.call("GET", "/api/v3/account").status == 401, deadline_s=60)


def test_orders_of_others_are_out_of_reach(site: Site) -> None:
    theirs = site.ben.call("POST", "/api/v3/order", **limit("BUY", "94000", newClientOrderId="bens")).body

    for names in ({"orderId": theirs["orderId"]}, {"origClientOrderId": "bens"}):
        assert site.anna.call("GET", "/api/v3/order", symbol="BTCUSDT", **names).code == -2013
        assert site.anna.call("DELETE", "/api/v3/order", symbol="BTCUSDT", **names).code == -2011
    assert site.ben.call("GET", "/api/v3/order", symbol="BTCUSDT", orderId=theirs["orderId"]).body["status"] == "NEW"
    mine = {row["orderId"] for row in site.anna.call("GET", "/api/v3/allOrders", symbol="BTCUSDT").body}
    assert theirs["orderId"] not in mine
    site.ben.call("DELETE", "/api/v3/openOrders", symbol="BTCUSDT")


def test_repeat_with_the_same_key_is_carried_out_once(site: Site) -> None:
    order = limit("BUY", "93000", idempotencyKey="pay-once")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: site.anna.call("POST", "/api/v3/order", **order), range(16)))

    assert {answer.status for answer in answers} == {200}
    assert len({answer.body["orderId"] for answer in answers}) == 1
    assert sum("duplicate" not in answer.body for answer in answers) == 1
    open_orders = site.anna.call("GET", "/api/v3/openOrders", symbol="BTCUSDT").body
    assert [row["price"] for row in open_orders] == ["93000.00000000"]
    site.anna.call("DELETE", "/api/v3/openOrders", symbol="BTCUSDT")


def test_order_after_its_deadline_is_refused_and_never_placed(site: Site) -> None:
    answer = site.anna.call(
        "POST", "/api/v3/order", timestamp=now() - 5001, recvWindow="5000",
        **limit("BUY", "92000", newClientOrderId="too-late"),
    )  # fmt: skip

    assert (answer.status, answer.code) == (400, -1021)
    assert site.anna.call("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="too-late").code == -2013


def test_order_that_waits_past_its_deadline_is_refused_by_the_sequencer_and_never_placed(site: Site) -> None:
    """The core stands still while both orders wait for it; the control has a later deadline and is placed."""
    core = site.exchange.pid("fused")

    def place(client_id: str, window_ms: int) -> Answer:
        order = limit("BUY", "92000", newClientOrderId=client_id)
        return site.anna.call("POST", "/api/v3/order", timestamp=now(), recvWindow=str(window_ms), **order)

    def seen(client_id: str) -> Answer:
        return site.anna.call("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId=client_id)

    for attempt in range(5):  # on a busy machine the gateway itself may find it late
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            os.kill(core, signal.SIGSTOP)
            try:
                late = pool.submit(place, f"late-{attempt}", 1000)
                control = pool.submit(place, f"control-{attempt}", 30_000)
                time.sleep(1.5)  # the deadline itself, not a wait for somebody
            finally:
                os.kill(core, signal.SIGCONT)
        assert (late.result().status, late.result().code) == (400, -1021)
        assert control.result().status == 200
        assert seen(f"late-{attempt}").code == -2013
        assert seen(f"control-{attempt}").status == 200
        if late.result().body["details"].get("appliedBy") == "sequencer":
            break
    else:
        raise AssertionError(f"the sequencer was never the one that refused: {late.result()}")
    site.anna.call("DELETE", "/api/v3/allOpenOrders")


def test_query_holds_what_was_answered_whichever_worker_is_asked(site: Site) -> None:
    for index in range(20):
        placed = site.anna.call("POST", "/api/v3/order", **limit("BUY", str(90000 + index))).body
        assert site.anna.call("GET", "/api/v3/order", symbol="BTCUSDT", orderId=placed["orderId"]).status == 200
    assert len(site.anna.call("DELETE", "/api/v3/openOrders", symbol="BTCUSDT").body) == 20


def test_burst_of_concurrent_orders_gets_distinct_ids_and_all_are_known(site: Site) -> None:
    def place(index: int) -> int:
        return int(site.anna.call("POST", "/api/v3/order", **limit("BUY", str(80000 + index), "0.01")).body["orderId"])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(place, range(80)))

    assert len(set(ids)) == 80
    assert {row["orderId"] for row in site.anna.call("GET", "/api/v3/openOrders", symbol="BTCUSDT").body} == set(ids)
    assert len(site.anna.call("DELETE", "/api/v3/openOrders", symbol="BTCUSDT").body) == 80


def test_batch_answers_each_order_by_itself(site: Site) -> None:
    orders = [limit("BUY", "91000"), limit("BUY", "91000.001"), limit("BUY", "91001")]

    answer = site.anna.call("POST", "/api/v3/batchOrders", batchOrders=json.dumps(orders))

    assert [row.get("status", row.get("code")) for row in answer.body] == ["NEW", -1013, "NEW"]
    names = [{"symbol": "BTCUSDT", "orderId": row["orderId"]} for row in answer.body if "orderId" in row]
    ended = site.anna.call("DELETE", "/api/v3/batchOrders", batchOrders=json.dumps(names))
    assert [row["status"] for row in ended.body] == ["CANCELED", "CANCELED"]


def test_dead_mans_switch_cancels_unless_renewed(site: Site) -> None:
    """Of three equal timers one is renewed, one is stopped, and the last, which ends after them, is left alone."""
    placed = {
        symbol: site.anna.call("POST", "/api/v3/order", **limit("BUY", price, symbol=symbol)).body["orderId"]
        for symbol, price in (("BTCUSDT", "95000"), ("ETHUSDT", "3900"), ("SOLUSDT", "190"))
    }

    def countdown(symbol: str, milliseconds: int) -> None:
        done = site.anna.call("POST", "/api/v3/countdownCancelAll", symbol=symbol, countdownTime=milliseconds)
        assert done.status == 200, done

    def status(symbol: str) -> str:
        answer = site.anna.call("GET", "/api/v3/order", symbol=symbol, orderId=placed[symbol])
        return str(answer.body["status"])

    countdown("BTCUSDT", 6000)
    countdown("BTCUSDT", 600_000)
    countdown("ETHUSDT", 6000)
    countdown("ETHUSDT", 0)
    countdown("SOLUSDT", 6000)
    assert eventually(lambda: status("SOLUSDT") == "CANCELED", deadline_s=60)
    assert (status("BTCUSDT"), status("ETHUSDT")) == ("NEW", "NEW")
    countdown("BTCUSDT", 1)  # renewed again, and not once more
    assert eventually(lambda: status("BTCUSDT") == "CANCELED", deadline_s=60)
    assert status("ETHUSDT") == "NEW"
    site.anna.call("DELETE", "/api/v3/allOpenOrders")


def test_cancel_replace_tells_halves_apart(site: Site) -> None:
    first = site.anna.call("POST", "/api/v3/order", **limit("BUY", "88000")).body
    names = {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrderId": first["orderId"]}

    done = site.anna.call("POST", "/api/v3/order/cancelReplace", **limit("BUY", "88001"), **names)
    assert (done.status, done.body["cancelResult"], done.body["newOrderResult"]) == (200, "SUCCESS", "SUCCESS")
    neither = site.anna.call("POST", "/api/v3/order/cancelReplace", **limit("BUY", "88002"), **names)
    assert (neither.status, neither.code) == (400, -2022)
    assert neither.body["data"]["newOrderResult"] == "NOT_ATTEMPTED"
    allowed = {**names, "cancelReplaceMode": "ALLOW_FAILURE"}
    half = site.anna.call("POST", "/api/v3/order/cancelReplace", **limit("BUY", "88003"), **allowed)
    assert (half.status, half.code) == (409, -2021)
    assert half.body["data"]["newOrderResponse"]["status"] == "NEW"
    site.anna.call("DELETE", "/api/v3/openOrders", symbol="BTCUSDT")


def test_large_and_malformed_requests_are_refused_clearly(site: Site) -> None:
    large = site.anna.raw("POST", "/api/v3/order", "", b"x=" + b"a" * 200_000)
    assert (large.status, large.code) == (413, -1104)
    assert site.anna.raw("GET", "/api/v3/nothing").status == 404
    assert site.anna.raw("PATCH", "/api/v3/order").status == 405
    assert site.anna.raw("GET", "/api/v3/depth", "symbol=%ff%fe").code == -1100
    many = "&".join(f"p{index}=1" for index in range(300))
    assert site.anna.raw("GET", "/api/v3/ping", many).code == -1101


def test_times_are_in_microseconds_when_asked_for(site: Site) -> None:
    answer = site.anna.raw("GET", "/api/v3/time", headers={"X-MBX-TIME-UNIT": "MICROSECOND"})
    assert answer.body["serverTime"] > 10**15
    assert site.anna.raw("GET", "/api/v3/time", headers={"X-MBX-TIME-UNIT": "YEAR"}).code == -1194


@pytest.mark.slow
def test_history_and_numbers_survive_a_restart_and_a_lost_store(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Exchange(data, *QUIET, web=1) as exchange:
        site = make_site(exchange)
        site.ben.call("POST", "/api/v3/order", **limit("SELL", "100500", "1"))
        bought = site.anna.call("POST", "/api/v3/order", **limit("BUY", "100500", "0.4", newClientOrderId="kept")).body
        before = [client.call("GET", "/api/v3/account/events").body for client in (site.anna, site.ben)]
        keys = [client.key for client in (site.anna, site.ben)]

    for lost in (False, True):
        if lost:
            for file in (data / "web").glob("history.db*"):
                file.unlink()
        with Exchange(data, *QUIET, web=1) as exchange:
            base = exchange.ready["web"]["rest"].removesuffix("/api/v3")
            anna, ben = (WebClient(base, key) for key in keys)
            seen = anna.call("GET", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="kept").body
            assert (seen["orderId"], seen["status"]) == (bought["orderId"], "FILLED")
            after = [client.call("GET", "/api/v3/account/events").body for client in (anna, ben)]
            assert after == before


def test_compressed_bomb_is_refused(site: Site) -> None:
    bomb = gzip.compress(b"a" * 50_000_000)
    assert len(bomb) < 131_072

    answer = site.anna.raw("POST", "/api/v3/order", "", bomb, {"Content-Encoding": "gzip"})

    assert (answer.status, answer.code) == (413, -1104)


def test_weight_belongs_to_the_key_and_only_the_key(site: Site) -> None:
    first, second = (site.key(site.account, "--kind", "hmac") for _ in range(2))

    used = [first.call("GET", "/api/v3/account").headers["X-MBX-USED-WEIGHT-1M"] for _ in range(2)]
    [row] = [row for row in second.call("GET", "/api/v3/limits").body if row["limitType"] == "REQUEST_WEIGHT"]

    assert int(used[1]) - int(used[0]) == 20 or int(used[1]) == 20  # the minute may have changed
    assert (row["scope"], row["used"]) == ("key", 1)
    assert row["remaining"] == row["limit"] - 1


@pytest.mark.slow
def test_slow_and_silent_connections_are_closed_and_disturb_nobody(site: Site) -> None:
    host, port = site.base.removeprefix("http://").split(":")
    dribbling = [socket.create_connection((host, int(port))) for _ in range(20)]
    for connection in dribbling[:10]:
        connection.sendall(b"GET /api/v3/ping HT")
    dribbling[-1].sendall(b"POST /api/v3/order HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nabc")

    assert site.anna.call("GET", "/api/v3/ping").status == 200
    for connection in dribbling:
        connection.settimeout(60)
        left = connection.recv(4096)
        assert left == b"" or left.startswith(b"HTTP/1.1 408")
        connection.close()
