"""Builders of log records, rings and small journals."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Any

from journaler import Journaler, JournalerConfig
from ringbuf.ring import Mode, Ring, StorageLevel
from ringbuf.wire.messages import EpochStart, Template

SLOT_SIZE = 128
SEGMENT_SIZE = 64 * 1024
MORE, LAZY = 1, 2
_SLOT = Struct("<IHHIBBHQQ80sQQ")


def slot(sequence: int, *, flags: int = 0, template: int = Template.TICK, block: bytes = b"", salt: int = 0) -> bytes:
    """A log slot that tells which sequence it was made for; `salt` makes that of another journal."""
    source, partition, time_ns = 2, 1, 1_700_000_000_000_000_000 + sequence
    head = (sequence & 0xFFFF, source, template, sequence & 0xFFFFFFFF, 0, partition, flags, sequence * 7 + salt)
    return _SLOT.pack(*head, sequence, block, time_ns, sequence ^ 0x5A5A)


def group(sequence: int, count: int, *, salt: int = 0) -> bytes:
    """A linked group of `count` slots."""
    flags = [MORE] * (count - 1) + [0]
    return b"".join(slot(sequence + index, flags=flag, salt=salt) for index, flag in enumerate(flags))


def singles(sequence: int, count: int, *, salt: int = 0) -> bytes:
    """`count` records that belong to no group."""
    return b"".join(slot(sequence + index, salt=salt) for index in range(count))


def epoch_start(sequence: int, epoch: int) -> bytes:
    return slot(sequence, template=Template.EPOCH_START, block=EpochStart(epoch=epoch).pack())


def config(directory: Path, **changes: Any) -> JournalerConfig:
    """One small segment ahead, no waiting for lazy records."""
    values: dict[str, Any] = {
        "directory": directory,
        "mode": "D1",
        "segment_size_bytes": SEGMENT_SIZE,
        "segments_ahead": 1,
        "lazy_us": 0,
    }
    return JournalerConfig(**(values | changes))


def log_ring(*, base: int = 0, slot_count: int = 4096, mode: Mode = Mode.DURABLE) -> Ring:
    return Ring.private(slot_size=SLOT_SIZE, slot_count=slot_count, base=base, mode=mode, gating={0: "journaler"})


def publish(ring: Ring, slots: bytes) -> None:
    """Publish whole groups by one store."""
    ring.publish(*(slots[at : at + SLOT_SIZE] for at in range(0, len(slots), SLOT_SIZE)))


def poll_all(journaler: Journaler, ring: Ring) -> None:
    """Poll until everything published is committed; a segment may first have to be prepared."""
    while ring.commit < ring.published:
        journaler.poll()


@contextmanager
def opened(directory: Path, ring: Ring, **changes: Any) -> Iterator[Journaler]:
    with Journaler(config(directory, **changes), ring, {}) as journaler:
        yield journaler


def write_journal(
    directory: Path, batches: Sequence[int], *, base: int = 0, salt: int = 0, epoch: int = 0, **changes: Any
) -> list[int]:
    """Write batches of so many single records; an epoch is a batch of its own. Returns the batches' ends."""
    ends = []
    with log_ring(base=base) as ring, opened(directory, ring, **changes) as journaler:
        if epoch:
            publish(ring, epoch_start(base, epoch))
            poll_all(journaler, ring)
            ends.append(ring.published)
        for count in batches:
            publish(ring, singles(ring.published, count, salt=salt))
            poll_all(journaler, ring)
            ends.append(ring.published)
    return ends


def set_storage(ring: Ring, level: StorageLevel) -> None:
    """What the journaler does: the cell lies behind the identity of the ring's header."""
    from ringbuf._ring import ffi

    ffi.cast("uint32_t *", int(ffi.cast("uintptr_t", ring.ptr.header)) + 108)[0] = level
