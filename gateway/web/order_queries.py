"""Questions about orders: one, the open ones, all."""

from __future__ import annotations

from typing import Any

from gateway.web.account import day_range
from gateway.web.api import (
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
from gateway.web.cancels import ORIG_CLIENT_ID, named_order
from gateway.web.errors import missing, no_order
from gateway.web.orders import ADMITTED, OrderState
from gateway.web.reference import Instrument
from gateway.web.store import Page

SHOWN = f"status != {ADMITTED}"


async def find(call: Call, instrument: Instrument, order_id: int | None, client_id: str | None) -> OrderState:
    """Return an order of the account; it holds every answer given before this question. Raises ApiError -2013."""
    gateway = call.gateway
    await gateway.caught_up()
    where, values = f"{SHOWN} AND account = ? AND instrument = ?", [call.account, instrument.id]
    if order_id is not None:
        found = gateway.store.orders(f"{where} AND order_id = ?", [*values, order_id])
    else:  # an id may have been used any number of times
        found = await gateway.read(lambda store: store.orders(f"{where} AND client_id = ?", [*values, client_id]))
    if order_id is not None and client_id is not None:
        found = [order for order in found if order.client_id == client_id]
    if not found:
        raise no_order()
    return found[-1]


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
    return await gateway.read(lambda store: [view.query(order) for order in store.orders(where, values)])


async def all_orders(call: Call) -> list[dict[str, Any]]:
    """Orders of a pair, or of the whole account; oldest first."""
    gateway = call.gateway
    start_ns, end_ns = day_range(call)
    conditions, values = [SHOWN, "account = ?"], [call.account]
    if "symbol" in call.values:
        conditions.append("instrument = ?")
        values.append(call.instrument().id)
    elif "orderId" in call.values:
        raise missing("symbol")
    bounds = (("order_id >= ?", call.get("orderId")), ("created_ns >= ?", start_ns), ("created_ns < ?", end_ns))
    for condition, value in bounds:
        if value is not None:
            conditions.append(condition)
            values.append(value)
    await gateway.caught_up()
    newest = start_ns is None and "orderId" not in call.values
    by = "order_id" if "symbol" in call.values else "created_ns"
    where, page, view = " AND ".join(conditions), Page(by, call.get("limit", 500), newest), gateway.view(call)
    return await gateway.read(lambda store: [view.query(order) for order in store.orders(where, values, page=page)])


ENDPOINTS = (
    Endpoint(
        "GET", "/api/v3/order", "One order", query, (SYMBOL_REQUIRED, ORDER_ID, ORIG_CLIENT_ID), socket="order.status",
        security=Security.USER_DATA, weight=4,
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
)  # fmt: skip
