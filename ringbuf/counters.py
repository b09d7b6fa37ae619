"""Counters, gauges and latency histograms in a file that anybody may read while its process runs or after it died.

The layout is counters.h's. `CounterFile` is the writer's side, `CounterReader` everybody else's.
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from ringbuf._ring import ffi, lib
from ringbuf.errors import CorruptCounters, CountersFull
from ringbuf.segment import check_field, map_file, unmap

NAME_BYTES_MAX: int = lib.COUNTERS_NAME_MAX - 1
_BUCKETS: int = lib.HISTOGRAM_BUCKETS
_NOTHING = 2**64 - 1

_COUNTERS_MAX_DEFAULT = 256
_HISTOGRAMS_MAX_DEFAULT = 16


@dataclass(frozen=True)
class HistogramSnapshot:
    """What a histogram held when read. Values are nanoseconds, at most 1.6 % too large."""

    count: int
    sum: int
    min: int
    max: int
    buckets: tuple[int, ...]

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """Return the value that `percent` of all recorded values do not exceed; 0 if nothing was recorded."""
        if not 0 <= percent <= 100:
            raise ValueError(f"percent {percent} is not between 0 and 100")
        rank = max(1, -int(-self.count * percent // 100))
        for bucket, below in enumerate(accumulate(self.buckets)):
            if below >= rank:
                # The highest value of the bucket, as HdrHistogram gives it; the largest is known exactly.
                return (
                    min(int(lib.histogram_bucket_low(bucket + 1)) - 1, self.max) if bucket + 1 < _BUCKETS else self.max
                )
        return 0

    def since(self, earlier: "HistogramSnapshot") -> "HistogramSnapshot":
        """Return what was recorded after `earlier`; min and max stay those of the whole life."""
        buckets = tuple(now - then for now, then in zip(self.buckets, earlier.buckets, strict=True))
        return HistogramSnapshot(sum(buckets), self.sum - earlier.sum, self.min, self.max, buckets)


@dataclass(frozen=True)
class CountersSnapshot:
    """One look at a counter file."""

    process: str
    pid: int
    started_ns: int  # CLOCK_REALTIME
    counters: Mapping[str, int]
    gauges: Mapping[str, int]
    histograms: Mapping[str, HistogramSnapshot]


class Counter:
    """A counter or gauge of this process; `ptr` is the `counter_t *` for C. One writer."""

    def __init__(self, name: str, ptr: Any) -> None:
        self.name = name
        self.ptr = ptr

    @property
    def value(self) -> int:
        return int(lib.counter_get(self.ptr))

    def add(self, delta: int = 1) -> None:
        lib.counter_add(self.ptr, delta)

    def set(self, value: int) -> None:
        lib.counter_set(self.ptr, value)


class Histogram:
    """A latency histogram of this process; `ptr` is the `histogram_t *` for C. One writer."""

    def __init__(self, name: str, ptr: Any) -> None:
        self.name = name
        self.ptr = ptr

    def record(self, value_ns: int) -> None:
        lib.histogram_record(self.ptr, max(0, value_ns))

    def snapshot(self) -> HistogramSnapshot:
        return _read_histogram(self.ptr)


class CounterFile:
    """The writer's side. The file stays when the process ends: its last values are what one wants to see then."""

    def __init__(self, path: Path, mapping: Any) -> None:
        self.path = path
        self._mapping = mapping

    @classmethod
    def create(
        cls,
        path: Path | str,
        process_name: str,
        *,
        counters_max: int = _COUNTERS_MAX_DEFAULT,
        histograms_max: int = _HISTOGRAMS_MAX_DEFAULT,
    ) -> "CounterFile":
        """Make the file, replacing a predecessor's at once: a reader sees the old one or the new one, whole."""
        path = Path(path)
        size = int(lib.counters_size(counters_max, histograms_max))
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(fd, 0, size)
            mapping = map_file(fd, size, writable=True)
        except BaseException:
            draft.unlink()
            raise
        finally:
            os.close(fd)
        entries = counters_max + histograms_max
        process = process_name.encode()
        lib.counters_format(mapping.address, size, entries, process, os.getpid(), time.time_ns())
        draft.replace(path)
        return cls(path, mapping)

    @staticmethod
    def open(path: Path | str) -> "CounterReader":
        return CounterReader(path)

    def counter(self, name: str) -> Counter:
        """Return the counter of that name, made at first use. Raises CountersFull."""
        return Counter(name, ffi.cast("counter_t *", self._register(name, lib.COUNTERS_COUNTER)))

    def gauge(self, name: str) -> Counter:
        """A counter that may also fall: a depth, a position."""
        return Counter(name, ffi.cast("counter_t *", self._register(name, lib.COUNTERS_GAUGE)))

    def histogram(self, name: str) -> Histogram:
        return Histogram(name, ffi.cast("histogram_t *", self._register(name, lib.COUNTERS_HISTOGRAM)))

    def close(self) -> None:
        """Unmap; what was handed out must no longer be used. The file stays."""
        unmap(self._mapping)

    def __enter__(self) -> "CounterFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _register(self, name: str, kind: int) -> Any:
        if self._mapping.address == ffi.NULL:
            raise ValueError(f"{self.path} is closed")
        raw = name.encode()
        if not raw or len(raw) > NAME_BYTES_MAX or b"\0" in raw:
            raise ValueError(f"{name!r} is no name of a counter (1 to {NAME_BYTES_MAX} bytes)")
        offset = int(lib.counters_register(self._mapping.address, raw, kind))
        if offset == lib.COUNTERS_OTHER_KIND:
            raise ValueError(f"{self.path}: {name!r} is registered as something else")
        if offset == lib.COUNTERS_FULL:
            limit = int(ffi.cast("counters_header_t *", self._mapping.address).entry_max)
            raise CountersFull(str(self.path), name=name, limit=limit)
        return ffi.cast("char *", self._mapping.address) + offset


