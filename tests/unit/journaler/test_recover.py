"""Damage of every kind: a journal is kept whole, cut where nobody was told of the rest, or refused; never wrong.

The port of models/journal_ref.py onto real files written by the journaler, with the oracle as a second judge.
"""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from journaler.errors import JournalRefused
from journaler.format import BatchHeader
from journaler.marks import MARK_FILE
from journaler.recover import Recovery, cut, recover
from journaler.segments import list_segments, segment_name
from tests.kit import journals
from tests.oracle import journal as oracle

SECTOR = 512
REFUSED = "refused"


class Damaged:
    """One segment's file, to be overwritten in place and judged again and again."""

    def __init__(self, directory: Path, ends: list[int]) -> None:
        self.directory = directory
        self.path = list_segments(directory)[-1].path
        self.good = self.path.read_bytes()
        self.ends = ends
        self.offsets = batch_ends(self.good)

    def judge(self, data: bytes, *, mark: bool) -> tuple[str, int]:
        """Write `data` as the segment; return the verdict and the end of what is kept."""
        self.path.write_bytes(data)
        return self.judge_file(mark=mark)

    def judge_file(self, *, mark: bool) -> tuple[str, int]:
        hidden = self.directory / "hidden"
        if not mark:
            (self.directory / MARK_FILE).rename(hidden)
        try:
            recovery = recover(self.directory, require_mark=False)
            return recovery.verdict, recovery.position.sequence
        except JournalRefused as refused:
            return REFUSED, refused.sequence
        finally:
            if not mark:
                hidden.rename(self.directory / MARK_FILE)

    @contextmanager
    def flipped(self, bit: int) -> Iterator[None]:
        with self.path.open("r+b", buffering=0) as file:
            file.seek(bit >> 3)
            file.write(bytes([self.good[bit >> 3] ^ 1 << (bit & 7)]))
            yield
            file.seek(bit >> 3)
            file.write(self.good[bit >> 3 : (bit >> 3) + 1])


def batch_ends(data: bytes) -> list[int]:
    """Return the offsets after each batch of a segment."""
    offset, ends = 512, []
    while offset + 64 <= len(data) and BatchHeader.unpack(data, offset).magic == oracle.BATCH_MAGIC:
        offset += 64 + BatchHeader.unpack(data, offset).length
        ends.append(offset)
    return ends


def damaged(directory: Path, batches: list[int]) -> Damaged:
    return Damaged(directory, journals.write_journal(directory, batches))


def test_whole_journal_is_clean_and_the_oracle_reads_the_same(tmp_path: Path) -> None:
    ends = journals.write_journal(tmp_path, [1, 5, 2, 9], epoch=3)
    data = list_segments(tmp_path)[0].path.read_bytes()

    recovery = recover(tmp_path)
    chain = oracle.Chain()
    offset, batches = oracle.parse(data, chain)

    assert recovery.verdict == "clean"
    assert recovery.position.sequence == ends[-1] == 18
    assert (chain.sequence, chain.crc, chain.batch, chain.epoch) == (18, recovery.position.crc, 5, 3)
    assert offset == recovery.position.offset
    expected, epoch = 0, 0
    for sequence, slot in enumerate(slots_of(batches)):
        epoch = oracle.epoch_after(slot, epoch)
        expected = oracle.record_hash(expected, sequence, epoch, slot)
    assert recovery.position.log_hash == expected


def slots_of(batches: list[bytes]) -> list[bytes]:
    joined = b"".join(batches)
    return [joined[at : at + 128] for at in range(0, len(joined), 128)]


def test_oracle_builds_the_bytes_the_journaler_writes(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [3, 1, 4])
    path = list_segments(tmp_path)[0].path
    built = oracle.build(
        [journals.singles(0, 3), journals.singles(3, 1), journals.singles(4, 4)], journals.SEGMENT_SIZE
    )

    path.write_bytes(built)  # another ts_ns, so other checksums: the mark of the real one does not fit
    (tmp_path / MARK_FILE).unlink()
    recovery = recover(tmp_path, require_mark=False)

    assert (recovery.verdict, recovery.position.sequence) == ("clean", 8)


