"""What is written down when a process ends on a broken invariant, and what the log says about it afterwards."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine import EngineError
from journaler import JournalError, LogReader
from journaler.inspect import decode_slot, one_line
from scripts.config import CHECKOUT
from scripts.exit_codes import ExitCode
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.loading import load_replica
from scripts.snapshots.replaying import quarantined
from scripts.snapshots.store import Manifest, Snapshot

FOLDER = "dumps"
DUMPS_MAX = 100  # the newest are kept: a process may end so again and again
SLOT_SIZE, FLAGS_OFFSET, FLAG_MORE = 128, 14, 1
BROKEN = re.compile(r"^(?P<place>\S+:\d+): invariant broken in (?P<function>\S+): (?P<condition>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Dump:
    """A process that ended on a broken invariant: where, and how far everybody was."""

    process: str
    ts_ns: int
    place: str
    function: str
    condition: str
    log_published: int
    log_visible: int
    reports: dict[str, int]  # published, by partition

    def save(self, data_dir: Path) -> Path:
        folder = data_dir / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(self.ts_ns // 10**9))}-{self.process}.json"
        path.write_text(json.dumps(asdict(self), indent=1))
        for old in sorted(folder.glob("*.json"))[:-DUMPS_MAX]:
            old.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: Path) -> Dump:
        """Read a dump. Raises ValueError or OSError."""
        try:
            return cls(**json.loads(path.read_text()))
        except TypeError as error:
            raise ValueError(f"{path} is no dump: {error}") from error


def broken_invariant(said: str) -> dict[str, str] | None:
    """Return place, function and condition of the last broken invariant in what a process said."""
    found = None
    for match in BROKEN.finditer(said):
        found = match.groupdict()
    return found


def explain(dump: Dump, journal: Path, base: Snapshot | None, replica_at: int) -> dict[str, Any]:
    """Replay the log to where the process was, in a process of its own; say whether it breaks there, too."""
    folder = "" if base is None else str(base.folder)
    command = [sys.executable, "-m", "scripts.auditing.dump", folder, str(journal.parent), str(dump.log_visible)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    reached = [int(line) for line in done.stdout.split() if line.isdecimal()]
    at = reached[-1] if reached else replica_at
    row: dict[str, Any] = asdict(dump) | {"replayed_to": at}
    if done.returncode == ExitCode.OK:
        return row | {
            "verdict": "not by the log",
            "explanation": f"replayed to {at}, nothing breaks and every table adds up: the cause is not a record but "
            "memory, the build or a fault outside of the state. The journal is sound; a restart goes on with it",
        }
    again = broken_invariant(done.stderr)
    row |= {"verdict": "by the log", "again": again, "record": _record(journal, at)}
    what = f"{again['condition']} ({again['place']})" if again else done.stderr.strip().splitlines()[-1:]
    return row | {
        "explanation": f"record {at} breaks it each time: {what}. Keep the log; quarantine it if a matcher dies on it"
    }


def _record(journal: Path, sequence: int) -> str:
    for first, slots in LogReader(journal).batches(sequence, sequence + 1):
        at = (sequence - first) * SLOT_SIZE
        return one_line(decode_slot(sequence, slots[at : at + SLOT_SIZE])).strip()
    return ""


def main(arguments: list[str]) -> int:
    """Replay record by record, saying each one before it is done."""
    from scripts.config import load
    from scripts.snapshots.replaying import start_replica

    folder, data, to = arguments[0], Path(arguments[1]), int(arguments[2])
    journal = data / "journal"
    if folder:
        replica = load_replica(Path(folder), Manifest.load(Path(folder)))
    else:
        replica = start_replica(load(None, {"node.data_dir": str(data)}), None)
    try:
        taken_out = quarantined(journal, replica.position)
        for matcher in replica.matchers:
            matcher.quarantine(taken_out)
        for first, records in LogReader(journal).batches(replica.position, to):
            start = 0
            for at in range(0, len(records), SLOT_SIZE):
                if records[at + FLAGS_OFFSET] & FLAG_MORE:
                    continue
                print(first + start // SLOT_SIZE, flush=True)
                replica.feed(first + start // SLOT_SIZE, records[start : at + SLOT_SIZE])
                start = at + SLOT_SIZE
        wrong = replica.check()
    except (EngineError, JournalError, SnapshotError) as error:
        wrong = str(error)
    if wrong:
        print(wrong, file=sys.stderr)
        return ExitCode.NEGATIVE
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
