"""Orders: place, test, cancel, cancel-replace, amend, cancel all, query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from gateway.web.account import commission_rates, day_range
from gateway.web.api import (
    CLIENT_ID,
    LIMIT_1000,
    ORDER_ID,
    SYMBOL_OPTIONAL,
    SYMBOL_REQUIRED,
    Call,
    Endpoint,
    Kind,
    Param,
    Security,
)
from gateway.web.core_link import Answer
from gateway.web.errors import (
    CONFLICT,
    UNKNOWN_ORDER,
    ApiError,
    missing,
    no_order,
    of_cancel_reject,
    of_reject,
)
from gateway.web.list_view import ended_list, list_body
from gateway.web.order_request import IDEMPOTENCY_KEY, ORDER_PARAMS, Built, build, quantity_lots, single_terms
from gateway.web.orders import ADMITTED, LIST_NONE, OrderState, apply_report, new_order
from gateway.web.reference import Instrument
from gateway.web.store import Page
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage

DEFAULT_RESPONSE = {"LIMIT": "FULL", "MARKET": "FULL"}
RESTRICTIONS = {
    None: wire.CancelFlags(0),
    "ONLY_NEW": wire.CancelFlags.ONLY_NEW,
    "ONLY_PARTIALLY_FILLED": wire.CancelFlags.ONLY_PARTIALLY_FILLED,
}
ORIG_CLIENT_ID = Param("origClientOrderId", pattern=CLIENT_ID)
CANCEL_RESTRICTIONS = Param(
    "cancelRestrictions", choices=("ONLY_NEW", "ONLY_PARTIALLY_FILLED"),
    bad_code=(-1145, "Invalid cancelRestrictions; must be ONLY_NEW or ONLY_PARTIALLY_FILLED."),
)  # fmt: skip
SHOWN = f"status != {ADMITTED}"


# --- place ----------------------------------------------------------------------------------------------------------


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


# --- cancel ---------------------------------------------------------------------------------------------------------


def named_order(call: Call, *, id_name: str = "orderId", client_name: str = "origClientOrderId") -> tuple[Any, Any]:
    """Return (order id, client id) as given, at least one. Raises ApiError -1102."""
    order_id, client_id = call.get(id_name), call.get(client_name)
    if order_id is None and client_id is None:
        text = f"Param '{client_name}' or '{id_name}' must be sent, but both were empty/null!"
        raise ApiError(-1102, text)
    return order_id, client_id


async def check_both_ids(call: Call, instrument: Instrument, order_id: int | None, client_id: str | None) -> None:
    """Raise ApiError -2011 unless both ids are of one order, where both were given."""
    if order_id is None or client_id is None:
        return
    await call.gateway.caught_up()
    order = call.gateway.store.order(instrument.id, order_id)
    if order is None or order.account != call.account or order.client_id != client_id:
        raise ApiError(-2011, UNKNOWN_ORDER, details={"reason": "IDS_DO_NOT_MATCH"})


def cancel_frame(
    call: Call,
    instrument: Instrument,
    order_id: int | None,
    client_id: str | None,
    own_id: str,
    flags: wire.CancelFlags,
) -> wire.OrderCancelRequest:
    gateway = call.gateway
    return wire.OrderCancelRequest(
        cl_ord_id=gateway.text_number(call.account, own_id),
        orig_cl_ord_id=None if order_id is not None or client_id is None else gateway.number_of(client_id),
        order_id=order_id,
        instrument_id=instrument.id,
        account_id=call.account,
        cancel_flags=flags,
    )


async def cancel(call: Call) -> dict[str, Any]:
    instrument = call.instrument()
    order_id, client_id = named_order(call)
    await check_both_ids(call, instrument, order_id, client_id)
    own_id = call.get("newClientOrderId") or call.gateway.new_client_id()
    flags = RESTRICTIONS[call.get("cancelRestrictions")]
    answers = await call.gateway.request(cancel_frame(call, instrument, order_id, client_id, own_id, flags))
    return await canceled(call, instrument, answers[0][0], own_id)


async def canceled(call: Call, instrument: Instrument, answer: Answer, own_id: str) -> dict[str, Any]:
    """Return the answer to a cancel from its report. Raises ApiError when it was refused."""
    report = answer.report
    if not isinstance(report, wire.OrderCanceled):
        raise of_cancel_reject(report.reject_code)
    await call.gateway.reached({answer.partition: answer.report_seq + 1})
    order = call.gateway.store.order(instrument.id, report.order_id)
    if order is None:
        raise no_order()
    if order.list_id != LIST_NONE:
        return await ended_list(call, order.list_id, own_id)
    return call.gateway.view(call).canceled(order, own_id)


async def cancel_open(call: Call) -> list[dict[str, Any]]:
    """Cancel all open orders of a pair."""
    instrument = call.instrument()
    bodies = await mass_cancel(call, instrument)
    if not bodies:
        raise ApiError(-2011, UNKNOWN_ORDER)
    return bodies


async def mass_cancel(call: Call, instrument: Instrument | None) -> list[dict[str, Any]]:
    """Cancel what is open on a pair, or on all, in one record of the log; return what was canceled."""
    gateway = call.gateway
    own_id = gateway.new_client_id()
    request = wire.MassCancelRequest(
        cl_ord_id=gateway.number_of(own_id),
        instrument_id=0 if instrument is None else instrument.id,
        account_id=call.account,
        side=wire.SideOrBoth.BOTH,
        scope=wire.MassCancelScope.ACCOUNT,
    )
    answers = (await gateway.request(request))[0]
    orders: list[OrderState] = []
    for answer in answers:
        if answer.report.reject_code != wire.RejectCode.NONE:
            raise of_cancel_reject(answer.report.reject_code)
        ended = [
            report
            for report in gateway.inputs.before(answer.partition, answer.report_seq)
            if isinstance(report, wire.OrderCanceled) and report.account_id == call.account
        ]
        await gateway.reached({answer.partition: answer.report_seq + 1})
        found = (gateway.store.order(report.instrument_id, report.order_id) for report in ended)
        orders += [order for order in found if order is not None]
    view = gateway.view(call)
    bodies = [view.canceled(order, own_id) for order in orders if order.list_id == LIST_NONE]
    for list_id in sorted({order.list_id for order in orders if order.list_id != LIST_NONE}):
        bodies.append(await ended_list(call, list_id, own_id))
    return bodies


# --- change ---------------------------------------------------------------------------------------------------------


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


async def cancel_those(call: Call, instrument: Instrument, order_ids: Iterable[int]) -> None:
    """Cancel orders of a pair by id, as far as they are still open. Raises ApiError when the core is away."""
    for order_id in order_ids:
        own_id = call.gateway.new_client_id()
        await call.gateway.request(cancel_frame(call, instrument, order_id, None, own_id, wire.CancelFlags(0)))


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


# --- query ----------------------------------------------------------------------------------------------------------


async def find(call: Call, instrument: Instrument, order_id: int | None, client_id: str | None) -> OrderState:
    """Return an order of the account; it holds every answer given before this question. Raises ApiError -2013."""
    gateway = call.gateway
    await gateway.caught_up()
    where, values = f"{SHOWN} AND account = ? AND instrument = ?", [call.account, instrument.id]
    if order_id is not None:
        found = gateway.store.orders(f"{where} AND order_id = ?", [*values, order_id])
    else:
        found = gateway.store.orders(f"{where} AND client_id = ?", [*values, client_id])
    if order_id is not None and client_id is not None:
        found = [order for order in found if order.client_id == client_id]
    if not found:
        raise no_order()
    return found[-1]  # an id may be used again: the newest


async def query(call: Call) -> dict[str, Any]:
    instrument = call.instrument()
    order_id, client_id = named_order(call)
    return call.gateway.view(call).query(await find(call, instrument, order_id, client_id))


async def open_orders(call: Call) -> list[dict[str, Any]]:
    gateway = call.gateway
    instrument = call.instrument() if "symbol" in call.values else None
    await gateway.caught_up()
    where, values = f"open = 1 AND {SHOWN} AND account = ?", [call.account]
    if instrument is not None:
        where, values = f"{where} AND instrument = ?", [*values, instrument.id]
    view = gateway.view(call)
    return [view.query(order) for order in gateway.store.orders(where, values)]


async def all_orders(call: Call) -> list[dict[str, Any]]:
    """Orders of a pair, or of the whole account; oldest first."""
    gateway = call.gateway
    start_ns, end_ns = day_range(call)
    conditions, values = [SHOWN, "account = ?"], [call.account]
    if "symbol" in call.values:
        conditions.append("instrument = ?")
        values.append(call.instrument().id)
    if "orderId" in call.values:
        if "symbol" not in call.values:
            raise missing("symbol")
        conditions.append("order_id >= ?")
        values.append(call.get("orderId"))
    if start_ns is not None:
        conditions.append("created_ns >= ?")
        values.append(start_ns)
    if end_ns is not None:
        conditions.append("created_ns < ?")
        values.append(end_ns)
    await gateway.caught_up()
    newest = start_ns is None and "orderId" not in call.values
    by = "order_id" if "symbol" in call.values else "created_ns"
    found = gateway.store.orders(" AND ".join(conditions), values, page=Page(by, call.get("limit", 500), newest))
    view = gateway.view(call)
    return [view.query(order) for order in found]


async def batch(call: Call) -> list[dict[str, Any]]:
    """Place several orders in one request; each has its own answer, in order."""
    return await _each(call, place, ORDER_ENDPOINT.params)


async def batch_cancel(call: Call) -> list[dict[str, Any]]:
    return await _each(call, cancel, CANCEL_ENDPOINT.params)


async def _each(call: Call, handler: Any, params: Sequence[Param]) -> list[dict[str, Any]]:
    bodies = []
    entries = call.need("batchOrders")
    if not isinstance(entries, list) or not 0 < len(entries) <= BATCH_MAX:
        raise ApiError(-1130, f"Data sent for parameter 'batchOrders' is not valid. It must hold 1..{BATCH_MAX}.")
    known = {param.name: param for param in params}
    for entry in entries:
        try:
            if not isinstance(entry, dict):
                raise ApiError(-1135, "JSON Request is invalid.")
            values = {name: known[name].parse(value) for name, value in entry.items() if name in known}
            one = replace(call, values=values, headers=call.headers)
            bodies.append(await handler(one))
        except ApiError as error:
            bodies.append(error.body())
    return bodies


BATCH_MAX = 20
BATCH = Param(
    "batchOrders", Kind.JSON, required=True, doc=f"array of 1..{BATCH_MAX} objects with the single call's fields"
)
CANCEL_PARAMS = (
    SYMBOL_REQUIRED,
    ORDER_ID,
    ORIG_CLIENT_ID,
    Param("newClientOrderId", pattern=CLIENT_ID, doc="id of the cancel"),
    CANCEL_RESTRICTIONS,
)
ORDER_ENDPOINT = Endpoint(
    "POST", "/api/v3/order", "Place an order", place, (SYMBOL_REQUIRED, *ORDER_PARAMS, IDEMPOTENCY_KEY),
    socket="order.place", security=Security.TRADE, free_on_success=True,
)  # fmt: skip
CANCEL_ENDPOINT = Endpoint(
    "DELETE", "/api/v3/order", "Cancel an order", cancel, CANCEL_PARAMS, socket="order.cancel",
    security=Security.TRADE, free_on_success=True, never_limited=True,
)  # fmt: skip
ENDPOINTS = (
    ORDER_ENDPOINT,
    Endpoint(
        "POST", "/api/v3/order/test", "Check an order without sending it", test,
        (SYMBOL_REQUIRED, *ORDER_PARAMS, Param("computeCommissionRates", Kind.BOOLEAN)), socket="order.test",
        security=Security.TRADE,
    ),
    CANCEL_ENDPOINT,
    Endpoint(
        "GET", "/api/v3/order", "One order", query, (SYMBOL_REQUIRED, ORDER_ID, ORIG_CLIENT_ID), socket="order.status",
        security=Security.USER_DATA, weight=4,
    ),
    Endpoint(
        "DELETE", "/api/v3/openOrders", "Cancel all open orders of a pair", cancel_open, (SYMBOL_REQUIRED,),
        socket="openOrders.cancelAll", security=Security.TRADE, free_on_success=True, never_limited=True,
        answer="array",
    ),
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
    Endpoint(
        "GET", "/api/v3/openOrders", "Open orders", open_orders, (SYMBOL_OPTIONAL,), socket="openOrders.status",
        security=Security.USER_DATA, weight=lambda params: 6 if params.get("symbol") else 80, answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/allOrders", "Orders of a pair, or of the whole account", all_orders,
        (
            SYMBOL_OPTIONAL, ORDER_ID, Param("startTime", Kind.INTEGER, low=0), Param("endTime", Kind.INTEGER, low=0),
            LIMIT_1000,
        ),
        socket="allOrders", security=Security.USER_DATA, weight=20, answer="array",
    ),
    Endpoint(
        "POST", "/api/v3/batchOrders", "Place several orders", batch, (BATCH,), socket="batchOrders.place",
        security=Security.TRADE, weight=5, free_on_success=True, answer="array",
    ),
    Endpoint(
        "DELETE", "/api/v3/batchOrders", "Cancel several orders", batch_cancel, (BATCH,), socket="batchOrders.cancel",
        security=Security.TRADE, weight=5, free_on_success=True, never_limited=True, answer="array",
    ),
)  # fmt: skip
