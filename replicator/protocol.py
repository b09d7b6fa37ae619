"""Frames between the two nodes of a cluster (RELIABILITY Z1 to Z5).

Little-endian. Every frame begins with a header of 48 bytes:

    0 u32 magic "BLRP"   4 u8 version   5 u8 kind   6 u16 spare   8 u32 length of the whole frame   12 u32 crc32c
   16 u64 cluster   24 u32 node   28 u32 spare   32 u64 incarnation   40 u64 epoch

crc32c covers the whole frame with the field itself zero. `node` and `incarnation` are the sender's. `epoch` is the one
it leads or follows, never one it has only promised.

    HELLO      standby -> primary: "stream from `sequence` on; my log has `chain` there"
    APPEND     primary -> standby: records, the chain before and after them, the primary's commit
    ACK        standby -> primary: everything below `sequence` is as safe as the mode demands; the chain there
    NACK       standby -> primary: send again from `sequence`
    HEARTBEAT  both ways, every 50 ms
    FENCED     "there is a newer epoch": the header's. A leader of an older one stops
    PROBE      standby -> primary: "what is your chain at `sequence`?"      CHAIN is the answer
    HANDOVER   primary -> standby: planned; "all is frozen and acknowledged up to `sequence`: promote"
    STEP_DOWN  primary -> standby: "my core is dead: promote now"
    HASHES     standby -> primary: state hashes at marks of the log (S4)
    DIVERGED   either way: a state hash differs

`chain` is the log hash of CORE section 9 over all records below a sequence: where it is equal, both logs are, below it.
Correctness does not depend on delivery: sequences, cumulative acks and sending again do it (Z1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import ClassVar, Self

from journaler.format import SLOT_SIZE, crc32c
from replicator.errors import BadFrame

VERSION = 1
MAGIC = int.from_bytes(b"BLRP", "little")
HEADER = Struct("<IBBHIIQIIQQ")
HEADER_SIZE = HEADER.size
CRC_OFFSET = 12
FRAME_BYTES_MAX = 4 << 20
HASH_ITEM = Struct("<QQQ")  # key, low and high half of the hash

assert HEADER_SIZE == 48


class Kind(IntEnum):
    HELLO = 1
    APPEND = 2
    ACK = 3
    NACK = 4
    HEARTBEAT = 5
    FENCED = 6
    PROBE = 7
    CHAIN = 8
    HANDOVER = 9
    STEP_DOWN = 10
    DIVERGED = 11
    HASHES = 12


class Role(IntEnum):
    """What the sender of a heartbeat is."""

    NONE = 0  # starting, verifying, waiting for a leader
    STANDBY = 1
    PRIMARY = 2


class Flag(IntFlag):
    """State of the sender of a heartbeat."""

    HOT = 1  # sequencer and matchers follow close behind
    EMPTY = 2  # its log has no record and it never knew an epoch
    STREAMING = 4  # of a primary: it sends the log to the receiver's present incarnation
    MEMBER = 8  # of a primary: the receiver is in the in-sync set


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a frame."""

    cluster: int
    node: int
    incarnation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Hello:
    KIND: ClassVar[Kind] = Kind.HELLO
    LAYOUT: ClassVar[Struct] = Struct("<QQ")
    sequence: int
    chain: int


@dataclass(frozen=True, slots=True)
class Append:
    """`records` are whole linked groups. `wanted`: below it somebody waits for the acknowledgement."""

    KIND: ClassVar[Kind] = Kind.APPEND
    LAYOUT: ClassVar[Struct] = Struct("<QQQQQ")
    first: int
    chain_before: int
    chain_after: int
    commit: int
    wanted: int
    records: bytes

    @property
    def end(self) -> int:
        """The sequence after the last record."""
        return self.first + len(self.records) // SLOT_SIZE


@dataclass(frozen=True, slots=True)
class Ack:
    KIND: ClassVar[Kind] = Kind.ACK
    LAYOUT: ClassVar[Struct] = Struct("<QQQ")
    sequence: int
    chain: int
    applied: int


