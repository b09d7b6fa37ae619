"""Readers hand out the log exactly, whole groups at a time, from files and ring, nothing above what is visible."""

import random
from pathlib import Path

import pytest

from journaler import LogFollower, LogReader, ReportArchive
from journaler.errors import JournalRefused
from journaler.reader import LogCursor
from journaler.segments import list_segments
from ringbuf.ring import Mode
from tests.kit import journals

MORE_OFFSET = 14


def write_groups(directory: Path, rng: random.Random, total: int, **changes: object) -> bytes:
    """Write a journal of random groups in random batches; returns the slots."""
    written = bytearray()
    with journals.log_ring() as ring, journals.opened(directory, ring, **changes) as journaler:
        while ring.published < total:
            for _ in range(rng.randrange(1, 40)):
                slots = journals.group(ring.published, rng.randrange(1, 9))
                written += slots
                journals.publish(ring, slots)
            journals.poll_all(journaler, ring)
    return bytes(written)


def starts_of_groups(slots: bytes) -> list[int]:
    count = len(slots) // 128
    return [0, *(index for index in range(1, count) if not slots[(index - 1) * 128 + MORE_OFFSET] & journals.MORE)]


def assert_whole_groups(slots: bytes) -> None:
    assert not slots[-128 + MORE_OFFSET] & journals.MORE


@pytest.fixture
def journal(tmp_path: Path, rng: random.Random) -> bytes:
    slots = write_groups(tmp_path, rng, 1500)
    assert len(list_segments(tmp_path)) >= 3
    return slots


def test_whole_log_comes_back_in_order(tmp_path: Path, journal: bytes) -> None:
    reader = LogReader(tmp_path)

    batches = list(reader)

    assert b"".join(slots for _, slots in batches) == journal
    assert reader.last_sequence == len(journal) // 128 - 1 and reader.first_sequence == 0
    position = 0
    for first, slots in batches:
        assert first == position
        assert_whole_groups(slots)
        position += len(slots) // 128


