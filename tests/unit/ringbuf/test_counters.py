"""Counter files: exact counts, percentiles within the bucket's width, readable at any moment and after death."""

import os
import random
import signal
from pathlib import Path

import pytest

from ringbuf import CorruptCounters, CounterFile, CountersFull, HistogramSnapshot, LayoutMismatch
from ringbuf._ring import ffi, lib
from tests.kit.waiting import eventually

RELATIVE_ERROR = 1 / 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "matcher.1.counters"


def test_counters_and_gauges_are_read_from_the_file(path: Path) -> None:
    with CounterFile.create(path, "matcher.1") as file, CounterFile.open(path) as reader:
        orders = file.counter("orders")
        orders.add()
        orders.add(41)
        file.gauge("depth").set(-7)

        seen = reader.snapshot()

        assert (seen.process, seen.pid) == ("matcher.1", os.getpid())
        assert (seen.counters, seen.gauges, seen.histograms) == ({"orders": 42}, {"depth": -7}, {})


def test_same_name_is_the_same_counter(path: Path) -> None:
    with CounterFile.create(path, "p") as file:
        file.counter("a").add(1)
        file.counter("a").add(1)

        assert file.counter("a").value == 2
        with pytest.raises(ValueError, match="something else"):
            file.histogram("a")


@pytest.mark.parametrize("name", ["", "x" * 96, "a\0b"])
def test_name_that_does_not_fit_is_refused(name: str, path: Path) -> None:
    with CounterFile.create(path, "p") as file, pytest.raises(ValueError, match="no name of a counter"):
        file.counter(name)


def test_longest_name_is_kept_whole(path: Path) -> None:
    with CounterFile.create(path, "p") as file, CounterFile.open(path) as reader:
        file.counter("é" * 47)

        assert list(reader.snapshot().counters) == ["é" * 47]


def test_full_file_says_so(path: Path) -> None:
    with CounterFile.create(path, "p", counters_max=2, histograms_max=1) as file:
        file.histogram("h")
        file.counter("a")
        with pytest.raises(CountersFull):
            file.histogram("too large for the room of a counter")
        file.counter("b")
        with pytest.raises(CountersFull) as full:
            file.counter("c")

        assert full.value.limit == 3


# --- histograms -----------------------------------------------------------------------------------------------------


def test_buckets_follow_one_another_without_gap_or_overlap() -> None:
    buckets = lib.HISTOGRAM_BUCKETS
    lows = [lib.histogram_bucket_low(bucket) for bucket in range(buckets)]

    assert lows[0] == 0
    assert lows == sorted(set(lows))
    for bucket in range(buckets - 1):
        assert lib.histogram_bucket(lows[bucket]) == bucket
        assert lib.histogram_bucket(lows[bucket + 1] - 1) == bucket
        assert lows[bucket + 1] - lows[bucket] <= max(1, lows[bucket] * RELATIVE_ERROR)
    for huge in (2**40 - 1, 2**40, 2**64 - 1):
        assert lib.histogram_bucket(huge) == buckets - 1


