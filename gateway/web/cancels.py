"""Cancels: of one order, of all of a pair, of everything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.web.api import CLIENT_ID, ORDER_ID, SYMBOL_REQUIRED, Call, Endpoint, Param, Security
from gateway.web.core_link import Answer
from gateway.web.errors import UNKNOWN_ORDER, ApiError, no_order, of_cancel_reject
from gateway.web.list_view import ended_list
from gateway.web.orders import LIST_NONE, OrderState
from gateway.web.reference import Instrument
from ringbuf.wire import messages as wire

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


async def cancel_those(call: Call, instrument: Instrument, order_ids: Iterable[int]) -> None:
    """Cancel orders of a pair by id, as far as they are still open. Raises ApiError when the core is away."""
    for order_id in order_ids:
        own_id = call.gateway.new_client_id()
        await call.gateway.request(cancel_frame(call, instrument, order_id, None, own_id, wire.CancelFlags(0)))


CANCEL_PARAMS = (
    SYMBOL_REQUIRED,
    ORDER_ID,
    ORIG_CLIENT_ID,
    Param("newClientOrderId", pattern=CLIENT_ID, doc="id of the cancel"),
    CANCEL_RESTRICTIONS,
)
CANCEL_ENDPOINT = Endpoint(
    "DELETE", "/api/v3/order", "Cancel an order", cancel, CANCEL_PARAMS, socket="order.cancel",
    security=Security.TRADE, free_on_success=True, never_limited=True,
)  # fmt: skip
ENDPOINTS = (
    CANCEL_ENDPOINT,
    Endpoint(
        "DELETE", "/api/v3/openOrders", "Cancel all open orders of a pair", cancel_open, (SYMBOL_REQUIRED,),
        socket="openOrders.cancelAll", security=Security.TRADE, free_on_success=True, never_limited=True,
        answer="array",
    ),
)  # fmt: skip
