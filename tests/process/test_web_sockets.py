"""The WebSocket API against a whole exchange: requests, logon, private events, resuming, what is refused."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import aiohttp
import pytest

from tests.kit import eventually
from tests.kit.exchange import Exchange
from tests.kit.web_client import WebClient
from tests.process.test_web_rest import QUIET, Site, limit, make_site

WAIT_S = 60.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Exchange(tmp_path_factory.mktemp("sockets") / "data", *QUIET, web=1) as exchange:
        yield make_site(exchange)


class Socket:
    """One connection: answers by id, events in a list."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = socket
        self.events: list[dict[str, Any]] = []
        self._next = 0

    async def receive(self) -> dict[str, Any]:
        message = await asyncio.wait_for(self.raw.receive(), WAIT_S)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return json.loads(message.data)

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        self._next += 1
        await self.raw.send_json({"id": self._next, "method": method, "params": params or {}})
        while True:
            answer = await self.receive()
            if answer.get("id") == self._next:
                return answer
            self.events.append(answer["event"])

    async def result(self, method: str, params: dict[str, Any] | None = None) -> Any:
        answer = await self.ask(method, params)
        assert answer["status"] == 200, answer
        return answer["result"]

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return all events up to the one that is wanted."""
        while not any(wanted(event) for event in self.events):
            message = await self.receive()
            self.events.append(message["event"])
        return self.events


def session(site: Site, act: Callable[[Socket], Coroutine[Any, Any, None]], query: str = "") -> None:
    async def run() -> None:
        url = site.exchange.ready["web"]["ws_api"] + query
        async with aiohttp.ClientSession() as client, client.ws_connect(url, max_msg_size=0) as socket:
            await act(Socket(socket))

    asyncio.run(run())


def reports(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["e"] == "executionReport"]


def position(event: dict[str, Any]) -> list[tuple[str, str, str]]:
    return sorted((row["a"], row["f"], row["l"]) for row in event["B"])


def test_public_and_signed_requests_answer_as_rest_does(site: Site) -> None:
    async def act(socket: Socket) -> None:
        assert await socket.result("ping") == {}
        assert await socket.result("v3/ping") == {}
        info = await socket.result("exchangeInfo", {"symbol": "BTCUSDT"})
        assert info["symbols"] == site.anna.call("GET", "/api/v3/exchangeInfo", symbol="BTCUSDT").body["symbols"]
        account = await socket.result("account.status", site.anna.socket_params())
        assert account["balances"] == site.anna.call("GET", "/api/v3/account").body["balances"]
        placed = await socket.ask("order.place", site.anna.socket_params(**limit("BUY", "95000")))
        assert placed["status"] == 200
        kinds = {(row["rateLimitType"], row["interval"]) for row in placed["rateLimits"]}
        assert {("ORDERS", "SECOND"), ("ORDERS", "DAY"), ("REQUEST_WEIGHT", "MINUTE")} <= kinds
        names = {"symbol": "BTCUSDT", "orderId": placed["result"]["orderId"]}
        assert (await socket.result("order.status", site.anna.socket_params(**names)))["status"] == "NEW"
        assert (await socket.result("order.cancel", site.anna.socket_params(**names)))["status"] == "CANCELED"

    session(site, act)


@pytest.mark.parametrize("kind", ["hmac", "ed25519", "rsa"])
def test_logon_works_for_each_kind_of_key(site: Site, kind: str) -> None:
    client = site.key(site.account, "--kind", kind)

    async def act(socket: Socket) -> None:
        refused = await socket.ask("account.status")
        assert refused["status"] == 400 and refused["error"]["code"] == -1102
        logged = await socket.result("session.logon", client.socket_params())
        assert logged["apiKey"] == client.key["api_key"]
        assert (await socket.result("account.status"))["accountType"] == "SPOT"
        subscribed = await socket.result("userDataStream.subscribe")
        assert subscribed["subscriptionId"] == 0
        assert (await socket.result("session.subscriptions")) == [{"subscriptionId": 0}]
        assert (await socket.result("userDataStream.unsubscribe", {"subscriptionId": "0"})) == {}
        assert (await socket.result("session.logout"))["apiKey"] is None
        assert (await socket.ask("account.status"))["error"]["code"] == -1102

    session(site, act)


def test_forged_and_foreign_requests_are_refused(site: Site) -> None:
    reader = site.key(site.account, "--kind", "hmac", "--permissions", "read")

    async def act(socket: Socket) -> None:
        forged = site.anna.socket_params(symbol="BTCUSDT") | {"symbol": "ETHUSDT"}
        assert (await socket.ask("openOrders.status", forged))["error"]["code"] == -1022
        stale = site.anna.socket_params(timestamp=int(time.time() * 1000) - 60_000)
        assert (await socket.ask("account.status", stale))["error"]["code"] == -1021
        stranger = {"apiKey": "nobody", "timestamp": int(time.time() * 1000), "signature": "00"}
        answer = await socket.ask("account.status", stranger)
        assert (answer["status"], answer["error"]["code"]) == (401, -2015)
        denied = await socket.ask("order.place", reader.socket_params(**limit("BUY", "95000")))
        assert (denied["status"], denied["error"]["code"]) == (401, -2015)
        assert (await socket.ask("userDataStream.subscribe"))["error"]["code"] == -2015

    session(site, act)


def test_events_of_an_order_come_in_order_and_without_a_gap(site: Site) -> None:
    async def act(socket: Socket) -> None:
        vector = (await socket.result("userDataStream.subscribe.signature", site.anna.socket_params()))["vector"]
        again = await socket.ask("userDataStream.subscribe.signature", site.anna.socket_params())
        assert again["error"]["code"] == -2035
        placed = site.anna.call("POST", "/api/v3/order", **limit("BUY", "95000", "0.5")).body
        site.ben.call("POST", "/api/v3/order", **limit("SELL", "95000", "0.2"))
        site.anna.call("DELETE", "/api/v3/order", symbol="BTCUSDT", orderId=placed["orderId"], newClientOrderId="bye")

        events = await socket.until(lambda event: event.get("x") == "CANCELED" and event["i"] == placed["orderId"])

        mine = [event for event in reports(events) if event["i"] == placed["orderId"]]
        assert [event["x"] for event in mine] == ["NEW", "TRADE", "CANCELED"]
        assert [event["X"] for event in mine] == ["NEW", "PARTIALLY_FILLED", "CANCELED"]
        assert (mine[1]["l"], mine[1]["L"], mine[1]["z"]) == ("0.20000000", "95000.00000000", "0.20000000")
        assert (mine[2]["c"], mine[2]["C"]) == ("bye", placed["clientOrderId"])
        seen = dict(vector)
        for event in events:
            if "accountSeq" in event:
                partition = str(event["partition"])
                assert event["accountSeq"] == seen.get(partition, 0) + 1
                seen[partition] = event["accountSeq"]
        await socket.until(lambda event: event["e"] == "outboundAccountPosition")

    session(site, act)


def test_position_follows_a_change_and_is_what_rest_says(site: Site) -> None:
    async def act(socket: Socket) -> None:
        await socket.result("userDataStream.subscribe.signature", site.anna.socket_params())
        before = site.anna.call("GET", "/api/v3/account").body["balances"]
        site.anna.call("POST", "/api/v3/order", **limit("BUY", "91000", "1"))
        after = site.anna.call("GET", "/api/v3/account").body["balances"]
        assert after != before
        told = sorted((row["asset"], row["free"], row["locked"]) for row in after if row["asset"] in {"BTC", "USDT"})

        # One that an earlier order left behind may come first: a position is a state, it has no number.
        await socket.until(lambda event: event["e"] == "outboundAccountPosition" and position(event) == told)

        site.anna.call("DELETE", "/api/v3/allOpenOrders")

    session(site, act)


def test_nothing_is_lost_over_forced_reconnects_with_resume(site: Site) -> None:
    """Orders go on while the subscriber is away; every event comes exactly once."""
    seen: list[tuple[int, int]] = []
    vector: dict[str, int] = {}

    async def act(socket: Socket) -> None:
        params = site.anna.socket_params()
        if seen:
            params = site.anna.socket_params(after=json.dumps(vector))
        first = await socket.result("userDataStream.subscribe.signature", params)
        if not seen:
            vector.update(first["vector"])
        marker = site.anna.call("POST", "/api/v3/order", **limit("BUY", "70000", "0.01")).body["orderId"]
        await socket.until(lambda event: event.get("i") == marker)
        for event in socket.events:
            if "accountSeq" in event:
                seen.append((event["partition"], event["accountSeq"]))
                vector[str(event["partition"])] = max(event["accountSeq"], vector.get(str(event["partition"]), 0))

    for _ in range(4):
        session(site, act)
        for price in ("70001", "70002", "70003"):
            site.anna.call("POST", "/api/v3/order", **limit("BUY", price, "0.01"))
        site.anna.call("DELETE", "/api/v3/allOpenOrders")

    assert len(seen) == len(set(seen))
    for partition in {partition for partition, _ in seen}:
        numbers = [seq for number, seq in seen if number == partition]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_state_rebuilt_from_events_is_what_rest_says(site: Site) -> None:
    async def act(socket: Socket) -> None:
        await socket.result("userDataStream.subscribe.signature", site.anna.socket_params())
        for index in range(12):
            site.anna.call("POST", "/api/v3/order", **limit("BUY", str(3000 + index), "0.5", "ETHUSDT"))
        site.ben.call("POST", "/api/v3/order", **limit("SELL", "3008", "1.3", "ETHUSDT"))
        marker = site.anna.call("POST", "/api/v3/order", **limit("BUY", "2900", "0.5", "ETHUSDT")).body["orderId"]
        await socket.until(lambda event: event.get("i") == marker)
        rebuilt = {}
        for event in reports(socket.events):
            if event["X"] in ("NEW", "PARTIALLY_FILLED"):
                rebuilt[event["i"]] = (event["p"], event["q"], event["z"], event["X"])
            else:
                rebuilt.pop(event["i"], None)
        rows = site.anna.call("GET", "/api/v3/openOrders", symbol="ETHUSDT").body
        assert rebuilt == {
            row["orderId"]: (row["price"], row["origQty"], row["executedQty"], row["status"]) for row in rows
        }
        site.anna.call("DELETE", "/api/v3/allOpenOrders")

    session(site, act)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", -1135),
        ("[]", -1135),
        ('{"id":1,"method":"no.such"}', -1000),
        ('{"id":{"a":1},"method":"ping"}', -1100),
        ('{"id":1,"method":"depth","params":[]}', -1130),
        ('{"id":1,"method":"depth","params":{}}', -1102),
    ],
)
def test_malformed_requests_are_answered_and_the_socket_lives(site: Site, text: str, code: int) -> None:
    async def act(socket: Socket) -> None:
        await socket.raw.send_str(text)
        answer = await socket.receive()
        assert answer["error"]["code"] == code
        assert await socket.result("ping") == {}

    session(site, act)


def test_oversized_message_ends_the_connection_only(site: Site) -> None:
    async def act(socket: Socket) -> None:
        await socket.raw.send_str('{"id":1,"method":"ping","params":{"x":"' + "a" * 300_000 + '"}}')
        message = await asyncio.wait_for(socket.raw.receive(), WAIT_S)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    session(site, act)
    assert WebClient(site.base).call("GET", "/api/v3/ping").status == 200


def test_times_and_limits_follow_the_url(site: Site) -> None:
    async def act(socket: Socket) -> None:
        answer = await socket.ask("time")
        assert answer["result"]["serverTime"] > 10**15
        assert "rateLimits" not in answer

    session(site, act, "?timeUnit=MICROSECOND&returnRateLimits=false")


def test_orders_of_a_connection_end_with_it_where_asked_for(site: Site) -> None:
    placed = []

    async def act(socket: Socket) -> None:
        await socket.result("session.logon", site.anna.socket_params(cancelOnDisconnect="true"))
        for price in ("50000", "50001"):
            placed.append((await socket.result("order.place", limit("BUY", price, "0.01")))["orderId"])

    other = site.anna.call("POST", "/api/v3/order", **limit("BUY", "50002", "0.01")).body["orderId"]
    session(site, act)

    def open_ids() -> set[int]:
        return {row["orderId"] for row in site.anna.call("GET", "/api/v3/openOrders", symbol="BTCUSDT").body}

    assert len(placed) == 2
    assert eventually(lambda: not open_ids() & set(placed), deadline_s=60)
    assert other in open_ids()
    site.anna.call("DELETE", "/api/v3/allOpenOrders")


def test_listen_key_streams_bare_events(site: Site) -> None:
    made = site.anna.raw("POST", "/api/v3/userDataStream").body["listenKey"]
    url = f"{site.exchange.ready['web']['streams']}/{made}"

    async def run() -> None:
        async with aiohttp.ClientSession() as client, client.ws_connect(f"{url}?timeUnit=microsecond") as socket:
            placed = await asyncio.to_thread(site.anna.call, "POST", "/api/v3/order", **limit("BUY", "60000", "0.01"))
            event = json.loads((await asyncio.wait_for(socket.receive(), WAIT_S)).data)
            assert (event["e"], event["i"]) == ("executionReport", placed.body["orderId"])
            assert event["E"] > 10**15
        async with aiohttp.ClientSession() as client:
            answer = await client.get(f"{url}?timeUnit=HOUR")
            assert (answer.status, (await answer.json())["code"]) == (400, -1194)

    asyncio.run(run())
    assert site.anna.raw("PUT", "/api/v3/userDataStream", f"listenKey={made}").status == 200
    assert site.ben.raw("DELETE", "/api/v3/userDataStream", f"listenKey={made}").code == -1125
    assert site.anna.raw("DELETE", "/api/v3/userDataStream", f"listenKey={made}").status == 200


def test_order_lists_report_their_end(site: Site) -> None:
    legs = {
        "aboveType": "LIMIT_MAKER", "abovePrice": "99000", "belowType": "STOP_LOSS_LIMIT", "belowStopPrice": "90000",
        "belowPrice": "89900", "belowTimeInForce": "GTC",
    }  # fmt: skip

    async def act(socket: Socket) -> None:
        await socket.result("userDataStream.subscribe.signature", site.anna.socket_params())
        body = site.anna.call(
            "POST", "/api/v3/orderList/oco", symbol="BTCUSDT", side="SELL", quantity="0.5", listClientOrderId="pair-1",
            **legs,
        )  # fmt: skip
        assert body.status == 200, body
        assert body.body["listClientOrderId"] == "pair-1"
        above, below = (order["orderId"] for order in body.body["orders"])
        site.ben.call("POST", "/api/v3/order", **limit("BUY", "99000", "0.5"))

        events = await socket.until(lambda event: event["e"] == "listStatus" and event["l"] == "ALL_DONE")

        ends = {event["i"]: event["X"] for event in reports(events) if event["i"] in (above, below)}
        assert ends == {above: "FILLED", below: "EXPIRED"}
        done = site.anna.call("GET", "/api/v3/orderList", orderListId=body.body["orderListId"]).body
        assert (done["listStatusType"], done["listOrderStatus"]) == ("ALL_DONE", "ALL_DONE")

    session(site, act)
