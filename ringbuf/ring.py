"""Rings as Python sees them: life and identity of the shared memory, and copies in and out for tests and tools.

The hot path is C: it takes `Ring.ptr` and uses ring.h. Here every publish and read costs a call and a copy (R9).
"""

import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringbuf._ring import ffi, lib
from ringbuf.errors import Lapped, RingFull, SegmentNotReady
from ringbuf.segment import ProducerLock, Segment, boot_id, check_field

if TYPE_CHECKING:
    from ringbuf.wait import Doorbell, Doorbells

CONSUMERS_MAX: int = lib.RING_CONSUMERS_MAX
HEADER_SIZE: int = lib.RING_HEADER_SIZE
ALONE = 2**63 - 1  # of the `replicated` cell: commit waits for this node's disk only
NAME_BYTES_MAX = 31  # longer names are cut in the header; the segment's own name is whole


class Mode(IntEnum):
    """How far readers other than journaler and replicator may read (CORE section 2)."""

    PLAIN = lib.RING_MODE_PLAIN  # up to pub
    DURABLE = lib.RING_MODE_DURABLE  # up to commit (D1, D2)
    D0 = lib.RING_MODE_D0  # up to pub; the journaler writes behind


class Watch(IntEnum):
    """Which cursor's movement rings a doorbell."""

    PUBLISHED = lib.RING_WATCH_PUB
    COMMIT = lib.RING_WATCH_COMMIT
    CURSORS = lib.RING_WATCH_CURSORS


class StorageLevel(IntEnum):
    """What the journaler says of the room on its disk; each level includes what the one before asks for (J9)."""

    OK = lib.RING_STORAGE_OK
    LOW = lib.RING_STORAGE_LOW  # an operator must make room
    CANCEL_ONLY = lib.RING_STORAGE_CANCEL_ONLY  # gateways refuse what could rest
    HALT = lib.RING_STORAGE_HALT  # the node stops in order


@dataclass(frozen=True)
class Storage:
    """The journaler's word on its disk, from the log ring."""

    level: StorageLevel
    slow: bool  # a sync was, or is, far too slow: hand over to the standby (J8)


@dataclass(frozen=True)
class Consumer:
    """One gating cursor as it stood when asked."""

    index: int
    name: str
    gating: bool
    cursor: int
    pid: int
    heartbeat_ns: int


