"""The report archive repeats the report rings, and puts back what an un-synced file lost."""

from pathlib import Path

import pytest

from journaler import ArchiveDiverged, Journaler, ReportArchive, append_missing, append_missing_market
from ringbuf.ring import Ring
from tests.kit import journals
from tests.kit.waiting import eventually


def reports(first: int, count: int) -> bytes:
    return b"".join(bytes([(first + index) % 255 + 1]) * 128 for index in range(count))


def report_ring(*, base: int = 0, slot_count: int = 64) -> Ring:
    gating = {0: "journaler", 1: "sequencer"}
    return Ring.private(slot_size=128, slot_count=slot_count, base=base, gating=gating)


def archive_all(directory: Path, ring: Ring, slots: bytes, *, archive: bool = True, partition: int = 3) -> None:
    """Publish reports as the ring has room, with a journaler that archives them."""
    with (
        journals.log_ring() as log,
        Journaler(journals.config(directory, archive=archive), log, {partition: ring}) as journaler,
    ):
        for at in range(0, len(slots), 128):
            while ring.room() < 1:
                assert journaler.poll() > 0
            ring.publish(slots[at : at + 128])
            ring.advance(1, ring.published)


def test_reports_lie_at_their_sequence_over_many_laps_of_the_ring(tmp_path: Path) -> None:
    with report_ring() as ring:
        archive_all(tmp_path, ring, reports(0, 500))

    archive = ReportArchive(tmp_path)
    assert archive.count(3) == 500
    assert archive.read(3, 0, 500) == reports(0, 500)
    assert archive.read(3, 77, 5) == reports(77, 5)
    assert archive.read(3, 498, 9) == reports(498, 2)
    assert archive.read(3, 500, 9) == b""
    archive.close()


def test_a_few_reports_wait_for_company_but_not_in_a_ring_that_fills_up(tmp_path: Path) -> None:
    with (
        report_ring() as ring,
        journals.log_ring() as log,
        Journaler(journals.config(tmp_path, archive=True, archive_lag_us=1_000_000), log, {3: ring}) as journaler,
    ):
        ring.publish(*(reports(index, 1) for index in range(15)))
        assert journaler.poll() == 0
        assert ring.consumer(0).cursor == 0
        ring.publish(reports(15, 1))  # a quarter of the ring
        assert journaler.poll() == 16
        ring.publish(reports(16, 1))
        eventually(lambda: journaler.poll() == 1)  # when it has waited long enough
        ring.publish(reports(17, 1))

    assert ReportArchive(tmp_path).read(3, 0, 99) == reports(0, 18), "at the end nothing waits"


def test_archive_goes_on_at_the_cursor_of_an_earlier_journaler(tmp_path: Path) -> None:
    with report_ring() as ring:
        archive_all(tmp_path, ring, reports(0, 40))
        ring.publish(*(reports(40 + index, 1) for index in range(9)))  # while no journaler runs
        archive_all(tmp_path, ring, reports(49, 30))

    assert ReportArchive(tmp_path).read(3, 0, 100) == reports(0, 79)


def test_ring_with_a_later_base_leaves_a_hole_that_regenerated_reports_fill(tmp_path: Path) -> None:
    with report_ring() as ring:
        archive_all(tmp_path, ring, reports(0, 10))
    with report_ring(base=15) as ring:
        archive_all(tmp_path, ring, reports(15, 5))
    archive = ReportArchive(tmp_path)
    assert archive.read(3, 10, 5) == bytes(5 * 128)

    assert append_missing(tmp_path, 3, 8, reports(8, 9)) == 5

    assert archive.read(3, 0, 20) == reports(0, 20)
    archive.close()


def test_missing_tail_is_appended_and_what_is_there_is_compared(tmp_path: Path) -> None:
    assert append_missing(tmp_path, 1, 0, reports(0, 4)) == 4
    assert append_missing(tmp_path, 1, 2, reports(2, 5)) == 3
    assert append_missing(tmp_path, 1, 0, reports(0, 7)) == 0
    assert ReportArchive(tmp_path).read(1, 0, 9) == reports(0, 7)

    with pytest.raises(ArchiveDiverged, match="report 3 of partition 1"):
        append_missing(tmp_path, 1, 3, reports(100, 6))
    assert ReportArchive(tmp_path).read(1, 0, 9) == reports(0, 7)


