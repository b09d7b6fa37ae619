"""A plain order: `POST /api/v3/order`, come whole, of a kind and with parameters that most orders have.

Reading is all or nothing and changes nothing. Whatever is not plain, or wrong in any way, is None: the general way
(rest.py, trading.py) then takes the same bytes and has the right answer, so that no check needs a second wording here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.web.api import CLIENT_ID, SYMBOL
from gateway.web.auth import check_time, payload
from gateway.web.errors import ApiError
from gateway.web.gateway import Gateway
from gateway.web.order_request import SIDES, STP, TIFS, TYPES, check_notional, price_ticks, quantity_lots
from gateway.web.orders import POST_ONLY
from gateway.web.reference import Instrument, Key
from ringbuf.wire import messages as wire

START = b"POST /api/v3/order"
HEAD_BYTES_MAX = 2048
HEADS_MAX = 4096  # kinds of heads remembered
NULL_INT64 = -(1 << 63)
NULL_UINT32 = (1 << 32) - 1
_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?[ \t]*")
_SIZE = re.compile(rb"[0-9]{1,7}")
# Headers that change how a request is read, or what comes after it.
_NOT_PLAIN = {
    b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"trailer", b"te", b"x-mbx-time-unit",
}  # fmt: skip
_NAMES = {
    "symbol", "side", "type", "timeInForce", "quantity", "price", "newClientOrderId", "newOrderRespType",
    "selfTradePreventionMode", "recvWindow", "timestamp", "signature",
}  # fmt: skip
_RESPONSES = {"ACK", "RESULT", "FULL"}
_BLOCK = wire.NewOrderSingle.STRUCT
_TIMED = {"GTC", "IOC", "FOK", "DAY"}  # the lifetimes that need no date


@dataclass(frozen=True, slots=True)
class Head:
    """What the headers of a request say. Those of a connection are mostly the same, but for the body's size."""

    access_key: str
    body_size: int
    close: bool  # after the answer


@dataclass(slots=True)
class PlainOrder:
    """`block` is the body of its NewOrderSingle; `text` is the client's own id where that is not a number."""

    key: Key
    instrument: Instrument
    fields: dict[str, str]
    client_id: str
    price: int
    lots: int
    deadline_us: int
    block: bytes
    text: str


class HeadReader:
    """Reads heads, and remembers those it has seen."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head | None] = {}

    def read(self, block: bytes) -> Head | None:
        """`block`: the header lines with their line ends, without the request line."""
        try:
            return self._known[block]
        except KeyError:
            pass
        if len(self._known) >= HEADS_MAX:
            self._known.clear()
        head = self._known[block] = _read_head(block)
        return head


def _read_head(block: bytes) -> Head | None:
    if len(block) > HEAD_BYTES_MAX or not block.endswith(b"\r\n"):
        return None
    found: dict[bytes, bytes] = {}
    for line in block[:-2].split(b"\r\n"):
        if _LINE.fullmatch(line) is None:
            return None
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in found or name in _NOT_PLAIN:
            return None
        found[name] = value.strip(b" \t")
    size, connection = found.get(b"content-length", b"0"), found.get(b"connection", b"keep-alive").lower()
    if _SIZE.fullmatch(size) is None or connection not in (b"keep-alive", b"close") or b"x-mbx-apikey" not in found:
        return None
    return Head(found[b"x-mbx-apikey"].decode(), int(size), connection == b"close")


def read_order(gateway: Gateway, access_key: str, query: bytes, body: bytes) -> PlainOrder | None:
    """Return the order if all of it is plain and right: signature, time, permission, terms, static filters."""
    key = gateway.reference.keys.get(access_key)
    fields = _fields(query, body)
    if key is None or fields is None or not key.may(wire.Permissions.TRADE):
        return None
    signature = fields.get("signature")
    instrument = gateway.reference.by_symbol.get(fields.get("symbol", ""))
    if instrument is None or signature is None or not re.match(SYMBOL, fields["symbol"]):
        return None
    try:
        deadline_us = check_time(fields.get("timestamp"), fields.get("recvWindow"), gateway.now_us())
        gateway.verifier.verify(key, signature, (_signed(query, body),))
        return _built(gateway, key, instrument, fields, deadline_us)
    except (ApiError, ValueError):
        return None


def _fields(query: bytes, body: bytes) -> dict[str, str] | None:
    """Return the parameters when none has to be decoded, repeats another, is empty or belongs to a rarer order."""
    text = (query + b"&" + body if query and body else query or body).decode("latin-1")
    if "%" in text or "+" in text or "#" in text or " " in text or not (text.isascii() and text.isprintable()):
        return None
    parts = text.split("&")
    try:
        fields = dict([part.split("=", 1) for part in parts])
    except ValueError:
        return None
    if len(fields) != len(parts) or not fields.keys() <= _NAMES or "" in fields.values():
        return None
    return fields


def _signed(query: bytes, body: bytes) -> bytes:
    """Return what the signature covers; mostly it is the last field of the only part."""
    if not query or not body:
        only = query or body
        at = only.rfind(b"&")
        if only.startswith(b"signature=", at + 1) and at > 0:
            return only[:at]
    return payload(query, body)


def _built(
    gateway: Gateway, key: Key, instrument: Instrument, fields: dict[str, str], deadline_us: int
) -> PlainOrder | None:
    kind, side, tif = fields.get("type", ""), fields.get("side", ""), fields.get("timeInForce")
    stp = fields.get("selfTradePreventionMode", "NONE")
    priced = kind == "LIMIT" or kind == "LIMIT_MAKER"
    if (
        (not priced and kind != "MARKET") or side not in SIDES or stp not in STP
        or (tif not in _TIMED if kind == "LIMIT" else tif is not None) or priced != ("price" in fields)
        or "quantity" not in fields or fields.get("newOrderRespType", "ACK") not in _RESPONSES
    ):  # fmt: skip
        return None
    price = price_ticks(instrument, fields["price"]) if priced else NULL_INT64
    lots = quantity_lots(instrument, fields["quantity"], market=not priced)
    if priced:
        check_notional(gateway.reference, instrument, price, lots)
    client_id = fields.get("newClientOrderId")
    if client_id is None:
        client_id = gateway.new_client_id()
    elif re.fullmatch(CLIENT_ID, client_id) is None:
        return None
    number = gateway.number_of(client_id)
    left_us = min(max(deadline_us - gateway.now_us(), 1), NULL_UINT32)
    block = _BLOCK.pack(
        number, price, lots, NULL_INT64, NULL_INT64, NULL_UINT32, 0, 0, 0, instrument.id, key.account,
        POST_ONLY if kind == "LIMIT_MAKER" else 0, 0, left_us, SIDES[side], TYPES[kind], TIFS[tif or "GTC"], STP[stp],
    )  # fmt: skip
    text = "" if client_id.isdigit() and str(number) == client_id else client_id
    return PlainOrder(key, instrument, fields, client_id, price, lots, deadline_us, block, text)
