"""Orders: place and test."""

from __future__ import annotations

from typing import Any

from gateway.web.account import commission_rates
from gateway.web.api import SYMBOL_REQUIRED, Call, Endpoint, Kind, Param, Security
from gateway.web.core_link import Answer
from gateway.web.errors import ApiError, of_reject
from gateway.web.order_request import IDEMPOTENCY_KEY, ORDER_PARAMS, Built, build, single_terms
from gateway.web.orders import OrderState, apply_report, new_order
from gateway.web.reference import Instrument
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage

DEFAULT_RESPONSE = {"LIMIT": "FULL", "MARKET": "FULL"}


async def place(call: Call) -> dict[str, Any]:
    key = call.get("idempotencyKey")
    if key is None:
        return await _place(call, 0)
    return await call.gateway.duplicates.once(call, f"order/{key}", lambda number: _place(call, number))


async def _place(call: Call, idempotency: int) -> dict[str, Any]:
    instrument = call.instrument()
    built = build(call, instrument, single_terms(call), idempotency=idempotency)
    call.gateway.count_orders(call, 1)
    answers = await call.gateway.request(*built.frames)
    return await placed(call, instrument, built, answers[-1][0])


async def placed(call: Call, instrument: Instrument, built: Built, answer: Answer) -> dict[str, Any]:
    """Return the answer to a new order from its first report. Raises ApiError when it was refused."""
    report = answer.report
    if not isinstance(report, wire.OrderAccepted):
        call.gateway.limits.order_gone(call.account)
        raise refusal(call, instrument, report)
    order, fills = await _outcome(call, instrument, built, answer)
    if fills:
        call.gateway.limits.order_gone(call.account)
    view = call.gateway.view(call)
    kind = call.get("newOrderRespType") or DEFAULT_RESPONSE.get(order.type_text, "ACK")
    if kind == "ACK":
        return view.ack(order)
    body = view.result(order)
    if kind == "FULL":
        body["fills"] = [view.fill(fill) for fill in fills]
    return body


async def _outcome(
    call: Call, instrument: Instrument, built: Built, answer: Answer
) -> tuple[OrderState, list[wire.OrderExecuted]]:
    """Return the order as its input left it, and its fills: read beside the answer, in the report ring."""
    accepted = answer.report
    order = new_order(
        built.order, order_id=accepted.order_id, account=call.account, partition=answer.partition,
        ts_ns=accepted.transact_time, details=built.details,
    )  # fmt: skip
    fills = []
    for report in await call.gateway.inputs.after(answer):
        if concerns(report, instrument, order.order_id):
            apply_report(order, report, instrument.quote_per_tick_lot)
            if isinstance(report, wire.OrderExecuted):
                fills.append(report)
    return order, fills


def concerns(report: WireMessage, instrument: Instrument, order_id: int) -> bool:
    return getattr(report, "order_id", None) == order_id and getattr(report, "instrument_id", None) == instrument.id


def refusal(call: Call, instrument: Instrument, report: Any) -> ApiError:
    """Return the error of a refused order, with the bound in the units of the field."""
    code = report.reject_code
    limit = getattr(report, "limit", 0)
    text = None
    Code = wire.RejectCode
    reference = call.gateway.reference
    if code in (Code.PRICE_BAND, Code.INVALID_PRICE, Code.WOULD_TAKE_LIQUIDITY, Code.WOULD_TRIGGER_IMMEDIATELY):
        text = instrument.price_text(limit)
    elif code in (Code.MIN_QTY, Code.MAX_QTY):
        text = instrument.qty_text(limit)
    elif code in (Code.MIN_NOTIONAL, Code.MAX_NOTIONAL):
        text = reference.quote_text(instrument, limit)
    elif code == Code.INSUFFICIENT_BALANCE:
        sell = getattr(report, "side", 0) == wire.Side.SELL
        text = reference.assets[instrument.base_asset if sell else instrument.quote_asset].text(limit)
    return of_reject(code, limit, server_time_ms=call.gateway.now_us() // 1000, limit_text=text)


async def test(call: Call) -> dict[str, Any]:
    """Check an order as far as the gateway can; nothing is sent."""
    instrument = call.instrument()
    build(call, instrument, single_terms(call))
    if not call.get("computeCommissionRates"):
        return {}
    return {
        "standardCommissionForOrder": commission_rates(call, instrument),
        "taxCommissionForOrder": {"maker": "0.00000000", "taker": "0.00000000"},
        "discount": {
            "enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "", "discount": "0.00000000",
        },
    }  # fmt: skip


ORDER_ENDPOINT = Endpoint(
    "POST", "/api/v3/order", "Place an order", place, (SYMBOL_REQUIRED, *ORDER_PARAMS, IDEMPOTENCY_KEY),
    socket="order.place", security=Security.TRADE, free_on_success=True,
)  # fmt: skip
ENDPOINTS = (
    ORDER_ENDPOINT,
    Endpoint(
        "POST", "/api/v3/order/test", "Check an order without sending it", test,
        (SYMBOL_REQUIRED, *ORDER_PARAMS, Param("computeCommissionRates", Kind.BOOLEAN)), socket="order.test",
        security=Security.TRADE,
    ),
)  # fmt: skip