def test_cut_at_every_byte_keeps_exactly_the_whole_batches(tmp_path: Path) -> None:
    file = damaged(tmp_path, [2, 1, 2, 1])
    used = file.offsets[-1]

    for length in range(used):
        data = file.good[:length].ljust(len(file.good), b"\0")
        verdict, kept = file.judge(data, mark=False)
        want = max((end for end, offset in zip(file.ends, file.offsets, strict=True) if offset <= length), default=0)

        # Bytes that were zero anyway may make a cut invisible: then the batch is whole.
        assert verdict in ("clean", "torn"), length
        whole = file.offsets[file.ends.index(kept)] if kept else 0
        assert kept == want or (kept > want and data[:whole] == file.good[:whole]), length
        assert (verdict, kept) == oracle.judge(data[: used + 64], None), length
        assert file.judge(data, mark=True)[0] == REFUSED or kept == file.ends[-1], length


def test_every_flipped_bit_is_refused_with_the_mark(tmp_path: Path) -> None:
    file = damaged(tmp_path, [1, 2, 1])

    for bit in range(file.offsets[-1] * 8):
        with file.flipped(bit):
            assert file.judge_file(mark=True)[0] == REFUSED, bit
    assert file.judge_file(mark=True) == ("clean", file.ends[-1])


def test_flipped_bits_before_the_last_batch_are_refused_without_a_mark_too(tmp_path: Path) -> None:
    file = damaged(tmp_path, [1, 2, 1])
    looks_torn = 0

    for bit in range(0, file.offsets[-1] * 8, 3):
        with file.flipped(bit):
            verdict, kept = file.judge_file(mark=False)
        assert kept < file.ends[-1], bit
        if bit >> 3 < file.offsets[-2]:
            assert verdict == REFUSED, bit
        else:
            looks_torn += verdict == "torn"
    assert looks_torn > 0  # why the mark is needed (J5)


