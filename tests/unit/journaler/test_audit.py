"""The audit chain is the SHA-256 of the log's slots, and says so beside each closed segment, over all restarts."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from journaler import LogReader
from journaler._journal import ffi, lib
from journaler.audit import INITIAL, AuditHash, AuditRecord, chain_end, read_audit, read_audits
from journaler.errors import JournalRefused
from journaler.segments import audit_name, list_segments
from tests.kit import journals, waiting


def write_audited(directory: Path, batches: list[int], *, base: int = 0, **changes: Any) -> None:
    """Write a journal and wait until the auditor has seen all of it."""
    with journals.log_ring(base=base) as ring, journals.opened(directory, ring, **changes) as journaler:
        for count in batches:
            journals.publish(ring, journals.singles(ring.published, count))
            journals.poll_all(journaler, ring)
        waiting.eventually(lambda: journaler.stats()["audited"] == ring.published, deadline_s=60)


def slots_of(directory: Path) -> bytes:
    return b"".join(slots for _, slots in LogReader(directory))


def expected(slots: bytes, end: int) -> str:
    return hashlib.sha256(slots[: end * 128]).hexdigest()


def test_sha256_agrees_with_the_library_at_every_length(rng: random.Random) -> None:
    for blocks in [*range(9), 100, 1001]:
        data = rng.randbytes(blocks * 64)
        state: Any = ffi.new("uint32_t[]", list(INITIAL))
        software: Any = ffi.new("uint32_t[]", list(INITIAL))
        digest: Any = ffi.new("uint8_t[]", 32)

        lib.sha256_blocks(state, ffi.from_buffer(data), blocks)
        lib.sha256_blocks_software(software, ffi.from_buffer(data), blocks)
        lib.sha256_digest(state, blocks, digest)

        assert bytes(ffi.buffer(digest)) == hashlib.sha256(data).digest()
        assert list(software) == list(state)


def test_hash_goes_on_from_any_record(rng: random.Random) -> None:
    data = rng.randbytes(128 * 11)
    for cut in range(12):
        first = AuditHash()
        first.update(data[: cut * 128])
        second = AuditHash(first.words)
        second.update(data[cut * 128 :])
        assert second.digest(11) == hashlib.sha256(data).hexdigest()


def test_each_closed_segment_has_the_hash_of_the_log_up_to_its_end(tmp_path: Path) -> None:
    write_audited(tmp_path, [300, 300, 300, 300])

    slots, records = slots_of(tmp_path), read_audits(tmp_path)
    firsts = [segment.first_sequence for segment in list_segments(tmp_path)]

    assert list(records) == firsts[:-1] and len(records) == 2
    for record, following in zip(records.values(), firsts[1:], strict=True):
        assert (record.origin, record.end) == (0, following)
        assert record.sha256 == expected(slots, record.end)


def test_chain_goes_on_over_restarts_in_the_middle_of_a_segment(tmp_path: Path) -> None:
    write_audited(tmp_path, [300])
    write_audited(tmp_path, [300], base=300)
    write_audited(tmp_path, [300], base=600)
    write_audited(tmp_path, [300, 300], base=900)

    records = list(read_audits(tmp_path).values())

    assert len(records) >= 2
    assert all(record.sha256 == expected(slots_of(tmp_path), record.end) for record in records)


def test_journal_without_audit_gets_one_at_the_next_start(tmp_path: Path) -> None:
    write_audited(tmp_path, [300, 300, 300])
    for path in tmp_path.glob("*.audit"):
        path.unlink()
    (tmp_path / "segment-00000000000000000000.audit.tmp").write_text("half")

    write_audited(tmp_path, [1], base=900)

    records = list(read_audits(tmp_path).values())
    assert [record.sha256 for record in records] == [expected(slots_of(tmp_path), record.end) for record in records]
    assert records and not list(tmp_path.glob("*.tmp"))


def test_chain_of_a_trimmed_journal_goes_on_from_the_records_that_stay(tmp_path: Path) -> None:
    write_audited(tmp_path, [300, 300, 300, 300])
    before = read_audits(tmp_path)
    list_segments(tmp_path)[0].path.unlink()
    (tmp_path / audit_name(list(before)[1])).unlink()

    end = chain_end(tmp_path)

    assert (end.sequence, end.origin, end.words) == (before[0].end, 0, before[0].after)


def test_chain_can_be_switched_off(tmp_path: Path) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring, audit=False) as journaler:
        for _ in range(3):
            journals.publish(ring, journals.singles(ring.published, 300))
            journals.poll_all(journaler, ring)
    assert not list(tmp_path.glob("*.audit"))


def test_record_of_another_chain_is_refused_at_start(tmp_path: Path) -> None:
    write_audited(tmp_path / "a", [300, 300, 300, 300])
    with journals.log_ring() as ring, journals.opened(tmp_path / "b", ring) as journaler:
        for _ in range(4):
            journals.publish(ring, journals.singles(ring.published, 300, salt=1))
            journals.poll_all(journaler, ring)
        waiting.eventually(lambda: journaler.stats()["audited"] == ring.published, deadline_s=60)
    second = list(read_audits(tmp_path / "a"))[1]
    (tmp_path / "a" / audit_name(second)).write_bytes((tmp_path / "b" / audit_name(second)).read_bytes())

    with pytest.raises(JournalRefused, match="does not go on"):
        chain_end(tmp_path / "a")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("audit 1", "audit 2"),
        lambda text: text[:-1],
        lambda text: text + "more\n",
        lambda text: text.replace("origin 0", "origin -1"),
        lambda text: "",
    ],
)
def test_malformed_record_is_refused_with_its_file(tmp_path: Path, change: Any) -> None:
    write_audited(tmp_path, [300, 300])
    path = tmp_path / audit_name(0)
    assert isinstance(read_audit(path), AuditRecord)
    path.write_text(change(path.read_text()))

    with pytest.raises(JournalRefused, match="not an audit record") as info:
        read_audit(path)
    assert info.value.path == path


def test_record_under_another_name_is_refused(tmp_path: Path) -> None:
    write_audited(tmp_path, [300, 300])
    (tmp_path / audit_name(0)).rename(tmp_path / audit_name(5))
    with pytest.raises(JournalRefused, match="begins with 0"):
        read_audits(tmp_path)
