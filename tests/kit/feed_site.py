"""A market feed in this process: a small exchange, a feed on its ring, raw peers. Only what a test polls runs."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from gateway.marketdata.feed import Destination, Feed, FeedConfig, Kind
from gateway.marketdata.tokens import Entitlement, Token, mint
from ringbuf.wire.base import WireMessage
from ringbuf.wire.market_codec import decode_market
from tests.kit.composed_exchange import Exchange, make_exchange

KEY = bytes(range(32))
GENERATION = "TEST1"
DEADLINE_S = 30.0
MOLD_HEADER = struct.Struct(">10sQH")
MARKET_SLOT_SIZE = 64


def config(**changes: Any) -> FeedConfig:
    """A feed of one partition with everything on, but no destination."""
    return replace(
        FeedConfig(partitions=1, generation=GENERATION, instruments_max=16, key=KEY, orders_expected=1024), **changes
    )


def token(entitlements: Entitlement = Entitlement.ALL, *, subscriber: int = 7) -> Token:
    return mint(KEY, subscriber=subscriber, entitlements=entitlements, last_day=datetime.now(UTC).date())


@dataclass(frozen=True)
class Packet:
    """One MoldUDP64 downstream packet."""

    session: str
    number: int
    count: int
    messages: list[bytes]

    @classmethod
    def parse(cls, data: bytes) -> Packet:
        session, number, count = MOLD_HEADER.unpack_from(data)
        messages, at = [], MOLD_HEADER.size
        while at < len(data):
            (length,) = struct.unpack_from(">H", data, at)
            messages.append(data[at + 2 : at + 2 + length])
            assert len(messages[-1]) == length
            at += 2 + length
        assert len(messages) == count or (count == 0xFFFF and not messages)
        return cls(session.decode(), number, count, messages)


class Receiver:
    """A UDP socket that keeps what it got."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.raw: list[bytes] = []

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def drain(self) -> None:
        """Take what has come: a socket's own buffer is small."""
        try:
            while True:
                self.raw.append(self.socket.recv(65536))
        except BlockingIOError:
            pass

    def receive(self) -> list[Packet]:
        """Return all packets so far."""
        self.drain()
        return [Packet.parse(data) for data in self.raw]

    def messages(self, session: str) -> dict[int, bytes]:
        """Return the messages of a session by number; a number that came twice must be the same message."""
        found: dict[int, bytes] = {}
        for packet in self.receive():
            if packet.session == session:
                for place, message in enumerate(packet.messages):
                    assert found.setdefault(packet.number + place, message) == message
        return found

    def close(self) -> None:
        self.socket.close()


class SoupPeer:
    """A raw SoupBinTCP client: bytes in, packets (type, payload) out."""

    def __init__(self, site: FeedSite, port: int) -> None:
        self.site = site
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.buffer = b""
        self.sent, self.got = b"", b""  # all bytes, for recordings
        self.packets: list[tuple[bytes, bytes]] = []
        self.closed = False
        self._messages: list[WireMessage] = []
        self._decoded_packets = 0

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        self.send_raw(struct.pack(">H", len(payload) + 1) + kind + payload)

    def send_raw(self, data: bytes) -> None:
        self.sent += data
        self.socket.setblocking(True)
        self.socket.sendall(data)
        self.socket.setblocking(False)

    def login(self, session: str = "", number: int = 0, who: Token | None = None) -> tuple[bytes, bytes]:
        """Log in; return the answer."""
        who = who or token()
        text = f"{who.user:<6}{who.password:<10}{session:<10}{number:>20}"
        self.send(b"L", text.encode())
        self.site.until(lambda: self.receive() or self.closed)
        return self.packets.pop(0)

    def receive(self) -> int:
        """Take what has come; return how many packets are waiting."""
        try:
            while data := self.socket.recv(1 << 20):
                self.buffer += data
                self.got += data
            self.closed = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.closed = True
        at = 0
        while len(self.buffer) >= at + 2:
            end = at + 2 + int.from_bytes(self.buffer[at : at + 2], "big")
            if len(self.buffer) < end:
                break
            self.packets.append((self.buffer[at + 2 : at + 3], self.buffer[at + 3 : end]))
            at = end
        self.buffer = self.buffer[at:]
        return len(self.packets)

    def data(self) -> list[bytes]:
        """Return the payloads of all sequenced packets so far."""
        self.receive()
        return [payload for kind, payload in self.packets if kind == b"S"]

    def decoded(self) -> list[WireMessage]:
        """Return all sequenced messages so far."""
        self.receive()
        for kind, payload in self.packets[self._decoded_packets :]:
            if kind == b"S":
                self._messages.append(decode_market(payload))
        self._decoded_packets = len(self.packets)
        return list(self._messages)

    def close(self) -> None:
        self.socket.close()


