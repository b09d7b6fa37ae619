"""Frames between the two nodes of a cluster (RELIABILITY Z1 to Z5).

Little-endian. Every frame begins with a header of 48 bytes:

    0 u32 magic "BLRP"   4 u8 version   5 u8 kind   6 u16 spare   8 u32 length of the whole frame   12 u32 crc32c
   16 u64 cluster   24 u32 node   28 u32 spare   32 u64 incarnation   40 u64 epoch

crc32c covers the whole frame with the field itself zero. `node` and `incarnation` are the sender's. `epoch` is the one
it leads or follows, never one it has only promised.

    HELLO      standby -> primary: "stream from `sequence` on; my log has `chain` there"
    APPEND     primary -> standby: records, the chain before and after them, the primary's commit
    ACK        standby -> primary: everything below `sequence` is as safe as the mode demands; chain and state hash
    NACK       standby -> primary: send again from `sequence`
    HEARTBEAT  both ways, every 50 ms
    FENCED     "there is a newer epoch": the header's. A leader of an older one stops
    PROBE      standby -> primary: "what is your chain at `sequence`?"      CHAIN is the answer
    HANDOVER   primary -> standby: planned; "all is frozen and acknowledged up to `sequence`: promote"
    STEP_DOWN  primary -> standby: "my core is dead: promote now"
    DIVERGED   either way: the state hashes at a mark differ

`chain` is the log hash of CORE section 9 over all records below a sequence: where it is equal, both logs are, below it.
Correctness does not depend on delivery: sequences, cumulative acks and sending again do it (Z1).
"""

from __future__ import annotations

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
NO_MARK = 0

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
    """`mark` is the number of the last hash mark applied (NO_MARK: none) and `state_hash` the state there."""

    KIND: ClassVar[Kind] = Kind.ACK
    LAYOUT: ClassVar[Struct] = Struct("<QQQQ16s")
    sequence: int
    chain: int
    applied: int
    mark: int
    state_hash: bytes


@dataclass(frozen=True, slots=True)
class Nack:
    KIND: ClassVar[Kind] = Kind.NACK
    LAYOUT: ClassVar[Struct] = Struct("<Q")
    sequence: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    KIND: ClassVar[Kind] = Kind.HEARTBEAT
    LAYOUT: ClassVar[Struct] = Struct("<QQQII")
    log_end: int
    durable: int
    commit: int
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
    mark: int


Message = Hello | Append | Ack | Nack | Heartbeat | Fenced | Probe | Chain | Handover | StepDown | Diverged
_TYPES: dict[int, type[Message]] = {
    int(kind.KIND): kind
    for kind in (Hello, Append, Ack, Nack, Heartbeat, Fenced, Probe, Chain, Handover, StepDown, Diverged)
}


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
    tail = message.records if isinstance(message, Append) else b""
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
    if len(data) < end or (kind is not Append and len(data) != end):
        raise BadFrame(f"{kind.__name__} of {len(data)} bytes: must be {end}")
    fields = kind.LAYOUT.unpack_from(data, HEADER_SIZE)
    if kind is Append:
        records = data[end:]
        if not records or len(records) % SLOT_SIZE:
            raise BadFrame(f"Append with {len(records)} bytes of records: must be a multiple of {SLOT_SIZE}, not 0")
        first, before, after, commit, wanted = fields
        return Append(first, before, after, commit, wanted, records)
    if kind is Heartbeat:
        log_end, durable, commit, role, flags = fields
        if role not in _ROLES:
            raise BadFrame(f"Heartbeat with role {role}")
        return Heartbeat(log_end, durable, commit, Role(role), Flag(flags))
    return kind(*fields)
