"""The short way of a plain order: from the bytes of its request to the core, and from the report to the answer.

A whole `POST /api/v3/order` in which everything is plain and right (plain_order.py) does not become a request of
aiohttp: one frame goes to the core, and the answer is written when the report comes. An order of which anything is
wrong or over a limit is not taken; it goes the general way. Which bytes are offered is the connection's to say
(express_connection.py).
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from gateway.web.api import Call
from gateway.web.core_link import Answer, CoreUnavailable
from gateway.web.errors import INTERNAL, ApiError, outcome_unknown
from gateway.web.gateway import Gateway
from gateway.web.limits import Placed
from gateway.web.metrics import Metrics
from gateway.web.order_request import Built
from gateway.web.plain_order import HeadReader, PlainOrder, read_order
from gateway.web.reference import Instrument, Reference
from gateway.web.rest import UTF8, json_bytes
from gateway.web.trading import ORDER_ENDPOINT, placed
from ringbuf.wire import messages as wire

PLACE_WEIGHT = 1
HEAD_END = b"\r\n\r\n"
_OK = "HTTP/1.1 200 OK\r\n"
_NEW = int(wire.OrdStatus.NEW)
_FIELDS = {name: at for at, name in enumerate(wire.OrderAccepted.__match_args__)}
_ORDER_ID, _EXEC_ID, _TIME = _FIELDS["order_id"], _FIELDS["exec_id"], _FIELDS["transact_time"]
_STATUS, _TIF = _FIELDS["ord_status"], _FIELDS["time_in_force"]
_GTC = int(wire.TimeInForce.GTC)
_TIFS: dict[str | None, int] = {name: int(wire.TimeInForce[name]) for name in ("GTC", "IOC", "FOK", "DAY")}
_REPORT_SEQ_MASK = (1 << 56) - 1


class Connection(Protocol):
    def answer(self, order: ExpressOrder, data: bytes) -> None:
        """Write the answer of an order, and go on."""


class ExpressLane:
    """The short way of all connections of a worker."""

    def __init__(self, gateway: Gateway, metrics: Metrics, logger: Any) -> None:
        self.gateway = gateway
        self._metrics = metrics
        self._logger = logger
        self._heads = HeadReader()
        self._reference: Reference | None = None
        self._zeros: dict[int, tuple[str, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.orders = 0
        assert ORDER_ENDPOINT.weight == PLACE_WEIGHT and ORDER_ENDPOINT.free_on_success

    # --- a request --------------------------------------------------------------------------------------------------

    def missing(self, data: bytes) -> int:
        """Return how many bytes are certainly missing of the request that `data` begins; 0 = none, or who knows."""
        end = data.find(HEAD_END)
        if end < 0:
            return 1
        start = data.find(b"\r\n") + 2
        head = self._heads.read(data[start : end + 2])
        return 0 if head is None else max(0, end + 4 + head.body_size - len(data))

    def take(self, data: bytes, address: str, connection: Connection) -> ExpressOrder | None:
        """Send the order that `data` is to the core; None, and nothing done, if it has to go the general way."""
        end, start = data.find(HEAD_END), data.find(b"\r\n")
        head = self._heads.read(data[start + 2 : end + 2]) if 0 <= start < end else None
        line = data[:start]
        if head is None or end + 4 + head.body_size != len(data) or not line.endswith(b" HTTP/1.1"):
            return None
        path, _, query = line[5:-9].partition(b"?")
        gateway = self.gateway
        if path != b"/api/v3/order" or not gateway.core.established or head.body_size > gateway.config.body_bytes_max:
            return None
        plain = read_order(gateway, head.access_key, query, data[end + 4 :])
        if plain is None:
            return None
        counted = gateway.limits.place(address, f"key {head.access_key}", plain.key.account)
        if counted is None:
            return None
        order = ExpressOrder(self, connection, plain, counted, address, close=head.close)
        details = wire.OrderDetails(client_text=plain.text) if plain.text else None
        try:
            gateway.core.place_single(order, plain.block, details)
        except CoreUnavailable:
            gateway.limits.order_gone(plain.key.account)
            return None
        self.orders += 1
        return order

    # --- its answer -------------------------------------------------------------------------------------------------

    def accepted(self, order: ExpressOrder, partition: int, report: tuple[int, ...]) -> None:
        """The order was accepted: answer at once if that is all that happened."""
        plain = order.plain
        if (
            report[_STATUS] == _NEW and report[_TIF] == _TIFS.get(plain.fields.get("timeInForce"), _GTC)
            and self.gateway.inputs.alone(partition, report[_EXEC_ID] & _REPORT_SEQ_MASK)
        ):  # fmt: skip
            body = self.resting_body(plain, report[_ORDER_ID], report[_TIME] // 1_000_000)
            self._answer(order, 200, body, self._headers(order, order.counted.weight))
        else:
            self.answered(order, Answer(partition, wire.OrderAccepted.unpack(wire.OrderAccepted.STRUCT.pack(*report))))

    def answered(self, order: ExpressOrder, answer: Answer) -> None:
        """Something else happened: fills, a refusal. The general code says what that means."""
        task = asyncio.get_running_loop().create_task(self._outcome(order, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def lost(self, order: ExpressOrder) -> None:
        self._refused(order, outcome_unknown())

    async def _outcome(self, order: ExpressOrder, answer: Answer) -> None:
        plain, gateway = order.plain, self.gateway
        call = Call(
            gateway, plain.fields, values=ORDER_ENDPOINT.parse(plain.fields), key=plain.key,
            deadline_us=plain.deadline_us, address=order.address, order_count=1,
        )  # fmt: skip
        details = wire.OrderDetails(client_text=plain.text) if plain.text else None
        built = Built(wire.NewOrderSingle.unpack(plain.block), details, plain.client_id)
        try:
            body = await placed(call, plain.instrument, built, answer)
            self._answer(order, 200, json_bytes(body), self._headers(order, order.counted.weight))
        except ApiError as error:
            self._refused(order, error)
        except Exception:
            self._logger.exception("unexpected error at %s", ORDER_ENDPOINT.path)
            text = "An unknown error occurred while processing the request."
            self._refused(order, ApiError(-1000, text, status=INTERNAL))

    def _refused(self, order: ExpressOrder, error: ApiError) -> None:
        used = self.gateway.limits.charge(f"key {order.plain.key.id}", PLACE_WEIGHT)
        headers = self._headers(order, used)
        if error.retry_after_s is not None:
            headers += f"Retry-After: {error.retry_after_s}\r\n"
        self._answer(order, error.status, json_bytes(error.body()), headers)

    def _headers(self, order: ExpressOrder, used: int) -> str:
        counted = order.counted
        text = f"X-MBX-USED-WEIGHT: {used}\r\nX-MBX-USED-WEIGHT-1M: {used}\r\n"
        if limit := self.gateway.config.limits.weight_per_minute:
            left, reset = max(0, limit - used), 60 - int(time.time()) % 60
            text += f"RateLimit-Limit: {limit}\r\nRateLimit-Remaining: {left}\r\nRateLimit-Reset: {reset}\r\n"
        return f"{text}X-MBX-ORDER-COUNT-10S: {counted.ten_seconds}\r\nX-MBX-ORDER-COUNT-1D: {counted.day}\r\n"

    def _answer(self, order: ExpressOrder, status: int, body: bytes, headers: str) -> None:
        line = _OK if status == 200 else f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        close = "Connection: close\r\n" if order.close else ""
        head = (
            f"{line}{headers}Content-Type: {UTF8}\r\nContent-Length: {len(body)}\r\n"
            f"Date: {rfc822_formatted_time()}\r\nServer: {SERVER_SOFTWARE}\r\n{close}\r\n"
        )
        order.connection.answer(order, head.encode() + body)
        self._metrics.request(ORDER_ENDPOINT, status, time.perf_counter() - order.started)

    def resting_body(self, plain: PlainOrder, order_id: int, time_ms: int) -> bytes:
        """Return what OrderView says of an order that lies in the book as it came."""
        instrument, fields = plain.instrument, plain.fields
        kind = fields.get("newOrderRespType")
        ack = (
            f'{{"symbol":"{instrument.symbol}","orderId":{order_id},"orderListId":-1,'
            f'"clientOrderId":"{plain.client_id}","transactTime":{time_ms}'
        )
        order_type = fields["type"]
        if kind == "ACK" or (kind is None and order_type == "LIMIT_MAKER"):
            return f"{ack}}}".encode()
        zero, quote_zero = self._zeros_of(instrument)
        fills = '"fills":[]}' if kind != "RESULT" else ""
        tail = f'"selfTradePreventionMode":"{fields.get("selfTradePreventionMode", "NONE")}"'
        return (
            f'{ack},"price":"{instrument.price_text(plain.price)}","origQty":"{instrument.qty_text(plain.lots)}",'
            f'"executedQty":"{zero}","origQuoteOrderQty":"{quote_zero}","cummulativeQuoteQty":"{quote_zero}",'
            f'"status":"NEW","timeInForce":"{fields.get("timeInForce", "GTC")}","type":"{order_type}",'
            f'"side":"{fields["side"]}","workingTime":{time_ms},{tail}{"," + fills if fills else "}"}'
        ).encode()

    def _zeros_of(self, instrument: Instrument) -> tuple[str, str]:
        reference = self.gateway.reference
        if reference is not self._reference:
            self._reference = reference
            self._zeros.clear()
        if instrument.id not in self._zeros:
            self._zeros[instrument.id] = (instrument.qty_text(0), reference.quote_text(instrument, 0))
        return self._zeros[instrument.id]


class ExpressOrder:
    """An order on its way."""

    __slots__ = ("address", "close", "connection", "counted", "lane", "plain", "started", "until")

    def __init__(
        self, lane: ExpressLane, connection: Connection, plain: PlainOrder, counted: Placed, address: str, *,
        close: bool,
    ) -> None:  # fmt: skip
        self.lane = lane
        self.connection = connection
        self.plain = plain
        self.counted = counted
        self.address = address
        self.close = close
        self.started = time.perf_counter()
        self.until = 0.0

    def accepted(self, partition: int, report: tuple[int, ...]) -> None:
        self.lane.accepted(self, partition, report)

    def answered(self, answer: Answer) -> None:
        self.lane.answered(self, answer)

    def lost(self, _: str) -> bool:
        self.lane.lost(self)
        return True