class Ring:
    """A ring of fixed-size slots: one producer, gating consumers, observers. `ptr` is the `ring_t *` for C."""

    def __init__(self, segment: Segment, *, run_dir: Path | None = None, doorbells: "Doorbells | None" = None) -> None:
        self.name = segment.name
        self.segment = segment
        self.ptr = ffi.new("ring_t *")
        self._run_dir = run_dir
        self._lock: ProducerLock | None = None
        self._peeked: Any = None
        self._doorbells = doorbells  # keeps them alive as long as C may ring them
        lib.ring_attach(self.ptr, segment.address, ffi.NULL if doorbells is None else doorbells.ptr)

    # --- making and attaching ---------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        name: str,
        *,
        slot_size: int,
        slot_count: int,
        base: int = 0,
        mode: Mode = Mode.PLAIN,
        schema_hash: int = 0,
        epoch: int = 0,
        gating: dict[int, str] | None = None,
        commit: int | None = None,
        run_dir: Path | None = None,
        doorbells: "Doorbells | None" = None,
    ) -> "Ring":
        """Make a shared ring and own its name: close() removes it.

        `commit`: a follower's log begins with records that are not known to be committed; readers stop there until the
        replicator has stored more. Else everything below `base` is, and commit waits for nobody. `gating` fixes the
        gating consumers, index to name, from the first slot on (CORE K1). Raises SegmentExists,
        or NoMemory when shared memory is full. The creator is not yet the producer: see lock_producer().
        """
        if commit is not None and not 0 <= commit <= base:
            raise ValueError(f"commit {commit} of a ring that begins at {base}")
        segment = Segment.create(name, size_bytes=_size(slot_size, slot_count, base))
        lib.ring_format(segment.address, slot_size, slot_count, base, mode, schema_hash)
        ring = cls(segment, run_dir=run_dir, doorbells=doorbells)
        if commit is not None:
            lib.ring_begin_committed(ring.ptr, commit)
        for index, consumer in (gating or {}).items():
            ring.gate(index, consumer, at=base, pid=0)
        lib.ring_identify(ring.ptr, ring.name.removeprefix("/").encode(), list(boot_id()), epoch)
        return ring

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        slot_size: int | None = None,
        schema_hash: int | None = None,
        writable: bool = True,
        run_dir: Path | None = None,
        doorbells: "Doorbells | None" = None,
    ) -> "Ring":
        """Attach to an existing ring, refusing memory of another layout, boot, schema or slot size (R8).

        Raises SegmentMissing, SegmentNotReady, or LayoutMismatch naming the field. None for `slot_size` or
        `schema_hash` takes whatever is there: for tools. Not writable: an observer that registers nowhere.
        """
        segment = Segment.attach(name, writable=writable)
        try:
            _check_identity(segment, slot_size=slot_size, schema_hash=schema_hash)
            return cls(segment, run_dir=run_dir, doorbells=doorbells)
        except BaseException:
            segment.close()
            raise

    @classmethod
    def private(
        cls,
        *,
        slot_size: int,
        slot_count: int,
        base: int = 0,
        mode: Mode = Mode.PLAIN,
        gating: dict[int, str] | None = None,
        doorbells: "Doorbells | None" = None,
    ) -> "Ring":
        """Make a ring in this process's own memory: composed engines and tests."""
        segment = Segment.private(size_bytes=_size(slot_size, slot_count, base))
        lib.ring_format(segment.address, slot_size, slot_count, base, mode, 0)
        ring = cls(segment, doorbells=doorbells)
        for index, consumer in (gating or {}).items():
            ring.gate(index, consumer, at=base)
        return ring

    def close(self) -> None:
        """Release the producer's lock and unmap; the creator also removes the name. C must be done with `ptr`."""
        self.unlock_producer()
        self.segment.close()

    def __enter__(self) -> "Ring":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- identity and cursors ---------------------------------------------------------------------------------------

    @property
    def slot_size(self) -> int:
        return int(self._header.slot_size)

    @property
    def capacity(self) -> int:
        """Slots in the ring."""
        return int(self._header.slot_count)

    @property
    def base(self) -> int:
        """First sequence this ring ever held."""
        return int(self._header.base)

    @property
    def mode(self) -> Mode:
        return Mode(self._header.mode)

    @property
    def schema_hash(self) -> int:
        return int(self._header.schema_hash)

    @property
    def epoch(self) -> int:
        return int(lib.ring_epoch(self._alive))

    @property
    def published(self) -> int:
        return int(lib.ring_published(self._alive))

    @property
    def commit(self) -> int:
        return int(lib.ring_commit(self._alive))

    @property
    def visible(self) -> int:
        """Where a reader other than journaler and replicator stops: commit or published, by mode."""
        return int(lib.ring_visible(self._alive))

    @property
    def claim(self) -> int:
        """Slots below claim - capacity are gone; may be ahead of what is really claimed."""
        return int(lib.ring_claim_cursor(self._alive))

    @property
    def wanted(self) -> int:
        return int(lib.ring_wanted(self._alive))

    @property
    def replicated(self) -> int:
        return int(lib.ring_replicated(self._alive))

    @property
    def panic(self) -> int:
        """errno of the write or sync that stopped the journaler, else 0."""
        return int(lib.ring_panic(self._alive))

    @property
    def storage(self) -> Storage:
        """What the journaler says of its disk; log ring only."""
        cell = int(lib.ring_storage_cell(self._alive))
        return Storage(StorageLevel(cell & lib.RING_STORAGE_LEVEL), bool(cell & lib.RING_STORAGE_SLOW))

    @property
    def cursors(self) -> dict[int, Consumer]:
        """The consumers that gate, by index."""
        found = (self.consumer(index) for index in range(CONSUMERS_MAX))
        return {consumer.index: consumer for consumer in found if consumer.gating}

    @property
    def away(self) -> bool:
        """Whether the producer is known to be dead or stuck; report rings only."""
        return bool(lib.ring_away(self._alive))

    def set_away(self, away: bool) -> None:
        """The supervisor's word that the producer is gone, the producer's that it is back."""
        lib.ring_set_away(self._writable, away)

    def consumer(self, index: int) -> Consumer:
        view = ffi.new("ring_consumer_view_t *")
        lib.ring_consumer_view(self._alive, _consumer(index), view)
        return Consumer(
            index=index,
            name=ffi.string(view.name).decode(),
            gating=bool(view.gating),
            cursor=int(view.cursor),
            pid=int(view.pid),
            heartbeat_ns=int(view.heartbeat_ns),
        )

    # --- the producer -----------------------------------------------------------------------------------------------

    def lock_producer(self) -> None:
        """Become the one producer and go on at pub, or raise ProducerBusy at once: then exit 75 (R3)."""
        if self._run_dir is None:
            raise ValueError(f"ring {self.name} was made without a run_dir to hold its producer's lock")
        if self._lock is not None:
            return
        self._lock = ProducerLock(self.name, self._run_dir)
        # Only now is `pub` final: whoever held the lock before us is gone.
        lib.ring_attach(self.ptr, self.segment.address, self.ptr.doorbells)

    def unlock_producer(self) -> None:
        """Publish no more: another process may become the producer and goes on at pub. Idempotent."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def append(self, slots: bytes, *, wanted: int) -> bool:
        """Publish whole linked groups (n x slot_size bytes) by one store; False if there is no room for all of them.

        Somebody waits for everything below `wanted`: see the cell of that name.
        """
        count, rest = divmod(len(slots), self.slot_size)
        if not 0 < count <= self.capacity or rest:
            raise ValueError(f"{len(slots)} bytes are not 1 to {self.capacity} slots of {self.slot_size}")
        if lib.ring_room(self._writable, count) < count:
            return False
        lib.ring_store_wanted(self.ptr, wanted)
        lib.ring_publish_copy(self.ptr, slots, count)
        return True

    def room(self) -> int:
        """Slots that may be published now."""
        return int(lib.ring_room(self._writable, self.capacity))

    def publish(self, *records: bytes) -> int:
        """Publish the records as one group, each padded with zeros to a slot; return the first sequence.

        Raises RingFull when gating consumers leave no room.
        """
        size = self.slot_size
        if not records or len(records) > self.capacity:
            raise ValueError(f"{len(records)} records do not fit a ring of {self.capacity} slots")
        for record in records:
            if len(record) > size:
                raise ValueError(f"a record of {len(record)} bytes does not fit a slot of {size}")
        slots = b"".join(record.ljust(size, b"\0") for record in records)
        first = int(lib.ring_publish_copy(self._writable, slots, len(records)))
        if first == lib.RING_FULL:
            raise RingFull(self.name, wanted=len(records), room=self.room())
        return first

    def claim_copy(self, records: list[bytes]) -> None:
        """Write whole slots behind what is published, without publishing them: a successor's unreleased answers.

        Raises RingFull when gating consumers leave no room.
        """
        if any(len(record) != self.slot_size for record in records):
            raise ValueError(f"records must be whole slots of {self.slot_size} bytes")
        slots = b"".join(records)
        if records and lib.ring_claim_copy(self._writable, slots, len(records)) == lib.RING_FULL:
            raise RingFull(self.name, wanted=len(records), room=self.room())

    # --- consumers --------------------------------------------------------------------------------------------------

    def read(self, sequence: int, count: int = 1) -> bytes:
        """Return a copy of `count` slots from `sequence` on. Raises Lapped, or IndexError beyond published."""
        if count < 1 or count > self.capacity:
            raise ValueError(f"cannot read {count} slots of a ring of {self.capacity}")
        if sequence < 0 or sequence + count > self.published:
            raise IndexError(f"ring {self.name}: {sequence + count} is beyond published {self.published}")
        copy = ffi.new("char[]", count * self.slot_size)
        if lib.ring_read(self._alive, sequence, count, copy) != lib.RING_OK:
            raise Lapped(self.name, sequence=sequence, count=count)
        return bytes(ffi.buffer(copy))

    def peek(self, sequence: int) -> Any | None:
        """Return one slot without a copy of its own, valid until the next call; None: not published, or gone."""
        if self._peeked is None:
            self._peeked = ffi.new("char[]", self.slot_size)
        if not 0 <= sequence < lib.ring_published(self._alive):
            return None
        return ffi.buffer(self._peeked) if lib.ring_read(self.ptr, sequence, 1, self._peeked) == lib.RING_OK else None

    def gate(self, index: int, name: str, *, at: int | None = None, pid: int | None = None) -> int:
        """Take consumer `index`, return its cursor: where it stood if it gated already, else `at` (default: pub).

        Give `at` to move a cursor that gates already, too: its owner recovered from its own files.
        """
        known = self.consumer(index)
        start = at if at is not None else known.cursor if known.gating else self.published
        lib.ring_consumer_name(self._writable, index, name.encode(), os.getpid() if pid is None else pid)
        lib.ring_gate(self.ptr, index, start)
        return start

    def advance(self, index: int, sequence: int) -> None:
        """Free everything below `sequence` as far as this consumer is concerned."""
        known = self.consumer(index)
        if not known.cursor <= sequence <= self.published:
            raise ValueError(f"ring {self.name}: cursor {known.cursor} cannot move to {sequence}")
        lib.ring_advance(self._writable, index, sequence)

    def ungate(self, index: int) -> None:
        lib.ring_ungate(self._writable, _consumer(index))

    def store_replicated(self, sequence: int) -> None:
        """The replicator's own: commit waits until everything below is durable elsewhere too, or ALONE."""
        if sequence < 0:
            raise ValueError(f"ring {self.name}: replicated cannot be {sequence}")
        lib.ring_store_replicated(self._writable, sequence)

    def store_commit(self, sequence: int) -> None:
        """The journaler's own: everything below `sequence` is durable. Never decreases."""
        if not self.commit <= sequence <= self.published:
            raise ValueError(f"ring {self.name}: commit {self.commit} cannot move to {sequence}")
        lib.ring_store_commit(self._writable, sequence)

    # --- waiting ----------------------------------------------------------------------------------------------------

    def watch(self, doorbell: "Doorbell", which: Watch = Watch.PUBLISHED) -> None:
        """Have `doorbell` rung when that cursor moves and its owner sleeps."""
        lib.ring_watch_cell(self._writable, which, doorbell.index)

    def unwatch(self, doorbell: "Doorbell", which: Watch = Watch.PUBLISHED) -> None:
        lib.ring_unwatch_cell(self._writable, which, doorbell.index)

    # --- inside -----------------------------------------------------------------------------------------------------

    @property
    def _alive(self) -> Any:
        if self.segment.closed:
            raise ValueError(f"ring {self.name} is closed")
        return self.ptr

    @property
    def _writable(self) -> Any:
        if not self.segment.writable:
            raise ValueError(f"ring {self.name} was attached for reading only")
        return self._alive

    @property
    def _header(self) -> Any:
        return self._alive.header