def test_lost_sectors_of_the_batch_in_flight_are_a_torn_tail(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [1, 30])
    mark_before = (tmp_path / MARK_FILE).read_bytes()
    with journals.log_ring(base=31) as ring, journals.opened(tmp_path, ring) as journaler:
        mark_before = (tmp_path / MARK_FILE).read_bytes()  # as of the last start: below the batch in flight
        journals.publish(ring, journals.singles(31, 28))
        journals.poll_all(journaler, ring)
    (tmp_path / MARK_FILE).write_bytes(mark_before)
    file = Damaged(tmp_path, [1, 31, 59])
    start, end = file.offsets[-2], file.offsets[-1]
    sectors = range(start // SECTOR, (end - 1) // SECTOR + 1)
    assert len(sectors) == 8

    for kept_sectors in itertools.product((True, False), repeat=len(sectors)):
        data = bytearray(file.good)
        for sector, arrived in zip(sectors, kept_sectors, strict=True):
            if not arrived:
                low, high = max(start, sector * SECTOR), min(end, (sector + 1) * SECTOR)
                data[low:high] = bytes(high - low)
        verdict, kept = file.judge(bytes(data), mark=True)
        assert verdict in ("clean", "torn"), kept_sectors
        assert kept == (59 if bytes(data) == file.good else 31), kept_sectors


def test_lost_sectors_of_a_new_segment_are_a_torn_tail(tmp_path: Path) -> None:
    """Header and first batch of a segment are one write: any part of it may be missing."""
    journals.write_journal(tmp_path, [500])
    with journals.log_ring(base=500) as ring, journals.opened(tmp_path, ring) as journaler:
        mark_before = (tmp_path / MARK_FILE).read_bytes()
        journals.publish(ring, journals.singles(500, 5))
        journals.poll_all(journaler, ring)
    (tmp_path / MARK_FILE).write_bytes(mark_before)
    file = Damaged(tmp_path, [500, 505])
    assert file.path.name == segment_name(500)

    for kept_sectors in itertools.product((True, False), repeat=3):
        data = b"".join(
            file.good[at * SECTOR : (at + 1) * SECTOR] if arrived else bytes(SECTOR)
            for at, arrived in enumerate(kept_sectors)
        ).ljust(len(file.good), b"\0")
        verdict, kept = file.judge(data, mark=True)
        assert verdict in ("clean", "torn"), kept_sectors
        assert kept == (505 if data == file.good else 500), kept_sectors


def test_torn_tail_is_zeroed_and_the_journal_goes_on(tmp_path: Path) -> None:
    ends = journals.write_journal(tmp_path, [3, 4])
    path = list_segments(tmp_path)[0].path
    position = recover(tmp_path).position
    with path.open("r+b") as file:
        file.seek(position.offset)
        file.write(b"half a batch" * 40)

    recovery = recover(tmp_path)
    assert (recovery.verdict, recovery.position) == ("torn", position)
    assert recovery.torn is not None and recovery.torn.end == position.offset + 480
    cut(recovery)

    assert recover(tmp_path).verdict == "clean"
    assert journals.write_journal(tmp_path, [2], base=ends[-1]) == [9]
    assert recover(tmp_path).position.sequence == 9


# --- segments and batches in the wrong place --------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """A journal of three segments."""
    journals.write_journal(tmp_path, [300, 300, 300, 300])
    paths = [segment.path for segment in list_segments(tmp_path)]
    assert len(paths) == 3
    assert recover(tmp_path).verdict == "clean"
    return paths


def refused(directory: Path) -> JournalRefused:
    with pytest.raises(JournalRefused) as info:
        recover(directory)
    with pytest.raises(JournalRefused):
        recover(directory, require_mark=False)
    return info.value


def swap(first: Path, second: Path) -> None:
    aside = first.with_suffix(".aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (0, 2)])
def test_swapped_segments_are_refused(three: list[Path], pair: tuple[int, int]) -> None:
    swap(three[pair[0]], three[pair[1]])
    assert refused(three[0].parent).path == three[pair[0]]


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(range(3), 2)))
def test_segment_copied_over_another_is_refused(three: list[Path], source: int, target: int) -> None:
    shutil.copyfile(three[source], three[target])
    try:
        recovery = recover(three[0].parent)
    except JournalRefused:
        return
    pytest.fail(f"accepted as {recovery.verdict}")


def test_missing_segment_is_refused_with_file_and_sequence(three: list[Path]) -> None:
    three[1].unlink()
    error = refused(three[0].parent)
    assert error.path in (three[0], three[2])
    assert "ends before" in error.reason


def test_missing_first_segment_is_refused_unless_archived_away(three: list[Path]) -> None:
    three[0].unlink()
    assert "missing" in refused(three[0].parent).reason

    recovery = recover(three[0].parent, allow_trimmed=True)

    assert recovery.verdict == "clean" and recovery.first_sequence > 0


def test_missing_last_segment_is_refused_by_the_mark(three: list[Path]) -> None:
    three[2].unlink()
    with pytest.raises(JournalRefused, match="synced"):
        recover(three[0].parent)


def test_extra_copy_of_a_segment_at_the_end_is_refused(three: list[Path]) -> None:
    shutil.copyfile(three[1], three[0].parent / segment_name(1200))
    assert "continues another" in refused(three[0].parent).reason


@pytest.mark.parametrize("index", [0, 1, 2])
def test_stale_segment_of_another_run_is_refused(
    three: list[Path], tmp_path_factory: pytest.TempPathFactory, index: int
) -> None:
    other = tmp_path_factory.mktemp("other")
    journals.write_journal(other, [300, 300, 300, 300], salt=1)
    shutil.copyfile(other / three[index].name, three[index])
    with pytest.raises(JournalRefused):
        recover(three[0].parent)


