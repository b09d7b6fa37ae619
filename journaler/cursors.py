"""How far each consumer of the journal's files has come: one small file each, `consumers/NAME` in the journal's folder.

Whoever reads the log from files and must not miss a record (settlement, archive, surveillance) stores here the next
sequence it will read, after what it made of the records before is durable. Retention deletes nothing a consumer still
needs. A consumer that is gone for good must be removed, or nothing will ever be deleted again.
"""

from __future__ import annotations

import re
from pathlib import Path

from journaler.errors import JournalError
from journaler.segments import sync_directory, write_whole

FOLDER = "consumers"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")


def store_cursor(directory: Path, name: str, sequence: int) -> None:
    """Say that `name` needs no record below `sequence` any more; durable when this returns.

    Raises ValueError for a name that is not 1 to 32 of a-z 0-9 -, or a sequence below 0.
    """
    if _NAME.match(name) is None:
        raise ValueError(f"consumer {name!r}: must be 1..32 characters a-z 0-9 -, the first not -")
    if sequence < 0:
        raise ValueError(f"consumer {name}: sequence {sequence} must not be negative")
    folder = directory / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    write_whole(folder / name, f"{sequence}\n".encode())


def read_cursors(directory: Path) -> dict[str, int]:
    """Return all cursors by name. Raises JournalError for one that cannot be read: nobody may guess what it needs."""
    folder = directory / FOLDER
    if not folder.is_dir():
        return {}
    found = {}
    for path in sorted(folder.iterdir()):
        if _NAME.match(path.name) is None:
            continue  # a draft that a crash left
        text = path.read_text(errors="replace")
        if re.fullmatch(r"\d{1,19}\n", text) is None:
            raise JournalError(f"{path} holds no sequence: store it again, or remove it with the consumer")
        found[path.name] = int(text)
    return found


def remove_cursor(directory: Path, name: str) -> bool:
    """Forget a consumer; False if there was none of that name."""
    if _NAME.match(name) is None:
        return False
    try:
        (directory / FOLDER / name).unlink()
    except FileNotFoundError:
        return False
    sync_directory(directory / FOLDER)
    return True
