"""No module of ours needs itself while it is being imported, and each can be imported first."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import tidy
from tests.kit.source import PACKAGES

ROOT = Path(__file__).resolve().parents[2]


def test_no_imports_go_in_a_circle() -> None:
    assert tidy.cycles(tidy.import_graph(ROOT)) == []


def test_circle_is_found_and_a_deferred_import_is_none(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "engine/a.py").write_text("from engine import b\n")
    (tmp_path / "engine/b.py").write_text("from engine.c import X\n")
    (tmp_path / "engine/c.py").write_text("import engine.a\n")
    (tmp_path / "engine/d.py").write_text("def late():\n    import engine.e\n")
    (tmp_path / "engine/e.py").write_text("import engine.d\n")

    assert tidy.cycles(tidy.import_graph(tmp_path)) == [["engine.a", "engine.b", "engine.c"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_can_be_imported_first(package: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_importing_every_module_in_either_order_works() -> None:
    """Modules of the build are left out: they run where nothing is built yet."""
    names = [name for name in tidy.import_graph(ROOT) if not name.startswith(("scripts.build", "ringbuf.wire."))]
    names = sorted(name for name in names if not name.endswith(("_build", "__main__")))

    for order in (names, names[::-1]):
        code = "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in order)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
