"""Nothing is deleted that a snapshot, a consumer, an auditor or the archive still needs; in doubt everything stays."""

import itertools
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from journaler import Journaler, LogReader
from journaler.archiving import DirectoryArchive
from journaler.audit import read_audits
from journaler.cursors import read_cursors, remove_cursor, store_cursor
from journaler.errors import JournalError, JournalLocked, JournalRefused
from journaler.recover import recover
from journaler.retention import Plan, SegmentFact, SnapshotFact, decide, delete, retain, segment_facts
from journaler.segments import list_segments, lock_directory
from tests.kit import journals, waiting

SEGMENTS = [
    SegmentFact(0, 100, True, Path("a")),
    SegmentFact(100, 250, True, Path("b")),
    SegmentFact(250, 300, True, Path("c")),
    SegmentFact(300, 300, False, Path("d")),
]


class Known:
    """An index of snapshots at these sequences, all verified."""

    def __init__(self, *sequences: int) -> None:
        self._sequences = sequences

    def snapshots(self) -> Sequence[SnapshotFact]:
        return [SnapshotFact(sequence, True) for sequence in self._sequences]


def decided(
    *sequences: int,
    unverified: Sequence[int] = (),
    consumers: dict[str, int] | None = None,
    audited: Sequence[int] = (0, 100, 250),
    archived: Sequence[int] | None = None,
) -> tuple[list[int], str]:
    snapshots = [SnapshotFact(each, True) for each in sequences] + [SnapshotFact(each, False) for each in unverified]
    plan = decide(SEGMENTS, snapshots=snapshots, consumers=consumers or {}, audited=audited, archived=archived)
    assert [*plan.delete, *plan.keep] == SEGMENTS
    return [segment.first for segment in plan.delete], plan.reason


def test_two_verified_snapshots_must_cover_a_segment() -> None:
    assert decided() == ([], "0 verified snapshots cover it, 2 must")
    assert decided(400) == ([], "1 verified snapshots cover it, 2 must")
    assert decided(400, unverified=[500, 600])[0] == []
    assert decided(400, 400)[0] == []  # the same one twice
    assert decided(400, 99)[0] == []
    assert decided(400, 100)[0] == [0]
    assert decided(400, 249)[0] == [0]
    assert decided(250, 250, 251)[0] == [0, 100]
    assert decided(400, 500)[0] == [0, 100, 250]


def test_segment_being_written_never_goes() -> None:
    assert decided(400, 500, 600)[1] == "it is being written"


def test_consumer_keeps_what_it_has_not_read_and_all_after_that() -> None:
    assert decided(400, 500, consumers={"settlement": 99, "archive": 400}) == ([], "still needed by settlement")
    assert decided(400, 500, consumers={"settlement": 100})[0] == [0]
    assert decided(400, 500, consumers={"settlement": 249, "archive": 101})[1] == "still needed by archive, settlement"
    assert decided(400, 500, consumers={"settlement": 300})[0] == [0, 100, 250]


def test_audit_record_and_archive_are_waited_for_in_order() -> None:
    assert decided(400, 500, audited=[0, 250]) == ([0], "its audit record is not written yet")
    assert decided(400, 500, archived=[0, 250]) == ([0], "it is not in the archive with matching SHA-256")
    assert decided(400, 500, archived=[100, 250])[0] == []


def test_fewer_than_two_snapshots_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="snapshots_min = 1"):
        decide(SEGMENTS, snapshots=[], consumers={}, audited=[], archived=None, snapshots_min=1)


def test_decision_agrees_with_the_rules_said_one_by_one(rng: random.Random) -> None:
    for _ in range(2000):
        snapshots = [SnapshotFact(rng.randrange(0, 400, 50), rng.random() < 0.8) for _ in range(rng.randrange(5))]
        consumers = {str(index): rng.randrange(0, 400, 50) for index in range(rng.randrange(3))}
        audited = [segment.first for segment in SEGMENTS if rng.random() < 0.9]
        archived = [segment.first for segment in SEGMENTS if rng.random() < 0.9] if rng.random() < 0.5 else None
        plan = decide(SEGMENTS, snapshots=snapshots, consumers=consumers, audited=audited, archived=archived)

        def may_go(segment: SegmentFact) -> bool:
            newer = {each.sequence for each in snapshots if each.verified and each.sequence >= segment.end}  # noqa: B023
            return (
                segment.closed
                and len(newer) >= 2
                and all(each >= segment.end for each in consumers.values())  # noqa: B023
                and segment.first in audited  # noqa: B023
                and (archived is None or segment.first in archived)  # noqa: B023
            )

        assert list(plan.delete) == list(itertools.takewhile(may_go, SEGMENTS))


# --- on files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Three segments, audited."""
    directory = tmp_path / "journal"
    with journals.log_ring() as ring, journals.opened(directory, ring) as journaler:
        for _ in range(4):
            journals.publish(ring, journals.singles(ring.published, 300))
            journals.poll_all(journaler, ring)
        waiting.eventually(lambda: journaler.stats()["audited"] == ring.published, deadline_s=60)
    assert len(list_segments(directory)) == 3
    return directory


def firsts(directory: Path) -> list[int]:
    return [segment.first_sequence for segment in list_segments(directory)]


