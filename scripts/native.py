"""Where the native executables built from scripts/bench/native/ are installed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_DISTRIBUTION = "bullring-exchange"
_BIN_FOLDER = "scripts/bench/bin"


def binary(name: str) -> Path:
    """Return the path of a native executable installed with this distribution.

    Editable and plain installs are alike here: CMake installs into site-packages in both, and the distribution's
    metadata says where that is. Raises FileNotFoundError with the command that would build it.
    """
    try:
        path = Path(str(distribution(_DISTRIBUTION).locate_file(f"{_BIN_FOLDER}/{name}")))
    except PackageNotFoundError:
        raise FileNotFoundError(f"{_DISTRIBUTION} is not installed: run ./scripts/run or ./scripts/test once") from None
    if not path.is_file():
        raise FileNotFoundError(f"no native executable {name!r} at {path}: is there a scripts/bench/native/{name}.c?")
    return path