def test_archive_switched_off_writes_nothing_and_does_not_gate(tmp_path: Path) -> None:
    with Ring.private(slot_size=128, slot_count=64, gating={1: "sequencer"}) as ring:
        archive_all(tmp_path, ring, reports(0, 200), archive=False)
    assert not (tmp_path / "reports").exists()


def test_half_a_slot_at_the_end_of_the_file_is_no_report(tmp_path: Path) -> None:
    append_missing(tmp_path, 2, 0, reports(0, 2))
    with (tmp_path / "reports" / "2").open("ab") as file:
        file.write(b"torn")

    archive = ReportArchive(tmp_path)

    assert (archive.count(2), archive.read(2, 0, 9)) == (2, reports(0, 2))
    assert append_missing(tmp_path, 2, 0, reports(0, 3)) == 1
    assert archive.read(2, 0, 9) == reports(0, 3)
    archive.close()


# --- market data ------------------------------------------------------------------------------------------------------


def market(first: int, count: int) -> bytes:
    return b"".join(bytes([(first + index) % 255 + 1]) * 64 for index in range(count))


def market_ring(*, base: int = 0, slot_count: int = 64) -> Ring:
    return Ring.private(slot_size=64, slot_count=slot_count, base=base)


def archive_market(directory: Path, ring: Ring, bursts: list[int], *, archive: bool = True) -> dict[str, int]:
    """Publish so many slots at a time, then let the journaler archive; return its counters."""
    with (
        journals.log_ring() as log,
        Journaler(journals.config(directory, archive=archive), log, {}, {2: ring}) as journaler,
    ):
        for count in bursts:
            for _ in range(count):
                ring.publish(market(ring.published, 1))
            while archive and not journaler.market_archived:
                journaler.poll()
        return journaler.stats()


def test_market_slots_lie_at_their_ring_index_over_many_laps(tmp_path: Path) -> None:
    with market_ring() as ring:
        stats = archive_market(tmp_path, ring, [40] * 20)

    assert (tmp_path / "market" / "2").read_bytes() == market(0, 800)
    assert (stats["market_archived"], stats["market_lost"]) == (800, 0)


def test_a_market_ring_does_not_wait_and_what_it_overwrote_is_a_hole_that_is_counted(tmp_path: Path) -> None:
    with market_ring() as ring:
        stats = archive_market(tmp_path, ring, [10, 300, 10])

    archived = (tmp_path / "market" / "2").read_bytes()
    holes = [index for index in range(320) if archived[index * 64 : index * 64 + 64] == bytes(64)]
    assert len(archived) == 320 * 64
    assert holes == list(range(10, holes[-1] + 1))
    assert stats["market_lost"] == len(holes) >= 300 - 64
    for index in set(range(320)) - set(holes):
        assert archived[index * 64 : index * 64 + 64] == market(index, 1)

    assert append_missing_market(tmp_path, 2, 0, market(0, 320)) == len(holes)
    assert (tmp_path / "market" / "2").read_bytes() == market(0, 320)


def test_what_an_earlier_run_archived_is_not_lost_when_the_same_history_is_made_again(tmp_path: Path) -> None:
    with market_ring() as ring:
        archive_market(tmp_path, ring, [50] * 6)
    with market_ring() as ring:
        stats = archive_market(tmp_path, ring, [250, 60])

    assert (tmp_path / "market" / "2").read_bytes() == market(0, 310)
    assert stats["market_lost"] == 0


def test_the_market_archive_compares_what_it_has(tmp_path: Path) -> None:
    assert append_missing_market(tmp_path, 1, 0, market(0, 4)) == 4
    with pytest.raises(ArchiveDiverged, match="market slot 3 of partition 1"):
        append_missing_market(tmp_path, 1, 3, market(9, 1))
    with pytest.raises(ValueError, match="65 bytes are not whole slots of 64"):
        append_missing_market(tmp_path, 1, 3, bytes(65))


def test_without_archive_no_market_data_is_written(tmp_path: Path) -> None:
    with market_ring() as ring:
        archive_market(tmp_path, ring, [5], archive=False)
    assert not (tmp_path / "market").exists()
