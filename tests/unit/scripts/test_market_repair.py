"""Lost market data is made again from the journal, byte for byte; other bytes are refused."""

from pathlib import Path

import pytest

from engine import EngineConfig
from journaler import Journaler
from scripts.exit_codes import CommandError
from scripts.market_repair import repair
from tests.kit import journals
from tests.kit.composed_exchange import make_exchange
from tests.kit.feed_site import flow, traders


@pytest.fixture
def journal(tmp_path: Path) -> tuple[Path, bytes]:
    """A journal of some trading in its folder, and the market data that belongs to it."""
    exchange = make_exchange(ring_slots=1 << 15)
    for _ in flow(exchange, *traders(exchange), 1500):
        pass
    slots = b"".join(records for _, records in exchange.engine.log_records())
    with journals.log_ring(slot_count=1 << 15) as log:
        settings = journals.config(tmp_path, segment_size_bytes=1 << 23)
        with Journaler(settings, log, {}, {}) as journaler:
            journals.publish(log, slots)
            journals.poll_all(journaler, log)
    market = exchange.engine.market[1]
    return tmp_path, market.read(0, market.published)


def test_an_archive_that_is_gone_is_written_anew(journal: tuple[Path, bytes]) -> None:
    folder, expected = journal

    assert repair(folder, EngineConfig(partitions=1)) == len(expected) // 64 > 1500

    assert (folder / "market" / "1").read_bytes() == expected
    assert repair(folder, EngineConfig(partitions=1)) == 0


def test_holes_are_filled_and_nothing_else_is_touched(journal: tuple[Path, bytes]) -> None:
    folder, expected = journal
    (folder / "market").mkdir()
    (folder / "market" / "1").write_bytes(expected[:640] + bytes(64 * 30) + expected[640 + 64 * 30 : 64 * 900])

    assert repair(folder, EngineConfig(partitions=1)) == 30 + len(expected) // 64 - 900

    assert (folder / "market" / "1").read_bytes() == expected


def test_an_archive_with_other_bytes_is_refused(journal: tuple[Path, bytes]) -> None:
    folder, expected = journal
    (folder / "market").mkdir()
    changed = bytearray(expected)
    changed[64 * 700 + 40] ^= 1
    (folder / "market" / "1").write_bytes(changed)

    with pytest.raises(CommandError, match="market slot 700 of partition 1 was archived with other bytes"):
        repair(folder, EngineConfig(partitions=1))
