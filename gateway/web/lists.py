"""Order lists: OCO, OTO, OTOCO, the old form of OCO, queries and cancels of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.web.api import (
    CLIENT_ID,
    END_TIME,
    FROM_ID,
    LIMIT_1000,
    START_TIME,
    SYMBOL_REQUIRED,
    Call,
    Endpoint,
    Kind,
    Param,
    Security,
)
from gateway.web.cancels import cancel_frame
from gateway.web.core_link import Answer
from gateway.web.errors import ApiError, combination, missing, of_cancel_reject
from gateway.web.list_view import by_id, ended_list, legs, no_list, show
from gateway.web.order_request import (
    RESPONSE_TYPE,
    SIDE,
    SIDES,
    STP_MODE,
    STRATEGY_TYPE_MIN,
    TIFS,
    TYPES,
    Built,
    Terms,
    build,
)
from gateway.web.orders import STRATEGY_ID_MAX, STRATEGY_TYPE_MAX
from gateway.web.private_events import ListState
from gateway.web.reference import Instrument
from gateway.web.store import StoreReader
from gateway.web.trading import refusal
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage

TAKES = ("LIMIT_MAKER", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
STOPS = ("STOP_LOSS", "STOP_LOSS_LIMIT")
WORKING_TYPES = ("LIMIT", "LIMIT_MAKER")
LIST_CLIENT_ID = Param("listClientOrderId", pattern=CLIENT_ID)
OPEN_LISTS_MAX = 1000
LIST_ID = Param("orderListId", Kind.INTEGER, low=0)
ROLES = {
    wire.ListType.OCO: (wire.ListRole.OCO_ABOVE, wire.ListRole.OCO_BELOW),
    wire.ListType.OTO: (wire.ListRole.OTO_WORKING, wire.ListRole.OTO_PENDING),
    wire.ListType.OTOCO: (
        wire.ListRole.OTOCO_WORKING,
        wire.ListRole.OTOCO_PENDING_ABOVE,
        wire.ListRole.OTOCO_PENDING_BELOW,
    ),
}


def leg_params(prefix: str, types: tuple[str, ...], *, sided: bool = False) -> tuple[Param, ...]:
    """Return the parameters of one leg. `sided`: it names its own side and quantity."""
    names = _names(prefix)
    own = (
        Param(names["side"], required=True, choices=tuple(SIDES), bad_code=(-1117, "Invalid side.")),
        Param(names["quantity"], Kind.DECIMAL, required=True),
    )
    return (
        Param(names["type"], required=True, choices=types, bad_code=(-1116, "Invalid orderType.")),
        *(own if sided else ()),
        Param(names["price"], Kind.DECIMAL),
        Param(names["stopPrice"], Kind.DECIMAL),
        Param(names["trailingDelta"], Kind.INTEGER, low=1, high=9999),
        Param(names["icebergQty"], Kind.DECIMAL),
        Param(names["timeInForce"], choices=tuple(TIFS), bad_code=(-1115, "Invalid timeInForce.")),
        Param(names["clientOrderId"], pattern=CLIENT_ID),
        Param(names["strategyId"], Kind.INTEGER, low=0, high=STRATEGY_ID_MAX),
        Param(names["strategyType"], Kind.INTEGER, low=STRATEGY_TYPE_MIN, high=STRATEGY_TYPE_MAX),
    )


def _names(prefix: str) -> dict[str, str]:
    fields = (
        "type", "side", "quantity", "price", "stopPrice", "trailingDelta", "icebergQty", "timeInForce",
        "clientOrderId", "strategyId", "strategyType",
    )  # fmt: skip
    return {field: prefix + field[0].upper() + field[1:] for field in fields}


def leg_terms(call: Call, prefix: str, *, side: str | None = None, quantity: str | None = None) -> Terms:
    """Return the terms of a leg from its prefixed parameters; side and quantity where the legs share them."""
    names = _names(prefix)
    return Terms(
        type=call.need(names["type"]),
        side=side or call.need(names["side"]),
        tif=call.get(names["timeInForce"]),
        quantity=quantity or call.need(names["quantity"]),
        amount=None,
        price=call.get(names["price"]),
        stop_price=call.get(names["stopPrice"]),
        trailing_delta=call.get(names["trailingDelta"]),
        iceberg=call.get(names["icebergQty"]),
        client_id=call.get(names["clientOrderId"]),
        strategy_id=call.get(names["strategyId"]),
        strategy_type=call.get(names["strategyType"]),
        good_till=None,
        stp_mode=call.get("selfTradePreventionMode", "NONE"),
        names=names,
    )


# --- place ------------------------------------------------------------------------------------------------------------


async def oco(call: Call) -> dict[str, Any]:
    side, quantity = call.need("side"), call.need("quantity")
    above = leg_terms(call, "above", side=side, quantity=quantity)
    below = leg_terms(call, "below", side=side, quantity=quantity)
    _check_pair(above, below)
    return await place_list(call, wire.ListType.OCO, [above, below])


def _check_pair(above: Terms, below: Terms) -> None:
    """One leg takes profit, the other stops a loss, each on its side."""
    takes, stops = (above, below) if above.side == "SELL" else (below, above)
    if takes.type not in TAKES or stops.type not in STOPS:
        text = f"Unsupported order combination: {above.side} with {above.type} above and {below.type} below."
        raise ApiError(-1013, text, details={"above": above.type, "below": below.type})


async def old_oco(call: Call) -> dict[str, Any]:
    """The withdrawn form: one limit order, one stop order."""
    side, quantity = call.need("side"), call.need("quantity")
    limit_price = call.get("stopLimitPrice")
    common = {"side": side, "quantity": quantity, "amount": None, "good_till": None}
    common["stp_mode"] = call.get("selfTradePreventionMode", "NONE")
    take = Terms(
        type="LIMIT_MAKER", tif=None, price=call.need("price"), stop_price=None, trailing_delta=None,
        iceberg=call.get("limitIcebergQty"), client_id=call.get("limitClientOrderId"),
        strategy_id=call.get("limitStrategyId"), strategy_type=call.get("limitStrategyType"), names={}, **common,
    )  # fmt: skip
    if limit_price is not None and "stopLimitTimeInForce" not in call.values:
        raise missing("stopLimitTimeInForce")
    stop = Terms(
        type="STOP_LOSS" if limit_price is None else "STOP_LOSS_LIMIT", tif=call.get("stopLimitTimeInForce"),
        price=limit_price, stop_price=call.get("stopPrice"), trailing_delta=call.get("trailingDelta"),
        iceberg=call.get("stopIcebergQty"), client_id=call.get("stopClientOrderId"),
        strategy_id=call.get("stopStrategyId"), strategy_type=call.get("stopStrategyType"),
        names={"price": "stopLimitPrice", "timeInForce": "stopLimitTimeInForce"}, **common,
    )  # fmt: skip
    return await place_list(call, wire.ListType.OCO, [take, stop] if side == "SELL" else [stop, take])


async def oto(call: Call) -> dict[str, Any]:
    return await place_list(call, wire.ListType.OTO, [leg_terms(call, "working"), leg_terms(call, "pending")])


async def otoco(call: Call) -> dict[str, Any]:
    side, quantity = call.need("pendingSide"), call.need("pendingQuantity")
    above = leg_terms(call, "pendingAbove", side=side, quantity=quantity)
    below = leg_terms(call, "pendingBelow", side=side, quantity=quantity)
    _check_pair(above, below)
    return await place_list(call, wire.ListType.OTOCO, [leg_terms(call, "working"), above, below])


async def place_list(call: Call, kind: wire.ListType, terms: list[Terms]) -> dict[str, Any]:
    gateway = call.gateway
    instrument = call.instrument()
    built = [build(call, instrument, leg, list_role=role) for leg, role in zip(terms, ROLES[kind], strict=True)]
    list_id = call.get("listClientOrderId") or gateway.new_client_id()
    request = wire.OrderListRequest(
        list_cl_ord_id=gateway.text_number(call.account, list_id),
        instrument_id=instrument.id,
        account_id=call.account,
        list_type=kind,
        leg_count=len(built),
    )
    gateway.count_orders(call, len(built))
    frames: list[WireMessage] = [request]
    for leg in built:
        frames += leg.frames
    answers = [found[0] for found in await gateway.request(*frames) if found]
    return await placed_list(call, instrument, built, answers)


async def placed_list(call: Call, instrument: Instrument, built: list[Built], answers: list[Answer]) -> dict[str, Any]:
    """Return the answer to a list from those of its frames. Raises ApiError when it was refused."""
    gateway = call.gateway
    status, first = answers[0].report, answers[1:]
    refused = [answer.report for answer in first if not isinstance(answer.report, wire.OrderAccepted)]
    if refused:
        gateway.limits.order_gone(call.account, len(built))
        telling = [report for report in refused if report.reject_code != wire.RejectCode.INVALID_GROUP]
        listed = getattr(status, "reject_code", wire.RejectCode.NONE)
        if not telling and listed not in (wire.RejectCode.NONE, wire.RejectCode.INVALID_GROUP):
            telling = [status]
        raise refusal(call, instrument, (telling or refused)[0])
    for answer in first:
        if answer.partition:  # what the matcher did with it, up to the end of the input
            await gateway.inputs.after(answer)
            break
    await gateway.caught_up()
    entry = by_id(call, status.list_id)
    orders = legs(call.gateway.store, entry)
    body = show(call, entry, orders)
    view = gateway.view(call)
    if call.get("newOrderRespType") == "ACK":
        return body | {"orderReports": [view.ack(order) for order in orders]}
    return body | {"orderReports": [view.result(order) for order in orders]}


# --- query and cancel -------------------------------------------------------------------------------------------------


async def query_list(call: Call) -> dict[str, Any]:
    await call.gateway.caught_up()
    entry = _named(call, "origClientOrderId")
    return show(call, entry, legs(call.gateway.store, entry))


def _named(call: Call, client_name: str) -> ListState:
    """Return the list that orderListId or a client id names. Raises ApiError -1102, -2018."""
    if "orderListId" in call.values:
        entry = by_id(call, call.get("orderListId"))
        wanted = call.get(client_name)
        if wanted is not None and entry.client_id != wanted:
            raise no_list()
        return entry
    client_id = call.get(client_name)
    if client_id is None:
        text = f"Param '{client_name}' or 'orderListId' must be sent, but both were empty/null!"
        raise ApiError(-1102, text)
    found = call.gateway.store.lists("account = ? AND client_id = ?", (call.account, client_id))
    if not found:
        raise no_list()
    return found[-1]


async def cancel_list(call: Call) -> dict[str, Any]:
    gateway = call.gateway
    instrument = call.instrument()
    await gateway.caught_up()
    try:
        entry = _named(call, "listClientOrderId")
    except ApiError as error:
        if error.code == no_list().code:
            raise of_cancel_reject(wire.RejectCode.UNKNOWN_ORDER) from None
        raise
    live = [order for order in legs(call.gateway.store, entry) if order.open]
    if entry.instrument != instrument.id or not live:
        raise of_cancel_reject(wire.RejectCode.UNKNOWN_ORDER)
    own_id = call.get("newClientOrderId") or gateway.new_client_id()
    request = cancel_frame(call, instrument, live[0].order_id, None, own_id, wire.CancelFlags(0))
    answer = (await gateway.request(request))[0][0]
    if not isinstance(answer.report, wire.OrderCanceled):
        raise of_cancel_reject(answer.report.reject_code)
    await gateway.reached({answer.partition: answer.report_seq + 1})
    return await ended_list(call, entry.list_id, own_id)


async def all_lists(call: Call) -> list[dict[str, Any]]:
    start_ns, end_ns = call.time_range()
    if "fromId" in call.values and (start_ns is not None or end_ns is not None):
        raise combination()
    await call.gateway.caught_up()
    conditions, values = ["account = ?"], [call.account]
    bounds = (("list_id >= ?", call.get("fromId")), ("created_ns >= ?", start_ns), ("created_ns < ?", end_ns))
    for condition, value in bounds:
        if value is not None:
            conditions.append(condition)
            values.append(value)
    limit = call.get("limit", 500)
    return await call.gateway.read(lambda store: _shown(call, store, " AND ".join(conditions), values, limit))


async def open_lists(call: Call) -> list[dict[str, Any]]:
    await call.gateway.caught_up()
    where = "account = ? AND list_id IN (SELECT list_id FROM orders WHERE account = ? AND open = 1 AND list_id >= 0)"
    values = (call.account, call.account)
    return await call.gateway.read(lambda store: _shown(call, store, where, values, OPEN_LISTS_MAX))


def _shown(call: Call, store: StoreReader, where: str, values: Sequence[int], limit: int) -> list[dict[str, Any]]:
    return [show(call, entry, legs(store, entry)) for entry in store.lists(where, values, limit)]


_COMMON = (SYMBOL_REQUIRED, LIST_CLIENT_ID, RESPONSE_TYPE, STP_MODE)
_PAIR_TYPES = (*TAKES, *STOPS)
_QUANTITY = Param("quantity", Kind.DECIMAL, required=True)


def _place(path: str, summary: str, handler: Any, params: tuple[Param, ...], socket: str) -> Endpoint:
    return Endpoint(
        "POST", path, summary, handler, (*_COMMON, *params), socket=socket, security=Security.TRADE,
        free_on_success=True,
    )  # fmt: skip


ENDPOINTS = (
    _place(
        "/api/v3/orderList/oco", "Place a pair of which one cancels the other", oco,
        (SIDE, _QUANTITY, *leg_params("above", _PAIR_TYPES), *leg_params("below", _PAIR_TYPES)),
        "orderList.place.oco",
    ),
    _place(
        "/api/v3/orderList/oto", "Place an order that triggers another", oto,
        (*leg_params("working", WORKING_TYPES, sided=True), *leg_params("pending", tuple(TYPES), sided=True)),
        "orderList.place.oto",
    ),
    _place(
        "/api/v3/orderList/otoco", "Place an order that triggers a pair", otoco,
        (
            *leg_params("working", WORKING_TYPES, sided=True),
            Param("pendingSide", required=True, choices=tuple(SIDES), bad_code=(-1117, "Invalid side.")),
            Param("pendingQuantity", Kind.DECIMAL, required=True),
            *leg_params("pendingAbove", _PAIR_TYPES), *leg_params("pendingBelow", _PAIR_TYPES),
        ),
        "orderList.place.otoco",
    ),
    _place(
        "/api/v3/order/oco", "Place a pair, in the older form", old_oco,
        (
            SIDE, _QUANTITY, Param("price", Kind.DECIMAL, required=True), Param("stopPrice", Kind.DECIMAL),
            Param("trailingDelta", Kind.INTEGER, low=1, high=9999), Param("stopLimitPrice", Kind.DECIMAL),
            Param("stopLimitTimeInForce", choices=("GTC", "IOC", "FOK"), bad_code=(-1115, "Invalid timeInForce.")),
            Param("limitClientOrderId", pattern=CLIENT_ID), Param("stopClientOrderId", pattern=CLIENT_ID),
            Param("limitIcebergQty", Kind.DECIMAL), Param("stopIcebergQty", Kind.DECIMAL),
            Param("limitStrategyId", Kind.INTEGER, low=0, high=STRATEGY_ID_MAX),
            Param("limitStrategyType", Kind.INTEGER, low=STRATEGY_TYPE_MIN, high=STRATEGY_TYPE_MAX),
            Param("stopStrategyId", Kind.INTEGER, low=0, high=STRATEGY_ID_MAX),
            Param("stopStrategyType", Kind.INTEGER, low=STRATEGY_TYPE_MIN, high=STRATEGY_TYPE_MAX),
        ),
        "orderList.place",
    ),
    Endpoint(
        "GET", "/api/v3/orderList", "One order list", query_list,
        (LIST_ID, Param("origClientOrderId", pattern=CLIENT_ID)), socket="orderList.status",
        security=Security.USER_DATA, weight=4,
    ),
    Endpoint(
        "DELETE", "/api/v3/orderList", "Cancel an order list", cancel_list,
        (SYMBOL_REQUIRED, LIST_ID, LIST_CLIENT_ID, Param("newClientOrderId", pattern=CLIENT_ID)),
        socket="orderList.cancel", security=Security.TRADE, free_on_success=True, never_limited=True,
    ),
    Endpoint(
        "GET", "/api/v3/allOrderList", "Order lists of the account", all_lists,
        (FROM_ID, START_TIME, END_TIME, LIMIT_1000), socket="allOrderLists", security=Security.USER_DATA, weight=20,
        answer="array",
    ),
    Endpoint(
        "GET", "/api/v3/openOrderList", "Open order lists", open_lists, socket="openOrderLists.status",
        security=Security.USER_DATA, weight=6, answer="array",
    ),
)  # fmt: skip
