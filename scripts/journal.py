"""`bullring journal`: the journal's own tools, given the snapshots of the node that the journal belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journaler import commands
from scripts.snapshots.store import SnapshotStore


def snapshots_of(directory: Path) -> SnapshotStore:
    """Return the index of the snapshots beside a journal's folder."""
    return SnapshotStore(directory.resolve().parent)


def run(arguments: Sequence[str]) -> int:
    return commands.run(list(arguments), snapshots=snapshots_of)
