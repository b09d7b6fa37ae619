"""The short way of orders in a whole exchange: answers like the general way's, however the bytes of a request come."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.kit import eventually
from tests.kit.exchange import Exchange
from tests.process.test_web_rest import QUIET, Site, limit, make_site

GENERAL = {"X-MBX-TIME-UNIT": "MILLISECOND"}  # a header that is not plain, and changes nothing
ORDER = limit("BUY", "95000", newOrderRespType="FULL")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    limits = ("--set", "gateway.web.orders_per_10_seconds=0", "--set", "gateway.web.orders_per_day=40")
    with Exchange(tmp_path_factory.mktemp("express") / "data", *QUIET, *limits, web=1) as exchange:
        yield make_site(exchange)


def express_orders(site: Site) -> int:
    [line] = [line for line in _text(site, "/metrics").splitlines() if line.startswith("bullring_web_express_orders{")]
    return int(float(line.split()[-1]))


def _text(site: Site, path: str) -> str:
    with connect(site) as wire:
        wire.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while more := wire.recv(65536):
            data += more
    return data.decode()


def connect(site: Site) -> socket.socket:
    host, port = site.base.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def request(site: Site, order: dict[str, str], *, more: str = "") -> bytes:
    body = site.anna.signed(order)
    key = site.anna.key["api_key"]
    head = f"POST /api/v3/order HTTP/1.1\r\nHost: x\r\nX-MBX-APIKEY: {key}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def answers(wire: socket.socket, count: int) -> list[tuple[int, dict[str, object]]]:
    """Read so many answers: (status, body) each."""
    data, found = b"", []
    while len(found) < count:
        end = data.find(b"\r\n\r\n")
        size = int(data[: end + 2].lower().split(b"content-length: ")[1].split(b"\r\n")[0]) if end >= 0 else 0
        if end < 0 or len(data) < end + 4 + size:
            more = wire.recv(65536)
            assert more, f"closed after {found} and {data!r}"
            data += more
            continue
        found.append((int(data.split()[1]), json.loads(data[end + 4 : end + 4 + size])))
        data = data[end + 4 + size :]
    assert not data
    return found


def test_both_ways_answer_alike(site: Site) -> None:
    before = express_orders(site)

    short = site.anna.raw("POST", "/api/v3/order", site.anna.signed(ORDER))
    general = site.anna.raw("POST", "/api/v3/order", site.anna.signed(ORDER), headers=GENERAL)

    assert express_orders(site) == before + 1
    assert (short.status, general.status) == (200, 200)
    assert list(short.body) == list(general.body)
    changing = {"orderId", "clientOrderId", "transactTime", "workingTime"}
    assert {k: v for k, v in short.body.items() if k not in changing} == {
        k: v for k, v in general.body.items() if k not in changing
    }
    assert set(short.headers) == set(general.headers)
    assert short.headers["Connection"] == general.headers["Connection"] == "close"
    count = "X-MBX-ORDER-COUNT-1D"
    assert int(general.headers[count]) == int(short.headers[count]) + 1
    assert short.headers["X-MBX-USED-WEIGHT"] == general.headers["X-MBX-USED-WEIGHT"]
    seen = site.anna.call("GET", "/api/v3/order", symbol="BTCUSDT", orderId=short.body["orderId"]).body
    assert (seen["clientOrderId"], seen["price"]) == (short.body["clientOrderId"], "95000.00000000")


def test_fills_and_refusals_of_the_core_have_the_same_words_on_both_ways(site: Site) -> None:
    site.ben.call("POST", "/api/v3/order", **limit("SELL", "101000", "0.2"))
    poor = {**ORDER, "quantity": "5000", "newClientOrderId": "poor-one"}
    before = express_orders(site)

    taker = site.anna.raw("POST", "/api/v3/order", site.anna.signed({**ORDER, "price": "101000"}))
    refused = [site.anna.raw("POST", "/api/v3/order", site.anna.signed(poor), headers=each) for each in ({}, GENERAL)]

    assert express_orders(site) == before + 2
    assert (taker.body["status"], [fill["qty"] for fill in taker.body["fills"]]) == ("FILLED", ["0.10000000"])
    assert refused[0].body == refused[1].body
    assert (refused[0].status, refused[0].code) == (400, -2010)
    weights = [int(each.headers["X-MBX-USED-WEIGHT"]) for each in refused]
    assert weights[1] == weights[0] + 1


def test_bytes_may_come_in_any_pieces(site: Site) -> None:
    whole = request(site, ORDER)
    before = express_orders(site)
    with connect(site) as wire:
        for at in (25, whole.index(b"\r\n\r\n") + 4, len(whole) - 1, 1):  # the last one is aiohttp's from then on
            wire.sendall(whole[:at])
            time.sleep(0.02)  # so that they come apart; together they are the other case
            wire.sendall(whole[at:])
            [(status, body)] = answers(wire, 1)
            assert (status, body["status"]) == (200, "NEW")
            whole = request(site, ORDER)
    assert express_orders(site) == before + 3
    with connect(site) as wire:  # several at once, and two before the first answer
        wire.sendall(request(site, ORDER) + request(site, {**ORDER, "side": "HOLD"}) + request(site, ORDER))
        assert [status for status, _ in answers(wire, 3)] == [200, 400, 200]
        wire.sendall(request(site, ORDER))
        wire.sendall(request(site, ORDER))
        assert [status for status, _ in answers(wire, 2)] == [200, 200]


def test_an_order_inside_another_requests_body_is_no_order(site: Site) -> None:
    inner = request(site, ORDER)
    before, orders = express_orders(site), len(site.anna.call("GET", "/api/v3/openOrders").body)
    with connect(site) as wire:
        head = f"POST /api/v3/order/test HTTP/1.1\r\nHost: x\r\nContent-Length: {len(inner)}\r\n\r\n"
        wire.sendall(head.encode())
        time.sleep(0.05)
        wire.sendall(inner)
        [(status, _)] = answers(wire, 1)
        assert status in (400, 401)
        chunked = b"POST /api/v3/ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.sendall(chunked + f"{len(inner):x}\r\n".encode())
        time.sleep(0.05)
        wire.sendall(inner)
        time.sleep(0.05)
        wire.sendall(b"\r\n0\r\n\r\n")
        [(status, _)] = answers(wire, 1)
        assert status == 405
    assert express_orders(site) == before
    assert len(site.anna.call("GET", "/api/v3/openOrders").body) == orders


@pytest.mark.slow
def test_half_an_order_is_waited_for_and_given_up_as_ever(site: Site) -> None:
    whole = request(site, ORDER)
    with connect(site) as wire:
        wire.sendall(whole[:-5])
        [(status, body)] = answers(wire, 1)
        assert (status, body["code"]) == (408, -1104)
    with connect(site) as wire:
        wire.sendall(whole[:-5])
    assert site.anna.call("GET", "/api/v3/ping").status == 200


@pytest.mark.slow
def test_an_order_without_an_answer_is_of_unknown_outcome(site: Site) -> None:
    """What stops the core while orders are under way is told to whoever waits for them."""
    core = site.exchange.pid("fused")
    with connect(site) as wire:
        os.kill(core, signal.SIGSTOP)
        try:
            wire.sendall(request(site, {**ORDER, "recvWindow": "60000"}))
            [(status, body)] = answers(wire, 1)
        finally:
            os.kill(core, signal.SIGCONT)
        assert (status, body["code"]) == (504, -1007)
    assert eventually(lambda: site.anna.call("GET", "/api/v3/account").status == 200, deadline_s=60)


def test_one_order_too_many_is_refused_by_the_general_way(site: Site) -> None:
    answer = site.anna.raw("POST", "/api/v3/order", site.anna.signed(ORDER))
    while answer.status == 200:
        answer = site.anna.raw("POST", "/api/v3/order", site.anna.signed(ORDER))

    assert (answer.status, answer.code) == (429, -1015)
    assert answer.headers["X-MBX-ORDER-COUNT-1D"] == "40"
