"""Load a snapshot in a process of its own and replay the log behind it (S2).

    python -m scripts.snapshots.verifying FOLDER JOURNAL TO

prints {"state_hash": ..., "output_hash": ...} as of record TO. Hash marks on the way are compared, tables recounted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engine import EngineError
from journaler import JournalError
from scripts.config import CHECKOUT
from scripts.exit_codes import ExitCode
from scripts.priority import NICE_MAX, step_back
from scripts.snapshots.files import SnapshotError, check_file
from scripts.snapshots.loading import load_replica
from scripts.snapshots.replaying import follow
from scripts.snapshots.store import Manifest


def replay(folder: Path, journal: Path, to: int) -> tuple[str, str]:
    """Return (state hash, output hash) of the snapshot replayed to record `to`. Raises SnapshotError."""
    manifest = Manifest.load(folder)
    for name, fact in manifest.files.items():
        check_file(folder / name, fact)
    replica = load_replica(folder, manifest)
    try:
        if replica.state_hash().hex() != manifest.state_hash:
            raise SnapshotError(f"{folder}: the state loaded is not the state that was stored")
        follow(journal, replica, to)
        if wrong := replica.check():
            raise SnapshotError(f"{folder}, replayed to {to}: {wrong}")
        return replica.state_hash().hex(), replica.output_hash.hex()
    finally:
        replica.close()


def replay_elsewhere(folder: Path, journal: Path, to: int) -> tuple[str, str]:
    """The same, in a fresh process. Raises SnapshotError with what that one said."""
    command = [sys.executable, "-m", "scripts.snapshots.verifying", str(folder), str(journal), str(to)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise SnapshotError(said[-1] if said else f"the verifying process ended with {done.returncode}")
    answer = json.loads(done.stdout)
    return answer["state_hash"], answer["output_hash"]


def main(arguments: Sequence[str]) -> int:
    folder, journal, to = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    step_back(NICE_MAX)
    try:
        state, outputs = replay(folder, journal, to)
    except (SnapshotError, EngineError, JournalError) as error:
        print(error, file=sys.stderr)
        return ExitCode.NEGATIVE
    print(json.dumps({"state_hash": state, "output_hash": outputs}))
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
