"""Repair of a refused journal, by an operator: from a peer's or backup's folder, or by cutting a torn end (J6).

Nothing is ever skipped, truncated or mended in the middle, and nothing is thrown away: what is replaced moves to
`damaged-TIME/` beside it. What is put together is verified as a whole before a single file is moved.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from journaler.errors import JournalLocked, JournalRefused
from journaler.format import FORMAT, MARK_MAGIC, MARK_SLOT_SIZE, MarkSlot, SegmentHeader, crc32c
from journaler.identity import identity_at
from journaler.marks import MARK_FILE, Mark, read_mark
from journaler.recover import Position, Recovery, cut, recover
from journaler.segments import TRIM_FILE, list_segments, lock_directory, sync_directory, trimmed_to

STAGING = "repair.tmp"
RESTORE = "Nothing was changed. Restore the whole folder from a backup, or repair it from another peer"


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair does or did: files taken from the peer, whether all of them, and where the old ones went."""

    recovery: Recovery
    taken: tuple[str, ...]
    whole: bool
    kept_in: Path | None


def cut_end(directory: Path, *, dry_run: bool) -> Repair:
    """Cut a torn end and write a new durable mark, where the mark is lost or damaged and nothing says more was synced.

    The operator vouches that nobody was told of more: without the mark that cannot be seen here (J5). Raises
    JournalRefused for damage anywhere but at the end, and if a valid mark says that more had been synced.
    """
    with _Locked(directory):
        mark = _mark_if_valid(directory)
        recovery = recover(directory, require_mark=False) if mark is not None else _recover_without_mark(directory)
        if dry_run:
            return Repair(recovery, (), False, None)
        kept_in = _keep(directory, [torn.path.name] if (torn := recovery.torn) else [], copy=True)
        cut(recovery)
        write_mark(directory, recovery.position, counter=mark.counter + 1 if mark else 1)
        return Repair(recover(directory), (), False, kept_in)


def from_peer(directory: Path, peer: Path, *, dry_run: bool) -> Repair:
    """Replace damaged or missing segments by those of `peer`: a backup, or the folder of another node.

    A copy of this very journal gives single segments. Another node has cut the same log into other batches: then all
    of its segments are taken, if it holds the same records as far as this node's mark goes (by log hash). Raises
    JournalRefused if that does not give a whole journal; then nothing was changed.
    """
    with _Locked(directory):
        mark = _mark_if_valid(directory)
        staging = directory / STAGING
        if staging.exists():
            shutil.rmtree(staging)  # of a run that a crash ended
        staging.mkdir(mode=0o700)
        try:
            return _from_peer(directory, peer, mark, staging, dry_run=dry_run)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def write_mark(directory: Path, position: Position, *, counter: int) -> None:
    """Write durable.mark anew: the operator's word instead of the journaler's."""
    last = list_segments(directory)[-1:]
    header = SegmentHeader.unpack(last[0].path.read_bytes()[:512]) if last else None
    fields = MarkSlot(
        magic=MARK_MAGIC,
        format=FORMAT,
        crc32c=0,
        counter=counter,
        sequence=position.sequence,
        epoch=position.epoch,
        batch=position.batch,
        log_hash=position.log_hash,
        crc=position.crc,
        node=header.node if header else 0,
        cluster=header.cluster if header else 0,
        segment_first=position.segment_first,
        offset=position.offset,
        ts_ns=time.time_ns(),
    )
    slot = fields._replace(crc32c=crc32c(fields.pack())).pack()
    data = bytes(MARK_SLOT_SIZE) + slot if counter & 1 else slot + bytes(MARK_SLOT_SIZE)
    draft = directory / f"{MARK_FILE}.tmp"
    draft.write_bytes(data)
    _sync(draft)
    draft.replace(directory / MARK_FILE)
    sync_directory(directory)


def _from_peer(directory: Path, peer: Path, mark: Mark | None, staging: Path, *, dry_run: bool) -> Repair:
    theirs = _verify_peer(peer, mark)
    taken = _mix(directory, peer, staging, mark)
    whole = taken is None
    if taken is None:
        taken = _take_all(directory, peer, staging, mark, theirs)
    recovery = recover(staging, require_mark=False)
    if dry_run:
        return Repair(recovery, tuple(taken), whole, None)
    if whole:
        cut(recovery)
    replaced = [segment.path.name for segment in list_segments(directory)] if whole else taken
    kept_in = _keep(directory, [name for name in replaced if (directory / name).exists()], copy=False)
    for name in taken:
        (staging / name).rename(directory / name)
    sync_directory(directory)
    if whole:
        # Audit records of segments that are no more: the next start makes those of the new ones.
        for path in directory.glob("segment-*.audit"):
            path.unlink()
    if whole or mark is None:
        # Ours was of other batches; a copy is kept with the damaged files.
        write_mark(directory, recovery.position, counter=(mark.counter if mark else 0) + 1)
    return Repair(recover(directory), tuple(taken), whole, kept_in)


