"""Repair puts a journal together again from a peer's folder, or cuts a torn end; never in the middle."""

import shutil
from pathlib import Path

import pytest

from journaler import Journaler, LogReader
from journaler.errors import JournalLocked, JournalRefused
from journaler.format import BatchHeader
from journaler.identity import identity_at
from journaler.marks import MARK_FILE, read_mark
from journaler.recover import recover
from journaler.repair import cut_end, from_peer
from journaler.segments import list_segments, lock_directory
from tests.kit import journals

RECORDS = 1200


def write(directory: Path, size: int, *, total: int = RECORDS, salt: int = 0) -> None:
    """A journal of batches of `size` records; the same records whatever their size."""
    with journals.log_ring() as ring, journals.opened(directory, ring) as journaler:
        while ring.published < total:
            journals.publish(ring, journals.singles(ring.published, min(size, total - ring.published), salt=salt))
            journals.poll_all(journaler, ring)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    write(tmp_path / "ours", 300)
    assert len(list_segments(tmp_path / "ours")) == 3
    return tmp_path / "ours"


@pytest.fixture
def backup(ours: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ours, tmp_path / "backup")


@pytest.fixture
def other_node(tmp_path: Path) -> Path:
    write(tmp_path / "other", 100)
    return tmp_path / "other"


def damage(path: Path, offset: int = 10_000) -> bytes:
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)
    return bytes(data)


def slots_of(directory: Path) -> bytes:
    return b"".join(slots for _, slots in LogReader(directory))


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def assert_whole(directory: Path, total: int = RECORDS) -> None:
    recovery = recover(directory)
    assert recovery.verdict == "clean" and recovery.position.sequence == total
    assert slots_of(directory) == journals.singles(0, total)
    with journals.log_ring(base=total) as ring, Journaler(journals.config(directory), ring, {}) as journaler:
        journals.publish(ring, journals.singles(total, 20))
        journals.poll_all(journaler, ring)
    assert recover(directory).position.sequence == total + 20


@pytest.mark.parametrize("index", [0, 1, 2])
def test_damaged_segment_comes_from_the_backup_and_is_kept(ours: Path, backup: Path, index: int) -> None:
    path = list_segments(ours)[index].path
    bad = damage(path)

    done = from_peer(ours, backup, dry_run=False)

    assert done.taken == (path.name,) and not done.whole and done.kept_in is not None
    assert (done.kept_in / path.name).read_bytes() == bad
    assert_whole(ours)


def test_missing_segments_come_from_the_backup(ours: Path, backup: Path) -> None:
    for segment in list_segments(ours)[1:]:
        segment.path.unlink()

    done = from_peer(ours, backup, dry_run=False)

    assert {segment.path.name for segment in list_segments(ours)[1:]} <= set(done.taken)
    assert_whole(ours)


def test_dry_run_says_the_same_and_changes_nothing(ours: Path, backup: Path) -> None:
    damage(list_segments(ours)[1].path)
    before = files(ours)

    done = from_peer(ours, backup, dry_run=True)

    assert done.taken == (list_segments(ours)[1].path.name,)
    assert {name: data for name, data in files(ours).items() if name != "lock"} == {
        name: data for name, data in before.items() if name != "lock"
    }
    assert not (ours / "repair.tmp").exists()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_another_nodes_journal_is_taken_whole(ours: Path, other_node: Path, index: int) -> None:
    """Its batches are others, so no single segment of it fits; its records are the same."""
    names = [segment.path.name for segment in list_segments(ours)]
    damage(list_segments(ours)[index].path)

    done = from_peer(ours, other_node, dry_run=False)

    assert done.whole and done.kept_in is not None
    assert {path.name for path in done.kept_in.iterdir()} == {*names, MARK_FILE}
    assert BatchHeader.unpack(list_segments(ours)[0].path.read_bytes(), 512).slot_count == 100
    assert_whole(ours)


def test_peer_that_is_behind_what_was_synced_here_is_refused(ours: Path, tmp_path: Path) -> None:
    write(tmp_path / "behind", 300, total=900)
    damage(list_segments(ours)[0].path)
    before = files(ours)

    with pytest.raises(JournalRefused, match="ends at 900, but 1200 was synced here"):
        from_peer(ours, tmp_path / "behind", dry_run=False)

    assert files(ours) | {"lock": b""} == before | {"lock": b""}


