"""Shared-memory segments: created whole or not at all, prefaulted, locked if allowed, removed by their owner (R8)."""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import posix_ipc

from ringbuf._ring import ffi, lib
from ringbuf.errors import LayoutMismatch, NoMemory, ProducerBusy, SegmentExists, SegmentMissing, SegmentNotReady

EXIT_PRODUCER_BUSY = 75  # EX_TEMPFAIL: what a process exits with that is one producer too many (R3)

_SHM = Path("/dev/shm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SEGMENT_MODE = 0o600


def shared_name(name: str) -> str:
    """Return `name` with the one leading slash that POSIX wants."""
    bare = name.removeprefix("/")
    if not bare or "/" in bare or len(bare) > 200:
        raise ValueError(f"{name!r} is no name of a shared-memory segment")
    return f"/{bare}"


def boot_id() -> tuple[int, int]:
    """Return the running kernel's boot id as two little-endian words: memory of an earlier boot is refused."""
    raw = bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


def check_field(name: str, field: str, *, expected: object, actual: object) -> None:
    """Raise LayoutMismatch unless both are equal."""
    if expected != actual:
        raise LayoutMismatch(name, field=field, expected=expected, actual=actual)


def map_file(fd: int, size_bytes: int, *, writable: bool) -> Any:
    """Map an open file whole and shared; returns a `segment_t *` for unmap()."""
    mapping = ffi.new("segment_t *")
    _checked(lib.segment_map(fd, size_bytes, writable, mapping))
    return mapping


def unmap(mapping: Any) -> None:
    """Undo map_file(); a second time does nothing."""
    _checked(lib.segment_unmap(mapping))


class Segment:
    """A mapped piece of memory. Close it after everything that points into it; the owner's close removes its name."""

    def __init__(self, name: str, mapping: Any, *, owner: bool, writable: bool) -> None:
        self.name = name
        self.owner = owner
        self.writable = writable
        self._mapping = mapping

    @classmethod
    def create(cls, name: str, *, size_bytes: int) -> "Segment":
        """Make a zeroed segment, every page present. Raises SegmentExists, or NoMemory and leaves nothing behind."""
        shared = shared_name(name)
        try:
            memory = posix_ipc.SharedMemory(shared, posix_ipc.O_CREX, mode=_SEGMENT_MODE)
        except posix_ipc.ExistentialError:
            raise SegmentExists(shared) from None
        try:
            _allocate(memory.fd, shared, size_bytes)
            mapping = map_file(memory.fd, size_bytes, writable=True)
        except BaseException:
            posix_ipc.unlink_shared_memory(shared)
            raise
        finally:
            memory.close_fd()
        return cls(shared, mapping, owner=True, writable=True)

    @classmethod
    def attach(cls, name: str, *, writable: bool = True) -> "Segment":
        """Map an existing segment whole. Raises SegmentMissing. Its content is the caller's to check."""
        shared = shared_name(name)
        try:
            memory = posix_ipc.SharedMemory(shared, read_only=not writable)
        except posix_ipc.ExistentialError:
            raise SegmentMissing(shared) from None
        try:
            size_bytes = os.fstat(memory.fd).st_size
            if size_bytes == 0:
                raise SegmentNotReady(shared)
            mapping = map_file(memory.fd, size_bytes, writable=writable)
        finally:
            memory.close_fd()
        return cls(shared, mapping, owner=False, writable=writable)

    @classmethod
    def private(cls, *, size_bytes: int) -> "Segment":
        """Map zeroed memory without a name; forked children share it."""
        mapping = ffi.new("segment_t *")
        _checked(lib.segment_map_private(size_bytes, mapping))
        return cls("(private)", mapping, owner=False, writable=True)

    @property
    def address(self) -> Any:
        """The mapping as `void *`."""
        if self._mapping.address == ffi.NULL:
            raise ValueError(f"segment {self.name} is closed")
        return self._mapping.address

    @property
    def size_bytes(self) -> int:
        return int(self._mapping.size)

    @property
    def locked(self) -> bool:
        """Whether mlock was allowed (best effort: RLIMIT_MEMLOCK, CAP_IPC_LOCK)."""
        return bool(self._mapping.lock_errno == 0)

    @property
    def prefaulted(self) -> bool:
        return bool(self._mapping.prefault_errno == 0)

    @property
    def closed(self) -> bool:
        return bool(self._mapping.address == ffi.NULL)

    def close(self) -> None:
        """Unmap; the owner also removes the name. Others that have it mapped keep their memory."""
        if self.closed:
            return
        unmap(self._mapping)
        if self.owner:
            remove_segment(self.name)

    def __enter__(self) -> "Segment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_segment(name: str) -> bool:
    """Remove the name; returns whether there was one."""
    try:
        posix_ipc.unlink_shared_memory(shared_name(name))
    except posix_ipc.ExistentialError:
        return False
    return True


def segments_under(prefix: str) -> Iterator[str]:
    """Yield the names of existing segments that begin with `prefix`: what a dead supervisor left behind."""
    bare = prefix.removeprefix("/")
    for path in sorted(_SHM.iterdir()):
        if path.name.startswith(bare):
            yield f"/{path.name}"


class ProducerLock:
    """The one producer of a ring: a lock that the kernel drops with the process, however it ends (R3).

    A child forked without exec shares it: the lock then lasts until both are gone.
    """

    def __init__(self, ring_name: str, run_dir: Path) -> None:
        self.path = run_dir / f"{ring_name.removeprefix('/')}.producer.lock"
        run_dir.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0)
            os.close(fd)
            raise ProducerBusy(ring_name, holder_pid=int(holder) if holder.isdigit() else 0) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _allocate(fd: int, name: str, size_bytes: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        room = os.fstatvfs(fd)
        raise NoMemory(name, size_bytes=size_bytes, free_bytes=room.f_bavail * room.f_bsize) from None


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
