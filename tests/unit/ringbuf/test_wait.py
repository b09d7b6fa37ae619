"""Waiting: a parked consumer costs nothing, publishers wake only who sleeps, the runner returns when it should."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringbuf import (
    DoorbellBusy,
    DoorbellKind,
    Doorbells,
    DoorbellsFull,
    LayoutMismatch,
    Ring,
    Runner,
    RunStatus,
    SegmentNotReady,
    Stage,
    Watch,
    sharpen_timers,
)
from ringbuf._ring import ffi
from ringbuf.segment import Segment
from ringbuf.wait import DOORBELLS_MAX
from tests.kit.waiting import eventually

MS = 1_000_000
S = 1_000 * MS


def make_stage(step: Callable[[int], int]) -> Stage:
    """A stage whose step function is Python: slow, but it shows every call."""
    return Stage(ffi.callback("int64_t(void *, int64_t)", lambda state, limit: step(limit)), 0)


def idle_stage() -> Stage:
    return make_stage(lambda limit: 0)


@pytest.fixture
def doorbells(tmp_path: Path) -> Iterator[Doorbells]:
    with Doorbells.private(run_dir=tmp_path) as made:
        yield made


def make_ring(doorbells: Doorbells) -> Ring:
    return Ring.private(slot_size=64, slot_count=64, doorbells=doorbells)


class Reader:
    """Consumes a ring in a runner of its own thread."""

    def __init__(self, ring: Ring, runner_wait: str, doorbells: Doorbells, **options: int) -> None:
        self.doorbell = doorbells.futex("reader")
        ring.watch(self.doorbell)
        self.ring = ring
        self.seen = ring.published
        self.cpu_s = 0.0
        self.results: list[int] = []
        self.runner = Runner([make_stage(self._step)], runner_wait, self.doorbell, **options)
        self._thread = threading.Thread(target=self._run)

    def _step(self, limit: int) -> int:
        new = self.ring.published - self.seen
        self.seen += new
        return new

    def _run(self) -> None:
        began = time.thread_time()
        self.results.append(self.runner.run(60 * S).status)
        self.cpu_s = time.thread_time() - began

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.runner.stop()
        self._thread.join()

    def wait_asleep(self) -> None:
        eventually(lambda: self.doorbell.state.sleeping and self.doorbell.state.sleeps > 0, deadline_s=5)


# --- the runner -----------------------------------------------------------------------------------------------------


def test_runner_polls_stages_in_turn_with_the_limit() -> None:
    calls: list[tuple[str, int]] = []

    def stage(name: str) -> Stage:
        def step(limit: int) -> int:
            calls.append((name, limit))
            return 3 if len(calls) <= 4 else -1

        return make_stage(step)

    result = Runner([stage("a"), stage("b")], "spin", limit=7).run(10 * S)

    assert calls == [("a", 7), ("b", 7), ("a", 7), ("b", 7), ("a", 7)]
    assert result == (12, -1, 0)


def test_who_shares_a_core_gives_it_up_after_each_look() -> None:
    for in_turn in (False, True):
        found = [1, 0, 1, 0, 1, -1]
        runner = Runner([make_stage(lambda limit, found=found: found.pop(0))], "yield", in_turn=in_turn)
        runner.run(10 * S)
        # Otherwise it stays where there is work, and spins a little before it yields.
        assert (runner.rounds, runner.yields) == (6, 5 if in_turn else 0)


def test_who_spins_has_no_turns() -> None:
    with pytest.raises(ValueError, match="core of its own"):
        Runner([idle_stage()], "spin", in_turn=True)


def test_negative_status_names_its_stage() -> None:
    result = Runner([idle_stage(), make_stage(lambda limit: -2)], "yield").run(10 * S)

    assert (result.status, result.stage) == (-2, 1)


@pytest.mark.parametrize("wait", ["spin", "yield", "park"])
def test_run_lasts_its_duration_and_no_stage_works(wait: str, doorbells: Doorbells) -> None:
    runner = Runner([idle_stage()], wait, doorbells.futex("me"), idle_timeout_ns=5 * MS)
    began = time.monotonic_ns()

    result = runner.run(30 * MS)

    assert time.monotonic_ns() - began >= 30 * MS
    assert result == (0, RunStatus.TIME, -1)
    assert runner.idle_rounds > 0


@pytest.mark.parametrize("wait", ["spin", "yield", "park"])
def test_busy_runner_looks_at_the_clock_too(wait: str, doorbells: Doorbells) -> None:
    runner = Runner([make_stage(lambda limit: 1)], wait, doorbells.futex("me"))

    result = runner.run(5 * MS)

    assert result.status == RunStatus.TIME
    assert result.work == runner.rounds > 0


@pytest.mark.parametrize("wait", ["spin", "yield", "park"])
def test_stop_ends_the_run_of_another_thread_even_asleep(wait: str, doorbells: Doorbells) -> None:
    with make_ring(doorbells) as ring:
        with Reader(ring, wait, doorbells, idle_timeout_ns=50 * S) as reader:
            eventually(lambda: reader.runner.idle_rounds > 0, deadline_s=5)

        assert reader.results == [RunStatus.STOPPED]
        assert reader.runner.run(10 * S).status == RunStatus.STOPPED


def test_signal_ends_a_sleep_so_that_python_can_handle_it(doorbells: Doorbells) -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: got.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        runner = Runner([idle_stage()], "park", doorbells.futex("me"), idle_timeout_ns=30 * S)

        result = runner.run(30 * S)
    finally:
        signal.signal(signal.SIGALRM, before)

    assert result.status == RunStatus.SIGNAL
    assert got == [signal.SIGALRM]


def test_runner_refuses_what_cannot_work(doorbells: Doorbells) -> None:
    with pytest.raises(ValueError, match="stages"):
        Runner([], "spin")
    with pytest.raises(ValueError, match="none of spin, yield, park"):
        Runner([idle_stage()], "block")
    with pytest.raises(ValueError, match="needs a doorbell"):
        Runner([idle_stage()], "park")
    with pytest.raises(ValueError, match="FIFO"):
        Runner([idle_stage()], "park", doorbells.futex("me"), socket=0)


def test_timers_of_hot_threads_are_sharp() -> None:
    slacks: list[str] = []

    def hot() -> None:
        sharpen_timers()
        slacks.append(Path(f"/proc/{threading.get_native_id()}/timerslack_ns").read_text().strip())

    thread = threading.Thread(target=hot)
    thread.start()
    thread.join()

    assert slacks == ["1"]


# --- sleeping costs nothing, waking costs only when somebody sleeps -------------------------------------------------


def test_parked_consumer_costs_no_processor_time(doorbells: Doorbells) -> None:
    with make_ring(doorbells) as ring:
        with Reader(ring, "park", doorbells, idle_timeout_ns=100 * MS) as reader:
            time.sleep(1.0)

        # Ten sleeps of 100 ms; a spinning or yielding loop would have used a large part of the second.
        assert reader.runner.sleeps <= 12
        assert reader.cpu_s < 0.05


def test_each_sleep_is_ended_by_one_wake_up(doorbells: Doorbells) -> None:
    with make_ring(doorbells) as ring, Reader(ring, "park", doorbells, idle_timeout_ns=50 * S) as reader:
        for count in range(1, 101):
            reader.wait_asleep()
            ring.publish(b"x")
            eventually(lambda want=count: reader.seen == want, deadline_s=5)

        state = reader.doorbell.state
        # A consumer may be caught between "sleeping = 1" and its last look: then it was rung and never slept.
        assert 1 <= state.rings <= 101
        assert state.sleeps <= state.rings + 1


@pytest.mark.parametrize("wait", ["spin", "yield", "park"])
def test_publishing_to_a_consumer_that_is_awake_makes_no_system_call(wait: str, doorbells: Doorbells) -> None:
    doorbell = doorbells.futex("reader")
    with make_ring(doorbells) as ring:
        ring.watch(doorbell)

        for _ in range(1000):
            ring.publish(b"x")

        assert doorbell.state.rings == 0


def test_a_cursor_that_stays_where_it_was_wakes_nobody(doorbells: Doorbells) -> None:
    doorbell = doorbells.futex("producer")
    with make_ring(doorbells) as ring:
        ring.watch(doorbell, Watch.CURSORS)
        ring.publish(b"x")
        ring.advance(0, 1)
        doorbell.arm()

        ring.advance(0, 1)
        assert doorbell.state.rings == 0
        ring.publish(b"x")
        ring.advance(0, 2)
        assert doorbell.state.rings == 1


def test_only_the_first_of_many_publications_wakes_the_sleeper(doorbells: Doorbells) -> None:
    doorbell = doorbells.futex("reader")
    with make_ring(doorbells) as ring:
        ring.watch(doorbell)
        doorbell.arm()

        for _ in range(1000):
            ring.publish(b"x")

        assert doorbell.state.rings == 1
        assert doorbell.wait(10 * S)  # rung before it slept: does not sleep at all


def test_unwatched_ring_rings_nobody(doorbells: Doorbells) -> None:
    doorbell = doorbells.futex("reader")
    with make_ring(doorbells) as ring:
        ring.watch(doorbell)
        ring.unwatch(doorbell)
        doorbell.arm()

        ring.publish(b"x")

        assert doorbell.state.rings == 0
        assert not doorbell.wait(MS)


@pytest.mark.parametrize("which", list(Watch))
def test_each_cursor_rings_its_own_watchers(which: Watch, doorbells: Doorbells) -> None:
    moves: dict[Watch, Callable[[Ring], object]] = {
        Watch.PUBLISHED: lambda ring: ring.publish(b"x"),
        Watch.COMMIT: lambda ring: ring.store_commit(1),
        Watch.CURSORS: lambda ring: ring.advance(0, 1),
    }
    doorbell = doorbells.futex("reader")
    with make_ring(doorbells) as ring:
        ring.gate(0, "journaler")
        ring.publish(b"first")
        ring.watch(doorbell, which)

        for moved, move in moves.items():
            doorbell.disarm()
            before = doorbell.state.rings
            doorbell.arm()
            move(ring)
            assert doorbell.state.rings - before == (moved is which), moved


def test_yielding_consumer_sleeps_after_a_pause_and_is_woken(doorbells: Doorbells) -> None:
    with make_ring(doorbells) as ring, Reader(ring, "yield", doorbells, idle_timeout_ns=50 * S) as reader:
        reader.wait_asleep()
        assert reader.runner.yields > 0

        ring.publish(b"x")

        eventually(lambda: reader.seen == 1, deadline_s=5)


def test_sleeper_in_another_process_is_woken(doorbells: Doorbells) -> None:
    doorbell = doorbells.futex("reader")
    with make_ring(doorbells) as ring:
        ring.watch(doorbell)
        child = os.fork()
        if child == 0:
            doorbell.arm()
            woken = ring.published == 1 or doorbell.wait(30 * S)
            os._exit(0 if woken else 1)
        eventually(lambda: doorbell.state.sleeps == 1, deadline_s=5)

        ring.publish(b"x")

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- FIFOs ----------------------------------------------------------------------------------------------------------


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_fifo_gets_one_byte_a_sleep(doorbells: Doorbells) -> None:
    with make_ring(doorbells) as ring, doorbells.fifo("gateway.bell") as doorbell:
        ring.watch(doorbell)
        ring.publish(b"x")
        assert not readable(doorbell.fileno())

        for _ in range(3):
            doorbell.arm()
            ring.publish(b"x")
            ring.publish(b"x")
            assert readable(doorbell.fileno())
            assert doorbell.drain() == 1

        assert doorbell.state.rings == 3


def test_runner_sleeps_on_fifo_and_socket(doorbells: Doorbells) -> None:
    """Either ends the sleep; the FIFO is drained, the socket is its stage's own."""
    mine, theirs = os.pipe()
    seen: list[str] = []
    with make_ring(doorbells) as ring, doorbells.fifo("gateway.bell") as doorbell:
        ring.watch(doorbell)

        def step(limit: int) -> int:
            before = len(seen)
            if readable(mine):
                seen.append(os.read(mine, 1).decode())
            seen.extend("r" for _ in range(ring.published - seen.count("r")))
            return len(seen) - before

        runner = Runner([make_stage(step)], "park", doorbell, idle_timeout_ns=50 * S, socket=mine)
        thread = threading.Thread(target=runner.run, args=(60 * S,))
        thread.start()
        eventually(lambda: doorbell.state.sleeping, deadline_s=5)
        ring.publish(b"x")
        eventually(lambda: seen == ["r"], deadline_s=5)
        os.write(theirs, b"s")
        eventually(lambda: seen == ["r", "s"], deadline_s=5)
        runner.stop()
        thread.join()
    os.close(mine)
    os.close(theirs)


