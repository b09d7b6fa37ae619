"""What every handler of a worker shares: reference data, history, the session to the core, limits, the clock."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.clients.python.client import QueryRefused, SessionLost
from gateway.web.api import Call, Endpoint, Security
from gateway.web.auth import Signed, Verifier, check_time, invalid_key, not_permitted
from gateway.web.config import WebConfig
from gateway.web.core_link import ANSWER_TIMEOUT_S, Answer, CoreLink, CoreUnavailable, InputReader, OutcomeUnknown
from gateway.web.dead_man import DeadManTimers, watch_timers
from gateway.web.duplicates import Duplicates
from gateway.web.errors import BANNED, LIMITED, ApiError, missing, outcome_unknown, unavailable
from gateway.web.history_link import HistoryLate, HistoryLink
from gateway.web.limits import SharedLimits
from gateway.web.market_view import DayStatistics, StoreMarketView
from gateway.web.orders import OrderView
from gateway.web.reads import StoreReads
from gateway.web.reference import Key, Reference
from gateway.web.store import StoreReader
from gateway.web.streams.live import LiveMarket
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage

Reply = TypeVar("Reply", bound=WireMessage)
Read = TypeVar("Read")
START_TIMEOUT_S = 30.0
U64_MAX = (1 << 64) - 1
U32_MAX = (1 << 32) - 1
NUMBER_MAX = (1 << 63) - 1
KEY_LENGTH_MAX = 32


class Gateway:
    def __init__(self, config: WebConfig, *, core: CoreLink, inputs: InputReader, live: LiveMarket) -> None:
        self.config = config
        self.core = core
        self.inputs = inputs
        self.reference = Reference()
        self.limits = SharedLimits(config.shared_path, config.limits, time.time)
        self.verifier = Verifier(config.seal_key, config.keys_path)
        self.history = HistoryLink(config.history_socket, on_state=self._history_moved)
        self.duplicates = Duplicates(config.store_path.with_name("claims.db"))
        self.timers = DeadManTimers(config.store_path.with_name("timers.db"))
        self.live = live
        # Two lines: whoever asks for candles does not keep customers from their own orders.
        self._public_reads = StoreReads(config.store_path)
        self._private_reads = StoreReads(config.store_path)
        self.day_statistics = DayStatistics(self._public_reads)
        self.on_events: list[Callable[[], None]] = []
        self._store: StoreReader | None = None
        self._reference_of: tuple[int, int] = (-1, -1)
        self._random = random.Random(secrets.randbits(256))
        self._hash_key = config.hash_seed.to_bytes(8, "little")
        self._tasks: list[asyncio.Task[None]] = []
        self.started_ns = time.time_ns()

    async def start(self, *, wait_for_core: bool) -> None:
        await self.history.start()
        self._tasks.append(asyncio.create_task(self.core.run()))
        if wait_for_core:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self.core.bound.wait()
        self._tasks.append(asyncio.create_task(watch_timers(self, self.timers)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.core.close()
        await self.history.close()
        self.limits.close()
        self._public_reads.close()
        self._private_reads.close()
        self.duplicates.close()
        self.timers.close()

    @property
    def store(self) -> StoreReader:
        """For rows by their key; the loop waits."""
        if self._store is None:
            self._store = StoreReader(self.config.store_path)
        return self._store

    async def read(self, work: Callable[[StoreReader], Read]) -> Read:
        """Return what `work` makes of an account's part of the store, on a thread. Raises ApiError -1008."""
        return await self._private_reads.run(work)

    async def read_market(self, work: Callable[[StoreMarketView], Read]) -> Read:
        """Return what `work` makes of the trades, on a thread. Raises ApiError -1008."""
        return await self._public_reads.run(lambda store: work(StoreMarketView(store)))

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def _history_moved(self) -> None:
        if self.history.reference != self._reference_of:
            if self.history.reference[0] != self._reference_of[0] and self._store is not None:
                self._store.close()  # a new history process: the store may be another file now
                self._store = None
                self._public_reads.renew()
                self._private_reads.renew()
            self._reference_of = self.history.reference
            self.reference = Reference.of_rows(self.store.reference_rows())
        for told in self.on_events:
            told()

    # --- who asks ---------------------------------------------------------------------------------------------------

    async def key(self, access_key: str | None) -> Key:
        """Return a key the log knows. Raises ApiError -2014, -2015."""
        if not access_key:
            raise invalid_key()
        found = self.reference.keys.get(access_key)
        if found is None:
            if len(access_key) > KEY_LENGTH_MAX or not access_key.isascii():
                raise not_permitted()
            await self.caught_up()  # it may have been made a moment ago
            found = self.reference.keys.get(access_key)
        if found is None:
            raise not_permitted()
        return found

    def check(self, key: Key, security: Security) -> None:
        """Raise ApiError -2015 unless the key may do that."""
        need = wire.Permissions.TRADE if security is Security.TRADE else wire.Permissions.READ
        if not key.may(need):
            raise not_permitted()

    async def verify(
        self, access_key: str | None, signature: str | None, payloads: tuple[bytes, ...], *, timestamp: str | None,
        recv_window: str | None,
    ) -> Signed:  # fmt: skip
        """Return who signed. Raises ApiError."""
        key = await self.key(access_key)
        if not signature:
            raise missing("signature")
        deadline_us = check_time(timestamp, recv_window, self.now_us())
        self.verifier.verify(key, signature, payloads)
        return Signed(key, deadline_us)

    # --- limits -----------------------------------------------------------------------------------------------------

    def admit(self, endpoint: Endpoint, call: Call) -> int:
        """Count the weight of a request; return it. Raises ApiError -1003."""
        weight = endpoint.cost(call.params)
        call.payer = call.address
        self._charge(endpoint, call, weight)
        return weight

    def charge_key(self, endpoint: Endpoint, call: Call, weight: int) -> None:
        """A signature was good: the weight is the key's, not that of an address it may share. Raises ApiError -1003."""
        assert call.key is not None  # authenticated
        if not self.config.limits.weight_per_minute:
            return
        self.limits.give_back(call.address, weight)
        call.payer = f"key {call.key.id}"
        self._charge(endpoint, call, weight)

    def _charge(self, endpoint: Endpoint, call: Call, weight: int) -> None:
        use = self.limits.admit(call.payer, weight, always=endpoint.never_limited)
        self._weight_headers(call, use.weight)
        if use.retry_after_s:
            limit = self.config.limits.weight_per_minute
            if use.banned:
                until = int(time.time() + use.retry_after_s) * 1000
                text = f"Way too much request weight used; banned until {until}."
                raise ApiError(-1003, text, status=BANNED, retry_after_s=use.retry_after_s)
            text = f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE."
            raise ApiError(-1003, text, status=LIMITED, retry_after_s=use.retry_after_s)

    def free(self, call: Call, weight: int) -> None:
        """The request succeeded and such are free."""
        self._weight_headers(call, self.limits.give_back(call.payer, weight))

    def _weight_headers(self, call: Call, used: int) -> None:
        limit = self.config.limits.weight_per_minute
        call.headers["X-MBX-USED-WEIGHT"] = call.headers["X-MBX-USED-WEIGHT-1M"] = str(used)
        if limit:
            call.headers["RateLimit-Limit"] = str(limit)
            call.headers["RateLimit-Remaining"] = str(max(0, limit - used))
            call.headers["RateLimit-Reset"] = str(60 - int(time.time()) % 60)

    def count_orders(self, call: Call, count: int) -> None:
        """Count orders that are about to be sent. Raises ApiError -1015."""
        orders = self.limits.orders(call.account, count)
        call.headers["X-MBX-ORDER-COUNT-10S"] = str(orders.ten_seconds)
        call.headers["X-MBX-ORDER-COUNT-1D"] = str(orders.day)
        if orders.retry_after_s:
            text = f"Too many new orders; current limit is {orders.limit} orders per {orders.window}."
            details = {"limit": orders.limit, "window": orders.window}
            raise ApiError(-1015, text, status=LIMITED, retry_after_s=orders.retry_after_s, details=details)
        call.order_count = count

    # --- the core ---------------------------------------------------------------------------------------------------

    async def request(self, *messages: WireMessage) -> list[list[Answer]]:
        """Send a group and return its answers. Raises ApiError."""
        try:
            return await self.core.request(*messages)
        except CoreUnavailable:
            raise unavailable() from None
        except OutcomeUnknown:
            raise outcome_unknown() from None

    async def query(self, kind: type[Reply], message: WireMessage) -> list[Reply]:
        """Ask the sequencer: the answer holds all that was published before. Raises ApiError."""
        try:
            return [reply for reply in await self.core.query(message) if isinstance(reply, kind)]
        except (SessionLost, QueryRefused, TimeoutError):
            raise unavailable() from None

    def request_id(self) -> int:
        return self.core.new_request_id()

    async def caught_up(self) -> None:
        """Return when history holds everything that any client may have been told by now. Raises ApiError."""
        await self.reached(self.inputs.published())

    async def reached(self, positions: dict[int, int]) -> None:
        try:
            await self.history.reached(positions)
        except HistoryLate:
            raise unavailable() from None

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when history shows it. Raises ApiError -1007 when it takes too long."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while not holds():
                    await self.history.moved()
        except TimeoutError:
            raise outcome_unknown() from None

    # --- names ------------------------------------------------------------------------------------------------------

    def view(self, call: Call) -> OrderView:
        return OrderView(self.reference, microseconds=call.microseconds)

    def number_of(self, text: str) -> int:
        """Return the 64-bit clOrdId of a text id: a plain number is itself, so that both protocols name it alike."""
        if text.isdigit() and text[0] != "0" and int(text) <= NUMBER_MAX:
            return int(text)
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=self._hash_key).digest()
        return min(int.from_bytes(digest, "little") | 1 << 63, U64_MAX - 1)

    def new_client_id(self) -> str:
        """Return a client id for an order that came without: a number, which needs no text in the log."""
        return str(self._random.getrandbits(62) | 1 << 61)

    def text_number(self, account: int, text: str) -> int:
        """Return the number that stands for a text where the log has no room for it, and tell history."""
        number = self.number_of(text)
        if str(number) != text:
            self.history.send_text(account, number, text)
        return number

    def max_latency_us(self, call: Call) -> int:
        """Return what is left of the request's time, as the sequencer enforces it; at least 1."""
        left = call.deadline_us - self.now_us()
        return max(1, min(left, U32_MAX)) if call.deadline_us else 0

    def numbers(self) -> dict[str, Any]:
        return {
            "core_bound": int(self.core.established),
            "history_connected": int(self.history.connected),
            "unknown_outcomes": self.core.unknown_outcomes,
            "store_reads_refused": self._public_reads.refused + self._private_reads.refused,
        }
