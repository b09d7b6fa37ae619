"""Doorbells that wake a sleeping process, and the loop that runs stages and waits by name: spin, yield, park."""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from ringbuf._ring import ffi, lib
from ringbuf.errors import DoorbellBusy, DoorbellsFull, SegmentNotReady
from ringbuf.segment import Segment, boot_id, check_field

DOORBELLS_MAX: int = lib.DOORBELLS_MAX
STAGES_MAX: int = lib.RUNNER_STAGES_MAX
WAITS = {"spin": lib.RUNNER_SPIN, "yield": lib.RUNNER_YIELD, "park": lib.RUNNER_PARK}

_POLL_LIMIT_DEFAULT = 256
_IDLE_TIMEOUT_NS_DEFAULT = 100_000_000


class DoorbellKind(IntEnum):
    FREE = lib.DOORBELL_FREE
    TAKEN = lib.DOORBELL_TAKEN
    FUTEX = lib.DOORBELL_FUTEX
    FIFO = lib.DOORBELL_FIFO


@dataclass(frozen=True)
class DoorbellState:
    """One cell as it stood when asked."""

    index: int
    name: str
    kind: DoorbellKind
    sleeping: bool
    pid: int
    rings: int  # wake-ups made by publishers, each one syscall
    sleeps: int


class Doorbells:
    """This process's view of the node's doorbells; give it to every ring it publishes to. `ptr` is for C.

    `run_dir` is where the FIFOs of socket loops are; the same for all processes of a node.
    """

    def __init__(self, segment: Segment, run_dir: Path | None) -> None:
        self.segment = segment
        self.run_dir = run_dir
        self.ptr = ffi.new("doorbells_t *")
        self._directory = -1 if run_dir is None else os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        lib.doorbells_attach(self.ptr, segment.address, self._directory)

    @classmethod
    def create(cls, name: str, *, run_dir: Path | None = None) -> "Doorbells":
        """Make the node's doorbells; close() removes them. Raises SegmentExists."""
        segment = Segment.create(name, size_bytes=lib.DOORBELLS_SIZE)
        lib.doorbells_format(segment.address, list(boot_id()))
        return cls(segment, run_dir)

    @classmethod
    def attach(cls, name: str, *, run_dir: Path | None = None) -> "Doorbells":
        """Attach to them. Raises SegmentMissing, SegmentNotReady or LayoutMismatch."""
        segment = Segment.attach(name)
        try:
            _check_identity(segment)
            return cls(segment, run_dir)
        except BaseException:
            segment.close()
            raise

    @classmethod
    def private(cls, *, run_dir: Path | None = None) -> "Doorbells":
        """Make doorbells without a name, for tests; forked children share them."""
        segment = Segment.private(size_bytes=lib.DOORBELLS_SIZE)
        lib.doorbells_format(segment.address, list(boot_id()))
        return cls(segment, run_dir)

    def futex(self, name: str) -> "Doorbell":
        """Take the cell of `name`, for a loop that waits for rings only.

        A restarted process gets its own cell again. Raises DoorbellBusy if another live process has that name,
        DoorbellsFull if no cell is left.
        """
        return Doorbell(self, self._take(name, DoorbellKind.FUTEX), fd=-1)

    def fifo(self, name: str) -> "Doorbell":
        """Take the cell of `name` with a FIFO of that name in the run directory, for a loop that waits for sockets."""
        if self.run_dir is None:
            raise ValueError("a FIFO doorbell needs the run_dir")
        path = self.run_dir / name
        if not path.exists():
            os.mkfifo(path, 0o600)
        if not stat.S_ISFIFO(path.stat().st_mode):
            raise FileExistsError(f"{path} exists and is no FIFO")
        # Before the cell is taken: from then on publishers open it. Writable too, so that epoll never sees a hang-up.
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return Doorbell(self, self._take(name, DoorbellKind.FIFO), fd=fd)
        except BaseException:
            os.close(fd)
            raise

    def state(self, index: int) -> DoorbellState:
        view = ffi.new("doorbell_view_t *")
        lib.doorbells_view(self.ptr, index, view)
        return DoorbellState(
            index=index,
            name=ffi.string(view.name).decode(),
            kind=DoorbellKind(view.kind),
            sleeping=bool(view.sleeping),
            pid=int(view.pid),
            rings=int(view.rings),
            sleeps=int(view.sleeps),
        )

    @property
    def taken(self) -> list[DoorbellState]:
        states = (self.state(index) for index in range(DOORBELLS_MAX))
        return [state for state in states if state.kind is not DoorbellKind.FREE]

    def close(self) -> None:
        """Let go of the segment. Rings that were given these doorbells must be closed before."""
        if self.segment.closed:
            return
        lib.doorbells_close(self.ptr)
        if self._directory >= 0:
            os.close(self._directory)
        self.segment.close()

    def __enter__(self) -> "Doorbells":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, name: str, kind: DoorbellKind) -> int:
        raw = name.encode()
        if not raw or len(raw) >= lib.DOORBELL_NAME_MAX or b"/" in raw:
            raise ValueError(f"{name!r} is no name of a doorbell (a file name below {lib.DOORBELL_NAME_MAX} bytes)")
        index = int(lib.doorbells_take(self.ptr, raw, kind, os.getpid()))
        if index == lib.DOORBELLS_BUSY:
            raise DoorbellBusy(name)
        if index == lib.DOORBELLS_FULL:
            raise DoorbellsFull(limit=DOORBELLS_MAX)
        return index


