"""The market feed's shell: configuration and lifetime. The stage itself is feed.h; docs/FEED.md specifies it."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path

from gateway._gateway import ffi, lib
from gateway.errors import GatewayConfigError, ListenError
from ringbuf import Ring, Stage
from ringbuf.wire.base import WireMessage
from ringbuf.wire.market_codec import encode_market
from ringbuf.wire.messages import Side

PARTITIONS_MAX: int = lib.FEED_PARTITIONS_MAX
DERIVED_BASE: int = lib.FEED_DERIVED_BASE
REFERENCE: int = lib.FEED_REFERENCE
KEY_SIZE = 32
SLOT_SIZE = 64
GENERATION_SIZE = 5
PACKET_SIZE_MAX = 65507
_GENERATION_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Kind(IntFlag):
    """Kinds of channels."""

    FULL = lib.FEED_FULL  # partition p: every event of its books by order
    DERIVED = lib.FEED_DERIVED  # 100 + p: levels, best prices, prints
    DEFINITIONS = lib.FEED_DEFINITIONS  # 900: what the instruments are
    ALL = lib.FEED_FULL | lib.FEED_DERIVED | lib.FEED_DEFINITIONS


@dataclass(frozen=True, slots=True)
class Destination:
    """Where UDP packets go: an address or a multicast group. Line 0 is feed A, line 1 feed B."""

    line: int
    kinds: Kind
    host: str
    port: int
    interface: str | None = None  # address of ours to send from
    ttl: int = 1  # of multicast packets

    def __post_init__(self) -> None:
        """Check the ranges, naming field and limit."""
        if self.line not in (0, 1):
            raise GatewayConfigError(f"line = {self.line}: must be 0 (A) or 1 (B)")
        if not 1 <= self.port <= 65535:
            raise GatewayConfigError(f"port = {self.port}: must be 1 to 65535")
        if not 0 <= self.ttl <= 255:
            raise GatewayConfigError(f"ttl = {self.ttl}: must be 0 to 255")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedConfig:
    """Limits of one feed process. `key` is what tokens are made with; None lets everybody log in."""

    partitions: int
    generation: str  # five characters of the sessions' names, new when history begins anew
    instruments_max: int  # largest instrument id
    archive: Path | None = None  # folder of the journaler's market archive
    key: bytes | None = field(default=None, repr=False)
    publish: Kind = Kind.ALL  # what is sent over UDP
    books: bool = True  # keep books: derived channels and snapshots
    destinations: Sequence[Destination] = ()
    packet_bytes_max: int = 1472
    pack_delay_us: int = 0
    heartbeat_ms: int = 1000
    definitions_ms: int = 100  # between two packets of the reference channel's round
    orders_expected: int = 131072  # of a partition
    derived_slots: int = 1 << 18  # messages a derived channel keeps for replay
    reference_slots: int = 1 << 12
    connections_max: int = 256
    connections_per_user: int = 8
    output_bytes: int = 262144  # a connection may have unsent
    login_timeout_ms: int = 5000
    silence_timeout_ms: int = 15000
    logins_failed_max: int = 5  # of one address in a minute
    rerequests_per_s: int = 1000  # of one address
    snapshot_age_ms: int = 1000
    snapshot_bytes_max: int = 1 << 28

    def __post_init__(self) -> None:
        """Check the ranges that the C core would refuse, naming field and limit."""
        bounds = {
            "partitions": (1, PARTITIONS_MAX),
            "instruments_max": (1, 65535),
            "packet_bytes_max": (256, PACKET_SIZE_MAX),
            "pack_delay_us": (0, 1_000_000),
            "heartbeat_ms": (10, 60_000),
            "definitions_ms": (1, 60_000),
            "orders_expected": (1, 1 << 26),
            "derived_slots": (lib.FEED_DERIVED_SLOTS_MIN, 1 << 26),
            "reference_slots": (lib.FEED_REFERENCE_SLOTS_MIN, 1 << 22),
            "connections_max": (1, 65536),
            "connections_per_user": (1, 65536),
            "output_bytes": (4096, 1 << 26),
            "login_timeout_ms": (10, 600_000),
            "silence_timeout_ms": (100, 600_000),
            "logins_failed_max": (1, 1_000_000),
            "rerequests_per_s": (1, 1_000_000),
            "snapshot_age_ms": (0, 600_000),
            "snapshot_bytes_max": (1 << 16, 1 << 40),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise GatewayConfigError(f"{name} = {getattr(self, name)}: must be {low} to {high}")
        for name in ("derived_slots", "reference_slots"):
            if getattr(self, name) & (getattr(self, name) - 1):
                raise GatewayConfigError(f"{name} = {getattr(self, name)}: must be a power of two")
        if len(self.generation) != GENERATION_SIZE or set(self.generation) - set(_GENERATION_ALPHABET):
            raise GatewayConfigError(f"generation = {self.generation!r}: must be five characters 0-9 A-Z")
        if self.key is not None and len(self.key) != KEY_SIZE:
            raise GatewayConfigError(f"key has {len(self.key)} bytes: must have {KEY_SIZE}")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a channel stands, in message numbers."""

    next: int  # the number its next message will have
    oldest: int  # the oldest one that can be replayed
    sent: int  # the next one to be sent over UDP, 0 = not by this process


