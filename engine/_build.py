"""cffi builder of `engine._engine` (API mode): run by the build, never at import."""

from pathlib import Path

from cffi import FFI

from ringbuf._build import PREAMBLE
from ringbuf._build import ffibuilder as ring_builder

ffibuilder = FFI()
ffibuilder.include(ring_builder)
ffibuilder.cdef(Path(__file__).with_name("_cdef.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "engine._engine",
    PREAMBLE
    + """
    #include "engine/composed.h"
    #include "engine/image.h"
    #include "engine/matcher.h"
    #include "engine/sequencer.h"
    """,
)
