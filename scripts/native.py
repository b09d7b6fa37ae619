"""Where what is built from scripts/bench/native/ and scripts/drills/native/ is installed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_DISTRIBUTION = "bullring-exchange"


def binary(name: str) -> Path:
    """Return the path of a native executable of the benches. Raises FileNotFoundError, saying what would build it."""
    return _installed(f"scripts/bench/bin/{name}", f"scripts/bench/native/{name}.c")


def shim(name: str) -> Path:
    """Return the path of a library that drills put before the system's. Raises FileNotFoundError likewise."""
    return _installed(f"scripts/drills/bin/{name}.so", f"scripts/drills/native/{name}.c")


def _installed(file: str, source: str) -> Path:
    """Find an installed file.

    Editable and plain installs are alike here: CMake installs into site-packages in both, and the distribution's
    metadata says where that is.
    """
    try:
        path = Path(str(distribution(_DISTRIBUTION).locate_file(file)))
    except PackageNotFoundError:
        raise FileNotFoundError(f"{_DISTRIBUTION} is not installed: run ./scripts/run or ./scripts/test once") from None
    if not path.is_file():
        raise FileNotFoundError(f"nothing native at {path}: is there a {source}?")
    return path
