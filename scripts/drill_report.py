"""`bullring drill report`: what the drills that were recorded came to, as a runbook keeps it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts.arguments import emit
from scripts.exit_codes import CommandError, ExitCode


def record(file: Path, line: Mapping[str, Any]) -> None:
    """Append a drill's line with the date and the version that was drilled. Raises CommandError."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"at": at, "version": version("bullring-exchange"), **line}) + "\n")
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}", ExitCode.CANNOT_CREATE) from error


def report(arguments: Sequence[str]) -> int:
    """Print the newest verdict of every kind of drill; 1 if one of them did not pass."""
    parser = argparse.ArgumentParser(prog="bullring drill report", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="what --record FILE has written")
    parser.add_argument("--all", action="store_true", help="every run, not only the newest of each kind")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    lines = _read(options.file)
    rows = [_row(line) for line in (lines if options.all else _newest(lines))]
    emit(rows, as_json=options.json, empty="no drill was recorded")
    return ExitCode.OK if rows and all(row["verdict"] == "pass" for row in rows) else ExitCode.NEGATIVE


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", ExitCode.NO_INPUT) from error
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise CommandError(f"{file}, line {number}: not a recorded drill", ExitCode.BAD_INPUT) from error
    return [line for line in lines if not line.get("planted")]


def _newest(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    newest = {(line["drill"], _kind(line)): line for line in lines}
    return [newest[key] for key in sorted(newest)]


def _kind(line: Mapping[str, Any]) -> str:
    """The options that make it another drill."""
    return " ".join(f"{name}={value}" for name, value in line.get("options", {}).items() if name != "rate")


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    facts = ("verdict", "runs", "rto_ms", "rto_ms_p99", "rto_ms_max", "rpo_ms", "acked_lost", "acked_dup")
    row = {"date": line["at"], "drill": line["drill"], "kind": _kind(line)}
    row |= {name: line.get(name) for name in facts}
    return row | {"version": line["version"], "problem": next(iter(line.get("problems", [])), line.get("reason"))}
