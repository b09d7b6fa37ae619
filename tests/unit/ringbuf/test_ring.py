"""Rings as Python sees them: sequence numbers, wrap, full, lapped, commit, one producer."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ringbuf import (
    Doorbells,
    Lapped,
    LayoutMismatch,
    Mode,
    ProducerBusy,
    Ring,
    RingFull,
    Segment,
    SegmentMissing,
    SegmentNotReady,
)
from ringbuf._ring import ffi, lib

SLOT_SIZE = 64
SLOT_COUNT = 16


def make_ring(
    *, base: int = 0, mode: Mode = Mode.PLAIN, slot_count: int = SLOT_COUNT, gating: dict[int, str] | None = None
) -> Ring:
    return Ring.private(slot_size=SLOT_SIZE, slot_count=slot_count, base=base, mode=mode, gating=gating)


def record(sequence: int) -> bytes:
    return sequence.to_bytes(8, "little") * (SLOT_SIZE // 8)


def fill(ring: Ring, count: int) -> None:
    for _ in range(count):
        ring.publish(record(ring.published))


def test_index_is_the_sequence_from_base_on() -> None:
    with make_ring(base=1000) as ring:
        assert (ring.base, ring.published, ring.visible, ring.commit) == (1000, 1000, 1000, 1000)

        assert ring.publish(record(1000), record(1001)) == 1000

        assert ring.published == 1002
        assert ring.read(1000, 2) == record(1000) + record(1001)


def test_slots_below_base_were_never_in_the_ring() -> None:
    with make_ring(base=1000) as ring:
        fill(ring, 1)

        with pytest.raises(Lapped):
            ring.read(999, 2)


def test_reading_beyond_published_is_an_error() -> None:
    with make_ring() as ring:
        fill(ring, 1)

        with pytest.raises(IndexError):
            ring.read(0, 2)


def test_one_slot_is_looked_at_without_a_copy_of_its_own() -> None:
    ring = make_ring()
    assert ring.peek(0) is None
    ring.publish(b"a" * SLOT_SIZE, b"b" * SLOT_SIZE)

    assert bytes(ring.peek(1) or b"") == b"b" * SLOT_SIZE
    assert ring.peek(2) is None and ring.peek(-1) is None
    for _ in range(ring.capacity):
        ring.publish(b"c" * SLOT_SIZE)
    assert ring.peek(1) is None  # gone
    assert bytes(ring.peek(ring.published - 1) or b"") == b"c" * SLOT_SIZE


def test_short_record_is_padded_with_zeros_even_over_old_bytes() -> None:
    with make_ring(slot_count=1) as ring:
        ring.publish(b"\xff" * SLOT_SIZE)

        ring.publish(b"ab")

        assert ring.read(1) == b"ab".ljust(SLOT_SIZE, b"\0")


def test_observer_reads_the_whole_ring_across_the_wrap() -> None:
    # Sixteen slots claim nothing ahead but one: see the next test for a ring in which the lap is exact.
    with make_ring(slot_count=8) as ring:
        fill(ring, 13)

        assert ring.read(5, 8) == b"".join(record(sequence) for sequence in range(5, 13))


def test_observer_is_lapped_by_the_first_overwritten_slot() -> None:
    with make_ring(slot_count=8) as ring:
        fill(ring, 9)

        assert ring.read(1) == record(1)
        with pytest.raises(Lapped):
            ring.read(0)


def test_claim_covers_what_a_dead_producer_claimed_and_never_published() -> None:
    """A successor starts at pub; what its predecessor may have overwritten stays out of reach."""
    with make_ring(slot_count=8) as ring:
        fill(ring, 8)
        assert lib.ring_claim(ring.ptr, 4) == 8  # overwrites 0 to 3, and dies

        lib.ring_attach(ring.ptr, ring.segment.address, ffi.NULL)
        assert ring.publish(record(8)) == 8

        for sequence in range(4):
            with pytest.raises(Lapped):
                ring.read(sequence)
        assert ring.read(4) == record(4)


def test_claim_ahead_never_reaches_what_a_gating_consumer_has_not_read() -> None:
    with make_ring(slot_count=1024, gating={0: "reader"}) as ring:
        for _ in range(3):
            fill(ring, 1024)
            assert ring.claim - ring.capacity <= ring.consumer(0).cursor
            assert ring.read(ring.consumer(0).cursor, 1024)[:SLOT_SIZE] == record(ring.consumer(0).cursor)
            ring.advance(0, ring.published)


def test_producer_stops_at_the_slowest_gating_consumer() -> None:
    with make_ring(gating={0: "fast", 3: "slow"}) as ring:
        fill(ring, SLOT_COUNT)
        ring.advance(0, SLOT_COUNT)

        with pytest.raises(RingFull) as full:
            ring.publish(record(SLOT_COUNT))
        assert (full.value.wanted, full.value.room) == (1, 0)

        ring.advance(3, 2)
        assert ring.room() == 2
        fill(ring, 2)
        with pytest.raises(RingFull):
            ring.publish(record(0))


def test_group_is_published_whole_or_not_at_all() -> None:
    with make_ring(gating={0: "reader"}) as ring:
        fill(ring, SLOT_COUNT - 1)

        with pytest.raises(RingFull):
            ring.publish(record(0), record(1))

        assert ring.published == SLOT_COUNT - 1


def test_without_gating_consumers_the_producer_never_waits() -> None:
    with make_ring() as ring:
        fill(ring, 10 * SLOT_COUNT)

        assert ring.room() == SLOT_COUNT


def test_ungated_consumer_no_longer_holds_the_producer() -> None:
    with make_ring(gating={0: "reader"}) as ring:
        fill(ring, SLOT_COUNT)

        ring.ungate(0)

        fill(ring, SLOT_COUNT)
        assert ring.cursors == {}


def test_consumer_that_comes_back_goes_on_at_its_cursor() -> None:
    with make_ring(gating={0: "reader"}) as ring:
        fill(ring, 5)
        ring.advance(0, 3)

        assert ring.gate(0, "reader") == 3
        assert ring.gate(1, "another") == 5
        assert ring.gate(0, "reader", at=2) == 2
        assert ring.consumer(0).pid == os.getpid()


def test_cursor_moves_forward_and_not_beyond_published() -> None:
    with make_ring(gating={0: "reader"}) as ring:
        fill(ring, 5)
        ring.advance(0, 3)

        for wrong in (2, 6):
            with pytest.raises(ValueError, match="cannot move"):
                ring.advance(0, wrong)


@pytest.mark.parametrize(("mode", "visible"), [(Mode.PLAIN, 5), (Mode.D0, 5), (Mode.DURABLE, 3)])
def test_visible_is_commit_only_in_durable_mode(mode: Mode, visible: int) -> None:
    with make_ring(mode=mode) as ring:
        fill(ring, 5)
        ring.store_commit(3)

        assert ring.visible == visible
        with pytest.raises(ValueError, match="cannot move"):
            ring.store_commit(2)


@pytest.mark.parametrize("base", [0, 5, 2**40 + 7])
def test_random_traffic_is_read_as_written(base: int, rng: random.Random) -> None:
    with make_ring(base=base, slot_count=32, gating={0: "reader"}) as ring:
        cursor = base
        for _ in range(500):
            count = rng.randint(1, min(8, max(1, ring.room())))
            if ring.room() >= count:
                ring.publish(*(record(ring.published + i) for i in range(count)))
            take = rng.randint(0, ring.published - cursor)
            if take:
                assert ring.read(cursor, take) == b"".join(record(cursor + i) for i in range(take))
                cursor += take
                ring.advance(0, cursor)


@pytest.mark.parametrize(
    "wrong", [{"slot_count": 12}, {"slot_count": 0}, {"slot_size": 60}, {"slot_size": 0}, {"base": -1}]
)
def test_shape_that_no_ring_can_have_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Ring.private(**{"slot_size": 64, "slot_count": 8, **wrong})


# --- shared ---------------------------------------------------------------------------------------------------------


def create(name: str, run_dir: Path, **options: int) -> Ring:
    return Ring.create(name, **{"slot_size": SLOT_SIZE, "slot_count": SLOT_COUNT, **options}, run_dir=run_dir)


def test_attached_ring_is_the_same_ring(shm_prefix: str, tmp_path: Path) -> None:
    big = 2**63 + 1
    with (
        create(f"{shm_prefix}log", tmp_path, base=7, schema_hash=big, epoch=4) as ring,
        Ring.attach(f"/{shm_prefix}log", slot_size=SLOT_SIZE, schema_hash=big) as other,
    ):
        ring.publish(record(7))

        assert other.read(7) == record(7)
        assert (other.base, other.epoch, other.capacity, other.schema_hash) == (7, 4, SLOT_COUNT, big)


def test_closed_ring_of_its_owner_is_gone(shm_prefix: str, tmp_path: Path) -> None:
    create(f"{shm_prefix}log", tmp_path).close()

    with pytest.raises(SegmentMissing):
        Ring.attach(f"{shm_prefix}log")


def test_closed_ring_refuses_every_use(tmp_path: Path) -> None:
    ring = make_ring()
    ring.close()

    for use in (lambda: ring.published, lambda: ring.publish(b""), lambda: ring.read(0), lambda: ring.base):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_read_only_ring_refuses_writes(shm_prefix: str, tmp_path: Path) -> None:
    with create(f"{shm_prefix}log", tmp_path) as ring, Ring.attach(f"{shm_prefix}log", writable=False) as other:
        ring.publish(record(0))

        assert other.read(0) == record(0)
        with pytest.raises(ValueError, match="reading only"):
            other.publish(record(1))


@pytest.mark.parametrize(
    ("field", "actual"),
    [
        ("magic", 0),
        ("layout_version", 9),
        ("boot_id", [1, 2]),
        ("schema_hash", 5),
        ("slot_size", 128),
        ("slot_count", 32),
    ],
)
def test_attaching_refuses_another_layout_and_names_the_field(
    field: str, actual: object, shm_prefix: str, tmp_path: Path
) -> None:
    with create(f"{shm_prefix}log", tmp_path, schema_hash=77) as ring:
        setattr(ring.ptr.header, field, actual)

        with pytest.raises(LayoutMismatch) as mismatch:
            Ring.attach(f"{shm_prefix}log", slot_size=SLOT_SIZE, schema_hash=77)

    assert mismatch.value.field == ("size" if field == "slot_count" else field)
    assert mismatch.value.expected != mismatch.value.actual


def test_ring_whose_creator_died_half_way_is_not_attached(shm_prefix: str, tmp_path: Path) -> None:
    with Segment.create(f"{shm_prefix}log", size_bytes=8192), pytest.raises(SegmentNotReady):
        Ring.attach(f"{shm_prefix}log")


def test_second_producer_is_turned_away_at_once(shm_prefix: str, tmp_path: Path) -> None:
    with create(f"{shm_prefix}log", tmp_path) as ring, Ring.attach(f"{shm_prefix}log", run_dir=tmp_path) as other:
        ring.lock_producer()

        with pytest.raises(ProducerBusy) as busy:
            other.lock_producer()
        assert busy.value.holder_pid == os.getpid()


def test_producers_death_frees_the_lock_and_its_successor_goes_on_at_pub(shm_prefix: str, tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from ringbuf import Ring\n"
        "ring = Ring.attach(sys.argv[1], run_dir=Path(sys.argv[2]))\n"
        "ring.lock_producer(); ring.publish(b'one'); print('locked', flush=True); sys.stdin.read()\n"
    )
    with create(f"{shm_prefix}log", tmp_path) as ring:
        root = Path(__file__).resolve().parents[3]
        child = subprocess.Popen(
            [sys.executable, "-c", program, ring.name, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"locked\n"
            with pytest.raises(ProducerBusy) as busy:
                ring.lock_producer()
            assert busy.value.holder_pid == child.pid
            child.kill()

        ring.lock_producer()

        assert ring.publish(b"two") == 1


# --- what the replicator does -----------------------------------------------------------------------------------------


def test_a_followers_log_begins_with_records_that_nobody_may_read(shm_prefix: str, tmp_path: Path) -> None:
    name = f"{shm_prefix}log"
    with Ring.create(
        name, slot_size=SLOT_SIZE, slot_count=8, base=20, mode=Mode.DURABLE, commit=12, run_dir=tmp_path
    ) as ring:
        assert (ring.commit, ring.visible, ring.replicated, ring.published) == (12, 12, 12, 20)


def test_commit_cannot_begin_above_the_log(shm_prefix: str) -> None:
    with pytest.raises(ValueError, match="commit 21"):
        Ring.create(f"{shm_prefix}log", slot_size=SLOT_SIZE, slot_count=8, base=20, mode=Mode.DURABLE, commit=21)


def test_whole_groups_are_appended_or_nothing() -> None:
    ring = Ring.private(slot_size=SLOT_SIZE, slot_count=8, gating={0: "reader"})

    assert ring.append(record(7) * 6, wanted=4)
    assert not ring.append(bytes(3 * SLOT_SIZE), wanted=9)

    assert (ring.published, ring.wanted) == (6, 4)
    assert ring.read(5) == record(7)


@pytest.mark.parametrize("size", [0, SLOT_SIZE - 1, 9 * SLOT_SIZE])
def test_what_is_appended_are_slots_that_fit(size: int) -> None:
    ring = Ring.private(slot_size=SLOT_SIZE, slot_count=8)

    with pytest.raises(ValueError, match=f"{size} bytes"):
        ring.append(bytes(size), wanted=0)


def test_the_standbys_word_is_stored_and_wakes_the_journaler(tmp_path: Path) -> None:
    with Doorbells.private() as doorbells, doorbells.futex("journaler") as bell:
        ring = Ring.private(slot_size=SLOT_SIZE, slot_count=8, mode=Mode.DURABLE, doorbells=doorbells)
        ring.watch(bell)
        bell.arm()

        ring.store_replicated(5)

        assert ring.replicated == 5
        assert bell.state.rings == 1
        with pytest.raises(ValueError, match="-1"):
            ring.store_replicated(-1)
        ring.close()


def test_a_producer_that_lets_go_can_be_followed_by_another_process(shm_prefix: str, tmp_path: Path) -> None:
    name = f"{shm_prefix}log"
    with Ring.create(name, slot_size=SLOT_SIZE, slot_count=8, run_dir=tmp_path) as ring:
        ring.lock_producer()
        ring.append(bytes(SLOT_SIZE), wanted=1)
        other = Ring.attach(name, run_dir=tmp_path)
        with pytest.raises(ProducerBusy):
            other.lock_producer()

        ring.unlock_producer()

        other.lock_producer()
        assert other.publish(b"next") == 1
        other.close()
