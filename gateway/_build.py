"""cffi builder of `gateway._gateway` (API mode): run by the build, never at import."""

from pathlib import Path

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef(Path(__file__).with_name("_cdef.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "gateway._gateway",
    """
    #include "ringbuf/include/ring.h"
    #include "gateway/binary/server.h"
    #include "gateway/marketdata/feed.h"
    #include "gateway/web/streams/fanout.h"
    #include "gateway/web/streams/trades.h"
    """,
)
