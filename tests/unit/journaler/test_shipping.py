"""The shipped copy is the log as far as it was synced, at any moment; what a node cut off is put aside, not lost."""

import os
import shutil
from pathlib import Path

import pytest

from journaler import LogReader
from journaler.cursors import read_cursors
from journaler.errors import JournalError, JournalRefused
from journaler.fork import cut_fork
from journaler.marks import MARK_FILE
from journaler.recover import recover
from journaler.segments import list_segments
from journaler.shipping import CONSUMER, Shipper, cut_at_mark, durable_mark
from tests.kit.journals import epoch_start, log_ring, opened, poll_all, publish, singles, write_journal


def records(directory: Path) -> bytes:
    return b"".join(slots for _, slots in LogReader(directory).batches())


def go_on(directory: Path, *pieces: bytes) -> None:
    base = recover(directory).position.sequence
    with log_ring(base=base) as ring, opened(directory, ring) as journaler:
        for piece in pieces:
            publish(ring, piece)
            poll_all(journaler, ring)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three segments."""
    write_journal(tmp_path / "journal", [40] * 30)
    return tmp_path / "journal"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "site" / "journal"


def test_the_copy_is_a_journal_of_the_same_records(source: Path, target: Path) -> None:
    shipped = Shipper(source, target).ship()

    assert shipped is not None
    assert shipped.sequence == 1200
    assert records(target) == records(source)
    assert recover(target).verdict == "clean"
    assert read_cursors(source) == {CONSUMER: 1200}


def test_what_a_disk_takes_only_in_parts_is_written_whole(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk does that fills up."""
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, bytes(data[:5000]), offset))

    Shipper(source, target).ship()

    assert records(target) == records(source)


def test_only_what_is_new_is_copied(source: Path, target: Path) -> None:
    shipper = Shipper(source, target)
    first, again = shipper.ship(), shipper.ship()
    go_on(source, singles(1200, 40), singles(1240, 600))

    last = shipper.ship()

    assert first is not None and again is not None and last is not None
    assert again.copied_bytes == 0
    assert 640 * 128 < last.copied_bytes < 640 * 128 + 2048
    assert records(target) == records(source)


def test_a_shipper_that_was_restarted_goes_on(source: Path, target: Path) -> None:
    Shipper(source, target).ship()
    go_on(source, singles(1200, 40))

    shipped = Shipper(source, target).ship()

    assert shipped is not None
    assert shipped.copied_bytes < 41 * 128 + 64
    assert records(target) == records(source)


def test_what_is_not_synced_is_not_shipped(source: Path, target: Path) -> None:
    mark = durable_mark(source)
    with list_segments(source)[-1].path.open("r+b") as file:
        assert mark is not None
        file.seek(mark.offset)
        file.write(b"\xff" * 300)  # a batch that is being written

    Shipper(source, target).ship()

    assert recover(target).verdict == "clean"
    assert recover(target).position.sequence == 1200


@pytest.mark.parametrize("cut", [1190, 700, 3])
def test_what_the_node_cut_off_is_put_aside_and_the_copy_follows(source: Path, target: Path, cut: int) -> None:
    shipper = Shipper(source, target)
    shipper.ship()
    cut_fork(source, cut)
    go_on(source, epoch_start(cut, 7), singles(cut + 1, 1500, salt=5))

    shipped = shipper.ship()

    assert shipped is not None
    assert shipped.put_aside is not None
    assert list(shipped.put_aside.glob("segment-*.log"))
    assert records(target) == records(source)
    assert recover(target).verdict == "clean"


def test_another_log_does_not_replace_the_copy(source: Path, target: Path, tmp_path: Path) -> None:
    Shipper(source, target).ship()
    old = records(target)
    write_journal(tmp_path / "other", [40] * 40, salt=9)

    shipped = Shipper(tmp_path / "other", target).ship()

    assert shipped is not None
    assert shipped.put_aside is not None
    assert records(shipped.put_aside) == old
    assert records(target) == records(tmp_path / "other")


def test_a_pass_that_ended_in_the_middle_leaves_the_copy_of_the_pass_before(
    source: Path, target: Path, tmp_path: Path
) -> None:
    Shipper(source, target).ship()
    mark = (target / MARK_FILE).read_bytes()
    go_on(source, singles(1200, 40), singles(1240, 900))
    Shipper(source, target).ship()
    (target / MARK_FILE).write_bytes(mark)
    with list_segments(target)[2].path.open("r+b") as file:
        seen = durable_mark(target)
        assert seen is not None
        file.seek(seen.offset + 100)
        file.write(b"\xff" * 50)
    shutil.copytree(target, tmp_path / "restored")

    cut_at_mark(tmp_path / "restored")

    assert recover(tmp_path / "restored").position.sequence == 1200
    assert recover(tmp_path / "restored").verdict == "clean"
    Shipper(source, target).ship()
    assert records(target) == records(source)


def test_damage_in_the_copy_is_seen(source: Path, target: Path) -> None:
    Shipper(source, target).ship()
    with list_segments(target)[0].path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 8)

    with pytest.raises(JournalRefused):
        recover(target)


def test_a_source_that_lacks_what_the_copy_needs_is_refused(source: Path, target: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "trimmed")
    list_segments(tmp_path / "trimmed")[0].path.unlink()

    with pytest.raises(JournalError, match="does not hold the log's beginning"):
        Shipper(tmp_path / "trimmed", target).ship()

    with log_ring() as ring, opened(tmp_path / "short", ring):
        publish(ring, singles(0, 1))
    Shipper(tmp_path / "short", tmp_path / "early").ship()
    for segment in list_segments(source)[:2]:
        segment.path.unlink()
    with pytest.raises(JournalError, match="where the copy ends"):
        Shipper(source, tmp_path / "early").ship()


def test_a_copy_without_a_mark_is_no_backup(source: Path, target: Path) -> None:
    Shipper(source, target).ship()
    (target / MARK_FILE).unlink()

    with pytest.raises(JournalError, match="no pass of the shipping has ended"):
        cut_at_mark(target)


def test_nothing_is_shipped_of_an_empty_journal(tmp_path: Path, target: Path) -> None:
    (tmp_path / "journal").mkdir()

    assert Shipper(tmp_path / "journal", target).ship() is None
