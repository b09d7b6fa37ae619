"""Private streams: whoever resumes is told every event once and in order, whatever is committed meanwhile."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from gateway.web import user_streams
from gateway.web.auth import Signed
from gateway.web.errors import ApiError
from gateway.web.private_events import is_vector
from gateway.web.reads import StoreReads
from gateway.web.reference import Key
from gateway.web.store import HistoryStore, StoreReader
from gateway.web.user_streams import Subscription, UserStreams
from gateway.web.ws_api import QUEUED_MAX, SocketApi

ACCOUNTS, PARTITIONS = (7, 8), (0, 1, 2)
DEADLINE_S = 60.0


class Writer:
    """History: commits events of random accounts and partitions, numbered as it numbers them."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.store = HistoryStore.open(path, cluster=1, log_end=0)
        self.told: dict[int, list[tuple[int, int]]] = {account: [] for account in ACCOUNTS}
        self._counters: dict[tuple[int, int], int] = {}
        self._chance = chance
        self._next = 1

    def commit(self, count: int) -> None:
        rows = []
        for _ in range(count):
            account, partition = self._chance.choice(ACCOUNTS), self._chance.choice(PARTITIONS)
            seq = self._counters[account, partition] = self._counters.get((account, partition), 0) + 1
            self.told[account].append((partition, seq))
            body = orjson.dumps({"e": "listStatus", "partition": partition, "accountSeq": seq}).decode()
            rows.append((self._next, account, partition, seq, self._next, body))
            self._next += 1
        self.store.begin()
        self.store.put_rows("events", rows)
        self.store.put_rows("counters", [(*counter, seq) for counter, seq in self._counters.items()])
        self.store.commit()