def exact_percentile(values: list[int], percent: float) -> int:
    rank = max(1, -int(-len(values) * percent // 100))
    return sorted(values)[rank - 1]


@pytest.mark.parametrize("shape", ["small", "microseconds", "wide"])
def test_percentiles_are_those_of_the_values_within_the_buckets_width(
    shape: str, path: Path, rng: random.Random
) -> None:
    draw = {
        "small": lambda: rng.randrange(64),
        "microseconds": lambda: int(rng.lognormvariate(9, 1)),
        "wide": lambda: rng.randrange(2 ** rng.randrange(1, 39)),
    }[shape]
    values = [draw() for _ in range(3000)]
    with CounterFile.create(path, "p") as file, CounterFile.open(path) as reader:
        histogram = file.histogram("latency")
        for value in values:
            histogram.record(value)

        seen = reader.snapshot().histograms["latency"]

    assert (seen.count, seen.sum, seen.min, seen.max) == (len(values), sum(values), min(values), max(values))
    for percent in (0, 1, 25, 50, 90, 99, 99.9, 100):
        exact = exact_percentile(values, percent)
        assert exact <= seen.percentile(percent) <= exact * (1 + RELATIVE_ERROR) + 1, percent


def test_empty_histogram_has_no_values(path: Path) -> None:
    with CounterFile.create(path, "p") as file:
        seen = file.histogram("latency").snapshot()

        assert (seen.count, seen.min, seen.max, seen.mean, seen.percentile(99)) == (0, 0, 0, 0.0, 0)
        with pytest.raises(ValueError, match="percent"):
            seen.percentile(101)


def test_difference_of_two_looks_is_what_happened_between(path: Path) -> None:
    with CounterFile.create(path, "p") as file:
        histogram = file.histogram("latency")
        for _ in range(100):
            histogram.record(10)
        before = histogram.snapshot()
        for _ in range(50):
            histogram.record(30)

        between = histogram.snapshot().since(before)

        assert (between.count, between.sum, between.percentile(50)) == (50, 1500, 30)


def test_value_beyond_the_range_is_counted_with_its_true_maximum(path: Path) -> None:
    with CounterFile.create(path, "p") as file:
        histogram = file.histogram("latency")
        histogram.record(2**50)

        seen = histogram.snapshot()

        assert (seen.count, seen.max, seen.percentile(50)) == (1, 2**50, 2**50)


# --- readers at any moment ------------------------------------------------------------------------------------------


def test_file_outlives_its_process(path: Path) -> None:
    child = os.fork()
    if child == 0:
        file = CounterFile.create(path, "short-lived")
        file.counter("done").add(5)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

    with CounterFile.open(path) as reader:
        seen = reader.snapshot()

    assert (seen.process, seen.pid, seen.counters) == ("short-lived", child, {"done": 5})


def test_successor_replaces_the_file_and_old_readers_keep_theirs(path: Path) -> None:
    with CounterFile.create(path, "first") as first:
        first.counter("a").add(1)
        with CounterFile.open(path) as reader, CounterFile.create(path, "second"):
            assert reader.snapshot().counters == {"a": 1}
            with CounterFile.open(path) as later:
                assert (later.snapshot().process, later.snapshot().counters) == ("second", {})
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_writer_killed_while_it_registers_leaves_only_whole_entries(tmp_path: Path) -> None:
    for attempt in range(20):
        path = tmp_path / f"{attempt}.counters"
        child = os.fork()
        if child == 0:
            file = CounterFile.create(path, "victim", counters_max=100_000)
            for number in range(100_000):
                file.counter(f"counter.{number:06}").set(number)
            os._exit(0)
        eventually(path.exists, deadline_s=10, pause_s=0.001)
        with CounterFile.open(path) as reader:
            while len(reader.snapshot().counters) < 3 * attempt:
                pass
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            seen = reader.snapshot().counters
        path.unlink()

        assert list(seen) == [f"counter.{number:06}" for number in range(len(seen))]
        assert all(value in (number, 0) for number, value in enumerate(seen.values()))
        assert list(seen.values())[:-1] == list(range(len(seen) - 1))


# --- files that are none --------------------------------------------------------------------------------------------


def damage(path: Path, offset: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)


@pytest.mark.parametrize(("field", "offset"), [("magic", 0), ("layout_version", 8)])
def test_other_layout_is_refused_by_name(field: str, offset: int, path: Path) -> None:
    CounterFile.create(path, "p").close()
    damage(path, offset, b"\x63\0\0\0")

    with pytest.raises(LayoutMismatch) as mismatch:
        CounterFile.open(path)
    assert mismatch.value.field == field


ENTRY = lib.COUNTERS_HEADER_SIZE


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (16, b"\xff" * 4),  # size
        (12, b"\xff" * 4),  # entry_max
        (104, b"\xff" * 4),  # entry_count
        (ENTRY, b"\xff" * 8),  # an entry's offset
        (ENTRY, b"\x01"),
        (ENTRY, b"\0" * 8),
        (ENTRY + 8, b"\x09"),  # its kind
        (ENTRY + 32, b"x" * 96),  # its name without an end
    ],
)
def test_damaged_file_is_refused_instead_of_read_out_of_bounds(offset: int, value: bytes, path: Path) -> None:
    with CounterFile.create(path, "p") as file:
        file.counter("a")
    damage(path, offset, value)

    with pytest.raises(CorruptCounters):
        CounterFile.open(path)


def test_truncated_file_is_refused(path: Path) -> None:
    CounterFile.create(path, "p").close()
    for size in (5000, 100, 0):
        os.truncate(path, size)
        with pytest.raises(CorruptCounters):
            CounterFile.open(path)


def test_closed_file_refuses_every_use(path: Path) -> None:
    file = CounterFile.create(path, "p")
    reader = CounterFile.open(path)
    file.close()
    reader.close()

    with pytest.raises(ValueError, match="closed"):
        file.counter("a")
    with pytest.raises(ValueError, match="closed"):
        reader.snapshot()


def test_c_sees_the_same_cell(path: Path) -> None:
    with CounterFile.create(path, "p") as file:
        counter = file.counter("a")
        lib.counter_add(counter.ptr, 3)

        assert counter.value == 3
        assert ffi.typeof(file.histogram("h").ptr) is ffi.typeof("histogram_t *")


def test_snapshot_is_immutable() -> None:
    snapshot = HistogramSnapshot(0, 0, 0, 0, ())
    with pytest.raises(AttributeError):
        snapshot.count = 1  # type: ignore[misc]
