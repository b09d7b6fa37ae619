"""Changes of orders: cancel-replace, amend."""

from __future__ import annotations

from typing import Any

from gateway.web.api import CLIENT_ID, ORDER_ID, SYMBOL_REQUIRED, Call, Endpoint, Kind, Param, Security
from gateway.web.cancels import (
    CANCEL_RESTRICTIONS,
    ORIG_CLIENT_ID,
    RESTRICTIONS,
    cancel_frame,
    canceled,
    check_both_ids,
    named_order,
)
from gateway.web.errors import CONFLICT, ApiError, no_order
from gateway.web.list_view import list_body
from gateway.web.order_request import ORDER_PARAMS, build, quantity_lots, single_terms
from gateway.web.orders import LIST_NONE
from gateway.web.reference import Instrument
from gateway.web.trading import placed, refusal
from ringbuf.wire import messages as wire


async def cancel_replace(call: Call) -> dict[str, Any]:
    """Cancel one order and place another, as one group of the log."""
    instrument = call.instrument()
    mode = call.need("cancelReplaceMode")
    order_id, client_id = named_order(call, id_name="cancelOrderId", client_name="cancelOrigClientOrderId")
    await check_both_ids(call, instrument, order_id, client_id)
    built = build(call, instrument, single_terms(call))
    flags = RESTRICTIONS[call.get("cancelRestrictions")]
    if mode == "ALLOW_FAILURE":
        flags |= wire.CancelFlags.CONTINUE_ON_FAILURE
    own_id = call.get("cancelNewClientOrderId") or call.gateway.new_client_id()
    cancel_request = cancel_frame(call, instrument, order_id, client_id, own_id, flags)
    try:
        call.gateway.count_orders(call, 1)
    except ApiError as limit:
        if call.get("orderRateLimitExceededMode") != "CANCEL_ONLY":
            raise
        return await _cancel_only(
            call,
            instrument,
            cancel_frame(call, instrument, order_id, client_id, own_id, RESTRICTIONS[call.get("cancelRestrictions")]),
            own_id,
            limit,
        )
    answers = await call.gateway.request(cancel_request, *built.frames)
    body: dict[str, Any] = {}
    try:
        body["cancelResult"], body["cancelResponse"] = (
            "SUCCESS",
            await canceled(call, instrument, answers[0][0], own_id),
        )
    except ApiError as error:
        body["cancelResult"], body["cancelResponse"] = "FAILURE", error.body()
    try:
        body["newOrderResult"], body["newOrderResponse"] = (
            "SUCCESS",
            await placed(call, instrument, built, answers[-1][0]),
        )
    except ApiError as error:
        attempted = body["cancelResult"] == "SUCCESS" or mode == "ALLOW_FAILURE"
        body["newOrderResult"] = "FAILURE" if attempted else "NOT_ATTEMPTED"
        body["newOrderResponse"] = error.body() if attempted else None
    return replaced_or_error(body)


async def _cancel_only(
    call: Call, instrument: Instrument, request: wire.OrderCancelRequest, own_id: str, limit: ApiError
) -> dict[str, Any]:
    """The new order would be one too many; the client wants the old one gone all the same."""
    body: dict[str, Any] = {"newOrderResult": "FAILURE", "newOrderResponse": limit.body()}
    try:
        answer = (await call.gateway.request(request))[0][0]
        body["cancelResult"] = "SUCCESS"
        body["cancelResponse"] = await canceled(call, instrument, answer, own_id)
    except ApiError as error:
        body["cancelResult"], body["cancelResponse"] = "FAILURE", error.body()
    return replaced_or_error(body)


