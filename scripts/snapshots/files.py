"""Image files: the state of one owner, as `engine.image` gives it.

    magic "BRIMAGE1" | layout u64 | head bytes u64 | arena bytes u64 | runs u64 | head | runs x (offset u64, bytes u64)
    | bytes of the runs

All little-endian. Validity is the manifest's SHA-256 over the whole file: nothing of a file is used before it agrees.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from engine import Matcher, Sequencer, image_arena, image_head, image_layout, image_loaded, image_runs

MAGIC = b"BRIMAGE1"
HEADER = Struct("<8sQQQQ")
RUN = Struct("<QQ")
READ_BYTES = 1 << 22

Owner = Sequencer | Matcher


class SnapshotError(Exception):
    """A snapshot cannot be used, or cannot be taken now: why."""


@dataclass(frozen=True)
class FileFact:
    """A file as the manifest knows it."""

    size_bytes: int
    sha256: str


def write_image(path: Path, owner: Owner) -> FileFact:
    """Store an owner's image and sync it; return what the manifest has to say of it."""
    head, runs = image_head(owner), list(image_runs(owner))
    arena_bytes = runs[-1][0] + len(runs[-1][1]) if runs else 0
    digest = hashlib.sha256()
    size = 0
    with path.open("xb") as file:

        def put(part: bytes | memoryview) -> None:
            nonlocal size
            file.write(part)
            digest.update(part)
            size += len(part)

        put(HEADER.pack(MAGIC, image_layout(), len(head), arena_bytes, len(runs)))
        put(head)
        put(b"".join(RUN.pack(offset, len(view)) for offset, view in runs))
        for _, view in runs:
            put(view)
        file.flush()
        os.fsync(file.fileno())
    return FileFact(size, digest.hexdigest())


def check_file(path: Path, fact: FileFact) -> None:
    """Read a file again and compare. Raises SnapshotError."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while part := file.read(READ_BYTES):
                digest.update(part)
                size += len(part)
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error.strerror}") from error
    if size != fact.size_bytes:
        raise SnapshotError(f"{path} has {size} bytes, the manifest says {fact.size_bytes}")
    if digest.hexdigest() != fact.sha256:
        raise SnapshotError(f"{path} is not what was written: its SHA-256 differs from the manifest's")


def load_image(path: Path, owner: Owner) -> None:
    """Put a checked image into an owner that has applied nothing. Raises SnapshotError if it does not fit."""
    with path.open("rb", buffering=0) as file:
        magic, layout, head_bytes, arena_bytes, run_count = HEADER.unpack(file.read(HEADER.size))
        if magic != MAGIC or layout != image_layout():
            raise SnapshotError(f"{path} was written by a build that lays state out otherwise")
        head = file.read(head_bytes)
        runs = list(RUN.iter_unpack(file.read(run_count * RUN.size)))
        arena = image_arena(owner)
        if arena_bytes > len(arena):
            raise SnapshotError(f"{path} needs an arena of {arena_bytes} bytes, this one has {len(arena)}")
        for offset, size in runs:
            if file.readinto(arena[offset : offset + size]) != size:
                raise SnapshotError(f"{path} ends early")
    arena.release()
    image_loaded(owner, head)
