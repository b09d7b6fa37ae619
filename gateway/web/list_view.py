"""Order lists as the API shows them."""

from __future__ import annotations

from typing import Any

from gateway.web.api import Call
from gateway.web.errors import ApiError
from gateway.web.orders import OrderState
from gateway.web.private_events import LIST_ORDER_STATUSES, LIST_STATUS_TYPES, LIST_TYPES, ListState
from gateway.web.store import StoreReader
from ringbuf.wire import messages as wire


def no_list() -> ApiError:
    return ApiError(-2018, "Order list does not exist.")


def legs(store: StoreReader, entry: ListState) -> list[OrderState]:
    """Return the legs in the order they were sent."""
    found = {order.order_id: order for order in store.orders("list_id = ?", (entry.list_id,))}
    return [found[order_id] for order_id in entry.legs if order_id in found]


def show(call: Call, entry: ListState, orders: list[OrderState]) -> dict[str, Any]:
    """Return the list object without order reports."""
    symbol = call.gateway.reference.instruments[entry.instrument].symbol
    ended = bool(orders) and all(not order.open for order in orders)
    status_type = wire.ListStatusType.ALL_DONE if ended else wire.ListStatusType(entry.status_type)
    order_status = wire.ListOrderStatus(entry.order_status)
    if ended and order_status == wire.ListOrderStatus.EXECUTING:
        order_status = wire.ListOrderStatus.ALL_DONE
    return {
        "orderListId": entry.list_id,
        "contingencyType": LIST_TYPES[wire.ListType(entry.list_type)],
        "listStatusType": LIST_STATUS_TYPES[status_type],
        "listOrderStatus": LIST_ORDER_STATUSES[order_status],
        "listClientOrderId": entry.client_id,
        "transactionTime": call.time(entry.updated_ns),
        "symbol": symbol,
        "orders": [{"symbol": symbol, "orderId": order.order_id, "clientOrderId": order.client_id} for order in orders],
    }


def by_id(call: Call, list_id: int) -> ListState:
    found = call.gateway.store.lists("list_id = ? AND account = ?", (list_id, call.account))
    if not found:
        raise no_list()
    return found[0]


def list_body(call: Call, list_id: int) -> dict[str, Any]:
    entry = by_id(call, list_id)
    return show(call, entry, legs(call.gateway.store, entry))


async def ended_list(call: Call, list_id: int, cancel_id: str) -> dict[str, Any]:
    """Return a list that was canceled, with the reports of all its legs."""
    gateway = call.gateway
    entry = by_id(call, list_id)
    orders = legs(gateway.store, entry)
    if any(order.open for order in orders):  # pending legs end with a record of their own, right behind
        await gateway.until(lambda: not any(order.open for order in legs(gateway.store, entry)))
        orders = legs(gateway.store, entry)
    view = gateway.view(call)
    return show(call, entry, orders) | {"orderReports": [view.canceled(order, cancel_id) for order in orders]}
