"""`bullring bench journal` measures every side of every batch size and leaves nothing behind."""

import json
import shutil
from pathlib import Path

import pytest

from scripts.bench import journal


def test_one_line_for_each_batch_size_load_and_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--rounds", "1", "--commits", "8", "--load-ms", "50", "--segment-mib", "2"]

    code = journal.run([*options, "--directory", str(tmp_path)])

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "note" not in line]
    closed = [line for line in lines if line["bench"] == "journal"]
    assert code == 0
    assert [line["slots"] for line in closed] == list(journal.BATCHES)
    assert all(line["commit_us"]["p50"] > 0 and line["raw_us"]["p50"] > 0 for line in closed)
    assert all((line["fio_per_s"] is not None) == (shutil.which("fio") is not None) for line in closed)
    loads = [line for line in lines if line["bench"] == "journal-load"]
    assert [line["rate"] for line in loads] == list(journal.RATES)
    assert all(sum(line["batch_slots"].values()) > 0 and line["latency_us"]["p50"] > 0 for line in loads)
    assert lines[-1]["bench"] == "journal-read" and lines[-1]["records"] > 0
    assert list(tmp_path.iterdir()) == []
