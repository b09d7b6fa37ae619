"""A wall clock that jumps makes a node unfit to lead; one that is slewed, or kept right, does not."""

from replicator.events import Electable
from scripts.clock import ClockWatch, boot_ns, error_us

MS = 1_000_000


class Clocks:
    """A wall and a boot clock in nanoseconds, and the kernel's word on the first."""

    def __init__(self) -> None:
        self.wall, self.boot = 10**18, 0
        self.error: int | None = None

    def watch(self) -> ClockWatch:
        return ClockWatch(1000, wall_ns=lambda: self.wall, boot_ns=lambda: self.boot, error_us=lambda: self.error)

    def run(self, ms: int, *, jump_ms: int = 0) -> None:
        self.boot += ms * MS
        self.wall += (ms + jump_ms) * MS


def test_clock_that_is_slewed_is_followed() -> None:
    clocks = Clocks()
    watch = clocks.watch()

    for _ in range(1000):
        clocks.run(1000, jump_ms=500)

        assert watch.look() is None


def test_jump_is_told_once_and_its_end_too() -> None:
    clocks = Clocks()
    watch = clocks.watch()
    clocks.run(1000, jump_ms=-1001)

    told = watch.look()

    assert told is not None
    assert not told.electable
    assert "jumped by -1001 ms" in told.reason
    clocks.run(1000)
    assert watch.look() is None
    clocks.run(1000, jump_ms=1001)
    assert watch.look() == Electable(True)


def test_clock_that_the_kernel_calls_synchronized_is_believed() -> None:
    clocks = Clocks()
    watch = clocks.watch()
    clocks.run(1000, jump_ms=5000)
    clocks.error = 1_000_001

    told = watch.look()

    assert told is not None
    assert not told.electable
    clocks.error = 1_000_000
    assert watch.look() == Electable(True)
    clocks.error = None
    assert watch.look() is None


def test_this_machine_answers() -> None:
    error = error_us()

    assert boot_ns() > 0
    assert error is None or error >= 0
