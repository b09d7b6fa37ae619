"""The API as data: parameters and endpoints. REST routes, WebSocket methods and OpenAPI all come from here."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gateway.web.auth import to_us
from gateway.web.decimals import NUMBER
from gateway.web.errors import ApiError, bad_symbol, bad_value, empty, illegal, missing
from gateway.web.reference import Instrument, Key

if TYPE_CHECKING:
    from gateway.web.gateway import Gateway

INTEGER = r"^-?[0-9]{1,19}$"
CLIENT_ID = r"^[.A-Z:/a-z0-9_-]{1,36}$"
INT64_MAX = (1 << 63) - 1
SYMBOL = r"^[A-Z0-9._-]{1,24}$"
_NUMBER, _INTEGER = re.compile(NUMBER), re.compile(INTEGER)


class Security(StrEnum):
    """What a request must bring. The signed ones also name the permission of the key."""

    NONE = "NONE"
    USER_DATA = "USER_DATA"  # signed, permission read
    TRADE = "TRADE"  # signed, permission trade
    USER_STREAM = "USER_STREAM"  # the key, no signature


class Kind(StrEnum):
    STRING = "string"
    DECIMAL = "decimal"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRINGS = "strings"  # a JSON array of texts
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Param:
    name: str
    kind: Kind = Kind.STRING
    required: bool = False
    choices: tuple[str, ...] = ()
    low: int | None = None
    high: int | None = None
    clamp: bool = False  # above high counts as high
    pattern: str = ""
    bad_code: tuple[int, str] | None = None  # of a value that is no choice
    doc: str = ""

    def parse(self, text: Any) -> Any:
        """Return the value of a text. Raises ApiError."""
        if text == "":
            raise empty(self.name)
        match self.kind:
            case Kind.INTEGER:
                return self._integer(str(text))
            case Kind.DECIMAL:
                if not _NUMBER.match(str(text)):
                    raise illegal(self.name, NUMBER)
                return str(text)
            case Kind.BOOLEAN:
                if str(text).lower() not in ("true", "false"):
                    raise bad_value(self.name, "It must be true or false.")
                return str(text).lower() == "true"
            case Kind.STRINGS:
                return self._strings(text)
            case Kind.JSON:
                return self._json(text)
        return self._string(str(text))

    def _integer(self, text: str) -> int:
        if not _INTEGER.match(text) or not -INT64_MAX <= int(text) <= INT64_MAX:
            raise illegal(self.name, INTEGER)
        value = int(text)
        if self.high is not None and value > self.high and self.clamp:
            return self.high
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            raise bad_value(self.name, f"It must be {self.low}..{self.high if self.high is not None else ''}.")
        return value

    def _string(self, text: str) -> str:
        if self.choices and text not in self.choices:
            if self.bad_code is not None:
                raise ApiError(*self.bad_code, details={"field": self.name, "allowed": list(self.choices)})
            raise bad_value(self.name, f"It must be one of {', '.join(self.choices)}.")
        if self.pattern and not re.match(self.pattern, text):
            raise illegal(self.name, self.pattern)
        return text

    def _json(self, text: Any) -> Any:
        if not isinstance(text, str):
            return text
        try:
            return json.loads(text)
        except ValueError:
            raise ApiError(-1135, "JSON Request is invalid.", details={"field": self.name}) from None

    def _strings(self, text: Any) -> list[str]:
        value = self._json(text)
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            raise illegal(self.name, '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$')
        if len(set(value)) != len(value):
            raise ApiError(-1151, "Symbol is present multiple times in the list.", details={"field": self.name})
        return value


@dataclass(slots=True)
class Call:
    """One request on its way: what was asked, by whom, and what the answer's headers shall say."""

    gateway: Gateway
    params: Mapping[str, Any]  # as sent: texts, or JSON values on a socket
    values: dict[str, Any] = field(default_factory=dict)  # parsed
    key: Key | None = None
    deadline_us: int = 0
    microseconds: bool = False
    address: str = ""
    payer: str = ""  # whose budget the weight comes from: the address, or the key once its signature is good
    headers: dict[str, str] = field(default_factory=dict)
    order_count: int = 0  # orders this request has counted

    @property
    def account(self) -> int:
        assert self.key is not None  # signed endpoints only
        return self.key.account

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def need(self, name: str) -> Any:
        """Return a value that this kind of request must have. Raises ApiError -1102."""
        if name not in self.values:
            raise missing(name)
        return self.values[name]

    def instrument(self, name: str = "symbol") -> Instrument:
        """Return the pair that a parameter names. Raises ApiError -1102, -1121."""
        found = self.gateway.reference.by_symbol.get(self.need(name))
        if found is None:
            raise bad_symbol()
        return found

    def time_range(self) -> tuple[int | None, int | None]:
        """Return [start, end) in ns of startTime and endTime, which is inclusive. Raises ApiError -1102."""
        start, end = self.get("startTime"), self.get("endTime")
        if start is not None and end is not None and to_us(end) < to_us(start):
            raise ApiError(-1102, "Start time is greater than end time.")
        end_us = None if end is None else to_us(end) + (1 if to_us(end) == end else 1000)
        # Whatever lies behind the last nanosecond that 64 bits have is as good as that one.
        return (
            None if start is None else min(to_us(start) * 1000, INT64_MAX),
            None if end_us is None else min(end_us * 1000, INT64_MAX),
        )

    def time(self, ns: int) -> int:
        return ns // (1000 if self.microseconds else 1_000_000)


Handler = Callable[[Call], Awaitable[Any]]
Weight = int | Callable[[Mapping[str, Any]], int]


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    path: str
    summary: str
    handler: Handler
    params: tuple[Param, ...] = ()
    socket: str = ""  # method name on the WebSocket API
    security: Security = Security.NONE
    weight: Weight = 1
    free_on_success: bool = False  # placing, changing and canceling cost weight only when they fail
    never_limited: bool = False  # cancels
    answer: str = "object"  # or array; for the schema
    by_name: dict[str, Param] = field(init=False)
    required: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {param.name: param for param in self.params})
        object.__setattr__(self, "required", tuple(param.name for param in self.params if param.required))

    def cost(self, params: Mapping[str, Any]) -> int:
        return self.weight if isinstance(self.weight, int) else self.weight(params)

    def parse(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parsed values; parameters nobody knows are left alone. Raises ApiError."""
        values = {}
        known = self.by_name
        for name, text in params.items():
            if name in known and text is not None:
                values[name] = known[name].parse(text)
        for name in self.required:
            if name not in values:
                raise missing(name)
        return values


# Parameters that many endpoints share.
SYMBOL_REQUIRED = Param("symbol", required=True, pattern=SYMBOL, doc="pair, for instance BTCUSDT")
SYMBOL_OPTIONAL = Param("symbol", pattern=SYMBOL, doc="pair; without it all")
SYMBOLS = Param("symbols", Kind.STRINGS, doc='pairs, as ["BTCUSDT","ETHUSDT"]')
START_TIME = Param("startTime", Kind.INTEGER, low=0, doc="ms or us since the epoch")
END_TIME = Param("endTime", Kind.INTEGER, low=0, doc="ms or us since the epoch")
FROM_ID = Param("fromId", Kind.INTEGER, low=0)
ORDER_ID = Param("orderId", Kind.INTEGER, low=0)
LIMIT_1000 = Param("limit", Kind.INTEGER, low=1, high=1000, clamp=True, doc="default 500, at most 1000")
