"""Plain orders: read in the short way they are what the general way makes of the same request, or are left to it."""

import hashlib
import hmac
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import hmac_secret
from gateway.web.api import Call
from gateway.web.auth import Verifier
from gateway.web.errors import ApiError
from gateway.web.express import ExpressLane
from gateway.web.express_connection import is_whole
from gateway.web.gateway import Gateway
from gateway.web.order_request import EXPIRY_S_MAX, build, single_terms
from gateway.web.orders import OrderView, apply_report, new_order
from gateway.web.plain_order import HeadReader, PlainOrder, read_order
from gateway.web.reference import Asset, Instrument, Key, Limits, Reference
from gateway.web.rest import parse_form
from gateway.web.trading import ORDER_ENDPOINT
from ringbuf.wire import messages as wire

NOW_US = 1_795_654_345_574_000
SEAL, SALT = b"s" * 32, b"m" * 32
KEY = Key(
    "K1", 7, int(wire.Permissions.READ | wire.Permissions.TRADE), int(wire.CredentialType.HMAC_SHA256), SALT.hex()
)
SECRET = hmac_secret(SEAL, "K1", SALT).hex()
ORDER = {
    "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001", "price": "80000.01",
    "newClientOrderId": "x-1", "timestamp": str(NOW_US // 1000),
}  # fmt: skip


class StillGateway(Gateway):
    """What reading an order needs of a worker, at one moment."""

    def __init__(self) -> None:
        self.reference = Reference()
        for asset in (Asset(1, "BTC", -8), Asset(4, "USDT", -8)):
            self.reference.put(asset)
        limits = Limits(min_qty=10, max_qty=10**9, min_px=100, max_px=10**9, min_notional=10**9, market_max_qty=10**6)
        self.reference.put(Instrument(1, "BTC-USDT", 1, 4, 1, 1, -2, 1, -5, 10, 1000, limits=limits))
        self.reference.put(KEY)
        self.verifier = Verifier(SEAL, Path("/nonexistent"))
        self._hash_key = b"h" * 8

    def new_client_id(self) -> str:
        return "2624989531201712629"

    def now_us(self) -> int:
        return NOW_US


def signed(fields: dict[str, str]) -> bytes:
    text = "&".join(f"{name}={value}" for name, value in fields.items())
    return f"{text}&signature={hmac.digest(SECRET.encode(), text.encode(), 'sha256').hex()}".encode()


def read(gateway: Gateway, fields: dict[str, str], *, as_query: bool = False) -> PlainOrder | None:
    raw = signed(fields)
    return read_order(gateway, "K1", raw if as_query else b"", b"" if as_query else raw)


def built_generally(gateway: Gateway, fields: dict[str, str]) -> tuple[wire.NewOrderSingle, str, Any]:
    """Return what the general way makes of a request; raises ApiError as it does."""
    call = Call(gateway, parse_form(signed(fields).decode()), key=KEY)
    call.deadline_us = int(fields["timestamp"]) * 1000 + int(float(fields.get("recvWindow", "5000")) * 1000)
    call.values = ORDER_ENDPOINT.parse(call.params)
    built = build(call, call.instrument(), single_terms(call))
    return built.order, "" if built.details is None else built.details.client_text, call


def test_a_plain_order_is_the_order_of_the_general_way() -> None:
    gateway = StillGateway()
    seed = random.randrange(1 << 32)
    made = random.Random(seed)
    plain = 0
    for _ in range(3000):
        fields = _random_order(made)
        order = read(gateway, fields, as_query=made.random() < 0.5)
        if order is None:
            continue
        plain += 1
        general, text, _ = built_generally(gateway, fields)  # never an error: what is wrong is not plain
        assert wire.NewOrderSingle.unpack(order.block) == general, (seed, fields)
        assert order.text == text, (seed, fields)
    assert plain > 300


def _random_order(made: random.Random) -> dict[str, str]:
    """Return parameters of which each may be odd, most are not."""

    def one(name: str, *values: str) -> None:
        if (value := made.choice(values)) != "-":
            fields[name] = value

    fields: dict[str, str] = {}
    one("symbol", *["BTCUSDT"] * 30, "NOPE", "-")
    one("side", *["BUY", "SELL"] * 10, "buy")
    kind = made.choice([*["LIMIT", "MARKET", "LIMIT_MAKER"] * 5, "STOP_LOSS", "limit"])
    fields["type"] = kind
    one("timeInForce", *(["GTC", "IOC", "FOK", "DAY"] * 4 + ["GTD", "-"] if kind == "LIMIT" else ["-"] * 9 + ["GTC"]))
    one(
        "quantity", *["0.001", "1", "2.50000", "0.00010", "7.12345"] * 5, "0.0000001", "0.00001", "1e3", "99999999", "-"
    )
    if kind != "MARKET" or made.random() < 0.1:
        one("price", *["80000.01", "64000", "1.50", "99999.99000"] * 5, "0.001", "0.5", "-5", "99999999", "-")
    one(
        "newClientOrderId",
        *["-", "abc", "12345", "x-R4BD3S82_1", "007"] * 4,
        "a b",
        "ü",
        "99999999999999999999",
        "a" * 40,
    )
    one("newOrderRespType", *["-", "ACK", "RESULT", "FULL"] * 4, "SOME")
    one("selfTradePreventionMode", *["-", "NONE", "EXPIRE_TAKER", "DECREMENT"] * 4, "OTHER")
    one("recvWindow", *["-", "5000", "60000", "1000.5"] * 4, "70000")
    one("icebergQty", *["-"] * 20, "0.0005")
    shift = made.choice([0, 0, 0, 0, 0, -3000, -100_000, 5000])
    fields["timestamp"] = str(NOW_US // 1000 + shift)
    return fields


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("price", "80000.001"), ("quantity", "0"), ("quantity", ""), ("side", "HOLD"), ("timestamp", "1"),
        ("symbol", "NOPE"), ("strategyId", "1"), ("idempotencyKey", "k"), ("unknown", "1"), ("price", "8%30000"),
        ("recvWindow", "60001"), ("timeInForce", "GTD"), ("newClientOrderId", "a+b"), ("quantity", "100000"),
    ],
)  # fmt: skip
def test_what_is_not_plain_or_wrong_is_left_to_the_general_way(name: str, value: str) -> None:
    gateway = StillGateway()

    assert read(gateway, ORDER) is not None
    assert read(gateway, {**ORDER, name: value}) is None