def replaced_or_error(body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer in the order clients know. Raises ApiError -2021, -2022 with it under `data`."""
    ordered = {name: body[name] for name in ("cancelResult", "newOrderResult", "cancelResponse", "newOrderResponse")}
    results = {ordered["cancelResult"], ordered["newOrderResult"]}
    if results == {"SUCCESS"}:
        return ordered
    if "SUCCESS" in results:
        text = "Order cancel-replace partially failed."
        raise ApiError(-2021, text, status=CONFLICT, extra={"data": ordered})
    raise ApiError(-2022, "Order cancel-replace failed.", extra={"data": ordered})


async def amend(call: Call) -> dict[str, Any]:
    """Reduce an order's quantity; it keeps its place in the queue."""
    gateway = call.gateway
    instrument = call.instrument()
    order_id, client_id = named_order(call)
    await check_both_ids(call, instrument, order_id, client_id)
    lots = quantity_lots(instrument, call.need("newQty"), name="newQty")
    own_id = call.get("newClientOrderId") or gateway.new_client_id()
    request = wire.OrderAmendRequest(
        cl_ord_id=gateway.text_number(call.account, own_id),
        orig_cl_ord_id=None if order_id is not None or client_id is None else gateway.number_of(client_id),
        order_id=order_id,
        new_qty=lots,
        instrument_id=instrument.id,
        account_id=call.account,
    )
    answer = (await gateway.request(request))[0][0]
    report = answer.report
    if not isinstance(report, wire.OrderReplaced):
        if report.reject_code in (wire.RejectCode.UNKNOWN_ORDER, wire.RejectCode.TOO_LATE_TO_CANCEL):
            raise no_order()
        raise refusal(call, instrument, report)
    await gateway.reached({answer.partition: answer.report_seq + 1})
    order = gateway.store.order(instrument.id, report.order_id)
    if order is None:
        raise no_order()
    view = gateway.view(call)
    shown = view.result(order)
    body: dict[str, Any] = {
        "transactTime": view.time(report.transact_time),
        "executionId": answer.report_seq,
        "amendedOrder": {
            "symbol": shown["symbol"],
            "orderId": order.order_id,
            "orderListId": order.list_id,
            "origClientOrderId": client_id or order.client_id,
            "clientOrderId": order.client_id,
            "price": shown["price"],
            "qty": shown["origQty"],
            "executedQty": shown["executedQty"],
            "preventedQty": instrument.qty_text(order.prevented_qty),
            "quoteOrderQty": shown["origQuoteOrderQty"],
            "cumulativeQuoteQty": shown["cummulativeQuoteQty"],
            "status": shown["status"],
            "timeInForce": shown["timeInForce"],
            "type": shown["type"],
            "side": shown["side"],
            "workingTime": shown["workingTime"],
            "selfTradePreventionMode": shown["selfTradePreventionMode"],
        },
    }
    if order.list_id != LIST_NONE:
        body["listStatus"] = list_body(call, order.list_id)
    return body


ENDPOINTS = (
    Endpoint(
        "POST", "/api/v3/order/cancelReplace", "Cancel an order and place another", cancel_replace,
        (
            SYMBOL_REQUIRED, *ORDER_PARAMS,
            Param("cancelReplaceMode", required=True, choices=("STOP_ON_FAILURE", "ALLOW_FAILURE")),
            Param("cancelOrderId", Kind.INTEGER, low=0), Param("cancelOrigClientOrderId", pattern=CLIENT_ID),
            Param("cancelNewClientOrderId", pattern=CLIENT_ID), CANCEL_RESTRICTIONS,
            Param("orderRateLimitExceededMode", choices=("DO_NOTHING", "CANCEL_ONLY")),
        ),
        socket="order.cancelReplace", security=Security.TRADE, free_on_success=True,
    ),
    Endpoint(
        "PUT", "/api/v3/order/amend/keepPriority", "Reduce an order, keeping its place", amend,
        (
            SYMBOL_REQUIRED, ORDER_ID, ORIG_CLIENT_ID, Param("newClientOrderId", pattern=CLIENT_ID),
            Param("newQty", Kind.DECIMAL, required=True),
        ),
        socket="order.amend.keepPriority", security=Security.TRADE, weight=4, free_on_success=True,
    ),
)  # fmt: skip
