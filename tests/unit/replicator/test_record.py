"""A node's promises on its disk."""

from pathlib import Path

import pytest

from replicator.errors import ReplicatorError
from replicator.events import Record
from replicator.record import RecordFile


def test_a_new_node_has_promised_nothing(tmp_path: Path) -> None:
    assert RecordFile(tmp_path).load() == Record()


def test_what_was_stored_last_is_read(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    file.store(Record(1, 2, 3, 4))
    file.store(Record(5, 6, 7, 8))

    assert RecordFile(tmp_path).load() == Record(5, 6, 7, 8)


def test_a_draft_that_a_crash_left_is_ignored(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    file.store(Record(1, 2, 3, 4))
    file.path.with_suffix(".new").write_text("{")

    assert file.load() == Record(1, 2, 3, 4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"promised": 3', '"promised": 2'),
        lambda text: text.replace('"promised"', '"premised"'),
    ],
)
def test_a_damaged_record_is_refused_not_forgotten(tmp_path: Path, damage: object) -> None:
    file = RecordFile(tmp_path)
    file.store(Record(1, 2, 3, 4))
    assert callable(damage)
    file.path.write_text(damage(file.path.read_text()))

    with pytest.raises(ReplicatorError, match=r"failover\.json"):
        file.load()