@dataclass(frozen=True, slots=True)
class Hole:
    """Market slots that neither ring nor archive has: to be made again from the log."""

    partition: int
    first: int  # ring index


@dataclass(frozen=True, slots=True)
class Levels:
    """The best levels of a side."""

    update_id: int  # of the instrument, that they are as of
    levels: Sequence[tuple[int, int]]  # price in ticks, quantity in lots; best first


@dataclass(frozen=True, slots=True)
class Orders:
    """All orders of a side."""

    update_id: int  # of the instrument, that they are as of
    orders: Sequence[tuple[int, int, int]]  # id, price in ticks, quantity in lots; best first, then by priority


@dataclass(frozen=True, slots=True)
class Taken:
    """What the books have taken of a partition's market channel."""

    slots: bytes | None  # None = neither ring nor archive has the wanted number any more
    next: int  # the number after the last one taken


def generation_of(cluster_id: int) -> str:
    """Return the generation of a history: the same on every node that has the same Genesis, new after a reset."""
    number = int.from_bytes(hashlib.sha256(b"bullring data generation" + cluster_id.to_bytes(8, "little")).digest()[:8])
    text = ""
    for _ in range(GENERATION_SIZE):
        number, digit = divmod(number, len(_GENERATION_ALPHABET))
        text += _GENERATION_ALPHABET[digit]
    return text


