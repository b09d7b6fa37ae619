"""The journaler as an object: what it refuses to start on, restarts, groups, epochs, a full disk."""

import os
import random
from pathlib import Path
from typing import Any

import pytest

from journaler import Journaler, JournalerConfig, JournalLocked, LogReader
from journaler.errors import JournalError, JournalRefused
from journaler.format import BatchHeader
from journaler.recover import recover
from journaler.segments import list_segments
from ringbuf import Mode, Ring, Runner, RunStatus
from tests.kit import journals, waiting


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("segment_size_bytes", 4096),
        ("segment_size_bytes", 100_000),
        ("segments_ahead", 0),
        ("segments_ahead", 9),
        ("batch_slots_max", 7),
        ("mark_interval_ms", 11),
        ("lazy_us", -1),
        ("gather_us", 10_001),
        ("mode", "D3"),
        ("space_enough_bytes", -1),
        ("space_low_percent", 101),
        ("space_cancel_only_percent", -1),
        ("space_halt_percent", 101),
        ("sync_slow_ms", 0),
        ("sync_slow_count", 17),
        ("sync_stalled_ms", 999),
        ("sync_alarm_s", 0),
        ("archive_lag_us", 1_000_001),
        ("prepare_pause", 101),
    ],
)
def test_config_out_of_range_is_refused_by_name(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        JournalerConfig(**({"directory": tmp_path, "mode": "D1"} | {field: value}))


def test_journal_goes_on_after_a_restart_in_the_same_segment(tmp_path: Path) -> None:
    assert journals.write_journal(tmp_path, [3, 5]) == [3, 8]
    assert journals.write_journal(tmp_path, [2], base=8) == [10]
    assert len(list_segments(tmp_path)) == 1
    assert b"".join(slots for _, slots in LogReader(tmp_path)) == journals.singles(0, 10)


def test_two_journals_of_the_same_records_have_one_identity_whatever_their_batches(tmp_path: Path) -> None:
    journals.write_journal(tmp_path / "a", [1, 2, 3, 4], epoch=2)
    journals.write_journal(tmp_path / "b", [7, 3], epoch=2, segment_size_bytes=128 * 1024)
    a, b = recover(tmp_path / "a").position, recover(tmp_path / "b").position
    assert a.log_hash == b.log_hash and a.crc != b.crc


def test_ring_that_survived_the_journaler_is_written_on(tmp_path: Path) -> None:
    with journals.log_ring() as ring:
        with journals.opened(tmp_path, ring) as journaler:
            journals.publish(ring, journals.singles(0, 4))
            journals.poll_all(journaler, ring)
        journals.publish(ring, journals.singles(4, 3))
        with journals.opened(tmp_path, ring) as journaler:
            assert journaler.position.sequence == 4
            journals.poll_all(journaler, ring)
        assert ring.commit == 7
    assert b"".join(slots for _, slots in LogReader(tmp_path)) == journals.singles(0, 7)


def test_batch_never_ends_inside_a_group(tmp_path: Path, rng: random.Random) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring, batch_slots_max=8) as journaler:
        while ring.published < 900:
            journals.publish(ring, journals.group(ring.published, rng.randrange(1, 9)))
        journals.poll_all(journaler, ring)
        assert journaler.stats()["batch_slots_max"] <= 8

    for segment in list_segments(tmp_path):
        data, offset = segment.path.read_bytes(), 512
        while offset + 64 <= len(data) and (header := BatchHeader.unpack(data, offset)).slot_count:
            offset += 64 + header.length
            assert not data[offset - 128 + 14] & journals.MORE


def test_new_epoch_begins_a_batch_of_its_own(tmp_path: Path) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring) as journaler:
        slots = journals.singles(0, 3) + journals.epoch_start(3, 5) + journals.singles(4, 2)
        for at in range(0, len(slots), 128):
            ring.publish(slots[at : at + 128])
        journals.poll_all(journaler, ring)
        assert journaler.position.epoch == 5

    data = list_segments(tmp_path)[0].path.read_bytes()
    first = BatchHeader.unpack(data, 512)
    second = BatchHeader.unpack(data, 512 + 64 + first.length)
    assert [(first.slot_count, first.epoch), (second.slot_count, second.epoch)] == [(3, 0), (3, 5)]
    assert recover(tmp_path).position.epoch == 5


def test_lazy_record_waits_for_company_until_its_time(tmp_path: Path) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring, lazy_us=50_000) as journaler:
        journals.publish(ring, journals.slot(0, flags=journals.LAZY))
        assert journaler.poll() == 0 and ring.commit == 0
        assert 0 < journaler.patience_ns <= 50_000_000

        waiting.eventually(lambda: (journaler.poll(), ring.commit)[1] == 1)


def test_rings_say_who_gates_them(tmp_path: Path) -> None:
    with (
        journals.log_ring() as ring,
        Ring.private(slot_size=128, slot_count=64) as reports,
        Journaler(journals.config(tmp_path), ring, {1: reports}),
    ):
        for each in (ring, reports):
            consumer = each.consumer(0)
            assert (consumer.name, consumer.gating, consumer.pid) == ("journaler", True, os.getpid())


def test_second_journaler_on_a_directory_is_refused_at_once(tmp_path: Path) -> None:
    with (
        journals.log_ring() as ring,
        journals.log_ring() as other,
        journals.opened(tmp_path, ring),
        pytest.raises(JournalLocked),
    ):
        Journaler(journals.config(tmp_path), other, {})


