"""A ready market: the books of one channel, kept right whatever the network does.

    async with MarketFeed(1, servers, user=..., password=..., lines=[Line("239.1.1.1", 9301)]) as feed:
        async for number, message in feed.events():
            ...  # feed.books[instrument_id] is the book after this message

Reads a snapshot, then what came after it from the replay server, until the packets of the lines join on; without lines
it stays with the replay server. A gap is asked for at the re-request server, and replayed if that does not help. A book
that does not fit its messages or digest, a number no longer kept, a new generation: a snapshot again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from gateway.clients.python.arbiter import Arbiter, MalformedPacket, NewSession
from gateway.clients.python.books import BookMismatch, OrderBook
from gateway.clients.python.soup import SoupClosed, SoupConnection, SoupRefused
from ringbuf.wire import market_messages as market
from ringbuf.wire.base import WireMessage
from ringbuf.wire.codec import DecodingError
from ringbuf.wire.market_codec import decode_market, encode_market
from ringbuf.wire.market_messages import BookType, InstrumentDefinition, SnapshotRequest

REFERENCE_CHANNEL = 900
LINES_SILENT_S = 3.0  # without packet or heartbeat: the lines are dead
RECONNECT_S = 0.2
TICK_S = 0.002
RECEIVE_BUFFER = 8 << 20
DATAGRAM_MAX = 65536
INBOX_MAX = 65536  # packets and messages waiting for a reader of events(); beyond, packets are lost and asked for


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the exchange is. Without a re-request server gaps are replayed over TCP."""

    host: str
    replay_port: int
    snapshot_port: int
    rerequest_port: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """Where packets arrive: an address of ours, or a multicast group (to be joined on `interface`)."""

    host: str
    port: int
    interface: str = "0.0.0.0"

    def open(self) -> socket.socket:
        """Return a bound, non-blocking socket. Raises OSError."""
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.setblocking(False)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        group = 224 <= socket.inet_aton(self.host)[0] < 240
        if group:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        receiver.bind((self.host, self.port))
        if group:
            join = struct.pack("4s4s", socket.inet_aton(self.host), socket.inet_aton(self.interface))
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join)
        return receiver


async def load_definitions(
    servers: Servers, *, user: str, password: str, wait_s: float = 2.0
) -> dict[int, InstrumentDefinition]:
    """Return all instruments by id, from the reference channel. Raises SoupRefused, SoupClosed or OSError."""
    found: dict[int, InstrumentDefinition] = {}
    session = f"BR{REFERENCE_CHANNEL}"
    connection = await SoupConnection.open(
        servers.host, servers.replay_port, user=user, password=password, session=session, number=1
    )
    async with connection:
        messages = connection.messages()
        with contextlib.suppress(TimeoutError):
            while True:
                # There is no last one: a moment without another is the end of what there is.
                async with asyncio.timeout(wait_s if not found else 0.2):
                    _, data = await anext(messages)
                message = decode_market(data)
                if isinstance(message, InstrumentDefinition):
                    found[message.instrument_id] = message
    return found