class Feed:
    """One feed: publishes, keeps books, serves. `stage` runs on one thread, which also calls everything else."""

    def __init__(self, config: FeedConfig) -> None:
        """Allocate; nothing is sent before `start()`."""
        archive = ffi.new("char[]", os.fsencode(config.archive)) if config.archive is not None else ffi.NULL
        settings = ffi.new(
            "feed_config_t *",
            {
                "archive": archive,
                "generation": config.generation.encode(),
                "key": config.key or bytes(KEY_SIZE),
                "partitions": config.partitions,
                "publish": int(config.publish),
                "books": config.books,
                "tokens": config.key is not None,
                "packet_size_max": config.packet_bytes_max,
                "output_size": config.output_bytes,
                **{
                    name: getattr(config, name)
                    for name in (
                        "pack_delay_us heartbeat_ms definitions_ms orders_expected instruments_max derived_slots "
                        "reference_slots connections_max connections_per_user login_timeout_ms silence_timeout_ms "
                        "logins_failed_max rerequests_per_s snapshot_age_ms snapshot_bytes_max"
                    ).split()
                },
            },
        )
        pointer = lib.feed_new(settings)
        if pointer == ffi.NULL:
            raise GatewayConfigError(f"a feed of {config} cannot be made: memory is short")
        self.config = config
        self._pointer = ffi.gc(pointer, lib.feed_free)
        self._rings: list[Ring] = []
        for destination in config.destinations:
            self._add_destination(destination)

    def attach(self, markets: Mapping[int, Ring]) -> None:
        """Give the market rings, by partition; all of them."""
        if sorted(markets) != list(range(1, self.config.partitions + 1)):
            raise GatewayConfigError(f"market rings {sorted(markets)}: must be 1 to {self.config.partitions}")
        for partition, ring in markets.items():
            lib.feed_attach(self._pointer, partition, ffi.cast("ring_t *", ring.ptr))
        self._rings = list(markets.values())

    def start(self) -> None:
        """Begin: what the rings publish from now on is sent."""
        lib.feed_start(self._pointer)

    def listen_replay(self, host: str, port: int) -> int:
        """Serve replay and live streams (SoupBinTCP) on a numeric address; port 0 chooses. Return the port."""
        return self._port(lib.feed_listen_replay(self._pointer, host.encode(), port), host, port)

    def listen_snapshot(self, host: str, port: int) -> int:
        """Serve snapshots (SoupBinTCP). Return the port."""
        return self._port(lib.feed_listen_snapshot(self._pointer, host.encode(), port), host, port)

    def listen_rerequest(self, host: str, port: int) -> int:
        """Answer MoldUDP64 requests. Return the port."""
        return self._port(lib.feed_listen_rerequest(self._pointer, host.encode(), port), host, port)

    def define(self, message: WireMessage) -> None:
        """Add a message to the reference channel."""
        encoded = encode_market(message)
        lib.feed_define(self._pointer, encoded, len(encoded))

    def end_session(self, session: str, next_number: int) -> None:
        """Tell receivers that a session of an earlier generation ended before `next_number`."""
        lib.feed_end_session(self._pointer, session.encode(), next_number)

    @property
    def ending(self) -> bool:
        """Whether the end of a session is still to be told again."""
        return bool(lib.feed_ending(self._pointer))

    @property
    def stage(self) -> Stage:
        """The step function, for `ringbuf.Runner`."""
        return Stage(ffi.addressof(lib, "feed_poll"), self._pointer)

    @property
    def fd(self) -> int:
        """A descriptor that is readable while a socket has something for `poll`."""
        return int(lib.feed_epoll_fd(self._pointer))

    def poll(self, limit: int = 256) -> int:
        """Do one bounded step (tests, asyncio); negative as the stage's status."""
        return int(lib.feed_poll(self._pointer, limit))

    @property
    def hole(self) -> Hole | None:
        """What is missing, after the stage returned STAGE_LAPPED."""
        partition, first = ffi.new("int *"), ffi.new("int64_t *")
        return Hole(partition[0], first[0]) if lib.feed_hole(self._pointer, partition, first) else None

    @property
    def error(self) -> str:
        """Why the stage returned STAGE_FAILED."""
        return str(ffi.string(lib.feed_error(self._pointer)).decode())

    @property
    def caught_up(self) -> bool:
        """Whether the books contain all that was published at the start."""
        return bool(lib.feed_caught_up(self._pointer))

    def position(self, channel: int) -> Position:
        """Return where a channel stands. Raises KeyError."""
        raw = ffi.new("feed_position_t *")
        if not lib.feed_position(self._pointer, channel, raw):
            raise KeyError(channel)
        return Position(int(raw.next), int(raw.oldest), int(raw.sent))

    def session(self, channel: int) -> str:
        """Return the ten characters of a channel's session. Raises KeyError."""
        name = lib.feed_session(self._pointer, channel)
        if name == ffi.NULL:
            raise KeyError(channel)
        return str(ffi.string(name).decode())

    def packet(self, channel: int, number: int, size: int = 1472) -> bytes:
        """Return a MoldUDP64 packet that begins with `number`, b"" if there is nothing (yet, or any more)."""
        buffer = ffi.new("uint8_t[]", size)
        used = lib.feed_packet(self._pointer, channel, number, buffer, size)
        return bytes(ffi.buffer(buffer, used))

    def derived(self, partition: int, number: int, count: int) -> bytes:
        """Return up to `count` slots of the channel derived from a partition, from message `number` on.

        A slot, SLOT_SIZE bytes: u64 update id of the instrument as of the message, SBE header, block.
        """
        slots = ffi.new("uint8_t[]", count * SLOT_SIZE)
        got = lib.feed_derived(self._pointer, partition, number, count, slots)
        return bytes(ffi.buffer(slots, got * SLOT_SIZE))

    def levels(self, partition: int, instrument: int, side: Side, count: int) -> Levels | None:
        """Return the best levels of a side; None while the end of an event is still to come."""
        levels, update_id = ffi.new("feed_level_t[]", count), ffi.new("uint64_t *")
        got = lib.feed_levels(self._pointer, partition, instrument, int(side), count, levels, update_id)
        if got < 0:
            return None
        return Levels(int(update_id[0]), [(level.price, level.qty) for level in levels[0:got]])

    def between_events(self, partition: int) -> bool:
        """Whether the last event that the books have of a partition is whole: only then are they consistent."""
        return bool(lib.feed_between_events(self._pointer, partition))

    def taken(self, partition: int, number: int, count: int) -> Taken:
        """Return up to `count` slots of a partition's market channel that the books have taken, from `number` on.

        A slot as of `derived()`.
        """
        slots, after = ffi.new("uint8_t[]", count * SLOT_SIZE), ffi.new("uint64_t *")
        got = lib.feed_taken(self._pointer, partition, number, count, slots, after)
        return Taken(None if got < 0 else bytes(ffi.buffer(slots, got * SLOT_SIZE)), int(after[0]))

    def orders(self, partition: int, instrument: int, side: Side) -> Orders | None:
        """Return all orders of a side; None while the end of an event is still to come."""
        count, update_id = 0, ffi.new("uint64_t *")
        while True:
            orders = ffi.new("feed_order_t[]", count)
            got = lib.feed_orders(self._pointer, partition, instrument, int(side), count, orders, update_id)
            if got < 0:
                return None
            if got <= count:
                rows = [(int(each.id), int(each.price), int(each.qty)) for each in orders[0:got]]
                return Orders(int(update_id[0]), rows)
            count = int(got)

    @property
    def channels(self) -> list[int]:
        """The numbers of all channels."""
        partitions = range(1, self.config.partitions + 1)
        derived = [DERIVED_BASE + partition for partition in partitions] if self.config.books else []
        return [*partitions, *derived, REFERENCE]

    def shutdown(self) -> None:
        """Stop listening and close all connections."""
        lib.feed_shutdown(self._pointer)

    def counters(self) -> Mapping[str, int]:
        """Return all counters by name."""
        counters = lib.feed_counters(self._pointer)
        return {name: int(getattr(counters, name)) for name, _ in ffi.typeof("feed_counters_t").fields}

    def _add_destination(self, destination: Destination) -> None:
        interface = ffi.NULL if destination.interface is None else ffi.new("char[]", destination.interface.encode())
        status = lib.feed_add_destination(
            self._pointer,
            destination.line,
            int(destination.kinds),
            destination.host.encode(),
            destination.port,
            interface,
            destination.ttl,
        )
        if status < 0:
            raise ListenError(-status, os.strerror(-status), f"{destination.host}:{destination.port}")

    @staticmethod
    def _port(status: int, host: str, port: int) -> int:
        if status < 0:
            raise ListenError(-status, os.strerror(-status), f"{host}:{port}")
        return int(status)
