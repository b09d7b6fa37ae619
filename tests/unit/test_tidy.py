"""The house rules hold for this checkout, and each check can fail: beside every check stands a planted fault."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import tidy
from tests.kit.source import PACKAGES, c_functions

ROOT = Path(__file__).resolve().parents[2]
HOME = Path.home()

# What is longer than the house allows and may only shrink: "file" or "file:function" -> lines, each with a reason.
GRANTED: dict[str, int] = {}

Plant = Callable[[str, str], None]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The smallest checkout that every check finds tidy."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f'"""The {package}."""\n')
    for folder in ("tests", "docs", ".ci"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "readme.md").write_text("Nothing yet.\n")
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        (tmp_path / name).write_text("Nothing yet.\n")
    return tmp_path


@pytest.fixture
def plant(house: Path) -> Plant:
    def write(name: str, text: str) -> None:
        (house / name).parent.mkdir(parents=True, exist_ok=True)
        (house / name).write_text(text)

    return write


def test_smallest_house_is_tidy(house: Path) -> None:
    assert tidy.import_faults(house) == []
    assert tidy.top_level_faults(house) == []
    assert tidy.text_faults(house, HOME) == []
    assert tidy.dead_file_faults(house) == []


# --- import arrows --------------------------------------------------------------------------------------------------


def test_imports_follow_the_arrows() -> None:
    assert tidy.import_faults(ROOT) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ringbuf/ring.py", "import engine"),
        ("engine/book.py", "from journaler import reader"),
        ("journaler/writer.py", "import engine"),
        ("replicator/primary.py", "from engine import Instrument"),
        ("gateway/session.py", "from engine.book import Book"),
        ("gateway/session.py", "from engine import book"),
        ("gateway/session.py", "import journaler"),
        ("gateway/session.py", "from journaler import writer"),
        ("gateway/binary/server.py", "from ...scripts import config"),
        ("settlement/ledger.py", "def late():\n    import gateway"),
        ("engine/config.py", "from scripts.config import load"),
        ("engine/config.py", "from tests.kit import eventually"),
        ("engine/_build.py", "from journaler._build import ffibuilder"),
    ],
)
def test_import_against_the_arrows_is_found(house: Path, plant: Plant, name: str, line: str) -> None:
    for module in ("engine/book.py", "journaler/reader.py", "journaler/writer.py", "scripts/config.py"):
        plant(module, "")
    plant(name, f"{line}\n")

    faults = tidy.import_faults(house)

    assert len(faults) == 1
    assert faults[0].startswith(name)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("engine/_build.py", "from ringbuf._build import ffibuilder as ring"),
        ("engine/book.py", "from ringbuf.wire.messages import Side"),
        ("gateway/rest/orders.py", "from engine import Instrument"),
        ("gateway/rest/orders.py", "from journaler.reader import Reader"),
        ("gateway/rest/orders.py", "from journaler import reader"),
        ("gateway/rest/orders.py", "from .. import session"),
        ("replicator/standby.py", "from journaler.writer import Writer"),
        ("scripts/cli.py", "from engine.book import Book"),
    ],
)
def test_import_along_the_arrows_is_no_fault(house: Path, plant: Plant, name: str, line: str) -> None:
    plant("journaler/reader.py", "")
    plant("gateway/session.py", "")
    plant(name, f"{line}\n")

    assert tidy.import_faults(house) == []


def test_engine_sees_no_files_network_chance_or_clock() -> None:
    assert tidy.engine_faults(ROOT) == []


@pytest.mark.parametrize(
    "line",
    ["import time", "from random import random", "import zmq", "f = open('x')", "import os\nhome = os.environ['HOME']"],
)
def test_engine_reaching_outside_is_found(house: Path, plant: Plant, line: str) -> None:
    plant("engine/book.py", f"{line}\n")

    assert len(tidy.engine_faults(house)) == 1


def test_clock_in_the_sequencer_is_no_fault(house: Path, plant: Plant) -> None:
    plant("engine/sequencer.py", "import time\n")

    assert tidy.engine_faults(house) == []


def test_includes_follow_the_arrows() -> None:
    assert tidy.include_faults(ROOT) == []


@pytest.mark.parametrize("name", ["journaler/journal.h", "ringbuf/private.h", "no_such_file.h"])
def test_include_against_the_arrows_is_found(house: Path, plant: Plant, name: str) -> None:
    plant("journaler/journal.h", "")
    plant("ringbuf/private.h", "")
    plant("ringbuf/include/ring.h", "")
    plant("engine/book.h", "")
    plant("engine/book.c", f'#include "book.h"\n#include "ring.h"\n#include "engine/book.h"\n#include "{name}"\n')

    faults = tidy.include_faults(house)

    assert len(faults) == 1
    assert faults[0].startswith("engine/book.c:4:")


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_functions_and_files_keep_their_size() -> None:
    assert tidy.ratchet_faults(tidy.oversize(ROOT), GRANTED) == []


def python_function(lines: int) -> str:
    return "def long() -> None:\n" + "    pass\n" * (lines - 1)


def c_function(lines: int) -> str:
    body = "    a += '{';\n" * (lines - 5)
    return "static inline int\nlong_one(int a)\n{\n" + body + '    /* } */ return "}"[a];\n}\n'


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("engine/a.py", python_function(70), {}),
        ("engine/a.py", python_function(71), {"engine/a.py:long": 71}),
        ("engine/a.c", c_function(70), {}),
        ("engine/a.c", "int x[] = {1, 2};\n#define F(x) {\n" + c_function(71), {"engine/a.c:long_one": 71}),
        ("engine/a.h", "int x;\n" * 800, {}),
        ("engine/a.h", "int x;\n" * 801, {"engine/a.h": 801}),
        ("engine/a.h", "/* GENERATED by a test */\n" + "int x;\n" * 801, {}),
    ],
)
def test_size_is_measured_to_the_line(house: Path, plant: Plant, name: str, text: str, found: dict[str, int]) -> None:
    plant(name, text)

    assert tidy.oversize(house) == found


def test_each_c_function_is_found_once() -> None:
    text = "struct s { int a; };\nint f(void) { return 0; }\nint g(int a) {\n    if (a) { f(); }\n    return 1;\n}\n"

    functions = c_functions(text)

    assert [(function.name, function.line, function.line_count) for function in functions] == [("f", 2, 1), ("g", 3, 4)]


def test_ratchet_only_turns_one_way() -> None:
    assert tidy.ratchet_faults({"a": 90}, {"a": 90}) == []
    assert tidy.ratchet_faults({"a": 90}, {}) == ["a: 90 lines, too long"]
    assert tidy.ratchet_faults({"a": 91}, {"a": 90}) == ["a: grew from 90 to 91 lines"]
    assert tidy.ratchet_faults({"a": 80}, {"a": 90}) == ["a: shrank from 90 to 80 lines; lower the ratchet"]
    assert tidy.ratchet_faults({}, {"a": 90}) == ["a: shrank from 90 to the allowed lines; lower the ratchet"]


# --- texts ----------------------------------------------------------------------------------------------------------


def test_each_header_has_a_guard() -> None:
    assert tidy.guard_faults(ROOT) == []


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("/* Why. */\n#ifndef A_H\n#define A_H\n#endif\n", 0),
        ("#pragma once\nint a;\n", 0),
        ("int a;\n", 1),
        ("#ifndef A_H\n#define B_H\n#endif\n", 1),
        ("", 1),
    ],
)
def test_header_without_guard_is_found(house: Path, plant: Plant, text: str, faults: int) -> None:
    plant("engine/a.h", text)

    assert len(tidy.guard_faults(house)) == faults


def test_texts_hold_no_leftover_machine_path_or_registry() -> None:
    assert tidy.text_faults(ROOT, HOME) == []


@pytest.mark.parametrize(
    "line",
    [
        "/* FIX" + "ME */",
        "# TO" + "DO: later",
        "see /home" + "/alice/notes",
        'DATA = "/ro' + 'ot/x"',
        "https://py" + "pi.org/simple",
        "deb.deb" + "ian.org",
        "files.python" + "hosted.org/x",
    ],
)
def test_text_that_must_not_be_committed_is_found(house: Path, plant: Plant, line: str) -> None:
    plant("docs/notes.md", f"Fine.\n{line}\n")

    faults = tidy.text_faults(house, HOME)

    assert len(faults) == 1
    assert faults[0].startswith("docs/notes.md:2:")


def test_path_of_this_machine_is_found(house: Path, plant: Plant) -> None:
    plant("docs/notes.md", f"Here {house.parent}/data\nand {HOME.joinpath('data')}\n")

    assert len(tidy.text_faults(house, HOME)) == 2


def test_top_level_is_exactly_what_is_allowed() -> None:
    assert tidy.top_level_faults(ROOT) == []


def test_top_level_entry_too_many_or_too_few_is_found(house: Path, plant: Plant) -> None:
    plant("setup.py", "")
    plant("common/__init__.py", "")
    (house / "LICENSE").unlink()

    assert tidy.top_level_faults(house) == [
        "common: may not stand at the top level",
        "setup.py: may not stand at the top level",
        "LICENSE: is missing at the top level",
    ]


# --- dead and stale files -------------------------------------------------------------------------------------------


def test_no_file_is_dead() -> None:
    assert tidy.dead_file_faults(ROOT) == []


def test_dead_module_and_header_are_found(house: Path, plant: Plant) -> None:
    plant("engine/dead.py", "")
    plant("engine/dead.h", "")
    plant("engine/alive.py", "")
    plant("engine/alive.h", "")
    plant("engine/started.py", "")
    plant("engine/alive.c", '#include "alive.h"\n')
    plant("scripts/processes.py", "from engine import alive\nSTARTED = ['-m', 'engine.started']\n")
    plant("tests/test_processes.py", "import scripts.processes\n")

    assert tidy.dead_file_faults(house) == [
        "engine/dead.h: no file includes it",
        "engine/dead.py: nothing imports, starts or names it",
    ]


def generator_check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "ringbuf/wire/generate.py"), "--check", "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_generated_files_are_fresh() -> None:
    done = generator_check(ROOT)

    assert done.returncode == 0, done.stderr


def test_stale_generated_file_is_found(tmp_path: Path) -> None:
    for path in tidy.project_files(ROOT):
        if path.parts[0] in ("ringbuf", "docs"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    assert generator_check(tmp_path).returncode == 0
    header = tmp_path / "ringbuf/include/orders.h"
    header.write_text(header.read_text() + "\n")

    done = generator_check(tmp_path)

    assert done.returncode != 0
    assert "orders.h" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["scripts/run", "scripts/test", ".ci/run"])
def test_commands_are_executable(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
