"""Closed segments copied to another folder, each verified by reading it back; what retention asks before it deletes."""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path

from journaler.errors import JournalError
from journaler.segments import DIRECT_CHUNK, open_direct, sync_directory


def file_sha256(path: Path, *, direct: bool = False) -> str:
    """Return the SHA-256 of a file, in hex. `direct`: from the disk itself, where the filesystem can do that."""
    if direct:
        try:
            fd = open_direct(path)
        except OSError:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    else:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    # O_DIRECT needs memory that begins with a page.
    with mmap.mmap(-1, DIRECT_CHUNK) as buffer, os.fdopen(fd, "rb", buffering=0) as file:
        digest = hashlib.sha256()
        view = memoryview(buffer)
        try:
            while count := file.readinto(view):
                digest.update(view[:count])
        finally:
            view.release()
    return digest.hexdigest()


class DirectoryArchive:
    """A folder, best on another disk or host, with copies of closed segments under their own names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def holds(self, path: Path) -> bool:
        """Whether the archive has this file with these very bytes: both sides are read."""
        copy = self.folder / path.name
        if not copy.is_file() or copy.stat().st_size != path.stat().st_size:
            return False
        return file_sha256(copy, direct=True) == file_sha256(path)

    def store(self, path: Path) -> None:
        """Copy a closed file: temporary name, sync, read back from the disk, name, sync of the folder.

        Raises JournalError if the name is taken by other bytes, or the copy does not read back as it was written.
        """
        if self.holds(path):
            return
        copy = self.folder / path.name
        if copy.exists():
            raise JournalError(
                f"{copy} is there with other bytes than {path}: find out which is right, then remove one"
            )
        draft = copy.with_name(f"{copy.name}.tmp")
        with path.open("rb") as source, draft.open("wb") as target:
            while chunk := source.read(DIRECT_CHUNK):
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        if file_sha256(draft, direct=True) != file_sha256(path):
            draft.unlink()
            raise JournalError(f"{draft} did not read back as it was written: the archive's disk is damaged")
        draft.rename(copy)
        sync_directory(self.folder)