def test_reading_starts_at_any_group_and_stops_at_any_limit(tmp_path: Path, journal: bytes, rng: random.Random) -> None:
    edges = [*starts_of_groups(journal), len(journal) // 128]
    for _ in range(60):
        start, limit = sorted(rng.sample(edges, 2))

        batches = list(LogReader(tmp_path).batches(start, limit, slots_max=rng.choice([8, 9, 64, 8192])))

        assert batches[0][0] == start
        assert b"".join(slots for _, slots in batches) == journal[start * 128 : limit * 128]
        for _, slots in batches:
            assert_whole_groups(slots)


def test_start_at_the_end_yields_nothing(tmp_path: Path, journal: bytes) -> None:
    assert list(LogReader(tmp_path).batches(len(journal) // 128)) == []


def test_missing_directory_content_is_an_empty_log(tmp_path: Path) -> None:
    assert list(LogReader(tmp_path)) == []
    assert LogReader(tmp_path).last_sequence == -1


def test_sequence_older_than_the_files_is_refused(tmp_path: Path, journal: bytes) -> None:
    list_segments(tmp_path)[0].path.unlink()
    with pytest.raises(JournalRefused, match="older"):
        list(LogReader(tmp_path).batches(0))


def test_damage_below_the_durable_end_is_an_error_not_an_end(tmp_path: Path) -> None:
    ends = journals.write_journal(tmp_path, [10, 10])
    path = list_segments(tmp_path)[0].path
    data = bytearray(path.read_bytes())
    data[512 + 64 + 10 * 128 + 64 + 5] ^= 1
    path.write_bytes(data)

    cursor = LogCursor(tmp_path)

    assert cursor.read(ends[-1]) is not None
    with pytest.raises(JournalRefused, match="durable"):
        cursor.read(ends[-1])


def test_damage_before_valid_batches_is_an_error_for_a_reader_without_limit(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [10, 10, 10])
    path = list_segments(tmp_path)[0].path
    data = bytearray(path.read_bytes())
    data[512 + 64 + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalRefused, match="before valid"):
        list(LogReader(tmp_path))


def test_cursor_sees_what_is_written_after_it_was_opened(tmp_path: Path, rng: random.Random) -> None:
    cursor = LogCursor(tmp_path)
    seen, written = bytearray(), bytearray()
    with journals.log_ring() as ring, journals.opened(tmp_path, ring) as journaler:
        assert cursor.read() is None
        for _ in range(60):
            slots = journals.singles(ring.published, rng.randrange(1, 60))
            written += slots
            journals.publish(ring, slots)
            journals.poll_all(journaler, ring)
            while (batch := cursor.read(ring.commit)) is not None:
                seen += batch[1]
            assert seen == written
    assert len(list_segments(tmp_path)) > 2


# --- ring or files ----------------------------------------------------------------------------------------------------


def test_follower_reads_the_ring_goes_to_the_files_when_lapped_and_returns(tmp_path: Path, rng: random.Random) -> None:
    written, seen = bytearray(), bytearray()
    with journals.log_ring(slot_count=64) as ring, journals.opened(tmp_path, ring) as journaler:
        follower = LogFollower(ring, tmp_path, slots_max=16)

        def write(count: int) -> None:
            for _ in range(count):
                slots = journals.group(ring.published, rng.randrange(1, 9))
                written.extend(slots)
                journals.publish(ring, slots)
                journals.poll_all(journaler, ring)

        def read() -> None:
            while (batch := follower.read()) is not None:
                assert batch[0] * 128 == len(seen)
                assert_whole_groups(batch[1])
                seen.extend(batch[1])

        write(3)
        read()
        assert (seen, follower.laps) == (written, 0)
        write(200)
        read()
        assert (seen, follower.laps) == (written, 1)
        write(2)
        read()
        assert (seen, follower.laps) == (written, 1)
        write(100)
        read()
        assert (seen, follower.laps) == (written, 2)
        follower.close()


def test_follower_below_the_base_of_a_ring_reads_the_files_first(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [20, 20])
    with journals.log_ring(base=40) as ring, journals.opened(tmp_path, ring) as journaler:
        journals.publish(ring, journals.singles(40, 5))
        journals.poll_all(journaler, ring)
        follower = LogFollower(ring, tmp_path, 7)

        batches = []
        while (batch := follower.read()) is not None:
            batches.append(batch)

        assert b"".join(slots for _, slots in batches) == journals.singles(7, 38)
        follower.close()


@pytest.mark.parametrize("lapped", [False, True])
def test_follower_never_shows_a_record_above_commit(tmp_path: Path, lapped: bool) -> None:
    """Durable here but not at the standby: neither ring nor file may show it (CORE section 2)."""
    with journals.log_ring(slot_count=32) as ring, journals.opened(tmp_path, ring) as journaler:
        journals.publish(ring, journals.singles(0, 16))
        journals.poll_all(journaler, ring)
        set_replicated(ring, 10 if not lapped else 16)
        for _ in range(4 if lapped else 1):
            journals.publish(ring, journals.singles(ring.published, 16))
            while journaler.position.sequence < ring.published:
                journaler.poll()
        follower = LogFollower(ring, tmp_path)

        seen = bytearray()
        while (batch := follower.read()) is not None:
            seen += batch[1]

        assert ring.commit == 16 and journaler.position.sequence > 16
        assert seen == journals.singles(0, 16)
        set_replicated(ring, 2**63 - 1)
        journaler.poll()
        while (batch := follower.read()) is not None:
            seen += batch[1]
        assert seen == journals.singles(0, ring.published)
        follower.close()


def set_replicated(ring: object, sequence: int) -> None:
    """What the replicator does: its cell stands alone on the fifth line of the ring's header."""
    from ringbuf._ring import ffi

    cell = ffi.cast("int64_t *", int(ffi.cast("uintptr_t", ring.ptr.header)) + 4 * 128)  # type: ignore[attr-defined]
    cell[0] = sequence


def test_follower_in_d0_goes_up_to_what_is_published(tmp_path: Path) -> None:
    with (
        journals.log_ring(mode=Mode.D0) as ring,
        journals.opened(tmp_path, ring, mode="D0") as journaler,
    ):
        journals.publish(ring, journals.singles(0, 3))
        follower = LogFollower(ring, tmp_path)
        assert follower.read() == (0, journals.singles(0, 3))
        journals.poll_all(journaler, ring)
        follower.close()


def test_report_archive_of_an_unknown_partition_is_empty(tmp_path: Path) -> None:
    archive = ReportArchive(tmp_path)
    assert (archive.count(3), archive.read(3, 0, 5)) == (0, b"")