@dataclass(frozen=True, slots=True)
class Nack:
    KIND: ClassVar[Kind] = Kind.NACK
    LAYOUT: ClassVar[Struct] = Struct("<Q")
    sequence: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`likeness`: equal on two nodes that may replace each other: same schema, same keys outside the log."""

    KIND: ClassVar[Kind] = Kind.HEARTBEAT
    LAYOUT: ClassVar[Struct] = Struct("<QQQQII")
    log_end: int
    durable: int
    commit: int
    likeness: int
    role: Role
    flags: Flag


@dataclass(frozen=True, slots=True)
class Fenced:
    KIND: ClassVar[Kind] = Kind.FENCED
    LAYOUT: ClassVar[Struct] = Struct("<")


@dataclass(frozen=True, slots=True)
class Probe:
    KIND: ClassVar[Kind] = Kind.PROBE
    LAYOUT: ClassVar[Struct] = Struct("<Q")
    sequence: int


@dataclass(frozen=True, slots=True)
class Chain:
    """`log_end` of the answering primary; `known` 0: it has no chain at `sequence` (beyond its end, or too old)."""

    KIND: ClassVar[Kind] = Kind.CHAIN
    LAYOUT: ClassVar[Struct] = Struct("<QQQQQ")
    sequence: int
    chain: int
    known: int
    log_end: int
    commit: int


@dataclass(frozen=True, slots=True)
class Handover:
    KIND: ClassVar[Kind] = Kind.HANDOVER
    LAYOUT: ClassVar[Struct] = Struct("<QQ")
    sequence: int
    chain: int


@dataclass(frozen=True, slots=True)
class StepDown:
    KIND: ClassVar[Kind] = Kind.STEP_DOWN
    LAYOUT: ClassVar[Struct] = Struct("<")


@dataclass(frozen=True, slots=True)
class Diverged:
    KIND: ClassVar[Kind] = Kind.DIVERGED
    LAYOUT: ClassVar[Struct] = Struct("<Q")
    key: int


@dataclass(frozen=True, slots=True)
class Hashes:
    """State hashes by key: the number of a hash mark and which part of the state (see divergence.py)."""

    KIND: ClassVar[Kind] = Kind.HASHES
    LAYOUT: ClassVar[Struct] = Struct("<")
    records: bytes  # HASH_ITEM each

    @classmethod
    def of(cls, hashes: Iterable[tuple[int, int]]) -> Hashes:
        """Build it from keys and 128-bit hashes."""
        return cls(b"".join(HASH_ITEM.pack(key, value & _LOW, value >> 64) for key, value in hashes))

    @property
    def items(self) -> list[tuple[int, int]]:
        return [(key, high << 64 | low) for key, low, high in HASH_ITEM.iter_unpack(self.records)]


Message = Hello | Append | Ack | Nack | Heartbeat | Fenced | Probe | Chain | Handover | StepDown | Diverged | Hashes
_KINDS = (Hello, Append, Ack, Nack, Heartbeat, Fenced, Probe, Chain, Handover, StepDown, Diverged, Hashes)
_TYPES: dict[int, type[Message]] = {int(kind.KIND): kind for kind in _KINDS}
_TAILS: dict[type[Message], int] = {Append: SLOT_SIZE, Hashes: HASH_ITEM.size}
_LOW = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as received."""

    sender: Sender
    message: Message

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raise BadFrame, saying why, unless every byte is as it should be."""
        if not HEADER_SIZE <= len(data) <= FRAME_BYTES_MAX:
            raise BadFrame(f"{len(data)} bytes: a frame has {HEADER_SIZE} to {FRAME_BYTES_MAX}")
        magic, version, kind, spare, length, crc, cluster, node, spare2, inc, epoch = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise BadFrame(f"magic {magic:#010x}: must be {MAGIC:#010x}")
        if length != len(data):
            raise BadFrame(f"length {length} in a frame of {len(data)} bytes")
        if _crc(data) != crc:
            raise BadFrame(f"crc32c {crc:#010x} does not fit the frame")
        if version != VERSION:
            raise BadFrame(f"version {version}: this node speaks {VERSION}")
        if kind not in _TYPES or spare or spare2:
            raise BadFrame(f"kind {kind} is unknown or a spare field is set")
        return cls(Sender(cluster, node, inc, epoch), _decode_body(_TYPES[kind], data))


def encode(sender: Sender, message: Message) -> bytes:
    """Return the bytes of a frame."""
    tail = message.records if isinstance(message, Append | Hashes) else b""
    fields = tuple(getattr(message, name) for name in _FIELDS[type(message)])
    length = HEADER_SIZE + message.LAYOUT.size + len(tail)
    if length > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {length} bytes: at most {FRAME_BYTES_MAX}")
    head = (MAGIC, VERSION, message.KIND, 0, length, 0)
    identity = (sender.cluster, sender.node, 0, sender.incarnation, sender.epoch)
    frame = bytearray(HEADER.pack(*head, *identity) + message.LAYOUT.pack(*fields) + tail)
    frame[CRC_OFFSET : CRC_OFFSET + 4] = crc32c(frame).to_bytes(4, "little")
    return bytes(frame)


_FIELDS: dict[type[Message], tuple[str, ...]] = {
    kind: tuple(name for name in kind.__dataclass_fields__ if name not in ("KIND", "LAYOUT", "records"))
    for kind in _TYPES.values()
}


_ROLES = frozenset(int(role) for role in Role)


def _crc(data: bytes) -> int:
    zero = bytes(4)
    return crc32c(memoryview(data)[CRC_OFFSET + 4 :], crc32c(zero, crc32c(memoryview(data)[:CRC_OFFSET])))


def _decode_body(kind: type[Message], data: bytes) -> Message:
    end = HEADER_SIZE + kind.LAYOUT.size
    if len(data) < end or (kind not in _TAILS and len(data) != end):
        raise BadFrame(f"{kind.__name__} of {len(data)} bytes: must be {end}")
    fields = kind.LAYOUT.unpack_from(data, HEADER_SIZE)
    if kind in _TAILS:
        records, size = data[end:], _TAILS[kind]
        if not records or len(records) % size:
            raise BadFrame(f"{kind.__name__} with {len(records)} bytes of records: a multiple of {size}, not 0")
        if kind is Hashes:
            return Hashes(records)
        first, before, after, commit, wanted = fields
        return Append(first, before, after, commit, wanted, records)
    if kind is Heartbeat:
        log_end, durable, commit, likeness, role, flags = fields
        if role not in _ROLES:
            raise BadFrame(f"Heartbeat with role {role}")
        return Heartbeat(log_end, durable, commit, likeness, Role(role), Flag(flags))
    return kind(*fields)
