"""Segments: whole or not at all, gone with their owner, never fatal for want of mlock."""

import os
import resource
from pathlib import Path

import pytest

from ringbuf import (
    NoMemory,
    ProducerBusy,
    Segment,
    SegmentExists,
    SegmentMissing,
    SegmentNotReady,
    remove_segment,
    segments_under,
)
from ringbuf._ring import ffi
from ringbuf.segment import ProducerLock, boot_id, shared_name

SIZE = 1 << 16


def memory(segment: Segment) -> memoryview:
    return memoryview(ffi.buffer(segment.address, segment.size_bytes))


def test_new_segment_is_zeroed_mapped_and_of_the_size_asked_for(shm_prefix: str) -> None:
    with Segment.create(f"{shm_prefix}a", size_bytes=SIZE) as segment:
        assert segment.size_bytes == SIZE
        assert segment.prefaulted
        assert bytes(memory(segment)) == bytes(SIZE)


def test_every_page_is_there_before_the_first_use(shm_prefix: str) -> None:
    with Segment.create(f"{shm_prefix}a", size_bytes=64 * 4096) as segment:
        view = memory(segment)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt

        for offset in range(0, 64 * 4096, 4096):
            view[offset] = 1

        # A page not prefaulted would be a fault each; the loop itself may cause a few.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 32


def test_attached_segment_is_the_same_memory(shm_prefix: str) -> None:
    with Segment.create(f"{shm_prefix}a", size_bytes=SIZE) as segment, Segment.attach(f"{shm_prefix}a") as other:
        memory(segment)[:5] = b"hello"

        assert bytes(memory(other)[:5]) == b"hello"


def test_owner_removes_the_name_and_others_keep_their_memory(shm_prefix: str) -> None:
    segment = Segment.create(f"{shm_prefix}a", size_bytes=SIZE)
    with Segment.attach(f"{shm_prefix}a") as other:
        memory(segment)[:5] = b"hello"
        segment.close()

        assert bytes(memory(other)[:5]) == b"hello"
        with pytest.raises(SegmentMissing):
            Segment.attach(f"{shm_prefix}a")


def test_closing_an_attached_segment_leaves_the_owners(shm_prefix: str) -> None:
    with Segment.create(f"{shm_prefix}a", size_bytes=SIZE):
        Segment.attach(f"{shm_prefix}a").close()

        Segment.attach(f"{shm_prefix}a").close()


def test_name_in_use_is_refused(shm_prefix: str) -> None:
    with Segment.create(f"{shm_prefix}a", size_bytes=SIZE), pytest.raises(SegmentExists):
        Segment.create(f"{shm_prefix}a", size_bytes=SIZE)


def test_full_shared_memory_is_an_error_at_start_and_leaves_nothing(shm_prefix: str) -> None:
    room = os.statvfs("/dev/shm")
    wanted = (room.f_blocks * room.f_frsize) * 2

    with pytest.raises(NoMemory) as full:
        Segment.create(f"{shm_prefix}a", size_bytes=wanted)

    assert full.value.size_bytes == wanted
    assert 0 < full.value.free_bytes < wanted
    assert list(segments_under(shm_prefix)) == []


def test_refused_mlock_is_reported_and_not_fatal(shm_prefix: str) -> None:
    """In a child, as the limit cannot be raised again; root is exempt from it, so the child gives that up."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
            if os.geteuid() == 0:
                os.seteuid(65534)
            with Segment.private(size_bytes=SIZE) as segment:
                status = 0 if not segment.locked and segment.prefaulted else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_segment_without_its_size_yet_is_not_ready(shm_prefix: str) -> None:
    path = Path("/dev/shm") / f"{shm_prefix}a"
    path.touch()
    with pytest.raises(SegmentNotReady):
        Segment.attach(f"{shm_prefix}a")
    path.unlink()


def test_closed_segment_has_no_address(shm_prefix: str) -> None:
    segment = Segment.create(f"{shm_prefix}a", size_bytes=SIZE)
    segment.close()
    segment.close()

    with pytest.raises(ValueError, match="closed"):
        _ = segment.address


def test_leftovers_of_a_dead_supervisor_are_found_and_removed(shm_prefix: str) -> None:
    child = os.fork()
    if child == 0:
        Segment.create(f"{shm_prefix}a", size_bytes=SIZE)
        Segment.create(f"{shm_prefix}b", size_bytes=SIZE)
        os._exit(0)
    os.waitpid(child, 0)

    names = list(segments_under(shm_prefix))

    assert names == [f"/{shm_prefix}a", f"/{shm_prefix}b"]
    assert [remove_segment(name) for name in names] == [True, True]
    assert not remove_segment(names[0])


@pytest.mark.parametrize("name", ["", "/", "a/b", "/a/b", "x" * 201])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        shared_name(name)


def test_boot_id_is_the_kernels() -> None:
    low, high = boot_id()

    raw = (low.to_bytes(8, "little") + high.to_bytes(8, "little")).hex()
    assert raw == Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")


def test_lock_is_free_again_once_released(tmp_path: Path) -> None:
    lock = ProducerLock("/ring", tmp_path)
    with pytest.raises(ProducerBusy):
        ProducerLock("/ring", tmp_path)
    ProducerLock("/another", tmp_path).release()

    lock.release()
    lock.release()

    ProducerLock("/ring", tmp_path).release()