def test_publisher_outlives_the_reader_of_a_fifo_and_finds_its_successor(doorbells: Doorbells) -> None:
    child = os.fork()
    if child == 0:
        doorbells.fifo("gateway.bell").arm()
        os._exit(0)
    os.waitpid(child, 0)
    index = next(state.index for state in doorbells.taken if state.name == "gateway.bell")
    with make_ring(doorbells) as ring:
        dead = doorbells.state(index)
        assert (dead.kind, dead.sleeping) == (DoorbellKind.FIFO, True)
        with doorbells.fifo("gateway.bell") as doorbell:
            assert doorbell.index == index
            ring.watch(doorbell)
            doorbell.drain()
            doorbell.arm()
            ring.publish(b"x")
            assert doorbell.drain() == 1


def test_ringing_a_dead_socket_loop_harms_nobody(doorbells: Doorbells) -> None:
    with make_ring(doorbells) as ring:
        child = os.fork()
        if child == 0:
            doorbell = doorbells.fifo("gateway.bell")
            ring.watch(doorbell)
            doorbell.arm()
            os._exit(0)
        os.waitpid(child, 0)

        for _ in range(3):
            ring.publish(b"x")

        assert ring.published == 3
        assert doorbells.taken[0].rings == 1


# --- cells ----------------------------------------------------------------------------------------------------------


