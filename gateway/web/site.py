"""The pages: trading at `/`, the operator's at `/operator`; static files, and what the operator's page shows."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.web.errors import ApiError
from gateway.web.gateway import Gateway
from gateway.web.rest import json_response

FOLDER = Path(__file__).with_name("pages")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", "": "text/plain"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:;"
        " img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
LOOPBACK = ("127.0.0.1", "::1")
LOCAL_HOSTS = (*LOOPBACK, "localhost", "[::1]")
FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
SAMPLES_MAX = 900
SAMPLE_EVERY_S = 1.0
RING_FULL = 0.5
Observe = Callable[[], dict[str, Any]]


class Pages:
    """Static files, read once."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for path in sorted(FOLDER.rglob("*")):
            if path.is_file():
                body = path.read_bytes()
                tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
                self._files[path.relative_to(FOLDER).as_posix()] = (body, TYPES[path.suffix], tag)

    def routes(self) -> list[web.RouteDef]:
        """Return what to mount."""
        named = {"/": "index.html", "/operator": "operator.html"}
        fixed = [web.get(path, self._named(name)) for path, name in named.items()]
        return [*fixed, web.get("/pages/{name:.+}", self._any)]

    def _named(self, name: str) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return self._serve(request, name)

        return handle

    async def _any(self, request: web.Request) -> web.StreamResponse:
        return self._serve(request, request.match_info["name"])

    def _serve(self, request: web.Request, name: str) -> web.StreamResponse:
        if name not in self._files:
            raise web.HTTPNotFound
        body, kind, tag = self._files[name]
        headers = {**HEADERS, "ETag": tag}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)


class OperatorData:
    """What `bullring stat` shows, and how it was while somebody looked: for this machine, or with the token."""

    def __init__(self, gateway: Gateway, observe: Observe, token: str) -> None:
        self._gateway = gateway
        self._observe = observe
        self._token = token
        self._lock = asyncio.Lock()
        self._facts: dict[str, Any] = {}
        self._seen_at = 0.0
        self._samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES_MAX)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        async with self._lock:
            if time.monotonic() - self._seen_at >= SAMPLE_EVERY_S:
                self._facts = await asyncio.to_thread(self._observe)
                self._seen_at = time.monotonic()
                self._samples.append(sample(self._facts, int(time.time())))
        instruments = sorted(self._gateway.reference.instruments.values(), key=lambda instrument: instrument.id)
        markets = [{"pair": each.symbol, "status": each.status, "partition": each.partition} for each in instruments]
        body = {
            "facts": {name: value for name, value in self._facts.items() if name != "counters"},
            "alerts": alerts(self._facts, markets),
            "markets": markets,
            "samples": distinct(self._samples),
        }
        return json_response(body, headers={"Cache-Control": "no-store"})

    def _admit(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._token and hmac.compare_digest(given.encode(), self._token.encode()):
            return
        # A page from elsewhere must not reach us by a name that leads here, nor a proxy speak for everybody.
        local = request.remote in LOOPBACK and _host(request) in LOCAL_HOSTS
        if not self._token and local and not any(name in request.headers for name in FORWARDED):
            return
        text = "The operator's page needs the operator's token." if self._token else (
            "The operator's page is for this machine only; set gateway.web.operator_token_file for others."
        )  # fmt: skip
        raise ApiError(-1002, text, status=401)


def _host(request: web.Request) -> str:
    name, _, port = request.host.rpartition(":")
    return name if port.isdigit() else request.host


def sample(facts: dict[str, Any], at_s: int) -> dict[str, Any]:
    """Return what is kept of one look: latencies by process and what, records a second."""
    rows = {f"{row['process']} {row['what']}": row for row in facts["latency"] if row["period"] == "now"}
    rate = next((ring["per_s"] for ring in facts["rings"] if ring["ring"] == "log"), 0)
    return {"at": at_s, "per_s": rate, "latency": rows}


def distinct(samples: deque[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return samples of different seconds, as graphs want them."""
    return list({each["at"]: each for each in samples}.values())


def alerts(facts: dict[str, Any], markets: list[dict[str, Any]]) -> list[str]:
    """Return, in sentences, what an operator should look at."""
    found = [] if facts["running"] else ["The exchange is not complete: a process that trading needs is gone."]
    for process in facts["processes"]:
        if process["state"] != "running":
            found.append(f"Process {process['process']} is gone.")
        if process["restarts"]:
            found.append(f"Process {process['process']} was started again {process['restarts']} times.")
    for ring in facts["rings"]:
        for consumer, lag in ring["lags"].items():
            if lag > ring["slots"] * RING_FULL:
                found.append(f"{consumer} is {lag} of {ring['slots']} slots behind on ring {ring['ring']}.")
    if facts["storage"]["slow"] or facts["storage"]["level"] != "ok":
        found.append(f"Storage: {facts['storage']['text']}.")
    ledger = facts["ledger"]
    if ledger is not None:
        found += [f"The ledger differs: {sentence}" for sentence in ledger["differences"]]
        found += [f"The ledger: {ledger['trouble']}"] if ledger["trouble"] else []
    found += [f"{market['pair']} is {market['status']}." for market in markets if market["status"] != "TRADING"]
    return found