class World:
    """A worker's subscriptions over a store; commits happen wherever a coroutine gives others a turn."""

    def __init__(self, path: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.writer = Writer(path, self.chance)
        self.writer.commit(self.chance.randrange(400))
        self._reader = StoreReader(path)
        self._gateway: Any = SimpleNamespace(
            store=StoreReader(path), on_events=[], read=self._read, reference=SimpleNamespace(by_symbol={})
        )
        self.streams = UserStreams(self._gateway)

    async def turn(self) -> None:
        """Let something happen: a commit, perhaps one that the worker hears of late."""
        if self.chance.random() < 0.3:
            self.writer.commit(self.chance.randrange(1, 8))
        if self.chance.random() < 0.7:
            self.heard()
        await asyncio.sleep(0)

    def heard(self) -> None:
        for told in self._gateway.on_events:
            told()

    async def _read(self, work: Callable[[StoreReader], Any]) -> Any:
        await self.turn()
        result = work(self._reader)
        await self.turn()
        return result

    async def settled(self) -> None:
        self.heard()
        while self.streams._mover is not None:
            await asyncio.sleep(0)


class Client:
    """Subscribes, leaves and resumes; keeps all it was told."""

    def __init__(self, world: World, account: int) -> None:
        self.account = account
        self.got: list[tuple[int, int]] = []
        self._world = world
        self._subscription: Subscription | None = None

    async def come(self) -> None:
        vector: dict[str, int] = {}
        for partition, seq in self.got:
            vector[str(partition)] = max(seq, vector.get(str(partition), 0))
        self._subscription = Subscription(self.account, self._take, microseconds=False)
        reached = await self._world.streams.resume(self._subscription, vector, self._world.turn)
        for partition, seq in self.got:
            vector[str(partition)] = max(seq, vector.get(str(partition), 0))
        assert reached == vector

    def go(self) -> None:
        assert self._subscription is not None
        self._world.streams.unsubscribe(self._subscription)

    def _take(self, body: str) -> None:
        event = orjson.loads(body)
        self.got.append((event["partition"], event["accountSeq"]))


async def life(world: World) -> bool:
    """Let clients come and go while events are committed; return whether each had all of them, once and in order."""
    clients = [Client(world, account) for account in (*ACCOUNTS, ACCOUNTS[0])]
    for _ in range(4):
        await asyncio.gather(*(client.come() for client in clients))
        for _ in range(world.chance.randrange(4)):
            await world.turn()
        await world.settled()
        for client in clients[: world.chance.randrange(len(clients) + 1)]:
            client.go()
            await client.come()
        for client in clients:
            client.go()
        await world.turn()
    await asyncio.gather(*(client.come() for client in clients))
    await world.settled()
    return all(client.got == world.writer.told[client.account] for client in clients)


@pytest.mark.parametrize("seed", range(40))
def test_resume_leaves_no_gap_and_tells_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(user_streams, "PIECE", random.Random(seed).randrange(9, 40))

    async def scenario() -> None:
        assert await life(World(tmp_path / "h.db", seed))

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_resume_that_reads_past_the_cursor_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what was read ahead of the cursor is told again when the cursor comes to it."""
    bounded = user_streams._missed

    def unbounded(store: StoreReader, *, account: int, seen: Any, cursor: int) -> Any:
        return bounded(store, account=account, seen=seen, cursor=cursor + 10**6)

    monkeypatch.setattr(user_streams, "_missed", unbounded)

    async def scenario() -> bool:
        try:
            return all([await life(World(tmp_path / f"{seed}.db", seed)) for seed in range(10)])
        except AssertionError:
            return False

    assert not asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_subscription_ended_while_it_resumes_is_told_nothing_more(tmp_path: Path) -> None:
    world = World(tmp_path / "h.db", 1)
    told: list[str] = []
    subscription = Subscription(ACCOUNTS[0], told.append, microseconds=False)

    async def leave() -> None:
        world.streams.unsubscribe(subscription)

    with pytest.raises(ApiError) as refused:
        asyncio.run(world.streams.resume(subscription, {}, leave))

    assert (refused.value.code, told, world.streams.count) == (-2036, [], 0)


def test_more_missed_events_than_are_told_again_are_refused_before_any_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_streams, "RESUMED_MAX", 20)
    world = World(tmp_path / "h.db", 1)
    world.writer.commit(500)
    newest = max(seq for partition, seq in world.writer.told[ACCOUNTS[0]] if partition == 1)
    told: list[str] = []
    resume = partial(world.streams.resume, Subscription(ACCOUNTS[0], told.append, microseconds=False))
    others = {"0": newest, "2": newest}

    with pytest.raises(ApiError) as refused:
        asyncio.run(resume({**others, "1": newest - 21}, world.settled))

    details = dict(refused.value.details or {})
    assert (refused.value.code, details["limit"], told) == (-2042, 20, [])


def test_more_events_than_may_wait_for_a_slow_reader_are_resumed_over_a_socket(tmp_path: Path) -> None:
    """They were all queued at once, which closed the connection as one of a slow reader."""
    count = QUEUED_MAX + 5_000

    async def scenario() -> None:
        world = World(tmp_path / "h.db", 1)
        world.writer.commit(len(ACCOUNTS) * count)
        expected = world.writer.told[ACCOUNTS[0]]
        assert len(expected) > QUEUED_MAX
        lane = StoreReads(tmp_path / "h.db")
        key = Key("k", ACCOUNTS[0], permissions=1, credential=1, material="")
        nothing: Any = SimpleNamespace()
        gateway: Any = SimpleNamespace(
            store=StoreReader(tmp_path / "h.db"), on_events=[], read=lane.run,
            config=SimpleNamespace(connections_max=10, body_bytes_max=131_072),
            limits=SimpleNamespace(admit=lambda *_, **__: None), admit=lambda *_: 0, check=lambda *_: None,
            verify=AsyncMock(return_value=Signed(key, 0)),
        )  # fmt: skip
        api = SocketApi(gateway, UserStreams(gateway), nothing, nothing)
        app = web.Application()
        app.router.add_get("/ws-api/v3", api.handle)
        async with TestServer(app) as server, ClientSession() as session:
            client = await session.ws_connect(server.make_url("/ws-api/v3"))
            params = {"apiKey": "k", "signature": "s", "timestamp": 1, "after": {}, "returnRateLimits": False}
            await client.send_json({"id": 1, "method": "userDataStream.subscribe.signature", "params": params})

            got = []
            while "id" not in (message := await client.receive_json(timeout=DEADLINE_S)):
                got.append((message["event"]["partition"], message["event"]["accountSeq"]))

            assert got == expected
            newest = {str(partition): max(seq for each, seq in got if each == partition) for partition in PARTITIONS}
            assert message["result"] == {"subscriptionId": 0, "vector": newest}
            await client.close()
        lane.close()

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


@pytest.mark.parametrize(
    "after", ["{", '"x"', {"a": 1}, {"1": -1}, {"1": 1 << 63}, {"1": "2"}, {"²": 1}, {"1000": 1}, [1]]
)
def test_vector_of_another_form_is_refused(after: object) -> None:
    assert not is_vector(after)


def test_vectors_go_to_the_limits_of_their_parts() -> None:
    assert is_vector({}) and is_vector({"0": 0, "999": (1 << 63) - 1})
