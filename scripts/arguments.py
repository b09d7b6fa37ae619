"""What the commands share: options that choose a configuration, and output for people or programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.config import Config, ConfigError, load

JsonLine = Mapping[str, Any]
SECONDS_MAX = 10**9


def command_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with --config, --data, --set and --json; a wrong command line ends with exit code 2."""
    parser = argparse.ArgumentParser(prog=f"bullring {command}", description=description)
    add_common(parser)
    return parser


def add_common(parser: argparse.ArgumentParser, *, nested: bool = False) -> None:
    """Add the options. A nested parser sets nothing it was not given: it must not undo what stood before it."""
    none = argparse.SUPPRESS if nested else None
    parser.add_argument(
        "--config", type=Path, default=none, metavar="FILE", help="TOML file over the defaults of bullring.toml"
    )
    parser.add_argument("--data", type=Path, default=none, metavar="DIR", help="data folder: node.data_dir")
    parser.add_argument(
        "--set",
        action="append",
        default=argparse.SUPPRESS if nested else [],
        metavar="KEY=VALUE",
        help="one key, for instance node.mode=D0; repeatable",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS if nested else False,
        help="answer in JSON, one object a line",
    )


def duration_s(text: str) -> float:
    """Return a time to go on for, as argparse wants it."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text}: must be a number of seconds above 0, at most {SECONDS_MAX}")
    return value


def config_of(options: argparse.Namespace) -> Config:
    """Return the configuration that the options choose. Raises ConfigError."""
    overrides = dict(_override(text) for text in options.set)
    if options.data is not None:
        overrides["node.data_dir"] = str(options.data)
    return load(options.config, overrides)


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: must be KEY=VALUE")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def emit(rows: Sequence[JsonLine], *, as_json: bool, empty: str = "none") -> None:
    """Print one JSON object a line, or a table."""
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif not rows:
        print(empty)
    else:
        print(table(rows))


def emit_one(row: JsonLine, *, as_json: bool) -> None:
    """Print one JSON object, or one `name: value` a line."""
    if as_json:
        print(json.dumps(row))
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        print(f"{name + ':':<{width + 2}}{_cell(value)}")


def table(rows: Sequence[JsonLine]) -> str:
    names = list(rows[0])
    cells = [names, *[[_cell(row.get(name)) for name in names] for row in rows]]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    numeric = [all(isinstance(row.get(name), int | float) for row in rows) for name in names]
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if right else f"{cell:<{width}}"
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, dict):
        # Of balances: "BTC available=1, held=0; USDT available=5, held=0".
        nested = any(isinstance(each, dict) for each in value.values())
        if nested:
            return "; ".join(f"{name} {_cell(each)}" for name, each in value.items())
        return ", ".join(f"{name}={each}" for name, each in value.items()) or "none"
    return str(value)


def progress(text: str) -> None:
    """Say what is going on: on standard error, so that standard output stays what was asked for."""
    print(text, file=sys.stderr, flush=True)
