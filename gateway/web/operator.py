"""What the operator's page shows: the exchange as `bullring stat` sees it, how it was, the books, and what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.web.decimals import whole
from gateway.web.errors import ApiError
from gateway.web.gateway import Gateway
from gateway.web.rest import json_response

LOOPBACK = ("127.0.0.1", "::1")
LOCAL_HOSTS = (*LOOPBACK, "localhost", "[::1]")
FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
SAMPLES_MAX = 2000
SAMPLE_EVERY_S = 1.0  # at most, while somebody looks
UNSEEN_EVERY_S = 10.0  # while nobody does: more than five hours are kept
BOOKS_EVERY_S = 15.0
LOOKED_S = 60.0  # since the last look: the books are asked no more
RING_FULL = 0.5
PERCENTILES = ("p50_us", "p99_us", "p99.9_us")
Facts = dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """Where it comes from; both are called in a thread. `books` may raise OSError, and is None without a ledger."""

    exchange: Callable[[], Facts]
    books: Callable[[], Facts] | None


class OperatorData:
    """For this machine, or with the token. `run()` keeps what the graphs show, whether anybody looks or not."""

    def __init__(self, gateway: Gateway, sources: Sources, token: str) -> None:
        self._gateway = gateway
        self._sources = sources
        self._token = token
        self._lock = asyncio.Lock()
        self._facts: Facts = {}
        self._seen_at = self._looked_at = self._asked_at = -LOOKED_S
        self._books: Facts | None = None
        self._samples: deque[Facts] = deque(maxlen=SAMPLES_MAX)

    async def run(self) -> None:
        """Take samples and ask the books, for ever."""
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            now = time.monotonic()
            if now - self._seen_at >= UNSEEN_EVERY_S:
                with contextlib.suppress(ApiError):
                    await self._look(UNSEEN_EVERY_S)
            if now - self._looked_at < LOOKED_S and now - self._asked_at >= BOOKS_EVERY_S:
                await self._ask_books()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer with everything; of the samples those after `since`, a second of the epoch."""
        self._admit(request)
        await self._look(SAMPLE_EVERY_S)
        self._looked_at = time.monotonic()
        since = request.query.get("since", "0")
        instruments = sorted(self._gateway.reference.instruments.values(), key=lambda instrument: instrument.id)
        markets = [{"pair": each.symbol, "status": each.status, "partition": each.partition} for each in instruments]
        body = {
            "facts": {name: value for name, value in self._facts.items() if name != "counters"},
            "alerts": [*alerts(self._facts, markets), *book_alerts(self._books)],
            "markets": markets,
            "books": self._books,
            "samples": distinct(self._samples, whole(since) or 0),
        }
        return json_response(body, headers={"Cache-Control": "no-store"})

    async def _look(self, age_s: float) -> None:
        async with self._lock:
            if time.monotonic() - self._seen_at < age_s:
                return
            try:
                self._facts = await asyncio.to_thread(self._sources.exchange)
            except OSError as error:
                raise ApiError(-1008, f"The exchange cannot be seen: {error}", status=503) from error
            self._seen_at = time.monotonic()
            self._samples.append(sample(self._facts, int(time.time())))

    async def _ask_books(self) -> None:
        if self._sources.books is None:
            return
        try:
            self._books = await asyncio.to_thread(self._sources.books)
        except OSError as error:
            self._books = {**(self._books or {}), "trouble": str(error)}
        self._asked_at = time.monotonic()

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


def sample(facts: Facts, at_s: int) -> Facts:
    """Return what is kept of one look: percentiles by process and what, records a second, the largest lags."""
    latency = {
        f"{row['process']} {row['what']}": [row[name] for name in PERCENTILES]
        for row in facts["latency"]
        if row["period"] == "now"
    }
    rate = next((ring["per_s"] for ring in facts["rings"] if ring["ring"] == "log"), 0)
    lag = max((lag for ring in facts["rings"] for lag in ring["lags"].values()), default=0)
    ledger = None if facts["ledger"] is None else facts["ledger"]["lag"]
    return {"at": at_s, "per_s": rate, "lag": lag, "ledger_lag": ledger, "latency": latency}


def distinct(samples: Iterable[Facts], since_s: int) -> list[Facts]:
    """Return samples of different seconds after one, as graphs want them."""
    return list({each["at"]: each for each in samples if each["at"] > since_s}.values())


def alerts(facts: Facts, markets: list[Facts]) -> list[str]:
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


def book_alerts(books: Mapping[str, Any] | None) -> list[str]:
    """Return what is wrong with the books."""
    if books is None:
        return []
    found = [f"The ledger does not answer: {books['trouble']}"] if books.get("trouble") else []
    found += [
        f"The books do not balance: {asset} sums to {total}."
        for asset, total in books.get("sums", {}).items()
        if float(total)
    ]
    for last in books.get("reconciliations", ())[:1]:
        if last["differences"]:
            what = f"{last['differences']} differences at record {last['position']}"
            found.append(f"The last reconciliation ({last['kind']}) found {what}: {last['first_difference']}")
    return found
