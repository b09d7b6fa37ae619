"""ping and time."""

from __future__ import annotations

from typing import Any

from gateway.web.api import Call, Endpoint


async def ping(call: Call) -> dict[str, Any]:
    return {}


async def server_time(call: Call) -> dict[str, Any]:
    return {"serverTime": call.time(call.gateway.now_us() * 1000)}


ENDPOINTS = (
    Endpoint("GET", "/api/v3/ping", "Test the connection", ping, socket="ping"),
    Endpoint("GET", "/api/v3/time", "Server time", server_time, socket="time"),
)
