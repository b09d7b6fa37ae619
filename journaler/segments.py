"""The files of a journal directory: names, order, whole reads."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path

from journaler.errors import JournalError

PANIC_FILE = "panic"
LOCK_FILE = "lock"
TRIM_FILE = "trimmed"  # where retention let the log begin
DIRECT_CHUNK = 1 << 20
_SEGMENT_NAME = re.compile(r"segment-(\d{20})\.log\Z")
_SPARE_NAME = re.compile(r"spare-(\d+)\.zero\Z")

Buffer = bytes | bytearray | mmap.mmap


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    first_sequence: int  # as the name says
    path: Path


def segment_name(first_sequence: int) -> str:
    return f"segment-{first_sequence:020d}.log"


def audit_name(first_sequence: int) -> str:
    return f"segment-{first_sequence:020d}.audit"


def remove_leftovers(directory: Path, segments_ahead: int) -> None:
    """Remove what a crash left half made, and prepared segments beyond the number wanted now."""
    for path in directory.iterdir():
        match = _SPARE_NAME.match(path.name)
        surplus = match is not None and int(match.group(1)) >= segments_ahead
        if surplus or (path.suffix == ".tmp" and path.name.startswith(("spare-", "segment-"))):
            path.unlink()
    sync_directory(directory)


def list_segments(directory: Path) -> list[Segment]:
    """Return the segments by first sequence."""
    found = []
    for path in directory.iterdir():
        match = _SEGMENT_NAME.match(path.name)
        if match:
            found.append(Segment(int(match.group(1)), path))
    return sorted(found)


def read_segment(path: Path, *, direct: bool = False) -> Buffer:
    """Return the whole file; `direct` reads the disk itself, past the page cache (J8). Raises what the disk does."""
    if not direct:
        return path.read_bytes()
    fd = open_direct(path)
    try:
        size = os.fstat(fd).st_size
        data = mmap.mmap(-1, max(-(-size // DIRECT_CHUNK) * DIRECT_CHUNK, DIRECT_CHUNK))
        view = memoryview(data)
        offset = 0
        while offset < size:
            count = os.preadv(fd, [view[offset : offset + DIRECT_CHUNK]], offset)
            if count == 0:
                break
            offset += count
        result = bytes(view[:size])
        view.release()
        data.close()
        return result
    finally:
        os.close(fd)


def open_direct(path: Path) -> int:
    """Open for reading past the page cache. Raises OSError where the filesystem cannot."""
    return os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a small file: whole or not at all, and durable."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_at(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    draft.replace(path)
    sync_directory(path.parent)


def trimmed_to(directory: Path) -> int:
    """Return up to where retention may have deleted the log's beginning; 0 if it never has."""
    try:
        text = (directory / TRIM_FILE).read_text(errors="replace")
    except FileNotFoundError:
        return 0
    match = re.fullmatch(r"first (\d{1,19})\n", text)
    if match is None:
        raise JournalError(f"{directory / TRIM_FILE} does not say where the log begins: restore it from the archive")
    return int(match.group(1))


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`: a disk that fills up takes a part and says so only when asked for the rest."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock_directory(directory: Path) -> int | None:
    """Return the descriptor that holds the directory's lock, or None if another process has it; never waits."""
    fd = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
