"""TOML to a Config: the defaults, the operator's file over them, single keys over both."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from scripts.config.derived import derive, resolve_paths
from scripts.config.section import ConfigError, Section
from scripts.config.whole import Config
from scripts.exit_codes import CommandError, ExitCode

CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULTS_PATH = CHECKOUT / "scripts" / "bullring.toml"


def load(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read the defaults, the operator's file over them, and `overrides` ("node.mode": "D0") over both.

    Raises ConfigError naming key, value and limit.
    """
    tables = _read(DEFAULTS_PATH)
    resolve_paths(tables, default_base())
    if path is not None:
        own = _read(path)
        _reject_unknown(own, Config, "")
        resolve_paths(own, path.resolve().parent)
        _merge(tables, own)
    for dotted, value in (overrides or {}).items():
        nested: dict[str, Any] = {}
        target = nested
        *parents, key = dotted.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[key] = value
        _reject_unknown(nested, Config, "")
        resolve_paths(nested, Path.cwd())
        _merge(tables, nested)
    return from_tables(derive(tables))


def from_tables(tables: Mapping[str, Any]) -> Config:
    """Build a Config from complete tables; the inverse of Config.as_tables. Raises ConfigError."""
    config = _build(Config, tables, "")
    assert isinstance(config, Config)
    return config


def default_base() -> Path:
    """Return what relative paths of the defaults are relative to: the checkout, else the current folder."""
    return CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else Path.cwd()


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise CommandError(f"cannot read the configuration {path}: {error.strerror}", ExitCode.NO_INPUT) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _merge(base: dict[str, Any], own: Mapping[str, Any]) -> None:
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _reject_unknown(table: Mapping[str, Any], kind: type, prefix: str) -> None:
    known = get_type_hints(kind)
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        if key not in known:
            raise ConfigError(f"unknown key {dotted}{_nearest(dotted)}")
        if _is_section(known[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"{dotted} = {value!r}: must be a table [{dotted}]")
            _reject_unknown(value, known[key], f"{dotted}.")


def _nearest(dotted: str) -> str:
    keys = known_keys()
    found = difflib.get_close_matches(dotted, keys, n=1, cutoff=0.5)
    if not found:
        leaf = dotted.rpartition(".")[2]
        leaves = {key.rpartition(".")[2]: key for key in keys}
        found = [leaves[name] for name in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.5)]
    return f"; did you mean {found[0]}?" if found else "; bullring.toml lists every key"


def known_keys(kind: type = Config, prefix: str = "") -> list[str]:
    """Return every dotted key there is."""
    keys: list[str] = []
    for name, hint in get_type_hints(kind).items():
        if _is_section(hint):
            keys += known_keys(hint, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Section)


def _build(kind: type, table: Mapping[str, Any], prefix: str) -> Section:
    values: dict[str, Any] = {}
    _reject_unknown(table, kind, prefix)
    for name, hint in get_type_hints(kind).items():
        dotted = f"{prefix}{name}"
        if name not in table:
            raise ConfigError(f"missing key {dotted}")
        values[name] = (
            _build(hint, table[name], f"{dotted}.") if _is_section(hint) else _typed(hint, table[name], dotted)
        )
    try:
        section = kind(**values)
    except ConfigError as error:
        # The section knows its field only by its own name.
        message = str(error)
        raise ConfigError(message if "." in message.split(" ", 1)[0] else prefix + message) from None
    assert isinstance(section, Section)
    return section


def _typed(hint: Any, value: Any, key: str) -> Any:
    if hint == tuple[int, ...] and _is_list(value, int):
        return tuple(value)
    if hint == tuple[str, ...]:
        if _is_list(value, str):
            return tuple(value)
        raise ConfigError(f"{key} = {value!r}: must be a list of texts")
    if hint == tuple[tuple[int, ...], ...] and isinstance(value, list | tuple):
        if all(_is_list(group, int) for group in value):
            return tuple(tuple(group) for group in value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    names = {int: "a whole number", str: "a text", bool: "true or false"}
    raise ConfigError(f"{key} = {value!r}: must be {names.get(hint, 'a list of whole numbers')}")


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(type(entry) is kind for entry in value)