@pytest.mark.parametrize("index", [0, 1])
def test_damage_in_a_full_segment_is_refused_at_its_place(three: list[Path], index: int) -> None:
    data = bytearray(three[index].read_bytes())
    data[40_000] ^= 4
    three[index].write_bytes(data)

    error = refused(three[0].parent)

    assert error.path == three[index] and error.offset < 40_000
    assert "peer" in error.advice and str(error.path) in str(error) and str(error.sequence) in str(error)


def test_swapped_repeated_and_stale_batches_are_refused(tmp_path: Path) -> None:
    file = damaged(tmp_path, [2, 2, 2, 2])
    edges = [512, *file.offsets]
    parts = [file.good[low:high] for low, high in itertools.pairwise(edges)]
    other = tmp_path / "other"
    journals.write_journal(other, [2, 2, 2, 2], salt=5)
    stale_data = list_segments(other)[0].path.read_bytes()
    stale = [stale_data[low:high] for low, high in itertools.pairwise(edges)]
    rest = len(file.good) - edges[-1]

    def verdict(batches: list[bytes]) -> tuple[str, int]:
        data = (file.good[:512] + b"".join(batches)).ljust(len(file.good), b"\0")
        assert file.judge(data, mark=False) == oracle.judge(data[: edges[-1] + min(rest, 512)], None)
        return file.judge(data, mark=True)

    for i, j in itertools.combinations(range(4), 2):
        order = list(parts)
        order[i], order[j] = order[j], order[i]
        assert verdict(order)[0] == REFUSED, (i, j)
    for i in range(4):
        repeated = verdict([*parts[:i], parts[i], *parts[i:]])
        assert repeated[0] == REFUSED or repeated == ("torn", 8), i  # once more at the end: nothing is missing
        assert verdict([*parts[:i], stale[i], *parts[i + 1 :]])[0] == REFUSED, i
        assert verdict([*parts[:i], *parts[i + 1 :]])[0] == REFUSED, i


# --- what lies outside the segments -----------------------------------------------------------------------------------


def test_missing_mark_is_refused_but_an_operator_may_go_on(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [2])
    (tmp_path / MARK_FILE).unlink()

    with pytest.raises(JournalRefused, match="missing"):
        recover(tmp_path)

    assert recover(tmp_path, require_mark=False).verdict == "clean"


def test_mark_of_another_journal_is_refused(tmp_path: Path) -> None:
    journals.write_journal(tmp_path / "a", [2, 2])
    journals.write_journal(tmp_path / "b", [2, 2], salt=1)
    shutil.copyfile(tmp_path / "b" / MARK_FILE, tmp_path / "a" / MARK_FILE)

    with pytest.raises(JournalRefused, match="not the one"):
        recover(tmp_path / "a")


def test_empty_directory_is_an_empty_journal(tmp_path: Path) -> None:
    recovery: Recovery = recover(tmp_path)
    assert (recovery.verdict, recovery.position.sequence, recovery.segments) == ("clean", 0, ())


def test_all_segments_gone_is_refused_by_the_mark(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [2])
    list_segments(tmp_path)[0].path.unlink()
    with pytest.raises(JournalRefused, match="synced"):
        recover(tmp_path)


def test_direct_reading_sees_the_same(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [20, 500, 3])
    try:
        direct = recover(tmp_path, direct=True)
    except OSError as error:
        pytest.skip(f"this filesystem has no O_DIRECT: {error}")
    assert direct == recover(tmp_path)


def test_batches_written_without_sync_do_not_prove_damage(tmp_path: Path) -> None:
    """D0 never promised them: after a power loss the whole part of the log is kept, not refused."""
    journals.write_journal(tmp_path, [2, 2, 2, 2], mode="D0")
    path = list_segments(tmp_path)[0].path
    data = bytearray(path.read_bytes())
    data[batch_ends(bytes(data))[0] + 70] ^= 1
    path.write_bytes(data)
    (tmp_path / MARK_FILE).unlink()

    recovery = recover(tmp_path, require_mark=False)

    assert (recovery.verdict, recovery.position.sequence) == ("torn", 2)