def test_name_keeps_its_cell_over_a_restart(doorbells: Doorbells) -> None:
    child = os.fork()
    if child == 0:
        doorbells.futex("other")
        doorbells.futex("matcher.1")
        os._exit(0)
    os.waitpid(child, 0)

    assert doorbells.futex("matcher.1").index == 1
    assert doorbells.state(1).pid == os.getpid()


def test_name_of_a_live_process_is_refused(doorbells: Doorbells) -> None:
    ready, release = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        doorbells.futex("matcher.1")
        os.write(ready[1], b"r")
        os.read(release[0], 1)
        os._exit(0)
    os.read(ready[0], 1)

    with pytest.raises(DoorbellBusy):
        doorbells.futex("matcher.1")

    os.write(release[1], b"g")
    os.waitpid(child, 0)
    for fd in (*ready, *release):
        os.close(fd)


def test_cells_of_the_dead_are_used_again_when_all_are_taken(doorbells: Doorbells) -> None:
    child = os.fork()
    if child == 0:
        for index in range(DOORBELLS_MAX):
            doorbells.futex(f"process.{index}")
        os._exit(0)
    os.waitpid(child, 0)
    assert len(doorbells.taken) == DOORBELLS_MAX

    taken = {doorbells.futex(f"new.{index}").index for index in range(DOORBELLS_MAX)}

    assert len(taken) == DOORBELLS_MAX
    with pytest.raises(DoorbellsFull):
        doorbells.futex("one too many")


@pytest.mark.parametrize("name", ["", "a/b", "x" * 64])
def test_name_that_is_no_file_name_is_refused(name: str, doorbells: Doorbells) -> None:
    with pytest.raises(ValueError, match="no name of a doorbell"):
        doorbells.futex(name)


def test_shared_doorbells_are_attached_by_name(shm_prefix: str, tmp_path: Path) -> None:
    with Doorbells.create(f"{shm_prefix}doorbells") as made, Doorbells.attach(f"{shm_prefix}doorbells") as other:
        index = made.futex("one").index

        assert other.state(index).name == "one"


def test_segment_that_holds_no_doorbells_is_refused(shm_prefix: str) -> None:
    name = f"{shm_prefix}doorbells"
    with Doorbells.create(name) as made:
        ffi.cast("uint64_t *", made.segment.address)[0] = 5
        with pytest.raises(LayoutMismatch, match="magic"):
            Doorbells.attach(name)
    with Segment.create(name, size_bytes=4096), pytest.raises(LayoutMismatch, match="size"):
        Doorbells.attach(name)
    with Segment.create(name, size_bytes=made.segment.size_bytes), pytest.raises(SegmentNotReady):
        Doorbells.attach(name)
