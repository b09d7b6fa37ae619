# What mypy sees of the compiled module; the C surface is in _cdef.h.
from typing import Any

ffi: Any
lib: Any
