"""State as memory images, for whoever stores them: `image.h` says what an image is and when it may be taken."""

from __future__ import annotations

from collections.abc import Iterator

from engine._engine import ffi, lib
from engine.errors import EngineError
from engine.matcher import Matcher
from engine.sequencer import Sequencer

RUN_BYTES_MAX = 1 << 20

Run = tuple[int, memoryview]  # offset in the arena, bytes


def image_layout() -> int:
    """Return the number that images of this build carry: one of another number must not be loaded."""
    return int(lib.image_layout())


def image_head(owner: Sequencer | Matcher) -> bytes:
    """Return what of the state stands outside the arena. Raises EngineError when no image can be taken now."""
    if isinstance(owner, Matcher):
        if not owner.idle:
            raise EngineError(f"matcher {owner.partition} is in the middle of a record")
        return b""
    head = ffi.new("uint8_t[]", lib.image_head_size())
    if not lib.sequencer_image_save(owner.ptr, head):
        raise EngineError("only a follower between two records has an image")
    return bytes(ffi.buffer(head))


def image_runs(owner: Sequencer | Matcher) -> Iterator[Run]:
    """Yield the parts of the arena that are not zero, in order; each view is valid until the owner changes."""
    arena, size = _arena(owner)
    run = ffi.new("image_run_t *")
    offset = 0
    while lib.image_next_run(arena, size, offset, RUN_BYTES_MAX, run):
        yield int(run.offset), memoryview(ffi.buffer(arena + run.offset, run.size)).toreadonly()
        offset = int(run.offset + run.size)
        offset += -offset % lib.IMAGE_PAGE


def image_arena(owner: Sequencer | Matcher) -> memoryview:
    """Return the zeroed arena of an owner that has applied nothing: runs are copied into it, then `image_loaded`."""
    if isinstance(owner, Matcher):
        lib.matcher_image_clear(owner.ptr)
    else:
        lib.sequencer_image_clear(owner.ptr)
    arena, size = _arena(owner)
    return memoryview(ffi.buffer(arena, size))


def image_loaded(owner: Sequencer | Matcher, head: bytes) -> None:
    """Take over the head; before any ring is attached. Raises EngineError if it is none of this build."""
    wanted = 0 if isinstance(owner, Matcher) else int(lib.image_head_size())
    if len(head) != wanted:
        raise EngineError(f"the image's head has {len(head)} bytes, this build's {wanted}")
    if isinstance(owner, Sequencer):
        lib.sequencer_image_load(owner.ptr, ffi.from_buffer(head))


def _arena(owner: Sequencer | Matcher) -> tuple[object, int]:
    size = ffi.new("uint64_t *")
    find = lib.matcher_image_arena if isinstance(owner, Matcher) else lib.sequencer_image_arena
    return ffi.cast("uint8_t *", find(owner.ptr, size)), int(size[0])
