"""The cffi builder (API mode) of ringbuf._ring. Other packages include it so that a `ring_t *` passes without a cast:

from ringbuf._build import ffibuilder as ring
ffibuilder.include(ring)
"""

from pathlib import Path

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef((Path(__file__).parent / "_cdef.h").read_text())
ffibuilder.set_source(
    "ringbuf._ring",
    """
    #include "doorbell.h"
    #include "ring.h"
    #include "stage.h"
    #include "segment.h"
    #include "ring_python.h"
    """,
)
