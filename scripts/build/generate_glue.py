"""Write the C glue of one package's cffi module: generate_glue.py PACKAGE MODULE OUTPUT.c

Run by CMake. Executes PACKAGE/_build.py, which defines `ffibuilder`, without executing PACKAGE/__init__.py: that
one imports the very module being built. So a _build.py may say `from ringbuf._build import ffibuilder as ring`.
"""

import importlib
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ringbuf", "engine", "journaler", "gateway", "settlement")


def hollow_package(name: str) -> types.ModuleType:
    """Return a package that finds its submodules on disk but has run no code of its own."""
    package = types.ModuleType(name)
    package.__path__ = [str(ROOT / name)]
    return package


def main(package: str, module: str, output: str) -> None:
    for name in PACKAGES:
        sys.modules[name] = hollow_package(name)
    ffibuilder = importlib.import_module(f"{package}._build").ffibuilder
    declared = ffibuilder._assigned_source[0]
    if declared != module:
        raise SystemExit(f"{package}/_build.py builds {declared!r}; scripts/build/CMakeLists.txt expects {module!r}")
    ffibuilder.emit_c_code(output)
    # cffi leaves an unchanged file alone; the build tool would then run this rule for ever.
    Path(output).touch()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