def test_a_signature_is_over_what_was_sent() -> None:
    gateway = StillGateway()
    good = signed(ORDER)

    assert read_order(gateway, "K1", b"", good) is not None
    assert read_order(gateway, "K1", b"", good.replace(b"0.001", b"0.002")) is None
    assert read_order(gateway, "K1", b"", good[:-1] + (b"0" if good[-1:] != b"0" else b"1")) is None
    assert read_order(gateway, "K2", b"", good) is None
    assert read_order(gateway, "K1", b"", good.rpartition(b"&")[0]) is None
    # Query and body are signed one after the other, whichever of them has the signature.
    text, _, signature = good.rpartition(b"&")
    names = [part for part in text.split(b"&")]
    query, body = b"&".join(names[:4]), b"&".join(names[4:])
    own = hmac.new(SECRET.encode(), query + body, hashlib.sha256).hexdigest().encode()
    assert read_order(gateway, "K1", query, body + b"&signature=" + own) is not None
    assert read_order(gateway, "K1", query + b"&signature=" + own, body) is not None
    assert read_order(gateway, "K1", query, body + b"&" + signature) is None
    assert read_order(gateway, "K1", good, good) is None


def test_a_key_that_may_not_trade_is_not_served_here() -> None:
    gateway = StillGateway()
    gateway.reference.put(Key(KEY.id, KEY.account, int(wire.Permissions.READ), KEY.credential, KEY.material))

    assert read(gateway, ORDER) is None


