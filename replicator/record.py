"""What a node must remember of its promises (F1, F6, F13): one small file, replaced whole, synced before it counts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from journaler.format import crc32c
from replicator.errors import ReplicatorError
from replicator.events import Record

FILE = "failover.json"


class RecordFile:
    """The file in the node's data folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def load(self) -> Record:
        """Return what was stored last; an empty record if this node never was part of a cluster.

        Raises ReplicatorError for a damaged file: a node that has forgotten its promises must not vote.
        """
        try:
            facts = json.loads(self.path.read_text())
            record = Record(**facts["record"])
        except FileNotFoundError:
            return Record()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReplicatorError(f"{self.path} cannot be read: {error}. {_ADVICE}") from error
        if facts.get("crc32c") != _crc(record):
            raise ReplicatorError(f"{self.path} is damaged: its checksum does not fit. {_ADVICE}")
        return record

    def store(self, record: Record) -> None:
        """Write and sync; when this returns, the record survives a power loss."""
        draft = self.path.with_suffix(".new")
        with draft.open("w") as file:
            json.dump({"record": asdict(record), "crc32c": _crc(record)}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


_ADVICE = "Without its promises this node must not take part: seed it anew from the other one"


def _crc(record: Record) -> int:
    return crc32c(json.dumps(asdict(record), sort_keys=True).encode())
