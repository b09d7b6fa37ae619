"""Several orders or cancels in one request; each has its own answer, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.web.api import Call, Endpoint, Kind, Param, Security
from gateway.web.cancels import CANCEL_ENDPOINT, cancel
from gateway.web.errors import ApiError
from gateway.web.trading import ORDER_ENDPOINT, place


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
ENDPOINTS = (
    Endpoint(
        "POST", "/api/v3/batchOrders", "Place several orders", batch, (BATCH,), socket="batchOrders.place",
        security=Security.TRADE, weight=5, free_on_success=True, answer="array",
    ),
    Endpoint(
        "DELETE", "/api/v3/batchOrders", "Cancel several orders", batch_cancel, (BATCH,), socket="batchOrders.cancel",
        security=Security.TRADE, weight=5, free_on_success=True, never_limited=True, answer="array",
    ),
)  # fmt: skip
