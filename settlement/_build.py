"""cffi builder of `settlement._ledger` (API mode): run by the build, never at import."""

from pathlib import Path

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef(Path(__file__).with_name("_cdef.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "settlement._ledger",
    """
    #include "settlement/columns.h"
    #include "settlement/derive.h"
    #include "settlement/image.h"
    """,
)
