"""The durable order of events: group commit, chained checksums, one commit cursor, recovery.

Stores bytes and sequences, not orders: imports ringbuf and nothing else of ours.
"""

from journaler.archive import append_missing, append_missing_market
from journaler.errors import ArchiveDiverged, JournalError, JournalHalted, JournalLocked, JournalRefused
from journaler.reader import LogFollower, LogReader, ReportArchive
from journaler.writer import Journaler, JournalerConfig

__all__ = [
    "ArchiveDiverged",
    "JournalError",
    "JournalHalted",
    "JournalLocked",
    "JournalRefused",
    "Journaler",
    "JournalerConfig",
    "LogFollower",
    "LogReader",
    "ReportArchive",
    "append_missing",
    "append_missing_market",
]
