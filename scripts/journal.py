"""`bullring journal`: the journal's own tools, given the snapshots of the node that the journal belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journaler import commands
from journaler.retention import SnapshotFact


class NoSnapshots:
    """A node that keeps none: nothing of its journal may be deleted."""

    def snapshots(self) -> Sequence[SnapshotFact]:
        return ()


def snapshots_of(directory: Path) -> NoSnapshots:
    """Return the index of the snapshots beside a journal's folder."""
    return NoSnapshots()


def run(arguments: Sequence[str]) -> int:
    return commands.run(list(arguments), snapshots=snapshots_of)