class MarketFeed:
    """The books of one channel. Use as an async context manager and read `events()`; one reader."""

    def __init__(self, channel: int, servers: Servers, *, user: str, password: str, lines: Sequence[Line] = ()) -> None:
        self.channel = channel
        self.servers = servers
        self.books: dict[int, OrderBook] = {}
        self.snapshots = self.replays = self.rejoined = self.mismatches = 0
        self._credentials = {"user": user, "password": password}
        self._lines = lines
        self._sockets: list[socket.socket] = []
        self._asker: socket.socket | None = None
        self._arbiter = Arbiter(channel)
        self._taken: dict[int, int] = {}
        self._base = self._top = 0
        self._heard_at: float | None = None
        self._inbox: asyncio.Queue[tuple[int | None, bytes]] = asyncio.Queue(INBOX_MAX)
        self._replay: asyncio.Task[None] | None = None
        self._snapshot_read = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._sockets = [line.open() for line in self._lines]
        if self.servers.rerequest_port is not None:
            self._asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._asker.setblocking(False)
            self._asker.connect((self.servers.host, self.servers.rerequest_port))
        for receiver in self._receivers():
            loop.add_reader(receiver, self._drain, receiver)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_replay()
        for receiver in self._receivers():
            asyncio.get_running_loop().remove_reader(receiver)
            receiver.close()

    @property
    def next_number(self) -> int | None:
        """The number of the next message, None before the first snapshot."""
        return self._arbiter.next

    @property
    def live(self) -> bool:
        """Whether the packets of the lines are being followed."""
        return self._snapshot_read and self._replay is None

    @property
    def ready(self) -> bool:
        """Whether the books are what the exchange had not long ago, nothing known to be missing."""
        following = self._snapshot_read and not self._arbiter.missing
        return following and self._arbiter.next is not None and self._arbiter.next > self._top

    @property
    def arbiter(self) -> Arbiter:
        """The channel's counters: gaps, duplicates, requests."""
        return self._arbiter

    async def events(self) -> AsyncIterator[tuple[int, WireMessage]]:
        """Yield every message behind the snapshot once, in order, after it was applied. Raises SoupRefused for good."""
        while True:
            try:
                await self._read_snapshot()
                for item in self._arbiter.resume(self._base + 1, time.monotonic()):
                    for event in self._apply(*item):
                        yield event
                async for event in self._follow():
                    yield event
            except (BookMismatch, NewSession):
                self.mismatches += 1
            except SoupRefused as refusal:
                if refusal.reason == "A":
                    raise
            except (SoupClosed, OSError):
                await asyncio.sleep(RECONNECT_S)
            await self._stop_replay()
            self._snapshot_read = False

    # --- snapshot -----------------------------------------------------------------------------------------------------

    async def _read_snapshot(self) -> None:
        self._arbiter = Arbiter(self.channel)
        for book in self.books.values():
            book.clear()
        self._taken, numbers = {}, []
        request = SnapshotRequest(partition=self.channel, book_type=BookType.BY_ORDER)
        host, port = self.servers.host, self.servers.snapshot_port
        async with await SoupConnection.open(host, port, **self._credentials, number=1) as connection:
            connection.send(b"U", encode_market(request))
            async for _, data in connection.messages():
                message = decode_market(data)
                if isinstance(message, market.SnapshotBegin):
                    numbers.append(message.last_seq_num)
                    if message.instrument_id:
                        self._taken[message.instrument_id] = message.last_seq_num
                        self._book(message.instrument_id)
                elif isinstance(message, market.SnapshotEnd):
                    if message.instruments_remaining == 0:
                        break
                else:
                    self._book(message.instrument_id).apply(message)  # type: ignore[attr-defined]
        self._base, self._top = min(numbers, default=0), max(numbers, default=0)
        self.snapshots += 1
        self._snapshot_read = True

    def _book(self, instrument_id: int) -> OrderBook:
        return self.books.setdefault(instrument_id, OrderBook(instrument_id))

    def _apply(self, number: int, data: bytes) -> Iterator[tuple[int, WireMessage]]:
        try:
            message = decode_market(data)
        except DecodingError:
            return  # of a later version
        instrument_id = getattr(message, "instrument_id", 0)
        if instrument_id:
            if number <= self._taken.get(instrument_id, 0):
                return
            self._book(instrument_id).apply(message)
        yield number, message

    # --- following ----------------------------------------------------------------------------------------------------

    async def _follow(self) -> AsyncIterator[tuple[int, WireMessage]]:
        self._start_replay()
        while True:
            number, data = await self._take()
            now = time.monotonic()
            if data:
                due = self._arbiter.packet(data, now) if number is None else self._arbiter.message(number, data, now)
                with contextlib.suppress(MalformedPacket):
                    for item in due:
                        for event in self._apply(*item):
                            yield event
            await self._steer(now)

    async def _take(self) -> tuple[int | None, bytes]:
        """Return what came, (None, b"") after a moment without anything."""
        if not self._inbox.empty():
            return self._inbox.get_nowait()
        try:
            async with asyncio.timeout(TICK_S):
                return await self._inbox.get()
        except TimeoutError:
            return None, b""

    async def _steer(self, now: float) -> None:
        """Ask for what is missing; change between lines and replay."""
        hears = self._heard_at is not None and now - self._heard_at < LINES_SILENT_S
        if self._replay is not None:
            if self._replay.done() and self._inbox.empty():
                error = self._replay.exception()
                self._replay = None
                if error is not None and not isinstance(error, SoupClosed | OSError):
                    raise error
                await asyncio.sleep(RECONNECT_S)
                self._start_replay()
            elif hears and self._lines and not self._arbiter.missing:
                await self._stop_replay()
                self.rejoined += 1
            return
        request = self._arbiter.request(now)
        if request is not None and self._asker is not None:
            with contextlib.suppress(OSError):
                self._asker.send(request)
        if not hears or self._arbiter.lost(now) or (self._asker is None and self._arbiter.missing):
            self._start_replay()

    def _start_replay(self) -> None:
        self.replays += 1
        self._replay = asyncio.create_task(self._read_replay())

    async def _stop_replay(self) -> None:
        task, self._replay = self._replay, None
        if task is not None:
            task.cancel()
            # Not awaited itself: our own cancellation must not be taken for its.
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()

    def _read_replay(self) -> Coroutine[Any, Any, None]:
        return self._replay_from(self._arbiter.next or 1)

    async def _replay_from(self, number: int) -> None:
        host, port, session = self.servers.host, self.servers.replay_port, self._arbiter.session
        connection = await SoupConnection.open(host, port, **self._credentials, session=session, number=number)
        async with connection:
            async for number, data in connection.messages():
                await self._inbox.put((number, data))

    def _receivers(self) -> list[socket.socket]:
        return [*self._sockets, *([] if self._asker is None else [self._asker])]

    def _drain(self, receiver: socket.socket) -> None:
        try:
            while True:
                data = receiver.recv(DATAGRAM_MAX)
                # What strangers or other channels send to our ports does not say that the lines are alive.
                if receiver is not self._asker and self._arbiter.concerns(data):
                    self._heard_at = time.monotonic()
                self._inbox.put_nowait((None, data))
        except (BlockingIOError, ConnectionRefusedError, asyncio.QueueFull):
            pass  # a full inbox is a gap like any other
