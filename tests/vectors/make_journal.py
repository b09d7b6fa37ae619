"""Write golden journals: one segment without its zeros, one mark. Whatever is there is never written again.

    python -m tests.vectors.make_journal

journal-FORMAT/                   batches, groups and epochs of a format of the files
journal-FORMAT-schema-VERSION/    a record of every template a log may hold, and records.json: what they say, by name

A folder that is there is a promise: journals of that format and schema can be read for ever. A new format or schema
version gets a new folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from journaler.export import LOG_BLOCK_MAX, LOG_TEMPLATES
from journaler.format import FORMAT
from journaler.inspect import records
from journaler.marks import MARK_FILE
from journaler.recover import recover
from journaler.segments import list_segments
from ringbuf.wire.messages import MESSAGES, SCHEMA_HASH, SCHEMA_VERSION, Template
from tests.kit import journals

HERE = Path(__file__).parent
RECORDS_FILE = "records.json"
FLAG_REJECT, TIER = 4, 3 << 8


def golden_slots() -> list[bytes]:
    """The batches of the format's golden journal: an epoch, single records, a linked group, another epoch."""
    return [
        journals.slot(0) + journals.slot(1),
        journals.epoch_start(2, 1) + journals.slot(3, flags=journals.LAZY),
        journals.group(4, 8),
        journals.epoch_start(12, 3),
        journals.singles(13, 3),
    ]


def schema_slots() -> list[bytes]:
    """One record of every template a log may hold, no byte of its block zero; some refused, some linked."""
    slots = [journals.epoch_start(0, 5)]
    for template, message in sorted(MESSAGES.items()):
        if template == Template.EPOCH_START or message.BLOCK_LENGTH > LOG_BLOCK_MAX:
            continue
        if any(template in each for each in LOG_TEMPLATES):
            sequence = len(slots)
            block = bytes((index * 7 + template) % 100 + 1 for index in range(message.BLOCK_LENGTH))
            flags = TIER if sequence % 3 else FLAG_REJECT
            slots.append(journals.slot(sequence, template=template, block=block, flags=flags))
    return [*slots, journals.group(len(slots), 3)]


def write(folder: Path, batches: Sequence[bytes], *, schema_hash: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with journals.log_ring() as ring, journals.opened(directory, ring, schema_hash=schema_hash) as journaler:
            for slots in batches:
                journals.publish(ring, slots)
                journals.poll_all(journaler, ring)
        used = recover(directory).position.offset
        segment = list_segments(directory)[0].path
        folder.mkdir()
        (folder / segment.name).write_bytes(segment.read_bytes()[:used])
        (folder / MARK_FILE).write_bytes((directory / MARK_FILE).read_bytes())


def main() -> int:
    made = 0
    folder = HERE / f"journal-{FORMAT}"
    if not folder.exists():
        write(folder, golden_slots(), schema_hash=0)
        made += 1
    folder = HERE / f"journal-{FORMAT}-schema-{SCHEMA_VERSION}"
    if not folder.exists():
        write(folder, schema_slots(), schema_hash=SCHEMA_HASH)
        lines = [json.dumps(record) for record in records(folder, 0, None)]
        (folder / RECORDS_FILE).write_text("[\n" + ",\n".join(lines) + "\n]\n")
        made += 1
    print(f"{made} golden journals made; those that are there are never written again", file=sys.stderr)
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