def test_peer_with_another_log_is_refused(ours: Path, tmp_path: Path) -> None:
    write(tmp_path / "stranger", 100, salt=1)
    damage(list_segments(ours)[1].path)
    before = files(ours)

    with pytest.raises(JournalRefused, match="not those synced here"):
        from_peer(ours, tmp_path / "stranger", dry_run=False)

    assert files(ours) | {"lock": b""} == before | {"lock": b""}


def test_damaged_peer_is_refused(ours: Path, backup: Path) -> None:
    damage(list_segments(ours)[1].path)
    damage(list_segments(backup)[2].path)
    with pytest.raises(JournalRefused) as info:
        from_peer(ours, backup, dry_run=False)
    assert info.value.path.parent == backup


def test_peer_that_is_ahead_brings_its_newer_records(tmp_path: Path) -> None:
    write(tmp_path / "ours", 300)
    write(tmp_path / "ahead", 300, total=1800)
    damage(list_segments(tmp_path / "ours")[0].path)

    from_peer(tmp_path / "ours", tmp_path / "ahead", dry_run=False)

    assert_whole(tmp_path / "ours", total=1800)


def test_lost_mark_is_written_anew_and_a_torn_end_cut(ours: Path) -> None:
    path = list_segments(ours)[-1].path
    position = recover(ours).position
    (ours / MARK_FILE).unlink()
    with path.open("r+b") as file:
        file.seek(position.offset)
        file.write(b"half a batch" * 40)
    with pytest.raises(JournalRefused, match="missing"):
        recover(ours)

    done = cut_end(ours, dry_run=True)
    assert done.recovery.torn is not None and not (ours / MARK_FILE).exists()
    done = cut_end(ours, dry_run=False)

    assert done.kept_in is not None and b"half a batch" in (done.kept_in / path.name).read_bytes()
    mark = read_mark(ours)
    assert mark is not None and mark.sequence == RECORDS
    assert_whole(ours)


def test_mark_with_two_bad_slots_can_be_replaced(ours: Path) -> None:
    (ours / MARK_FILE).write_bytes(b"x" * 1024)
    cut_end(ours, dry_run=False)
    assert_whole(ours)


def test_cut_below_what_the_mark_says_is_refused(ours: Path) -> None:
    """The last batch is damaged: to cut it would lose what was acknowledged."""
    damage(list_segments(ours)[-1].path, recover(ours).position.offset - 70)
    before = files(ours)

    with pytest.raises(JournalRefused, match="was synced"):
        cut_end(ours, dry_run=False)

    assert files(ours) == before


@pytest.mark.parametrize("index", [0, 1])
def test_nothing_is_cut_in_the_middle(ours: Path, index: int) -> None:
    damage(list_segments(ours)[index].path)
    (ours / MARK_FILE).unlink()
    before = files(ours)

    with pytest.raises(JournalRefused):
        cut_end(ours, dry_run=False)

    assert files(ours) == before


def test_running_exchange_is_not_repaired(ours: Path, backup: Path) -> None:
    assert lock_directory(ours) is not None
    with pytest.raises(JournalLocked):
        from_peer(ours, backup, dry_run=False)
    with pytest.raises(JournalLocked):
        cut_end(ours, dry_run=False)


def test_identity_at_any_sequence_is_that_of_a_log_that_ends_there(tmp_path: Path) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path / "log", ring) as journaler:
        for slots in (journals.singles(0, 300), journals.epoch_start(300, 7), journals.singles(301, 500)):
            journals.publish(ring, slots)
            journals.poll_all(journaler, ring)
    for end in (0, 1, 299, 300, 301, 302, 700, 801):
        expected = 0
        if end:
            write_prefix(tmp_path / str(end), slots_of(tmp_path / "log")[: end * 128])
            expected = recover(tmp_path / str(end)).position.log_hash
        assert identity_at(tmp_path / "log", end) == expected


def write_prefix(directory: Path, slots: bytes) -> None:
    with journals.log_ring() as ring, journals.opened(directory, ring) as journaler:
        for at in range(0, len(slots), 128):
            ring.publish(slots[at : at + 128])
        journals.poll_all(journaler, ring)
