"""What the journaler says of its disk (cell `storage` of the log ring), in words for people."""

from __future__ import annotations

from pathlib import Path

from ringbuf import Storage, StorageLevel

LEVELS = {
    StorageLevel.OK: "room enough",
    StorageLevel.LOW: "space is low: make room",
    StorageLevel.CANCEL_ONLY: "nearly full: only cancels are taken",
    StorageLevel.HALT: "full: the node stops",
}


def storage_text(storage: Storage) -> str:
    """Return the state as one sentence."""
    slow = "; it answers far too slowly: hand over to another node" if storage.slow else ""
    return f"{LEVELS[storage.level]}{slow}"


def disk_full_text(directory: Path) -> str:
    """Return what an operator is told when the node stops for lack of room (J9)."""
    return f"the disk of {directory} is full; everything acknowledged is on it. Make room, then start again"
