"""Private events to whoever subscribed: live from history's commits, and from a vector on after a disconnect.

Events come from the store in the order history made them, so the events of one order are in the order they happened.
After them comes outboundAccountPosition with the assets that may have changed, asked from the sequencer: it holds all
that the events before it tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from gateway.web.errors import ApiError
from gateway.web.gateway import Gateway
from gateway.web.private_events import account_position
from gateway.web.reference import Asset
from gateway.web.store import Event
from ringbuf.wire import messages as wire

REPLAYED_MAX = 100_000
BATCH = 5_000
_TIMES = ("E", "T", "O", "W", "D", "u")  # ms in the events, us where asked for


class Subscription:
    """One subscriber. `send` takes the JSON of an event and must not wait."""

    def __init__(self, account: int, send: Callable[[str], None], *, microseconds: bool) -> None:
        self.account = account
        self.microseconds = microseconds
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
    """All subscriptions of a worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._by_account: dict[int, set[Subscription]] = {}
        self._last_event = 0
        self._tasks: set[asyncio.Task[None]] = set()
        gateway.on_events.append(self._moved)

    @property
    def count(self) -> int:
        return sum(len(group) for group in self._by_account.values())

    def subscribe(self, subscription: Subscription, after: Mapping[str, int] | None = None) -> dict[str, int]:
        """Deliver events from now on, or from a vector on; return the vector that has been reached.

        Raises ApiError -2042 when so many events were missed that they must be fetched by /account/events.
        """
        account = subscription.account
        with self._gateway.store.snapshot():  # what a commit adds from here on comes live, and only so
            if not self._by_account:
                self._last_event = self._gateway.store.last_event()
            else:
                self._moved()
            vector = self._gateway.store.vector(account)
            missed = [] if after is None else self._missed(account, vector, after)
        for event in missed:
            subscription.deliver(event.body, event.ts_ns)
        self._by_account.setdefault(account, set()).add(subscription)
        return {str(partition): seq for partition, seq in vector.items()}

    def _missed(self, account: int, vector: Mapping[int, int], after: Mapping[str, int]) -> list[Event]:
        missed: list[Event] = []
        for partition, newest in vector.items():
            seen = after.get(str(partition), 0)
            found = self._gateway.store.events_of(account, partition, seen, REPLAYED_MAX + 1)
            first = found[0].seq if found else newest + 1
            if len(found) > REPLAYED_MAX or first > seen + 1:
                text = "Too many events were missed; fetch them with account/events."
                details = {"partition": partition, "from": seen + 1, "firstKept": first, "limit": REPLAYED_MAX}
                raise ApiError(-2042, text, details=details)
            missed += found
        return sorted(missed, key=lambda event: event.id)

    def unsubscribe(self, subscription: Subscription) -> None:
        group = self._by_account.get(subscription.account)
        if group is not None:
            group.discard(subscription)
            if not group:
                del self._by_account[subscription.account]

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _moved(self) -> None:
        """History has committed something: deliver what concerns anybody here."""
        if not self._by_account:
            return
        store = self._gateway.store
        touched: dict[int, set[str]] = {}
        while events := store.events_since(self._last_event, BATCH):
            self._last_event = events[-1].id
            for event in events:
                group = self._by_account.get(event.account)
                if group is None:
                    continue
                for subscription in list(group):
                    subscription.deliver(event.body, event.ts_ns)
                touched.setdefault(event.account, set()).update(self._assets(event.body))
        for account, assets in touched.items():
            if assets:
                task = asyncio.get_running_loop().create_task(self._position(account, assets))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

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