def _verify_peer(peer: Path, mark: Mark | None) -> Recovery:
    """The peer's journal must be whole, and hold at least what was synced here."""
    theirs = recover(peer, require_mark=False, allow_trimmed=True)
    if mark is not None and theirs.position.sequence < mark.sequence:
        raise JournalRefused(
            f"the peer's journal ends at {theirs.position.sequence}, but {mark.sequence} was synced here",
            path=peer,
            offset=theirs.position.offset,
            sequence=theirs.position.sequence,
            advice=RESTORE,
        )
    return theirs


def _mix(directory: Path, peer: Path, staging: Path, mark: Mark | None) -> list[str] | None:
    """Put our segments together with the peer's in place of those that do not fit; None if that gives no journal."""
    ours = {segment.path.name: segment.path for segment in list_segments(directory)}
    others = {segment.path.name: segment.path for segment in list_segments(peer)}
    for name, path in ours.items():
        (staging / name).symlink_to(path.resolve())
    for name in (MARK_FILE, TRIM_FILE):
        if (directory / name).exists() and (name != MARK_FILE or mark is not None):
            shutil.copyfile(directory / name, staging / name)
    taken: list[str] = []
    while True:
        try:
            recover(staging, require_mark=False)
            return taken
        except JournalRefused as refused:
            wanted = [refused.path.name, *sorted(set(others) - set(ours) - set(taken))]
        except OSError as error:  # a segment that the disk cannot read any more
            wanted = [Path(error.filename).name] if error.filename else []
        usable = [name for name in wanted if name in others and name not in taken]
        if not usable:
            return None
        _copy(others[usable[0]], staging / usable[0])
        taken.append(usable[0])


def _take_all(directory: Path, peer: Path, staging: Path, mark: Mark | None, theirs: Recovery) -> list[str]:
    """Another node's journal as a whole: the same records, cut into other batches."""
    for path in staging.iterdir():
        path.unlink()
    if theirs.first_sequence > trimmed_to(directory):
        raise JournalRefused(
            f"the peer's journal begins at {theirs.first_sequence}",
            path=peer, offset=0, sequence=theirs.first_sequence, advice=RESTORE,
        )  # fmt: skip
    if mark is not None and identity_at(peer, mark.sequence) != mark.log_hash:
        raise JournalRefused(
            f"the peer's log is another one: its records below {mark.sequence} are not those synced here",
            path=peer, offset=0, sequence=mark.sequence, advice=RESTORE,
        )  # fmt: skip
    names = []
    for segment in list_segments(peer):
        _copy(segment.path, staging / segment.path.name)
        names.append(segment.path.name)
    if (directory / TRIM_FILE).exists():
        shutil.copyfile(directory / TRIM_FILE, staging / TRIM_FILE)
    return names


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    _sync(target)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _keep(directory: Path, names: list[str], *, copy: bool) -> Path | None:
    """Put files aside, with the mark as it was."""
    folder = directory / f"damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 10**9:09d}"
    folder.mkdir(mode=0o700)
    for name in names:
        if copy:
            shutil.copyfile(directory / name, folder / name)
        else:
            (directory / name).rename(folder / name)
    if (directory / MARK_FILE).exists():
        shutil.copyfile(directory / MARK_FILE, folder / MARK_FILE)
    sync_directory(folder)
    return folder


def _mark_if_valid(directory: Path) -> Mark | None:
    try:
        return read_mark(directory)
    except JournalRefused:
        return None


def _recover_without_mark(directory: Path) -> Recovery:
    """Judge the segments alone, where the mark is there but damaged."""
    path = directory / MARK_FILE
    if not path.exists():
        return recover(directory, require_mark=False)
    aside = directory / f"{MARK_FILE}.aside"
    path.rename(aside)
    try:
        return recover(directory, require_mark=False)
    finally:
        aside.rename(path)


class _Locked:
    """Nobody may write the journal meanwhile."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        fd = lock_directory(self._directory)
        if fd is None:
            raise JournalLocked(f"{self._directory} is being written by a running exchange: stop that first")
        self._fd = fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
