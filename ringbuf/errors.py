"""What can go wrong with rings, segments and counters. Each carries the values that matter as attributes."""


class RingbufError(Exception):
    """Base of all errors of this package."""


class RingFull(RingbufError):
    """A gating consumer has not yet passed the slots wanted."""

    def __init__(self, name: str, *, wanted: int, room: int) -> None:
        super().__init__(f"ring {name}: {wanted} slots wanted, {room} free")
        self.name = name
        self.wanted = wanted
        self.room = room


class Lapped(RingbufError):
    """The producer has overwritten what was to be read, or it was never in this ring: read the file instead."""

    def __init__(self, name: str, *, sequence: int, count: int) -> None:
        super().__init__(f"ring {name}: sequences {sequence} to {sequence + count - 1} are no longer in the ring")
        self.name = name
        self.sequence = sequence
        self.count = count


class LayoutMismatch(RingbufError):
    """A segment or file is not what its reader was built or configured for."""

    def __init__(self, name: str, *, field: str, expected: object, actual: object) -> None:
        super().__init__(f"{name}: {field} is {actual}, expected {expected}")
        self.name = name
        self.field = field
        self.expected = expected
        self.actual = actual


class SegmentMissing(RingbufError):
    """No shared-memory segment of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no shared-memory segment {name}")
        self.name = name


class SegmentExists(RingbufError):
    """Somebody has created that segment already, or left it behind."""

    def __init__(self, name: str) -> None:
        super().__init__(f"shared-memory segment {name} exists already")
        self.name = name


class SegmentNotReady(RingbufError):
    """Its creator is still filling it in, or died doing so."""

    def __init__(self, name: str) -> None:
        super().__init__(f"shared-memory segment {name} is not ready: its creator has not finished")
        self.name = name


class NoMemory(RingbufError):
    """Shared memory is full: found out at start, never by a SIGBUS later."""

    def __init__(self, name: str, *, size_bytes: int, free_bytes: int) -> None:
        super().__init__(f"segment {name}: {size_bytes} bytes wanted, {free_bytes} free in shared memory")
        self.name = name
        self.size_bytes = size_bytes
        self.free_bytes = free_bytes


class ProducerBusy(RingbufError):
    """Another process is this ring's producer. The caller exits with EXIT_PRODUCER_BUSY; it never waits (R3)."""

    def __init__(self, name: str, *, holder_pid: int) -> None:
        super().__init__(f"ring {name} has a producer already: process {holder_pid}")
        self.name = name
        self.holder_pid = holder_pid


class DoorbellBusy(RingbufError):
    """Another live process owns the doorbell of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"doorbell {name} belongs to another live process")
        self.name = name


class DoorbellsFull(RingbufError):
    """Every doorbell cell is owned by a live process."""

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"all {limit} doorbells are taken")
        self.limit = limit


class CountersFull(RingbufError):
    """The file has no room for another counter or histogram."""

    def __init__(self, path: str, *, name: str, limit: int) -> None:
        super().__init__(f"{path}: no room for {name!r}, the file holds {limit}")
        self.path = path
        self.name = name
        self.limit = limit


class CorruptCounters(RingbufError):
    """A counter file contradicts itself."""

    def __init__(self, path: str, *, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.path = path
        self.detail = detail
