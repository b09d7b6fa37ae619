"""Planted faults: a package with one line changed, and a test that has to notice."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CFLAGS = ("-std=gnu11", "-O1", "-D_GNU_SOURCE", "-march=x86-64-v3")
RUN_TIME_MAX_S = 120
PACKAGES = ("ringbuf", "engine", "journaler", "gateway", "settlement")
OBJECTS = ROOT / "build" / "mutants"

# pytest with one package taken from argv[1], whatever an editable installation redirects it to.
RUNNER = """
import importlib.util, sys
from pathlib import Path
folder = Path(sys.argv[1])
class Hidden:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] == folder.name else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Hidden(f) if type(f).__name__.startswith("ScikitBuild") else f for f in sys.meta_path]
where = [str(folder)]
spec = importlib.util.spec_from_file_location(folder.name, folder / "__init__.py", submodule_search_locations=where)
sys.modules[folder.name] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
import pytest
sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[2:]]))
"""


def change(path: Path, old: str, new: str) -> None:
    """Replace the one place that reads `old`; a fault that can no longer be planted is an error, not a pass."""
    text = path.read_text()
    if text.count(old) != 1:
        raise AssertionError(f"{path.name} has {text.count(old)} places that read {old!r}: plant the fault anew")
    path.write_text(text.replace(old, new))


def copy_package(name: str, target: Path) -> Path:
    """Copy a package with its C and, if it is built, its compiled module."""
    folder = target / name
    shutil.copytree(ROOT / name, folder, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for module in (f"_{name}", "_journal", "_ring", "_engine", "_gateway"):
        spec = importlib.util.find_spec(f"{name}.{module}") if (ROOT / name / f"{module}.pyi").exists() else None
        if spec is not None and spec.origin is not None and spec.origin.endswith(".so"):
            shutil.copy(spec.origin, folder)
    return folder


def native(package: Path, test: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Build tests/native/TEST.c with the C of this copy of a package and more flags of the compiler, and run it."""
    program = package.parent / test
    include = [f"-I{folder}" for folder in (package.parent, ROOT, ROOT / "ringbuf" / "include")]
    sources = [*map(str, sorted(package.glob("*.c"))), str(ROOT / "tests" / "native" / f"{test}.c")]
    subprocess.run(["gcc", *CFLAGS, *flags, *include, *sources, "-lpthread", "-o", str(program)], check=True)
    # In its own folder: what a run that breaks leaves behind, goes with it.
    return subprocess.run([program], cwd=package.parent, capture_output=True, text=True, timeout=RUN_TIME_MAX_S)


def unit(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with this copy of a package in place of the real one."""
    command = [sys.executable, "-c", RUNNER, str(package), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_TIME_MAX_S)


def build_module(package: Path, module: str) -> None:
    """Build the cffi module of this copy of a package, in place."""
    glue = package / f"{module}_glue.c"
    build = f"""
import importlib, importlib.util, sys, types
for name in ("ringbuf", "{package.name}"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(sys.argv[1] if name == "{package.name}" else sys.argv[2])]
spec = importlib.util.spec_from_file_location("{package.name}._build", sys.argv[1] + "/_build.py")
builder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(builder)
builder.ffibuilder.emit_c_code(sys.argv[3])
"""
    python = [sys.executable, "-c", build, str(package), str(ROOT / "ringbuf"), str(glue)]
    subprocess.run(python, cwd=package.parent, check=True, capture_output=True)
    target = package / f"{module}{sysconfig.get_config_var('EXT_SUFFIX')}"
    objects = [str(_compiled(package, source)) for source in sorted(package.glob("*.c"))]
    subprocess.run(["gcc", "-shared", *objects, "-lpthread", "-o", str(target)], check=True)


def _compiled(package: Path, source: Path) -> Path:
    """Compile a file of this copy of a package; what has been compiled before with the same headers is used again."""
    content = hashlib.sha256(" ".join(CFLAGS).encode() + source.read_bytes())
    for folder in (package, *(ROOT / name for name in PACKAGES)):
        for header in sorted(folder.rglob("*.h")):
            content.update(header.read_bytes())
    target = OBJECTS / f"{source.stem}-{content.hexdigest()[:32]}.o"
    if target.exists():
        return target
    OBJECTS.mkdir(parents=True, exist_ok=True)
    include = [package, package.parent, ROOT, ROOT / "ringbuf" / "include", Path(sysconfig.get_path("include"))]
    draft = package / f"{source.stem}.o"
    command = ["gcc", "-c", "-fPIC", *CFLAGS, *(f"-I{folder}" for folder in include), str(source), "-o", str(draft)]
    subprocess.run(command, check=True)
    shutil.move(draft, target.with_suffix(f".{os.getpid()}"))
    target.with_suffix(f".{os.getpid()}").replace(target)
    return target
