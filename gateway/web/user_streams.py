"""Private events to whoever subscribed: live from history's commits, and from a vector on after a disconnect.

Events come from the store in the order history made them, so the events of one order are in the order they happened.
After them comes outboundAccountPosition with the assets that may have changed, asked from the sequencer: it holds all
that the events before it tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import orjson

from gateway.web.errors import ApiError
from gateway.web.gateway import Gateway
from gateway.web.private_events import account_position
from gateway.web.reference import Asset
from gateway.web.store import Event, StoreReader
from ringbuf.wire import messages as wire

RESUMED_MAX = 100_000
PIECE = 500  # events that are read or told in one go
_TIMES = ("E", "T", "O", "W", "D", "u")  # ms in the events, us where asked for


class Subscription:
    """One subscriber. `send` takes the JSON of an event and must not wait."""

    def __init__(self, account: int, send: Callable[[str], None], *, microseconds: bool) -> None:
        self.account = account
        self.microseconds = microseconds
        self.ended = False
        self._send = send

    def deliver(self, body: str, ts_ns: int) -> None:
        self._send(in_microseconds(body, ts_ns) if self.microseconds else body)


def in_microseconds(body: str, ts_ns: int) -> str:
    """Return an event with its times in us; its own time is known to the us, others to the ms."""
    event: dict[str, Any] = orjson.loads(body)
    for name in _TIMES:
        if isinstance(event.get(name), int) and event[name] > 0:
            event[name] *= 1000
    event["E"] = ts_ns // 1000
    if "T" in event:
        event["T"] = ts_ns // 1000
    return orjson.dumps(event).decode()


class UserStreams:
    """All subscriptions of a worker.

    One cursor moves over the events of all accounts, in the order of their ids, and never back while anybody is
    subscribed: an event above it is told to whoever is subscribed when the cursor comes to it. A subscription that
    resumes reads its account's events up to the cursor and joins at a moment when it has had them all. So nothing is
    told twice or left out, wherever the cursor was meanwhile.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._by_account: dict[int, set[Subscription]] = {}
        self._last_event = 0
        self._touched: dict[int, set[str]] = {}  # assets whose position is to be told once the cursor rests
        self._mover: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        gateway.on_events.append(self._moved)

    @property
    def count(self) -> int:
        return sum(len(group) for group in self._by_account.values())

    def subscribe(self, subscription: Subscription) -> dict[str, int]:
        """Deliver events from now on; return the vector that has been reached."""
        self._moved()
        return self._join(subscription, self._cursor())

    async def resume(
        self, subscription: Subscription, after: Mapping[str, int], room: Callable[[], Awaitable[None]]
    ) -> dict[str, int]:
        """Deliver events from a vector on; return the vector that has been reached.

        `room` returns when the subscriber can take some more. Raises ApiError -2042 when so many events were missed
        that they must be fetched by /account/events, -2036 when the subscription was ended meanwhile.
        """
        seen = {int(partition): seq for partition, seq in after.items()}
        while True:
            await room()
            read = partial(_missed, account=subscription.account, seen=dict(seen), cursor=self._cursor())
            missed, more = await self._gateway.read(read)
            if subscription.ended:
                raise ApiError(-2036, "User Data Stream subscription not active.")
            _tell(subscription, missed, seen)
            if more:
                continue
            cursor = self._cursor()  # stays where it is until the subscription has joined
            missed, more = _missed(self._gateway.store, account=subscription.account, seen=seen, cursor=cursor)
            _tell(subscription, missed, seen)
            if not more:
                return self._join(subscription, cursor)

    def unsubscribe(self, subscription: Subscription) -> None:
        subscription.ended = True
        group = self._by_account.get(subscription.account)
        if group is not None:
            group.discard(subscription)
            if not group:
                del self._by_account[subscription.account]

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._mover is not None:
            self._mover.cancel()

    def _cursor(self) -> int:
        """Return the id up to which events have been told. Nobody is told anything: it is at the newest."""
        if not self._by_account:
            self._last_event = self._gateway.store.last_event()
        return self._last_event

    def _join(self, subscription: Subscription, cursor: int) -> dict[str, int]:
        """Tell it what comes behind the cursor, which is where `_cursor()` has just said."""
        vector = self._gateway.store.vector(subscription.account, cursor)
        self._by_account.setdefault(subscription.account, set()).add(subscription)
        return {str(partition): seq for partition, seq in vector.items()}

    def _moved(self) -> None:
        """History has committed something: deliver what concerns anybody here."""
        if self._by_account and self._mover is None and self._move():
            self._mover = asyncio.get_running_loop().create_task(self._move_on())

    async def _move_on(self) -> None:
        """Deliver a long commit in pieces, other work between them."""
        try:
            await asyncio.sleep(0)
            while self._by_account and self._move():
                await asyncio.sleep(0)
        finally:
            self._mover = None

    def _move(self) -> bool:
        """Deliver some events; True: there are more."""
        events = self._gateway.store.events_since(self._last_event, PIECE)
        for event in events:
            self._last_event = event.id
            group = self._by_account.get(event.account)
            if group is None:
                continue
            for subscription in list(group):
                subscription.deliver(event.body, event.ts_ns)
            self._touched.setdefault(event.account, set()).update(self._assets(event.body))
        if len(events) == PIECE:
            return True
        touched, self._touched = self._touched, {}
        for account, assets in touched.items():
            if assets:
                task = asyncio.get_running_loop().create_task(self._position(account, assets))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return False

    def _assets(self, body: str) -> Iterable[str]:
        event = orjson.loads(body)
        if event["e"] == "balanceUpdate":
            return [event["a"]]
        instrument = self._gateway.reference.by_symbol.get(event.get("s", ""))
        if instrument is None or event["e"] != "executionReport":
            return []
        assets = self._gateway.reference.assets
        return [assets[instrument.base_asset].symbol, assets[instrument.quote_asset].symbol]

    async def _position(self, account: int, symbols: set[str]) -> None:
        gateway = self._gateway
        query = wire.BalanceQuery(request_id=gateway.request_id(), account_id=account)
        try:
            replies = await gateway.query(wire.BalanceReply, query)
        except ApiError:
            return  # the core is away; the next event brings a position again
        known = {reply.asset_id: (reply.available, reply.held) for reply in replies}
        rows: list[tuple[Asset, int, int]] = []
        for symbol in sorted(symbols):
            asset = gateway.reference.by_asset[symbol]
            rows.append((asset, *known.get(asset.id, (0, 0))))
        now_ns = gateway.now_us() * 1000
        body = orjson.dumps(account_position(rows, now_ns // 1_000_000)).decode()
        for subscription in list(self._by_account.get(account, ())):
            subscription.deliver(body, now_ns)


def _tell(subscription: Subscription, events: Iterable[Event], seen: dict[int, int]) -> None:
    for event in events:
        subscription.deliver(event.body, event.ts_ns)
        seen[event.partition] = event.seq


def _missed(store: StoreReader, *, account: int, seen: Mapping[int, int], cursor: int) -> tuple[list[Event], bool]:
    """Return an account's next events behind a vector and up to an id, about PIECE, and whether there are more.

    They are in the order they happened. Raises ApiError -2042 when there are too many, or the first is not kept.
    """
    missed: list[Event] = []
    vector, end = store.vector(account), cursor
    most = max(1, PIECE // max(1, len(vector)))
    for partition, newest in vector.items():
        after = seen.get(partition, 0)
        found = store.events_of(account, partition, after, most)
        first = found[0].seq if found else newest + 1
        if newest - after > RESUMED_MAX or first > after + 1:
            text = "Too many events were missed; fetch them with account/events."
            details = {"partition": partition, "from": after + 1, "firstKept": first, "limit": RESUMED_MAX}
            raise ApiError(-2042, text, details=details)
        if len(found) == most:
            end = min(end, found[-1].id)  # of this partition no more is known
        missed += found
    return sorted((event for event in missed if event.id <= end), key=lambda event: event.id), end < cursor
