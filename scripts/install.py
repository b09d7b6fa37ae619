"""`bullring install`: lay out units, users, kernel settings and an example configuration under a root folder.

Writes files, starts nothing and changes nothing that runs. What is there with other bytes stays, unless it is asked to
be replaced; a configuration is never replaced.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.arguments import emit, progress
from scripts.exit_codes import CommandError, ExitCode

SOURCE = Path(__file__).parent
UNITS, HOST = SOURCE / "systemd", SOURCE / "host"
UNIT_SUFFIXES = {".service", ".target", ".slice", ".timer"}
UNIT_FOLDER = Path("etc/systemd/system")
FOLDERS = {"etc/bullring": 0o750, "var/lib/bullring": 0o755}
EXAMPLE = Path("etc/bullring/node.toml.example")
PREFIX = "/opt/bullring/venv"


@dataclass(frozen=True)
class File:
    """A file to be: where below the root, and what is in it."""

    place: Path
    text: str
    mode: int = 0o644


def files(prefix: str) -> Iterator[File]:
    """What an installation consists of; `prefix` is where the virtual environment is on the host."""
    for path in sorted(UNITS.iterdir()):
        if path.suffix in UNIT_SUFFIXES:
            yield File(UNIT_FOLDER / path.name, path.read_text().replace(PREFIX, prefix))
    yield File(Path("usr/lib/sysusers.d/bullring.conf"), (HOST / "bullring.sysusers").read_text())
    yield File(Path("etc/sysctl.d/90-bullring.conf"), (HOST / "90-bullring.conf").read_text())
    yield File(EXAMPLE, (HOST / "node.toml").read_text(), 0o640)


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bullring install", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="/, or where an image is made")
    parser.add_argument("--prefix", default=PREFIX, metavar="DIR", help=f"the virtual environment there; {PREFIX}")
    parser.add_argument("--replace", action="store_true", help="replace files that differ")
    parser.add_argument("--json", action="store_true", help="one JSON object a file")
    options = parser.parse_args(arguments)
    if not options.prefix.startswith("/"):
        raise CommandError(f"--prefix {options.prefix}: must be an absolute path", ExitCode.USAGE)
    try:
        rows = [_put(options.root, file, replace=options.replace) for file in _all(options.root, options.prefix)]
    except OSError as error:
        raise CommandError(f"cannot install to {error.filename}: {error.strerror}", ExitCode.CANNOT_CREATE) from error
    emit(rows, as_json=options.json)
    kept = [row["file"] for row in rows if row["what"] == "kept"]
    if kept:
        progress(f"{len(kept)} files differ from this version's and were kept; --replace replaces them")
        return ExitCode.NEGATIVE
    if not options.json:
        progress("next: systemd-sysusers; write /etc/bullring/NAME.toml; systemctl enable --now bullring@NAME")
    return ExitCode.OK


def _all(root: Path, prefix: str) -> list[File]:
    for folder, mode in FOLDERS.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).chmod(mode)
    return list(files(prefix))


def _put(root: Path, file: File, *, replace: bool) -> dict[str, str]:
    path = root / file.place
    what = "written"
    if path.exists():
        if path.read_text() == file.text:
            return {"file": str(path), "what": "as it was"}
        if not replace:
            return {"file": str(path), "what": "kept"}
        what = "replaced"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(file.text)
    draft.chmod(file.mode)
    draft.replace(path)
    return {"file": str(path), "what": what}
