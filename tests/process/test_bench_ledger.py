"""`bullring bench ledger` measures what it says, at a size that takes seconds."""

import json
from pathlib import Path

import pytest

from scripts.bench import ledger
from scripts.exit_codes import CommandError

SMALL = ["--trades", "3000", "--rounds", "1", "--postings", "20000", "--mine", "500", "--events", "10000"]


@pytest.mark.slow
def test_every_part_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ledger.run([*SMALL, "--stores", "chdb", "--dir", str(tmp_path)]) == 0

    lines = {line["part"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert lines["ingest"]["trades"] == 3000
    assert lines["ingest"]["rows"] > 5 * 3000
    assert lines["ingest"]["ratio"] > 0
    assert (lines["statement"]["lines"], lines["statement"]["lines_of_a_hundredth"]) == (500, 5)
    assert lines["recount"]["records"] > 8000
    assert lines["recount"]["marks_compared"] > 0
    assert lines["recount"]["marks_differing"] == 0
    assert list(tmp_path.iterdir()) == []


def test_unknown_parts_are_named() -> None:
    with pytest.raises(CommandError, match="--parts colours: must be of ingest, statement, recount"):
        ledger.run(["--parts", "colours"])
