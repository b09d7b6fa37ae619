"""`bullring bench journal` measures both sides of every batch size and leaves nothing behind."""

import json
from pathlib import Path

import pytest

from scripts.bench import journal


def test_one_line_for_each_batch_size_and_one_for_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = journal.run(["--rounds", "2", "--segment-mib", "2", "--directory", str(tmp_path)])

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [line.get("slots") for line in lines] == [*journal.BATCHES, None]
    assert all(line["commit_us"]["p50"] > 0 and line["raw_fdatasync_us"]["p50"] > 0 for line in lines[:-1])
    assert lines[-1]["records"] == 2 * sum(journal.BATCHES)
    assert list(tmp_path.iterdir()) == []
