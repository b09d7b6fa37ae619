"""The house rules as functions: each takes a checkout and returns its faults, one sentence each, empty if tidy."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.kit.source import (
    PACKAGES,
    Import,
    c_functions,
    imports,
    is_generated,
    module_name,
    project_files,
    python_functions,
    quoted_includes,
)

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 800

# Who may import whom. "package" stands for its public names only, "package.*" for every module of it.
ARROWS: Mapping[str, frozenset[str]] = {
    "ringbuf": frozenset(),
    "engine": frozenset({"ringbuf.*"}),
    "journaler": frozenset({"ringbuf.*"}),
    "replicator": frozenset({"ringbuf.*", "journaler.*"}),
    "gateway": frozenset({"ringbuf.*", "engine", "journaler.reader"}),
    "settlement": frozenset({"ringbuf.*", "engine", "journaler.reader"}),
    "scripts": frozenset(f"{package}.*" for package in PACKAGES),
}

# The engine is a function of its log: nothing in it may see files, the network, chance or the clock.
ENGINE_NEVER = frozenset("aiohttp asyncio datetime pathlib random secrets shutil socket tempfile time uuid zmq".split())
ENGINE_CLOCK_FILES = frozenset({"engine/sequencer.py"})

TOP_LEVEL_FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")
TOP_LEVEL_REQUIRED = frozenset({*PACKAGES, *TOP_LEVEL_FILES, "tests", "docs", ".ci"})
TOP_LEVEL_ALLOWED = TOP_LEVEL_REQUIRED | {".gitignore", ".gitattributes", ".editorconfig"}

BUILD_FILES = frozenset({"_build.py"})  # run by the build, never part of the running exchange
NEVER_IMPORTED = BUILD_FILES | {"__init__.py", "__main__.py", "_cdef.h"}
LEFTOVER = re.compile(r"\b(?:" + "|".join(("FIX" + "ME", "TO" + "DO", "X" * 3)) + r")\b")
HOSTS = ("pypi", "pythonhosted", "npmjs", "golang", "debian", "crates")
REGISTRY = re.compile(r"\b(?:[\w-]+\.)*(?:" + "|".join(HOSTS) + r")\.(?:org|com|io|net)\b")
SYSTEM_FOLDERS = frozenset({"/", "/tmp", "/home", "/opt", "/srv", "/usr", "/var", "/mnt", "/var/tmp"})


def texts(root: Path, *suffixes: str, below: tuple[str, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Yield path and content of the project's text files with one of `suffixes` (any, if none is given)."""
    for path in project_files(root):
        if (suffixes and path.suffix not in suffixes) or (below and path.parts[0] not in below):
            continue
        try:
            yield path, (root / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a binary file: golden bytes of the wire tests


# --- import arrows --------------------------------------------------------------------------------------------------


def targets(root: Path, found: Import) -> list[str]:
    """Return the modules of ours that an import reaches: `from engine import book` reaches engine.book."""
    if found.module.split(".")[0] not in (*PACKAGES, "tests"):
        return []
    folder = root.joinpath(*found.module.split("."))
    below = [name for name in found.names if (folder / f"{name}.py").is_file() or (folder / name).is_dir()]
    reached = [f"{found.module}.{name}" for name in below]
    return reached if reached and len(below) == len(found.names) else [found.module, *reached]


def may_import(package: str, target: str) -> bool:
    home = target.split(".")[0]
    if home == package:
        return True
    allowed = ARROWS[package]
    within_reader = any(target == entry or target.startswith(f"{entry}.") for entry in allowed if "." in entry)
    return f"{home}.*" in allowed or target in allowed or within_reader


def import_faults(root: Path) -> list[str]:
    faults = []
    for path, text in texts(root, ".py", ".pyi", below=PACKAGES):
        package = path.parts[0]
        for found in imports(text, path):
            for target in targets(root, found):
                # A builder hands another builder its C types; the engine's public names need no such thing.
                if path.name in BUILD_FILES and target == "ringbuf._build":
                    continue
                if not may_import(package, target):
                    faults.append(f"{path}:{found.line}: {package} may not import {target}")
    return faults


def engine_faults(root: Path) -> list[str]:
    """Return where the engine reaches for files, environment, network, chance or the clock."""
    faults = []
    for path, text in texts(root, ".py", below=("engine",)):
        if path.name in BUILD_FILES:
            continue
        for found in imports(text, path):
            name = found.module.split(".")[0]
            if name in ENGINE_NEVER and not (name == "time" and path.as_posix() in ENGINE_CLOCK_FILES):
                faults.append(f"{path}:{found.line}: the engine may not import {name}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
                faults.append(f"{path}:{node.lineno}: the engine may not open files")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv"):
                faults.append(f"{path}:{node.lineno}: the engine may not read the environment")
    return faults


def include_faults(root: Path) -> list[str]:
    """Return C includes that leave their package for anything but ringbuf/include/."""
    faults = []
    for path, text in texts(root, ".c", ".h", below=PACKAGES[:-1]):
        package = path.parts[0]
        for line, name in quoted_includes(text):
            candidates = [root / path.parent / name, root / name, root / "ringbuf/include" / name]
            real = next((candidate.resolve() for candidate in candidates if candidate.is_file()), None)
            if real is None or not real.is_relative_to(root.resolve()):
                faults.append(f'{path}:{line}: "{name}" is no file of ours')
                continue
            inside = real.relative_to(root.resolve())
            if inside.parts[0] != package and inside.parts[:2] != ("ringbuf", "include"):
                faults.append(f"{path}:{line}: {package} may not include {inside}")
    return faults


# --- sizes ----------------------------------------------------------------------------------------------------------


def oversize(root: Path) -> dict[str, int]:
    """Return what is longer than the house allows: "file" or "file:function" -> lines. Generated files are exempt."""
    found = {}
    for path, text in texts(root, ".py", ".c", ".h"):
        if is_generated(text):
            continue
        lines = len(text.splitlines())
        if lines > FILE_LINES_MAX:
            found[path.as_posix()] = lines
        functions = python_functions(text) if path.suffix == ".py" else c_functions(text)
        for function in functions:
            if function.line_count > FUNCTION_LINES_MAX:
                found[f"{path.as_posix()}:{function.name}"] = function.line_count
    return found


def ratchet_faults(found: Mapping[str, int], granted: Mapping[str, int]) -> list[str]:
    """Compare with the exceptions granted so far: nothing new, nothing longer, and what shrank is written down."""
    faults = [f"{name}: {lines} lines, too long" for name, lines in found.items() if name not in granted]
    for name, lines in granted.items():
        now = found.get(name, 0)
        if now > lines:
            faults.append(f"{name}: grew from {lines} to {now} lines")
        elif now < lines:
            faults.append(f"{name}: shrank from {lines} to {now or 'the allowed'} lines; lower the ratchet")
    return faults


# --- texts ----------------------------------------------------------------------------------------------------------


def guard_faults(root: Path) -> list[str]:
    faults = []
    for path, text in texts(root, ".h"):
        if path.name == "_cdef.h":  # read by cffi's parser, which knows no preprocessor
            continue
        code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).lstrip()
        guard = re.match(r"#ifndef\s+(\w+)\s*\n#define\s+(\w+)", code)
        if not code.startswith("#pragma once") and not (guard and guard.group(1) == guard.group(2)):
            faults.append(f"{path}: no include guard")
    return faults


def machine_path(root: Path, home: Path) -> re.Pattern[str]:
    """Return a pattern of paths that only exist on somebody's machine; this one's are found out, not listed."""
    here = {str(folder) for folder in (root.parent, home) if str(folder) not in SYSTEM_FOLDERS}
    known = [r"/home/\w+", "/" + "root", "/Users/" + r"\w+", *map(re.escape, sorted(here))]
    return re.compile(r"(?<![\w./:-])(?:" + "|".join(known) + ")/")


def text_faults(root: Path, home: Path) -> list[str]:
    """Return leftovers, machine paths and registry hosts in any text file."""
    faults = []
    rules = [
        (LEFTOVER, "a leftover"),
        (machine_path(root, home), "a path of one machine"),
        (REGISTRY, "the host of a registry"),
    ]
    for path, text in texts(root):
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, kind in rules:
                match = pattern.search(line)
                if match:
                    faults.append(f"{path}:{number}: {kind}: {match.group()}")
    return faults


def top_level_faults(root: Path) -> list[str]:
    present = {path.parts[0] for path in project_files(root)}
    faults = [f"{name}: may not stand at the top level" for name in sorted(present - TOP_LEVEL_ALLOWED)]
    return faults + [f"{name}: is missing at the top level" for name in sorted(TOP_LEVEL_REQUIRED - present)]


# --- dead files -----------------------------------------------------------------------------------------------------


def dead_file_faults(root: Path) -> list[str]:
    """Return Python modules that nothing imports, starts or names, and headers that nothing includes."""
    everything = dict(texts(root))
    imported: set[str] = set()
    included: set[str] = set()
    for path, text in everything.items():
        if path.suffix in (".py", ".pyi"):
            for found in imports(text, path):
                imported |= {found.module, *(f"{found.module}.{name}" for name in found.names)}
                if found.module and "." not in found.module:  # wire/generate.py finds its neighbours beside itself
                    imported.add(module_name(path.parent / f"{found.module}.py"))
        included |= {Path(name).name for _, name in quoted_includes(text)}

    def is_named(path: Path) -> bool:
        names = (path.as_posix(), module_name(path))
        beside = (f"/{path.name}",)  # a build file names what stands beside it
        return any(
            name in text
            for other, text in everything.items()
            if other != path
            for name in (names + beside if other.name == "CMakeLists.txt" else names)
        )

    faults = []
    for path, text in everything.items():
        if path.parts[0] not in PACKAGES or path.name in NEVER_IMPORTED or is_generated(text):
            continue
        if path.suffix == ".h" and "clients" not in path.parts and path.name not in included:
            faults.append(f"{path}: no file includes it")
        if path.suffix == ".py" and module_name(path) not in imported and not is_named(path):
            faults.append(f"{path}: nothing imports, starts or names it")
    return faults


# --- cycles ---------------------------------------------------------------------------------------------------------


def import_graph(root: Path) -> dict[str, set[str]]:
    """Return which module of ours imports which while it is itself being imported."""
    modules = {module_name(path): (path, text) for path, text in texts(root, ".py", below=PACKAGES)}
    graph: dict[str, set[str]] = {}
    for name, (path, text) in modules.items():
        reached = {target for found in imports(text, path) if found.at_top for target in targets(root, found)}
        graph[name] = {target for target in reached if target in modules and target != name}
    return graph


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import one another in a circle, each sorted."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for following in graph.get(todo.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
        return seen

    reach = {name: reachable(name) for name in graph}
    circular = {name for name in graph if name in reach[name]}
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in circular}
    return sorted(sorted(group) for group in groups)