class FeedSite:
    """Use as a context manager. `exchange` trades; `until()` polls the feed."""

    def __init__(self, settings: FeedConfig | None = None, *, lines: int = 2, ring_slots: int = 1 << 14) -> None:
        self.stack = ExitStack()
        self.lines = [Receiver() for _ in range(lines)]
        destinations = [Destination(line, Kind.ALL, "127.0.0.1", each.port) for line, each in enumerate(self.lines)]
        self.settings = replace(settings or config(), destinations=destinations)
        self.exchange: Exchange = make_exchange(ring_slots=ring_slots)
        self.feed = self.make_feed()

    def make_feed(self) -> Feed:
        """Another feed on the same ring: what a restarted process is."""
        feed = Feed(self.settings)
        feed.attach({1: self.exchange.engine.market[1]})
        return feed

    def __enter__(self) -> FeedSite:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        for line in self.lines:
            line.close()
        self.feed.shutdown()
        self.exchange.engine.close()

    def start(self) -> FeedSite:
        self.feed.start()
        return self

    @property
    def market(self) -> Any:
        return self.exchange.engine.market[1]

    def slots(self) -> list[bytes]:
        """Return all slots of the market ring."""
        count = self.market.published
        data = self.market.read(0, count) if count else b""
        return [data[i * MARKET_SLOT_SIZE : (i + 1) * MARKET_SLOT_SIZE] for i in range(count)]

    def messages(self) -> list[bytes]:
        """Return the messages of the market ring as they go on the wire."""
        return [slot[8 : 16 + int.from_bytes(slot[8:10], "little")] for slot in self.slots()]

    def until(self, condition: Callable[[], Any], *, status: int = 0) -> Any:
        """Poll the feed until the condition is true; return its value. The feed's polls must not fail."""
        end = time.monotonic() + DEADLINE_S
        while True:
            done = self.feed.poll()
            assert done >= 0 or done == status, (done, self.feed.error, self.feed.hole)
            for line in self.lines:
                line.drain()
            value = condition()
            if value:
                return value
            assert time.monotonic() < end, f"still false after {DEADLINE_S} s: {self.feed.counters()}"
            if done == 0:
                time.sleep(0.0002)

    def settle(self) -> None:
        """Poll until the feed has nothing to do."""
        idle = 0
        while idle < 3:
            idle = idle + 1 if self.feed.poll() == 0 else 0
            for line in self.lines:
                line.drain()

    def replay(self) -> SoupPeer:
        """A peer connected to the replay port."""
        if not hasattr(self, "replay_port"):
            self.replay_port = self.feed.listen_replay("127.0.0.1", 0)
        return self._peer(self.replay_port)

    def snapshots(self) -> SoupPeer:
        """A peer connected to the snapshot port."""
        if not hasattr(self, "snapshot_port"):
            self.snapshot_port = self.feed.listen_snapshot("127.0.0.1", 0)
        return self._peer(self.snapshot_port)

    def _peer(self, port: int) -> SoupPeer:
        peer = SoupPeer(self, port)
        self.stack.callback(peer.close)
        return peer


def traders(exchange: Exchange) -> tuple[int, int]:
    """Two accounts with plenty of both assets."""
    return exchange.account(base=1 << 40, quote=1 << 50), exchange.account(base=1 << 40, quote=1 << 50)


def flow(exchange: Exchange, seller: int, buyer: int, count: int, *, seed: int = 1) -> Iterator[None]:
    """`count` orders around a price, some of which trade, are replaced or canceled; yields after each."""
    state, placed = seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        dice, away, qty = state >> 33 & 15, state >> 40 & 31, 1 + (state >> 50 & 63)
        account, sells = (seller, True) if state >> 60 & 1 else (buyer, False)
        price = 1000 + away - 12 if sells else 1000 - away + 12
        if dice < 10 or not placed:
            outputs = (exchange.sell if sells else exchange.buy)(account, price, qty)
            placed.append((account, outputs[0].message.order_id))
        elif dice < 13:
            account, order_id = placed.pop(state >> 20 & 0xFF if len(placed) > 0xFF else 0)
            exchange.cancel(account, order_id)
        else:
            account, order_id = placed[-1]
            exchange.replace(account, order_id, price=price, order_qty=qty + 64)
        yield