class CounterReader:
    """Somebody else's file, whether its process lives or not."""

    def __init__(self, path: Path | str) -> None:
        """Raises FileNotFoundError, LayoutMismatch naming the field, or CorruptCounters."""
        self.path = Path(path)
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size < lib.COUNTERS_HEADER_SIZE:
                raise CorruptCounters(str(path), detail=f"{size} bytes are too few")
            self._mapping = map_file(fd, size, writable=False)
        finally:
            os.close(fd)
        try:
            self._check_identity()
            self._entries()
        except BaseException:
            self.close()
            raise

    def snapshot(self) -> CountersSnapshot:
        """Read everything registered so far."""
        counters: dict[str, int] = {}
        gauges: dict[str, int] = {}
        histograms: dict[str, HistogramSnapshot] = {}
        for name, kind, value in self._entries():
            if kind == lib.COUNTERS_HISTOGRAM:
                histograms[name] = _read_histogram(ffi.cast("histogram_t *", value))
            else:
                number = int(lib.counter_get(ffi.cast("counter_t *", value)))
                (counters if kind == lib.COUNTERS_COUNTER else gauges)[name] = number
        header = self._header
        process = ffi.string(header.process).decode()
        return CountersSnapshot(process, int(header.pid), int(header.started_ns), counters, gauges, histograms)

    def close(self) -> None:
        unmap(self._mapping)

    def __enter__(self) -> "CounterReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _header(self) -> Any:
        if self._mapping.address == ffi.NULL:
            raise ValueError(f"{self.path} is closed")
        return ffi.cast("counters_header_t *", self._mapping.address)

    def _check_identity(self) -> None:
        header = self._header
        check_field(str(self.path), "magic", expected=hex(lib.COUNTERS_MAGIC), actual=hex(header.magic))
        version = int(lib.COUNTERS_LAYOUT_VERSION)
        check_field(str(self.path), "layout_version", expected=version, actual=header.layout_version)

    def _entries(self) -> Iterator[tuple[str, int, Any]]:
        header = self._header
        count = int(lib.counters_check(header, self._mapping.size))
        if count == lib.COUNTERS_CORRUPT:
            raise CorruptCounters(str(self.path), detail="an entry or a size points outside the file")
        begin = ffi.cast("char *", header)
        entries = [lib.counters_entry(header, index) for index in range(count)]
        return ((ffi.string(entry.name).decode(), int(entry.kind), begin + entry.offset) for entry in entries)


def _read_histogram(histogram: Any) -> HistogramSnapshot:
    words = ffi.new("uint64_t[]", 3 + _BUCKETS)
    lib.counters_copy_histogram(histogram, words)
    total, smallest, largest, *buckets = ffi.unpack(words, 3 + _BUCKETS)
    count = sum(buckets)
    return HistogramSnapshot(count, total, 0 if smallest == _NOTHING else smallest, largest, tuple(buckets))