@pytest.mark.parametrize("kind", ["LIMIT", "LIMIT_MAKER"])
@pytest.mark.parametrize("response", ["-", "ACK", "RESULT", "FULL"])
def test_the_answer_of_a_resting_order_is_that_of_the_general_way(kind: str, response: str) -> None:
    gateway = StillGateway()
    fields = {**ORDER, "type": kind} | ({} if response == "-" else {"newOrderRespType": response})
    if kind == "LIMIT_MAKER":
        del fields["timeInForce"]
    plain = read(gateway, fields)
    assert plain is not None
    _, text, call = built_generally(gateway, fields)
    order = new_order(
        wire.NewOrderSingle.unpack(plain.block), order_id=55, account=7, partition=1, ts_ns=1_700_000_000_123_456_789,
        details=wire.OrderDetails(client_text=text),
    )  # fmt: skip
    report = wire.OrderAccepted(
        order_id=55, transact_time=1_700_000_000_123_456_789, ord_status=wire.OrdStatus.NEW,
        time_in_force=wire.TimeInForce.GTC,
    )  # fmt: skip
    apply_report(order, report, 10)
    view = OrderView(gateway.reference)
    shown = call.get("newOrderRespType") or ("FULL" if kind == "LIMIT" else "ACK")
    expected = view.ack(order) if shown == "ACK" else view.result(order) | ({"fills": []} if shown == "FULL" else {})
    lane: ExpressLane = object.__new__(ExpressLane)
    lane.gateway, lane._reference, lane._zeros = gateway, None, {}

    body = lane.resting_body(plain, 55, 1_700_000_000_123)

    assert json.loads(body) == expected
    assert list(json.loads(body)) == list(expected)


HEAD = b"Host: x\r\nX-MBX-APIKEY: K1\r\nContent-Length: 12\r\n"


def test_heads_are_read_once_and_only_plain_ones() -> None:
    reader = HeadReader()
    head = reader.read(HEAD)
    assert head is not None and (head.access_key, head.body_size, head.close) == ("K1", 12, False)
    assert reader.read(HEAD) is head
    closing = reader.read(HEAD + b"Connection: Close\r\n")
    assert closing is not None and closing.close


@pytest.mark.parametrize(
    "more",
    [
        b"Transfer-Encoding: chunked\r\n", b"Content-Length: 12\r\n", b"content-length : 3\r\n",
        b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"Connection: keep-alive, Upgrade\r\n",
        b" folded\r\n", b"A\x00: b\r\n", b"X\r\n", b"X-MBX-TIME-UNIT: MICROSECOND\r\n", b"A: b\n", b"A: \r\n",
        b"x-mbx-apikey: K2\r\n", b"A: " + b"b" * 2048 + b"\r\n", b"Content-Encoding: gzip\r\n",
    ],
)  # fmt: skip
def test_heads_that_change_how_a_request_is_read_are_not_plain(more: bytes) -> None:
    assert HeadReader().read(HEAD + more) is None


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"POST / HTTP/1.1\r\nCONTENT-LENGTH:3\r\n\r\nabc", True),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcd", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", False),
        (b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", False),
        (b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", False),
        (b"", False),
    ],
)
def test_only_certainly_whole_requests_count_as_whole(data: bytes, whole: bool) -> None:
    assert is_whole(data) is whole


@pytest.mark.parametrize(("moment", "good"), [("4294967294999", True), ("4294967295000", False), (str(1 << 62), False)])
def test_good_till_date_goes_as_far_as_the_wire(moment: str, good: bool) -> None:
    """Beyond it was an internal error."""
    fields = {
        "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTD", "goodTillDate": moment,
        "quantity": "1", "price": "90000", "timestamp": str(NOW_US // 1000),
    }  # fmt: skip

    if good:
        order, _, _ = built_generally(StillGateway(), fields)
        assert order.expire_time == EXPIRY_S_MAX
        assert wire.NewOrderSingle.unpack(order.pack()).expire_time == EXPIRY_S_MAX
    else:
        with pytest.raises(ApiError, match=r"goodTillDate' is not valid. It must be at most 4294967294000\."):
            built_generally(StillGateway(), fields)