def _size(slot_size: int, slot_count: int, base: int) -> int:
    if slot_count < 1 or slot_count & (slot_count - 1):
        raise ValueError(f"slot_count {slot_count} is no power of two")
    if slot_size < 8 or slot_size % 8:
        raise ValueError(f"slot_size {slot_size} is no positive multiple of 8")
    if base < 0:
        raise ValueError(f"base {base} is negative")
    return HEADER_SIZE + slot_size * slot_count


def _consumer(index: int) -> int:
    if not 0 <= index < CONSUMERS_MAX:
        raise ValueError(f"consumer {index}: a ring has {CONSUMERS_MAX}")
    return index


def _check_identity(segment: Segment, *, slot_size: int | None, schema_hash: int | None) -> None:
    name = segment.name
    if segment.size_bytes < HEADER_SIZE:
        check_field(name, "size", expected=f"at least {HEADER_SIZE}", actual=segment.size_bytes)
    header = ffi.cast("ring_header_t *", segment.address)
    if not lib.ring_ready(header):
        raise SegmentNotReady(name)
    check_field(name, "magic", expected=hex(lib.RING_MAGIC), actual=hex(header.magic))
    check_field(name, "layout_version", expected=lib.RING_LAYOUT_VERSION, actual=header.layout_version)
    check_field(name, "boot_id", expected=boot_id(), actual=(header.boot_id[0], header.boot_id[1]))
    if schema_hash is not None:
        check_field(name, "schema_hash", expected=hex(schema_hash), actual=hex(header.schema_hash))
    if slot_size is not None:
        check_field(name, "slot_size", expected=slot_size, actual=header.slot_size)
    expected_size = HEADER_SIZE + header.slot_size * header.slot_count
    check_field(name, "size", expected=expected_size, actual=segment.size_bytes)