class Doorbell:
    """A cell this process owns: `Ring.watch(doorbell)` has it rung, a Runner sleeps on it."""

    def __init__(self, doorbells: Doorbells, index: int, *, fd: int) -> None:
        self.doorbells = doorbells
        self.index = index
        self.ptr = lib.doorbells_cell(doorbells.ptr, index)
        self._fd = fd
        self._seen = 0
        self._released = False

    @property
    def state(self) -> DoorbellState:
        return self.doorbells.state(self.index)

    @property
    def kind(self) -> DoorbellKind:
        return DoorbellKind.FIFO if self._fd >= 0 else DoorbellKind.FUTEX

    def fileno(self) -> int:
        """The FIFO's reading end, for epoll."""
        if self._fd < 0:
            raise ValueError(f"doorbell {self.state.name} is a futex: it has no descriptor")
        return self._fd

    def arm(self) -> None:
        """Say that this process is about to sleep; after it look for work once more, then wait."""
        self._seen = int(lib.doorbell_arm(self.ptr))

    def disarm(self) -> None:
        lib.doorbell_disarm(self.ptr)

    def wait(self, timeout_ns: int) -> bool:
        """Sleep on the futex armed before; returns False if the time passed."""
        return bool(lib.doorbell_sleep(self.ptr, self._seen, timeout_ns) != errno.ETIMEDOUT)

    def drain(self) -> int:
        """Read the FIFO empty; returns how many bytes were in it."""
        total = 0
        while True:
            try:
                total += len(os.read(self._fd, 4096))
            except BlockingIOError:
                return total

    def close(self) -> None:
        """Give the cell back. Its bits in the rings' masks may stay: its next owner is then rung now and then."""
        if self._released:
            return
        self._released = True
        lib.doorbells_release(self.doorbells.ptr, self.index)
        if self._fd >= 0:
            os.close(self._fd)

    def __enter__(self) -> "Doorbell":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stage:
    """A C step function and its state, of any extension: pointers of its own ffi, or addresses."""

    def __init__(self, poll: Any, state: Any) -> None:
        self.poll = poll
        self.state = state

    def __repr__(self) -> str:
        return f"Stage({address(self.poll):#x}, {address(self.state):#x})"


class StageStatus(IntEnum):
    """What a stage's poll returns instead of the work it did (ringbuf/include/stage.h)."""

    LAPPED = lib.STAGE_LAPPED  # it needs records that have left the ring: feed them from the journal
    FAILED = lib.STAGE_FAILED  # it refuses to go on; its own error text says why


class RunStatus(IntEnum):
    """Why a run ended; a stage's own negative status is not in here."""

    TIME = lib.RUNNER_TIME
    STOPPED = lib.RUNNER_STOPPED
    SIGNAL = lib.RUNNER_SIGNAL


class RunResult(NamedTuple):
    work: int  # units done by all stages together
    status: int  # RunStatus, or a StageStatus
    stage: int  # index of that stage, else -1


