"""The state that follows from a journal's files, rebuilt here: what a backup is worth, what two nodes share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from engine import ComposedEngine, EngineConfig, EngineError
from journaler import LogReader
from ringbuf.wire.messages import Template
from scripts.node import SLOT_SIZE, TEMPLATE_OFFSET, read_genesis

_TEMPLATE = Struct("<H")
_STAMP = Struct("<Q")
STAMP_OFFSET = 112  # the sequencer's clock, CORE section 8


@dataclass
class Rebuilt:
    """What came of it. `fault` is empty if every hash mark agreed and the sums of all balances are right."""

    state_hash: bytes = b""
    records: int = 0
    hash_marks: int = 0
    last_ns: int = 0
    fault: str = ""


def rebuild(journal: Path, end: int | None = None) -> Rebuilt:
    """Apply the records below `end` (all there are) from the first on, comparing every hash mark with the state.

    Raises JournalError if the files are damaged.
    """
    found = Rebuilt()
    genesis = read_genesis(journal)
    if genesis is None:
        return found
    engine = ComposedEngine(EngineConfig.of_genesis(genesis))
    try:
        engine.replay(_counted(LogReader(journal).batches(0, end), found))
        engine.check()
        found.state_hash = engine.state_hash()
    except (AssertionError, EngineError) as error:
        found.fault = str(error)
    finally:
        engine.close()
    return found


def _counted(batches: Iterator[tuple[int, bytes]], found: Rebuilt) -> Iterator[tuple[int, bytes]]:
    for first, slots in batches:
        for at in range(0, len(slots), SLOT_SIZE):
            (template,) = _TEMPLATE.unpack_from(slots, at + TEMPLATE_OFFSET)
            found.hash_marks += template == Template.HASH_MARK
        found.records = first + len(slots) // SLOT_SIZE
        (found.last_ns,) = _STAMP.unpack_from(slots, len(slots) - SLOT_SIZE + STAMP_OFFSET)
        yield first, slots
