"""The bytes of the journal are those of the specification, and the C that makes them agrees with a slow reader."""

import json
import random
import shutil
from pathlib import Path

import pytest

from journaler import LogReader
from journaler._journal import ffi, lib
from journaler.export import LOG_BLOCK_MAX, LOG_TEMPLATES
from journaler.format import BatchHeader, MarkSlot, SegmentHeader, crc32c, log_hash
from journaler.inspect import records
from journaler.recover import recover
from journaler.segments import list_segments
from ringbuf.wire.messages import MESSAGES, SCHEMA_VERSION
from tests.kit import journals
from tests.oracle import journal as oracle
from tests.vectors.make_journal import RECORDS_FILE, golden_slots

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
GOLDEN_CHAIN = (0x14B9A3842BFB288E, 0x066D2071)  # log hash, checksum of the last batch


def test_crc32c_has_the_published_check_values() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_crc32c_of_hardware_tables_and_oracle_agree(rng: random.Random) -> None:
    for size in [*range(64), 255, 256, 768, 769, 5000, 6144, 6145, 20001]:
        data, seed = rng.randbytes(size), rng.getrandbits(32)

        expected = oracle.crc32c(data, seed)

        assert crc32c(data, seed) == expected
        assert lib.crc32c_software(ffi.from_buffer(data), size, seed) == expected


def test_crc32c_seeded_with_a_prefix_is_that_of_the_whole(rng: random.Random) -> None:
    data = rng.randbytes(9000)
    for cut in (0, 1, 64, 4096, 8999, 9000):
        assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)


def test_log_hash_agrees_with_the_oracle_and_runs_on_over_any_cut(rng: random.Random) -> None:
    slots = [rng.randbytes(128) for _ in range(20)]
    slots[7] = journals.epoch_start(7, 4)
    expected, epoch = 0, 2
    for sequence, slot in enumerate(slots):
        epoch = oracle.epoch_after(slot, epoch)
        expected = oracle.record_hash(expected, sequence, epoch, slot)

    data = b"".join(slots)
    for cut in (0, 1, 7, 8, 20):
        before = log_hash(data[: cut * 128], sequence=0, epoch=2, before=0)
        epoch_there = 4 if cut > 7 else 2
        assert log_hash(data[cut * 128 :], sequence=cut, epoch=epoch_there, before=before) == expected


def test_log_hash_sees_every_bit_of_sequence_epoch_and_slot(rng: random.Random) -> None:
    slot = rng.randbytes(128)
    base = log_hash(slot, sequence=5, epoch=1, before=99)
    seen = {base}
    for bit in range(1024):
        changed = bytearray(slot)
        changed[bit >> 3] ^= 1 << (bit & 7)
        seen.add(log_hash(changed, sequence=5, epoch=1, before=99))
    for bit in range(64):
        seen.add(log_hash(slot, sequence=5 ^ 1 << bit, epoch=1, before=99))
        seen.add(log_hash(slot, sequence=5, epoch=1 ^ 1 << bit, before=99))
        seen.add(log_hash(slot, sequence=5, epoch=1, before=99 ^ 1 << bit))
    assert len(seen) == 1 + 1024 + 3 * 64


def test_headers_round_trip() -> None:
    batch = BatchHeader(*range(1, 13))
    segment = SegmentHeader(*range(1, 14))
    mark = MarkSlot(*range(1, 15))

    assert BatchHeader.unpack(batch.pack()) == batch
    assert SegmentHeader.unpack(segment.pack()) == segment
    assert MarkSlot.unpack(mark.pack()) == mark
    assert (len(batch.pack()), len(segment.pack()), len(mark.pack())) == (64, 512, 512)


def test_golden_journal_of_format_1_is_still_read(tmp_path: Path) -> None:
    """Bytes written when format 1 was made; they must be read for ever."""
    shutil.copytree(VECTORS / "journal-1", tmp_path / "journal")

    recovery = recover(tmp_path / "journal")
    slots = b"".join(slots for _, slots in LogReader(tmp_path / "journal"))

    assert slots == b"".join(golden_slots())
    assert recovery.verdict == "clean"
    position = recovery.position
    assert (position.sequence, position.epoch, position.batch, position.offset) == (16, 3, 5, 2880)
    assert (position.log_hash, position.crc) == GOLDEN_CHAIN
    data = list_segments(tmp_path / "journal")[0].path.read_bytes()
    assert oracle.judge(data, 16) == ("clean", 16)


@pytest.mark.parametrize("folder", sorted(VECTORS.glob("journal-*-schema-*")), ids=lambda path: path.name)
def test_golden_journal_of_each_schema_still_says_the_same(folder: Path) -> None:
    """Every field that had a name and a value then has them now; there may be more."""
    expected = json.loads((folder / RECORDS_FILE).read_text())

    found = list(records(folder, 0, None))

    assert recover(folder).verdict == "clean" and len(found) == len(expected)
    for now, then in zip(found, expected, strict=True):
        assert {name: now[name] for name in then if name != "fields"} == {
            name: value for name, value in then.items() if name != "fields"
        }
        fields = then.get("fields", {})
        assert {name: now["fields"][name] for name in fields} == fields


def test_no_template_of_a_golden_journal_has_lost_its_name() -> None:
    expected = json.loads((VECTORS / f"journal-1-schema-{SCHEMA_VERSION}" / RECORDS_FILE).read_text())
    golden = {record["template"] for record in expected}
    today = {
        message.__name__
        for template, message in MESSAGES.items()
        if any(template in each for each in LOG_TEMPLATES) and message.BLOCK_LENGTH <= LOG_BLOCK_MAX
    }
    assert golden <= today, "a template was renamed or removed: its old records can no longer be named"


def test_golden_records_give_the_golden_identity_when_written_today(tmp_path: Path) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring) as journaler:
        for slots in golden_slots():
            journals.publish(ring, slots)
        journals.poll_all(journaler, ring)
        assert journaler.position.log_hash == GOLDEN_CHAIN[0]
