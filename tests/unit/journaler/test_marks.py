"""durable.mark: two slots written in turn, so that a crash while one is written leaves the other."""

from pathlib import Path

import pytest

from journaler.errors import JournalRefused
from journaler.marks import MARK_FILE, decode_slot, read_mark
from journaler.recover import recover
from tests.kit import journals, waiting


def test_close_leaves_a_mark_at_the_end_of_the_log(tmp_path: Path) -> None:
    ends = journals.write_journal(tmp_path, [3, 4])
    mark, position = read_mark(tmp_path), recover(tmp_path).position
    assert mark is not None
    assert (mark.sequence, mark.crc, mark.log_hash) == (ends[-1], position.crc, position.log_hash)


def test_mark_follows_while_the_journaler_runs(tmp_path: Path) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring) as journaler:
        for _ in range(5):
            journals.publish(ring, journals.singles(ring.published, 2))
            journals.poll_all(journaler, ring)
            waiting.eventually(lambda: (read_mark(tmp_path) or pytest.fail("no mark")).sequence == ring.commit)
        assert journaler.stats()["marks"] >= 5


def test_slots_alternate_and_the_older_one_stands_in_for_a_torn_newer_one(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [2])
    journals.write_journal(tmp_path, [2], base=2)
    data = (tmp_path / MARK_FILE).read_bytes()
    slots = [decode_slot(data[:512]), decode_slot(data[512:])]
    assert slots[0] is not None and slots[1] is not None
    newer = 0 if slots[0].counter > slots[1].counter else 1
    assert slots[newer].counter == slots[1 - newer].counter + 1

    torn = bytearray(data)
    torn[newer * 512 + 100 : newer * 512 + 104] = b"torn"
    (tmp_path / MARK_FILE).write_bytes(torn)

    assert read_mark(tmp_path) == slots[1 - newer]
    assert recover(tmp_path).position.sequence == 4


def test_every_flipped_bit_of_a_slot_is_noticed(tmp_path: Path) -> None:
    journals.write_journal(tmp_path, [2])
    data = (tmp_path / MARK_FILE).read_bytes()[:512]
    assert decode_slot(data) is not None
    for bit in range(512 * 8):
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        assert decode_slot(bytes(changed)) is None, bit


def test_mark_without_a_valid_slot_is_refused(tmp_path: Path) -> None:
    (tmp_path / MARK_FILE).write_bytes(b"x" * 1024)
    with pytest.raises(JournalRefused, match="neither slot"):
        read_mark(tmp_path)


def test_absent_or_empty_file_is_no_mark(tmp_path: Path) -> None:
    assert read_mark(tmp_path) is None
    (tmp_path / MARK_FILE).write_bytes(b"")
    assert read_mark(tmp_path) is None
