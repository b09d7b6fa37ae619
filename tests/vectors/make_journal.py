"""Write the golden journal of the current format into journal-FORMAT/: one segment without its zeros, one mark.

    python -m tests.vectors.make_journal

A file that is there is a promise: journals of that format can be read for ever. A new format gets a new folder; an old
folder is never written again, so this refuses to.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from journaler.format import FORMAT
from journaler.marks import MARK_FILE
from journaler.recover import recover
from journaler.segments import list_segments
from tests.kit import journals


def golden_slots() -> list[bytes]:
    """The batches of the golden journal: an epoch, single records, a linked group, another epoch."""
    return [
        journals.slot(0) + journals.slot(1),
        journals.epoch_start(2, 1) + journals.slot(3, flags=journals.LAZY),
        journals.group(4, 8),
        journals.epoch_start(12, 3),
        journals.singles(13, 3),
    ]


def main() -> int:
    folder = Path(__file__).with_name(f"journal-{FORMAT}")
    if folder.exists():
        print(f"{folder.name} exists: a golden journal is never written again", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with journals.log_ring() as ring, journals.opened(directory, ring) as journaler:
            for slots in golden_slots():
                journals.publish(ring, slots)
                journals.poll_all(journaler, ring)
        used = recover(directory).position.offset
        segment = list_segments(directory)[0].path
        folder.mkdir()
        (folder / segment.name).write_bytes(segment.read_bytes()[:used])
        (folder / MARK_FILE).write_bytes((directory / MARK_FILE).read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
