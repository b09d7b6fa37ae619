"""The cffi builder (API mode) of ringbuf._ring. Other packages include it so that a `ring_t *` passes without a cast:

from ringbuf._build import PREAMBLE, ffibuilder as ring
ffibuilder.include(ring)    # its types
ffibuilder.set_source(..., PREAMBLE + ...)    # and the headers that declare them
"""

from pathlib import Path

from cffi import FFI

# The headers of everything in _cdef.h: a module that includes this builder compiles them too.
PREAMBLE = """
    #include "ring.h"
    #include "stage.h"
    #include "ringbuf/counters_file.h"
    #include "ringbuf/doorbells.h"
    #include "ringbuf/ring_python.h"
    #include "ringbuf/runner.h"
    #include "ringbuf/segment.h"
    """

ffibuilder = FFI()
ffibuilder.cdef((Path(__file__).parent / "_cdef.h").read_text())
ffibuilder.set_source(
    "ringbuf._ring",
    PREAMBLE,
)