def test_what_may_go_is_deleted_and_the_journal_goes_on(journal: Path) -> None:
    before = firsts(journal)

    plan = retain(journal, Known(1200, before[2], before[1]))

    assert firsts(journal) == before[2:] and [segment.first for segment in plan.delete] == before[:2]
    recovery = recover(journal)
    assert (recovery.verdict, recovery.first_sequence, recovery.position.sequence) == ("clean", before[2], 1200)
    with journals.log_ring(base=1200) as ring, Journaler(journals.config(journal), ring, {}) as journaler:
        journals.publish(ring, journals.singles(1200, 500))
        journals.poll_all(journaler, ring)
        waiting.eventually(lambda: journaler.stats()["audited"] == 1700, deadline_s=60)
    records = read_audits(journal)
    assert records[before[2]].origin == 0 and 0 in records  # records of deleted segments stay
    assert b"".join(slots for _, slots in LogReader(journal).batches(before[2]))[:128] == journals.slot(before[2])


def test_nothing_is_deleted_without_snapshots_or_in_a_dry_run(journal: Path) -> None:
    before = firsts(journal)
    assert retain(journal, Known()).delete == ()
    assert len(retain(journal, Known(1200, 1200 - 1, 5000), dry_run=True).delete) == 2
    assert firsts(journal) == before and not (journal / "trimmed").exists()


def test_consumer_on_disk_is_respected(journal: Path) -> None:
    before = firsts(journal)
    store_cursor(journal, "settlement", before[1])

    retain(journal, Known(1200, 1300))
    assert firsts(journal) == before[1:]

    store_cursor(journal, "settlement", before[2] - 1)
    assert retain(journal, Known(1200, 1300)).delete == ()
    assert remove_cursor(journal, "settlement") and not remove_cursor(journal, "settlement")
    retain(journal, Known(1200, 1300))
    assert firsts(journal) == before[2:]


def test_cursor_nobody_can_read_keeps_everything(journal: Path) -> None:
    store_cursor(journal, "settlement", 10_000)
    assert read_cursors(journal) == {"settlement": 10_000}
    (journal / "consumers" / "settlement").write_text("")

    with pytest.raises(JournalError, match="holds no sequence"):
        retain(journal, Known(1200, 1300))

    assert len(firsts(journal)) == 3


@pytest.mark.parametrize(("name", "sequence"), [("", 1), ("../x", 1), ("a" * 33, 1), ("A", 1), ("-a", 1), ("a", -1)])
def test_cursor_out_of_bounds_is_refused_by_name(tmp_path: Path, name: str, sequence: int) -> None:
    with pytest.raises(ValueError, match="consumer"):
        store_cursor(tmp_path, name, sequence)


def test_segments_go_to_the_archive_first(journal: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in journal.iterdir() if path.is_file()}
    (tmp_path / "archive").mkdir()
    archive = DirectoryArchive(tmp_path / "archive")

    plan = retain(journal, Known(1200, 1300), archive=archive)

    assert len(plan.delete) == 2
    copies = {path.name: path.read_bytes() for path in archive.folder.iterdir()}
    assert len(copies) == 4 and all(before[name] == data for name, data in copies.items())
    for name in copies:
        shutil.copy(archive.folder / name, journal)
    assert recover(journal).first_sequence == 0


def test_archive_with_other_bytes_keeps_the_segment(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    archive = DirectoryArchive(tmp_path / "archive")
    archive.store(list_segments(journal)[0].path)
    copy = archive.folder / list_segments(journal)[0].path.name
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)

    with pytest.raises(JournalError, match="other bytes"):
        retain(journal, Known(1200, 1300), archive=archive)

    assert len(firsts(journal)) == 3


def test_second_run_at_once_is_refused(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nested:
        def snapshots(self) -> Sequence[SnapshotFact]:
            with pytest.raises(JournalLocked):
                retain(journal, Known(1200, 1300))
            return []

    retain(journal, Nested())


def test_running_journaler_does_not_mind(journal: Path) -> None:
    before = firsts(journal)
    with journals.log_ring(base=1200) as ring, Journaler(journals.config(journal), ring, {}) as journaler:
        assert lock_directory(journal) is None
        retain(journal, Known(1200, 1300))
        journals.publish(ring, journals.singles(1200, 10))
        journals.poll_all(journaler, ring)
    assert firsts(journal) == before[2:]
    assert recover(journal).position.sequence == 1210


def crash_after(unlinks: int) -> Callable[[Path], None]:
    left = itertools.count(unlinks, -1)
    real = Path.unlink

    def unlink(path: Path) -> None:
        if next(left) == 0:
            raise KeyboardInterrupt
        real(path)

    return unlink


@pytest.mark.parametrize("unlinks", [0, 1])
def test_crash_in_the_middle_leaves_a_log_without_a_hole(
    journal: Path, monkeypatch: pytest.MonkeyPatch, unlinks: int
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "unlink", crash_after(unlinks))
        retain(journal, Known(1200, 1300))

    assert recover(journal).verdict == "clean"
    retain(journal, Known(1200, 1300))
    assert len(firsts(journal)) == 1


def test_beginning_lost_without_retention_is_still_refused(journal: Path) -> None:
    facts = segment_facts(journal)
    delete(journal, Plan(tuple(facts[:1]), tuple(facts[1:]), ""))
    assert recover(journal).first_sequence == facts[1].first

    facts[1].path.unlink()

    with pytest.raises(JournalRefused, match="missing"):
        recover(journal)