def test_lock_is_free_after_a_refused_start(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [3])
    with journals.log_ring(base=2) as ring, pytest.raises(JournalError):
        Journaler(journals.config(tmp_path), ring, {})
    assert journals.write_journal(tmp_path, [1], base=3) == [4]


@pytest.mark.parametrize("base", [2, 4])
def test_ring_that_does_not_go_on_where_the_files_end_is_refused(tmp_path: Path, base: int) -> None:
    journals.write_journal(tmp_path, [3])
    with journals.log_ring(base=base) as ring, pytest.raises(JournalError, match="journal ends at 3"):
        Journaler(journals.config(tmp_path), ring, {})


def test_files_shorter_than_what_the_ring_calls_durable_are_refused(tmp_path: Path) -> None:
    with journals.log_ring() as ring:
        with journals.opened(tmp_path / "a", ring) as journaler:
            journals.publish(ring, journals.singles(0, 4))
            journals.poll_all(journaler, ring)
        with pytest.raises(JournalError, match="below 4 is durable"):
            Journaler(journals.config(tmp_path / "b"), ring, {})


def test_damaged_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [3, 4])
    path = list_segments(tmp_path)[0].path
    data = bytearray(path.read_bytes())
    data[700] ^= 8
    path.write_bytes(data)

    with journals.log_ring(base=7) as ring, pytest.raises(JournalRefused):
        Journaler(journals.config(tmp_path), ring, {})

    assert path.read_bytes() == data


def test_start_after_a_failed_write_waits_for_the_operator(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [3])
    (tmp_path / "panic").write_text("journaler: fdatasync of a segment failed\n")

    with journals.log_ring(base=3) as ring, pytest.raises(JournalError, match="verify --direct"):
        Journaler(journals.config(tmp_path), ring, {})

    (tmp_path / "panic").unlink()
    assert journals.write_journal(tmp_path, [1], base=3) == [4]


def test_half_made_spare_is_removed_and_a_whole_one_used_again(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [3], segments_ahead=2)
    (tmp_path / "spare-0.zero.tmp").write_bytes(b"half")
    before = {path.name for path in tmp_path.glob("spare-*.zero")}

    with journals.log_ring(base=3) as ring, journals.opened(tmp_path, ring, segments_ahead=2) as journaler:
        waiting.eventually(lambda: len(list(tmp_path.glob("spare-*.zero"))) == 2)
        waiting.eventually(lambda: journaler.stats()["prepared"] == 2 - len(before))

    assert not list(tmp_path.glob("*.tmp"))


def test_spare_that_is_not_all_zero_is_made_anew(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [3], segments_ahead=2)
    stale = bytearray(journals.SEGMENT_SIZE)
    stale[40_000] = 1
    (tmp_path / "spare-0.zero").write_bytes(stale)

    with journals.log_ring(base=3) as ring, journals.opened(tmp_path, ring, segments_ahead=2) as journaler:
        waiting.eventually(lambda: journaler.stats()["spares"] == 2)

    assert (tmp_path / "spare-0.zero").read_bytes() == bytes(journals.SEGMENT_SIZE)


def test_spares_beyond_the_number_wanted_are_removed(tmp_path: Path) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring, segments_ahead=4) as journaler:
        waiting.eventually(lambda: journaler.stats()["spares"] == 4)

    with journals.log_ring() as ring, journals.opened(tmp_path, ring, segments_ahead=1):
        assert [path.name for path in tmp_path.glob("spare-*")] == ["spare-0.zero"]


def test_stopping_in_the_middle_of_a_preparation_leaves_nothing_half_made(tmp_path: Path) -> None:
    changes = {"segment_size_bytes": 64 << 20, "segments_ahead": 2, "prepare_pause": 100}
    with journals.log_ring() as ring, journals.opened(tmp_path, ring, **changes) as journaler:
        waiting.eventually(lambda: journaler.stats()["spares"] == 1 and list(tmp_path.glob("*.tmp")), deadline_s=60)

    assert [path.name for path in tmp_path.glob("spare-*")] == ["spare-0.zero"]


def test_spares_are_all_zero_and_of_full_size(tmp_path: Path) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring, segments_ahead=2):
        waiting.eventually(lambda: len(list(tmp_path.glob("spare-*.zero"))) == 2)
        for spare in tmp_path.glob("spare-*.zero"):
            assert spare.read_bytes() == bytes(journals.SEGMENT_SIZE)


def test_d0_is_journaled_too_and_flagged(tmp_path: Path) -> None:
    with journals.log_ring(mode=Mode.D0) as ring, journals.opened(tmp_path, ring, mode="D0") as journaler:
        journals.publish(ring, journals.singles(0, 5))
        journals.poll_all(journaler, ring)
    assert BatchHeader.unpack(list_segments(tmp_path)[0].path.read_bytes(), 512).flags == 1
    assert b"".join(slots for _, slots in LogReader(tmp_path)) == journals.singles(0, 5)


def test_stage_runs_in_a_runner(tmp_path: Path) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring) as journaler:
        runner = Runner([journaler.stage], "yield", idle_timeout_ns=journaler.idle_timeout_ns)
        for _ in range(20):
            journals.publish(ring, journals.singles(ring.published, 50))
            waiting.eventually(lambda: runner.run(1_000_000).status == RunStatus.TIME and ring.commit == ring.published)
        assert journaler.housekeep()["records"] == 1000
    assert b"".join(slots for _, slots in LogReader(tmp_path)) == journals.singles(0, 1000)
