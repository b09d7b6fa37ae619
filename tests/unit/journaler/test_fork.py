"""A log whose end the leader does not have is cut, at any record, and nothing of it is thrown away."""

import json
import random
import shutil
from pathlib import Path

import pytest

from journaler import Journaler, LogReader
from journaler.chain import LogPosition, extend, position_at
from journaler.errors import JournalError, JournalLocked
from journaler.fork import FORKED, cut_fork
from journaler.recover import recover
from journaler.segments import list_segments, lock_directory
from tests.kit.journals import config, epoch_start, group, log_ring, publish, singles


def records(directory: Path) -> bytes:
    return b"".join(slots for _, slots in LogReader(directory).batches())


def write(directory: Path, *pieces: bytes, base: int = 0) -> None:
    """Append each piece as a batch of its own."""
    ring = log_ring(base=base)
    with Journaler(config(directory), ring, {}) as journaler:
        for piece in pieces:
            publish(ring, piece)
            while journaler.position.sequence < ring.published:
                journaler.poll()
    ring.close()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Three segments: 1200 records in batches of 1 to 40, with groups, and an epoch that begins at 700."""
    rng = random.Random(5)
    directory = tmp_path / "journal"
    pieces, sequence = [], 0
    while sequence < 1200:
        if sequence == 700:
            pieces.append(epoch_start(700, 4))
            sequence += 1
            continue
        count = min(rng.randint(1, 40), 700 - sequence if sequence < 700 else 1200 - sequence)
        pieces.append(group(sequence, count) if 1 < count <= 8 else singles(sequence, count))
        sequence += count
    write(directory, *pieces)
    return directory


@pytest.mark.parametrize("sequence", [0, 1, 7, 499, 510, 511, 512, 700, 701, 1021, 1199])
def test_the_log_ends_at_the_cut(journal: Path, sequence: int) -> None:
    before = records(journal)

    fork = cut_fork(journal, sequence)

    end = fork.position.sequence
    assert sequence - 8 < end <= sequence
    assert records(journal) == before[: 128 * end]
    assert recover(journal).verdict == "clean"
    assert fork.cut == 1200 - end
    assert fork.kept_in is not None
    assert (fork.kept_in / "records").read_bytes() == before[128 * end :]
    assert json.loads((fork.kept_in / "note.json").read_text())["first"] == end


def test_a_cut_never_leaves_half_a_group(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    write(directory, singles(0, 3) + group(3, 6) + singles(9, 2))

    assert cut_fork(directory, 7).position.sequence == 3


def test_the_log_goes_on_behind_the_cut(journal: Path) -> None:
    cut_fork(journal, 650)
    end = recover(journal).position.sequence
    write(journal, epoch_start(end, 9), singles(end + 1, 700), base=end)

    assert recover(journal).position.sequence == end + 701
    log = records(journal)
    assert extend(LogPosition(), log) == position_at(journal, end + 701)


def test_what_is_not_there_need_not_be_cut(journal: Path) -> None:
    fork = cut_fork(journal, 1200)

    assert (fork.position.sequence, fork.cut, fork.kept_in) == (1200, 0, None)
    assert not (journal / FORKED).exists()


def test_a_journal_in_use_is_not_touched(journal: Path) -> None:
    assert lock_directory(journal) is not None

    with pytest.raises(JournalLocked):
        cut_fork(journal, 5)


def test_a_log_cannot_end_before_it_begins(journal: Path) -> None:
    first, second, *_ = list_segments(journal)
    first.path.unlink()
    (journal / "trimmed").write_text(f"first {second.first_sequence}\n")

    with pytest.raises(JournalError, match="begins at"):
        cut_fork(journal, 5)


class Crash(Exception):
    pass


@pytest.mark.parametrize("sequence", [130, 700])
def test_a_crash_at_any_moment_leaves_a_log_that_can_be_cut_again(
    journal: Path, tmp_path: Path, sequence: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sync of the folder is a moment at which what was done before is there and nothing after it."""
    whole = records(journal)
    from journaler import fork, repair

    def cut_until(crash_at: int, directory: Path) -> bool:
        left = [crash_at]

        def crash(folder: Path) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Crash

        monkeypatch.setattr(fork, "sync_directory", crash)
        monkeypatch.setattr(repair, "sync_directory", crash)
        try:
            cut_fork(directory, sequence)
        except Crash:
            return False
        finally:
            monkeypatch.undo()
        return True

    crash_at, done = 0, False
    while not done:
        crash_at += 1
        copy = tmp_path / f"copy{crash_at}"
        shutil.copytree(journal, copy)
        done = cut_until(crash_at, copy)

        end = recover(copy).position.sequence
        assert records(copy) == whole[: 128 * end]
        assert cut_fork(copy, sequence).position.sequence <= sequence
        assert records(copy) == whole[: 128 * recover(copy).position.sequence]
        shutil.rmtree(copy)
    assert crash_at > 5


# --- the log's identity anywhere --------------------------------------------------------------------------------------


def test_the_chain_is_known_at_every_record(journal: Path) -> None:
    log, position = records(journal), LogPosition()

    for sequence in range(1201):
        if sequence:
            position = extend(position, log[128 * (sequence - 1) : 128 * sequence])
        if sequence % 7 == 0 or 690 < sequence < 710 or sequence > 1190:
            assert position_at(journal, sequence) == position


def test_beyond_the_files_nothing_is_known(journal: Path, tmp_path: Path) -> None:
    assert position_at(journal, 1201) is None
    first, second, *_ = list_segments(journal)
    first.path.unlink()
    assert position_at(journal, second.first_sequence - 1) is None
    (tmp_path / "empty").mkdir()
    assert position_at(tmp_path / "empty", 0) == LogPosition()
    assert position_at(tmp_path / "empty", 1) is None
