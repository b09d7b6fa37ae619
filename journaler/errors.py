"""What the journal refuses, and with what words."""

from __future__ import annotations

from pathlib import Path


class JournalError(Exception):
    """The journal cannot be used as it stands."""


class JournalRefused(JournalError):
    """Damage that must not be repaired here: acknowledged records may be missing (J4, J5, J6)."""

    def __init__(self, reason: str, *, path: Path, offset: int, sequence: int, advice: str) -> None:
        super().__init__(f"{path} at byte {offset}, sequence {sequence}: {reason}. {advice}")
        self.reason = reason
        self.path = path
        self.offset = offset
        self.sequence = sequence
        self.advice = advice


class JournalLocked(JournalError):
    """Another process writes this journal; the caller exits with code 75 and does not wait (R3)."""


class JournalHalted(JournalError):
    """The stage stopped with everything acknowledged durable: no space for the next segment (J9)."""


class ArchiveDiverged(JournalError):
    """A regenerated report differs from the archived one: the same log must give the same reports."""
