"""The cffi builder (API mode) of journaler._journal.

Does not include ringbuf's: that would compile all of ringbuf's own C surface into this module. A ring crosses as its
address.
"""

from pathlib import Path

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef((Path(__file__).parent / "_cdef.h").read_text())
ffibuilder.set_source(
    "journaler._journal",
    """
    #include "chain.h"
    #include "crc32c.h"
    #include "journal.h"
    #include "sha256.h"
    #include "walk.h"
    """,
)
