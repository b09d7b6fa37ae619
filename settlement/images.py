"""Images of the derivation's state in files, so that a start goes on from one instead of the log's first record.

Two are kept. The log may lose what lies before the older one: the newer one may be as new as the books, and a start
wants to compare a record of the log with the one the books end with. Whatever is wrong with an image, it is passed
over; the log from its first record on always does.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from settlement.definitions import Definitions
from settlement.derivation import SLOT_SIZE, Derivation

KEPT = 2
MAGIC = b"BLRIMG01"
DIGEST_SIZE = 32
_HEAD = struct.Struct(f"<8s{DIGEST_SIZE}sQ")  # magic, digest of what follows, rows of owners
_NAME = re.compile(r"(\d{20})\.image\Z")


@dataclass(frozen=True, slots=True)
class Image:
    """The state behind record `position` - 1, which is `last_record`."""

    position: int
    last_record: bytes
    owners: np.ndarray[tuple[int, int], np.dtype[np.uint32]]  # settlement/definitions.py
    state: bytes  # settlement/image.h

    @classmethod
    def of(cls, derivation: Derivation, definitions: Definitions, last_record: bytes) -> Image:
        return cls(derivation.position, last_record, definitions.owners(), derivation.image())

    def pack(self) -> bytes:
        body = self.last_record + self.owners.tobytes() + self.state
        rows = len(self.owners)
        return _HEAD.pack(MAGIC, _digest(rows, body), rows) + body

    @classmethod
    def unpack(cls, position: int, data: bytes) -> Image | None:
        """None if it is damaged."""
        if len(data) < _HEAD.size:
            return None
        magic, digest, rows = _HEAD.unpack_from(data)
        body = data[_HEAD.size :]
        if magic != MAGIC or digest != _digest(rows, body):
            return None
        owners_end = SLOT_SIZE + rows * 12
        owners = np.frombuffer(body[SLOT_SIZE:owners_end], np.uint32).reshape(-1, 3)
        return cls(position, body[:SLOT_SIZE], owners, body[owners_end:])


class Images:
    """The images in one folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def positions(self) -> list[int]:
        """Return the records that images go on at, oldest first."""
        if not self._directory.is_dir():
            return []
        found = (_NAME.match(path.name) for path in self._directory.iterdir())
        return sorted(int(match.group(1)) for match in found if match is not None)

    def load(self, position: int) -> Image | None:
        """None if it is not there or damaged."""
        try:
            return Image.unpack(position, self._path(position).read_bytes())
        except OSError:
            return None

    def store(self, image: Image) -> None:
        """Keep an image, and drop those that are no longer needed; durable when this returns. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._directory / "draft"
        with draft.open("wb") as file:
            file.write(image.pack())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._path(image.position))
        # The name is durable before anybody hears that the log before it may go.
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        # What lies beyond is of books that went further and are gone.
        positions = [position for position in self.positions() if position <= image.position]
        for position in set(self.positions()) - set(positions[-KEPT:]):
            self._path(position).unlink()

    def oldest(self, *, log_first: int, end: int, insurance_account: int) -> Derivation | None:
        """Return the derivation to go through the log's files with, which begin at `log_first`; None without one."""
        if log_first == 0:
            return Derivation(insurance_account=insurance_account)
        for position in self.positions():
            if log_first <= position <= end:
                image = self.load(position)
                derivation = None if image is None else Derivation.from_image(image.state)
                if derivation is not None and derivation.insurance_account == insurance_account:
                    return derivation
        return None

    def clear(self) -> None:
        """Forget all: the books are made again from the log's first record."""
        for position in self.positions():
            with contextlib.suppress(FileNotFoundError):
                self._path(position).unlink()

    @property
    def needed_from(self) -> int:
        """The first record of the log that a start may still need."""
        positions = self.positions()
        return positions[0] if len(positions) >= KEPT else 0

    def _path(self, position: int) -> Path:
        return self._directory / f"{position:020d}.image"


def _digest(rows: int, body: bytes) -> bytes:
    return blake2b(rows.to_bytes(8, "little") + body, digest_size=DIGEST_SIZE).digest()
