"""What a section of the configuration is: a frozen dataclass whose fields say what is allowed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from scripts.exit_codes import CommandError, ExitCode

PORT_MAX = 65535
ADDRESS = r"(\[[0-9a-fA-F:]+\]|[^:\[\]]+):[0-9]{1,5}"


class ConfigError(CommandError):
    """The configuration cannot be used: which key, which value, which limit."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.CONFIGURATION)


def number(low: int, high: int, *, power_of_two: bool = False) -> Any:
    return field(metadata={"low": low, "high": high, "power_of_two": power_of_two})


def choice(*values: str) -> Any:
    return field(metadata={"choices": values})


def text(pattern: str, limit: str) -> Any:
    return field(metadata={"pattern": pattern, "limit": limit})


class Section:
    """A table of the file. Subclasses are frozen dataclasses; their field metadata says what is allowed."""

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            _check(entry.metadata, getattr(self, entry.name), entry.name)


def _check(rule: Mapping[str, Any], value: Any, key: str) -> None:
    if "low" in rule:
        if not rule["low"] <= value <= rule["high"]:
            raise ConfigError(f"{key} = {value}: must be {rule['low']}..{rule['high']}")
        if rule["power_of_two"] and value & (value - 1):
            raise ConfigError(f"{key} = {value}: must be a power of two, for instance {1 << value.bit_length()}")
    if "choices" in rule and value not in rule["choices"]:
        raise ConfigError(f"{key} = {value!r}: must be one of {', '.join(rule['choices'])}")
    if "pattern" in rule and re.fullmatch(rule["pattern"], value) is None:
        raise ConfigError(f"{key} = {value!r}: must be {rule['limit']}")


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of "HOST:PORT"."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def check_port(text: str, key: str, *, low: int = 0) -> None:
    if text and not low <= split_address(text)[1] <= PORT_MAX:
        raise ConfigError(f"{key} = {text!r}: the port must be {low}..{PORT_MAX}")