class Runner:
    """One C loop over several stages. `run()` holds no GIL; call it for about a millisecond, then look around."""

    def __init__(
        self,
        stages: Sequence[Stage],
        wait: str = "yield",
        doorbell: Doorbell | None = None,
        *,
        limit: int = _POLL_LIMIT_DEFAULT,
        idle_timeout_ns: int = _IDLE_TIMEOUT_NS_DEFAULT,
        socket: int = -1,
        in_turn: bool = False,
    ) -> None:
        """`idle_timeout_ns` bounds a sleep, hence the cost of a lost wake-up. `socket` is a descriptor, e.g. of an
        epoll, that ends a sleep too; it needs a FIFO doorbell. `in_turn`: those this loop waits for, and who wait for
        it, share its core: it gives up the core after each look, found or not, and never spins."""
        if not 1 <= len(stages) <= STAGES_MAX:
            raise ValueError(f"{len(stages)} stages: a runner takes 1 to {STAGES_MAX}")
        if wait not in WAITS:
            raise ValueError(f"wait {wait!r} is none of {', '.join(WAITS)}")
        if wait == "park" and doorbell is None:
            raise ValueError("park needs a doorbell to sleep on")
        if socket >= 0 and (doorbell is None or doorbell.kind is not DoorbellKind.FIFO):
            raise ValueError("a socket needs a FIFO doorbell: one sleep cannot wait for it and a futex")
        if in_turn and wait == "spin":
            raise ValueError("who spins has a core of its own: nobody else has a turn there")
        if limit < 1 or idle_timeout_ns < 1:
            raise ValueError(f"limit {limit} and idle_timeout_ns {idle_timeout_ns} must be positive")
        self._keep = (list(stages), doorbell)  # C holds only addresses of them
        runner = ffi.new("runner_t *")
        for index, stage in enumerate(stages):
            runner.stages[index].poll = ffi.cast("stage_poll_fn", address(stage.poll))
            runner.stages[index].state = ffi.cast("void *", address(stage.state))
        runner.stage_count = len(stages)
        runner.wait = WAITS[wait]
        runner.in_turn = in_turn
        runner.limit = limit
        runner.idle_timeout_ns = idle_timeout_ns
        runner.doorbell = ffi.NULL if doorbell is None else doorbell.ptr
        runner.fifo = doorbell.fileno() if doorbell is not None and doorbell.kind is DoorbellKind.FIFO else -1
        runner.socket = socket
        self._runner = runner

    def run(self, duration_ns: int) -> RunResult:
        """Poll until the time has passed, a stage fails or is lapped, stop(), or a signal during a sleep."""
        status = int(lib.runner_run(self._runner, duration_ns))
        return RunResult(int(self._runner.work), status, int(self._runner.failed))

    def stop(self) -> None:
        """End the run of another thread, and every later one at once."""
        lib.runner_stop(self._runner)

    @property
    def rounds(self) -> int:
        return int(self._runner.rounds)

    @property
    def idle_rounds(self) -> int:
        return int(self._runner.idle_rounds)

    @property
    def yields(self) -> int:
        return int(self._runner.yields)

    @property
    def sleeps(self) -> int:
        return int(self._runner.sleeps)


def sharpen_timers() -> None:
    """Let sleeps of this thread end within a microsecond of their time, not 50 later (for hot processes)."""
    result = int(lib.runner_sharpen_timers())
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def address(pointer: Any) -> int:
    """Return the address behind a pointer of any extension's ffi, or the number itself."""
    return pointer if isinstance(pointer, int) else int(ffi.cast("uintptr_t", pointer))


def _check_identity(segment: Segment) -> None:
    name = segment.name
    check_field(name, "size", expected=lib.DOORBELLS_SIZE, actual=segment.size_bytes)
    header = ffi.cast("doorbells_header_t *", segment.address)
    if not lib.doorbells_ready(header):
        raise SegmentNotReady(name)
    check_field(name, "magic", expected=hex(lib.DOORBELLS_MAGIC), actual=hex(header.magic))
    check_field(name, "layout_version", expected=lib.DOORBELLS_LAYOUT_VERSION, actual=header.layout_version)
    check_field(name, "cell_count", expected=DOORBELLS_MAX, actual=header.cell_count)
    check_field(name, "boot_id", expected=boot_id(), actual=(header.boot_id[0], header.boot_id[1]))
