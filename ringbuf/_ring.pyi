# What mypy knows of the compiled module: its types live in _cdef.h, so everything behind these two names is Any.
from typing import Any

ffi: Any
lib: Any
